"""A video job makes a clip from a clip: it is prepared, run as a stream of events, and leaves files.

    request = VideoRequest(
        inputs=InputOptions(content="clip.mp4", style=("example:night",)),
        options=VideoOptions(output="out.mp4"),
    )
    for event in prepare_video(request).run(stop=lambda: False):
        match event:
            case FrameMade(number, total):
                print(number, total)

The first frame of each shot is made as nst makes it. The next ones begin with it, warped, and take few steps.
Decoding and flow are a thread's, ahead of the optimization; encoding is another's, behind it.
What depends on frames only is never stored.
"""

import collections
import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

import nst_jax
from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.files import check_space, write_whole
from nst_jax.images.masks import Masks
from nst_jax.networks.base import Params
from nst_jax.reports.report import resolved, to_json
from nst_jax.runs.input_files import ImageCache, InputOptions, Pictures, load_masks, load_pictures
from nst_jax.runs.job import load_network, seconds_per_pixel, small_problem
from nst_jax.runs.memory_plan import work
from nst_jax.runs.problem import Problem, check_sizes
from nst_jax.runs.pyramid import make_problems, settled
from nst_jax.runs.request import OutputOptions, Request, facts_of
from nst_jax.system import device
from nst_jax.video import clips, flow
from nst_jax.video import masks as mask_clips
from nst_jax.video.clips import Clip, Frame, Output, Selection
from nst_jax.video.encoding import Encoding
from nst_jax.video.flow import Before, Motion
from nst_jax.video.masks import FrameMasks, MaskClips
from nst_jax.video.measures import warping_error
from nst_jax.video.request import VideoRequest, check
from nst_jax.video.sequence import Made, Shot, Steps, stored, unstored
from nst_jax.video.store import BACKWARD, ENCODED, Kept, Store, bytes_kept
from nst_jax.weights import Weights

LOG = logging.getLogger(__name__)
Image = Float32[np.ndarray, "h w 3"]
LONG_TERM = (1, 2, 4)  # how many frames back, as in Ruder et al. 2016
FRAMES_AHEAD = 2  # frames that are decoded before their turn
SPARE_BYTES = 2**24
# What frames depend on.
MADE_OF = (
    *("frame_steps", "frame_tolerance", "temporal_weight", "flow", "anchor", "first", "every"),
    *("style_at", "strength_at", "second_pass"),
)


class FrameMade(NamedTuple):
    """A frame is made and kept."""

    number: int  # from 1, of the selected ones; those of a second pass count on
    total: int
    begins: bool  # a shot
    seconds: float
    warping_error: float  # NaN where it begins a shot
    made: Made


class Resumed(NamedTuple):
    """So many frames were made before."""

    frames: int


class Encoded(NamedTuple):
    """A file was written."""

    path: str


class Finished(NamedTuple):
    """The job is done, or was stopped after some frames."""

    frames: int
    stopped: Any


Event = FrameMade | Resumed | Encoded | Finished


class VideoForecast(NamedTuple):
    """What a run will take."""

    frames: int
    size: tuple[int, int]  # rows, columns
    seconds: float  # of one shot
    disk: int  # bytes of the frames that are kept until the clip is written, and of a clip without loss


class Next(NamedTuple):
    """A frame with what is known of it before it is made."""

    number: int
    frame: Frame  # at the working size
    masks: Masks
    motions: dict[int, Motion]  # to earlier frames, by how many back; none where it begins a shot
    earlier: dict[int, Image]  # their contents
    kept: Kept | None  # from an earlier run
    before: Kept | None = None  # from the pass before

    def known(self, pictures: dict[int, Image]) -> Before:
        """Return what pictures of earlier frames show of it."""
        return flow.combine(self.motions, {back: pictures[back] for back in self.motions})


@dataclasses.dataclass(frozen=True, eq=False)
class VideoJob:
    """A request whose files are read and checked, to be run once; see the module."""

    request: VideoRequest
    clip: Clip
    codec: str
    size: tuple[int, int]
    total: int  # frames that are selected
    frames: Iterator[Frame]  # those that are selected
    masks: Iterator[FrameMasks]  # of each
    moving: MaskClips
    pictures: Pictures  # of the first frame
    weights: Weights
    params: Params
    told: dict[str, str]  # what the frames depend on

    def run(self, stop: Callable[[], Any] = lambda: False) -> Iterator[Event]:
        """Make the frames that are not made yet, then write the clip; yield what happens.

        Args:
            stop: Asked after each chunk of steps whether to end early. The frame in hand is then not kept.

        Raises:
            InputError: The clip cannot be decoded, or the folder of the frames is of another run.
            NotEnoughMemory: A frame does not fit into the device's memory.
            NotWritten: A file cannot be written.
        """
        options, began, stop = self.request.options, time.monotonic(), _held(stop)
        with contextlib.ExitStack() as at_end:
            store = last = at_end.enter_context(Store(options.folder, self.told))
            encoding = at_end.enter_context(Encoding(self._write))
            made = count = yield from self._make(store, encoding, stop)
            if options.second_pass and not stop():
                told = self.told | {"the last frame": str(count)}
                last = at_end.enter_context(Store(options.folder / BACKWARD, told))
                made += yield from self._make_backward(store, last, count, stop)
                for number in range(1, count + 1):  # all of them have changed
                    encoding.add(last, number)
            if not (stopped := stop()):
                frames = encoding.finish()
                store.deliver(Path(options.output).parent)
                yield Encoded(options.output)
                if options.report:
                    write_whole(Path(options.report), to_json(self._report(frames, began)))
                    yield Encoded(options.report)
                if not options.keep_frames:
                    store.remove()
            yield Finished(made, stopped)

    def forecast(self) -> VideoForecast:
        """Return what the run will take, from a few steps of a small picture. Raises NotEnoughMemory."""
        config, options = self.request.config, self.request.options
        shot = self._shot(self.pictures, config)
        scales = shot.config.pyramid()
        first = sum(
            scale.iterations * work(plan.problem) for scale, plan in zip(scales, shot.plans, strict=True)
        )
        further = (self.total - 1) * (options.frame_steps + 1) * work(shot.plans[-1].problem)
        content, styles, init, _ = self.pictures

        def make(config: Config) -> list[Problem]:
            return make_problems(self.params, content, styles, config, init, shot.problems[-1].masks)

        work_done = first + further * self.passes
        seconds = work_done * seconds_per_pixel(small_problem(make, config))
        disk = self.total * frame_bytes(self.size, self.request)
        return VideoForecast(self.total, self.size, seconds, disk)

    @property
    def passes(self) -> int:
        """How many times frames are made."""
        return 1 + self.request.options.second_pass

    def _make(self, store: Store, encoding: Encoding, stop: Callable[[], Any]) -> Generator[Event, None, int]:
        """Make the frames; return how many there are in all.

        Args:
            store: Where they are kept.
            encoding: Is told of each, unless a second pass changes them.
            stop: Asked whether to end early.
        """
        shot: Shot | None = None
        last: Shot | None = None  # the one before
        opening: tuple[Frame, Masks, Made] | None = None  # of the shot
        made: dict[int, Made] = {}
        resumed = number = start = 0
        with ThreadPoolExecutor(1) as reader:
            for coming in _ahead(reader, self._frames(store), FRAMES_AHEAD):
                number, frame, kept, began = coming.number, coming.frame, coming.kept, time.monotonic()
                begins = kept.start == number if kept else not coming.motions
                if begins:
                    last, shot, opening, start = shot or last, None, None, number
                if kept:
                    if stop():
                        return number - 1
                    made[number], resumed = kept.made, resumed + 1
                else:
                    if resumed:
                        yield Resumed(resumed)
                    resumed = 0
                    if shot is None:
                        first, masks, there = opening or (frame, coming.masks, None)
                        shot, last = self.opened(first, masks, there, last), None
                    found, error = self._frame(shot, coming, made, stop, begins)
                    if found is None:
                        return number - 1
                    made[number], seconds = found, time.monotonic() - began
                    content = stored(frame.image) if self.passes > 1 else None
                    store.save(
                        number, Kept(found, frame.time, frame.duration, start, seconds, error, content)
                    )
                    yield FrameMade(number, self.total * self.passes, begins, seconds, error, found)
                if self.passes == 1:
                    encoding.add(store, number)
                opening = opening or (frame, coming.masks, made[number])
                made.pop(number - max(LONG_TERM), None)
        if resumed:
            yield Resumed(resumed)
        return number

    def _make_backward(
        self, store: Store, again: Store, count: int, stop: Callable[[], Any]
    ) -> Generator[Event, None, int]:
        """Make the frames of each shot once more, from the last to the first; return how many there are.

        The last one stays. The others begin half way between what the first pass made and what later
        frames show of them, and follow these (Ruder et al. 2016, section 4.3).

        Args:
            store: The first pass.
            again: The second.
            count: How many frames there are.
            stop: Asked whether to end early.
        """
        shot: Shot | None = None
        last: Shot | None = None  # the one before
        made: dict[int, Made] = {}
        resumed = done = start = 0
        with ThreadPoolExecutor(1) as reader:
            for coming in _ahead(reader, self._frames_backward(store, again, count), FRAMES_AHEAD):
                number, before, kept, began = coming.number, coming.before, coming.kept, time.monotonic()
                assert before is not None
                if before.start != start:
                    last, shot, start = shot or last, None, before.start
                if kept:
                    if stop():
                        return done
                    made[number], resumed = kept.made, resumed + 1
                else:
                    if resumed:
                        yield Resumed(resumed)
                    resumed = 0
                    found, error = before.made, math.nan
                    if later := {ahead: made[number + ahead] for ahead in coming.motions}:
                        if shot is None:
                            shot, last = self._reopened(store, start, last), None
                        if (here := self._followed(shot, coming, later, stop)) is None:
                            return done
                        found, error = here
                    made[number], seconds = found, time.monotonic() - began
                    now = before._replace(made=found, seconds=seconds, warping_error=error, content=None)
                    again.save(number, now)
                    yield FrameMade(count + done + 1, 2 * count, not later, seconds, error, found)
                done += 1
                made.pop(number + max(LONG_TERM), None)
        if resumed:
            yield Resumed(resumed)
        return done

    def _reopened(self, store: Store, start: int, last: Shot | None) -> Shot:
        """Return the shot whose first frame is kept; last: the one before."""
        kept = self._kept(store, start)
        return self.opened(_content(kept), self.pictures.masks, kept.made, last)

    def opened(
        self, frame: Frame, masks: Masks, made: Made | None = None, earlier: Shot | None = None
    ) -> Shot:
        """Return a shot that begins with a frame.

        Args:
            frame: At the working size.
            masks: Its masks.
            made: What an earlier run made of it.
            earlier: The shot before.
        """
        pictures = self.pictures._replace(content=frame.image, masks=masks)
        shot = self._shot(pictures, self._config_at(frame), earlier)
        if made:
            shot.resume(made)
        return shot

    def _config_at(self, frame: Frame) -> Config:
        seconds = self.clip.seconds(frame.time)
        return self.request.options.keyframes.config_at(self.request.config, seconds)

    def _frame(
        self, shot: Shot, coming: Next, made: dict[int, Made], stop: Callable[[], Any], begins: bool
    ) -> tuple[Made | None, float]:
        """Return a frame and its warping error; None where stopped."""
        if begins:
            with device.running_out(*self.size):
                return shot.begin(stop), math.nan
        earlier = {back: made[coming.number - back] for back in coming.motions}
        return self._followed(shot, coming, earlier, stop) or (None, math.nan)

    def _followed(
        self, shot: Shot, coming: Next, earlier: dict[int, Made], stop: Callable[[], Any]
    ) -> tuple[Made, float] | None:
        """Return a frame that follows earlier ones, and its warping error; None where stopped."""
        known = coming.known({back: made.image for back, made in earlier.items()})
        if self.request.options.keyframes:
            shot.retune(self._config_at(coming.frame))
        own = coming.before.made.image if coming.before else None
        with device.running_out(*self.size):
            now = shot.follow(
                coming.frame.image, known, coming.known(coming.earlier), coming.masks, stop, own
            )
        return None if now is None else (now, warping_error(shown(now), shown(earlier[1]), coming.motions[1]))

    def _frames(self, store: Store) -> Iterator[Next]:
        """Yield the frames at the working size, each with its motions unless it is made already."""
        options = self.request.options
        recent: collections.deque[Image] = collections.deque(maxlen=max(LONG_TERM))  # of the shot
        styled: collections.deque[Any] = collections.deque(maxlen=max(LONG_TERM))
        for number, (frame, masks) in enumerate(zip(self.frames, self.masks, strict=False), 1):
            image, kept = images.resize(frame.image, *self.size), store.load(number, self.size)
            earlier = {back: recent[-back] for back in LONG_TERM if back <= len(recent)}
            motions: dict[int, Motion] = {}
            if earlier:
                motions[1] = flow.motion(image, earlier[1], options.flow)
                if flow.is_cut(image, earlier[1], motions[1]):
                    motions, earlier = {}, {}
                    recent.clear()
                elif kept is None:
                    further = {
                        back: flow.motion(image, earlier[back], options.flow) for back in earlier if back > 1
                    }
                    motions |= further
            motions = {back: flow.within(moved, styled[-back]) for back, moved in motions.items()}
            recent.append(image)
            styled.append(masks.styled)
            yield Next(number, frame._replace(image=image), masks.masks, motions, earlier, kept)

    def _frames_backward(self, store: Store, again: Store, count: int) -> Iterator[Next]:
        """Yield the frames from the last to the first, each with its motions to later ones of its shot."""
        options, start = self.request.options, 0
        later: collections.deque[Image] = collections.deque(maxlen=max(LONG_TERM))  # of the shot
        masks = next(self.moving.frames(self.pictures.masks, self.size))  # of all frames
        for number in range(count, 0, -1):
            before, kept = self._kept(store, number), again.load(number, self.size)
            if before.start != start:
                start = before.start
                later.clear()
            frame = _content(before)
            contents = {ahead: later[-ahead] for ahead in LONG_TERM if ahead <= len(later)}
            motions = {
                ahead: flow.within(flow.motion(frame.image, content, options.flow), masks.styled)
                for ahead, content in contents.items()
                if not kept
            }
            later.append(frame.image)
            yield Next(number, frame, masks.masks, motions, contents, kept, before)

    def _kept(self, store: Store, number: int) -> Kept:
        """Return a frame that was made. Raises InputError."""
        kept = store.load(number, self.size)
        if kept is None:
            came = f"frame {number} is gone or damaged"
            raise InputError(str(store.folder), "the frames that were made", came)
        return kept

    def _shot(self, pictures: Pictures, config: Config, earlier: Shot | None = None) -> Shot:
        options = self.request.options
        steps = Steps(options.frame_steps, options.temporal_weight, options.anchor, options.frame_tolerance)
        return Shot(self.params, pictures, config, steps, device.free_memory(), earlier)

    def _write(self, coming: Iterator[tuple[Store, int]]) -> list[dict[str, Any]]:
        """Write the clip into the folder of frames; return what the report tells of each frame.

        coming: where each frame is kept, and its number.
        """
        options, told = self.request.options, []

        def frames() -> Iterator[Frame]:
            for (store, number), alpha in zip(coming, self._alphas(), strict=False):
                kept = self._kept(store, number)
                told.append(self._told_of(number, kept))
                yield Frame(shown(kept.made), kept.time, kept.duration, alpha)

        path = options.folder / ENCODED / Path(options.output).name
        path.parent.mkdir(exist_ok=True)
        output = Output(str(path), self.codec, options.quality, options.bit_depth)
        clips.write(output, self.clip, frames(), options.selection, options.audio)
        return told

    def _alphas(self) -> Iterator[np.ndarray | None]:
        """Yield each frame's opacity at the working size, None where it is not kept."""
        if not (self.clip.alpha and clips.holds_alpha(self.codec)):
            yield from itertools.repeat(None)
        for frame in clips.read(self.clip, self.request.options.selection):
            assert frame.alpha is not None
            yield images.resize(frame.alpha, *self.size)

    def _told_of(self, number: int, kept: Kept) -> dict[str, Any]:
        return {
            "frame": number,
            "seconds_from_start": self.clip.seconds(kept.time),
            "shot": kept.start,
            "steps": kept.made.steps,
            "seconds": kept.seconds,
            "warping_error": kept.warping_error,
            "losses": kept.made.losses,
        }

    def _report(self, frames: list[dict[str, Any]], began: float) -> dict[str, Any]:
        """Return what the report tells."""
        config, inputs = self.request.config, self.request.inputs
        asked = dataclasses.asdict(inputs) | dataclasses.asdict(self.request.options)
        return {
            "nst_jax": nst_jax.__version__,
            "config": asked | resolved(config, len(inputs.style)),
            "clip": {
                "size": self.size,
                "rate": str(self.clip.rate),
                "frames": self.clip.frames,
                "audio": self.clip.audio,
            },
            "mask_clips": {
                flag: {"file": clip.path, "size": clip.size, "frames": clip.frames}
                for flag, clip in self.moving.by_flag().items()
            },
            "frames": frames,
            "seconds": time.monotonic() - began,
            "device": device.describe(1),
        }


def prepare_video(request: VideoRequest, chosen: Selection | None = None) -> VideoJob:
    """Check a request and read its files and the clip's first frame; write nothing. Raises InputError.

    chosen: the frames that masks may have one for each of. None: the request's selection.
    """
    codec = check(request)
    inputs, options, config = request.inputs, request.options, request.config
    clip = clips.probe(inputs.content)
    clips.check_output(options.output, codec, clip.audio if options.audio else "")
    if clip.alpha and not clips.holds_alpha(codec):
        LOG.warning(
            "%s: its alpha is not kept by %s, but shown on white; ffv1 and PNG keep it", clip.path, codec
        )
    options.keyframes.check_length(float(clip.frames / clip.rate))
    frames = clips.read(clip, options.selection)
    total, first = options.selection.count(clip.frames), next(frames, None)
    if not total or first is None:
        allowed = f"from 1 to {clip.frames}, as many frames as there are"
        raise InputError("`first`", allowed, f"got {options.first}")
    size = working_size(clip.size, config.size, codec in clips.CODECS and clips.CODECS[codec].even)
    config = dataclasses.replace(config, size=max(size)) if max(size) != config.size else config
    config = options.keyframes.config_at(config, clip.seconds(first.time))
    inputs = dataclasses.replace(inputs, style=inputs.style + options.keyframes.files)
    cache = ImageCache(inputs.max_pixels)
    cache.sources[inputs.content] = images.Source(images.resize(first.image, *size), None)
    moving = mask_clips.find(inputs, clip, chosen or options.selection, options.selection)
    for flag in moving.by_flag() if options.second_pass else ():  # which would have to be read backwards
        raise InputError("`second_pass`", "with masks that are pictures", f"got a clip as {flag}")
    pictures, masks = _with_masks(inputs, config, cache, moving)
    config = config if moving.by_flag() else settled(config, *pictures)  # else each shot settles its own
    request = dataclasses.replace(request, inputs=inputs, config=config)
    still = Request(inputs=inputs, outputs=OutputOptions(), config=config)
    weights, params = load_network(still)
    needed = total * frame_bytes(size, request) - bytes_kept(options.folder)
    check_space(options.folder, max(0, needed) + SPARE_BYTES)
    told = facts_of(still, pictures, weights, 1)["told"]
    made_of = {f"--{name}": str(getattr(options, name)) for name in MADE_OF}
    told |= made_of | {"the clip": cache.sha256(inputs.content)}
    for flag, mask in moving.by_flag().items():
        told |= {f"the clip of {flag}": cache.sha256(mask.path), "--soft_masks": str(inputs.soft_masks)}
    reading = itertools.chain([first], frames)
    return VideoJob(
        request, clip, codec, size, total, reading, masks, moving, pictures, weights, params, told
    )


def _with_masks(
    inputs: InputOptions, config: Config, cache: ImageCache, moving: MaskClips
) -> tuple[Pictures, Iterator[FrameMasks]]:
    """Return the pictures of the first frame, and the masks of all frames. Raises InputError.

    Args:
        inputs: Files and their options.
        config: The options.
        cache: Has the picture files, and the first frame as the content.
        moving: The masks that are clips.
    """
    pictures = load_pictures(inputs, config, cache, load_masks(moving.others(inputs), cache))
    assert pictures.content is not None
    size = pictures.content.shape[:2]
    check_sizes(size, [style.shape for style in pictures.styles], pictures.masks, config.spec())
    frames = moving.frames(pictures.masks, size)
    first = next(frames)
    return pictures._replace(masks=first.masks), itertools.chain([first], frames)


def working_size(size: tuple[int, int], longest: int, even: bool) -> tuple[int, int]:
    """Return the rows and columns that are optimized, even ones where the codec wants them.

    Args:
        size: Rows and columns of the clip.
        longest: The longest side wanted, in pixels.
        even: Whether both have to be even.
    """
    height, width = images.size_to_fit(*size, longest)
    return (max(2, height // 2 * 2), max(2, width // 2 * 2)) if even else (height, width)


def frame_bytes(size: tuple[int, int], request: VideoRequest) -> int:
    """Return the bytes of a frame on the disk: twice those of a picture where colors or masks change it.

    A second pass keeps its own frames and the contents, too. A frame that is encoded without loss is counted
    as if nothing were gained; others are small.
    """
    inputs, options = request.inputs, request.options
    masked = inputs.content_mask or any(inputs.style_mask) or inputs.content_labels
    pictures = 2 if masked or request.config.preserve_color != "none" else 1
    kept = 2 * (2 * pictures + 1 if options.second_pass else pictures)
    encoded = {"png": options.bit_depth // 8, "ffv1": 1}
    return size[0] * size[1] * 3 * (kept + encoded.get(clips.codec_of(options.output, options.codec), 0))


def shown(made: Made) -> Image:
    """Return the picture that is shown of a frame."""
    return made.image if made.shown is None else unstored(made.shown)


def _content(kept: Kept) -> Frame:
    """Return the content of a frame that is kept for a second pass."""
    if kept.content is None:
        raise InputError("frames", "with their contents", "there are none")
    return Frame(unstored(kept.content), kept.time, kept.duration)


def _held(stop: Callable[[], Any]) -> Callable[[], Any]:
    """Return what asks whether to stop, and answers as the first time that it was so from then on."""
    found: list[Any] = []

    def asked() -> Any:
        if not found and (answer := stop()):
            found.append(answer)
        return found[0] if found else False

    return asked


def _ahead(reader: ThreadPoolExecutor, items: Iterator[Next], count: int) -> Iterator[Next]:
    """Yield items that a thread makes, so many before their turn."""
    waiting: collections.deque[Future[Next | None]] = collections.deque()
    for _ in range(count):
        waiting.append(reader.submit(next, items, None))
    while (item := waiting.popleft().result()) is not None:
        waiting.append(reader.submit(next, items, None))
        yield item
