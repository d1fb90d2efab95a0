"""The folder of a sweep: its pictures, sweep.json with an entry for each, and settings.json."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from nst_jax import images
from nst_jax.errors import InputError, as_flags
from nst_jax.files import check_folder, check_writable, write_whole
from nst_jax.reports.contact_sheet import knee
from nst_jax.reports.report import terms_in, to_json
from nst_jax.runs.checkpointing import surroundings
from nst_jax.runs.input_files import ImageCache, settings
from nst_jax.runs.problem import Problem
from nst_jax.runs.sweep_request import SweepRequest
from nst_jax.runs.transfer import Progress
from nst_jax.system.distributed import fingerprint

UNFINISHED = "unfinished"  # folder in --output_dir, of checkpoints
MAX_SWEEP_JSON_BYTES = 2**26  # bytes of a sweep.json, 2000 for each of 30 thousand pictures


def sweep_settings(request: SweepRequest) -> dict[str, Any]:
    """Return what makes two sweeps the same."""
    inputs, config = dataclasses.asdict(request.inputs), request.config(request.cells[0])
    swept = {"sweep": request.axes, "zip": request.wanted.zip}
    return dict(json.loads(to_json({"inputs": inputs, "config": config.values(), **swept})))


def told_of(problem: Problem, weights: str, cache: ImageCache) -> dict[str, str]:
    """Return in words what else the bits of the pictures depend on.

    Args:
        problem: Of the first cell.
        weights: The checksum of the network's.
        cache: Has the picture files.
    """
    read: dict[str, Any] = {
        f"{name} at {width}x{height}": picture for (name, height, width), picture in cache.resized.items()
    }
    read |= {as_flags(name): mask for name, mask, _ in problem.masks.named()}
    told = read | {"weights": weights} | surroundings(jax.device_count(), problem.spec.precision)
    return {name: fingerprint(value) for name, value in told.items()}


def check_output_folder(request: SweepRequest) -> Path:
    """Return the output folder, unless other results lie there. Raises InputError."""
    if not request.wanted.output_dir:
        raise InputError("`output_dir`", "a folder", "not given")
    folder = Path(request.wanted.output_dir)
    if not os.path.exists(folder):  # Path's own raises for a name that is too long
        check_folder(folder)
        return folder
    if not folder.is_dir():
        raise InputError(f"`output_dir={folder}`", "a folder", "it is a file")
    check_writable(folder / "sweep.json")
    written = ["settings.json", "sweep.json", "sheet.png", "tradeoff.png", UNFINISHED]
    written += [request.file(number) for number in range(len(request.cells))]
    there = next((name for name in written if os.path.lexists(folder / name)), None)
    settings, before = sweep_settings(request), read_json(folder / "settings.json")
    ours = isinstance(before, dict) and settings.items() <= before.items()
    if there and not (ours and isinstance(before.get("told"), dict) and _are_lanes(before.get("lanes"))):
        came = f"it holds another sweep's results ({there})"
        raise InputError(f"`output_dir={folder}`", "an empty folder, or this sweep's own", came)
    if there and not request.wanted.resume:
        came = "it holds results of this sweep"
        raise InputError(f"`output_dir={folder}`", "an empty folder, or `resume` to go on", came)
    return folder


def _are_lanes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(lanes, int) for lanes in value)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; None where there is none that can be read."""
    try:
        if not path.is_file():  # to open a pipe would wait for its other end
            return None
        with path.open("rb") as file:
            return json.loads(file.read(MAX_SWEEP_JSON_BYTES))  # one that is cut off is damaged
    except (OSError, ValueError, RecursionError):
        return None


def finished(folder: Path, request: SweepRequest) -> dict[int, dict[str, Any]]:
    """Return the entries of sweep.json whose pictures are there, by number. Raises InputError."""
    path = folder / "sweep.json"
    if not request.wanted.resume or not os.path.lexists(path):
        return {}
    try:
        read = json.loads(to_json(read_json(path)))  # as it is written again: null for what is not finite
        entries = [(_number(entry, request), entry) for entry in read]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        allowed = "must be as nst-sweep wrote it; remove it to make all pictures again"
        raise InputError(str(path), allowed, f"it is damaged ({error})") from error
    return {number: entry for number, entry in entries if os.path.exists(folder / request.file(number))}


def _number(entry: dict[str, Any], request: SweepRequest) -> int:
    """Return the number of the picture that an entry of sweep.json tells of."""
    number = int(entry["file"].removesuffix(".png").partition("-")[0])
    values = json.loads(to_json(request.cells[number]))
    if number < 0 or (entry["file"], entry["values"]) != (request.file(number), values):
        raise ValueError(f"{entry['file']!r} is not of this sweep")
    losses = [entry["losses"][term] for term in terms_in(entry["losses"])]
    if not all(loss is None or float(loss) >= 0 for loss in losses):
        raise ValueError(f"a loss of {entry['file']} is below 0")
    if entry["flag"] not in (None, "non-finite"):
        raise ValueError(f"the flag of {entry['file']} is unknown")
    return number


def save_picture(
    number: int, result: Progress, folder: Path, request: SweepRequest, cache: ImageCache
) -> dict[str, Any]:
    """Write a picture, and return its entry of sweep.json.

    Args:
        number: of its cell.
        result: what the optimization came to.
        folder: where it is written.
        request: what was asked for.
        cache: has the picture files.

    Raises:
        NotWritten: it could not be written.
    """
    cell, file = request.cells[number], request.file(number)
    inputs = request.cell_inputs(cell)
    alpha = cache.read(inputs.content).alpha if inputs.content else None
    height, width, _ = result.image.shape
    alpha = None if alpha is None else images.resize(alpha, height, width)
    told = None if request.wanted.no_settings else settings(inputs, request.config(cell), cache)
    images.save(folder / file, result.image, alpha=alpha, settings=told)
    flag = None if result.finite else "non-finite"
    return {"file": file, "values": cell, "losses": result.losses, "flag": flag}


def write_entries(folder: Path, done: Mapping[int, dict[str, Any]]) -> None:
    """Write sweep.json: what is finished, in order, with the knee of the tradeoff marked."""
    numbers = sorted(done)
    best = knee([point_of(done[number]) for number in numbers])
    entries = [{**done[number], "knee": n == best} for n, number in enumerate(numbers)]
    write_whole(folder / "sweep.json", to_json(entries))


def point_of(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Return the content and style losses of an entry, infinite if it has none."""
    content, style = entry["losses"]["content"], entry["losses"]["style"]
    if entry["flag"] or content is None or style is None:
        return math.inf, math.inf
    return float(content), float(style)  # without a content it is the whole number 0
