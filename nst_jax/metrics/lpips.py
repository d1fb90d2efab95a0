"""LPIPS: how different two pictures look, by features of VGG-16 that are weighted by people's judgments."""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.networks import NETWORKS
from nst_jax.networks.base import smallest_side
from nst_jax.networks.vgg import LPIPS_LAYERS

NETWORK, LAYERS = NETWORKS["vgg16"], LPIPS_LAYERS
SMALLEST = smallest_side(NETWORK.select(LAYERS))  # pixels a side

Maps = Mapping[str, Float[Array, "_ _ _"]]


def weighted(maps: Maps, heads: Mapping[str, Float[Array, " c"]]) -> dict[str, Float[Array, "_ _ _"]]:
    """Return what LPIPS compares: features of length 1 at each position, times the roots of the weights."""
    return {layer: unit(map_) * jnp.sqrt(heads[layer])[None, None] for layer, map_ in maps.items()}


def unit(x: Float[Array, "*shape c"]) -> Float[Array, "*shape c"]:
    """Return features divided by their length at each position (and 1e-10)."""
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)


def distance(one: Maps, other: Maps, layers: Iterable[str] = LAYERS) -> Float[Array, ""]:
    """Return LPIPS, version 0.1: sum_l mean_p sum_c w_lc (u^x_lpc - u^c_lpc)^2, of weighted features.

    At least 0, seldom above 1. Zhang et al. 2018 (arXiv 1801.03924), eq. 1; w stands outside the square, as
    in its code.

    Args:
        one: Weighted features, by layer.
        other: Those of the other picture.
        layers: Over which the sum goes.
    """
    terms = [jnp.mean(jnp.sum((one[layer] - other[layer]) ** 2, -1)) for layer in layers]
    return jnp.sum(jnp.stack(terms))
