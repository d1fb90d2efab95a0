"""Measure this machine: seconds per evaluation of the objective, alone and in the compiled loop.

Everything in a row is measured in turn, round after round, so that ratios survive a noisy machine.
Example: nst-bench --sizes=256,512 --compare=torch --report=bench.json
"""

import dataclasses
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import nst_jax
from nst_jax import vgg
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.files import check_writable, write_whole
from nst_jax.launchers import device
from nst_jax.launchers.common import DONE, Given, Program, launch, tell
from nst_jax.objective import LossWeights, Spec, Targets, make_targets, total_loss
from nst_jax.optimizers import OPTIMIZERS
from nst_jax.options import check_options, option
from nst_jax.report import to_json
from nst_jax.transfer import run_chunk, start
from nst_jax.weights import load_weights

STEPS = 10  # of the optimiser in one timed chunk: as long as those of nst


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured."""

    sizes: tuple[int, ...] = option((256, 512), "sides of square pictures, in pixels", low=16, high=16384)
    networks: tuple[str, ...] = option(("vgg16",), "networks", choices=vgg.NETWORKS)
    optimizers: tuple[str, ...] = option(("lbfgs", "adam"), "optimisers", choices=OPTIMIZERS)
    repeats: int = option(5, "rounds that are timed, after one that is not", low=1, high=1000)
    compare: str = option(
        "", "another implementation of the same loss, measured in turn: torch", choices=("", "torch")
    )
    report: str = option("", "JSON file for every measured number")

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("sizes", "networks", "optimizers"):
            if not getattr(self, name):
                raise InputError(f"--{name}", "at least one", "got none")


class Problem(NamedTuple):
    """An objective to evaluate, with an optimiser."""

    params: vgg.Params
    image: jax.Array
    targets: Targets
    weights: LossWeights
    spec: Spec


def main(given: Given) -> int:
    """Run `nst-bench` with the options given: a table row per network, size and optimiser."""
    bench = Bench(**given)
    if bench.report:
        check_writable(Path(bench.report))
    if bench.compare:
        check_torch()
    device.set_up(cached=False)  # compile times are to be those of a first run
    arrays = {network: load_weights(network).arrays for network in bench.networks}
    rows = []
    print(" ".join(f"{title:>{width}}" for title, width, _ in COLUMNS))
    for network in bench.networks:
        for size in bench.sizes:
            for optimizer in bench.optimizers:
                rows.append(measure(arrays[network], network, size, optimizer, bench))
                print(_line(rows[-1]), flush=True)
    if bench.report:
        write_whole(Path(bench.report), to_json({**_circumstances(), "rows": rows}))
        tell(bench.report)
    return DONE


def measure(arrays: Any, network: str, size: int, optimizer: str, bench: Bench) -> dict[str, Any]:
    """Return one row: medians over the rounds, with minimum and maximum of the evaluation in the loop."""
    problem, content, style = _problem(arrays, network, size, optimizer)
    with device.CompileTime() as compiling:
        loop = _Loop(problem)
    alone = _lone_evaluation(problem)
    convolutions = _convolutions(problem)
    others = _torch_evaluations(arrays, content, style, problem) if bench.compare else {}
    timed: dict[str, list[float]] = {}
    for _ in range(1 + bench.repeats):
        timed.setdefault("loop", []).append(loop.seconds_per_evaluation())
        timed.setdefault("lone", []).append(_seconds(alone))
        timed.setdefault("convolutions", []).append(sum(map(_seconds, convolutions)))
        for name, evaluation in others.items():
            timed.setdefault(name, []).append(_seconds(evaluation))
    median = {name: statistics.median(values[1:]) for name, values in timed.items()}
    gigaflop = flop_count(network, problem.spec, size) / 1e9
    row = {
        "network": network,
        "size": size,
        "optimizer": optimizer,
        "seconds_per_evaluation": {
            "median": median["loop"],
            "min": min(timed["loop"][1:]),
            "max": max(timed["loop"][1:]),
        },
        "lone_seconds": median["lone"],
        "convolution_seconds": median["convolutions"],
        "compile_seconds": compiling.seconds,
        "gflop": gigaflop,
        "gflop_per_second": gigaflop / median["loop"],
        "loop_over_lone": median["loop"] / median["lone"],
        "loop_over_convolutions": median["loop"] / median["convolutions"],
        "convolution_share": median["convolutions"] / median["loop"],
        "peak_memory_bytes": device.peak_memory(),
    }
    if others:
        row["compared_seconds"] = {name: median[name] for name in others}
        row["compared_over_loop"] = min(median[name] for name in others) / median["loop"]
    return row


def flop_count(network: str, spec: Spec, size: int) -> float:
    """Return the floating-point operations of the convolutions in one evaluation, forward and backward.

    2 * 9 * i * o * h * w for a convolution, and the same again for the gradient with respect to its input.
    """
    deepest = max(spec.content_layers + spec.style_layers)
    shapes = vgg.kernel_shapes(network)
    sides = {name: size // 2 ** (vgg.block_of(name) - 1) for name in shapes if name <= deepest}
    return float(sum(2 * 2 * np.prod(shapes[name], dtype=float) * side**2 for name, side in sides.items()))


def _problem(arrays: Any, network: str, size: int, optimizer: str) -> tuple[Problem, np.ndarray, np.ndarray]:
    config = Config(network=network, optimizer=optimizer)
    content, style = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    params, spec = vgg.make_params(arrays), config.spec()
    targets = make_targets(params, jnp.asarray(content), [jnp.asarray(style)], spec)
    return Problem(params, jnp.asarray(content), targets, config.loss_weights(1), spec), content, style


class _Loop:
    """The compiled loop, advanced a chunk at a time."""

    def __init__(self, problem: Problem):
        self.rest = (problem.params, problem.targets, problem.weights, jnp.float32(0.01), problem.spec)
        self.state = start(problem.params, problem.image, problem.targets, problem.weights, problem.spec)
        self.state = run_chunk(self.state, np.int32(0), *self.rest)

    def seconds_per_evaluation(self) -> float:
        before = int(self.state.evaluations)
        began = time.perf_counter()
        self.state = jax.block_until_ready(run_chunk(self.state, np.int32(STEPS), *self.rest))
        return (time.perf_counter() - began) / (int(self.state.evaluations) - before)


def _lone_evaluation(problem: Problem) -> Callable[[], Any]:
    evaluate = jax.jit(jax.value_and_grad(partial(_loss, spec=problem.spec)))
    return partial(evaluate, problem.image, problem.params, problem.targets, problem.weights)


def _loss(image: Any, params: Any, targets: Any, weights: Any, spec: Spec) -> Any:
    return total_loss(params, image, targets, weights, spec)


def _convolutions(problem: Problem) -> list[Callable[[], Any]]:
    """Return every convolution of the evaluation, forward and backward, each compiled alone."""
    convolve = jax.jit(vgg.convolution)
    calls: list[Callable[[], Any]] = []
    size = problem.image.shape[0]
    deepest = max(problem.spec.content_layers + problem.spec.style_layers)
    for name, layer in problem.params.convolutions.items():
        if name <= deepest:
            side = size // 2 ** (vgg.block_of(name) - 1)
            for kernel in (layer.kernel, layer.flipped):
                calls.append(partial(convolve, jnp.ones((1, side, side, kernel.shape[2])), kernel))
    return calls


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def check_torch() -> None:
    """Raise InputError where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise InputError("--compare=torch", "needs torch: pip install torch", "it is not installed")


def _torch_evaluations(
    arrays: Any, content: np.ndarray, style: np.ndarray, problem: Problem
) -> dict[str, Callable[[], Any]]:
    """Return the same evaluation in plain PyTorch, in both memory layouts, after checking its value."""
    from nst_jax.launchers.torch_baseline import evaluation

    ours = float(_lone_evaluation(problem)()[0])
    calls = {}
    for layout in ("nchw", "channels_last"):
        call = evaluation(
            arrays, content, style, problem.weights, problem.spec, channels_last=layout != "nchw"
        )
        theirs = call()[0]
        if not np.isclose(theirs, ours, rtol=1e-3):
            raise AssertionError(f"torch's loss {theirs} is not ours, {ours}: the comparison would be void")
        calls[f"torch_{layout}"] = call
    return calls


def _circumstances() -> dict[str, Any]:
    packages: Sequence[str] = ("jax", "jaxlib", "optax", "numpy", "torch")
    installed = {dist.metadata["Name"].lower() for dist in metadata.distributions()}
    versions = {name: metadata.version(name) for name in packages if name in installed}
    return {"nst_jax": nst_jax.__version__, "versions": versions, "device": device.describe()}


COLUMNS: list[tuple[str, int, Callable[[dict[str, Any]], str]]] = [
    ("network", 7, lambda row: row["network"]),
    ("size", 5, lambda row: str(row["size"])),
    ("optimizer", 9, lambda row: row["optimizer"]),
    ("s/eval", 9, lambda row: f"{row['seconds_per_evaluation']['median']:.4g}"),
    ("min", 9, lambda row: f"{row['seconds_per_evaluation']['min']:.4g}"),
    ("max", 9, lambda row: f"{row['seconds_per_evaluation']['max']:.4g}"),
    ("compile s", 9, lambda row: f"{row['compile_seconds']:.2f}"),
    ("GFLOP/s", 8, lambda row: f"{row['gflop_per_second']:.0f}"),
    ("loop/lone", 9, lambda row: f"{row['loop_over_lone']:.3f}"),
    ("loop/convs", 10, lambda row: f"{row['loop_over_convolutions']:.3f}"),
    (
        "torch/loop",
        10,
        lambda row: f"{row['compared_over_loop']:.3f}" if "compared_over_loop" in row else "-",
    ),
]


def _line(row: dict[str, Any]) -> str:
    return " ".join(f"{text(row):>{width}}" for _, width, text in COLUMNS)


PROGRAM = Program("nst-bench", __doc__, (Bench,), main)


def console() -> None:
    """Run the program `nst-bench` on the command line."""
    launch(PROGRAM)
