"""Measure finished pictures: how far each is from the photograph and from the painting.

Of clips: how steady they are, too.

Example: nst-judge --result=cat.png --content=example:cat --style=example:night --report=cat.json
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

import nst_jax
from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.files import check_writable, write_whole
from nst_jax.launchers.console import DONE, tell
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.metrics import judge
from nst_jax.options import check_options, option
from nst_jax.reports.contact_sheet import plot_judged
from nst_jax.reports.report import PLOT_FORMATS, check_plot, to_json
from nst_jax.runs.input_files import ImageCache, check_written
from nst_jax.runs.judging import MAX_SIDE_PIXELS, References, judged_sizes, verdict
from nst_jax.system import device
from nst_jax.video import clips
from nst_jax.video.judging import METRICS as CLIP_METRICS
from nst_jax.video.judging import check as check_clip
from nst_jax.video.judging import verdict as clip_verdict
from nst_jax.weights.sources import find_source


@dataclasses.dataclass(frozen=True)
class Judging:
    """What is measured against what."""

    result: tuple[str, ...] = option(
        (), "picture to measure, a file or example:NAME; or a clip", repeated=True
    )
    content: str = option(
        "",
        "photograph, a file or example:NAME; none for a texture; of clips: the clip that they were made of",
    )
    style: tuple[str, ...] = option((), "painting, a file or example:NAME", repeated=True)
    style_mix: tuple[float, ...] = option(
        (), "one number per style, normalized to sum 1; empty: equal", low=0, high=1e30
    )
    stroke_size: float = option(
        1.0, "longest side of a style relative to the result's, as passed to nst", low=1 / 64, high=64
    )
    size: int = option(
        MAX_SIDE_PIXELS,
        "longest side in pixels at which pictures are compared; larger ones are reduced",
        low=16,
        high=4096,
    )
    report: str = option("", "JSON file for the numbers")
    plot: str = option("", "picture file that plots all results, content against style: .png .svg .pdf")
    max_pixels: int = option(images.MAX_PIXELS, "largest picture that is read, in pixels", low=1, high=2**40)

    def __post_init__(self) -> None:
        check_options(self)


def main(given: ParsedFlags) -> int:
    """Run `nst-judge` with the options given. Raises InputError before anything is written."""
    asked = Judging(**given)
    _check(asked)
    device.set_up()
    cache = ImageCache(asked.max_pixels)
    against = References(asked.content, asked.style, asked.style_mix, asked.stroke_size, asked.size)
    of_clips = clips.is_clip(asked.result[0])
    verdicts = (_judge_clips if of_clips else _judge_pictures)(asked, against, cache)
    for line in _table(verdicts, tuple(CLIP_METRICS if of_clips else judge.METRICS)):
        tell(line)
    if asked.report:
        write_whole(Path(asked.report), to_json(_report(asked, verdicts, of_clips)))
        tell(asked.report)
    if asked.plot:
        points = [(each["lpips"], each["style_distance"]) for each in verdicts]
        plot = plot_judged(points, [Path(name).name for name in asked.result], Path(asked.plot).suffix)
        write_whole(Path(asked.plot), plot)
        tell(asked.plot)
    return DONE


def _judge_pictures(asked: Judging, against: References, cache: ImageCache) -> list[dict[str, Any]]:
    for name in asked.result:  # all of them, before hours may go into the first ones
        judged_sizes(name, images.read(name, asked.max_pixels).size, against, cache)
    network, verdicts = judge.load(), []
    for name in asked.result:
        logging.info("%s", name)
        verdicts.append({"result": name} | verdict(network, name, against, cache, asked.max_pixels))
    return verdicts


def _judge_clips(asked: Judging, against: References, cache: ImageCache) -> list[dict[str, Any]]:
    """Return the measures of the content, which has some of its own, and of the results."""
    for name in asked.result:
        check_clip(name, against)
    network, verdicts = judge.load(), []
    for name in (asked.content, *asked.result):
        logging.info("%s", name)
        verdicts.append({"result": name} | clip_verdict(network, name, against, cache))
    return verdicts


def _check(asked: Judging) -> None:
    for name in ("result", "style"):
        if not getattr(asked, name) or not all(getattr(asked, name)):
            raise InputError(f"--{name}", "a file or example:NAME", "not given")
    if asked.style_mix and (len(asked.style_mix) != len(asked.style) or not sum(asked.style_mix)):
        allowed = f"one number per style, {len(asked.style)}, not all 0"
        raise InputError("--style_mix", allowed, f"got {','.join(map(str, asked.style_mix))}")
    if len({clips.is_clip(name) for name in asked.result}) > 1:
        raise InputError("--result", "pictures, or clips", "got both")
    if asked.report:
        check_writable(Path(asked.report))
    if asked.plot:
        if not asked.content:
            raise InputError("--plot", "with --content", "it is not given")
        if clips.is_clip(asked.result[0]):
            raise InputError("--plot", "for pictures", "--result is a clip")
        check_plot()
        images.check_output(asked.plot, PLOT_FORMATS)
    read = [*asked.result, asked.content, *asked.style]
    check_written(read, [asked.report, asked.plot], "--report, --plot")


def _table(verdicts: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Return the lines of a table: a result in each, a metric in each column."""
    wide = max(len("result"), *(len(each["result"]) for each in verdicts))
    lines = [f"{'result':{wide}}  " + "  ".join(metrics)]
    for each in verdicts:
        numbers = ("-" if each[name] is None else f"{each[name]:.4g}" for name in metrics)
        cells = (f"{text:>{len(name)}}" for name, text in zip(metrics, numbers, strict=True))
        lines.append(f"{each['result']:{wide}}  " + "  ".join(cells))
    return lines


def _report(asked: Judging, verdicts: Sequence[dict[str, Any]], of_clips: bool) -> dict[str, Any]:
    """Return the measures as plain data: of one result at the top, of several in a list.

    Args:
        asked: What was asked for.
        verdicts: The measures of each result.
        of_clips: Whether they are clips.
    """
    about = {
        "nst_jax": nst_jax.__version__,
        "config": dataclasses.asdict(asked),
        "weights": {
            network: find_source(network).sha256 for network in (judge.NETWORK.name, judge.ALEXNET.name)
        },
        "metrics": CLIP_METRICS
        if of_clips
        else {
            name: {"to": metric.to, "range": metric.range, "tells": metric.tells, "blind": metric.blind}
            for name, metric in judge.METRICS.items()
        },
    }
    return about | (verdicts[0] if len(verdicts) == 1 else {"results": list(verdicts)})


PROGRAM = Program("nst-judge", __doc__, (Judging,), main)


def console() -> None:
    """Run the program `nst-judge` on the command line."""
    launch(PROGRAM)
