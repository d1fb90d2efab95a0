import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nst_jax as nst
from nst_jax.balance import balanced
from nst_jax.errors import InputError
from nst_jax.loop import start
from nst_jax.problem import make_problem
from nst_jax.style import STYLE_LOSSES

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


@pytest.fixture
def pictures(rng):
    coarse = rng.random((2, 6, 8, 3), np.float32)
    return [np.kron(picture, np.ones((8, 8, 1), np.float32)) for picture in coarse]


def problem_of(params, pictures, **options):
    content, style = pictures
    return make_problem(params, content, [style], nst.Config.from_preset("gatys", **{**LAYERS, **options}))


def test_the_terms_pull_as_their_weights_say(params, pictures):
    given = {"content": 3.0, "style": 0.5, "tv": 0.2, "matting": 0.4}
    options = {f"{name}_weight": weight for name, weight in given.items()}
    problem = problem_of(params, pictures, balance="auto", photorealistic=True, **options)
    targets, content = problem.targets(), pictures[0]
    weights = balanced(problem, targets).weights
    for name, expected in {**given, "style": 0.5 * STYLE_LOSSES["gram"].pull}.items():
        alone = weights._replace(**{other: np.float32(0) for other in given if other != name})
        picture = content[::-1, ::-1].copy() if name in ("content", "matting") else content
        state = start(params, jnp.asarray(picture), targets, alone, problem.learning_rate, problem.spec)
        pull = np.linalg.norm(np.float64(state.iterate.gradient)) / state.scale
        np.testing.assert_allclose(pull, expected, rtol=1e-4, err_msg=name)


def test_a_balanced_weight_is_in_proportion_to_the_given_one(params, pictures):
    once, thrice = (problem_of(params, pictures, balance="auto", style_weight=w) for w in (1.0, 3.0))
    once, thrice = (float(balanced(p, p.targets()).weights.style) for p in (once, thrice))
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-6)


def test_without_balance_nothing_changes(params, pictures):
    problem = problem_of(params, pictures)
    assert balanced(problem, problem.targets()) is problem


def test_terms_that_have_no_pull_keep_their_weights(params):
    flat = np.full((16, 16, 3), 0.5, np.float32)
    problem = problem_of(params, (flat, flat), balance="auto")
    weights = balanced(problem, problem.targets()).weights
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
    assert float(weights.tv) == pytest.approx(0.07)


def test_strength_is_one_dial():
    def weights(**given):
        config = nst.Config.from_preset(**{"preset": "gatys", **given})
        return config.balance, config.content_weight, config.style_weight, config.tv_weight

    assert weights(balance="auto") == ("auto", 1.0, 1.0, 0.07)
    assert weights(strength=0.5) == ("auto", 1.0, 0.25, 0.07)
    assert weights(strength=0.0) == ("auto", 2**2.5, 0.0, 0.07)
    assert weights(strength=1.0, tv_weight=0.3) == ("auto", 0.0, 2**0.5, 0.3)
    assert weights(strength=0.25, preset="strotss") == ("auto", 1.5**2.2, 0.5**2.2, 0.07)
    assert weights(strength=0.25, style_loss="patch") == ("auto", 1.5**1.8, 2.4 * 0.5**1.8, 0.07)
    assert weights(balance="auto", style_weight=3.0) == ("auto", 1.0, 3.0, 0.07)
    assert weights() == ("none", 1.0, 1e8, 1e-3)


def test_a_preset_s_strength_gives_way_to_weights_and_follows_the_loss():
    def weights(**given):
        config = nst.Config.from_preset(**given)
        return config.balance, config.content_weight, config.style_weight, config.tv_weight

    assert weights() == ("auto", 1.0, 1.0, 0.07)
    assert weights(strength=0.25) == ("auto", 1.5**1.7, 0.5**1.7, 0.07)
    assert weights(style_weight=3.0) == ("auto", 1.0, 3.0, 0.07)
    assert weights(content_weight=0.0) == ("auto", 0.0, 1.0, 0.07)
    assert weights(style_loss="gram") == ("auto", 1.0, 0.25, 0.07)
    assert weights(balance="none")[0] == "none"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": 0.3, "style_weight": 1.0}, "--strength: without --style_weight"),
        ({"strength": 0.3, "content_weight": 1.0}, "--strength: without --content_weight"),
        ({"strength": 0.3, "balance": "none"}, "--strength: with --balance=auto; got --balance=none"),
        ({"strength": 1.5}, "--strength: .* from 0 to 1; got 1.5"),
        ({"strength": -0.1}, "--strength"),
    ],
)
def test_wrong_strengths_are_named(given, message):
    with pytest.raises(InputError, match=message):
        nst.Config.from_preset(**given)


def test_a_run_tells_the_weights_that_it_had(params, pictures):
    content, style = pictures
    config = nst.Config.from_preset(
        "gatys", **LAYERS, strength=0.4, size=64, scales="32,64", iterations=(2, 2)
    )
    *_, last = nst.stylize_steps(params, content, [style], config, devices=1)
    losses = last.losses
    by_hand = sum(losses["weights"][name] * losses[name] for name in ("content", "style", "tv"))
    np.testing.assert_allclose(losses["total"], by_hand, rtol=1e-6)
    assert losses["weights"]["style"] != config.style_weight
