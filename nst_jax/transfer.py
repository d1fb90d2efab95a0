"""The optimisation: one compiled chunk of steps, and the generator that runs chunk after chunk."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from nst_jax import objective, rows, tiling
from nst_jax.config import Config
from nst_jax.errors import NotEnoughMemory
from nst_jax.masks import Masks
from nst_jax.objective import Frame, LossWeights, Spec, Targets, Terms, coefficients, shown, summarize
from nst_jax.optimizers import OPTIMIZERS, Iterate
from nst_jax.problem import Problem, finish, make_problem, spread
from nst_jax.targets import style_arguments, style_statistics
from nst_jax.vgg import AnyArray, Params


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
    devices: Sequence[jax.Device] | int = 1,
) -> Iterator[Progress]:
    """Optimise a picture, yielding a Progress at step 0 and after every chunk of `every` steps.

    Pictures are sRGB in [0, 1] and used at the sizes they have (config.size and style_scale are for files).
    every: 0 takes a hundredth of the iterations, at most 10. init: the first picture, in place of the one
    that config.init names. Without content, config.init must not be content, and the picture
    has the size of init or of the first style. masks say where the styles act; elsewhere the picture is the
    content (without one: the first picture) to the bit. Ends early where a loss is not finite, and where no
    step lowers it (Progress.finite, .converged). devices: those that have each a share of the picture's rows,
    or how many of those there are.
    Raises InputError where the pictures and options do not go together, NotEnoughMemory where the
    compiled loop would take more than free_memory bytes on a device.
    """
    mesh = rows.make_mesh(devices)
    problem = spread(make_problem(params, content, styles, config or Config(), init, masks), mesh)
    config, spec, weights = problem.config, problem.spec, problem.weights
    if free_memory is not None:
        _check_memory(free_memory, problem)
    targets = problem.targets()
    first = rows.put(rows.pad(problem.first, spec), spec)
    state = start(problem.params, first, targets, weights, spec)
    now = progress(tell(state, targets.frame, spec), problem)
    yield now
    every = every or chunk_steps(config.iterations)
    while now.step < config.iterations and now.finite and not now.converged:
        steps = np.int32(min(every, config.iterations - now.step))
        state = run_chunk(state, steps, problem.params, targets, weights, problem.learning_rate, spec)
        now = progress(tell(state, targets.frame, spec), problem)
        yield now


def chunk_steps(iterations: int) -> int:
    """Return the steps of a chunk: a hundredth of the iterations, from 1 to 10 so that nobody waits long."""
    return min(10, max(1, iterations // 100))


def _check_memory(free: int, problem: Problem) -> None:
    """Raise NotEnoughMemory where a program of the run, compiled here for it, takes more than free bytes."""
    params, first, weights, spec = problem.params, problem.first, problem.weights, problem.spec
    number = rows.put_everywhere(np.float32(0), spec)
    sources = problem.masks.sources_of(len(problem.styles))
    programs = [
        (style, style_statistics.lower(*style_arguments(params, style, number, source, spec)))
        for style, source in zip(problem.styles, sources, strict=True)
    ]
    targets = rows.placed(jax.eval_shape(problem.targets), spec)
    image = rows.put(rows.pad(first, spec), spec)
    programs.append((first, start.lower(params, image, targets, weights, spec)))
    if problem.config.iterations:  # it takes more than start, which need not be compiled yet
        state = jax.eval_shape(partial(start, spec=spec), params, image, targets, weights)
        state = rows.placed(state, spec)
        loop = run_chunk.lower(state, np.int32(0), params, targets, weights, problem.learning_rate, spec)
        programs[-1] = (first, loop)
    for picture, program in programs:
        needed = bytes_needed(program.compile())
        if needed > free:
            height, width = picture.shape[:2]
            share = (free / needed) ** 0.5 * 0.95  # of a side: memory grows with the pixels
            raise NotEnoughMemory(
                f"memory: a picture of {width}x{height} pixels needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free; {int(width * share)}x{int(height * share)} would fit"
            )


def bytes_needed(program: Any) -> int:
    """Return the bytes that a compiled program takes on each device, 0 where the compiler does not say.

    The loops' results are not counted: they take the place of the states that are donated.
    """
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0


@jax.jit(static_argnames="spec")
def start(
    params: Params, image: Float[Array, "h w 3"], targets: Targets, weights: LossWeights, spec: Spec
) -> State:
    """Return the state at step 0, after one evaluation."""
    iterate = _evaluate(params, targets, coefficients(weights), spec, image)
    finite, scale = _is_finite(iterate), _power_of_two(iterate.gradient)
    iterate = iterate._replace(value=scale * iterate.value, gradient=scale * iterate.gradient)
    memory = OPTIMIZERS[spec.optimizer].init(image)
    state = State(iterate, memory, scale, jnp.int32(0), jnp.int32(1), finite, jnp.asarray(False))
    return rows.keep(state, spec)


def _power_of_two(gradient: Float[Array, "h w 3"]) -> Float[Array, ""]:
    """Return the power of two, to bring the gradient's norm nearest to 1; 1 for norm 0."""
    largest = jnp.abs(gradient).max()
    usable = (largest > 0) & jnp.isfinite(largest)
    largest = jnp.where(usable, largest, 1.0)
    norm = jnp.linalg.norm(gradient / largest)  # of numbers whose squares fit into float32
    exponent = -jnp.round(jnp.log2(largest) + jnp.log2(jnp.where(usable, norm, 1.0)))
    return jnp.ldexp(jnp.float32(1), jnp.clip(exponent, -120, 120).astype(jnp.int32))


def chunk(
    state: State,
    steps: Int[Array, ""] | np.int32,
    params: Params,
    targets: Targets,
    weights: LossWeights,
    learning_rate: Float[Array, ""],
    spec: Spec,
) -> State:
    """Return the state `steps` steps on, or at the last finite picture. `steps` is traced: one program."""
    factors = jax.tree.map(lambda factor: state.scale * factor, coefficients(weights))
    evaluate = partial(_evaluate, params, targets, factors, spec)
    stop = state.step + steps

    def advance(state: State) -> State:
        step = OPTIMIZERS[spec.optimizer].step
        iterate, memory, evaluations, converged = step(evaluate, learning_rate, state.iterate, state.memory)
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


run_chunk = jax.jit(chunk, static_argnames="spec", donate_argnames="state")


def _evaluate(params: Params, targets: Targets, factors: Terms, spec: Spec, image: Array) -> Iterate:
    how = tiling.evaluate if spec.tile else objective.evaluate
    return Iterate(image, *how(params, image, targets, factors, spec))


def _is_finite(iterate: Iterate) -> Bool[Array, ""]:
    return jnp.isfinite(iterate.value) & jnp.isfinite(iterate.gradient).all()


class Told(NamedTuple):
    """What is told of a state."""

    image: Float[AnyArray, "h w 3"]  # as it is shown
    terms: Terms
    step: Int[AnyArray, ""]
    evaluations: Int[AnyArray, ""]
    finite: Bool[AnyArray, ""]
    converged: Bool[AnyArray, ""]
    opacity: Float[AnyArray, "h w"] | None  # of the frame


@jax.jit(static_argnames="spec")
def tell(state: State, frame: Frame | None, spec: Spec) -> Told:
    """Return copies of what is told of a state: the next chunk takes the state's own buffers."""
    image = rows.gather(shown(state.iterate.image, frame, spec), spec)
    opacity = frame and rows.gather(frame.opacity, spec)
    terms, step, evaluations = state.iterate.terms, state.step, state.evaluations
    return Told(image, terms, step, evaluations, state.finite, state.converged, opacity)


def progress(told: Told, problem: Problem) -> Progress:
    """Return what is told of a state, on the host."""
    told = jax.device_get(told)
    opacity = None if told.opacity is None else np.asarray(told.opacity)
    return Progress(
        step=int(told.step),
        evaluations=int(told.evaluations),
        image=finish(np.array(told.image), problem.photograph, opacity, problem.config),
        losses=summarize(told.terms, jax.device_get(problem.weights)),
        finite=bool(told.finite),
        converged=bool(told.converged),
    )
