"""The optimisation: one compiled chunk of steps, and the generator that runs chunk after chunk."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from nst_jax import color, vgg
from nst_jax import masks as masking
from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.masks import Masks
from nst_jax.objective import (
    Frame,
    LossWeights,
    Spec,
    Targets,
    Terms,
    coefficients,
    loss_terms,
    make_targets,
    shown,
    style_statistics,
    summarize,
    weighted_sum,
)
from nst_jax.optimizers import OPTIMIZERS, Iterate, evaluate
from nst_jax.vgg import Params, check_size


class State(NamedTuple):
    """Everything the next step needs; donated to it."""

    iterate: Iterate
    memory: Any  # of the optimiser
    scale: Float[
        Array, ""
    ]  # of value and gradient: a power of two that makes the first gradient's norm about 1
    step: Int[Array, ""]
    evaluations: Int[Array, ""]
    finite: Bool[Array, ""]  # False: the last step met a number that is not finite and was not taken
    converged: Bool[Array, ""]


class Progress(NamedTuple):
    """Where the optimisation stands between two chunks, on the host."""

    step: int
    evaluations: int
    image: Float32[np.ndarray, "h w 3"]  # sRGB in [0, 1]
    losses: dict[
        str, Any
    ]  # total (weighted); content, style, tv, content_by_layer, style_by_layer (unweighted)
    finite: bool
    converged: bool = False  # no further step would find a lower loss


def stylize(
    params: Params,
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    config: Config | None = None,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
    masks: Masks | None = None,
) -> Progress:
    """Return the last Progress of stylize_steps: its image has the content of one and the style of others."""
    *_, last = stylize_steps(params, content, styles, config, init, masks)
    return last


def stylize_steps(
    params: Params,
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    config: Config | None = None,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
    masks: Masks | None = None,
    every: int = 0,
    free_memory: int | None = None,
) -> Iterator[Progress]:
    """Optimise a picture, yielding a Progress at step 0 and after every chunk of `every` steps.

    Pictures are sRGB in [0, 1] and used at the sizes they have (config.size and style_scale are for files).
    every: 0 takes a hundredth of the iterations, at most 10. init: the first picture, in place of the one
    that config.init names. Without content, config.init must not be content, and the picture
    has the size of init or of the first style. masks say where the styles act; elsewhere the picture is the
    content (without one: the first picture) to the bit. Ends early where a loss is not finite, and where no
    step lowers it (Progress.finite, .converged).
    Raises InputError where the pictures and options do not go together, NotEnoughMemory where the
    compiled loop would take more than free_memory bytes.
    """
    config = config or Config()
    spec = config.spec()
    _check_pictures(content, styles, init, config, spec)
    if missing := set(spec.content_layers + spec.style_layers) - params.convolutions.keys():
        raise InputError("params", f"the parameters of {config.network}", f"they lack {min(missing)}")
    if content is None:
        spec = spec._replace(content_layers=())
    first = first_picture(content, styles, config, init)
    check_size(first.shape, spec.content_layers + spec.style_layers, "picture")
    params = vgg.cast(params, config.precision)  # once, not in every evaluation
    masks = masks or Masks()
    _check_masks(masks, first, styles, spec)
    photograph = content
    background = first if content is None else content
    if content is not None:
        styles = _color_styles(content, styles, masks, config)
    if spec.luminance:
        first, background = color.luma(first), color.luma(background)
        content = None if content is None else background

    weights = config.loss_weights(len(styles))
    weights = weights._replace(
        content_layers={name: weights.content_layers[name] for name in spec.content_layers}
    )
    learning_rate = jnp.asarray(config.learning_rate, jnp.float32)
    aim = partial(
        make_targets,
        spec=spec,
        activation_shift=config.activation_shift,
        tv_power=config.tv_power,
        masks=masks,
        background=background,
    )
    if free_memory is not None:
        _check_memory(free_memory, aim, params, first, content, styles, weights, spec, config.iterations)
    targets = aim(params, content, styles)
    tell = partial(
        _progress, weights=weights, targets=targets, spec=spec, photograph=photograph, config=config
    )
    state = start(params, jnp.asarray(first), targets, weights, spec)
    progress = tell(state)
    yield progress
    every = every or chunk_steps(config.iterations)
    while progress.step < config.iterations and progress.finite and not progress.converged:
        steps = np.int32(min(every, config.iterations - progress.step))
        state = run_chunk(state, steps, params, targets, weights, learning_rate, spec)
        progress = tell(state)
        yield progress


def finish(
    image: Float32[np.ndarray, "h w 3"],
    photograph: Float32[np.ndarray, "h w 3"] | None,
    opacity: Float32[np.ndarray, "h w"] | None,
    config: Config,
) -> Float32[np.ndarray, "h w 3"]:
    """Return the picture with the photograph's colours, where asked, and its pixels where opacity is 0."""
    if photograph is None:
        return image
    image = color.COLOR_MODES[config.preserve_color].finish(image, photograph)
    return image if opacity is None else np.where(opacity[..., None] > 0, image, photograph)


def _color_styles(
    content: Float32[np.ndarray, "h w 3"],
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    masks: Masks,
    config: Config,
) -> list[Float32[np.ndarray, "_ _ 3"]]:
    """Return the styles with the colours that the mode gives them: of the region where each of them acts."""
    parts = masking.regions(masks)
    regions = [None] if parts is None else list(parts)
    regions = regions * len(styles) if len(regions) == 1 else regions
    sources = masks.sources or [None] * len(styles)
    mode, match = config.preserve_color, config.color_match
    return [
        color.prepare_style(mode, style, content, match, source, region)
        for style, source, region in zip(styles, sources, regions, strict=True)
    ]


def chunk_steps(iterations: int) -> int:
    """Return the steps of a chunk: a hundredth of the iterations, from 1 to 10 so that nobody waits long."""
    return min(10, max(1, iterations // 100))


def first_picture(
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    config: Config,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
) -> Float32[np.ndarray, "_ _ 3"]:
    """Return the picture the optimisation starts from: content, uniform noise, the first style, or init."""
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
    """Return uniform noise in [0, 1): white, as in Gatys et al. 2015."""
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def _check_pictures(content: Any, styles: Sequence[Any], init: Any, config: Config, spec: Spec) -> None:
    if not styles:
        raise InputError("style", "at least one style picture", "got none")
    for what, pictures in {"content": [content], "style": styles, "init": [init]}.items():
        for picture in pictures:
            if picture is not None and not (
                picture.dtype == np.float32 and 0 <= picture.min() <= picture.max() <= 1
            ):
                came = f"got {picture.dtype} from {picture.min()} to {picture.max()}"
                raise InputError(what, "float32 numbers in [0, 1]", came)
    if content is None and config.content_weight:
        raise InputError("content", "a content picture, or content_weight 0", "got none")
    if content is None and config.preserve_color != "none":
        came = f"got {config.preserve_color} without one"
        raise InputError("--preserve_color", "none where there is no content picture", came)
    if content is not None:
        check_size(content.shape, spec.content_layers + spec.style_layers, "content")
    for style in styles:
        check_size(style.shape, spec.style_layers, "style")


def _check_masks(masks: Masks, first: Any, styles: Sequence[Any], spec: Spec) -> None:
    """Raise InputError unless there is a mask for each style, of its picture's size, white enough."""
    for what, found in {"style_mask": masks.styles, "style_source_mask": masks.sources}.items():
        if found and len(found) != len(styles):
            raise InputError(f"--{what}", f"one for each of the {len(styles)} styles", f"got {len(found)}")
    named = [("content_mask", masks.content, first)]
    named += [(f"style_mask {k}", mask, first) for k, mask in enumerate(masks.styles, 1)]
    named += [(f"style_source_mask {k + 1}", mask, styles[k]) for k, mask in enumerate(masks.sources)]
    for what, mask, picture in named:
        if mask is None:
            continue
        if mask.shape != picture.shape[:2]:
            raise InputError(what, f"rows and columns {picture.shape[:2]}", f"got {mask.shape}")
        if mask.dtype != np.float32 or not 0 <= mask.min() <= mask.max() <= 1:
            came = f"got {mask.dtype} from {mask.min()} to {mask.max()}"
            raise InputError(what, "float32 numbers in [0, 1]", came)
        masking.check(what, mask, spec.style_layers)
    parts = masking.regions(masks)
    if parts is not None and masks.styles and masks.content is not None:
        for k, region in enumerate(parts, 1):
            masking.check(f"style_mask {k} within content_mask", region, spec.style_layers)


def _check_memory(
    free: int,
    aim: Any,
    params: Params,
    first: Any,
    content: Any,
    styles: Sequence[Any],
    weights: LossWeights,
    spec: Spec,
    iterations: int,
) -> None:
    """Raise NotEnoughMemory where a program of the run, compiled here for it, takes more than free bytes."""
    number = jax.ShapeDtypeStruct((), jnp.float32)
    targets = jax.eval_shape(aim, params, content, styles)
    programs = [(style, style_statistics.lower(params, style, number, None, spec)) for style in styles]
    programs.append((first, start.lower(params, first, targets, weights, spec)))
    if iterations:  # it takes more than start, which need not be compiled yet
        state = jax.eval_shape(partial(start, spec=spec), params, first, targets, weights)
        loop = run_chunk.lower(state, np.int32(0), params, targets, weights, number, spec)
        programs[-1] = (first, loop)
    for picture, program in programs:
        memory = program.compile().memory_analysis()
        needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0
        if needed > free:
            height, width = picture.shape[:2]
            share = (free / needed) ** 0.5 * 0.95  # of a side: memory grows with the pixels
            raise NotEnoughMemory(
                f"memory: a picture of {width}x{height} pixels needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free; {int(width * share)}x{int(height * share)} would fit"
            )


@jax.jit(static_argnames="spec")
def start(
    params: Params, image: Float[Array, "h w 3"], targets: Targets, weights: LossWeights, spec: Spec
) -> State:
    """Return the state at step 0, after one evaluation."""
    iterate = evaluate(partial(_objective, params, targets, spec), coefficients(weights), image)
    finite, scale = _is_finite(iterate), _power_of_two(iterate.gradient)
    iterate = iterate._replace(value=scale * iterate.value, gradient=scale * iterate.gradient)
    memory = OPTIMIZERS[spec.optimizer].init(image)
    return State(iterate, memory, scale, jnp.int32(0), jnp.int32(1), finite, jnp.asarray(False))


def _power_of_two(gradient: Float[Array, "h w 3"]) -> Float[Array, ""]:
    """Return the power of two, to bring the gradient's norm nearest to 1; 1 for norm 0."""
    largest = jnp.abs(gradient).max()
    usable = (largest > 0) & jnp.isfinite(largest)
    largest = jnp.where(usable, largest, 1.0)
    norm = jnp.linalg.norm(gradient / largest)  # of numbers whose squares fit into float32
    exponent = -jnp.round(jnp.log2(largest) + jnp.log2(jnp.where(usable, norm, 1.0)))
    return jnp.ldexp(jnp.float32(1), jnp.clip(exponent, -120, 120).astype(jnp.int32))


@jax.jit(static_argnames="spec", donate_argnames="state")
def run_chunk(
    state: State,
    steps: Int[Array, ""] | np.int32,
    params: Params,
    targets: Targets,
    weights: LossWeights,
    learning_rate: Float[Array, ""],
    spec: Spec,
) -> State:
    """Return the state `steps` steps on, or at the last finite picture. `steps` is traced: one program."""
    objective = partial(_objective, params, targets, spec)
    factors = jax.tree.map(lambda factor: state.scale * factor, coefficients(weights))
    stop = state.step + steps

    def advance(state: State) -> State:
        step = OPTIMIZERS[spec.optimizer].step
        iterate, memory, evaluations, converged = step(
            objective, factors, learning_rate, state.iterate, state.memory
        )
        finite = _is_finite(iterate)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), iterate, state.iterate)
        return State(
            kept,
            memory,
            state.scale,
            state.step + (finite & ~converged).astype(jnp.int32),
            state.evaluations + evaluations,
            finite,
            converged,
        )

    def goes_on(state: State) -> Bool[Array, ""]:
        return (state.step < stop) & state.finite & ~state.converged

    return jax.lax.while_loop(goes_on, advance, state)


def _objective(params: Params, targets: Targets, spec: Spec, image: Array, factors: Terms) -> Array:
    return weighted_sum(factors, loss_terms(params, image, targets, spec))


def _is_finite(iterate: Iterate) -> Bool[Array, ""]:
    return jnp.isfinite(iterate.value) & jnp.isfinite(iterate.gradient).all()


def _progress(
    state: State,
    weights: LossWeights,
    targets: Targets,
    spec: Spec,
    photograph: Float32[np.ndarray, "h w 3"] | None,
    config: Config,
) -> Progress:
    """Copy what is told of a state to the host: the next chunk takes the state's own buffers."""
    image, terms = jax.device_get((_shown(state.iterate.image, targets.frame, spec), state.iterate.terms))
    opacity = None if targets.frame is None else np.asarray(targets.frame.opacity)
    return Progress(
        step=int(state.step),
        evaluations=int(state.evaluations),
        image=finish(np.array(image), photograph, opacity, config),
        losses=summarize(terms, jax.device_get(weights)),
        finite=bool(state.finite),
        converged=bool(state.converged),
    )


@jax.jit(static_argnames="spec")
def _shown(image: Array, frame: Frame | None, spec: Spec) -> vgg.AnyArray:
    return shown(image, frame, spec)
