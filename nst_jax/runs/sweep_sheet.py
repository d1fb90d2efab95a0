"""The contact sheet of a sweep, and its tradeoff."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nst_jax import images
from nst_jax.files import write_whole
from nst_jax.reports.contact_sheet import (
    WIDTH,
    Panel,
    contact_sheet,
    describe,
    knee,
    plot_tradeoff,
    thumbnail,
    tile_side,
)
from nst_jax.reports.report import can_plot
from nst_jax.runs.input_files import ImageCache, InputOptions
from nst_jax.runs.sweep_folder import point_of
from nst_jax.runs.sweep_request import FILES, SweepRequest


def write_sheet(
    folder: Path, done: Mapping[int, dict[str, Any]], request: SweepRequest, cache: ImageCache
) -> Iterator[Path]:
    """Write the contact sheet, and the tradeoff if there are two points to compare; yield their names.

    Args:
        folder: Of the sweep.
        done: Entries of sweep.json, by number.
        request: What is asked for.
        cache: Has the picture files.
    """
    if not done:
        return
    yield folder / "sweep.json"
    tiles = {number: _tile(folder, done[number], request) for number in sorted(done)}
    names = dict.fromkeys(name for cell in request.cells for name in _files(request.cell_inputs(cell)))
    margin = [(Path(name).name, thumbnail(_reduced(name, cache), WIDTH - 20)) for name in names]
    write_whole(folder / "sheet.png", contact_sheet(tiles, _columns(request), margin, *_headings(request)))
    yield folder / "sheet.png"
    entries = [done[number] for number in sorted(done) if math.isfinite(point_of(done[number])[0])]
    if len(entries) > 1 and can_plot():
        points = [point_of(entry) for entry in entries]
        labels = [", ".join(_described(entry["values"])) for entry in entries]
        write_whole(folder / "tradeoff.png", plot_tradeoff(points, labels, knee(points)))
        yield folder / "tradeoff.png"


def _reduced(name: str, cache: ImageCache) -> np.ndarray:
    """Return a picture no larger than the margin of the sheet needs it."""
    longest = min(WIDTH - 20, max(cache.read(name).size))
    return cache.resize(name, *cache.size(name, longest))


def _described(values: Mapping[str, Any]) -> list[str]:
    """Return values in short, files without their folders: the sheet and the plot are shown to others."""
    return describe({name: Path(value).name if name in FILES else value for name, value in values.items()})


def _files(inputs: InputOptions) -> list[str]:
    return [name for name in (inputs.content, *inputs.style) if name]


def _tile(folder: Path, entry: Mapping[str, Any], request: SweepRequest) -> Panel:
    side = tile_side(len(request.cells))
    image = thumbnail(images.load(str(folder / entry["file"]), 2**40).rgb, side)
    lines = [entry["file"], *([] if _is_grid(request) else _described(entry["values"]))]
    losses = {name: math.nan if value is None else value for name, value in entry["losses"].items()}
    return Panel(image, lines, losses, entry["flag"])


def _is_grid(request: SweepRequest) -> bool:
    return len(request.axes) > 1 and not request.wanted.zip


def _columns(request: SweepRequest) -> int:
    """Return the pictures in a row: the values of the last name of a grid, else about a square."""
    if _is_grid(request):
        return len(list(request.axes.values())[-1])
    return math.ceil(math.sqrt(len(request.cells)))


def _headings(request: SweepRequest) -> tuple[list[str], list[list[str]]]:
    """Return what is said above each column of a grid, and beside each row."""
    if not _is_grid(request):
        return [], []
    *others, last = request.axes
    heads = [text for value in request.axes[last] for text in _described({last: value})]
    firsts = request.cells[:: _columns(request)]
    return heads, [_described({name: cell[name] for name in others}) for cell in firsts]
