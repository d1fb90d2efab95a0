"""A term of one's own, registered in one line, goes wherever the package's own terms go."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import nst_jax as nst
from nst_jax.errors import InputError
from nst_jax.launchers import nst as program
from nst_jax.launchers.console import DONE, WRONG_REQUEST
from nst_jax.launchers.flags import run as run_program
from nst_jax.losses.base import means
from nst_jax.objective import objective, sharding, tiling
from nst_jax.objective.objective import summarize
from nst_jax.objective.weights import coefficients
from nst_jax.optimize.loop import start
from nst_jax.reports import report
from nst_jax.runs import InputOptions
from nst_jax.runs.problem import make_problem, shard_problem, with_hyperparameters
from nst_jax.runs.sweep import sweep
from nst_jax.runs.sweep_request import SweepOptions, make_sweep_request

LEVEL = 0.3
SHALLOW = {"style_layers": ("conv1_1",), "content_layers": ("conv1_2",), "parametrization": "pixels"}
ALONE = {"content_weight": 0.0, "style_weight": 0.0, "tv_weight": 0.0, "brightness_weight": 2.0}

BRIGHTNESS = nst.Term(
    sums=lambda view, wanted: view.mean(view.image.mean(-1)),
    losses=lambda mean, wanted, whole: (mean - LEVEL) ** 2,
    weight=nst.Weight("weight of the mean brightness's distance from 0.3, squared"),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(nst.TERMS, "brightness", BRIGHTNESS)


@pytest.fixture
def pictures(rng):
    return rng.random((3, 45, 51, 3), np.float32)


def brightness(image):
    """Return the term and its gradient, in float64."""
    apart = np.float64(image).mean() - LEVEL
    return apart**2, np.full(image.shape, 2 * apart / image.size)


def problem_of(params, pictures, **options):
    config = nst.Config.from_preset("gatys", **{**SHALLOW, **options})
    return make_problem(params, pictures[0], [pictures[1]], config, init=pictures[2])


def close(found, expected, rtol=1e-5):
    assert np.linalg.norm(found - expected) <= rtol * np.linalg.norm(expected)


@pytest.mark.parametrize("tile", [0, 24])
def test_value_and_gradient_equal_the_float64_twin_s_at_once_and_by_windows(params, pictures, tile):
    problem = problem_of(params, pictures, **ALONE)
    problem = problem.replace(spec=problem.spec._replace(tile=tile))
    assert not tile or tiling.grid((45, 51), problem.spec).windows > 4
    how = jax.jit(tiling.evaluate if tile else objective.evaluate, static_argnames="spec")
    given = params, pictures[2], problem.targets(), coefficients(problem.weights)
    found = how(*given, spec=problem.spec)
    expected, slope = brightness(pictures[2])
    np.testing.assert_allclose(found.terms["brightness"], expected, rtol=1e-4)
    np.testing.assert_allclose(found.value, 2 * expected, rtol=1e-4)
    close(found.gradient, 2 * slope, 1e-4)


def test_over_devices_what_pads_the_picture_counts_for_nothing(params, pictures):
    problem = shard_problem(problem_of(params, pictures, **ALONE), sharding.make_mesh(4))
    first = sharding.shard(sharding.pad(problem.first, problem.spec), problem.spec)
    assert first.shape[0] > 45
    state = start(first, problem.inputs(problem.targets()), problem.spec)
    expected, slope = brightness(pictures[2])
    np.testing.assert_allclose(state.iterate.terms["brightness"], expected, rtol=1e-4)
    gradient = np.asarray(state.iterate.gradient) / float(state.scale)
    close(gradient[:45], 2 * slope, 1e-4)
    assert not gradient[45:].any()


def test_swept_each_lane_is_the_single_run_with_its_weight(params, pictures):
    configs = [
        nst.Config.from_preset("gatys", **SHALLOW, brightness_weight=weight, iterations=3)
        for weight in (0.0, 1e7, 1e9)
    ]
    base = make_problem(params, pictures[0], [pictures[1]], configs[0])
    finished = {}
    for now in sweep([with_hyperparameters(base, config) for config in configs]):
        finished |= now.finished
    for number, config in enumerate(configs):
        alone = nst.stylize(params, pictures[0], [pictures[1]], config=config)
        for name in ("total", "brightness", "style"):
            np.testing.assert_allclose(finished[number].losses[name], alone.losses[name], rtol=1e-3)
    assert finished[2].losses["brightness"] < 0.1 * finished[0].losses["brightness"]


def test_another_weight_compiles_nothing_and_another_term_of_the_name_does(
    params, pictures, compilations, monkeypatch
):
    jax.clear_caches()
    for weight in (1.0, 5.0):
        nst.stylize(params, pictures[0], [pictures[1]], config=config_of(weight))
        assert compilations("run_steps") == 1
    other = BRIGHTNESS._replace(losses=lambda mean, wanted, whole: mean)
    monkeypatch.setitem(nst.TERMS, "brightness", other)
    darker = nst.stylize(params, pictures[0], [pictures[1]], config=config_of(5.0))
    assert compilations("run_steps") == 2
    np.testing.assert_allclose(darker.losses["brightness"], darker.image.mean(), rtol=1e-4)


def config_of(weight):
    return nst.Config.from_preset("gatys", **SHALLOW, brightness_weight=weight, iterations=1)


def test_a_balanced_weight_is_in_units_of_its_pull(params, pictures):
    problem = problem_of(params, pictures, loss_balancing="auto", brightness_weight=3.0)
    assert problem_of(params, pictures, loss_balancing="auto").weights.terms["brightness"] == 1
    weights = problem.balanced(problem.targets()).weights
    pulls = [
        share * np.linalg.norm(brightness(picture)[1])
        for share, picture in ((1, pictures[0]), (1 / 8, pictures[1]))
    ]
    np.testing.assert_allclose(float(weights.terms["brightness"]) * max(pulls), 3, rtol=1e-4)


def test_its_flag_its_column_of_the_report_and_its_curve(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(report, "draw", lambda axes, _: drawn.append(axes) or b"")
    flags = ["--content=example:coffee", "--style=example:night", "--preset=gatys", "--size=32"]
    flags += ["--style_layers=conv1_1", "--content_layers=conv1_2", "--iterations=2", "--quiet"]
    files = [f"--output={tmp_path}/a.png", f"--report={tmp_path}/a.json", f"--plot={tmp_path}/a.png.png"]
    assert run_program(program.PROGRAM, [*flags, *files, "--brightness_weight=1e8"]) == DONE
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["config"]["brightness_weight"] == told["losses"]["final"]["weights"]["brightness"] == 1e8
    np.testing.assert_allclose(
        told["losses"]["final"]["brightness"],
        brightness(nst.images.load(f"{tmp_path}/a.png").rgb)[0],
        rtol=0.02,
    )
    assert told["history"]["brightness"][-1] == told["losses"]["final"]["brightness"]
    assert "1e+08 x brightness" in drawn[0].get_legend_handles_labels()[1]
    options = {name: told["config"][name] for name in nst.Config().values() if name in told["config"]}
    again = nst.Config.from_preset(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    )
    assert again.weight("brightness") == 1e8

    assert run_program(program.PROGRAM, [*flags, "--brightness_weight=-1", *files]) == WRONG_REQUEST
    assert "--brightness_weight: a finite number from 0 to 3e+38; got -1" in capsys.readouterr().err
    assert run_program(program.PROGRAM, ["--help"]) == DONE
    told = " ".join(capsys.readouterr().out.split())  # lines are folded
    assert f"--brightness_weight: {BRIGHTNESS.weight.help}" in told


def test_it_can_be_swept_by_name():
    wanted = SweepOptions(sweep=("brightness_weight=0,3",))
    request = make_sweep_request(InputOptions(content="a.png", style=("b.png",)), wanted, {"preset": "gatys"})
    assert [request.config(cell).weight("brightness") for cell in request.cells] == [0, 3]


def test_config_takes_its_weight_by_name_and_refuses_others():
    config = nst.Config(term_weights={"brightness": 3})
    assert config.values()["brightness_weight"] == config.weight("brightness") == 3
    assert config == nst.Config.from_preset("gatys", brightness_weight=3)
    larger = dataclasses.replace(config, size=700)
    assert (larger.weight("brightness"), larger.given["brightness_weight"]) == (3, 3)
    assert nst.Config.from_preset(strength=0.0).weight("brightness") == 0
    with pytest.raises(InputError, match=r"`term_weights`: of brightness; got 'lightness'"):
        nst.Config(term_weights={"lightness": 1.0})
    with pytest.raises(InputError, match="`brightness_weight`: a finite number from 0 to 3e"):
        nst.Config.from_preset(brightness_weight=-1.0)
    none = {f"{name}_weight": 0.0 for name in ("content", "style", "tv")}
    nst.Config.from_preset("gatys", **none, brightness_weight=1.0)
    with pytest.raises(InputError, match="`tv_weight`, `brightness_weight`: at least one above 0"):
        nst.Config.from_preset("gatys", **none)


LIKE_CONTENT = BRIGHTNESS._replace(
    of_content=lambda view: means(view.mean(view.image.mean(-1))),
    losses=lambda mean, wanted, whole: (mean - wanted) ** 2,
)
LIKE_STYLE = BRIGHTNESS._replace(
    of_style=lambda painting: means(painting.over(lambda view: view.mean(view.image.mean(-1)))),
    losses=lambda mean, wanted, whole: (mean - wanted) ** 2,
)


@pytest.mark.parametrize("tile", [0, 24])
def test_a_term_may_want_something_of_the_content_or_of_each_style(params, pictures, tile, monkeypatch):
    monkeypatch.setitem(nst.TERMS, "like_content", LIKE_CONTENT)
    monkeypatch.setitem(nst.TERMS, "like_style", LIKE_STYLE)
    config = nst.Config.from_preset("gatys", **SHALLOW, style_mix=(3.0, 1.0))
    content, *styles = pictures
    problem = make_problem(params, content, styles, config)
    problem = problem.replace(spec=problem.spec._replace(tile=tile))
    how = jax.jit(tiling.evaluate if tile else objective.evaluate, static_argnames="spec")
    given = params, 0.5 * content, problem.targets(), coefficients(problem.weights)
    found = summarize(*jax.device_get((how(*given, spec=problem.spec).terms, problem.weights)))
    mean = 0.5 * np.float64(content).mean()
    apart = [(mean - np.float64(picture).mean()) ** 2 for picture in pictures]
    np.testing.assert_allclose(found["like_content"], apart[0], rtol=1e-3)
    np.testing.assert_allclose([one["like_style"] for one in found["by_style"]], apart[1:], rtol=1e-3)
    np.testing.assert_allclose(found["like_style"], 0.75 * apart[1] + 0.25 * apart[2], rtol=1e-3)


def test_a_term_of_the_content_has_no_number_where_there_is_none(params, pictures, monkeypatch):
    monkeypatch.setitem(nst.TERMS, "like_content", LIKE_CONTENT)
    options = {**SHALLOW, "init": "noise", "content_weight": 0.0, "iterations": 1}
    config = nst.Config.from_preset("gatys", **options)
    assert nst.stylize(params, None, [pictures[1]], config=config).losses["like_content"] == 0
    config = nst.Config.from_preset("gatys", **options, like_content_weight=1.0)
    with pytest.raises(InputError, match="content: a content picture, or like_content_weight 0; got none"):
        nst.stylize(params, None, [pictures[1]], config=config)
