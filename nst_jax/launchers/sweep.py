"""Make many pictures in one compiled program: over loss weights, seeds, styles or contents.

Example: nst-sweep --content=example:cat --style=example:ink --sweep=style_weight=0.3,1,3 --output_dir=cats
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from nst_jax import images, judge
from nst_jax.checkpoint import Checkpoints, Saved, newest, restore
from nst_jax.config import Config
from nst_jax.errors import InputError, did_you_mean
from nst_jax.files import check_folder, check_writable, write_whole
from nst_jax.launchers.common import (
    DONE,
    WRONG_NUMBERS,
    Given,
    Program,
    fail,
    interrupts,
    launch,
    tell,
)
from nst_jax.launchers.display import Seldom
from nst_jax.options import check_options, option, parse_option
from nst_jax.problem import Problem, make_problem, vary
from nst_jax.report import can_plot, terms_in, to_json
from nst_jax.runs.checkpointing import CheckpointWriter, check_same, surroundings
from nst_jax.runs.input_files import (
    NO_SETTINGS,
    ImageCache,
    Inputs,
    check_inputs,
    load_masks,
    load_pictures,
    settings,
    working_size,
)
from nst_jax.runs.judging import References, judged_sizes, try_verdict
from nst_jax.runs.observers import ChunkSizer
from nst_jax.sheet import (
    WIDTH,
    Tile,
    contact_sheet,
    describe,
    knee,
    plot_tradeoff,
    thumbnail,
    tile_side,
)
from nst_jax.sweep import Stopped, SweepProgress, sweep
from nst_jax.system import device
from nst_jax.system.distributed import fingerprint
from nst_jax.transfer import Progress, chunk_steps
from nst_jax.vgg import Params, make_params
from nst_jax.weights import load_weights
from nst_programs import ENDINGS

UNFINISHED = "unfinished"  # folder in --output_dir, of checkpoints
LARGEST = 2**26  # bytes of a sweep.json, 2000 for each of 30 thousand pictures
LONGEST = 60  # letters of a content's name in those of its pictures
MANY = 10_000  # pictures: above that --yes is asked for
SWEEPABLE = (
    *("strength", "style_weight", "content_weight", "tv_weight", "matting_weight", "style_mix"),
    *("layer_weighting", "learning_rate", "seed", "style", "content"),
)
LISTS = ("style_mix", "layer_weighting")  # a value is numbers with colons between them
FILES = ("style", "content")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is swept, and where the pictures go."""

    sweep: tuple[str, ...] = option(
        (),
        f"NAME=V1,V2,...; NAME: {', '.join(SWEEPABLE)}; numbers of a list with colons, style_mix=1:0,1:1; "
        "style and content also one file in each of several --sweep, whose name may have commas",
        repeated=True,
    )
    zip: bool = option(False, "the first values together, the second ones, ..., in place of the grid of all")
    output_dir: str = option(
        "", "folder for 0000.png ... (0000-cat.png of swept contents), sheet.png, tradeoff.png, sweep.json"
    )
    lanes: int = option(0, "pictures at a time; 0: as many as fit; --resume: as before", low=0, high=10**6)
    resume: bool = option(False, "go on with the sweep in --output_dir: make the pictures that are missing")
    checkpoint_every: float = option(
        60.0,
        "seconds between checkpoints of the pictures in hand, in --output_dir/unfinished",
        low=0,
        high=10**6,
    )
    judge: bool = option(False, "measure each picture as nst-judge does, for sweep.json")
    no_settings: bool = option(False, NO_SETTINGS)
    yes: bool = option(False, f"make more than {MANY} pictures")

    def __post_init__(self) -> None:
        check_options(self)


class Request(NamedTuple):
    """What was asked for."""

    inputs: Inputs
    wanted: Sweep
    given: Given  # of Config
    axes: dict[str, list[Any]]
    cells: list[dict[str, Any]]

    def config(self, cell: Mapping[str, Any]) -> Config:
        """Return the options of a cell. Raises InputError."""
        named = {name: value for name, value in cell.items() if name not in FILES}
        return Config.from_preset(**{"scales": "", **self.given, **named})  # a sweep has one size

    def cell_inputs(self, cell: Mapping[str, Any]) -> Inputs:
        """Return the input files of a cell."""
        named: dict[str, Any] = {
            name: (cell[name],) if name == "style" else cell[name] for name in FILES if name in cell
        }
        return dataclasses.replace(self.inputs, **named)

    def file(self, number: int) -> str:
        """Return the name of the picture of a cell."""
        content = Path(self.cells[number].get("content", "").removeprefix(images.EXAMPLE)).stem
        return f"{number:04d}{'-' * bool(content)}{content[:LONGEST]}.png"

    def against(self, cell: Mapping[str, Any]) -> References:
        """Return what the picture of a cell is judged against."""
        inputs, config = self.cell_inputs(cell), self.config(cell)
        return References(inputs.content, inputs.style, config.style_mix, config.style_scale)


def main(inputs_given: Given, sweep_given: Given, config_given: Given) -> int:
    """Run `nst-sweep` with the options given. Raises InputError before anything is written."""
    wanted = Sweep(**sweep_given)
    axes = _axes(wanted.sweep)
    for name in axes.keys() & config_given.keys():
        raise InputError(f"--{name}", f"either --{name} or --sweep={name}=...", "got both")
    cells = _cells(axes, wanted)
    request = Request(Inputs(**inputs_given), wanted, config_given, axes, cells)
    device.set_up()
    for cell in cells:  # before anything is read: a value out of bounds is said at once
        check_inputs(request.cell_inputs(cell), request.config(cell))
    if "seed" in axes and (init := request.config(cells[0]).init) != "noise":
        raise InputError("--sweep=seed", "with --init=noise, where a seed matters", f"got --init={init}")
    folder = _check_folder(request)
    cache = ImageCache(request.inputs.max_pixels)
    config = request.config(cells[0])
    weights = load_weights(config.network, request.inputs.weights or None)
    problems = _problems(request, make_params(weights.arrays), cache)
    for cell in cells if wanted.judge else ():
        size = working_size(request.cell_inputs(cell), request.config(cell), cache)
        judged_sizes("--judge", size, request.against(cell), cache)
    told = _told(problems[0], weights.sha256, cache)
    before = _read(folder / "settings.json") if wanted.resume else None
    if before:
        check_same(told, before["told"], folder)
    lanes = before["lanes"] if before else []
    with interrupts() as interrupted:
        done = _finished(folder, request)
        if len(done) < len(cells):
            _run(problems, done, folder, request, told, lanes, cache, interrupted)
        elif (folder / UNFINISHED).is_dir():  # ended between the last picture and this
            Checkpoints(folder / UNFINISHED, None).remove()
        if wanted.judge:
            _judge(folder, done, request, cache, interrupted)
        _show(folder, done, request, cache)
        stopped = interrupted()
    flagged = [entry["file"] for entry in done.values() if entry["flag"]]
    judged = not wanted.judge or all("judge" in entry for entry in done.values())
    if len(done) < len(cells) or (stopped and not judged):
        made = f"{len(done)} of {len(cells)} pictures are in {folder}"
        return fail(stopped, f"{ENDINGS[stopped - 128]}: {made}; --resume goes on")
    if flagged:
        came = f"not finite in {', '.join(flagged[:8])}, which hold the last finite pictures"
        return fail(WRONG_NUMBERS, InputError("loss", "finite numbers (smaller weights?)", came))
    return DONE


def _axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each name of some NAME=V1,V2,... Raises InputError."""
    listed: dict[str, list[str]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        listed.setdefault(name, []).append(values)
    twice = [name for name, given in listed.items() if len(given) > 1 and name not in FILES]
    if twice or not listed:
        came = f"{twice[0]} is there twice" if twice else "none was given"
        raise InputError("--sweep", "one or more NAME=V1,V2,..., each name but of files once", came)
    return {name: _values(name, given) for name, given in listed.items()}


def _values(name: str, given: Sequence[str]) -> list[Any]:
    """Return the values of a name: of a lone V1,V2,... each, else one of each. Raises InputError."""
    if name not in SWEEPABLE:
        came = f"got {name!r}{did_you_mean(name, SWEEPABLE)}"
        raise InputError("--sweep=NAME=V1,V2,...", f"NAME is one of {', '.join(SWEEPABLE)}", came)
    parts = given[0].split(",") if len(given) == 1 else given
    values = [value.strip() for value in parts]
    if not all(values):
        raise InputError(f"--sweep={name}", "values with commas between them", f"got {given[0]!r}")
    if name in FILES:
        return [os.path.expanduser(value) for value in values]
    field = next(field for field in dataclasses.fields(Config) if field.name == name)
    texts = [value.replace(":", ",") if name in LISTS else value for value in values]
    return [parse_option(field, text) for text in texts]


def _cells(axes: Mapping[str, list[Any]], wanted: Sweep) -> list[dict[str, Any]]:
    """Return the values of every picture: the grid, the last name fastest; or the lists side by side."""
    lengths = {name: len(values) for name, values in axes.items()}
    if wanted.zip and len(set(lengths.values())) > 1:
        raise InputError("--zip", "lists of one length", f"got {', '.join(describe(lengths))}")
    count = next(iter(lengths.values())) if wanted.zip else math.prod(lengths.values())
    if count > MANY and not wanted.yes:
        raise InputError("--sweep", f"at most {MANY} pictures without --yes", f"got {count}")
    rows = zip(*axes.values(), strict=True) if wanted.zip else itertools.product(*axes.values())
    return [dict(zip(axes, row, strict=True)) for row in rows]


def _settings(request: Request) -> dict[str, Any]:
    """Return what makes two sweeps the same."""
    inputs, config = dataclasses.asdict(request.inputs), request.config(request.cells[0])
    swept = {"sweep": request.axes, "zip": request.wanted.zip}
    return dict(json.loads(to_json({"inputs": inputs, "config": dataclasses.asdict(config), **swept})))


def _told(problem: Problem, weights: str, cache: ImageCache) -> dict[str, str]:
    """Return in words what else the bits of the pictures depend on."""
    read: dict[str, Any] = {
        f"{name} at {width}x{height}": picture for (name, height, width), picture in cache.resized.items()
    }
    read |= {name: mask for name, mask, _ in problem.masks.named()}
    told = read | {"weights": weights} | surroundings(jax.device_count())
    return {name: fingerprint(value) for name, value in told.items()}


def _check_folder(request: Request) -> Path:
    """Return the output folder, unless other results lie there. Raises InputError."""
    if not request.wanted.output_dir:
        raise InputError("--output_dir", "a folder", "not given")
    folder = Path(request.wanted.output_dir)
    if not os.path.exists(folder):  # Path's own raises for a name that is too long
        check_folder(folder)
        return folder
    if not folder.is_dir():
        raise InputError(f"--output_dir={folder}", "a folder", "it is a file")
    check_writable(folder / "sweep.json")
    written = ["settings.json", "sweep.json", "sheet.png", "tradeoff.png", UNFINISHED]
    written += [request.file(number) for number in range(len(request.cells))]
    there = next((name for name in written if os.path.lexists(folder / name)), None)
    settings, before = _settings(request), _read(folder / "settings.json")
    ours = isinstance(before, dict) and settings.items() <= before.items()
    if there and not (ours and isinstance(before.get("told"), dict) and _are_lanes(before.get("lanes"))):
        came = f"it holds another sweep's results ({there})"
        raise InputError(f"--output_dir={folder}", "an empty folder, or this sweep's own", came)
    if there and not request.wanted.resume:
        came = "it holds results of this sweep"
        raise InputError(f"--output_dir={folder}", "an empty folder, or --resume to go on", came)
    return folder


def _are_lanes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(lanes, int) for lanes in value)


def _read(path: Path) -> Any:
    """Return what a JSON file holds; None where there is none that can be read."""
    try:
        if not path.is_file():  # to open a pipe would wait for its other end
            return None
        with path.open("rb") as file:
            return json.loads(file.read(LARGEST))  # one that is cut off is damaged
    except (OSError, ValueError, RecursionError):
        return None


def _finished(folder: Path, request: Request) -> dict[int, dict[str, Any]]:
    """Return the entries of sweep.json whose pictures are there, by number. Raises InputError."""
    path = folder / "sweep.json"
    if not request.wanted.resume or not os.path.lexists(path):
        return {}
    try:
        read = json.loads(to_json(_read(path)))  # as it is written again: null for what is not finite
        entries = [(_number(entry, request), entry) for entry in read]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        allowed = "must be as nst-sweep wrote it; remove it to make all pictures again"
        raise InputError(str(path), allowed, f"it is damaged ({error})") from error
    return {number: entry for number, entry in entries if os.path.exists(folder / request.file(number))}


def _number(entry: dict[str, Any], request: Request) -> int:
    """Return the number of the picture that an entry of sweep.json tells of."""
    number = int(entry["file"].removesuffix(".png").partition("-")[0])
    values = json.loads(to_json(request.cells[number]))
    if number < 0 or (entry["file"], entry["values"]) != (request.file(number), values):
        raise ValueError(f"{entry['file']!r} is not of this sweep")
    losses = [entry["losses"][term] for term in terms_in(entry["losses"])]
    if not all(loss is None or float(loss) >= 0 for loss in losses):
        raise ValueError(f"a loss of {entry['file']} is below 0")
    if entry["flag"] not in (None, "non-finite"):
        raise ValueError(f"the flag of {entry['file']} is unknown")
    return number


def _problems(request: Request, params: Params, cache: ImageCache) -> list[Problem]:
    """Return a problem for each cell; those of the same files share their pictures."""
    bases: dict[tuple[Any, ...], Problem] = {}
    problems = []
    for cell in request.cells:
        config, inputs = request.config(cell), request.cell_inputs(cell)
        files = (inputs.content, *inputs.style)
        if files not in bases:
            pictures = load_pictures(inputs, config, cache, load_masks(inputs, cache))
            content, styles, init, masks = pictures
            settings(inputs, config, cache)  # notes the checksums: later the files may be gone
            bases[files] = make_problem(params, content, styles, config, init, masks)
        problems.append(vary(bases[files], config))
    return problems


class Group(NamedTuple):
    """The pictures of one size, which one program makes."""

    numbers: list[int]
    place: int  # pictures in the groups before


def _groups(problems: Sequence[Problem]) -> list[Group]:
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, problem in enumerate(problems):
        numbers.setdefault(problem.first.shape, []).append(number)
    if len(numbers) > 1:
        sizes = ", ".join(f"{len(own)} of {width}x{height}" for (height, width, _), own in numbers.items())
        logging.info("pictures of %d sizes, a program for each: %s", len(numbers), sizes)
    places = itertools.accumulate(map(len, numbers.values()), initial=0)
    return [Group(own, place) for own, place in zip(numbers.values(), places, strict=False)]


def _run(
    problems: Sequence[Problem],
    done: dict[int, dict[str, Any]],
    folder: Path,
    request: Request,
    told: Mapping[str, str],
    lanes: list[int],
    cache: ImageCache,
    interrupted: Callable[[], int],
) -> None:
    """Make the pictures that are left, writing each pass as it ends, until interrupted.

    lanes: of the groups that a sweep that goes on has begun.
    """
    wanted, began, due = request.wanted, None, Seldom()
    iterations, pace = problems[0].config.steps, ChunkSizer()
    saved = newest(folder / UNFINISHED) if wanted.resume else None
    stopped = _stopped(saved) if saved else None
    keeper: CheckpointWriter | None = None
    with contextlib.ExitStack() as at_end:
        for n, (numbers, place), now in _chunks(problems, done, wanted.lanes, lanes, stopped, pace):
            interrupted()  # from now on there is something to keep
            pace.told(now.step)
            began = _tell_progress(now, place, len(problems), iterations, began, due)
            states, first, own_lanes, step = now.standing
            if not keeper or n >= len(lanes):
                os.makedirs(os.path.realpath(folder), exist_ok=True)
                lanes[n : n + 1] = [own_lanes]
                made = {"told": told, "lanes": lanes}
                write_whole(folder / "settings.json", to_json(_settings(request) | made))
            if not keeper:
                keeper = CheckpointWriter(folder / UNFINISHED, wanted.checkpoint_every, saved, {})
                at_end.callback(keeper.close)
            for k, result in now.finished.items():
                done[numbers[k]] = _save(numbers[k], result, folder, request, cache)
            if now.finished:
                _write_json(folder, done)
            elif interrupted() or keeper.due:
                where = {"first": place + first, "lanes": own_lanes, "step": step}
                keeper.save((place + first) * (iterations + 1) + step, states, where)
            if interrupted() and len(done) < len(problems):
                return
    if keeper:
        keeper.checkpoints.remove()


def _chunks(
    problems: Sequence[Problem],
    done: Mapping[int, Any],
    asked: int,
    lanes: Sequence[int],
    stopped: Stopped | None,
    pace: ChunkSizer,
) -> Iterator[tuple[int, Group, SweepProgress]]:
    """Run what is not done, group after group; yield its number, the group and where it stands."""
    every = chunk_steps(problems[0].config.steps)
    for n, group in enumerate(_groups(problems)):
        made = [k for k, number in enumerate(group.numbers) if number in done]
        if len(made) == len(group.numbers):
            continue
        own = [problems[number] for number in group.numbers]
        here = stopped and stopped._replace(first=stopped.first - group.place)
        own_lanes = lanes[n] if n < len(lanes) else asked
        free = device.free_memory(jax.local_device_count())
        with device.running_out(*own[0].first.shape[:2]):
            for now in sweep(own, own_lanes, every, free, done=made, stopped=here, most=pace):
                yield n, group, now


def _stopped(saved: Saved) -> Stopped:
    """Return where the pass of a checkpoint stood. Raises InputError."""
    try:
        first, lanes, step = (int(saved.record[name]) for name in ("first", "lanes", "step"))
    except (KeyError, TypeError, ValueError) as error:
        allowed = "a checkpoint of nst-sweep"
        raise InputError(str(saved.folder), allowed, f"{type(error).__name__}: {error}") from error
    return Stopped(first, lanes, step, partial(restore, saved))


def _tell_progress(
    now: SweepProgress,
    place: int,
    total: int,
    iterations: int,
    began: tuple[float, float] | None,
    due: Seldom,
) -> tuple[float, float]:
    """Tell where a sweep stands; return the time and the share of it that was done when it began."""
    first, last = place + now.lanes[0], place + now.lanes[-1]
    share = (first + (last + 1 - first) * now.step / max(1, iterations)) / total
    began = began or (time.monotonic(), share)
    seconds, done = time.monotonic() - began[0], share - began[1]
    left = f"{seconds / done * (1 - share):.0f} s left" if done > 0 else "compiling"
    where = f"pictures {first + 1}-{last + 1} of {total}"
    if due(last=share >= 1):
        logging.info("%s  step %d/%d  %s", where, now.step, iterations, left)
    return began


def _save(number: int, result: Progress, folder: Path, request: Request, cache: ImageCache) -> dict[str, Any]:
    """Write a picture, and return its entry of sweep.json."""
    cell, file = request.cells[number], request.file(number)
    inputs = request.cell_inputs(cell)
    alpha = cache.read(inputs.content).alpha if inputs.content else None
    height, width, _ = result.image.shape
    alpha = None if alpha is None else images.resize(alpha, height, width)
    told = None if request.wanted.no_settings else settings(inputs, request.config(cell), cache)
    images.save(folder / file, result.image, alpha, told)
    tell(folder / file)
    flag = None if result.finite else "non-finite"
    return {"file": file, "values": cell, "losses": result.losses, "flag": flag}


def _judge(
    folder: Path,
    done: dict[int, dict[str, Any]],
    request: Request,
    cache: ImageCache,
    interrupted: Callable[[], int],
) -> None:
    """Measure the pictures that have not been, until interrupted: at the end, when memory is free."""
    left = [number for number in sorted(done) if not done[number].get("judge")]
    if not left or interrupted():
        return
    network = judge.load()
    for number in left:
        if interrupted():
            break
        against = request.against(request.cells[number])
        done[number]["judge"] = try_verdict(network, str(folder / request.file(number)), against, cache)
        logging.info("judged %s", request.file(number))
    _write_json(folder, done)


def _write_json(folder: Path, done: Mapping[int, dict[str, Any]]) -> None:
    """Write sweep.json: what is finished, in order, with the knee of the tradeoff marked."""
    numbers = sorted(done)
    best = knee([_point(done[number]) for number in numbers])
    entries = [{**done[number], "knee": n == best} for n, number in enumerate(numbers)]
    write_whole(folder / "sweep.json", to_json(entries))


def _point(entry: Mapping[str, Any]) -> tuple[float, float]:
    content, style = entry["losses"]["content"], entry["losses"]["style"]
    if entry["flag"] or content is None or style is None:
        return math.inf, math.inf
    return float(content), float(style)  # without a content it is the whole number 0


def _show(folder: Path, done: Mapping[int, dict[str, Any]], request: Request, cache: ImageCache) -> None:
    """Write the contact sheet, and the tradeoff where there are two points to compare."""
    if not done:
        return
    tell(folder / "sweep.json")
    tiles = {number: _tile(folder, done[number], request) for number in sorted(done)}
    names = dict.fromkeys(name for cell in request.cells for name in _files(request.cell_inputs(cell)))
    margin = [(Path(name).name, thumbnail(_reduced(name, cache), WIDTH - 20)) for name in names]
    write_whole(folder / "sheet.png", contact_sheet(tiles, _columns(request), margin, *_headings(request)))
    tell(folder / "sheet.png")
    entries = [done[number] for number in sorted(done) if math.isfinite(_point(done[number])[0])]
    if len(entries) > 1 and can_plot():
        points = [_point(entry) for entry in entries]
        labels = [", ".join(_described(entry["values"])) for entry in entries]
        write_whole(folder / "tradeoff.png", plot_tradeoff(points, labels, knee(points)))
        tell(folder / "tradeoff.png")


def _reduced(name: str, cache: ImageCache) -> np.ndarray:
    """Return a picture no larger than the margin of the sheet needs it."""
    longest = min(WIDTH - 20, max(cache.read(name).size))
    return cache.resize(name, *cache.size(name, longest))


def _described(values: Mapping[str, Any]) -> list[str]:
    """Return values in short, files without their folders: the sheet and the plot are shown to others."""
    return describe({name: Path(value).name if name in FILES else value for name, value in values.items()})


def _files(inputs: Inputs) -> list[str]:
    return [name for name in (inputs.content, *inputs.style) if name]


def _tile(folder: Path, entry: Mapping[str, Any], request: Request) -> Tile:
    side = tile_side(len(request.cells))
    image = thumbnail(images.load(str(folder / entry["file"]), 2**40).rgb, side)
    lines = [entry["file"], *([] if _is_grid(request) else _described(entry["values"]))]
    losses = {name: math.nan if value is None else value for name, value in entry["losses"].items()}
    return Tile(image, lines, losses, entry["flag"])


def _is_grid(request: Request) -> bool:
    return len(request.axes) > 1 and not request.wanted.zip


def _columns(request: Request) -> int:
    """Return the pictures in a row: the values of the last name of a grid, else about a square."""
    if _is_grid(request):
        return len(list(request.axes.values())[-1])
    return math.ceil(math.sqrt(len(request.cells)))


def _headings(request: Request) -> tuple[list[str], list[list[str]]]:
    """Return what is said above each column of a grid, and beside each row."""
    if not _is_grid(request):
        return [], []
    *others, last = request.axes
    heads = [text for value in request.axes[last] for text in _described({last: value})]
    firsts = request.cells[:: _columns(request)]
    return heads, [_described({name: cell[name] for name in others}) for cell in firsts]


PROGRAM = Program("nst-sweep", __doc__, (Inputs, Sweep, Config), main)


def console() -> None:
    """Run the program `nst-sweep` on the command line."""
    launch(PROGRAM)
