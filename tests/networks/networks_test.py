"""What networks tell of themselves, against published numbers; and the documented network, through everything."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images.masks import Masks
from nst_jax.networks import JUDGES, NETWORKS, known_networks
from nst_jax.networks.base import features, make_params
from nst_jax.objective import objective, sharding, tiling
from nst_jax.objective.targets import make_targets
from nst_jax.objective.weights import coefficients
from nst_jax.runs.transfer import stylize, stylize_steps
from nst_jax.weights import load_weights

LAYERS = {"content_layers": ("coarse",), "style_layers": ("coarse", "fine")}


@pytest.fixture
def toy(monkeypatch):
    """Register the network of docs/howto/extend.md."""
    text = (Path(__file__).parents[2] / "docs" / "howto" / "extend.md").read_text()
    section = text[text.index("## A network\n") :]
    module = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], module)
    monkeypatch.setitem(NETWORKS, "toy", module["TOY"])
    return module["TOY"]


@pytest.fixture
def params(toy, rng):
    arrays = {"mean": np.float32([0.4, 0.5, 0.6]), "std": np.float32([0.2, 0.3, 0.4])}
    for name, shape in toy.kernels.items():
        arrays[f"{name}.kernel"] = rng.normal(size=shape, scale=0.3).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(size=shape[3], scale=0.1).astype(np.float32)
    return make_params(toy, arrays)


def convolve(x, convolution):
    """Return the zero-padded 3x3 convolution and ReLU, in float64."""
    kernel, _, bias = (np.float64(array) for array in convolution)
    height, width, _ = x.shape
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    parts = (padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
    return np.maximum(sum(parts) + bias, 0)


def test_every_network_goes_by_its_name():
    for name, network in known_networks().items():
        assert network.name == name
        assert [layer.depth for layer in network.layers] == list(range(1, len(network.layers) + 1))
        assert len(set(network.names)) == len(network.names)


# Receptive fields and strides as they are published (Araujo et al. 2019, "Computing receptive fields").
FIELDS = {
    "vgg16": {
        "conv1_2": (5, 1),
        "conv2_2": (14, 2),
        "conv3_3": (40, 4),
        "conv4_3": (92, 8),
        "conv5_3": (196, 16),
    },
    "vgg19": {"conv3_4": (48, 4), "conv4_4": (116, 8), "conv5_4": (252, 16)},
}


@pytest.mark.parametrize("name", FIELDS)
def test_reach_and_stride_are_those_of_the_published_receptive_fields(name):
    for layer, (field, stride) in FIELDS[name].items():
        found = NETWORKS[name].layer(layer)
        assert found.stride == found.least == stride
        assert 2 * found.reach + stride == field


def test_alexnet_has_its_published_receptive_fields_within_reach():
    fields = {"conv1": (11, 4), "conv2": (51, 8), "conv3": (99, 16), "conv4": (131, 16), "conv5": (163, 16)}
    for layer in JUDGES["alexnet"].layers:
        field, stride = fields[layer.name]
        assert layer.stride == stride
        assert field <= 2 * layer.reach + stride < field + 2 * stride  # to the left it sees less far


def test_a_network_of_one_module_and_one_line_has_the_features_of_its_float64_twin(params, rng):
    image = rng.random((14, 17, 3), np.float32)
    maps = features(params, image, ("fine", "coarse"))
    fine = convolve((image - np.float64(params.mean)) / np.float64(params.std), params.convolutions["fine"])
    pooled = fine[:12, :15].reshape(4, 3, 5, 3, 8).max((1, 3))
    np.testing.assert_allclose(maps["fine"], fine, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps["coarse"], convolve(pooled, params.convolutions["coarse"]), 1e-4, 1e-5)


def test_it_describes_what_its_positions_see(toy, params, rng):
    image = rng.random((30, 30, 3), np.float32)
    coarse = toy.layer("coarse")
    assert (coarse.depth, coarse.stride, coarse.channels, coarse.reach, coarse.least) == (2, 3, 12, 4, 3)
    slope = jax.grad(lambda image: jnp.sum(features(params, image, ("coarse",))["coarse"][4, 4]))(image)
    seen = np.flatnonzero(np.abs(slope).sum((1, 2)))
    assert seen[0] >= 4 * 3 - 4
    assert seen[-1] <= 4 * 3 + 2 + 4


def test_its_layers_are_checked_by_name_and_size(toy, params, rng):
    with pytest.raises(
        InputError, match=r"layers of toy are fine \.\.\. coarse, or all; got 'corse' .did you mean coarse"
    ):
        Config(network="toy", content_layers=("corse",), style_layers=("fine",))
    with pytest.raises(InputError, match="at least 3 pixels a side for layer coarse; got 5x2"):
        features(params, rng.random((2, 5, 3), np.float32), ("coarse",))
    with pytest.raises(InputError, match=r"`tile`: auto, off, or at least 18 \(coarse sees 4 pixels"):
        Config(network="toy", **LAYERS, tile="17")
    config = Config(network="toy", **LAYERS, style_layer_weights="lower")
    assert config.spec().style_layers == ("fine", "coarse")
    weights = config.loss_weights(1).parts["style"]
    assert weights["fine"] == 4 * weights["coarse"]


@pytest.mark.parametrize("style_loss", ["gram", "chain", "patch"])
def test_windows_and_masks_lie_on_its_grid(params, rng, style_loss):
    """Window by window the objective is what it is as a whole."""
    content, image, style = rng.random((3, 35, 49, 3), np.float32)
    config = Config(network="toy", **LAYERS, style_loss=style_loss, style_weight=1e4)
    spec, factors = config.spec(), coefficients(config.loss_weights(1))
    masks = Masks(content=(rng.random((35, 49)) < 0.5).astype(np.float32))

    def evaluate(how, spec):
        targets = make_targets(params, content, [style], spec, masks=masks)
        return jax.jit(how, static_argnames="spec")(params, image, targets, factors, spec)

    whole = evaluate(objective.evaluate, spec)
    windows = evaluate(tiling.evaluate, spec._replace(tile=30))
    assert tiling.grid(image.shape, spec._replace(tile=30)).windows > 1
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), windows.terms, whole.terms)
    error = np.linalg.norm(windows.gradient - whole.gradient) / np.linalg.norm(whole.gradient)
    assert error < 1e-5


@pytest.mark.usefixtures("optax_promotion")
def test_a_picture_is_made_through_it_on_one_device_and_on_two(params, rng):
    content, style = rng.random((2, 25, 20, 3), np.float32)
    config = Config(network="toy", **LAYERS, optimizer="adam", iterations=3, size=25, style_weight=1e3)
    made = [
        list(stylize_steps(params, content, [style], config=config, devices=devices))[-1].image
        for devices in (1, 2)
    ]
    assert np.abs(made[0] - content).max() > 0.01
    np.testing.assert_allclose(*made, atol=1e-4)
    assert sharding.height(25, config.spec()._replace(mesh=sharding.make_mesh(2))) == 2 * 5 * 3


def test_parameters_of_another_network_are_refused(toy, params, rng, monkeypatch):
    content, style = rng.random((2, 32, 32, 3), np.float32)
    with pytest.raises(InputError, match="params: the parameters of vgg16; they have coarse"):
        stylize(params, content, [style], config=Config(size=32))
    monkeypatch.setitem(NETWORKS, "twin", toy._replace(name="twin"))
    with pytest.raises(InputError, match="params: the parameters of twin; got those of toy"):
        stylize(params, content, [style], config=Config(network="twin", **LAYERS, size=32))


@pytest.mark.usefixtures("toy")
def test_without_published_weights_a_network_asks_for_a_file():
    with pytest.raises(
        InputError, match="weights: a file that .nst-weights --convert. made, as no published"
    ):
        load_weights("toy")
