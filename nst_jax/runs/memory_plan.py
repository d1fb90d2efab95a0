"""How a picture is taken, from what the compiler says its programs need: at once, or window by window."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from nst_jax.errors import NotEnoughMemory
from nst_jax.networks.base import Params
from nst_jax.objective import sharding, tiling
from nst_jax.objective.objective import layers_of, recomputed_terms
from nst_jax.objective.targets import content_targets, style_arguments, traced_numbers, wanted_of_style
from nst_jax.optimize import loop
from nst_jax.optimize.steering import ruler_shapes, steer
from nst_jax.runs.problem import Problem
from nst_jax.spec import Spec

# Sides of windows that are tried, the largest first: the larger, the less is computed twice.
TILE_SIDES = (4096, 3072, 2048, 1536, 1024, 768, 640, 512, 384, 320, 256)

# What a process on a CPU takes beside its programs (benchmarks/memory.py): their code and scratch memory, and
# pictures on the host, of which some are on their way.
PROCESS_BYTES = 128 * 2**20
HOST_COPIES = 8

MAX_KNOWN_PROGRAMS = 1000
_KNOWN: dict[Any, tuple[int, int]] = {}  # what programs need, by the shapes of their arguments


class TilingMode(NamedTuple):
    """Whether a picture is taken in windows, and whether its content's activations are recomputed in each."""

    tile: int
    recompute_content: bool


class Plan(NamedTuple):
    """How a problem is run: its spec says whether in windows, and of what side at most."""

    problem: Problem
    needed: int  # bytes on each device, while the largest of its programs runs
    whole: int  # bytes it would take at once
    free: int | None

    def __str__(self) -> str:
        height, width, _ = self.problem.first.shape
        free = "" if self.free is None else f" of {gib(self.free)} free"
        grid = windows(self.problem)
        if not grid:
            return f"{width}x{height} pixels at once: {gib(self.needed)}{free}"
        rows, columns = grid.window_shape
        whole = f", at once it would be {gib(self.whole)}" if self.whole > self.needed else ""
        again = ", the content's activations recomputed" if self.problem.spec.recompute_content else ""
        return (
            f"{width}x{height} pixels in {grid.windows} windows of {columns}x{rows}{again}: "
            f"{gib(self.needed)}{free}{whole}"
        )


def work(problem: Problem) -> float:
    """Return what one evaluation computes, in pixels of evaluations at once."""
    height, width, _ = problem.first.shape
    grid = windows(problem)
    if not grid:
        return float(height * width)
    passes = 2.0 if problem.spec.recompute_content else 1.5  # a forward pass is about half of an evaluation
    return passes * grid.windows * float(np.prod(grid.window_shape))


def gib(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**30:.1f} GiB"


def windows(problem: Problem) -> tiling.Grid | None:
    """Return the windows in which a problem is taken, None where it is at once."""
    spec, shape = problem.spec, problem.first.shape
    if not spec.tile:
        return None
    grid = tiling.grid(shape, spec)
    return grid if grid.windows > 1 else None


def make_plan(problem: Problem, free: int | None, way: TilingMode | None = None) -> Plan:
    """Return how the problem is run in free bytes, compiling its programs to see what they need.

    tile=off takes the picture at once, a number in windows of at most that side. auto takes it at once
    where that fits, else in the largest windows that do. It keeps the content's activations where they fit.
    Without free nothing is compiled, and auto is off.

    Args:
        problem: What is run.
        free: Bytes on each device.
        way: The only tiling mode that is allowed.

    Raises:
        NotEnoughMemory: Nothing fits.
    """
    if way:
        problem = problem.replace(spec=problem.spec._replace(**way._asdict()))
    if free is None:
        return Plan(problem, 0, 0, None)
    first = memory_use(problem)
    if first.peak <= free:
        return Plan(problem, first.peak, first.peak, free)
    found, last = None, problem
    if problem.tile == "auto" and not way:
        for spec in _smaller(problem, first, free):
            last = problem.replace(spec=spec)
            found = memory_use(last)
            if found.peak <= free:
                return Plan(last, found.peak, first.peak, free)
    raise NotEnoughMemory(_refusal(last, found or first, free))


def make_plans(problems: Sequence[Problem], free: int | None, ways: Sequence[TilingMode] = ()) -> list[Plan]:
    """Return the plans of the problems of all scales; the last one, the largest, is made first.

    Args:
        problems: Of all scales.
        free: Bytes on each device. None: any number.
        ways: The only tiling modes that are allowed, by scale.
    """
    allowed = dict(enumerate(ways))
    numbered = reversed(list(enumerate(problems)))
    return [make_plan(problem, free, allowed.get(number)) for number, problem in numbered][::-1]


class MemoryUse(NamedTuple):
    """The bytes that a problem's programs take."""

    beside: int  # what the process takes beside them
    arguments: int  # of the loop: the state, what it is compared with, the network
    temporary: int  # of the loop
    content: int  # of the content's activations, among the arguments
    style: int  # of the statistics of a style and the activations of the content
    largest: tuple[int, int]  # rows and columns of the picture that the latter run on

    @property
    def loop(self) -> int:
        """The bytes that the loop takes."""
        return self.arguments + self.temporary

    @property
    def peak(self) -> int:
        """The bytes that the largest program takes, with what is beside it."""
        return max(self.loop, self.style) + self.beside


def memory_use(problem: Problem) -> MemoryUse:
    """Return the bytes that the problem's programs take, compiling them."""
    params, first, spec = problem.params, problem.first, problem.spec
    numbers = traced_numbers(spec)
    sources = problem.masks.sources_of(len(problem.styles))
    once = [
        (sum(needs_of(wanted_of_style, *style_arguments(params, style, numbers, source, spec))), style)
        for style, source in zip(problem.styles, sources, strict=True)
    ]
    image = sharding.shard(sharding.pad(first, spec), spec)
    if problem.content is not None and not spec.recompute_content:
        once.append((sum(needs_of(content_targets, params, image, spec)), problem.content))
    targets = sharding.placed(jax.eval_shape(problem.targets), spec)
    state, inputs = state_shapes(problem), problem.inputs(targets)
    arguments, temporary = needs_of(loop.run_chunk, state, np.int32(0), inputs, spec)
    if ruler := ruler_shapes(problem.content, spec):
        target_lpips = np.float32(0)
        _, steering = needs_of(steer, state, targets.background, ruler, target_lpips, np.int32(0), spec)
        arguments, temporary = arguments + _bytes(ruler), max(temporary, steering)
    content = _bytes([targets.terms.get(name) for name in recomputed_terms(spec) if layers_of([name], spec)])
    style, largest = max((size, picture.shape[:2]) for size, picture in once)
    shared = jax.devices()[0].platform == "cpu"
    # On an accelerator the picture that is shown, and its opacity, until somebody has read it.
    beside = PROCESS_BYTES + HOST_COPIES * first.nbytes + _reordered(params) if shared else 2 * first.nbytes
    return MemoryUse(beside, arguments, temporary, content, style, largest)


def _reordered(params: Params) -> int:
    """Return the bytes of packed kernels: the native part keeps each a second time, in the order it takes."""
    kernels = [kernel for held in params.convolutions.values() for kernel in held[:2]]
    return sum(kernel.nbytes for kernel in kernels if kernel.ndim == 1)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def state_shapes(problem: Problem) -> loop.State:
    """Return the shapes, types and places of a state of the problem; nothing is computed."""
    spec, image = problem.spec, sharding.pad(problem.first, problem.spec)
    state = jax.eval_shape(
        partial(loop.initial_state, spec=spec), image, problem.weights, decay=problem.decay
    )
    return sharding.placed(state, spec)


def bytes_needed(program: Any) -> int:
    """Return the bytes that a compiled program takes on each device, 0 where the compiler does not say.

    The loops' results are not counted: they take the place of the states that are donated.
    """
    return sum(_memory(program))


def needs_of(program: Any, *arguments: Any) -> tuple[int, int]:
    """Return the bytes of a program's arguments and temporaries; it is compiled once for all of one shape."""
    leaves, tree = jax.tree.flatten(arguments)
    kinds = tuple(
        (leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)) if hasattr(leaf, "dtype") else leaf
        for leaf in leaves
    )
    key = program, tree, kinds
    if key not in _KNOWN:
        if len(_KNOWN) >= MAX_KNOWN_PROGRAMS:
            _KNOWN.clear()
        _KNOWN[key] = _memory(program.lower(*arguments).compile())
    return _KNOWN[key]


def _memory(program: Any) -> tuple[int, int]:
    """Return the bytes of a compiled program's arguments and temporaries."""
    memory = program.memory_analysis()
    return (memory.argument_size_in_bytes, memory.temp_size_in_bytes) if memory else (0, 0)


def _smaller(problem: Problem, whole: MemoryUse, free: int) -> Iterator[Spec]:
    """Yield ways that need less, the fastest first; those that clearly need too much are left out."""
    spec, (height, width, _) = problem.spec, problem.first.shape
    least = tiling.least_tile(spec)
    longest = width if spec.mesh else max(height, width)  # of the sides that are cut
    tiles = [tile for tile in {*TILE_SIDES, max(least, TILE_SIDES[-1])} if least <= tile < longest]
    ways = [
        problem.replace(spec=spec._replace(tile=tile, recompute_content=again))
        for again in ((False, True) if whole.content else (False,))
        for tile in tiles
    ]
    for way in sorted(ways, key=work):
        tile, again = way.spec.tile, way.spec.recompute_content
        share = min(tile, width) / width * (1 if spec.mesh else min(tile, height) / height)
        expected = whole.beside + whole.arguments - again * whole.content + share * whole.temporary
        if expected <= free or way is ways[-1]:
            yield way.spec


def _refusal(problem: Problem, last: MemoryUse, free: int) -> str:
    """Say what was needed and what would fit. All but a window's temporaries grows with the pixels."""
    (height, width, _), needed, fixed = problem.first.shape, last.peak, min(PROCESS_BYTES, last.beside)
    if last.style > last.loop:
        height, width = last.largest
    elif problem.spec.tile:
        fixed += last.temporary
    way = f" in windows of {problem.spec.tile}" if problem.spec.tile else ""
    flag = "; `tile=auto` takes larger ones in windows" if problem.tile == "off" else ""
    share = (max(0, free - fixed) / max(1, needed - fixed)) ** 0.5 * 0.95
    size = f"{int(width * share)}x{int(height * share)} would fit (`size={int(max(height, width) * share)}`)"
    return (
        f"memory: a picture of {width}x{height} pixels needs {gib(needed)}{way} and {gib(free)} are free; "
        f"{size if share else 'no size would fit'}{flag}"
    )
