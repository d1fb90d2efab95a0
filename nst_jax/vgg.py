"""VGG-16 and VGG-19 (Simonyan & Zisserman 2014, arXiv 1409.1556) as pure functions.

Shape letters: h, w rows and columns of a picture or feature map; c, i, o channels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from nst_jax.errors import InputError, did_you_mean

AnyArray = Array | np.ndarray  # host arrays are welcome wherever a picture comes in

NETWORKS: dict[str, tuple[int, ...]] = {  # convolutions per block; a 2x2 pooling lies between blocks
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
BLOCK_CHANNELS = (64, 128, 256, 512, 512)


class Precision(NamedTuple):
    """How numbers are held between layers, and how products are taken (and always summed in float32)."""

    activations: Any  # a dtype
    products: lax.Precision


PRECISIONS = {
    "float32": Precision(jnp.float32, lax.Precision.HIGHEST),
    "tensorfloat32": Precision(jnp.float32, lax.Precision.HIGH),  # GPU: TF32; TPU: three bfloat16 passes
    "bfloat16": Precision(jnp.bfloat16, lax.Precision.HIGH),
}
AUTO = {"gpu": "bfloat16"}  # by platform; else float32: see benchmarks/NOTES.md for why


def in_force(precision: str) -> str:
    """Return the key of PRECISIONS that a precision stands for: auto is what this platform is best at."""
    return AUTO.get(jax.default_backend(), "float32") if precision == "auto" else precision


class Convolution(NamedTuple):
    """A frozen 3x3 convolution, with the kernel of its own backward pass computed once."""

    kernel: Float[Array, "3 3 i o"]
    flipped: Float[Array, "3 3 o i"]  # kernel turned by 180 degrees, channel axes swapped
    bias: Float[Array, " o"]


class Params(NamedTuple):
    """A network: its convolutions by layer name, and the input normalisation they were trained with."""

    convolutions: dict[str, Convolution]
    mean: Float[Array, " 3"]  # RGB, of pictures in [0, 1]
    std: Float[Array, " 3"]


def layer_names(network: str) -> tuple[str, ...]:
    """Return the network's convolutions from the bottom up, named convB_K.

    >>> layer_names("vgg16")[-1], len(layer_names("vgg19"))
    ('conv5_3', 16)
    """
    return tuple(
        f"conv{block}_{k}" for block, count in enumerate(NETWORKS[network], 1) for k in range(1, count + 1)
    )


def kernel_shapes(network: str) -> dict[str, tuple[int, int, int, int]]:
    """Return the shape (3, 3, channels in, channels out) of every convolution's kernel."""
    shapes, channels = {}, 3
    for name in layer_names(network):
        width = BLOCK_CHANNELS[block_of(name) - 1]
        shapes[name] = (3, 3, channels, width)
        channels = width
    return shapes


def block_of(layer: str) -> int:
    """Return the block, 1 to 5, of a layer named convB_K: its maps lie on a grid of 2^(B-1) pixels."""
    return int(layer[len("conv")])


def map_shape(layer: str, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of a layer's map of a picture."""
    unit: int = 2 ** (block_of(layer) - 1)
    return height // unit, width // unit


def keep_rows(x: Float[AnyArray, "..."], rows: int, axis: int = 0) -> Float[AnyArray, "..."]:
    """Return x with zeros from so many rows on; 0 keeps all."""
    if rows in (0, x.shape[axis]):
        return x
    index = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    return jnp.where(index < rows, x, jnp.zeros((), x.dtype))


def halo(names: Iterable[str], layers: Sequence[str]) -> int:
    """Return how many pixels to each side of its own cell a position of the deepest of the layers sees.

    Cells are 2^(B-1) pixels a side. names: the network's convolutions.

    >>> halo(layer_names("vgg16"), ["conv1_2"]), halo(layer_names("vgg16"), ["conv5_1"])
    (2, 58)
    """
    return sum(2 ** (block_of(name) - 1) for name in names if name <= max(layers))


def check_layers(network: str, layers: Sequence[str], what: str = "layers") -> None:
    """Raise InputError unless every name is a layer of the network and stands there once."""
    known = layer_names(network)
    _check_known(layers, known, what, f"layers of {network} are {known[0]} ... {known[-1]}, or all")
    if len(set(layers)) != len(layers):
        raise InputError(what, "each layer once", f"got {','.join(layers)}")


def _check_known(layers: Sequence[str], known: Sequence[str], what: str, allowed: str) -> None:
    for name in layers:
        if name not in known:
            raise InputError(what, allowed, f"got {name!r}{did_you_mean(name, known)}")


def picture_list(pictures: Any) -> Sequence[Any]:
    """Return a list of pictures as it is, and a lone one as a list."""
    return [pictures] if getattr(pictures, "ndim", 0) == 3 else pictures


def check_picture(what: str, picture: Any) -> None:
    """Raise InputError unless a picture is an array (h, w, 3) of floats in [0, 1].

    A traced one has no values: it may have any.
    """
    shape = getattr(picture, "shape", None)
    if shape is None or len(shape) != 3 or shape[2] != 3:
        came = f"got {type(picture).__name__}" if shape is None else f"got the shape {shape}"
        raise InputError(what, "an array (h, w, 3)", came)
    if not jnp.issubdtype(picture.dtype, jnp.floating):
        raise InputError(what, "floats in [0, 1]", f"got {picture.dtype}")
    if not isinstance(picture, jax.core.Tracer):
        least, most = float(np.min(picture)), float(np.max(picture))
        if not 0 <= least <= most <= 1:
            raise InputError(what, "floats in [0, 1]", f"got numbers from {least:g} to {most:g}")


def smallest_side(layers: Sequence[str]) -> int:
    """Return the fewest pixels a side may have: 2^(B-1) for the deepest block B, and 2 for the variation."""
    return max([2, *(2 ** (block_of(name) - 1) for name in layers)])


def check_size(shape: Sequence[int], layers: Sequence[str], what: str) -> None:
    """Raise InputError where a picture of this shape is too small to reach the deepest of the layers."""
    least = smallest_side(layers)
    if min(shape[:2]) < least:
        allowed = f"at least {least} pixels a side for layer {max(layers)}"
        raise InputError(what, allowed, f"got {shape[1]}x{shape[0]}")


def make_params(arrays: Mapping[str, Any]) -> Params:
    """Build Params from flat arrays: convB_K.kernel (3, 3, i, o), convB_K.bias (o), mean (3), std (3)."""
    names = sorted(key.removesuffix(".kernel") for key in arrays if key.endswith(".kernel"))
    convolutions = {}
    for name in names:
        kernel = np.asarray(arrays[f"{name}.kernel"])
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # on the host: no program to compile at every start
        convolutions[name] = Convolution(*map(jnp.asarray, (kernel, flipped, arrays[f"{name}.bias"])))
    return Params(convolutions, jnp.asarray(arrays["mean"]), jnp.asarray(arrays["std"]))


def cast(params: Params, precision: str) -> Params:
    """Return the network with its convolutions held as a key of PRECISIONS says, or auto."""
    dtype = PRECISIONS[in_force(precision)].activations
    return params._replace(convolutions=jax.tree.map(lambda a: a.astype(dtype), params.convolutions))


def features(
    params: Params,
    image: Float[AnyArray, "h w 3"],
    layers: Sequence[str],
    *,
    pooling: str = "max",
    precision: str = "float32",
    rows: int = 0,
) -> dict[str, Float[Array, "_ _ _"]]:
    """Return the activations after ReLU at the layers of a network.

    Only as much of the network runs as the deepest layer needs. Convolutions are padded with zeros. Poolings
    halve each side and drop a last odd row or column.

    Args:
        params: The network, from load_vgg().
        image: A picture (h, w, 3), RGB in [0, 1].
        layers: Names of layers, convB_K.
        pooling: A key of POOLINGS.
        precision: A key of PRECISIONS, or auto.
        rows: The rows of the picture, if there are others below them. These have no influence. 0: all.

    Returns:
        By layer, (h / 2^(B-1), w / 2^(B-1), channels). With rows, zeros below the picture's own.

    Raises:
        InputError: A layer is not the network's, or the picture is none, or too small for the deepest layer.
    """
    if not layers:
        return {}
    known = sorted(params.convolutions)
    _check_known(layers, known, "layers", f"a list of layers from {known[0]} to {known[-1]}")
    check_picture("picture", image)
    check_size((rows or image.shape[0], image.shape[1]), layers, "picture")
    pool, (dtype, products) = POOLINGS[pooling], PRECISIONS[in_force(precision)]
    params = cast(params, precision)
    x = ((image - params.mean[None, None]) / params.std[None, None])[None].astype(dtype)
    x = jnp.asarray(keep_rows(x, rows, 1))
    activations: dict[str, Float[Array, "_ _ _"]] = {}
    block = 1
    for name in sorted(params.convolutions):  # convB_K sorts from the bottom up
        if block_of(name) > block:
            x, block, rows = pool(x), block_of(name), rows // 2
            x = jnp.asarray(keep_rows(x, rows, 1))  # an odd last row has met the zeros below it
        x = jnp.asarray(keep_rows(_apply(params.convolutions[name], x, products), rows, 1))
        activations[name] = x[0]
        if name == max(layers):
            break
    return {name: activations[name] for name in layers}


def _least_channels() -> int:
    """Return to how many channels a picture is padded: on accelerators to what tensor cores take at once."""
    return 3 if jax.default_backend() == "cpu" else 8


def _sums_type(dtype: Any) -> Any:
    """Return the type in which a convolution of this one hands out its sums."""
    # XLA:GPU has no convolution of bfloat16 that hands out float32: it would widen x and take TF32 products.
    # XLA:CPU (jax 0.12) fuses what follows into one that hands out bfloat16, and gives NaN.
    return jnp.float32 if jax.default_backend() == "cpu" else dtype


def _apply(
    convolution: Convolution, x: Float[Array, "n h w i"], products: lax.Precision
) -> Float[Array, "n h w o"]:
    """Return what a layer makes of x, which is padded to the least channels there are to be."""
    kernel, flipped, bias = convolution
    if (missing := _least_channels() - x.shape[3]) > 0:
        x = jnp.pad(x, [(0, 0)] * 3 + [(0, missing)])
        kernel = jnp.pad(kernel, [(0, 0)] * 2 + [(0, missing), (0, 0)])
        flipped = jnp.pad(flipped, [(0, 0)] * 3 + [(0, missing)])
    return _layer(x, kernel, flipped, bias, products)


def convolution(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "3 3 i o"],
    products: lax.Precision = lax.Precision.HIGHEST,
) -> Float[Array, "n h w o"]:
    """Return the zero-padded cross-correlation of x with kernel, summed in float32, in float32.

    On an accelerator the sums of bfloat16 are rounded to bfloat16.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=products,
        preferred_element_type=_sums_type(x.dtype),
    ).astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _layer(
    x: Float[Array, "n h w i"],
    kernel: Float[Array, "3 3 i o"],
    flipped: Float[Array, "3 3 o i"],
    bias: Float[Array, " o"],
    products: lax.Precision,
) -> Float[Array, "n h w o"]:
    """Return relu(x * kernel + bias), held as x is. Kernel and bias are frozen: only x has a gradient.

    That is the cotangent, where the result is above 0, convolved with flipped. XLA's own transposed
    convolution leaves the fast path inside a loop on CPU (4-5 times slower); an ordinary convolution with a
    kernel that comes from outside the loop does not. The result is all that is kept for the backward pass.
    """
    del flipped
    sums = convolution(x, kernel, products) + bias[None, None, None].astype(jnp.float32)
    return jax.nn.relu(sums).astype(x.dtype)


def _layer_forward(
    x: Any, kernel: Any, flipped: Any, bias: Any, products: lax.Precision
) -> tuple[Any, tuple[Any, Any]]:
    y = _layer(x, kernel, flipped, bias, products)
    return y, (y, flipped)


def _layer_backward(products: lax.Precision, kept: Any, cotangent: Any) -> tuple[Any, None, None, None]:
    y, flipped = kept
    passed = jnp.where(y > 0, cotangent, jnp.zeros((), cotangent.dtype))
    return convolution(passed, flipped, products).astype(y.dtype), None, None, None


_layer.defvjp(_layer_forward, _layer_backward)


def _windows(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 2 w//2 2 c"]:
    """Cut into 2x2 windows: a reshape, as reduce_window's gradient is slow on CPU."""
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)


def _corners(x: Float[Array, "n h w c"]) -> list[Float[Array, "n h//2 w//2 c"]]:
    windows = _windows(x)
    return [windows[:, :, i, :, j] for i in (0, 1) for j in (0, 1)]


@jax.custom_vjp
def _max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Return the greatest of each 2x2 window; equal ones share the gradient evenly, as jnp.max's do.

    The backward pass that JAX derives counts them by a reduction over a map of float32: on CPU a twentieth of
    an evaluation and a quarter of its memory.
    """
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _max_pool_forward(x: Any) -> tuple[Any, tuple[Any, Any]]:
    y = _max_pool(x)
    return y, (x, y)


def _max_pool_backward(kept: Any, cotangent: Any) -> tuple[Any]:
    x, y = kept
    n, h, w, c = x.shape
    share = cotangent / sum((corner == y).astype(cotangent.dtype) for corner in _corners(x))
    greatest = _windows(x) == y[:, :, None, :, None]
    slope = jnp.where(greatest, share[:, :, None, :, None], jnp.zeros((), share.dtype))
    slope = slope.reshape(n, h // 2 * 2, w // 2 * 2, c)
    return (jnp.pad(slope, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))) if h % 2 or w % 2 else slope,)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)

POOLINGS: dict[str, Callable[[Array], Array]] = {
    "max": _max_pool,
    "average": lambda x: _windows(x).mean((2, 4)),
}
