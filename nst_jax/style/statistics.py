"""Style losses: a statistic of a picture's features, and a distance between two statistics.

A statistic is a mean over positions, so it does not depend on the size of the picture it was taken from; a
mask is the weight of each position in that mean, so a small region counts like a large one. It is kept as a
sum and a mass until both are complete, so that a picture may be taken window by window (tiling.py).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.vgg import AnyArray, keep_rows, map_shape

Features = Mapping[str, Float[AnyArray, "_ _ _"]]  # by layer, (rows, columns, channels), from the bottom up
Mask = Mapping[str, Float[AnyArray, "_ _"]]  # by layer: the weight of each position, at least 0, not all 0


class Sum(NamedTuple):
    """What a mean over positions is made of: mask-weighted sum and mass; those of two parts add up."""

    total: Float[Array, "a b"]
    mass: Float[Array, ""]


Sums = dict[str, Sum]  # by the layer that names the term
Statistics = dict[str, Float[Array, "_ _"]]  # the same, divided


class StyleLoss(NamedTuple):
    """A style loss: E_l = distance(statistics of the picture, statistics of the style) at every term l."""

    sums: Callable[..., Sums]  # of features, shift, mask (or None), rows of the picture (or 0: all)
    distance: Callable[[Float[Array, "a b"], Float[Array, "a b"]], Float[Array, ""]]
    pull: float = 50.0  # at the start, of style weight 1 with balance auto, to 1 of the content's
    shifts: bool = True  # whether the activation shift means anything to it
    scale: Callable[[Mapping[str, int]], Mapping[str, float]] | None = None  # of the means, from positions

    def means(self, sums: Sums, positions: Mapping[str, int]) -> Statistics:
        """Return the statistics of complete sums; positions: how many the whole picture has, by layer."""
        means = {term: total / mass for term, (total, mass) in sums.items()}
        factors = self.scale(positions) if self.scale else {}
        return {term: mean * factors.get(term, 1) for term, mean in means.items()}

    def statistics(self, features: Features, shift: Float[Array, ""], mask: Mask | None = None) -> Statistics:
        """Return the statistics of a whole picture's features."""
        positions = {layer: map_.shape[0] * map_.shape[1] for layer, map_ in features.items()}
        return self.means(self.sums(features, shift, mask), positions)


def at(mask: Mask | None, layer: str) -> Float[AnyArray, "_ _"] | None:
    """Return the mask's weights at a layer; of no mask, None."""
    return None if mask is None else mask[layer]


def rows_of(layer: str, rows: int) -> int:
    """Return how many rows a layer has of a picture of so many."""
    return map_shape(layer, rows, rows)[0]


def cross_sum(
    above: Float[AnyArray, "h w a"],
    below: Float[AnyArray, "_ _ b"],
    rate: int,
    shift: Float[Array, ""],
    mask: Float[AnyArray, "_ _"] | None,
    rows: int,
) -> Sum:
    """Return the sum over below's positions, weighted by the mask, of up(above + s)_p (below + s)_p^T.

    rows: of above, that count, as do those of below that lie along them; 0: all.
    """
    height, width, _ = above.shape
    used = keep_rows(below[: height * rate, : width * rate] + shift, rows * rate)
    mass = jnp.asarray((rows or height) * width * rate * rate, jnp.float32)
    if mask is not None:
        weights = keep_rows(mask[: height * rate, : width * rate], rows * rate)
        used, mass = used * weights[..., None], jnp.sum(weights)
    # A value of above repeated over a window of below meets the window's sum: the same, with less work.
    windows = used.reshape(height, rate, width, rate, -1).sum((1, 3)).reshape(height * width, -1)
    values = (above + shift).reshape(height * width, -1)
    return Sum(jnp.dot(values.T, windows), mass)  # at jax.default_matmul_precision, which objective.py sets
