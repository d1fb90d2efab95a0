"""The total variation: how much a picture changes from pixel to pixel."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses.base import Reach, Term, View, Weight
from nst_jax.networks.base import AnyArray


def total_variation(
    image: Float[AnyArray, "h w 3"],
    power: Float[Array, ""],
    weights: Float[Array, "h w"] | None = None,
) -> Float[Array, ""]:
    """Return sum (dx^2 + dy^2)^(p/2) over the top-left (h-1) x (w-1) corner and channels, in 0..255 units.

    dx, dy: differences to the right and lower neighbor. The published tutorial code; p = 2.5 there.

    Args:
        image: RGB in [0, 1].
        power: p.
        weights: Of the pixels. None: 1.
    """
    pixels = 255 * image
    corner = pixels[:-1, :-1]
    squares = (pixels[:-1, 1:] - corner) ** 2 + (pixels[1:, :-1] - corner) ** 2
    flat = squares == 0  # a root's slope at 0 is infinite; the term's own, as a minimum, is taken as 0
    if weights is not None:
        weights = weights[:-1, :-1, None]
        flat |= weights == 0
    # Not **: its slope takes a power of its own, where that of exp takes the value again.
    powers = jnp.exp(power / 2 * jnp.log(jnp.where(flat, 1.0, squares)))
    found = jnp.where(flat, 0.0, powers)
    return jnp.sum(found if weights is None else weights * found)


def _sums(view: View, wanted: object) -> Float[Array, ""]:
    return total_variation(view.image, view.numbers["tv_power"], view.weights(below=1))


VARIATION = Term(
    _sums,
    weight=Weight("gamma, the weight of the total variation", 1e-3, 0.07),
    reach=lambda spec: Reach(image=1),
    linear=lambda spec: True,
    numbers=(("tv_power", 2.5),),
)
