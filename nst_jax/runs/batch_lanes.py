"""Rows of a batch that are made at a time: jobs of one shape as lanes of one program, scale after scale."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax

from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.losses import TERMS
from nst_jax.runs.job import Job
from nst_jax.runs.observers import History
from nst_jax.runs.outputs import Outcome
from nst_jax.runs.problem import Picture, Problem
from nst_jax.runs.sweep import BYTES_PER_PIXEL, LaneAxes, sweep
from nst_jax.runs.transfer import Progress, ScaleResult, chunk_steps
from nst_jax.system import device

LOG = logging.getLogger(__name__)
MAX_LANES = 64  # unless asked for; the rows of the next group are read in the meantime
# Even where rows share pictures: so all groups of a shape have one program.
VARIED = LaneAxes(content=True, style=True, background=False)
T = TypeVar("T")


class Lanes:
    """How many rows are made at a time, by what their programs depend on.

    batch_size: at most. 0: 1 on a CPU, on other devices as many as fit.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.in_hand = 1  # at a time, of the program in hand
        self.limits: dict[Hashable, int] = {}
        self.used: dict[Hashable, int] = {}  # lanes of the largest group: smaller ones take its program

    def groups(self, found: Iterable[T], job_of: Callable[[T], Job | None]) -> Iterator[list[T]]:
        """Yield in lists what is made at a time: jobs with nothing but others' results between them.

        job_of: tells the job of one, None where there is none.
        """
        group: list[T] = []
        program: Hashable = None
        for each in found:
            if (job := job_of(each)) is None:
                yield [each]
                continue
            own = program_of(job)
            if group and own != program:
                yield group
                group = []
            group, program = [*group, each], own
            if len(group) >= self._limit(own, job):
                yield group
                group = []
        if group:
            yield group

    def optimize(self, jobs: Sequence[Job]) -> list[Outcome | None]:
        """Return what each job of a group comes to, None for those that are to be run by themselves."""
        key = program_of(jobs[0])
        lanes = max(len(jobs), self.used.get(key, 1))
        while lanes > 1:
            try:
                parts = [jobs[first : first + lanes] for first in range(0, len(jobs), lanes)]
                outcomes = [outcome for part in parts for outcome in optimize(part, lanes)]
            except NotEnoughMemory as error:
                lanes = -(-lanes // 2)
                LOG.info("%s; now %d at a time", error, lanes)
            except Exception as error:  # nothing ends a batch: by itself each row says what is wrong with it
                LOG.warning("%d rows at a time: unexpected", len(jobs), exc_info=error)
                lanes = 1
            else:
                self.used[key] = lanes
                return outcomes
            self.limits[key] = self.used[key] = lanes
        return [None] * len(jobs)

    def _limit(self, key: Hashable, job: Job) -> int:
        if key not in self.limits:
            self.limits[key] = 1 if key is None else self.batch_size or _that_fit(job)
        self.in_hand = self.limits[key]
        return self.in_hand


def program_of(job: Job) -> Hashable:
    """Return what jobs that can be lanes of one program have in common; None for one that is no lane."""
    (content, styles, init, masks), config = job.pictures, job.request.config
    spec = config.spec()
    masked = any(mask is not None for _, mask, _ in masks.named())
    if masked or config.ema_decay or spec.tile or job.request.outputs.save_every:
        return None
    numbers = tuple(getattr(config, option) for name in spec.terms for option, _ in TERMS[name].numbers)
    shapes = tuple(None if one is None else one.shape for one in (content, init, *styles))
    steered = config.target_lpips is not None
    return id(job.params), spec, steered, numbers, tuple(config.pyramid()), shapes


def optimize(jobs: Sequence[Job], lanes: int) -> list[Outcome | None]:
    """Return what each job comes to, made so many at a time; None where its pictures do not go together.

    Raises NotEnoughMemory.
    """
    problems = {n: found for n, job in enumerate(jobs) if (found := _problems(job))}
    if not problems:
        return [None] * len(jobs)
    config, outputs = jobs[0].request.config, [job.request.outputs for job in jobs]
    told = any(one.report or one.plot for one in outputs)  # only they show more than the end
    report_every = chunk_steps(config.steps) if told else config.steps
    rows, (height, width, _) = list(problems.values()), next(iter(problems.values()))[-1].first.shape
    last: dict[int, Progress] = {}
    with device.CompileTime() as compiling, device.running_out(height, width):
        histories = [History(None, report_every, compiling) for _ in rows]
        for now in run_lanes([*rows, *rows[-1:] * (lanes - len(rows))], lanes, report_every):
            for n, history in enumerate(histories):
                if not last:
                    history.start()
                if n in now:
                    list(history(now[n]))
            last |= now
        seconds = {"compile": compiling.seconds, "optimize": histories[0].seconds}
    share = {name: value / len(rows) for name, value in seconds.items()}
    made = {
        n: Outcome(last[k], histories[k].points, share, [0] * len(rows[k])) for k, n in enumerate(problems)
    }
    return [made.get(n) for n in range(len(jobs))]


def run_lanes(
    problems: Sequence[Sequence[Problem]], lanes: int, report_every: int
) -> Iterator[dict[int, Progress]]:
    """Run the scales of some pictures, in turn, a lane for each, as transfer.run does those of one.

    Args:
        problems: Of all scales, for each picture.
        lanes: At a time.
        report_every: Steps from one yield to the next.

    Yields:
        Where pictures stand, by their number, but not those that were not finite before.

    Raises:
        NotEnoughMemory: Not even one lane fits.
    """
    left: list[ScaleResult] = []
    lost: set[int] = set()  # the numbers of those that are not finite
    scales, devices = len(problems[0]), jax.devices()[:1]
    for scale in range(1, scales + 1):
        own = _sharing([of_all[scale - 1] for of_all in problems])
        results: dict[int, ScaleResult] = {}
        for now in sweep(own, lanes, report_every, device.free_memory(), devices, left=left, varied=VARIED):
            told = {n: one for n, one in (now.finished or now.told()).items() if n not in lost}
            lost |= {n for n, one in told.items() if not one.finite}
            for n, one in told.items():
                ends = one.step == own[n].steps + (left[n].step if left else 0)
                told[n] = one._replace(scale=scale, scales=scales, ends=ends)
            yield told
            if scale < scales and now.finished:
                results |= now.results()
        left = [results[n] for n in sorted(results)]


def _sharing(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems with one array in place of equal ones: what comes of it is then computed once."""
    known: dict[tuple[Any, ...], Picture] = {}

    def one(picture: Picture | None) -> Picture | None:
        return picture if picture is None else known.setdefault((picture.shape, picture.tobytes()), picture)

    return [
        problem.replace(
            params=problems[0].params, content=one(problem.content), styles=list(map(one, problem.styles))
        )
        for problem in problems
    ]


def _problems(job: Job) -> list[Problem] | None:
    try:
        return job.problems()
    except InputError:
        return None  # run by itself it says so


def _that_fit(job: Job) -> int:
    """Return how many lanes fit into the memory, guessed from the pixels; a CPU is busy with one."""
    free, (content, styles, init, _) = device.free_memory(), job.pictures
    if jax.default_backend() == "cpu" or free is None:
        return 1
    height, width, _ = next(one for one in (content, init, *styles) if one is not None).shape
    return max(1, min(MAX_LANES, int(free / (BYTES_PER_PIXEL * height * width))))
