"""Parametrizations by name: coordinates z of a picture x = S z, S symmetric, in which optimizers take steps.

A picture is evaluated, and kept in [0, 1], as x. An optimizer of z sees S g for a gradient g, and moves x by
S d where its direction is d. For L-BFGS that is its update in pixels, with S S in place of the identity as
the first inverse Hessian. Pictures parametrized by their spectrum: Olah et al. 2017
("Feature visualization"), and its decorrelated colors. Differs from it: 1/f^1/2, not 1/f; one axis of
lightness and all of color alike; the box is that of the pixels.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.objective import sharding
from nst_jax.optimize.optimizers import PIXELS, Coordinates
from nst_jax.spec import Spec

MEAN = 4 * math.log(1 + math.sqrt(2))  # of 1/f over all frequencies: by it S has a mean square of 1
LIGHT = 3.0  # how much farther a step goes in lightness than in color; in natural pictures some 4 times


def _filtered(spec: Spec, power: float, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Return the picture with its frequencies f, in cycles a pixel, times (MEAN f)^power.

    The mean counts as the lowest frequency. In natural pictures amplitudes fall like 1/f: in such units
    large areas change as easily as small strokes.
    """
    # Whole on every device: three numbers a pixel are little beside the maps.
    own = jnp.asarray(sharding.gather(image, spec))
    height, width, _ = own.shape
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width)[None])
    gain = ((MEAN * jnp.maximum(frequency, 1 / max(height, width))) ** power).astype(jnp.complex64)

    def filter(plane: Float[Array, "h w"]) -> Float[Array, "h w"]:
        return jnp.fft.irfft2(jnp.fft.rfft2(plane) * gain, s=(height, width))

    if spec.mesh:  # one channel at a time: XLA:CPU may lay three at once so that its FFT refuses them
        filtered = jnp.stack([filter(own[..., channel]) for channel in range(own.shape[2])], -1)
    else:
        filtered = jax.vmap(filter, in_axes=2, out_axes=2)(own)
    below = image.shape[0] - height
    return sharding.constrain(jnp.pad(filtered, [(0, below), (0, 0), (0, 0)]), spec)


def _decorrelated(spec: Spec, power: float, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Return the filtered picture, lightness times a^(-2 power) and what departs from it times b^(-2 power).

    Lightness: the mean of red, green and blue. a = LIGHT b, a^2 + 2 b^2 = 3: S has a mean square of 1. In
    natural pictures color varies less than lightness; where both move alike, specks of color come first.
    """
    color = math.sqrt(3 / (LIGHT**2 + 2))
    filtered = _filtered(spec, power, image)
    pictures = filtered.reshape(*image.shape[:2], -1, 3)
    light = pictures.mean(-1, keepdims=True)
    a, b = ((gain * color) ** (-2 * power) for gain in (LIGHT, 1.0))
    return sharding.constrain((a * light + b * (pictures - light)).reshape(image.shape), spec)


# Of a picture that is laid as the spec says.
PARAMETRIZATIONS: dict[str, Callable[[Spec], Coordinates]] = {
    "fourier": lambda spec: Coordinates(partial(_filtered, spec, -0.5), partial(_filtered, spec, -1.0)),
    "natural": lambda spec: Coordinates(
        partial(_decorrelated, spec, -0.5), partial(_decorrelated, spec, -1.0)
    ),
    "pixels": lambda spec: PIXELS,
}
