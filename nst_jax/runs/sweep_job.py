"""A sweep as a job: many pictures in one folder, prepared, run as a stream of events, and resumed."""

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.files import write_whole
from nst_jax.metrics import judge
from nst_jax.networks.base import Params
from nst_jax.reports.report import to_json
from nst_jax.runs.checkpoint import Checkpoints, Saved, newest, restore
from nst_jax.runs.checkpointing import CheckpointWriter, check_same
from nst_jax.runs.events import Written
from nst_jax.runs.input_files import (
    ImageCache,
    check_inputs,
    load_masks,
    load_pictures,
    settings,
    working_size,
)
from nst_jax.runs.job import seconds_per_pixel, small_problem
from nst_jax.runs.judging import judged_sizes, try_verdict
from nst_jax.runs.observers import ChunkSizer
from nst_jax.runs.problem import Problem, make_problem, with_hyperparameters
from nst_jax.runs.pyramid import make_problems
from nst_jax.runs.sweep import SweepBatch, SweepProgress, SweepResumeState, sweep
from nst_jax.runs.sweep_folder import (
    UNFINISHED,
    check_output_folder,
    finished,
    read_json,
    save_picture,
    sweep_settings,
    told_of,
    write_entries,
)
from nst_jax.runs.sweep_request import SweepRequest
from nst_jax.runs.sweep_sheet import write_sheet
from nst_jax.runs.transfer import chunk_steps
from nst_jax.system import device
from nst_jax.weights import load_weights, on_device

LOG = logging.getLogger(__name__)
Entries = dict[int, dict[str, Any]]  # of sweep.json, by the number of their picture


class SweepAdvanced(NamedTuple):
    """A chunk of steps of some pictures has ended; from the first one on there is something to keep."""

    first: int  # picture, from 1
    last: int
    total: int
    step: int
    steps: int


class SweepResult(NamedTuple):
    """What came of a sweep."""

    entries: Entries  # of the pictures that are there
    stopped: Any  # what stop said


class SweepFinished(NamedTuple):
    """The job is done, and nothing more comes."""

    result: SweepResult


SweepEvent = SweepAdvanced | Written | SweepFinished


class Group(NamedTuple):
    """The pictures of one size, which one program makes."""

    numbers: list[int]
    place: int  # pictures in the groups before


@dataclasses.dataclass(frozen=True, eq=False)
class SweepJob:
    """A sweep whose files are read and checked."""

    request: SweepRequest
    folder: Path
    problems: list[Problem]  # of each cell
    told: dict[str, str]  # what the pictures depend on, in words
    lanes: list[int]  # of the groups that a sweep which is resumed has begun
    cache: ImageCache
    entries: Entries  # of the pictures that are there

    def run(self, stop: Callable[[], Any] = lambda: False) -> Iterator[SweepEvent]:
        """Make the pictures that are missing, then judge them, and draw the sheet; yield what happens.

        Args:
            stop: asked after each chunk whether to end early, first when there is something to keep.

        Yields:
            the events, SweepFinished as the last one.

        Raises:
            InputError: the checkpoint cannot be read, or its folder is in use.
            NotEnoughMemory: not even one picture fits into the device's memory.
            NotWritten: a file could not be written.
        """
        entries = dict(self.entries)
        if len(entries) < len(self.problems):
            yield from self._make(entries, stop)
        elif (self.folder / UNFINISHED).is_dir():  # ended between the last picture and this
            Checkpoints(self.folder / UNFINISHED, None).remove()
        if self.request.wanted.judge:
            self._judge(entries, stop)
        for path in write_sheet(self.folder, entries, self.request, self.cache):
            yield Written(str(path))
        yield SweepFinished(SweepResult(entries, stop()))

    def forecast(self) -> list[tuple[int, str, int, float]]:
        """Return by size how many pictures are missing, that size, their steps, and the seconds of all."""
        cell = self.request.cells[0]
        config, inputs = self.request.config(cell), self.request.cell_inputs(cell)
        content, styles, init, masks = load_pictures(
            inputs, config, self.cache, load_masks(inputs, self.cache)
        )

        def make(config: Config) -> list[Problem]:
            return make_problems(self.problems[0].params, content, styles, config, init, masks)

        pace = seconds_per_pixel(small_problem(make, config))
        found = []
        for group in _groups(self.problems):
            height, width, _ = self.problems[group.numbers[0]].first.shape
            left = len(set(group.numbers) - self.entries.keys())
            steps = self.problems[group.numbers[0]].steps
            found.append((left, f"{width}x{height}", steps, left * steps * height * width * pace))
        return found

    def _make(self, entries: Entries, stop: Callable[[], Any]) -> Iterator[SweepEvent]:
        """Make the pictures that are left, writing those of each pass as it ends, until stopped."""
        wanted, lanes, sizer = self.request.wanted, list(self.lanes), ChunkSizer()
        steps, total = self.problems[0].steps, len(self.problems)
        saved = newest(self.folder / UNFINISHED) if wanted.resume else None
        writer: CheckpointWriter | None = None
        with contextlib.ExitStack() as at_end:
            for n, (numbers, place), now in self._chunks(entries, lanes, saved, sizer):
                yield SweepAdvanced(
                    place + now.lanes[0] + 1, place + now.lanes[-1] + 1, total, now.step, steps
                )
                sizer.told(now.step)
                if not writer or n >= len(lanes):
                    lanes[n : n + 1] = [now.batch.batch_size]
                    self._write_settings(lanes)
                if not writer:
                    writer = CheckpointWriter(self.folder / UNFINISHED, wanted.checkpoint_every, saved, {})
                    at_end.callback(writer.close)
                for k, result in now.finished.items():
                    number = numbers[k]
                    entries[number] = save_picture(number, result, self.folder, self.request, self.cache)
                    yield Written(str(self.folder / self.request.file(number)))
                stopped = stop()
                if now.finished:
                    write_entries(self.folder, entries)
                elif stopped or writer.due:
                    _save(writer, now.batch, place, steps)
                if stopped and len(entries) < total:
                    return
        if writer:
            writer.checkpoints.remove()

    def _chunks(
        self, entries: Entries, lanes: Sequence[int], saved: Saved | None, sizer: ChunkSizer
    ) -> Iterator[tuple[int, Group, SweepProgress]]:
        """Run what is not there, group after group; yield its number, the group and where it stands."""
        report_every = chunk_steps(self.problems[0].steps)
        stopped = _stopped(saved) if saved else None
        for n, group in enumerate(_groups(self.problems)):
            made = [k for k, number in enumerate(group.numbers) if number in entries]
            if len(made) == len(group.numbers):
                continue
            own = [self.problems[number] for number in group.numbers]
            here = stopped and stopped.replace(first=stopped.first - group.place)
            own_lanes = lanes[n] if n < len(lanes) else self.request.wanted.batch_size
            free = device.free_memory(jax.local_device_count())
            with device.running_out(*own[0].first.shape[:2]):
                for now in sweep(
                    own, own_lanes, report_every, free, done=made, stopped=here, max_steps=sizer
                ):
                    yield n, group, now

    def _write_settings(self, lanes: Sequence[int]) -> None:
        os.makedirs(os.path.realpath(self.folder), exist_ok=True)
        made = {"told": self.told, "lanes": lanes}
        write_whole(self.folder / "settings.json", to_json(sweep_settings(self.request) | made))

    def _judge(self, entries: Entries, stop: Callable[[], Any]) -> None:
        """Measure the pictures that have not been, until stopped: at the end, when memory is free."""
        left = [number for number in sorted(entries) if not entries[number].get("judge")]
        if not left or stop():
            return
        network = judge.load()
        for number in left:
            if stop():
                break
            against, file = self.request.against(self.request.cells[number]), self.request.file(number)
            entries[number]["judge"] = try_verdict(network, str(self.folder / file), against, self.cache)
            LOG.info("judged %s", file)
        write_entries(self.folder, entries)


def check_sweep(request: SweepRequest) -> None:
    """Raise InputError if an option of a cell is out of bounds, or has no effect; reads no file."""
    for cell in request.cells:
        config = request.config(cell)
        check_inputs(request.cell_inputs(cell), config)
        if config.scales:  # a sweep is one program, of one size
            raise InputError("`scales`", "not in a sweep", f"got {config.scales}")
    if "seed" in request.axes and (init := request.config(request.cells[0]).init) != "noise":
        raise InputError("`sweep=seed`", "with `init=noise`, where a seed matters", f"got `init={init}`")


def prepare_sweep(request: SweepRequest) -> SweepJob:
    """Return the job of a sweep, to be run once; writes nothing. Raises InputError."""
    check_sweep(request)  # before anything is read: a value out of bounds is said at once
    folder = check_output_folder(request)
    cache = ImageCache(request.inputs.max_pixels)
    config = request.config(request.cells[0])
    weights = load_weights(config.network, request.inputs.weights or None)
    problems = _problems(request, on_device(weights), cache)
    for cell in request.cells if request.wanted.judge else ():
        size = working_size(request.cell_inputs(cell), request.config(cell), cache)
        judged_sizes("`judge`", size, request.against(cell), cache)
    told = told_of(problems[0], weights.sha256, cache)
    before = read_json(folder / "settings.json") if request.wanted.resume else None
    if before:
        check_same(told, before["told"], folder)
    lanes = before["lanes"] if before else []
    return SweepJob(request, folder, problems, told, lanes, cache, finished(folder, request))


def _problems(request: SweepRequest, params: Params, cache: ImageCache) -> list[Problem]:
    """Return a problem for each cell; those of the same files share their pictures."""
    bases: dict[tuple[Any, ...], Problem] = {}
    problems = []
    for cell in request.cells:
        config, inputs = request.config(cell), request.cell_inputs(cell)
        files = (inputs.content, *inputs.style)
        if files not in bases:
            pictures = load_pictures(inputs, config, cache, load_masks(inputs, cache))
            content, styles, init, masks = pictures
            settings(inputs, config, cache)  # notes the checksums: later the files may be gone
            bases[files] = make_problem(params, content, styles, config, init, masks)
        problems.append(with_hyperparameters(bases[files], config))
    return problems


def _groups(problems: Sequence[Problem]) -> list[Group]:
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, problem in enumerate(problems):
        numbers.setdefault(problem.first.shape, []).append(number)
    if len(numbers) > 1:
        sizes = ", ".join(f"{len(own)} of {width}x{height}" for (height, width, _), own in numbers.items())
        LOG.info("pictures of %d sizes, a program for each: %s", len(numbers), sizes)
    places = itertools.accumulate(map(len, numbers.values()), initial=0)
    return [Group(own, place) for own, place in zip(numbers.values(), places, strict=False)]


def _save(writer: CheckpointWriter, batch: SweepBatch, place: int, steps: int) -> None:
    """Write a checkpoint of the pass in hand.

    Args:
        writer: writes it.
        batch: where the pass stands.
        place: pictures in the groups before.
        steps: of each picture.
    """
    first = place + batch.first
    number = first * (steps + 1) + batch.step
    writer.save(number, batch.states, {"first": first, "lanes": batch.batch_size, "step": batch.step})


def _stopped(saved: Saved) -> SweepResumeState:
    """Return where the pass of a checkpoint stood. Raises InputError."""
    try:
        first, lanes, step = (int(saved.record[name]) for name in ("first", "lanes", "step"))
    except (KeyError, TypeError, ValueError) as error:
        allowed = "a checkpoint of nst-sweep"
        raise InputError(str(saved.folder), allowed, f"{type(error).__name__}: {error}") from error
    return SweepResumeState(first=first, batch_size=lanes, step=step, states=partial(restore, saved))
