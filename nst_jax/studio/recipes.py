"""What the page asks for, as plain data: checked, made a Request, an nst command, read from a picture."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nst_jax import images
from nst_jax.config import ALONE, DEFAULT, EFFORTS, PRESETS, Config
from nst_jax.errors import InputError, did_you_mean
from nst_jax.options import Field, default_values, describe_range, fields_of, is_tuple, option_type
from nst_jax.runs import settings
from nst_jax.runs.batch_request import parse_value
from nst_jax.runs.checkpointing import CheckpointOptions
from nst_jax.runs.input_files import InputOptions
from nst_jax.runs.request import OutputOptions, Request, check
from nst_jax.runs.settings import LISTS, LONE
from nst_jax.video import request as video
from nst_jax.video.request import VideoOptions, VideoRequest

REFERENCE = re.compile(r"[0-9a-f]{64}|example:[a-z-]{1,40}")  # an upload by its checksum, or an example
MAX_STYLES = 16
MAX_TITLE_LETTERS = 120  # letters
RESULT, REPORT, CHECKPOINT = "result.png", "report.json", "checkpoint"  # in a job's folder
CLIP = "result.mp4"  # there, of a clip
BIT_DEPTH = 16  # bits of RESULT, from which all downloads are made
STARTS = ("content", "noise", "style")  # values of init that are no picture

CLIP_OPTIONS = {"frame_steps", "frame_tolerance", "temporal_weight", "flow", "anchor", "quality", "audio"}
# The options that the page may give: none that names a file or is of one run. Pictures ignore those of clips,
# and clips those of pictures: a look is tried on a frame with the options that the clip will have.
OPTIONS: dict[str, Field] = {
    field.name: field
    for kind, names in (
        (Config, None),
        (VideoOptions, CLIP_OPTIONS),
        (InputOptions, {"soft_masks", "round_aspects", "print_size", "crop"}),
        (OutputOptions, {"output_size", "dpi", "no_settings"}),
    )
    for field in fields_of(kind)
    if names is None or field.name in names
}


class Recipe(NamedTuple):
    """What one picture is made of and how; pictures are references. With inputs["clip"] it is a clip."""

    title: str
    inputs: dict[str, Any]  # by name of InputOptions
    options: dict[str, Any]  # by name of OPTIONS, as JSON has them

    @property
    def references(self) -> set[str]:
        """The pictures that are read."""
        named = [self.inputs.get(name, "") for name in (*LONE, "clip")]
        named += [one for name in LISTS for one in self.inputs.get(name, ())]
        start = str(self.options.get("init", ""))
        return set(filter(None, named)) | ({start} if REFERENCE.fullmatch(start) else set())


def parse_recipe(data: Any) -> Recipe:
    """Return a recipe from a client's JSON. Raises InputError where its form is wrong."""
    data = _object(data, "the request", ("title", "inputs", "options"))
    inputs = _object(data.get("inputs", {}), "inputs", (*LONE, *LISTS, "clip"))
    for name in (*LONE, "clip"):
        _check_reference(name, inputs.get(name, ""))
    for name in LISTS:
        values = inputs.get(name, [])
        if not isinstance(values, list) or len(values) > MAX_STYLES:
            raise InputError(f"`{name}`", f"a list of at most {MAX_STYLES} pictures", f"got {_short(values)}")
        for value in values:
            _check_reference(name, value)
    if inputs.get("clip") and inputs.get("content"):
        raise InputError("`clip`", "without `content`, whose place it takes", "got both")
    title = data.get("title", "")
    if not isinstance(title, str) or len(title) > MAX_TITLE_LETTERS:
        raise InputError("title", f"a text of at most {MAX_TITLE_LETTERS} letters", f"got {_short(title)}")
    options = _object(data.get("options", {}), "options", OPTIONS)
    start = options.get("init", "content")
    if start not in STARTS:
        _check_reference("init", start)
    return Recipe(title, inputs, options)


def _object(data: Any, what: str, known: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(what, "a JSON object", f"got {_short(data)}")
    for name in data.keys() - set(known):
        raise InputError(f"`{_short(name)}`", f"one of {what}", f"unknown{did_you_mean(name[:80], known)}")
    return data


def _check_reference(name: str, value: Any) -> None:
    if not isinstance(value, str) or (value and not REFERENCE.fullmatch(value)):
        raise InputError(f"`{name}`", "a picture that was uploaded, or example:NAME", f"got {_short(value)}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def make_request(
    recipe: Recipe,
    place: Callable[[str], str],
    folder: Path,
    *,
    overrides: Mapping[str, Any],
    every: float,
    max_pixels: int,
) -> Request | VideoRequest:
    """Return the request of a recipe, with its files in a job's folder.

    Args:
        recipe: what is asked for.
        place: returns the file of a reference; raises InputError.
        folder: the job's.
        overrides: options by which the job was extended.
        every: seconds between checkpoints.
        max_pixels: largest picture that is read.

    Raises:
        InputError: an option is wrong, or they contradict each other.
    """
    asked = {**recipe.options, **overrides}
    if "iterations" in overrides:
        asked.pop("effort", None)
    options = {name: parse_value(OPTIONS[name], value) for name, value in asked.items()}
    if options.get("init", "content") not in STARTS:
        options["init"] = place(options["init"])

    def of(kind: type) -> dict[str, Any]:
        names = {field.name for field in fields_of(kind)}
        return {name: value for name, value in options.items() if name in names}

    report, config = str(folder / REPORT), Config.from_preset(**of(Config))
    placed = _placed(recipe.inputs, place)
    if clip := recipe.inputs.get("clip"):
        return VideoRequest(
            inputs=InputOptions(**placed, content=place(clip), max_pixels=max_pixels),
            options=VideoOptions(output=str(folder / CLIP), report=report, **of(VideoOptions)),
            config=config,
        )
    result = str(folder / RESULT)
    return Request(
        inputs=InputOptions(**placed, **of(InputOptions), max_pixels=max_pixels),
        outputs=OutputOptions(output=result, report=report, bit_depth=BIT_DEPTH, **of(OutputOptions)),
        config=config,
        checkpoint=CheckpointOptions(
            checkpoint=str(folder / CHECKPOINT),
            checkpoint_every=every,
            allow_change="iterations" if overrides else "",
        ),
    )


def _placed(inputs: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """Return the inputs that are given, as files. Raises InputError."""
    lone = {name: place(inputs[name]) for name in LONE if inputs.get(name)}
    given = [name for name in LISTS if any(inputs.get(name, ()))]
    return lone | {name: tuple(one and place(one) for one in inputs[name]) for name in given}


def check_recipe(recipe: Recipe, place: Callable[[str], str], folder: Path) -> None:
    """Raise InputError where a job of this recipe, in a folder that is there, would be refused at once.

    Args:
        recipe: What the page asks for.
        place: Gives the path of a reference.
        folder: Of the job.
    """
    asked = make_request(recipe, place, folder, overrides={}, every=60.0, max_pixels=images.MAX_PIXELS)
    if isinstance(asked, VideoRequest):
        video.check(asked)
    else:
        check(asked)


def command(recipe: Recipe, name_of: Callable[[str], str], platform: str = "cpu") -> str:
    """Return the nst command that makes the same bytes; for a clip that of nst-video.

    Args:
        recipe: What the page asks for.
        name_of: Gives what people call a reference.
        platform: Of the device.
    """
    flags = [f"--{name}={name_of(recipe.inputs[name])}" for name in LONE if recipe.inputs.get(name)]
    for name in LISTS:
        values = recipe.inputs.get(name, ())
        flags += [f"--{name}={one and name_of(one)}" for one in values if any(values)]
    clip = recipe.inputs.get("clip", "")
    others = OPTIONS.keys() - {field.name for field in fields_of(Config)} - CLIP_OPTIONS
    for name, value in recipe.options.items():
        if name in (others if clip else CLIP_OPTIONS):
            continue
        value = name_of(value) if name == "init" and value not in STARTS else value
        parts = map(_as_text, value if isinstance(value, list) else [value])
        flags.append(f"--{name}={','.join(parts)}")
    if clip:
        return shlex.join(["nst-video", f"--content={name_of(clip)}", *flags, "--output=clip.mp4"])
    flags += [] if platform == "cpu" else ["--deterministic"]
    return shlex.join(["nst", *flags, "--output=picture.png", f"--bit_depth={BIT_DEPTH}"])


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def restore(text: str, is_there: Callable[[str], bool]) -> dict[str, Any]:
    """Return the recipe in the settings of a picture, and the names of its files that are not there.

    Args:
        text: what images.read_settings gives.
        is_there: tells whether a reference is known.

    Raises:
        InputError: these are no settings of nst.
    """
    try:
        told = json.loads(text)
        config, sums = dict(told["config"]), dict(told["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("the settings in the picture", "as nst writes them", str(error)[:80]) from None
    inputs: dict[str, Any] = {}
    missing: list[str] = []

    def found(name: str, number: int) -> str:
        given = config[name] if isinstance(config[name], str) else config[name][number]
        marks = sums.get(name) or [""]
        for reference in (str(given), str(marks[min(number, len(marks) - 1)])):
            if REFERENCE.fullmatch(reference) and is_there(reference):
                return reference
        missing.append(str(given)) if given else None
        return ""

    for name in (*LONE, *LISTS):
        if config.get(name):
            count = 1 if name in LONE else min(len(config[name]), MAX_STYLES)
            values = [found(name, number) for number in range(count)]
            inputs[name] = values[0] if name in LONE else values
    options = {name: value for name, value in config.items() if name in OPTIONS}
    if options.get("init", "content") not in STARTS:
        options["init"] = found("init", 0) or "content"
    styles = len(inputs.get("style", ())) or 1
    return {"inputs": inputs, "options": fewest(options, styles), "missing": missing}


def fewest(options: Mapping[str, Any], styles: int) -> dict[str, Any]:
    """Return the options without those that follow from the others. Raises InputError if they contradict."""
    own = {field.name for field in fields_of(Config)}
    values = {name: parse_value(OPTIONS[name], value) for name, value in options.items() if name in own}
    kept = settings.fewest(values, styles)
    defaults = {name: field.default for name, field in OPTIONS.items() if name not in own}
    return {
        name: value
        for name, value in options.items()
        if name in kept or (name in defaults and value != defaults[name])
    }


def metadata() -> dict[str, Any]:
    """Return what the page has to know of options: type, bounds, choices, default and help; the presets."""
    defaults: dict[str, Any] = {}
    for kind in (OutputOptions, VideoOptions, InputOptions, Config):
        defaults |= default_values(kind)
    return {
        "options": [_described(field, defaults[name]) for name, field in OPTIONS.items()],
        "presets": {name: _plain(dict(Config.from_preset(preset=name).values())) for name in PRESETS},
        "preset": DEFAULT,
        "clip_options": sorted(CLIP_OPTIONS),
        "efforts": {name: effort._asdict() for name, effort in EFFORTS.items()},
        "alone": ALONE,
    }


def _described(field: Field, default: Any) -> dict[str, Any]:
    meta, kind = field.metadata, option_type(field)
    bounds = {key: meta[key] for key in ("low", "high") if abs(meta[key]) != float("inf")}
    return {
        "name": field.name,
        "type": kind.__name__,
        "several": is_tuple(field),
        "choices": [str(choice) for choice in meta["choices"]],
        "help": meta["help"],
        "allowed": describe_range(field),
        "default": _plain(default),
        **bounds,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
