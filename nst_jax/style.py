"""Style losses: a statistic of a picture's features, and a distance between two statistics.

A statistic is a mean over positions, so it does not depend on the size of the picture it was taken from; a
mask is the weight of each position in that mean, so a small region counts like a large one. It is kept as a
sum and a mass until both are complete, so that a picture may be taken window by window (tiling.py).
"""

import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nst_jax.vgg import AnyArray, block_of, keep_rows, map_shape

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


def gram_sums(features: Features, shift: Float[Array, ""], mask: Mask | None = None, rows: int = 0) -> Sums:
    """Return sum_p m_p (F_p + s)(F_p + s)^T and sum_p m_p for each layer, channels by channels.

    F_p: the channels at position p; m: the mask, or 1. Gatys et al. 2015 (arXiv 1508.06576), eq. 3;
    activation shift s of Novak & Nikulin 2016 (1605.04603), 3.3. Differs from the papers: divided by the
    mask's mass (without a mask: the map's own number of positions), so that pictures of other sizes compare;
    Gatys et al. 2017 (1611.07865) weigh by the square of their guide, here the mask itself is the weight.
    """
    return {
        layer: _cross(maps, maps, 1, shift, _at(mask, layer), _rows(layer, rows))
        for layer, maps in features.items()
    }


def chain_sums(features: Features, shift: Float[Array, ""], mask: Mask | None = None, rows: int = 0) -> Sums:
    """Return the correlations of each layer l with the one below it in use, channels of l by channels of l-1.

    sum_p m_p up(F^l + s)_p (F^(l-1) + s)_p^T and sum_p m_p over the positions p of layer l-1, where up
    repeats each value 2x2 for every pooling in between; a last odd row or column of layer l-1 is left out.
    Novak & Nikulin 2016 (arXiv 1605.04603), 3.5; without a mask divided by the positions that are used.
    """
    return {
        above: _cross(
            *(features[above], features[below], _rate(below, above)),
            *(shift, _at(mask, below), _rows(above, rows)),
        )
        for below, above in pairwise(features)
    }


def shares_of_lowest(positions: Mapping[str, int]) -> dict[str, float]:
    """Return the positions of each layer over those of the lowest layer in use.

    So the Grams of the tutorial style loss are sums divided by W H, the pixels of the picture, where conv1_1
    is in use, as in the published tutorial. Differs from its code: a mask is the weight in a mean, as
    everywhere here, and a style is divided by its own pixels.
    """
    lowest = next(iter(positions.values()))
    return {layer: count / lowest for layer, count in positions.items()}


def _at(mask: Mask | None, layer: str) -> Float[AnyArray, "_ _"] | None:
    return None if mask is None else mask[layer]


def _rows(layer: str, rows: int) -> int:
    """Return how many rows a layer has of a picture of so many."""
    return map_shape(layer, rows, rows)[0]


def _rate(below: str, above: str) -> int:
    """Return how many positions of the lower layer lie along one of the upper layer."""
    return int(2 ** (block_of(above) - block_of(below)))


def _cross(
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


def squared_distance(x: Float[Array, "a b"], s: Float[Array, "a b"]) -> Float[Array, ""]:
    """Return sum (x - s)^2 / (4 a b), a and b the channels. Gatys et al. 2015, eq. 4 (there a = b = N)."""
    return jnp.sum((x - s) ** 2) / (4 * x.shape[0] * x.shape[1])


def tutorial_distance(x: Float[Array, "a b"], s: Float[Array, "a b"]) -> Float[Array, ""]:
    """Return sum (x - s)^2 / 36, whatever the channels: the published tutorial's 4 * 3^2."""
    return jnp.sum((x - s) ** 2) / 36


STYLE_LOSSES = {
    "gram": StyleLoss(gram_sums, squared_distance),
    "chain": StyleLoss(chain_sums, squared_distance),
    "tutorial": StyleLoss(gram_sums, tutorial_distance, scale=shares_of_lowest),
}


@functools.cache  # an option checked often, and every answer takes a trace
def term_names(style_loss: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the terms that a style loss makes of these layers, from the bottom up."""
    maps = {layer: np.zeros((2 ** (6 - block_of(layer)),) * 2 + (1,), np.float32) for layer in layers}
    return tuple(jax.eval_shape(STYLE_LOSSES[style_loss].sums, maps, np.float32(0)))
