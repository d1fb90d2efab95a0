"""What a term of the objective is, what it sees of a picture, and what its sums are made of.

A statistic is a mean over positions. It is kept as a sum and a mass until both are complete: so a picture may
be taken window by window (tiling.py), or by several devices (sharding.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.sampling import Tile
from nst_jax.networks.base import AnyArray
from nst_jax.spec import Spec

PIXELS = "pixels"  # in place of a layer: positions that are the pixels


class Sum(NamedTuple):
    """What a mean over positions is made of: weighted sum and mass; those of two parts add up."""

    total: Float[Array, "*shape"]
    mass: Float[Array, ""]


class Min(NamedTuple):
    """The least of something over the positions; of two parts, the lesser one."""

    value: Float[Array, "*shape"]


def is_node(tree: Any) -> bool:
    """Tell a Sum or a Min, which are taken as one, in a tree."""
    return isinstance(tree, Sum | Min)


def means(sums: Any) -> Any:
    """Return a tree of complete sums with means in place of its Sums, and what is least."""

    def mean(node: Any) -> Any:
        if isinstance(node, Sum):
            return node.total / node.mass
        return node.value if isinstance(node, Min) else node

    return jax.tree.map(mean, sums, is_leaf=is_node)


class View(NamedTuple):
    """A picture, or a window of one, as a term sees it."""

    image: Float[AnyArray, "h w 3"]  # as the losses see it (objective.seen), sRGB in [0, 1]
    maps: Mapping[str, Float[AnyArray, "_ _ _"]]  # activations by layer
    numbers: Mapping[str, Any]  # options that are traced, by name
    spec: Spec
    part: Tile | None = None  # the window; None: the whole
    regions: Sequence[Mapping[str, Float[AnyArray, "_ _"]]] = ()  # masks: weights by layer of terms of styles

    def weights(self, layer: str = PIXELS, below: int = 0) -> Float[Array, "_ _"] | None:
        """Return 1 for the positions of a layer that count, and 0 for others; None: all of them count.

        Others are those of another window, and those below the picture's own rows.

        Args:
            layer: By default one of pixels.
            below: Rows below a position that it looks at: these have to be the picture's own, too.
        """
        weights, stride = None, self.spec.stride(layer)
        if self.part is not None:
            weights = self.part.pixels if layer == PIXELS else self.part.owned[layer]
        height, width = (side // stride for side in self.image.shape[:2])
        own = self.spec.own_size(self.image.shape)[0] // stride - below
        if not self.spec.rows or own == height:
            return weights
        inside = jnp.arange(height, dtype=jnp.int32) < own
        return jnp.where(inside[:, None], jnp.ones((height, width)) if weights is None else weights, 0)

    def weights_by_region(self, layers: Sequence[str]) -> list[dict[str, Any]]:
        """Return the weights of the layers' positions in each region, or of all; None: all count alike."""
        own = {layer: self.weights(layer) for layer in layers}

        def within(layer: str, region: Mapping[str, Any]) -> Any:
            weights = own[layer]
            return region[layer] if weights is None else weights * region[layer]

        return [{layer: within(layer, region) for layer in layers} for region in self.regions] or [own]

    def mean(self, values: Float[AnyArray, "h w"], layer: str = PIXELS) -> Sum:
        """Return what the mean over the positions that count is made of, whatever the masks."""
        weights = self.weights(layer)
        weights = jnp.ones(values.shape) if weights is None else weights
        return Sum(jnp.sum(weights * values), jnp.sum(weights))


class Painting(NamedTuple):
    """A style picture, of which a term makes what it wants of the style."""

    over: Callable[[Callable[[View], Any]], Any]  # what a look sees of all of it, at once or by windows
    samples: Mapping[str, AnyArray]  # positions that stand for it, by layer, where its loss asks for some
    numbers: Mapping[str, Any]
    size: tuple[int, int]
    spec: Spec


class Whole(NamedTuple):
    """The whole picture that complete sums are of."""

    size: tuple[int, int]  # rows, columns
    spec: Spec


class Weight(NamedTuple):
    """The option that holds a term's weight."""

    help: str
    default: float = 0.0
    balanced: float = 1.0  # the default with loss_balancing=auto, in units of the term's pull


class Reach(NamedTuple):
    """How far a term looks to each side, in pixels."""

    image: int = 0  # of the picture
    maps: int = 0  # beyond what its layers see


def _no_layers(spec: Spec) -> tuple[str, ...]:
    return ()


def _no_reach(spec: Spec) -> Reach:
    return Reach()


def _no(spec: Spec) -> bool:
    return False


def _one(spec: Spec) -> float:
    return 1.0


class Term(NamedTuple):
    """A term of the objective: a number of a picture, or several by name, and by style where it is of styles.

    sums: (view, wanted) -> a tree of Sums, Mins and arrays that add up over the parts of a picture.
    losses: (means of complete sums, wanted, whole) -> its unweighted numbers. None: the sums are these.
    weight: the option WEIGHT is called after the term's name: NAME_weight.
    of_content: (view of the content) -> what is wanted. Without a content picture the term has no numbers.
    of_style: (painting) -> what is wanted of one style. Of all of them it is stacked, and losses gives for
        each name an array with a number for each style, which the style mix weighs.
    names: of its numbers, which its losses gives as a dict; None: it gives one.
    layers: that it reads.
    reach: how far it looks beyond a window's core.
    linear: whether its sums are its numbers, so that windows need no first look at them.
    local: whether what is wanted of the content are arrays of positions, by layer or (by another name) of
        pixels, of which each window has its share.
    numbers: options that it takes traced, with their defaults.
    when: the option without which the term is not there; none: it always is.
    given: (rows, columns) -> arrays (rows, columns, channels) that stand for none. The term compares the
        picture with such arrays, which are put into the targets. No option has it: Problem.with_term adds it.
    places: of balancing.py, at whose pictures its pull is asked for.
    gradient_ratio: what its weight of 1 is, with loss_balancing=auto, in units of its pull.
    """

    sums: Callable[[View, Any], Any]
    losses: Callable[[Any, Any, Whole], Any] | None = None
    weight: Weight = Weight("weight of a term")
    of_content: Callable[[View], Any] | None = None
    of_style: Callable[[Painting], Any] | None = None
    names: Callable[[Spec], tuple[str, ...]] | None = None
    layers: Callable[[Spec], tuple[str, ...]] = _no_layers
    reach: Callable[[Spec], Reach] = _no_reach
    linear: Callable[[Spec], bool] = _no
    local: Callable[[Spec], bool] = _no
    numbers: tuple[tuple[str, float], ...] = ()
    when: str = ""
    given: Callable[[int, int], dict[str, Any]] | None = None
    places: tuple[str, ...] = ("content", "painted")
    gradient_ratio: Callable[[Spec], float] = _one
