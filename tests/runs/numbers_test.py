"""Requests whose numbers go wrong: an answer, or an end that says so; never a picture that is none."""

import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.runs.transfer import stylize_steps

pytestmark = pytest.mark.usefixtures("optax_promotion")

SIDE = 32
LAYERS = {"style_layers": ("conv1_1", "conv2_1", "conv3_1"), "content_layers": ("conv3_1",)}


def flat(*color):
    return np.broadcast_to(np.float32(color), (SIDE, SIDE, 3)).copy()


GRID = np.linspace(0, 3, SIDE, dtype=np.float32)
WAVES = np.stack([np.sin(GRID[:, None] * k + GRID * (3 - k)) * 0.4 + 0.5 for k in range(3)], -1)
TILES = np.kron(np.random.default_rng(3).random((8, 8, 3), np.float32), np.ones((4, 4, 1), np.float32))
BLACK, GRAY, WHITE, RED = flat(0), flat(0.5), flat(1), flat(0.9, 0.1, 0.3)

ALL = ("content_weight", "style_weight", "tv_weight")
ODD = {  # content, style, options
    "black content": (BLACK, TILES, {}),
    "white content": (WHITE, TILES, {}),
    "gray content": (GRAY, TILES, {}),
    "black style": (WAVES, BLACK, {}),
    "style of one color": (WAVES, RED, {}),
    "black on black": (BLACK, BLACK, {}),
    "content for style": (WAVES, WAVES, {}),
    "colors of a black content": (BLACK, TILES, {"preserve_color": "luma_swap"}),
    "photograph of one color": (GRAY, TILES, {"photorealistic": True}),
    "large matting weight": (WAVES, TILES, {"photorealistic": True, "matting_weight": 1e30}),
    "variation alone": (WAVES, TILES, {"content_weight": 0.0, "style_weight": 0.0}),
    "variation of nothing": (GRAY, TILES, {"content_weight": 0.0, "style_weight": 0.0}),
    "content alone": (WAVES, TILES, {"style_weight": 0.0, "tv_weight": 0.0}),
    "large content weight": (WAVES, TILES, {"content_weight": 1e30, "init": "noise"}),
    "large style weight": (WAVES, TILES, {"style_weight": 1e30}),
    "large variation weight": (WAVES, TILES, {"tv_weight": 1e30}),
    "large weights": (WAVES, TILES, dict.fromkeys(ALL, 1e30)),
    "small weights": (WAVES, TILES, dict.fromkeys(ALL, 1e-30)),
    "weights far apart": (WAVES, TILES, {"content_weight": 1e-10, "style_weight": 1e30, "tv_weight": 1e-30}),
    "largest shift": (WAVES, TILES, {"activation_shift": 1e6}),
    "least shift": (WAVES, TILES, {"activation_shift": -1e6}),
    "sharpest power": (WAVES, TILES, {"tv_power": 1.0}),
    "largest rate": (WAVES, TILES, {"learning_rate": 1.0}),
    "least rate": (WAVES, TILES, {"learning_rate": 1e-8}),
    "longest average": (WAVES, TILES, {"ema_decay": 0.99999}),
    "shortest average": (WAVES, TILES, {"ema_decay": 1e-30}),
}
WRONG = {
    "largest weights": (WAVES, TILES, dict.fromkeys(ALL, 3e38)),
    "largest power": (WAVES, TILES, {"tv_power": 8.0, "tv_weight": 1e30}),
}
# From a flat picture the first step meets a variation whose gradient's squares float32 does not hold. Adam
# would divide by their root, and stand still for good; L-BFGS finds that no step lowers the loss.
STEEP = {
    "large variation weight on white": (WHITE, TILES, {"tv_weight": 1e30}),
    "large variation weight on gray": (GRAY, TILES, {"style_weight": 1.0, "tv_weight": 1e20}),
}


def run(params, optimizer, content, style, options):
    config = Config(optimizer=optimizer, size=SIDE, iterations=6, **LAYERS, **options)
    steps = list(stylize_steps(params, content, [style], config=config, report_every=3))
    for now in steps:
        assert np.isfinite(now.image).all()
        assert 0 <= now.image.min() <= now.image.max() <= 1
        assert np.isfinite(now.losses["total"]) or not now.finite
    return steps


@pytest.mark.parametrize(
    ("optimizer", "case"),
    [("adam", case) for case in ODD]
    + [("lbfgs", case) for case in ODD if not ODD[case][2].keys() & {"learning_rate", "ema_decay"}],
)
def test_an_odd_request_has_an_answer(params, optimizer, case):
    content, style, options = ODD[case]
    first, *_, last = run(params, optimizer, content, style, options)
    assert last.finite
    assert last.step == 6 or last.converged
    if optimizer == "lbfgs":
        assert last.losses["total"] <= first.losses["total"] * (1 + 1e-6)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("case", WRONG)
def test_a_loss_beyond_float32_is_said_at_once(params, optimizer, case):
    (only,) = run(params, optimizer, *WRONG[case])
    assert not only.finite


@pytest.mark.parametrize("case", STEEP)
def test_a_gradient_whose_squares_overflow_ends_a_run(params, case):
    *_, last = run(params, "adam", *STEEP[case])
    assert (last.finite, last.step) == (False, 0)
    *_, last = run(params, "lbfgs", *STEEP[case])
    assert last.converged
