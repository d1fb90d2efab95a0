import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nst_jax.config import Config
from nst_jax.objective import (
    coefficients,
    loss_terms,
    make_targets,
    summarize,
    total_loss,
    total_variation,
    weighted_sum,
)

ALPHA, BETA, GAMMA = 1.5, 3e6, 2e-3


@pytest.fixture
def pictures(rng):
    """Return a picture, its content and two styles of sizes of their own: smooth, with flat places."""

    def smooth(h, w):
        coarse = rng.random((h // 8 + 1, w // 8 + 1, 3))
        fine = np.kron(coarse, np.ones((8, 8, 1)))[:h, :w] * 0.8 + 0.2 * rng.random((h, w, 3))
        fine[: h // 4] = coarse[0, 0]
        return fine.astype(np.float32)

    return smooth(48, 61), smooth(48, 61), [smooth(40, 70), smooth(66, 33)]


compiled_terms = jax.jit(loss_terms, static_argnums=3)
compiled_loss = jax.jit(total_loss, static_argnums=4)


def compare(params, weights, pictures, **options):
    """Return our losses and gradient and the twin's."""
    image, content, styles = pictures
    config = Config(content_weight=ALPHA, style_weight=BETA, tv_weight=GAMMA, **options)
    spec, factors = config.spec(), config.loss_weights(len(styles))
    targets = make_targets(params, content, styles, spec, config.activation_shift, config.tv_power)
    terms = compiled_terms(params, image, targets, spec)
    gradient = jax.jit(jax.grad(total_loss, argnums=1), static_argnums=4)(
        params, image, targets, factors, spec
    )
    twin, twin_gradient = reference.objective(
        weights.arrays,
        image,
        content,
        styles,
        alpha=ALPHA,
        beta=BETA,
        gamma=GAMMA,
        content_layers={k: float(v) for k, v in factors.content_layers.items()},
        style_layers={k: float(v) for k, v in factors.style_layers.items()},
        mix=[float(m) for m in factors.style_mix],
        shift=config.activation_shift,
        power=config.tv_power,
        pooling=config.pooling,
    )
    return summarize(*jax.device_get((terms, factors))), np.asarray(gradient), twin, twin_gradient


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"style_mix": (3.0, 1.0), "pooling": "average"},
        {"activation_shift": -1.0, "layer_weighting": "geometric", "tv_power": 2.0},
        {
            "content_layers": ("conv2_2", "conv5_2"),
            "style_layers": ("conv2_1", "conv1_1"),
            "layer_weighting": "0.25,1",
        },
    ],
    ids=["gatys", "mix", "shift", "layers"],
)
def test_terms_and_gradient_on_real_weights_equal_the_float64_twin(params, weights, pictures, options):
    ours, gradient, twin, twin_gradient = compare(params, weights, pictures, **options)
    for term in ("total", "content", "style", "tv"):
        np.testing.assert_allclose(ours[term], twin[term], rtol=1e-4, err_msg=term)
    for terms in ("content_by_layer", "style_by_layer"):
        assert ours[terms].keys() == twin[terms].keys()
        for layer, value in twin[terms].items():
            np.testing.assert_allclose(ours[terms][layer], value, rtol=1e-4, err_msg=layer)
    assert np.linalg.norm(gradient - twin_gradient) / np.linalg.norm(twin_gradient) < 1e-4


def test_the_twins_gradient_equals_finite_differences_in_float64(weights, pictures, rng):
    image, content, styles = pictures
    image = image + 1e-3 * rng.random(image.shape)  # no flat places: the twin's slope jumps there

    def value(x):
        return reference.objective(weights.arrays, x, content, styles[:1], beta=BETA, gamma=GAMMA)[0]["total"]

    _, gradient = reference.objective(weights.arrays, image, content, styles[:1], beta=BETA, gamma=GAMMA)
    direction = rng.normal(size=image.shape)
    step = 1e-8  # small enough to cross no kink of ReLU and max pooling, large enough for float64
    slope = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, np.vdot(gradient, direction), rtol=1e-4)


def test_total_loss_is_the_weighted_sum_of_the_report(params, pictures):
    image, content, styles = pictures
    config = Config(tv_weight=0.5)
    targets = make_targets(params, content, styles, config.spec())
    weights = config.loss_weights(2)
    total = compiled_loss(params, image, targets, weights, config.spec())
    terms = compiled_terms(params, image, targets, config.spec())
    losses = summarize(*jax.device_get((terms, weights)))
    np.testing.assert_allclose(total, losses["total"], rtol=1e-5)
    by_hand = losses["content"] + 1e8 * losses["style"] + 0.5 * losses["tv"]
    np.testing.assert_allclose(losses["total"], by_hand, rtol=1e-6)


def test_gradient_with_respect_to_the_coefficients_is_the_terms(params, pictures):
    image, content, styles = pictures
    spec, factors = Config().spec(), coefficients(Config().loss_weights(2))
    targets = make_targets(params, content, styles, spec)
    terms = compiled_terms(params, image, targets, spec)
    gradient = jax.grad(lambda f: weighted_sum(f, compiled_terms(params, image, targets, spec)))(factors)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), gradient, terms)


def test_style_mix_of_one_and_nothing_is_the_first_style_alone(params, pictures):
    image, content, styles = pictures
    alone, mixed = Config(style_mix=(1.0,)), Config(style_mix=(1.0, 0.0))
    spec = alone.spec()
    one = compiled_loss(
        params, image, make_targets(params, content, styles[:1], spec), alone.loss_weights(1), spec
    )
    two = compiled_loss(
        params, image, make_targets(params, content, styles, spec), mixed.loss_weights(2), spec
    )
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_losses_are_zero_at_their_targets(params, pictures):
    content = pictures[1]
    targets = make_targets(params, content, [content], Config().spec())
    terms = compiled_terms(params, content, targets, Config().spec())
    for term in [*terms.content.values(), *terms.style.values()]:
        np.testing.assert_allclose(term, 0, atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 1.25, 2.0, 2.5, 4.0])
def test_total_variation_of_a_step_by_hand(power):
    image = np.zeros((3, 4, 3), np.float32)
    image[:, 2:] = 0.5  # two rows of the corner see the step once, in each of three channels
    value, gradient = jax.value_and_grad(total_variation)(image, jnp.float32(power))
    np.testing.assert_allclose(value, 2 * 3 * 127.5**power, rtol=1e-5)
    np.testing.assert_allclose(gradient, reference.total_variation(image, power)[1], rtol=1e-4, atol=1e-3)


def test_total_variation_has_a_gradient_where_the_picture_is_flat():
    gradient = jax.grad(total_variation)(jnp.full((4, 4, 3), 0.3), jnp.float32(1.0))
    np.testing.assert_array_equal(gradient, 0)


def test_vmap_over_style_weights_equals_one_after_the_other(params, pictures):
    image, content, styles = pictures
    config = Config()
    spec, weights = config.spec(), config.loss_weights(1)
    targets = make_targets(params, content, styles[:1], spec)
    betas = jnp.array([0.0, 1e5, 1e8])
    axes = jax.tree.map(lambda _: None, weights)._replace(style=0)
    batched = jax.jit(jax.vmap(lambda w: total_loss(params, image, targets, w, spec), in_axes=(axes,)))
    for beta, value in zip(betas, batched(weights._replace(style=betas)), strict=True):
        single = compiled_loss(params, image, targets, weights._replace(style=beta), spec)
        np.testing.assert_allclose(value, single, rtol=1e-5)
