"""Kills nst-video by SIGKILL at random moments, resumes it each time, and compares the clip with an undisturbed one.

Example: python tests/video_kill.py --kills=10; exit code 1 where the clip has other bytes or something else is left.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clip_files import encode, rgb_frame

from nst_jax import images

ROOT = Path(__file__).parents[1]
FLAGS = ("--style=example:night", "--size=48", "--preset=gatys", "--iterations=10", "--frame_steps=6")


def command(clip: Path, output: Path) -> list[str]:
    """Return what makes a clip."""
    flags = [f"--content={clip}", f"--output={output}", "--codec=h264", *FLAGS]
    return [sys.executable, str(ROOT / "bin/nst-video"), *flags]


def moving(path: Path, frames: int) -> Path:
    """Write a clip that goes over an example, two pixels a frame."""
    whole = images.resize(images.load("example:cat").rgb, 60, 48 + 2 * frames)
    parts = [rgb_frame(whole[10:46, 2 * n : 2 * n + 48]).reformat(format="bgr0") for n in range(frames)]
    return Path(encode(path, parts, "ffv1", times=[40 * n for n in range(frames)]))


def main() -> int:
    """Kill and resume; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = folder / "o.mp4.frames"
        clip = moving(folder / "in.mkv", 3 * options.kills)
        subprocess.run(command(clip, folder / "whole.mp4"), check=True, capture_output=True)
        for kill in range(options.kills):
            wanted = len(list(kept.glob("*.npz"))) + chance.choice([1, 2, 3])
            running = subprocess.Popen(command(clip, folder / "o.mp4"), stderr=subprocess.DEVNULL)
            while running.poll() is None and len(list(kept.glob("*.npz"))) < wanted:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.1))
            running.kill()
            running.wait()
            print(f"kill {kill + 1}: {len(list(kept.glob('*.npz')))} frames are kept", flush=True)
        ended = (folder / "o.mp4").exists()  # before the last kill: these were no kills then
        subprocess.run(command(clip, folder / "o.mp4"), check=True, capture_output=True)
        same = (folder / "o.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()
        left = {path.name for path in folder.iterdir()} - {"in.mkv", "whole.mp4", "o.mp4"}
    print(f"the same bytes: {same}; left behind: {sorted(left)}")
    return int(not same or bool(left) or ended)


if __name__ == "__main__":
    sys.exit(main())
