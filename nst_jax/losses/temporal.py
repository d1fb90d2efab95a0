"""Temporal consistency: how far a picture is from what earlier ones show of it."""

import numpy as np
from jaxtyping import Array

from nst_jax.losses.base import Sum, Term, View, Weight


def _given(height: int, width: int) -> dict[str, np.ndarray]:
    """Return what stands for no earlier picture. picture: those before, warped; weights: c, from 0 to 1."""
    return {
        "picture": np.zeros((height, width, 3), np.float32),
        "weights": np.zeros((height, width, 1), np.float32),
    }


def _sums(view: View, wanted: dict[str, Array]) -> Sum:
    """Return (1 / D) sum c (x - w)^2, D the number of pixels times channels, as a mean over pixels.

    Ruder et al. 2016 (arXiv 1604.08610), eq. 7. Differs from the paper: colors in [0, 1].
    """
    squares = wanted["weights"] * (view.image - wanted["picture"]) ** 2
    return view.mean(squares.mean(-1))


TEMPORAL = Term(
    _sums, weight=Weight("weight of the temporal consistency", 1e4, 1.0), given=_given, places=("content",)
)
