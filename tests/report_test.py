import json
import math

import pytest

from nst_jax.config import Config
from nst_jax.report import history, plot_losses, resolved, to_json

STEPS = [
    (0, {"total": 5.0, "content": 0.0, "style": 1.0, "tv": 2.0, "style_by_layer": {}}),
    (4, {"total": 3.0, "content": 1.0, "style": math.nan, "tv": 2.0, "style_by_layer": {}}),
]


def test_history_is_columns():
    columns = history(STEPS[:1] * 2)
    assert columns == {"step": [0, 0], "total": [5, 5], "content": [0, 0], "style": [1, 1], "tv": [2, 2]}


def test_json_has_null_where_a_number_is_not_finite():
    assert json.loads(to_json({"a": [1.5, math.inf], "b": {"c": -math.inf}})) == {
        "a": [1.5, None],
        "b": {"c": None},
    }


def test_resolved_names_layers_and_shares():
    config = resolved(Config(content_layers=("all",)), styles=4)
    assert len(config["content_layers"]) == 13
    assert config["style_mix"] == [0.25] * 4


@pytest.mark.parametrize(
    ("extension", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_plots_are_files_of_their_kind_even_with_gaps(extension, magic):
    plot = plot_losses(history(STEPS), Config(), extension)
    assert plot.startswith(magic)
    assert plot == plot_losses(history(STEPS), Config(), extension)
