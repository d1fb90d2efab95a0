"""Sends a signal to nst at every statement of its launcher and job after the first chunk, and looks for the picture.

Example: python tests/signals.py --signals=HUP,TERM,INT; exit code 1 where a picture is lost, or an end is untidy.
Every statement counts the first and the second time that it is come to; those of other chunks are the same again.
With SIGHUP goes the terminal: from then on nothing can be written to standard output and standard error.
"""

import argparse
import os
import pickle
import pty
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint  # noqa: F401  (so that no fork has to)
from PIL import Image

import nst_programs
from nst_jax import files
from nst_jax.launchers import nst
from nst_jax.launchers.flags import launch
from nst_jax.runs import job

RUN = ["--content=example:cat", "--style=example:waves", "--size=32", "--scales=24,32", "--iterations=2,2"]
RUN += ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1", "--loss_balancing=none", "--devices=1"]
RUN += ["--report=r.json", "--save_every=2", "--checkpoint=k", "--checkpoint_every=0", "--output=a.png"]
# Whose lines count: folders, and a module.
STATEMENTS = {str(Path(nst.__file__).parent), str(Path(job.__file__).parent), files.__file__}
TIMES = 2  # that a statement counts
LIMIT = 60  # seconds
SEEN = 0.05  # seconds after which the thread that waits for signals has seen one


class Ended(NamedTuple):
    """How a process ended: its exit code, and what it said where it had no terminal."""

    code: int
    said: str


def apart(folder: Path, work: Callable[[], object]) -> Ended:
    """Do work in a process of its own, which leaves by itself, in a folder.

    It is a fork: what it would import is there, and no backend of JAX has begun.
    """
    said = folder / "said"
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started us may ignore it
            speak(os.open(said, os.O_CREAT | os.O_RDWR))
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    deadline = time.monotonic() + LIMIT
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        time.sleep(0.005)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
    return Ended(os.waitstatus_to_exitcode(ended[1]), said.read_text() if said.exists() else "")


def speak(to: int) -> None:
    """Have standard output and standard error be an open file."""
    for number in (1, 2):
        os.dup2(to, number)
    os.close(to)
    nst_programs.open_streams()


class Terminal:
    """A terminal on which this process speaks, and which may go away."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.there = True
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        speak(slave)

    def _read(self) -> None:
        while self.there:
            if select.select([self.master], [], [], 0.01)[0]:
                os.read(self.master, 2**16)

    def go(self) -> None:
        """Go away: nothing can be written any more."""
        self.there = False
        self.reader.join()
        os.close(self.master)


def record(to: Path) -> None:
    """Run nst, and keep what its chunks come to: a compilation at every statement would take days."""
    original, chunks = job.run, []

    def run(*arguments: Any) -> Any:
        for now in original(*arguments):
            chunks.append(now._replace(resume_state=jax.device_get(now.resume_state)))
            yield now
        to.write_bytes(pickle.dumps(chunks))

    job.run = run
    sys.argv = ["nst", *RUN]
    launch(nst.PROGRAM)


def replay(chunks: list[Any], reached: Callable[[int], object]) -> None:
    """Run nst, with chunks that are known; tell of every statement after the first one, counted from 1."""
    count, seen = 0, {}

    def here(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        place = frame.f_code.co_filename, frame.f_lineno
        seen[place] = seen.get(place, 0) + (event == "line")
        if event == "line" and seen[place] <= TIMES:
            count += 1
            reached(count)
        return here

    def trace(frame: Any, *_: object) -> Any:
        file = frame.f_code.co_filename
        return here if file in STATEMENTS or os.path.dirname(file) in STATEMENTS else None

    def run(*_: Any) -> Any:
        for number, now in enumerate(chunks):
            if number == 0:
                frame = sys._getframe()
                while frame := frame.f_back:
                    frame.f_trace = trace(frame)
                sys.settrace(trace)
            yield now

    job.run = run
    job.make_plans = lambda problems, *_: [types.SimpleNamespace(problem=problem) for problem in problems]
    sys.argv = ["nst", *RUN]
    launch(nst.PROGRAM)


def send(number: int, at: int, chunks: list[Any], folder: Path) -> str:
    """Send a signal at a statement; return what is wrong with how the run ended, or nothing."""

    def work() -> None:
        terminal = Terminal() if number == signal.SIGHUP else None

        def reached(count: int) -> None:
            if count == at:
                if terminal:
                    terminal.go()
                signal.raise_signal(number)
                time.sleep(SEEN)

        replay(chunks, reached)

    code, said = apart(folder, work)
    try:
        with Image.open(folder / "a.png") as picture:
            picture.load()
    except OSError as error:
        return f"no picture: {error}; exit code {code}: {said}"
    if code not in (0, 128 + number):
        return f"exit code {code}: {said}"
    if "Traceback" in said or said.count("error: ") > 1:
        return f"said: {said}"
    left = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    return f"left over: {left}" if left else ""


def statements(chunks: list[Any], folder: Path) -> int:
    """Return how many statements there are to send a signal at."""
    counted = folder / "counted"
    apart(folder, lambda: replay(chunks, lambda count: counted.write_text(str(count))))
    return int(counted.read_text())


def main(arguments: list[str]) -> int:
    """Send signals; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", default="HUP,TERM,INT", help="of these, with commas")
    parser.add_argument("--stride", type=int, default=1, help="take one of so many statements")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    asked = parser.parse_args(arguments)
    points = faults = 0
    with tempfile.TemporaryDirectory() as where:
        folders = [Path(where) / name for name in ("recorded", "counted")]
        for folder in folders:
            folder.mkdir()
        print(apart(folders[0], lambda: record(folders[0] / "chunks")).said, flush=True)
        chunks = pickle.loads((folders[0] / "chunks").read_bytes())
        there = statements(chunks, folders[1])
        print(f"{there} statements after the first of {len(chunks)} chunks", flush=True)
        for name in asked.signals.split(","):
            for at in range(asked.first, there + 1, asked.stride):
                with tempfile.TemporaryDirectory(dir=where) as folder:
                    what = send(signal.Signals[f"SIG{name}"], at, chunks, Path(folder))
                points, faults = points + 1, faults + bool(what)
                if what:
                    print(f"SIG{name} at statement {at}: {what}", flush=True)
    print(f"{asked.signals}: {points} signals, {faults} ends wrong", flush=True)
    return int(faults > 0 or points == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
