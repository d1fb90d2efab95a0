"""The one exception for requests that cannot be met as asked."""

import difflib
import re
from collections.abc import Iterable

# Names of options and of their values in earlier days: those of today.
RENAMED = {
    "allow": "allow_change",
    "average": "ema_decay",
    "balance": "loss_balancing",
    "depth": "bit_depth",
    "lanes": "batch_size",
    "layer_weighting": "style_layer_weights",
    "out": "output",
    "squares": "l2",
    "style_scale": "stroke_size",
}


class InputError(ValueError):
    """An option, a file, a picture or a set of weights is wrong: what it is, what is allowed, what came.

    Options stand in backticks, alone or with a value: `size`, `size=512`. The programs print one line,
    `error: WHAT: ALLOWED; CAME`, with the options as flags, and exit with code 2.
    """

    def __init__(self, what: str, allowed: str, came: str):
        super().__init__(what, allowed, came)  # all three, so that it can be pickled
        self.what, self.allowed, self.came = what, allowed, came

    def __str__(self) -> str:
        return _printable(f"{self.what}: {self.allowed}; {self.came}")


def _printable(text: str) -> str:
    """Return text in one line, without what a name could tell a terminal to do."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    return "".join(shown)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return the choice that has taken the place of name, else the nearest one, else nothing.

    >>> nearest("lanes", ["planes", "batch_size"])
    'batch_size'
    """
    known = list(choices)
    if RENAMED.get(name) in known:
        return RENAMED[name]
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the choice nearest to name, or nothing.

    >>> did_you_mean("grams", ["gram", "chain"])
    ' (did you mean gram?)'
    """
    near = nearest(name, choices)
    return f" (did you mean {near}?)" if near else ""


def as_flags(message: object) -> str:
    """Return a message with its options as flags, as a program prints it.

    >>> as_flags("`scales`: auto, or sides that end at `size=64`; got 32")
    '--scales: auto, or sides that end at --size=64; got 32'
    """
    return re.sub(r"`([a-z_]+([= ][^`]*)?)`", r"--\1", str(message))


class NotWritten(InputError):
    """A file could not be written although it seemed so before; others may have been. Launchers exit 5."""


class NotEnoughMemory(Exception):
    """The request needs more memory than the device has; launchers exit 4."""
