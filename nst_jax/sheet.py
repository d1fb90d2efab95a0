"""What a sweep came to, to look at: a contact sheet, the tradeoff between content and style, its knee."""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from nst_jax.images import resize, to_uint8

TERMS = ("total", "content", "style", "tv")
SIDE, LINE, GAP = 240, 15, 8  # pixels: longest side of a picture, height of a line of text, space between
WIDTH = 200  # of the margin


class Tile(NamedTuple):
    """A picture of the sheet, with what made it and what it came to."""

    image: UInt8[np.ndarray, "_ _ 3"]
    values: dict[str, Any]
    losses: dict[str, Any]
    flag: str | None


def thumbnail(image: Float32[np.ndarray, "h w 3"], side: int = SIDE) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the picture with its longest side at most side pixels."""
    height, width, _ = image.shape
    scale = min(1.0, side / max(height, width))
    return to_uint8(resize(image, max(1, round(height * scale)), max(1, round(width * scale))))


def describe(values: dict[str, Any]) -> str:
    """Return names and values in one line, numbers in short."""
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ":".join(map(_short, value)) if isinstance(value, tuple | list) else str(value)


def contact_sheet(
    tiles: Sequence[Tile], columns: int, inputs: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the tiles in rows, their values above and losses below each; what went in, in the margin."""
    height = max(tile.image.shape[0] for tile in tiles)
    width = max(SIDE, max(tile.image.shape[1] for tile in tiles))
    cell = (height + (len(TERMS) + 1) * LINE + 2 * GAP, width + 2 * GAP)
    rows = math.ceil(len(tiles) / columns)
    margin = sum(image.shape[0] + LINE + 2 * GAP for _, image in inputs)
    sheet = Image.new("RGB", (WIDTH + columns * cell[1], max(rows * cell[0], margin) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE - 4)
    y = GAP
    for name, image in inputs:
        draw.text((GAP, y), name, fill="black", font=font)
        sheet.paste(Image.fromarray(image), (GAP, y + LINE))
        y += image.shape[0] + LINE + 2 * GAP
    for n, tile in enumerate(tiles):
        x, y = WIDTH + (n % columns) * cell[1] + GAP, (n // columns) * cell[0] + GAP
        draw.text((x, y), describe(tile.values), fill="black", font=font)
        sheet.paste(Image.fromarray(tile.image), (x, y + LINE))
        y += LINE + tile.image.shape[0]
        if tile.flag:
            draw.text((x + width // 2, y), tile.flag, fill="red", font=font)
        for line, term in enumerate(TERMS):
            draw.text((x, y + line * LINE), f"{term} {tile.losses[term]:.4g}", fill="#555555", font=font)
    return np.asarray(sheet)


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Return the number of the point that trades best: the furthest below the line between the ends.

    Of the front only (no other point is at least as low in both), in logarithms scaled to [0, 1] on both
    axes; None where the front has fewer than three points.
    """
    usable = [n for n, point in enumerate(points) if all(0 < x < math.inf for x in point)]
    front = sorted(
        (n for n in usable if not any(_beats(points[m], points[n]) for m in usable)), key=lambda n: points[n]
    )
    if len(front) < 3:
        return None
    logs = np.log([points[n] for n in front])
    spans = np.ptp(logs, axis=0)
    if not spans.all():
        return None
    scaled = (logs - logs.min(0)) / spans
    return front[int(np.argmin(scaled.sum(1)))]  # the ends lie on x + y = 1


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def plot_tradeoff(points: Sequence[tuple[float, float]], labels: Sequence[str], best: int | None) -> bytes:
    """Return a PNG of content loss against style loss, each point labelled, the knee marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for n, ((content, style), label) in enumerate(zip(points, labels, strict=True)):
        axes.plot(content, style, "o", color="crimson" if n == best else "steelblue")
        axes.annotate(f"{label}{' (knee)' if n == best else ''}", (content, style), fontsize=7)
    scale = "log" if all(min(point) > 0 for point in points) else "symlog"
    axes.set(xscale=scale, yscale=scale, xlabel="content loss", ylabel="style loss", title="tradeoff")
    axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    return data.getvalue()
