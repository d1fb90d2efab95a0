"""What a size on paper makes of a request: its size in pixels, its resolution, a photograph cut to fit."""

import dataclasses
import logging

from nst_jax.errors import InputError
from nst_jax.runs.input_files import ImageCache, InputOptions, shape_of
from nst_jax.runs.paper import Paper, parse_paper
from nst_jax.runs.request import Request

LOG = logging.getLogger(__name__)

DPI = 300  # pixels per inch where no other number is given
SAME_ASPECT = 0.01  # the share of a side by which two aspects may differ


def on_paper(request: Request, cache: ImageCache) -> Request:
    """Return a request with the size and resolution that its print_size comes to.

    With crop the photograph in the cache is cut to the aspect of the paper, around its middle.

    Args:
        request: what is asked for.
        cache: reads the photograph.

    Raises:
        InputError: the options do not go together, or the aspect of the photograph is not the paper's.
    """
    inputs, outputs = request.inputs, request.outputs
    if not inputs.print_size:
        if inputs.crop:
            raise InputError("`crop`", "with `print_size`", "got none")
        return request
    _check(request)
    paper, dpi = parse_paper(inputs.print_size), outputs.dpi or DPI
    size = paper.size(paper.longest(dpi))
    if inputs.content or inputs.content_labels:
        _fit(inputs, paper, size, cache)
        name, _ = shape_of(inputs)
        own = min(pixels / there for pixels, there in zip(cache.read(name).size, size, strict=True)) * dpi
        LOG.info("%s has %.0f pixels per inch of its own at %s", name, own, paper)
    return dataclasses.replace(
        request,
        config=dataclasses.replace(request.config, size=max(size)),
        outputs=dataclasses.replace(outputs, dpi=dpi),
    )


def _check(request: Request) -> None:
    """Raise InputError where options contradict a size on paper."""
    if "size" in request.config.given:
        raise InputError("`print_size`", "in place of `size`", "got both")
    if request.outputs.output_size == "content":
        raise InputError("`print_size`", "with `output_size=working`", "got content")
    if request.inputs.crop and request.outputs.judge:
        raise InputError("`judge`", "without `crop`: it compares with the whole photograph", "got both")
    if request.inputs.crop and not (request.inputs.content or request.inputs.content_labels):
        raise InputError("`crop`", "with `content`", "got none")


def _fit(inputs: InputOptions, paper: Paper, size: tuple[int, int], cache: ImageCache) -> None:
    """Crop the photograph to rows and columns, or raise InputError where its aspect is another."""
    if inputs.crop:
        for name in filter(None, (inputs.content, inputs.content_labels)):
            cache.crop(name, size)
        return
    name, what = shape_of(inputs)
    height, width = cache.read(name).size
    rows = width * size[0] / size[1]
    if abs(height - rows) >= max(1, SAME_ASPECT * rows):
        allowed = f"the aspect of {what}, such as {paper.within((height, width))}, or `crop`"
        raise InputError("`print_size`", allowed, f"got {paper} for {width}x{height} pixels")
