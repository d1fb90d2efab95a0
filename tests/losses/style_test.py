"""One contract for all style losses: each equals its float64 twin, and takes masks, sizes and odd features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nst_jax.losses.sampling import Samples, Tile, sample_positions
from nst_jax.losses.style import STYLE_LOSSES, matching, term_names
from nst_jax.losses.style.histogram import NODES, histogram_transport
from nst_jax.losses.style.statistics import positions_of
from nst_jax.networks import NETWORKS

NAMES = sorted(STYLE_LOSSES)
VGG = NETWORKS["vgg16"]
SIZES = {"conv1_1": (13, 15, 5), "conv1_2": (13, 15, 4), "conv2_1": (6, 7, 8), "conv4_1": (1, 1, 3)}
STYLE_SIZES = {"conv1_1": (11, 9, 5), "conv1_2": (11, 9, 4), "conv2_1": (5, 4, 8), "conv4_1": (1, 1, 3)}


@pytest.fixture
def maps(rng):
    """Return maps whose odd sides a pooling cuts."""
    return {layer: rng.random(size, np.float32) for layer, size in SIZES.items()}


@pytest.fixture
def style(rng):
    return {layer: rng.random(size, np.float32) for layer, size in STYLE_SIZES.items()}


@pytest.fixture
def few(maps, style):
    """Return the maps of a picture and of a style that a chain needs, where more would only take time."""
    return [{layer: whole[layer] for layer in ("conv1_1", "conv1_2")} for whole in (maps, style)]


def mask_of(maps, rng):
    return {layer: rng.random(map_.shape[:2], np.float32) for layer, map_ in maps.items()}


def places_of(name, style, source=None):
    """Return the positions that stand for a style."""
    count, found = STYLE_LOSSES[name].samples, {}
    for layer, map_ in style.items() if count else ():
        mass = np.ones(map_.shape[:2]) if source is None else source[layer]
        found[layer] = sample_positions(mass, count)
    return found


def terms_of(name, maps, style, shift, mask, source, places):
    """Return the terms of a picture's maps."""
    loss = STYLE_LOSSES[name]
    wanted = loss.wanted(lambda look: look(style, source, None), shift, VGG, places, positions_of(style))
    found = loss.means(loss.sums(maps, shift, mask, VGG, *loss.references(wanted)), positions_of(maps))
    return {term: loss.distance(found[term], wanted[term]) for term in wanted}


@partial(jax.jit, static_argnames="name")
def terms_and_gradient(name, factors, maps, *seen):
    """Return the terms, and the gradient of their sum times the factors."""

    def total(maps):
        terms = terms_of(name, maps, *seen)
        return sum(factors[term] * terms[term] for term in terms), terms

    gradient, terms = jax.grad(total, has_aux=True)(maps)
    return terms, gradient


def measure(name, maps, style, shift=0.0, mask=None, source=None, factors=None):
    """Return the terms, and the gradient of their sum, times factors if there are any."""
    factors = factors or dict.fromkeys(term_names(name, VGG, tuple(maps)), np.float32(1))
    places = places_of(name, style, source)
    return terms_and_gradient(name, factors, maps, style, np.float32(shift), mask, source, places)


def test_every_loss_has_a_twin():
    assert STYLE_LOSSES.keys() == reference.STYLE_LOSSES.keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("masked", [False, True])
def test_terms_and_gradient_equal_the_float64_twin_s(name, masked, maps, style, rng):
    shift = -1.0 if STYLE_LOSSES[name].shifts else 0.0
    if name in ("nearest", "remd"):  # from the mean of one position a direction is all rounding
        del maps["conv4_1"], style["conv4_1"]
    mask, source = (mask_of(m, rng) if masked else None for m in (maps, style))
    factors = {term: np.float32(rng.random() + 0.5) for term in term_names(name, VGG, tuple(maps))}
    terms, gradient = measure(name, maps, style, shift, mask, source, factors)
    seen = reference.Seen(maps, mask, style, source, shift, places_of(name, style, source))
    expected, back = reference.STYLE_LOSSES[name](seen)
    assert tuple(expected) == term_names(name, VGG, tuple(maps))
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-3, atol=1e-6, err_msg=term)
    for layer, slope in back({term: float(factor) for term, factor in factors.items()}).items():
        error = np.linalg.norm(np.asarray(gradient[layer]) - slope)
        assert error < 1e-4 * np.linalg.norm(slope) + 1e-6, layer


@pytest.mark.parametrize("name", NAMES)
def test_the_twins_gradients_equal_finite_differences(name, maps, style, rng):
    mask, source = mask_of(maps, rng), mask_of(style, rng)
    maps, places = {k: np.float64(m) for k, m in maps.items()}, places_of(name, style, source)
    direction = {layer: rng.normal(size=map_.shape) for layer, map_ in maps.items()}

    def twin(step):
        moved = {layer: map_ + step * direction[layer] for layer, map_ in maps.items()}
        return reference.STYLE_LOSSES[name](reference.Seen(moved, mask, style, source, 0.0, places))

    terms, back = twin(0)
    gradient = back(dict.fromkeys(terms, 1.0))
    slope = sum((gradient[layer] * direction[layer]).sum() for layer in gradient)
    up, down = (sum(twin(step)[0].values()) for step in (1e-6, -1e-6))
    np.testing.assert_allclose((up - down) / 2e-6, slope, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_zero_at_itself_and_positive_elsewhere(name, maps):
    other = {layer: np.float32(1.01) * map_ for layer, map_ in maps.items()}
    here, elsewhere = (measure(name, m, maps)[0] for m in (maps, other))
    for term, value in here.items():
        rooted = name in ("wasserstein", "nearest", "remd")
        rounding = 1e-6 if rooted else 1e-9  # which is squared
        assert 0 <= value <= rounding * elsewhere[term]
        assert elsewhere[term] > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "patch"])  # which sees the border
def test_terms_do_not_depend_on_the_size_of_the_picture(name, few):
    maps, style = few
    tiled = {layer: np.tile(map_, (2, 3, 1)) for layer, map_ in maps.items()}
    once, often = (measure(name, m, style)[0] for m in (maps, tiled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), once, often)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("painting", ["black", "rich"])
def test_slopes_are_finite_where_features_are_poor(name, painting, rng):
    """Black, of one color, on one line, of fewer positions than channels, all but black, and very bright."""
    rich = rng.random((6, 7, 64), np.float32)
    pictures = {
        "black": 0 * rich,
        "one color": np.broadcast_to(rich[:1, :1], rich.shape),
        "on a line": rich[..., :1] * rich[:1, :1],
        "few": rich,
        "dark": np.float32(1e-12) * rich,
        "bright": np.float32(1e4) * rich,
    }
    style = 0 * rich if painting == "black" else rich[::-1]
    layers = ("conv1_1", "conv1_2") if name == "chain" else ("conv1_1",)
    for what, map_ in pictures.items():
        found = measure(name, dict.fromkeys(layers, map_), dict.fromkeys(layers, style))
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), what


@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_eager(name, few):
    maps, style = few if name == "chain" else ({"conv1_1": m["conv1_1"]} for m in few)
    eager = terms_of(name, maps, style, jnp.float32(0), None, None, places_of(name, style))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), eager, measure(name, maps, style)[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_ones_is_no_mask_and_its_scale_does_not_matter(name, few, rng):
    maps, style = few
    mask, source = mask_of(maps, rng), mask_of(style, rng)
    ones = {layer: np.ones_like(m) for layer, m in mask.items()}
    thrice = {layer: 3 * m for layer, m in mask.items()}
    for one, other in ((None, ones), (mask, thrice)):
        pair = [measure(name, maps, style, mask=m, source=source)[0] for m in (one, other)]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *pair)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_regions_equals_one_after_the_other(name, few, rng):
    maps, style = few
    mask, source = mask_of(maps, rng), mask_of(style, rng)
    masks, places = (
        jax.tree.map(lambda m: np.stack([m, np.float32(1.5) - m]), mask),
        places_of(name, style, source),
    )
    over = jax.vmap(lambda m: terms_of(name, maps, style, jnp.float32(0), m, source, places))
    batched = jax.jit(over)(masks)
    for k in range(2):
        alone, _ = measure(name, maps, style, mask=jax.tree.map(lambda m, k=k: m[k], masks), source=source)
        for term, value in alone.items():
            np.testing.assert_allclose(batched[term][k], value, rtol=1e-3, atol=1e-6)


def test_regions_that_make_up_the_whole_sum_to_its_statistic(maps, rng):
    """Weighted by their mass: the law from which masks, tiles and devices come."""
    part = rng.random((13, 15), np.float32)
    for name in ("gram", "chain"):
        statistics = STYLE_LOSSES[name].statistics
        pair = {layer: maps[layer] for layer in ("conv1_1", "conv1_2")}
        whole = statistics(pair, jnp.float32(-1), None, VGG)["conv1_2"]
        parts = [
            statistics(pair, jnp.float32(-1), dict.fromkeys(pair, m), VGG)["conv1_2"]
            for m in (part, 1 - part)
        ]
        share = float(part.mean())
        np.testing.assert_allclose(share * parts[0] + (1 - share) * parts[1], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_the_chain_of_a_layer_with_itself_is_its_gram(maps, shift):
    twice = {"conv3_1": maps["conv1_1"], "conv3_2": maps["conv1_1"]}
    chain = STYLE_LOSSES["chain"].statistics(twice, jnp.float32(shift), None, VGG)["conv3_2"]
    gram = STYLE_LOSSES["gram"].statistics(maps, jnp.float32(shift), None, VGG)["conv1_1"]
    np.testing.assert_allclose(chain, gram, rtol=1e-5)


GAUSSIANS = {  # mean, covariance; mean, covariance; the squared distance, worked by hand
    "one channel": ([1.0], [[4.0]], [3.0], [[9.0]], 4 + 1),
    "diagonal": ([0.0, 0.0], [[1.0, 0.0], [0.0, 16.0]], [1.0, 2.0], [[9.0, 0.0], [0.0, 4.0]], 5 + 4 + 4),
    "commuting": ([0.0, 0.0], [[2.5, 1.5], [1.5, 2.5]], [0.0, 0.0], [[5.0, 4.0], [4.0, 5.0]], 1 + 0),
    # Here the ridge tells, 1e-4 of the power 9 + 5, whose root is 0.0374.
    "a point": (
        *([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], [0.0, 3.0], [[1.0, 0.0], [0.0, 4.0]]),
        9 + (1.0007 - 0.0374) ** 2 + (2.0003 - 0.0374) ** 2,
    ),
}


@pytest.mark.parametrize("case", GAUSSIANS)
def test_wasserstein_of_gaussians_by_hand(case):
    """Of commuting covariances: the sum over common axes of squared differences of deviations."""
    *both, expected = GAUSSIANS[case]
    x, s = (
        jnp.array(np.column_stack([np.add(spread, np.outer(mean, mean)), mean]), jnp.float32)
        for mean, spread in (both[:2], both[2:])
    )
    loss = STYLE_LOSSES["wasserstein"]
    found = loss.distance(x, loss.keep(s))
    np.testing.assert_allclose(found, expected / len(x), rtol=1e-3)
    back = loss.distance(s, loss.keep(x))
    if case == "a point":  # which has no axes: all of the variance 1 + 4 is off them, and counts together
        np.testing.assert_allclose(back, (9 + (2.2364 - 0.0374) ** 2) / 2, rtol=1e-4)
    else:
        np.testing.assert_allclose(back, found, rtol=1e-5)


def test_wasserstein_with_more_channels_than_axes_equals_its_twin(rng):
    """Of 80 channels that all vary, 16 are off the principal axes."""
    maps, style = (
        {
            "conv1_1": np.maximum(rng.normal(size=(14, 15, 80)) @ rng.normal(size=(80, 80)), 0).astype(
                np.float32
            )
        }
        for _ in range(2)
    )
    terms, gradient = measure("wasserstein", maps, style)
    expected, back = reference.STYLE_LOSSES["wasserstein"](reference.Seen(maps, None, style, None, 0.0, {}))
    slope = back({"conv1_1": 1.0})["conv1_1"]
    np.testing.assert_allclose(terms["conv1_1"], expected["conv1_1"], rtol=1e-5)
    assert np.linalg.norm(np.asarray(gradient["conv1_1"]) - slope) < 1e-5 * np.linalg.norm(slope)


def test_histograms_are_carried_by_hand():
    """From a node to another by their distance; half of it by half of the mass; and sorted, not crosswise."""

    def shares(*mass):  # above each pair of nodes
        return 1 - np.cumsum(np.pad(np.float64(mass), (0, len(NODES) - len(mass))))[:-1, None]

    def carried(x, s):
        return histogram_transport(*(jnp.asarray(shares(*mass), jnp.float32) for mass in (x, s)))[0]

    steps = np.array(NODES)
    np.testing.assert_allclose(carried((1,), (0, 0, 0, 1)), steps[3] ** 2, rtol=1e-5)
    np.testing.assert_allclose(carried((0.5, 0.5), (0.5, 0, 0.5)), (steps[2] - steps[1]) ** 2 / 2, rtol=1e-5)
    crossing = ((steps[2] - steps[0]) ** 2 + (steps[3] - steps[1]) ** 2) / 2
    np.testing.assert_allclose(carried((0.5, 0.5), (0, 0, 0.5, 0.5)), crossing, rtol=1e-5)
    assert carried((0.3, 0.7), (0.3, 0.7)) == 0


def test_matches_are_those_of_the_largest_products_in_groups_of_any_number(rng, monkeypatch):
    map_ = rng.normal(size=(6, 7, 5)).astype(np.float32)
    for side, count, at_once in ((1, 48, 42 * 16), (3, 12, 42 * 8), (3, 7, 1)):
        monkeypatch.setattr(matching, "AT_ONCE", at_once)
        patches = rng.normal(size=(count, side, side, 5)).astype(np.float32)
        counted = rng.random((6, 7)) < 0.5
        around = reference.patches(map_) if side == 3 else map_[:, :, None, None]
        products = np.einsum("hwabc,nabc->hwn", np.float64(around), patches)
        sample, position = jax.jit(matching.matches)(map_, patches, counted)
        np.testing.assert_array_equal(sample, products.argmax(-1))
        best = np.where(counted[..., None], products, -np.inf).reshape(42, count).argmax(0)
        np.testing.assert_array_equal(position, best)


def test_patches_of_windows_add_up_to_the_picture_s(rng):
    """Zeros around the picture, and from each window only the patches of its own positions."""
    map_ = rng.random((8, 6, 2), np.float32)
    places = {"conv2_1": sample_positions(np.ones((8, 6)), 12)}
    whole = Samples(places).patches("conv2_1", map_, 3)
    np.testing.assert_array_equal(whole, reference.patches(map_)[tuple(places["conv2_1"].T)])
    parts = 0
    for start, core, end in ((0, 0, 5), (4, 5, 8)):  # rows of windows of which each sees one beyond its own
        rows = np.arange(start, min(8, end + 1))
        owned = np.repeat(((rows >= core) & (rows < end)).astype(np.float32)[:, None], 6, 1)
        first = {"conv2_1": (jnp.int32(start), jnp.int32(0))}
        part = Tile(np.ones((2 * len(rows), 12), np.float32), {"conv2_1": owned}, first)
        parts += Samples(places, part).patches("conv2_1", map_[rows], 3)
    np.testing.assert_array_equal(parts, whole)
