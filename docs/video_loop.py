"""A loop for howto/video.md: a slow pan over an example, made by nst-video, played forth and back.

python docs/video_loop.py --out=FOLDER
keeps the clips and a sheet of all frames in FOLDER, and writes video-loop.webp beside this script.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from nst_jax import images
from nst_jax.config import Config
from nst_jax.runs import InputOptions
from nst_jax.system import device
from nst_jax.video import clips
from nst_jax.video.clips import Clip, Frame, Output
from nst_jax.video.job import FrameMade, prepare_video
from nst_jax.video.request import VideoOptions, VideoRequest

CONTENT, STYLE = "example:coffee", "example:night"
FRAMES, STEP = 16, 4  # columns from one frame to the next
WIDTH, HEIGHT = 192, 128
MILLISECONDS = 90  # of each frame
MAX_BYTES = 400_000


def pan() -> list[np.ndarray]:
    """Return the frames of the pan."""
    whole = images.load(CONTENT).rgb
    wide = WIDTH + (FRAMES - 1) * STEP
    picture = images.resize(whole, round(wide * whole.shape[0] / whole.shape[1]), wide)
    top = (len(picture) - HEIGHT) // 2
    return [picture[top : top + HEIGHT, STEP * n : STEP * n + WIDTH] for n in range(FRAMES)]


def pictures_of(path: str) -> list[np.ndarray]:
    """Return the frames of a clip."""
    return [frame.image for frame in clips.read(clips.probe(path), clips.ALL)]


def make(folder: Path) -> list[np.ndarray]:
    """Run nst-video over the pan; return its frames. What FOLDER has already is not made again."""
    source, output = str(folder / "pan.mkv"), str(folder / "styled.mkv")
    if not Path(source).exists():
        clip = Clip("", (HEIGHT, WIDTH), Fraction(1, 1000), Fraction(1000, MILLISECONDS), FRAMES, "", 0)
        frames = (Frame(image, MILLISECONDS * n, MILLISECONDS) for n, image in enumerate(pan()))
        clips.write(Output(source, "ffv1", 0), clip, frames)
    if not Path(output).exists():
        request = VideoRequest(
            inputs=InputOptions(content=source, style=(STYLE,)),
            options=VideoOptions(output=output, codec="ffv1"),
            config=Config.from_preset(size=WIDTH),
        )
        for event in prepare_video(request).run():
            if isinstance(event, FrameMade):
                print(f"frame {event.number}: warping error {event.warping_error:.1f}", flush=True)
    return pictures_of(output)


def main() -> None:
    """Make the clip, its sheet and the loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    device.set_up()
    made = make(given.out)
    rows = [np.concatenate(made[n : n + 4], 1) for n in range(0, FRAMES, 4)]
    images.save(given.out / "sheet.png", np.concatenate(rows))
    loop = [Image.fromarray(images.to_uint8(image)) for image in (*made, *made[-2:0:-1])]
    path = Path(__file__).with_name("video-loop.webp")
    loop[0].save(
        path, save_all=True, append_images=loop[1:], duration=MILLISECONDS, loop=0, quality=75, method=6
    )
    assert path.stat().st_size <= MAX_BYTES, path.stat().st_size


if __name__ == "__main__":
    main()
