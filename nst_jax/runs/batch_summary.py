"""What a batch came to, to look at: a contact sheet of a sample, a histogram of losses, failures by kind."""

import collections
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.reports.contact_sheet import Panel, contact_sheet, thumbnail
from nst_jax.reports.report import can_plot, draw, new_axes, to_json
from nst_jax.runs.batch_results import Results
from nst_jax.runs.batch_staging import Staging
from nst_jax.system import storage

SAMPLE, COLUMNS = 64, 8  # pictures on the sheet, and in a row of it
SIDE = 160  # pixels: longest side of a picture on the sheet
UNBOUNDED = 2**40  # pixels, of pictures that the program itself has written


def write_summary(results: Results, staging: Staging) -> Iterator[str]:
    """Write sheet.png, losses.png and summary.json beside the results of all workers; yield their names.

    Raises NotWritten where one of them cannot be written.
    """
    results.load()
    good = sorted(name for name, made in results.last.items() if not made.error)
    errors = [made.error for made in results.last.values() if made.error]
    failures = dict(collections.Counter(map(kind_of, errors)).most_common())
    files = {"summary.json": to_json({"made": len(good), "failed": len(errors), "failures": failures})}
    if tiles := _tiles(results, good[:: math.ceil(len(good) / SAMPLE) or 1], staging):
        files["sheet.png"] = contact_sheet(tiles, COLUMNS, [])
    totals = [total for name in good if 0 < (total := results.last[name].total) < math.inf]
    if totals and can_plot():
        axes = new_axes()
        axes.hist(np.log10(totals), bins=40)
        axes.set(xlabel="log10 of the total loss", ylabel="rows")
        files["losses.png"] = draw(axes, ".png")
    for name, data in files.items():
        storage.write(f"{results.folder}/{name}", data)
        yield f"{results.folder}/{name}"


def kind_of(error: str) -> str:
    """Return what errors of one kind have in common: not the file, and not what came.

    >>> kind_of("a.png: must be a file that can be read; No such file or directory")
    'must be a file that can be read'
    >>> kind_of("--size: a whole number from 2 to 32768; got 'big'")
    '--size: a whole number from 2 to 32768'
    """
    what, _, rest = error.partition(": ")
    allowed = rest.partition("; ")[0]
    return f"{what}: {allowed}" if what.startswith("--") else allowed or error


def _tiles(results: Results, names: list[str], staging: Staging) -> dict[int, Panel]:
    """Return the tiles of some rows, without those whose pictures are gone."""
    chosen = dict.fromkeys(names)
    losses: dict[str, dict[str, Any]] = {}
    for _, entry in results.entries():
        if entry["id"] in chosen and entry["ended"] == results.last[entry["id"]].ended:
            known = {name: math.nan if value is None else value for name, value in entry["losses"].items()}
            losses[entry["id"]] = known
    tiles: dict[int, Panel] = {}
    for name in names:
        try:
            picture = images.load(staging.local(results.last[name].paths[0]), UNBOUNDED).rgb
        except InputError:
            continue
        tiles[len(tiles)] = Panel(thumbnail(picture, SIDE), [name], losses[name], None)
    return tiles
