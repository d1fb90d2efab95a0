"""The objective: alpha * content + beta * style + gamma * total variation + lambda * matting, of a picture.

The total is linear in its coefficients, so its gradient with respect to them IS the unweighted terms:
the loop gets every term of every layer from the gradient it needs anyway.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from nst_jax.losses.content import CONTENT_LOSSES
from nst_jax.losses.matting import matting_loss
from nst_jax.losses.samples import Part
from nst_jax.losses.style import STYLE_LOSSES, Look, Statistics, Sums
from nst_jax.vgg import PRECISIONS, AnyArray, Params, block_of, features, in_force, keep_rows, map_shape


class Spec(NamedTuple):
    """What changes the compiled program, and nothing else: static and hashable."""

    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]  # from the bottom up
    style_loss: str = "gram"
    content_loss: str = "squares"
    pooling: str = "max"
    optimizer: str = "lbfgs"
    parametrization: str = "fourier"
    luminance: bool = False  # whether the picture is grey
    photorealistic: bool = False  # whether the matting is a term
    precision: str = "auto"
    tile: int = 0  # longest side of the windows that are taken one by one, in pixels; 0: the whole at once
    anew: bool = False  # whether the content's activations are made anew for every window, and not kept
    mesh: Mesh | None = None  # whose devices have each a share of the picture's rows; None: one device
    rows: int = 0  # with a mesh: of the picture, below which it is padded
    plugged: tuple[Any, ...] = ()  # the losses and the optimizer: others under the same names compile anew

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers in use, each once."""
        return tuple(dict.fromkeys(self.content_layers + self.style_layers))


class Frame(NamedTuple):
    """What lies around the regions of the masks, and how much of each pixel is the picture's own."""

    background: Float[Array, "h w 3"]
    opacity: Float[Array, "h w"]


class Targets(NamedTuple):
    """What the picture is compared with: arrays that stay as they are during an optimisation."""

    content: dict[str, Any]  # by term: what the content loss wants, such as the content's activations
    style: Statistics  # by term: what the style loss wants of k styles, stacked
    activation_shift: Float[Array, ""]  # s of the style statistics
    tv_power: Float[Array, ""]  # p of the total variation
    regions: Sequence[dict[str, Float[Array, "_ _"]]] = ()  # by style, or one for all: weights by layer
    frame: Frame | None = None
    original: Float[Array, "h w 3"] | None = None  # the content, where spec.anew or spec.photorealistic


class LossWeights(NamedTuple):
    """The weights of the terms: arrays, so that other values never recompile, and vmap may batch them."""

    content: Float[Array, ""]  # alpha
    style: Float[Array, ""]  # beta
    tv: Float[Array, ""]  # gamma
    content_layers: dict[str, Float[Array, ""]]
    style_layers: dict[str, Float[Array, ""]]  # w_l
    style_mix: Float[Array, " k"]  # sums to 1
    matting: Float[Array, ""] | None = None  # lambda, where spec.photorealistic

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms there are."""
        return tuple(name for name in Terms._fields if getattr(self, name) is not None)


class Terms(NamedTuple):
    """One number for each term: the unweighted losses, or (of the same shape) their coefficients."""

    content: dict[str, Float[Array, ""]]
    style: dict[str, Float[Array, " k"]]
    tv: Float[Array, ""]
    matting: Float[Array, ""] | None = None


class Evaluation(NamedTuple):
    """The total of a picture, its gradient with respect to the picture, and the unweighted terms."""

    value: Float[Array, ""]
    gradient: Float[Array, "h w 3"]
    terms: Terms


def network(params: Params, image: AnyArray, layers: Sequence[str], spec: Spec) -> dict[str, Array]:
    """Return the activations at the layers, as the spec has them computed."""
    return features(params, image, layers, pooling=spec.pooling, precision=spec.precision, rows=spec.rows)


def over_style(
    look: Look, params: Params, style: AnyArray, mask: dict[str, Array] | None, spec: Spec
) -> Sums:
    """Return what a look sees of a style picture, where its mask is, or everywhere."""
    maps = network(params, style, spec.style_layers, spec)
    with style_products(spec):
        return look(style_maps(maps, spec), mask, None)


def style_maps(maps: dict[str, Array], spec: Spec) -> dict[str, Array]:
    """Return the style's activations as they are held where the loss takes that, else in float32."""
    held = _takes_held(spec)
    return {layer: maps[layer] if held else maps[layer].astype(jnp.float32) for layer in spec.style_layers}


def _takes_held(spec: Spec) -> bool:
    """Tell whether the style loss takes activations as they are held: where products of bfloat16 are fast."""
    return STYLE_LOSSES[spec.style_loss].narrow and jax.default_backend() != "cpu"


def style_products(spec: Spec) -> Any:
    """Return the context of a style loss's products."""
    # What bfloat16 holds is exact in the products that a GPU takes for it, and the sums are float32.
    return jax.default_matmul_precision(PRECISIONS[in_force(spec.precision)].products.name.lower())


def positions(shape: Sequence[int], spec: Spec) -> dict[str, int]:
    """Return how many positions the style's layers have in a picture of this shape."""
    shapes = {layer: map_shape(layer, spec.rows or shape[0], shape[1]) for layer in spec.style_layers}
    return {layer: rows * columns for layer, (rows, columns) in shapes.items()}


def shown(image: Float[AnyArray, "h w 3"], frame: Frame | None, spec: Spec) -> Float[AnyArray, "h w 3"]:
    """Return the picture that an optimised one stands for: grey for luminance, and blended into its frame."""
    if spec.luminance:  # the mean keeps equal channels equal, so luma is all that ever moves
        image = jnp.broadcast_to(image.mean(-1, keepdims=True), image.shape)
    if frame is not None:
        opacity = frame.opacity[..., None]
        image = opacity * image + (1 - opacity) * frame.background
    return image


class Pieces(NamedTuple):
    """What the terms are made of: sums over positions, so those of two parts of a picture add up."""

    content: dict[str, Array]
    style: list[Sums]  # by region, or by style
    tv: Float[Array, ""]
    matting: Float[Array, ""] | None = None


def loss_terms(params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, spec: Spec) -> Terms:
    """Return the unweighted terms of an RGB picture in [0, 1], by layer and by style."""
    pieces = loss_pieces(params, shown(image, targets.frame, spec), targets, spec)
    return terms_of(pieces, targets, image.shape, spec)


def loss_pieces(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, spec: Spec, part: Part | None = None
) -> Pieces:
    """Return what the terms of a shown picture are made of, or those of the positions that are a part's."""
    maps = network(params, image, spec.layers, spec)
    corner = None if part is None else part.owned[1][:-1, :-1]
    return Pieces(
        content=content_sums(image, maps, targets, spec, part),
        style=style_sums(maps, targets, spec, part),
        tv=total_variation(image, targets.tv_power, corner, spec.rows),
        matting=matting_sum(image, targets, spec, part),
    )


def content_sums(
    image: AnyArray, maps: dict[str, Array], targets: Targets, spec: Spec, part: Part | None = None
) -> dict[str, Array]:
    """Return what the content's terms are made of."""
    if not spec.content_layers:
        return {}
    used = {layer: maps[layer] for layer in spec.content_layers}
    return CONTENT_LOSSES[spec.content_loss].sums(image, used, targets.content, part, spec.rows)


def style_sums(maps: dict[str, Array], targets: Targets, spec: Spec, part: Part | None = None) -> list[Sums]:
    """Return what the style's terms are made of: by region, or by style where each has an aim of its own."""
    loss, regions = STYLE_LOSSES[spec.style_loss], owned_regions(targets.regions, spec, part)
    aims: list[tuple[Statistics, ...]] = [()] * len(regions)
    if loss.aim is not None:
        aims = [loss.aims(wanted) for wanted in each_style(targets.style)]
        regions = regions if len(regions) > 1 else regions * len(aims)
    shift, ours = targets.activation_shift, style_maps(maps, spec)
    with style_products(spec):
        pairs = zip(regions, aims, strict=True)
        return [loss.sums(ours, shift, region, spec.rows, *aim) for region, aim in pairs]


def matting_sum(
    image: AnyArray, targets: Targets, spec: Spec, part: Part | None = None
) -> Float[Array, ""] | None:
    """Return the matting loss of a picture by its content, None where it is no term."""
    if not spec.photorealistic:
        return None
    assert targets.original is not None
    return matting_loss(image, targets.original, None if part is None else part.owned[1], spec.rows)


def each_style(wanted: Any) -> list[Any]:
    """Return what is wanted of each style by itself, from what is stacked."""
    count = jax.tree.leaves(wanted)[0].shape[0]
    return [jax.tree.map(lambda leaf, k=k: leaf[k], wanted) for k in range(count)]


def owned_regions(
    regions: Sequence[dict[str, Array]], spec: Spec, part: Part | None
) -> list[dict[str, Array] | None]:
    """Return the regions, or the one without a mask, as weights of the positions that are a part's."""
    if part is None:
        return list(regions) or [None]
    everywhere = {layer: part.owned[block_of(layer)] for layer in spec.style_layers}
    return [{layer: everywhere[layer] * region[layer] for layer in everywhere} for region in regions] or [
        everywhere
    ]


def terms_of(pieces: Pieces, targets: Targets, shape: Sequence[int], spec: Spec) -> Terms:
    """Return the terms of a picture of this shape that complete pieces come to."""
    loss, distance = STYLE_LOSSES[spec.style_loss], CONTENT_LOSSES[spec.content_loss].distance
    found = [loss.means(sums, positions(shape, spec)) for sums in pieces.style]
    return Terms(
        content={
            term: sums if distance is None else distance(sums, targets.content[term])
            for term, sums in pieces.content.items()
        },
        style={
            term: _distances(loss.distance, [statistics[term] for statistics in found], wanted)
            for term, wanted in targets.style.items()
        },
        tv=pieces.tv,
        matting=pieces.matting,
    )


def _distances(distance: Callable[[Any, Any], Array], found: list[Any], wanted: Any) -> Float[Array, " k"]:
    """Return the distance to each style, from its own region or from the one that all share.

    One after the other: XLA:CPU takes a batch of one product several times as long as the product.
    """
    styles = each_style(wanted)
    pairs = zip(found if len(found) > 1 else found * len(styles), styles, strict=True)
    return jnp.stack([distance(x, s) for x, s in pairs])


def total_loss(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, weights: LossWeights, spec: Spec
) -> Float[Array, ""]:
    """Return alpha L_content + beta L_style + gamma L_tv + lambda L_matting of an RGB picture in [0, 1]."""
    return weighted_sum(coefficients(weights), loss_terms(params, image, targets, spec))


def evaluate(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, factors: Terms, spec: Spec
) -> Evaluation:
    """Return value, gradient and terms. The total is linear in its factors: their gradient is the terms."""

    def total(image: Array, factors: Terms) -> Array:
        return weighted_sum(factors, loss_terms(params, image, targets, spec))

    value, (gradient, terms) = jax.value_and_grad(total, argnums=(0, 1))(image, factors)
    return Evaluation(value, gradient, terms)


def total_variation(
    image: Float[AnyArray, "h w 3"],
    power: Float[Array, ""],
    owned: Float[Array, "_ _"] | None = None,
    rows: int = 0,
) -> Float[Array, ""]:
    """Return sum (dx^2 + dy^2)^(p/2) over the top-left (h-1) x (w-1) corner and channels, in 0..255 units.

    dx, dy: differences to the right and lower neighbour. The published tutorial code; p = 2.5 there.
    rows: of the picture, below which it is padded; 0: all.
    """
    pixels = 255 * image
    corner = pixels[:-1, :-1]
    squares = (pixels[:-1, 1:] - corner) ** 2 + (pixels[1:, :-1] - corner) ** 2
    squares = keep_rows(squares, max(0, rows - 1))
    flat = squares == 0  # a root's slope at 0 is infinite; the term's own, as a minimum, is taken as 0
    if owned is not None:
        flat |= owned[..., None] == 0
    # Not **: its slope takes a power of its own, where that of exp takes the value again.
    powers = jnp.exp(power / 2 * jnp.log(jnp.where(flat, 1.0, squares)))
    return jnp.sum(jnp.where(flat, 0.0, powers))


def coefficients(weights: LossWeights) -> Terms:
    """Return the factor of every term in the total: alpha w_l, beta w_l mix_k, gamma, lambda."""
    return Terms(
        content={name: weights.content * w for name, w in weights.content_layers.items()},
        style={name: weights.style * w * weights.style_mix for name, w in weights.style_layers.items()},
        tv=jnp.asarray(weights.tv),
        matting=weights.matting,
    )


def weighted_sum(factors: Terms, terms: Terms) -> Float[Array, ""]:
    """Return the sum of factor times term over all terms."""
    products = jax.tree.map(lambda factor, term: jnp.sum(factor * term), factors, terms)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def summarize(terms: Terms, weights: LossWeights) -> dict[str, Any]:
    """Return the losses as the report has them: unweighted terms over layers and styles; weighted total.

    weights: alpha, beta, gamma and lambda, by the names of the terms; matting is there if it is a term;
    content and style hold the weights of the layers and the mix of the styles, but not alpha and beta;
    *_by_layer hold neither w_l nor alpha and beta; by_style holds the same of each style alone. In float64.
    """
    content = {layer: float(term) for layer, term in terms.content.items()}
    style = {layer: float(np.dot(weights.style_mix, np.float64(term))) for layer, term in terms.style.items()}
    losses = {
        "content": sum(float(weights.content_layers[layer]) * term for layer, term in content.items()),
        "style": sum(float(weights.style_layers[layer]) * term for layer, term in style.items()),
        "tv": float(terms.tv),
        **({} if terms.matting is None else {"matting": float(terms.matting)}),
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
        "weights": {name: float(getattr(weights, name)) for name in losses},
        "content_by_layer": content,
        "style_by_layer": style,
        "by_style": by_style,
    }
