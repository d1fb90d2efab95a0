"""What a job writes: the picture, its previews, report and plot, each whole, whatever comes of the others."""

import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nst_jax
from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, NotWritten
from nst_jax.files import write_whole
from nst_jax.images import masks as masking
from nst_jax.images.masks import Masks
from nst_jax.metrics import judge
from nst_jax.networks import convolutions
from nst_jax.networks.convolutions import in_force
from nst_jax.reports.report import Point, ended, history, plot_losses, resolved, scales, to_json
from nst_jax.runs.input_files import ImageCache, InputOptions, Pictures, working_size
from nst_jax.runs.judging import try_verdict
from nst_jax.runs.problem import finish
from nst_jax.runs.request import OutputOptions, Request
from nst_jax.runs.transfer import Progress
from nst_jax.system import device
from nst_jax.weights import Weights

LOG = logging.getLogger(__name__)
MISSED = 0.07  # of LPIPS: a strength that is farther off is told


class Canvas(NamedTuple):
    """How the picture is written."""

    files: OutputOptions
    config: Config
    size: tuple[int, int]  # rows, columns
    alpha: np.ndarray | None  # the content's
    photograph: np.ndarray | None  # the content
    opacity: np.ndarray | None  # with masks: how much of each pixel is the picture's
    settings: str | None = None  # that the file tells

    def save(self, path: str, image: np.ndarray) -> None:
        """Write an image at the size of the output. Raises NotWritten."""
        if image.shape[:2] != self.size:
            image = finish(
                images.resize(image, *self.size), self.photograph, self.opacity, self.config.preserve_color
            )
        bit_depth, dpi = self.files.bit_depth, self.files.dpi
        images.save(path, image, alpha=self.alpha, settings=self.settings, bit_depth=bit_depth, dpi=dpi)


def make_canvas(request: Request, cache: ImageCache, masks: Masks) -> Canvas:
    """Return how the picture is written: outside the masks with the content's own pixels, at any size.

    Args:
        request: what was asked for.
        cache: has the picture files.
        masks: as they were read.

    Raises:
        InputError: the format or the disk cannot hold the picture.
    """
    inputs, files, config = request.inputs, request.outputs, request.config
    height, width = working_size(inputs, config, cache)
    content = cache.read(inputs.content) if inputs.content else None
    if content and files.output_size == "content":
        height, width = content.size
    alpha = content and content.alpha
    images.check_output_size(files.output, height, width)
    images.check_space(files.output, height, width, alpha=alpha is not None, bit_depth=files.bit_depth)
    regions = masking.regions(masking.resize_all(masks._replace(sources=()), (height, width), []))
    return Canvas(
        files=files,
        config=config,
        size=(height, width),
        alpha=None if alpha is None else images.resize(alpha, height, width),
        photograph=cache.resize(inputs.content, height, width) if content else None,
        opacity=None if regions is None else masking.opacity(regions),
    )


class Outcome(NamedTuple):
    """What an optimization came to."""

    last: Progress
    history: list[Point]
    seconds: dict[str, float]
    tiles: list[int]  # of each scale, the longest side of a window; 0: at once


class Recipe(NamedTuple):
    """What the report tells beside an Outcome."""

    request: Request
    weights: Weights
    devices: int
    began: float  # on the monotonic clock


def write_all(outcome: Outcome, recipe: Recipe, canvas: Canvas, judged: bool) -> Iterator[str]:
    """Write the picture, report and plot that were asked for, and yield the name of each.

    Args:
        outcome: what is written.
        recipe: what it was made of.
        canvas: how the picture is written.
        judged: whether there is time to measure the picture.

    Raises:
        NotWritten: at the end, if one of them could not be written.
    """
    files, config = canvas.files, recipe.request.config
    lost: list[InputError] = []
    path = files.output
    try:
        canvas.save(path, outcome.last.image)
    except InputError as error:
        path, where = _rescue(canvas, outcome.last.image)
        lost.append(InputError(error.what, error.allowed, f"{error.came}; {where}"))
    if path:
        yield path
    verdict = {"judge": _judged(recipe.request) if judged and not lost else None} if files.judge else {}
    others: dict[str, Callable[[], bytes]] = {
        files.report: lambda: to_json(_report(outcome, recipe) | verdict),
        files.plot: lambda: plot_losses(
            history(outcome.history), outcome.last.losses["weights"], config, Path(files.plot).suffix
        ),
    }
    for name, made in others.items():
        try:
            if name:
                write_whole(Path(name), made())
                yield name
        except InputError as error:
            lost.append(error)
    for other in lost[1:]:
        LOG.error("%s", other)
    if lost:
        raise NotWritten(lost[0].what, lost[0].allowed, lost[0].came)


def _rescue(canvas: Canvas, image: np.ndarray) -> tuple[str, str]:
    """Write the picture to the folder of temporary files, as the disk has filled since it was checked.

    Return its name, empty if that fails too, and a sentence that says where it is.
    """
    try:
        path = str(Path(tempfile.mkdtemp(prefix="nst_jax-")) / Path(canvas.files.output).name)
        canvas.save(path, image)
    except (OSError, InputError) as error:
        return "", f"nor could it be written elsewhere ({error})"
    return path, f"it was written to {path}"


def _judged(request: Request) -> dict[str, Any] | None:
    """Return the measures of the picture that was written."""
    cache = ImageCache(request.inputs.max_pixels)
    return try_verdict(judge.load(), request.outputs.output, request.references, cache)


def save_mask_preview(path: str, image: np.ndarray, pictures: Pictures, inputs: InputOptions) -> bool:
    """Write the picture that shows which style acts where; log why if that fails.

    Args:
        path: the file.
        image: what is shown below the masks if there is no content.
        pictures: with masks.
        inputs: has the names of the styles.

    Returns:
        whether it was written.
    """
    regions = masking.regions(pictures.masks)
    assert regions is not None  # request.check has seen to it
    picture = images.resize(image, *regions.shape[1:]) if pictures.content is None else pictures.content
    names, colors = [Path(name).name for name in inputs.style], list(masking.COLORS)
    names = names if len(regions) > 1 else [", ".join(names)]
    if labels := pictures.masks.labels:  # each in its own color; all styles have the same
        names = colors = [label.name for label in labels if label.picture == 0]
        regions = regions[: len(names)]
    return _tried(lambda: images.save(path, masking.preview(picture, regions, names, colors)))


def save_preview(path: str, image: np.ndarray, canvas: Canvas) -> bool:
    """Write a preview, and return whether that was possible; log why if not.

    Args:
        path: Where it is written.
        image: RGB in [0, 1].
        canvas: How it is written.
    """
    return _tried(lambda: canvas.save(path, image))


def _tried(save: Callable[[], object]) -> bool:
    try:
        save()
    except InputError as error:  # no reason to lose the picture itself
        LOG.warning("%s", error)
        return False
    return True


def _report(outcome: Outcome, recipe: Recipe) -> dict[str, Any]:
    request, weights, devices, began = recipe
    config, last = request.config, outcome.last
    initial = next(point.losses for point in outcome.history if point.scale == last.scale)
    seconds = outcome.seconds | {"total": time.monotonic() - began}
    seconds["per_evaluation"] = outcome.seconds["optimize"] / max(1, last.evaluations - 1)
    options = (request.inputs, request.outputs, request.devices, request.checkpoint)
    asked = {name: value for part in options for name, value in dataclasses.asdict(part).items()}
    return {
        "nst_jax": nst_jax.__version__,
        "config": asked | resolved(config, len(request.inputs.style)),
        "weights": {
            "network": weights.network,
            "normalization": weights.normalization,
            "sha256": weights.sha256,
            "source": weights.source,
        },
        "image": {"height": last.picture.shape[0], "width": last.picture.shape[1]},
        "losses": {"initial": initial, "final": last.losses},
        "lpips": None if last.lpips is None else {"wanted": config.target_lpips, "reached": last.lpips},
        "scales": scales(outcome.history),
        "history": history(outcome.history),
        "ended": ended(outcome.history, config, last.finite, last.converged),
        "evaluations": last.evaluations,
        "seconds": seconds,
        "device": device.describe(devices),
        "precision": in_force(config.precision),
        "depends_on": device.depends_on(devices)
        | {"convolutions": convolutions.describe(config.precision), "tiles": outcome.tiles},
        "peak_memory_bytes": device.peak_memory(),
    }


def missed_strength(config: Config, last: Progress) -> str:
    """Say that a run came to another strength than it was asked for; empty where it did not."""
    target = config.target_lpips
    if last.lpips is None or target is None or not last.step or not abs(target - last.lpips) > MISSED:
        return ""
    return (
        f"`strength={config.strength:g}`: stands for an LPIPS to the photograph of {target:.2f}; after "
        f"{last.step} steps it is {last.lpips:.2f}; more `iterations` bring it nearer"
    )
