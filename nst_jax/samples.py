"""Which positions of a map stand for all of them, where all would be too many to compare with each other."""

import numpy as np
from jaxtyping import Float, Int32


def sample_positions(mass: Float[np.ndarray, "h w"], count: int) -> Int32[np.ndarray, " n"]:
    """Return the indices, into the flattened map, of so many positions, each as often as its mass says.

    Systematic sampling along a Z-order curve (Morton 1966): where count is the positions over a power of 4
    and all have one mass, every square has one. Positions of mass 0 are never taken; of fewer than count
    positions some are taken several times.

    >>> sample_positions(np.ones((4, 4)), 4)
    array([ 4,  6, 12, 14], dtype=int32)
    """
    height, width = mass.shape
    rows, columns = np.divmod(np.arange(mass.size, dtype=np.int64), width)
    code = np.zeros(mass.size, np.int64)
    for bit in range(max(height, width).bit_length()):
        code |= ((columns >> bit & 1) << 2 * bit) | ((rows >> bit & 1) << 2 * bit + 1)
    order = np.argsort(code, kind="stable")
    reached = np.cumsum(mass.ravel()[order], dtype=np.float64)
    wanted = (np.arange(count) + 0.5) / count * reached[-1]
    return order[np.searchsorted(reached, wanted, side="right")].astype(np.int32)
