"""The settings in a picture or in a report, as options that make the same picture again."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.options import check_options, fields_of, option, renamed
from nst_jax.reports.report import resolved
from nst_jax.runs.batch_request import parse_value
from nst_jax.runs.input_files import InputOptions
from nst_jax.runs.request import OutputOptions

MAX_BYTES = 2**24  # of a report: its history grows with the steps
WRITTEN = ("output_size", "bit_depth", "dpi")  # options of the output that a picture is made with
LONE = ("content", "content_mask", "content_labels")  # options that name a file, and
LISTS = ("style", "style_mask", "style_source_mask", "style_labels")  # several
ALLOWED = "a picture or a report that nst wrote"
# What is given takes the place of these.
INSTEAD = {
    "strength": ("content_weight", "style_weight"),
    "content_weight": ("strength",),
    "style_weight": ("strength",),
    "iterations": ("effort",),
    "effort": ("iterations",),
    "print_size": ("size",),
    "size": ("print_size", "crop"),
}


@dataclasses.dataclass(frozen=True)
class Again:
    """A picture made again."""

    settings: str = option(
        "",
        "picture or report (.json) that nst wrote: use its options unless overridden, and its files if "
        "they are there",
    )

    def __post_init__(self) -> None:
        check_options(self)


def read_options(path: str) -> dict[str, Any]:
    """Return the options that a picture, or a report (.json), was made with. Raises InputError."""
    what = f"`settings={path}`"
    try:
        if path.endswith(".json"):
            with Path(path).open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        else:
            text = (images.read_settings(path) or "").encode()
    except OSError as error:
        raise InputError(what, ALLOWED, f"{error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise InputError(what, f"at most {MAX_BYTES} bytes of settings", "they are longer")
    try:
        return dict(json.loads(text)["config"])
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(what, ALLOWED, "it has no settings") from error


def parse_options(told: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return options of nst as InputOptions, OutputOptions and Config take them: no more than it takes.

    Options that have another name now are taken under it. Files that are not there are left out, and so are
    options of one run, such as the report's name. Raises InputError where one is wrong.
    """
    told = renamed(told)
    configs = {field.name: field for field in fields_of(Config)}
    others = {field.name: field for kind in (InputOptions, OutputOptions) for field in fields_of(kind)}
    taken = {field.name for field in fields_of(InputOptions)} | set(WRITTEN)
    known = configs | {name: field for name, field in others.items() if name in taken}
    found = {
        name: parse_value(known[name], value)
        for name, value in told.items()
        if name in known and value is not None and name != "max_pixels"
    }
    for name in (*LONE, *LISTS):
        names = found.get(name) or ()
        if not all(map(_is_there, (names,) if isinstance(names, str) else names)):
            del found[name]
    own = {name: value for name, value in found.items() if name in configs}
    if print_size := found.get("print_size"):  # which gives the size again
        own["size"] = int(own["scales"].rpartition(",")[2]) if own.get("scales") else own.get("size", 512)
    try:
        kept = fewest(own, len(found.get("style", ())) or len(told.get("style", ())) or 1)
    except InputError as error:
        raise InputError(what, ALLOWED, str(error)) from error
    if print_size:
        kept.pop("size", None)
    defaults = InputOptions(), OutputOptions()
    plain = {name: value for name, value in found.items() if name not in own}
    return kept | {
        name: value
        for name, value in plain.items()
        if all(getattr(default, name, None) != value for default in defaults)
    }


def _is_there(name: str) -> bool:
    return not name or images.resolve(name).is_file()


def fewest(options: Mapping[str, Any], styles: int) -> dict[str, Any]:
    """Return options of Config without those that follow from the others, so that a dial stays a dial.

    Raises InputError where they contradict each other.
    """
    left, wanted = dict(options), resolved(Config.from_preset(**options), styles)
    for name in sorted(options, key=lambda name: (not name.endswith("_weight"), name)):
        without = {other: value for other, value in left.items() if other != name}
        with contextlib.suppress(InputError):  # it is needed beside the others
            if resolved(Config.from_preset(**without), styles) == wanted:
                left = without
    return left


def beneath(
    given: Sequence[dict[str, Any]], kinds: Sequence[type], told: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """Return the given options of each kind over those of some settings; these give way to their like.

    Args:
        given: Options of each kind.
        kinds: Classes whose fields are options.
        told: Settings by name.
    """
    gone = {other for part in given for name in part for other in INSTEAD.get(name, ())}
    left = {name: value for name, value in told.items() if name not in gone}
    names = [{field.name for field in fields_of(kind)} for kind in kinds]
    return tuple(
        {name: value for name, value in left.items() if name in known} | part
        for known, part in zip(names, given, strict=True)
    )
