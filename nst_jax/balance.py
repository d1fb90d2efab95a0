"""Weights in units of a term's pull, so that one number means the same at any size and for any loss."""

import jax.numpy as jnp
import numpy as np

from nst_jax import images, rows
from nst_jax.loop import start
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.objective import Targets
from nst_jax.problem import Problem

MOVED = 3 / 4  # of the pull at the moved content, that counts: below it photographs are as they are
PAINTED = 1 / 8  # of the pull at the style


def balanced(problem: Problem, targets: Targets) -> Problem:
    """Return the problem with each weight divided by its term's pull, where config.balance is auto.

    A term's pull is the norm of its gradient where it has not yet been heeded: of style and variation at the
    content, of content and matting at the content turned by 180 degrees, which has all of its features, in
    other places. A content may be the same when turned, or plain: so the pull is at least MOVED times that at
    the content moved by half of its sides, of content and matting, and PAINTED times that at the first style,
    of these and variation. Without a content picture all are at the first one. A pull of 0 divides nothing.
    The style's is then that of its StyleLoss. As the normalised gradients of Johnson's neural-style, but
    once, at the start, and of whole terms: so there is still one loss, which goes down.
    """
    if problem.config.balance == "none":
        return problem
    weights, wanted = problem.weights, {"style": STYLE_LOSSES[problem.spec.style_loss].pull}
    places = _places(problem)
    for name in weights.terms:
        if float(getattr(weights, name)):
            pulls = [share * _pull(problem, targets, place, name) for share, place in places[name]]
            pull = (max(pulls) or 1.0) / wanted.get(name, 1.0)
            weights = weights._replace(**{name: getattr(weights, name) / pull})
    return problem._replace(weights=weights)


def _places(problem: Problem) -> dict[str, list[tuple[float, np.ndarray]]]:
    """Return by term the pictures at which it is asked for its pull, and the share of that which counts."""
    there = problem.background
    height, width, _ = there.shape
    moved = np.roll(there, (height // 2 | 1, width // 2 | 1), (0, 1))  # odd: a checkerboard, too, is another
    painted = PAINTED, images.resize(problem.styles[0], height, width)
    elsewhere = [(1.0, np.ascontiguousarray(there[::-1, ::-1])), (MOVED, moved), painted]
    return {
        "style": [(1.0, there)],
        "tv": [(1.0, there), painted],
        "content": elsewhere,
        "matting": elsewhere,
    }


def _pull(problem: Problem, targets: Targets, picture: np.ndarray, name: str) -> float:
    """Return the norm of the gradient of one term alone."""
    weights = problem.weights
    alone = weights._replace(**{other: jnp.float32(other == name) for other in weights.terms})
    image = rows.put(rows.pad(picture, problem.spec), problem.spec)
    # The loop's own program, which is compiled in any case; its gradient is scaled to a norm of about 1.
    rest = targets, alone, problem.learning_rate, problem.spec, problem.decay
    state = start(problem.params, image, *rest)
    return float(jnp.linalg.norm(state.iterate.gradient) / state.scale)
