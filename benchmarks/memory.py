"""Memory of an evaluation against the picture's pixels: forecast by memory_plan.py, and measured.

    python benchmarks/memory.py                # at once, five sizes
    python benchmarks/memory.py --tile=256     # in windows
    python benchmarks/memory.py --tile=1024 --sizes=4096 --reference=512    # its time against 512 at once

Each size runs in a process of its own, on Linux: two steps of Adam on noise, the memory in use (of an
accelerator, or the resident memory of the process) read every 10 ms and compared with what it was before the
first program ran.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

PAGE = 4096


def resident() -> int:
    """Return the bytes in use on an accelerator, or those of this process that are in memory."""
    import jax

    if stats := jax.local_devices()[0].memory_stats():
        return int(stats["bytes_in_use"])
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def measure(size: int, tile: str) -> dict[str, float]:
    """Return forecast and measured bytes beyond those before, and the seconds of the fastest evaluation."""
    from nst_jax.config import Config
    from nst_jax.runs.memory_plan import make_plan
    from nst_jax.runs.problem import make_problem
    from nst_jax.runs.transfer import run
    from nst_jax.weights import load_vgg

    rng = np.random.default_rng(0)
    picture, style = rng.random((size, size, 3), np.float32), rng.random((256, 256, 3), np.float32)
    params = load_vgg("vgg16")
    config = Config(size=size, tile=tile, optimizer="adam", iterations=2)
    network = resident()
    plan = make_plan(make_problem(params, picture, [style], config), 2**50)
    before, highest, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    times = []
    for _ in run([plan.problem], report_every=1):
        times.append(time.monotonic())
    done.set()
    watcher.join()
    seconds = min(later - earlier for earlier, later in zip(times, times[1:], strict=False))
    held = sum(leaf.nbytes for leaf in params.convolutions.values() for leaf in leaf)
    return {
        "forecast": plan.needed - held,  # the network is there already
        "measured": highest - before,
        "seconds": seconds,
        "process": network,
        "peak": highest,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="384,512,640,768,1024", help="sides of square pictures")
    parser.add_argument("--tile", default="off", help="off, or the side of the windows")
    parser.add_argument("--reference", type=int, default=0, help="a size at once whose seconds a pixel are 1")
    parser.add_argument("--one", action="store_true", help="measure here and print JSON")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.one:
        print(json.dumps(measure(sizes[0], options.tile)))
        return

    def apart(size: int, tile: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--one", f"--sizes={size}", f"--tile={tile}"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    pace = 0.0
    if options.reference:
        pace = apart(options.reference, "off")["seconds"] / options.reference**2
        print(f"{options.reference} at once: {pace * 1e6:.2f} us a pixel")
    print(" side   forecast   measured  ratio   peak of the process   s/evaluation   us/pixel")
    found = []
    for size in sizes:
        row = apart(size, options.tile)
        found.append(row["measured"])
        relative = f"  {row['seconds'] / size**2 / pace:.2f} x" if pace else ""
        print(
            f"{size:5d} {row['forecast'] / 2**20:7.0f} MiB {row['measured'] / 2**20:6.0f} MiB "
            f"{row['forecast'] / row['measured']:6.2f} {row['peak'] / 2**20:17.0f} MiB "
            f"{row['seconds']:14.2f} "
            f"{row['seconds'] / size**2 * 1e6:10.2f}{relative}",
            flush=True,
        )
    if len(sizes) > 1:
        slope, constant = np.polyfit([size**2 for size in sizes], found, 1)
        print(f"measured: {slope:.0f} bytes a pixel and {constant / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
