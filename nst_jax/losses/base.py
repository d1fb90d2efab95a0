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
    """A mean over positions before the division: the weighted sum, and the mass, which is the total weight.

    The sums of two parts of a picture add up.
    """

    total: Float[Array, "*shape"]
    mass: Float[Array, ""]


class Min(NamedTuple):
    """A minimum over positions. Of two parts of a picture the smaller one counts."""

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
    """What a term sees: a picture or a window of it, with its activations.

    image: the picture (h, w, 3), sRGB in [0, 1].
    maps: activations by layer, each (rows, columns, channels).
    numbers: options that are arrays, by name.
    """

    image: Float[AnyArray, "h w 3"]  # as the losses see it (objective.seen)
    maps: Mapping[str, Float[AnyArray, "_ _ _"]]
    numbers: Mapping[str, Any]
    spec: Spec
    part: Tile | None = None  # the window; None: the whole
    regions: Sequence[Mapping[str, Float[AnyArray, "_ _"]]] = ()  # masks: weights by layer of terms of styles

    def weights(self, layer: str = PIXELS, below: int = 0) -> Float[Array, "_ _"] | None:
        """Return the weight of each position of a layer: 1 if it counts, else 0. None: all of them count.

        Positions in the halo of a window do not count, nor do rows of padding below the picture.

        Args:
            layer: Its name. By default the positions are the pixels.
            below: How many rows below a position must belong to the picture, too.
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
        """Return for each region of the masks the weight of each position, by layer. None: all weigh 1."""
        own = {layer: self.weights(layer) for layer in layers}

        def within(layer: str, region: Mapping[str, Any]) -> Any:
            weights = own[layer]
            return region[layer] if weights is None else weights * region[layer]

        return [{layer: within(layer, region) for layer in layers} for region in self.regions] or [own]

    def mean(self, values: Float[AnyArray, "h w"], layer: str = PIXELS) -> Sum:
        """Return the mean of values over the positions that count, as a Sum. Masks play no part."""
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
    """The option NAME_weight of a term.

    help: its line in --help.
    default: with loss_balancing=none.
    balanced: the default with loss_balancing=auto, in units of the term's pull.
    """

    help: str
    default: float = 0.0
    balanced: float = 1.0


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
    """A summand of the total loss: one loss or several by name. A term of the style has them for each style.

    sums: (view, target) -> a tree of Sum, Min and plain arrays. Plain arrays add up over parts of a picture.
    losses: (means of the whole picture, target, whole) -> unweighted losses. None: the sums are the losses.
    weight: the option NAME_weight.
    of_content: (view of the content) -> the target. Without a content picture the term has no losses.
    of_style: (painting) -> the target of one style. The targets of all styles are stacked. Each loss is then
        an array with one number for each style, and the style mix weights them.
    names: (spec) -> the names of the losses, which `losses` returns as a dict. None: it returns one loss.
    layers: (spec) -> the layers that the term reads.
    reach: (spec) -> how far it looks beyond the core of a window.
    linear: (spec) -> whether the sums are the losses, so that pass 1 over the windows can skip the term.
    local: (spec) -> whether the target of the content is an array over positions, by layer or of pixels.
        A window then takes its part of it.
    numbers: options that the term takes as arrays, with their defaults.
    when: the option that switches the term on. Empty: it is always on.
    given: (rows, columns) -> placeholders for arrays (rows, columns, channels) that are set in the targets
        later. Such a term has no option: Problem.with_term adds it.
    places: the pictures of balancing.py at which its pull is measured.
    gradient_ratio: (spec) -> the gradient norm that a weight of 1 gives with loss_balancing=auto, in pulls.
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
