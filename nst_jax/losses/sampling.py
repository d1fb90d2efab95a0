"""Which positions of a map stand for all of them, where all would be too many to compare with each other."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from nst_jax.networks.base import AnyArray

LEVEL = 1e-5  # added to cosine distances: a hundred times their rounding, which is all there is of one color
TINY = 1e-12  # added to squared lengths


class Tile(NamedTuple):
    """A window of a picture (tiling.py), and which of its positions count."""

    pixels: Float[Array, "h w"]  # 1 where a pixel counts, else 0
    owned: Mapping[str, Float[Array, "_ _"]]  # by layer: 1 where a position counts, else 0
    starts: Mapping[str, tuple[Int[Array, ""], Int[Array, ""]]]  # by layer: the row and column of its first


class Samples(NamedTuple):
    """Positions of a picture, and the window of it that is seen; None: all of it."""

    positions: Mapping[str, Int32[AnyArray, "n 2"]]  # by layer: rows and columns
    part: Tile | None = None

    def patches(
        self, layer: str, map_: Float[AnyArray, "h w c"], side: int
    ) -> Float[Array, "n {side} {side} c"]:
        """Return the patches around the layer's positions; zeros lie beyond the picture's border.

        Of a window zeros come for the positions that are others': the windows' patches add up.

        Args:
            layer: The name of a layer.
            map_: Its activations.
            side: Positions a side of a patch.
        """
        rows, columns = jnp.asarray(self.positions[layer]).T
        shares = jnp.ones(len(self.positions[layer]))
        if self.part is not None:
            height, width, _ = map_.shape
            first_row, first_column = self.part.starts[layer]
            rows, columns = rows - first_row, columns - first_column
            there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
            shares = jnp.where(there, self.part.owned[layer][rows, columns], 0)
        reach, steps = side // 2, jnp.arange(side, dtype=jnp.int32)
        padded = jnp.pad(map_, ((reach, reach), (reach, reach), (0, 0)))
        patches = padded[
            rows[:, None, None] + steps[None, :, None], columns[:, None, None] + steps[None, None]
        ]
        return shares[:, None, None, None] * patches


def sample_positions(mass: Float[np.ndarray, "h w"], count: int) -> Int32[np.ndarray, "{count} 2"]:
    """Return the rows and columns of so many positions of a map, each as often as its mass says.

    Systematic sampling along a Z-order curve (Morton 1966): where count is the positions over a power of 4
    and all have one mass, every square has one. Positions of mass 0 are never taken; of fewer than count
    positions some are taken several times.

    >>> sample_positions(np.ones((4, 4)), 4).tolist()
    [[1, 0], [1, 2], [3, 0], [3, 2]]
    """
    height, width = mass.shape
    rows, columns = np.divmod(np.arange(mass.size, dtype=np.int64), width)
    code = np.zeros(mass.size, np.int64)
    for bit in range(max(height, width).bit_length()):
        code |= ((columns >> bit & 1) << 2 * bit) | ((rows >> bit & 1) << 2 * bit + 1)
    order = np.argsort(code, kind="stable")
    reached = np.cumsum(mass.ravel()[order], dtype=np.float64)
    wanted = (np.arange(count) + 0.5) / count * reached[-1]
    taken = order[np.searchsorted(reached, wanted, side="right")]
    return np.stack([rows[taken], columns[taken]], 1).astype(np.int32)


def distance_shares(columns: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """Return D_ij / sum_i D_ij, D_ij the cosine distance of columns i and j and LEVEL."""
    with jax.default_matmul_precision("highest"):
        unit = unit_vectors(columns)
        distances = jnp.maximum(1 - unit @ unit.T, 0) + LEVEL
    return distances / jnp.sum(distances, 0, keepdims=True)


def unit_vectors(
    x: Float[Array, "*shape c"], level: Float[Array, ""] | float = TINY
) -> Float[Array, "*shape c"]:
    """Return x / (|x|^2 + level)^1/2: of length 1, but where x is too short for a direction."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + level)
