import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import total_variation

import nst_jax as nst
from nst_jax.errors import InputError
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.optimize.loop import start
from nst_jax.runs.problem import make_problem

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


@pytest.fixture
def pictures(rng):
    coarse = rng.random((2, 6, 8, 3), np.float32)
    blocks = [np.kron(picture, np.ones((8, 8, 1), np.float32)) for picture in coarse]
    return [picture[:45] for picture in blocks]  # turned, the blocks lie across each other


def problem_of(params, pictures, **options):
    content, style = pictures
    return make_problem(params, content, [style], nst.Config.from_preset("gatys", **{**LAYERS, **options}))


def test_the_terms_pull_as_their_weights_say(params, pictures):
    given = {"content": 3.0, "style": 0.5, "tv": 0.2, "matting": 0.4}
    options = {f"{name}_weight": weight for name, weight in given.items()}
    problem = problem_of(params, pictures, loss_balancing="auto", photorealistic=True, **options)
    targets, content = problem.targets(), pictures[0]
    weights = problem.balanced(targets).weights
    for name, expected in {**given, "style": 0.5 * STYLE_LOSSES["gram"].gradient_ratio}.items():
        alone = weights.with_terms(**{other: np.float32(0) for other in given if other != name})
        turned, moved = content[::-1, ::-1].copy(), np.roll(content, (23, 33), (0, 1))
        places = {"style": [(1, content)], "tv": [(1, content), (1 / 8, pictures[1])]}
        pulls = []
        for share, picture in places.get(name, [(1, turned), (3 / 4, moved), (1 / 8, pictures[1])]):
            inputs = problem.replace(weights=alone).inputs(targets)
            state = start(jnp.asarray(picture), inputs, problem.spec)
            pulls.append(share * np.linalg.norm(np.float64(state.iterate.gradient)) / state.scale)
        np.testing.assert_allclose(max(pulls), expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("size", [(45, 64), (86, 128), (171, 256)])
def test_the_pull_of_the_variation_is_that_of_the_float64_twin(params, rng, size):
    """Of sizes, too, where XLA:CPU takes sums over by a library, and with no optimization turned off."""
    content = rng.random((*size, 3), np.float32)
    options = {"content_weight": 0.0, "style_weight": 1.0, "tv_weight": 0.2, "loss_balancing": "auto"}
    problem = problem_of(params, [content, content], **options)
    weights = problem.balanced(problem.targets()).weights
    pull = np.linalg.norm(total_variation(np.float64(content))[1])
    np.testing.assert_allclose(float(weights.terms["tv"]), 0.2 / pull, rtol=1e-5)


def test_a_balanced_weight_is_in_proportion_to_the_given_one(params, pictures):
    once, thrice = (problem_of(params, pictures, loss_balancing="auto", style_weight=w) for w in (1.0, 3.0))
    once, thrice = (float(p.balanced(p.targets()).weights.terms["style"]) for p in (once, thrice))
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-6)


def test_without_balance_nothing_changes(params, pictures):
    problem = problem_of(params, pictures)
    assert problem.balanced(problem.targets()) is problem


def drawn(kind, height, width, rng):
    """Return a gray content: of a kind that equals itself when turned or moved, or nearly does, or is plain."""
    y, x = np.mgrid[:height, :width]
    at, unit = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2), rng.integers(1, 9)
    light, dark = rng.uniform(0.6, 1), rng.uniform(0, 0.4)
    half = rng.random((height, width))
    values = {
        "plain": np.full((height, width), rng.choice([0, 0.5, 1, light])),
        "disc": np.where(at < rng.uniform(0.2, 0.4) * height, dark, light),
        "rings": np.where(at // unit % 2, dark, light),
        "mandala": (half + half[::-1, ::-1]) / 2,
        "checkerboard": np.where((y // unit + x // unit) % 2, dark, light),
        "stripes": np.where((y, x)[rng.integers(2)] // unit % 2, dark, light),
        "gradient": dark + (light - dark) * (rng.random() * y / height + rng.random() * x / width) / 2,
        "noise": half,
        "almost": np.where(at < 12, dark, light) + 0.1 * (at < 1) * (x % 2),
        "pixel": np.where((y == height // 3) & (x == width // 3), dark, light),
    }
    return np.repeat(np.float32(values[kind])[..., None], 3, -1)


KINDS = [
    "plain",
    "disc",
    "rings",
    "mandala",
    "checkerboard",
    "stripes",
    "gradient",
    "noise",
    "almost",
    "pixel",
]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_near_those_of_a_shifted_twin(params, pictures, kind, rng):
    """Contents whose pull at themselves turned would be nothing, or nearly; the twin is a few pixels aside."""
    for _ in range(2):
        content = drawn(kind, 48, 64, rng)
        twin = np.roll(content, rng.integers(3, 9, 2), (0, 1))
        found = [
            problem.balanced(problem.targets()).weights
            for problem in (
                problem_of(params, (each, pictures[1]), loss_balancing="auto") for each in (content, twin)
            )
        ]
        for name in ("content", "style", "tv"):
            one, other = (float(weights.terms[name]) for weights in found)
            assert 1 / 4 < one / other < 4, name


def test_a_term_without_a_pull_anywhere_keeps_its_weight(params):
    flat = np.full((16, 16, 3), 0.5, np.float32)
    problem = problem_of(params, (flat, flat), loss_balancing="auto")
    weights = problem.balanced(problem.targets()).weights
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
    assert float(weights.terms["tv"]) == pytest.approx(0.07)


def test_strength_is_one_dial():
    def weights(**given):
        config = nst.Config.from_preset(**{"preset": "gatys", **given})
        numbers = config.content_weight, config.style_weight, config.tv_weight
        return config.loss_balancing, *(pytest.approx(number, rel=3e-3) for number in numbers)

    assert weights(loss_balancing="auto") == ("auto", 1.0, 1.0, 0.07)
    assert weights(strength=0.5) == ("auto", 2.059, 0.09016, 0.07)
    assert weights(strength=0.0) == ("auto", 5.66, 0.0, 0.0)
    assert weights(strength=0.0, tv_weight=0.3) == ("auto", 5.66, 0.0, 0.3)
    assert weights(strength=1.0, tv_weight=0.3) == ("auto", 0.1935, 0.6679, 0.3)
    assert weights(strength=0.25, preset="strotss") == ("auto", 2.542, 0.1916, 0.07)
    assert weights(strength=0.25, style_loss="patch") == ("auto", 2.145, 0.6211, 0.07)
    assert weights(loss_balancing="auto", style_weight=3.0) == ("auto", 1.0, 3.0, 0.07)
    assert weights() == ("none", 1.0, 1e8, 1e-3)


def test_a_preset_s_strength_gives_way_to_weights_and_follows_the_loss():
    def weights(**given):
        config = nst.Config.from_preset(**given)
        numbers = config.content_weight, config.style_weight, config.tv_weight
        return config.loss_balancing, *(pytest.approx(number, rel=3e-3) for number in numbers)

    assert weights() == ("auto", 1.363, 0.6843, 0.07)
    assert weights(strength=0.25) == ("auto", 2.056, 0.279, 0.07)
    assert weights(style_weight=3.0) == ("auto", 1.0, 3.0, 0.07)
    assert weights(content_weight=0.0) == ("auto", 0.0, 1.0, 0.07)
    assert weights(style_loss="gram") == ("auto", 1.577, 0.1431, 0.07)
    assert weights(loss_balancing="none")[0] == "none"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": 0.3, "style_weight": 1.0}, "`strength`: without `style_weight`"),
        ({"strength": 0.3, "content_weight": 1.0}, "`strength`: without `content_weight`"),
        (
            {"strength": 0.3, "loss_balancing": "none"},
            "`strength`: with `loss_balancing=auto`; got `loss_balancing=none`",
        ),
        ({"strength": 1.5}, "`strength`: .* from 0 to 1; got 1.5"),
        ({"strength": -0.1}, "`strength`"),
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
    *_, last = nst.stylize_steps(params, content, [style], config=config, devices=1)
    losses = last.losses
    by_hand = sum(losses["weights"][name] * losses[name] for name in ("content", "style", "tv"))
    np.testing.assert_allclose(losses["total"], by_hand, rtol=1e-6)
    assert losses["weights"]["style"] != config.style_weight
