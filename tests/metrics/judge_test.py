"""The judge: against published implementations, float64 twins and cases by hand."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from golden import judge_pairs
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from nst_jax.errors import InputError
from nst_jax.images.color import oklab
from nst_jax.losses.sampling import sample_positions
from nst_jax.metrics import judge
from nst_jax.networks.alexnet import ALEXNET
from nst_jax.weights import load_lpips_heads

KEPT = json.loads(judge_pairs.FILE.read_text())
BLOCKS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")  # LPIPS's layers, by its paper
SAMPLES = 64
STROTSS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_3", "conv5_3")


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "SAMPLES", SAMPLES)  # quicker
        yield judge.load()


@pytest.fixture(scope="module")
def pair():
    """Two pictures of 32 x 37 pixels."""
    rng = np.random.default_rng(5)
    return [rng.random((32, 37, 3), np.float32) ** power for power in (1, 3)]


def plain(value, shape=(32, 37)):
    return np.full((*shape, 3), value, np.float32)


def only(**parts):
    """A view of which only some parts are given."""
    none = jnp.zeros((1, 1))
    return judge.ImageFeatures({}, none, {}, {}, none, none, [], none, jnp.zeros(1), none == 1)._replace(
        **parts
    )


@pytest.mark.parametrize("metric", ["lpips", "lpips_alex", "dists"])
@pytest.mark.parametrize("name", KEPT["lpips"])
def test_metrics_are_those_of_published_implementations(network, metric, name):
    one, other = (judge.view(network, picture) for picture in judge_pairs.pairs()[name])
    for package, value in KEPT[metric][name].items():
        assert float(judge.METRICS[metric].measure(one, other)) == pytest.approx(value, abs=1e-5), package


@pytest.mark.parametrize("name", KEPT["ms_ssim_distance"])
def test_ms_ssim_is_that_of_a_published_implementation(name):
    one, other = (
        only(gray=jnp.asarray(picture @ np.float32([0.299, 0.587, 0.114])))
        for picture in judge_pairs.pairs((192, 256), 192)[name]
    )
    for package, value in KEPT["ms_ssim_distance"][name].items():
        # A variance is a difference of two means, here in float32, there in float64.
        assert float(judge.ms_ssim_distance(one, other)) == pytest.approx(value, abs=1e-4), package


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(31, [(7, 9), (3, 4), (1, 1), (1, 1), (1, 1)]), (30, [(6, 9), (2, 4), (0, 1), (0, 1), (0, 1)])],
)
def test_the_maps_of_alexnet_are_of_torchs_sizes_and_end_below_31_pixels(network, rows, sizes):
    image = jnp.zeros((rows, 40, 3))
    maps = jax.eval_shape(lambda p: p.network.forward(p, image, ALEXNET.names), network.alexnet)
    assert [maps[name].shape[:2] for name in ALEXNET.names] == sizes
    assert (rows >= max(layer.least for layer in ALEXNET.layers)) == all(map(min, sizes))


def unit(x):
    return x / (np.sqrt((x**2).sum(-1, keepdims=True)) + 1e-10)


def twins(arrays, x, y):
    """Return the metrics of two pictures of one size, but for colors, in float64."""
    heads = load_lpips_heads("vgg16", BLOCKS)
    maps = [reference.forward(arrays, picture, STROTSS)[0] for picture in (x, y)]
    lpips = sum(
        ((unit(maps[0][layer]) - unit(maps[1][layer])) ** 2 @ np.float64(heads[layer])).mean()
        for layer in BLOCKS
    )
    grams = [{layer: reference.gram(m[layer]) for layer in BLOCKS} for m in maps]
    norm = np.linalg.norm
    style = {
        n: norm(a := grams[0][n] - grams[1][n]) / (norm(grams[0][n]) + norm(grams[1][n])) for n in BLOCKS
    }
    shares = []
    for picture, seen in zip((x, y), maps, strict=True):
        columns = []
        for row, column in sample_positions(np.ones(picture.shape[:2]), SAMPLES):
            column_of = [np.float64(picture[row, column])]
            for map_ in seen.values():
                cell = picture.shape[0] // map_.shape[0]  # pixels
                column_of.append(map_[row // cell, min(column // cell, map_.shape[1] - 1)])
            columns.append(np.concatenate(column_of))
        distances = 1 - unit(np.array(columns)) @ unit(np.array(columns)).T + 1e-5
        shares.append(distances / distances.sum(0))
    rows = [m["conv2_2"].reshape(-1, 128) for m in maps]
    ridge = 1e-5 * sum((row**2).sum(1).mean() for row in rows) * np.eye(128)
    a, b = (np.cov(row.T, bias=True) + ridge for row in rows)
    spread = np.trace(a + b - 2 * sqrtm(sqrtm(b) @ a @ sqrtm(b)).real)
    return {
        "lpips": lpips,
        "self_similarity": np.abs(shares[0] - shares[1]).sum(0).mean(),
        "style_distance": np.mean(list(style.values())),
        "fid": ((rows[0].mean(0) - rows[1].mean(0)) ** 2).sum() + spread,
    }


def test_the_metrics_equal_their_float64_twins(network, weights, pair):
    x, y = pair
    expected, found = twins(weights.arrays, x, y), judge.measure(network, x, y, [y])
    for name, value in expected.items():
        assert value > 0.01
        assert found[name] == pytest.approx(value, rel=1e-3), name
    by_hand = {"color_distance", "content_color_distance", "dirt"}
    assert judge.METRICS.keys() - expected.keys() == by_hand | {"lpips_alex", "dists", "ms_ssim_distance"}


def test_of_itself_every_metric_is_0_and_it_has_no_direction(network, pair):
    x, y = pair
    there, back, same = (judge.measure(network, *two, [two[1]]) for two in ((x, y), (y, x), (x, x)))
    for name in judge.METRICS:
        if name != "dirt":
            assert there[name] == pytest.approx(back[name], rel=1e-5), name
        assert same[name] < 1e-6


def test_plain_pictures_give_finite_numbers(network, pair):
    pictures = [pair[0], plain(0), plain(0.5)]
    for one, other in itertools.permutations(pictures, 2):
        found = judge.measure(network, one, other, [other])
        assert all(np.isfinite(found[name]) for name in judge.METRICS)
        assert all(found[name] > 0 for name in judge.METRICS.keys() - {"dirt"})
        assert found["style_distance"] <= 1
        assert found["self_similarity"] <= 2
    same = judge.measure(network, plain(0), plain(0), [plain(0)])
    assert max(same[name] for name in judge.METRICS) < 1e-6


def test_self_similarity_by_hand():
    # Cosine distances of (a, a, b) are 0 0 1 / 0 0 1 / 1 1 0, of (a, b, b) 0 1 1 / 1 0 0 / 1 0 0; divided by the
    # columns' sums they differ by 1, 2 and 1 in the three columns.
    a, b = [3.0, 0.0], [0.0, 2.0]
    x, c = (only(columns=jnp.array(rows)) for rows in ([a, a, b], [a, b, b]))
    assert float(judge.self_similarity(x, c)) == pytest.approx(4 / 3, abs=1e-4)
    # Of (a, a, a) all distances are 0: every share is 1/3, apart from c's by 2/3, 4/3 and 4/3.
    alike = only(columns=jnp.array([a, a, a]))
    assert float(judge.self_similarity(alike, c)) == pytest.approx(10 / 9, abs=1e-4)


def test_style_distance_by_hand():
    # |G - 2G| / (|G| + |2G|) = 1/3 whatever G; Grams of features in other channels: 1/sqrt(2) for equal norms.
    grams = {layer: jnp.eye(2) for layer in BLOCKS}
    x = only(grams=grams)
    twice = only(grams=jax.tree.map(lambda gram: 2 * gram, grams))
    assert float(judge.style_distance(x, twice)) == pytest.approx(1 / 3)
    apart = [
        only(grams={layer: jnp.diag(jnp.array(d)) for layer in BLOCKS}) for d in ([1.0, 0.0], [0.0, 1.0])
    ]
    assert float(judge.style_distance(*apart)) == pytest.approx(1 / np.sqrt(2))
    assert not set(judge.LAYERS) & set(reference.STYLE)  # the defaults' own


# --- dirt ---


def soiled(picture, rng, amount):
    """Return a picture with specks of red and green that leave its lightness nearly as it is."""
    specks = amount * rng.normal(size=picture.shape[:2]).astype(np.float32)
    return np.clip(picture + specks[..., None] * np.float32([0.5, -0.25, 0]), 0, 1)


def strokes(rng, size=(64, 64)):
    """Return a painting of broad strokes: plain areas with sharp borders."""
    return np.kron(rng.random((size[0] // 16, size[1] // 16, 3)), np.ones((16, 16, 1))).astype(np.float32)


def dirt(network, result, content, style):
    return judge.measure(network, result, content, [style])["dirt"]


def test_dirt_is_color_that_neither_picture_has(network, rng):
    painting, photograph = strokes(rng), np.float32(0.5) * strokes(rng) + np.float32(0.2)
    clean = strokes(rng)
    found = [dirt(network, soiled(clean, rng, amount), photograph, painting) for amount in (0, 0.1, 0.2, 0.4)]
    assert found[0] < 0.1
    assert found[1] > 1
    assert found[1] < found[2] < found[3]
    # A painting of fine specks of color allows as many, of fewer only what it has itself.
    assert dirt(network, soiled(clean, rng, 0.2), photograph, soiled(painting, rng, 0.2)) < 0.1 * found[2]
    some = dirt(network, soiled(clean, rng, 0.2), photograph, soiled(painting, rng, 0.1))
    assert 0.2 * found[2] < some < 0.8 * found[2]


def test_dirt_counts_where_the_photograph_is_calm(network, rng):
    painting, photograph = strokes(rng), strokes(rng)
    photograph[:, 32:] = rng.random((64, 32, 3))  # its right half is leaves
    clean, foul = strokes(rng), soiled(strokes(rng), rng, 0.3)
    left, right = (
        np.where(np.arange(64)[None, :, None] < 32, *two) for two in ((foul, clean), (clean, foul))
    )
    assert dirt(network, left, photograph, painting) > 20 * dirt(network, right, photograph, painting)


def test_departures_by_hand():
    """A lone pixel departs from its median by all it differs, and is averaged over 49."""
    spot = np.full((15, 15, 3), 0.5, np.float32)
    spot[7, 7] = [0.5, 0.3, 0.5]
    apart = 255 * (oklab(spot)[7, 7] - oklab(spot)[0, 0])
    chroma, lightness = judge.departures(spot)
    assert chroma[7, 7] == pytest.approx(np.hypot(*apart[1:]) / 49, rel=1e-4)
    assert lightness[4, 10] == pytest.approx(abs(apart[0]) / 49, rel=1e-4)
    assert chroma[7, 11] == chroma[3, 7] == 0


# --- colors ---


def distance(one, other):
    views = (only(colors=jnp.asarray(judge.color_quantiles(p))) for p in (one, other))
    return float(judge.color_distance(*views))


def test_oklab_of_the_primaries_is_as_published():
    # Of linear sRGB (1, 0, 0), (0, 1, 0), (0, 0, 1), by the CSS Color 4 reference implementation.
    published = [
        [0.62796, 0.22486, 0.12585],
        [0.86644, -0.23389, 0.17950],
        [0.45201, -0.03246, -0.31153],
        [1.0, 0.0, 0.0],
    ]
    primaries = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
    np.testing.assert_allclose(oklab(primaries), published, atol=1e-4)
    assert oklab(plain(0.5))[0, 0, 0] == pytest.approx(0.214041 ** (1 / 3), abs=1e-4)  # gray of linear 0.214


def test_color_distance_by_hand():
    red, blue = plain([1, 0, 0]), plain([0, 0, 1])
    expected = np.sqrt((0.62796 - 0.45201) ** 2 + (0.22486 + 0.03246) ** 2 + (0.12585 + 0.31153) ** 2)
    assert distance(red, blue) == pytest.approx(expected, abs=1e-4)
    assert distance(plain(0), plain(1)) == pytest.approx(1, abs=1e-4)
    half = plain(0)
    half[:16] = 1
    assert distance(half, plain(0)) == pytest.approx(np.sqrt(1 / 2), abs=1e-3)
    assert distance(half, plain(1, (5, 3))) == pytest.approx(np.sqrt(1 / 2), abs=1e-3)  # sizes do not matter
    assert distance(half, half[::-1].copy()) == 0  # nor does the place


def test_color_distance_is_a_little_below_the_distance_of_the_best_assignment(rng):
    for power in (0.5, 2, 6):
        one, other = rng.random((16, 16, 3), np.float32), rng.random((16, 16, 3), np.float32) ** power
        costs = ((oklab(one.reshape(-1, 1, 3)) - oklab(other.reshape(1, -1, 3))) ** 2).sum(-1)
        best = np.sqrt(costs[linear_sum_assignment(costs)].mean())
        assert 0.8 * best < distance(one, other) < best


# --- the whole ---


def test_measure_mixes_styles_and_does_without_a_content(network, pair):
    x, y = pair
    found, alone = judge.measure(network, x, None, [x, y], [1.0, 3.0]), judge.measure(network, x, y, [y])
    assert [*found] == [*judge.METRICS, "by_style"]
    for name, metric in judge.METRICS.items():
        if metric.to == "content":
            assert found[name] is None
            assert alone[name] > 0
        elif name != "dirt":  # of which the content says where
            assert found[name] == pytest.approx(0.75 * alone[name], rel=1e-4), name
        if metric.to == "style":
            assert found["by_style"][0][name] < 1e-6
    parts = found["by_style"][1]["style_distance_by_layer"]
    assert [*parts] == list(BLOCKS)
    assert np.mean(list(parts.values())) == pytest.approx(alone["style_distance"])


def test_pictures_of_one_size_share_their_programs(network, rng, compilations):
    for _ in range(2):
        pictures = rng.random((3, 17, 18, 3), np.float32)
        found = judge.measure(network, pictures[0], pictures[1], [pictures[2]])
        assert found["lpips_alex"] is None  # of AlexNet's maps nothing is left
    assert compilations("_look") == 1
    assert compilations("_compare") <= 2  # to the content; to a style, of which the size does not matter


@pytest.mark.parametrize(
    ("content", "styles", "mix", "words"),
    [
        (plain(0, (21, 16)), [plain(0)], [], "content: the result's shape"),
        (None, [], [], "style_mix: one number per style"),
        (None, [plain(0)], [1.0, 1.0], "style_mix: one number per style, 1; got 2"),
        (None, [plain(0)], [0.0], "style_mix: numbers of a finite sum above 0"),
        (None, [plain(0, (15, 99))], [], "picture: at least 16 pixels a side"),
    ],
)
def test_what_cannot_be_measured_is_said(network, content, styles, mix, words):
    with pytest.raises(InputError, match=words):
        judge.measure(network, plain(0.5), content, styles, mix)


def test_the_page_of_the_judge_has_a_row_for_every_metric():
    text = (Path(__file__).parents[2] / "docs" / "howto" / "judge.md").read_text()
    for name, metric in judge.METRICS.items():
        assert f"| `{name}` | {metric.to} | {metric.range} | {metric.tells} | {metric.blind} |" in text
