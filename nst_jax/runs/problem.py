"""What an optimization is given: pictures, masks and numbers, checked together, as the loop takes them."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from nst_jax.config import Config, Scale, lpips_of
from nst_jax.errors import InputError
from nst_jax.images import color
from nst_jax.images import masks as masking
from nst_jax.images.masks import Masks
from nst_jax.losses import TERMS
from nst_jax.metrics import lpips
from nst_jax.networks.base import Params, cast, check_picture, check_size
from nst_jax.objective import sharding
from nst_jax.objective.objective import Targets
from nst_jax.objective.targets import make_targets
from nst_jax.objective.weights import LossWeights
from nst_jax.optimize.balancing import balanced
from nst_jax.optimize.loop import Inputs
from nst_jax.pytrees import Pytree
from nst_jax.spec import Spec

Picture = Float32[np.ndarray, "_ _ 3"]


class Problem(Pytree):
    """An optimization of one scale: pictures as the network is to see them, numbers, and what is static."""

    params: Params
    first: Picture  # where the optimization starts
    content: Picture | None
    styles: list[Picture]
    photograph: Picture | None  # the content in its own colors
    masks: Masks
    weights: LossWeights
    learning_rate: Float[Array, ""]
    decay: Float[Array, ""] | None  # of the average, None where there is none
    spec: Spec
    steps: int
    numbers: dict[str, float]  # options that terms take traced, by name
    loss_balancing: str  # the option, as tile and preserve_color are
    tile: str
    preserve_color: str
    strength: float | None  # None where the weights alone count
    seed: int | None  # of the noise that it starts from; None: from another picture

    @property
    def background(self) -> Picture:
        """What shows where no mask is white."""
        return self.first if self.content is None else self.content

    @property
    def target_lpips(self) -> float:
        """The LPIPS to the photograph that the strength wants; NaN where it is left to the weights."""
        return math.nan if self.strength is None else lpips_of(self.strength)

    @property
    def loop_weights(self) -> LossWeights:
        """The weights in the loop: 0 where it begins with the photograph and a strength of 0 asks for it.

        There a loss of content can be above 0, by rounding, and would move the picture.
        """
        there = self.strength == 0 and self.content is not None and np.array_equal(self.first, self.content)
        return jax.tree.map(jnp.zeros_like, self.weights) if there else self.weights

    def with_term(self, name: str, weight: float) -> "Problem":
        """Return the problem with a term that no option has, whose targets are given (Term.given)."""
        spec, weights = self.spec, self.weights.with_terms(**{name: jnp.float32(weight)})
        spec = spec._replace(terms=(*spec.terms, name), plugged=(*spec.plugged, TERMS[name]))
        return self.replace(spec=spec, weights=weights)

    def targets(self) -> Targets:
        """Return the content's activations and the styles' statistics. This runs the network."""
        return make_targets(
            self.params,
            self.content,
            self.styles,
            self.spec,
            masks=self.masks,
            background=self.background,
            **self.numbers,
        )

    def inputs(self, targets: Targets) -> Inputs:
        """Return what the loop runs on."""
        return Inputs(
            params=self.params,
            targets=targets,
            weights=self.loop_weights,
            learning_rate=self.learning_rate,
        )

    def balanced(self, targets: Targets) -> "Problem":
        """Return the problem with its weights in units of their terms' pulls, with loss_balancing=auto."""
        if self.loss_balancing == "none":
            return self
        inputs = self.inputs(targets).replace(weights=self.weights)
        weights = balanced(inputs, self.spec, self.background, self.styles[0], self.decay)
        return self.replace(weights=weights)


def make_problem(
    params: Params,
    content: Picture | None,
    styles: Sequence[Picture],
    config: Config,
    init: Picture | None = None,
    masks: Masks | None = None,
    scale: Scale | None = None,
) -> Problem:
    """Return the problem of some pictures.

    Args:
        params: The network.
        content: The photograph. None: there is none.
        styles: The paintings.
        config: The options.
        init: The first picture. None: the one that config.init names.
        masks: Where each style acts. None: everywhere.
        scale: Of config.pyramid(). None: the last one.

    Raises:
        InputError: They do not go together.
    """
    scale = scale or config.pyramid()[-1]
    spec, masks = config.spec(), masks or Masks()
    check_pictures(content, styles, init)
    _check_config(content, config)
    _check_params(params, spec)
    if content is None:
        spec = spec._replace(content_layers=())
    measurable = content is not None and min(content.shape[:2]) >= lpips.SMALLEST
    spec = spec._replace(steered=config.target_lpips is not None and measurable)
    first = first_picture(content, styles, config, init)
    _check_number(masks, len(styles))
    check_sizes(first.shape, [style.shape for style in styles], masks, spec)
    styles = masks.each(styles)
    return Problem(
        params=cast(params, config.precision),  # once, not in every evaluation
        first=color.luma(first) if spec.luminance else first,
        content=color.luma(content) if spec.luminance and content is not None else content,
        styles=styles if content is None else _color_styles(content, styles, masks, config),
        photograph=content,
        masks=masks,
        decay=jnp.asarray(config.ema_decay, jnp.float32) if config.ema_decay else None,
        spec=spec,
        loss_balancing=config.loss_balancing,
        tile=config.tile,
        preserve_color=config.preserve_color,
        seed=config.seed if config.init == "noise" else None,
        **_hyperparameters(config, spec, masks.pictures(len(styles)), scale),
    )


def shard_problem(problem: Problem, mesh: Mesh | None) -> Problem:
    """Return the problem with the rows of its picture over a mesh; None: on one device, as it is."""
    if mesh is None:
        return problem
    spec = sharding.spec_of(problem.first, problem.spec._replace(mesh=mesh))
    params, weights, rate, decay = sharding.replicate(
        (problem.params, problem.weights, problem.learning_rate, problem.decay), spec
    )
    return problem.replace(params=params, weights=weights, learning_rate=rate, decay=decay, spec=spec)


def _hyperparameters(config: Config, spec: Spec, pictures: Sequence[int], scale: Scale) -> dict[str, Any]:
    """Return the fields of a Problem that are numbers: other ones never recompile."""
    names = [option for name in spec.terms for option, _ in TERMS[name].numbers]
    return {
        "weights": _loss_weights(config, spec, pictures, scale),
        "learning_rate": jnp.asarray(config.learning_rate, jnp.float32),
        "steps": scale.iterations,
        "numbers": {name: getattr(config, name) for name in names},
        "strength": config.strength if spec.steered else None,
    }


def _loss_weights(config: Config, spec: Spec, pictures: Sequence[int], scale: Scale) -> LossWeights:
    """Return the weights of the terms there are: without a content picture it has none.

    pictures: the number of each style's picture, whose share of the mix its styles have in equal parts.
    """
    weights = config.loss_weights(max(pictures) + 1, (scale.size / config.size) ** 2)
    of_content = [name for name in spec.terms if TERMS[name].of_content]
    shares = np.asarray(weights.style_mix) / np.bincount(pictures).astype(np.float32)
    return weights.replace(
        parts=weights.parts | ({} if spec.content_layers else {name: {} for name in of_content}),
        style_mix=jnp.asarray(shares[list(pictures)]),
    )


def finish(
    image: Float32[np.ndarray, "h w 3"],
    photograph: Float32[np.ndarray, "h w 3"] | None,
    opacity: Float32[np.ndarray, "h w"] | None,
    preserve_color: str,
) -> Float32[np.ndarray, "h w 3"]:
    """Return the picture with the photograph's colors, where asked, and its pixels where opacity is 0.

    Args:
        image: As the loop shows it.
        photograph: The content in its own colors. None: there is none.
        opacity: Of the regions. None: there are no masks.
        preserve_color: The option.
    """
    if photograph is None:
        return image
    image = color.finish_picture(preserve_color, image, photograph)
    return image if opacity is None else np.where(opacity[..., None] > 0, image, photograph)


def first_picture(
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    config: Config,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
) -> Float32[np.ndarray, "_ _ 3"]:
    """Return the picture the optimization starts from: content, uniform noise, the first style, or init.

    Args:
        content: None: there is none.
        styles: The paintings.
        config: The options.
        init: None: the one that config.init names.
    """
    if init is not None:
        if content is not None and init.shape != content.shape:
            raise InputError("init", f"the content's shape {content.shape}", f"got {init.shape}")
        return init
    if config.init == "content" and content is not None:
        return content
    shape = (styles[0] if content is None else content).shape
    if config.init == "noise":
        return noise_picture(shape[0], shape[1], config.seed)
    if config.init == "style" and styles[0].shape == shape:
        return styles[0]
    allowed = (
        "content (with a content picture), noise, style (of the picture's size), or a picture given as init"
    )
    raise InputError("init", allowed, f"got {config.init}")


def noise_picture(height: int, width: int, seed: int) -> Float32[np.ndarray, "{height} {width} 3"]:
    """Return uniform noise in [0, 1): white, as in Gatys et al. 2015.

    Args:
        height: Rows.
        width: Columns.
        seed: Of the generator.
    """
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def _color_styles(
    content: Float32[np.ndarray, "h w 3"],
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    masks: Masks,
    config: Config,
) -> list[Float32[np.ndarray, "_ _ 3"]]:
    """Return the styles with the colors that the mode gives them: of the region where each of them acts."""
    parts = masking.regions(masks)
    regions = [None] if parts is None else list(parts)
    regions = regions * len(styles) if len(regions) == 1 else regions
    sources = masks.sources_of(len(styles))
    mode, match = config.preserve_color, config.color_match
    colored = []
    for k, (style, source, region) in enumerate(zip(styles, sources, regions, strict=True)):
        try:
            colored.append(color.prepare_style(mode, style, content, match, source, region))
        except InputError as error:
            masked = "" if region is None and source is None else ", where the masks are white"
            which = f"{masks.labels[k]}" if masks.labels else f"{k + 1}{masked}"
            raise InputError(error.what, error.allowed, f"{error.came} (style {which})") from None
    return colored


def check_pictures(content: Any, styles: Sequence[Any], init: Any) -> None:
    """Raise InputError unless there is a style and all are pictures (h, w, 3), of float32 in [0, 1].

    Args:
        content: None: there is none.
        styles: The paintings.
        init: None: there is none.
    """
    if not len(styles):
        raise InputError("style", "at least one style picture", "got none")
    for what, pictures in {"content": [content], "style": styles, "init": [init]}.items():
        for picture in pictures:
            if picture is not None:
                check_picture(what, picture)
                if picture.dtype != np.float32:
                    raise InputError(what, "float32 numbers in [0, 1]", f"got {picture.dtype}")


def _check_params(params: Params, spec: Spec) -> None:
    allowed = f"the parameters of {spec.network.name}"
    if other := set(spec.network.names) ^ params.convolutions.keys():
        came = f"they {'have' if min(other) in params.convolutions else 'lack'} {min(other)}"
        raise InputError("params", allowed, came)
    if params.network != spec.network:
        raise InputError("params", allowed, f"got those of {params.network.name}")


def _check_config(content: Any, config: Config) -> None:
    for name in config.spec().terms if content is None else ():
        if TERMS[name].of_content and (option := TERMS[name].when):
            raise InputError(f"`{option}`", "with a content picture", "got none")
        if TERMS[name].of_content and config.weight(name):
            raise InputError("content", f"a content picture, or {name}_weight 0", "got none")
    if content is None and config.preserve_color != "none":
        came = f"got {config.preserve_color} without one"
        raise InputError("`preserve_color`", "none where there is no content picture", came)


def _check_number(masks: Masks, styles: int) -> None:
    """Raise InputError unless there is a mask, or a label map, for each style picture."""
    found: dict[str, Any] = {"style_mask": masks.styles, "style_source_mask": masks.sources}
    if masks.labels:
        found = {"style_labels": set(masks.pictures(styles))}
    for what, ones in found.items():
        if len(ones) not in (0, styles):
            raise InputError(f"`{what}`", f"one for each of the {styles} styles", f"got {len(ones)}")


def check_sizes(size: Sequence[int], style_sizes: Sequence[Sequence[int]], masks: Masks, spec: Spec) -> None:
    """Raise InputError where a layer sees nothing of a picture, a style or what a mask leaves of them.

    Args:
        size: Rows and columns of the picture.
        style_sizes: Those of each style.
        masks: Each of its picture's size.
        spec: What is static.
    """
    check_size(size, spec.network.select(spec.layers), "content" if spec.content_layers else "picture")
    for style_size in style_sizes:
        check_size(style_size, spec.network.select(spec.style_layers), "style")
    of_styles = masks.each(style_sizes)
    for what, mask, style in masks.named():
        if mask is None:
            continue
        shape, of = (size[:2], "picture") if style is None else (of_styles[style][:2], "style")
        if mask.shape != tuple(shape):
            raise InputError(what, f"rows and columns {tuple(shape)}", f"got {mask.shape}")
        if mask.dtype != np.float32 or not 0 <= mask.min() <= mask.max() <= 1:
            came = f"got {mask.dtype} from {mask.min()} to {mask.max()}"
            raise InputError(what, "float32 numbers in [0, 1]", came)
        masking.check(what, mask, spec.network, spec.style_layers, of)
    parts = masking.regions(masks)
    if parts is not None and len(masks.styles) and masks.content is not None:
        for (what, *_), region in zip(masks.named()[1:], parts, strict=False):
            masking.check(f"{what} within `content_mask`", region, spec.network, spec.style_layers)


def with_hyperparameters(problem: Problem, config: Config) -> Problem:
    """Return the problem with the loss weights, the numbers and, from noise, the seed of config."""
    first, seed = problem.first, problem.seed
    if seed is not None and config.seed != seed:
        first, seed = noise_picture(first.shape[0], first.shape[1], config.seed), config.seed
        first = color.luma(first) if problem.spec.luminance else first
    pictures = problem.masks.pictures(len(problem.styles))
    numbers = _hyperparameters(config, problem.spec, pictures, config.pyramid()[-1])
    return problem.replace(first=first, seed=seed, **numbers)
