"""Sweeps: many optimisations by one compiled program, a lane for each, over as many devices as there are."""

import math
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.objective import LossWeights, Spec, Targets
from nst_jax.problem import Problem
from nst_jax.transfer import Progress, State, Told, chunk, chunk_steps, progress, start, tell
from nst_jax.vgg import Params

BYTES_PER_PIXEL = 6000  # of a lane with the five usual layers: a guess, which the compiler's count corrects


class SweepProgress(NamedTuple):
    """Where a sweep stands between two chunks."""

    lanes: tuple[int, ...]  # the problems that run now, by number
    step: int
    finished: dict[int, Progress]  # those that have just come to their end


class Varied(NamedTuple):
    """Which parts of the targets are a lane's own; the others are held once for all."""

    content: bool
    style: bool
    frame: bool


def sweep(
    problems: Sequence[Problem],
    lanes: int = 0,
    every: int = 0,
    free_memory: int | None = None,
    devices: Sequence[Any] = (),
) -> Iterator[SweepProgress]:
    """Run all problems, `lanes` at a time in one compiled program, yielding after every chunk of steps.

    Each lane gives what transfer.stylize_steps gives for its problem, but for rounding. A lane that is not
    finite, or that no step lowers, stays where it is and touches no other. What problems share (content and
    styles by identity) is computed and held once. The lanes are spread evenly over the devices (all, if
    none are named). lanes: 0 takes what fits into free_memory bytes on each device, on CPUs one on each.
    Raises InputError for problems of different size, spec or iterations, NotEnoughMemory where not even one
    lane for each device fits.
    """
    _check_alike(problems)
    count = len(problems)
    devices = (devices or jax.devices())[:count]
    mesh = Mesh(np.array(devices), ("lanes",), axis_types=(AxisType.Auto,))
    parts = _Parts(problems)
    if not lanes:  # a CPU is busy with one: more at a time cost it more each, and finish later
        one = devices[0].platform == "cpu"
        lanes = len(devices) if one else _guess(problems[0], count, len(devices), free_memory)
    lanes = _fit(problems, parts, _even(count, lanes, len(devices)), mesh, free_memory)
    for first in range(0, count, lanes):
        numbers = tuple(range(first, min(count, first + lanes)))
        yield from _run(problems, parts, numbers, lanes, mesh, every)


def _check_alike(problems: Sequence[Problem]) -> None:
    first = problems[0]
    for problem in problems:
        if problem.spec != first.spec:
            raise InputError("sweep", "lanes of one compiled program", f"got {problem.spec} and {first.spec}")
        iterations = problem.config.iterations, first.config.iterations
        if iterations[0] != iterations[1]:
            raise InputError("sweep", "one number of iterations", f"got {iterations[0]} and {iterations[1]}")
        if problem.first.shape != first.first.shape:
            raise InputError(
                "sweep",
                "pictures of one size",
                f"got {_size(problem.first)} and {_size(first.first)}",
            )


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _guess(problem: Problem, count: int, devices: int, free: int | None) -> int:
    """Return how many lanes fit, from the pixels of one; no more than it takes to run all at once."""
    all_at_once = math.ceil(count / devices) * devices
    if free is None:
        return all_at_once
    height, width, _ = problem.first.shape
    return min(all_at_once, devices * max(1, int(free / (BYTES_PER_PIXEL * height * width))))


def _even(count: int, lanes: int, devices: int) -> int:
    """Return the lanes of a pass: at most as many, the same in every pass and on every device."""
    lanes = max(devices, lanes // devices * devices)
    each = math.ceil(count / math.ceil(count / lanes))
    return math.ceil(each / devices) * devices


def _fit(problems: Sequence[Problem], parts: "_Parts", lanes: int, mesh: Mesh, free: int | None) -> int:
    """Return lanes, or as many as the compiled program says will fit. What it compiles is what then runs."""
    if free is None:
        return lanes
    while True:
        static = {"spec": parts.spec, "varied": parts.varied, "mesh": mesh}
        batch = parts.batch(problems, (0,), lanes)
        states = jax.eval_shape(partial(_start, **static), *batch)
        program = _advance.lower(states, np.int32(0), *batch[1:], **static).compile()
        memory = program.memory_analysis()
        needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0
        if needed <= free:
            return lanes
        if lanes == mesh.size:
            raise NotEnoughMemory(
                f"memory: a lane of {_size(problems[0].first)} pixels needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free; a smaller --size needs less"
            )
        lanes = _even(len(problems), max(mesh.size, lanes // 2), mesh.size)


def _run(
    problems: Sequence[Problem],
    parts: "_Parts",
    numbers: tuple[int, ...],
    lanes: int,
    mesh: Mesh,
    every: int,
) -> Iterator[SweepProgress]:
    """Run one pass; lanes without a problem of their own repeat the last one."""
    iterations = problems[0].config.iterations
    every = every or chunk_steps(iterations)
    static = {"spec": parts.spec, "varied": parts.varied, "mesh": mesh}
    batch = parts.batch(problems, numbers, lanes)
    states, step = _start(*batch, **static), 0
    while True:
        running = jax.device_get(states.finite & ~states.converged)
        if step == iterations or not running.any():
            break
        yield SweepProgress(numbers, step, {})
        steps = min(every, iterations - step)
        states = _advance(states, np.int32(steps), *batch[1:], **static)
        step += steps
    frame = batch[2].frame
    told = jax.device_get(_tell(states, frame, **static))
    frame = jax.device_get(frame)
    finished = {}
    for lane, number in enumerate(numbers):
        own_frame = _lane(frame, lane) if parts.varied.frame else frame
        finished[number] = progress(_lane(told, lane), own_frame, problems[number])
    yield SweepProgress(numbers, step, finished)


def _lane(batch: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], batch)


class _Parts:
    """The targets of all problems: each content and each set of styles is put through the network once."""

    def __init__(self, problems: Sequence[Problem]):
        self.spec = problems[0].spec
        self.contents: dict[Hashable, Any] = {}
        self.styles: dict[Hashable, Any] = {}
        contents, styles, frames = (
            {key(problem) for problem in problems} for key in (_content_key, _style_key, _frame_key)
        )
        self.varied = Varied(len(contents) > 1, len(styles) > 1, len(frames) > 1)

    def targets(self, problem: Problem) -> Targets:
        """Return the problem's targets, from what is known of its content and styles."""
        content, style = _content_key(problem), _style_key(problem)
        if content not in self.contents:
            masks = problem.masks._replace(sources=())
            self.contents[content] = problem._replace(styles=[], masks=masks).targets().content
        if style not in self.styles:
            spec = problem.spec._replace(content_layers=())
            self.styles[style] = problem._replace(content=None, spec=spec).targets().style
        rest = problem._replace(styles=[], masks=problem.masks._replace(sources=()), content=None)
        rest = rest._replace(spec=problem.spec._replace(content_layers=()))
        background = problem.first if problem.content is None else problem.content
        around = rest._replace(first=background).targets()
        return around._replace(content=self.contents[content], style=self.styles[style])

    def batch(self, problems: Sequence[Problem], numbers: Sequence[int], lanes: int) -> Any:
        """Return first pictures, parameters, targets, loss weights and learning rates of a pass's lanes."""
        chosen = [problems[numbers[min(lane, len(numbers) - 1)]] for lane in range(lanes)]
        targets = [self.targets(problem) for problem in chosen]
        stacked = {
            name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(getattr(t, name) for t in targets))
            for name, varies in self.varied._asdict().items()
            if varies
        }
        weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(problem.weights for problem in chosen))
        return (
            jnp.asarray(np.stack([problem.first for problem in chosen])),
            chosen[0].params,
            targets[0]._replace(**stacked),
            weights,
            jnp.stack([problem.learning_rate for problem in chosen]),
        )


def _content_key(problem: Problem) -> Hashable:
    return id(problem.content)


def _style_key(problem: Problem) -> Hashable:
    return tuple(map(id, problem.styles))


def _frame_key(problem: Problem) -> Hashable:
    return id(problem.first if problem.content is None else problem.content)


def _axes(varied: Varied) -> Any:
    """Return the axis of Targets that counts the lanes: 0, or None where all share one."""
    axes: Any = {name: 0 if own else None for name, own in varied._asdict().items()}
    shared: Any = None
    return Targets(activation_shift=shared, tv_power=shared, regions=shared, **axes)


def _over_lanes(function: Any, axes: Sequence[Any], mesh: Mesh) -> Any:
    """Map function over the lanes of its arguments, each device taking its share of them."""
    specs = jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec("lanes"),
        tuple(axes),
        is_leaf=lambda axis: axis is None,
    )

    def share(*arguments: Any) -> Any:
        if jax.tree.leaves(arguments[axes.index(0)])[0].shape[0] > 1:
            return jax.vmap(function, in_axes=tuple(axes))(*arguments)
        # A lane by itself runs the single run's own program: a batch of one is rounded otherwise.
        own = jax.tree.map(
            lambda axis, part: part if axis is None else _lane(part, 0),
            tuple(axes),
            arguments,
            is_leaf=lambda axis: axis is None,
        )
        return jax.tree.map(lambda leaf: leaf[None], function(*own))

    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=specs,
        out_specs=PartitionSpec("lanes"),
        check_vma=False,  # the loop's length is each device's own
    )


@jax.jit(static_argnames=("spec", "varied", "mesh"))
def _start(
    first: Float[Array, "n h w 3"],
    params: Params,
    targets: Targets,
    weights: LossWeights,
    learning_rate: Float[Array, " n"],
    spec: Spec,
    varied: Varied,
    mesh: Mesh,
) -> State:
    del learning_rate  # takes part in no start
    lanes = _over_lanes(partial(start, spec=spec), (None, 0, _axes(varied), 0), mesh)
    return lanes(params, first, targets, weights)


@jax.jit(static_argnames=("spec", "varied", "mesh"), donate_argnames="states")
def _advance(
    states: State,
    steps: Int[Array, ""] | np.int32,
    params: Params,
    targets: Targets,
    weights: LossWeights,
    learning_rate: Float[Array, " n"],
    spec: Spec,
    varied: Varied,
    mesh: Mesh,
) -> State:
    lanes = _over_lanes(partial(chunk, spec=spec), (0, None, None, _axes(varied), 0, 0), mesh)
    return lanes(states, steps, params, targets, weights, learning_rate)


@jax.jit(static_argnames=("spec", "varied", "mesh"))
def _tell(states: State, frame: Any, spec: Spec, varied: Varied, mesh: Mesh) -> Told:
    return _over_lanes(partial(tell, spec=spec), (0, 0 if varied.frame else None), mesh)(states, frame)
