"""Label maps: colors and regions by hand, the objective against the float64 twin, the programs end to end."""

import io
import json
import re

import jax
import numpy as np
import pytest
import reference
from PIL import Image, ImageDraw

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images import label_maps, masks
from nst_jax.launchers import nst
from nst_jax.launchers.flags import run
from nst_jax.objective import objective, tiling
from nst_jax.objective.weights import coefficients
from nst_jax.runs import request
from nst_jax.runs.input_files import Pictures
from nst_jax.runs.problem import make_problem
from nst_jax.runs.transfer import stylize

pytestmark = pytest.mark.usefixtures("optax_promotion")

LOW = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_1",)}  # quick to compile
RED, GREEN, BLUE, GRAY, WHITE = (200, 30, 30), (30, 180, 60), (20, 60, 220), (128, 128, 128), (255, 255, 255)


def plain(*columns, height=12, wide=8):
    """Return stripes of these colors."""
    return np.repeat(np.uint8(columns), wide, 0)[None].repeat(height, 0)


def found(rgb, **options):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, options.pop("format", "PNG"), **options)
    with Image.open(file) as image:
        return label_maps.find(images.Source(np.asarray(image.convert("RGB")), None), "m.png")


def discs(height, width, size, *colors):
    """Return overlapping discs at some size, their edges smooth, and sharp."""
    image = Image.new("RGB", (4 * width, 4 * height), colors[0])
    for k, color in enumerate(colors[1:], 1):
        x, y, r = 4 * width * k / len(colors), 4 * height * (0.3 + 0.4 * (k % 2)), 0.6 * height
        ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=color)
    resized = [
        np.asarray(image.resize(size, how)) for how in (Image.Resampling.BOX, Image.Resampling.NEAREST)
    ]
    return resized[0], resized[1]


# What is seen in a file


def test_colors_come_by_area_and_each_pixel_has_its_own():
    seen = found(plain(RED, BLUE, BLUE, GREEN, BLUE, GREEN))
    assert seen.names == ["#143cdc", "#1eb43c", "#c81e1e"]
    np.testing.assert_array_equal(seen.numbers, [np.repeat([2, 0, 0, 1, 0, 1], 8)] * 12)
    assert seen.told() == "#143cdc (50 %), #1eb43c (33 %), #c81e1e (17 %)"
    assert seen.told([2]) == "#c81e1e (17 %)"


@pytest.mark.parametrize("quality", [None, 95, 75, 40])
def test_neither_smooth_edges_nor_jpeg_make_colors_or_lines_of_a_third_one(quality):
    """Gray is between black and white, and has a disc of its own."""
    smooth, sharp = discs(200, 300, (300, 200), (0, 0, 0), WHITE, GRAY, RED, (240, 220, 40))
    seen = found(smooth, **({"format": "JPEG", "quality": quality} if quality else {}))
    assert len(seen.colors) == 5
    wrong = np.abs(seen.colors[seen.numbers].astype(int) - sharp).max(-1) > label_maps.NEAR
    assert wrong.mean() < 0.01
    gray = (np.abs(sharp - 128.0) <= 2).all(-1)
    stray = wrong & (np.abs(seen.colors[seen.numbers] - 128.0) <= 4).all(-1)
    assert stray.sum() < 0.02 * gray.sum()


def test_near_colors_are_one_and_small_ones_join():
    near = found(plain(RED, BLUE, (200 - label_maps.NEAR, 30, 30)))
    assert near.names == ["#c01e1e", "#143cdc"]  # the mean
    assert len(found(plain(RED, BLUE, (200 - label_maps.NEAR - 4, 30, 30))).colors) == 3
    rgb = np.full((100, 100, 3), BLUE, np.uint8)
    rgb[50:, 50:] = RED
    rgb[:6, :6] = GREEN  # 25 of its pixels have no other neighbors: more than LEAST of them
    assert len(found(rgb).colors) == 3
    rgb[4:6, :6] = rgb[:6, 4:6] = BLUE
    rgb[:4, :4] = (60, 60, 200)  # 9 of 10,000
    assert found(rgb).names == ["#143cdc", "#c81e1e"]


def test_a_line_of_two_pixels_joins_its_neighbors():
    rgb = np.full((20, 20, 3), BLUE, np.uint8)
    rgb[:, 9:11], rgb[:, 15:] = RED, RED
    np.testing.assert_array_equal(found(rgb).numbers, [[0] * 15 + [1] * 5] * 20)


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket", "night", "glass", "waves", "ink"])
def test_photographs_and_paintings_are_refused(name):
    with pytest.raises(InputError) as error:
        label_maps.load(f"example:{name}")
    refusal = (
        rf"example:{name}: a label map is made of at most 64 plain colors; \d+% of it is of other colors, .*"
    )
    assert re.fullmatch(refusal, str(error.value))


@pytest.mark.parametrize(("count", "refused"), [(64, False), (65, True)])
def test_more_than_64_colors_are_refused(count, refused):
    steps = np.arange(count)
    rgb = plain(*np.stack([steps % 5 * 50, steps // 5 % 5 * 50, steps // 25 * 50], -1))
    if refused:
        with pytest.raises(InputError, match=r"at most 64 plain colors; it has more"):
            found(rgb)
    else:
        assert len(found(rgb).colors) == count


def test_see_through_is_white_and_modes_make_no_difference(tmp_path):
    rgba = np.dstack([plain(RED, BLUE), np.full((12, 16), 255, np.uint8)])
    rgba[:, :8, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert set(label_maps.load(str(tmp_path / "a.png")).names) == {"#ffffff", "#143cdc"}
    levels = np.repeat(np.uint8([0, 90, 255]), 8)[None].repeat(12, 0)
    for mode in ("L", "P", "I;16"):
        image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels)
        (image.convert(mode) if mode == "P" else image).save(tmp_path / "g.png")
        assert set(label_maps.load(str(tmp_path / "g.png")).names) == {"#000000", "#5a5a5a", "#ffffff"}


def test_of_a_large_map_some_pixels_are_looked_at(monkeypatch):
    monkeypatch.setattr(label_maps, "MAX_COUNTED_PIXELS", 400)
    seen = found(plain(RED, BLUE, BLUE, wide=20, height=60))
    assert seen.numbers.shape == (20, 20)
    np.testing.assert_array_equal(seen.numbers, [[1] * 7 + [0] * 13] * 20)
    assert found(plain(RED, wide=2000, height=1)).names == ["#c81e1e"]


# Which part goes with which region


def test_colors_match_where_they_are_near():
    content = found(plain(RED, BLUE, BLUE))
    style = found(plain(GREEN, BLUE, (190, 38, 30), (10, 60, 230)))
    assert style.names == ["#0f3ce1", "#1eb43c", "#be261e"]
    np.testing.assert_array_equal(
        label_maps.match(content, style, "s.png", "c.png"), [0, label_maps.LACKING, 1]
    )


def test_a_color_that_a_style_lacks_is_named_with_its_area():
    content, style = found(plain(RED, BLUE, BLUE, GREEN)), found(plain(GREEN, WHITE, WHITE))
    with pytest.raises(InputError) as error:
        label_maps.match(content, style, "s.png", "c.png")
    assert str(error.value) == (
        "s.png: each color of c.png; it lacks #143cdc (50 %), #c81e1e (25 %); "
        "it has #ffffff (67 %), #1eb43c (33 %)"
    )


def test_masks_by_hand():
    content = np.array([[7, 7, 5, 5], [7, 5, 5, 5]])
    style = np.array([[5, 7], [0, 7]])
    made = label_maps.make_masks(content, [style, None], size=(1, 2), style_sizes=[(2, 4), (3, 3)])
    assert made.content is None
    np.testing.assert_array_equal(made.styles, [[[0.25, 1]], [[0.75, 0]]] * 2)
    np.testing.assert_array_equal(made.sources[0], [[1, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(made.sources[1], [[0, 0, 1, 1], [0, 0, 1, 1]])
    assert made.sources[2:] == [None, None]
    assert made.labels == [masks.Label(0, "5"), masks.Label(0, "7"), masks.Label(1, "5"), masks.Label(1, "7")]
    named = label_maps.make_masks(content // 7, [style // 7], names=["#000000", "#ffffff"])
    np.testing.assert_array_equal(named.styles, [content == 5, content == 7])
    assert [str(label) for label in named.labels] == ["1 #000000", "1 #ffffff"]


# The objective


@pytest.fixture
def scene(rng):
    """Return a content, two styles, and masks by a map of the content and one of the first style."""
    content, one, other = (rng.random((*size, 3), np.float32) for size in ((40, 52), (33, 47), (36, 31)))
    regions = (np.add.outer(np.arange(40), np.arange(52)) > 40).astype(int) + 1
    regions[:9, :12] = 3
    parts = np.arange(33 * 47).reshape(33, 47) // 47 // 11 + 1
    return content, [one, other], regions, label_maps.make_masks(regions, [parts, None])


def test_terms_and_gradient_equal_the_float64_twin(params, weights, scene, rng):
    """Of three regions, each with a third of its style's share of the mix."""
    content, styles, regions, made = scene
    options = {"style_weight": 3e6, "tv_weight": 2e-3, "style_mix": (3.0, 1.0)}
    problem = make_problem(params, content, styles, Config(**options, **LOW), masks=made)
    image, targets = rng.random(content.shape, np.float32), problem.targets().replace(background=None)
    given = params, image, targets, coefficients(problem.weights), problem.spec
    whole = jax.jit(objective.evaluate, static_argnames="spec")(*given)
    rows = np.arange(33) // 11 + 1
    parts = [np.repeat((rows == label)[:, None], 47, 1) for label in (1, 2, 3)]
    twin, gradient = reference.objective(
        weights.arrays,
        image,
        content,
        [styles[0]] * 3 + [styles[1]] * 3,
        beta=3e6,
        gamma=2e-3,
        content_layers={"conv2_1": 1.0},
        style_layers=LOW["style_layers"],
        style_weights=dict.fromkeys(LOW["style_layers"], 0.5),
        mix=[0.25] * 3 + [0.25 / 3] * 3,
        regions=[regions == label for label in (1, 2, 3)] * 2,
        sources=[*parts, None, None, None],
    )
    losses = objective.summarize(*jax.device_get((whole.terms, problem.weights)))
    for term in ("total", "content", "style", "tv"):
        np.testing.assert_allclose(losses[term], twin[term], rtol=1e-4, err_msg=term)
    assert np.linalg.norm(whole.gradient - gradient) / np.linalg.norm(gradient) < 1e-4

    spec = problem.spec._replace(tile=24)
    windows = problem.replace(spec=spec).targets().replace(background=None)
    found = jax.jit(tiling.evaluate, static_argnames="spec")(params, image, windows, given[3], spec)
    assert np.linalg.norm(found.gradient - whole.gradient) / np.linalg.norm(gradient) < 1e-5


def test_one_label_everywhere_is_no_label(params, scene):
    content, styles, regions, _ = scene
    one = label_maps.make_masks(np.ones_like(regions), [np.ones((33, 47), int), None])
    config = Config(iterations=0, init="noise", style_mix=(2.0, 1.0), **LOW)
    plain, labeled = (stylize(params, content, styles, config=config, masks=made) for made in (None, one))
    for term in ("total", "content", "style", "tv"):
        np.testing.assert_allclose(labeled.losses[term], plain.losses[term], rtol=1e-6)
    np.testing.assert_allclose(labeled.image, plain.image, atol=1e-7)
    assert [one["label"] for one in labeled.losses["by_style"]] == ["1", "1"]


def test_other_maps_of_as_many_labels_compile_nothing(params, scene, compilations):
    content, styles, regions, made = scene
    others = label_maps.make_masks(regions[::-1], [1 + np.arange(33 * 47).reshape(33, 47) % 3, None])
    counts = []
    for masks_ in (made, others):
        stylize(params, content, styles, config=Config(iterations=1, **LOW), masks=masks_)
        counts.append([compilations(name) for name in ("initial_state", "run_steps", "style_statistics")])
    assert counts[0] == counts[1]
    assert counts[0][1] == 1


def test_maps_for_some_styles_are_refused(params, scene):
    content, styles, regions, _ = scene
    with pytest.raises(InputError, match="`style_labels`: one for each of the 2 styles; got 1"):
        stylize(params, content, styles, config=Config(**LOW), masks=label_maps.make_masks(regions, [None]))


# The programs


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs nst in a folder with small pictures: exit code, lines on both outputs."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    for name, size in {"c.png": (24, 32), "s.png": (32, 28), "t.png": (30, 40)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(name)
    for name, rgb in {
        "cl.png": plain(RED, BLUE, height=12, wide=8),
        "sl.png": plain(BLUE, RED, GREEN, WHITE, height=32, wide=7),
        "tl.png": plain(BLUE, RED, height=30, wide=20),
        "green.png": plain(GREEN, BLUE, height=32, wide=14),
        "left.png": plain(WHITE, (0, 0, 0), (0, 0, 0), (0, 0, 0), height=24),
    }.items():
        Image.fromarray(rgb).save(name)
    speck = plain(RED, BLUE, height=96, wide=64)
    speck[:12, 100:112] = GREEN
    Image.fromarray(speck).save("speck.png")
    corner = plain(BLUE, height=32, wide=28)
    corner[:4, :4] = RED
    Image.fromarray(corner).save("corner.png")

    def call(*arguments):
        layers = [f"--{name}={','.join(layers)}" for name, layers in LOW.items()]
        code = run(nst.PROGRAM, ["--devices=1", *layers, *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_doodle(call, caplog):
    """No content: the map gives the size; a second style without a map; scales; the preview; the report."""
    arguments = ["--content_labels=tl.png", "--style=s.png", "--style_labels=sl.png", "--style=t.png"]
    arguments += ["--style_labels=", "--init=noise", "--content_weight=0", "--size=32", "--scales=16,32"]
    files = ["--output=a.png", "--report=r.json", "--mask_preview=m.png"]
    code, out, _ = call(*arguments, "--iterations=2,1", *files)
    assert (code, out) == (0, ["m.png", "a.png", "r.json"])
    assert pixels("a.png").shape == (24, 32, 3)
    with open("r.json") as file:
        report = json.load(file)
    listed = [(one["picture"], one["label"]) for one in report["losses"]["final"]["by_style"]]
    assert listed == [(1, "#143cdc"), (1, "#c81e1e"), (2, "#143cdc"), (2, "#c81e1e")]
    assert report["config"]["style_mix"] == [0.5, 0.5]
    assert json.loads(images.read_settings("a.png"))["config"]["style_labels"] == ["sl.png", ""]
    assert "tl.png: #143cdc (50 %), #c81e1e (50 %)" in caplog.text
    assert re.search(r"sl.png: not used, as tl.png lacks it: #\w+ \(25 %\), #\w+ \(25 %\)", caplog.text)
    preview = pixels("m.png").astype(int)
    assert preview.shape == (24 + 2 * 22, 32, 3)
    np.testing.assert_array_equal(preview[24 + 10, 10], BLUE)
    np.testing.assert_array_equal(preview[24 + 32, 10], RED)
    assert preview[:24, :16, 2].mean() > preview[:24, :16, 0].mean() + 50
    assert preview[:24, 16:, 0].mean() > preview[:24, 16:, 2].mean() + 50


def test_labels_within_a_mask_in_the_contents_colors(call):
    Image.fromarray(plain(RED, BLUE, height=48).transpose(1, 0, 2).repeat(4, 1)[:, :64]).resize(
        (32, 24)
    ).save("rows.png")
    arguments = ["--content=c.png", "--style=s.png", "--content_mask=left.png", "--content_labels=rows.png"]
    arguments += ["--style_labels=sl.png", "--preserve_color=match", "--size=32", "--iterations=1"]
    assert call(*arguments, "--output=a.png")[0] == 0
    np.testing.assert_array_equal(pixels("a.png")[:, 8:], pixels("c.png")[:, 8:])
    assert (pixels("a.png")[:, :4] != pixels("c.png")[:, :4]).any(-1).mean() > 0.9


def test_what_a_run_depends_on_names_the_labels():
    made = label_maps.make_masks(np.array([[1, 2]]), [np.array([[2, 1]])])
    style = np.zeros((1, 2, 3), np.float32)
    assert [*request.by_name(Pictures(None, [style], None, made))] == [
        *("--content 1", "--style 1", "--init 1", "the pixels of --content_mask"),
        *(f"the pixels of --{name}" for name in ("content_labels 1", "content_labels 2")),
        *(f"the pixels of --{name}" for name in ("style_labels 1 1", "style_labels 1 2")),
    ]


BOTH = ["--content_labels=cl.png", "--style_labels=sl.png"]
WRONG = {
    "no labels of the style": (
        BOTH[:1],
        "--content_labels, --style_labels: both, or neither; only --content_",
    ),
    "no labels of the content": (
        BOTH[1:],
        "--content_labels, --style_labels: both, or neither; only --style_",
    ),
    "nothing but empty names": ([BOTH[0], "--style_labels="], "--content_labels, --style_labels: both, or"),
    "masks beside labels": (
        [*BOTH, "--style_mask=left.png"],
        "--style_mask: not with label maps, .*; got both",
    ),
    "sources beside labels": ([*BOTH, "--style_source_mask=left.png"], "--style_source_mask: not with label"),
    "one for two styles": ([*BOTH, "--style=t.png"], "--style_labels: one for each --style, 2 .*; got 1"),
    "a photograph": (
        ["--content_labels=c.png", BOTH[1]],
        "c.png: a label map is made of at most 64 plain colors",
    ),
    "lacking": (
        [BOTH[0], "--style_labels=green.png"],
        r"green.png: each color of cl.png; it lacks #c81e1e \(50 %\);",
    ),
    "content's aspect": (
        ["--content_labels=green.png", BOTH[1]],
        "green.png: a label map has the aspect of the content, .*; it is 28x32, the content 32x24",
    ),
    "style's aspect": ([BOTH[0], "--style_labels=tl.png"], "tl.png: a label map has the aspect of its style"),
    "speck": (
        ["--content_labels=speck.png", BOTH[1], "--style_layers=conv1_1,conv4_1"],
        r"--content_labels #1eb43c: the region covers at least one position of conv4_1 \(8x8 pixels\); 0.14 of one; ",
    ),
    "speck of a style": (
        [BOTH[0], "--style_labels=corner.png", "--style_layers=conv1_1,conv4_1"],
        r"--style_labels 1 #c81e1e: the region covers at least one .*; 0.25 of one; .* a style with a longest side",
    ),
    "outside the mask": (
        [*BOTH, "--content_mask=left.png"],
        "--content_labels #143cdc within --content_mask: the region covers at least one .*; 0 of one",
    ),
    "over a map": ([*BOTH, "--output=cl.png"], "each a file of its own; cl.png is named twice"),
    "plain region": (
        [*BOTH, "--content=green.png", "--content_labels=g.png", "--preserve_color=luma"],
        r"--preserve_color=luma: a content that varies in brightness; .* \(style 1 #",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_one_line(call, case):
    Image.fromarray(plain(BLUE, RED, height=32, wide=14)).save("g.png")
    arguments, message = WRONG[case]
    code, out, err = call(
        "--quiet",
        "--content=c.png",
        "--style=s.png",
        "--size=32",
        "--iterations=1",
        "--output=a.png",
        *arguments,
    )
    assert (code, out, len(err)) == (2, [], 1), err
    assert re.search(f"^error: {message}" if "named twice" not in message else message, err[0]), err[0]
