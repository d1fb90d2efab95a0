"""Gram matrices and, beside them, the histogram of each channel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.base import Sum
from nst_jax.losses.sampling import Samples
from nst_jax.losses.style.gram import gram_sums, squared_distance
from nst_jax.losses.style.statistics import (
    Features,
    Mask,
    Statistics,
    StyleTarget,
    Sums,
    at,
    position_weights,
)
from nst_jax.networks.base import Network

# Of a histogram, in units of the style's root mean square in each channel.
NODES = (0.0, *(2.0 ** (k / 2) for k in range(-6, 9)))


def histogram_reference(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, samples: Samples
) -> Sums:
    """Return the sums of a style's Gram matrices.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        samples: Positions that stand for the style, by layer.
    """
    return gram_sums(features, shift, mask, network)


def histogram_sums(
    features: Features, shift: Float[Array, ""], mask: Mask | None, network: Network, references: Statistics
) -> Sums:
    """Return gram_sums' sums, and beside them sum_p m_p clip((F_pc - t_kc) / (t_k+1,c - t_kc), 0, 1).

    t_kc: NODES k in channel c. The mean is the share of the positions above each pair of nodes, those between
    them in proportion. So the histogram is made of means over positions, and has a slope.

    Args:
        features: Activations by layer.
        shift: s, which is added to activations.
        mask: Weights of the positions, by layer. None: all count alike.
        network: The one that the layers are of.
        references: The style's Grams, from which the units of the nodes come.
    """
    found = {}
    for layer, gram in gram_sums(features, shift, mask, network).items():
        map_ = jnp.asarray(features[layer])
        weights = position_weights(map_.shape, at(mask, layer))
        nodes = _nodes(references[layer])
        found[layer] = gram, Sum(_shares_above(map_, weights, nodes), jnp.sum(weights))
    return found


@jax.custom_vjp
def _shares_above(
    map_: Float[Array, "h w c"], weights: Float[Array, "h w"], nodes: Float[Array, "k c"]
) -> Float[Array, "k-1 c"]:
    """Return the weighted sums; only the map has a slope, for which none of the shares are kept."""
    low, high = nodes[:-1, None, None], nodes[1:, None, None]
    return jnp.sum(weights[None, ..., None] * jnp.clip((map_[None] - low) / (high - low), 0, 1), (1, 2))


def _shares_forward(map_: Array, weights: Array, nodes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _shares_above(map_, weights, nodes), (map_, weights, nodes)


def _shares_backward(kept: tuple[Array, Array, Array], slopes: Array) -> tuple[Array, None, None]:
    map_, weights, nodes = kept
    rises, total = slopes / (nodes[1:] - nodes[:-1]), jnp.zeros_like(map_)
    # A term for each pair of nodes: on XLA:CPU the same as a sum over an axis takes 60 times as long.
    for low, high, rise in zip(nodes[:-1], nodes[1:], rises, strict=True):
        within = (map_ > low[None, None]) & (map_ < high[None, None])
        total += jnp.where(within, rise[None, None], 0)
    return weights[..., None] * total, None, None


_shares_above.defvjp(_shares_forward, _shares_backward)


def _powers(gram: Float[Array, "c c"]) -> Float[Array, " c"]:
    """Return the mean square of each channel, at least 1e-4 of all channels' mean."""
    powers = jnp.diag(gram)
    return powers + 1e-4 * jnp.mean(powers) + 1e-12


def _nodes(gram: Float[Array, "c c"]) -> Float[Array, "k c"]:
    return jnp.array(NODES)[:, None] * jnp.sqrt(_powers(gram))[None]


def histogram_distance(x: tuple[Array, Array], wanted: StyleTarget) -> Float[Array, ""]:
    """Return (|G_x - G_s|^2 + sum_c P_c W_c^2) / (4 C^2), C the channels.

    W_c: the 2-Wasserstein distance of the channel's histograms. A remapping R of the one to the other comes
    to the same, E (F - R(F))^2. Its slope is 2 (F - R(F)). P_c: the style's mean square in the channel, so
    that both parts are fourth powers of features. Risser et al. 2017 (arXiv 1701.08893), with Gram matrices.
    Differs from the paper: the histograms' nodes, at fixed ratios of the style's root mean square.
    """
    (gram_x, above_x), (gram_s, above_s) = x, wanted.own
    powers = _powers(wanted.reference)
    carried = powers**2 * histogram_transport(above_x, above_s)
    return squared_distance(gram_x, gram_s) + jnp.sum(carried) / (4 * len(powers) ** 2)


def histogram_transport(x: Float[Array, "k c"], s: Float[Array, "k c"]) -> Float[Array, " c"]:
    """Return the squared 2-Wasserstein distance of histograms on NODES, given by their shares above.

    In order of their values both hand out shares from 1 down to 0; what both hold between two shares is
    carried from the one's node to the other's.
    """
    tops_x, tops_s = (jnp.concatenate([jnp.ones_like(a[:1]), a]) for a in (x, s))
    ends_x, ends_s = (jnp.concatenate([a, jnp.zeros_like(a[:1])]) for a in (x, s))
    top = jnp.minimum(tops_x[:, None], tops_s[None])
    end = jnp.maximum(ends_x[:, None], ends_s[None])
    nodes = jnp.array(NODES)
    squares = (nodes[:, None] - nodes[None]) ** 2
    return jnp.sum(squares[..., None] * jnp.maximum(top - end, 0), (0, 1))
