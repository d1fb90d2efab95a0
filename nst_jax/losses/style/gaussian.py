"""Mean and covariance of the features, and distances of the Gaussians that have these."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from nst_jax.losses.base import Sum
from nst_jax.losses.style.statistics import Features, Mask, Sums, at, cross_sum, gram_sum
from nst_jax.networks.base import Network


def moment_sums(features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network) -> Sums:
    """Return sum_p m_p F_p (F_p, 1)^T and sum_p m_p for each layer: the mean stands beside the second moment.

    Channels by channels and one; with the shift s of F + s, which changes no difference of two means and no
    covariance.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
    """
    found = {}
    for layer, maps in features.items():
        shifted, one = maps + shift, jnp.ones((*maps.shape[:2], 1), maps.dtype)
        where = jnp.zeros_like(shift), at(mask, layer)
        with jax.default_matmul_precision("highest"):  # a covariance is a difference of the two
            second, mass = gram_sum(shifted, *where)
            first, _ = cross_sum(shifted, one, 1, *where)
        found[layer] = Sum(jnp.concatenate([second, first], 1), mass)
    return found


def mean_and_covariance(x: Float[Array, "c d"]) -> tuple[Float[Array, "c 1"], Float[Array, "c c"]]:
    """Return the mean and the covariance of moment_sums' statistic."""
    mean = x[:, -1:]
    return mean, x[:, :-1] - mean * mean.T


def moments_distance(x: Float[Array, "c d"], s: Float[Array, "c d"]) -> Float[Array, ""]:
    """Return the mean of (mu_x - mu_s)^2 over the channels and of (S_x - S_s)^2 over pairs of them, added up.

    mu, S: mean and covariance. Kolkin et al. 2019 (STROTSS, arXiv 1904.12785), the moment loss. Differs from
    the paper: squares in place of magnitudes, so that it is smooth where it is 0.
    """
    (mean_x, covariance_x), (mean_s, covariance_s) = mean_and_covariance(x), mean_and_covariance(s)
    return jnp.mean((mean_x - mean_s) ** 2) + jnp.mean((covariance_x - covariance_s) ** 2)


class Gaussian(NamedTuple):
    """A style's Gaussian by its principal axes, those of the greatest variance, and all others together."""

    mean: Float[Array, "c 1"]
    axes: Float[Array, "c r"]  # orthonormal; 0 in place of those without variance
    variances: Float[Array, " r"]  # along them
    rest: Float[Array, ""]  # the variance off them, in all
    power: Float[Array, ""]  # E|s|^2


def principal_gaussian(s: Float[Array, "c d"]) -> Gaussian:
    """Return the Gaussian of moment_sums' statistic, by its RANK first principal axes or all there are.

    What has a variance below LEAST E|s|^2 is no axis: of those any would do that is normal to the others.
    """
    mean, covariance = mean_and_covariance(s)
    power = jnp.trace(s[:, :-1])
    with jax.default_matmul_precision("highest"):
        variances, axes = jnp.linalg.eigh(covariance)
    variances, axes = variances[-RANK:], axes[:, -RANK:]
    seen = variances > MIN_VARIANCE_SHARE * power
    variances = jnp.where(seen, variances, 0)
    rest = jnp.maximum(jnp.trace(covariance) - jnp.sum(variances), 0)
    return Gaussian(mean, jnp.where(seen[None], axes, 0), variances, rest, power)


def wasserstein_distance(x: Float[Array, "c d"], s: Gaussian) -> Float[Array, ""]:
    """Return the squared 2-Wasserstein distance of two Gaussians, over the channels C: of x's moments and s.

    (|mu_x - mu_s|^2 + tr(X + S - 2 (S^1/2 X S^1/2)^1/2) + (r_x^1/2 - r_s^1/2)^2) / C.

    X, S: the covariances along the principal axes of s; r: the variance off them. Dowson & Landau 1982; as a
    style loss Mroueh 2019 (arXiv 1905.12828). Differs from the papers: axes beyond the RANK first count
    together, as if both covariances were of one shape there. On each axis e = DAMPING (E|x|^2 + E|s|^2) is
    added to X, S and r. So there is a slope where there is no variance.
    """
    mean, covariance = mean_and_covariance(x)
    damping = DAMPING * (jnp.trace(x[:, :-1]) + s.power) + TINY
    with jax.default_matmul_precision("highest"):
        along = s.axes.T @ (covariance @ s.axes)
    ridge = damping * jnp.eye(len(along), dtype=x.dtype)
    spread = spread_distance(along + ridge, jnp.sqrt(s.variances + damping))
    rest = jnp.maximum(jnp.trace(covariance) - jnp.trace(along), 0)
    others = (jnp.sqrt(rest + damping) - jnp.sqrt(s.rest + damping)) ** 2
    return (jnp.sum((mean - s.mean) ** 2) + spread + others) / len(x)


@jax.custom_jvp
def spread_distance(x: Float[Array, "r r"], deviations: Float[Array, " r"]) -> Float[Array, ""]:
    """Return tr(x + D^2 - 2 (D x D)^1/2) of positive definite x and D = diag(deviations), in float32.

    As the least |x^1/2 Q - D|^2 over orthogonal Q: a sum of squares, no difference of traces. The slope with
    respect to x is I - T, T = x^-1/2 Q D (symmetric, T x T = D^2). That with respect to the deviations is 2
    (D - diag(x^1/2 Q)). A change of Q is of second order. In two steps, as the eigenvalues of D x D span the
    square of what those of x do.
    """
    return _spread_distance(x, deviations)[0]


@spread_distance.defjvp
def _spread_slope(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, deviations = primals
    value, there, apart = _spread_distance(x, deviations)
    moved, widened = tangents
    slope = jnp.trace(moved) - jnp.sum(there * moved) - 2 * jnp.sum(jnp.diagonal(apart) * widened)
    return value, slope


def _spread_distance(x: Array, deviations: Array) -> tuple[Array, Array, Array]:
    """Return the distance, T and x^1/2 Q - D."""
    with jax.default_matmul_precision("highest"):
        root, inverse = roots(x)
        turn = rotation(root * deviations[None])
        apart = root @ turn - jnp.diag(deviations)
        return jnp.sum(apart**2), inverse @ turn * deviations[None], apart


def roots(matrix: Float[Array, "r r"]) -> tuple[Float[Array, "r r"], Float[Array, "r r"]]:
    """Return M^1/2 and M^-1/2 of a positive definite M whose eigenvalues are above DAMPING times its norm.

    By Newton-Schulz steps Y <- Y W, Z <- W Z, W = a (3 - a^2 Z Y) / 2, from M over its norm and I. These are
    products only, which are fast on every device and need no threads of another library. Higham 2008
    ("Functions of Matrices"), 6.35, with the a of rotation.
    """
    norm, one = jnp.linalg.norm(matrix), jnp.eye(len(matrix), dtype=matrix.dtype)

    def step(pair: tuple[Array, Array], a: Array) -> tuple[tuple[Array, Array], None]:
        y, z = pair
        w = a / 2 * (3 * one - a**2 * (z @ y))
        return (y @ w, w @ z), None

    # A loop, as steps one after the other take longer to compile than the network.
    (y, z), _ = jax.lax.scan(step, (matrix / norm, one), jnp.asarray(_scalings(math.sqrt(DAMPING))))
    return y * jnp.sqrt(norm), z / jnp.sqrt(norm)


def rotation(matrix: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """Return the orthogonal Q that is nearest: U V^T of the singular values U diag(s) V^T.

    Singular values from DAMPING to 1 times the Frobenius norm are brought to 1 by Newton-Schulz steps
    Y <- a Y (3 - a^2 Y^T Y) / 2. a brings the least and the greatest to one number, the scaling of Chen &
    Chow 2014 ("A stable scaling of Newton-Schulz").
    """

    def step(q: Array, a: Array) -> tuple[Array, None]:
        return a / 2 * (3 * q - a**2 * (q @ (q.T @ q))), None

    return jax.lax.scan(step, matrix / jnp.linalg.norm(matrix), jnp.asarray(_scalings(DAMPING)))[0]


def _scalings(least: float) -> Float32[np.ndarray, " steps"]:
    """Return the a of every step for singular values from least to 1, until they are 1 in float32."""
    found = []
    while 1 - least > 1e-7:
        found.append(math.sqrt(3 / (1 + least + least**2)))
        least = found[-1] * least * (3 - (found[-1] * least) ** 2) / 2
    return np.array(found, np.float32)


RANK = 64  # principal axes of a style: of 512 the pictures are the same, and roots take longer than layers
MIN_VARIANCE_SHARE = 1e-6  # of the power: float32's rounding of a covariance is below
DAMPING = 1e-4  # of the power of both: float32 then has the slope to some 1e-6
TINY = 1e-12  # of black, where there is no power
