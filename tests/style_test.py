import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nst_jax.style import STYLE_LOSSES, term_names

SHIFTS = (0.0, -1.0)


@pytest.fixture(params=sorted(STYLE_LOSSES))
def loss(request):
    return STYLE_LOSSES[request.param]


@pytest.fixture
def maps(rng):
    """Return maps whose odd sides a pooling cuts."""
    sizes = {"conv1_1": (13, 15, 5), "conv1_2": (13, 15, 4), "conv2_1": (6, 7, 8), "conv4_1": (1, 1, 3)}
    return {layer: rng.random(size, np.float32) for layer, size in sizes.items()}


@pytest.fixture
def mask(maps, rng):
    return {layer: rng.random(map_.shape[:2], np.float32) for layer, map_ in maps.items()}


def test_every_loss_has_a_twin():
    assert STYLE_LOSSES.keys() == reference.STYLE_LOSSES.keys()


@pytest.mark.parametrize("name", sorted(STYLE_LOSSES))
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_its_float64_twin(name, shift, masked, maps, mask, rng):
    others = {layer: rng.random(map_.shape, np.float32) for layer, map_ in maps.items()}
    mask = mask if masked else None
    ours, twin = STYLE_LOSSES[name], reference.STYLE_LOSSES[name].statistics
    x, s = (ours.statistics(m, jnp.float32(shift), mask) for m in (maps, others))
    x64, s64 = (twin(m, shift, mask) for m in (maps, others))
    assert tuple(x) == tuple(x64) == term_names(name, tuple(maps))
    for term in x:
        np.testing.assert_allclose(x[term], x64[term], rtol=1e-5, atol=1e-6)
        expected = reference.style_layer_loss(x64[term], s64[term], name)
        np.testing.assert_allclose(ours.distance(x[term], s[term]), expected, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(STYLE_LOSSES))
def test_the_slope_of_a_distance_equals_its_float64_twin(name, maps, rng):
    others = {layer: rng.random(map_.shape, np.float32) for layer, map_ in maps.items()}
    twin = reference.STYLE_LOSSES[name]
    x, s = (twin.statistics(m) for m in (maps, others))
    for term in x:
        slope = twin.distance(x[term], s[term])[1]
        direction = twin.statistics({k: m + others[k] for k, m in maps.items()})[term] - x[term]
        moved = [twin.distance(x[term] + step * direction, s[term])[0] for step in (1e-8, -1e-8)]
        np.testing.assert_allclose((moved[0] - moved[1]) / 2e-8, (slope * direction).sum(), rtol=1e-5)
        ours = jax.grad(STYLE_LOSSES[name].distance)(jnp.float32(x[term]), jnp.float32(s[term]))
        assert np.linalg.norm(ours - slope) < 1e-4 * np.linalg.norm(slope)


def test_the_twins_gradients_equal_finite_differences(maps, mask, rng):
    for name, twin in reference.STYLE_LOSSES.items():
        if name in STYLE_LOSSES:
            maps64 = {layer: np.float64(map_) for layer, map_ in maps.items()}
            weights = {t: rng.normal(size=v.shape) for t, v in twin.statistics(maps64, -1, mask).items()}
            direction = {layer: rng.normal(size=map_.shape) for layer, map_ in maps64.items()}

            def value(step, twin=twin, maps64=maps64, weights=weights, direction=direction):
                moved = {layer: maps64[layer] + step * direction[layer] for layer in maps64}
                statistics = twin.statistics(moved, -1, mask)
                return sum((weights[term] * statistics[term]).sum() for term in weights)

            back = twin.back(maps64, -1, mask, weights)
            slope = sum((back[layer] * direction[layer]).sum() for layer in maps64)
            np.testing.assert_allclose((value(1e-5) - value(-1e-5)) / 2e-5, slope, rtol=1e-6)


def test_distance_is_zero_at_itself_and_positive_elsewhere(loss, maps):
    brighter = {layer: np.float32(1.01) * map_ for layer, map_ in maps.items()}
    statistics, others = (loss.statistics(m, jnp.float32(0), None) for m in (maps, brighter))
    for term, value in statistics.items():
        elsewhere = loss.distance(value, others[term])
        assert elsewhere > 0
        rounding = 1e-6 * elsewhere if loss is STYLE_LOSSES["wasserstein"] else 0  # of its roots, squared
        assert loss.distance(value, value) <= rounding


def test_statistics_do_not_depend_on_the_size_of_the_picture(loss, maps):
    maps = {layer: maps[layer][:12, :14] for layer in ("conv1_1", "conv1_2", "conv2_1")}
    tiled = {layer: np.tile(map_, (2, 3, 1)) for layer, map_ in maps.items()}
    once, often = (loss.statistics(m, jnp.float32(-1), None) for m in (maps, tiled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), once, often)


@pytest.mark.parametrize("shift", SHIFTS)
def test_gradient_at_zero_features_is_finite(loss, maps, shift):
    targets = loss.statistics(maps, jnp.float32(shift))

    def total(m):
        statistics = loss.statistics(m, jnp.float32(shift))
        return sum(loss.distance(statistics[t], targets[t]) for t in targets)

    gradients = jax.grad(total)(jax.tree.map(jnp.zeros_like, maps))
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_compiled_equals_eager(loss, maps):
    eager, compiled = loss.statistics(maps, jnp.float32(-1)), jax.jit(loss.statistics)(maps, jnp.float32(-1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), eager, compiled)


def test_a_mask_of_ones_is_no_mask_and_its_scale_does_not_matter(loss, maps, mask):
    plain = loss.statistics(maps, jnp.float32(-1), None)
    ones = loss.statistics(maps, jnp.float32(-1), {layer: np.ones_like(m) for layer, m in mask.items()})
    once, thrice = (
        loss.statistics(maps, jnp.float32(-1), {layer: k * m for layer, m in mask.items()}) for k in (1, 3)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, ones)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), once, thrice)


def test_regions_that_make_up_the_whole_sum_to_its_statistic(maps, rng):
    """Weighted by their mass: the law from which masks, tiles and devices come."""
    part = rng.random((13, 15), np.float32)
    for name in ("gram", "chain"):
        statistics = STYLE_LOSSES[name].statistics
        pair = {layer: maps[layer] for layer in ("conv1_1", "conv1_2")}
        whole = statistics(pair, jnp.float32(-1), None)["conv1_2"]
        parts = [
            statistics(pair, jnp.float32(-1), dict.fromkeys(pair, m))["conv1_2"] for m in (part, 1 - part)
        ]
        share = float(part.mean())
        np.testing.assert_allclose(share * parts[0] + (1 - share) * parts[1], whole, rtol=1e-4, atol=1e-5)


def test_vmap_over_regions_equals_one_after_the_other(loss, maps, mask):
    masks = jax.tree.map(lambda m: np.stack([m, np.float32(1.5) - m]), mask)
    batched = jax.vmap(lambda m: loss.statistics(maps, jnp.float32(-1), m))(masks)
    for k in range(2):
        single = loss.statistics(maps, jnp.float32(-1), jax.tree.map(lambda m, k=k: m[k], masks))
        for term, value in single.items():
            np.testing.assert_allclose(batched[term][k], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_chain_of_a_layer_with_itself_is_its_gram(maps, shift):
    twice = {"conv3_1": maps["conv1_1"], "conv3_2": maps["conv1_1"]}
    chain = STYLE_LOSSES["chain"].statistics(twice, jnp.float32(shift))["conv3_2"]
    gram = STYLE_LOSSES["gram"].statistics(maps, jnp.float32(shift))["conv1_1"]
    np.testing.assert_allclose(chain, gram, rtol=1e-5)


GAUSSIANS = {  # mean, covariance; mean, covariance; the squared distance, worked by hand
    "one channel": ([1.0], [[4.0]], [3.0], [[9.0]], 4 + 1),
    "diagonal": ([0.0, 0.0], [[1.0, 0.0], [0.0, 16.0]], [1.0, 2.0], [[9.0, 0.0], [0.0, 4.0]], 5 + 4 + 4),
    "commuting": ([0.0, 0.0], [[2.5, 1.5], [1.5, 2.5]], [0.0, 0.0], [[5.0, 4.0], [4.0, 5.0]], 1 + 0),
    "a point": ([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]], [0.0, 3.0], [[1.0, 0.0], [0.0, 4.0]], 9 + 5),
}


@pytest.mark.parametrize("case", GAUSSIANS)
def test_wasserstein_of_gaussians_by_hand(case):
    """Of commuting covariances: the sum over common axes of squared differences of deviations."""
    *both, expected = GAUSSIANS[case]
    x, s = (
        jnp.array(np.column_stack([np.add(spread, np.outer(mean, mean)), mean]), jnp.float32)
        for mean, spread in (both[:2], both[2:])
    )
    found = STYLE_LOSSES["wasserstein"].distance(x, s)
    np.testing.assert_allclose(found, expected / len(x), rtol=1e-2 if case == "a point" else 1e-3)
    np.testing.assert_allclose(STYLE_LOSSES["wasserstein"].distance(s, x), found, rtol=1e-5)


@pytest.mark.parametrize("name", ["moments", "wasserstein"])
@pytest.mark.parametrize("painting", ["black", "rich"])
def test_slopes_are_finite_where_a_covariance_is_singular(name, painting, rng):
    """Black, of one colour, on one line, of fewer positions than channels, and all but black."""
    rich = rng.random((6, 7, 64), np.float32)
    pictures = {
        "black": 0 * rich,
        "one colour": np.broadcast_to(rich[:1, :1], rich.shape),
        "on a line": rich[..., :1] * rich[:1, :1],
        "few": rich,
        "dark": np.float32(1e-12) * rich,
        "bright": np.float32(1e4) * rich,
    }
    loss = STYLE_LOSSES[name]
    target = loss.statistics(
        {"conv1_1": pictures["black"] if painting == "black" else rich[::-1]}, jnp.float32(0)
    )

    @jax.jit
    def total(map_):
        return loss.distance(loss.statistics({"conv1_1": map_}, jnp.float32(0))["conv1_1"], target["conv1_1"])

    for what, map_ in pictures.items():
        value, slope = jax.jit(jax.value_and_grad(total))(jnp.asarray(map_))
        assert jnp.isfinite(value), what
        assert jnp.isfinite(slope).all(), what
