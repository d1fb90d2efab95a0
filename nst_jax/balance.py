"""Weights in units of a term's pull, so that one number means the same at any size and for any loss."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nst_jax import rows
from nst_jax.loop import start
from nst_jax.objective import Targets
from nst_jax.problem import Problem
from nst_jax.style import STYLE_LOSSES


def balanced(problem: Problem, targets: Targets) -> Problem:
    """Return the problem with each weight divided by its term's pull, where config.balance is auto.

    A term's pull is the norm of its gradient where it has not yet been heeded: of style and variation at the
    content, of content and matting at the content turned by 180 degrees, which has all of its features, in
    other places. Without a content picture all are at the first one. A pull of 0 divides nothing. The style's
    is then that of its StyleLoss. As the normalised gradients of Johnson's neural-style, but once, at the
    start, and of whole terms: so there is still one loss, which goes down.
    """
    if problem.config.balance == "none":
        return problem
    there = problem.background
    turned = np.ascontiguousarray(there[::-1, ::-1])
    places = {"content": turned, "matting": turned}
    weights, wanted = problem.weights, {"style": STYLE_LOSSES[problem.spec.style_loss].pull}
    for name in weights.terms:
        if float(getattr(weights, name)):
            pull = _pull(problem, targets, places.get(name, there), name) / wanted.get(name, 1.0)
            weights = weights._replace(**{name: getattr(weights, name) / pull})
    return problem._replace(weights=weights)


def _pull(problem: Problem, targets: Targets, picture: np.ndarray, name: str) -> Float[Array, ""]:
    """Return the norm of the gradient of one term alone, or 1 where that is 0."""
    weights = problem.weights
    alone = weights._replace(**{other: jnp.float32(other == name) for other in weights.terms})
    image = rows.put(rows.pad(picture, problem.spec), problem.spec)
    # The loop's own program, which is compiled in any case; its gradient is scaled to a norm of about 1.
    rest = targets, alone, problem.learning_rate, problem.spec, problem.decay
    state = start(problem.params, image, *rest)
    norm = jnp.linalg.norm(state.iterate.gradient) / state.scale
    return jnp.where(norm > 0, norm, 1)
