"""The objective: alpha * content + beta * style + gamma * total variation, as a pure function of the picture.

The total is linear in its coefficients, so its gradient with respect to them IS the unweighted terms:
the loop gets every term of every layer from the gradient it needs anyway.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from nst_jax import masks as masking
from nst_jax.masks import Masks
from nst_jax.style import STYLE_LOSSES
from nst_jax.vgg import PRECISIONS, AnyArray, Params, features


class Spec(NamedTuple):
    """What changes the compiled program, and nothing else: static and hashable."""

    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]  # from the bottom up
    style_loss: str = "gram"
    pooling: str = "max"
    optimizer: str = "lbfgs"
    luminance: bool = False  # whether the picture is grey
    precision: str = "float32"


class Frame(NamedTuple):
    """What lies around the regions of the masks, and how much of each pixel is the picture's own."""

    background: Float[Array, "h w 3"]
    opacity: Float[Array, "h w"]


class Targets(NamedTuple):
    """What the picture is compared with: arrays that stay as they are during an optimisation."""

    content: dict[str, Float[Array, "_ _ _"]]  # by layer: the content's activations
    style: dict[str, Float[Array, "k _ _"]]  # by term: the statistics of k styles
    activation_shift: Float[Array, ""]  # s of the style statistics
    tv_power: Float[Array, ""]  # p of the total variation
    regions: Sequence[dict[str, Float[Array, "_ _"]]] = ()  # by style, or one for all: weights by layer
    frame: Frame | None = None


class LossWeights(NamedTuple):
    """The weights of the terms: arrays, so that other values never recompile, and vmap may batch them."""

    content: Float[Array, ""]  # alpha
    style: Float[Array, ""]  # beta
    tv: Float[Array, ""]  # gamma
    content_layers: dict[str, Float[Array, ""]]
    style_layers: dict[str, Float[Array, ""]]  # w_l
    style_mix: Float[Array, " k"]  # sums to 1


class Terms(NamedTuple):
    """One number for each term: the unweighted losses, or (of the same shape) their coefficients."""

    content: dict[str, Float[Array, ""]]
    style: dict[str, Float[Array, " k"]]
    tv: Float[Array, ""]


def make_targets(
    params: Params,
    content: Float[AnyArray, "h w 3"] | None,
    styles: Sequence[Float[AnyArray, "_ _ 3"]],
    spec: Spec,
    activation_shift: float = 0.0,
    tv_power: float = 2.5,
    masks: Masks | None = None,
    background: Float[AnyArray, "h w 3"] | None = None,
) -> Targets:
    """Return the content's activations and the styles' statistics, of RGB pictures in [0, 1] of any sizes.

    Without a content picture spec.content_layers must be empty. background is what shows where no mask is
    white: the content, if it is not given. Raises InputError for pictures too small.
    """
    shift = jnp.asarray(activation_shift, jnp.float32)
    masks = masks or Masks()
    parts = masking.regions(masks)
    around = content if background is None else background
    return Targets(
        content={} if content is None else content_targets(params, content, spec),
        style=style_targets(params, styles, masks, shift, spec),
        activation_shift=shift,
        tv_power=jnp.asarray(tv_power, jnp.float32),
        regions=regions_by_layer(parts, spec),
        frame=None if parts is None else Frame(jnp.asarray(around), jnp.asarray(masking.opacity(parts))),
    )


@jax.jit(static_argnames="spec")
def content_targets(params: Params, content: AnyArray, spec: Spec) -> dict[str, Array]:
    """Return the activations of the content, by layer."""
    return features(params, content, spec.content_layers, spec.pooling, spec.precision)


def style_targets(
    params: Params, styles: Sequence[AnyArray], masks: Masks, shift: Array, spec: Spec
) -> dict[str, Array]:
    """Return the statistics of the styles, or of the parts that their masks name: by term, stacked."""
    statistics = [
        style_statistics(params, style, shift, mask_by_layer(source, spec), spec)
        for style, source in zip(styles, masks.sources_of(len(styles)), strict=True)
    ]
    return jax.tree.map(lambda *one: jnp.stack(one), *statistics) if statistics else {}


def regions_by_layer(
    parts: Float32[np.ndarray, "r h w"] | None, spec: Spec
) -> list[dict[str, Float[Array, "_ _"]]]:
    """Return the regions as the style's layers see them; none where there are no masks."""
    return [] if parts is None else [_by_layer(part, spec) for part in parts]


def mask_by_layer(mask: Float32[np.ndarray, "h w"] | None, spec: Spec) -> dict[str, Array] | None:
    """Return a mask as the style's layers see it; None is None."""
    return None if mask is None else _by_layer(mask, spec)


def _by_layer(mask: Float32[np.ndarray, "h w"], spec: Spec) -> dict[str, Array]:
    return {layer: jnp.asarray(masking.pooled(mask, layer)) for layer in spec.style_layers}


@jax.jit(static_argnames="spec")
def style_statistics(
    params: Params, style: AnyArray, shift: Array, mask: dict[str, Array] | None, spec: Spec
) -> dict[str, Array]:
    """Return the statistics of one style picture, or of the part of it that a mask weighs, by term."""
    maps = features(params, style, spec.style_layers, spec.pooling, spec.precision)
    return _statistics(maps, shift, mask, spec)


def _statistics(
    maps: dict[str, Array], shift: Array, mask: dict[str, Array] | None, spec: Spec
) -> dict[str, Array]:
    """Return the style's statistics in float32, whatever the activations are held in."""
    maps = {layer: maps[layer].astype(jnp.float32) for layer in spec.style_layers}
    # What bfloat16 holds is exact in the products that a GPU takes for it, and the sums are float32.
    with jax.default_matmul_precision(PRECISIONS[spec.precision].products.name.lower()):
        return STYLE_LOSSES[spec.style_loss].statistics(maps, shift, mask)


def shown(image: Float[AnyArray, "h w 3"], frame: Frame | None, spec: Spec) -> Float[AnyArray, "h w 3"]:
    """Return the picture that an optimised one stands for: grey for luminance, and blended into its frame."""
    if spec.luminance:  # the mean keeps equal channels equal, so luma is all that ever moves
        image = jnp.broadcast_to(image.mean(-1, keepdims=True), image.shape)
    if frame is not None:
        opacity = frame.opacity[..., None]
        image = opacity * image + (1 - opacity) * frame.background
    return image


def loss_terms(params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, spec: Spec) -> Terms:
    """Return the unweighted terms of an RGB picture in [0, 1], by layer and by style."""
    layers = spec.content_layers + tuple(
        name for name in spec.style_layers if name not in spec.content_layers
    )
    image = shown(image, targets.frame, spec)
    maps = features(params, image, layers, spec.pooling, spec.precision)
    everywhere: list[dict[str, Array] | None] = [None]
    statistics = [
        _statistics(maps, targets.activation_shift, region, spec)
        for region in (targets.regions or everywhere)
    ]
    return Terms(
        content={name: content_loss(maps[name], targets.content[name]) for name in spec.content_layers},
        style={
            term: _distances(STYLE_LOSSES[spec.style_loss].distance, [s[term] for s in statistics], wanted)
            for term, wanted in targets.style.items()
        },
        tv=total_variation(image, targets.tv_power),
    )


def _distances(
    distance: Callable[[Array, Array], Array],
    found: Sequence[Float[Array, "a b"]],
    wanted: Float[Array, "k a b"],
) -> Float[Array, " k"]:
    """Return the distance to each style, from its own region or from the one that all share."""
    if len(found) == 1:
        return jax.vmap(distance, in_axes=(None, 0))(found[0], wanted)
    return jax.vmap(distance)(jnp.stack(found), wanted)


def total_loss(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, weights: LossWeights, spec: Spec
) -> Float[Array, ""]:
    """Return alpha L_content + beta L_style + gamma L_tv of an RGB picture in [0, 1]."""
    return weighted_sum(coefficients(weights), loss_terms(params, image, targets, spec))


def content_loss(x: Float[Array, "h w c"], c: Float[Array, "h w c"]) -> Float[Array, ""]:
    """Return 1/2 sum (x - c)^2 over positions and channels. Gatys et al. 2015, eq. 1."""
    return jnp.sum((x.astype(jnp.float32) - c.astype(jnp.float32)) ** 2) / 2


def total_variation(image: Float[AnyArray, "h w 3"], power: Float[Array, ""]) -> Float[Array, ""]:
    """Return sum (dx^2 + dy^2)^(p/2) over the top-left (h-1) x (w-1) corner and channels, in 0..255 units.

    dx, dy: differences to the right and lower neighbour. The published tutorial code; p = 2.5 there.
    """
    pixels = 255 * image
    corner = pixels[:-1, :-1]
    squares = (pixels[:-1, 1:] - corner) ** 2 + (pixels[1:, :-1] - corner) ** 2
    flat = squares == 0  # a root's slope at 0 is infinite; the term's own, as a minimum, is taken as 0
    return jnp.sum(jnp.where(flat, 0.0, jnp.where(flat, 1.0, squares) ** (power / 2)))


def coefficients(weights: LossWeights) -> Terms:
    """Return the factor of every term in the total: alpha w_l, beta w_l mix_k, gamma."""
    return Terms(
        content={name: weights.content * w for name, w in weights.content_layers.items()},
        style={name: weights.style * w * weights.style_mix for name, w in weights.style_layers.items()},
        tv=jnp.asarray(weights.tv),
    )


def weighted_sum(factors: Terms, terms: Terms) -> Float[Array, ""]:
    """Return the sum of factor times term over all terms."""
    products = jax.tree.map(lambda factor, term: jnp.sum(factor * term), factors, terms)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def summarize(terms: Terms, weights: LossWeights) -> dict[str, Any]:
    """Return the losses as the report has them: unweighted terms over layers and styles; weighted total.

    content and style hold the weights of the layers and the mix of the styles, but not alpha and beta;
    *_by_layer hold neither w_l nor alpha and beta; by_style holds the same of each style alone. In float64.
    """
    content = {layer: float(term) for layer, term in terms.content.items()}
    style = {layer: float(np.dot(weights.style_mix, np.float64(term))) for layer, term in terms.style.items()}
    losses = {
        "content": sum(float(weights.content_layers[layer]) * term for layer, term in content.items()),
        "style": sum(float(weights.style_layers[layer]) * term for layer, term in style.items()),
        "tv": float(terms.tv),
    }
    total = sum(float(getattr(weights, name)) * term for name, term in losses.items())
    by_style = []
    for k in range(len(weights.style_mix)):
        layers = {layer: float(term[k]) for layer, term in terms.style.items()}
        loss = sum(float(weights.style_layers[layer]) * term for layer, term in layers.items())
        by_style.append({"style": loss, "style_by_layer": layers})
    return {
        "total": total,
        **losses,
        "content_by_layer": content,
        "style_by_layer": style,
        "by_style": by_style,
    }
