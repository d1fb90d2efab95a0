"""What this machine does at best, measured, and what an evaluation asks of it, counted: a roofline.

The counts are of the evaluation's convolutions alone, forward and backward; they are nine tenths of its work.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nst_jax.networks import NETWORKS, convolutions, vgg
from nst_jax.networks.base import Layer, Network, Params
from nst_jax.networks.convolutions import in_force
from nst_jax.networks.precision import PRECISIONS
from nst_jax.reports.report import draw, new_axes
from nst_jax.spec import Spec

Row = dict[str, Any]

PASSES = 8  # over the memory in one timed copy: what it costs to ask for memory is not the copy's


class Work(NamedTuple):
    """What the ceilings are measured on: enough to fill the device, little enough to leave it room."""

    side: int  # of the matrices
    pictures: int  # of 256 x 256 pixels, in one convolution
    floats: int  # in one copy


CPU, ACCELERATOR = Work(1024, 1, 2**24), Work(8192, 32, 2**28)

_convolve = jax.jit(vgg.convolution, static_argnames="products")
_multiply = jax.jit(jnp.matmul, static_argnames="precision")


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of a call, until the device has its result."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def measure(precisions: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return the best of some rounds: GB/s of a copy, GFLOP/s of products and convolutions by precision."""

    def best(rate: Callable[..., float], *of: str) -> float:
        return max([rate(*of) for _ in range(1 + rounds)][1:])  # the first one compiles

    return {
        "copy_gigabytes_per_second": best(copy_rate),
        "matmul_gflop_per_second": {name: best(matmul_rate, name) for name in precisions},
        "convolution_gflop_per_second": {name: best(convolution_rate, name) for name in precisions},
    }


def copy_rate() -> float:
    """Return the GB/s, read and written, of passes over more memory than caches hold."""
    x = _noise((_work().floats,), jnp.float32)
    return 2 * PASSES * x.nbytes / seconds(partial(_pass_over, x)) / 1e9


def matmul_rate(precision: str) -> float:
    """Return the GFLOP/s of a product of square matrices."""
    dtype, products = PRECISIONS[precision]
    a = _noise((_work().side, _work().side), dtype)
    return 2 * len(a) ** 3 / seconds(partial(_multiply, a, a, precision=products)) / 1e9


def convolution_rate(precision: str) -> float:
    """Return the GFLOP/s of the fastest of VGG's widths, each on the maps it has of 256 x 256 pixels."""
    dtype, products = PRECISIONS[precision]

    def rate(channels: int, side: int) -> float:
        x = _noise((_work().pictures, side, side, channels), dtype)
        kernel = _noise((3, 3, channels, channels), dtype)
        return 18 * channels * x.size / seconds(partial(_plain_convolution, x, kernel, products)) / 1e9

    maps = {(layer.channels, 256 // layer.stride) for layer in vgg.VGG16.layers if layer.stride <= 8}
    return max(rate(*sizes) for sizes in sorted(maps))


def own_convolutions(params: Params, spec: Spec, size: int, batch: int) -> float:
    """Return the seconds, for each picture, of an evaluation's own convolutions, each run alone."""
    dtype, products = PRECISIONS[in_force(spec.precision)]
    total = 0.0
    for layer, side in _sides(params.network, spec, size):
        held = params.convolutions[layer.name]
        x, y = (_noise((batch, side, side, channels), dtype) for channels in layer.kernel[2:])
        if held.kernel.ndim == 1:  # packed: with bias, ReLU and mask
            native = convolutions.library()
            total += seconds(partial(native.forward, x, held.kernel, held.bias))
            total += seconds(partial(native.backward, y, y, held.flipped))
        else:
            total += seconds(partial(_convolve, x, held.kernel, products))
            total += seconds(partial(_convolve, y, held.flipped, products))
    return total / batch


def flop_count(network: str, spec: Spec, size: int) -> float:
    """Return the floating-point operations of the convolutions in one evaluation, forward and backward.

    2 * 9 * i * o * h * w for a convolution, and the same again for the gradient with respect to its input.
    """
    layers = _sides(NETWORKS[network], spec, size)
    return float(sum(2 * 2 * math.prod(layer.kernel) * side**2 for layer, side in layers))


def byte_count(network: str, spec: Spec, size: int, batch: int) -> float:
    """Return the bytes that these convolutions move at least, for each picture of a batch.

    (i + o) * h * w numbers of maps, and 9 * i * o of the kernel once for the batch; the same again backward.
    """
    numbers = [
        sum(layer.kernel[2:]) * side**2 + math.prod(layer.kernel) / batch
        for layer, side in _sides(NETWORKS[network], spec, size)
    ]
    return 2 * sum(numbers) * jnp.dtype(PRECISIONS[in_force(spec.precision)].activations).itemsize


def scaling(rows: Sequence[Row], case: Sequence[str]) -> dict[str, list[Row]]:
    """Return the fits seconds = a * pixels^b and evaluations a second = a * batch^b.

    Each goes through the rows that are equal in all other keys of a case.
    """

    def time(row: Row) -> float:
        return row["seconds_per_evaluation"]["median"]

    def fits(varied: str, point: Callable[[Row], tuple[int, float]]) -> list[Row]:
        groups: dict[tuple[Any, ...], dict[int, float]] = {}
        for row in rows:
            x, y = point(row)
            groups.setdefault(tuple((key, row[key]) for key in case if key != varied), {})[x] = y
        return [dict(equal) | _power_law(points) for equal, points in groups.items() if len(points) > 1]

    return {
        "seconds_against_pixels": fits("size", lambda row: (row["size"] ** 2, time(row))),
        "evaluations_per_second_against_batch": fits("batch", lambda row: (row["batch"], 1 / time(row))),
    }


def _power_law(points: dict[int, float]) -> Row:
    """Return a and b of y = a * x^b, by least squares of the logarithms."""
    b, log_a = np.polyfit(np.log(list(points)), np.log(list(points.values())), 1)
    return {"a": math.exp(log_a), "b": float(b)}


def plot(measured: dict[str, Any], rows: Sequence[Row], extension: str) -> bytes:
    """Return a roofline, GFLOP/s against FLOP/byte, as the bytes of a .png, .svg or .pdf file."""
    axes = new_axes()
    colors = {precision: f"C{k}" for k, precision in enumerate(measured["convolution_gflop_per_second"])}
    x = np.geomspace(1, 4 * max([256.0, *(row["flop_per_byte"] for row in rows)]))
    for kind, line in {"convolution": "-", "matmul": "--"}.items():
        for precision, top in measured[f"{kind}_gflop_per_second"].items():
            y = np.minimum(measured["copy_gigabytes_per_second"] * x, top)
            axes.plot(x, y, line, color=colors[precision], label=f"{kind}, {precision}")
    for row in rows:
        point = row["flop_per_byte"], row["gflop_per_second"]
        axes.plot(*point, "o", color=colors[row["precision"]])
        axes.annotate(f"{row['batch']} x {row['size']}, {row['optimizer']}", point, fontsize="small")
    axes.set(xscale="log", yscale="log", xlabel="FLOP/byte of the convolutions", ylabel="GFLOP/s")
    axes.legend()
    return draw(axes, extension)


def _work() -> Work:
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def _sides(network: Network, spec: Spec, size: int) -> Iterator[tuple[Layer, int]]:
    """Yield the layers that run, each with the side of its maps."""
    for layer in network.layers[: network.deepest(spec.layers).depth]:
        yield layer, size // layer.stride


def _noise(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Return numbers in [-1/2, 1/2) that look random: chips can be faster on ones and zeros."""
    return jax.block_until_ready(_weyl(shape, jnp.dtype(dtype)))


@jax.jit(static_argnums=(0, 1))
def _weyl(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Return Weyl's sequence: multiples of the golden ratio without their whole part, less 1/2."""
    multiples = lax.iota(jnp.uint32, math.prod(shape)) * jnp.uint32(2654435769)  # 2^32 / 1.618...
    fractions = lax.shift_right_logical(multiples, jnp.uint32(8)).astype(jnp.float32) / 2**24
    return (fractions - 0.5).astype(dtype).reshape(shape)


@jax.jit(static_argnames="products")
def _plain_convolution(x: jax.Array, kernel: jax.Array, products: lax.Precision) -> jax.Array:
    """Convolve in the way that libraries are best at: the result is held as x is, where ours is float32."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers, precision=products)


@jax.jit
def _pass_over(x: jax.Array) -> jax.Array:
    return lax.fori_loop(0, PASSES, lambda _, y: 0.5 * y + 1, x)
