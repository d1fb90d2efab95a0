from functools import partial

import jax
import jax.numpy as jnp
import notebook
import numpy as np
import pytest
import reference
from jax.extend.core import jaxprs_in_params

from nst_jax.config import PRESETS, Config
from nst_jax.images.masks import Masks
from nst_jax.losses.variation import total_variation
from nst_jax.networks import convolutions
from nst_jax.networks.base import cast
from nst_jax.objective.objective import (
    composite,
    evaluate,
    loss_terms,
    summarize,
    total_loss,
    weighted_sum,
)
from nst_jax.objective.targets import make_targets, with_content
from nst_jax.objective.weights import coefficients

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
compiled_evaluate = jax.jit(evaluate, static_argnums=4)


def compare(params, weights, pictures, masks=None, **options):
    """Return our losses and gradient and the twin's."""
    image, content, styles = pictures
    config = Config(**options)
    spec, factors = config.spec(), config.loss_weights(len(styles))
    targets = make_targets(
        params,
        content,
        styles,
        spec,
        activation_shift=config.activation_shift,
        tv_power=config.tv_power,
        masks=masks,
    )
    targets = targets.replace(background=None)  # which has a test of its own
    _, gradient, terms = compiled_evaluate(params, image, targets, coefficients(factors), spec)
    twin, twin_gradient = reference.objective(
        weights.arrays,
        image,
        content,
        styles,
        alpha=ALPHA,
        beta=BETA,
        gamma=GAMMA,
        content_layers={k: float(v) for k, v in factors.parts["content"].items()},
        style_layers=spec.style_layers,
        style_weights={k: float(v) for k, v in factors.parts["style"].items()},
        mix=[float(m) for m in factors.style_mix],
        shift=config.activation_shift,
        power=config.tv_power,
        pooling=config.pooling,
        loss=config.style_loss,
        regions=masks and list(masks.styles),
        sources=masks and list(masks.sources),
    )
    return summarize(*jax.device_get((terms, factors))), np.asarray(gradient), twin, twin_gradient


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"style_mix": (3.0, 1.0), "pooling": "average"},
        {"activation_shift": -1.0, "style_layer_weights": "geometric", "tv_power": 2.0},
        {
            "content_layers": ("conv2_2", "conv5_2"),
            "style_layers": ("conv2_1", "conv1_1"),
            "style_layer_weights": "0.25,1",
        },
        {"style_loss": "chain", "style_layers": ("conv1_1", "conv3_2", "conv3_3", "conv5_1")},
        {"style_loss": "wasserstein", "style_layers": ("conv1_1", "conv4_1")},  # 42 positions of 512 channels
        PRESETS["improved"],
        {**PRESETS["tutorial"], "style_layers": ("conv1_1", "conv2_1", "conv3_1")},
    ],
    ids=["gatys", "mix", "shift", "layers", "chain", "wasserstein", "improved", "tutorial"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_terms_and_gradient_on_real_weights_equal_the_float64_twin(
    params, weights, pictures, options, masked, rng
):
    masks = None
    if masked:
        soft = [rng.random(picture.shape[:2], np.float32) ** 3 for picture in (pictures[0], *pictures[2])]
        masks = Masks(styles=[soft[0], 1 - soft[0]], sources=[None, soft[2]])
    common = {"content_weight": ALPHA, "style_weight": BETA, "tv_weight": GAMMA}
    ours, gradient, twin, twin_gradient = compare(params, weights, pictures, masks, **{**options, **common})
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
    for term in [*terms["content"].values(), *terms["style"].values()]:
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
    axes = jax.tree.map(lambda _: None, weights).with_terms(style=0)
    batched = jax.jit(jax.vmap(partial(total_loss, spec=spec), in_axes=(None, None, None, axes)))
    values = batched(params, image, targets, weights.with_terms(style=betas))
    for beta, value in zip(betas, values, strict=True):
        single = compiled_loss(params, image, targets, weights.with_terms(style=beta), spec)
        np.testing.assert_allclose(value, single, rtol=1e-5)


def test_the_tutorials_preset_is_the_published_notebook_term_by_term(params, weights, rng):
    """On one pair of pictures of one size, as the notebook has them; odd sides, where positions are lost."""
    image, content, style = (rng.random((37, 50, 3), np.float32) for _ in range(3))
    config = Config.from_preset("tutorial")
    spec, factors = config.spec(), config.loss_weights(1)
    targets = make_targets(
        params, content, [style], spec, activation_shift=config.activation_shift, tv_power=config.tv_power
    )
    terms = compiled_terms(params, image, targets, spec)
    layers = list(spec.style_layers)
    assert len(layers) == 13

    x, c, s = (reference.forward(weights.arrays, picture, layers)[0] for picture in (image, content, style))
    wanted = {
        "content": 0.025 * notebook.content_loss(c["conv5_2"], x["conv5_2"]),
        "tv": 8.5e-5 * notebook.total_variation_loss(255 * np.float64(image)),
    }
    coefficient = coefficients(factors)
    np.testing.assert_allclose(
        coefficient["content"]["conv5_2"] * terms["content"]["conv5_2"], wanted["content"], rtol=1e-4
    )
    np.testing.assert_allclose(coefficient["tv"] * terms["tv"], wanted["tv"], rtol=1e-4)

    losses = [notebook.style_loss(s[name], x[name], 50, 37) for name in layers]
    for name, loss in zip(layers, losses, strict=True):
        np.testing.assert_allclose(terms["style"][name], [loss], rtol=1e-4)
    # The sum of the differences telescopes; its last weight is negative.
    differences = notebook.chain([s[n] for n in layers], [x[n] for n in layers], 50, 37)
    assert coefficient["style"]["conv5_3"] == -5
    telescoped = sum(
        float(coefficient["style"][name][0]) * loss for name, loss in zip(layers, losses, strict=True)
    )
    np.testing.assert_allclose(telescoped, sum(differences), rtol=1e-6)
    total = compiled_loss(params, image, targets, factors, spec)
    np.testing.assert_allclose(total, sum(differences) + sum(wanted.values()), rtol=1e-4)


def test_a_picture_in_a_frame_is_the_blend_that_is_seen(params, weights, pictures, rng):
    """Value and gradient of the total: those of the blend with the ring in it, times its opacity."""
    image, content, styles = pictures
    config = Config()
    spec, factors = config.spec(), config.loss_weights(2)
    mask = np.zeros((48, 61), np.float32)
    mask[:, :20] = 1
    wide = np.float32(np.arange(61) < 52) * np.ones((48, 1), np.float32)  # the ring has 32 pixels
    targets = make_targets(params, content, styles, spec, masks=Masks(content=mask))
    opacity = np.interp(np.arange(61), [48, 52], [1, 0])[:, None]  # over the outermost four of them
    blend = (opacity * image + (1 - opacity) * content).astype(np.float32)
    picture = np.asarray(composite(image, targets.background, spec))
    assert (picture[:, 20:] == content[:, 20:]).all()
    assert (picture[:, :17] == image[:, :17]).all()

    value, gradient = jax.jit(jax.value_and_grad(total_loss, argnums=1), static_argnums=4)(
        params, image, targets, factors, spec
    )
    twin, twin_gradient = reference.objective(
        weights.arrays, blend, content, styles, beta=1e8, gamma=1e-3, mix=(0.5, 0.5), regions=[wide, wide]
    )
    np.testing.assert_allclose(value, twin["total"], rtol=1e-4)
    error = gradient - opacity * twin_gradient
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(twin_gradient)


def test_the_luminance_of_a_picture_has_the_mean_of_the_channels_gradients(params, pictures):
    image, content, styles = pictures
    gray = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    plain, luminance = Config(), Config(preserve_color="luma")
    targets = make_targets(params, content, styles, plain.spec())
    gradient = jax.jit(jax.grad(total_loss, argnums=1), static_argnums=4)
    one = gradient(params, gray, targets, plain.loss_weights(2), plain.spec())
    other = gradient(params, gray, targets, plain.loss_weights(2), luminance.spec())
    np.testing.assert_allclose(
        other, np.repeat(one.mean(-1, keepdims=True), 3, -1), rtol=1e-4, atol=1e-3 * np.abs(one).max()
    )


def test_masks_of_ones_change_nothing(params, pictures):
    image, content, styles = pictures
    spec = Config().spec()
    ones = [np.ones(picture.shape[:2], np.float32) for picture in (image, *styles)]
    masks = Masks(content=ones[0], styles=[ones[0]] * 2, sources=ones[1:])
    plain = make_targets(params, content, styles, spec)
    masked = make_targets(params, content, styles, spec, masks=masks)
    for term in ("content", "style", "tv"):
        a, b = (compiled_terms(params, image, targets, spec)[term] for targets in (plain, masked))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), a, b)


def test_targets_with_another_content_and_its_mask_are_those_made_of_them(params, pictures):
    first, second, styles = pictures
    masks = [np.zeros(first.shape[:2], np.float32) for _ in range(2)]
    masks[0][:, :12], masks[1][:, 49:] = 1, 1  # with rings of 32 pixels neither is all of it
    spec = Config().spec()
    before, wanted = (
        make_targets(params, content, styles[:1], spec, masks=Masks(content=mask))
        for content, mask in zip((first, second), masks, strict=True)
    )
    found = with_content(before, params, second, spec, Masks(content=masks[1]), {})
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for got, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(got, right)


def test_a_region_is_compared_with_its_own_style_only(params, pictures):
    """Two halves, each in its own style: what the other half shows does not matter (away from the border)."""
    image, content, styles = pictures
    spec = Config(style_layers=("conv1_1", "conv1_2")).spec()
    left = np.zeros((48, 61), np.float32)
    left[:, :30] = 1
    right = np.zeros((48, 61), np.float32)
    right[:, 30:] = 1  # they meet: neither has a ring in the other
    targets = make_targets(params, content, styles, spec, masks=Masks(styles=[left, right])).replace(
        background=None
    )
    changed = image.copy()
    changed[:, 35:] = 0.5
    before, after = (compiled_terms(params, x, targets, spec)["style"] for x in (image, changed))
    for term in before:
        np.testing.assert_allclose(before[term][0], after[term][0], rtol=1e-4)
        assert abs(float(before[term][1] / after[term][1]) - 1) > 0.01


def products(params, pictures, precision):
    """Return the precision and the operands' types of every product in the objective and its gradient."""
    image, content, styles = pictures
    config = Config(precision=precision)
    spec, factors = config.spec(), config.loss_weights(2)
    targets = make_targets(cast(params, precision), content, styles, spec)
    gradient = jax.grad(total_loss, argnums=1)
    jaxpr = jax.make_jaxpr(lambda x: gradient(cast(params, precision), x, targets, factors, spec))(image)
    found = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("conv_general_dilated", "dot_general"):
                asked = equation.params["precision"]
                found.add((equation.primitive.name, asked[0].name, equation.invars[0].aval.dtype.name))
            for inner in jaxprs_in_params(equation.params):
                visit(inner)

    visit(jaxpr.jaxpr)
    return found


@pytest.mark.parametrize(
    ("precision", "product", "activations"),
    [
        ("float32", "HIGHEST", "float32"),
        ("tensorfloat32", "HIGH", "float32"),
        ("bfloat16", "HIGH", "bfloat16"),
    ],
)
def test_products_are_of_the_precision_asked_for_and_statistics_float32(
    params, pictures, precision, product, activations
):
    """What a GPU is asked for, which this machine cannot show otherwise."""
    with convolutions.using("xla"):
        found = products(params, pictures, precision)
    assert found == {
        ("conv_general_dilated", product, activations),
        ("dot_general", product, "float32"),
    }


def test_bfloat16_is_near_float32_and_its_losses_are_float32(params, pictures):
    image, content, styles = pictures
    totals = []
    for precision in ("float32", "bfloat16"):
        config = Config(precision=precision, tv_weight=0.0)
        spec = config.spec()
        network = cast(params, precision)
        targets = make_targets(network, content, styles, spec)
        assert {s.dtype.name for s in targets.terms["style"].values()} == {"float32"}
        value, gradient = jax.jit(jax.value_and_grad(total_loss, argnums=1), static_argnums=4)(
            network, image, targets, config.loss_weights(2), spec
        )
        assert value.dtype == gradient.dtype == np.float32
        totals.append(float(value))
    assert totals[0] != totals[1]
    np.testing.assert_allclose(totals[1], totals[0], rtol=0.03)
