"""The judge: LPIPS against two published implementations, the others against float64 twins and cases by hand."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from golden import lpips_pairs
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from nst_jax import judge
from nst_jax.color import oklab
from nst_jax.errors import InputError
from nst_jax.samples import sample_positions
from nst_jax.weights import load_lpips_heads

KEPT = json.loads(lpips_pairs.FILE.read_text())
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
    """Two pictures of 16 x 21 pixels."""
    rng = np.random.default_rng(5)
    return [rng.random((16, 21, 3), np.float32) ** power for power in (1, 3)]


def plain(value, shape=(16, 21)):
    return np.full((*shape, 3), value, np.float32)


def only(**parts):
    """A view of which only some parts are given."""
    return judge.View({}, jnp.zeros((1, 1)), {}, {}, jnp.zeros((1, 1)))._replace(**parts)


@pytest.mark.parametrize("name", KEPT)
def test_lpips_is_that_of_both_published_implementations(network, name):
    one, other = (judge.view(network, picture) for picture in lpips_pairs.pairs()[name])
    for package, value in KEPT[name].items():
        assert float(judge.lpips(one, other)) == pytest.approx(value, abs=1e-5), package


def unit(x):
    return x / (np.sqrt((x**2).sum(-1, keepdims=True)) + 1e-10)


def twins(arrays, x, y):
    """Return the metrics of two pictures of one size, but for colours, in float64."""
    heads = load_lpips_heads()
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
    assert judge.METRICS.keys() - expected.keys() == {"color_distance", "content_color_distance"}


def test_of_itself_every_metric_is_0_and_it_has_no_direction(network, pair):
    x, y = pair
    there, back, same = (judge.measure(network, *two, [two[1]]) for two in ((x, y), (y, x), (x, x)))
    for name in judge.METRICS:
        assert there[name] == pytest.approx(back[name], rel=1e-5), name
        assert same[name] < 1e-6


def test_plain_pictures_give_finite_numbers(network, pair):
    pictures = [pair[0], plain(0), plain(0.5)]
    for one, other in itertools.permutations(pictures, 2):
        found = judge.measure(network, one, other, [other])
        assert all(np.isfinite(found[name]) and found[name] > 0 for name in judge.METRICS)
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


# --- colours ---


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
    assert oklab(plain(0.5))[0, 0, 0] == pytest.approx(0.214041 ** (1 / 3), abs=1e-4)  # grey of linear 0.214


def test_color_distance_by_hand():
    red, blue = plain([1, 0, 0]), plain([0, 0, 1])
    expected = np.sqrt((0.62796 - 0.45201) ** 2 + (0.22486 + 0.03246) ** 2 + (0.12585 + 0.31153) ** 2)
    assert distance(red, blue) == pytest.approx(expected, abs=1e-4)
    assert distance(plain(0), plain(1)) == pytest.approx(1, abs=1e-4)
    half = plain(0)
    half[:8] = 1
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
        else:
            assert found[name] == pytest.approx(0.75 * alone[name], rel=1e-4), name
            assert found["by_style"][0][name] < 1e-6
    parts = found["by_style"][1]["style_distance_by_layer"]
    assert [*parts] == list(BLOCKS)
    assert np.mean(list(parts.values())) == pytest.approx(alone["style_distance"])


def test_pictures_of_one_size_share_their_programs(network, rng, compilations):
    for _ in range(2):
        pictures = rng.random((3, 17, 18, 3), np.float32)
        judge.measure(network, pictures[0], pictures[1], [pictures[2]])
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


def test_the_readme_has_a_row_for_every_metric():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    for name, metric in judge.METRICS.items():
        assert f"| `{name}` | {metric.to} | {metric.range} | {metric.tells} | {metric.blind} |" in text
