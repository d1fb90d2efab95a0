"""A preview of a clip: small stills from all of it beside their frames, then its first seconds.

for event in prepare_preview(request).run(stop=lambda: False): ...
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nst_jax import images
from nst_jax.config import Config
from nst_jax.system import device
from nst_jax.video import clips
from nst_jax.video import masks as mask_clips
from nst_jax.video.clips import Clip, Selection
from nst_jax.video.job import Encoded, Event, Finished, FrameMade, VideoJob, prepare_video, shown
from nst_jax.video.masks import FrameMasks
from nst_jax.video.request import VideoOptions, VideoRequest, check

SIZE = 256  # longest side, in pixels, at most
SECONDS = 2
STILLS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Preview(VideoJob):
    """The job of a sample, which makes a sheet of stills before it."""

    stills: Selection
    still_masks: Iterator[FrameMasks]
    sheet: str  # PNG file: frames above, what is made of them below

    def run(self, stop: Callable[[], Any] = lambda: False) -> Iterator[Event]:
        """Make the sheet, then the sample; yield what happens. Each still is made as a shot's first frame.

        Raises as VideoJob.run does.
        """
        columns: list[np.ndarray] = []
        number = min(STILLS, self.stills.count(self.clip.frames))
        stills = zip(clips.read(self.clip, self.stills), self.still_masks, strict=False)
        for frame, masks in itertools.islice(stills, number):
            began, frame = time.monotonic(), frame._replace(image=images.resize(frame.image, *self.size))
            with device.running_out(*self.size):
                made = self.opened(frame, masks.masks).begin(stop)
            if made is None:
                yield Finished(0, stop())
                return
            columns.append(np.concatenate([frame.image, shown(made)]))
            yield FrameMade(len(columns), number, True, time.monotonic() - began, math.nan, made)
        images.save(self.sheet, np.concatenate(columns, 1))
        yield Encoded(self.sheet)
        yield from super().run(stop)


def prepare_preview(request: VideoRequest) -> Preview:
    """Check a request and read what its preview needs; write nothing. Raises InputError."""
    check(request)
    options, clip = request.options, clips.probe(request.inputs.content)
    total = options.selection.count(clip.frames)
    stills = options.selection._replace(every=options.every * max(1, total // STILLS))
    small = _sample_of(options, clip)
    request = dataclasses.replace(request, options=small, config=_smaller(request.config))
    job = prepare_video(request, options.selection)
    moving = mask_clips.find(request.inputs, clip, options.selection, stills)
    masks = moving.frames(job.pictures.masks, job.size)
    return Preview(
        **vars(job), stills=stills, still_masks=masks, sheet=str(Path(small.output).with_suffix(".png"))
    )


def _sample_of(options: VideoOptions, clip: Clip) -> VideoOptions:
    """Return the options of a sample: OUTPUT.preview.mp4 beside OUTPUT.mp4, and beside PNG files."""
    end = options.first + max(1, round(SECONDS * clip.rate)) - 1
    path, numbered = Path(options.output.replace("%", "")), options.output.lower().endswith(".png")
    return dataclasses.replace(
        options,
        output=str(path.with_suffix(f".preview{'.mp4' if numbered else path.suffix}")),
        audio=options.audio and not numbered,
        bit_depth=8,
        last=min(options.last or end, end),
        frames_dir="",
        keep_frames=False,
        report="",
    )


def _smaller(config: Config) -> Config:
    """Return a config of SIZE pixels; as it is where its scales or the steps of each are given."""
    if config.scales not in ("", "auto") or len(np.atleast_1d(config.iterations)) > 1:
        return config
    size = min(SIZE, config.size)
    return dataclasses.replace(config, size=max(2, size - size % 2))
