"""What programs print: results, one-line errors, log lines; their exit codes."""

import os
import sys
from logging import ERROR, INFO, LogRecord, getLogger
from typing import Any

from absl import logging

from nst_jax.errors import InputError, NotEnoughMemory, NotWritten, as_flags

DONE, WRONG_REQUEST, WRONG_NUMBERS, NO_MEMORY, NOT_WRITTEN = 0, 2, 3, 4, 5
# They tell of orbax's tasks, platforms that are not there, fonts, odd tags.
CHATTY = ("asyncio", "jax", "matplotlib", "PIL", "tifffile")


def not_of_orbax(line: LogRecord) -> bool:
    """Tell whether a line of absl's log is not of orbax, which tells there of each of its steps."""
    return "orbax" not in line.pathname


def tell_unraisable(error: Any) -> None:
    """Tell of an error that nobody can catch; not of what orbax leaves undone where a file was wrong."""
    code = getattr(error.object, "cr_code", None)
    if str(error.exc_value) != "Event loop is closed" and "orbax" not in getattr(code, "co_filename", ""):
        sys.__unraisablehook__(error)


def set_verbosity(quiet: bool) -> None:
    """Have the programs, and the library below them, tell errors only, or all."""
    logging.set_verbosity(logging.ERROR if quiet else logging.INFO)
    getLogger("nst_jax").setLevel(ERROR if quiet else INFO)


def explain(error: BaseException) -> int | None:
    """Print the line that a user's error ends a program with; return its exit code, None for others."""
    if isinstance(error, InputError):
        return fail(NOT_WRITTEN if isinstance(error, NotWritten) else WRONG_REQUEST, error)
    if isinstance(error, NotEnoughMemory):
        return fail(NO_MEMORY, error)
    if isinstance(error, MemoryError):
        return fail(
            NO_MEMORY, "memory: a smaller picture needs less; the machine has too little for this one"
        )
    return None


def in_minutes(seconds: float) -> str:
    """Return a time in words."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def fail(code: int, message: object) -> int:
    """Print one line on standard error, with options as flags, and return the exit code."""
    print(f"error: {as_flags(message)}", file=sys.stderr, flush=True)
    return code


def tell(result: object) -> None:
    """Print a result on standard output, such as the path of a file that was written."""
    try:
        print(result, flush=True)
    except (OSError, UnicodeError):  # nobody listens, or cannot read it: no reason to lose what follows
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
