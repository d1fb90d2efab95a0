"""The objective: the sum of losses.TERMS, each times its weight, of a picture.

The total is linear in its coefficients, so its gradient with respect to them IS the unweighted terms. The
loop gets every term of every layer from the gradient it needs anyway.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nst_jax.losses import TERMS
from nst_jax.losses.base import View, Whole, means
from nst_jax.losses.sampling import Tile
from nst_jax.networks.base import AnyArray, Params, features
from nst_jax.objective.weights import LossWeights, coefficients
from nst_jax.pytrees import Pytree
from nst_jax.spec import Spec

# By term: a number, or numbers by name, and by style where it is of styles: the unweighted losses, or (of the
# same shape) their coefficients.
Terms = dict[str, Any]
PartialSums = dict[
    str, Any
]  # by term: the sums that it is made of, so those of two parts of a picture add up


class Background(NamedTuple):
    """What lies around the regions of the masks, and how much of each pixel is the picture's own."""

    image: Float[Array, "h w 3"]
    opacity: Float[Array, "h w"]  # of what is shown
    optimized: Float[Array, "h w"]  # of what the losses see, which is more


class Targets(Pytree):
    """The arrays with which the losses compare a picture. They are constant during a run."""

    terms: dict[str, Any]  # what each term wants of the content or of k styles, stacked
    numbers: dict[str, Float[Array, ""]]  # options that terms take traced, by name
    regions: Sequence[dict[str, Float[Array, "_ _"]]] = ()  # by style, or one for all: weights by layer
    background: Background | None = None
    original: Float[Array, "h w 3"] | None = None  # the content, where spec.recompute_content


class Evaluation(NamedTuple):
    """The total of a picture, its gradient with respect to the picture, and the unweighted terms."""

    value: Float[Array, ""]
    gradient: Float[Array, "h w 3"]
    terms: Terms


def in_order(names: Mapping[str, Any]) -> list[str]:
    """Return the names of terms in the order of TERMS: a dict that was traced has another."""
    return [name for name in TERMS if name in names]


def network(params: Params, image: AnyArray, layers: Sequence[str], spec: Spec) -> dict[str, Array]:
    """Return the activations at the layers, as the spec has them computed.

    Args:
        params: The network.
        image: RGB in [0, 1].
        layers: Their names.
        spec: What is static.
    """
    return features(params, image, layers, pooling=spec.pooling, precision=spec.precision, rows=spec.rows)


def of_content(spec: Spec) -> list[str]:
    """Return the terms that want something of the content; none where there is none."""
    return [name for name in spec.terms if TERMS[name].of_content and not _is_absent(name, spec)]


def of_styles(spec: Spec) -> list[str]:
    """Return the terms that want something of each style."""
    return [name for name in spec.terms if TERMS[name].of_style]


def recomputed_terms(spec: Spec) -> list[str]:
    """Return the terms that want of the content what each window can make of its share."""
    return [name for name in of_content(spec) if TERMS[name].local(spec)]


def given_terms(spec: Spec) -> list[str]:
    """Return the terms whose targets are given, beside the content and the styles."""
    return [name for name in spec.terms if TERMS[name].given]


def layers_of(names: Sequence[str], spec: Spec) -> tuple[str, ...]:
    """Return the layers that terms read, each once."""
    return tuple(dict.fromkeys(layer for name in names for layer in TERMS[name].layers(spec)))


def seen(
    image: Float[AnyArray, "h w 3"], background: Background | None, spec: Spec
) -> Float[AnyArray, "h w 3"]:
    """Return what the losses see of an optimized picture: gray for luminance, and within its regions.

    Args:
        image: As optimized, RGB in [0, 1].
        background: What lies around the masks. None: there are no masks.
        spec: What is static.
    """
    if spec.luminance:  # the mean keeps equal channels equal, so luma is all that ever moves
        image = jnp.broadcast_to(image.mean(-1, keepdims=True), image.shape)
    return image if background is None else _blend(image, background.image, background.optimized)


def composite(
    image: Float[AnyArray, "h w 3"], background: Background | None, spec: Spec
) -> Float[AnyArray, "h w 3"]:
    """Return the picture that is shown of an optimized one: what the losses see, cut at the masks' seam.

    Args:
        image: As optimized, RGB in [0, 1].
        background: What lies around the masks. None: there are no masks.
        spec: What is static.
    """
    image = seen(image, background, spec)
    return image if background is None else _blend(image, background.image, background.opacity)


def _blend(image: AnyArray, background: AnyArray, opacity: AnyArray) -> AnyArray:
    return opacity[..., None] * image + (1 - opacity[..., None]) * background


def loss_terms(params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, spec: Spec) -> Terms:
    """Return the unweighted losses of a picture, by term, by layer and by style.

    Args:
        params: The network.
        image: As optimized, RGB in [0, 1].
        targets: What the picture is compared with (make_targets).
        spec: What is static.
    """
    pieces = loss_pieces(params, seen(image, targets.background, spec), targets, spec)
    return terms_of(pieces, targets, image.shape, spec)


def loss_pieces(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, spec: Spec, part: Tile | None = None
) -> PartialSums:
    """Return what the terms of a seen picture are made of, or those of the positions that are a part's.

    Args:
        params: The network.
        image: As seen.
        targets: What the picture is compared with (make_targets).
        spec: What is static.
        part: The window. None: the whole picture.
    """
    maps = network(params, image, spec.layers, spec)
    return sums_of(spec.terms, image, maps, targets, spec, part)


def sums_of(
    names: Sequence[str],
    image: AnyArray,
    maps: dict[str, Array],
    targets: Targets,
    spec: Spec,
    part: Tile | None = None,
) -> PartialSums:
    """Return what some of the terms are made of.

    Args:
        names: Of the terms.
        image: As seen.
        maps: Its activations by layer.
        targets: What the picture is compared with (make_targets).
        spec: What is static.
        part: The window. None: the whole picture.
    """
    view = View(image, maps, targets.numbers, spec, part, targets.regions)
    return {
        name: {} if _is_absent(name, spec) else TERMS[name].sums(view, targets.terms.get(name, {}))
        for name in names
    }


def _is_absent(name: str, spec: Spec) -> bool:
    """Tell whether a term has no numbers: one of the content, where there is none."""
    return TERMS[name].of_content is not None and not spec.content_layers


def terms_of(pieces: PartialSums, targets: Targets, shape: Sequence[int], spec: Spec) -> Terms:
    """Return the terms of a picture of this shape that complete pieces come to.

    Args:
        pieces: Complete sums, by term.
        targets: What the picture is compared with (make_targets).
        shape: Of the picture.
        spec: What is static.
    """
    whole, found = Whole(spec.own_size(tuple(shape)), spec), means(pieces)
    for name in spec.terms:
        losses = TERMS[name].losses
        if losses and not _is_absent(name, spec):
            found[name] = losses(found[name], targets.terms.get(name, {}), whole)
    return found


def total_loss(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, weights: LossWeights, spec: Spec
) -> Float[Array, ""]:
    """Return the total loss of a picture: the sum of weight times term.

    Args:
        params: The network.
        image: As optimized, RGB in [0, 1].
        targets: What the picture is compared with (make_targets).
        weights: Of the terms.
        spec: What is static.
    """
    return weighted_sum(coefficients(weights), loss_terms(params, image, targets, spec))


def evaluate(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, factors: Terms, spec: Spec
) -> Evaluation:
    """Return value, gradient and terms. The total is linear in its factors: their gradient is the terms.

    Args:
        params: The network.
        image: As optimized, RGB in [0, 1].
        targets: What the picture is compared with (make_targets).
        factors: Coefficients of the terms (weights.coefficients).
        spec: What is static.
    """

    def total(image: Array, factors: Terms) -> Array:
        return weighted_sum(factors, loss_terms(params, image, targets, spec))

    value, (gradient, terms) = jax.value_and_grad(total, argnums=(0, 1))(image, factors)
    return Evaluation(value, gradient, terms)


def weighted_sum(factors: Terms, terms: Terms) -> Float[Array, ""]:
    """Return the sum of factor times term over all terms."""
    products = jax.tree.map(lambda factor, term: jnp.sum(factor * term), factors, terms)
    leaves = [leaf for name in in_order(products) for leaf in jax.tree.leaves(products[name])]
    return sum(leaves, start=jnp.zeros(()))


def summarize(terms: Terms, weights: LossWeights) -> dict[str, Any]:
    """Return the losses as the report has them: unweighted terms over layers and styles; weighted total.

    weights: alpha, beta, gamma, lambda and so on, by the names of the terms that there are. The terms hold
    the weights of the layers and the mix of the styles, but not alpha and beta. *_by_layer hold neither w_l
    nor alpha and beta. by_style holds the same of each style alone. In float64.
    """
    by_style: list[dict[str, Any]] = [{} for _ in weights.style_mix]
    losses: dict[str, float] = {}
    by_layer: dict[str, Any] = {}
    for name in in_order(weights.terms):
        found = terms[name]
        if TERMS[name].of_style:
            for k, one in enumerate(by_style):
                own = jax.tree.map(lambda number, k=k: number[k], found)
                one |= _told(name, own, weights)
            found = jax.tree.map(lambda number: np.dot(weights.style_mix, np.float64(number)), found)
        told = _told(name, found, weights)
        losses[name] = told.pop(name)
        by_layer |= told
    total = sum(float(weights.terms[name]) * loss for name, loss in losses.items())
    return {
        "total": total,
        **losses,
        "weights": {name: float(weights.terms[name]) for name in losses},
        **by_layer,
        "by_style": by_style,
    }


def _told(name: str, found: Any, weights: LossWeights) -> dict[str, Any]:
    """Return a term's loss, over its layers, and by layer where it has several numbers."""
    if name not in weights.parts:
        return {name: float(found)}
    layers = {layer: float(number) for layer, number in found.items()}
    loss = sum(float(weights.parts[name][layer]) * number for layer, number in layers.items())
    return {name: loss, f"{name}_by_layer": layers}
