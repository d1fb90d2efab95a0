import jax
import jax.numpy as jnp
import pytest

from nst_jax.config import Config
from nst_jax.launchers import roofline
from nst_jax.networks import NETWORKS
from nst_jax.networks.precision import PRECISIONS
from nst_jax.objective.objective import total_loss
from nst_jax.objective.targets import make_targets

FIVE = Config().spec()  # VGG-16 to conv5_1


def timeless(monkeypatch):
    """Let every call take a second, on little work; return the calls' count."""
    calls = []

    def seconds(call):
        calls.append(jax.block_until_ready(call()))
        return 1.0

    monkeypatch.setattr(roofline, "seconds", seconds)
    monkeypatch.setattr(roofline, "CPU", roofline.Work(side=64, pictures=1, floats=1000))
    return calls


def test_flop_count_equals_the_count_by_hand():
    """VGG-16 to conv5_1 at 512x512, forward and gradient: 301 GFLOP; to conv5_3 321; VGG-19: 379 and 408."""
    everything = Config(style_layers=("all",)).spec()
    assert roofline.flop_count("vgg16", FIVE, 512) / 1e9 == pytest.approx(301, abs=0.5)
    assert roofline.flop_count("vgg16", everything, 512) / 1e9 == pytest.approx(321, abs=0.5)
    assert roofline.flop_count("vgg19", FIVE, 512) / 1e9 == pytest.approx(379, abs=0.5)
    everything = Config(network="vgg19", style_layers=("all",)).spec()
    assert roofline.flop_count("vgg19", everything, 512) / 1e9 == pytest.approx(408, abs=0.5)


def test_the_compiler_counts_the_convolutions_the_grams_and_little_else(params):
    """At 256x256: by hand, but for the zeros around a map, which the compiler leaves out, and two products a Gram.

    Of 3 n positions along a side the kernel reads 3 n - 2 within the map. What is left is elementwise.
    """
    size = 256
    picture = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    targets = jax.eval_shape(lambda p: make_targets(params, p, [p], FIVE), picture)
    weights = Config().loss_weights(1)

    def loss(image, params, targets):
        return total_loss(params, image, targets, weights, FIVE)

    compiled = jax.jit(jax.value_and_grad(loss)).lower(picture, params, targets).compile()
    layers = [(layer.name, side) for layer, side in roofline._sides(NETWORKS["vgg16"], FIVE, size)]
    channels = {name: NETWORKS["vgg16"].layer(name).kernel[2:] for name, _ in layers}
    convolutions = sum(
        2 * 2 * channels[name][0] * channels[name][1] * (3 * side - 2) ** 2 for name, side in layers
    )
    grams = sum(
        2 * 2 * channels[name][1] ** 2 * side**2 for name, side in layers if name in FIVE.style_layers
    )
    assert 0.05 < grams / convolutions < 0.07
    assert roofline.flop_count("vgg16", FIVE, size) == pytest.approx(convolutions, rel=0.03)
    assert compiled.cost_analysis()["flops"] == pytest.approx(convolutions + grams, rel=0.01)


def test_byte_count_equals_the_count_by_hand():
    spec = Config(content_layers=("conv1_2",), style_layers=("conv2_1",)).spec()
    maps = (3 + 64) * 16**2 + (64 + 64) * 16**2 + (64 + 128) * 8**2
    kernels = 9 * (3 * 64 + 64 * 64 + 64 * 128)
    assert roofline.byte_count("vgg16", spec, 16, batch=1) == 2 * 4 * (maps + kernels)
    assert roofline.byte_count("vgg16", spec, 16, batch=4) == 2 * 4 * (maps + kernels / 4)
    half = spec._replace(precision="bfloat16")
    assert roofline.byte_count("vgg16", half, 16, batch=1) == 2 * 2 * (maps + kernels)


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16"])
def test_rates_are_work_over_seconds(precision, monkeypatch):
    calls = timeless(monkeypatch)
    assert roofline.matmul_rate(precision) == 2 * 64**3 / 1e9
    assert roofline.convolution_rate(precision) == 18 * 64**2 * 256**2 / 1e9
    assert roofline.copy_rate() == 2 * roofline.PASSES * 4000 / 1e9
    widths = [made.shape[-1] for made in calls[1:5]]
    assert widths == [64, 128, 256, 512]
    assert {made.dtype for made in calls[:5]} == {jnp.dtype(PRECISIONS[precision].activations)}


def test_own_convolutions_are_those_of_an_evaluation_both_ways(params, monkeypatch):
    calls = timeless(monkeypatch)
    spec = Config(content_layers=("conv2_1",), style_layers=("conv1_1",)).spec()
    assert roofline.own_convolutions(params, spec, size=16, batch=2) == 6 / 2
    assert [made.shape for made in calls] == [
        *[(2, 16, 16, 64), (2, 16, 16, 3)],
        *[(2, 16, 16, 64), (2, 16, 16, 64)],
        *[(2, 8, 8, 128), (2, 8, 8, 64)],
    ]


def test_ceilings_are_the_best_of_the_rounds_after_the_first(monkeypatch):
    copies, products, convolutions = ([9.0, 1.0, 3.0], [9.0, 4.0, 2.0], [9.0, 1.0, 5.0])
    monkeypatch.setattr(roofline, "copy_rate", lambda: copies.pop(0))
    monkeypatch.setattr(roofline, "matmul_rate", lambda _: products.pop(0))
    monkeypatch.setattr(roofline, "convolution_rate", lambda _: convolutions.pop(0))
    assert roofline.measure(["bfloat16"], rounds=2) == {
        "copy_gigabytes_per_second": 3,
        "matmul_gflop_per_second": {"bfloat16": 4},
        "convolution_gflop_per_second": {"bfloat16": 5},
    }


def test_noise_is_spread_evenly_and_differs_from_place_to_place():
    noise = roofline._noise((100, 100), jnp.float32)
    counts, _ = jnp.histogram(noise, bins=10, range=(-0.5, 0.5))
    assert jnp.abs(counts - 1000).max() < 10
    assert len(set(noise.ravel().tolist())) == 10_000


def row(size, batch, seconds, optimizer="adam"):
    return {
        "size": size,
        "batch": batch,
        "optimizer": optimizer,
        "precision": "float32",
        "seconds_per_evaluation": {"median": seconds},
        "flop_per_byte": 10.0 * size,
        "gflop_per_second": 1 / seconds,
    }


def test_scaling_finds_the_power_laws_of_equal_cases():
    rows = [row(size, batch, 3e-6 * size**2 / batch**0.5) for size in (32, 64, 100) for batch in (1, 8)]
    rows.append(row(64, 1, 77.0, "lbfgs"))  # alone: nothing to fit
    fits = roofline.scaling(rows, ("size", "optimizer", "batch"))
    assert [(fit["optimizer"], fit["batch"]) for fit in fits["seconds_against_pixels"]] == [
        ("adam", 1),
        ("adam", 8),
    ]
    assert fits["seconds_against_pixels"][0]["a"] == pytest.approx(3e-6)
    assert fits["seconds_against_pixels"][0]["b"] == pytest.approx(1)
    assert [fit["size"] for fit in fits["evaluations_per_second_against_batch"]] == [32, 64, 100]
    assert fits["evaluations_per_second_against_batch"][1]["b"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("extension", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
@pytest.mark.parametrize("rows", [[], [row(64, 1, 0.1), row(32, 4, 0.2)]])
def test_rooflines_are_files_of_their_kind(extension, magic, rows):
    measured = {
        "copy_gigabytes_per_second": 20.0,
        "matmul_gflop_per_second": {"float32": 300.0},
        "convolution_gflop_per_second": {"float32": 200.0},
    }
    assert roofline.plot(measured, rows, extension).startswith(magic)
