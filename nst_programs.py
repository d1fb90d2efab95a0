"""The programs by name, and what comes before their imports: standard streams, and ends in one line."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module

TYPE_CHECKING = False  # few imports: until the signals are taken, Ctrl-C is a traceback
if TYPE_CHECKING:
    from typing import Any, NoReturn

# What may end a program, and how the line that tells of it says so; the exit code is 128 and the number.
ENDINGS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}
WRONG_REQUEST = 2


class Unfailing(io.FileIO):
    """A file that drops what it cannot write: a terminal that is gone is no reason to lose a picture."""

    def write(self, data: Any) -> int:
        """Write, or not: all counts as written where nothing can be, now or ever."""
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def taken() -> list[int]:
    """Return the signals that end a program: not those that are ignored, as SIGHUP is under nohup."""
    return [one for one in ENDINGS if signal.getsignal(one) != signal.SIG_IGN]


def nst() -> None:
    """Run nst."""
    _run("nst_jax.launchers.nst")


def nst_sweep() -> None:
    """Run nst-sweep."""
    _run("nst_jax.launchers.sweep")


def nst_batch() -> None:
    """Run nst-batch."""
    _run("nst_jax.launchers.batch")


def nst_studio() -> None:
    """Run nst-studio."""
    _run("nst_jax.launchers.studio")


def nst_video() -> None:
    """Run nst-video."""
    _run("nst_jax.launchers.video")


def nst_bench() -> None:
    """Run nst-bench."""
    _run("nst_jax.launchers.bench")


def nst_judge() -> None:
    """Run nst-judge."""
    _run("nst_jax.launchers.judge")


def nst_weights() -> None:
    """Run nst-weights."""
    _run("nst_jax.launchers.weights")


def _run(module: str) -> None:
    for number in taken():
        signal.signal(number, lambda number, _: _end(128 + number, ENDINGS[number]))
    open_streams()
    try:
        program = import_module(module)
    except ValueError as error:  # JAX reads its variables as it is imported
        said = str(error)
        wrong = [name for name in os.environ if name.startswith("JAX_") and name.lower() in said.lower()]
        if not wrong:
            raise
        name = max(wrong, key=len)  # one may begin like another
        _end(WRONG_REQUEST, f"{name}={os.environ[name]}: a value that JAX knows; {said}")
    program.console()


def open_streams() -> None:
    """Open what is closed of the standard streams: else the next file takes the place of one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    raw: Any = Unfailing(2, "w", closefd=False)
    encoding = sys.stderr.encoding if sys.stderr else None
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)


def _end(code: int, message: str) -> NoReturn:
    try:
        os.write(2, f"error: {message}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(code)
