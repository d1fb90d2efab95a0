"""Weights in units of a term's pull, so that one number means the same at any size and for any loss."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nst_jax import images, sharding
from nst_jax.loop import evaluate, start
from nst_jax.losses import TERMS
from nst_jax.networks.base import AnyArray, Params
from nst_jax.objective import Spec, Targets, Terms, coefficients, in_order
from nst_jax.problem import Problem

MOVED = 3 / 4  # of the pull at the moved content, that counts: below it photographs are as they are
PAINTED = 1 / 8  # of the pull at the style


def balanced(problem: Problem, targets: Targets) -> Problem:
    """Return the problem with each weight divided by its term's pull, where config.loss_balancing is auto.

    A term's pull is the norm of its gradient at a picture that does not yet heed the term. For style and
    variation that is the content. For content and matting it is the content turned by 180 degrees, which has
    all of its features in other places. A content may be the same when turned, or plain. So there are two
    lower bounds. For content and matting it is MOVED times the pull at the content moved by half of its
    sides. For these and variation it is PAINTED times the pull at the first style. Without a content picture
    all pulls are at the first picture. A pull of 0 divides nothing. Each Term names its places, and the
    gradient_ratio that a weight of 1 stands for. Johnson's neural-style normalizes gradients, too, but in
    every step. Here it is done once, for whole terms, so there is still one loss, which goes down.
    """
    if problem.config.loss_balancing == "none":
        return problem
    weights, places = dict(problem.weights.terms), _places(problem)
    for name in in_order(weights):
        if float(weights[name]):
            term = TERMS[name]
            at = [places[place] for place in term.places]
            pulls = [share * _pull(problem, targets, picture, name) for share, picture in at]
            weights[name] = weights[name] / ((max(pulls) or 1.0) / term.gradient_ratio(problem.spec))
    return problem._replace(weights=problem.weights._replace(terms=weights))


def _places(problem: Problem) -> dict[str, tuple[float, np.ndarray]]:
    """Return by name the pictures at which terms are asked for their pulls, and the share that counts."""
    there = problem.background
    height, width, _ = there.shape
    moved = np.roll(there, (height // 2 | 1, width // 2 | 1), (0, 1))  # odd: a checkerboard, too, is another
    return {
        "content": (1.0, there),
        "turned": (1.0, np.ascontiguousarray(there[::-1, ::-1])),
        "moved": (MOVED, moved),
        "painted": (PAINTED, images.resize(problem.styles[0], height, width)),
    }


def _pull(problem: Problem, targets: Targets, picture: np.ndarray, name: str) -> float:
    """Return the norm of the gradient of one term alone."""
    params, weights, spec = problem.params, problem.weights, problem.spec
    image = sharding.shard(sharding.pad(picture, spec), spec)
    if not TERMS[name].layers(spec):
        # A program without the network, which is compiled and run in no time.
        parts = {term: part for term, part in weights.parts.items() if term == name}
        alone = weights._replace(terms={name: jnp.float32(1)}, parts=parts)
        return float(_norm(params, image, targets, coefficients(alone), spec._replace(terms=(name,))))
    alone = weights._replace(terms={other: jnp.float32(other == name) for other in weights.terms})
    # The loop's own program, which is compiled in any case; its gradient is scaled to a norm of about 1.
    state = start(params, image, targets, alone, problem.learning_rate, spec, problem.decay)
    return float(jnp.linalg.norm(state.iterate.gradient) / state.scale)


@jax.jit(static_argnames="spec")
def _norm(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, factors: Terms, spec: Spec
) -> Float[Array, ""]:
    """Return the norm of the gradient of the terms in spec."""
    return jnp.linalg.norm(evaluate(params, targets, factors, spec, image).gradient)
