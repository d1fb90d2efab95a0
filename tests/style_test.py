import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nst_jax.style import STYLE_LOSSES

SHIFTS = (0.0, -1.0)


@pytest.fixture(params=sorted(STYLE_LOSSES))
def loss(request):
    return STYLE_LOSSES[request.param]


@pytest.fixture
def maps(rng):
    return {"conv1_1": rng.random((12, 14, 5), np.float32), "conv2_1": rng.random((6, 7, 8), np.float32)}


def test_every_loss_has_a_twin():
    assert STYLE_LOSSES.keys() == reference.STYLE_STATISTICS.keys()


@pytest.mark.parametrize("name", sorted(STYLE_LOSSES))
@pytest.mark.parametrize("shift", SHIFTS)
def test_equals_its_float64_twin(name, shift, maps, rng):
    others = {layer: rng.random(map_.shape, np.float32) for layer, map_ in maps.items()}
    ours, twin = STYLE_LOSSES[name], reference.STYLE_STATISTICS[name]
    x, s = (ours.statistics(m, jnp.float32(shift)) for m in (maps, others))
    x64, s64 = (twin(m, shift) for m in (maps, others))
    assert x.keys() == x64.keys()
    for term in x:
        np.testing.assert_allclose(x[term], x64[term], rtol=1e-5)
        expected = reference.style_layer_loss(x64[term], s64[term])
        np.testing.assert_allclose(ours.distance(x[term], s[term]), expected, rtol=1e-3)


def test_distance_is_zero_at_itself_and_positive_elsewhere(loss, maps):
    statistics = loss.statistics(maps, jnp.float32(0))
    for value in statistics.values():
        assert loss.distance(value, value) == 0
        assert loss.distance(value, value * 1.01) > 0


def test_statistics_do_not_depend_on_the_size_of_the_picture(loss, maps):
    tiled = {layer: np.tile(map_, (2, 3, 1)) for layer, map_ in maps.items()}
    once, often = (loss.statistics(m, jnp.float32(-1)) for m in (maps, tiled))
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
