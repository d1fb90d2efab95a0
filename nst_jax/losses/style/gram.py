"""Gram matrices: of each layer, and of each layer with the one below it."""

from collections.abc import Mapping
from itertools import pairwise

import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.style.statistics import Features, Mask, Sums, at, cross_sum, gram_sum
from nst_jax.networks.base import AnyArray, Network


def gram_sums(features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network) -> Sums:
    """Return sum_p m_p (F_p + s)(F_p + s)^T and sum_p m_p for each layer, channels by channels.

    F_p: the channels at position p; m: the mask, or 1. Gatys et al. 2015 (arXiv 1508.06576), eq. 3;
    activation shift s of Novak & Nikulin 2016 (1605.04603), 3.3. Differs from the papers: divided by the
    mask's mass (without a mask: the map's own number of positions), so that pictures of other sizes compare;
    Gatys et al. 2017 (1611.07865) weigh by the square of their guide, here the mask itself is the weight.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
    """
    return {layer: gram_sum(maps, shift, at(mask, layer)) for layer, maps in features.items()}


def chain_sums(features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network) -> Sums:
    """Return the correlations of each layer l with the one below it in use, channels of l by channels of l-1.

    sum_p m_p up(F^l + s)_p (F^(l-1) + s)_p^T and sum_p m_p, over the positions p of layer l-1. up repeats
    each value 2x2 for every pooling in between. A last odd row or column of layer l-1 is left out.
    Novak & Nikulin 2016 (arXiv 1605.04603), 3.5; without a mask divided by the positions that are used.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
    """
    found = {}
    for below, above in pairwise(network.select(features)):
        rate = above.stride // below.stride
        weights = _under(at(mask, below.name), at(mask, above.name), rate)
        maps = features[above.name], features[below.name]
        found[above.name] = cross_sum(*maps, rate, shift, weights)
    return found


def _under(
    below: Float[AnyArray, "_ _"] | None, above: Float[AnyArray, "h w"] | None, rate: int
) -> Float[AnyArray, "_ _"] | None:
    """Return the weights of the lower layer along positions of the upper one that count."""
    if below is None or above is None:
        return below
    counted = jnp.repeat(jnp.repeat(above > 0, rate, 0), rate, 1)
    return jnp.where(counted, below[: counted.shape[0], : counted.shape[1]], 0)


def shares_of_lowest(positions: Mapping[str, int]) -> dict[str, float]:
    """Return the positions of each layer over those of the lowest layer in use.

    Where a layer of stride 1 is in use, the Grams of the tutorial style loss become sums divided by W H, the
    pixels of the picture. So it is in the published tutorial. Differs from its code: a mask is the weight in
    a mean, as everywhere here, and a style is divided by its own pixels.
    """
    lowest = next(iter(positions.values()))
    return {layer: count / lowest for layer, count in positions.items()}


def squared_distance(x: Float[Array, "a b"], s: Float[Array, "a b"]) -> Float[Array, ""]:
    """Return sum (x - s)^2 / (4 a b), a and b the channels. Gatys et al. 2015, eq. 4 (there a = b = N)."""
    return jnp.sum((x - s) ** 2) / (4 * x.shape[0] * x.shape[1])


def tutorial_distance(x: Float[Array, "a b"], s: Float[Array, "a b"]) -> Float[Array, ""]:
    """Return sum (x - s)^2 / 36, whatever the channels: the published tutorial's 4 * 3^2."""
    return jnp.sum((x - s) ** 2) / 36
