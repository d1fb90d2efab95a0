"""Sweeps: many optimizations by one compiled program, a lane for each, over as many devices as there are."""

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.images import masks as masking
from nst_jax.images.masks import Masks
from nst_jax.losses import TERMS
from nst_jax.objective.objective import Background, Targets
from nst_jax.objective.targets import (
    content_targets,
    make_background,
    regions_by_layer,
    style_targets,
    traced_numbers,
)
from nst_jax.objective.weights import Dial, LossWeights
from nst_jax.optimize import steering
from nst_jax.optimize.loop import (
    Inputs,
    Snapshot,
    State,
    carried_picture,
    initial_state,
    run_steps,
    snapshot,
)
from nst_jax.optimize.optimizers import OPTIMIZERS
from nst_jax.optimize.steering import Ruler, make_ruler
from nst_jax.pytrees import Pytree
from nst_jax.runs.memory_plan import needs_of
from nst_jax.runs.problem import Problem
from nst_jax.runs.transfer import Progress, ScaleResult, chunk_steps, enlarged, progress
from nst_jax.spec import Spec

T = TypeVar("T")
BYTES_PER_PIXEL = 6000  # of a lane with the five usual layers: a guess, which the compiler's count corrects


class SweepBatch(Pytree):
    """Some lanes between two chunks; its arrays are the next chunk's: they can be read until then."""

    states: State  # of a pass's lanes
    first: int  # number of the pass's first problem
    batch_size: int  # of every pass
    step: int


class SweepResumeState(Pytree):
    """Where a pass stood that goes on."""

    first: int
    batch_size: int
    step: int
    states: Callable[[State], State]  # returns the arrays, of the shapes and places that it is given


class SweepProgress(Pytree):
    """Where a sweep stands between two chunks."""

    lanes: tuple[int, ...]  # the problems that run now, by number
    step: int
    finished: dict[int, Progress]  # those that have just come to their end
    batch: SweepBatch
    # What can be asked until the next chunk, by number.
    told: Callable[[], dict[int, Progress]]
    results: Callable[[], dict[int, ScaleResult]]  # of those that are finished


class LaneAxes(NamedTuple):
    """Which parts of the targets are a lane's own; the others are held once for all."""

    content: bool  # what terms want of it
    style: bool
    background: bool


class Layout(NamedTuple):
    """What is static of a sweep's program."""

    spec: Spec
    varied: LaneAxes
    mesh: Mesh  # its one axis counts the lanes


class Course(Pytree):
    """What the lanes of a pass are steered by."""

    background: Background | None
    ruler: Ruler
    target_lpips: Float[Array, " n"]
    before: Any  # steps of the scales before


def sweep(
    problems: Sequence[Problem],
    batch_size: int = 0,
    report_every: int = 0,
    free_memory: int | None = None,
    devices: Sequence[Any] = (),
    done: Collection[int] = (),
    stopped: SweepResumeState | None = None,
    max_steps: Callable[[], int] | None = None,
    left: Sequence[ScaleResult] = (),
    varied: LaneAxes | None = None,
) -> Iterator[SweepProgress]:
    """Run all problems, `batch_size` at a time in one compiled program, yielding after every chunk of steps.

    Each lane gives what transfer.stylize_steps gives for its problem, but for rounding. A lane that is not
    finite, or that no step lowers, stays where it is and touches no other. What problems share (content and
    styles by identity) is computed and held once. The lanes are spread evenly over the devices.

    Args:
        problems: What is run, a lane for each.
        batch_size: Lanes at a time. 0: as many as fit into free_memory; on CPUs one for each device.
        report_every: Steps of a chunk. 0: by the number of iterations.
        free_memory: Bytes on each device.
        devices: Empty: all.
        done: Problems that are finished. A pass of such problems alone is left out. With the same batch_size
            the others give the same bits.
        stopped: Where one of the passes stood.
        max_steps: Asked before each chunk how many steps it may take.
        left: What each problem goes on from, of the scale before. Empty: they begin.
        varied: Which parts the program has for each lane, whether or not problems share them. None: those
            that they do not share.

    Raises:
        InputError: Problems differ in size, spec, masks of the picture, iterations, activation shift or power
            of the variation. Or they have an average.
        NotEnoughMemory: Not even one lane for each device fits.
    """
    _check_alike(problems)
    count = len(problems)
    devices = (devices or jax.devices())[:count]
    mesh = Mesh(np.array(devices), ("lanes",), axis_types=(AxisType.Auto,))
    parts = _Parts(problems, mesh, left, varied)
    if not batch_size:  # a CPU is busy with one: more at a time cost it more each, and finish later
        one = devices[0].platform == "cpu"
        batch_size = len(devices) if one else _guess(problems[0], count, len(devices), free_memory)
    batch_size = _fit(parts, _even(count, batch_size, len(devices)), free_memory)
    for first in range(0, count, batch_size):
        numbers = tuple(range(first, min(count, first + batch_size)))
        if not set(numbers) <= set(done):
            here = stopped and (stopped.first, stopped.batch_size) == (first, batch_size)
            resumed = stopped if here else None
            yield from _run(parts, numbers, batch_size, report_every, resumed, max_steps)


def _check_alike(problems: Sequence[Problem]) -> None:
    first = problems[0]
    for problem in problems:
        if problem.decay is not None:
            raise InputError("`ema_decay`", "not in a sweep", f"got {float(problem.decay):g}")
        if problem.spec != first.spec:
            raise InputError("sweep", "lanes of one compiled program", f"got {problem.spec} and {first.spec}")
        here, there = ({"number of iterations": one.steps} | _numbers(one) for one in (problem, first))
        for what in here:
            if here[what] != there[what]:
                raise InputError("sweep", f"one {what}", f"got {here[what]} and {there[what]}")
        if problem.first.shape != first.first.shape:
            came = f"got {_size(problem.first)} and {_size(first.first)}"
            raise InputError("sweep", "pictures of one size", came)
        if not _act_alike(problem.masks, first.masks):
            raise InputError("sweep", "the same masks in all lanes", "got others")


def _numbers(problem: Problem) -> dict[str, float]:
    return {f"`{option}`": number for option, number in problem.numbers.items()}


def _act_alike(one: Masks, other: Masks) -> bool:
    """Tell whether styles act in the same places; where they come from may differ, as the styles may."""
    pairs = zip_longest((one.content, *one.styles), (other.content, *other.styles))
    return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _guess(problem: Problem, count: int, devices: int, free: int | None) -> int:
    """Return how many lanes fit, from the pixels of one; no more than it takes to run all at once."""
    all_at_once = math.ceil(count / devices) * devices
    if free is None:
        return all_at_once
    height, width, _ = problem.first.shape
    return min(all_at_once, devices * max(1, int(free / (BYTES_PER_PIXEL * height * width))))


def _even(count: int, batch_size: int, devices: int) -> int:
    """Return the lanes of a pass: at most as many, the same in every pass and on every device."""
    batch_size = max(devices, batch_size // devices * devices)
    each = math.ceil(count / math.ceil(count / batch_size))
    return math.ceil(each / devices) * devices


def _fit(parts: "_Parts", batch_size: int, free: int | None) -> int:
    """Return batch_size, or less if the compiled program does not fit. It is the program that then runs."""
    devices = parts.layout.mesh.size
    while free is not None:
        first, inputs = parts.inputs((0,), batch_size)
        states = _states_of(first, inputs, parts.layout)
        needed = sum(needs_of(_advance, states, np.int32(0), inputs, parts.layout))
        if course := parts.course((0,), batch_size):
            needed = max(needed, sum(needs_of(_steer, states, course, parts.layout)))
        if needed <= free:
            break
        if batch_size == devices:
            size = _size(parts.problems[0].first)
            raise NotEnoughMemory(
                f"memory: a lane of {size} pixels needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free; a smaller `size` needs less"
            )
        batch_size = _even(len(parts.problems), max(devices, batch_size // 2), devices)
    return batch_size


def _run(
    parts: "_Parts",
    numbers: tuple[int, ...],
    batch_size: int,
    report_every: int,
    stopped: SweepResumeState | None,
    max_steps: Callable[[], int] | None,
) -> Iterator[SweepProgress]:
    """Run one pass; lanes without a problem of their own repeat the last one."""
    iterations = parts.problems[0].steps
    report_every = report_every or chunk_steps(iterations)
    now = _Pass(parts, numbers, batch_size, stopped)
    while now.step < iterations and now.moves():
        yield now.told({})
        steps = min(report_every - (parts.before + now.step) % report_every, iterations - now.step)
        now.advance(min(steps, max_steps()) if max_steps else steps)
    yield now.told(now.progress())


class _Pass:
    """A pass in hand: what its lanes run on, and where they stand."""

    def __init__(
        self,
        parts: "_Parts",
        numbers: tuple[int, ...],
        batch_size: int,
        stopped: SweepResumeState | None,
    ):
        self.parts, self.layout, self.numbers, self.batch_size = parts, parts.layout, numbers, batch_size
        first, self.inputs = parts.inputs(numbers, batch_size)
        self.background = self.inputs.targets.background
        self.course = parts.course(numbers, batch_size)
        self.step = stopped.step if stopped else 0
        if stopped:
            self.states = stopped.states(_states_of(first, self.inputs, self.layout))
            return
        left = parts.of_lanes(parts.left, numbers, batch_size)
        self.states = _start(first, self.inputs, self.layout, left)
        if self.course and not left:
            self.states = _steer(self.states, self.course, self.layout)

    def moves(self) -> bool:
        """Tell whether there is a lane that further steps would move."""
        return bool(jax.device_get(self.states.finite & ~self.states.converged).any())

    def advance(self, steps: int) -> None:
        """Take steps, with corrections on the way where a strength is in force."""
        stop = self.step + steps
        while self.step < stop:
            left = stop - self.step
            steps = steering.piece(self.parts.before + self.step, left) if self.course else left
            self.states = _advance(self.states, np.int32(steps), self.inputs, self.layout)
            self.step += steps
            if self.course:
                self.states = _steer(self.states, self.course, self.layout)

    def told(self, finished: dict[int, Progress]) -> SweepProgress:
        """Return where the pass stands."""
        first, step = self.numbers[0], self.step
        return SweepProgress(
            lanes=self.numbers,
            step=step,
            finished=finished,
            batch=SweepBatch(states=self.states, first=first, batch_size=self.batch_size, step=step),
            told=self.progress,
            results=partial(self.results, finished),
        )

    def progress(self) -> dict[int, Progress]:
        """Return where each lane stands, steps and evaluations counted over all scales."""
        last, found = jax.device_get(_snapshots(self.states, self.background, self.layout)), {}
        for lane, number in enumerate(self.numbers):
            problem = self.parts.problems[number]
            now = progress(_lane(last, lane), problem.replace(weights=jax.device_get(problem.weights)))
            if self.parts.left:
                origin = self.parts.left[number]
                now = now._replace(
                    step=origin.step + now.step, evaluations=origin.evaluations + now.evaluations
                )
            found[number] = now
        return found

    def results(self, finished: dict[int, Progress]) -> dict[int, ScaleResult]:
        """Return what the lanes leave to the next scale."""
        memory = self.states.memory if OPTIMIZERS[self.layout.spec.optimizer].carry else None
        image = _carried(self.states, self.background, self.layout)
        kept = jax.device_get((image, memory, self.states.scale, self.states.dial))
        found = {}
        for lane, number in enumerate(self.numbers):
            image, memory, scale, dial = _lane(kept, lane)
            step, evaluations = finished[number].step, finished[number].evaluations
            found[number] = ScaleResult(
                image=image, memory=memory, scale=scale, step=step, evaluations=evaluations, dial=dial
            )
        return found


def _states_of(first: Float[Array, "n h w 3"], inputs: Inputs, layout: Layout) -> State:
    """Return the shapes, types and places of the states of a pass; nothing is computed."""
    shapes = jax.eval_shape(partial(_initial_states, layout=layout), first, inputs.weights)
    place = NamedSharding(layout.mesh, PartitionSpec("lanes"))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)


def _lane(batch: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], batch)


class _Parts:
    """The problems as lanes: each content and each set of styles is put through the network once."""

    def __init__(
        self,
        problems: Sequence[Problem],
        mesh: Mesh,
        left: Sequence[ScaleResult] = (),
        varied: LaneAxes | None = None,
    ):
        first = problems[0]
        regions = masking.regions(first.masks)
        self.problems, self.left = problems, left
        self.firsts = [problem.first for problem in problems]
        if left:
            self.firsts = [enlarged(one, problem) for one, problem in zip(left, problems, strict=True)]
        self.before = max((one.step for one in left), default=0)  # fewer only of lanes that converged
        self.regions = regions_by_layer(regions, first.background.shape, first.spec)
        self.background = make_background(first.background, regions, first.spec)
        self.made: dict[Hashable, Any] = {}
        self.rulers: dict[int, Ruler | None] = {}
        contents = len({id(problem.content) for problem in problems}) > 1
        varied = varied or LaneAxes(
            content=contents,
            style=len({_style_key(problem) for problem in problems}) > 1,
            background=regions is not None and len({id(problem.background) for problem in problems}) > 1,
        )
        self.layout = Layout(first.spec, varied, mesh)
        if any(problem.loss_balancing != "none" for problem in problems):
            self.problems = [problem.balanced(self.targets(problem)) for problem in problems]

    def targets(self, problem: Problem) -> Targets:
        """Return the problem's targets; what it shares with another is made once."""
        params, content, spec = problem.params, problem.content, problem.spec
        numbers = traced_numbers(spec, **problem.numbers)
        if (content_key := id(content)) not in self.made:
            self.made[content_key] = {} if content is None else content_targets(params, content, spec)
        if (style_key := _style_key(problem)) not in self.made:
            self.made[style_key] = style_targets(params, problem.styles, problem.masks, numbers, spec)
        return Targets(
            terms=self.made[content_key] | self.made[style_key],
            numbers=numbers,
            regions=self.regions,
            background=self.background and self.background._replace(image=jnp.asarray(problem.background)),
        )

    def of_lanes(self, all_of: Sequence[T], numbers: Sequence[int], batch_size: int) -> list[T]:
        """Return what the lanes of a pass have of a sequence with one for each problem, or with none."""
        return [all_of[numbers[min(lane, len(numbers) - 1)]] for lane in range(batch_size if all_of else 0)]

    def inputs(self, numbers: Sequence[int], batch_size: int) -> tuple[Float[Array, "n h w 3"], Inputs]:
        """Return the first pictures of a pass's lanes, and what these run on."""
        chosen = self.of_lanes(self.problems, numbers, batch_size)
        targets, varied = [self.targets(problem) for problem in chosen], self.layout.varied
        terms = {
            name: _stack([target.terms[name] for target in targets]) if _varies(name, varied) else wanted
            for name, wanted in targets[0].terms.items()
        }
        background = (
            _stack([target.background for target in targets]) if varied.background else targets[0].background
        )
        first = jnp.asarray(np.stack(self.of_lanes(self.firsts, numbers, batch_size)))
        return first, Inputs(
            params=chosen[0].params,
            targets=targets[0].replace(terms=terms, background=background),
            weights=_stack([problem.loop_weights for problem in chosen]),
            learning_rate=jnp.stack([problem.learning_rate for problem in chosen]),
        )

    def course(self, numbers: Sequence[int], batch_size: int) -> Course | None:
        """Return what a pass's lanes are steered by, None where they are not."""
        chosen = self.of_lanes(self.problems, numbers, batch_size)
        rulers = []
        for problem in chosen:
            if (key := id(problem.content)) not in self.rulers:
                self.rulers[key] = make_ruler(problem.content, problem.spec)
            rulers.append(self.rulers[key])
        ruler, varied = rulers[0], self.layout.varied
        if ruler is None:
            return None
        if varied.content:
            ruler = ruler._replace(photograph=_stack([one.photograph for one in rulers if one]))
        frames = [self.targets(problem).background for problem in chosen]
        background = _stack(frames) if varied.background else frames[0]
        target_lpips = jnp.array([problem.target_lpips for problem in chosen], jnp.float32)
        before = np.int32(self.before)
        return Course(background=background, ruler=ruler, target_lpips=target_lpips, before=before)


def _style_key(problem: Problem) -> Hashable:
    return tuple(map(id, problem.styles))


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _varies(name: str, varied: LaneAxes) -> bool:
    """Tell whether what a term wants is a lane's own."""
    return bool((TERMS[name].of_content and varied.content) or (TERMS[name].of_style and varied.style))


def _axes(inputs: Inputs, varied: LaneAxes) -> Any:
    """Return the axis of Inputs that counts the lanes: 0, or None where all share one."""
    terms = {name: 0 if _varies(name, varied) else None for name in inputs.targets.terms}
    own: Any = 0
    shared: Any = None
    background = own if varied.background else shared
    targets = Targets(terms=terms, numbers=shared, regions=shared, background=background)
    return Inputs(params=shared, targets=targets, weights=own, learning_rate=own)


def _over_lanes(function: Any, axes: tuple[Any, ...], mesh: Mesh) -> Any:
    """Map function over the lanes of its arguments, each device taking its share of them."""

    def over(function: Any, *trees: Any) -> Any:  # jax.tree.map with the axes, of which None is one
        return jax.tree.map(function, axes, *trees, is_leaf=lambda axis: axis is None)

    def share(*arguments: Any) -> Any:
        if jax.tree.leaves(arguments[axes.index(0)])[0].shape[0] > 1:
            return jax.vmap(function, in_axes=axes)(*arguments)
        # A lane by itself runs the single run's own program: a batch of one is rounded otherwise.
        own = over(lambda axis, part: part if axis is None else _lane(part, 0), arguments)
        return jax.tree.map(lambda leaf: leaf[None], function(*own))

    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=over(lambda axis: PartitionSpec() if axis is None else PartitionSpec("lanes")),
        out_specs=PartitionSpec("lanes"),
        check_vma=False,  # the loop's length is each device's own
    )


@jax.jit(static_argnames="layout")
def _initial_states(
    first: Float[Array, "n h w 3"], weights: LossWeights, layout: Layout, dials: Dial | None = None
) -> State:
    def initial(first: Any, weights: LossWeights, dial: Dial | None) -> State:
        state = initial_state(first, weights, layout.spec)
        return state if dial is None else state.replace(dial=dial)

    return _over_lanes(initial, (0, 0, 0), layout.mesh)(first, weights, dials)


def _start(
    first: Float[Array, "n h w 3"], inputs: Inputs, layout: Layout, left: Sequence[ScaleResult] = ()
) -> State:
    """Return the states at step 0, after one evaluation.

    Args:
        first: The first pictures.
        inputs: What the lanes run on.
        layout: What is static.
        left: What each lane goes on from. Empty: they begin.
    """
    dials = _stack([one.dial for one in left]) if left else None
    states = _advance(_initial_states(first, inputs.weights, layout, dials), np.int32(0), inputs, layout)
    if not left or not OPTIMIZERS[layout.spec.optimizer].carry:
        return states
    memories, scales = _stack([(one.memory, one.scale) for one in left])
    return _carry(states, memories, scales, layout)


@jax.jit(static_argnames="layout", donate_argnames="states")
def _advance(states: State, steps: Int[Array, ""] | np.int32, inputs: Inputs, layout: Layout) -> State:
    axes = (0, None, _axes(inputs, layout.varied))
    return _over_lanes(partial(run_steps, spec=layout.spec), axes, layout.mesh)(states, steps, inputs)


@jax.jit(static_argnames="layout", donate_argnames="states")
def _steer(states: State, course: Course, layout: Layout) -> State:
    own = 0 if layout.varied.content else None
    axes = (0, 0 if layout.varied.background else None, Ruler(None, None, own), 0, None)
    function = partial(steering.turn, spec=layout.spec)
    lanes = _over_lanes(function, axes, layout.mesh)
    return lanes(states, course.background, course.ruler, course.target_lpips, course.before)


@jax.jit(static_argnames="layout", donate_argnames="states")
def _carry(states: State, memories: Any, scales: Float[Array, " n"], layout: Layout) -> State:
    carry = OPTIMIZERS[layout.spec.optimizer].carry
    assert carry is not None

    def carried(state: State, memory: Any, scale: Any) -> State:
        return state.replace(memory=carry(memory, state.iterate.image.shape, state.scale / scale))

    return _over_lanes(carried, (0, 0, 0), layout.mesh)(states, memories, scales)


@jax.jit(static_argnames="layout")
def _snapshots(states: State, background: Background | None, layout: Layout) -> Snapshot:
    axes = (0, 0 if layout.varied.background else None)
    return _over_lanes(partial(snapshot, spec=layout.spec), axes, layout.mesh)(states, background)


@jax.jit(static_argnames="layout")
def _carried(states: State, background: Background | None, layout: Layout) -> Float[Array, "n h w 3"]:
    axes = (0, 0 if layout.varied.background else None)
    return _over_lanes(partial(carried_picture, spec=layout.spec), axes, layout.mesh)(states, background)
