"""Optimisers of a picture that stays in [0, 1]: pairs of pure functions that run inside one compiled loop.

An optimiser owns its projection to [0, 1] and carries value and gradient of the projected picture along,
so nothing it remembers is stale and no picture is evaluated twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

Image = Float[Array, "h w 3"]
Objective = Callable[[Image, Any], Float[Array, ""]]  # of a picture and the coefficients, linear in these


class Iterate(NamedTuple):
    """A picture in [0, 1], with the objective's value, gradient and unweighted terms at it."""

    image: Image
    value: Float[Array, ""]
    gradient: Image
    terms: Any  # of the coefficients' structure


class Optimizer(NamedTuple):
    """init(image) makes the memory; step(objective, coefficients, learning_rate, iterate, memory) a Step.

    Gradients come scaled to a norm of about 1 at the first picture, so that their squares fit into float32.
    """

    init: Callable[[Image], Any]
    step: Callable[[Objective, Any, Float[Array, ""], Iterate, Any], "Step"]


class Step(NamedTuple):
    """What a step came to."""

    iterate: Iterate
    memory: Any
    evaluations: Int[Array, ""]
    converged: Bool[Array, ""]  # no further step would find a lower value


def evaluate(objective: Objective, coefficients: Any, image: Image) -> Iterate:
    """Return the iterate at image. The total is linear in its coefficients: their gradient is the terms."""
    value, (gradient, terms) = jax.value_and_grad(objective, argnums=(0, 1))(image, coefficients)
    return Iterate(image, value, gradient, terms)


# Adam: Kingma & Ba 2014 (arXiv 1412.6980), then a projection to [0, 1].

_adam = optax.scale_by_adam()


def _adam_step(
    objective: Objective, coefficients: Any, learning_rate: Float[Array, ""], iterate: Iterate, memory: Any
) -> Step:
    direction, memory = _adam.update(iterate.gradient, memory)
    image = jnp.clip(iterate.image - learning_rate * direction, 0, 1)
    moved = evaluate(objective, coefficients, image)
    return Step(moved, memory, jnp.asarray(1, jnp.int32), jnp.asarray(False))


# L-BFGS: Liu & Nocedal 1989, zoom line search of Nocedal & Wright 1999 (3.5, 3.6), in the box [0, 1].
# Differs from the papers: the search runs along the projected arc t -> clip(x + t d), so the pairs
# (s, y) it learns from are true differences between two pictures in the box.

_lbfgs = optax.scale_by_lbfgs(memory_size=10)
_search = optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


def _lbfgs_step(
    objective: Objective, coefficients: Any, learning_rate: Float[Array, ""], iterate: Iterate, memory: Any
) -> Step:
    del learning_rate  # the line search finds its own
    image, value, gradient, terms = iterate
    memory = _restart(memory, ~_has_positive_curvature(memory, image, gradient))
    fresh = memory.count == 0
    descent, memory = _lbfgs.update(gradient, memory, image)
    direction = _feasible(image, -descent)
    steepest = _feasible(image, -gradient) / jnp.maximum(1, jnp.linalg.norm(gradient))
    direction = jnp.where(jnp.vdot(direction, gradient) < 0, direction, steepest)

    # The coefficients travel through the search unmoved, so that its gradient brings the terms along.
    point = (image, coefficients)
    moves, found = _search.update(
        (direction, jax.tree.map(jnp.zeros_like, coefficients)),
        _search.init(point),
        point,
        value=value,
        grad=(gradient, terms),
        value_fn=lambda at: objective(_project(at[0]), at[1]),
    )
    new_gradient, new_terms = found.grad
    moved = Iterate(_project(image + moves[0]), found.value, new_gradient, new_terms)

    # optax's search hands out its last trial where it finds no descent. Stay, and forget; where there was
    # nothing to forget, the value is as low as float32 can tell.
    good = (found.value <= value + 1e-6 * jnp.abs(value)) & (moved.image != image).any()
    failed = ~good & jnp.isfinite(found.value)
    kept = jax.tree.map(lambda new, old: jnp.where(failed, old, new), moved, iterate)
    return Step(kept, _restart(memory, failed), found.info.num_linesearch_steps, failed & fresh)


def _has_positive_curvature(memory: Any, image: Image, gradient: Image) -> Bool[Array, ""]:
    """Tell whether the last step met s.y > 0: no positive definite matrix maps s to y otherwise."""
    curvature = jnp.vdot(gradient - memory.updates, image - memory.params)
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


@jax.custom_vjp
def _project(image: Image) -> Image:
    """Clip to [0, 1]; its backward pass hands the gradient at the clipped picture on unmasked.

    That is what L-BFGS must remember of the new picture, of the components held at the border too.
    """
    return jnp.clip(image, 0, 1)


_project.defvjp(lambda image: (_project(image), None), lambda _, cotangent: (cotangent,))


OPTIMIZERS = {
    "lbfgs": Optimizer(_lbfgs.init, _lbfgs_step),
    "adam": Optimizer(_adam.init, _adam_step),
}
