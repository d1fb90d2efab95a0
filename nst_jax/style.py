"""Style losses: a statistic of a picture's features, and a distance between two statistics.

A statistic is a mean over positions, so it does not depend on the size of the picture it was taken from; a
mask is the weight of each position in that mean, so a small region counts like a large one. It is kept as a
sum and a mass until both are complete, so that a picture may be taken window by window (tiling.py).
"""

import functools
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
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


def moment_sums(features: Features, shift: Float[Array, ""], mask: Mask | None = None, rows: int = 0) -> Sums:
    """Return sum_p m_p F_p (F_p, 1)^T and sum_p m_p for each layer: the mean stands beside the second moment.

    Channels by channels and one; with the shift s of F + s, which changes no difference of two means and no
    covariance.
    """
    found = {}
    for layer, maps in features.items():
        shifted, one = maps + shift, jnp.ones((*maps.shape[:2], 1), maps.dtype)
        where = jnp.zeros_like(shift), _at(mask, layer), _rows(layer, rows)
        with jax.default_matmul_precision("highest"):  # a covariance is a difference of the two
            second, mass = _cross(shifted, shifted, 1, *where)
            first, _ = _cross(shifted, one, 1, *where)
        found[layer] = Sum(jnp.concatenate([second, first], 1), mass)
    return found


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


def _moments(x: Float[Array, "c d"]) -> tuple[Float[Array, "c 1"], Float[Array, "c c"]]:
    """Return the mean and the covariance of moment_sums' statistic."""
    mean = x[:, -1:]
    return mean, x[:, :-1] - mean * mean.T


def moments_distance(x: Float[Array, "c d"], s: Float[Array, "c d"]) -> Float[Array, ""]:
    """Return the mean of (mu_x - mu_s)^2 over the channels and of (S_x - S_s)^2 over pairs of them, added up.

    mu, S: mean and covariance. Kolkin et al. 2019 (STROTSS, arXiv 1904.12785), the moment loss. Differs from
    the paper: squares in place of magnitudes, so that it is smooth where it is 0.
    """
    (mean_x, covariance_x), (mean_s, covariance_s) = _moments(x), _moments(s)
    return jnp.mean((mean_x - mean_s) ** 2) + jnp.mean((covariance_x - covariance_s) ** 2)


def wasserstein_distance(x: Float[Array, "c d"], s: Float[Array, "c d"]) -> Float[Array, ""]:
    """Return the squared 2-Wasserstein distance of the Gaussians with these moments, over the channels C.

    (|mu_x - mu_s|^2 + tr(S_x + S_s - 2 (S_s^1/2 S_x S_s^1/2)^1/2)) / C: Dowson & Landau 1982; as a style loss
    Mroueh 2019 (arXiv 1905.12828). Differs from the papers: S + e I, e = 1e-5 (E|x|^2 + E|s|^2), so that it
    has a slope at singular S.
    """
    (mean_x, covariance_x), (mean_s, covariance_s) = _moments(x), _moments(s)
    damping = DAMPING * (jnp.trace(x[:, :-1]) + jnp.trace(s[:, :-1])) + TINY
    ridge = damping * jnp.eye(len(x), dtype=x.dtype)
    spread = spread_distance(covariance_x + ridge, covariance_s + ridge)
    return (jnp.sum((mean_x - mean_s) ** 2) + spread) / len(x)


@jax.custom_jvp
def spread_distance(x: Float[Array, "c c"], s: Float[Array, "c c"]) -> Float[Array, ""]:
    """Return tr(x + s - 2 (s^1/2 x s^1/2)^1/2) of positive definite x and s, in float32 on every device.

    As the least |L_x Q - L_s|^2 over orthogonal Q, L L^T = x or s: a sum of squares, no difference of traces.
    Its slopes are I - T and I - T^-1, T = L_x^-T Q L_s^T (symmetric, T x T = s), since a change of Q is of
    second order.
    """
    return _spread_distance(x, s)[0]


@spread_distance.defjvp
def _spread_slope(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    value, root_x, root_s, turn = _spread_distance(*primals)
    with jax.default_matmul_precision("highest"):
        there = solve_triangular(root_x, turn @ root_s.T, trans=1, lower=True)
        back = solve_triangular(root_s, turn.T @ root_x.T, trans=1, lower=True)
    moved_x, moved_s = tangents
    slope = jnp.trace(moved_x) - jnp.sum(there * moved_x) + jnp.trace(moved_s) - jnp.sum(back * moved_s)
    return value, slope


def _spread_distance(x: Array, s: Array) -> tuple[Array, Array, Array, Array]:
    with jax.default_matmul_precision("highest"):
        root_x, root_s = jnp.linalg.cholesky(x), jnp.linalg.cholesky(s)
        turn = rotation(root_x.T @ root_s)
        return jnp.sum((root_x @ turn - root_s) ** 2), root_x, root_s, turn


def rotation(matrix: Float[Array, "c c"]) -> Float[Array, "c c"]:
    """Return the orthogonal Q that is nearest: U V^T of the singular values U diag(s) V^T.

    Singular values from DAMPING to 1 times the Frobenius norm are brought to 1 by Newton-Schulz steps
    Y <- a Y (3 - a^2 Y^T Y) / 2: products only. a brings the least and the greatest to the same number, the
    scaling of Chen & Chow 2014 ("A stable scaling of Newton-Schulz").
    """
    q = matrix / jnp.linalg.norm(matrix)
    for a in SCALINGS:
        q = a / 2 * (3 * q - a**2 * (q @ (q.T @ q)))
    return q


def _scalings(least: float) -> list[float]:
    """Return the a of every step for singular values from the least to 1, until they are 1 in float32."""
    found = []
    while 1 - least > 1e-7:
        found.append(math.sqrt(3 / (1 + least + least**2)))
        least = found[-1] * least * (3 - (found[-1] * least) ** 2) / 2
    return found


DAMPING = 1e-5  # of the power of both: some hundred times float32's rounding of a covariance
TINY = 1e-12  # of black, where there is no power
SCALINGS = _scalings(DAMPING)

STYLE_LOSSES = {
    "gram": StyleLoss(gram_sums, squared_distance),
    "chain": StyleLoss(chain_sums, squared_distance),
    "tutorial": StyleLoss(gram_sums, tutorial_distance, scale=shares_of_lowest),
    "moments": StyleLoss(moment_sums, moments_distance, shifts=False),
    "wasserstein": StyleLoss(moment_sums, wasserstein_distance, shifts=False),
}


@functools.cache  # an option checked often, and every answer takes a trace
def term_names(style_loss: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the terms that a style loss makes of these layers, from the bottom up."""
    maps = {layer: np.zeros((2 ** (6 - block_of(layer)),) * 2 + (1,), np.float32) for layer in layers}
    return tuple(jax.eval_shape(STYLE_LOSSES[style_loss].sums, maps, np.float32(0)))
