"""The matting loss equals the dense Laplacian's, and is nothing for what is a recoloring of the guide."""

import jax
import numpy as np
import pytest
import reference

from nst_jax.losses.matting import EPSILON, matting_loss

both = jax.jit(jax.value_and_grad(matting_loss))
SHAPE = (17, 14)


def guides():
    """Return by name pictures whose windows span all colors, some, one or none."""
    rng = np.random.default_rng(11)
    smooth = np.stack([np.sin(np.add.outer(np.arange(17), np.arange(14)) / k) for k in (5, 7, 9)], -1)
    steps = (rng.random((*SHAPE, 1)) > 0.5).repeat(3, -1)  # black and white, of the largest contrast
    found = {
        "noise": rng.random((*SHAPE, 3)),
        "smooth": 0.5 + 0.4 * smooth + 0.01 * rng.standard_normal((*SHAPE, 3)),
        "gray": rng.random((*SHAPE, 1)).repeat(3, -1),
        "steps": steps,
        "flat": np.full((*SHAPE, 3), 0.3),
        "black": np.zeros((*SHAPE, 3)),
    }
    return {name: np.float32(guide) for name, guide in found.items()}


GUIDES = guides()


@pytest.mark.parametrize("guide", GUIDES)
def test_value_and_gradient_equal_those_of_the_dense_matrix(rng, guide):
    image = rng.random((*SHAPE, 3), np.float32)
    value, gradient = both(image, GUIDES[guide])
    expected, slope = reference.matting(image, GUIDES[guide], EPSILON)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.linalg.norm(gradient - slope) < 1e-4 * np.linalg.norm(slope)


def test_the_dense_matrix_is_the_least_squares_that_the_loss_promises(rng):
    """From the definition, window by window, by NumPy's own solver."""
    image, guide = rng.random((2, 6, 5, 3))
    total = 0.0
    for row in range(4):
        for column in range(3):
            x, colors = (p[row : row + 3, column : column + 3].reshape(9, 3) for p in (image, guide))
            ridge = np.concatenate([np.sqrt(1e-3) * np.eye(3), np.zeros((3, 1))], 1)
            rows = np.concatenate([np.concatenate([colors, np.ones((9, 1))], 1), ridge])
            right = np.concatenate([x, np.zeros((3, 3))])
            total += ((rows @ np.linalg.lstsq(rows, right)[0] - right) ** 2).sum()
    np.testing.assert_allclose(reference.matting(image, guide, 1e-3)[0], total, rtol=1e-9)


@pytest.mark.parametrize("guide", GUIDES)
def test_nothing_for_an_affine_map_of_the_guide_s_colors(rng, guide):
    guide = GUIDES[guide]
    mixed = guide @ np.float32([[0.5, 0.2, 0.0], [0.1, 0.6, 0.1], [0.2, 0.0, 0.4]]) + np.float32(0.05)
    windows = (SHAPE[0] - 2) * (SHAPE[1] - 2)
    for image in (guide, 1 - guide, mixed):
        value, gradient = both(image, guide)
        assert 0 <= value <= 3.1 * windows * EPSILON  # of |a|^2, at most 1 for each channel
        assert np.isfinite(gradient).all()
    shuffled = rng.permutation(mixed.reshape(-1, 3)).reshape(mixed.shape)
    assert both(shuffled, guide)[0] > 1e5 * value or not np.ptp(guide)


@pytest.mark.parametrize("rows", [2, 9])
def test_rows_below_the_picture_count_for_nothing(rng, rows):
    """A picture of two rows has no window of three."""
    image, guide = rng.random((2, 12, 7, 3), np.float32)
    counted = np.float32(np.arange(12) < rows - 1)[:, None].repeat(7, 1)  # windows, by their middle
    value, gradient = both(image, guide, counted)
    expected, slope = reference.matting(image[:rows], guide[:rows], EPSILON)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[:rows], slope, rtol=1e-3, atol=1e-4)
    assert not gradient[rows:].any()
    assert bool(value) == (rows > 2)
