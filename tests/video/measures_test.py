"""Warping error and flicker: their formulas in float64, and none for what moves or fades evenly."""

import numpy as np

from nst_jax.video import measures
from nst_jax.video.flow import Motion

SHAPE = (40, 56)


def still(holds=None):
    return Motion(np.zeros((*SHAPE, 2), np.float32), np.ones(SHAPE, bool) if holds is None else holds)


def smooth(left=0.0):
    """Return a drawn picture, from a column on."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    x = x + left
    planes = [0.5 + 0.2 * np.sin(x / 3 + k) * np.cos(y / 4) + 0.15 * np.sin(x * y / 90 - k) for k in range(3)]
    return np.stack(planes, -1).astype(np.float32)


def test_they_are_root_mean_squares_where_the_flow_holds(rng):
    before, image, after = rng.random((3, *SHAPE, 3), np.float32)
    one, other = rng.random((2, *SHAPE)) > 0.4
    expected = 255 * np.sqrt(np.mean((np.float64(image) - before)[one] ** 2))
    np.testing.assert_allclose(measures.warping_error(image, before, still(one)), expected, rtol=1e-5)
    between = (np.float64(before) + after) / 2
    expected = 255 * np.sqrt(np.mean((image - between)[one & other] ** 2))
    found = measures.flicker(before, image, after, still(one), still(other))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isnan(measures.warping_error(image, before, still(one & False)))


def test_an_even_pan_has_neither_and_noise_has_both(rng):
    contents = [smooth(1.5 * n) for n in range(5)]
    steady = measures.measure(contents, contents)
    noisy = [(content + 0.05 * rng.standard_normal(content.shape)).astype(np.float32) for content in contents]
    found = measures.measure(noisy, contents)
    assert steady.warping_error < 2
    assert steady.flicker < 1.5
    assert found.warping_error > 0.05 * 255  # of two frames' noise, which warping smooths
    assert found.flicker > 0.05 * 255


def test_an_even_fade_has_a_warping_error_and_no_flicker():
    contents = [smooth()] * 4
    faded = [(content + 0.02 * n).astype(np.float32) for n, content in enumerate(contents)]
    found = measures.measure(faded, contents)
    np.testing.assert_allclose(found.warping_error, 0.02 * 255, rtol=1e-3)
    assert found.flicker < 1e-3


def test_few_frames_have_none():
    assert np.isnan(measures.measure([smooth()], [smooth()])).all()
    assert np.isnan(measures.measure([smooth()] * 2, [smooth()] * 2).flicker)
