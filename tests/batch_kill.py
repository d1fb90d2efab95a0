"""Kills workers of nst-batch at random moments and starts them again, until all rows are made; looks at all of it.

Example: python tests/batch_kill.py --rows=1000 --kills=10; exit code 1 where a row is missing, broken or twice.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
QUICK = ["--preset=gatys", "--iterations=2", "--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]
BAD = [
    {"content": "no.png"},
    {"content": "text.png"},
    {"content": "half.png"},
    {"size": "big"},
    {"size": 1},
    {"pooling": "most"},
    {"learning_rate": 0.1},
    {"tv_weight": 3e38},
]


def make_rows(folder: Path, count: int) -> list[dict]:
    """Draw pictures of three shapes; return rows, of which one in twenty is bad."""
    for number in range(12):
        height, width = [(48, 64), (64, 48), (64, 64)][number % 3]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "half.png").write_bytes((folder / "0.png").read_bytes()[:300])
    rows = [{"id": f"{n:05d}", "content": f"{n % 12}.png", "seed": n} for n in range(count)]
    for place, row in enumerate(rows[10::19]):
        row |= {"id": f"bad-{row['id']}", **BAD[place % len(BAD)]}
    return rows


def command(size: int, *more: str) -> list[str]:
    """Return the command that makes the rows."""
    fixed = ["--manifest=rows.jsonl", "--output=o/{id}.png", "--style=1.png", "--quiet"]
    return [sys.executable, str(ROOT / "bin/nst-batch"), *fixed, f"--size={size}", *QUICK, *more]


def start(folder: Path, shard: int, workers: int, size: int) -> subprocess.Popen:
    """Start a worker."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command(size, f"--shard={shard}/{workers}"), cwd=folder, **silent)


def run(folder: Path, workers: int, kills: int, size: int, chance: random.Random) -> list[int]:
    """Run the workers to their end, with so many kills on the way; return their exit codes."""
    running = [start(folder, shard, workers, size) for shard in range(workers)]
    for _ in range(kills):
        before = len(list(folder.glob("o/*.png")))
        shard, least = chance.randrange(workers), chance.randrange(3)
        while running[shard].poll() is None and len(list(folder.glob("o/*.png"))) < before + least:
            time.sleep(0.01)
        time.sleep(chance.random())
        running[shard].send_signal(signal.SIGKILL)
        running[shard].wait()
        running[shard] = start(folder, shard, workers, size)
    return [process.wait() for process in running]


def check(folder: Path, rows: list[dict]) -> list[str]:
    """Return what is wrong with the pictures and the results."""
    lines, wrong = collections.defaultdict(list), []
    for part in folder.glob("o/results/*.jsonl"):
        for line in part.read_text().splitlines():
            with contextlib.suppress(ValueError):  # its worker was killed in the middle of it
                lines[json.loads(line)["id"]].append(json.loads(line)["error"])
    good = [row["id"] for row in rows if not row["id"].startswith("bad")]
    for row in rows:
        errors = lines[row["id"]]
        if row["id"] in good and errors != [None]:
            wrong.append(f"{row['id']}: made {errors.count(None)} times, failed {errors}")
        elif row["id"] not in good and (not errors or None in errors):
            wrong.append(f"{row['id']}: not reported")
    for picture in (folder / "o").glob("*.png"):
        with Image.open(picture) as opened:
            opened.load()
    there = {path.name for path in (folder / "o").iterdir()}
    if there != {f"{name}.png" for name in good} | {"results"}:
        wrong.append(f"other files: {there ^ ({f'{name}.png' for name in good} | {'results'})}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run with the command line's arguments; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = make_rows(folder, asked.rows)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        codes = run(folder, asked.workers, asked.kills, asked.size, random.Random(asked.seed))
        for left in folder.glob("o/.nst_jax-*.tmp"):  # as if the kill was long ago
            os.utime(left, (0, 0))
        codes += [start(folder, 0, 1, asked.size).wait()]
        wrong = check(folder, rows)
    bad = sum(row["id"].startswith("bad") for row in rows)
    print(f"{len(rows)} rows, {bad} of them bad, {asked.kills} kills, exit codes {codes}: {len(wrong)} wrong")
    print(f"{time.monotonic() - began:.0f} s", *wrong, sep="\n")
    return int(bool(wrong) or not {0, 3} >= set(codes) or codes[-1] != (3 if bad else 0))


if __name__ == "__main__":
    sys.exit(main())
