"""Run every preset and every way of making a picture twice, in processes of their own; print the checksums.

A checksum is that of all pictures that a run writes. Options that are not this program's go to every run.

Example: python tests/golden/twice.py --size=128 --iterations=10
Another version, once: PYTHONPATH=../other python tests/golden/twice.py --times=1 --runs=masked,swept
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from nst_jax.config import PRESETS

START = "from nst_jax.launchers.{} import console; console()"
PAIR = ["--content=example:coffee", "--style=example:night"]
FLAT = ["--scales=", "--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]  # windows of 64 pixels do
ROCKET = "--content=example:rocket", "--content_labels=example:rocket-labels"
RUNS = {name: [*PAIR, f"--preset={name}"] for name in PRESETS} | {
    "masked": ["--content=example:rocket", "--content_mask=example:rocket-sky", PAIR[1]],
    "two styles": [*PAIR, "--style=example:waves", "--style_mix=0.3,0.7"],
    "labelled": [*ROCKET, "--style=example:waves", "--style_labels=example:waves-labels"],
    "weights": [*PAIR, "--preset=improved", "--scales=auto", "--loss_balancing=none"],
    "strength": [*PAIR, "--strength=0.4"],
    "tiled": [*PAIR, *FLAT, "--tile=64"],
    "average": [*PAIR, "--optimizer=adam", "--ema_decay=0.9"],
    "two devices": [*PAIR, "--devices=2"],
    "resumed": PAIR,
    "swept": [*PAIR, "--scales=", "--sweep=style_weight=0.3,1,3"],
    "swept strength": [*PAIR, "--scales=", "--sweep=strength=0.2,0.6"],
}


def sha256(name: str, arguments: list[str]) -> str:
    """Return the checksum of the pictures that a run writes."""
    options = ["--quiet", *RUNS[name], *arguments]
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("swept"):
            run("sweep", *options, f"--output_dir={folder}/sweep")
        elif name == "resumed":
            kept = [*options, f"--output={folder}/a.png", f"--checkpoint={folder}/kept"]
            run("nst", *kept, "--iterations=3")
            run("nst", *kept, "--allow_change=iterations")
        else:
            run("nst", *options, f"--output={folder}/a.png")
        checksum = hashlib.sha256()
        for path in sorted(Path(folder).rglob("*.png")):
            checksum.update(path.read_bytes())
        return checksum.hexdigest()


def run(program: str, *options: str) -> None:
    """Run a program to its end."""
    command = [sys.executable, "-c", START.format(program), *options]
    devices = "2" if "--devices=2" in options else "1"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": devices}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--runs", default=",".join(RUNS))
    asked, others = parser.parse_known_args()
    for name in asked.runs.split(","):
        found = [sha256(name, others) for _ in range(asked.times)]
        equal = ["equal"] if found[1:] else []
        print(f"{name:14}", *(found if len(set(found)) > 1 else [found[0], *equal]), flush=True)
