"""Options as dataclass fields: default, help, bounds and choices in one place; text to value; checks."""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from nst_jax.errors import RENAMED, InputError, did_you_mean

Field = dataclasses.Field[Any]

LARGEST = sys.float_info.max


def option(
    default: Any,
    help: str,
    *,
    low: float | int = -math.inf,
    high: float | int = math.inf,
    choices: Iterable[str] | Iterable[int] = (),
    repeated: bool = False,
) -> Any:
    """Declare a dataclass field of type str, bool, int, float, a tuple of these, or one or a tuple, or None.

    Args:
        default: The value where none is given.
        help: The help text of the flag.
        low: The least number.
        high: The largest one.
        choices: The allowed texts or numbers. A dict is read at every check, so entries may be added later.
        repeated: Whether the flag of a tuple may be given several times. Else it is one comma list.
    """
    kept = choices if isinstance(choices, Mapping) else tuple(choices)
    metadata = {"help": help, "low": low, "high": high, "choices": kept, "repeated": repeated}
    return dataclasses.field(default=default, metadata=metadata)


def fields_of(options: Any) -> tuple[Field, ...]:
    """Return the options of a dataclass: the fields that option() declared, and further ones that it has."""
    declared = [field for field in dataclasses.fields(options) if "help" in field.metadata]
    return (*declared, *(options.more_options() if hasattr(options, "more_options") else ()))


def default_values(options: Any) -> dict[str, Any]:
    """Return what a dataclass of options holds where none is given: its default preset, if it has presets."""
    if hasattr(options, "from_preset"):
        return dict(options.from_preset().values())
    return {field.name: getattr(options, field.name) for field in fields_of(options)}


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that were stored in earlier days under the names of today."""
    today = {RENAMED.get(name, name): value for name, value in options.items()}
    if today.get("content_loss") == "squares":  # a value, of whatever type a file holds
        today["content_loss"] = RENAMED["squares"]
    return today


def is_tuple(field: Field) -> bool:
    """Tell whether an option holds several values."""
    return _tuple_type(field) is not None


def option_type(field: Field) -> type:
    """Return the type of one value of an option: of an element, for the tuples."""
    several = _tuple_type(field)
    kinds = typing.get_args(several or field.type) or (field.type,)  # None may be allowed beside one
    return typing.cast(type, kinds[0])


def _tuple_type(field: Field) -> types.GenericAlias | None:
    kinds = (field.type, *typing.get_args(field.type))  # a lone value may be allowed beside the tuple
    return next((kind for kind in kinds if isinstance(kind, types.GenericAlias)), None)


def describe_range(field: Field) -> str:
    """Return the values an option may have, in words."""
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    if choices:
        *others, last = filter(None, map(str, choices))
        return f"{', '.join(others)} or {last}" if others else last
    kinds: dict[type, str] = {int: "a whole number", float: "a finite number", bool: "true or false"}
    kind = kinds.get(option_type(field), "text")
    if low == -math.inf:
        return kind
    return f"{kind} from {_plain(low)}" + ("" if high == math.inf else f" to {_plain(high)}")


def _plain(number: float | int) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def parse_option(field: Field, text: str) -> Any:
    """Return the value that text stands for on the command line. Raises InputError."""
    kind = option_type(field)
    try:
        if is_tuple(field):
            return tuple(kind(part.strip()) for part in text.split(",")) if text else ()
        return kind(text)
    except ValueError:
        raise InputError(f"`{field.name}`", describe_range(field), f"got {text!r}") from None


def check_options(options: Any) -> None:
    """Raise InputError for the first option of a dataclass that is of the wrong type or out of bounds."""
    for field in fields_of(options):
        check_option(field, getattr(options, field.name))


def check_option(field: Field, value: Any) -> None:
    """Raise InputError if the value of an option is of the wrong type or out of bounds."""
    for item in value if is_tuple(field) else (value,):
        _check(field, item)


def _check(field: Field, item: Any) -> None:
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    kind = option_type(field)
    good = isinstance(item, (int, float) if kind is float else kind)
    if kind in (int, float):
        # Compared, for math.isfinite overflows on a whole number of 400 digits; nan compares as False.
        good = good and not isinstance(item, bool) and abs(item) <= LARGEST and low <= item <= high
    if not good or (choices and item not in choices):
        hint = did_you_mean(str(item), map(str, choices))
        raise InputError(f"`{field.name}`", describe_range(field), f"got {item!r}{hint}")
