"""Content losses by name: the target that a content picture gives, and another picture's distance from it.

A term is a sum over positions, or made of sums: so a picture may be taken window by window (tiling.py).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from nst_jax.losses.base import Reach, Term, View, Weight, Whole
from nst_jax.losses.sampling import Samples, Tile, distance_shares, sample_positions
from nst_jax.networks.base import AnyArray
from nst_jax.spec import Spec

Picture = Float[AnyArray, "h w 3"]
Wanted = dict[str, Any]  # by term

SAMPLES = 1024  # positions that are compared with each other
BOX = 4  # pixels a side, over which colors are averaged before their Laplacian is taken
LAPLACIAN = "laplacian"  # the name of its term


class ContentLoss(NamedTuple):
    """A content loss: at each layer, the distance between a picture and the content.

    wanted: (view of the content) -> the target, by layer.
    sums: (view of a picture or a window, target) -> what adds up over the windows, by layer.
    distance: (complete sum, target) -> the loss of one layer. None: the sum is the loss.
    local: whether the target is an array over positions, of which a window takes its part.
    beside: names of further losses, which belong to no layer.
    reach: how many pixels to each side these look at.
    """

    wanted: Callable[[View], Wanted]
    sums: Callable[[View, Wanted], dict[str, Array]]
    distance: Callable[[Array, Any], Float[Array, ""]] | None = None
    local: bool = True
    beside: tuple[str, ...] = ()
    reach: int = 0

    def terms(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the terms; without layers there is no content."""
        return (*layers, *self.beside) if layers else ()


def _activations(view: View) -> Wanted:
    return dict(view.maps)


def _squares(view: View, wanted: Wanted) -> dict[str, Array]:
    """Return 1/2 sum (F - F_c)^2 over positions and channels, by layer. Gatys et al. 2015, eq. 1."""
    return {
        layer: _half_squares(map_, wanted[layer], view.weights(layer)) for layer, map_ in view.maps.items()
    }


def _half_squares(
    x: Float[AnyArray, "h w c"], c: Float[AnyArray, "h w c"], weights: Float[AnyArray, "h w"] | None
) -> Float[Array, ""]:
    squares = (x.astype(jnp.float32) - c.astype(jnp.float32)) ** 2
    return jnp.sum(squares if weights is None else squares * weights[..., None]) / 2


def _activations_and_laplacian(view: View) -> Wanted:
    return {**view.maps, LAPLACIAN: laplacian(view.image)}


def _squares_and_laplacian(view: View, wanted: Wanted) -> dict[str, Array]:
    """Return the squares, and 1/2 sum (D - D_c)^2 over pixels and colors of the Laplacians.

    Li et al. 2017 (Laplacian-steered neural style transfer, arXiv 1707.01253), eq. 4. Differs from the paper:
    at every pixel, not at every BOX-th, and so over BOX^2; with the content's 1/2.
    """
    weights = view.weights(below=2 * BOX - 1)
    apart = _half_squares(laplacian(view.image), wanted[LAPLACIAN], weights)
    return _squares(view, wanted) | {LAPLACIAN: apart / BOX**2}


def laplacian(picture: Picture) -> Float[Array, "h w 3"]:
    """Return the sum of the four neighbors of each box of BOX x BOX pixels, less four times its own.

    Of mean colors in 0..255; at the pixel in the box's upper left corner; 0 where a neighbor is not within
    the picture.
    """
    boxes = 255 * jnp.asarray(picture) / BOX**2
    for step in (1, 2):  # twice as many rows and columns in each sum
        boxes = boxes[step:] + boxes[:-step]
        boxes = boxes[:, step:] + boxes[:, :-step]
    inner = boxes[BOX:-BOX, BOX:-BOX]
    around = boxes[2 * BOX :, BOX:-BOX] + boxes[: -2 * BOX, BOX:-BOX]
    around += boxes[BOX:-BOX, 2 * BOX :] + boxes[BOX:-BOX, : -2 * BOX]
    before = [min(BOX, size) for size in picture.shape[:2]]
    sides = [(first, picture.shape[axis] - first - inner.shape[axis]) for axis, first in enumerate(before)]
    return jnp.pad(around - 4 * inner, (*sides, (0, 0)))


class SelfSimilarity(NamedTuple):
    """How alike a picture's positions are to each other, at some of them."""

    positions: Int32[AnyArray, "n 2"]
    shares: Float[Array, "n n"]


def _likeness(view: View) -> Wanted:
    found = {}
    rows, image = view.spec.rows, view.image
    for layer, map_ in view.maps.items():
        height, width, _ = map_.shape
        own = rows * height // image.shape[0] if rows else height  # a padded picture has whole cells
        positions = sample_positions(np.ones((own, width)), SAMPLES)
        found[layer] = SelfSimilarity(
            jnp.asarray(positions), distance_shares(_columns(layer, map_, positions))
        )
    return found


def _samples(view: View, wanted: Wanted) -> dict[str, Array]:
    return {
        layer: _columns(layer, map_, wanted[layer].positions, view.part) for layer, map_ in view.maps.items()
    }


def _columns(
    layer: str, map_: Float[AnyArray, "h w c"], positions: Int32[AnyArray, "n 2"], part: Tile | None = None
) -> Float[Array, "n c"]:
    return Samples({layer: positions}, part).patches(layer, map_.astype(jnp.float32), 1)[:, 0, 0]


def _unlikeness(columns: Float[Array, "n c"], wanted: SelfSimilarity) -> Float[Array, ""]:
    """Return (1/n) sum_ij |D^x_ij / sum_i D^x_ij - D^c_ij / sum_i D^c_ij|, in [0, 2].

    D_ij: the cosine distance of the features at positions i and j, of n = SAMPLES spread evenly. Kolkin et
    al. 2019 (STROTSS, arXiv 1904.12785), the content loss. Differs from the paper: of each layer by itself,
    at fixed positions; times n, as in its code.
    """
    return jnp.mean(jnp.sum(jnp.abs(distance_shares(columns) - wanted.shares), 0))


CONTENT_LOSSES = {
    "l2": ContentLoss(_activations, _squares),
    "laplacian": ContentLoss(
        _activations_and_laplacian, _squares_and_laplacian, beside=(LAPLACIAN,), reach=2 * BOX
    ),
    "self_similarity": ContentLoss(_likeness, _samples, _unlikeness, local=False),
}


def _loss(spec: Spec) -> ContentLoss:
    return CONTENT_LOSSES[spec.content_loss]


def _at_layers(view: View) -> View:
    return view._replace(maps={layer: view.maps[layer] for layer in view.spec.content_layers})


def _losses(sums: dict[str, Array], wanted: Wanted, whole: Whole) -> dict[str, Array]:
    distance = _loss(whole.spec).distance
    return sums if distance is None else {term: distance(found, wanted[term]) for term, found in sums.items()}


CONTENT = Term(
    lambda view, wanted: _loss(view.spec).sums(_at_layers(view), wanted),
    _losses,
    weight=Weight("alpha, the weight of the content loss", 1.0),
    of_content=lambda view: _loss(view.spec).wanted(_at_layers(view)),
    names=lambda spec: _loss(spec).terms(spec.content_layers),
    layers=lambda spec: spec.content_layers,
    reach=lambda spec: Reach(image=_loss(spec).reach),
    linear=lambda spec: _loss(spec).distance is None,
    local=lambda spec: _loss(spec).local,
    places=("turned", "moved", "painted"),
)
