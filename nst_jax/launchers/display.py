"""Progress on standard error: a bar on a terminal, a log line per chunk elsewhere."""

import time
from collections.abc import Sequence

from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from nst_jax.config import Rung
from nst_jax.report import terms_in
from nst_jax.transfer import Progress


class Display:
    """Shows step, loss terms, evaluations a second and the time left; silent where quiet."""

    def __init__(self, rungs: Sequence[Rung]):
        self.rungs, self.total = rungs, sum(rung.iterations for rung in rungs)
        self.quiet = not logging.level_info()
        console = Console(stderr=True)
        self.bar = None
        if console.is_terminal and not self.quiet:
            # On a narrow terminal the losses at the end are cropped first.
            column = Column(no_wrap=True, overflow="crop", ratio=1)
            text = TextColumn("{task.description}", table_column=column)
            self.bar = Bar(MofNCompleteColumn(), BarColumn(10), text, console=console, expand=True)
            self.task = self.bar.add_task("compiling", total=self.total)
        self.began: tuple[float, int] | None = None

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, progress: Progress) -> None:
        """Tell of a chunk that has ended."""
        if self.quiet:
            return
        text = self._describe(progress)
        if self.bar:
            self.bar.update(self.task, completed=progress.step, description=text)
        else:
            logging.info("step %d/%d  %s", progress.step, self.total, text)

    def _describe(self, progress: Progress) -> str:
        now = time.monotonic()
        losses = "  ".join(f"{term} {progress.losses[term]:.4g}" for term in terms_in(progress.losses))
        if progress.rungs > 1:
            losses = f"rung {progress.rung}/{progress.rungs} {max(progress.picture.shape)} px  {losses}"
        if self.began is None or progress.step == 0:
            self.began = now, progress.evaluations
            return losses
        seconds, evaluations = now - self.began[0], progress.evaluations - self.began[1]
        rate = evaluations / max(seconds, 1e-9)
        done = self._pixels(progress.step)
        left = seconds / max(done, 1) * (self._pixels(self.total) - done)
        return f"{rate:.3g} evaluations/s  {left:.0f} s left  {losses}"

    def _pixels(self, step: int) -> int:
        """Return the pixels of all pictures up to a step, as if they were square: the time goes with them."""
        pixels = 0
        for rung in self.rungs:
            taken = min(step, rung.iterations)
            pixels, step = pixels + taken * rung.size**2, step - taken
        return pixels
