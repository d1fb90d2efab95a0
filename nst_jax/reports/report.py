"""The report of a run as plain data, and the plot of its losses."""

import importlib.util
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.losses import TERMS

PLOT_FORMATS = (".png", ".svg", ".pdf")


class Point(NamedTuple):
    """Where a run stood: the losses after so many steps, on a scale's picture."""

    step: int
    scale: int
    height: int
    width: int
    losses: dict[str, Any]


def resolved(config: Config, styles: int) -> dict[str, Any]:
    """Return every option that has an effect, layers and scales by name, the mix normalized, as plain data.

    Given to Config.from_preset they make the same picture.
    """
    spec, scales, unused = config.spec(), config.pyramid(), config.unused()
    return {
        **{name: value for name, value in config.values().items() if name not in unused},
        "scales": ",".join(str(scale.size) for scale in scales) if config.scales else "",
        "iterations": [scale.iterations for scale in scales],
        "content_layers": list(spec.content_layers),
        # In the order given, which is that of the numbers in style_layer_weights.
        "style_layers": list(spec.style_layers if config.style_layers == ("all",) else config.style_layers),
        "style_mix": config.loss_weights(styles).style_mix.tolist(),
    }


def terms_in(losses: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the total and of the terms in some losses."""
    return ("total", *(name for name in TERMS if name in losses))


def history(points: Sequence[Point]) -> dict[str, list[Any]]:
    """Return columns step, scale, total, and each term."""
    return {
        "step": [point.step for point in points],
        "scale": [point.scale for point in points],
        **{term: [point.losses[term] for point in points] for term in terms_in(points[0].losses)},
    }


def scales(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the size of each scale, the steps it took, and its total loss at its start and its end."""
    found = []
    for _, group in itertools.groupby(points, lambda point: point.scale):
        first, *_, last = [*group] * 2  # of a scale without steps both are one
        found.append(
            {
                "size": max(first.height, first.width),
                "height": first.height,
                "width": first.width,
                "iterations": last.step - first.step,
                "initial": first.losses["total"],
                "final": last.losses["total"],
            }
        )
    return found


def ended(points: Sequence[Point], config: Config, finite: bool, converged: bool) -> str:
    """Return why a run ended: iterations, converged, non-finite or interrupted.

    Args:
        points: The history.
        config: The options.
        finite: Whether the last loss is.
        converged: Whether no step would have lowered the loss of the last scale.
    """
    if not finite:
        return "non-finite"
    wanted, taken = config.pyramid(), scales(points)
    if len(taken) == len(wanted) and taken[-1]["iterations"] == wanted[-1].iterations:
        return "iterations"
    return "converged" if converged and len(taken) == len(wanted) else "interrupted"


def to_json(data: Any) -> bytes:
    """Return data as a JSON file, with null where a number is not finite: JSON has no word for these."""
    return (json.dumps(_without_infinities(data), indent=1, allow_nan=False) + "\n").encode()


def _without_infinities(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_infinities(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_infinities(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def can_plot() -> bool:
    """Tell whether the library for plots is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check_plot() -> None:
    """Raise InputError where the library for plots is not installed."""
    if not can_plot():
        raise InputError("`plot`", "needs matplotlib: pip install 'nst-jax[plot]'", "it is not installed")


def new_axes(height: float = 4.5) -> Any:
    """Return the axes of an empty plot, 7 inches wide, that no window shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return axes


def draw(axes: Any, extension: str) -> bytes:
    """Return a plot as the bytes of a .png, .svg or .pdf file: equal plots, equal bytes."""
    import matplotlib

    data, extension = io.BytesIO(), extension.lower()
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(extension)
    with matplotlib.rc_context({"svg.hashsalt": "nst_jax"}):
        axes.figure.savefig(data, format=extension.removeprefix("."), dpi=120, metadata=undated)
    return data.getvalue()


def plot_losses(
    columns: dict[str, list[Any]], weights: dict[str, float], config: Config, extension: str
) -> bytes:
    """Return a picture of the weighted losses over the steps, as the bytes of a file.

    A dotted line stands where a scale begins: there the losses jump to those of a larger picture.

    Args:
        columns: The history, by name.
        weights: Those of the last scale, by which all of it is weighted.
        config: The options.
        extension: Of the file: .png, .svg or .pdf.
    """
    axes = new_axes()
    borders = [n for n, (old, new) in enumerate(itertools.pairwise(columns["scale"]), 1) if old != new]
    for n in borders:
        axes.axvline(columns["step"][n], color="gray", linestyle=":", linewidth=1)
    steps = np.insert(np.array(columns["step"], float), borders, math.nan)  # no line across a border
    for term, weight in {"total": 1.0, **weights}.items():
        curve = [weight * value if weight * value > 0 else math.nan for value in columns[term]]
        label = term if term == "total" else f"{weight:g} x {term}"
        axes.plot(
            steps,
            np.insert(curve, borders, math.nan),
            label=label,
            color="black" if term == "total" else None,
        )
    axes.set(
        yscale="log", xlabel="step", ylabel="loss, weighted", title=f"{config.optimizer}, {config.network}"
    )
    axes.legend()
    return draw(axes, extension)
