"""Coarse to fine: the problem of every scale, made and checked before the first one runs."""

import dataclasses
from collections.abc import Sequence

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images import masks as masking
from nst_jax.images.masks import Masks
from nst_jax.networks.base import Params
from nst_jax.runs.problem import Picture, Problem, check_sizes, make_problem, noise_picture


def settled(
    config: Config,
    content: Picture | None,
    styles: Sequence[Picture],
    init: Picture | None = None,
    masks: Masks | None = None,
) -> Config:
    """Return the config without those scales of its own choice (scales auto) whose pictures are too small.

    Of a narrow picture, a narrow style or a small mask the deepest layer may see nothing there.

    Args:
        config: The options.
        content: None: there is none.
        styles: The paintings.
        init: None: there is none.
        masks: None: there are none.
    """
    scales = config.pyramid()
    if config.scales != "auto" or len(scales) == 1 or not styles:
        return config
    size = next(one.shape[:2] for one in (content, init, styles[0]) if one is not None)
    spec = config.spec()
    spec = spec if content is not None else spec._replace(content_layers=())
    for number, scale in enumerate(scales):
        here, *style_sizes = _sizes(scale.size, config, size, styles)
        try:
            check_sizes(here, style_sizes, masking.resize_all(masks or Masks(), here, style_sizes), spec)
        except InputError:
            continue
        if number == 0:
            return config
        assert isinstance(config.iterations, tuple)
        steps = config.iterations[number:] if len(config.iterations) > 1 else config.iterations
        left = ",".join(str(scale.size) for scale in scales[number:])
        return dataclasses.replace(config, scales=left, iterations=steps)
    return config  # make_problems says what is wrong with the last


def _sizes(
    longest: int, config: Config, size: Sequence[int], styles: Sequence[Picture]
) -> list[tuple[int, int]]:
    """Return the rows and columns of the picture and of the styles at a scale."""
    return [
        images.size_to_fit(shape[0], shape[1], max(1, round(max(shape[:2]) * longest / config.size)))
        for shape in (size, *(style.shape for style in styles))
    ]


def make_problems(
    params: Params,
    content: Picture | None,
    styles: Sequence[Picture],
    config: Config,
    init: Picture | None = None,
    masks: Masks | None = None,
) -> list[Problem]:
    """Return the problem of each of config.pyramid().

    At a scale a picture has size / config.size of its rows and columns. Noise is made anew at every size.

    Args:
        params: The network.
        content: None: there is none.
        styles: The paintings.
        config: The options.
        init: None: the one that config.init names.
        masks: Of the last scale's size, as the pictures are.

    Raises:
        InputError: Something does not go together, at the scale that is named.
    """
    last = make_problem(params, content, styles, config, init, masks)
    scales, size = config.pyramid(), last.first.shape[:2]
    if len(scales) > 1 and max(size) != config.size:
        came = f"got {size[1]}x{size[0]}"
        raise InputError("`scales`", f"a picture whose longest side is `size`, {config.size}", came)
    problems = []
    for number, scale in enumerate(scales[:-1], 1):
        here, *style_sizes = _sizes(scale.size, config, size, styles)
        first = None if init is None else images.resize(init, *here)
        try:
            problem = make_problem(
                last.params,
                None if content is None else images.resize(content, *here),
                [images.resize(style, *to) for style, to in zip(styles, style_sizes, strict=True)],
                config,
                noise_picture(*here, config.seed) if config.init == "noise" else first,
                masks and masking.resize_all(masks, here, style_sizes),
                scale,
            )
        except InputError as error:
            where = f"scale {number} of {len(scales)}, {scale.size} pixels"
            raise InputError(error.what, error.allowed, f"{error.came} ({where})") from None
        problems.append(problem)
    return [*problems, last]
