"""Content losses by name: what is wanted of a content picture, and how far another picture is from that.

A term is a sum over positions, or made of sums: so a picture may be taken window by window (tiling.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from nst_jax.samples import Part, Samples, distance_shares, sample_positions
from nst_jax.vgg import AnyArray, block_of, map_shape

Maps = Mapping[str, Float[AnyArray, "_ _ _"]]  # by layer, (rows, columns, channels)
Wanted = dict[str, Any]  # by term
SAMPLES = 1024  # positions that are compared with each other


class ContentLoss(NamedTuple):
    """A content loss: at every term, distance(sums of the picture, what is wanted of the content).

    local: what is wanted are maps, of which a window has its share; else it is one for all windows.
    """

    wanted: Callable[[Maps, Sequence[int]], Wanted]  # of the content's maps and the picture's own shape
    sums: Callable[[Maps, Wanted, Part | None], dict[str, Array]]  # of the picture, or of a window of it
    distance: Callable[[Array, Any], Float[Array, ""]] | None = None  # None: the sum is the term
    local: bool = True


def _maps_themselves(maps: Maps, shape: Sequence[int]) -> Wanted:
    return dict(maps)


def _squares(maps: Maps, wanted: Wanted, part: Part | None) -> dict[str, Array]:
    return {
        layer: half_squares(maps[layer], wanted[layer], None if part is None else part.owned[block_of(layer)])
        for layer in maps
    }


def half_squares(
    x: Float[AnyArray, "h w c"], c: Float[AnyArray, "h w c"], owned: Float[Array, "h w"] | None = None
) -> Float[Array, ""]:
    """Return 1/2 sum (x - c)^2 over positions and channels. Gatys et al. 2015, eq. 1."""
    squares = (x.astype(jnp.float32) - c.astype(jnp.float32)) ** 2
    return jnp.sum(squares if owned is None else squares * owned[..., None]) / 2


class Likeness(NamedTuple):
    """How alike a picture's positions are to each other, at some of them."""

    positions: Int32[AnyArray, "n 2"]
    shares: Float[Array, "n n"]


def _likeness(maps: Maps, shape: Sequence[int]) -> Wanted:
    found = {}
    for layer, map_ in maps.items():
        positions = sample_positions(np.ones(map_shape(layer, *shape[:2])), SAMPLES)
        found[layer] = Likeness(jnp.asarray(positions), distance_shares(_columns(layer, map_, positions)))
    return found


def _samples(maps: Maps, wanted: Wanted, part: Part | None) -> dict[str, Array]:
    return {layer: _columns(layer, maps[layer], wanted[layer].positions, part) for layer in maps}


def _columns(
    layer: str, map_: Float[AnyArray, "h w c"], positions: Int32[AnyArray, "n 2"], part: Part | None = None
) -> Float[Array, "n c"]:
    return Samples({layer: positions}, part).patches(layer, map_.astype(jnp.float32), 1)[:, 0, 0]


def _unlikeness(columns: Float[Array, "n c"], wanted: Likeness) -> Float[Array, ""]:
    """Return (1/n) sum_ij |D^x_ij / sum_i D^x_ij - D^c_ij / sum_i D^c_ij|, in [0, 2].

    D_ij: the cosine distance of the features at positions i and j, of n = SAMPLES spread evenly. Kolkin et
    al. 2019 (STROTSS, arXiv 1904.12785), the content loss. Differs from the paper: of each layer by itself,
    at fixed positions; times n, as in its code.
    """
    return jnp.mean(jnp.sum(jnp.abs(distance_shares(columns) - wanted.shares), 0))


CONTENT_LOSSES = {
    "squares": ContentLoss(_maps_themselves, _squares),
    "self_similarity": ContentLoss(_likeness, _samples, _unlikeness, local=False),
}
