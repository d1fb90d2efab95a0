"""Style losses by name, one module for each family; statistics.py says what a style loss is."""

import functools

import jax
import numpy as np

from nst_jax.losses.sampling import Samples
from nst_jax.losses.style.gaussian import (
    moment_sums,
    moments_distance,
    principal_gaussian,
    wasserstein_distance,
)
from nst_jax.losses.style.gram import (
    chain_sums,
    gram_sums,
    shares_of_lowest,
    squared_distance,
    tutorial_distance,
)
from nst_jax.losses.style.histogram import histogram_distance, histogram_reference, histogram_sums
from nst_jax.losses.style.matching import (
    SIDE,
    directions,
    nearest_distance,
    nearest_sums,
    patch_sums,
    remd_distance,
    remd_sums,
    sampled_features,
    sampled_patches,
    the_mean_itself,
)
from nst_jax.losses.style.statistics import StatisticFn as StatisticFn
from nst_jax.losses.style.statistics import Statistics as Statistics
from nst_jax.losses.style.statistics import StyleLoss as StyleLoss
from nst_jax.losses.style.statistics import Sums as Sums
from nst_jax.networks.base import Network

# strength_midpoint and strength_exponent: with these, VGG-16's LPIPS to the photograph falls alike with all
# losses, as with gram (and tutorial). Fitted on two pairs: docs/decisions/2026-11-26-strength-ratio.md.
# gradient_ratio: what the weights of the presets, chosen by eye, come to on six pairs at 256 pixels. Losses
# without a preset have that of pictures that look as strong, on two pairs at 224 pixels. The ratios differ:
# a loss of fourth powers falls faster than one of squares, and patches bring their content with them.
STYLE_LOSSES = {
    "gram": StyleLoss(gram_sums, squared_distance, gradient_ratio=50.0, narrow=True),
    "chain": StyleLoss(
        chain_sums, squared_distance, gradient_ratio=130.0, strength_midpoint=0.05, strength_exponent=2.1
    ),
    "tutorial": StyleLoss(gram_sums, tutorial_distance, scale=shares_of_lowest, narrow=True),
    "moments": StyleLoss(
        moment_sums,
        moments_distance,
        gradient_ratio=15.0,
        strength_midpoint=0.8,
        strength_exponent=2.1,
        shifts=False,
    ),
    "wasserstein": StyleLoss(
        moment_sums,
        wasserstein_distance,
        gradient_ratio=5.0,
        strength_midpoint=1.0,
        strength_exponent=1.7,
        shifts=False,
        keep=principal_gaussian,
        inner=True,
    ),
    "histogram": StyleLoss(histogram_sums, histogram_distance, shifts=False, reference=histogram_reference),
    "nearest": StyleLoss(
        nearest_sums,
        nearest_distance,
        gradient_ratio=15.0,
        strength_midpoint=1.0,
        strength_exponent=2.3,
        shifts=False,
        reference=sampled_features,
        prepare=directions,
        samples=1024,
    ),
    "remd": StyleLoss(
        remd_sums,
        remd_distance,
        gradient_ratio=12.0,
        strength_midpoint=1.0,
        strength_exponent=2.2,
        shifts=False,
        reference=sampled_features,
        prepare=directions,
        samples=1024,
    ),
    "patch": StyleLoss(
        patch_sums,
        the_mean_itself,
        gradient_ratio=1.0,
        strength_midpoint=2.4,
        strength_exponent=1.8,
        shifts=False,
        reference=sampled_patches,
        samples=4096,
        reach=SIDE // 2,
    ),
}


def term_names(style_loss: str, network: Network, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the terms that a style loss makes of these layers, from the bottom up.

    Args:
        style_loss: A key of STYLE_LOSSES.
        network: The one that the layers are of.
        layers: Names of those in use, from the bottom up.
    """
    return _term_names(STYLE_LOSSES[style_loss], network, layers)


@functools.cache  # an option checked often, and every answer takes a trace
def _term_names(loss: StyleLoss, network: Network, layers: tuple[str, ...]) -> tuple[str, ...]:
    used, side = network.select(layers), 2 * network.deepest(layers).stride
    maps = {layer.name: np.zeros((*layer.map_shape(side, side), 1), np.float32) for layer in used}
    samples = Samples(dict.fromkeys(layers, np.zeros((1, 2), np.int32)))
    # Shapes of numpy's arrays: before the device is known, and it may not be there.
    shapes = jax.eval_shape(
        lambda maps, shift: (
            loss.reference(maps, shift, None, network, samples)
            if loss.reference
            else loss.sums(maps, shift, None, network)
        ),
        maps,
        np.float32(0),
    )
    return tuple(layer.name for layer in network.select(shapes))  # JAX has sorted the names
