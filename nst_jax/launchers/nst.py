"""Make one picture (or one texture): the content of a photograph in the style of one or more paintings.

Example: nst --content=example:cat --style=example:night --output=cat.png
"""

import math
import time
from collections.abc import Sequence
from typing import Any

from absl import logging

from nst_jax.config import Config
from nst_jax.errors import InputError, as_flags
from nst_jax.launchers.console import DONE, WRONG_NUMBERS, fail, in_minutes, set_verbosity, tell
from nst_jax.launchers.distributed import distributed_session
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.launchers.progress_bar import Display
from nst_jax.launchers.signals import interrupts
from nst_jax.options import fields_of, is_tuple
from nst_jax.runs.checkpointing import CheckpointOptions, ResumeRecord, find
from nst_jax.runs.events import (
    Advanced,
    Finished,
    Optimized,
    Planned,
    Previewed,
    Result,
    Resumed,
    Started,
    Written,
)
from nst_jax.runs.input_files import InputOptions
from nst_jax.runs.job import Job, prepare
from nst_jax.runs.outputs import missed_strength
from nst_jax.runs.request import OutputOptions, Request
from nst_jax.runs.settings import Again, beneath, parse_options, read_options
from nst_jax.system import device
from nst_jax.system.distributed import DeviceOptions, all_max, is_primary, prepare_on_all
from nst_programs import ENDINGS

OPTIONS = (InputOptions, OutputOptions, DeviceOptions, CheckpointOptions, Config)
# What is of one command and not of its run: a checkpoint does not hand it on.
OWN = (
    "dry_run",
    "checkpoint",
    "resume",
    "allow_change",
    "coordinator",
    "num_processes",
    "process_id",
    "join_timeout",
)


def main(*given: ParsedFlags) -> int:
    """Run `nst` with what was given of OPTIONS. Raises InputError before anything is written."""
    began = time.monotonic()
    given, own = given[:-1], Again(**given[-1])
    if name := own.settings:
        given = beneath(given, OPTIONS, parse_options(read_options(name), f"`settings={name}`"))
    checkpoint = CheckpointOptions(**given[3])
    resume = find(checkpoint)
    if resume and checkpoint.resume:
        given = with_given(given, OPTIONS, resume)
    devices = DeviceOptions(**given[2])
    with distributed_session(devices):
        if devices.process_id:  # the one that writes speaks for all
            set_verbosity(quiet=True)
        job: Job = prepare_on_all(lambda: _prepare(given, resume, began))
        return _forecast(job) if job.request.outputs.dry_run else _run(job)


def _prepare(
    given: Sequence[ParsedFlags], resume: ResumeRecord | None, began: float
) -> tuple[Job, dict[str, Any]]:
    """Return the job of what was given, and what must be equal in all processes. Raises InputError."""
    inputs, outputs, devices, checkpoint, config = given
    request = Request(
        inputs=InputOptions(**inputs),
        outputs=OutputOptions(**outputs),
        devices=DeviceOptions(**devices),
        checkpoint=CheckpointOptions(**checkpoint),
        config=Config.from_preset(**config),
        given=[{name: value for name, value in part.items() if name not in OWN} for part in given],
    )
    device.set_up()
    job = prepare(request, resume, began)
    return job, job.alike


def with_given(
    given: Sequence[ParsedFlags], options: Sequence[type], resume: ResumeRecord
) -> tuple[ParsedFlags, ...]:
    """Return the options that a run was begun with, and over them those given now.

    Args:
        given: the flags given now, for each of the options.
        options: their dataclasses.
        resume: has the flags that were given then.

    Raises:
        InputError: these are not flags of the options.
    """
    known = [{field.name: is_tuple(field) for field in fields_of(kind)} for kind in options]
    found = [{name: isinstance(value, tuple) for name, value in part.items()} for part in resume.given]
    if len(found) != len(known) or any(f.items() - k.items() for f, k in zip(found, known, strict=True)):
        raise InputError(str(resume.saved.folder), "a checkpoint of nst", "an option in it is wrong")
    return tuple(old | new for old, new in zip(resume.given, given, strict=True))


def _run(job: Job) -> int:
    """Make the picture, show what happens, and return the exit code."""
    with interrupts() as interrupted, Display(job.request.config.pyramid()) as display:
        for event in job.run(stop=lambda: all_max(interrupted())):
            match event:
                case Planned(plans):
                    for plan in plans:
                        logging.info("%s", plan)
                case Resumed(step, finished):
                    _tell_resumed(job, step, finished)
                case Started():
                    interrupted()  # from now on there is a picture to keep
                case Advanced(progress):
                    display.show(progress)
                case Optimized():
                    display.close()
                case Previewed(path) | Written(path):
                    tell(path)
                case Finished(result):
                    pass
    return _exit_code(job, result)


def _tell_resumed(job: Job, step: int, finished: str) -> None:
    folder = job.request.checkpoint.folder
    if not finished:
        logging.info("goes on after step %d, from %s", step, folder)
        return
    further = "no step lowers the loss" if finished == "converged" else "--allow_change=iterations extends it"
    logging.info("finished already, after step %d, in %s; %s", step, folder, further)


def _exit_code(job: Job, result: Result) -> int:
    """Say how the run ended; return the exit code."""
    last, output, config = result.progress, job.request.outputs.output, job.request.config
    if not last.finite:
        came = f"not finite after step {last.step}, whose picture is {output}"
        return fail(WRONG_NUMBERS, InputError("loss", "finite numbers (smaller weights?)", came))
    if result.stopped:
        come_to = "as it was" if result.untouched else f"the picture of step {last.step}"
        further = f"; --resume={job.request.checkpoint.folder} goes on" if result.resumable else ""
        return fail(result.stopped, f"{ENDINGS[result.stopped - 128]}: {output} is {come_to}{further}")
    if missed := missed_strength(config, last):
        logging.warning("%s", as_flags(missed))
    if last.converged:
        logging.info("converged: no step lowers the loss after step %d", last.step)
    return DONE


def _dials(config: Config) -> str:
    """Say what the dials come to."""
    names = ("content_weight", "style_weight", "tv_weight")
    weights = ", ".join(f"{name} {getattr(config, name):g}" for name in names)
    if config.target_lpips is None:
        units = "in units of the terms' pulls" if config.loss_balancing == "auto" else "raw"
        return f"weights {units}: {weights}; stroke size {config.stroke_size:g}"
    target = config.target_lpips
    lpips = "" if math.isnan(target) else f" (LPIPS to the photograph {target:.2f})"
    begins = f"begins with {weights}, in units of the terms' pulls"
    return f"strength {config.strength:g}{lpips}, {begins}; stroke size {config.stroke_size:g}"


def _forecast(job: Job) -> int:
    """Print what each scale that is still to run will take."""
    found, config = job.forecast(), job.request.config
    total = len(config.pyramid())
    if is_primary():
        tell(_dials(config))
        for number, plan, steps, seconds in found:
            tell(f"scale {number} of {total}: {plan}; {steps} steps, about {in_minutes(seconds)}")
        tell(f"in all about {in_minutes(sum(each.seconds for each in found))}, and some seconds to compile")
    return DONE


FIRST = ("content", "style", "output", "strength", "effort", "stroke_size", "size", "preset")
PROGRAM = Program("nst", __doc__, (*OPTIONS, Again), main, FIRST)


def console() -> None:
    """Run the program `nst` on the command line."""
    launch(PROGRAM)
