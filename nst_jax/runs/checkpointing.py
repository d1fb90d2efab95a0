"""When checkpoints are written, and what must be equal if a run resumes from one."""

import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.networks import convolutions
from nst_jax.options import check_options, option
from nst_jax.reports.report import Point
from nst_jax.runs.checkpoint import Checkpoints, Saved, newest
from nst_jax.runs.memory_plan import TilingMode
from nst_jax.system import device

LOG = logging.getLogger(__name__)
MAX_NAMED_DIFFERENCES = 5  # differences that are named


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints: their folder, how often they are saved, and what may change when a run resumes."""

    checkpoint: str = option(
        "", "folder for checkpoints; if it already has some of this run, the run resumes"
    )
    checkpoint_every: float = option(60.0, "seconds between checkpoints", low=0, high=10**6)
    keep_checkpoints: bool = option(
        True, "keep the checkpoints of a finished run, so that it can be extended"
    )
    resume: str = option(
        "", "resume the run whose checkpoints are in this folder; saved options apply unless overridden"
    )
    allow_change: str = option("", "option that may differ from the saved run", choices=("", "iterations"))

    def __post_init__(self) -> None:
        check_options(self)
        folders = {os.path.realpath(name) for name in (self.resume, self.checkpoint) if name}
        if len(folders) > 1:
            came = f"got {self.resume} and {self.checkpoint}"
            raise InputError("`resume`, `checkpoint`", "one of the two, or one folder for both", came)
        if self.allow_change and not self.folder:
            raise InputError("`allow_change`", "with `resume` or `checkpoint`", "neither was given")

    @property
    def folder(self) -> Path | None:
        """The folder, if there is to be one."""
        return Path(name) if (name := self.resume or self.checkpoint) else None


def find(options: CheckpointOptions) -> "ResumeRecord | None":
    """Return where the run in the folder stands. Raises InputError if resume names a folder without one."""
    saved = newest(options.folder) if options.folder else None
    if options.resume and not saved:
        raise InputError(f"`resume={options.resume}`", "a folder with a checkpoint", "there is none in it")
    return read_record(saved) if saved else None


def surroundings(devices: int, precision: str) -> dict[str, str]:
    """Return by name what the bits of a result depend on, beside the request."""
    found = {name: str(value) for name, value in device.depends_on(devices).items()}
    found["convolutions"] = convolutions.describe(precision)
    return {"devices" if name == "count" else name: value for name, value in found.items()}


def check_same(
    told: Mapping[str, str], before: Mapping[str, str], folder: Path, allowed: Sequence[str] = ()
) -> None:
    """Raise InputError that names what differs from what the run in a folder was made with.

    Args:
        told: What the run depends on, in words.
        before: The same of the run in the folder.
        folder: Of the checkpoints.
        allowed: Names that may differ.
    """
    differing = [name for name in {**before, **told} if before.get(name) != told.get(name)]
    if differing := [name for name in differing if name not in allowed]:
        name, *others = differing
        left = others[:MAX_NAMED_DIFFERENCES] + ["..."] * (len(others) > MAX_NAMED_DIFFERENCES)
        more = f" (and {', '.join(left)})" if others else ""
        came = f"{before.get(name) or 'nothing'} there, {told.get(name) or 'nothing'} now{more}"
        hint = " (or `allow_change=iterations`)" if name == "--iterations" else ""
        raise InputError(name, f"as in the run in {folder}{hint}", came)


class ResumeRecord(NamedTuple):
    """What a checkpoint says of its run, which resumes from it."""

    saved: Saved
    given: list[dict[str, Any]]  # the options, as the request's caller was given them
    told: dict[str, str]  # what must be the same, in words
    scale: int
    step: int  # of the scales before, as evaluations are
    evaluations: int
    iterations: list[int]  # of each scale
    ways: list[TilingMode]  # of each scale
    history: list[Point]
    seconds: float  # of optimization


def read_record(saved: Saved) -> ResumeRecord:
    """Return what the record of a checkpoint says. Raises InputError."""
    record = saved.record
    try:
        return ResumeRecord(
            saved,
            given=[{name: _hashable(value) for name, value in part.items()} for part in record["given"]],
            told={str(name): str(value) for name, value in record["told"].items()},
            scale=int(record["rung"]),
            step=int(record["step"]),
            evaluations=int(record["evaluations"]),
            iterations=[int(number) for number in record["iterations"]],
            ways=[TilingMode(int(tile), bool(anew)) for tile, anew in record["ways"]],
            history=[Point(*point) for point in record["history"]],
            seconds=float(record["seconds"]),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        allowed = "a checkpoint of nst"
        raise InputError(str(saved.folder), allowed, f"{type(error).__name__}: {error}") from error


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_iterations(resume: ResumeRecord, config: Config) -> None:
    """Raise InputError where other iterations than before would have led elsewhere."""
    before, now = resume.iterations, [scale.iterations for scale in config.pyramid()]
    here = resume.scale - 1
    taken = resume.saved.step - resume.step
    if before[:here] != now[:here] or now[here] < taken:
        wanted, came = ([*before[:here], taken], now[: here + 1])
        for_what = f", for the first {resume.scale} of the `scales`" if len(now) > 1 else ""
        allowed = f"{','.join(map(str, wanted))}, or more of the last{for_what}"
        raise InputError("`iterations`", allowed, f"got {','.join(map(str, came))}")


class CheckpointWriter:
    """Writes checkpoints when they are due; what cannot be written is told, and the run goes on."""

    def __init__(self, folder: Path, every: float, saved: Saved | None, facts: dict[str, Any]):
        """Open the folder. facts: what every record has. Raises InputError."""
        self.every, self.facts = every, facts
        self.last = self.begun = saved.step if saved else -1  # step of the newest that is whole, or begun
        self.checkpoints = Checkpoints(folder, saved.step if saved else None)
        self.since = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self.since >= self.every

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Begin to write a checkpoint, if there is none of this step; the arrays are free afterwards.

        Args:
            step: Its number.
            tree: Of arrays.
            record: What JSON can hold.
        """
        self.since = time.monotonic()
        self.finish()
        if step == self.last:
            return
        try:
            self.checkpoints.save(step, tree, self.facts | record)
            self.begun = step
        except InputError as error:
            LOG.error("%s; the run goes on", error)

    def finish(self) -> None:
        """Wait until the checkpoint that was begun is whole."""
        try:
            self.checkpoints.finish()
            self.last = self.begun
        except InputError as error:
            self.begun = self.last
            LOG.error("%s; the run goes on", error)

    def ended(self, keep: bool) -> None:
        """Drop the checkpoints of a run that is finished, or tell what is kept of it."""
        if not keep:
            self.checkpoints.remove()
        elif self.last >= 0:
            folder, size = self.checkpoints.folder, self.checkpoints.size / 1e6
            LOG.info(
                "%s keeps %.1f MB, to extend the run (--keep_checkpoints=false drops them)", folder, size
            )

    def close(self) -> None:
        """Wait, and let other runs have the folder."""
        self.finish()
        self.checkpoints.close()
