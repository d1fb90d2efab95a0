"""Register a style loss of your own: the mean and deviation of each channel (Huang & Belongie 2017).

From then on it is a value of `style_loss`: masks, several styles, windows and devices work with it.

python examples/own_style_loss.py --size=256 --output=picture.png
"""

import argparse
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from one_picture import load

import nst_jax as nst
from nst_jax.losses.style.statistics import at, position_weights


def moment_sums(
    features: Mapping[str, jax.Array], shift: Any, mask: Any, network: nst.Network
) -> dict[str, nst.Sum]:
    """Return for each layer the sums over positions of the activations and of their squares."""
    found = {}
    for layer, maps in features.items():  # (rows, columns, channels)
        weights = position_weights(maps.shape, at(mask, layer))
        moments = jnp.stack([maps, maps**2])
        found[layer] = nst.Sum(jnp.sum(weights[..., None] * moments, (1, 2)), jnp.sum(weights))
    return found


def distance(picture: jax.Array, style: jax.Array) -> jax.Array:
    """Return how far two layers are apart, from the means of what moment_sums adds up."""

    def describe(moments: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, square = moments
        return mean, jnp.sqrt(jnp.maximum(square - mean**2, 0) + 1e-5)  # the root has a slope everywhere

    (mean, deviation), (wanted_mean, wanted_deviation) = describe(picture), describe(style)
    return jnp.mean((mean - wanted_mean) ** 2 + (deviation - wanted_deviation) ** 2)


nst.STYLE_LOSSES["mean_and_deviation"] = nst.StyleLoss(moment_sums, distance, shifts=False)


def main() -> None:
    """Read the flags and make a picture with the loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="longest side in pixels")
    parser.add_argument("--steps", type=int, default=60, help="steps of the optimizer")
    parser.add_argument("--output", default="picture.png", help="picture to write")
    flags = parser.parse_args()

    content, style = load("example:coffee", flags.size), load("example:night", flags.size)
    config = nst.Config.from_preset(style_loss="mean_and_deviation", strength=0.7, iterations=flags.steps)
    result = nst.stylize(nst.load_vgg(), content, [style], config=config, progress=print)
    nst.images.save(flags.output, result.image)


if __name__ == "__main__":
    main()
