"""Style losses: pairs of a statistic of a picture's features and a distance between two statistics.

A statistic is a mean over positions, so it does not depend on the size of the picture it was taken from.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nst_jax.vgg import AnyArray

Features = Mapping[str, Float[AnyArray, "_ _ _"]]  # by layer, (rows, columns, channels), from the bottom up
Statistics = dict[str, Float[Array, "_ _"]]  # by the layer that names the term


class StyleLoss(NamedTuple):
    """A style loss: E_l = distance(statistics of the picture, statistics of the style) at every term l."""

    statistics: Callable[[Features, Float[Array, ""]], Statistics]
    distance: Callable[[Float[Array, "a b"], Float[Array, "a b"]], Float[Array, ""]]


def gram_statistics(features: Features, shift: Float[Array, ""]) -> Statistics:
    """Return (F + s)^T (F + s) / M for each layer, channels by channels, M = rows times columns.

    Gatys et al. 2015 (arXiv 1508.06576), eq. 3; activation shift s of Novak & Nikulin 2016 (1605.04603), 3.3.
    Differs from the paper: divided by the map's own M here, so that pictures of other sizes compare.
    """
    return {layer: _gram(maps, shift) for layer, maps in features.items()}


def _gram(maps: Float[AnyArray, "h w c"], shift: Float[Array, ""]) -> Float[Array, "c c"]:
    rows = maps.reshape(-1, maps.shape[-1]) + shift
    return jnp.dot(rows.T, rows, precision=lax.Precision.HIGHEST) / rows.shape[0]


def squared_distance(x: Float[Array, "a b"], s: Float[Array, "a b"]) -> Float[Array, ""]:
    """Return sum (x - s)^2 / (4 a b), a and b the channels. Gatys et al. 2015, eq. 4 (there a = b = N)."""
    return jnp.sum((x - s) ** 2) / (4 * x.shape[0] * x.shape[1])


STYLE_LOSSES = {"gram": StyleLoss(gram_statistics, squared_distance)}
