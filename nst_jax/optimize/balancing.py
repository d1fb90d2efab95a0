"""Weights in units of a term's pull, so that one number means the same at any size and for any loss."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nst_jax import images
from nst_jax.losses import TERMS
from nst_jax.networks.base import AnyArray
from nst_jax.objective import sharding
from nst_jax.objective.objective import in_order
from nst_jax.objective.weights import LossWeights, coefficients, in_pulls
from nst_jax.optimize.loop import Inputs, evaluate, start
from nst_jax.spec import Spec

MOVED = 3 / 4  # of the pull at the moved content, that counts: below it photographs are as they are
PAINTED = 1 / 8  # of the pull at the style


def balanced(
    inputs: Inputs,
    spec: Spec,
    background: np.ndarray,
    painting: np.ndarray,
    decay: Float[Array, ""] | None = None,
) -> LossWeights:
    """Return the weights of the inputs, each divided by its term's pull.

    A term's pull is the norm of its gradient at a picture that does not yet heed the term. For style and
    variation that is the content. For content and matting it is the content turned by 180 degrees, which has
    all of its features in other places. A content may be the same when turned, or plain. So there are two
    lower bounds. For content and matting it is MOVED times the pull at the content moved by half of its
    sides. For these and variation it is PAINTED times the pull at the first style. Without a content picture
    all pulls are at the first picture. A pull of 0 divides nothing. Each Term names its places, and the
    gradient_ratio that a weight of 1 stands for. Johnson's neural-style normalizes gradients, too, but in
    every step. Here it is done once, for whole terms, so there is still one loss, which goes down.

    Args:
        inputs: Of the loop, with the weights that were asked for.
        spec: What is static.
        background: The content, or without one the first picture.
        painting: The first style.
        decay: Of the loop's average: with it the program is another.
    """
    weights, places, pulls = inputs.weights, _places(background, painting), {}
    for name in in_order(weights.terms):
        if float(weights.terms[name]):
            at = [places[place] for place in TERMS[name].places]
            pulls[name] = max(share * _pull(inputs, spec, picture, name, decay) for share, picture in at)
    return in_pulls(weights, pulls, spec)


def _places(background: np.ndarray, painting: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Return by name the pictures at which terms are asked for their pulls, and the share that counts."""
    height, width, _ = background.shape
    moved = np.roll(background, (height // 2 | 1, width // 2 | 1), (0, 1))  # odd: a checkerboard is another
    return {
        "content": (1.0, background),
        "turned": (1.0, np.ascontiguousarray(background[::-1, ::-1])),
        "moved": (MOVED, moved),
        "painted": (PAINTED, images.resize(painting, height, width)),
    }


def _pull(
    inputs: Inputs, spec: Spec, picture: np.ndarray, name: str, decay: Float[Array, ""] | None
) -> float:
    """Return the norm of the gradient of one term alone."""
    weights, image = inputs.weights, sharding.shard(sharding.pad(picture, spec), spec)
    if not TERMS[name].layers(spec):
        # A program without the network, which is compiled and run in no time.
        parts = {term: part for term, part in weights.parts.items() if term == name}
        alone = weights.replace(terms={name: jnp.float32(1)}, parts=parts)
        gradient = _gradient(inputs.replace(weights=alone), spec._replace(terms=(name,)), image)
        return float(jnp.linalg.norm(gradient))
    alone = weights.replace(terms={other: jnp.float32(other == name) for other in weights.terms})
    # The loop's own program, which is compiled in any case; its gradient is scaled to a norm of about 1.
    state = start(image, inputs.replace(weights=alone), spec, decay)
    return float(jnp.linalg.norm(state.iterate.gradient) / state.scale)


@jax.jit(static_argnames="spec")
def _gradient(inputs: Inputs, spec: Spec, image: Float[AnyArray, "h w 3"]) -> Float[Array, "h w 3"]:
    """Return the gradient of the terms in spec.

    Its norm is no part of this program. XLA:CPU of jaxlib 0.10.2 leaves sums to a library (YNNPACK), which
    reads memory that nobody has written where a sum is over differences of what it pads itself.
    """
    factors = coefficients(inputs.weights)
    return evaluate(inputs.params, inputs.targets, factors, spec, image).gradient
