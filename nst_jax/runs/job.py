"""A job makes one picture from files: it is prepared, run as a stream of events, and leaves files.

It knows no flags and no terminal, so programs, servers and notebooks drive it alike:

    request = Request(
        inputs=InputOptions(content="example:cat", style=("example:night",)),
        outputs=OutputOptions(output="cat.png"),
    )
    job = prepare(request)  # reads and checks; writes nothing
    for event in job.run(stop=lambda: False):
        match event:
            case Advanced(progress):
                print(progress.step, progress.losses["total"])
            case Written(path):
                print(path)

The memory plan is made in run: it compiles, and several processes have to agree on the job before it.
A process can run many jobs, one after the other; jobs of one shape share their compiled programs. Notes and
warnings go to the logger `nst_jax`.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nst_jax import images
from nst_jax.config import PRESETS, Config
from nst_jax.errors import InputError
from nst_jax.images import masks as masking
from nst_jax.networks.base import Params
from nst_jax.objective import sharding
from nst_jax.runs import checkpoint
from nst_jax.runs.checkpointing import CheckpointWriter, ResumeRecord, check_iterations, check_same, find
from nst_jax.runs.events import (
    Event,
    Finished,
    Observer,
    Optimized,
    Planned,
    Previewed,
    Result,
    Resumed,
    Started,
    Written,
)
from nst_jax.runs.input_files import ImageCache, Pictures, load_masks, load_pictures, settings, working_size
from nst_jax.runs.judging import judged_sizes
from nst_jax.runs.memory_plan import Plan, TilingMode, make_plans, state_shapes, work
from nst_jax.runs.observers import ChunkSizer, History, Previews, Saves
from nst_jax.runs.outputs import (
    Canvas,
    Outcome,
    Recipe,
    make_canvas,
    save_mask_preview,
    write_all,
)
from nst_jax.runs.print_size import on_paper
from nst_jax.runs.problem import Problem, shard_problem
from nst_jax.runs.pyramid import make_problems, settled
from nst_jax.runs.request import Request, alike, check, facts_of
from nst_jax.runs.transfer import ResumeState, chunk_steps, run
from nst_jax.system import device
from nst_jax.system.distributed import DeviceOptions, all_min, is_primary
from nst_jax.weights import Weights, load_weights, on_device

LOG = logging.getLogger(__name__)
RAW_STYLE_WEIGHT = 1e4  # above it a style weight is not in units of pulls


class Forecast(NamedTuple):
    """What a scale that is still to run will take."""

    number: int  # from 1, the coarsest
    plan: Plan
    steps: int
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A request whose files are read and checked. `run` makes the picture."""

    request: Request  # its config has the scales that the pictures allow
    resume: ResumeRecord | None
    facts: dict[str, Any]  # what every checkpoint's record says of the run
    canvas: Canvas
    pictures: Pictures
    weights: Weights
    params: Params
    devices: int  # that share the picture
    began: float  # on the monotonic clock, from which the report counts
    alike: dict[str, Any]  # by name, what must be equal in all processes

    def run(self, stop: Callable[[], Any] = lambda: False) -> Iterator[Event]:
        """Make the picture and yield events. If the run is stopped, the picture so far is written.

        Args:
            stop: called after each chunk of steps. If it returns true, the run ends. Several processes must
                return the same.

        Yields:
            the events, Finished as the last one.

        Raises:
            InputError: the checkpoint cannot be read, or its folder is in use.
            NotEnoughMemory: no plan fits into the device's memory.
            NotWritten: a file could not be written, after all others were.
        """
        with contextlib.ExitStack() as at_end:
            outcome, writer = yield from self._optimize(stop, at_end)
            last, stopped = outcome.last, stop()
            untouched = bool(stopped) and last.step == 0 and Path(self.request.outputs.output).exists()
            yield Optimized(last)
            if is_primary() and not untouched:
                yield from self.write(outcome, judged=not stopped)
            if writer and is_primary() and last.finite and not stopped:
                writer.ended(self.request.checkpoint.keep_checkpoints)
        resumable = writer is not None and writer.last == last.step
        yield Finished(Result(last, stopped, untouched, resumable))

    def write(self, outcome: Outcome, judged: bool = True) -> Iterator[Event]:
        """Write the files of what the job came to, in run or elsewhere, and yield them. Raises NotWritten.

        judged: whether there is time to measure the picture.
        """
        recipe = Recipe(self.request, self.weights, self.devices, self.began)
        yield from map(Written, write_all(outcome, recipe, self.canvas, judged))

    def problems(self) -> list[Problem]:
        """Return the problem of each scale. Raises InputError."""
        return self._problems(self.request.config)

    def forecast(self) -> list[Forecast]:
        """Return the memory and time of each scale, from a few steps of a small picture.

        Raises NotEnoughMemory.
        """
        problems, plans = self._plans()
        pace = seconds_per_pixel(small_problem(self._problems, self.request.config))
        first, found = len(problems) - len(plans), []
        for number, plan in enumerate(plans, first):
            steps = plan.problem.steps
            if self.resume and number == first:
                steps -= self.resume.saved.step - self.resume.step
            found.append(Forecast(number + 1, plan, steps, steps * work(plan.problem) * pace))
        return found

    def _optimize(
        self, stop: Callable[[], Any], at_end: contextlib.ExitStack
    ) -> Generator[Event, None, tuple[Outcome, CheckpointWriter | None]]:
        """Run the loop to its end or until stopped; at_end closes what writes the checkpoints."""
        report_every, sizer = self._every(), ChunkSizer()
        with device.CompileTime() as compiling:
            problems, plans = self._plans()
            yield Planned(plans)
            history = History(self.resume, report_every, compiling)
            writer = self._writer(problems)
            saves = Saves(writer, history) if writer else None
            if writer:
                at_end.callback(writer.close)
            observers = self._observers(history, saves)
            height, width, _ = problems[-1].first.shape
            with device.running_out(height, width):
                resume_state = yield from self._resume_state(problems)
                for last in run(problems, report_every, resume_state, lambda: all_min(sizer()) or 1):
                    if sizer.step is None:
                        history.start()
                        yield Started(last._replace(resume_state=None))
                        yield from self._show_masks(problems[-1])
                    sizer.told(last.step)
                    for observe in observers:
                        yield from observe(last)
                    if stop():
                        break
                    if last.scale < last.scales and (last.ends or last.converged):
                        last = last._replace(resume_state=None)  # the next scale needs its room
            if saves and last.finite:
                yield from saves.save(last, last=True)
        if last.step > history.points[-1].step:  # where it was stopped
            history.add(last)
        tiles = [problem.spec.tile for problem in problems]
        seconds = {"compile": compiling.seconds, "optimize": history.seconds}
        return Outcome(last._replace(resume_state=None), history.points, seconds, tiles), writer

    def _observers(self, history: History, saves: Saves | None) -> list[Observer]:
        """Return what is shown each progress, in order."""
        observers: list[Observer] = [history]
        if self.request.outputs.save_every and is_primary():
            observers.append(Previews(self.canvas, self.resume.saved.step if self.resume else 0))
        return [*observers, saves] if saves else observers

    def _show_masks(self, problem: Problem) -> Iterator[Event]:
        path = self.request.outputs.mask_preview
        if not path or not is_primary():
            return
        if save_mask_preview(path, problem.first, self.pictures, self.request.inputs):
            yield Previewed(path)

    def _every(self) -> int:
        """Return the steps of a chunk, of which those of previews are multiples."""
        report_every, save_every = chunk_steps(self.request.config.steps), self.request.outputs.save_every
        return math.gcd(report_every, save_every) if save_every else report_every

    def _problems(self, config: Config) -> list[Problem]:
        """Return the problems of a config's scales, spread over the devices."""
        (content, styles, init, masks), mesh = self.pictures, sharding.make_mesh(self.devices)
        problems = make_problems(self.params, content, styles, config, init, masks)
        return [shard_problem(problem, mesh) for problem in problems]

    def _plans(self) -> tuple[list[Problem], list[Plan]]:
        """Return the problems of all scales, and the plans of those that are still to run."""
        problems = self.problems()
        skipped = self.resume.scale - 1 if self.resume else 0
        ways = self.resume.ways[skipped:] if self.resume else []  # others would round otherwise
        free = all_min(device.free_memory(min(self.devices, jax.local_device_count())))
        plans = make_plans(problems[skipped:], free, ways)
        return [*problems[:skipped], *(plan.problem for plan in plans)], plans

    def _resume_state(self, problems: Sequence[Problem]) -> Generator[Event, None, ResumeState | None]:
        """Return what the run resumes from. Raises InputError where its arrays cannot be read."""
        resume = self.resume
        if not resume:
            return None
        state = checkpoint.restore(resume.saved, state_shapes(problems[resume.scale - 1]))
        left = problems[-1].steps - (resume.saved.step - resume.step)
        finished = "converged" if state.converged else "" if left else "iterations"
        yield Resumed(resume.saved.step, finished if resume.scale == len(problems) else "")
        return ResumeState(state=state, scale=resume.scale, step=resume.step, evaluations=resume.evaluations)

    def _writer(self, problems: Sequence[Problem]) -> CheckpointWriter | None:
        """Return what writes the checkpoints, if there are to be any. Raises InputError."""
        options, saved = self.request.checkpoint, self.resume and self.resume.saved
        if not options.folder:
            return None
        ways = [TilingMode(problem.spec.tile, problem.spec.recompute_content) for problem in problems]
        return CheckpointWriter(options.folder, options.checkpoint_every, saved, self.facts | {"ways": ways})


def prepare(
    request: Request,
    resume: ResumeRecord | None = None,
    began: float | None = None,
    network: tuple[Weights, Params] | None = None,
) -> Job:
    """Check a request and read its files. Nothing is written.

    Args:
        request: the input of the job.
        resume: the state of the run in the checkpoint folder. None: it is read.
        began: when the report's total time began, on the monotonic clock. None: now.
        network: the request's weights, on the host and on the device. None: they are loaded.

    Returns:
        the job, to be run once.

    Raises:
        InputError: an option, a file, the weights or the checkpoint is wrong, or an output cannot be written.
    """
    began = time.monotonic() if began is None else began
    resume = resume or find(request.checkpoint)
    inputs = request.inputs
    check(request)
    cache = ImageCache(inputs.max_pixels)
    request = on_paper(request, cache)
    files = request.outputs
    masks = load_masks(inputs, cache)
    canvas = make_canvas(request, cache, masks)
    if files.judge:
        judged_sizes(files.output, canvas.size, request.references, cache)
    pictures = load_pictures(inputs, request.config, cache, masks)
    config = settled(request.config, *pictures)
    request = dataclasses.replace(request, config=config)
    size = working_size(inputs, config, cache)
    devices = _devices(request.devices, images.size_to_fit(*size, config.pyramid()[0].size)[0], config)
    weights, params = network or load_network(request)
    if not files.no_settings:
        canvas = canvas._replace(settings=settings(inputs, config, cache, files.dpi))
    facts = facts_of(request, pictures, weights, devices) if request.checkpoint.folder else {}
    if resume:
        allowed = ["--iterations"] if request.checkpoint.allow_change else []
        check_same(facts["told"], resume.told, resume.saved.folder, allowed)
        check_iterations(resume, config)
    equal = alike(request, pictures, weights) | {"checkpoint": resume and resume.saved.step}
    _warn(config, weights, pictures)
    return Job(request, resume, facts, canvas, pictures, weights, params, devices, began, equal)


def load_network(request: Request) -> tuple[Weights, Params]:
    """Return the weights of a request, as they are and on the device. Raises InputError."""
    weights = load_weights(request.config.network, request.inputs.weights or None)
    return weights, on_device(weights)


def _devices(options: DeviceOptions, height: int, config: Config) -> int:
    """Return how many devices share the rows of the smallest picture. Raises InputError."""
    spec, there = config.spec(), len(jax.devices())
    most = sharding.most_devices(height, spec)
    if options.num_processes > 1 and options.devices not in (0, there):
        allowed = f"all {there} where there are several processes"
        raise InputError("`devices`", allowed, f"got {options.devices}")
    all_of_them = there if options.num_processes > 1 else min(there, most)
    devices = options.devices or all_of_them
    if devices > there:
        raise InputError("`devices`", f"from 1 to {there}, as many as there are", f"got {devices}")
    if devices > most:
        allowed = f"at most {most} for {height} rows, one of the deepest layer's for each"
        raise InputError("`devices`", allowed, f"got {devices}")
    return devices


def _warn(config: Config, weights: Weights, pictures: Pictures) -> None:
    """Warn of what will disappoint: weights for other activations, masks with nothing but edges."""
    regions = masking.regions(pictures.masks)
    if regions is not None and masking.opacity(regions).max() < 1:
        LOG.warning("the masks are nowhere %d pixels wide: the content shows through", 2 * masking.SEAM)
    if config.loss_balancing == "auto" and config.style_weight > RAW_STYLE_WEIGHT:
        LOG.warning(
            "--style_weight=%g is in units of the style's pull, about 1; raw ones go with --preset=gatys",
            config.style_weight,
        )
    small = config.style_weight <= 100 * PRESETS["tutorial"]["style_weight"]
    if config.preset == "tutorial" and small and weights.normalization == "torchvision":
        LOG.warning("--preset=tutorial is for VGG-19 of Keras; with these weights it shows no style")


def small_problem(make: Callable[[Config], list[Problem]], config: Config) -> Problem:
    """Return a problem of few steps and 256 pixels, or of the first scale's if those are too few.

    make: Returns the problems of all scales of a config.
    """
    size = min(config.size, 256)
    scales = f"{size},{config.size}" if size < config.size else ""
    try:
        small = make(dataclasses.replace(config, scales=scales, effort="normal", iterations=(6,)))[0]
    except InputError:
        small = make(config)[0]
    return small.replace(steps=6)


def seconds_per_pixel(problem: Problem) -> float:
    """Return the seconds that a step takes for each pixel, from the second to the last of a short run."""
    times = [(time.monotonic(), now) for now in run([problem], report_every=1)][1:]
    (began, first), *_, (ended, last) = times * 2
    height, width, _ = last.picture.shape
    return (ended - began) / max(1, last.step - first.step) / (height * width)
