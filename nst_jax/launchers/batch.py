"""Make a picture for each row of a manifest, or for each pair of --contents and --styles.

Rows that were made before of the same files and options are skipped. A row that fails is recorded, and the
next one is made. All flags of nst hold for all rows; a column of the manifest holds for its row, and {id} in
--output, --report, --plot and --mask_preview stands for the row's id.

Example: nst-batch --contents='photos/*.jpg' --style=example:night --output='out/{id}.png'
Example: nst-batch --manifest=rows.csv --output='out/{id}.png' --shard=0/4
"""

import contextlib
import os
import time

from absl import logging

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.launchers.console import DONE, fail, tell
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.launchers.progress_bar import Seldom
from nst_jax.launchers.signals import interrupts, scratch_folder
from nst_jax.runs.batch_job import Batch, BatchEvent, RowFinished, prepare_batch
from nst_jax.runs.batch_ray import RunnerOptions, ray_session, run_on_ray
from nst_jax.runs.batch_request import BatchOptions, make_batch_request
from nst_jax.runs.batch_summary import write_summary
from nst_jax.runs.input_files import InputOptions
from nst_jax.runs.request import OutputOptions
from nst_jax.system import device
from nst_programs import ENDINGS

FAILED = 3  # exit code: some rows are not good


def main(
    inputs: ParsedFlags, outputs: ParsedFlags, options: ParsedFlags, runner: ParsedFlags, config: ParsedFlags
) -> int:
    """Run `nst-batch` with the options given. Raises InputError before anything is written."""
    dry_run = outputs.pop("dry_run", False)
    request = make_batch_request(BatchOptions(**options), {**inputs, **outputs, **config}, os.environ)
    where = RunnerOptions(**runner)
    on_ray = where.runner == "ray" and not dry_run
    if on_ray and request.wanted.shard:
        raise InputError("--shard", "not with --runner=ray, which makes all shards", "got both")
    with scratch_folder() as scratch, ray_session() if on_ray else contextlib.nullcontext():
        if not on_ray:
            device.set_up()
        return _run(prepare_batch(request, scratch), where, dry_run)


def _run(batch: Batch, runner: RunnerOptions, dry_run: bool) -> int:
    """Make the rows, or tell what they will take; return the exit code."""
    if dry_run:
        rows, made, shapes, programs = batch.forecast
        tell(f"{rows} rows, {made} of them in the results; {shapes} shapes; {programs} programs to compile")
        return DONE
    counts = Counts(len(batch.rows))
    with interrupts() as interrupted:
        interrupted()  # from now on a signal ends the batch after the row in hand
        events = batch.run(stop=interrupted)
        if runner.runner == "ray":
            events = run_on_ray(batch.request, runner, stop=interrupted)
        for event in events:
            counts.take(event)
        if batch.request.wanted.summary and not interrupted():
            for path in write_summary(batch.results, batch.staging):
                tell(path)
        return _exit_code(batch, counts, interrupted())


class Counts:
    """Counts rows, and tells now and then where the batch stands."""

    def __init__(self, total: int):
        self.total, self.made, self.skipped = total, 0, 0
        self.failures: list[tuple[str, str]] = []
        self.began, self.due = time.monotonic(), Seldom()

    @property
    def seen(self) -> int:
        """The rows that are dealt with."""
        return self.made + self.skipped + len(self.failures)

    def take(self, event: BatchEvent) -> None:
        """Take note of a row."""
        if event.error:
            self.failures.append((event.id, event.error))
            logging.warning("%s: %s", event.id, event.error)
        elif isinstance(event, RowFinished):
            self.made += 1
            for path in event.paths:
                tell(path)
        else:
            self.skipped += 1
        if self.due(last=self.seen == self.total):
            logging.info("%s", self)

    def __str__(self) -> str:
        done = self.seen - self.skipped
        seconds = time.monotonic() - self.began
        pace = f"; {60 * done / seconds:.3g} rows a minute" if done else ""
        left = f", about {seconds / done * (self.total - self.seen):.0f} s left" if done else ""
        counted = f"{self.made} made, {len(self.failures)} failed, {self.skipped} skipped"
        return f"{self.seen} of {self.total} rows: {counted}{pace}{left}"


def _exit_code(batch: Batch, counts: Counts, stopped: int) -> int:
    """Say how the batch ended; return the exit code."""
    if stopped and counts.seen < counts.total:
        return fail(stopped, f"{ENDINGS[stopped - 128]}: {counts}; the same command goes on")
    if counts.failures:
        number, first = len(counts.failures), ": ".join(counts.failures[0])
        where = f"all are in {batch.results.folder}; --retry_failed tries them again"
        return fail(FAILED, f"{number} of {counts.total} rows failed, first {first}; {where}")
    return DONE


FIRST = ("manifest", "content", "style", "output", "strength", "effort", "size", "preset")
PROGRAM = Program(
    "nst-batch", __doc__, (InputOptions, OutputOptions, BatchOptions, RunnerOptions, Config), main, FIRST
)


def console() -> None:
    """Run the program `nst-batch` on the command line."""
    launch(PROGRAM)
