"""Progress on standard error: a bar on a terminal, elsewhere a log line now and then."""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from nst_jax.config import Scale
from nst_jax.launchers.signals import surely
from nst_jax.runs.transfer import Progress

LINE_SECONDS = 5.0  # seconds between two lines


class Seldom:
    """Tells whether a line is due: the first one, one every few seconds, and the last one."""

    def __init__(self) -> None:
        self.told = -math.inf

    def __call__(self, last: bool) -> bool:
        """Return whether to tell now, of something that is the last one or not."""
        now = time.monotonic()
        due = last or now - self.told >= LINE_SECONDS
        self.told = now if due else self.told
        return due


class Display:
    """Shows step, evaluations a second, the time left and the loss; silent where quiet."""

    def __init__(self, scales: Sequence[Scale]):
        self.scales, self.total = scales, sum(scale.iterations for scale in scales)
        self.quiet = not logging.level_info()
        console = Console(stderr=True)
        self.bar = None
        if console.is_terminal and not self.quiet:
            # On a narrow terminal the text takes more lines.
            text = TextColumn("{task.description}", table_column=Column(ratio=1, overflow="fold"))
            self.bar = Bar(MofNCompleteColumn(), BarColumn(10), text, console=console, expand=True)
            self.task = self.bar.add_task("compiling", total=self.total)
        self.due, self.at_end = Seldom(), contextlib.ExitStack()
        self.began: tuple[float, int] | None = None

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
            self.at_end.enter_context(surely(self.bar.stop))  # which brings back the terminal's cursor
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal to what comes next."""
        self.at_end.close()

    def show(self, progress: Progress) -> None:
        """Tell of a chunk that has ended."""
        if self.quiet:
            return
        where, loss = self._where(progress), shares(progress.losses)
        if self.bar:
            self.bar.update(self.task, completed=progress.step, description=f"{where}\n{loss}".strip())
        elif self.due(last=progress.step == self.total or not progress.finite):
            logging.info("%s", "  ".join(filter(None, (f"step {progress.step}/{self.total}", where, loss))))

    def _where(self, progress: Progress) -> str:
        now = time.monotonic()
        scale = f"scale {progress.scale}/{progress.scales} {max(progress.picture.shape)} px"
        scale = scale if progress.scales > 1 else ""
        if self.began is None or progress.step == 0:
            self.began = now, progress.evaluations
            return scale
        seconds, evaluations = now - self.began[0], progress.evaluations - self.began[1]
        rate = evaluations / max(seconds, 1e-9)
        done = self._pixels(progress.step)
        left = seconds / max(done, 1) * (self._pixels(self.total) - done)
        return f"{rate:.3g} evaluations/s  {left:.0f} s left  {scale}".rstrip()

    def _pixels(self, step: int) -> int:
        """Return the pixels of all pictures up to a step, as if they were square: the time goes with them."""
        pixels = 0
        for scale in self.scales:
            taken = min(step, scale.iterations)
            pixels, step = pixels + taken * scale.size**2, step - taken
        return pixels


def shares(losses: Mapping[str, Any]) -> str:
    """Return the total and the share in it of each term, as it is weighted.

    >>> shares({"total": 5.0, "content": 2.0, "style": 1e-8, "weights": {"content": 1.0, "style": 3e8}})
    'total 5: content 40%, style 60%'
    """
    total = losses["total"]
    parts = (f"{term} {_share(weight * losses[term], total)}" for term, weight in losses["weights"].items())
    return f"total {total:.4g}: {', '.join(parts)}"


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.0f}%" if total and math.isfinite(part / total) else "-"
