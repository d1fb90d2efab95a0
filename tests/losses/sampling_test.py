import numpy as np
import pytest

from nst_jax.losses import sampling


def sample_positions(mass, count):
    """Return the positions' places in the flattened map."""
    return np.ravel_multi_index(tuple(sampling.sample_positions(mass, count).T), mass.shape)


@pytest.mark.parametrize("count", [1, 16, 64, 256])
def test_every_square_has_its_sample(count):
    taken = np.bincount(sample_positions(np.ones((16, 16)), count), minlength=256).reshape(16, 16)
    side = round(np.sqrt(256 / count))
    np.testing.assert_array_equal(taken.reshape(16 // side, side, 16 // side, side).sum((1, 3)), 1)


def test_positions_are_taken_by_their_mass(rng):
    mass = rng.random((13, 9)) * (rng.random((13, 9)) < 0.5)
    taken = np.bincount(sample_positions(mass, 50_000), minlength=117).reshape(13, 9)
    np.testing.assert_allclose(taken / 50_000, mass / mass.sum(), atol=2e-5)
    assert not taken[mass == 0].any()


def test_of_fewer_positions_than_asked_for_all_are_taken():
    assert set(sample_positions(np.ones((3, 5)), 40)) == set(range(15))


def test_a_part_that_is_all_of_the_mass_has_all_samples():
    mass = np.zeros((6, 7), np.float32)
    mass[5, 6] = 1e-9
    np.testing.assert_array_equal(sample_positions(mass, 5), 41)
