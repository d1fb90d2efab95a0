"""How signals end a program: at once, or after what is in hand is written."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from nst_jax.files import abandon
from nst_jax.launchers.console import fail
from nst_programs import ENDINGS, taken

GRACE_SECONDS = 1.0  # that a run has to come to something that can be kept, when a signal asks it to end


def leave(code: int) -> NoReturn:
    """End the process: Python's own end waits for threads, and can crash in an interrupted compilation."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end(number: int, how: str = "") -> NoReturn:
    """End the process, as a signal asks, from whatever thread: no file is half-written, nothing runs on."""
    # Standard error may take nothing any more.
    late = threading.Timer(2 * GRACE_SECONDS, os._exit, [128 + number])
    late.daemon = True
    late.start()
    try:
        for undo in reversed(_at_end):
            with contextlib.suppress(Exception):
                undo()
        abandon()
        fail(128 + number, how or ENDINGS[number])
    finally:
        os._exit(128 + number)


_at_end: list[Callable[[], object]] = []


@contextlib.contextmanager
def surely(undo: Callable[[], object]) -> Iterator[None]:
    """Have something undone at the end of the block, also where a signal ends the process within it."""
    _at_end.append(undo)
    try:
        yield
    finally:
        undo()
        _at_end.remove(undo)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder that is gone at the end of the block, however that comes."""
    folder = tempfile.mkdtemp(prefix="nst_jax-")
    with surely(lambda: shutil.rmtree(folder, ignore_errors=True)):
        yield Path(folder)


@contextlib.contextmanager
def watching(react: Callable[[int], None]) -> Iterator[None]:
    """Have a thread react to the signals that end a program, at once.

    Python's own handlers wait for the main thread, which may be in a compilation or wait for other processes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := int.from_bytes(os.read(reader, 1)):
            if number in ENDINGS:
                react(number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = {number: signal.signal(number, lambda *_: None) for number in taken()}
    outer = signal.set_wakeup_fd(writer)
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writer, b"\0")
        thread.join()
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the exit code that a signal has asked for; 0 if none has come.

    So the chunk in hand is not lost and the picture is written. Before the function is first called there is
    nothing to keep, and a signal ends the process within GRACE_SECONDS. SIGINT as a second one ends it at
    once, even in the middle of a compilation.
    """
    came: list[int] = []
    asked = threading.Event()

    def react(number: int) -> None:
        if came and number == signal.SIGINT:
            end(number, "interrupted twice: nothing more is written")
        came.append(number)
        if not asked.wait(GRACE_SECONDS):
            end(number)

    def interrupted() -> int:
        asked.set()
        return 128 + came[0] if came else 0

    with watching(react):
        yield interrupted
