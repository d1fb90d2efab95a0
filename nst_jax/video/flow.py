"""Dense flow between frames: where each pixel was before, where that is known, and cuts.

A flow u(x) from frame t to frame s: what lies at x in t lies at x + u(x) in s. In pixels, columns first. The
formulas and constants are those of Ruder et al. 2016 (arXiv 1604.08610), 4.2.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from nst_jax import images
from nst_jax.errors import InputError

Image = Float32[np.ndarray, "h w 3"]
Flow = Float32[np.ndarray, "h w 2"]
Weights = Float32[np.ndarray, "h w"]

FINEST = {"fine": 0, "fast": 1}  # scale of the flow, in halvings: fine is 2 to 5 times as near, and slower
LEAST_COVERED = 0.3  # share of a frame whose flow is known: below it the frame begins a new shot,
MOST_APART = 0.1  # and so does one that differs by more, on average, from the frame before along the flow
SMALLEST = 16  # pixels a side, below which DIS finds no flow


class Before(NamedTuple):
    """What is known of a frame from earlier ones."""

    picture: Image  # warped to the frame
    weights: Weights  # 1 where it holds, 0 elsewhere


@functools.cache
def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "nst-video", "needs the extra `video`: pip install 'nst-jax[video]'", f"{error}"
        ) from error
    cv2.setNumThreads(1)  # DIS's result depends on the number of threads
    return cv2


def find(one: Image, other: Image, precision: str = "fine") -> Flow:
    """Return the flow from one frame to another, by dense inverse search (Kroeger et al. 2016).

    Args:
        one: Where it starts.
        other: Where it leads, of the same size.
        precision: A key of FINEST.
    """
    cv2 = _cv2()
    gray = [cv2.cvtColor(images.to_uint8(image), cv2.COLOR_RGB2GRAY) for image in (one, other)]
    if min(one.shape[:2]) < SMALLEST:
        return np.zeros((*one.shape[:2], 2), np.float32)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(FINEST[precision])
    found: Flow = search.calc(*gray, None)
    return found


def _linear(share: Weights) -> dict[int, Weights]:
    """Return the weights of the pixels below a place and above it, by how many farther on they are."""
    return {0: 1 - share, 1: share}


def _cubic(share: Weights) -> dict[int, Weights]:
    """Return the weights of four pixels: Catmull and Rom's spline."""
    square = share**2
    cube = square * share
    return {
        -1: (2 * square - cube - share) / 2,
        0: (3 * cube - 5 * square + 2) / 2,
        1: (4 * square - 3 * cube + share) / 2,
        2: (cube - square) / 2,
    }


def warp(
    array: Float32[np.ndarray, "h w c"],
    flow: Flow,
    weights: Callable[[Weights], dict[int, Weights]] = _linear,
) -> Float32[np.ndarray, "h w c"]:
    """Return array(x + u(x)), by default bilinear; beyond its border the array is mirrored.

    Args:
        array: Of any channels.
        flow: u, in pixels.
        weights: Of the pixels around a place on an axis, from how far it is beyond one.
    """
    height, width = flow.shape[:2]
    rows = _taps(np.arange(height)[:, None] + np.float64(flow[..., 1]), height, weights)
    columns = _taps(np.arange(width) + np.float64(flow[..., 0]), width, weights)
    warped = np.zeros(array.shape, np.float32)
    for row, down in rows:
        for column, across in columns:
            warped += (down * across)[..., None] * array[row, column]
    return warped


def _taps(
    at: Float64[np.ndarray, "h w"], size: int, weights: Callable[[Weights], dict[int, Weights]]
) -> list[tuple[Int64[np.ndarray, "h w"], Weights]]:
    """Return the pixels around places on an axis, and their weights."""
    low, period = np.floor(at), max(1, 2 * (size - 1))
    found = []
    for farther, weight in weights((at - low).astype(np.float32)).items():
        index = (low.astype(np.int64) + farther) % period
        found.append((np.minimum(index, period - index), weight))
    return found


def warp_picture(picture: Image, flow: Flow) -> Image:
    """Return a picture along a flow, bicubic: bilinear would blur it more with every frame."""
    return warp(picture, flow, _cubic).clip(0, 1)


def holds(backward: Flow, forward: Flow) -> Bool[np.ndarray, "h w"]:
    """Tell where a frame's flow to an earlier one holds: not what was covered there, nor motion's borders.

    w is the flow back, and w~(x) = forward(x + w(x)). Covered is where
    |w + w~|^2 > 0.01 (|w|^2 + |w~|^2) + 0.5.

    A border is where |grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002. What comes from outside of the earlier
    frame does not hold either.
    """
    height, width = backward.shape[:2]
    there = warp(forward, backward)
    length, both = (backward**2).sum(-1), (backward**2).sum(-1) + (there**2).sum(-1)
    covered = ((backward + there) ** 2).sum(-1) > 0.01 * both + 0.5
    slopes = sum(
        (np.gradient(backward[..., c], axis=axis) ** 2 for c in range(2) for axis in range(2)),
        start=np.zeros_like(length),
    )
    row, column = np.arange(height)[:, None] + backward[..., 1], np.arange(width) + backward[..., 0]
    inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
    return inside & ~covered & (slopes <= 0.01 * length + 0.002)


class Motion(NamedTuple):
    """How a frame follows from an earlier one."""

    flow: Flow  # back to it
    holds: Bool[np.ndarray, "h w"]


def motion(frame: Image, earlier: Image, precision: str = "fine") -> Motion:
    """Return the flow from a frame back to an earlier one, and where it holds.

    Args:
        frame: The later one.
        earlier: Of the same size.
        precision: A key of FINEST.
    """
    backward = find(frame, earlier, precision)
    return Motion(backward, holds(backward, find(earlier, frame, precision)))


def within(moved: Motion, known: Bool[np.ndarray, "h w"] | None) -> Motion:
    """Return a motion that holds only where it leads to what is known of the earlier frame; None: all is."""
    if known is None:
        return moved
    there = warp(known.astype(np.float32)[..., None], moved.flow)[..., 0]
    return moved._replace(holds=moved.holds & (there > 0.99))


def is_cut(frame: Image, before: Image, moved: Motion) -> bool:
    """Tell whether a frame shows another scene than the one before it.

    Args:
        frame: The later one.
        before: The one before it.
        moved: From the frame back to that.
    """
    apart = np.abs(frame - warp(before, moved.flow)).mean()
    return bool(moved.holds.mean() < LEAST_COVERED or apart > MOST_APART)


def combine(motions: Mapping[int, Motion], pictures: Mapping[int, Image]) -> Before:
    """Return what earlier pictures say of a frame: each pixel as the nearest one of them shows it that does.

    Ruder's long-term weights, c_j less those of all nearer frames, are 1 for one frame at most. So their sum
    of terms is one term, of what the nearest frames show, up to a number that does not depend on the picture.

    Args:
        motions: To the earlier frames, by how many frames back, the nearest first.
        pictures: These frames' pictures, by the same.
    """
    known, picture = None, None
    for back, moved in motions.items():
        shown = warp_picture(pictures[back], moved.flow)
        new = moved.holds if known is None else moved.holds & ~known
        picture = shown if picture is None else np.where(new[..., None], shown, picture)
        known = new if known is None else known | new
    assert known is not None
    assert picture is not None
    return Before(picture, known.astype(np.float32))
