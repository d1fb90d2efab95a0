"""What a job is asked for, and the checks that need no file to be read."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import nst_jax
from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, as_flags
from nst_jax.files import check_folder, check_writable
from nst_jax.options import check_options, option
from nst_jax.reports.report import PLOT_FORMATS, check_plot
from nst_jax.runs.checkpointing import CheckpointOptions, surroundings
from nst_jax.runs.input_files import NO_SETTINGS, InputOptions, Pictures, check_different, check_inputs
from nst_jax.runs.judging import References
from nst_jax.system.distributed import DeviceOptions, fingerprint
from nst_jax.weights import Weights

MAX_PREVIEWS = 100_000


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """The files that are written."""

    output: str = option("", "picture to write: .png .jpg .webp .tif .avif")
    output_size: str = option(
        "working",
        "working (as optimized), or content (resampled to the content's size)",
        choices=("working", "content"),
    )
    bit_depth: int = option(8, "bits per channel; 16 only for .png and .tif", choices=images.DEPTHS)
    dpi: int = option(0, "resolution stored in the file, in pixels per inch; 0: none", low=0, high=10_000)
    report: str = option("", "JSON file for losses, options and timings")
    plot: str = option("", "picture file for the loss curves: .png .svg .pdf")
    save_every: int = option(0, "steps between previews OUTPUT.step000050.png; 0: none", low=0, high=10**7)
    judge: bool = option(
        False, "measure the written picture as nst-judge does, and add the numbers to --report"
    )
    mask_preview: str = option("", "picture to write that shows which style acts where")
    no_settings: bool = option(False, NO_SETTINGS)
    dry_run: bool = option(False, "print sizes, windows, memory and time of the run, and write nothing")

    def __post_init__(self) -> None:
        check_options(self)

    def preview(self, step: int) -> str:
        """Return the name of the preview of a step."""
        return f"{self.output}.step{step:06d}.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The input of a job: the files that it reads and writes, and the options of the picture."""

    inputs: InputOptions
    outputs: OutputOptions
    config: Config = dataclasses.field(default_factory=Config.from_preset)
    devices: DeviceOptions = DeviceOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    # The options as its caller was given them, for ResumeRecord.given: plain data that a job only stores.
    given: Sequence[Mapping[str, Any]] = ()

    @property
    def references(self) -> References:
        """What the finished picture is judged against."""
        inputs, config = self.inputs, self.config
        return References(inputs.content, inputs.style, config.style_mix, config.stroke_size)


def check(request: Request) -> None:
    """Raise InputError if files cannot be written, or options contradict each other; reads no picture."""
    inputs, files, config = request.inputs, request.outputs, request.config
    if not files.output:
        raise InputError("`output`", f"a file that ends in {' '.join(images.FORMATS)}", "not given")
    check_inputs(inputs, config)
    if not inputs.content and files.output_size == "content":
        raise InputError("`output_size`", "working where there is no `content`", "got content")
    images.check_output(files.output)
    images.check_bit_depth(files.output, files.bit_depth)
    if files.mask_preview:
        images.check_output(files.mask_preview)
        if not (inputs.content_mask or any(inputs.style_mask) or inputs.content_labels):
            allowed = "with `content_mask`, `style_mask` or `content_labels`"
            raise InputError("`mask_preview`", allowed, "none was given")
    if files.report:
        check_writable(Path(files.report))
    if files.judge and not files.report:
        raise InputError("`judge`", "with `report`", "it is not given")
    if files.plot:
        check_plot()
        images.check_output(files.plot, PLOT_FORMATS)
    folder = request.checkpoint.folder
    if folder:
        check_folder(folder)
    written = [files.output, files.report, files.plot, files.mask_preview, str(folder or "")]
    flags = "`output`, `report`, `plot`, `mask_preview`, `save_every`, `checkpoint`"
    check_different(inputs, config, written + _previews(files, config), flags)


def _previews(files: OutputOptions, config: Config) -> list[str]:
    """Return the names of all previews. Raises InputError if there are too many."""
    if not files.save_every:
        return []
    steps = range(files.save_every, config.steps + 1, files.save_every)
    if len(steps) > MAX_PREVIEWS:
        raise InputError("`save_every`", f"at most {MAX_PREVIEWS} previews", f"got {len(steps)}")
    return [files.preview(step) for step in steps]


def facts_of(request: Request, pictures: Pictures, weights: Weights, devices: int) -> dict[str, Any]:
    """Return what every checkpoint's record says of a run.

    Args:
        request: with the config that is run.
        pictures: what was read, at the working size.
        weights: of the network.
        devices: how many share the picture.

    Returns:
        given: the options as the caller was given them. told: what the result's bits depend on, in words.
        iterations: the steps of each scale.
    """
    options = {f"--{name}": _as_flag(value) for name, value in request.config.values().items()}
    told = (
        options
        | by_name(pictures)
        | {"weights": weights.sha256}
        | surroundings(devices, request.config.precision)
    )
    return {
        "given": [dict(part) for part in request.given],
        "told": {name: fingerprint(value) for name, value in told.items()},
        "iterations": [scale.iterations for scale in request.config.pyramid()],
    }


def _as_flag(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def alike(request: Request, pictures: Pictures, weights: Weights) -> dict[str, Any]:
    """Return by name what must be equal in all processes: options, files that were read, versions.

    Args:
        request: What is asked for.
        pictures: That were read.
        weights: Of the network.
    """
    devices = dataclasses.replace(request.devices, process_id=0)
    parts = (request.inputs, request.outputs, devices, request.checkpoint)
    return (
        {f"--{name}": value for part in parts for name, value in dataclasses.asdict(part).items()}
        | {f"--{name}": value for name, value in request.config.values().items()}
        | by_name(pictures)
        | {"weights": weights.sha256, "nst_jax": nst_jax.__version__, "jax": jax.__version__}
        | {"devices of a process": jax.local_device_count()}
    )


def by_name(pictures: Pictures) -> dict[str, Any]:
    """Return the pictures and masks by name."""
    content, styles, init, masks = pictures
    named = {f"--style {k}": style for k, style in enumerate(styles, 1)}
    masked = {f"the pixels of {as_flags(name)}": mask for name, mask, _ in masks.named()}
    return {"--content 1": content} | named | {"--init 1": init} | masked
