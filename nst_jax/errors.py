"""The one exception for requests that cannot be met as asked."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A flag, file, image or weights set is wrong: what it is, what is allowed, what came.

    Launchers print it as one line, `error: WHAT: ALLOWED; CAME`, and exit 2.
    """

    def __init__(self, what: str, allowed: str, came: str):
        super().__init__(_printable(f"{what}: {allowed}; {came}"))
        self.what, self.allowed, self.came = what, allowed, came


def _printable(text: str) -> str:
    """Return text in one line, without what a name could tell a terminal to do."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    return "".join(shown)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the choice nearest to name, or nothing.

    >>> did_you_mean("vgg61", ["vgg16", "vgg19"])
    ' (did you mean vgg16?)'
    """
    near = difflib.get_close_matches(name, list(choices), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class NotWritten(InputError):
    """A file could not be written although it seemed so before; others may have been. Launchers exit 5."""


class NotEnoughMemory(Exception):
    """The request needs more memory than the device has; launchers exit 4."""
