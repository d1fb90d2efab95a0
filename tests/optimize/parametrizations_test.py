"""Parametrizations: what S does to a picture, and that optimizers take their steps in its coordinates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.objective import sharding
from nst_jax.optimize import optimizers
from nst_jax.optimize.optimizers import OPTIMIZERS, Coordinates, Iterate
from nst_jax.optimize.parametrizations import PARAMETRIZATIONS

SPEC = Config().spec()
SCALE, SQUARE = PARAMETRIZATIONS["fourier"](SPEC)
NATURAL = PARAMETRIZATIONS["natural"](SPEC)
LIGHT = np.full((3, 3), 1 / 3)  # projects on gray


def twin(image, power):
    """Return a power of S of a picture by NumPy in float64, the formula literally."""
    height, width, _ = image.shape
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]).clip(1 / max(height, width))
    gain = (4 * np.log(1 + np.sqrt(2)) * f) ** power
    return np.fft.ifft2(np.fft.fft2(np.float64(image), axes=(0, 1)) * gain[..., None], axes=(0, 1)).real


@pytest.mark.parametrize("shape", [(8, 12), (9, 7), (1, 5)])
def test_the_filter_equals_its_float64_twin_s(rng, shape):
    image = jnp.asarray(rng.random((*shape, 3), np.float32))
    for filtered, power in ((SCALE, -0.5), (SQUARE, -1)):
        np.testing.assert_allclose(filtered(image), twin(image, power), atol=1e-5)
    np.testing.assert_allclose(SCALE(SCALE(image)), SQUARE(image), atol=1e-5)


@pytest.mark.parametrize("pictures", [1, 2])
def test_natural_coordinates_move_lightness_three_times_as_far_as_color(rng, pictures):
    image = jnp.asarray(rng.random((9, 7, 3 * pictures), np.float32))
    b = np.sqrt(3 / 11)  # (3 b)^2 + 2 b^2 = 3
    colors = 3 * b * LIGHT + b * (np.eye(3) - LIGHT)
    for found, power, mixed in (
        (NATURAL.scale(image), -0.5, colors),
        (NATURAL.square(image), -1, colors @ colors),
    ):
        expected = [twin(part, power) @ mixed for part in np.split(np.asarray(image), pictures, 2)]
        np.testing.assert_allclose(found, np.concatenate(expected, 2), atol=1e-5)


def test_the_filter_is_symmetric_and_keeps_the_size_of_steps(rng):
    a, b = jnp.asarray(rng.normal(size=(2, 64, 48, 3)), jnp.float32)
    for scale in (SCALE, NATURAL.scale):
        np.testing.assert_allclose(np.vdot(scale(a), b), np.vdot(a, scale(b)), rtol=1e-3)
        assert 0.9 < np.square(scale(a)).mean() < 1.1  # of white noise


def test_pixels_are_pixels(rng):
    image = jnp.zeros((4, 5, 3))
    assert all(function(image) is image for function in PARAMETRIZATIONS["pixels"](SPEC))


@pytest.mark.parametrize("name", ["fourier", "natural"])
def test_over_devices_it_is_the_filter_of_the_picture_s_own_rows(name, rng):
    """An odd height, padded: what lies below counts for nothing and stays zero."""
    image = rng.random((21, 18, 3), np.float32)
    spec = sharding.spec_of(image, SPEC._replace(mesh=sharding.make_mesh(3)))
    padded = sharding.shard(sharding.pad(image, spec), spec)
    found = jax.jit(PARAMETRIZATIONS[name](spec).scale)(padded)
    assert found.sharding == padded.sharding
    expected = PARAMETRIZATIONS[name](SPEC).scale(jnp.asarray(image))
    np.testing.assert_allclose(found[:21], expected, atol=1e-5)
    assert not np.asarray(found[21:]).any()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.usefixtures("optax_promotion")
def test_steps_are_those_in_pixels_of_the_objective_of_the_coordinates(name, rng):
    """Inside the box x = S z, where z takes the steps that it would take by itself for f(S z)."""
    target = rng.uniform(0.45, 0.55, (6, 5, 3)).astype(np.float32)
    curvature = jnp.asarray(rng.uniform(1, 9, (6, 5, 3)), jnp.float32)
    scale, square = (jax.jit(function) for function in (SCALE, SQUARE))

    def objective(image):
        return jnp.sum(curvature * (image - target) ** 2)

    def evaluate(function, image):
        return Iterate(image, *jax.value_and_grad(function)(image), {})

    def steps(function, image, coordinates):
        iterate, memory = evaluate(function, image), OPTIMIZERS[name].init(image)
        step = jax.jit(partial(OPTIMIZERS[name].step, partial(evaluate, function), coordinates=coordinates))
        for _ in range(5):
            iterate, memory, _, _ = step(jnp.float32(1e-3), iterate, memory)
        return iterate.image

    start = jnp.full((6, 5, 3), 0.5)
    found = steps(objective, start, Coordinates(scale, square))
    # As z is in no box, it is moved into the middle of one: S keeps a constant's shape.
    shift = 0.5 - jnp.float32(twin(start, 0.5))
    alone = steps(lambda z: objective(scale(z - shift)), jnp.full((6, 5, 3), 0.5), optimizers.PIXELS)
    np.testing.assert_allclose(found, scale(alone - shift), atol=2e-5)
    assert np.abs(found - start).max() > 1e-3
