"""The style as a term of the objective: by layer, and by style."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.base import Painting, Reach, Term, View, Weight, Whole
from nst_jax.losses.style import STYLE_LOSSES, StatisticFn, Statistics, StyleLoss, Sums, term_names
from nst_jax.networks.base import AnyArray
from nst_jax.networks.convolutions import in_force
from nst_jax.networks.precision import PRECISIONS
from nst_jax.spec import Spec


def _loss(spec: Spec) -> StyleLoss:
    return STYLE_LOSSES[spec.style_loss]


def _maps(view: View) -> dict[str, AnyArray]:
    """Return the style's activations as they are held where the loss takes that, else in float32."""
    held, layers = _takes_held(view.spec), view.spec.style_layers
    return {layer: view.maps[layer] if held else view.maps[layer].astype(jnp.float32) for layer in layers}


def _takes_held(spec: Spec) -> bool:
    """Tell whether the style loss takes activations as they are held: where products of bfloat16 are fast."""
    return _loss(spec).narrow and jax.default_backend() != "cpu"


def _products(spec: Spec) -> Any:
    """Return the context of a style loss's products."""
    # What bfloat16 holds is exact in the products that a GPU takes for it, and the sums are float32.
    return jax.default_matmul_precision(PRECISIONS[in_force(spec.precision)].products.name.lower())


def _positions(size: tuple[int, int], spec: Spec) -> dict[str, int]:
    """Return how many positions the style's layers have in a picture of this size."""
    layers = spec.network.select(spec.style_layers)
    return {layer.name: math.prod(layer.map_shape(*size)) for layer in layers}


def _wanted(style: Painting) -> Statistics:
    spec = style.spec

    def over(look: StatisticFn) -> Sums:
        def seen(view: View) -> Sums:
            (mask,) = view.weights_by_region(spec.style_layers)
            with _products(spec):
                return look(_maps(view), mask, view.part)

        found: Sums = style.over(seen)
        return found

    shift = style.numbers["activation_shift"]
    return _loss(spec).wanted(over, shift, spec.network, style.samples, _positions(style.size, spec))


def _sums(view: View, wanted: Statistics) -> list[Sums]:
    """Return what the terms are made of: by region, or by style where each has a reference of its own."""
    loss, regions = _loss(view.spec), view.weights_by_region(view.spec.style_layers)
    references: list[tuple[Statistics, ...]] = [()] * len(regions)
    if loss.reference is not None:
        references = [loss.references(one) for one in _each_style(wanted)]
        regions = regions if len(regions) > 1 else regions * len(references)
    shift, ours = view.numbers["activation_shift"], _maps(view)
    with _products(view.spec):
        pairs = zip(regions, references, strict=True)
        return [loss.sums(ours, shift, region, view.spec.network, *reference) for region, reference in pairs]


def _losses(means: list[Statistics], wanted: Statistics, whole: Whole) -> dict[str, Array]:
    loss = _loss(whole.spec)
    found = [loss.scaled(one, _positions(whole.size, whole.spec)) for one in means]
    return {
        term: _distances(loss.distance, [statistics[term] for statistics in found], one)
        for term, one in wanted.items()
    }


def _distances(distance: Callable[[Any, Any], Array], found: list[Any], wanted: Any) -> Float[Array, " k"]:
    """Return the distance to each style, from its own region or from the one that all share.

    One after the other: XLA:CPU takes a batch of one product several times as long as the product.
    """
    styles = _each_style(wanted)
    pairs = zip(found if len(found) > 1 else found * len(styles), styles, strict=True)
    return jnp.stack([distance(x, s) for x, s in pairs])


def _each_style(wanted: Any) -> list[Any]:
    """Return the targets of each style by itself, from the stacked ones."""
    count = jax.tree.leaves(wanted)[0].shape[0]
    return [jax.tree.map(lambda leaf, k=k: leaf[k], wanted) for k in range(count)]


def _reach(spec: Spec) -> Reach:
    return Reach(maps=_loss(spec).reach * spec.network.deepest(spec.style_layers).stride)


STYLE = Term(
    _sums,
    _losses,
    weight=Weight("beta, the weight of the style loss", 1e8),
    of_style=_wanted,
    names=lambda spec: term_names(spec.style_loss, spec.network, spec.style_layers),
    layers=lambda spec: spec.style_layers,
    reach=_reach,
    numbers=(("activation_shift", 0.0),),
    places=("content",),
    gradient_ratio=lambda spec: _loss(spec).gradient_ratio,
)
