"""What watches a run: the size of its chunks, and the observers that are shown its progress after each.

An observer is a function that takes a Progress and yields events. A job calls its observers in order.
"""

import time
from collections.abc import Iterator

from nst_jax.reports.report import Point
from nst_jax.runs.checkpointing import CheckpointWriter, ResumeRecord
from nst_jax.runs.events import Advanced, Event, Previewed, Saved
from nst_jax.runs.outputs import Canvas, save_preview
from nst_jax.runs.transfer import Progress
from nst_jax.system.device import CompileTime
from nst_jax.system.distributed import all_max

CHUNK_SECONDS = 2.0  # that a chunk of steps takes at most, if a step takes less


class ChunkSizer:
    """Sizes chunks by the pace of those before, so that a stop is heard within CHUNK_SECONDS."""

    def __init__(self) -> None:
        self.steps = 1
        self.step: int | None = None  # after which the last chunk ended
        self.began = 0.0

    def __call__(self) -> int:
        """Return the most steps of the chunk that begins now."""
        self.began = time.monotonic()
        return self.steps

    def told(self, step: int) -> None:
        """Take note of the step that a chunk has come to."""
        if self.step is None or step <= self.step:  # another picture begins
            self.steps = 1
        else:
            seconds = (time.monotonic() - self.began) / (step - self.step)
            # Not by leaps: the time of a step of L-BFGS depends on its search.
            self.steps = max(1, min(2 * self.steps, int(CHUNK_SECONDS / seconds)))
        self.step = step


class History:
    """Keeps the losses after each chunk, and how long the optimization has taken."""

    def __init__(self, resume: ResumeRecord | None, every: int, compiling: CompileTime):
        self.points = list(resume.history) if resume else []
        self.before = resume.seconds if resume else 0.0
        self.report_every, self.compiling = every, compiling
        self.began = self.compiled = 0.0

    def start(self) -> None:
        """Start the clock."""
        self.began, self.compiled = time.monotonic(), self.compiling.seconds

    @property
    def seconds(self) -> float:
        """How long was optimized, before and now, without compilation."""
        return self.before + time.monotonic() - self.began - (self.compiling.seconds - self.compiled)

    def __call__(self, now: Progress) -> Iterator[Event]:
        """Keep the losses of a chunk, but not if it was cut short to take less time."""
        regular = now.step % self.report_every == 0 or now.ends or now.converged or not now.finite
        last = self.points[-1] if self.points else None
        if not last or now.scale > last.scale or (now.step > last.step and regular):
            self.add(now)
            yield Advanced(now._replace(resume_state=None))

    def add(self, now: Progress) -> None:
        """Keep the losses of a chunk."""
        height, width, _ = now.picture.shape
        self.points.append(Point(now.step, now.scale, height, width, now.losses))


class Previews:
    """Writes a preview after every so many steps, but not of the first picture."""

    def __init__(self, canvas: Canvas, step: int):
        self.canvas, self.step = canvas, step  # of the newest progress

    def __call__(self, now: Progress) -> Iterator[Event]:
        """Write a preview if one is due; a failure is logged."""
        moved, self.step = now.step > self.step, now.step
        if moved and now.step % self.canvas.files.save_every == 0:
            path = self.canvas.files.preview(now.step)
            if save_preview(path, now.image, self.canvas):
                yield Previewed(path)


class Saves:
    """Writes a checkpoint whenever one is due; tells of it as soon as it is known to be whole."""

    def __init__(self, writer: CheckpointWriter, history: History):
        self.writer, self.history = writer, history

    def __call__(self, now: Progress) -> Iterator[Event]:
        """Begin a checkpoint if one is due."""
        if now.finite and all_max(self.writer.due):
            yield from self.save(now)

    def save(self, now: Progress, last: bool = False) -> Iterator[Event]:
        """Begin a checkpoint from which the run goes on from here; wait for the last one."""
        assert now.resume_state is not None  # it is the newest progress
        here = now.resume_state
        where = {"rung": here.scale, "step": here.step, "evaluations": here.evaluations}
        told = {"history": list(self.history.points), "seconds": self.history.seconds}
        whole = self.writer.last
        self.writer.save(now.step, here.state, where | told)
        if last:
            self.writer.finish()
        if self.writer.last > whole:
            yield Saved(self.writer.last)
