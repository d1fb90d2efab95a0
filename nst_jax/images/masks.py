"""Masks: gray pictures that say where styles act; white (1) where they do, black (0) where they do not.

A mask weighs the positions of a style statistic (losses/), and where no mask is white the content stays.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image, ImageColor, ImageDraw, ImageFont

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.networks.base import Network

Mask = Float32[np.ndarray, "h w"]
T = TypeVar("T")

RING = 32  # pixels around the white part that are optimized like it, and not shown
SEAM = 4  # the outermost pixels of the white part, over which the content fades into the picture
THRESHOLD = 127 / 255
COLORED = 0.1  # from the least to the greatest of a pixel's channels
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")  # Okabe and Ito's


class Label(NamedTuple):
    """A region of a label map, and the style picture that it is of."""

    picture: int  # from 0
    name: str  # the region's color

    def __str__(self) -> str:
        return f"{self.picture + 1} {self.name}"


class Masks(NamedTuple):
    """The masks of a run: arrays (h, w) in [0, 1], 1 for white. None, or an empty list: white everywhere.

    content: of the picture's size: where every style may act.
    styles: one for each style, of the picture's size: where it acts.
    sources: one for each style, of the style's size: the part of it that is used.
    labels: set by label_maps.make_masks, which turns each region of a style picture into a style.
    """

    content: Mask | None = None
    styles: Sequence[Mask | None] = ()
    sources: Sequence[Mask | None] = ()
    labels: Sequence[Label] = ()

    def pictures(self, styles: int) -> Sequence[int]:
        """Return the number of each style's picture, from 0. Without labels, each style has its own."""
        return [label.picture for label in self.labels] if self.labels else range(styles)

    def each(self, of_pictures: Sequence[T]) -> list[T]:
        """Return for each style the entry of its picture."""
        return [of_pictures[picture] for picture in self.pictures(len(of_pictures))]

    def sources_of(self, styles: int) -> Sequence[Mask | None]:
        """Return the source mask, or None, for each of this number of styles."""
        return self.sources if len(self.sources) else [None] * styles

    def named(self) -> list[tuple[str, Mask | None, int | None]]:
        """Return for each mask its name, the mask, and the style whose size it has. None: the picture's size.

        The order is content, styles, sources.
        """
        acts = [f"`style_mask {k}`" for k, _ in enumerate(self.styles, 1)]
        sources = [f"`style_source_mask {k}`" for k, _ in enumerate(self.sources, 1)]
        if self.labels:
            acts = [f"`content_labels {label.name}`" for label in self.labels]
            sources = [f"`style_labels {label}`" for label in self.labels]
        return [
            ("`content_mask`", self.content, None),
            *zip(acts, self.styles, itertools.repeat(None), strict=False),
            *zip(sources, self.sources, itertools.count(), strict=False),
        ]


def load(name: str, soft: bool = False, max_pixels: int = images.MAX_PIXELS) -> tuple[Mask, float]:
    """Read a mask, and the share of its pixels that are neither black nor white (within 25 of 255).

    1 where the gray is above 127 of 255, else 0; the grays themselves where soft.

    Args:
        name: A file, or example:NAME.
        soft: Whether grays are kept.
        max_pixels: The largest picture that is read.

    Raises:
        InputError: The file is no gray picture, or all black.
    """
    source = images.read(name, max_pixels)
    mask = np.empty(source.size, np.float32)
    colored = grays = 0
    for rows, rgb, alpha in source.bands():  # never all of it in color and in float32
        if alpha is not None:  # what is see-through is no part of the mask: on black, not on white
            rgb = (rgb - (1 - alpha)).clip(0, 1)
        colored += int((np.ptp(rgb, axis=0) > COLORED).sum())
        gray = rgb.mean(0, dtype=np.float32)
        grays += int(((gray > 0.1) & (gray < 0.9)).sum())
        mask[rows] = gray
    _check_gray(name, colored / mask.size)
    black = not mask.any()
    if not soft:
        np.greater(mask, THRESHOLD, out=mask)
    if not mask.any():
        came = "it is black everywhere"
        if not black:
            came = "none of it is above 127 of 255 (`soft_masks` keeps grays)"
        raise InputError(name, "a mask has a white part, where the style acts", came)
    return mask, grays / mask.size


def of_frame(image: Float32[np.ndarray, "h w 3"], name: str, soft: bool) -> Mask:
    """Return a clip's frame as a mask, which may be black everywhere.

    Args:
        image: RGB in [0, 1].
        name: What the frame is called.
        soft: Whether grays are kept.

    Raises:
        InputError: It is colored.
    """
    _check_gray(name, float((np.ptp(image, axis=-1) > COLORED).mean()))
    gray = image.mean(-1, dtype=np.float32)
    return gray if soft else (gray > THRESHOLD).astype(np.float32)


def _check_gray(name: str, colored: float) -> None:
    if colored > 0.01:
        came = f"{colored:.0%} of it is colored"
        raise InputError(name, "a mask is a gray picture, white where the style acts", came)


def check_aspect(
    name: str, size: tuple[int, int], picture: tuple[int, int], of: str, kind: str = "a mask"
) -> None:
    """Raise InputError where the rows and columns of a mask are not those of a picture, brought to its size.

    A pixel off, as programs round differently, or 1 %: a thin mask may well be 5 % off by rounding.

    Args:
        name: What the mask is called.
        size: Rows and columns of the mask.
        picture: Rows and columns of its picture.
        of: What that is called.
        kind: What the mask is.
    """
    scale = max(size) / max(picture)
    if any(
        abs(one - scale * other) >= max(1, scale * other / 100)
        for one, other in zip(size, picture, strict=True)
    ):
        came = f"it is {size[1]}x{size[0]}, {of} {picture[1]}x{picture[0]}"
        raise InputError(name, f"{kind} has the aspect of {of}, within a pixel or 1 % (any size)", came)


def resize(mask: Mask, height: int, width: int) -> Float32[np.ndarray, "{height} {width}"]:
    """Return the mask's average over each pixel of height by width, exact at any ratio.

    Args:
        mask: In [0, 1].
        height: Rows of the result.
        width: Columns of the result.
    """
    if mask.shape == (height, width):
        return mask
    rows = _averaged(mask, height)
    return _averaged(rows.T, width).T.clip(0, 1).astype(np.float32)


def resize_all(masks: Masks, size: tuple[int, int], style_sizes: Sequence[tuple[int, int]]) -> Masks:
    """Return the masks at the picture's rows and columns, and those of sources at those of their styles.

    Args:
        masks: Of any sizes.
        size: Rows and columns of the picture.
        style_sizes: Rows and columns of each style.
    """

    def resized(mask: Any, to: tuple[int, int]) -> Any:
        return None if mask is None else resize(mask, *to)

    sizes = masks.each(style_sizes) if len(masks.sources) else []
    return masks._replace(
        content=resized(masks.content, size),
        styles=[resized(mask, size) for mask in masks.styles],
        sources=[resized(mask, to) for mask, to in zip(masks.sources, sizes, strict=True)],
    )


def _averaged(mask: Float[np.ndarray, "old w"], new: int) -> Float[np.ndarray, "{new} w"]:
    """Return the average over each of new equal parts of the rows."""
    sums = np.concatenate([np.zeros((1, mask.shape[1])), np.cumsum(mask, axis=0, dtype=np.float64)])
    whole, part = np.divmod(np.arange(new + 1) * len(mask), new)  # where the parts begin and end, in rows
    following = mask[np.minimum(whole, len(mask) - 1)]
    # Between two edges with nothing but black the sums are the same number: black stays 0 to the bit.
    return np.diff(sums[whole] + (part / new)[:, None] * following, axis=0) * (new / len(mask))


def regions(masks: Masks) -> Float32[np.ndarray, "r h w"] | None:
    """Return where each style acts; one region for all where there is only the content's mask; or None."""
    if any(mask is not None for mask in masks.styles):
        shape = next(mask.shape for mask in masks.styles if mask is not None)
        parts = [np.ones(shape, np.float32) if mask is None else mask for mask in masks.styles]
        whole = np.stack(parts)
        return whole if masks.content is None else whole * masks.content
    return None if masks.content is None else masks.content[None]


def widened(parts: Float32[np.ndarray, "r h w"]) -> Float32[np.ndarray, "r h w"]:
    """Return the regions with a ring where none is white: each one's largest weight within RING pixels."""
    outside = parts.sum(0) == 0
    if not outside.any():
        return parts
    ring, width = np.pad(parts, [(0, 0), (RING, RING), (RING, RING)]), 0
    while width < RING:
        step = min(2 * width + 1, RING - width)  # the farthest that leaves no gap
        for axis in (1, 2):
            shifted = [slice(start, ring.shape[axis] - 2 * step + start) for start in (0, step, 2 * step)]
            ring = np.maximum.reduce([ring[(slice(None),) * axis + (there,)] for there in shifted])
        width += step
    return np.where(outside, ring, parts)


def optimized(parts: Float32[np.ndarray, "r h w"]) -> Mask:
    """Return how much of each pixel is the picture's in what the losses see: the seam is at the ring's end.

    So they see no border within RING - SEAM pixels of the regions. A mask's grays are white here.
    """
    return opacity((widened(parts) > 0).astype(np.float32))


def opacity(parts: Float32[np.ndarray, "r h w"]) -> Mask:
    """Return how much of each pixel is the picture's, in [0, 1]; the rest is the content's.

    0 where no region is white. From there it rises over SEAM pixels, all inside the white part.
    """
    inner = total = np.minimum(parts.sum(0), 1)
    for _ in range(SEAM - 1):
        inner = _eroded(inner)
        total = total + inner
    return total / SEAM


def _eroded(mask: Mask) -> Mask:
    """Return the least of each pixel and its eight neighbors; the border counts as white."""
    height, width = mask.shape
    padded = np.pad(mask, 1, constant_values=1)
    return np.minimum.reduce(
        [padded[row : row + height, column : column + width] for row in range(3) for column in range(3)]
    )


def pooled(mask: Mask, stride: int) -> Float32[np.ndarray, "_ _"]:
    """Return the mask's average over each stride x stride pixels; what is left of a cell drops out."""
    while stride > 1:
        side = stride if stride % 2 else 2
        height, width, stride = mask.shape[0] // side, mask.shape[1] // side, stride // side
        mask = mask[: side * height, : side * width].reshape(height, side, width, side).mean((1, 3))
    return mask


def inner(weights: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Return a layer's weights with 0 at the outermost positions, or as they are where no others have any."""
    found = np.zeros_like(weights)
    found[1:-1, 1:-1] = weights[1:-1, 1:-1]
    return found if found.any() else weights


def check(name: str, mask: Mask, network: Network, layers: Sequence[str], of: str = "picture") -> None:
    """Raise InputError where less than one position of the deepest layer is left of the region.

    Args:
        name: What the mask is called.
        mask: In [0, 1].
        network: The one that the layers are of.
        layers: Names of those in use.
        of: What the mask lies over.
    """
    deepest = network.deepest(layers)
    left, unit = positions(mask, network, layers), deepest.stride
    if left >= 1:
        return
    strides = {layer.stride for layer in network.layers if layer.stride < unit}
    enough = {stride for stride in strides if pooled(mask, stride).sum() >= 1}
    below = [layer.name for layer in network.layers if layer.stride in enough]
    advice = [f"style layers up to {below[-1]}"] if below else []
    if size := _sufficient_size(mask, unit):
        advice.append(f"a {of} with a longest side of {size} pixels")
    raise InputError(
        name,
        f"the region covers at least one position of {deepest.name} ({unit}x{unit} pixels)",
        f"{left:.2g} of one" + (f"; {' or '.join(advice)} would do" if advice else ""),
    )


def positions(mask: Mask, network: Network, layers: Sequence[str]) -> float:
    """Return how many positions of the deepest layer a region covers.

    Args:
        mask: In [0, 1].
        network: The one that the layers are of.
        layers: Names of those in use.
    """
    return float(pooled(mask, network.deepest(layers).stride).sum())


def acting(
    parts: Float32[np.ndarray, "r h w"], network: Network, layers: Sequence[str]
) -> Float32[np.ndarray, " r"]:
    """Return 1 for each region that covers a position of the deepest layer, 0 for the others.

    Args:
        parts: The regions.
        network: The one that the layers are of.
        layers: Names of those in use.
    """
    return np.array([positions(part, network, layers) >= 1 for part in parts], np.float32)


def _sufficient_size(mask: Mask, stride: int) -> int | None:
    """Return a longest side at which the region covers a position of this stride; None above 4096."""
    longest = max(mask.shape)
    for size in (round(longest * 1.1**n) for n in range(1, 100)):
        if size > 4096:
            break
        if pooled(resize(mask, *images.size_to_fit(mask.shape[0], mask.shape[1], size)), stride).sum() >= 1:
            return size
    return None


def preview(
    picture: Float32[np.ndarray, "h w 3"],
    parts: Float32[np.ndarray, "r h w"],
    names: Sequence[str],
    colors: Sequence[str] = COLORS,
) -> Float32[np.ndarray, "_ w 3"]:
    """Return the picture in gray, tinted where each region acts, dark where none does; a legend below.

    Args:
        picture: RGB in [0, 1].
        parts: A mask for each region.
        names: Of the regions, for the legend.
        colors: Of the tints, used in turn.
    """
    height, width, _ = picture.shape
    inks = [ImageColor.getrgb(colors[n % len(colors)]) for n in range(len(parts))]
    shares = parts / np.maximum(parts.sum(0), 1e-6)
    tint = np.einsum("rhw,rc->hwc", shares, np.array(inks, np.float32) / 255)
    gray = picture.mean(-1, keepdims=True)
    acts = np.minimum(parts.sum(0), 1)[..., None]
    shown = acts * (0.45 * gray + 0.55 * tint) + (1 - acts) * 0.35 * gray

    line = 22
    legend = Image.new("RGB", (width, line * len(names)), "white")
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(14)
    for n, (name, ink) in enumerate(zip(names, inks, strict=True)):
        draw.rectangle((4, n * line + 4, 18, n * line + 18), fill=ink)
        draw.text((24, n * line + 3), name, fill="black", font=font)
    return np.concatenate([shown, np.asarray(legend, np.float32) / 255]).astype(np.float32)
