"""What a sweep came to, to look at: a contact sheet, the tradeoff between content and style, its knee."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from nst_jax.images import resize, size_to_fit, to_uint8
from nst_jax.reports.report import draw, new_axes, terms_in

Thumbnail = UInt8[np.ndarray, "_ _ 3"]

SIDE, LINE, GAP = 240, 15, 8  # pixels: longest side of a picture, height of a line of text, space between
WIDTH, SIDES = 200, 160  # of the margin, of the names of rows
MANY_PICTURES = 1000  # pictures from which on they are half as large: a sheet of 10,000 has a gigabyte


class Panel(NamedTuple):
    """A picture of the sheet, with the lines above it, what it came to below."""

    image: Thumbnail
    lines: Sequence[str]
    losses: dict[str, Any]
    flag: str | None


def tile_side(count: int) -> int:
    """Return the longest side of a picture, in pixels, on a sheet of so many."""
    return SIDE if count < MANY_PICTURES else SIDE // 2


def thumbnail(image: Float32[np.ndarray, "h w 3"], side: int = SIDE) -> Thumbnail:
    """Return the picture with its longest side at most side pixels."""
    height, width, _ = image.shape
    return to_uint8(resize(image, *size_to_fit(height, width, min(side, max(height, width)))))


def describe(values: Mapping[str, Any]) -> list[str]:
    """Return each name with its value, numbers in short."""
    return [f"{name} {_short(value)}" for name, value in values.items()]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ":".join(map(_short, value)) if isinstance(value, tuple | list) else str(value)


def contact_sheet(
    tiles: Mapping[int, Panel],
    columns: int,
    inputs: Sequence[tuple[str, Thumbnail]],
    heads: Sequence[str] = (),
    sides: Sequence[Sequence[str]] = (),
) -> bytes:
    """Return a PNG of the tiles, each at the place of its number, row by row; what went in, in the margin.

    Args:
        tiles: Pictures by number.
        columns: Tiles of a row.
        inputs: Names and pictures of the margin.
        heads: A line above each column.
        sides: Lines beside each row.
    """
    shapes = [tile.image.shape for tile in tiles.values()]
    width = max(tile_side(len(tiles)), *(shape[1] for shape in shapes))
    lines = max(len(tile.lines) for tile in tiles.values())
    below = max(len(terms_in(tile.losses)) for tile in tiles.values())
    cell = (max(shape[0] for shape in shapes) + (lines + below) * LINE + 2 * GAP, width + 2 * GAP)
    rows = max(tiles) // columns + 1
    left, top = WIDTH + (SIDES if sides else 0), LINE + GAP if heads else 0
    margin = sum(image.shape[0] + LINE + 2 * GAP for _, image in inputs)
    size = (left + columns * cell[1], max(top + rows * cell[0], margin) + GAP)
    sheet = _Sheet(size)
    y = GAP
    for name, image in inputs:
        sheet.write(GAP, y, name, WIDTH - 2 * GAP)
        sheet.paste(GAP, y + LINE, image)
        y += image.shape[0] + LINE + 2 * GAP
    for column, head in enumerate(heads):
        sheet.write(left + column * cell[1] + GAP, GAP, head, width)
    for row, side in enumerate(sides[:rows]):
        for line, text in enumerate(side):
            y = top + row * cell[0] + GAP + (lines + line) * LINE
            sheet.write(WIDTH + GAP, y, text, SIDES - 2 * GAP)
    for n, tile in tiles.items():
        x, y = left + (n % columns) * cell[1] + GAP, top + (n // columns) * cell[0] + GAP
        sheet.draw(x, y, tile, lines, width)
    return sheet.png()


class _Sheet:
    """A white picture that is written on."""

    def __init__(self, size: tuple[int, int]):
        self.image = Image.new("RGB", size, "white")
        self.pen, self.font = ImageDraw.Draw(self.image), ImageFont.load_default(LINE - 4)

    def write(self, x: int, y: int, text: str, room: int, fill: str = "black") -> None:
        self.pen.text((x, y), _cut(text, room, self.font), fill=fill, font=self.font)

    def paste(self, x: int, y: int, image: Thumbnail) -> None:
        self.image.paste(Image.fromarray(image), (x, y))

    def draw(self, x: int, y: int, tile: Panel, lines: int, width: int) -> None:
        """Draw a tile: its lines, for which there is room for so many, the picture, the losses, the flag."""
        for line, text in enumerate(tile.lines):
            self.write(x, y + line * LINE, text, width)
        y += lines * LINE
        self.paste(x, y, tile.image)
        y += tile.image.shape[0]
        for line, term in enumerate(terms_in(tile.losses)):
            self.write(x, y + line * LINE, f"{term} {tile.losses[term]:.4g}", width, "#555555")
        if tile.flag:
            self.write(x + width // 2, y, tile.flag, width // 2, "red")

    def png(self) -> bytes:
        data = io.BytesIO()
        self.image.save(data, "PNG")
        return data.getvalue()


def _cut(text: str, width: int, font: Any) -> str:
    """Return the text, without its middle where it is wider than so many pixels."""
    kept = len(text) // 2 + 1
    short = text
    while kept and font.getlength(short) > width:
        kept -= 1
        short = f"{text[:kept]}\u2026{text[len(text) - kept :]}"
    return short


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Return the number of the point that trades best: the furthest below the line between the ends.

    Of the front only (no other point is at least as low in both), in logarithms scaled to [0, 1] on both
    axes; never an end. None where the front has fewer than three points.
    """
    usable = [n for n, point in enumerate(points) if all(0 < x < math.inf for x in point)]
    front: list[int] = []
    for n in sorted(usable, key=lambda n: points[n]):
        if not front or points[n][1] < points[front[-1]][1]:
            front.append(n)
    if len(front) < 3:
        return None
    logs = np.log([points[n] for n in front])
    scaled = (logs - logs.min(0)) / np.ptp(logs, axis=0)
    return front[1 + int(np.argmin(scaled[1:-1].sum(1)))]  # the ends lie on x + y = 1


def plot_tradeoff(points: Sequence[tuple[float, float]], labels: Sequence[str], best: int | None) -> bytes:
    """Return a PNG of content loss against style loss, each point labeled, the knee marked.

    Args:
        points: Content loss and style loss.
        labels: One for each point.
        best: The number of the knee. None: there is none.
    """
    axes = _scatter(points, labels, best)
    scale = "log" if all(min(point) > 0 for point in points) else "symlog"
    axes.set(xscale=scale, yscale=scale, xlabel="content loss", ylabel="style loss", title="tradeoff")
    axes.tick_params(axis="x", which="both", rotation=30)
    return _draw_names(axes, ".png")


def plot_judged(points: Sequence[tuple[float, float]], labels: Sequence[str], extension: str) -> bytes:
    """Return a picture of LPIPS to the content against the style distance, each point labeled.

    Args:
        points: Style distance and LPIPS.
        labels: One for each point.
        extension: Of the file: .png, .svg or .pdf.
    """
    axes = _scatter(points, labels)
    axes.set(xlim=(0, None), ylim=(0, 1), xlabel="LPIPS to the content", ylabel="style distance")
    return _draw_names(axes, extension)


def _scatter(points: Sequence[tuple[float, float]], labels: Sequence[str], best: int | None = None) -> Any:
    axes = new_axes(height=5.5)
    for n, ((content, style), label) in enumerate(zip(points, labels, strict=True)):
        axes.plot(content, style, "o", color="crimson" if n == best else "steelblue")
        text = f"{label}{' (knee)' if n == best else ''}".encode(errors="replace").decode()
        axes.annotate(text, (content, style), fontsize=7, parse_math=False)
    return axes


def _draw_names(axes: Any, extension: str) -> bytes:
    with warnings.catch_warnings():  # names of files have letters that the font has not
        warnings.filterwarnings("ignore", message="Glyph")
        return draw(axes, extension)
