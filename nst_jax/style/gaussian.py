"""Mean and covariance of the features, and distances of the Gaussians that have these."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from nst_jax.style.statistics import Features, Mask, Sum, Sums, at, cross_sum, gram_sum, rows_of


def moment_sums(features: Features, shift: Float[Array, ""], mask: Mask | None = None, rows: int = 0) -> Sums:
    """Return sum_p m_p F_p (F_p, 1)^T and sum_p m_p for each layer: the mean stands beside the second moment.

    Channels by channels and one; with the shift s of F + s, which changes no difference of two means and no
    covariance.
    """
    found = {}
    for layer, maps in features.items():
        shifted, one = maps + shift, jnp.ones((*maps.shape[:2], 1), maps.dtype)
        where = jnp.zeros_like(shift), at(mask, layer), rows_of(layer, rows)
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


def wasserstein_distance(x: Float[Array, "c d"], s: Float[Array, "c d"]) -> Float[Array, ""]:
    """Return the squared 2-Wasserstein distance of the Gaussians with these moments, over the channels C.

    (|mu_x - mu_s|^2 + tr(S_x + S_s - 2 (S_s^1/2 S_x S_s^1/2)^1/2)) / C: Dowson & Landau 1982; as a style loss
    Mroueh 2019 (arXiv 1905.12828). Differs from the papers: S + e I, e = 1e-5 (E|x|^2 + E|s|^2), so that it
    has a slope at singular S.
    """
    (mean_x, covariance_x), (mean_s, covariance_s) = mean_and_covariance(x), mean_and_covariance(s)
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
