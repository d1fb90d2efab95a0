from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.networks import NETWORKS, convolutions, vgg
from nst_jax.networks.base import check_layers, features, make_params
from nst_jax.objective import objective
from nst_jax.objective.targets import make_targets
from nst_jax.objective.weights import coefficients

FIVE = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")


def random_arrays(network, rng):
    """Return a network of the real architecture with few channels' worth of random numbers."""
    arrays = {"mean": np.float32([0.4, 0.5, 0.6]), "std": np.float32([0.2, 0.3, 0.4])}
    channels = 3
    for name in NETWORKS[network].names:
        width = 4 + int(name[4])
        arrays[f"{name}.kernel"] = rng.normal(size=(3, 3, channels, width), scale=0.3).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(size=width, scale=0.1).astype(np.float32)
        channels = width
    return arrays


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_features_of_the_real_network_equal_the_float64_twin(params, weights, rng, pooling):
    image = rng.random((50, 67, 3), np.float32)
    ours = features(params, image, FIVE, pooling=pooling)
    twins, _ = reference.forward(weights.arrays, image, FIVE, pooling)
    for layer in FIVE:
        error = np.linalg.norm(ours[layer] - twins[layer]) / np.linalg.norm(twins[layer])
        assert error < 1e-4, (layer, error)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_features_go_only_as_deep_as_asked(network, rng):
    arrays = random_arrays(network, rng)
    image = rng.random((16, 16, 3), np.float32)
    deep = features(make_params(NETWORKS[network], arrays), image, NETWORKS[network].names)
    shallow = {key: value for key, value in arrays.items() if not key.startswith(("conv4", "conv5"))}
    maps = features(make_params(NETWORKS[network], shallow), image, ("conv3_1", "conv1_2"))
    assert list(maps) == ["conv3_1", "conv1_2"]
    np.testing.assert_array_equal(maps["conv3_1"], deep["conv3_1"])
    assert deep[NETWORKS[network].names[-1]].shape == (1, 1, 9)


def test_vgg19_has_the_layers_of_the_paper():
    names = NETWORKS["vgg19"].names
    assert len(names) == 16
    assert names[-1] == "conv5_4"
    assert NETWORKS["vgg19"].kernels["conv4_1"] == (3, 3, 256, 512)
    assert len(NETWORKS["vgg16"].names) == 13


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_gradient_of_the_network_equals_the_float64_twin(rng, pooling):
    arrays = random_arrays("vgg16", rng)
    image = rng.random((21, 18, 3), np.float32)
    seeds = {n: rng.normal(size=(21 >> int(n[4]) - 1, 18 >> int(n[4]) - 1, 4 + int(n[4]))) for n in FIVE}

    def total(image):
        maps = features(make_params(NETWORKS["vgg16"], arrays), image, FIVE, pooling=pooling)
        return sum(jnp.vdot(maps[n], seeds[n].astype(np.float32)) for n in FIVE)

    _, tape = reference.forward(arrays, image, FIVE, pooling)
    expected = reference.backward(arrays, tape, seeds, pooling)
    np.testing.assert_allclose(
        jax.grad(total)(image), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
    )


def test_batches_by_vmap_equal_single_pictures(rng):
    params = make_params(NETWORKS["vgg16"], random_arrays("vgg16", rng))
    batch = rng.random((3, 16, 20, 3), np.float32)
    together = jax.vmap(lambda image: features(params, image, ("conv3_3",)))(batch)["conv3_3"]
    for one, image in zip(together, batch, strict=True):
        np.testing.assert_allclose(
            one, features(params, image, ("conv3_3",))["conv3_3"], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(("layer", "least"), [("conv1_1", 2), ("conv3_1", 4), ("conv5_1", 16)])
def test_smallest_usable_size(params, layer, least):
    features(params, np.zeros((least, least + 3, 3), np.float32), (layer,))
    with pytest.raises(InputError, match=f"at least {least} pixels a side for layer {layer}"):
        features(params, np.zeros((least + 3, least - 1, 3), np.float32), (layer,))


def test_unknown_layers_are_named_with_the_nearest():
    with pytest.raises(InputError, match=r"conv1_1 \.\.\. conv5_3.*'conv5_4'.*did you mean conv5_"):
        check_layers(NETWORKS["vgg16"], ["conv5_4"])
    with pytest.raises(InputError, match="each layer once"):
        check_layers(NETWORKS["vgg16"], ["conv1_1", "conv1_1"])


def test_an_accelerator_s_padding_and_narrow_grams_change_nothing_but_rounding(params, rng):
    """In bfloat16 the sums of convolutions and the factors of Grams are rounded, which adds half at most."""
    image, content, style = rng.random((3, 48, 32, 3), np.float32)
    factors = coefficients(Config().loss_weights(1))

    def evaluate(precision, platform):
        jax.clear_caches()
        spec = Config(precision=precision).spec()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: platform)
            targets = make_targets(params, content, [style], spec)
            return jax.device_get(objective.evaluate(params, image, targets, factors, spec))

    exact = evaluate("float32", "cpu")

    def errors(precision, platform):
        found = evaluate(precision, platform)
        slope = np.linalg.norm(found.gradient - exact.gradient) / np.linalg.norm(exact.gradient)
        return np.array([abs(found.value / exact.value - 1), slope])

    assert (errors("tensorfloat32", "gpu") < 1e-5).all()
    wide, narrow = errors("bfloat16", "cpu"), errors("bfloat16", "gpu")
    assert narrow[0] < 1e-2
    assert 0 < narrow[1] < 1.5 * wide[1] < 0.15


def test_max_pooling_shares_the_gradient_of_equal_ones_as_max_does(rng):
    x = jnp.asarray(rng.integers(0, 3, (2, 7, 9, 5)), jnp.float32)  # many are equal; odd sides

    def reduced(x):
        return vgg._windows(x).max((2, 4))

    y, back = jax.vjp(vgg.POOLINGS["max"], x)
    expected, expected_back = jax.vjp(reduced, x)
    np.testing.assert_array_equal(y, expected)
    slope = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    np.testing.assert_array_equal(back(slope)[0], expected_back(slope)[0])


@pytest.mark.parametrize(
    ("platform", "built", "multiplies", "choice", "expected"),
    [
        ("gpu", False, False, "auto", "bfloat16"),
        ("tpu", True, True, "auto", "float32"),
        ("cpu", True, True, "auto", "bfloat16"),
        ("cpu", True, False, "auto", "float32"),
        ("cpu", False, True, "auto", "float32"),
        ("cpu", True, True, "xla", "float32"),
        ("cpu", True, True, "onednn", "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_device_is_fast_at_it(
    monkeypatch, platform, built, multiplies, choice, expected
):
    native = SimpleNamespace(has_bfloat16=lambda: multiplies)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(convolutions, "library", lambda: native if built else None)
    with convolutions.using(choice):
        assert convolutions.in_force("auto") == expected
        assert convolutions.in_force("float32") == "float32"
        assert convolutions.in_force("bfloat16") == "bfloat16"
