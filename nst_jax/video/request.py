"""What a video job is asked for."""

import dataclasses
from pathlib import Path

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.files import check_writable
from nst_jax.options import check_options, option
from nst_jax.runs.input_files import InputOptions, check_different
from nst_jax.video import keyframes
from nst_jax.video.clips import CODECS, Selection, codec_of
from nst_jax.video.flow import FINEST
from nst_jax.video.keyframes import Keyframes

# What keyframes say in another way, or what knows only one number of styles.
KEYFRAMES_REPLACE = {
    "style_at": (
        *("style", "style_mix", "style_mask", "style_source_mask"),
        *("style_labels", "content_labels"),
    ),
    "strength_at": ("strength", "content_weight", "style_weight"),
}


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """The clip: frames, codec and how they hang together."""

    output: str = option("", "clip to write: .mp4 .mkv .mov .webm, or a PNG for each frame: frame_%06d.png")
    codec: str = option(
        "", "h264; av1; or ffv1, lossless, in .mkv; empty: av1 in .webm, else h264", choices=("", *CODECS)
    )
    quality: int = option(
        18, "constant rate factor of h264 and av1: a lower one gives better and larger files", low=0, high=51
    )
    bit_depth: int = option(8, "bits per channel of PNG files", choices=(8, 16))
    audio: bool = option(True, "copy the clip's audio")
    first: int = option(1, "first frame that is used, counted from 1", low=1, high=2**31)
    last: int = option(0, "last frame that is used; 0: the clip's last", low=0, high=2**31)
    every: int = option(1, "use every Nth frame", low=1, high=10**6)
    frame_steps: int = option(
        10,
        "steps of the optimizer for each frame after the first of a shot, which is made as nst makes it",
        low=1,
        high=10**6,
    )
    frame_tolerance: float = option(
        0.0,
        "end a frame when a step lowers its loss by less than this share; 0: always take --frame_steps",
        low=0,
        high=1,
    )
    temporal_weight: float = option(
        1.0,
        "how closely a frame follows the earlier ones; 0: not at all",
        low=0,
        high=1e30,
    )
    flow: str = option(
        "fine", "optical flow between frames: fine, or fast, which is less exact", choices=FINEST
    )
    anchor: bool = option(True, "keep the mean color along the flow from drifting")
    second_pass: bool = option(
        False,
        "make the frames of each shot once more, from the last to the first, so that what comes into view "
        "looks the same before and after; takes twice the time",
    )
    style_at: tuple[str, ...] = option(
        (),
        "SECONDS:FILE, a keyframe in place of --style: the painting at this time of the clip. Between "
        "keyframes the shares change evenly",
        repeated=True,
    )
    strength_at: tuple[str, ...] = option(
        (),
        "SECONDS:STRENGTH, a keyframe in place of --strength: the strength at this time of the clip. "
        "Between keyframes it changes evenly",
        repeated=True,
    )
    frames_dir: str = option("", "folder for finished frames, from which a run resumes; empty: OUTPUT.frames")
    keep_frames: bool = option(False, "keep the folder of frames after the clip is written")
    report: str = option("", "JSON file for each frame's losses, shot, warping error and seconds")
    preview: bool = option(
        False,
        "make only a small sheet of stills and the first two seconds, beside the output: OUTPUT.preview",
    )
    dry_run: bool = option(False, "print frames, size, time and disk of the run, and write nothing")

    def __post_init__(self) -> None:
        check_options(self)
        keyframes.parse(self.style_at, self.strength_at)

    @property
    def keyframes(self) -> Keyframes:
        """Styles and strengths by time."""
        return keyframes.parse(self.style_at, self.strength_at)

    @property
    def selection(self) -> Selection:
        """Which frames are used."""
        return Selection(self.first, self.last, self.every)

    @property
    def folder(self) -> Path:
        """Where the frames are kept."""
        return Path(self.frames_dir or f"{self.output.replace('%', '')}.frames")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """What a video job is asked for: inputs.content is the clip."""

    inputs: InputOptions
    options: VideoOptions
    config: Config = dataclasses.field(default_factory=Config.from_preset)


def check(request: VideoRequest) -> str:
    """Return the codec. Raises InputError for what can be told before a file is read."""
    inputs, options, config = request.inputs, request.options, request.config
    if not inputs.content:
        raise InputError("`content`", "a video file", "not given")
    if not options.output:
        raise InputError(
            "`output`", "a clip to write, .mp4 .mkv .mov .webm, or PNG files, %06d.png", "not given"
        )
    _check_keyframes(inputs, options, config)
    for name in ("print_size", "crop", "round_aspects"):
        if getattr(inputs, name):
            raise InputError(f"`{name}`", "for pictures", "it was given for a clip")
    codec = codec_of(options.output, options.codec)
    if options.bit_depth != 8 and codec != "png":
        raise InputError("`bit_depth`", "8, or 16 for PNG files", f"got {options.bit_depth} for {codec}")
    if options.last and options.last < options.first:
        raise InputError("`last`", f"`first={options.first}` or more", f"got {options.last}")
    if codec in CODECS and CODECS[codec].even and config.size % 2:
        raise InputError("`size`", f"an even number for {codec}", f"got {config.size}")
    if options.preview and options.dry_run:
        raise InputError("`preview`", "without `dry_run`", "got both")
    if options.report:
        check_writable(Path(options.report))
    written = [options.output, options.report, str(options.folder)]
    styled = dataclasses.replace(inputs, style=inputs.style + options.keyframes.files)
    check_different(styled, config, written, "`output`, `report`, `frames_dir`")
    return codec


def _check_keyframes(inputs: InputOptions, options: VideoOptions, config: Config) -> None:
    """Raise InputError where keyframes are given beside an option that says something else."""
    given = {name for name, value in vars(inputs).items() if value} | config.given.keys()
    for name, others in KEYFRAMES_REPLACE.items():
        for other in others if getattr(options, name) else ():
            if other in given:
                raise InputError(f"`{name}`", f"without `{other}`", "got both")
