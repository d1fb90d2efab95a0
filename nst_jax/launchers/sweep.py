"""Make many pictures in one compiled program: over loss weights, seeds, styles or contents.

Example: nst-sweep --content=example:cat --style=example:ink --sweep=style_weight=0.3,1,3 --output_dir=cats
"""

import time

from absl import logging

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.launchers.console import DONE, WRONG_NUMBERS, fail, in_minutes, tell
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.launchers.progress_bar import Seldom
from nst_jax.launchers.signals import interrupts
from nst_jax.runs.events import Written
from nst_jax.runs.input_files import InputOptions
from nst_jax.runs.sweep_job import SweepAdvanced, SweepFinished, SweepJob, SweepResult, prepare_sweep
from nst_jax.runs.sweep_request import SweepOptions, make_sweep_request
from nst_jax.system import device
from nst_programs import ENDINGS

NAMED = 8  # pictures that are not finite


def main(inputs: ParsedFlags, options: ParsedFlags, config: ParsedFlags) -> int:
    """Run `nst-sweep` with the options given. Raises InputError before anything is written."""
    wanted = SweepOptions(**options)
    request = make_sweep_request(InputOptions(**inputs), wanted, config)
    device.set_up()
    job = prepare_sweep(request)
    if wanted.dry_run:
        return _forecast(job)
    lines = Lines()
    with interrupts() as interrupted:
        for event in job.run(stop=interrupted):
            match event:
                case SweepAdvanced():
                    interrupted()  # from now on there is something to keep
                    lines.show(event)
                case Written(path):
                    tell(path)
                case SweepFinished(result):
                    pass
    return _exit_code(job, result)


def _forecast(job: SweepJob) -> int:
    """Print what the pictures that are missing will take."""
    found, seconds = job.forecast(), 0.0
    for left, size, steps, each in found:
        tell(f"{left} pictures of {size} pixels, {steps} steps each: about {in_minutes(each)}")
        seconds += each
    tell(f"in all about {in_minutes(seconds)} one after the other, and some seconds to compile")
    return DONE


class Lines:
    """Tells where a sweep stands, now and then."""

    def __init__(self) -> None:
        self.due = Seldom()
        self.began: tuple[float, float] | None = None  # the time, and the share that was done then

    def show(self, now: SweepAdvanced) -> None:
        """Tell of a chunk that has ended."""
        here = (now.last + 1 - now.first) * now.step / max(1, now.steps)
        share = (now.first - 1 + here) / now.total
        self.began = self.began or (time.monotonic(), share)
        seconds, done = time.monotonic() - self.began[0], share - self.began[1]
        left = f"{seconds / done * (1 - share):.0f} s left" if done > 0 else "compiling"
        where = f"pictures {now.first}-{now.last} of {now.total}"
        if self.due(last=share >= 1):
            logging.info("%s  step %d/%d  %s", where, now.step, now.steps, left)


def _exit_code(job: SweepJob, result: SweepResult) -> int:
    """Say how the sweep ended; return the exit code."""
    entries, count = result.entries, len(job.problems)
    judged = not job.request.wanted.judge or all("judge" in entry for entry in entries.values())
    if len(entries) < count or (result.stopped and not judged):
        made = f"{len(entries)} of {count} pictures are in {job.folder}"
        return fail(result.stopped, f"{ENDINGS[result.stopped - 128]}: {made}; --resume goes on")
    if flagged := [entry["file"] for entry in entries.values() if entry["flag"]]:
        came = f"not finite in {', '.join(flagged[:NAMED])}, which hold the last finite pictures"
        return fail(WRONG_NUMBERS, InputError("loss", "finite numbers (smaller weights?)", came))
    return DONE


FIRST = ("content", "style", "sweep", "output_dir", "strength", "effort", "size", "preset")
PROGRAM = Program("nst-sweep", __doc__, (InputOptions, SweepOptions, Config), main, FIRST)


def console() -> None:
    """Run the program `nst-sweep` on the command line."""
    launch(PROGRAM)
