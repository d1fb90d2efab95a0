"""The compiled loop: the state of an optimization, its first one, and chunks of steps.

One program with one evaluation in it: the first picture is evaluated by the loop that takes the steps, so the
network is compiled once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import while_loop
from jaxtyping import Array, Bool, Float, Int

from nst_jax.networks.base import AnyArray, Params
from nst_jax.objective import objective, sharding, tiling
from nst_jax.objective.objective import Background, Targets, Terms, composite, seen
from nst_jax.objective.weights import Dial, LossWeights, coefficients, steered
from nst_jax.optimize.optimizers import OPTIMIZERS, Iterate
from nst_jax.optimize.parametrizations import PARAMETRIZATIONS
from nst_jax.pytrees import Pytree
from nst_jax.spec import Spec


class Inputs(Pytree):
    """What the loop runs on beside its state: other values of the same shapes never recompile."""

    params: Params
    targets: Targets
    weights: LossWeights
    learning_rate: Float[Array, ""]


class Average(Pytree):
    """The exponential average of the pictures after each step, its bias corrected.

    A_t = d A_(t-1) + (1 - d) x_t from A_0 = 0, divided by 1 - d^t; before the first step the first picture.
    """

    image: Float[Array, "h w 3"]
    decay: Float[Array, ""]  # d


class State(Pytree):
    """Everything the next step needs; donated to it."""

    iterate: Iterate
    memory: Any  # of the optimizer
    scale: Float[
        Array, ""
    ]  # of value and gradient: a power of two that makes the first gradient's norm about 1
    step: Int[Array, ""]
    evaluations: Int[Array, ""]
    finite: Bool[Array, ""]  # False: the last step met a number that is not finite and was not taken
    converged: Bool[Array, ""]
    average: Average | None = None
    dial: Dial | None = None  # where spec.steered


@jax.jit(static_argnames="spec")
def initial_state(
    image: Float[Array, "h w 3"], weights: LossWeights, spec: Spec, decay: Float[Array, ""] | None = None
) -> State:
    """Return the state of a picture that is not yet evaluated, which the next chunk does before its steps.

    Args:
        image: The first one, RGB in [0, 1].
        weights: Of the terms.
        spec: What is static.
        decay: Of the average over steps, from 0 to 1. None: there is no average.
    """
    terms = jax.tree.map(jnp.zeros_like, coefficients(weights))
    iterate = Iterate(image, jnp.float32(jnp.inf), jnp.zeros_like(image), terms)
    memory = OPTIMIZERS[spec.optimizer].init(image)
    unknown = jnp.float32(jnp.nan)
    state = State(
        iterate=iterate,
        memory=memory,
        scale=jnp.float32(1),
        step=jnp.int32(0),
        evaluations=jnp.int32(0),
        finite=jnp.asarray(True),
        converged=jnp.asarray(False),
        average=None if decay is None else Average(image=image, decay=decay),
        dial=Dial(log_ratio=jnp.float32(0), first=unknown, seen=unknown) if spec.steered else None,
    )
    return sharding.constrain(state, spec)


def start(
    image: Float[Array, "h w 3"],
    inputs: Inputs,
    spec: Spec,
    decay: Float[Array, ""] | None = None,
    dial: Dial | None = None,
) -> State:
    """Return the state at step 0, after one evaluation.

    Args:
        image: The first one, RGB in [0, 1].
        inputs: What the loop runs on.
        spec: What is static.
        decay: Of the average over steps, from 0 to 1. None: there is no average.
        dial: Of the scale before. None: the run begins.
    """
    state = initial_state(image, inputs.weights, spec, decay)
    if dial is not None:
        state = state.replace(dial=jax.tree.map(jnp.copy, dial))  # the chunk takes its buffers
    return run_chunk(state, np.int32(0), inputs, spec)


def _power_of_two(gradient: Float[Array, "h w 3"]) -> Float[Array, ""]:
    """Return the power of two, to bring the gradient's norm nearest to 1; 1 for norm 0."""
    largest = jnp.abs(gradient).max()
    usable = (largest > 0) & jnp.isfinite(largest)
    largest = jnp.where(usable, largest, 1.0)
    norm = jnp.linalg.norm(gradient / largest)  # of numbers whose squares fit into float32
    exponent = -jnp.round(jnp.log2(largest) + jnp.log2(jnp.where(usable, norm, 1.0)))
    return jnp.ldexp(jnp.float32(1), jnp.clip(exponent, -120, 120).astype(jnp.int32))


def run_steps(state: State, steps: Int[Array, ""] | np.int32, inputs: Inputs, spec: Spec) -> State:
    """Return the state after some steps, or at the last finite picture.

    Args:
        state: As start or the last chunk left it.
        steps: Traced: any number is one program.
        inputs: What the loop runs on.
        spec: What is static.
    """
    stop = state.step + steps
    coordinates = PARAMETRIZATIONS[spec.parametrization](spec)

    def advance(state: State) -> State:
        in_force = coefficients(steered(inputs.weights, state.dial))
        factors = jax.tree.map(lambda factor: state.scale * factor, in_force)
        step = OPTIMIZERS[spec.optimizer].step
        value_of = partial(evaluate, inputs.params, inputs.targets, factors, spec)
        found = step(value_of, inputs.learning_rate, state.iterate, state.memory, coordinates)
        iterate = found.iterate
        unevaluated = _is_unevaluated(state)  # without a gradient it has stayed where it is
        first = state.evaluations == 0
        factor = jax.lax.cond(first, _power_of_two, lambda gradient: jnp.float32(1), iterate.gradient)
        iterate = iterate._replace(value=factor * iterate.value, gradient=factor * iterate.gradient)
        finite = _is_finite(iterate)
        kept = jax.tree.map(
            lambda new, old: jnp.where(unevaluated | finite, new, old), iterate, state.iterate
        )
        moved = finite & ~found.converged & ~unevaluated
        count = state.step + moved.astype(jnp.int32)
        return state.replace(
            iterate=kept,
            memory=found.memory,
            scale=factor * state.scale,
            step=count,
            evaluations=state.evaluations + found.evaluations,
            finite=finite,
            converged=found.converged,
            average=state.average and _include(state.average, kept.image, count, moved),
        )

    def goes_on(state: State) -> Bool[Array, ""]:
        return ((state.step < stop) | _is_unevaluated(state)) & state.finite & ~state.converged

    return while_loop(goes_on, advance, state)


run_chunk = jax.jit(run_steps, static_argnames="spec", donate_argnames="state")


def _is_unevaluated(state: State) -> Bool[Array, ""]:
    return jnp.isinf(state.iterate.value) & state.finite


def evaluate(params: Params, targets: Targets, factors: Terms, spec: Spec, image: AnyArray) -> Iterate:
    """Return the picture with its total and gradient, made at once or by windows, as the spec has it.

    Args:
        params: The network.
        targets: What the picture is compared with (make_targets).
        factors: Coefficients of the terms (weights.coefficients).
        spec: What is static.
        image: As optimized, RGB in [0, 1].
    """
    how = tiling.evaluate if spec.tile else objective.evaluate
    return Iterate(jnp.asarray(image), *how(params, image, targets, factors, spec))


def _include(
    average: Average, image: Float[Array, "h w 3"], count: Int[Array, ""], moved: Bool[Array, ""]
) -> Average:
    """Return the average with the picture after `count` steps, if the last one was taken.

    A_t / (1 - d^t) is A_(t-1) / (1 - d^(t-1)) moved towards x_t by the share (1 - d) / (1 - d^t).
    """
    decayed = -jnp.expm1(count.astype(jnp.float32) * jnp.log(average.decay))
    share = jnp.where(moved, (1 - average.decay) / decayed, 0)
    return average.replace(image=jnp.clip(average.image + share * (image - average.image), 0, 1))


def _is_finite(iterate: Iterate) -> Bool[Array, ""]:
    """Tell whether value and gradient are finite, and the gradient's squares, which the optimizers take."""
    # At infinite squares Adam stands still, for good.
    return jnp.isfinite(iterate.value) & jnp.isfinite(jnp.vdot(iterate.gradient, iterate.gradient))


class Snapshot(Pytree):
    """What is told of a state."""

    image: Float[AnyArray, "h w 3"]  # as it is shown
    terms: Terms
    step: Int[AnyArray, ""]
    evaluations: Int[AnyArray, ""]
    finite: Bool[AnyArray, ""]
    converged: Bool[AnyArray, ""]
    opacity: Float[AnyArray, "h w"] | None  # of the regions
    dial: Dial | None


def visible(state: State, background: Background | None, spec: Spec) -> Float[AnyArray, "h w 3"]:
    """Return the picture that is shown of a state: the average where there is one, within its regions.

    Args:
        state: Of the loop.
        background: What lies around the masks. None: there are no masks.
        spec: What is static.
    """
    return composite(_newest(state), background, spec)


@jax.jit(static_argnames="spec")
def snapshot(state: State, background: Background | None, spec: Spec) -> Snapshot:
    """Return copies of what a caller may read of a state: the next chunk takes the state's own buffers.

    Args:
        state: Of the loop.
        background: What lies around the masks. None: there are no masks.
        spec: What is static.
    """
    return Snapshot(
        image=sharding.gather(visible(state, background, spec), spec),
        terms=state.iterate.terms,
        step=state.step,
        evaluations=state.evaluations,
        finite=state.finite,
        converged=state.converged,
        opacity=background and sharding.gather(background.opacity, spec),
        dial=state.dial,
    )


@jax.jit(static_argnames="spec")
def carried_picture(state: State, background: Background | None, spec: Spec) -> Float[AnyArray, "h w 3"]:
    """Return the picture as the losses see it, with which the next scale goes on.

    Args:
        state: Of the loop.
        background: What lies around the masks. None: there are no masks.
        spec: What is static.
    """
    return sharding.gather(seen(_newest(state), background, spec), spec)


def _newest(state: State) -> Float[Array, "h w 3"]:
    return state.average.image if state.average else state.iterate.image
