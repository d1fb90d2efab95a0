"""The events of a job, in the order in which they happen."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nst_jax.runs.memory_plan import Plan
from nst_jax.runs.transfer import Progress


class Planned(NamedTuple):
    """The programs are compiled; `plans` are the memory plans of the remaining scales."""

    plans: list[Plan]


class Resumed(NamedTuple):
    """The run resumes from a checkpoint.

    finished: `iterations` or `converged` if no step is left, else empty.
    """

    step: int
    finished: str


class Started(NamedTuple):
    """The first picture is evaluated. From now on, a run that is stopped writes a picture."""

    progress: Progress


class Advanced(NamedTuple):
    """A chunk of steps has ended, and its losses are in the history."""

    progress: Progress


class Previewed(NamedTuple):
    """A preview, of the picture or of the masks, was written."""

    path: str


class Saved(NamedTuple):
    """A checkpoint of this step is saved."""

    step: int


class Optimized(NamedTuple):
    """The last step was taken; now the files are written."""

    progress: Progress


class Written(NamedTuple):
    """The picture, the report or the plot was written."""

    path: str


class Result(NamedTuple):
    """The result of a job.

    progress: the last one.
    stopped: what `stop` returned.
    untouched: whether it was stopped before the first step, so that an older output file was kept.
    resumable: whether there is a checkpoint of the last step.
    """

    progress: Progress
    stopped: Any
    untouched: bool
    resumable: bool


class Finished(NamedTuple):
    """The job is done. This is the last event."""

    result: Result


Event = Planned | Resumed | Started | Advanced | Previewed | Saved | Optimized | Written | Finished
Observer = Callable[[Progress], Iterator[Event]]  # is shown the progress after each chunk
