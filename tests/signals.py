"""Sends a signal to nst at every statement of its launcher after the first chunk, and looks whether the picture is there.

Example: python tests/signals.py --signals=HUP,TERM,INT; exit code 1 where a picture is lost, or an end is untidy.
Every statement counts the first and the second time that it is come to; those of other chunks are the same again.
With SIGHUP goes the terminal: from then on nothing can be written to standard output and standard error.
"""

import argparse
import os
import pty
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import orbax.checkpoint  # noqa: F401  (so that no fork has to)
from PIL import Image

import nst_programs
from nst_jax import files
from nst_jax.launchers import nst
from nst_jax.launchers.common import launch

RUN = ["--content=example:cat", "--style=example:waves", "--size=32", "--scales=24,32", "--iterations=2,2"]
RUN += ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1", "--devices=1"]
RUN += ["--report=r.json", "--save_every=2", "--checkpoint=k", "--checkpoint_every=0", "--output=a.png"]
STATEMENTS = {str(Path(nst.__file__).parent), files.__file__}  # whose lines count: a folder, a module
LIMIT = 60  # seconds
TIMES = 2
SEEN = 0.05  # seconds after which the thread that waits for signals has seen one


class Ended(NamedTuple):
    """How a run ended: its exit code, what it said, at which statements it was."""

    code: int
    said: str
    statements: int


def end(folder: Path, number: int = 0, at: int = 0) -> Ended:
    """Run nst in a process of its own, in a folder; send it the signal at a statement, counted from 1.

    The process is a fork: what it would import is there, and no backend of JAX has begun.
    """
    counted, said = folder / "counted", folder / "said"
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            _run(number, at, counted, said)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    deadline = time.monotonic() + LIMIT
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    statements = int(counted.read_text()) if counted.exists() else 0
    text = said.read_text() if said.exists() else ""
    return Ended(os.waitstatus_to_exitcode(ended[1]), text, statements)


def _run(number: int, at: int, counted: Path, said: Path) -> None:
    """Run nst in this process, which ends."""
    master, terminal = (
        pty.openpty() if number == signal.SIGHUP else (-1, os.open(said, os.O_CREAT | os.O_RDWR))
    )
    for stream in (1, 2):
        os.dup2(terminal, stream)
    os.close(terminal)
    nst_programs._open_streams()
    original, count, seen = nst.run, 0, {}
    leave = os._exit

    def exit(code: int) -> None:
        counted.write_text(str(count))
        leave(code)

    def here(frame: object, event: str, _: object) -> object:
        nonlocal count
        place = frame.f_code.co_filename, frame.f_lineno
        seen[place] = seen.get(place, 0) + (event == "line")
        if event == "line" and seen[place] <= TIMES:
            count += 1
            if count == at:
                if number == signal.SIGHUP:
                    os.close(master)
                signal.raise_signal(number)
                time.sleep(SEEN)
        return here

    def trace(frame: object, event: str, _: object) -> object:
        file = frame.f_code.co_filename
        return here if file in STATEMENTS or os.path.dirname(file) in STATEMENTS else None

    def run(*arguments: object) -> object:
        for first, now in enumerate(original(*arguments)):
            if first == 0:  # the first chunk has run: from here on it counts
                frame = sys._getframe()
                while frame := frame.f_back:
                    frame.f_trace = trace(frame, "", None)
                sys.settrace(trace)
            yield now

    nst.run, os._exit = run, exit
    sys.argv = ["nst", *RUN]
    launch(nst.PROGRAM)


def wrong(ended: Ended, number: int, folder: Path) -> str:
    """Return what is wrong with how a run ended, or nothing."""
    try:
        with Image.open(folder / "a.png") as picture:
            picture.load()
    except OSError as error:
        return f"no picture: {error}; exit code {ended.code}, {ended.said}"
    if ended.code not in (0, 128 + number):
        return f"exit code {ended.code}"
    if "Traceback" in ended.said or ended.said.count("error: ") > 1:
        return f"said: {ended.said}"
    left = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    return f"left over: {left}" if left else ""


def main(arguments: list[str]) -> int:
    """Send signals; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", default="HUP,TERM,INT", help="of these, with commas")
    parser.add_argument("--stride", type=int, default=1, help="one of so many statements, from --first")
    parser.add_argument("--first", type=int, default=1)
    asked = parser.parse_args(arguments)
    points = faults = 0
    with tempfile.TemporaryDirectory() as where:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{where}/xla"
        for name in ("compiled", "counted"):
            (Path(where) / name).mkdir()
            statements = end(Path(where) / name).statements
        print(f"{statements} statements after the first chunk", flush=True)
        for name in asked.signals.split(","):
            number = signal.Signals[f"SIG{name}"]
            for at in range(asked.first, statements + 1, asked.stride):
                with tempfile.TemporaryDirectory(dir=where) as folder:
                    what = wrong(end(Path(folder), number, at), number, Path(folder))
                points, faults = points + 1, faults + bool(what)
                if what:
                    print(f"{name} at statement {at}: {what}", flush=True)
    print(f"{asked.signals}: {points} points, {faults} wrong", flush=True)
    return int(faults > 0 or points == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
