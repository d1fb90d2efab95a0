"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) as torchvision has it, for the judge alone."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class Layer(NamedTuple):
    """A zero-padded convolution; pooled: on the greatest of 3x3 positions, at every other one."""

    kernel: tuple[int, int, int, int]  # rows, columns, channels in, channels out
    padding: int
    stride: int = 1
    pooled: bool = False


LAYERS = {
    "conv1": Layer((11, 11, 3, 64), 2, stride=4),
    "conv2": Layer((5, 5, 64, 192), 2, pooled=True),
    "conv3": Layer((3, 3, 192, 384), 1, pooled=True),
    "conv4": Layer((3, 3, 384, 256), 1),
    "conv5": Layer((3, 3, 256, 256), 1),
}
SMALLEST = 31  # pixels a side: of less the second pooling leaves nothing


def features(
    arrays: Mapping[str, Float[Array, "..."]], image: Float[Array, "h w 3"]
) -> dict[str, Float[Array, "_ _ _"]]:
    """Return the activations after ReLU of all LAYERS, each (h, w, c), of an RGB picture in [0, 1].

    arrays: convN.kernel (rows, columns, i, o), convN.bias (o), mean (3), std (3).
    The picture has at least SMALLEST pixels a side.
    """
    x, maps = ((image - arrays["mean"][None, None]) / arrays["std"][None, None])[None], {}
    for name, layer in LAYERS.items():
        if layer.pooled:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        sums = lax.conv_general_dilated(
            x,
            arrays[f"{name}.kernel"],
            (layer.stride, layer.stride),
            [(layer.padding, layer.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(sums + arrays[f"{name}.bias"][None, None, None])
        maps[name] = x[0]
    return maps
