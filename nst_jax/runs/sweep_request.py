"""What a sweep is asked for: the values of each name, and the picture of each cell."""

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, did_you_mean
from nst_jax.losses import own_terms
from nst_jax.options import check_options, fields_of, option, parse_option
from nst_jax.reports.contact_sheet import describe
from nst_jax.runs.input_files import NO_SETTINGS, InputOptions
from nst_jax.runs.judging import References

MAX_NAME_LETTERS = 60  # letters of a content's name in those of its pictures
MAX_UNASKED_PICTURES = 10_000  # pictures: above that --yes is asked for
LISTS = ("style_mix", "style_layer_weights")  # a value is numbers with colons between them
FILES = ("style", "content")


def sweepable() -> tuple[str, ...]:
    """Return the names that may be swept."""
    weights = (f"{term}_weight" for term in own_terms())
    return (
        "strength",
        *weights,
        "style_mix",
        "style_layer_weights",
        "learning_rate",
        "seed",
        "style",
        "content",
    )


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What is swept, and where the pictures go."""

    sweep: tuple[str, ...] = option(
        (),
        f"NAME=V1,V2,...; NAME: {', '.join(sweepable())}. A value that is a list has colons: "
        "style_mix=1:0,1:1. style and content may repeat with one file each, whose name may have commas",
        repeated=True,
    )
    zip: bool = option(
        False, "pair the values, first with first, second with second, in place of all combinations"
    )
    output_dir: str = option(
        "", "folder for 0000.png ... (0000-cat.png of swept contents), sheet.png, tradeoff.png, sweep.json"
    )
    batch_size: int = option(
        0, "pictures optimized at once; 0: as many as fit, or with --resume as before", low=0, high=10**6
    )
    resume: bool = option(False, "resume the sweep in --output_dir: make the missing pictures")
    checkpoint_every: float = option(
        60.0,
        "seconds between checkpoints of unfinished pictures, in --output_dir/unfinished",
        low=0,
        high=10**6,
    )
    judge: bool = option(False, "measure each picture as nst-judge does, and add the numbers to sweep.json")
    no_settings: bool = option(False, NO_SETTINGS)
    dry_run: bool = option(False, "print pictures, sizes, steps and time of the sweep, and write nothing")
    yes: bool = option(False, f"make more than {MAX_UNASKED_PICTURES} pictures")

    def __post_init__(self) -> None:
        check_options(self)


class SweepRequest(NamedTuple):
    """What a sweep is asked for; make_sweep_request makes it of options."""

    inputs: InputOptions
    wanted: SweepOptions
    given: Mapping[str, Any]  # options of Config
    axes: dict[str, list[Any]]  # the values of each name
    cells: list[dict[str, Any]]  # the values of each picture

    def config(self, cell: Mapping[str, Any]) -> Config:
        """Return the options of a cell. Raises InputError."""
        named = {name: value for name, value in cell.items() if name not in FILES}
        return Config.from_preset(**{"scales": "", **self.given, **named})  # a sweep has one size

    def cell_inputs(self, cell: Mapping[str, Any]) -> InputOptions:
        """Return the input files of a cell."""
        named: dict[str, Any] = {
            name: (cell[name],) if name == "style" else cell[name] for name in FILES if name in cell
        }
        return dataclasses.replace(self.inputs, **named)

    def file(self, number: int) -> str:
        """Return the name of the picture of a cell."""
        content = Path(self.cells[number].get("content", "").removeprefix(images.EXAMPLE)).stem
        return f"{number:04d}{'-' * bool(content)}{content[:MAX_NAME_LETTERS]}.png"

    def against(self, cell: Mapping[str, Any]) -> References:
        """Return what the picture of a cell is judged against."""
        inputs, config = self.cell_inputs(cell), self.config(cell)
        return References(inputs.content, inputs.style, config.style_mix, config.stroke_size)


def make_sweep_request(inputs: InputOptions, wanted: SweepOptions, given: Mapping[str, Any]) -> SweepRequest:
    """Return the request of some options, with the picture of each cell.

    Args:
        inputs: the files that all cells have in common.
        wanted: what is swept.
        given: options of Config that all cells have in common.

    Raises:
        InputError: the values are wrong, or a name is given twice.
    """
    for name in ("round_aspects", "print_size", "crop"):
        if getattr(inputs, name):
            raise InputError(f"`{name}`", "for nst and nst-batch", "got it for nst-sweep")
    axes = parse_axes(wanted.sweep)
    for name in axes.keys() & given.keys():
        raise InputError(f"`{name}`", f"either `{name}` or `sweep={name}`=...", "got both")
    return SweepRequest(inputs, wanted, given, axes, make_cells(axes, wanted))


def parse_axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each name of some NAME=V1,V2,... Raises InputError."""
    listed: dict[str, list[str]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        listed.setdefault(name, []).append(values)
    twice = [name for name, given in listed.items() if len(given) > 1 and name not in FILES]
    if twice or not listed:
        came = f"{twice[0]} is there twice" if twice else "none was given"
        raise InputError("`sweep`", "one or more NAME=V1,V2,..., each name but of files once", came)
    return {name: _values(name, given) for name, given in listed.items()}


def _values(name: str, given: Sequence[str]) -> list[Any]:
    """Return the values of a name: of a lone V1,V2,... each, else one of each. Raises InputError."""
    if name not in sweepable():
        came = f"got {name!r}{did_you_mean(name, sweepable())}"
        raise InputError("`sweep=NAME`=V1,V2,...", f"NAME is one of {', '.join(sweepable())}", came)
    parts = given[0].split(",") if len(given) == 1 else given
    values = [value.strip() for value in parts]
    if not all(values):
        raise InputError(f"`sweep={name}`", "values with commas between them", f"got {given[0]!r}")
    if name in FILES:
        return [os.path.expanduser(value) for value in values]
    field = next(field for field in fields_of(Config) if field.name == name)
    texts = [value.replace(":", ",") if name in LISTS else value for value in values]
    return [parse_option(field, text) for text in texts]


def make_cells(axes: Mapping[str, list[Any]], wanted: SweepOptions) -> list[dict[str, Any]]:
    """Return the values of every picture: the grid, the last name fastest; or the lists side by side."""
    lengths = {name: len(values) for name, values in axes.items()}
    if wanted.zip and len(set(lengths.values())) > 1:
        raise InputError("`zip`", "lists of one length", f"got {', '.join(describe(lengths))}")
    count = next(iter(lengths.values())) if wanted.zip else math.prod(lengths.values())
    if count > MAX_UNASKED_PICTURES and not wanted.yes:
        raise InputError("`sweep`", f"at most {MAX_UNASKED_PICTURES} pictures without `yes`", f"got {count}")
    rows = zip(*axes.values(), strict=True) if wanted.zip else itertools.product(*axes.values())
    return [dict(zip(axes, row, strict=True)) for row in rows]
