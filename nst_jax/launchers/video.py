"""Make a clip in the style of one or more paintings, without flicker.

Each frame begins with the one before, moved along the flow, and is held to it where the scene was in sight.
What is made is kept frame by frame: after a kill or Ctrl-C the same command goes on, to the same file.

Example: nst-video --content=clip.mp4 --style=example:night --output=night.mp4
"""

import math
import time

from absl import logging

from nst_jax.config import Config
from nst_jax.launchers.console import DONE, fail, in_minutes, tell
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.launchers.progress_bar import Seldom
from nst_jax.launchers.signals import interrupts
from nst_jax.runs.input_files import InputOptions
from nst_jax.system import device
from nst_jax.video.job import Encoded, Finished, FrameMade, Resumed, VideoJob, prepare_video
from nst_jax.video.preview import prepare_preview
from nst_jax.video.request import VideoOptions, VideoRequest
from nst_programs import ENDINGS


def main(inputs: ParsedFlags, options: ParsedFlags, config: ParsedFlags) -> int:
    """Run `nst-video` with the options given. Raises InputError before anything is written."""
    request = VideoRequest(
        inputs=InputOptions(**inputs), options=VideoOptions(**options), config=Config.from_preset(**config)
    )
    device.set_up()
    job = (prepare_preview if request.options.preview else prepare_video)(request)
    return _forecast(job) if request.options.dry_run else _run(job)


def _run(job: VideoJob) -> int:
    """Make the clip, tell now and then where it stands, and return the exit code."""
    due, began, made, there = Seldom(), time.monotonic(), 0, 0
    with interrupts() as interrupted:
        interrupted()  # from now on what is made is kept
        for event in job.run(stop=interrupted):
            match event:
                case Resumed(frames):
                    there += frames
                    logging.info("goes on after %d frames, from %s", there, job.request.options.folder)
                case FrameMade(number, total, begins, _, error, _):
                    made, there = made + 1, number
                    if due(last=number == total):
                        left = (time.monotonic() - began) / made * (total - number)
                        moved = f"warping error {error:.1f} of 255"
                        if begins or math.isnan(error):
                            moved = "a new shot" if begins else "nothing of it was made before"
                        if begins and number > job.total:
                            moved = "the last of its shot stays as it is"
                        logging.info("frame %d of %d: %s; %s left", number, total, moved, in_minutes(left))
                case Encoded(path):
                    tell(path)
                    began, made = time.monotonic(), 0
                case Finished(frames, stopped):
                    if stopped:
                        further = (
                            f"{frames} of {job.total * job.passes} frames are made; the same command goes on"
                        )
                        return fail(stopped, f"{ENDINGS[stopped - 128]}: {further}")
    return DONE


def _forecast(job: VideoJob) -> int:
    """Print what the run will take."""
    frames, (height, width), seconds, disk = job.forecast()
    seconds_long = float(frames * job.request.options.every / job.clip.rate)
    tell(f"{frames} frames of {width}x{height} pixels, {seconds_long:.3g} s, as {job.codec}")
    tell(f"about {in_minutes(seconds)}, some seconds to compile, and more for each further shot")
    tell(f"{disk / 2**20:.0f} MiB in {job.request.options.folder} until the clip is written")
    return DONE


FIRST = (
    "content",
    "style",
    "output",
    "strength",
    "effort",
    "size",
    "frame_steps",
    "temporal_weight",
    "preset",
)
PROGRAM = Program("nst-video", __doc__, (InputOptions, VideoOptions, Config), main, FIRST)


def console() -> None:
    """Run the program `nst-video` on the command line."""
    launch(PROGRAM)
