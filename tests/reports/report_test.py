import json
import math

import jax
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.reports import report
from nst_jax.reports.report import Point, ended, history, plot_losses, resolved, scales, to_json

WEIGHTS = {"content": 1.0, "style": 1e8, "tv": 1e-3}
STEPS = [
    Point(0, 1, 6, 9, {"total": 5.0, "content": 0.0, "style": 1.0, "tv": 2.0, "style_by_layer": {}}),
    Point(4, 1, 6, 9, {"total": 3.0, "content": 1.0, "style": math.nan, "tv": 2.0, "style_by_layer": {}}),
    Point(4, 2, 12, 18, {"total": 9.0, "content": 1.0, "style": 2.0, "tv": 2.0, "style_by_layer": {}}),
]


def test_history_is_columns():
    columns = history(STEPS[::2])
    terms = {"total": [5, 9], "content": [0, 1], "style": [1, 2], "tv": [2, 2]}
    assert columns == {"step": [0, 4], "scale": [1, 2], **terms}


def test_rungs_are_told_from_their_first_point_to_their_last():
    first = {"size": 9, "height": 6, "width": 9, "iterations": 4, "initial": 5.0, "final": 3.0}
    second = {"size": 18, "height": 12, "width": 18, "iterations": 0, "initial": 9.0, "final": 9.0}
    assert scales(STEPS) == [first, second]


@pytest.mark.parametrize(
    ("points", "finite", "converged", "why"),
    [
        (STEPS, True, False, "iterations"),
        (STEPS, False, False, "non-finite"),
        (STEPS[:2], True, False, "interrupted"),
        (STEPS[:2], True, True, "interrupted"),  # Ctrl-C where a scale had converged that others follow
    ],
)
def test_the_end_of_a_run_has_its_reason(points, finite, converged, why):
    scales = Config(size=18, scales="9,18", iterations=(4, 1))
    last = [points[-1]._replace(step=5)] if len(points) == 3 else []
    assert ended([*points, *last], scales, finite, converged) == why
    if last:
        assert ended(points, scales, finite, converged=True) == (why if not finite else "converged")
        assert ended(points, scales, finite, converged=False) == (why if not finite else "interrupted")


def test_a_plot_marks_where_a_rung_begins_and_draws_no_line_across(monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "draw", lambda axes, _: drawn.append(axes) or b"")
    plot_losses(history(STEPS), WEIGHTS, Config(), ".png")
    border, total, *_ = drawn[0].lines
    assert list(border.get_xdata()) == [4, 4]
    np.testing.assert_array_equal(total.get_xdata(), [0, 4, math.nan, 4])
    np.testing.assert_array_equal(total.get_ydata(), [5, 3, math.nan, 9])
    plot_losses(history(STEPS[:2]), WEIGHTS, Config(), ".png")
    assert [len(line.get_xdata()) for line in drawn[1].lines] == [2] * 4  # the four terms and no border


def test_json_has_null_where_a_number_is_not_finite():
    assert json.loads(to_json({"a": [1.5, math.inf], "b": {"c": -math.inf}})) == {
        "a": [1.5, None],
        "b": {"c": None},
    }


def test_resolved_names_layers_and_shares():
    config = resolved(Config(content_layers=("all",)), styles=4)
    assert len(config["content_layers"]) == 13
    assert config["style_mix"] == [0.25] * 4


GIVEN = {
    "the default": {},
    "few steps of many sizes": {"size": 256, "iterations": 3},
    "steps for each size": {"size": 200, "scales": "100,200", "iterations": (4, 3)},
    "no steps": {"iterations": 0},
    "a dial": {"strength": 0.3, "style_loss": "gram"},
    "a dial for the paper": {"preset": "gatys", "strength": 0.5},
    "weights": {"style_weight": 2.0, "content_weight": 0.1},
    "the paper": {"preset": "gatys"},
    "adam": {"preset": "improved", "optimizer": "adam", "ema_decay": 0.5, "learning_rate": 0.02},
    "photorealistic": {"photorealistic": True, "preserve_color": "match", "color_match": "transport"},
    "layers in an order of their own": {"style_layers": ("conv3_1", "conv1_1"), "style_layer_weights": "3,1"},
    "mix": {"style_mix": (3.0, 1.0)},
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_is_resolved_can_be_given_again(case):
    first = Config.from_preset(**GIVEN[case])
    told = json.loads(to_json(resolved(first, 2)))
    again = Config.from_preset(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    )
    assert json.loads(to_json(resolved(again, 2))) == told
    assert (again.spec(), again.pyramid()) == (first.spec(), first.pyramid())
    jax.tree.map(np.testing.assert_array_equal, again.loss_weights(2), first.loss_weights(2))
    assert again.learning_rate == first.learning_rate


def test_what_has_no_effect_is_not_told():
    assert set(Config().values()) - set(resolved(Config(), 1)) == {
        *("learning_rate", "matting_weight", "color_match", "strength"),
    }
    assert "strength" in resolved(Config.from_preset(strength=0.5), 1)
    assert "strength" not in resolved(Config.from_preset(), 1)


@pytest.mark.parametrize(
    ("extension", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_plots_are_files_of_their_kind_even_with_gaps(extension, magic):
    plot = plot_losses(history(STEPS), WEIGHTS, Config(), extension)
    assert plot.startswith(magic)
    assert plot == plot_losses(history(STEPS), WEIGHTS, Config(), extension)
    assert plot == plot_losses(history(STEPS), WEIGHTS, Config(), extension.upper())
