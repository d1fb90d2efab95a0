"""Label maps: pictures of plain colors that say what is what, in a picture and in its styles.

A region of the picture takes its style from the parts of a painting that have the same color in its map: the
guided Gram matrices of Gatys et al. 2017 (arXiv 1611.07865), section 3, with any style loss.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt8

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.images import masks as masking
from nst_jax.images.masks import Label, Masks

Numbers = UInt8[np.ndarray, "h w"]

NEAR = 16  # of 255, in each channel: so near colors are one; JPEG moves them by 4, Cityscapes' lie 20 apart
CLOSE = NEAR // 2  # pixels this near to their color are plain; edges and photographs are not
PLAIN = 0.7  # of the pixels of a map are plain: of JPEG maps of quality 30 0.79, of photographs up to 0.6
MIN_REGION_SHARE = 1e-3  # of the pixels: less is no region: at 512 pixels no position of a layer of stride 16
MAX_COLORS = 64  # colors
MAX_COUNTED_PIXELS = 2**22  # that are looked at: of a larger map every second, third ... in both directions
MAX_GROWTH_PIXELS = 8  # pixels that a region may grow over an edge: the side of JPEG's blocks
CELL = 3  # bits of a channel that are dropped where colors are counted
LACKING = 255  # number of a color that the content's map lacks


class Labels(NamedTuple):
    """A label map: its colors, from the largest area to the smallest, and each pixel's color number."""

    numbers: Numbers
    colors: UInt8[np.ndarray, "n 3"]

    @property
    def names(self) -> list[str]:
        """The colors as #rrggbb."""
        return [f"#{bytes(color).hex()}" for color in self.colors]

    def told(self, numbers: Sequence[int] | None = None) -> str:
        """Return colors, all or those of these numbers, and their areas in words."""
        shares = 100 * np.bincount(self.numbers.ravel(), minlength=len(self.colors)) / self.numbers.size
        chosen = range(len(self.colors)) if numbers is None else numbers
        return ", ".join(f"{self.names[k]} ({shares[k]:.2g} %)" for k in chosen)


class Counts(NamedTuple):
    """How often colors are there, counted in cells of 2^CELL values of each channel."""

    pixels: Int64[np.ndarray, " c"]  # in each cell that is not empty
    means: Float64[np.ndarray, "c 3"]


def load(name: str, max_pixels: int = images.MAX_PIXELS) -> Labels:
    """Read a label map, a picture file or "example:NAME". Raises InputError if it is none."""
    return find(images.read(name, max_pixels), name)


def find(source: images.Source, name: str) -> Labels:
    """Return the label map of a picture: its plain colors, and the nearest of them for each pixel.

    Transparent pixels are white. Edges, and areas narrower than three pixels, join their neighbors. Raises
    InputError if the picture has too few plain pixels, or too many plain colors.
    """
    rgb = _bytes(source)
    cells, flat = _cells(rgb), _flat(rgb)
    every = _count(rgb.reshape(-1, 3), cells.ravel())
    colors = _palette(_count(rgb[flat], cells[flat]), MIN_REGION_SHARE * cells.size)
    allowed = f"a label map is made of at most {MAX_COLORS} plain colors"
    plain = 0.0
    if len(colors):
        far = np.abs(every.means[:, None] - colors).max(-1).min(1)
        plain = float(every.pixels[far <= CLOSE].sum() / cells.size)
    if plain < PLAIN:
        raise InputError(name, allowed, f"{1 - plain:.0%} of it is of other colors, as in a photograph")
    if len(colors) > MAX_COLORS:
        raise InputError(name, allowed, "it has more")
    numbers = _joined(_nearest(colors)[cells])
    areas = np.bincount(numbers.ravel(), minlength=len(colors))
    order = np.argsort(-areas, kind="stable")
    ranks = np.argsort(order).astype(np.uint8)
    return Labels(ranks[numbers], colors[order[areas[order] > 0]].round().astype(np.uint8))


def match(content: Labels, style: Labels, name: str, of: str) -> UInt8[np.ndarray, " n"]:
    """Return for each color of a style's map its number in the content's map, or LACKING.

    Args:
        content: The content's map.
        style: The style's map.
        name: The name of the style's map, for errors.
        of: The name of the content's map.

    Raises:
        InputError: A color of the content's map is missing in the style's.
    """
    distances = np.abs(style.colors[:, None].astype(int) - content.colors).max(-1)
    numbers = np.where(distances.min(1) <= NEAR, distances.argmin(1), LACKING).astype(np.uint8)
    if missing := [k for k in range(len(content.colors)) if k not in numbers]:
        came = f"it lacks {content.told(missing)}; it has {style.told()}"
        raise InputError(name, f"each color of {of}", came)
    return numbers


def make_masks(
    content: Integer[np.ndarray, "_ _"],
    styles: Sequence[Integer[np.ndarray, "_ _"] | None],
    *,
    size: tuple[int, int] | None = None,
    style_sizes: Sequence[tuple[int, int]] = (),
    names: Sequence[str] = (),
) -> Masks:
    """Return masks that match each region of the picture with the style's regions of the same label.

    A style's share of the mix is divided equally among the regions.

    Args:
        content: The label of each pixel of the picture, a whole number.
        styles: For each style the label of each pixel. None: every region uses the whole style.
        size: Rows and columns of the picture, if the labels have another size.
        style_sizes: The same of each style.
        names: The names of the labels 0, 1, ... Empty: the numbers that occur.

    Returns:
        The masks of stylize(masks=...), with one style for each label.
    """
    numbers = range(len(names)) if names else np.unique(content).tolist()
    size, sizes = size or content.shape, style_sizes or [() if own is None else own.shape for own in styles]
    acts = [_region(content, number, size) for number in numbers]
    labels = [names[number] if names else str(number) for number in numbers]
    return Masks(
        styles=acts * len(styles),
        sources=[
            None if own is None else _region(own, number, to)
            for own, to in zip(styles, sizes, strict=True)
            for number in numbers
        ],
        labels=[Label(picture, label) for picture in range(len(styles)) for label in labels],
    )


def _region(numbers: Integer[np.ndarray, "_ _"], number: int, size: tuple[int, int]) -> masking.Mask:
    return masking.resize((numbers == number).astype(np.float32), *size)


def _bytes(source: images.Source) -> UInt8[np.ndarray, "h w 3"]:
    """Return the colors on white, in 8 bits, of about PIXELS pixels at most."""
    step = math.ceil(math.sqrt(math.prod(source.size) / MAX_COUNTED_PIXELS))
    some = tuple(slice(min(step, side) // 2, None, step) for side in source.size)
    thin = images.Source(source.colors[some], None if source.opacity is None else source.opacity[some])
    rgb = np.empty((*thin.size, 3), np.uint8)
    for rows, band, _ in thin.bands():
        rgb[rows] = np.moveaxis(images.to_uint8(band), 0, -1)
    return rgb


def _flat(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Tell which pixels lie CLOSE to all their neighbors, unlike edges and what JPEG makes of these."""
    least, most = _around(rgb)
    return ((most - least) <= CLOSE).all(-1)


def _around(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the most of each pixel and its eight neighbors; the border is repeated."""
    found = []
    for extreme in (np.minimum, np.maximum):
        near = array
        for axis in (0, 1):
            padded = np.concatenate([near.take([0], axis), near, near.take([-1], axis)], axis)
            parts = [padded.swapaxes(0, axis)[k : k + near.shape[axis]] for k in range(3)]
            near = extreme(extreme(parts[0], parts[1]), parts[2]).swapaxes(0, axis)
        found.append(near)
    return found[0], found[1]


def _cells(rgb: UInt8[np.ndarray, "*shape 3"]) -> Integer[np.ndarray, "*shape"]:
    high = (rgb >> CELL).astype(np.uint16)
    bits = 8 - CELL
    return high[..., 0] << 2 * bits | high[..., 1] << bits | high[..., 2]


def _count(pixels: UInt8[np.ndarray, "p 3"], cells: Integer[np.ndarray, " p"]) -> Counts:
    counts = np.bincount(cells)
    there = counts > 0
    sums = [np.bincount(cells, pixels[:, channel])[there] for channel in range(3)]
    return Counts(counts[there], np.stack(sums, -1) / counts[there, None])


def _palette(counts: Counts, least: float) -> Float64[np.ndarray, "n 3"]:
    """Return the mean of what lies NEAR the fullest cell, that of what lies near the fullest other one, ...

    MAX_COLORS + 1 of them at most, each of at least so many pixels.
    """
    pixels, colors = counts.pixels.copy(), list[np.ndarray]()
    while pixels.any() and len(colors) <= MAX_COLORS:
        near = np.abs(counts.means - counts.means[pixels.argmax()]).max(-1) <= NEAR
        if pixels[near].sum() >= least:
            colors.append(np.average(counts.means[near], axis=0, weights=pixels[near]))
        pixels[near] = 0
    return np.reshape(colors, (-1, 3)).astype(np.float64)


def _nearest(colors: Float64[np.ndarray, "n 3"]) -> UInt8[np.ndarray, " c"]:
    """Return the number of the nearest color for each cell."""
    middles = np.arange(2 ** (8 - CELL)) * 2.0**CELL + (2**CELL - 1) / 2
    squares = [(middles[:, None] - colors[:, channel]) ** 2 for channel in range(3)]
    distances = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    return distances.argmin(-1).ravel().astype(np.uint8)


def _joined(numbers: Numbers) -> Numbers:
    """Return the map with what is narrower than three pixels in the numbers of its neighbors.

    So a smooth edge between two regions is no thin region of a third color that lies between theirs.
    """
    least, most = _around(numbers)
    _, kept = _around(least == most)
    numbers = numbers.copy()
    for _ in range(MAX_GROWTH_PIXELS):
        if kept.all():
            break
        for axis in (0, 1):
            own, known = numbers.swapaxes(0, axis), kept.swapaxes(0, axis)
            for to, by in ((np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:])):
                taken = ~known[to] & known[by]
                own[to][taken] = own[by][taken]
                known[to] |= taken
    return numbers
