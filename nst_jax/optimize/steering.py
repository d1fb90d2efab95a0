"""Steering: during a run the weights follow a strength, so that it means as much for every pair of pictures.

Which weights leave how much of a photograph differs by a factor of 50 from pair to pair, and nothing at the
start tells it well. So it is measured. Every few steps the distance of the picture from the photograph is
compared with the one that is wanted, and the style's weight moved against the content's.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nst_jax.metrics import lpips
from nst_jax.networks.base import Params, features
from nst_jax.objective import sharding
from nst_jax.objective.objective import Background
from nst_jax.objective.weights import Dial
from nst_jax.optimize.loop import State, visible
from nst_jax.spec import Spec
from nst_jax.weights import load_lpips_heads, load_vgg

EVERY = 5  # steps between two corrections
SIDE = 256  # pixels: the longest side at which pictures are compared, so that it costs little at any size
TOLERANCE = 0.015  # of LPIPS: nearer than that nothing is corrected
GAIN = 0.85  # of the logarithm of the weights' ratio, by that of LPIPS's odds
MOST = 1.2  # of it, that is corrected at a time
CEILING = 0.7  # LPIPS that pictures without a photograph in them come near: the odds are of a share of it
LIMIT = 6.0  # of it, in all: beyond, one of the two weighs nothing
RAMP = 6.0  # steps in which the target nears its end by a factor of e, as the first steps go far


class Ruler(NamedTuple):
    """What pictures are measured with: the bundled VGG-16, LPIPS's weights, the photograph through both."""

    params: Any  # Params
    heads: Any  # by layer: (c,)
    photograph: Any  # by layer: (_, _, c)


@functools.cache
def _network() -> tuple[Params, dict[str, np.ndarray]]:
    return load_vgg("vgg16"), load_lpips_heads("vgg16", lpips.LAYERS)


def make_ruler(content: np.ndarray | None, spec: Spec) -> Ruler | None:
    """Return what pictures are measured with; None where no strength is in force."""
    if not spec.steered:
        return None
    params, heads = sharding.replicate(_network(), spec)
    return Ruler(params, heads, _maps(params, heads, sharding.replicate(content, spec)))


def ruler_shapes(content: np.ndarray | None, spec: Spec) -> Ruler | None:
    """Return the shapes, types and places of what make_ruler returns; nothing is computed."""
    if not spec.steered:
        return None
    network, number = _network(), sharding.replicate(np.float32(0), spec)
    shapes = Ruler(*network, jax.eval_shape(_maps, *network, content))
    place = number.sharding if spec.mesh else None
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)


@jax.jit
def _maps(params: Params, heads: dict[str, Array], image: Float[Array, "h w 3"]) -> dict[str, Array]:
    height, width, _ = image.shape
    share = min(1.0, max(SIDE / max(height, width), lpips.SMALLEST / min(height, width)))
    small = jax.image.resize(image, (round(share * height), round(share * width), 3), "linear")
    with jax.default_matmul_precision("highest"):
        return lpips.weighted(features(params, small, lpips.LAYERS), heads)


def _wanted(target: Float[Array, ""], first: Float[Array, ""], step: Int[Array, ""]) -> Float[Array, ""]:
    """Return the LPIPS wanted after so many steps: from the first picture's to the target, exponentially."""
    return target + (first - target) * jnp.exp(-step.astype(jnp.float32) / RAMP)


def _log_odds(distance: Float[Array, ""]) -> Float[Array, ""]:
    """Return log(x / (1 - x)) of LPIPS as a share of CEILING: near 0 and there it answers weights least."""
    share = jnp.clip(distance / CEILING, 0.01, 0.99)
    return jnp.log(share / (1 - share))


def at_target(log_ratio: float, target: float, other: float) -> float:
    """Return the logarithm of the weights' ratio for another target, by the odds that the corrections go by.

    Args:
        log_ratio: As it was found.
        target: The LPIPS for which it was found.
        other: The one that is wanted.
    """
    odds = _log_odds(jnp.float32(other)) - _log_odds(jnp.float32(target))
    return float(np.clip(log_ratio + GAIN * float(odds), -LIMIT, LIMIT))


def turn(
    state: State,
    frame: Background | None,
    ruler: Ruler,
    target: Float[Array, ""],
    before: Int[Array, ""] | np.int32,
    spec: Spec,
) -> State:
    """Return the state with its picture measured and, every few steps, its weights corrected.

    The picture of other weights is evaluated anew by the loop before its next step.

    Args:
        state: Of the loop, donated.
        frame: What lies around the masks. The picture is measured within them.
        ruler: What it is measured with.
        target: The LPIPS wanted at the end; not finite: nothing is corrected.
        before: Steps of the scales before.
        spec: What is static.
    """
    image = sharding.gather(visible(state, frame, spec), spec)
    seen = lpips.distance(_maps(ruler.params, ruler.heads, image), ruler.photograph)
    if frame is not None:
        seen /= jnp.maximum(sharding.gather(frame.opacity, spec).mean(), 1e-6)
    dial, iterate = state.dial, state.iterate
    assert dial is not None
    first = jnp.where(jnp.isnan(dial.first), seen, dial.first)
    step = before + state.step
    wanted = _wanted(target, first, step)
    error = wanted - seen
    log_ratio = dial.log_ratio + jnp.clip(GAIN * (_log_odds(wanted) - _log_odds(seen)), -MOST, MOST)
    log_ratio = jnp.clip(log_ratio, -LIMIT, LIMIT)
    due = ((step % EVERY == 0) & (step > 0)) | state.converged
    acts = due & state.finite & (jnp.abs(error) > TOLERANCE) & (log_ratio != dial.log_ratio)
    return state.replace(
        dial=Dial(log_ratio=jnp.where(acts, log_ratio, dial.log_ratio), first=first, seen=seen),
        iterate=iterate._replace(
            value=jnp.where(acts, jnp.inf, iterate.value), gradient=jnp.where(acts, 0, iterate.gradient)
        ),
        converged=state.converged & ~acts,
    )


steer = jax.jit(turn, static_argnames="spec", donate_argnames="state")


def piece(step: int, steps: int) -> int:
    """Return how many of the next steps are taken before the next correction."""
    return min(steps, EVERY - step % EVERY)
