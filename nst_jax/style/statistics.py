"""Style losses: a statistic of a picture's features, and a distance from what is wanted of a style.

A statistic is a mean over positions, so it does not depend on the size of the picture it was taken from; a
mask is the weight of each position in that mean, so a small region counts like a large one. It is kept as a
sum and a mass until both are complete, so that a picture may be taken window by window (tiling.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.samples import Samples
from nst_jax.vgg import AnyArray, keep_rows, map_shape

Features = Mapping[str, Float[AnyArray, "_ _ _"]]  # by layer, (rows, columns, channels), from the bottom up
Mask = Mapping[str, Float[AnyArray, "_ _"]]  # by layer: the weight of each position, at least 0, not all 0


class Sum(NamedTuple):
    """What a mean over positions is made of: mask-weighted sum and mass; those of two parts add up."""

    total: Float[Array, "*shape"]
    mass: Float[Array, ""]


class Least(NamedTuple):
    """The least of something over the positions; of two parts, the lesser one."""

    value: Float[Array, "*shape"]


# By the layer that names the term: a tree of Sums, Leasts, and arrays that add up themselves.
Sums = dict[str, Any]
Statistics = dict[str, Any]  # the same with the means in place of the Sums, what is least, and the arrays


def is_node(tree: Any) -> bool:
    """Tell a Sum or a Least, which are taken as one, in a tree."""
    return isinstance(tree, Sum | Least)


class StyleLoss(NamedTuple):
    """A style loss: E_l = distance(statistics of the picture, what is wanted of the style) at every term l.

    What is wanted is the same statistic of the style; or, where the loss has a target, whatever that makes of
    the style, for the picture's sums to be taken against.
    """

    # Of features, shift, mask (or None), rows of the picture (or 0: all), and, with a target, what is wanted.
    sums: Callable[..., Sums]
    distance: Callable[[Any, Any], Float[Array, ""]]
    pull: float = 50.0  # at the start, of style weight 1 with balance auto, to 1 of the content's
    shifts: bool = True  # whether the activation shift means anything to it
    scale: Callable[[Mapping[str, int]], Mapping[str, float]] | None = None  # of the means, from positions
    # Of features, shift, mask, rows and samples: a style's sums; of their means prepare makes what is wanted.
    target: Callable[..., Sums] | None = None
    prepare: Callable[[Statistics], Statistics] = lambda found: found
    samples: int = 0  # positions of each layer that the target is given
    reach: int = 0  # positions of a layer that it looks to each side

    def means(self, sums: Sums, positions: Mapping[str, int]) -> Statistics:
        """Return the statistics of complete sums; positions: how many the whole picture has, by layer."""
        factors = self.scale(positions) if self.scale else {}

        def mean(term: str, node: Any) -> Any:
            if isinstance(node, Sum):
                return node.total / node.mass * factors.get(term, 1)
            return node.value if isinstance(node, Least) else node

        return {
            term: jax.tree.map(lambda node, term=term: mean(term, node), found, is_leaf=is_node)
            for term, found in sums.items()
        }

    def statistics(self, features: Features, shift: Float[Array, ""], mask: Mask | None = None) -> Statistics:
        """Return the statistics of a whole picture's features, of a loss without a target."""
        return self.means(self.sums(features, shift, mask), positions_of(features))

    def sums_of_picture(
        self, features: Features, shift: Float[Array, ""], mask: Mask | None, rows: int, wanted: Any
    ) -> Sums:
        """Return the picture's sums, against what is wanted where the loss has a target."""
        against = () if self.target is None else (wanted,)
        return self.sums(features, shift, mask, rows, *against)

    def sums_of_style(
        self, features: Features, shift: Float[Array, ""], mask: Mask | None, rows: int, samples: Samples
    ) -> Sums:
        """Return the sums of which means() and prepare() make what is wanted of a style."""
        if self.target is None:
            return self.sums(features, shift, mask, rows)
        return self.target(features, shift, mask, rows, samples)


def positions_of(features: Features) -> dict[str, int]:
    """Return how many positions whole maps have, by layer."""
    return {layer: map_.shape[0] * map_.shape[1] for layer, map_ in features.items()}


def at(mask: Mask | None, layer: str) -> Float[AnyArray, "_ _"] | None:
    """Return the mask's weights at a layer; of no mask, None."""
    return None if mask is None else mask[layer]


def rows_of(layer: str, rows: int) -> int:
    """Return how many rows a layer has of a picture of so many."""
    return map_shape(layer, rows, rows)[0]


def cross_sum(
    above: Float[AnyArray, "h w a"],
    below: Float[AnyArray, "_ _ b"],
    rate: int,
    shift: Float[Array, ""],
    mask: Float[AnyArray, "_ _"] | None,
    rows: int,
) -> Sum:
    """Return the sum over below's positions, weighted by the mask, of up(above + s)_p (below + s)_p^T.

    rows: of above, that count, as do those of below that lie along them; 0: all.
    """
    height, width, _ = above.shape
    used = keep_rows(below[: height * rate, : width * rate] + shift, rows * rate)
    mass = jnp.asarray((rows or height) * width * rate * rate, jnp.float32)
    if mask is not None:
        weights = keep_rows(mask[: height * rate, : width * rate], rows * rate)
        used, mass = used * weights[..., None], jnp.sum(weights)
    # A value of above repeated over a window of below meets the window's sum: the same, with less work.
    windows = used.reshape(height, rate, width, rate, -1).sum((1, 3)).reshape(height * width, -1)
    values = (above + shift).reshape(height * width, -1)
    return Sum(jnp.dot(values.T, windows), mass)  # at jax.default_matmul_precision, which objective.py sets
