"""Parametrisations by name: coordinates z of a picture x = S z, S symmetric, in which optimisers take steps.

A picture is evaluated, and kept in [0, 1], as x. An optimiser of z sees S g for a gradient g, and moves x by
S d where its direction is d. For L-BFGS that is its update in pixels, with S S in place of the identity as
the first inverse Hessian. Pictures parametrised by their spectrum: Olah et al. 2017
("Feature visualization"). Differs from it: 1/f^1/2, not 1/f; the box is that of the pixels.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax import rows
from nst_jax.objective import Spec
from nst_jax.optimizers import PIXELS, Coordinates

MEAN = 4 * math.log(1 + math.sqrt(2))  # of 1/f over all frequencies: by it S has a mean square of 1


def _filtered(spec: Spec, power: float, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Return the picture with its frequencies f, in cycles a pixel, times (MEAN f)^power.

    The mean counts as the lowest frequency. In natural pictures amplitudes fall like 1/f: in such units
    large areas change as easily as small strokes.
    """
    own = jnp.asarray(
        rows.gather(image, spec)
    )  # whole on every device: three numbers a pixel, little beside the maps
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
    return rows.keep(jnp.pad(filtered, [(0, below), (0, 0), (0, 0)]), spec)


# Of a picture that is laid as the spec says.
PARAMETRIZATIONS: dict[str, Callable[[Spec], Coordinates]] = {
    "fourier": lambda spec: Coordinates(partial(_filtered, spec, -0.5), partial(_filtered, spec, -1.0)),
    "pixels": lambda spec: PIXELS,
}
