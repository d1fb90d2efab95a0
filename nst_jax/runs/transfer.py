"""The optimization: a generator that runs scale after scale, chunk after chunk."""

import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images.masks import Masks
from nst_jax.networks.base import Params, picture_list
from nst_jax.objective import sharding
from nst_jax.objective.objective import Targets, summarize
from nst_jax.objective.weights import Dial, steered
from nst_jax.optimize import steering
from nst_jax.optimize.loop import Snapshot, State, carried_picture, run_chunk, snapshot, start
from nst_jax.optimize.optimizers import OPTIMIZERS
from nst_jax.pytrees import Pytree
from nst_jax.runs.memory_plan import make_plans
from nst_jax.runs.problem import Problem, check_pictures, finish, shard_problem
from nst_jax.runs.pyramid import make_problems, settled


class ScaleResult(Pytree):
    """What a scale leaves to the next one."""

    image: Float32[np.ndarray, "h w 3"]
    memory: Any  # of the optimizer, None where the next scale starts afresh
    scale: Float[Array, ""]  # of the gradients that it has seen
    step: int
    evaluations: int
    dial: Dial | None


class ResumeState(Pytree):
    """What the optimization goes on from. Its arrays are the next chunk's: they can be read until then."""

    state: State
    scale: int
    step: int  # of the scales before, as evaluations are
    evaluations: int


class Later:
    """A picture on the device, read when it is first asked for: nobody waits for one that nobody looks at."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[], Float32[np.ndarray, "h w 3"]]):
        self.shape = shape
        self._read: Callable[[], Float32[np.ndarray, "h w 3"]] | None = read
        self._value: Float32[np.ndarray, "h w 3"] | None = None

    @property
    def value(self) -> Float32[np.ndarray, "h w 3"]:
        """The picture on the host; what it was on the device is let go."""
        if self._read is not None:
            self._value, self._read = self._read(), None
        assert self._value is not None
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (self.value,)


class Progress(NamedTuple):
    """The state of a run after a chunk of steps.

    step, evaluations: counted over all scales.
    losses: total (weighted); each term, such as content, and content_by_layer (unweighted).
    finite: whether the loss is finite.
    converged: whether no further step would lower the loss.
    scale, scales: the current scale, from 1, the coarsest; how many there are.
    ends: whether the scale has taken its steps.
    lpips: LPIPS to the photograph, at 256 pixels at most. None: no strength is in force.
    """

    step: int
    evaluations: int
    picture: Later | Float32[np.ndarray, "h w 3"]
    losses: dict[str, Any]
    finite: bool
    converged: bool = False
    scale: int = 1
    scales: int = 1
    ends: bool = True
    lpips: float | None = None
    resume_state: ResumeState | None = None  # on the devices, of run() alone

    @property
    def image(self) -> Float32[np.ndarray, "h w 3"]:
        """The picture, sRGB in [0, 1]."""
        return self.picture.value if isinstance(self.picture, Later) else self.picture

    def __str__(self) -> str:
        scale = f" at scale {self.scale} of {self.scales}" if self.scales > 1 else ""
        return f"step {self.step}{scale}: loss {self.losses['total']:.4g}"


Pictures = Sequence[Float32[np.ndarray, "_ _ 3"]] | Float32[np.ndarray, "_ _ 3"]  # several, or one


def stylize(
    params: Params,
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Pictures,
    *,
    config: Config | None = None,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
    masks: Masks | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Progress:
    """Make a picture with the content of a photograph and the style of paintings.

        config = Config.from_preset(iterations=50)
        result = stylize(load_vgg(), content, [style], config=config, progress=print)

    Args:
        params: The network, config.network: load_vgg().
        content: The photograph (h, w, 3), float32, sRGB in [0, 1], such as images.load(...).rgb. Or None.
        styles: The paintings, each of any size, in a list. A lone one needs no list.
        config: The options. None: Config.from_preset(). Nothing is resized: a size that is given must be the
            content's longest side.
        init: The first picture, of the content's shape. None: the one that config.init names.
        masks: Where each style acts. None: everywhere.
        progress: Called with each Progress, about a hundred times, such as print. None: silent.

    Returns:
        The last Progress. Its `image` is the picture, and its `losses` are by term and by layer.

    Raises:
        InputError: Pictures, parameters and options do not fit together.
    """
    for now in stylize_steps(params, content, styles, config=config, init=init, masks=masks):
        if progress:
            progress(now)
    return now


def stylize_steps(
    params: Params,
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Pictures,
    *,
    config: Config | None = None,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
    masks: Masks | None = None,
    report_every: int = 0,
    free_memory: int | None = None,
    devices: Sequence[jax.Device] | int = 1,
) -> Iterator[Progress]:
    """Make a picture step by step. To stop early, leave the loop.

    Nothing is resized: use images.resize. The picture has the size of the content, else of init, else of the
    first style. If the config has a size, it must be the longest side. stroke_size must be 1.
    With config.scales, smaller pictures are made first. Each scale starts from the last one, enlarged.

    Args:
        params: The network, config.network: load_vgg().
        content: The photograph (h, w, 3), float32, sRGB in [0, 1]. None: only styles; config.init must not be
            content, and config.content_weight must be 0.
        styles: The paintings, each of any size, in a list. A lone one needs no list.
        config: The options. None: Config.from_preset().
        init: The first picture, of the content's shape. None: the one that config.init names.
        masks: Where each style acts. Elsewhere the picture is exactly the content, or the first picture.
        report_every: Steps from one Progress to the next. 0: a hundredth of all steps, but 1 to 10.
        free_memory: Bytes that the compiled loop may take on each device. None: any number.
        devices: The devices that share the rows of the picture, or their number.

    Yields:
        A Progress at the start of each scale, and after every report_every steps. The run ends early if the
        loss is not finite, and a scale ends early if no step lowers it (Progress.finite, .converged). With
        config.ema_decay the image is the average. The losses are then those of the newest picture, but those
        of the average at both ends of a scale.

    Raises:
        InputError: Pictures, parameters and options do not fit together.
        NotEnoughMemory: The loop would take more than free_memory.
    """
    paintings = picture_list(styles)
    check_pictures(content, paintings, init)
    config = _sized(config or Config.from_preset(), content, paintings, init)
    config = settled(config, content, paintings, init, masks)
    mesh = sharding.make_mesh(devices)
    problems = make_problems(params, content, paintings, config, init, masks)
    plans = make_plans([shard_problem(problem, mesh) for problem in problems], free_memory)
    # Without what only a launcher needs: else whoever keeps a Progress keeps the optimizer's memory, too.
    yield from map(
        lambda now: now._replace(resume_state=None), run([plan.problem for plan in plans], report_every)
    )


def _sized(config: Config, content: Any, styles: Sequence[Any], init: Any) -> Config:
    """Return the config with the longest side of the picture for its size. Raises InputError."""
    longest = max(next(one for one in (content, init, styles[0]) if one is not None).shape[:2])
    if "size" in config.given and config.size != longest:
        allowed = f"{longest}, the longest side of the picture; images.resize makes another"
        raise InputError("`size`", allowed, f"got {config.size}")
    if config.stroke_size != 1:
        allowed = "1, as styles are used at the sizes they have; images.resize makes others"
        raise InputError("`stroke_size`", allowed, f"got {config.stroke_size:g}")
    return dataclasses.replace(config, size=longest) if config.scales else config


def run(
    problems: Sequence[Problem],
    report_every: int = 0,
    resume_state: ResumeState | None = None,
    max_steps: Callable[[], int] | None = None,
    targets: Targets | None = None,
) -> Iterator[Progress]:
    """Run the problems of the scales, in turn, yielding as stylize_steps does.

    Args:
        problems: Of all scales.
        report_every: Steps from one Progress to the next. 0: a hundredth of all steps, but 1 to 10.
        resume_state: What a run of the same problems stood at. It goes on from there to the same bits, and is
            told first.
        max_steps: Asked before each chunk how many steps it may take, which changes nothing of what comes.
        targets: Of the last problem, whose weights are then balanced already. None: made here.
    """
    report_every = report_every or chunk_steps(sum(problem.steps for problem in problems))
    left: ScaleResult | None = None
    for number, problem in enumerate(problems, 1):
        if resume_state and number < resume_state.scale:
            continue
        place = number, len(problems)
        made = targets if number == len(problems) else None
        left = yield from _run_scale(problem, place, left or resume_state, report_every, max_steps, made)
        if left is None:
            return


class _Scale:
    """A scale in hand: what its loop runs on, and where it stands among the scales."""

    def __init__(
        self,
        problem: Problem,
        place: tuple[int, int],
        origin: ScaleResult | ResumeState | None,
        made: Targets | None,
    ):
        targets, spec = made or problem.targets(), problem.spec
        self.problem = problem if made else problem.balanced(targets)
        self.inputs = self.problem.inputs(targets)
        self.place = place
        self.done, self.spent = (origin.step, origin.evaluations) if origin else (0, 0)
        self.end = self.done + problem.steps
        self.carry = None if spec.mesh else OPTIMIZERS[spec.optimizer].carry  # padded, moments would be moved
        self.ruler = steering.make_ruler(problem.content, spec)
        self.target_lpips = np.float32(problem.target_lpips)
        self.on_host = self.problem.replace(weights=jax.device_get(self.problem.weights))

    def begin(self, left: ScaleResult | None) -> State:
        """Return the state at step 0: of the problem's first picture, or of the last scale's, enlarged."""
        problem, spec = self.problem, self.problem.spec
        first = enlarged(left, problem) if left else problem.first
        image = sharding.shard(sharding.pad(first, spec), spec)
        state = start(image, self.inputs, spec, problem.decay, left.dial if left else None)
        if left and self.carry:
            memory = self.carry(left.memory, problem.first.shape, state.scale / left.scale)
            state = state.replace(memory=memory)
        return state if left else self._steer(state)

    def advance(self, state: State, step: int, stop: int) -> State:
        """Return the state of a step at another one, corrected on the way where a strength is in force.

        Args:
            state: Of the loop, donated.
            step: Where it stands, over all scales.
            stop: Where it is to go.
        """
        while step < stop:
            steps = steering.piece(step, stop - step) if self.ruler else stop - step
            state, step = run_chunk(state, np.int32(steps), self.inputs, self.problem.spec), step + steps
            state = self._steer(state)
        return state

    def _steer(self, state: State) -> State:
        if not self.ruler:
            return state
        background, done = self.inputs.targets.background, np.int32(self.done)
        return steering.steer(state, background, self.ruler, self.target_lpips, done, self.problem.spec)

    def told(self, state: State) -> Progress:
        """Return where the run stands; at the scale's ends the losses are those of an average itself."""
        now = self._told(state)
        now = now._replace(step=self.done + now.step, evaluations=self.spent + now.evaluations)
        if state.average and now.step > self.done and (now.step == self.end or not now.finite):
            image, decay = state.average.image, self.problem.decay
            own = self._told(start(image, self.inputs, self.problem.spec, decay, state.dial))
            finite, evaluations = now.finite and own.finite, now.evaluations + 1
            now = now._replace(losses=own.losses, finite=finite, evaluations=evaluations)
        scale, scales = self.place
        here = ResumeState(state=state, scale=scale, step=self.done, evaluations=self.spent)
        return now._replace(scale=scale, scales=scales, ends=now.step == self.end, resume_state=here)

    def _told(self, state: State) -> Progress:
        return progress(snapshot(state, self.inputs.targets.background, self.problem.spec), self.on_host)

    def result(self, state: State, now: Progress) -> ScaleResult:
        """Return what is left to the next scale."""
        # As the losses see it: beyond the masks' rings the optimizer's own picture may be anything.
        image = carried_picture(state, self.inputs.targets.background, self.problem.spec)
        return ScaleResult(
            image=np.array(image),
            memory=state.memory if self.carry else None,
            scale=state.scale,
            step=now.step,
            evaluations=now.evaluations,
            dial=state.dial,
        )


def _run_scale(
    problem: Problem,
    place: tuple[int, int],
    origin: ScaleResult | ResumeState | None,
    report_every: int,
    max_steps: Callable[[], int] | None,
    made: Targets | None,
) -> Generator[Progress, None, ScaleResult | None]:
    """Run the scale at a place, from what the last one left or from where it stood before.

    Return what it leaves, None where not finite.
    """
    scale = _Scale(problem, place, origin, made)
    state = origin.state if isinstance(origin, ResumeState) else scale.begin(origin)
    now = scale.told(state)
    yield now
    while now.step < scale.end and now.finite and not now.converged:
        limits = report_every - now.step % report_every, scale.end - now.step
        steps = min(*limits, max_steps() if max_steps else report_every)
        state = scale.advance(state, now.step, now.step + steps)
        now = scale.told(state)
        yield now
    return scale.result(state, now) if now.finite else None


def enlarged(left: ScaleResult, problem: Problem) -> Float32[np.ndarray, "h w 3"]:
    """Return the picture with which a scale begins: the last one's, enlarged.

    Where a strength s is in force it has 1 - s of the photograph's detail that no smaller picture can hold.
    The optimizer would take many steps to bring it back.
    """
    size, content = problem.first.shape[:2], problem.content
    image = images.resize(left.image, *size)
    if problem.strength is None or content is None:
        return image
    detail = content - images.resize(images.resize(content, *left.image.shape[:2]), *size)
    return np.clip(image + np.float32(1 - problem.strength) * detail, 0, 1)


def chunk_steps(iterations: int) -> int:
    """Return the steps of a chunk: a hundredth of the iterations, from 1 to 10 so that nobody waits long."""
    return min(10, max(1, iterations // 100))


def progress(told: Snapshot, problem: Problem) -> Progress:
    """Return the progress of a snapshot: numbers on the host; the picture is copied when it is asked for."""
    terms, step, evaluations, finite, converged, dial = jax.device_get(
        (told.terms, told.step, told.evaluations, told.finite, told.converged, told.dial)
    )
    losses = summarize(terms, jax.device_get(steered(problem.weights, dial)))
    if labels := problem.masks.labels:
        named = ({"picture": label.picture + 1, "label": label.name} for label in labels)
        losses["by_style"] = [name | loss for name, loss in zip(named, losses["by_style"], strict=True)]

    shown, opacity, photograph, mode = told.image, told.opacity, problem.photograph, problem.preserve_color

    def read() -> Float32[np.ndarray, "h w 3"]:
        return finish(np.array(shown), photograph, None if opacity is None else np.asarray(opacity), mode)

    return Progress(
        step=int(step),
        evaluations=int(evaluations),
        picture=Later(told.image.shape, read),
        losses=losses,
        finite=bool(finite),
        converged=bool(converged),
        lpips=None if dial is None else float(dial.seen),
    )
