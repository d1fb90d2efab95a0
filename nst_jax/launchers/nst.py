"""Make one picture (or one texture): the content of a photograph in the style of one or more paintings.

Example: nst --content=example:cat --style=example:night --output=cat.png
"""

import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

import nst_jax
from nst_jax import checkpoint, images, judge, rows
from nst_jax import masks as masking
from nst_jax.config import PRESETS, Config
from nst_jax.errors import InputError, NotWritten, as_flags
from nst_jax.files import check_folder, check_writable, write_whole
from nst_jax.launchers import device, hosts
from nst_jax.launchers.common import (
    DONE,
    WRONG_NUMBERS,
    Given,
    Pace,
    Program,
    fail,
    interrupts,
    launch,
    tell,
)
from nst_jax.launchers.display import Display
from nst_jax.launchers.hosts import Machine
from nst_jax.launchers.inputs import (
    NO_SETTINGS,
    Inputs,
    Pictures,
    Shelf,
    check_different,
    check_inputs,
    load_masks,
    load_pictures,
    settings,
    working_size,
)
from nst_jax.launchers.judge import Against, judged_sizes, try_verdict
from nst_jax.launchers.keeping import (
    Keeper,
    Keeping,
    Stood,
    check_iterations,
    check_same,
    find,
    read_record,
    surroundings,
    with_given,
)
from nst_jax.masks import Masks
from nst_jax.options import check_options, option
from nst_jax.plan import Plan, Way, make_plans, state_shapes, work
from nst_jax.problem import Problem, finish, spread
from nst_jax.report import (
    PLOT_FORMATS,
    Point,
    check_plot,
    ended,
    history,
    plot_losses,
    resolved,
    rungs,
    to_json,
)
from nst_jax.scales import make_problems, settled
from nst_jax.transfer import Progress, Standing, chunk_steps, run
from nst_jax.vgg import Params, in_force, make_params
from nst_jax.weights import Weights, load_weights
from nst_programs import ENDINGS

PREVIEWS = 100_000  # at most
RAW = 1e4  # a style weight above it is none in units of pulls


@dataclasses.dataclass(frozen=True)
class Files:
    """The files that are written."""

    output: str = option("", "picture to write: .png .jpg .webp .tif .avif; whole or not at all")
    output_size: str = option(
        "working",
        "working (as optimised), or content (resampled to the content's size)",
        choices=("working", "content"),
    )
    depth: int = option(8, "bits a channel of the picture; 16 for .png and .tif", choices=images.DEPTHS)
    dpi: int = option(0, "resolution told to printers, in pixels per inch; 0: none", low=0, high=10_000)
    report: str = option("", "JSON file for losses, options and timings")
    plot: str = option("", "picture file for the loss curves: .png .svg .pdf")
    save_every: int = option(0, "steps between previews OUTPUT.step000050.png; 0: none", low=0, high=10**7)
    judge: bool = option(False, "measure the written picture as nst-judge does, for --report")
    mask_preview: str = option("", "picture to write that shows which style acts where")
    no_settings: bool = option(False, NO_SETTINGS)
    dry_run: bool = option(False, "print sizes, windows, memory and time of the run, and write nothing")

    def __post_init__(self) -> None:
        check_options(self)


class Output(NamedTuple):
    """How the picture is written."""

    size: tuple[int, int]  # rows, columns
    alpha: np.ndarray | None  # the content's
    photograph: np.ndarray | None  # the content
    opacity: np.ndarray | None  # with masks: how much of each pixel is the picture's
    settings: str | None = None  # that the file tells


class Request(NamedTuple):
    """What was asked for."""

    inputs: Inputs
    files: Files
    machine: Machine
    keeping: Keeping
    config: Config


class Ready(NamedTuple):
    """What the optimisation takes."""

    request: Request
    facts: dict[str, Any]  # that checkpoints, if there are to be any, tell of the request
    stood: Stood | None
    output: Output
    pictures: Pictures
    weights: Weights
    params: Params
    devices: int


class Run(NamedTuple):
    """What an optimisation came to."""

    last: Progress
    history: list[Point]
    seconds: dict[str, float]
    tiles: list[int]  # of each rung, the longest side of a window; 0: at once
    keeper: Keeper | None

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint of its last step."""
        return self.keeper is not None and self.keeper.last == self.last.step


def main(
    inputs_given: Given, files_given: Given, machine_given: Given, keeping_given: Given, config_given: Given
) -> int:
    """Run `nst` with the options given. Raises InputError before anything is written."""
    began = time.monotonic()
    keeping = Keeping(**keeping_given)
    saved = find(keeping)
    stood = read_record(saved) if saved else None
    given = [inputs_given, files_given, machine_given, keeping_given, config_given]
    if stood and keeping.resume:
        given = with_given(given, (Inputs, Files, Machine, Keeping, Config), stood)
        keeping = Keeping(**given[3])
    machine = Machine(**given[2])
    with hosts.joined(machine):
        return _make(lambda: _prepare(given, keeping, machine, stood), began)


def _prepare(
    given: Sequence[Given], keeping: Keeping, machine: Machine, stood: Stood | None
) -> tuple[Ready, dict[str, Any]]:
    """Check the request and read the files; return beside it what all processes must have alike."""
    inputs_given, files_given, _, _, config_given = given
    inputs, files, config = Inputs(**inputs_given), Files(**files_given), Config.from_preset(**config_given)
    request = Request(inputs, files, machine, keeping, config)
    device.set_up()
    _check(request)
    shelf = Shelf(inputs.max_pixels)
    masks = load_masks(inputs, shelf)
    output = _output(request, shelf, masks)
    if files.judge:
        judged_sizes(files.output, output.size, _against(request), shelf)
    pictures = load_pictures(inputs, config, shelf, masks)
    config = settled(config, *pictures)
    request = request._replace(config=config)
    size = working_size(inputs, config, shelf)
    devices = _devices(machine, images.fit(*size, config.rungs()[0].size)[0], config)
    weights = load_weights(config.network, inputs.weights or None)
    params = make_params(weights.arrays)
    if not files.no_settings:
        output = output._replace(settings=settings(inputs, config, shelf))
    facts = _facts(given, config, pictures, weights, devices) if keeping.folder else {}
    if stood:
        allowed = ["--iterations"] if keeping.allow else []
        check_same(facts["told"], stood.told, stood.saved.folder, allowed)
        check_iterations(stood, config)
    alike = _alike(request, pictures, weights) | {"checkpoint": stood and stood.saved.step}
    return Ready(request, facts, stood, output, pictures, weights, params, devices), alike


def _facts(
    given: Sequence[Given], config: Config, pictures: Pictures, weights: Weights, devices: int
) -> dict[str, Any]:
    """Return what checkpoints tell of a run: what was given, and in words what its bits depend on."""
    meeting = ("coordinator", "num_processes", "process_id", "join_timeout")
    own = ("dry_run", "checkpoint", "resume", "allow", *meeting)
    options = {f"--{name}": _as_flag(value) for name, value in dataclasses.asdict(config).items()}
    told = options | _read(pictures) | {"weights": weights.sha256} | surroundings(devices)
    return {
        "given": [{name: value for name, value in part.items() if name not in own} for part in given],
        "told": {name: hosts.short(value) for name, value in told.items()},
        "iterations": [rung.iterations for rung in config.rungs()],
    }


def _as_flag(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _alike(request: Request, pictures: Pictures, weights: Weights) -> dict[str, Any]:
    """Return by name the options, what was read and what programs are made by."""
    machine = dataclasses.replace(request.machine, process_id=0)
    options = [dataclasses.asdict(part) for part in request._replace(machine=machine)]
    return (
        {f"--{name}": value for part in options for name, value in part.items()}
        | _read(pictures)
        | {"weights": weights.sha256, "nst_jax": nst_jax.__version__, "jax": jax.__version__}
        | {"devices of a process": jax.local_device_count()}
    )


def _read(pictures: Pictures) -> dict[str, Any]:
    """Return the pictures and masks by name."""
    content, styles, init, masks = pictures
    named = {f"--style {k}": style for k, style in enumerate(styles, 1)}
    masked = {f"the pixels of {as_flags(name)}": mask for name, mask, _ in masks.named()}
    return {"--content 1": content} | named | {"--init 1": init} | masked


def _devices(machine: Machine, height: int, config: Config) -> int:
    """Return how many devices share the rows of the smallest picture. Raises InputError."""
    spec, there = config.spec(), len(jax.devices())
    most = rows.most_devices(height, spec.layers)
    if machine.num_processes > 1 and machine.devices not in (0, there):
        allowed = f"all {there} where there are several processes"
        raise InputError("--devices", allowed, f"got {machine.devices}")
    all_of_them = there if machine.num_processes > 1 else min(there, most)
    devices = machine.devices or all_of_them
    if devices > there:
        raise InputError("--devices", f"from 1 to {there}, as many as there are", f"got {devices}")
    if devices > most:
        allowed = f"at most {most} for {height} rows, one of the deepest layer's for each"
        raise InputError("--devices", allowed, f"got {devices}")
    return devices


def _make(prepare: Callable[[], tuple[Ready, dict[str, Any]]], began: float) -> int:
    """Make the picture; return the exit code."""
    ready = hosts.agreed(prepare)
    files = ready.request.files
    if hosts.writes():
        _warn(ready.request.config, ready.weights, ready.pictures)
    else:
        logging.set_verbosity(logging.ERROR)
    if files.dry_run:
        return _dry_run(ready)
    with interrupts() as interrupted, contextlib.ExitStack() as at_end:
        done = _optimize(ready, interrupted, at_end)
        stopped = hosts.largest(interrupted())
        kept = bool(stopped) and done.last.step == 0 and Path(files.output).exists()
        if hosts.writes() and not kept:
            _write(done, ready, began, judged=not stopped)
        if done.keeper and hosts.writes() and done.last.finite and not stopped:
            done.keeper.ended(ready.request.keeping.keep_checkpoints)
    if not done.last.finite:
        came = f"not finite after step {done.last.step}, whose picture is {files.output}"
        return fail(WRONG_NUMBERS, InputError("loss", "finite numbers (smaller weights?)", came))
    if stopped:
        come_to = "as it was" if kept else f"the picture of step {done.last.step}"
        further = f"; --resume={ready.request.keeping.folder} goes on" if done.resumable else ""
        return fail(stopped, f"{ENDINGS[stopped - 128]}: {files.output} is {come_to}{further}")
    if done.last.converged:
        logging.info("converged: no step lowers the loss after step %d", done.last.step)
    return DONE


def _problems(ready: Ready, config: Config) -> list[Problem]:
    """Return the problems of the rungs of a config, spread over the devices."""
    (content, styles, init, masks), mesh = ready.pictures, rows.make_mesh(ready.devices)
    problems = make_problems(ready.params, content, styles, config, init, masks)
    return [spread(problem, mesh) for problem in problems]


def _free(devices: int) -> int | None:
    return hosts.least(device.free_memory(min(devices, jax.local_device_count())))


def _dry_run(ready: Ready) -> int:
    """Print the plan of every rung to come, with its time by a few steps of a small picture."""
    config, stood = ready.request.config, ready.stood
    problems, plans = _plans(ready)
    pace = _seconds_per_pixel(_small(ready))
    first, total = len(problems) - len(plans), 0.0
    for number, plan in enumerate(plans, first):
        steps = config.rungs()[number].iterations
        if stood and number == first:
            steps -= stood.saved.step - stood.step
        seconds = steps * work(plan.problem) * pace
        total += seconds
        if hosts.writes():
            tell(f"rung {number + 1} of {len(problems)}: {plan}; {steps} steps, about {_minutes(seconds)}")
    if hosts.writes():
        tell(f"in all about {_minutes(total)}, and some seconds to compile")
    return DONE


def _small(ready: Ready) -> Problem:
    """Return a problem of few steps and 256 pixels, or of the first rung's where those are too few."""
    config = ready.request.config
    size = min(config.size, 256)
    scales = f"{size},{config.size}" if size < config.size else ""
    try:
        small = _problems(ready, dataclasses.replace(config, scales=scales, iterations=(6,)))[0]
    except InputError:
        small = _problems(ready, config)[0]
    size = max(small.first.shape[:2])
    return small._replace(config=dataclasses.replace(config, size=size, scales="", iterations=(6,)))


def _seconds_per_pixel(problem: Problem) -> float:
    """Return the seconds that a step takes for each pixel, from the second to the last of a short run."""
    times = [(time.monotonic(), now) for now in run([problem], every=1)][1:]
    (began, first), *_, (ended, last) = times * 2
    height, width, _ = last.picture.shape
    return (ended - began) / max(1, last.step - first.step) / (height * width)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _warn(config: Config, weights: Weights, pictures: Pictures) -> None:
    """Say what will disappoint: weights for activations of another scale, masks with nothing but edges."""
    regions = masking.regions(pictures.masks)
    if regions is not None and masking.opacity(regions).max() < 1:
        logging.warning("the masks are nowhere %d pixels wide: the content shows through", 2 * masking.SEAM)
    if config.balance == "auto" and config.style_weight > RAW:
        logging.warning(
            "--style_weight=%g is in units of the style's pull, about 1; raw ones go with --preset=gatys",
            config.style_weight,
        )
    small = config.style_weight <= 100 * PRESETS["tutorial"]["style_weight"]
    if config.preset == "tutorial" and small and weights.normalization == "torchvision":
        logging.warning("--preset=tutorial is for VGG-19 of Keras; with these weights it shows no style")


def _check(request: Request) -> None:
    """Find out before the optimisation, not after it, whether everything can be written."""
    inputs, files, _, keeping, config = request
    if not files.output:
        raise InputError("--output", f"a file that ends in {' '.join(images.FORMATS)}", "not given")
    check_inputs(inputs, config)
    if not inputs.content and files.output_size == "content":
        raise InputError("--output_size", "working where there is no --content", "got content")
    images.check_output(files.output)
    images.check_depth(files.output, files.depth)
    if files.mask_preview:
        images.check_output(files.mask_preview)
        if not (inputs.content_mask or any(inputs.style_mask) or inputs.content_labels):
            allowed = "with --content_mask, --style_mask or --content_labels"
            raise InputError("--mask_preview", allowed, "none was given")
    if files.report:
        check_writable(Path(files.report))
    if files.judge and not files.report:
        raise InputError("--judge", "with --report", "it is not given")
    if files.plot:
        check_plot()
        images.check_output(files.plot, PLOT_FORMATS)
    if keeping.folder:
        check_folder(keeping.folder)
    written = [files.output, files.report, files.plot, files.mask_preview, str(keeping.folder or "")]
    if files.save_every:
        previews = range(files.save_every, config.steps + 1, files.save_every)
        if len(previews) > PREVIEWS:
            raise InputError("--save_every", f"at most {PREVIEWS} previews", f"got {len(previews)}")
        written += [f"{files.output}.step{step:06d}.png" for step in previews]
    check_different(
        inputs, config, written, "--output, --report, --plot, --mask_preview, --save_every, --checkpoint"
    )


def _output(request: Request, shelf: Shelf, masks: Masks) -> Output:
    """Return how the picture is written: outside the masks with the content's own pixels, at any size.

    Raises InputError where its format or its disk cannot hold it.
    """
    inputs, files, *_, config = request
    height, width = working_size(inputs, config, shelf)
    content = shelf.read(inputs.content) if inputs.content else None
    if content and files.output_size == "content":
        height, width = content.size
    alpha = content and content.alpha
    images.check_output_size(files.output, height, width)
    images.check_space(files.output, height, width, alpha=alpha is not None, depth=files.depth)
    regions = masking.regions(masking.resize_all(masks._replace(sources=()), (height, width), []))
    return Output(
        size=(height, width),
        alpha=None if alpha is None else images.resize(alpha, height, width),
        photograph=shelf.resize(inputs.content, height, width) if content else None,
        opacity=None if regions is None else masking.opacity(regions),
    )


def _plans(ready: Ready) -> tuple[list[Problem], list[Plan]]:
    """Return the problems of all rungs, and the plans of those that are still to run."""
    stood = ready.stood
    problems = _problems(ready, ready.request.config)
    skipped = stood.rung - 1 if stood else 0
    ways = stood.ways[skipped:] if stood else []  # others would round otherwise
    plans = make_plans(problems[skipped:], _free(ready.devices), ways)
    return [*problems[:skipped], *(plan.problem for plan in plans)], plans


def _standing(stood: Stood | None, problems: Sequence[Problem]) -> Standing | None:
    """Return what a run goes on from. Raises InputError where its arrays cannot be read."""
    if not stood:
        return None
    state = checkpoint.restore(stood.saved, state_shapes(problems[stood.rung - 1]))
    step, folder = stood.saved.step, stood.saved.folder
    left = problems[-1].config.rungs()[-1].iterations - (step - stood.step)
    if stood.rung < len(problems) or (left and not state.converged):
        logging.info("goes on after step %d, from %s", step, folder)
    else:
        further = "no step lowers the loss" if state.converged else "--allow=iterations extends it"
        logging.info("finished already, after step %d, in %s; %s", step, folder, further)
    return Standing(state, stood.rung, stood.step, stood.evaluations)


def _keeper(ready: Ready, problems: Sequence[Problem]) -> Keeper | None:
    """Return what writes the checkpoints, if there are to be any. Raises InputError."""
    keeping, saved = ready.request.keeping, ready.stood and ready.stood.saved
    if not keeping.folder:
        return None
    ways = [Way(problem.spec.tile, problem.spec.anew) for problem in problems]
    return Keeper(keeping.folder, keeping.checkpoint_every, saved, ready.facts | {"ways": ways})


def _optimize(ready: Ready, interrupted: Callable[[], int], at_end: contextlib.ExitStack) -> Run:
    """Run the loop, showing progress, writing previews and checkpoints, to its end or until interrupted.

    at_end: closes what writes the checkpoints.
    """
    request, stood = ready.request, ready.stood
    files, config = request.files, request.config
    every = chunk_steps(config.steps)
    if files.save_every:
        every = math.gcd(every, files.save_every)
    seen, before = (list(stood.history), stood.seconds) if stood else ([], 0.0)
    last: Progress | None = None
    with device.CompileTime() as compiling, Display(config.rungs()) as display:
        problems, plans = _plans(ready)
        for plan in plans:
            logging.info("%s", plan)
        keeper, pace = _keeper(ready, problems), Pace()
        if keeper:
            at_end.callback(keeper.close)

        def seconds() -> float:
            """Return how long has been optimised, before and now."""
            return before + time.monotonic() - began - (compiling.seconds - compiled)

        height, width, _ = problems[-1].first.shape
        with device.running_out(height, width):
            standing = _standing(stood, problems)
            for last in run(problems, every, standing, lambda: hosts.least(pace()) or 1):
                interrupted()  # from now on there is a picture to keep
                if pace.step is None:
                    began, compiled = time.monotonic(), compiling.seconds
                    if files.mask_preview and hosts.writes():
                        _show_masks(problems[-1].first, ready.pictures, request)
                pace.told(last.step)
                if _is_told(last, seen, every):
                    moved = bool(seen) and last.step > seen[-1].step
                    previewed = moved and files.save_every and last.step % files.save_every == 0
                    seen.append(_point(last))
                    display.show(last)
                    if previewed and hosts.writes():
                        _preview(last, ready.output, request)
                stop = hosts.largest(interrupted())
                if keeper and last.finite and (stop or hosts.largest(keeper.due)):
                    _keep(keeper, last, seen, seconds())
                if stop:
                    break
                if last.rung < last.rungs and (last.ends or last.converged):
                    last = last._replace(standing=None)  # the next rung needs its room
        assert last is not None  # the loop always yields step 0
        if keeper and last.finite:
            _keep(keeper, last, seen, seconds())
            keeper.finish()
    if last.step > seen[-1].step:  # where it was interrupted
        seen.append(_point(last))
    tiles = [problem.spec.tile for problem in problems]
    return Run(last, seen, {"compile": compiling.seconds, "optimize": seconds()}, tiles, keeper)


def _is_told(now: Progress, seen: Sequence[Point], every: int) -> bool:
    """Tell whether a chunk is part of the history: not where it was cut short so as not to take long."""
    if not seen or now.rung > seen[-1].rung:
        return True
    regular = now.step % every == 0 or now.ends or now.converged or not now.finite
    return now.step > seen[-1].step and regular


def _point(now: Progress) -> Point:
    height, width, _ = now.picture.shape
    return Point(now.step, now.rung, height, width, now.losses)


def _keep(keeper: Keeper, now: Progress, seen: Sequence[Point], seconds: float) -> None:
    """Write a checkpoint from which the run goes on from here."""
    assert now.standing is not None  # only sweeps have none
    state, rung, step, evaluations = now.standing
    where = {"rung": rung, "step": step, "evaluations": evaluations}
    keeper.save(now.step, state, where | {"history": list(seen), "seconds": seconds})


def _write(run: Run, ready: Ready, began: float, judged: bool) -> None:
    """Write the picture, report and plot that were asked for, each whole, whatever came of the others.

    judged: whether there is time to. Raises NotWritten in the end where one could not be.
    """
    request = ready.request
    files, config = request.files, request.config
    lost: list[InputError] = []
    try:
        _save(files.output, run.last.image, ready.output, request)
    except InputError as error:
        lost.append(InputError(error.what, error.allowed, f"{error.came}; {_rescue(run, ready)}"))
    verdict = {"judge": _judged(request) if judged and not lost else None} if files.judge else {}
    others: dict[str, Callable[[], bytes]] = {
        files.report: lambda: to_json(_report(run, ready, began) | verdict),
        files.plot: lambda: plot_losses(
            history(run.history), run.last.losses["weights"], config, Path(files.plot).suffix
        ),
    }
    for name, made in others.items():
        try:
            if name:
                write_whole(Path(name), made())
                tell(name)
        except InputError as error:
            lost.append(error)
    for other in lost[1:]:
        logging.error("%s", other)
    if lost:
        raise NotWritten(lost[0].what, lost[0].allowed, lost[0].came)


def _judged(request: Request) -> dict[str, Any] | None:
    """Return the measures of the picture that was written."""
    shelf = Shelf(request.inputs.max_pixels)
    return try_verdict(judge.load(), request.files.output, _against(request), shelf)


def _against(request: Request) -> Against:
    inputs, config = request.inputs, request.config
    return Against(inputs.content, inputs.style, config.style_mix, config.style_scale)


def _rescue(run: Run, ready: Ready) -> str:
    """Write the picture where temporary files go, as the disk has filled since it was checked; say where."""
    try:
        path = Path(tempfile.mkdtemp(prefix="nst_jax-")) / Path(ready.request.files.output).name
        _save(str(path), run.last.image, ready.output, ready.request)
    except (OSError, InputError) as error:
        return f"nor could it be written elsewhere ({error})"
    return f"it was written to {path}"


def _show_masks(image: np.ndarray, pictures: Pictures, request: Request) -> None:
    regions = masking.regions(pictures.masks)
    assert regions is not None  # _check has seen to it
    picture = images.resize(image, *regions.shape[1:]) if pictures.content is None else pictures.content
    names, colors = [Path(name).name for name in request.inputs.style], list(masking.COLORS)
    names = names if len(regions) > 1 else [", ".join(names)]
    if labels := pictures.masks.labels:  # each in its own colour; all styles have the same
        names = colors = [label.name for label in labels if label.picture == 0]
        regions = regions[: len(names)]
    path = request.files.mask_preview
    try:
        images.save(path, masking.preview(picture, regions, names, colors))
        tell(path)
    except InputError as error:  # as with previews
        logging.warning("%s", error)


def _preview(progress: Progress, output: Output, request: Request) -> None:
    try:
        _save(f"{request.files.output}.step{progress.step:06d}.png", progress.image, output, request)
    except InputError as error:  # no reason to lose the picture itself
        logging.warning("%s", error)


def _save(path: str, image: np.ndarray, output: Output, request: Request) -> None:
    _, files, *_, config = request
    if image.shape[:2] != output.size:
        image = finish(images.resize(image, *output.size), output.photograph, output.opacity, config)
    images.save(path, image, alpha=output.alpha, settings=output.settings, depth=files.depth, dpi=files.dpi)
    tell(path)


def _report(run: Run, ready: Ready, began: float) -> dict[str, Any]:
    request, weights, devices = ready.request, ready.weights, ready.devices
    inputs, files, machine, keeping, config = request
    last = run.last
    initial = next(point.losses for point in run.history if point.rung == last.rung)
    seconds = run.seconds | {"total": time.monotonic() - began}
    seconds["per_evaluation"] = run.seconds["optimize"] / max(1, last.evaluations - 1)
    return {
        "nst_jax": nst_jax.__version__,
        "config": {
            **dataclasses.asdict(inputs),
            **dataclasses.asdict(files),
            **dataclasses.asdict(machine),
            **dataclasses.asdict(keeping),
            **resolved(config, len(inputs.style)),
        },
        "weights": {
            "network": weights.network,
            "normalization": weights.normalization,
            "sha256": weights.sha256,
            "source": weights.source,
        },
        "image": {"height": last.picture.shape[0], "width": last.picture.shape[1]},
        "losses": {"initial": initial, "final": last.losses},
        "rungs": rungs(run.history),
        "history": history(run.history),
        "ended": ended(run.history, config, last.finite, last.converged),
        "evaluations": last.evaluations,
        "seconds": seconds,
        "device": device.describe(devices),
        "precision": in_force(config.precision),
        "depends_on": device.depends_on(devices) | {"tiles": run.tiles},
        "peak_memory_bytes": device.peak_memory(),
    }


PROGRAM = Program("nst", __doc__, (Inputs, Files, Machine, Keeping, Config), main)


def console() -> None:
    """Run the program `nst` on the command line."""
    launch(PROGRAM)
