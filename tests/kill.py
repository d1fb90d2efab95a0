"""Ends runs of nst at random moments, has them go on, and compares the pictures with that of a run left alone.

Example: python tests/kill.py --count=50 --signals=KILL; exit code 1 where a picture differs or a file is broken.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
RUNS = {
    "lbfgs": ["--size=64", "--iterations=40"],
    "adam": ["--size=64", "--iterations=60", "--optimizer=adam", "--ema_decay=0.9"],
    "scales": ["--size=64", "--scales=32,48,64", "--iterations=45"],
    "short": ["--size=32", "--iterations=20", "--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"],
    "adam scales": ["--size=64", "--scales=40,64", "--iterations=60", "--optimizer=adam"],
}
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Ended(NamedTuple):
    """What came of one run that was ended: at which second, with which exit code; what is wrong, if anything."""

    run: str
    seconds: float
    code: int
    wrong: str


def command(options: list[str], folder: Path, *more: str) -> list[str]:
    """Return the command that makes folder/picture.png, with a checkpoint after every chunk."""
    fixed = ["--content=example:cat", "--style=example:waves", f"--output={folder}/picture.png", "--quiet"]
    return [sys.executable, str(ROOT / "bin/nst"), *fixed, *options, *more]


def checksum(folder: Path) -> str:
    """Return the SHA-256 of the picture in a folder."""
    return hashlib.sha256((folder / "picture.png").read_bytes()).hexdigest()


def end(name: str, number: signal.Signals, share: float, takes: float, wanted: str) -> Ended:
    """Run, send the signal at a share of the time that it takes, go on to the end; tell what is wrong.

    SIGKILL may come at any moment, the others once a chunk has run: then they must leave a picture.
    """
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        kept, keep = folder / "kept", [f"--checkpoint={folder}/kept", "--checkpoint_every=0"]
        began = time.monotonic()
        process = subprocess.Popen(command(RUNS[name], folder, *keep), **SILENT)
        while number != signal.SIGKILL and not any(kept.glob("*.json")) and process.poll() is None:
            time.sleep(0.01)
        left = takes if number == signal.SIGKILL else 0.8 * (takes - (time.monotonic() - began))
        seconds = share * max(0, left)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        code, wrong = process.wait(), broken(folder)
        whole = any(kept.glob("*.json"))
        if number != signal.SIGKILL and not (whole and (folder / "picture.png").exists()):
            wrong = wrong or "no picture, or no checkpoint"
        if code not in (0, -number if number == signal.SIGKILL else 128 + number):
            wrong = wrong or f"exit code {code}"
        again = [f"--resume={kept}"] if whole else keep
        resumed = subprocess.run(command(RUNS[name], folder, *again), capture_output=True, text=True)
        if resumed.returncode or resumed.stderr:
            wrong = wrong or f"exit code {resumed.returncode}: {resumed.stderr.strip()}"
        elif checksum(folder) != wanted:
            wrong = wrong or "another picture"
        kinds = {path.name.partition(".")[2] for path in kept.iterdir()} - {"", "json", "lock"}
        if kinds or len(list(kept.iterdir())) != 5:  # two checkpoints, each with a record, and the lock
            wrong = wrong or f"left over: {sorted(path.name for path in kept.iterdir())}"
        return Ended(name, seconds, code, wrong or broken(folder))


def broken(folder: Path) -> str:
    """Return which picture in a folder cannot be read, or nothing."""
    for path in folder.glob("*.png"):
        try:
            with Image.open(path) as picture:
                picture.load()
        except OSError as error:
            return f"{path.name}: {error}"
    return ""


def main(arguments: list[str]) -> int:
    """End and resume runs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--signals", default="KILL", help="of KILL, TERM and INT, in turn, with commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--runs", default="lbfgs,adam,scales,adam scales", help="of these, in turn, with commas"
    )
    asked = parser.parse_args(arguments)
    numbers = [signal.Signals[f"SIG{name}"] for name in asked.signals.split(",")]
    rng = np.random.default_rng(asked.seed)
    wanted, takes = {}, {}
    for name in asked.runs.split(","):
        with tempfile.TemporaryDirectory() as where:
            for _ in range(2):  # the second with the programs that the first has compiled
                began = time.monotonic()
                subprocess.run(command(RUNS[name], Path(where)), check=True, **SILENT)
                takes[name] = time.monotonic() - began
            wanted[name] = checksum(Path(where))
    ended = []
    for k in range(asked.count):
        name = list(wanted)[k % len(wanted)]
        ended.append(end(name, numbers[k % len(numbers)], rng.random(), takes[name], wanted[name]))
        run, seconds, code, wrong = ended[-1]
        print(f"{run}: after {seconds:.2f} s, exit code {code}: {wrong or 'equal'}", flush=True)
    faults = sum(bool(one.wrong) for one in ended)
    codes = sorted({one.code for one in ended})
    print(
        f"{asked.signals}: {len(ended)} runs, {len(ended) - faults} equal, {faults} wrong; exit codes {codes}"
    )
    return int(faults > 0)


if __name__ == "__main__":
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
    sys.exit(main(sys.argv[1:]))
