"""The optimisation: one compiled chunk of steps, and the generator that runs chunk after chunk."""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import NotEnoughMemory
from nst_jax.masks import Masks
from nst_jax.objective import (
    Frame,
    LossWeights,
    Spec,
    Targets,
    Terms,
    coefficients,
    loss_terms,
    mask_by_layer,
    shown,
    style_statistics,
    summarize,
    weighted_sum,
)
from nst_jax.optimizers import OPTIMIZERS, Iterate, evaluate
from nst_jax.problem import Problem, finish
from nst_jax.scales import make_problems
from nst_jax.vgg import AnyArray, Params


class Average(NamedTuple):
    """The exponential average of the pictures after each step, its bias corrected.

    A_t = d A_(t-1) + (1 - d) x_t from A_0 = 0, divided by 1 - d^t; before the first step the first picture.
    """

    image: Float[Array, "h w 3"]
    decay: Float[Array, ""]  # d


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
    average: Average | None = None


class Left(NamedTuple):
    """What a rung leaves to the next one."""

    image: Float32[np.ndarray, "h w 3"]
    memory: Any  # of the optimiser, None where the next rung starts afresh
    scale: Float[Array, ""]  # of the gradients that it has seen
    step: int
    evaluations: int


class Progress(NamedTuple):
    """Where the optimisation stands between two chunks, on the host."""

    step: int  # over all rungs, as evaluations are
    evaluations: int
    image: Float32[np.ndarray, "h w 3"]  # sRGB in [0, 1]
    losses: dict[
        str, Any
    ]  # total (weighted); content, style, tv, content_by_layer, style_by_layer (unweighted)
    finite: bool
    converged: bool = False  # no further step would find a lower loss
    rung: int = 1  # from 1, the coarsest
    rungs: int = 1


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
    """Optimise a picture, yielding a Progress at the start of each rung and where `every` divides the step.

    Pictures are sRGB in [0, 1] and used at the sizes they have (config.size and style_scale are for files).
    With config.scales they have the last rung's, with config.size for the longest side; the other rungs take
    them smaller, and every rung but the first starts from the picture of the one before, enlarged.
    With config.average the image is the average; the losses are those of the newest picture in it, but at the
    start and the end of a rung those of the image itself.
    every: 0 takes a hundredth of the iterations, at most 10. init: the first picture, in place of the one
    that config.init names. Without content, config.init must not be content, and the picture
    has the size of init or of the first style. masks say where the styles act; elsewhere the picture is the
    content (without one: the first picture) to the bit. Ends early where a loss is not finite, and a rung
    where no step lowers it (Progress.finite, .converged).
    Raises InputError where the pictures and options do not go together, NotEnoughMemory where the
    compiled loop would take more than free_memory bytes.
    """
    config = config or Config()
    problems, rungs = make_problems(params, content, styles, config, init, masks), config.rungs()
    if free_memory is not None:
        _check_memory(free_memory, problems[-1])
    every = every or chunk_steps(config.steps)
    left: Left | None = None
    for number, (problem, rung) in enumerate(zip(problems, rungs, strict=True), 1):
        left = yield from _climb(problem, rung.iterations, (number, len(rungs)), left, every)
        if left is None:
            return


def _climb(
    problem: Problem, iterations: int, place: tuple[int, int], left: Left | None, every: int
) -> Generator[Progress, None, Left | None]:
    """Run the rung at a place, from what the last one left; return what it leaves, None where not finite."""
    targets, spec, shape = problem.targets(), problem.spec, problem.first.shape
    rest = targets, problem.weights, spec, _decay(problem)
    done, spent = (left.step, left.evaluations) if left else (0, 0)

    def told(state: State) -> Progress:
        now = progress(tell(state, targets.frame, spec), targets.frame, problem)
        return now._replace(
            step=done + now.step, evaluations=spent + now.evaluations, rung=place[0], rungs=place[1]
        )

    first = images.resize(left.image, *shape[:2]) if left else problem.first
    state = start(problem.params, jnp.asarray(first), *rest)
    carry = OPTIMIZERS[spec.optimizer].carry
    if left and carry:
        state = state._replace(memory=carry(left.memory, shape, state.scale / left.scale))
    now = told(state)
    yield now
    end = done + iterations
    while now.step < end and now.finite and not now.converged:
        steps = np.int32(min(every - now.step % every, end - now.step))
        state = run_chunk(state, steps, problem.params, targets, problem.weights, problem.learning_rate, spec)
        now = told(state)
        if state.average and (now.step == end or not now.finite):
            own = told(start(problem.params, state.average.image, *rest))
            finite, evaluations = now.finite and own.finite, now.evaluations + 1
            now = now._replace(losses=own.losses, finite=finite, evaluations=evaluations)
        yield now
    if not now.finite:
        return None
    picture = state.average.image if state.average else state.iterate.image
    return Left(np.array(picture), state.memory if carry else None, state.scale, now.step, now.evaluations)


def _decay(problem: Problem) -> Float[Array, ""] | None:
    average = problem.config.average
    return jnp.asarray(average, jnp.float32) if average else None


def chunk_steps(iterations: int) -> int:
    """Return the steps of a chunk: a hundredth of the iterations, from 1 to 10 so that nobody waits long."""
    return min(10, max(1, iterations // 100))


def _check_memory(free: int, problem: Problem) -> None:
    """Raise NotEnoughMemory where a program of the run, compiled here for it, takes more than free bytes."""
    params, first, weights, spec = problem.params, problem.first, problem.weights, problem.spec
    number = jax.ShapeDtypeStruct((), jnp.float32)
    sources = problem.masks.sources_of(len(problem.styles))
    programs = [
        (style, style_statistics.lower(params, style, number, mask_by_layer(source, spec), spec))
        for style, source in zip(problem.styles, sources, strict=True)
    ]
    targets = jax.eval_shape(problem.targets)
    decay = _decay(problem)
    programs.append((first, start.lower(params, first, targets, weights, spec, decay)))
    if problem.config.steps:  # it takes more than start, which need not be compiled yet
        state = jax.eval_shape(partial(start, spec=spec), params, first, targets, weights, decay=decay)
        loop = run_chunk.lower(state, np.int32(0), params, targets, weights, number, spec)
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
    params: Params,
    image: Float[Array, "h w 3"],
    targets: Targets,
    weights: LossWeights,
    spec: Spec,
    decay: Float[Array, ""] | None = None,
) -> State:
    """Return the state at step 0, after one evaluation; with a decay it averages."""
    iterate = evaluate(partial(_objective, params, targets, spec), coefficients(weights), image)
    finite, scale = _is_finite(iterate), _power_of_two(iterate.gradient)
    iterate = iterate._replace(value=scale * iterate.value, gradient=scale * iterate.gradient)
    memory = OPTIMIZERS[spec.optimizer].init(image)
    average = None if decay is None else Average(image, decay)
    return State(iterate, memory, scale, jnp.int32(0), jnp.int32(1), finite, jnp.asarray(False), average)


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
        moved = finite & ~converged
        count = state.step + moved.astype(jnp.int32)
        return State(
            kept,
            memory,
            state.scale,
            count,
            state.evaluations + evaluations,
            finite,
            converged,
            state.average and _include(state.average, kept.image, count, moved),
        )

    def goes_on(state: State) -> Bool[Array, ""]:
        return (state.step < stop) & state.finite & ~state.converged

    return jax.lax.while_loop(goes_on, advance, state)


run_chunk = jax.jit(chunk, static_argnames="spec", donate_argnames="state")


def _include(
    average: Average, image: Float[Array, "h w 3"], count: Int[Array, ""], moved: Bool[Array, ""]
) -> Average:
    """Return the average with the picture after `count` steps, if the last one was taken.

    A_t / (1 - d^t) is A_(t-1) / (1 - d^(t-1)) moved towards x_t by the share (1 - d) / (1 - d^t).
    """
    decayed = -jnp.expm1(count.astype(jnp.float32) * jnp.log(average.decay))
    share = jnp.where(moved, (1 - average.decay) / decayed, 0)
    return average._replace(image=jnp.clip(average.image + share * (image - average.image), 0, 1))


def _objective(params: Params, targets: Targets, spec: Spec, image: Array, factors: Terms) -> Array:
    return weighted_sum(factors, loss_terms(params, image, targets, spec))


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


@jax.jit(static_argnames="spec")
def tell(state: State, frame: Frame | None, spec: Spec) -> Told:
    """Return copies of what is told of a state: the next chunk takes the state's own buffers."""
    image = shown(state.average.image if state.average else state.iterate.image, frame, spec)
    return Told(image, state.iterate.terms, state.step, state.evaluations, state.finite, state.converged)


def progress(told: Told, frame: Frame | None, problem: Problem) -> Progress:
    """Return what is told of a state, on the host."""
    told, opacity = jax.device_get((told, frame and frame.opacity))
    return Progress(
        step=int(told.step),
        evaluations=int(told.evaluations),
        image=finish(np.array(told.image), problem.photograph, opacity, problem.config),
        losses=summarize(told.terms, jax.device_get(problem.weights)),
        finite=bool(told.finite),
        converged=bool(told.converged),
    )
