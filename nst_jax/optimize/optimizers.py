"""Optimizers of a picture that stays in [0, 1]: pairs of pure functions that run inside one compiled loop.

An optimizer owns its projection to [0, 1] and carries value and gradient of the projected picture along,
so nothing it remembers is stale and no picture is evaluated twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import solve_triangular
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
    """Coordinates z of a picture x = S z, S symmetric, in which steps are taken."""

    # Of a picture, or of several side by side in their channels.
    scale: Callable[[Any], Any]  # S g, a gradient in z
    square: Callable[[Any], Any]  # S S g, that gradient as a step of x


PIXELS = Coordinates(lambda image: image, lambda image: image)


class Optimizer(NamedTuple):
    """An optimizer: pure functions that make its memory and take a step.

    init: (image) -> the memory.
    step: (evaluate, learning_rate, iterate, memory, coordinates) -> a Step.
    carry: (memory, shape, factor) -> the memory for pictures of another shape, whose gradients are scaled by
        `factor`. None: the next scale starts without memory.

    Gradients are scaled to a norm of about 1 at the first picture, so that their squares fit into float32.
    An iterate that is not yet evaluated does not enter the memory.
    """

    init: Callable[[Image], Any]
    step: Callable[[Evaluate, Float[Array, ""], Iterate, Any, Coordinates], "Step"]
    carry: Callable[[Any, tuple[int, ...], Float[Array, ""]], Any] | None = None


class Step(NamedTuple):
    """The result of a step: picture, memory, number of evaluations, and whether it converged."""

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
    stepped = jnp.isfinite(iterate.value)  # else the picture stays, and is evaluated
    direction, moments = _adam.update(coordinates.scale(iterate.gradient), memory)
    moments = jax.tree.map(lambda new, old: jnp.where(stepped, new, old), moments, memory)
    image = jnp.clip(iterate.image - learning_rate * coordinates.scale(direction), 0, 1)
    found = evaluate(jnp.where(stepped, image, iterate.image))
    return Step(found, moments, jnp.asarray(1, jnp.int32), jnp.asarray(False))


@partial(jax.jit, static_argnames="shape")
def _adam_carry(memory: Any, shape: tuple[int, ...], factor: Float[Array, ""]) -> Any:
    """Return the moments at another size; the count goes on, so that their bias stays corrected."""
    first = jax.image.resize(memory.mu, shape, "cubic")
    second = jax.image.resize(memory.nu, shape, "linear")  # which keeps it from falling below 0
    return memory._replace(mu=factor * first, nu=factor**2 * second)


# L-BFGS: Liu & Nocedal 1989, in the coordinates, with a backtracking search for sufficient decrease along the
# projected arc t -> clip(x + t d) (Bertsekas 1976; Nocedal & Wright 1999, 3.1). So the pairs (s, y) it learns
# from are true differences between two pictures in the box; one with s.y <= 0 starts the memory anew.
# The two loops over the pairs are taken as wholes, each with a triangular system, R u = S^T g for the first:
# four products with all pairs in place of forty with one. On a GPU each of those costs launches, and two
# loops took 0.5 ms of a step there, a third of an evaluation's time.

PAIRS = 10
TRIALS = 20  # of step lengths, before the search gives up
SUFFICIENT_DECREASE = 1e-4  # share of the decrease promised by the slope
TINY = 1e-12  # less than the norm of any direction that is worth a step
EXACT = jax.lax.Precision.HIGHEST  # of sums of float32, on devices that would round their factors


class Pairs(NamedTuple):
    """What L-BFGS remembers: pairs s = x' - x, y = g' - g of the last steps, in slots used in turn."""

    number: Int[Array, ""]  # of pairs since it was started; PAIRS of them are kept
    moves: Float[Array, "m h w 3"]  # s
    turns: Float[Array, "m h w 3"]  # y
    products: Float[Array, "m m"]  # s_i . y_j, s_i not the younger; the newest y's own until the next step
    leap: Float[Array, ""]  # |s| of a last step with s.y <= 0, else 0


def _lbfgs_init(image: Image) -> Pairs:
    pictures = jnp.zeros((PAIRS, *image.shape))
    return Pairs(jnp.int32(0), pictures, pictures, jnp.zeros((PAIRS, PAIRS)), jnp.float32(0))


def _remember(memory: Pairs, old: Iterate, new: Iterate) -> Pairs:
    """Return the memory after a step: with its pair, or anew where that has no curvature.

    A picture that was only evaluated makes no pair. At the end of the step, when nothing reads them any more,
    the pictures are written in place.
    """
    stepped = jnp.isfinite(old.value)
    slot = memory.number % PAIRS
    oldest = [jax.lax.dynamic_index_in_dim(pictures, slot, 0, keepdims=False) for pictures in memory[1:3]]
    move = jnp.where(stepped, new.image - old.image, oldest[0])
    turn = jnp.where(stepped, new.gradient - old.gradient, oldest[1])
    curvature = jnp.where(stepped, jnp.vdot(move, turn, precision=EXACT), memory.products[slot, slot])
    good = curvature > 0  # no positive definite matrix maps another s to y
    return Pairs(
        jnp.where(stepped, jnp.where(good, memory.number + 1, 0), memory.number),
        jax.lax.dynamic_update_index_in_dim(memory.moves, move, slot, 0),
        jax.lax.dynamic_update_index_in_dim(memory.turns, turn, slot, 0),
        memory.products.at[slot, slot].set(curvature),
        jnp.where(stepped, jnp.where(good, 0, jnp.linalg.norm(move)), memory.leap),
    )


def _descent(memory: Pairs, gradient: Image, coordinates: Coordinates) -> tuple[Image, Pairs]:
    """Return -H g, H the inverse Hessian that the pairs make of c B, and the memory with all products.

    R u = S^T g, q = g - Y u, r = c B q. R^T v = D u - Y^T r, H g = r + S v.

    R: the upper triangle of S^T Y; D: its diagonal. B = S S, that of the coordinates. c = s.y / y.B y of the
    youngest pair; without a pair min(1, 1 / |S g|). Nocedal & Wright 1999, algorithm 7.4, with each loop as a
    whole. One thing follows from the other: over processes, exchanges that do not wait for each other have
    been seen to deadlock.
    """
    count, slot = jnp.minimum(memory.number, PAIRS), (memory.number - 1) % PAIRS
    order = (memory.number + jnp.arange(PAIRS)) % PAIRS  # the oldest first
    used = jnp.arange(PAIRS) >= PAIRS - count
    turn = jax.lax.dynamic_index_in_dim(memory.turns, slot, 0, keepdims=False)
    curvature = memory.products[slot, slot]
    column = _along(memory.moves, turn).at[slot].set(curvature)
    memory = memory._replace(products=memory.products.at[:, slot].set(column))
    upper = jnp.where(
        used[:, None] & used[None, :], jnp.triu(memory.products[order][:, order]), jnp.eye(PAIRS)
    )

    def by_slot(factors: Float[Array, " m"]) -> Float[Array, " m"]:
        return jnp.zeros(PAIRS).at[order].set(jnp.where(used, factors, 0))

    inner = solve_triangular(upper, jnp.where(used, _along(memory.moves, gradient)[order], 0))
    left = gradient - _combined(by_slot(inner), memory.turns)
    squares = coordinates.square(jnp.concatenate([left, turn], -1))  # six channels at once
    slope, bend = squares[..., :3], squares[..., 3:]
    steepest = jnp.minimum(1, 1 / jnp.sqrt(jnp.vdot(gradient, slope, precision=EXACT)))
    bending = jnp.vdot(turn, bend, precision=EXACT)
    scale = jnp.where(count > 0, curvature / jnp.where(bending > 0, bending, 1), steepest)
    moved = scale * slope
    outer = jnp.where(used, jnp.diag(upper) * inner - _along(memory.turns, moved)[order], 0)
    last = solve_triangular(upper, outer, trans="T")
    return -moved - _combined(by_slot(last), memory.moves), memory


def _along(pictures: Float[Array, "m h w 3"], image: Image) -> Float[Array, " m"]:
    """Return the inner product of each of some pictures with an image."""
    return jnp.tensordot(pictures, image, 3, precision=EXACT)


def _combined(factors: Float[Array, " m"], pictures: Float[Array, "m h w 3"]) -> Image:
    """Return the sum of factor times picture."""
    return jnp.tensordot(factors, pictures, 1, precision=EXACT)


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
    direction, memory = _descent(memory, gradient, coordinates)
    direction = _feasible(image, direction)
    steepest = _feasible(image, -gradient) / jnp.maximum(1, jnp.linalg.norm(gradient))
    direction = jnp.where(jnp.vdot(direction, gradient) < 0, direction, steepest)
    # Where the path bends down a longer step is worth a trial: without a pair nothing else tells how long.
    length = jnp.maximum(1, 2 * memory.leap / jnp.maximum(TINY, jnp.linalg.norm(direction)))

    # One evaluation in the body and none outside it, so that a batch of pictures costs one a trial as well.
    found = jax.lax.while_loop(
        lambda trial: ~trial.accepted & (trial.trials < TRIALS),
        partial(_try, evaluate, iterate, direction),
        Trial(iterate, jnp.asarray(False), jnp.asarray(0, jnp.int32), length),
    )
    # Stay where nothing lower was found, and forget; where there was nothing to forget, the value is as low
    # as float32 can tell, or not finite: then that is handed out, for the loop to end on.
    failed = ~found.accepted
    fresh = memory.number == 0
    converged = failed & fresh & jnp.isfinite(found.iterate.value)
    stays = (failed & ~fresh) | converged
    kept = jax.tree.map(lambda new, old: jnp.where(stays, old, new), found.iterate, iterate)
    return Step(kept, _remember(memory, iterate, kept), found.trials, converged)


def _try(evaluate: Evaluate, start: Iterate, direction: Image, last: Trial) -> Trial:
    """Evaluate the next point of the arc; accept it where the value falls enough, else shorten the step."""
    moved = evaluate(jnp.clip(start.image + last.length * direction, 0, 1))
    slope = jnp.vdot(start.gradient, moved.image - start.image)  # of the path that the projection leaves
    accepted = (slope < 0) & (moved.value <= start.value + SUFFICIENT_DECREASE * slope)
    accepted |= jnp.isinf(start.value)  # which is no picture's: it is the first evaluation
    # To the minimum of the parabola through both values and the slope, within a tenth and a half.
    fitted = -slope / (2 * (moved.value - start.value - slope))
    shrink = jnp.where(jnp.isfinite(fitted), jnp.clip(fitted, 0.1, 0.5), 0.1)
    return Trial(moved, accepted, last.trials + 1, last.length * shrink)


def _feasible(image: Image, direction: Image) -> Image:
    """Drop the components that point out of the box where the picture is at its border."""
    outward = ((image <= 0) & (direction < 0)) | ((image >= 1) & (direction > 0))
    return jnp.where(outward, 0.0, direction)


OPTIMIZERS = {
    "lbfgs": Optimizer(_lbfgs_init, _lbfgs_step),
    "adam": Optimizer(_adam.init, _adam_step, _adam_carry),
}
