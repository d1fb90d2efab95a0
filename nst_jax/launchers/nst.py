"""Make one picture (or one texture): the content of a photograph in the style of one or more paintings.

Example: nst --content=example:cat --style=example:night --output=cat.png
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

import nst_jax
from nst_jax import images
from nst_jax import masks as masking
from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.files import check_writable, write_whole
from nst_jax.launchers import device
from nst_jax.launchers.common import DONE, INTERRUPTED, WRONG_NUMBERS, Given, Program, fail, launch, tell
from nst_jax.launchers.display import Display
from nst_jax.masks import Masks
from nst_jax.options import check_options, option
from nst_jax.problem import finish, noise_picture
from nst_jax.report import PLOT_FORMATS, check_plot, history, plot_losses, resolved, to_json
from nst_jax.transfer import Progress, chunk_steps, stylize_steps
from nst_jax.vgg import Params, make_params
from nst_jax.weights import Weights, load_weights

GRAYS = 0.02  # share of grey pixels from which a mask is said to be grey: edges of drawn ones have less


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a run: what is read, what is written."""

    content: str = option(
        "", "photograph, a file or example:NAME; not needed with --init=noise --content_weight=0"
    )
    style: tuple[str, ...] = option((), "painting, a file or example:NAME", repeated=True)
    content_mask: str = option("", "mask, a file or example:NAME: white where any style may act")
    style_mask: tuple[str, ...] = option(
        (), "mask for each style, in their order: white where it acts; empty: everywhere", repeated=True
    )
    style_source_mask: tuple[str, ...] = option(
        (), "mask for each style: white on the part of it that is used; empty: all of it", repeated=True
    )
    soft_masks: bool = option(False, "keep the greys of masks, in place of a cut at 127 of 255")
    mask_preview: str = option("", "picture to write that shows which style acts where")
    output: str = option("", "picture to write: .png .jpg .webp .tif .avif; whole or not at all")
    weights: str = option(
        "", "network weights converted by nst-weights; without: the bundled or fetched ones"
    )
    output_size: str = option(
        "working",
        "working (as optimised), or content (resampled to the content's size)",
        choices=("working", "content"),
    )
    report: str = option("", "JSON file for losses, options and timings")
    plot: str = option("", "picture file for the loss curves: .png .svg .pdf")
    save_every: int = option(0, "steps between previews OUTPUT.step000050.png; 0: none", low=0, high=10**7)
    max_pixels: int = option(images.MAX_PIXELS, "largest picture that is read, in pixels", low=1, high=2**40)

    def __post_init__(self) -> None:
        check_options(self)


class Pictures(NamedTuple):
    """The pictures of a run at their working sizes."""

    content: np.ndarray | None
    styles: list[np.ndarray]
    init: np.ndarray | None
    masks: Masks
    alpha: np.ndarray | None  # the content's
    output_size: tuple[int, int]  # rows, columns
    photograph: np.ndarray | None  # the content at the output's size, where that is another one
    opacity: np.ndarray | None  # and, with masks, how much of each of its pixels is the picture's


class Run(NamedTuple):
    """What an optimisation came to."""

    last: Progress
    history: list[tuple[int, dict[str, Any]]]  # step and losses
    seconds: dict[str, float]


def main(files_given: Given, config_given: Given) -> int:
    """Run `nst` with the options given. Raises InputError before anything is written."""
    began = time.monotonic()
    files, config = Files(**files_given), Config.from_preset(**config_given)
    device.set_up()
    _check_files(files, config)
    pictures = _load_pictures(files, config)
    weights = load_weights(config.network, files.weights or None)
    with _interrupts() as interrupted:
        run = _optimize(make_params(weights.arrays), pictures, files, config, interrupted)
        _write(run, pictures, files, config, weights, began)
    if not run.last.finite:
        came = f"not finite after step {run.last.step}, whose picture is {files.output}"
        return fail(WRONG_NUMBERS, InputError("loss", "finite numbers (smaller weights?)", came))
    if interrupted():
        return fail(INTERRUPTED, f"interrupted: {files.output} is the picture of step {run.last.step}")
    if run.last.converged:
        logging.info("converged: no step lowers the loss after step %d", run.last.step)
    return DONE


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C has come; until the end it does nothing else.

    So the chunk in hand is not lost, and a second Ctrl-C does not hit the writing of the picture; a third
    one ends the process.
    """
    came: list[int] = []

    def take(number: int, _: object) -> None:
        came.append(number)
        if len(came) == 3:
            os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, take)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


def _check_files(files: Files, config: Config) -> None:
    """Find out before the optimisation, not after it, whether everything can be written."""
    if not files.output:
        raise InputError("--output", f"a file that ends in {' '.join(images.FORMATS)}", "not given")
    if not all(files.style) or not files.style:
        raise InputError("--style", "a file or example:NAME", "not given")
    if not files.content and config.content_weight:
        raise InputError(
            "--content", "a file or example:NAME; or --init=noise --content_weight=0", "not given"
        )
    if not files.content and config.init == "content":
        raise InputError("--init", "noise, style or a file where there is no --content", "got content")
    if not files.content and files.output_size == "content":
        raise InputError("--output_size", "working where there is no --content", "got content")
    config.loss_weights(len(files.style))
    for name in ("style_mask", "style_source_mask"):
        if (count := len(getattr(files, name))) not in (0, len(files.style)):
            allowed = f"one for each --style, {len(files.style)} (empty: white everywhere)"
            raise InputError(f"--{name}", allowed, f"got {count}")
    images.check_output(files.output)
    if files.mask_preview:
        images.check_output(files.mask_preview)
        if not (files.content_mask or any(files.style_mask)):
            raise InputError("--mask_preview", "with --content_mask or --style_mask", "neither was given")
    if files.report:
        check_writable(Path(files.report))
    if files.plot:
        check_plot()
        images.check_output(files.plot, PLOT_FORMATS)
    _check_different(files, config)


def _check_different(files: Files, config: Config) -> None:
    """Refuse to write a file twice, or over a picture or weights that are read."""
    read = [files.content, *files.style, files.weights]
    read += [files.content_mask, *files.style_mask, *files.style_source_mask]
    if config.init not in ("content", "noise", "style"):
        read.append(config.init)
    taken = {_real_path(images.resolve(name)) for name in read if name}
    for name in filter(None, (files.output, files.report, files.plot, files.mask_preview)):
        path = _real_path(Path(name))
        if path in taken:
            raise InputError(
                "--output, --report, --plot, --mask_preview",
                "each a file of its own",
                f"{name} is named twice",
            )
        taken.add(path)


def _real_path(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return str(path)


def _load_pictures(files: Files, config: Config) -> Pictures:
    """Read the pictures and bring them to their working sizes; the alpha of the content goes along."""
    content = images.load(files.content, files.max_pixels) if files.content else None
    styles = [images.load(name, files.max_pixels) for name in files.style]
    first = content or styles[0]
    size = _fit(first.rgb, config.size)
    output_size = (first.rgb.shape[0], first.rgb.shape[1]) if files.output_size == "content" else size
    images.check_output_size(files.output, *output_size)
    init = None
    if config.init == "style":
        init = images.resize(styles[0].rgb, *size)
    elif config.init not in ("content", "noise"):
        init = images.resize(images.load(config.init, files.max_pixels).rgb, *size)
    elif config.init == "noise":
        init = noise_picture(*size, config.seed)
    style_size = max(1, round(config.size * config.style_scale))
    style_sizes = [_fit(style.rgb, style_size) for style in styles]
    alpha = content.alpha if content else None
    masks = _load_masks(files, first.rgb, [style.rgb for style in styles])
    resampled = content is not None and output_size != size
    regions = masking.regions(_resize_masks(masks, output_size, style_sizes)) if resampled else None
    return Pictures(
        content=images.resize(content.rgb, *size) if content else None,
        styles=[images.resize(style.rgb, *to) for style, to in zip(styles, style_sizes, strict=True)],
        init=init,
        masks=_resize_masks(masks, size, style_sizes),
        alpha=None if alpha is None else images.resize(alpha, *output_size),
        output_size=output_size,
        photograph=images.resize(content.rgb, *output_size) if content and resampled else None,
        opacity=None if regions is None else masking.opacity(regions),
    )


def _load_masks(files: Files, picture: np.ndarray, styles: list[np.ndarray]) -> Masks:
    """Read the masks as they are; say where one is greyer than a mask that is cut at 127 should be."""

    def load(name: str, shape: tuple[int, ...], of: str) -> np.ndarray | None:
        if not name:
            return None
        mask, grays = masking.load(name, files.soft_masks, files.max_pixels)
        masking.check_aspect(name, mask, shape[0], shape[1], of)
        if grays > GRAYS and not files.soft_masks:
            logging.warning(
                "%s: %.0f%% of it is grey; cut at 127 of 255 (--soft_masks keeps the greys)",
                *(name, 100 * grays),
            )
        return mask

    sources = zip(files.style_source_mask, styles, strict=False)  # their number is checked
    of = "the content" if files.content else "the first style"
    return Masks(
        content=load(files.content_mask, picture.shape, of),
        styles=[load(name, picture.shape, of) for name in files.style_mask],
        sources=[load(name, style.shape, "its style") for name, style in sources],
    )


def _resize_masks(masks: Masks, size: tuple[int, int], style_sizes: list[tuple[int, int]]) -> Masks:
    def resize(mask: np.ndarray | None, to: tuple[int, int]) -> np.ndarray | None:
        return None if mask is None else masking.resize(mask, *to)

    return Masks(
        content=resize(masks.content, size),
        styles=[resize(mask, size) for mask in masks.styles],
        sources=[resize(mask, to) for mask, to in zip(masks.sources, style_sizes, strict=False)],
    )


def _fit(rgb: np.ndarray, longest: int) -> tuple[int, int]:
    return images.fit(rgb.shape[0], rgb.shape[1], longest)


def _optimize(
    params: Params, pictures: Pictures, files: Files, config: Config, interrupted: Callable[[], bool]
) -> Run:
    """Run the loop, showing progress and writing previews, until its end or until interrupted() is true."""
    every = chunk_steps(config.iterations)
    if files.save_every:
        every = math.gcd(every, files.save_every)
    last: Progress | None = None
    seen: list[tuple[int, dict[str, Any]]] = []
    with device.CompileTime() as compiling, Display(config.iterations) as display:
        steps = stylize_steps(
            *(params, pictures.content, pictures.styles, config, pictures.init, pictures.masks),
            every=every,
            free_memory=device.free_memory(),
        )
        try:
            for last in steps:
                if not seen:
                    began, compiled = time.monotonic(), compiling.seconds
                    if files.mask_preview:
                        _show_masks(last.image, pictures, files)
                if not seen or last.step > seen[-1][0]:
                    seen.append((last.step, last.losses))
                    display.show(last)
                    if files.save_every and last.step and last.step % files.save_every == 0:
                        _preview(last, pictures, files, config)
                if interrupted():
                    break
        except jax.errors.JaxRuntimeError as error:  # what the forecast did not see, such as other programs
            if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory")):
                raise
            height, width = _fit(
                pictures.styles[0] if pictures.content is None else pictures.content, config.size
            )
            came = f"the device ran out of it at {width}x{height}"
            raise NotEnoughMemory(
                f"memory: a smaller --size needs less, half of it a quarter; {came}"
            ) from None
    assert last is not None  # the loop always yields step 0
    optimize = time.monotonic() - began - (compiling.seconds - compiled)
    return Run(last, seen, {"compile": compiling.seconds, "optimize": optimize})


def _write(
    run: Run, pictures: Pictures, files: Files, config: Config, weights: Weights, began: float
) -> None:
    """Write the picture, then the report and the plot that were asked for, each whole."""
    _save(files.output, run.last.image, pictures, files, config)
    if files.report:
        report = _report(run, files, config, weights, began)
        write_whole(Path(files.report), to_json(report))
        tell(files.report)
    if files.plot:
        columns = history(run.history)
        write_whole(Path(files.plot), plot_losses(columns, config, Path(files.plot).suffix))
        tell(files.plot)


def _show_masks(image: np.ndarray, pictures: Pictures, files: Files) -> None:
    regions = masking.regions(pictures.masks)
    assert regions is not None  # _check_files has seen to it
    picture = image if pictures.content is None else pictures.content
    names = [Path(name).name for name in files.style]
    names = names if len(regions) > 1 else [", ".join(names)]
    images.save(files.mask_preview, masking.preview(picture, regions, names))
    tell(files.mask_preview)


def _preview(progress: Progress, pictures: Pictures, files: Files, config: Config) -> None:
    try:
        _save(f"{files.output}.step{progress.step:06d}.png", progress.image, pictures, files, config)
    except InputError as error:  # no reason to lose the picture itself
        logging.warning("%s", error)


def _save(path: str, image: np.ndarray, pictures: Pictures, files: Files, config: Config) -> None:
    # Not the output's own name: equal runs under other names give equal bytes.
    inputs = ("content", "style", "content_mask", "style_mask", "style_source_mask", "soft_masks")
    sources = {name: value for name in inputs if (value := getattr(files, name))}
    settings = {"nst_jax": nst_jax.__version__, "config": {**sources, **resolved(config, len(files.style))}}
    rgb = images.resize(image, *pictures.output_size)
    rgb = finish(rgb, pictures.photograph, pictures.opacity, config)
    images.save(path, rgb, pictures.alpha, json.dumps(settings))
    tell(path)


def _report(run: Run, files: Files, config: Config, weights: Weights, began: float) -> dict[str, Any]:
    last = run.last
    seconds = run.seconds | {"total": time.monotonic() - began}
    seconds["per_evaluation"] = run.seconds["optimize"] / max(1, last.evaluations - 1)
    return {
        "nst_jax": nst_jax.__version__,
        "config": {**dataclasses.asdict(files), **resolved(config, len(files.style))},
        "weights": {
            "network": weights.network,
            "normalization": weights.normalization,
            "sha256": weights.sha256,
            "source": weights.source,
        },
        "image": {"height": last.image.shape[0], "width": last.image.shape[1]},
        "losses": {"initial": run.history[0][1], "final": last.losses},
        "history": history(run.history),
        "evaluations": last.evaluations,
        "seconds": seconds,
        "device": device.describe(),
        "peak_memory_bytes": device.peak_memory(),
    }


PROGRAM = Program("nst", __doc__, (Files, Config), main)


def console() -> None:
    """Run the program `nst` on the command line."""
    launch(PROGRAM)
