"""Run every preset twice, in processes of their own, and print the SHA-256 of both pictures.

Example: python tests/golden/twice.py --size=128 --iterations=10
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from nst_jax.config import PRESETS

START = "from nst_jax.launchers.nst import console; console()"
PAIR = ["--content=example:coffee", "--style=example:night"]


def sha256(preset: str, arguments: list[str]) -> str:
    """Return the checksum of the picture that a run of nst writes."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", *PAIR, f"--preset={preset}", *arguments, f"--output={folder}/a.png"]
        subprocess.run([sys.executable, "-c", START, *options], check=True, stdout=subprocess.DEVNULL)
        return hashlib.sha256(Path(folder, "a.png").read_bytes()).hexdigest()


if __name__ == "__main__":
    for preset in PRESETS:
        first, second = (sha256(preset, sys.argv[1:]) for _ in range(2))
        print(f"{preset:9} {first} {'equal' if first == second else second}", flush=True)
