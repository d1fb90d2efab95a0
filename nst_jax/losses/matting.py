"""The matting Laplacian: how far a picture is, around each pixel, from an affine map of a guide's colors."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.base import Reach, Term, View, Weight
from nst_jax.networks.base import AnyArray

EPSILON = 1e-7  # of colors in [0, 1], as in Levin's code
ROUNDING = 1e-6  # of a diagonal entry: a pivot below it is float32's rounding, and there is no such color

Plane = Float[Array, "_ _"]
Window = list[Plane]  # one channel: a plane for each place in the windows


def matting_loss(
    image: Float[AnyArray, "h w 3"],
    guide: Float[AnyArray, "h w 3"],
    weights: Float[Array, "h w"] | None = None,
) -> Float[Array, ""]:
    """Return sum_c x_c^T L x_c, L the matting Laplacian of the guide I; its slope with respect to x alone.

    x_c^T L x_c = sum_w min_(a, b) sum_(i in w) (x_ic - a.I_i - b)^2 + EPSILON |a|^2, over all windows w of
    3 x 3 pixels. Levin et al. 2008 (A closed-form solution to
    natural image matting, IEEE TPAMI 30), eq. 12; as a loss Luan et al. 2017 (arXiv 1703.07511), eq. 2.

    Args:
        image: x, RGB in [0, 1].
        guide: I, of its shape.
        weights: Of the windows, by their middle. None: 1.
    """
    inside = (jnp.ones(image.shape[:2]) if weights is None else weights)[1:-1, 1:-1]
    ours, theirs = _centered(image), _centered(guide)
    found = []
    for x, a in zip(ours, _slopes(theirs, ours), strict=True):
        rest = [value - _dot(a, color) for value, *color in zip(x, *theirs, strict=True)]
        found.append(jnp.sum(inside * (_dot(rest, rest) + EPSILON * _dot(a, a))))
    return jnp.sum(jnp.stack(found))


def _centered(image: Float[AnyArray, "h w 3"]) -> list[Window]:
    """Return by channel and place in the windows the values less the window's mean: else float32 cancels."""
    pixels, (height, width, _) = jnp.asarray(image), image.shape
    found = []
    for c in range(3):
        values = [pixels[i : height - 2 + i, j : width - 2 + j, c] for i in range(3) for j in range(3)]
        mean = _sum(values) / 9
        found.append([value - mean for value in values])
    return found


def _slopes(theirs: list[Window], ours: list[Window]) -> list[list[Plane]]:
    """Return the a of the minimum, by our channels: (M + EPSILON 1) a = m, M = sum I I^T, m = sum x I.

    By elimination. A row whose pivot is rounding is 0, and so is its a: else, where the guide is gray, noise
    would be divided by EPSILON. At a minimum the cost has no slope with respect to a, so nothing is taken
    back through it.
    """
    rows = [[_dot(one, other) for other in (*theirs, *ours)] for one in theirs]
    least = [ROUNDING * row[k] for k, row in enumerate(rows)]
    for k, row in enumerate(rows):
        row[:] = [jnp.where(row[k] > least[k], x, 0) for x in row]
        row[k] += EPSILON
        for other in rows[:k] + rows[k + 1 :]:
            share = other[k] / row[k]
            other[:] = [x - share * y for x, y in zip(other, row, strict=True)]
    return [[jax.lax.stop_gradient(row[c] / row[k]) for k, row in enumerate(rows)] for c in range(3, 6)]


def _dot(one: Sequence[Plane], other: Sequence[Plane]) -> Plane:
    return _sum([x * y for x, y in zip(one, other, strict=True)])


def _sum(planes: Sequence[Plane]) -> Plane:
    return sum(planes[1:], planes[0])


def _sums(view: View, wanted: dict[str, Array]) -> Float[Array, ""]:
    return matting_loss(view.image, wanted["guide"], view.weights(below=1))


MATTING = Term(
    _sums,
    weight=Weight("lambda, the weight of the matting Laplacian; photorealistic only", 1e7, 100.0),
    of_content=lambda view: {"guide": view.image},
    reach=lambda spec: Reach(image=1),
    linear=lambda spec: True,
    local=lambda spec: True,
    when="photorealistic",
    places=("turned", "moved", "painted"),
)
