"""Clips: video files to frames and back, one frame in memory at a time (PyAV, the extra `video`).

FFmpeg decodes, encodes and spreads the chroma over all pixels. Colors are converted here: its own conversion
is off by up to 3 of 255 and, on average, by 1 darker, which a chain of frames would add up.
"""

import contextlib
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from nst_jax import images
from nst_jax.errors import InputError, did_you_mean
from nst_jax.files import atomic_write, check_folder, check_writable

LOG = logging.getLogger(__name__)

# Demuxers of files; others read playlists, devices or the network.
CONTAINERS_READ = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,ivf,yuv4mpegpipe,h264,hevc,obu"
LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
LUMA |= {9: (0.2627, 0.0593)}  # by the number of the matrix in H.273: the shares of red and blue in luma
RGB, UNSPECIFIED, FULL, BT709, LIMITED = 0, 2, 2, 1, 1  # of H.273, and of FFmpeg's color range
HDR = {16: "PQ", 18: "HLG"}  # transfer functions that are not applied
LARGE = 720  # rows from which a clip that names no matrix has BT.709's
NUMBERED = re.compile(r"[^%]*%0(\d)d[^%]*\.png")  # the name of a PNG sequence

Image = Float32[np.ndarray, "h w 3"]


class Clip(NamedTuple):
    """What a video file tells of itself."""

    path: str
    size: tuple[int, int]  # rows, columns, upright and with square pixels
    time_base: Fraction  # seconds
    rate: Fraction  # frames a second, on average
    frames: int
    audio: str  # the codec's name; empty: there is none
    start: int  # the time of the first frame, in units of the time base
    alpha: bool = False  # whether frames have an opacity

    def seconds(self, time: int) -> float:
        """Return how long after the first frame a time is."""
        return float((time - self.start) * self.time_base)


class Selection(NamedTuple):
    """Which frames are used: from 1."""

    first: int = 1
    last: int = 0  # 0: to the end
    every: int = 1

    def count(self, frames: int) -> int:
        """Return how many of a clip's frames these are."""
        return len(range(self.first - 1, min(self.last or frames, frames), self.every))

    def within(self, chosen: "Selection") -> "Selection":
        """Return which of chosen frames these are, all of which are among them."""
        first, last = ((number - chosen.first) // chosen.every + 1 for number in (self.first, self.last))
        return Selection(first, last if self.last else 0, self.every // chosen.every)


ALL = Selection()


class Frame(NamedTuple):
    """A frame."""

    image: Image  # sRGB in [0, 1], upright
    time: int  # in units of the time base
    duration: int
    alpha: Float32[np.ndarray, "h w"] | None = None  # the opacity, upright; the image is on white


class Codec(NamedTuple):
    """How frames are encoded."""

    encoder: str  # FFmpeg's
    pixels: str  # FFmpeg's format
    options: Callable[[int], dict[str, str]]  # of a quality, the encoder's
    even: bool = True  # whether rows and columns have to be even
    with_alpha: str = ""  # the format with an opacity; empty: there is none


def _x264(crf: int) -> dict[str, str]:
    """Return x264's options: without its AVX-512 code, which gives equal frames other bytes now and then."""
    processor = Path("/proc/cpuinfo")
    wide = processor.exists() and "avx512" in processor.read_text()
    return {"crf": str(crf), "preset": "medium"} | ({"x264-params": "asm=avx2"} if wide else {})


CODECS = {
    "h264": Codec("libx264", "yuv420p", _x264),
    "av1": Codec("libsvtav1", "yuv420p", lambda crf: {"crf": str(crf), "preset": "6"}),
    "ffv1": Codec("ffv1", "bgr0", lambda crf: {"level": "3", "slicecrc": "1"}, False, "bgra"),
}
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".ts", ".flv", ".ogv", ".wmv", ".y4m")
CONTAINERS = {".mp4": ("h264", "av1"), ".mkv": ("h264", "av1", "ffv1"), ".mov": ("h264",), ".webm": ("av1",)}


def is_clip(name: str) -> bool:
    """Tell by its name whether a file is a clip; all others are pictures, GIF too."""
    return Path(name).suffix.lower() in SUFFIXES


def load_av() -> Any:
    """Return PyAV. Raises InputError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            "nst-video", "needs the extra `video`: pip install 'nst-jax[video]'", f"{error}"
        ) from error
    os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder writes to standard error by itself
    return av


def probe(name: str) -> Clip:
    """Return what a video file tells of itself, after decoding its first frame. Raises InputError."""
    with _open(name) as container:
        stream = _video(container, name)
        first = next(_decoded(container, stream, name), None)
        if first is None:
            raise InputError(name, "a video", "it has no frames")
        height, width = first.height, first.width
        aspect = stream.sample_aspect_ratio or Fraction(1)
        size = height, max(1, round(width * aspect))
        if trc := HDR.get(int(first.color_trc)):
            LOG.warning("%s: its transfer function %s is not applied; colors look flat", name, trc)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        return Clip(
            path=name,
            size=size[::-1] if first.rotation % 180 else size,
            time_base=stream.time_base,
            rate=Fraction(rate),
            frames=_count(name),
            audio=next((_codec_name(audio) for audio in container.streams.audio), ""),
            start=first.pts or 0,
            alpha=_has_alpha(first, _codec_name(stream)),
        )


def _codec_name(stream: Any) -> str:
    return str(stream.codec_context.name) if stream.codec_context else "of a codec that is not known"


def _count(name: str) -> int:
    """Return the frames of a file, from its packets: nothing is decoded."""
    with _open(name) as container:
        packets = container.demux(_video(container, name))
        return sum(bool(packet.size) and not packet.is_discard for packet in packets)


def read(clip: Clip, selection: Selection) -> Iterator[Frame]:
    """Yield the selected frames of a clip. Raises InputError where one cannot be decoded."""
    stop, step = selection.last or None, max(1, round(1 / (clip.rate * clip.time_base)))
    with _open(clip.path) as container:
        frames = _decoded(container, _video(container, clip.path), clip.path)
        before: int | None = None
        for number, frame in enumerate(itertools.islice(frames, stop)):
            time = frame.pts
            if time is None or (before is not None and time <= before):
                time = 0 if before is None else before + step
            before = time
            if number >= selection.first - 1 and (number - selection.first + 1) % selection.every == 0:
                yield _frame(frame, clip, time, selection.every * (frame.duration or step))


def _frame(frame: Any, clip: Clip, time: int, duration: int) -> Frame:
    """Return a decoded frame, on white where it has an opacity, as pictures are read."""
    image, alpha = _upright(_image(frame, clip), frame.rotation), None
    if clip.alpha:
        alpha = images.resize(np.rot90(_alpha(frame), round(frame.rotation / 90)), *clip.size)
        image = alpha[..., None] * image + (1 - alpha[..., None])
    return Frame(image, time, duration, alpha)


def _has_alpha(frame: Any, codec: str) -> bool:
    """Tell whether a clip's frames have an opacity. FFmpeg gives every GIF one, most of them without need."""
    if not any(part.is_alpha for part in frame.format.components):
        return False
    return codec != "gif" or bool(_alpha(frame).min() < 1)


def _alpha(frame: Any) -> Float32[np.ndarray, "h w"]:
    """Return the opacity in [0, 1] of a frame that has one, as it lies in the file."""
    bits = min(16, max(part.bits for part in frame.format.components))
    samples = frame.reformat(format="rgba64le" if bits > 8 else "rgba").to_ndarray()[..., 3]
    most = ((1 << bits) - 1) << (16 - bits) if bits > 8 else 255  # FFmpeg shifts the bits to the left
    return (samples / np.float32(most)).clip(0, 1).astype(np.float32)


def _open(name: str) -> Any:
    av, path = load_av(), images.resolve(name)
    if not path.is_file():
        raise InputError(name, "a video file", "it is a folder or a device" if path.exists() else "not there")
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS_READ}
    try:
        return av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise InputError(name, "a video that FFmpeg reads", _reason(error)) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _video(container: Any, name: str) -> Any:
    """Return the video stream of a file, which is no cover of a record. Raises InputError."""
    av = load_av()
    attached = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not streams:
        raise InputError(name, "a video", "it has no video stream")
    if streams[0].codec_context is None:
        raise InputError(name, "a video that FFmpeg decodes", "its codec is not known")
    width, height = streams[0].width, streams[0].height
    if width * height > images.MAX_PIXELS:
        raise InputError(name, f"frames of at most {images.MAX_PIXELS} pixels", f"they have {width}x{height}")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _decoded(container: Any, stream: Any, name: str) -> Iterator[Any]:
    av, number = load_av(), 0
    try:
        for frame in container.decode(stream):
            number += 1
            yield frame
    except (OSError, ValueError, av.error.FFmpegError) as error:
        hint = f"; `last={number}` leaves it out" if number else ""
        raise InputError(name, "a whole video", f"frame {number + 1}: {_reason(error)}{hint}") from error


def _image(frame: Any, clip: Clip) -> Image:
    """Return a frame in sRGB, with square pixels, as it lies in the file."""
    matrix = int(frame.colorspace)
    if frame.format.is_rgb or len(frame.format.components) < 3 or matrix == RGB:
        deep = max(part.bits for part in frame.format.components) > 8
        samples = frame.reformat(format="rgb48le" if deep else "rgb24", dst_color_range=FULL).to_ndarray()
        image = samples.astype(np.float32) / np.iinfo(samples.dtype).max
    else:
        if matrix == UNSPECIFIED:
            matrix = BT709 if frame.height >= LARGE else 6
        if matrix not in LUMA:
            raise InputError(
                clip.path, "YCbCr of BT.601, BT.709 or BT.2020", f"its matrix has number {matrix}"
            )
        full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
        image = to_rgb(_unsubsampled(frame, FULL if full else LIMITED), matrix, full)
    width = clip.size[0] if frame.rotation % 180 else clip.size[1]
    return image if image.shape[1] == width else images.resize(image, image.shape[0], width)


def _unsubsampled(frame: Any, range: int) -> np.ndarray:
    """Return a frame's luma and chroma at every pixel, in units of 8 bits: (h, w, 3)."""
    if frame.format.components[0].bits > 8:  # FFmpeg shifts the bits to the left
        deep = _same_colors(frame, "yuv444p16le", range).to_ndarray()
        return deep.astype(np.float32) / 256
    return np.moveaxis(_same_colors(frame, "yuv444p", range).to_ndarray(), 0, -1).astype(np.float32)


def _same_colors(frame: Any, format: str, range: int) -> Any:
    """Return a frame in another format; only the chroma's resolution and the number of bits change."""
    if frame.format.name == format:
        return frame
    from av.video.reformatter import Interpolation as Way

    way = Way.BICUBIC | Way.ACCURATE_RND | Way.FULL_CHR_H_INT | Way.FULL_CHR_H_INP | Way.BITEXACT
    matrix = BT709  # to itself, so it does not matter which
    return frame.reformat(
        format=format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=range,
        dst_color_range=range,
        interpolation=int(way),
    )


def to_rgb(planes: np.ndarray, matrix: int, full: bool) -> Image:
    """Return RGB in [0, 1] of luma and chroma (h, w, 3) in units of 8 bits.

    R = Y + 2 (1 - kr) Cr and B = Y + 2 (1 - kb) Cb. G follows from Y = kr R + (1 - kr - kb) G + kb B.

    Args:
        planes: Y, Cb and Cr.
        matrix: Its number in H.273, a key of LUMA.
        full: Whether all of 0 to 255 is used, else the limited range.
    """
    red, blue = LUMA[matrix]
    luma = planes[..., 0] / 255 if full else (planes[..., 0] - 16) / 219
    chroma = (planes[..., 1:] - 128) / (255 if full else 224)
    r, b = luma + 2 * (1 - red) * chroma[..., 1], luma + 2 * (1 - blue) * chroma[..., 0]
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b], -1, dtype=np.float32).clip(0, 1)


def to_yuv420(image: Image) -> list[np.ndarray]:
    """Return luma (h, w) and both chroma planes (h/2, w/2) of BT.709 in the limited range, 8 bits.

    Chroma lies on the left one of its columns, between its rows, where H.264 has it by default.
    """
    red, blue = LUMA[BT709]
    r, g, b = np.moveaxis(image, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = np.stack([(b - luma) / (1 - blue), (r - luma) / (1 - red)])
    rows = chroma[:, ::2] + chroma[:, 1::2]
    wide = np.pad(rows, [(0, 0), (0, 0), (1, 0)], "edge")
    halved = (wide[..., :-1:2] + 2 * wide[..., 1::2] + wide[..., 2::2]) / 8
    return [plane.round().astype(np.uint8) for plane in (16 + 219 * luma, *(128 + 112 * halved))]


def _upright(image: Image, rotation: int) -> Float32[np.ndarray, "_ _ 3"]:
    """Return an image turned counterclockwise by degrees, as players show it."""
    return np.ascontiguousarray(np.rot90(image, round(rotation / 90)))


def codec_of(output: str, codec: str) -> str:
    """Return the codec of an output: the one asked for, else its container's first. Raises InputError."""
    suffix = Path(output).suffix.lower()
    if suffix == ".png":
        if not NUMBERED.fullmatch(Path(output).name):
            raise InputError(output, "a name with the frame's number, such as frame_%06d.png", "it has none")
        if codec:
            raise InputError("`codec`", "none for PNG files", f"got {codec}")
        return "png"
    if suffix not in CONTAINERS:
        came = f"the extension is {suffix!r}{did_you_mean(suffix, CONTAINERS)}"
        raise InputError(output, f"must end in one of {' '.join(CONTAINERS)} or %06d.png", came)
    if codec and codec not in CONTAINERS[suffix]:
        holders = " ".join(name for name, held in CONTAINERS.items() if codec in held)
        raise InputError(output, f"an output that holds {codec}: {holders}", f"{suffix} does not")
    return codec or CONTAINERS[suffix][0]


def check_output(output: str, codec: str, audio: str) -> None:
    """Raise InputError where a file of a codec and a clip's audio cannot be written. Leaves no trace.

    Args:
        output: The file.
        codec: A key of CODECS, or png.
        audio: The name of the clip's audio codec; empty: there is none to copy.
    """
    if codec == "png":
        check_folder(Path(output).parent)
        return
    check_writable(Path(output))
    av, suffix = load_av(), Path(output).suffix.lower()
    encoder = CODECS[codec].encoder
    if encoder not in av.codecs_available:
        raise InputError("`codec`", "one that the installed PyAV encodes", f"it lacks {encoder} of {codec}")
    if audio and audio not in _held(suffix):
        allowed = f"audio that {suffix} can hold, `audio=false`, or an output that ends in .mkv"
        raise InputError(output, allowed, f"the clip's is {audio}")


def _held(suffix: str) -> set[str]:
    """Return the names of the codecs that a container holds."""
    import io

    with load_av().open(io.BytesIO(), "w", format=_format(suffix)) as container:
        return set(container.supported_codecs)


def _format(suffix: str) -> str:
    return {".mkv": "matroska"}.get(suffix, suffix[1:])


def holds_alpha(codec: str) -> bool:
    """Tell whether frames of a codec, or png, have an opacity."""
    return codec not in CODECS or bool(CODECS[codec].with_alpha)


class Output(NamedTuple):
    """How a clip is written."""

    path: str
    codec: str  # a key of CODECS, or png
    quality: int  # the encoder's constant rate factor
    bit_depth: int = 8  # of PNG


def write(
    output: Output,
    clip: Clip,
    frames: Iterable[Frame],
    selection: Selection = ALL,
    audio: bool = True,
) -> None:
    """Write frames of one size as a clip with the times of the one they were made of; whole or not at all.

    Of a PNG sequence each file is whole. Equal input gives equal bytes.

    Args:
        output: Where and how.
        clip: Gives the time base and the audio, whose packets are copied.
        frames: In their order.
        selection: Which frames of the clip these are. From a later one than the first, times count from it.
        audio: Whether to copy it.

    Raises:
        NotWritten: The file cannot be written.
        InputError: The clip's audio cannot be read.
    """
    if output.codec == "png":
        Path(output.path).parent.mkdir(parents=True, exist_ok=True)
        path = Path(output.path)
        for number, frame in enumerate(frames, 1):
            name = str(path.with_name(path.name % number))  # a folder's % is its own
            images.save(name, frame.image, alpha=frame.alpha, bit_depth=output.bit_depth)
        return
    av = load_av()
    suffix = Path(output.path).suffix.lower()
    with atomic_write(Path(output.path)) as file:
        options = {"fflags": "+bitexact"}
        with av.open(file, "w", format=_format(suffix), options=options) as container:
            _encode(container, output, clip, iter(frames), selection, audio and bool(clip.audio))


def _encode(
    container: Any,
    output: Output,
    clip: Clip,
    frames: Iterator[Frame],
    selection: Selection,
    audio: bool,
) -> None:
    first, codec = next(frames), CODECS[output.codec]
    origin = first.time if selection.first > 1 else 0
    pixels = codec.pixels if first.alpha is None else codec.with_alpha
    stream = _stream(container, output, clip, first.image.shape, clip.rate / selection.every)
    stream.pix_fmt = pixels
    whole = itertools.chain([first], frames)
    with _open(clip.path) if audio else contextlib.nullcontext() as source:
        sound = _sound(source, container, origin, clip) if audio else None
        with _ordinary_threads():
            container.start_encoding()
        for frame in whole:
            coded = _coded(frame, pixels)
            coded.pts, coded.duration, coded.time_base = (
                frame.time - origin,
                frame.duration,
                clip.time_base,
            )
            end = (frame.time - origin + frame.duration) * clip.time_base
            container.mux(stream.encode(coded))
            if sound:
                sound(end)
        container.mux(stream.encode())
        if sound and not selection.last:
            sound(None)


def _stream(container: Any, output: Output, clip: Clip, shape: tuple[int, ...], rate: Fraction) -> Any:
    """Return a new stream of pictures in a container, with the clip's times."""
    codec = CODECS[output.codec]
    options = codec.options(output.quality)
    stream = container.add_stream(codec.encoder, rate=rate, options=options, time_base=clip.time_base)
    stream.height, stream.width = shape[:2]
    context = stream.codec_context
    context.time_base = clip.time_base
    if not codec.pixels.startswith("bgr"):
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
    return stream


@contextlib.contextmanager
def _ordinary_threads() -> Iterator[None]:
    """Undo what SVT-AV1 does for root: real-time threads, its caller among them, which starve others."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        yield
        return
    before, policy = set(os.listdir(tasks)), (os.sched_getscheduler(0), os.sched_getparam(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *policy)
        for task in set(os.listdir(tasks)) - before:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(int(task), *policy)


def _sound(source: Any, container: Any, origin: int, clip: Clip) -> Callable[[Fraction | None], None]:
    """Return what copies a clip's audio up to a time, in seconds from an origin; None: all."""
    old = source.streams.audio[0]
    new = container.add_stream_from_template(old)
    shift = round(origin * clip.time_base / old.time_base)
    packets = (
        packet
        for packet in source.demux(old)
        if packet.size and (not origin or packet.pts is None or packet.pts >= shift)
    )
    waiting: list[Any] = []

    def copy(end: Fraction | None) -> None:
        try:
            copy_until(end)
        except (ValueError, load_av().error.FFmpegError) as error:
            if isinstance(error, OSError) and not isinstance(error, ValueError):
                raise  # of the disk
            allowed = "audio that can be copied, or `audio=false`"
            raise InputError(clip.path, allowed, _reason(error)) from error

    def copy_until(end: Fraction | None) -> None:
        while packet := waiting.pop() if waiting else next(packets, None):
            if packet.pts is not None:
                if end is not None and (packet.pts - shift) * old.time_base >= end:
                    waiting.append(packet)
                    return
                packet.pts, packet.dts = packet.pts - shift, packet.pts - shift
            packet.stream = new
            container.mux(packet)

    return copy


def _coded(frame: Frame, pixels: str) -> Any:
    """Return a frame in one of FFmpeg's formats."""
    av, image = load_av(), frame.image
    if pixels.startswith("bgr"):
        if frame.alpha is not None:
            image = images.straight(image, frame.alpha)
        plain = "rgb24" if frame.alpha is None else "rgba"
        return av.VideoFrame.from_ndarray(images.to_uint8(image), plain).reformat(format=pixels)
    planes = np.concatenate([plane.ravel() for plane in to_yuv420(image)])
    coded = av.VideoFrame.from_ndarray(planes.reshape(-1, image.shape[1]), pixels)
    coded.colorspace, coded.color_range = BT709, LIMITED
    return coded
