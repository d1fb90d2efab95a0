"""The optimisation: a generator that runs rung after rung, chunk after chunk."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from nst_jax import images, rows
from nst_jax.balance import balanced
from nst_jax.config import Config
from nst_jax.loop import State, Told, run_chunk, start, tell
from nst_jax.masks import Masks
from nst_jax.objective import summarize
from nst_jax.optimizers import OPTIMIZERS
from nst_jax.plan import make_plans
from nst_jax.problem import Problem, finish, spread
from nst_jax.scales import make_problems, settled
from nst_jax.vgg import Params


class Left(NamedTuple):
    """What a rung leaves to the next one."""

    image: Float32[np.ndarray, "h w 3"]
    memory: Any  # of the optimiser, None where the next rung starts afresh
    scale: Float[Array, ""]  # of the gradients that it has seen
    step: int
    evaluations: int


class Standing(NamedTuple):
    """What the optimisation goes on from. Its arrays are the next chunk's: they can be read until then."""

    state: State
    rung: int
    step: int  # of the rungs before, as evaluations are
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
    """Where the optimisation stands between two chunks."""

    step: int  # over all rungs, as evaluations are
    evaluations: int
    picture: Later | Float32[np.ndarray, "h w 3"]
    losses: dict[
        str, Any
    ]  # total (weighted); content, style, tv, matting, content_by_layer, style_by_layer (unweighted)
    finite: bool
    converged: bool = False  # no further step would find a lower loss
    rung: int = 1  # from 1, the coarsest
    rungs: int = 1
    ends: bool = True  # the rung has taken its steps
    standing: Standing | None = None  # on the devices, of run() alone

    @property
    def image(self) -> Float32[np.ndarray, "h w 3"]:
        """The picture, sRGB in [0, 1]."""
        return self.picture.value if isinstance(self.picture, Later) else self.picture


def stylize(
    params: Params,
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    config: Config | None = None,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
    masks: Masks | None = None,
) -> Progress:
    """Return the last Progress of stylize_steps: its image has the content of one and the style of others."""
    *_, last = stylize_steps(params, content, styles, config, init, masks)
    return last


def stylize_steps(
    params: Params,
    content: Float32[np.ndarray, "h w 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    config: Config | None = None,
    init: Float32[np.ndarray, "_ _ 3"] | None = None,
    masks: Masks | None = None,
    every: int = 0,
    free_memory: int | None = None,
    devices: Sequence[jax.Device] | int = 1,
) -> Iterator[Progress]:
    """Optimise a picture, yielding a Progress at the start of each rung and where `every` divides the step.

    Pictures are sRGB in [0, 1] and used at the sizes they have (config.size and style_scale are for files).
    config: Config.from_preset() at the picture's size, if it is not given.
    With config.scales they have the last rung's, with config.size for the longest side; the other rungs take
    them smaller, and every rung but the first starts from the picture of the one before, enlarged.
    With config.average the image is the average; the losses are those of the newest picture in it, but at the
    start and the end of a rung those of the image itself.
    every: 0 takes a hundredth of the iterations, at most 10. init: the first picture, in place of the one
    that config.init names. Without content, config.init must not be content, and the picture
    has the size of init or of the first style. masks say where the styles act; elsewhere the picture is the
    content (without one: the first picture) to the bit. Ends early where a loss is not finite, and a rung
    where no step lowers it (Progress.finite, .converged). devices: those that have each a share of the
    picture's rows, or how many of those there are.
    Raises InputError where the pictures and options do not go together, NotEnoughMemory where the
    compiled loop would take more than free_memory bytes on a device.
    """
    mesh = rows.make_mesh(devices)
    config = settled(config or _default(content, styles, init), content, styles, init, masks)
    problems = make_problems(params, content, styles, config, init, masks)
    plans = make_plans([spread(problem, mesh) for problem in problems], free_memory)
    # Without what only a launcher needs: else whoever keeps a Progress keeps the optimiser's memory, too.
    yield from map(lambda now: now._replace(standing=None), run([plan.problem for plan in plans], every))


def _default(content: Any, styles: Sequence[Any], init: Any) -> Config:
    """Return the default preset at the size that the picture is going to have."""
    pictures = [picture for picture in (content, init, *styles) if picture is not None]
    return Config.from_preset(size=max(pictures[0].shape[:2])) if pictures else Config.from_preset()


def run(
    problems: Sequence[Problem],
    every: int = 0,
    standing: Standing | None = None,
    most: Callable[[], int] | None = None,
) -> Iterator[Progress]:
    """Run the problems of the rungs, in turn, yielding as stylize_steps does.

    standing: what a run of the same problems stood at, from where it goes on to the same bits; that is told
    first. most: asked before each chunk how many steps it may take; it does not change what comes of them.
    """
    config = problems[-1].config
    rungs, every = config.rungs(), every or chunk_steps(config.steps)
    left: Left | None = None
    for number, (problem, rung) in enumerate(zip(problems, rungs, strict=True), 1):
        if standing and number < standing.rung:
            continue
        place = number, len(rungs)
        left = yield from _climb(problem, rung.iterations, place, left or standing, every, most)
        if left is None:
            return


def _climb(
    problem: Problem,
    iterations: int,
    place: tuple[int, int],
    origin: Left | Standing | None,
    every: int,
    most: Callable[[], int] | None,
) -> Generator[Progress, None, Left | None]:
    """Run the rung at a place, from what the last one left or from where it stood before.

    Return what it leaves, None where not finite.
    """
    targets, spec, shape = problem.targets(), problem.spec, problem.first.shape
    problem = balanced(problem, targets)
    rest = targets, problem.weights, problem.learning_rate, spec
    done, spent = (origin.step, origin.evaluations) if origin else (0, 0)
    end, known = done + iterations, problem._replace(weights=jax.device_get(problem.weights))

    def told(state: State) -> Progress:
        now = progress(tell(state, targets.frame, spec), known)
        now = now._replace(step=done + now.step, evaluations=spent + now.evaluations)
        if state.average and now.step > done and (now.step == end or not now.finite):
            own_state = start(problem.params, state.average.image, *rest, problem.decay)
            own = progress(tell(own_state, targets.frame, spec), known)
            finite, evaluations = now.finite and own.finite, now.evaluations + 1
            now = now._replace(losses=own.losses, finite=finite, evaluations=evaluations)
        rung, rungs = place
        standing = Standing(state, rung, done, spent)
        return now._replace(rung=rung, rungs=rungs, ends=now.step == end, standing=standing)

    carry = None if spec.mesh else OPTIMIZERS[spec.optimizer].carry  # padded, moments would be moved
    if isinstance(origin, Standing):
        state = origin.state
    else:
        first = images.resize(origin.image, *shape[:2]) if origin else problem.first
        state = start(problem.params, rows.put(rows.pad(first, spec), spec), *rest, problem.decay)
        if origin and carry:
            state = state._replace(memory=carry(origin.memory, shape, state.scale / origin.scale))
    now = told(state)
    yield now
    while now.step < end and now.finite and not now.converged:
        steps = min(every - now.step % every, end - now.step, most() if most else every)
        state = run_chunk(state, np.int32(steps), problem.params, *rest)
        now = told(state)
        yield now
    if not now.finite:
        return None
    # As it is shown: outside the masks the optimiser's own picture may be anything.
    return Left(
        np.array(tell(state, targets.frame, spec).image),
        state.memory if carry else None,
        state.scale,
        now.step,
        now.evaluations,
    )


def chunk_steps(iterations: int) -> int:
    """Return the steps of a chunk: a hundredth of the iterations, from 1 to 10 so that nobody waits long."""
    return min(10, max(1, iterations // 100))


def progress(told: Told, problem: Problem) -> Progress:
    """Return what is told of a state: numbers on the host, the picture when it is asked for."""
    terms, step, evaluations, finite, converged = jax.device_get(
        (told.terms, told.step, told.evaluations, told.finite, told.converged)
    )
    losses = summarize(terms, jax.device_get(problem.weights))
    if labels := problem.masks.labels:
        named = ({"picture": label.picture + 1, "label": label.name} for label in labels)
        losses["by_style"] = [name | loss for name, loss in zip(named, losses["by_style"], strict=True)]

    shown, opacity, photograph, config = told.image, told.opacity, problem.photograph, problem.config

    def read() -> Float32[np.ndarray, "h w 3"]:
        return finish(np.array(shown), photograph, None if opacity is None else np.asarray(opacity), config)

    return Progress(
        step=int(step),
        evaluations=int(evaluations),
        picture=Later(told.image.shape, read),
        losses=losses,
        finite=bool(finite),
        converged=bool(converged),
    )
