"""How much a clip changes that should not: warping error and flicker, in 255ths.

Both are measured along the flow of the contents, only where it holds. Those of the contents themselves tell
how much of it the flow and the clip's own noise are.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from nst_jax.video import flow
from nst_jax.video.flow import Motion

Image = Float32[np.ndarray, "h w 3"]


class Steadiness(NamedTuple):
    """The means over a clip's frames; NaN where there are too few."""

    warping_error: float
    flicker: float


def warping_error(image: Image, before: Image, moved: Motion) -> float:
    """Return the root mean square of x_t - w(x_(t-1)), w along the flow from t back to t - 1.

    Args:
        image: x_t.
        before: x_(t-1).
        moved: From t back to t - 1, of the contents.
    """
    return _root_mean_square(image - flow.warp(before, moved.flow), moved.holds)


def flicker(before: Image, image: Image, after: Image, back: Motion, forth: Motion) -> float:
    """Return the root mean square of x_t - (w(x_(t-1)) + w(x_(t+1))) / 2, both along the flow from t.

    What moves evenly, or fades evenly, has none.

    Args:
        before: x_(t-1).
        image: x_t.
        after: x_(t+1).
        back: From t to t - 1, of the contents.
        forth: From t to t + 1.
    """
    between = (flow.warp(before, back.flow) + flow.warp(after, forth.flow)) / 2
    return _root_mean_square(image - between, back.holds & forth.holds)


def _root_mean_square(apart: Image, where: Bool[np.ndarray, "h w"]) -> float:
    if not where.any():
        return math.nan
    return float(255 * np.sqrt((apart[where] ** 2).mean(dtype=np.float64)))


def measure(pictures: Iterable[Image], contents: Iterable[Image]) -> Steadiness:
    """Return how steady the pictures of one shot are, made of contents; three of each are in memory."""
    errors, flickers = [], []
    seen: list[tuple[Image, Image]] = []
    for pair in zip(pictures, contents, strict=True):
        seen = [*seen[-2:], pair]
        if len(seen) > 1:
            (before, old), (image, new) = seen[-2:]
            errors.append(warping_error(image, before, flow.motion(new, old)))
        if len(seen) > 2:
            (before, old), (image, new), (after, next_) = seen
            back, forth = flow.motion(new, old), flow.motion(new, next_)
            flickers.append(flicker(before, image, after, back, forth))
    return Steadiness(*(float(np.mean(found)) if found else math.nan for found in (errors, flickers)))
