"""The weight of a term in force, by hand."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.objective.weights import Dial, LossWeights, at_scale, coefficients, in_pulls, steered

ASKED = {"content": 3.0, "style": 5.0, "tv": 7.0}


def weights_of(terms):
    return LossWeights(
        terms={name: jnp.float32(w) for name, w in terms.items()}, parts={}, style_mix=jnp.ones(1)
    )


def test_at_a_smaller_scale_styles_have_their_share_of_the_pixels_unless_balanced():
    assert at_scale(ASKED, 0.25, "none") == {"content": 3.0, "style": 1.25, "tv": 7.0}
    assert at_scale(ASKED, 0.25, "auto") == ASKED


@pytest.mark.parametrize("loss", ["gram", "wasserstein"])
def test_in_pulls_a_weight_is_divided_by_its_own_and_a_pull_of_0_divides_nothing(loss):
    spec = Config(style_loss=loss).spec()
    found = in_pulls(weights_of(ASKED), {"style": 4.0, "tv": 0.0}, spec).terms
    assert found["content"] == 3
    np.testing.assert_allclose(found["style"], 5 * STYLE_LOSSES[loss].gradient_ratio / 4, rtol=1e-6)
    assert found["tv"] == 7


def test_a_strength_moves_style_and_content_apart_and_nothing_else():
    dial = Dial(log_ratio=jnp.float32(0.8), first=jnp.float32(0), seen=jnp.float32(0))
    found = steered(weights_of(ASKED), dial).terms
    expected = {"content": 3 * math.exp(-0.4), "style": 5 * math.exp(0.4), "tv": 7.0}
    assert {name: float(weight) for name, weight in found.items()} == pytest.approx(expected, rel=1e-6)
    assert steered(weights_of(ASKED), None).terms == ASKED


def test_a_coefficient_is_the_weight_by_layer_and_share_of_the_mix():
    weights = weights_of(ASKED).replace(
        parts={"style": {"a": jnp.float32(0.5), "b": jnp.float32(2)}}, style_mix=jnp.float32([0.25, 0.75])
    )
    found = coefficients(weights)
    np.testing.assert_allclose(found["style"]["a"], [0.625, 1.875])
    np.testing.assert_allclose(found["style"]["b"], [2.5, 7.5])
    assert (found["content"], found["tv"]) == (3, 7)


def test_weights_are_made_by_keywords_and_stay_as_they_are():
    with pytest.raises(TypeError, match="positional"):
        LossWeights(ASKED, {}, jnp.ones(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        weights_of(ASKED).terms = {}
