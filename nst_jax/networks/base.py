"""What a network tells of itself: its layers, and how pictures, parameters and files go through it.

Shape letters: h, w rows and columns of a picture or feature map; c, i, o channels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from nst_jax.errors import InputError, did_you_mean
from nst_jax.networks import convolutions
from nst_jax.networks.convolutions import in_force
from nst_jax.networks.precision import PRECISIONS

AnyArray = Array | np.ndarray  # host arrays are welcome wherever a picture comes in


class Layer(NamedTuple):
    """A convolution of a network with its ReLU, whose map the losses read."""

    name: str
    depth: int  # its number from the bottom up, from 1
    stride: int  # pixels from one position of the map to the next; each layer's divides those above
    reach: int  # pixels to each side of its own cell, of stride x stride pixels, that a position sees
    least: int  # pixels a side of the smallest picture that has a position
    kernel: tuple[int, int, int, int]  # rows, columns, channels in, channels out

    @property
    def channels(self) -> int:
        """The channels of the map."""
        return self.kernel[3]

    def map_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the map of a picture."""
        return height // self.stride, width // self.stride


@jax.tree_util.register_static
class Network(NamedTuple):
    """A network: its name, its layers from the bottom up, and how it is run and read from files.

    forward: (params, image, layer names, pooling, precision, rows) -> activations by layer, as features().
    published: (file format, name of a group of arrays in a published file) -> the name of its layer. An
        unknown name is refused. None: the group is no convolution, and is skipped.
    """

    name: str
    layers: tuple[Layer, ...]
    forward: Callable[..., dict[str, Array]]
    published: Callable[[str, str], str | None]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers, from the bottom up."""
        return tuple(layer.name for layer in self.layers)

    @property
    def kernels(self) -> dict[str, tuple[int, int, int, int]]:
        """The shape (rows, columns, channels in, channels out) of every layer's kernel."""
        return {layer.name: layer.kernel for layer in self.layers}

    def layer(self, name: str) -> Layer:
        """Return the layer of this name."""
        return next(layer for layer in self.layers if layer.name == name)

    def select(self, names: Iterable[str]) -> tuple[Layer, ...]:
        """Return the layers of these names, from the bottom up."""
        chosen = set(names)
        return tuple(layer for layer in self.layers if layer.name in chosen)

    def deepest(self, names: Iterable[str]) -> Layer:
        """Return the deepest layer of these names."""
        return self.select(names)[-1]


class Step(NamedTuple):
    """A convolution of a network that is a chain, and the pooling before it."""

    name: str
    kernel: tuple[int, int, int, int]
    padding: int
    stride: int = 1
    pool: tuple[int, int] = (1, 1)  # side of the windows and stride of a pooling before it, without padding


def describe(steps: Sequence[Step]) -> tuple[Layer, ...]:
    """Return the layers of a chain of convolutions, each padded with zeros, with ReLUs and poolings.

    >>> describe([Step("a", (3, 3, 3, 8), 1), Step("b", (3, 3, 8, 9), 1, pool=(2, 2))])[1]
    Layer(name='b', depth=2, stride=2, reach=3, least=2, kernel=(3, 3, 8, 9))
    """
    layers, stride, before, behind = [], 1, 0, 0  # a position p sees p stride - before ... p stride + behind
    for depth, step in enumerate(steps, 1):
        side, pool_stride = step.pool
        behind += (side - 1) * stride
        stride *= pool_stride
        before += step.padding * stride
        behind += (step.kernel[0] - 1 - step.padding) * stride
        stride *= step.stride
        reach = max(before, behind - (stride - 1))
        layers.append(Layer(step.name, depth, stride, reach, _least(steps[:depth]), step.kernel))
    return tuple(layers)


def _least(steps: Sequence[Step]) -> int:
    """Return the fewest pixels a side of which these steps leave a position."""
    least = 1
    for step in reversed(steps):
        least = max(1, (least - 1) * step.stride + step.kernel[0] - 2 * step.padding)
        least = (least - 1) * step.pool[1] + step.pool[0]
    return least


class Convolution(NamedTuple):
    """A frozen convolution, with the kernel of its own backward pass computed once."""

    kernel: Float[Array, "_ _ i o"]
    flipped: Float[Array, "_ _ o i"]  # kernel turned by 180 degrees, channel axes swapped
    bias: Float[Array, " o"]


class Params(NamedTuple):
    """The parameters of a network: its convolutions by layer, and the mean and deviation of its input."""

    convolutions: dict[str, Convolution]
    mean: Float[Array, " 3"]  # RGB, of pictures in [0, 1]
    std: Float[Array, " 3"]
    network: Network  # static


def make_params(network: Network, arrays: Mapping[str, Any]) -> Params:
    """Build Params from flat arrays: LAYER.kernel (rows, columns, i, o), LAYER.bias (o), mean (3), std (3).

    Layers that there are no arrays of are left out.
    """
    convolutions = {}
    for name in network.names:
        if f"{name}.kernel" in arrays:
            kernel = np.asarray(arrays[f"{name}.kernel"])
            flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # on the host: no program to compile at every start
            convolutions[name] = Convolution(*map(jnp.asarray, (kernel, flipped, arrays[f"{name}.bias"])))
    return Params(convolutions, jnp.asarray(arrays["mean"]), jnp.asarray(arrays["std"]), network)


def cast(params: Params, precision: str) -> Params:
    """Return the network with its convolutions held as a key of PRECISIONS says, or auto.

    Where the native part runs them, their kernels are packed: one axis, of bytes.
    """
    dtype, held = PRECISIONS[in_force(precision)].activations, params.convolutions
    if all(convolution.kernel.ndim == 1 for convolution in held.values()):  # they are packed
        return params
    if all(layer.kernel[:2] == (3, 3) for layer in params.network.layers) and (
        native := convolutions.native(precision)
    ):
        return params._replace(convolutions=native.pack_all(held, dtype))
    return params._replace(convolutions=jax.tree.map(lambda a: a.astype(dtype), held))


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

    The network runs up to the deepest of these layers. Convolutions are padded with zeros. VGG's poolings
    halve each side and drop a last odd row or column.

    Args:
        params: The network, from load_vgg().
        image: A picture (h, w, 3), RGB in [0, 1].
        layers: Names of layers, such as those of Config.spec().
        pooling: A key of POOLINGS.
        precision: A key of PRECISIONS, or auto.
        rows: How many rows are the picture; the others are padding without influence. 0: all of them.

    Returns:
        Activations by layer, (h / stride, w / stride, channels). They are 0 in the padding.

    Raises:
        InputError: A layer is unknown, or the picture has a wrong shape or is too small for the layers.
    """
    if not layers:
        return {}
    network = params.network
    known = [name for name in network.names if name in params.convolutions]
    _check_known(layers, known, "layers", f"a list of layers from {known[0]} to {known[-1]}")
    check_picture("picture", image)
    check_size((rows or image.shape[0], image.shape[1]), network.select(layers), "picture")
    return network.forward(cast(params, precision), image, layers, pooling, precision, rows)


def check_layers(network: Network, layers: Sequence[str], what: str = "layers") -> None:
    """Raise InputError unless every name is a layer of the network and stands there once.

    Args:
        network: The one that the layers are of.
        layers: Their names.
        what: What the error calls them.
    """
    known = network.names
    _check_known(layers, known, what, f"layers of {network.name} are {known[0]} ... {known[-1]}, or all")
    if len(set(layers)) != len(layers):
        raise InputError(what, "each layer once", f"got {','.join(layers)}")


def _check_known(layers: Sequence[str], known: Sequence[str], what: str, allowed: str) -> None:
    for name in layers:
        if name not in known:
            raise InputError(what, allowed, f"got {name!r}{did_you_mean(name, known)}")


def smallest_side(layers: Sequence[Layer]) -> int:
    """Return the fewest pixels a side may have: those of the deepest layer, and 2 for the variation."""
    return max([2, *(layer.least for layer in layers)])


def check_size(shape: Sequence[int], layers: Sequence[Layer], what: str) -> None:
    """Raise InputError where a picture of this shape is too small to reach the deepest of the layers.

    Args:
        shape: Rows and columns of the picture.
        layers: In use.
        what: What the error calls the picture.
    """
    least = smallest_side(layers)
    if min(shape[:2]) < least:
        allowed = f"at least {least} pixels a side for layer {layers[-1].name}"
        raise InputError(what, allowed, f"got {shape[1]}x{shape[0]}")


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


def keep_rows(x: Float[AnyArray, "..."], rows: int, axis: int = 0) -> Float[AnyArray, "..."]:
    """Return x with zeros from so many rows on; 0 keeps all.

    Args:
        x: Of any shape.
        rows: How many are kept.
        axis: The one of the rows.
    """
    if rows in (0, x.shape[axis]):
        return x
    index = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    return jnp.where(index < rows, x, jnp.zeros((), x.dtype))
