"""The frames of one shot as pictures: the first as nst makes it, each further one from those before.

    shot = Shot(params, pictures, config, Steps(10, 1.0))
    first = shot.begin()
    second = shot.follow(frame, known, known_content)

All further frames run in one compiled program: what earlier frames show is an array among the targets.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt16

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images import color
from nst_jax.images import masks as masking
from nst_jax.images.masks import Masks
from nst_jax.losses import TERMS
from nst_jax.networks.base import Params
from nst_jax.objective.objective import Targets
from nst_jax.objective.targets import make_background, with_content
from nst_jax.objective.weights import Dial, LossWeights, steered
from nst_jax.optimize import steering
from nst_jax.optimize.loop import carried_picture
from nst_jax.runs.input_files import Pictures
from nst_jax.runs.memory_plan import make_plans
from nst_jax.runs.problem import Problem, finish
from nst_jax.runs.pyramid import make_problems, settled
from nst_jax.runs.transfer import Progress, run
from nst_jax.spec import Spec
from nst_jax.video.flow import Before

Image = Float32[np.ndarray, "h w 3"]
Stored = UInt16[np.ndarray, "h w 3"]
LEVELS = 65535  # of a stored picture
TERM = "temporal"


class Steps(NamedTuple):
    """How the frames after the first are made."""

    each: int
    weight: float = 1.0  # of the temporal term, times its default
    anchor: bool = True  # whether their colors are held
    tolerance: float = 0.0  # the share of the loss by which a step has to lower it, or is the last


class Made(NamedTuple):
    """A frame that is made."""

    picture: Stored  # as the losses see it, from which the next one begins
    shown: Stored | None  # None: the same
    log_ratio: float  # of the strength's dial; NaN: there is none
    steps: int
    losses: dict[str, Any]

    @property
    def image(self) -> Image:
        """The picture in [0, 1], from which the next one begins."""
        return unstored(self.picture)


class Shot:
    """Frames that show one scene."""

    def __init__(
        self,
        params: Params,
        pictures: Pictures,
        config: Config,
        steps: Steps,
        free_memory: int | None = None,
        earlier: "Shot | None" = None,
    ):
        """Plan a shot whose first frame is the content of pictures. Raises InputError, NotEnoughMemory.

        The config's own choice of scales is settled for this frame.

        Args:
            params: The network.
            pictures: The first frame, the paintings and masks.
            config: The options.
            steps: How further frames are made.
            free_memory: Bytes. None: not known.
            earlier: A shot before, whose paintings are not looked at again where they are the same.
        """
        content, styles, init, masks = pictures
        self.acting, laid = _opening(masks, config.spec())
        self.config = settled(config, content, styles, init, laid)
        problems = make_problems(params, content, styles, self.config, init, laid)
        self.style_mix = problems[-1].weights.style_mix
        *smaller, last = [_with_mix(problem, self.acting) for problem in problems]
        default = TERMS[TERM].weight
        weight = default.balanced if config.loss_balancing == "auto" else default.default
        last = last.with_term(TERM, steps.weight * weight)
        self.plans = make_plans([*smaller, last], free_memory)
        self.problems = [plan.problem for plan in self.plans]
        self.steps = steps
        self.masks = masks
        alike = earlier and _alike(earlier.problems[-1], self.problems[-1])
        self.earlier: Targets | None = earlier.targets if earlier and alike else None

    def begin(self, stop: Callable[[], Any] = lambda: False) -> Made | None:
        """Return the first frame, which further ones follow; None where stopped. Raises InputError."""
        *smaller, problem = self.problems
        targets = self._first_targets()
        steps = run([*smaller, problem.balanced(targets)], targets=targets)
        if (last := _last(steps, stop)) is None:
            return None
        background = make_background(problem.background, masking.regions(problem.masks), problem.spec)
        made = self._made(last, _carried(last, background, problem.spec), problem, self.masks)
        self._lead(made, targets)
        return made

    def resume(self, first: Made) -> None:
        """Take up a shot whose first frame was made before."""
        self._lead(first, self._first_targets())

    def _first_targets(self) -> Targets:
        problem, (earlier, self.earlier) = self.problems[-1], (self.earlier, None)
        if earlier is None:
            return problem.targets()
        nothing = TERMS[TERM].given
        assert nothing is not None
        assert problem.content is not None
        given = {TERM: nothing(*problem.content.shape[:2])}
        return with_content(earlier, problem.params, problem.content, problem.spec, problem.masks, given)

    def _lead(self, first: Made, targets: Targets) -> None:
        """Prepare the frames that follow a first one, which was compared with targets.

        The weights of all further frames are those that balance the first one. The temporal term's pull is
        asked for with the first picture as the earlier one.
        """
        problem, spec = self.problems[-1], self.problems[-1].spec
        assert problem.content is not None
        everywhere = np.ones((*first.picture.shape[:2], 1), np.float32)
        given = {TERM: {"picture": first.image, "weights": everywhere}}
        self.targets = with_content(targets, problem.params, problem.content, spec, problem.masks, given)
        self.log_ratio = first.log_ratio if spec.steered else None
        self.together = problem.balanced(self.targets).weights.replace(style_mix=self.style_mix)
        self.following = problem.replace(
            weights=self._weights(self.config),
            spec=spec._replace(steered=False),
            strength=None,
            steps=self.steps.each,
        )

    def retune(self, config: Config) -> None:
        """Have further frames made with the shares of styles and the strength of a config."""
        self.following = self.following.replace(weights=self._weights(config))

    def _weights(self, config: Config) -> LossWeights:
        """Return the weights of a config: the first frame's, where they do not differ.

        Of other shares they are a mean of those that balance each style alone. Of another strength they are
        as the first frame's strength moved them, and from there by steering's odds.
        """
        balanced = self.together
        if config.style_mix != self.config.style_mix:
            mix = np.asarray(config.style_mix, np.float32) / np.float32(sum(config.style_mix))
            balanced = jax.tree.map(lambda *one: sum(mix[k] * w for k, w in enumerate(one)), *self.alone)
        if self.log_ratio is None or config.target_lpips is None or self.config.target_lpips is None:
            return balanced
        log_ratio = self.log_ratio
        if config.target_lpips != self.config.target_lpips:
            log_ratio = steering.at_target(log_ratio, self.config.target_lpips, config.target_lpips)
        unknown = jnp.float32(math.nan)
        return steered(balanced, Dial(log_ratio=jnp.float32(log_ratio), first=unknown, seen=unknown))

    @functools.cached_property
    def alone(self) -> list[LossWeights]:
        """The weights that balance each of the styles by itself."""
        problem, shares = self.problems[-1], np.eye(len(self.problems[-1].styles), dtype=np.float32)
        each = [
            problem.replace(weights=problem.weights.replace(style_mix=jnp.asarray(mix))) for mix in shares
        ]
        return [one.balanced(self.targets).weights for one in each]

    def follow(
        self,
        frame: Image,
        known: Before,
        known_content: Before,
        masks: Masks | None = None,
        stop: Callable[[], Any] = lambda: False,
        own: Image | None = None,
    ) -> Made | None:
        """Return the next frame; None where stopped. Raises InputError.

        Args:
            frame: Its content.
            known: What earlier pictures show of it, with which it begins.
            known_content: The same of their contents.
            masks: Its own. None: the first frame's.
            stop: Asked whether to end early.
            own: What an earlier pass made of it. It begins half way from there to what is known.
        """
        spec, masks = self.following.spec, self.masks if masks is None else masks
        content = color.luma(frame) if spec.luminance else frame
        first = known.picture if own is None else halfway(own, known)
        problem = self.following.replace(first=first, content=content, photograph=frame)
        problem = _with_mix(problem, _acting(masks, spec))
        given = {TERM: {"picture": known.picture, "weights": known.weights[..., None]}}
        targets = with_content(self.targets, problem.params, content, spec, masks, given)
        last = _last(run([problem], report_every=1, targets=targets), stop, self.steps.tolerance)
        if last is None:
            return None
        image = _carried(last, targets.background, spec)
        if self.steps.anchor:
            image = anchored(image, known, content - known_content.picture)
        return self._made(last, image, problem, masks)

    def _made(self, last: Progress, image: Image, problem: Problem, masks: Masks) -> Made:
        """Return a frame as it is kept: in whole numbers, so that a resumed run goes on from the same."""
        if not last.finite:
            raise InputError(
                "loss", "finite numbers (smaller weights?)", f"not finite after step {last.step}"
            )
        picture = stored(image)
        shown = image = unstored(picture)
        opacity, parts = None, masking.regions(masks)
        if parts is not None:
            opacity = masking.opacity(parts)
            shown = opacity[..., None] * image + (1 - opacity[..., None]) * problem.background
        shown = finish(shown, problem.photograph, opacity, problem.preserve_color)
        assert last.resume_state is not None
        dial = last.resume_state.state.dial
        return Made(
            picture=picture,
            shown=None if shown is image else stored(shown),
            log_ratio=math.nan if dial is None else float(dial.log_ratio),
            steps=last.step,
            losses=last.losses,
        )


def _alike(one: Problem, other: Problem) -> bool:
    """Tell whether two problems compare with the same paintings in the same way."""
    if one.spec != other.spec or len(one.styles) != len(other.styles):
        return False
    sources = zip(one.masks.sources, other.masks.sources, strict=True)
    return all(map(np.array_equal, one.styles, other.styles)) and all(a is b for a, b in sources)


def _acting(masks: Masks, spec: Spec) -> Float32[np.ndarray, " r"] | None:
    """Return 1 for each region with a style that acts there, 0 for those too small. None: no masks."""
    parts = masking.regions(masks)
    return None if parts is None else masking.acting(parts, spec.network, spec.style_layers)


def _opening(masks: Masks, spec: Spec) -> tuple[Float32[np.ndarray, " r"] | None, Masks]:
    """Return which styles act in a shot's first frame, and masks that leave each of them something.

    Where none acts all of them do, in a picture that is not shown: later frames have their weights.
    """
    acting = _acting(masks, spec)
    if acting is None or acting.all():
        return None, masks
    shape = next(mask.shape for mask in (masks.content, *masks.styles) if mask is not None)
    white = np.ones(shape, np.float32)
    if not acting.any():
        return None, masks._replace(content=white, styles=[white for _ in masks.styles])
    return acting, masks._replace(
        styles=[mask if acts else white for mask, acts in zip(masks.styles, acting, strict=True)]
    )


def _with_mix(problem: Problem, acting: Float32[np.ndarray, " r"] | None) -> Problem:
    """Return a problem with the shares of the styles that act. None: of all of them."""
    if acting is None or acting.all():
        return problem
    return problem.replace(weights=problem.weights.replace(style_mix=problem.weights.style_mix * acting))


def _last(steps: Iterator[Progress], stop: Callable[[], Any], tolerance: float = 0.0) -> Progress | None:
    """Return where steps end, or one of them gains too little; None where they are stopped.

    Args:
        steps: From their first picture on.
        stop: Asked after each whether to end early.
        tolerance: The least gain, as a share of the loss. 0: any will do.
    """
    before = math.inf
    for last in steps:
        if stop():
            return None
        loss = last.losses["total"]
        if tolerance and before - loss < tolerance * loss:
            break
        before = loss
    return last


def _carried(last: Progress, background: Any, spec: Any) -> Image:
    assert last.resume_state is not None
    return np.array(carried_picture(last.resume_state.state, background, spec))


def stored(image: Image) -> Stored:
    """Return a picture in whole numbers of 16 bits."""
    return (LEVELS * image.clip(0, 1)).round().astype(np.uint16)


def unstored(picture: Stored) -> Image:
    """Return what is stored as a picture in [0, 1]."""
    return picture.astype(np.float32) / np.float32(LEVELS)


def halfway(own: Image, known: Before) -> Image:
    """Return x + c (w - x) / 2, w what is known and c its weights (Ruder et al. 2016, 4.3, delta = 1/2).

    Args:
        own: x, in [0, 1].
        known: w and c.
    """
    return own + known.weights[..., None] * (known.picture - own) / 2


def anchored(image: Image, known: Before, change: Image) -> Image:
    """Return an image whose mean color, where earlier frames show it, changes as the content's does.

    x - mean_c(x - w - (I - I_w)), c the weights, w and I_w the earlier picture and content, warped. Each
    frame begins with the one before, so what all of them lose of their brightness would add up.

    Args:
        image: x, in [0, 1].
        known: w and c.
        change: I - I_w.
    """
    mass = known.weights.sum(dtype=np.float64)
    if not mass:
        return image
    drift = (known.weights[..., None] * (image - known.picture - change)).sum((0, 1), dtype=np.float64) / mass
    return (image - drift.astype(np.float32)).clip(0, 1)
