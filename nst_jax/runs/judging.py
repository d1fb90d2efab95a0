"""How a finished picture is judged: against which files, at which sizes, and what it was optimized on."""

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from nst_jax import images
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.images.masks import check_aspect
from nst_jax.metrics import judge
from nst_jax.networks.base import check_size
from nst_jax.runs.input_files import ImageCache
from nst_jax.system import device

LOG = logging.getLogger(__name__)
MAX_SIDE_PIXELS = 1024  # pixels: longest side of what is compared, so that memory is bounded
UNBOUNDED = 2**40  # pixels, of pictures that the program itself has written


class References(NamedTuple):
    """What pictures are measured against."""

    content: str
    styles: Sequence[str]
    style_mix: Sequence[float]
    stroke_size: float
    size: int = MAX_SIDE_PIXELS


def verdict(
    network: judge.Network, name: str, against: References, cache: ImageCache, max_pixels: int = UNBOUNDED
) -> dict[str, Any]:
    """Return the measures of a picture file by name, and at which size it was judged.

    optimized: those of the judge's layers that the run which made it optimized; None where the file does not
    tell.

    Args:
        network: From judge.load().
        name: The file.
        against: Content and styles.
        cache: Has the picture files.
        max_pixels: The largest picture that is read.

    Raises:
        InputError: Files do not go together.
        NotEnoughMemory: They are too large.
    """
    result = images.read(name, max_pixels)
    (height, width), style_sizes = judged_sizes(name, result.size, against, cache)
    content = cache.resize(against.content, height, width) if against.content else None
    styles = [cache.resize(style, *to) for style, to in zip(against.styles, style_sizes, strict=True)]
    with device.running_out(height, width):
        found = judge.measure(network, result.rgb(height, width), content, styles, against.style_mix)
    by_style = [
        {"style": style} | each for style, each in zip(against.styles, found.pop("by_style"), strict=True)
    ]
    optimized = optimized_layers(name)
    if optimized:
        LOG.info("%s was optimized on %s: its style_distance flatters", name, ", ".join(optimized))
    return found | {
        "by_style": by_style,
        "optimized": optimized,
        "image": {"height": height, "width": width},
    }


def try_verdict(
    network: judge.Network, name: str, against: References, cache: ImageCache
) -> dict[str, Any] | None:
    """Return verdict(...); where it cannot be had say why: no reason to lose what has been made.

    Args:
        network: From judge.load().
        name: The file.
        against: Content and styles.
        cache: Has the picture files.
    """
    try:
        return verdict(network, name, against, cache)
    except (InputError, NotEnoughMemory) as error:
        LOG.warning("not judged: %s", error)
        return None


def judged_sizes(
    name: str, size: tuple[int, int], against: References, cache: ImageCache
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Return rows and columns at which a result is compared, and those of its styles.

    Args:
        name: What the error calls it.
        size: Its rows and columns.
        against: Content and styles.
        cache: Has the picture files.

    Raises:
        InputError: It has not the content's aspect, or something is too small.
    """
    if against.content:
        check_aspect(name, size, cache.read(against.content).size, "the content", "a result")
    longest = min(max(size), int(against.size / max(1, against.stroke_size)))
    judged = images.size_to_fit(*size, longest)
    styles = [cache.size(style, max(1, round(longest * against.stroke_size))) for style in against.styles]
    for what, shape in zip((name, *against.styles), (judged, *styles), strict=True):
        check_size(shape, judge.NETWORK.select(judge.LAYERS), f"{what}, judged at {shape[1]}x{shape[0]}")
    return judged, styles


def optimized_layers(name: str) -> list[str] | None:
    """Return which of the judge's layers were style layers of the run that made a file, None if untold."""
    try:
        config = json.loads(images.read_settings(images.resolve(name)) or "")["config"]
        layers = config["style_layers"] if config["network"] == judge.NETWORK.name else []
        return [layer for layer in judge.LAYERS if layer in layers]
    except (ValueError, LookupError, TypeError, RecursionError):  # it may come from anywhere
        return None
