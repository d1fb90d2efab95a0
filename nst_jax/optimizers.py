"""Optimisers of a picture that stays in [0, 1]: pairs of pure functions that run inside one compiled loop.

An optimiser owns its projection to [0, 1] and carries value and gradient of the projected picture along,
so nothing it remembers is stale and no picture is evaluated twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

Image = Float[Array, "h w 3"]


class Iterate(NamedTuple):
    """A picture in [0, 1], with the objective's value, gradient and unweighted terms at it.

    Of one that is not yet evaluated the value is infinite and the gradient 0: a step stays, and evaluates.
    """

    image: Image
    value: Float[Array, ""]
    gradient: Image
    terms: Any  # of the coefficients' structure


Evaluate = Callable[[Image], Iterate]


class Coordinates(NamedTuple):
    """Coordinates z of a picture x = scale(z), in which steps are taken; scale(g) of a gradient."""

    scale: Callable[[Image], Image]  # symmetric
    unscale: Callable[[Image], Image]


PIXELS = Coordinates(lambda image: image, lambda image: image)


class Optimizer(NamedTuple):
    """init(image) makes the memory; step(evaluate, learning_rate, iterate, memory, coordinates) a Step.

    Gradients come scaled to a norm of about 1 at the first picture, so that their squares fit into float32.
    A memory's count is that of the steps it has seen; nothing else in it changes where the gradient is 0.
    """

    init: Callable[[Image], Any]
    step: Callable[[Evaluate, Float[Array, ""], Iterate, Any, Coordinates], "Step"]
    # carry(memory, shape, factor) brings a memory to pictures of another shape, where gradients are scaled
    # `factor` times as much. None: a picture of another shape starts afresh.
    carry: Callable[[Any, tuple[int, ...], Float[Array, ""]], Any] | None = None


class Step(NamedTuple):
    """What a step came to."""

    iterate: Iterate
    memory: Any
    evaluations: Int[Array, ""]
    converged: Bool[Array, ""]  # no further step would find a lower value


# Adam: Kingma & Ba 2014 (arXiv 1412.6980), in the coordinates; then a projection to [0, 1].

_adam = optax.scale_by_adam()


def _adam_step(
    evaluate: Evaluate,
    learning_rate: Float[Array, ""],
    iterate: Iterate,
    memory: Any,
    coordinates: Coordinates,
) -> Step:
    direction, memory = _adam.update(coordinates.scale(iterate.gradient), memory)
    image = jnp.clip(iterate.image - learning_rate * coordinates.scale(direction), 0, 1)
    return Step(evaluate(image), memory, jnp.asarray(1, jnp.int32), jnp.asarray(False))


@partial(jax.jit, static_argnames="shape")
def _adam_carry(memory: Any, shape: tuple[int, ...], factor: Float[Array, ""]) -> Any:
    """Return the moments at another size; the count goes on, so that their bias stays corrected."""
    first = jax.image.resize(memory.mu, shape, "cubic")
    second = jax.image.resize(memory.nu, shape, "linear")  # which keeps it from falling below 0
    return memory._replace(mu=factor * first, nu=factor**2 * second)


# L-BFGS: Liu & Nocedal 1989 (two loops, in the coordinates), with a backtracking search for sufficient
# decrease along the projected arc t -> clip(x + t d) (Bertsekas 1976; Nocedal & Wright 1999, 3.1). So the
# pairs (s, y) it learns from are true differences between two pictures in the box; one with s.y <= 0 starts
# the memory anew.

_lbfgs = optax.scale_by_lbfgs(memory_size=10)
TRIALS = 20  # of step lengths, before the search gives up
SUFFICIENT = 1e-4  # share of the decrease promised by the slope
TINY = 1e-12  # less than the norm of any direction that is worth a step


class Trial(NamedTuple):
    """The last point that the search along the arc has tried."""

    iterate: Iterate
    accepted: Bool[Array, ""]
    trials: Int[Array, ""]
    length: Float[Array, ""]  # t of the next trial


def _lbfgs_step(
    evaluate: Evaluate,
    learning_rate: Float[Array, ""],
    iterate: Iterate,
    memory: Any,
    coordinates: Coordinates,
) -> Step:
    del learning_rate  # the search finds its own
    image, _, gradient, _ = iterate
    # The memory keeps the picture itself: a difference of two, and then its coordinates, loses no digits.
    moved, slope = image - memory.params, coordinates.scale(gradient)
    last, memory = jnp.linalg.norm(moved), memory._replace(params=jnp.zeros_like(image))
    moved = coordinates.unscale(moved)
    bent = ~_has_positive_curvature(memory, moved, slope)
    memory = _restart(memory, bent)
    fresh = memory.count == 0
    descent, memory = _lbfgs.update(slope, memory, moved)
    memory = memory._replace(params=image)
    direction = _feasible(image, -coordinates.scale(descent))
    steepest = _feasible(image, -gradient) / jnp.maximum(1, jnp.linalg.norm(gradient))
    direction = jnp.where(jnp.vdot(direction, gradient) < 0, direction, steepest)
    # Where the path bends down a longer step is worth a trial: without a pair nothing else tells how long.
    length = jnp.where(bent, jnp.maximum(1, 2 * last / jnp.maximum(TINY, jnp.linalg.norm(direction))), 1)

    # One evaluation in the body and none outside it, so that a batch of pictures costs one a trial as well.
    found = jax.lax.while_loop(
        lambda trial: ~trial.accepted & (trial.trials < TRIALS),
        partial(_try, evaluate, iterate, direction),
        Trial(iterate, jnp.asarray(False), jnp.asarray(0, jnp.int32), length),
    )
    # Stay where nothing lower was found, and forget; where there was nothing to forget, the value is as low
    # as float32 can tell, or not finite: then that is handed out, for the loop to end on.
    failed = ~found.accepted
    converged = failed & fresh & jnp.isfinite(found.iterate.value)
    stays = (failed & ~fresh) | converged
    kept = jax.tree.map(lambda new, old: jnp.where(stays, old, new), found.iterate, iterate)
    return Step(kept, _restart(memory, failed), found.trials, converged)


def _try(evaluate: Evaluate, start: Iterate, direction: Image, last: Trial) -> Trial:
    """Evaluate the next point of the arc; accept it where the value falls enough, else shorten the step."""
    moved = evaluate(jnp.clip(start.image + last.length * direction, 0, 1))
    slope = jnp.vdot(start.gradient, moved.image - start.image)  # of the path that the projection leaves
    accepted = (slope < 0) & (moved.value <= start.value + SUFFICIENT * slope)
    accepted |= jnp.isinf(start.value)  # which is no picture's: it is the first evaluation
    # To the minimum of the parabola through both values and the slope, within a tenth and a half.
    fitted = -slope / (2 * (moved.value - start.value - slope))
    shrink = jnp.where(jnp.isfinite(fitted), jnp.clip(fitted, 0.1, 0.5), 0.1)
    return Trial(moved, accepted, last.trials + 1, last.length * shrink)


def _has_positive_curvature(memory: Any, moved: Image, slope: Image) -> Bool[Array, ""]:
    """Tell whether the last step met s.y > 0: no positive definite matrix maps s to y otherwise."""
    curvature = jnp.vdot(slope - memory.updates, moved)
    return (curvature > 0) | (memory.count == 0)


def _restart(memory: Any, where: Bool[Array, ""]) -> Any:
    """Start the memory anew where asked."""
    # A pair of weight 0 is inert, and at count 0 no pair is formed: the rest may stay as it is.
    return memory._replace(
        count=jnp.where(where, 0, memory.count), weights_memory=jnp.where(where, 0.0, memory.weights_memory)
    )


def _feasible(image: Image, direction: Image) -> Image:
    """Drop the components that point out of the box where the picture is at its border."""
    outward = ((image <= 0) & (direction < 0)) | ((image >= 1) & (direction > 0))
    return jnp.where(outward, 0.0, direction)


OPTIMIZERS = {
    "lbfgs": Optimizer(_lbfgs.init, _lbfgs_step),
    "adam": Optimizer(_adam.init, _adam_step, _adam_carry),
}
