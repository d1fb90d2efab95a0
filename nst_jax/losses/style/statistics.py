"""Style losses: a statistic of a picture's features, and its distance from a style's target.

A statistic is a mean over positions, so it does not depend on the size of the picture it was taken from. A
mask is the weight of each position in that mean, so a small region counts like a large one. So are the rows
that are the picture's own, and the core of a window: a loss sees one weight for each position.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.base import Sum, means
from nst_jax.losses.sampling import Samples, Tile
from nst_jax.networks.base import AnyArray, Network

Features = Mapping[str, Float[AnyArray, "_ _ _"]]  # by layer, (rows, columns, channels), from the bottom up
# By layer: the weight of each position, at least 0, not all 0; None: of all the same.
Mask = Mapping[str, Float[AnyArray, "_ _"] | None]

# By the layer that names the term: a tree of Sums, Mins, and arrays that add up themselves.
Sums = dict[str, Any]
Statistics = dict[str, Any]  # the same with the means in place of the Sums, what is least, and the arrays

StatisticFn = Callable[[Features, Mask | None, Tile | None], Sums]  # at features that may be those of a part


class StyleTarget(NamedTuple):
    """The target of one term of a style, for a loss with a reference."""

    reference: Any  # what a picture's sums are taken against
    own: Any  # the style's statistic, against itself


class StyleLoss(NamedTuple):
    """A style loss: at each layer, the distance between a statistic of the picture and one of the style.

    sums: (features, shift, mask, network) -> the statistic by layer, a tree of Sum and Min. mask is None or
        has the weight of each position, by layer. With a reference, that is a fifth argument.
    distance: (statistic of the picture, of the style) -> the loss of one layer. The statistics have means in
        place of Sums. With a reference, the second one is a StyleTarget.
    gradient_ratio: the norm of its gradient over that of the content loss, for weights of 1 with
        loss_balancing=auto.
    strength_midpoint: the style weight at strength 0.5, for a content weight of 1.
    strength_exponent: the exponent k of (s / (1 - s))^k, by which a strength s changes that weight.
    shifts: whether the loss uses the activation shift.
    reference: (features of the style, shift, mask, network, samples) -> sums with which each picture is
        compared, position by position. None: the statistic needs none.
    samples: how many positions of each layer represent a style in `reference`.
    reach: how many positions to each side the statistic looks at.
    """

    sums: Callable[..., Sums]
    distance: Callable[[Any, Any], Float[Array, ""]]
    gradient_ratio: float = 50.0
    strength_midpoint: float = 0.25
    strength_exponent: float = 2.5
    shifts: bool = True
    scale: Callable[[Mapping[str, int]], Mapping[str, float]] | None = None  # of the means, from positions
    reference: Callable[..., Sums] | None = None
    prepare: Callable[[Statistics], Statistics] = lambda found: found  # of the means of the reference's sums
    keep: Callable[[Any], Any] = lambda found: found  # of a style's statistic what the distance takes of it
    narrow: bool = False  # whether it takes bfloat16 as it is held, where products of that are fast
    inner: bool = False  # whether the outermost positions, where the network pads with zeros, are left out
    samples: int = 0
    reach: int = 0

    def means(self, sums: Sums, positions: Mapping[str, int]) -> Statistics:
        """Return the statistics of complete sums; positions: how many the whole picture has, by layer."""
        return self.scaled(means(sums), positions)

    def scaled(self, found: Statistics, positions: Mapping[str, int]) -> Statistics:
        """Return the statistics of means."""
        if self.scale is None:
            return found
        factors = self.scale(positions)
        return {
            term: jax.tree.map(lambda mean, term=term: mean * factors.get(term, 1), mean)
            for term, mean in found.items()
        }

    def wanted(
        self,
        over: Callable[[StatisticFn], Sums],
        shift: Float[Array, ""],
        network: Network,
        places: Mapping[str, AnyArray],
        positions: Mapping[str, int],
    ) -> Statistics:
        """Return the targets of a style, by term.

        Args:
            over: Returns what a look sees of all parts of the style together.
            shift: s, which is added to activations.
            network: The one that the layers are of.
            places: Its samples, by layer.
            positions: How many a layer has, as means takes them.
        """

        def sums(*references: Statistics) -> StatisticFn:
            return lambda features, mask, part: self.sums(features, shift, mask, network, *references)

        if self.reference is None:
            return {term: self.keep(own) for term, own in self.means(over(sums()), positions).items()}
        reference = self.reference
        references = over(
            lambda features, mask, part: reference(features, shift, mask, network, Samples(places, part))
        )
        references = self.prepare(self.means(references, positions))
        own = self.means(over(sums(references)), positions)
        return {term: StyleTarget(references[term], own[term]) for term in own}

    def references(self, wanted: Statistics) -> tuple[Statistics, ...]:
        """Return the further argument of sums: the references in a style's targets, if there are any."""
        return (
            () if self.reference is None else ({term: target.reference for term, target in wanted.items()},)
        )

    def statistics(
        self, features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network
    ) -> Statistics:
        """Return the statistics of a whole picture's features, of a loss without a reference.

        Args:
            features: Activations by layer.
            shift: s, which is added to activations.
            mask: Weights of the positions, by layer. None: all count alike.
            network: The one that the layers are of.
        """
        return self.means(self.sums(features, shift, mask, network), positions_of(features))


def positions_of(features: Features) -> dict[str, int]:
    """Return how many positions whole maps have, by layer."""
    return {layer: map_.shape[0] * map_.shape[1] for layer, map_ in features.items()}


def at(mask: Mask | None, layer: str) -> Float[AnyArray, "_ _"] | None:
    """Return the mask's weights at a layer; of no mask, None."""
    return None if mask is None else mask[layer]


def position_weights(shape: Sequence[int], mask: Float[AnyArray, "h w"] | None) -> Float[Array, "h w"]:
    """Return the weight of each position of a map of this shape."""
    return jnp.ones(shape[:2]) if mask is None else jnp.asarray(mask)


def gram_sum(
    maps: Float[AnyArray, "h w c"],
    shift: Float[Array, ""],
    mask: Float[AnyArray, "h w"] | None,
) -> Sum:
    """Return the sum over positions, weighted by the mask, of (F + s)_p (F + s)_p^T, in float32.

    Factors are held as maps are.

    Args:
        maps: F, activations of a layer.
        shift: s, which is added to activations.
        mask: Weights of the positions. None: 1.
    """
    height, width, channels = maps.shape
    values = (maps.astype(jnp.float32) + shift).astype(maps.dtype).reshape(height * width, channels)
    weights = None if mask is None else jnp.asarray(mask).reshape(height * width, 1)
    mass = jnp.asarray(height * width, jnp.float32) if weights is None else jnp.sum(weights)
    # The context's precision, which objective.py sets; the backward pass is traced outside of it.
    return Sum(_gram(jnp.asarray(values), weights, jax.config.values["jax_default_matmul_precision"]), mass)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gram(
    x: Float[Array, "p c"], weights: Float[Array, "p 1"] | None, products: str | None
) -> Float[Array, "c c"]:
    """Return sum_p m_p x_p x_p^T in float32. Only x has a gradient: m_p (G + G^T) x_p, held as x is.

    So one product in place of two, and no map of float32 where x is bfloat16.
    """
    with jax.default_matmul_precision(products):
        return jnp.dot(x.T, _weighted(weights, x), preferred_element_type=jnp.float32)


def _weighted(weights: Float[Array, "p 1"] | None, x: Float[Array, "p c"]) -> Float[Array, "p c"]:
    return x if weights is None else (weights * x.astype(jnp.float32)).astype(x.dtype)


def _gram_forward(x: Any, weights: Any, products: str | None) -> tuple[Array, tuple[Any, Any]]:
    return _gram(x, weights, products), (x, weights)


def _gram_backward(products: str | None, kept: Any, cotangent: Any) -> tuple[Array, None]:
    x, weights = kept
    both = (cotangent + cotangent.T).astype(x.dtype)
    with jax.default_matmul_precision(products):
        return _weighted(weights, jnp.dot(x, both, preferred_element_type=x.dtype)), None


_gram.defvjp(_gram_forward, _gram_backward)


def cross_sum(
    above: Float[AnyArray, "h w a"],
    below: Float[AnyArray, "_ _ b"],
    rate: int,
    shift: Float[Array, ""],
    mask: Float[AnyArray, "_ _"] | None,
) -> Sum:
    """Return the sum over below's positions, weighted by the mask, of up(above + s)_p (below + s)_p^T.

    Args:
        above: F of a layer l.
        below: F of the layer below it, larger by the rate.
        rate: How often up repeats a value, along each side.
        shift: s, which is added to activations.
        mask: Weights of below's positions. None: 1.
    """
    height, width, _ = above.shape
    used = below[: height * rate, : width * rate] + shift
    mass = jnp.asarray(height * width * rate * rate, jnp.float32)
    if mask is not None:
        weights = mask[: height * rate, : width * rate]
        used, mass = used * weights[..., None], jnp.sum(weights)
    # A value of above repeated over a window of below meets the window's sum: the same, with less work.
    windows = used.reshape(height, rate, width, rate, -1).sum((1, 3)).reshape(height * width, -1)
    values = (above + shift).reshape(height * width, -1)
    return Sum(jnp.dot(values.T, windows), mass)  # at jax.default_matmul_precision, which objective.py sets
