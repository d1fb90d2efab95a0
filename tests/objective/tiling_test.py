"""Window by window the objective is what it is as a whole: exact at every size, loss, mask and layer."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import PRESETS, Config
from nst_jax.images.masks import Masks
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.losses.style.gaussian import Gaussian
from nst_jax.networks import NETWORKS
from nst_jax.networks.base import features
from nst_jax.objective import objective, tiling
from nst_jax.objective.targets import make_targets, style_arguments, wanted_of_style
from nst_jax.objective.weights import coefficients

WEIGHTS = {"content_weight": 1.5, "style_weight": 3e6, "tv_weight": 2e-3}
whole = jax.jit(objective.evaluate, static_argnames="spec")
tiled = jax.jit(tiling.evaluate, static_argnames="spec")


@pytest.mark.parametrize("unit", [1, 2, 16])
def test_every_position_has_one_core_and_room_around_it(unit):
    for length, tile, margin in itertools.product((40, 97, 160, 163), (60, 100, 128), (0, 1, 16)):
        margin *= unit
        if length > tile < 2 * margin + 2 * unit:
            continue
        axis = tiling.split_axis(length, tile, margin, unit)
        assert axis.window <= tile
        assert len(axis.starts) == 1 or axis.window % unit == length % unit
        assert axis.starts[0] == axis.cores[0] == 0
        assert axis.starts[-1] + axis.window == length
        ends = (*axis.cores[1:], length)
        for start, core, end in zip(axis.starts, axis.cores, ends, strict=True):
            assert start % unit == core % unit == 0
            assert start <= core < end <= start + axis.window
            assert core - start >= margin or start == 0
            assert start + axis.window - end >= margin or end == length


def test_the_halo_is_what_a_position_depends_on(params):
    """From outside: the pixels that the activations of one position change with."""
    for layers in (["conv1_2"], ["conv2_2"], ["conv3_1"], ["conv4_2"]):
        unit = 2 ** (int(layers[0][4]) - 1)
        middle = 96 // unit

        def one(image, layer=layers[0], at=middle):
            return jnp.sum(features(params, image, [layer], pooling="average")[layer][at, at])

        noise = np.random.default_rng(0).random((192, 192, 3), np.float32)
        rows = np.flatnonzero(np.abs(jax.grad(one)(noise)).sum((1, 2)))
        reach = NETWORKS["vgg16"].deepest(layers).reach
        assert middle * unit - rows[0] <= reach
        assert rows[-1] - (middle * unit + unit - 1) <= reach
        assert rows[-1] - rows[0] + 1 >= 2 * reach + unit - 2  # a dead ReLU may hide the outermost


LOW = {"style_layers": ("conv1_2", "conv2_1"), "content_layers": ("conv2_2",)}
CASES: dict[str, tuple[tuple[tuple[int, int], int], dict]] = {  # shape and tile; options
    "gatys": (((93, 205), 160), {}),
    "low": (((61, 83), 40), {**LOW, "pooling": "average", "tv_power": 1.0}),
    "all": (((299, 45), 256), PRESETS["improved"]),
    "wasserstein": (((61, 83), 40), {**LOW, "style_loss": "wasserstein"}),
    "luma": (((83, 61), 40), {**LOW, "preserve_color": "luma"}),
    "photorealistic": (
        ((61, 83), 40),
        {
            "photorealistic": True,
            "matting_weight": 1e3,
            "style_layers": ("conv1_1",),
            "content_layers": ("conv1_2",),
        },
    ),
    "laplacian": (
        ((61, 83), 48),
        {"content_loss": "laplacian", "style_layers": ("conv1_1",), "content_layers": ("conv1_2",)},
    ),
    "self_similarity": (
        ((93, 131), 72),
        {
            "content_loss": "self_similarity",
            "style_layers": ("conv2_1",),
            "content_layers": ("conv2_2", "conv3_1"),
        },
    ),
}


MADE_ANEW = ("gatys", "laplacian", "photorealistic")


@pytest.mark.parametrize("case", CASES)
def test_value_gradient_and_terms_equal_the_whole_picture_s(params, rng, case):
    check(
        params,
        rng,
        *CASES[case][0],
        case not in ("all", "wasserstein"),
        CASES[case][1],
        recomputed_terms=case in MADE_ANEW,
    )


@pytest.mark.parametrize("loss", sorted(STYLE_LOSSES))
def test_contract_of_every_style_loss(params, rng, loss, monkeypatch):
    if STYLE_LOSSES[loss].samples:
        monkeypatch.setitem(STYLE_LOSSES, loss, STYLE_LOSSES[loss]._replace(samples=256))
    layers = ("conv1_2", "conv2_2")
    check(
        params,
        rng,
        (71, 90),
        48,
        True,
        {"style_loss": loss, "style_layers": layers, "content_layers": layers[:1]},
    )


def test_around_the_masks_it_is_the_whole_picture_s_too(params, rng):
    """With a ring of 32 columns, and eight beyond it."""
    check(params, rng, (61, 123), 48, True, LOW, black=40)


def test_in_bfloat16_only_rounding_differs(params, rng):
    """Sums of other shapes are taken in another order, so the last of eight bits may differ."""
    check(params, rng, (61, 83), 40, False, {**LOW, "precision": "bfloat16"}, tolerance=1e-2)


def covariances(targets):
    """Return targets with covariances in place of axes, of which those of like variance are hardly told apart."""

    def covariance(node):
        if not isinstance(node, Gaussian):
            return node
        whole = np.einsum("kar,kr,kbr->kab", node.axes, node.variances, node.axes)
        return node.mean, whole, node.rest, node.power

    return jax.tree.map(covariance, targets, is_leaf=lambda node: isinstance(node, Gaussian))


def check(params, rng, shape, tile, masked, options, recomputed_terms=False, tolerance=1e-5, black=0):
    """Compare with the whole; made_anew: also where the content's activations are not kept.

    black: columns that no mask acts on.
    """
    config = Config(**{**options, **WEIGHTS, "style_mix": (3.0, 1.0)})
    spec, weights = config.spec(), config.loss_weights(2)
    styles = list(rng.random((2, 70, 90, 3), np.float32))  # of one size, for one program
    image, content = rng.random((2, *shape, 3), np.float32)
    masks = None
    if masked:
        soft = rng.random(shape, np.float32) ** 3
        soft[:, : shape[1] // 4] = 0
        other = np.float32(1) - soft
        soft[:, shape[1] - black :] = other[:, shape[1] - black :] = 0
        masks = Masks(styles=[soft, other], sources=list(rng.random((2, 70, 90), np.float32)))
    targets = make_targets(
        params, content, styles, spec, activation_shift=config.activation_shift, tv_power=2.5, masks=masks
    )
    expected = whole(params, image, targets, coefficients(weights), spec)
    spec = spec._replace(tile=tile)
    by_windows = make_targets(
        params, content, styles, spec, activation_shift=config.activation_shift, tv_power=2.5, masks=masks
    )
    if tolerance == 1e-5:
        close = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4)
        jax.tree.map(close, covariances(by_windows), covariances(targets))
    windows = tiling.grid(shape, spec)
    assert windows.windows > 1
    for anew in (False, True) if recomputed_terms else (False,):
        spec = spec._replace(recompute_content=anew)
        given = make_targets(
            params, content, styles, spec, activation_shift=config.activation_shift, tv_power=2.5, masks=masks
        )
        assert spec.recompute_content == ("content" not in given.terms)
        found = tiled(params, image, given, coefficients(weights), spec)
        np.testing.assert_allclose(found.value, expected.value, rtol=tolerance)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2 * tolerance), found.terms, expected.terms)
        error = np.linalg.norm(found.gradient - expected.gradient) / np.linalg.norm(expected.gradient)
        assert error < tolerance


def test_a_style_picture_is_taken_by_windows_too(params, rng):
    spec = Config().spec()
    style = rng.random((213, 170, 3), np.float32)
    expected, found = (
        wanted_of_style(
            *style_arguments(
                params, style, {"activation_shift": jnp.float32(-1)}, None, spec._replace(tile=tile)
            )
        )
        for tile in (0, 160)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), found, expected)
