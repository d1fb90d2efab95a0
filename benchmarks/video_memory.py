"""Memory of nst-video over many frames: it must not grow.

python benchmarks/video_memory.py --frames=2000
makes a clip of noise that moves, in a temporary folder, runs it and prints the resident memory now and then.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from nst_jax.config import Config
from nst_jax.runs import InputOptions
from nst_jax.system import device
from nst_jax.video import clips
from nst_jax.video.clips import Clip, Frame, Output
from nst_jax.video.job import FrameMade, prepare_video
from nst_jax.video.request import VideoOptions, VideoRequest

SIZE = 24, 32  # rows, columns
SHALLOW = Config.from_preset(
    size=SIZE[1], iterations=(4,), scales="", content_layers=("conv1_2",), style_layers=("conv1_1",)
)


def frames(count: int) -> Iterator[Frame]:
    """Yield frames of a picture that moves by a pixel each."""
    picture = np.random.default_rng(0).random((*SIZE, 3), np.float32)
    for number in range(count):
        yield Frame(np.roll(picture, number, 1), 40 * number, 40)


def resident() -> float:
    """Return the memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Make the clip and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    given = parser.parse_args()
    device.set_up()
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/in.mkv"
        clip = Clip("", SIZE, Fraction(1, 1000), Fraction(25), given.frames, "", 0)
        clips.write(Output(source, "ffv1", 0), clip, frames(given.frames))
        request = VideoRequest(
            inputs=InputOptions(content=source, style=("example:night",)),
            options=VideoOptions(output=f"{folder}/out.mkv", codec="ffv1", frame_steps=1, flow="fast"),
            config=SHALLOW,
        )
        began = time.monotonic()
        for event in prepare_video(request).run():
            if isinstance(event, FrameMade) and event.number in (10, 100, *range(500, given.frames + 1, 500)):
                seconds = time.monotonic() - began
                print(f"frame {event.number}: {resident():.0f} MiB after {seconds:.0f} s", flush=True)
        print(f"written: {resident():.0f} MiB")


if __name__ == "__main__":
    main()
