"""Measure this machine: seconds per evaluation of the objective, alone, in the compiled loop, in a whole run.

Everything in a row is measured in turn, round after round, so that ratios survive a noisy machine. In a batch
too, times are for one evaluation of one picture; those of chunks and runs are for the whole batch.
Example: nst-bench --sizes=256,512 --compare=torch --report=bench.json
         nst-bench --suite=laptop --minutes=4
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import math
import operator
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import nst_jax
from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.files import check_writable, write_whole
from nst_jax.launchers import experiments, roofline, selftest, suite
from nst_jax.launchers.console import DONE, tell
from nst_jax.launchers.experiments import EXPERIMENTS
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.launchers.roofline import own_convolutions, seconds
from nst_jax.launchers.signals import scratch_folder
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.networks import NETWORKS, convolutions
from nst_jax.networks.base import Params, cast, make_params
from nst_jax.networks.precision import PRECISIONS
from nst_jax.objective.objective import Targets, total_loss
from nst_jax.objective.targets import make_targets
from nst_jax.objective.weights import LossWeights
from nst_jax.optimize.loop import Inputs, initial_state, run_chunk, run_steps
from nst_jax.optimize.optimizers import OPTIMIZERS
from nst_jax.options import check_options, is_tuple, option
from nst_jax.reports.report import PLOT_FORMATS, check_plot, to_json
from nst_jax.runs.memory_plan import bytes_needed
from nst_jax.runs.problem import Problem, make_problem, with_hyperparameters
from nst_jax.runs.sweep import sweep
from nst_jax.runs.transfer import stylize_steps
from nst_jax.spec import Spec
from nst_jax.system import device
from nst_jax.weights import load_weights

OF_SUITES = {"minutes", "folder", "resume"}  # the flags that go with --suite
STEPS = np.int32(10)  # of the optimizer in one timed chunk: as long as those of nst


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured."""

    sizes: tuple[int, ...] = option((256, 512), "sides of square pictures, in pixels", low=16, high=16384)
    networks: tuple[str, ...] = option(("vgg16",), "networks", choices=NETWORKS)
    style_losses: tuple[str, ...] = option(
        ("gram",), "style losses, each measured in turn with gram", choices=STYLE_LOSSES
    )
    optimizers: tuple[str, ...] = option(("lbfgs", "adam"), "optimizers", choices=OPTIMIZERS)
    precisions: tuple[str, ...] = option(("float32",), "precisions", choices=PRECISIONS)
    convolutions: tuple[str, ...] = option(
        ("auto",),
        "whose convolutions; where named, a row is measured in turn with XLA's in float32 (xla/lone)",
        choices=convolutions.CHOICES,
    )
    batch: tuple[int, ...] = option((1,), "pictures optimized at once", low=1, high=4096)
    iterations: int = option(
        10, "steps of the whole run that is timed from start to finish; 0: none", low=0, high=10**6
    )
    repeats: int = option(5, "rounds that are timed, after one that is not", low=1, high=1000)
    compare: str = option(
        "", "another implementation of the same loss, measured in turn: torch", choices=("", "torch")
    )
    brief: bool = option(False, "the evaluation alone and in the loop; no ceilings, no own convolutions")
    experiment: str = option(
        "", "flags of XLA or a variant of the program, by name: benchmarks/NOTES.md", choices=EXPERIMENTS
    )
    report: str = option("", "JSON file for every measured number")
    plot: str = option("", "picture file for the roofline: .png .svg .pdf")
    selftest: bool = option(False, "measure nothing: tell whether this device computes the right numbers")
    suite: str = option(
        "",
        "the standard measurement of this machine: accelerator, laptop, quick, or a TOML file like those of "
        "benchmarks/; its steps say what is measured",
    )
    minutes: float = option(10.0, "of the suite, which ends with them", low=0.1, high=1440)
    folder: str = option("suite", "where the suite's results go: results.json, results.md, plots")
    resume: bool = option(False, "go on with the suite whose results are in --folder")

    def __post_init__(self) -> None:
        check_options(self)
        for field in dataclasses.fields(self):
            if is_tuple(field) and not getattr(self, field.name):
                raise InputError(f"--{field.name}", "at least one", "got none")


class Case(NamedTuple):
    """What a row is about."""

    network: str
    size: int
    style_loss: str
    optimizer: str
    precision: str
    batch: int
    convolutions: str = "auto"

    def config(self, iterations: int) -> Config:
        """Return the options of a picture of this case."""
        return Config(
            network=self.network,
            style_loss=self.style_loss,
            optimizer=self.optimizer,
            precision=self.precision,
            iterations=iterations,
        )


class Programs(NamedTuple):
    """Jitted functions of one picture, or of a batch of pictures with a style weight each."""

    initial_state: Any
    advance: Any
    evaluate: Any
    static: tuple[Spec, ...]  # what initial_state and advance take last
    lanes: tuple[int, ...]  # the first axes of pictures
    weights: LossWeights


def main(given: ParsedFlags) -> int:
    """Run `nst-bench` with the options given: a table row for every case."""
    bench = Bench(**given)
    if bench.suite:
        _check_alone(given, "suite", {"suite", *OF_SUITES})
        return suite.main(bench.suite, Path(bench.folder), bench.minutes, bench.resume)
    if lone := OF_SUITES & set(given):
        raise InputError(f"--{min(lone)}", "with --suite", "got no --suite")
    if bench.selftest:
        _check_alone(given, "selftest", {"selftest"})
    _check(bench)
    experiments.set_flags(bench.experiment)
    device.set_up(cached=False)
    where = EXPERIMENTS[bench.experiment].platform
    if where and where != jax.default_backend():
        came = f"this is {jax.default_backend()}"
        raise InputError(f"--experiment={bench.experiment}", f"on {where} only", came)
    if bench.selftest:
        return selftest.main()
    for choice in bench.convolutions:
        with convolutions.using(choice):
            convolutions.chosen("auto")  # raises where it cannot be had
    arrays = {network: load_weights(network).arrays for network in bench.networks}
    with _private_cache(), experiments.replaced(bench.experiment):
        measured = {} if bench.brief else roofline.measure(bench.precisions, bench.repeats)
        done = _measure_all(arrays, measured, bench)
    if bench.report:
        tell(bench.report)
    if bench.plot:
        write_whole(Path(bench.plot), roofline.plot(measured, done, Path(bench.plot).suffix))
        tell(bench.plot)
    return DONE


def _measure_all(arrays: dict[str, Any], measured: dict[str, Any], bench: Bench) -> list[dict[str, Any]]:
    """Print a row for every case, and return those that fit; the report is written after each."""
    rows: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    tell(" ".join(f"{title:>{width}}" for title, width, _ in COLUMNS))
    cases = itertools.product(
        bench.networks,
        bench.sizes,
        bench.style_losses,
        bench.optimizers,
        bench.precisions,
        bench.batch,
        bench.convolutions,
    )
    for case in itertools.starmap(Case, cases):
        rows.append({**case._asdict(), **measure(arrays[case.network], case, bench)})
        tell(_line(rows[-1]))
        done = [row for row in rows if "does_not_fit" not in row]
        if bench.report:  # now: the next one may take longer than there is time
            found = {"ceilings": measured, "scaling": roofline.scaling(done, Case._fields), "rows": rows}
            write_whole(Path(bench.report), to_json({**_circumstances(bench), **found}))
    return done


def _check_alone(given: ParsedFlags, name: str, its: set[str]) -> None:
    if others := set(given) - its:
        raise InputError(f"--{min(others)}", f"not beside --{name}", "got both")


def _check(bench: Bench) -> None:
    if bench.brief and bench.plot:
        raise InputError("--plot", "without --brief, which measures no ceilings", "got both")
    if bench.report:
        check_writable(Path(bench.report))
    if bench.plot:
        check_plot()
        images.check_output(bench.plot, PLOT_FORMATS)
    if bench.compare and bench.style_losses != ("gram",):
        came = f"got {','.join(bench.style_losses)}"
        raise InputError("--style_losses", "gram, where there is --compare", came)
    if bench.compare and importlib.util.find_spec("torch") is None:
        raise InputError("--compare=torch", "needs torch: pip install torch", "it is not installed")


@contextlib.contextmanager
def _private_cache() -> Iterator[None]:
    """Keep compiled programs in an empty folder: the user's is neither read nor touched."""
    names = "jax_compilation_cache_dir", "jax_enable_compilation_cache"
    before = [jax.config.values[name] for name in names]
    with scratch_folder() as folder:
        _use_cache(str(folder), True)
        try:
            yield
        finally:
            _use_cache(*before)


def _use_cache(folder: str | None, enabled: bool) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()  # JAX opens it once and keeps it


def measure(arrays: Any, case: Case, bench: Bench) -> dict[str, Any]:
    """Return what a row tells of its case, or that it does not fit into memory."""
    try:
        with convolutions.using(case.convolutions), device.running_out(case.size, case.size):
            return _measure(arrays, case, bench)
    except (NotEnoughMemory, MemoryError) as error:
        return {"does_not_fit": str(error)}


def _measure(arrays: Any, case: Case, bench: Bench) -> dict[str, Any]:
    config = case.config(bench.iterations)
    params, programs = make_params(NETWORKS[case.network], arrays), _programs(config, case.batch)
    row = _compile(cast(params, case.precision), case, config.spec(), programs, bench.brief)
    content, style = np.random.default_rng(0).random((2, case.size, case.size, 3), np.float32)
    problem = make_problem(params, content, [style], config)
    targets = problem.targets()
    pictures = jnp.broadcast_to(content, programs.lanes + content.shape)
    evaluate = partial(programs.evaluate, pictures, problem.params, targets, programs.weights)
    chunk_seconds, in_chunk = _loop(problem, pictures, targets, programs)
    calls: dict[str, Callable[[], float]] = {
        "chunk": chunk_seconds,
        "lone": lambda: seconds(evaluate) / case.batch,
    }
    if not bench.brief:
        own = partial(own_convolutions, problem.params, problem.spec, case.size, case.batch)
        calls |= {"convolutions": own, "ceiling": partial(roofline.convolution_rate, case.precision)}
    if case.style_loss != "gram":
        gram = _lone_gram(params, problem, config, pictures, case.batch)
        calls["gram"] = lambda: seconds(gram) / case.batch
    if case.convolutions != "auto":
        calls["xla"] = _lone_xla(params, problem, config, pictures, case.batch)
    spans: list[tuple[float, int]] = []
    if bench.iterations:
        calls["run"] = partial(seconds, partial(_run, problem, config, case.batch, spans))
    for call in calls.values():
        call()  # compiles what is left
    row["memory"]["peak_bytes"] = row["peak_memory_bytes"] = device.peak_memory()
    others: dict[str, Callable[[], Any]] = {}
    if bench.compare:
        from nst_jax.launchers.torch_baseline import evaluations

        others, row["compared_failures"] = evaluations(arrays, problem, float(np.ravel(evaluate()[0])[0]))
    calls |= {name: partial(seconds, call) for name, call in others.items()}
    timed = _rounds(calls, bench.repeats)
    timed["loop"] = [value / in_chunk for value in timed["chunk"]]
    row |= _times(timed, list(others)) | _rates(case, problem.spec, timed)
    return row | {"idle_share": _idle(spans[1:], statistics.median(timed["loop"]))}


def _lone_gram(
    params: Params, problem: Problem, config: Config, pictures: jax.Array, batch: int
) -> Callable[[], Any]:
    """Return what evaluates the same problem with the style loss gram."""
    config = dataclasses.replace(config, style_loss="gram")
    problem = make_problem(params, problem.content, problem.styles, config)
    programs = _programs(config, batch)
    return partial(programs.evaluate, pictures, problem.params, problem.targets(), programs.weights)


def _lone_xla(
    params: Params, problem: Problem, config: Config, pictures: jax.Array, batch: int
) -> Callable[[], float]:
    """Return what times an evaluation of the same problem with XLA's convolutions in float32."""
    config = dataclasses.replace(config, precision="float32")
    with convolutions.using("xla"):
        plain = make_problem(params, problem.content, problem.styles, config)
        targets = plain.targets()
    programs = _programs(config, batch)

    def timed() -> float:
        with convolutions.using("xla"):
            call = partial(programs.evaluate, pictures, plain.params, targets, programs.weights)
            return seconds(call) / batch

    return timed


def _programs(config: Config, batch: int) -> Programs:
    spec, weights = config.spec(), config.loss_weights(1)
    evaluate = jax.value_and_grad(partial(_loss, spec=spec))
    if batch == 1:
        return Programs(initial_state, run_chunk, jax.jit(evaluate), (spec,), (), weights)
    shared: Any = None
    own: Any = jax.tree.map(lambda _: None, weights).with_terms(style=0)
    inputs = Inputs(params=shared, targets=shared, weights=own, learning_rate=shared)
    advance = jax.vmap(partial(run_steps, spec=spec), in_axes=(0, None, inputs))
    return Programs(
        jax.jit(jax.vmap(partial(initial_state, spec=spec), in_axes=(0, own))),
        jax.jit(advance, donate_argnums=0),
        jax.jit(jax.vmap(evaluate, in_axes=(0, None, None, own))),
        (),
        (batch,),
        weights.with_terms(style=weights.terms["style"] * _factors(batch)),
    )


def _factors(batch: int) -> jax.Array:
    return jnp.linspace(1, 2, batch)


def _loss(image: Any, params: Any, targets: Any, weights: Any, spec: Spec) -> Any:
    return total_loss(params, image, targets, weights, spec)


def _compile(params: Params, case: Case, spec: Spec, programs: Programs, brief: bool) -> dict[str, Any]:
    """Compile all programs, from nothing and, if not brief, from the cache.

    Raises NotEnoughMemory before any runs.
    """
    picture = jax.ShapeDtypeStruct((case.size, case.size, 3), jnp.float32)
    pictures = jax.ShapeDtypeStruct(programs.lanes + picture.shape, jnp.float32)
    targets = jax.eval_shape(partial(make_targets, spec=spec), params, picture, [picture])
    with _private_cache():
        jax.clear_caches()
        with device.CompileTime() as cold:
            loop = _compile_loop(params, pictures, targets, programs)
        needed, free = bytes_needed(loop), device.free_memory()
        if free is not None and needed > free:
            raise NotEnoughMemory(f"needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free")
        with device.CompileTime() as warm:
            if not brief:
                jax.clear_caches()
                _compile_loop(params, pictures, targets, programs)
    lone = programs.evaluate.lower(pictures, params, targets, programs.weights).compile()
    flop = (lone.cost_analysis() or {}).get("flops", math.nan)
    return {
        "compile_seconds": cold.seconds,
        "warm_compile_seconds": None if brief else warm.seconds,
        "gflop_compiler": flop / case.batch / 1e9,
        "memory": {"compiler_bytes": needed},
    }


def _compile_loop(params: Params, pictures: Any, targets: Any, programs: Programs) -> Any:
    """Compile the first state and the loop, as calls will find them; return the loop."""
    rate: Any = jax.ShapeDtypeStruct((), jnp.float32)
    first = programs.initial_state.lower(pictures, programs.weights, *programs.static)
    first.compile()
    inputs = Inputs(params=params, targets=targets, weights=programs.weights, learning_rate=rate)
    return programs.advance.lower(first.out_info, STEPS, inputs, *programs.static).compile()


def _loop(
    problem: Problem, pictures: jax.Array, targets: Targets, programs: Programs
) -> tuple[Callable[[], float], int]:
    """Return what times the first chunk, and how many evaluations that is: the same work in every round."""
    weights, static = programs.weights, programs.static
    inputs = problem.inputs(targets).replace(weights=weights)

    def begin() -> Any:
        state = programs.initial_state(pictures, weights, *static)
        return programs.advance(state, np.int32(0), inputs, *static)

    def advance(state: Any) -> Any:
        return programs.advance(state, STEPS, inputs, *static)

    def chunk_seconds() -> float:
        return seconds(partial(advance, jax.block_until_ready(begin())))

    return chunk_seconds, int(np.sum(advance(begin()).evaluations - 1))  # one is the first picture's


def _run(problem: Problem, config: Config, batch: int, spans: list[tuple[float, int]]) -> None:
    """Run from start to finish, as nst does, or nst-sweep for a batch.

    Of one picture, add to the spans the seconds and evaluations between the first picture and the last.
    """
    if batch == 1:
        steps = stylize_steps(problem.params, problem.content, problem.styles, config=config)
        first, began = next(steps), time.perf_counter()
        *_, last = first, *steps
        spans.append((time.perf_counter() - began, last.evaluations - first.evaluations))
        return
    weights = config.style_weight * _factors(batch)
    lanes = [
        with_hyperparameters(problem, dataclasses.replace(config, style_weight=float(weight)))
        for weight in weights
    ]
    deque(sweep(lanes, batch_size=batch, devices=jax.devices()[:1]), maxlen=0)


def _idle(spans: Sequence[tuple[float, int]], loop: float) -> float | None:
    """Return the share of a run's time in which the device waits between chunks, None without a run."""
    shares = [1 - evaluations * loop / span for span, evaluations in spans]
    return statistics.median(shares) if shares else None


def _rounds(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Return what every call gives, in turn, round after round."""
    rounds = [[call() for call in calls.values()] for _ in range(repeats)]
    return dict(zip(calls, map(list, zip(*rounds, strict=True)), strict=True))


def _rates(case: Case, spec: Spec, timed: dict[str, list[float]]) -> dict[str, Any]:
    loop = statistics.median(timed["loop"])
    ceiling = statistics.median(timed["ceiling"]) if "ceiling" in timed else None
    flop = roofline.flop_count(case.network, spec, case.size)
    return {
        "gflop": flop / 1e9,
        "flop_per_byte": flop / roofline.byte_count(case.network, spec, case.size, case.batch),
        "gflop_per_second": flop / 1e9 / loop,
        "ceiling_gflop_per_second": ceiling,
        "share_of_ceiling": flop / 1e9 / loop / ceiling if ceiling else None,
    }


def _times(timed: dict[str, list[float]], others: Sequence[str]) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in timed.items()}
    loop, own = median["loop"], median.get("convolutions")
    row: dict[str, Any] = {
        "seconds_per_evaluation": {"median": loop, "min": min(timed["loop"]), "max": max(timed["loop"])},
        "chunk_seconds": median["chunk"],
        "run_seconds": median.get("run"),
        "lone_seconds": median["lone"],
        "convolution_seconds": own,
        "lone_over_gram": median["lone"] / median.get("gram", median["lone"]),
        "xla_over_lone": statistics.median(map(operator.truediv, timed["xla"], timed["lone"]))
        if "xla" in timed
        else None,
        "loop_over_lone": loop / median["lone"],
        "loop_over_convolutions": loop / own if own else None,
        "convolution_share": own / loop if own else None,
    }
    if others:
        row["compared_seconds"] = {name: median[name] for name in others}
        row["compared_ratios"] = {name: median[name] / loop for name in others}
        row["compared_over_loop"] = min(row["compared_ratios"].values())
    return row


def _circumstances(bench: Bench) -> dict[str, Any]:
    return {
        "nst_jax": nst_jax.__version__,
        "versions": device.versions(),
        "device": device.describe(),
        "flags": dataclasses.asdict(bench),
    }


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


COLUMNS: list[tuple[str, int, Callable[[dict[str, Any]], str]]] = [
    ("network", 7, lambda row: row["network"]),
    ("size", 5, lambda row: str(row["size"])),
    ("style loss", 11, lambda row: row["style_loss"]),
    ("optimizer", 9, lambda row: row["optimizer"]),
    ("precision", 13, lambda row: row["precision"]),
    ("batch", 5, lambda row: str(row["batch"])),
    ("convolved", 9, lambda row: row["convolutions"]),
    ("s/eval", 9, lambda row: f"{row['seconds_per_evaluation']['median']:.4g}"),
    ("min", 9, lambda row: f"{row['seconds_per_evaluation']['min']:.4g}"),
    ("max", 9, lambda row: f"{row['seconds_per_evaluation']['max']:.4g}"),
    ("run s", 7, lambda row: _number(row["run_seconds"], ".3g")),
    ("compile s", 9, lambda row: f"{row['compile_seconds']:.2f}"),
    ("GFLOP/s", 8, lambda row: f"{row['gflop_per_second']:.0f}"),
    ("share", 5, lambda row: _number(row["share_of_ceiling"], ".2f")),
    ("peak GiB", 8, lambda row: f"{row['peak_memory_bytes'] / 2**30:.2f}"),
    ("lone/gram", 9, lambda row: f"{row['lone_over_gram']:.3f}"),
    ("xla/lone", 8, lambda row: _number(row["xla_over_lone"], ".2f")),
    ("loop/lone", 9, lambda row: f"{row['loop_over_lone']:.3f}"),
    ("loop/convs", 10, lambda row: _number(row["loop_over_convolutions"], ".3f")),
    ("torch/loop", 10, lambda row: _number(row.get("compared_over_loop"), ".3f")),
    ("idle", 5, lambda row: _number(row["idle_share"], ".2f")),
]


def _line(row: dict[str, Any]) -> str:
    if "does_not_fit" not in row:
        return " ".join(f"{text(row):>{width}}" for _, width, text in COLUMNS)
    case = " ".join(f"{text(row):>{width}}" for _, width, text in COLUMNS[: len(Case._fields)])
    return f"{case} does not fit: {row['does_not_fit']}"


PROGRAM = Program("nst-bench", __doc__, (Bench,), main)


def console() -> None:
    """Run the program `nst-bench` on the command line."""
    launch(PROGRAM)
