"""Experiments by name: flags of XLA and variants of the program, for nst-bench --experiment=NAME.

Each has its prediction, and what was measured, in benchmarks/NOTES.md. A variant replaces functions of the
package for as long as it is measured. What helps is moved into the package. What does not stays here, to be
tried again with other versions or devices.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nst_jax.losses.style import term
from nst_jax.networks import vgg
from nst_jax.optimize import loop
from nst_jax.optimize.optimizers import Coordinates
from nst_jax.optimize.parametrizations import PARAMETRIZATIONS
from nst_jax.system import device


class Experiment(NamedTuple):
    """Flags of XLA, and what takes the place of something else, by module and name."""

    flags: tuple[str, ...] = ()  # {folder}: where what one process finds is left to the next
    replaced: Mapping[tuple[Any, str], Any] = {}
    platform: str = ""  # the only one where it means anything


def _plain_layer(x: Any, kernel: Any, flipped: Any, bias: Any, products: lax.Precision) -> Any:
    """Return the layer with the backward pass that JAX derives: a transposed convolution."""
    sums = vgg.convolution(x, kernel, products) + bias[None, None, None].astype(jnp.float32)
    return jax.nn.relu(sums).astype(x.dtype)


def _narrow_layer(x: Any, kernel: Any, flipped: Any, bias: Any, products: lax.Precision) -> Any:
    """Return the layer with the bias added in x's type: the pattern that XLA hands to cuDNN as a whole."""
    sums = vgg.convolution(x, kernel, products).astype(x.dtype) + bias[None, None, None].astype(x.dtype)
    return jax.nn.relu(sums)


def _narrow() -> Callable[..., Any]:
    def forward(*arguments: Any) -> Any:
        y = _narrow_layer(*arguments)
        return y, (y, arguments[2])

    layer = jax.custom_vjp(_narrow_layer, nondiff_argnums=(4,))
    layer.defvjp(forward, vgg._layer_backward)
    return layer


def _five_at_once(condition: Any, body: Any, state: Any) -> Any:
    """Loop over five steps at once: the same where their number is a multiple of five."""

    def five(state: Any) -> Any:
        for _ in range(5):
            state = body(state)
        return state

    return lax.while_loop(condition, five, body(state))  # the first evaluation, or a step too many


def _separable(spec: Any) -> Coordinates:
    """Return a blur along rows and then columns, as two products: not the coordinates, but their cost."""

    def blur(image: Any) -> Any:
        rows, columns = (
            jnp.exp(-jnp.abs(jnp.arange(n)[:, None] - jnp.arange(n)[None]) / 4) / 8 for n in image.shape[:2]
        )
        return jnp.einsum("ij,jkc,kl->ilc", rows, image, columns, precision=lax.Precision.HIGHEST)

    return Coordinates(blur, lambda image: blur(blur(image)))


_LAYER = (vgg, "_layer")
_BUFFERS = "--xla_gpu_enable_command_buffer="

EXPERIMENTS = {
    "": Experiment(),
    "wide-sums": Experiment(replaced={(vgg, "_sums_type"): lambda dtype: jnp.float32}, platform="gpu"),
    "padded-3": Experiment(replaced={(vgg, "_least_channels"): lambda: 3}),
    "padded-4": Experiment(replaced={(vgg, "_least_channels"): lambda: 4}),
    "padded-8": Experiment(replaced={(vgg, "_least_channels"): lambda: 8}),
    "wide-grams": Experiment(replaced={(term, "_takes_held"): lambda spec: False}, platform="gpu"),
    "transposed": Experiment(replaced={_LAYER: _plain_layer}),
    "bias-in-bfloat16": Experiment(replaced={_LAYER: _narrow()}, platform="gpu"),
    "runtime-fusion": Experiment(("--xla_gpu_use_runtime_fusion=true",), {_LAYER: _narrow()}, platform="gpu"),
    "convolution-fusion": Experiment(("--xla_gpu_experimental_enable_conv_fusion=true",), platform="gpu"),
    "channels-last": Experiment(("--xla_gpu_force_conv_nhwc=true",), platform="gpu"),
    "no-buffers": Experiment((_BUFFERS,), platform="gpu"),
    "buffers": Experiment(
        (f"{_BUFFERS}+CONVOLUTION,+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_FUSION",), platform="gpu"
    ),
    "unrolled-buffers": Experiment(
        (f"{_BUFFERS}+CONVOLUTION,+WHILE,+CONDITIONAL", "--xla_gpu_command_buffer_unroll_loops=true"),
        platform="gpu",
    ),
    "five-steps-at-once": Experiment(replaced={(loop, "while_loop"): _five_at_once}),
    "separable": Experiment(
        replaced={(loop, "PARAMETRIZATIONS"): PARAMETRIZATIONS | {"fourier": _separable}}
    ),
    "no-autotuning": Experiment(("--xla_gpu_autotune_level=0",), platform="gpu"),
    "autotuning-saved": Experiment(
        ("--xla_gpu_dump_autotune_results_to={folder}/autotuning.txt",), platform="gpu"
    ),
    "autotuning-loaded": Experiment(
        ("--xla_gpu_load_autotune_results_from={folder}/autotuning.txt",), platform="gpu"
    ),
    "deterministic": Experiment((device.DETERMINISTIC,), platform="gpu"),
}


def set_flags(name: str) -> None:
    """Add an experiment's flags to those of XLA, which ends the process where it does not know one.

    Has no effect once JAX's backend has started.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or tempfile.gettempdir()
    device.add_flags(*(flag.format(folder=folder) for flag in EXPERIMENTS[name].flags))


@contextlib.contextmanager
def replaced(name: str) -> Iterator[None]:
    """Put an experiment's functions in the place of the package's own."""
    before = {place: getattr(*place) for place in EXPERIMENTS[name].replaced}
    for (module, attribute), function in EXPERIMENTS[name].replaced.items():
        setattr(module, attribute, function)
    jax.clear_caches()
    try:
        yield
    finally:
        for (module, attribute), function in before.items():
            setattr(module, attribute, function)
        jax.clear_caches()
