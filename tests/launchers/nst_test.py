"""The program nst, end to end, as its users call it: in process, but for what needs a process of its own."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
import reference
import tifffile
from PIL import Image

import nst_jax
from nst_jax import images
from nst_jax.errors import RENAMED, NotWritten
from nst_jax.images import io as image_io
from nst_jax.launchers import nst, progress_bar
from nst_jax.launchers.flags import run
from nst_jax.losses.matting import EPSILON
from nst_jax.options import fields_of
from nst_jax.runs import job, outputs
from nst_jax.runs.transfer import Progress
from nst_jax.system import device

pytestmark = pytest.mark.usefixtures("optax_promotion")

PAIR = ["--content=example:cat", "--style=example:waves"]
SHALLOW = ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]  # quick to compile
SMALL = ["--preset=gatys", "--size=48", "--iterations=3", *SHALLOW]


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs nst in an empty folder: exit code, lines on stdout, lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run(nst.PROGRAM, ["--quiet", "--devices=1", *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def read_json(path):
    with open(path) as file:
        return json.load(file, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def draw_mask(path, height, width, rows=slice(1, None), columns=slice(None)):
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    Image.fromarray(mask).save(path)
    return path


def write(path, height, width, rng):
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def test_writes_a_picture_a_report_and_a_plot_and_tells_their_names(call, tmp_path):
    code, out, err = call(*PAIR, *SMALL, "--output=a.png", "--report=a.json", "--plot=a.svg")
    assert (code, out, err) == (0, ["a.png", "a.json", "a.svg"], [])
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.png", "a.svg"]
    with Image.open("a.png") as picture:
        assert picture.size == (48, 32)  # the cat has 451x300
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


def test_the_report_keeps_its_contract(call):
    call(
        *PAIR,
        *SMALL,
        "--output=a.png",
        "--report=a.json",
        "--style_mix=2",
        "--content_layers=conv4_2,conv3_1",
    )
    report = read_json("a.json")
    assert list(report) == [
        *(
            "nst_jax",
            "config",
            "weights",
            "image",
            "losses",
            "lpips",
            "scales",
            "history",
            "ended",
            "evaluations",
        ),
        *("seconds", "device", "precision", "depends_on", "peak_memory_bytes"),
    ]
    assert report["precision"] == "float32"  # what auto is on a CPU
    assert report["ended"] == "iterations"
    assert list(report["depends_on"]) == [
        *("nst_jax", "jax", "jaxlib", "numpy", "optax", "pillow"),
        *("platform", "kind", "count", "threads", "xla_flags", "convolutions", "tiles"),
    ]
    assert report["depends_on"]["count"] == 1
    assert report["depends_on"]["convolutions"] == "xla"  # in float32
    assert report["depends_on"]["tiles"] == [0]
    assert report["depends_on"]["threads"] >= 4  # one for each device there is
    assert report["config"]["content_layers"] == ["conv3_1", "conv4_2"]
    assert report["config"]["style_mix"] == [1.0]
    assert report["config"]["style_weight"] == 1e8
    assert report["config"]["output"] == "a.png"
    assert report["weights"]["network"] == "vgg16"
    assert report["weights"]["normalization"] == "torchvision"
    assert len(report["weights"]["sha256"]) == 64
    assert report["image"] == {"height": 32, "width": 48}
    for losses in report["losses"].values():
        assert list(losses) == [
            *("total", "content", "style", "tv", "weights", "content_by_layer", "style_by_layer", "by_style"),
        ]
        assert [list(one) for one in losses["by_style"]] == [["style", "style_by_layer"]]
        assert list(losses["content_by_layer"]) == ["conv3_1", "conv4_2"]
    assert report["history"]["step"] == [0, 1, 2, 3]
    assert report["history"]["scale"] == [1, 1, 1, 1]
    (scale,) = report["scales"]
    assert (scale["size"], scale["height"], scale["width"], scale["iterations"]) == (48, 32, 48, 3)
    assert report["config"]["iterations"] == [3]
    assert report["history"]["style"][0] == report["losses"]["initial"]["style"]
    assert report["history"]["total"][-1] == report["losses"]["final"]["total"]
    assert report["losses"]["final"]["total"] < report["losses"]["initial"]["total"]
    assert report["evaluations"] >= 4
    assert set(report["seconds"]) == {"compile", "optimize", "total", "per_evaluation"}
    assert report["device"]["platform"] == "cpu"
    assert report["peak_memory_bytes"] > 10**8


def test_a_photorealistic_run_tells_the_matting_of_its_picture(call):
    files = ("--output=a.png", "--report=a.json", "--plot=a.svg")
    code, _, err = call(*PAIR, *SMALL, *files, "--bit_depth=16", "--photorealistic", "--matting_weight=3e5")
    assert (code, err) == (0, [])
    report = read_json("a.json")
    content = images.resize(images.load("example:cat").rgb, 32, 48)
    matting, _ = reference.matting(images.load("a.png").rgb, content, EPSILON)
    final, history = report["losses"]["final"], report["history"]
    np.testing.assert_allclose(final["matting"], matting, rtol=1e-3)
    assert (final["weights"]["matting"], report["config"]["photorealistic"]) == (3e5, True)
    by_hand = sum(weight * final[term] for term, weight in final["weights"].items())
    np.testing.assert_allclose(final["total"], by_hand, rtol=1e-6)
    assert history["matting"][-1] == final["matting"] > 100 * history["matting"][0]


def test_no_iterations_give_the_terms_of_the_objective_for_files_of_the_asked_size(call, rng, weights):
    content, style = write("c.png", 40, 64, rng), write("s.png", 64, 33, rng)
    call(
        f"--content={content}",
        f"--style={style}",
        "--preset=gatys",
        "--size=64",
        "--iterations=0",
        "--output=o.png",
        "--report=r.json",
    )
    np.testing.assert_array_equal(pixels("o.png"), pixels(content))
    x, s = (np.float64(pixels(path)) / 255 for path in (content, style))
    twin, _ = reference.objective(weights.arrays, x, x, [s], alpha=1, beta=1e8, gamma=1e-3)
    losses = read_json("r.json")["losses"]
    for term in ("total", "content", "style", "tv"):
        np.testing.assert_allclose(losses["initial"][term], twin[term], rtol=1e-4, atol=1e-3)
    for layer, value in twin["style_by_layer"].items():
        np.testing.assert_allclose(losses["initial"]["style_by_layer"][layer], value, rtol=1e-4)
    assert losses["final"] == losses["initial"]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_second_run_gives_the_same_bytes(call, tmp_path, optimizer):
    for name in ("a.png", "b.png"):
        call(*PAIR, *SMALL, f"--optimizer={optimizer}", f"--output={name}", f"--report={name}.json")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    a, b = (read_json(f"{name}.png.json") for name in "ab")
    assert (a["losses"], a["history"]) == (b["losses"], b["history"])


def test_the_picture_holds_the_settings_that_made_it(call):
    call(*PAIR, *SMALL, "--output=a.webp", "--seed=5")
    settings = json.loads(images.read_settings("a.webp"))
    assert settings["config"]["seed"] == 5
    assert settings["config"]["style"] == ["example:waves"]
    assert len(settings["sha256"]["style"][0]) == 64


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "avif"])
def test_a_picture_names_no_folder_and_nothing_at_all_where_asked(call, tmp_path, rng, suffix):
    folder = tmp_path / "secret"
    folder.mkdir()
    content, style = write(folder / "c.png", 40, 64, rng), write(folder / "s.png", 64, 60, rng)
    mask = draw_mask(folder / "m.png", 40, 64)
    named = [f"--content={content}", f"--style={style}", f"--init={style}", f"--style_mask={mask}"]
    assert call(*named, *SMALL, f"--output=a.{suffix}", "--save_every=2")[0] == 0
    for name in (f"a.{suffix}", f"a.{suffix}.step000002.png"):
        assert b"secret" not in (tmp_path / name).read_bytes()
        told = json.loads(images.read_settings(name))
        assert [told["config"][flag] for flag in ("content", "style", "init")] == [
            "c.png",
            ["s.png"],
            "s.png",
        ]
        assert told["sha256"] == {
            **{"content": [sha256(content)], "style": [sha256(style)], "style_mask": [sha256(mask)]},
            "init": [sha256(style)],
        }
    assert call(*named, *SMALL, f"--output=a.{suffix}", "--save_every=2", "--no_settings")[0] == 0
    for name in (f"a.{suffix}", f"a.{suffix}.step000002.png"):
        assert images.read_settings(name) is None


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_picture_and_a_report_tell_makes_the_same_picture(call, tmp_path):
    draw_mask("m.png", 90, 135)
    options = ["--size=64", "--iterations=4", *SHALLOW, "--strength=0.3", "--style=example:ink"]
    options += ["--style_mask=", "--style_mask=m.png", "--style_mix=3,1"]
    assert call(*PAIR, *options, "--output=a.png", "--report=a.json")[0] == 0
    for told in (json.loads(images.read_settings("a.png")), read_json("a.json")):
        lines = []
        for name, value in told["config"].items():
            values = (
                value if name in ("style", "style_mask", "style_source_mask", "style_labels") else [value]
            )
            joined = (",".join(map(str, one)) if isinstance(one, list) else str(one) for one in values)
            lines += [f"--{name}={one}" for one in joined]
        (tmp_path / "flags").write_text("\n".join(lines))
        code, _, err = call("--flagfile=flags", "--output=b.png", "--report=")
        assert (code, err) == (0, [])
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_picture_for_print(call, tmp_path, rng, suffix):
    rgba = rng.integers(0, 256, (30, 50, 4), np.uint8)
    Image.fromarray(rgba).save("c.png")
    arguments = [
        "--content=c.png",
        "--style=example:ink",
        *SHALLOW,
        "--size=48",
        "--iterations=2",
        "--bit_depth=16",
    ]
    code, _, err = call(*arguments, "--dpi=300", "--save_every=1", f"--output=a.{suffix}", "--report=r.json")
    assert (code, err) == (0, [])
    with Image.open(f"a.{suffix}") as picture:
        assert picture.size == (48, 29)
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        assert picture.info["icc_profile"] == image_io._srgb_icc()
    assert json.loads(images.read_settings(f"a.{suffix}"))["config"]["size"] == 48
    assert read_json("r.json")["config"]["bit_depth"] == 16
    if suffix == "tif":
        samples = tifffile.imread("a.tif")
        assert (samples.dtype, samples.shape) == (np.uint16, (29, 48, 4))
        assert len(np.unique(samples % 257)) > 200  # more than 8 bits
    for name in (f"a.{suffix}.step000001.png", f"a.{suffix}.step000002.png"):
        assert (tmp_path / name).read_bytes()[24] == 16  # the depth in a PNG's header


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--size=48"], 2),
        (["--output_size=content"], 4),
        (["--output_size=content", "--bit_depth=16"], 7),
        (["--output_size=content", "--output=a.jpg"], 4),
    ],
)
def test_a_full_disk_is_refused_before_the_run(call, tmp_path, monkeypatch, rng, arguments, needed):
    write("c.png", 1000, 1000, rng)
    monkeypatch.setattr(job, "load_weights", lambda *_: pytest.fail("the run began"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(total=10**9, free=10**6))
    code, out, err = call(
        "--content=c.png", "--style=example:ink", "--iterations=1", "--output=a.png", *arguments
    )
    assert (code, out, len(err)) == (2, [], 1)
    assert f"must lie on a disk with {needed} MiB free, which it may need; 0 MiB are free" in err[0]
    assert sorted(os.listdir(tmp_path)) == ["c.png"]


def test_the_depth_is_checked_before_the_run(call, monkeypatch):
    monkeypatch.setattr(job, "load_weights", lambda *_: pytest.fail("the run began"))
    assert call(*PAIR, *SMALL, "--bit_depth=16", "--output=a.jpg")[0] == 2


def test_previews(call):
    _, out, _ = call(*PAIR, "--size=48", "--iterations=5", "--save_every=2", "--output=a.jpg")
    assert out == ["a.jpg.step000002.png", "a.jpg.step000004.png", "a.jpg"]
    assert size_of("a.jpg.step000004.png") == (48, 32)


LADDER = ["--size=64", "--scales=40,64", "--iterations=3,2", *SHALLOW]


@pytest.mark.parametrize("options", [[], ["--optimizer=adam", "--ema_decay=0.9"]])
def test_the_report_tells_of_every_rung(call, options):
    code, out, err = call(*PAIR, *LADDER, *options, "--output=a.png", "--report=r.json", "--plot=p.png")
    assert (code, out, err) == (0, ["a.png", "r.json", "p.png"], [])
    assert size_of("a.png") == (64, 43)
    report = read_json("r.json")
    shapes = [[scale[key] for key in ("size", "height", "width", "iterations")] for scale in report["scales"]]
    assert shapes == [[40, 27, 40, 3], [64, 43, 64, 2]]
    history = report["history"]
    assert history["step"] == [0, 1, 2, 3, 3, 4, 5]
    assert history["scale"] == [1, 1, 1, 1, 2, 2, 2]
    ends = [history["total"][n] for n in (0, 3, 4, 6)]
    assert [scale[key] for scale in report["scales"] for key in ("initial", "final")] == ends
    assert report["losses"]["initial"]["total"] == ends[2]  # one objective: the last scale's
    assert report["losses"]["final"]["total"] == ends[3] < ends[2]
    assert report["config"]["iterations"] == [3, 2]
    assert report["image"] == {"height": 43, "width": 64}


def test_previews_masks_and_first_pictures_of_a_ladder_have_the_size_of_the_output(call, rng):
    write("c.png", 60, 90, rng)
    draw_mask("m.png", 60, 90, columns=slice(0, 50))
    arguments = ["--content=c.png", "--style=example:ink", "--content_mask=m.png", *LADDER, "--init=noise"]
    code, out, _ = call(*arguments, "--save_every=1", "--output_size=content", "--output=a.png")
    previews = [f"a.png.step{step:06d}.png" for step in range(1, 6)]
    assert (code, out) == (0, [*previews, "a.png"])  # one at the border of two scales
    for name in out:
        assert size_of(name) == (90, 60)
        np.testing.assert_array_equal(pixels(name)[:, 50:], pixels("c.png")[:, 50:])
    draw_mask("t.png", 96, 78, slice(0, 50))
    texture = ["--style=example:glass", "--init=noise", "--content_weight=0", "--content_mask=t.png"]
    code, out, _ = call(*texture, *LADDER, "--mask_preview=p.png", "--output=b.png")
    assert (code, out) == (0, ["p.png", "b.png"])
    assert size_of("p.png") == (52, 64 + 22)


def test_progress_names_the_rung(call, caplog, monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0)
    run(nst.PROGRAM, ["--devices=1", *PAIR, *LADDER, "--output=a.png"])
    assert re.search(r"step 5/5 .*scale 2/2 64 px", caplog.text)
    assert re.search(r"step 1/5 .*scale 1/2 40 px", caplog.text)
    caplog.clear()
    run(nst.PROGRAM, ["--devices=1", *PAIR, *SMALL, "--output=a.png"])
    assert "scale" not in caplog.text


def test_stroke_size_and_style_aspect(call, rng, weights):
    """The style keeps its aspect, and half the scale is the half-size picture."""
    write("c.png", 40, 64, rng)
    style = write("s.png", 32, 24, rng)
    call("--content=c.png", f"--style={style}", "--preset=gatys", "--size=64", "--stroke_size=0.5", "--iterations=0",
         "--output=o.png", "--report=r.json")  # fmt: skip
    x, s = (np.float64(pixels(path)) / 255 for path in ("c.png", style))
    twin, _ = reference.objective(weights.arrays, x, x, [s])
    np.testing.assert_allclose(read_json("r.json")["losses"]["initial"]["style"], twin["style"], rtol=1e-4)


def test_several_styles_and_improvements(call):
    code, _, _ = call(*PAIR, "--style=example:ink", "--style_mix=1,3", *SHALLOW, "--activation_shift=-1",
                      "--style_layer_weights=geometric", *SMALL, "--output=a.png", "--report=r.json")  # fmt: skip
    report = read_json("r.json")
    assert code == 0
    assert report["config"]["style_mix"] == [0.25, 0.75]
    assert len(report["losses"]["final"]["style_by_layer"]) == 2


def test_texture_without_content_has_the_size_and_the_styles_aspect(call):
    code, _, _ = call("--style=example:glass", "--init=noise", "--content_weight=0", *SMALL, "--output=t.png")
    assert code == 0
    assert size_of("t.png") == (39, 48)  # the glass has 624x768


def test_output_size_and_alpha_come_from_the_content(call, rng):
    rgba = rng.integers(0, 256, (60, 90, 4), np.uint8)
    rgba[:30, :, 3] = 0
    Image.fromarray(rgba).save("c.png")
    call("--content=c.png", "--style=example:ink", *SMALL, "--output_size=content", "--output=a.png")
    with Image.open("a.png") as picture:
        assert picture.size == (90, 60)
        np.testing.assert_array_equal(np.asarray(picture)[..., 3], rgba[..., 3])
    call("--content=c.png", "--style=example:ink", *SMALL, "--output=b.png")
    with Image.open("b.png") as picture:
        assert picture.size == (48, 32)
        assert picture.mode == "RGBA"


@pytest.mark.parametrize("init", ["style", "noise", "first.png"])
def test_first_pictures(call, rng, init):
    write("first.png", 20, 20, rng)
    code, _, _ = call(*PAIR, "--size=48", "--iterations=0", f"--init={init}", "--output=a.png")
    assert code == 0
    first = pixels("a.png")
    if init == "noise":
        assert 70 < first.std() < 78  # uniform: 255 / sqrt(12)
    else:
        source = images.load("example:waves" if init == "style" else "first.png").rgb
        np.testing.assert_array_equal(first, images.to_uint8(images.resize(source, 32, 48)))


def test_two_styles_by_two_masks(call, rng):
    """The content is untouched outside, at the content's own size too; the preview shows who acts where."""
    write("c.png", 96, 144, rng)
    draw_mask("left.png", 48, 72, slice(12, 36), slice(6, 34))
    draw_mask("right.png", 192, 288, slice(48, 144), slice(150, 250))
    arguments = ["--content=c.png", "--style=example:ink", "--style=example:glass", "--style_mask=left.png",
                 "--style_mask=right.png", *SHALLOW, "--size=72", "--iterations=3", "--output_size=content"]  # fmt: skip
    code, out, _ = call(*arguments, "--mask_preview=m.png", "--output=a.png", "--report=r.json")
    assert (code, out) == (0, ["m.png", "a.png", "r.json"])
    before, after = pixels("c.png"), pixels("a.png")
    acts = np.zeros((96, 144), bool)
    acts[24:72, 12:68] = acts[24:72, 75:125] = True
    np.testing.assert_array_equal(after[~acts], before[~acts])
    assert (after[acts] != before[acts]).mean() > 0.9
    preview = pixels("m.png")
    assert preview.shape == (48 + 2 * 22, 72, 3)
    orange, blue = preview[20, 20].astype(int), preview[20, 50].astype(int)
    assert orange[0] > orange[2] + 30
    assert blue[2] > blue[0] + 30
    assert np.ptp(preview[2, 2].astype(int)) <= 1  # gray: nothing acts there
    assert len(read_json("r.json")["losses"]["final"]["by_style"]) == 2
    assert read_json("r.json")["config"]["style_mask"] == ["left.png", "right.png"]


def test_masks_of_other_sizes_of_the_same_region_give_the_same_losses(call, rng):
    y, x = np.mgrid[:128, :192]
    disc = ((y - 60) ** 2 + (x - 90) ** 2 < 40**2).astype(np.uint8) * 255
    Image.fromarray(disc).save("full.png")
    Image.fromarray(disc).resize((96, 64)).save("half.png")
    styles = []
    for name in ("full", "half"):
        call("--content=example:coffee", "--style=example:ink", f"--content_mask={name}.png", "--size=192",
             "--iterations=0", "--output=a.png", f"--report={name}.json")  # fmt: skip
        styles.append(read_json(f"{name}.json")["losses"]["initial"]["style_by_layer"])
    for layer, value in styles[0].items():
        np.testing.assert_allclose(styles[1][layer], value, rtol=0.02)


@pytest.mark.parametrize("soft", [False, True])
def test_a_gray_mask_is_cut_with_a_warning_or_kept(call, caplog, soft):
    Image.fromarray(np.tile(np.linspace(0, 255, 450).astype(np.uint8), (300, 1))).save("ramp.png")
    arguments = [
        *PAIR,
        *SMALL,
        "--content_mask=ramp.png",
        "--style_weight=1e9",
        "--output=a.png",
        f"--soft_masks={soft}",
    ]
    code = run(nst.PROGRAM, ["--devices=1", *arguments])
    warned = re.search(r"ramp.png: 80% of it is gray; cut at 127 of 255", caplog.text)
    assert code == 0
    assert bool(warned) == (not soft)
    changed = np.abs(
        pixels("a.png").astype(int) - images.to_uint8(images.resize(images.load("example:cat").rgb, 32, 48))
    ).mean((0, 2))
    assert (changed[:23] == 0).all() == (not soft)


@pytest.mark.parametrize("mode", ["luma_swap", "luma", "match", "histogram"])
def test_color_modes(call, mode):
    code, _, _ = call(*PAIR, *SMALL, f"--preserve_color={mode}", "--style_weight=1e9", "--output_size=content",
                      "--output=a.png")  # fmt: skip
    assert code == 0
    if mode.startswith("luma"):
        with Image.open("a.png") as after, Image.open(images.resolve("example:cat")) as before:
            a, b = (np.asarray(picture.convert("YCbCr"), int) for picture in (after, before))
        assert np.abs(a[..., 1:] - b[..., 1:]).max() <= 1
        assert np.abs(a[..., 0] - b[..., 0]).mean() > 3


def test_masked_textures(call):
    draw_mask("m.png", 96, 78, slice(0, 50))
    code, _, _ = call("--style=example:glass", "--init=noise", "--content_weight=0", *SMALL, "--content_mask=m.png",
                      "--mask_preview=p.png", "--output=t.png")  # fmt: skip
    assert code == 0
    assert size_of("t.png") == (39, 48)


def test_the_tutorial_preset_says_what_its_weights_are_for(call, caplog):
    for weight, said in (([], True), (["--style_weight=1e6"], False)):
        caplog.clear()
        run(
            nst.PROGRAM,
            ["--devices=1", *PAIR, *SMALL[1:], "--preset=tutorial", "--output=a.png", *weight],
        )
        assert ("VGG-19 of Keras" in caplog.text) == said


def test_what_is_made_of_two_files_alone_climbs_and_weighs_by_pulls(call):
    config = nst.Config.from_preset(size=1024)
    assert [scale.size for scale in config.pyramid()] == [128, 181, 256, 362, 512, 724, 1024]
    assert call(*PAIR, "--size=182", "--iterations=3", *SHALLOW, "--output=a.png", "--report=r.json")[0] == 0
    report = read_json("r.json")
    assert [scale["size"] for scale in report["scales"]] == [129, 182]
    assert (report["config"]["preset"], report["config"]["style_loss"]) == ("wasserstein", "wasserstein")
    assert (report["config"]["loss_balancing"], report["config"]["style_weight"]) == ("auto", 0.6843)


def test_a_raw_style_weight_beside_the_default_is_told(call, caplog):
    for flags, said in ((["--style_weight=1e8"], True), ([], False), (["--preset=gatys"], False)):
        caplog.clear()
        run(nst.PROGRAM, ["--devices=1", *PAIR, *SMALL[1:], *flags, "--iterations=0", "--output=a.png"])
        assert ("in units of the style's pull" in caplog.text) == said


@pytest.mark.parametrize("preset", ["improved", "tutorial"])
def test_presets(call, preset):
    code, _, _ = call(*PAIR, *SMALL[1:], f"--preset={preset}", "--output=a.png", "--report=r.json")
    report = read_json("r.json")
    assert code == 0
    assert report["config"]["activation_shift"] == -1
    assert report["losses"]["final"]["total"] < report["losses"]["initial"]["total"]


WRONG = {
    "missing content": (
        ["--content=nowhere.jpg"],
        "nowhere.jpg: must be a whole picture file .*No such file",
    ),
    "empty file": (["--content=empty.png"], "empty.png: must be a whole picture file"),
    "truncated file": (["--content=cut.png"], "cut.png: must be a whole picture file"),
    "text": (["--content=text.jpg"], "text.jpg: must be a whole picture file.*format is not known"),
    "folder": (["--content=folder"], "folder: must be a whole picture file.*it is a folder"),
    "example": (["--content=example:dog"], "example:dog: one of cat, cat-face, coffee, .*'dog'"),
    "bare example": (["--content=cat"], "cat: .*did you mean example:cat"),
    "preview over a mask": (
        ["--save_every=1", "--content_mask=a.png.step000001.png"],
        "each a file of its own; a.png.step000001.png is named twice",
    ),
    "extension": (["--output=a.pgn"], "a.pgn: must end in one of .png .*did you mean .png"),
    "no extension": (["--output=a"], "a: must end in one of .png .*no extension"),
    "output folder": (
        ["--output=no/a.png"],
        "no/a.png: must be a file that can be written; there is no folder",
    ),
    "output is a folder": (
        ["--output=folder.png"],
        "folder.png: must be a file that can be written; it is a folder",
    ),
    "report folder": (
        ["--report=no/r.json"],
        "no/r.json: must be a file that can be written; there is no folder",
    ),
    "plot extension": (["--plot=p.jpg"], "p.jpg: must end in one of .png .svg .pdf"),
    "same file": (
        ["--report=a.png"],
        "--output, --report, --plot, --mask_preview, --save_every, --checkpoint: each a file of its own; a.png is named twice",
    ),
    "output over input": (
        ["--content=cut.png", "--output=cut.png"],
        "each a file of its own; cut.png is named twice",
    ),
    "link to itself": (["--content=circle"], "circle: must be a whole picture file"),
    "content NUL": (["--content=a\0.png"], "must be a whole picture file.*embedded null"),
    "empty style": (["--style="], "--style: a file or example:NAME; not given"),
    "empty init": (["--init="], "--init: content, noise, style or a file"),
    "unknown flag": (
        ["--stile_weight=1"],
        "--stile_weight: the flags of nst --help; no such flag .did you mean --style",
    ),
    **{
        f"{name} of earlier days": ([f"--{name}=2"], f"--{name}: .*no such flag .did you mean --{today}[?]")
        for name, today in RENAMED.items()
        if name not in ("lanes", "squares")
    },
    "loss of earlier days": (["--content_loss=squares"], "--content_loss: l2.*did you mean l2[?]"),
    "positional": (["b.png"], "b.png: flags only"),
    "layer": (["--style_layers=conv1_1,conv9_1"], "--style_layers: layers of vgg16 are"),
    "weighting that overflows": (
        ["--style_layer_weights=1e308,1e308,1e308,1e308,1e308"],
        "--style_layer_weights: uniform",
    ),
    "flagfile that is no text": (
        ["--flagfile=cut.png"],
        "nst's flags: see --help; 'utf-8' codec can't decode",
    ),
    "name with a NUL": (["--report=a\0.json"], "must be a file that can be written; .*embedded null"),
    "network": (["--network=resnet"], "--network: vgg16 or vgg19; got 'resnet'"),
    "size word": (["--size=large"], "--size: a whole number from 2 to 32768; got 'large'"),
    "size too small": (
        ["--size=20"],
        "example:cat: at least 16 pixels a side for layer conv5_1; --size=24 gives that; got 20x13 at --size=20",
    ),
    "style too small": (
        ["--stroke_size=0.4"],
        "example:waves: at least 16 pixels a side for layer conv5_1; --size=56 gives that; got 19x14",
    ),
    "negative weight": (["--style_weight=-1"], "--style_weight: a finite number from 0"),
    "infinite weight": (["--content_weight=inf"], "--content_weight: a finite number from 0"),
    "all weights 0": (["--content_weight=0", "--style_weight=0", "--tv_weight=0"], "at least one above 0"),
    "mix": (["--style_mix=1,2"], "--style_mix: one number per style, 1; got 2"),
    "weights file": (["--weights=text.jpg"], "text.jpg: must be a file made by nst-weights"),
    "vgg19": (["--network=vgg19"], "weights of vgg19: run nst-weights --fetch=vgg19"),
    "too many pixels": (
        ["--max_pixels=1000"],
        "example:cat: at most 1000 pixels .--max_pixels.; it is 451x300",
    ),
    "masks for some styles": (
        ["--style=example:ink", "--style_mask=white.png"],
        "--style_mask: one for each --style, 2 .*; got 1",
    ),
    "sources for some styles": (
        ["--style_source_mask=white.png"] * 2,
        "--style_source_mask: one for each --style, 1 .*; got 2",
    ),
    "black mask": (
        ["--content_mask=black.png"],
        "black.png: a mask has a white part, .*; it is black everywhere",
    ),
    "speck of a mask": (
        ["--style_mask=speck.png"],
        r"--style_mask 1: the region covers at least one position of conv5_1 .16x16 pixels.; 0\.\d+ of one; style layers up to conv2_2 or a picture with a longest side of \d+ pixels would do",
    ),
    "square mask": (
        ["--content_mask=square.png"],
        "square.png: a mask has the aspect of the content, within a pixel or 1 %.*; it is 64x64, the content 451x300",
    ),
    "square source mask": (
        ["--style_source_mask=square.png"],
        "square.png: a mask has the aspect of its style",
    ),
    "colored mask": (["--content_mask=example:cat"], "example:cat: a mask is a gray picture.*colored"),
    "no such mask": (["--content_mask=nowhere.png"], "nowhere.png: must be a whole picture file"),
    "preview without masks": (
        ["--mask_preview=m.png"],
        "--mask_preview: with --content_mask, --style_mask or --content_labels; none was given",
    ),
    "preview extension": (["--content_mask=white.png", "--mask_preview=m"], "m: must end in one of .png"),
    "flat style": (
        ["--style=flat.png", "--preserve_color=histogram"],
        "--preserve_color=histogram: a style that varies in color",
    ),
    "gray style": (
        ["--style=white.png", "--preserve_color=match"],
        "--preserve_color=match: a style that varies in color in all three channels",
    ),
    "flat content": (
        ["--content=flat.png", "--preserve_color=luma"],
        "--preserve_color=luma: a content that varies in brightness",
    ),
    "photograph of nothing": (
        ["--content=", "--init=noise", "--content_weight=0", "--photorealistic"],
        "--photorealistic: with a content picture; got none",
    ),
    "one layer in a chain": (
        ["--style_loss=chain", "--style_layers=conv1_1"],
        "--style_layers: at least two layers",
    ),
    "init": (["--init=nothing.png"], "nothing.png: must be a whole picture file"),
    "16 bits of jpg": (
        ["--bit_depth=16", "--output=a.jpg"],
        "--bit_depth: 8, or 16 for .png .tif .tiff; got 16 for a.jpg",
    ),
    "12 bits": (["--bit_depth=12"], "--bit_depth: 8 or 16; got 12"),
    "word for bits": (["--bit_depth=deep"], "--bit_depth: 8 or 16; got 'deep'"),
    "resolution": (["--dpi=10001"], "--dpi: a whole number from 0 to 10000; got 10001"),
    "scales that do not grow": (
        ["--scales=40,30,48"],
        "--scales: auto, or longest sides that grow and end at --size=48; got '40,30,48'",
    ),
    "scales that end elsewhere": (["--scales=32,64"], "--scales: .*end at --size=48; got '32,64'"),
    "iterations for other scales": (
        ["--scales=32,48", "--iterations=5,4,3"],
        "--iterations: 0, 3 or more in all, or 2 numbers from 1, one for each of --scales; got 5,4,3",
    ),
    "iterations without scales": (["--iterations=5,4"], "--iterations: one number where .*got 5,4"),
    "a scale too small": (
        ["--scales=20,48", "--iterations=9"],
        "content: at least 16 pixels a side for layer conv5_1; got 20x13 .scale 1 of 2, 20 pixels.",
    ),
    "average of lbfgs": (["--ema_decay=0.9"], "--ema_decay: 0, or --optimizer=adam; got 0.9 for lbfgs"),
    "webp side": (["--size=17000", "--output=a.webp"], "a.webp: a side of WEBP has at most 16383 pixels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_one_line_and_write_nothing(call, tmp_path, case, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache")) if case == "vgg19" else None
    (tmp_path / "empty.png").touch()
    whole = images.resolve("example:cat").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "folder.png").mkdir()
    draw_mask("white.png", 300, 451)
    draw_mask("square.png", 64, 64)
    draw_mask("black.png", 300, 451, slice(0))
    draw_mask("speck.png", 300, 451, slice(10, 40), slice(10, 40))
    Image.new("RGB", (60, 40), (200, 30, 30)).save("flat.png")
    before = sorted(os.listdir(tmp_path))
    arguments, message = WRONG[case]
    code, out, err = call(*PAIR, "--size=48", "--iterations=1", "--output=a.png", *arguments)
    assert (code, out, len(err)) == (2, [], 1), err
    assert err[0].startswith("error: ")
    assert re.search(message, err[0]), err[0]
    assert [name for name in sorted(os.listdir(tmp_path)) if name != ".cache"] == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--output: a file that ends in"),
        (["--output=a.png"], "--style: a file or example:NAME; not given"),
        (["--output=a.png", "--style=example:ink"], "--content: a file or example:NAME; or --init=noise"),
        (["--output=a.png", "--style=example:ink", "--content_weight=0"], "--init: noise, style or a file"),
    ],
)
def test_what_is_required_is_named(call, given, message):
    code, _, err = call(*given)
    assert code == 2
    assert message in err[0]


def test_a_loss_that_is_not_finite_exits_3_with_the_last_finite_picture(call):
    code, out, err = call(*PAIR, *SMALL, "--tv_weight=3e38", "--output=a.png", "--report=r.json")
    assert (code, out) == (3, ["a.png", "r.json"])
    assert err == [
        "error: loss: finite numbers (smaller weights?); not finite after step 0, whose picture is a.png"
    ]
    assert size_of("a.png") == (48, 32)
    assert read_json("r.json")["ended"] == "non-finite"


def test_a_run_that_no_step_lowers_says_so(call, caplog):
    at_the_minimum = [*PAIR, "--size=48", "--iterations=300", "--style_weight=0", "--tv_weight=0"]
    at_the_minimum += SHALLOW
    call(*at_the_minimum, "--output=a.png", "--report=r.json")
    report = read_json("r.json")
    steps = report["history"]["step"][-1]
    assert report["ended"] == "converged"
    assert steps < 300
    assert run(nst.PROGRAM, [*at_the_minimum, "--devices=1", "--output=a.png"]) == 0
    assert f"converged: no step lowers the loss after step {steps}" in caplog.text


def test_too_little_memory_exits_4_and_says_what_fits(call, monkeypatch, tmp_path):
    monkeypatch.setattr(device, "free_memory", lambda *_: 2**27 + 10**6)
    code, _, err = call(*PAIR, "--size=48", "--output=a.png")
    assert code == 4
    assert len(err) == 1
    assert re.search(r"needs 0\.\d GiB and 0\.1 GiB are free; \d+x\d+ would fit .--size=\d+", err[0])
    assert os.listdir(tmp_path) == []


def test_a_device_that_runs_out_of_memory_exits_4(call, monkeypatch):
    def exhausted(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        yield  # a generator, as the real one

    monkeypatch.setattr(job, "run", exhausted)
    code, out, err = call(*PAIR, *SMALL, "--output=a.png")
    assert (code, out) == (4, [])
    assert err == [
        "error: memory: a smaller --size needs less, half of it a quarter; the device ran out of it at 48x32"
    ]


def test_pictures_that_do_not_fit_into_memory_exit_4(call, monkeypatch):
    def exhausted(*arguments):
        raise MemoryError

    monkeypatch.setattr(images, "read", exhausted)
    code, out, err = call(*PAIR, *SMALL, "--output=a.png")
    assert (code, out, len(err)) == (4, [], 1)


def test_ctrl_c_writes_the_picture_so_far_and_exits_130(call, monkeypatch):
    def interrupted(*arguments, **options):
        image = np.full((32, 48, 3), 0.5, np.float32)
        losses = {
            "total": 1.0,
            "content": 0.0,
            "style": 0.0,
            "tv": 0.0,
            "content_by_layer": {},
            "style_by_layer": {},
        }
        yield Progress(0, 1, image, losses, True)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)  # until the thread that waits for signals has seen it
        yield Progress(2, 3, image * 0, losses, True)
        yield Progress(4, 5, image, losses, True)

    monkeypatch.setattr(job, "run", interrupted)
    code, out, err = call(*PAIR, *SMALL, "--output=a.png", "--report=r.json")
    assert (code, out) == (130, ["a.png", "r.json"])
    assert err == ["error: interrupted: a.png is the picture of step 2"]
    assert pixels("a.png").max() == 0
    assert read_json("r.json")["ended"] == "interrupted"


def command(*arguments):
    code = "from nst_jax.launchers.nst import console; console()"
    return [sys.executable, "-c", code, "--devices=1", *arguments]


def test_a_real_interrupt_ends_a_real_process(tmp_path):
    """SIGINT in the middle of a long run: the picture is there, whole, and the exit code is 130."""
    output = tmp_path / "a.png"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    process = subprocess.Popen(
        command(*PAIR, *SHALLOW, "--size=64", "--iterations=100000", "--save_every=20", f"--output={output}"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert "step000020" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted" in err
    assert out.splitlines()[-1] == str(output)
    assert size_of(output) == (64, 43)


def test_a_second_start_is_quick_with_a_warm_cache(tmp_path):
    """The compile cache is on: the second start reads what the first one wrote. Counted, not timed."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": ""}
    cached = []
    for n in range(2):
        done = subprocess.run(
            command(*PAIR, *SMALL, f"--output={tmp_path}/{n}.png"),
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        cached.append(sorted(path.name for path in (tmp_path / "nst_jax" / "xla").glob("*-cache")))
    assert any("jit_run_steps" in name for name in cached[0])
    assert cached[0] == cached[1]
    assert (tmp_path / "nst_jax").stat().st_mode & 0o077 == 0


def test_a_preview_that_cannot_be_written_does_not_lose_the_picture(call, tmp_path):
    (tmp_path / "a.png.step000001.png").mkdir()
    code, out, _ = call(*PAIR, "--size=48", "--iterations=2", "--save_every=1", "--output=a.png")
    assert (code, out) == (0, ["a.png.step000002.png", "a.png"])


def test_what_cannot_be_written_after_all_loses_nothing_else(call, monkeypatch, caplog):
    save = images.save

    def forbidden(path, *arguments, **named):
        if path == "a.png":
            raise NotWritten(path, "must be a file that can be written", "No space left on device")
        save(path, *arguments, **named)

    monkeypatch.setattr(images, "save", forbidden)
    files = ["--output=a.png", "--report=a.json", "--plot=a.svg"]
    code, out, err = call(*PAIR, *SMALL, *files)
    (picture,) = (line for line in out if line.endswith("a.png"))
    assert (code, out) == (5, [picture, "a.json", "a.svg"])
    said = f"error: a.png: must be a file that can be written; No space left on device; it was written to {picture}"
    assert err == [said]
    assert read_json("a.json")["ended"] == "iterations"
    shutil.rmtree(os.path.dirname(picture))
    os.unlink("a.json")
    write = outputs.write_whole
    monkeypatch.setattr(outputs, "write_whole", lambda path, data: write(path / "no", data))
    code, out, err = call(*PAIR, *SMALL, *files)
    assert (code, len(err)) == (5, 1)
    assert "a.svg/no: must be a file that can be written" in caplog.text
    shutil.rmtree(os.path.dirname(out[0]))


def test_a_reader_that_has_gone_does_not_lose_the_picture(tmp_path):
    script = (
        " ".join(map(shlex.quote, command(*PAIR, *SMALL, "--output=a.png", "--report=a.json")))
        + " | head -c0"
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.png"]


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    for platform in ("cuda", "tpu", "nonsense"):
        done = subprocess.run(
            command(*PAIR, f"--output={tmp_path}/a.png"),
            env=os.environ | {"JAX_PLATFORMS": platform},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: JAX_PLATFORMS={platform}: a platform this machine has")


def test_help_shows_every_flag_with_its_default_and_range(call):
    code, out, _ = call("--help")
    text = " ".join(" ".join(out).split())
    assert code == 0
    assert "--size: longest side of the optimized picture" in text
    assert "(a whole number from 2 to 32768; default 512)" in text
    assert "--style: painting, a file or example:NAME (text; may repeat)" in text
    for options in nst.OPTIONS:
        for field in fields_of(options):
            assert sum(line.startswith(f"  --{field.name}: ") for line in out) == 1, field.name
    flags = [line.split(":")[0].strip() for line in out if line.startswith("  --")]
    assert flags[:8] == [f"--{name}" for name in nst.FIRST]
    assert call("-h")[1] == out
    assert call("--helpfull")[0] == 0
    assert call("--version")[1] == [f"nst {nst_jax.__version__}"]


def test_help_is_as_wide_as_the_terminal(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    long = [line for line in call("--help")[1] if len(line) > 60]
    assert not [line for line in long if " " in line.strip()]


def test_the_package_is_the_program_nst(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nst_jax", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"nst {nst_jax.__version__}\n")


def test_odd_names_and_too_many_previews_are_told_in_a_line_that_a_terminal_obeys_nothing_of(call):
    code, _, err = call("--content=\x1b[2Ja\udcff.png", PAIR[1], *SMALL, "--output=a.png")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: \\x1b[2Ja\\udcff.png: ")
    code, _, err = call(*PAIR, "--iterations=10000000", "--save_every=1", "--output=a.png")
    assert (code, err) == (2, ["error: --save_every: at most 100000 previews; got 10000000"])


def test_a_mask_of_nothing_but_edges_is_said_to_show_the_content_through(call, caplog):
    Image.fromarray(np.full((200, 300), 128, np.uint8)).convert("1").save("dither.png")
    for mask, said in (("dither.png", True), ("example:cat-face", False)):
        caplog.clear()
        assert (
            run(nst.PROGRAM, ["--devices=1", *PAIR, *SMALL, "--output=a.png", f"--content_mask={mask}"]) == 0
        )
        assert ("the masks are nowhere 8 pixels wide" in caplog.text) == said


FLAG_FILES = {
    "pipe": (lambda path: os.mkfifo(path), "a file that can be read; it is a folder or a device"),
    "device": (
        lambda path: path.symlink_to("/dev/zero"),
        "a file that can be read; it is a folder or a device",
    ),
    "reads itself": (lambda path: path.write_text("--flagfile=f\n" * 3), "each flag file once"),
    "a NUL": (lambda path: path.write_text("--flagfile=a\0b"), "a file that can be read; .*embedded null"),
    "long": (lambda path: path.write_text("#" * 2**21), "a text of at most 1048576 bytes"),
    "many flags": (lambda path: path.write_text("--quiet\n" * 50_000), "at most 10000 flags"),
    "long name": (
        lambda path: path.write_text("--" + "x" * 5000),
        r"--x+\.\.\.: a flag of those that --help",
    ),
    "missing": (lambda path: None, "a file that can be read; No such file"),
}


@pytest.mark.parametrize("case", FLAG_FILES)
def test_hostile_flag_files_are_one_line(call, tmp_path, case):
    make, message = FLAG_FILES[case]
    make(tmp_path / "f")
    code, out, err = call("--flagfile=f", "--output=no/a.png")
    assert (code, out, len(err)) == (2, [], 1), err
    assert re.search(message, err[0])


@pytest.mark.parametrize("dash", ["\u2014", "\u2013", "\u2013\u2013", "\u2212", "\u2010-"])
def test_another_dash_is_told_with_the_flag_that_is_meant(call, dash):
    wrong = f"{dash}outptu=a.png"
    code, out, err = call(*PAIR, wrong)
    assert (code, out) == (2, [])
    assert err == [f"error: {wrong}: flags begin with --; got another dash; did you mean --output=a.png?"]
    assert call(*PAIR, f"{dash}xyzzy")[2] == [f"error: {dash}xyzzy: flags begin with --; got another dash"]


def test_a_flag_given_twice_is_told(call, caplog):
    arguments = ["--size=4x", "--size=3x", *PAIR, "--style=example:ink", "--output=a.png"]
    assert run(nst.PROGRAM, arguments) == 2
    assert caplog.messages == ["--size: given 2 times; the last one holds: 3x"]


def test_a_tilde_is_the_home_in_every_name_of_a_file(call, tmp_path, monkeypatch, rng):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    write(tmp_path / "home" / "c.png", 32, 48, rng)
    draw_mask(tmp_path / "home" / "m.png", 32, 48)
    read = ["--content=~/c.png", "--style=~/c.png", "--init=~/c.png", "--content_mask=~/m.png"]
    read += ["--style_mask=~/m.png", "--style_source_mask=~/m.png"]
    written = ["--output=~/a.png", "--report=~/a.json", "--plot=~/a.pdf", "--mask_preview=~/p.png"]
    code, _, err = call(*read, *written, *SMALL, "--checkpoint=~/k")
    assert (code, err) == (0, [])
    assert sorted(name for name in os.listdir("home") if name[0] != ".") == [
        "a.json",
        "a.pdf",
        "a.png",
        "c.png",
        "k",
        "m.png",
        "p.png",
    ]
    assert os.listdir() == ["home"]
    assert call("--resume=~/k")[0] == 0


def test_flags_of_a_file_are_those_of_the_command_line(call, tmp_path):
    (tmp_path / "inner").write_text("--size=48\r\n")
    (tmp_path / "f").write_text("# a comment\n// another\n\n  --flagfile=inner\n--style_weight=-3\n")
    assert "got -3.0" in call("--flagfile", "f", "--output=a.png", *PAIR)[2][0]
    assert "got -4.0" in call("--flagfile=f", "--output=a.png", *PAIR, "--style_weight=-4")[2][0]


def test_a_narrow_picture_is_planned_without_being_made_smaller(call, tmp_path):
    Image.fromarray(np.zeros((40, 1024, 3), np.uint8)).save(tmp_path / "narrow.png")
    arguments = ["--content=narrow.png", "--style=example:waves", "--size=512", "--output=o.png", *SHALLOW]
    arguments = ["--preset=gatys", "--style_layers=conv5_1", *arguments[:-2]]
    code, _, err = call(*arguments, "--iterations=1", "--dry_run")
    assert (code, [line for line in err if line.startswith("error")]) == (0, [])


def test_a_dry_run_tells_what_the_dials_come_to(call):
    short = [*PAIR, "--output=a.png", "--size=48", *SHALLOW, "--dry_run"]
    assert call(*short, "--preset=gatys", "--strength=0.5", "--effort=draft")[1][0] == (
        "strength 0.5 (LPIPS to the photograph 0.28), begins with content_weight 2.059, style_weight 0.09016, "
        "tv_weight 0.07, in units of the terms' pulls; stroke size 1"
    )
    lines = call(*short, "--preset=gatys", "--stroke_size=2", "--iterations=3")[1]
    assert lines[0] == ("weights raw: content_weight 1, style_weight 1e+08, tv_weight 0.001; stroke size 2")
    assert "48x32 pixels" in lines[1]
    assert " 3 steps, about " in lines[1]
    assert os.listdir() == []


def test_a_strength_that_the_steps_did_not_reach_is_told(call, caplog):
    common = [*PAIR, "--output=a.png", "--size=48", *SHALLOW, "--preset=gatys", "--strength=0.9"]
    code, *_ = call(*common, "--iterations=1", "--report=r.json", "--noquiet")
    assert code == 0
    found = read_json("r.json")["lpips"]
    assert found["wanted"] == pytest.approx(0.9 * 0.56)
    said = f"--strength=0.9: stands for an LPIPS to the photograph of 0.50; after 1 steps it is {found['reached']:.2f};"
    assert f"{said} more --iterations bring it nearer" in caplog.text
