"""Style losses by name, one module for each family; statistics.py says what a style loss is."""

import functools

import jax
import numpy as np

from nst_jax.style.gaussian import moment_sums, moments_distance, wasserstein_distance
from nst_jax.style.gram import chain_sums, gram_sums, shares_of_lowest, squared_distance, tutorial_distance
from nst_jax.style.statistics import Least as Least
from nst_jax.style.statistics import Statistics as Statistics
from nst_jax.style.statistics import StyleLoss as StyleLoss
from nst_jax.style.statistics import Sums as Sums
from nst_jax.style.statistics import is_node as is_node
from nst_jax.vgg import block_of

# The pulls are what the presets' weights, chosen by eye, come to on six pairs of pictures at 256 pixels.
# They differ: a loss of fourth powers falls faster than one of squares.
STYLE_LOSSES = {
    "gram": StyleLoss(gram_sums, squared_distance, pull=50.0),
    "chain": StyleLoss(chain_sums, squared_distance, pull=130.0),
    "tutorial": StyleLoss(gram_sums, tutorial_distance, scale=shares_of_lowest),
    "moments": StyleLoss(moment_sums, moments_distance, shifts=False),
    "wasserstein": StyleLoss(moment_sums, wasserstein_distance, pull=5.0, shifts=False),
}


@functools.cache  # an option checked often, and every answer takes a trace
def term_names(style_loss: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the terms that a style loss makes of these layers, from the bottom up."""
    maps = {layer: np.zeros((2 ** (6 - block_of(layer)),) * 2 + (1,), np.float32) for layer in layers}
    return tuple(jax.eval_shape(STYLE_LOSSES[style_loss].sums, maps, np.float32(0)))
