"""Losses that match each position of a picture with what is most like it in a style.

All positions of the picture are matched with a fixed number of the style's, which stand for a style of any
size: so a style picture by itself is near 0, and at 0 only where all of it is among its samples. nearest and
patch are means over the picture's positions, like every other statistic: of their distance from the style.
remd has beside such a mean the least distance of each sample over all of the positions.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nst_jax.losses.base import Min, Sum
from nst_jax.losses.sampling import TINY, Samples, unit_vectors
from nst_jax.losses.style.gaussian import mean_and_covariance, moment_sums
from nst_jax.losses.style.statistics import (
    Features,
    Mask,
    Statistics,
    StyleTarget,
    Sums,
    at,
    position_weights,
)
from nst_jax.networks.base import AnyArray, Network

SIDE = 3  # positions of a patch
FLAT = 1e-6  # of a style's power: a thousandth of its features' length, far above their rounding
AT_ONCE = 2**24  # pairs that are compared at once: 64 MiB of float32


class Directions(NamedTuple):
    """A style's features at its samples: their mean, and which way each lies from it."""

    center: Float[Array, " c"]
    level: Float[Array, ""]  # the squared length below which a direction means nothing
    unit: Float[Array, "n c"]


def sampled_features(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, samples: Samples
) -> Sums:
    """Return a style's features at its samples.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        samples: Positions that stand for the style, by layer.
    """
    return {layer: samples.patches(layer, map_, 1)[:, 0, 0] for layer, map_ in features.items()}


def sampled_patches(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, samples: Samples
) -> Sums:
    """Return the patches around a style's samples.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        samples: Positions that stand for the style, by layer.
    """
    return {layer: samples.patches(layer, map_, SIDE) for layer, map_ in features.items()}


def directions(sampled: Statistics) -> Statistics:
    """Return the mean of sampled features and their directions from it."""
    found = {}
    for layer, vectors in sampled.items():
        center, level = vectors.mean(0), FLAT * jnp.mean(jnp.sum(vectors**2, -1)) + TINY
        found[layer] = Directions(center, level, unit_vectors(vectors - center[None], level))
    return found


class Nearest(NamedTuple):
    """How far a picture's positions are from the most alike of a style's, and the moments of its features."""

    mean: Any  # over the positions
    moments: Any


def nearest_sums(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, references: Statistics
) -> Sums:
    """Return Nearest: the mean over positions p of min_j 1 - cos(F_p - m, S_j - m), and moment_sums.

    S_j: the style's features at its samples; m: their mean.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        references: What is wanted of the style, by term.
    """
    found, moments = {}, moment_sums(features, shift, mask, network)
    for layer, map_ in features.items():
        x, unit = _directions_of(map_, references[layer]), references[layer].unit
        sample, _ = matches(x, unit[:, None, None])
        weights = position_weights(map_.shape, at(mask, layer))
        mean = Sum(jnp.sum(weights * _cosine_distance(x, unit[sample])), jnp.sum(weights))
        found[layer] = Nearest(mean, moments[layer])
    return found


def remd_sums(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, references: Statistics
) -> Sums:
    """Return nearest_sums' Nearest, and beside it for every j min_p 1 - cos(F_p - m, S_j - m).

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        references: What is wanted of the style, by term.
    """
    found, moments = {}, moment_sums(features, shift, mask, network)
    for layer, map_ in features.items():
        x, unit = _directions_of(map_, references[layer]), references[layer].unit
        weights = position_weights(map_.shape, at(mask, layer))
        sample, position = matches(x, unit[:, None, None], weights > 0)
        mean = Sum(jnp.sum(weights * _cosine_distance(x, unit[sample])), jnp.sum(weights))
        closest = _cosine_distance(x.reshape(-1, x.shape[-1])[position], unit)
        least = Min(jnp.where(jnp.any(weights > 0), closest, jnp.inf))
        found[layer] = Nearest(mean, moments[layer]), least
    return found


def patch_sums(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, references: Statistics
) -> Sums:
    """Return the mean over positions p of |P_p - S_j|^2 / (9 C), j the patch that P_p is most like.

    P_p: the 3x3 positions around p, of C channels; S_j: the style's patches at its samples. Most like is of
    the largest P_p . S_j / |S_j|. Li & Wand 2016 (arXiv 1601.04589), eq. 2 and 3. Differs from the paper:
    patches reach over the border, where zeros lie, in both pictures.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        references: What is wanted of the style, by term.
    """
    found = {}
    for layer, map_ in features.items():
        patches = references[layer]
        lengths = jnp.sqrt(jnp.sum(patches**2, (1, 2, 3), keepdims=True) + 1e-12)
        sample, _ = matches(map_, patches / lengths)
        (height, width, channels), reach = map_.shape, SIDE // 2
        padded = jnp.pad(map_, ((reach, reach), (reach, reach), (0, 0)))
        distances = jnp.zeros((height, width))
        for row in range(SIDE):  # one place in the patches after the other: 1/9 of the memory
            for column in range(SIDE):
                there = padded[row : row + height, column : column + width]
                distances += jnp.sum((there - patches[:, row, column][sample]) ** 2, -1)
        weights = position_weights(map_.shape, at(mask, layer))
        found[layer] = Sum(jnp.sum(weights * distances) / (SIDE**2 * channels), jnp.sum(weights))
    return found


def _directions_of(map_: Float[AnyArray, "h w c"], reference: Directions) -> Float[Array, "h w c"]:
    return unit_vectors(jnp.asarray(map_) - reference.center[None, None], reference.level)


def _cosine_distance(x: Float[Array, "*shape c"], y: Float[Array, "*shape c"]) -> Float[Array, "*shape"]:
    """Return 1 - cos of unit vectors, as half of the squared distance: never below 0, and exact at 0."""
    return jnp.sum((x - y) ** 2, -1) / 2


def the_mean_itself(mean: Float[Array, ""], wanted: StyleTarget) -> Float[Array, ""]:
    """Return the mean over positions of the distance from the style, which is the term."""
    return mean


def nearest_distance(x: Nearest, wanted: StyleTarget) -> Float[Array, ""]:
    """Return mean_p min_j D_pj + |mu_x - mu_s|^2 / tr M + |S_x - S_s|^2 / |M|^2.

    D: the cosine distance, which is blind to magnitudes; mu, S: mean and covariance of the features; M: the
    style's second moment. Kolkin et al. 2022 (Neural neighbor style transfer, arXiv 2203.13215), their last
    pass, which matches each layer by itself, anew in every step. Differs from the paper: the style's mean is
    subtracted from the features of both pictures, so that a position's distance depends on it alone. The
    moments bring the picture's mean there. In the paper colors are matched afterwards.
    """
    return x.mean + _moments_apart(x.moments, wanted.own.moments)


def remd_distance(x: tuple[Nearest, Array], wanted: StyleTarget) -> Float[Array, ""]:
    """Return max(mean_p min_j D_pj, mean_j min_p D_pj), and nearest_distance's other terms.

    The relaxed earth mover's distance and the moments of Kolkin et al. 2019 (STROTSS, arXiv 1904.12785), eq.
    4 to 7. Differs from the paper: of each layer by itself, all of the picture's positions, features from the
    style's mean, moments as squares in units of the style's power.
    """
    (mean, moments), least = x
    return jnp.maximum(mean, jnp.mean(least)) + _moments_apart(moments, wanted.own[0].moments)


def _moments_apart(x: Float[Array, "c d"], s: Float[Array, "c d"]) -> Float[Array, ""]:
    second = s[:, :-1]
    (mean_x, covariance_x), (mean_s, covariance_s) = mean_and_covariance(x), mean_and_covariance(s)
    means = jnp.sum((mean_x - mean_s) ** 2) / (jnp.trace(second) + TINY)
    return means + jnp.sum((covariance_x - covariance_s) ** 2) / (jnp.sum(second**2) + TINY)


def matches(
    map_: Float[AnyArray, "h w c"],
    patches: Float[Array, "n k k c"],
    counted: Bool[Array, "h w"] | None = None,
) -> tuple[Int[Array, "h w"], Int[Array, " n"]]:
    """Return for every position the patch with the largest product, and for every patch the position.

    Which they are has no slope.

    Args:
        map_: Activations of a layer.
        patches: Of k x k positions each, k odd.
        counted: Positions among which a patch looks for its own. None: zeros are returned for these.
    """
    map_, patches = lax.stop_gradient((jnp.asarray(map_), patches))
    (height, width, _), count = map_.shape, len(patches)
    size = min(count, max(8, 2 ** (AT_ONCE // (height * width)).bit_length() // 2))
    while count % size:
        size -= 1

    def compare(best: tuple[Array, Array], group: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        first, some = group
        products = _products(map_, some)
        top, which = products.max(-1), _which_is_largest(products)
        better = top > best[0]
        best = jnp.where(better, top, best[0]), jnp.where(better, first + which, best[1])
        if counted is None:
            return best, jnp.zeros(size, jnp.int32)
        products = jnp.where(counted[..., None], products, -jnp.inf)
        row = products.max(1).argmax(0)
        column = products[row, :, jnp.arange(size)].argmax(1)
        return best, (row * width + column).astype(jnp.int32)

    none = jnp.full((height, width), -jnp.inf), jnp.zeros((height, width), jnp.int32)
    groups = jnp.arange(0, count, size, dtype=jnp.int32), patches.reshape(-1, size, *patches.shape[1:])
    (_, sample), position = lax.scan(compare, none, groups)
    return sample, position.reshape(-1)


def _which_is_largest(x: Float[Array, "*shape n"]) -> Int[Array, "*shape"]:
    """Return argmax along the last axis, first among groups of it: XLA:CPU is seven times as fast so."""
    size = math.gcd(16, x.shape[-1])
    groups = x.reshape(*x.shape[:-1], -1, size)
    group = groups.max(-1).argmax(-1)[..., None]
    within = jnp.take_along_axis(groups, group[..., None], -2)[..., 0, :].argmax(-1)
    return (group[..., 0] * size + within).astype(jnp.int32)


def _products(map_: Float[Array, "h w c"], patches: Float[Array, "n k k c"]) -> Float[Array, "h w n"]:
    """Return the products of the patches with those around every position; zeros lie beyond the border."""
    if patches.shape[1] == 1:
        return map_ @ patches[:, 0, 0].T
    kernel = patches.transpose(1, 2, 3, 0)
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(map_[None], kernel, (1, 1), "SAME", dimension_numbers=numbers)[0]
