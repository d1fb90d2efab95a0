"""Content losses equal their float64 twins, have slopes where pictures are flat, and know the right picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.losses.base import View
from nst_jax.losses.content import BOX, CONTENT_LOSSES, laplacian
from nst_jax.losses.sampling import LEVEL, sample_positions
from nst_jax.networks.base import features
from nst_jax.objective.objective import loss_terms
from nst_jax.objective.targets import make_targets

LAYERS = ("conv1_2", "conv2_1")


def spec_of(loss, **options):
    return Config(content_loss=loss, content_layers=LAYERS, style_layers=("conv1_1",), **options).spec()


def terms_of(params, x, content, loss):
    """Return the content's terms, and the gradient of their sum with respect to the picture."""
    spec = spec_of(loss)
    targets = make_targets(params, content, [content], spec)

    def total(x):
        terms = loss_terms(params, x, targets, spec)["content"]
        return sum(terms.values()), terms

    gradient, terms = jax.jit(jax.grad(total, has_aux=True))(x)
    return terms, gradient


def laplacian_twin(picture):
    """Return by loops the Laplacian of boxes, where all of it lies within the picture."""
    picture = 255 * np.float64(picture)
    height, width, _ = picture.shape
    found = np.zeros_like(picture)

    def mean(row, column):
        return picture[row : row + BOX, column : column + BOX].mean((0, 1))

    for row in range(BOX, height - 2 * BOX + 1):
        for column in range(BOX, width - 2 * BOX + 1):
            around = [mean(row + BOX * a, column + BOX * b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            found[row, column] = sum(around) - 4 * mean(row, column)
    return found


@pytest.mark.parametrize("shape", [(19, 16), (12, 13), (11, 20), (3, 5)])
def test_the_laplacian_equals_its_twin_s(rng, shape):
    picture = rng.random((*shape, 3), np.float32)
    np.testing.assert_allclose(jax.jit(laplacian)(picture), laplacian_twin(picture), atol=2e-3)
    padded = np.pad(picture, ((0, 5), (0, 0), (0, 0)), constant_values=0.5)
    spec = spec_of("laplacian")._replace(rows=shape[0])
    counted = View(padded, {}, {}, spec).weights(below=2 * BOX - 1)[..., None]
    of_its_rows = (counted * jax.jit(laplacian)(padded))[: shape[0]]
    np.testing.assert_allclose(of_its_rows, laplacian_twin(picture), atol=2e-3)


def test_the_laplacian_term_equals_its_twin_s(params, rng):
    x, content = rng.random((2, 24, 21, 3), np.float32)
    terms, gradient = terms_of(params, x, content, "laplacian")
    squares, gradient_of_squares = terms_of(params, x, content, "l2")
    apart = laplacian_twin(x) - laplacian_twin(content)
    np.testing.assert_allclose(terms.pop("laplacian"), (apart**2).sum() / 2 / BOX**2, rtol=1e-4)
    assert terms == squares
    slope, direction = np.asarray(gradient - gradient_of_squares), rng.normal(size=x.shape)
    along = (apart * laplacian_twin(direction)).sum() / BOX**2  # it is linear
    np.testing.assert_allclose((slope * direction).sum(), along, rtol=1e-3)


def shares(columns):
    unit = columns / np.sqrt((columns**2).sum(1, keepdims=True) + 1e-12)
    distances = np.maximum(1 - unit @ unit.T, 0) + LEVEL
    return distances / distances.sum(0)


def test_self_similarity_equals_its_twin_s(params, rng):
    x, content = rng.random((2, 40, 36, 3), np.float32)
    terms, _ = terms_of(params, x, content, "self_similarity")
    maps = [features(params, picture, LAYERS) for picture in (x, content)]
    for layer in LAYERS:
        rows, columns = sample_positions(np.ones(maps[0][layer].shape[:2]), 1024).T
        ours, theirs = (shares(np.float64(m[layer])[rows, columns]) for m in maps)
        np.testing.assert_allclose(terms[layer], np.abs(ours - theirs).sum(0).mean(), rtol=1e-3)


def test_the_slope_of_self_similarity_equals_finite_differences(rng):
    loss = CONTENT_LOSSES["self_similarity"]
    columns, content = rng.random((2, 30, 6), np.float32)
    wanted = loss.wanted(View(np.zeros((1, 1, 3), np.float32), {}, {}, spec_of("self_similarity")))
    assert wanted == {}
    from nst_jax.losses.content import SelfSimilarity

    aim = SelfSimilarity(jnp.zeros((30, 2), jnp.int32), jnp.asarray(shares(np.float64(content)), jnp.float32))
    slope, direction = (
        np.asarray(jax.grad(loss.distance)(jnp.asarray(columns), aim)),
        rng.normal(size=(30, 6)),
    )

    def value(step):
        return np.abs(shares(columns + step * direction) - np.float64(aim.shares)).sum(0).mean()

    np.testing.assert_allclose((slope * direction).sum(), (value(1e-6) - value(-1e-6)) / 2e-6, rtol=1e-3)


@pytest.mark.parametrize("loss", sorted(CONTENT_LOSSES))
def test_nothing_at_the_content_itself_and_slopes_everywhere(params, rng, loss):
    content = rng.random((32, 32, 3), np.float32)
    flat = np.full((32, 32, 3), 0.5, np.float32)
    terms, _ = terms_of(params, content, content, loss)
    assert tuple(terms) == CONTENT_LOSSES[loss].terms(LAYERS)
    assert all(value <= 1e-5 for value in terms.values())
    for x, other in ((flat, content), (content, flat), (0 * flat, content), (flat, flat)):
        terms, gradient = terms_of(params, x, other, loss)
        assert all(jnp.isfinite(value) for value in terms.values())
        assert jnp.isfinite(gradient).all()
        assert (x is other) or all(value > 0 for value in terms.values())
