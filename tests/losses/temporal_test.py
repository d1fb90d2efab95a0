"""The temporal term equals its float64 twin at once, in windows and over devices; without it nothing changes."""

import jax
import numpy as np
import pytest
import reference

import nst_jax as nst
from nst_jax.config import PRESETS
from nst_jax.errors import InputError
from nst_jax.losses import TERMS
from nst_jax.objective import objective, sharding, tiling
from nst_jax.objective.weights import coefficients
from nst_jax.runs.problem import make_problem, shard_problem

SHALLOW = {"style_layers": ("conv1_1",), "content_layers": ("conv1_2",), "parametrization": "pixels"}
ALONE = {"content_weight": 0.0, "style_weight": 1e-30, "tv_weight": 0.0}
evaluate = jax.jit(objective.evaluate, static_argnames="spec")
by_windows = jax.jit(tiling.evaluate, static_argnames="spec")


@pytest.fixture
def pictures(rng):
    return rng.random((4, 45, 51, 3), np.float32)


@pytest.fixture
def confidence(rng):
    return rng.random((45, 51, 1), np.float32) * (rng.random((45, 51, 1)) > 0.3)


def plain_problem(params, pictures, **options):
    config = nst.Config.from_preset("gatys", **{**SHALLOW, **options})
    return make_problem(params, pictures[0], [pictures[1]], config)


def problem_of(params, pictures, **options):
    return plain_problem(params, pictures, **options).with_term("temporal", 2.0)


def with_given(targets, spec, **arrays):
    laid = {name: sharding.shard(sharding.pad(array, spec), spec) for name, array in arrays.items()}
    return targets.replace(terms=targets.terms | {"temporal": laid})


def close(found, expected, rtol=1e-5):
    assert np.linalg.norm(found - expected) <= rtol * np.linalg.norm(expected)


@pytest.mark.parametrize(("tile", "anew"), [(0, False), (24, False), (24, True)])
def test_value_and_gradient_equal_the_twin_s_at_once_and_by_windows(params, pictures, confidence, tile, anew):
    problem = problem_of(params, pictures, **ALONE)
    problem = problem.replace(spec=problem.spec._replace(tile=tile, recompute_content=anew))
    targets = with_given(problem.targets(), problem.spec, picture=pictures[3], weights=confidence)
    how = by_windows if tile else evaluate
    found = how(params, pictures[2], targets, coefficients(problem.weights), spec=problem.spec)
    expected, slope = reference.temporal(pictures[2], pictures[3], confidence[..., 0])
    np.testing.assert_allclose(found.terms["temporal"], expected, rtol=1e-5)
    close(found.gradient, 2 * slope)


def test_over_devices_what_pads_the_picture_counts_for_nothing(params, pictures, confidence):
    problem = shard_problem(problem_of(params, pictures, **ALONE), sharding.make_mesh(4))
    spec = problem.spec
    targets = with_given(problem.targets(), spec, picture=pictures[3], weights=confidence)
    image = sharding.shard(sharding.pad(pictures[2], spec), spec)
    assert image.shape[0] > 45
    found = evaluate(problem.params, image, targets, coefficients(problem.weights), spec=spec)
    expected, slope = reference.temporal(pictures[2], pictures[3], confidence[..., 0])
    np.testing.assert_allclose(found.terms["temporal"], expected, rtol=1e-5)
    close(np.asarray(found.gradient)[:45], 2 * slope)


def test_where_nothing_is_given_it_is_nothing(params, pictures):
    problem = problem_of(params, pictures)
    found = evaluate(params, pictures[2], problem.targets(), coefficients(problem.weights), spec=problem.spec)
    plain = plain_problem(params, pictures)
    without = evaluate(params, pictures[2], plain.targets(), coefficients(plain.weights), spec=plain.spec)
    assert found.terms["temporal"] == 0
    np.testing.assert_allclose(found.value, without.value, rtol=1e-6)  # two programs round differently
    apart = np.linalg.norm(found.gradient - without.gradient)
    assert apart < 1e-6 * np.linalg.norm(without.gradient)


def test_its_pull_is_its_slope_at_the_content(params, pictures, confidence):
    problem = problem_of(params, pictures, loss_balancing="auto")
    targets = with_given(problem.targets(), problem.spec, picture=pictures[3], weights=confidence)
    pull = np.linalg.norm(reference.temporal(pictures[0], pictures[3], confidence[..., 0])[1])
    np.testing.assert_allclose(problem.balanced(targets).weights.terms["temporal"], 2 / pull, rtol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_and_no_option_has_it(preset):
    config = nst.Config.from_preset(preset)
    assert "temporal" not in config.spec().terms
    assert TERMS["temporal"] not in config.spec().plugged
    assert "temporal_weight" not in config.values()
    with pytest.raises((InputError, TypeError), match="temporal_weight"):
        nst.Config.from_preset(preset, temporal_weight=1.0)
