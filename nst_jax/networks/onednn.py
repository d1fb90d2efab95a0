"""Calls of the native part: convolutions of oneDNN with bias and ReLU, and their backward passes.

A kernel goes there packed: its bytes behind a name made of them, by which the native part knows it again, so
that it is put in order once.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

HEADER = 64  # bytes before a packed kernel
HANDLERS = ("nst_forward", "nst_backward", "nst_pack")

_library: Any = None


def load(path: Path) -> None:
    """Load the native part and tell XLA of it. Raises OSError or AttributeError where it is none."""
    global _library
    library = ctypes.CDLL(str(path))
    for name in HANDLERS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    _library = library


def has_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16: AVX512_BF16 or AMX."""
    return bool(_library.nst_has_bfloat16())


def convolves_bfloat16() -> bool:
    """Return whether oneDNN convolves bfloat16 here: by products of it, or of float32 with AVX-512."""
    return bool(_library.nst_convolves_bfloat16())


def describe() -> str:
    """Return the version of oneDNN and its number of the instructions in use (dnnl_cpu_isa_t)."""
    major, minor = divmod(_library.nst_version(), 1000)
    return f"oneDNN {major}.{minor}, instructions {_library.nst_instructions():#x}"


def _pack(kernel: Float[Array, "3 3 _ _"]) -> UInt8[Array, " _"]:
    size = HEADER + kernel.size * kernel.dtype.itemsize
    return jax.ffi.ffi_call("nst_pack", jax.ShapeDtypeStruct((size,), jnp.uint8))(kernel)


@partial(jax.jit, static_argnames="dtype")
def pack_all(convolutions: Any, dtype: Any) -> Any:
    """Return a network's convolutions, by layer, with their kernels packed as this type."""
    return {
        name: held._replace(
            kernel=_pack(held.kernel.astype(dtype)),
            flipped=_pack(held.flipped.astype(dtype)),
            bias=held.bias.astype(jnp.float32),
        )
        for name, held in convolutions.items()
    }


def forward(
    x: Float[Array, "n h w i"], kernel: UInt8[Array, " _"], bias: Float[Array, " o"], padding: int = 1
) -> Float[Array, "n _ w o"]:
    """Return relu(x * kernel + bias), with so many rows of zeros above and below, and a column beside.

    Args:
        x: Activations.
        kernel: Packed for the native part.
        bias: Of each channel.
        padding: Rows of zeros above and below.
    """
    n, h, w, _ = x.shape
    shape = jax.ShapeDtypeStruct((n, h + 2 * padding - 2, w, bias.shape[0]), x.dtype)
    call = jax.ffi.ffi_call("nst_forward", shape, vmap_method="expand_dims")
    return call(x, kernel, bias, above=padding, below=padding)


def backward(
    cotangent: Float[Array, "n h w o"],
    y: Float[Array, "n h w o"],
    flipped: UInt8[Array, " _"],
    padding: int = 1,
) -> Float[Array, "n _ w i"]:
    """Return the cotangent where y is above 0, convolved with the flipped kernel.

    Args:
        cotangent: Of y.
        y: What forward returned.
        flipped: The kernel, turned and packed.
        padding: Rows of zeros above and below.
    """
    n, h, w, outputs = y.shape
    inputs = (flipped.shape[0] - HEADER) // (9 * outputs * y.dtype.itemsize)
    shape = jax.ShapeDtypeStruct((n, h + 2 * padding - 2, w, inputs), y.dtype)
    call = jax.ffi.ffi_call("nst_backward", shape, vmap_method="expand_dims")
    return call(cotangent, y, flipped, above=padding, below=padding)


def _with_neighbors(x: Float[Array, "n h w c"], axis: str, size: int) -> Float[Array, "n h+2 w c"]:
    """Return the rows of a device between the last of the one above and the first of the one below."""
    above = lax.ppermute(x[:, -1:], axis, [(k, k + 1) for k in range(size - 1)])
    below = lax.ppermute(x[:, :1], axis, [(k + 1, k) for k in range(size - 1)])
    return jnp.concatenate([above, x, below], 1)  # zeros where there is none


def _over_rows(function: Callable[..., Array], maps: int, rule: str) -> Callable[..., Array]:
    """Return a function whose first arguments, so many, and result may have their rows over devices."""

    def partition(mesh: Mesh, arguments: Any, result: Any) -> Any:
        axis = next((name for name in arguments[0].sharding.spec[1:2] if name is not None), None)
        rows = NamedSharding(mesh, PartitionSpec(None, axis))
        places = [rows if k < maps else NamedSharding(mesh, PartitionSpec()) for k in range(len(arguments))]

        def share(*given: Array) -> Array:
            if axis is None:
                return function(*given)
            wider = [_with_neighbors(x, axis, mesh.shape[axis]) for x in given[:maps]]
            return function(*wider, *given[maps:], padding=0)

        return mesh, share, rows, tuple(places)

    spread = custom_partitioning(lambda *arguments: function(*arguments))
    spread.def_partition(partition, sharding_rule=rule)
    return spread


_PASSES = {  # by whether rows may be over devices
    False: (forward, backward),
    True: (
        _over_rows(forward, 1, "n h w i, p, o -> n h w o"),
        _over_rows(backward, 2, "n h w o, n h w o, p -> n h w i"),
    ),
}


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def layer(
    x: Float[Array, "n h w i"],
    kernel: UInt8[Array, " _"],
    flipped: UInt8[Array, " _"],
    bias: Float[Array, " o"],
    spread: bool,
) -> Float[Array, "n h w o"]:
    """Return relu(x * kernel + bias), held as x is, summed in float32; only x has a gradient.

    Args:
        x: Maps, bfloat16 or float32, padded with zeros.
        kernel: Packed, of the type of x.
        flipped: The packed kernel of the backward pass.
        bias: In float32.
        spread: Whether the rows of x may be over several devices.
    """
    return _PASSES[spread][0](x, kernel, bias)


def _layer_forward(x: Any, kernel: Any, flipped: Any, bias: Any, spread: bool) -> tuple[Any, tuple[Any, Any]]:
    y = layer(x, kernel, flipped, bias, spread)
    return y, (y, flipped)


def _layer_backward(spread: bool, kept: Any, cotangent: Any) -> tuple[Any, None, None, None]:
    y, flipped = kept
    return _PASSES[spread][1](cotangent, y, flipped), None, None, None


layer.defvjp(_layer_forward, _layer_backward)
