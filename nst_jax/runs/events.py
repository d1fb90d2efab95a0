"""What a job tells while it runs, in the order in which it happens."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nst_jax.runs.memory_plan import Plan
from nst_jax.runs.transfer import Progress


class Planned(NamedTuple):
    """The memory plan of each scale that is still to run; its programs are compiled."""

    plans: list[Plan]


class Resumed(NamedTuple):
    """The run goes on from a checkpoint."""

    step: int
    finished: str  # iterations or converged, if no step is left to take; else empty


class Started(NamedTuple):
    """The first picture is evaluated; from now on a stop leaves a picture."""

    progress: Progress


class Advanced(NamedTuple):
    """A chunk of steps has ended that is part of the history."""

    progress: Progress


class Previewed(NamedTuple):
    """A preview, of the picture or of the masks, was written."""

    path: str


class Saved(NamedTuple):
    """The checkpoint of a step is whole on the disk."""

    step: int


class Optimized(NamedTuple):
    """The last step was taken; now the files are written."""

    progress: Progress


class Written(NamedTuple):
    """The picture, the report or the plot was written."""

    path: str


class Result(NamedTuple):
    """What came of a job."""

    progress: Progress  # the last one
    stopped: Any  # what stop said
    untouched: bool  # stopped before the first step, so that a picture that was there has stayed
    resumable: bool  # there is a checkpoint of the last step


class Finished(NamedTuple):
    """The job is done, and nothing more comes."""

    result: Result


Event = Planned | Resumed | Started | Advanced | Previewed | Saved | Optimized | Written | Finished
Observer = Callable[[Progress], Iterator[Event]]  # is shown the progress after each chunk
