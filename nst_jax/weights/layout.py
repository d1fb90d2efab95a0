"""The layout of stored arrays, and how published files differ from it.

Pictures are RGB in [0, 1], a network's input is (picture - mean) / std per channel, kernels are (rows,
columns, channels in, channels out). Published files want their pictures in one of two ranges and two orders
of colors; weights under another file's normalization give wrong features, and no error.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from nst_jax.errors import InputError
from nst_jax.networks import known_networks
from nst_jax.networks.base import Network
from nst_jax.weights.readers import CAFFE_MEAN, Found, read
from nst_jax.weights.sources import identify, table

NORMALIZATIONS = {  # mean and std of RGB in [0, 1]
    "torchvision": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (tuple(value / 255 for value in CAFFE_MEAN), (1 / 255, 1 / 255, 1 / 255)),
}


class Layout(NamedTuple):
    """How a published file's arrays differ from the layout of stored ones."""

    normalization: str
    bgr: bool  # the network's input is blue, green, red
    transposed: bool  # rows and columns of the kernels are exchanged


def read_arrays(path: Path, network: str, asked: str | None = None) -> tuple[str, dict[str, np.ndarray]]:
    """Return a published file's normalization, and its arrays as they are stored, with mean and std.

    Args:
        path: The file.
        network: Its name.
        asked: The normalization to take unless the numbers tell.

    Raises:
        InputError: `asked` contradicts the numbers, or is None and nothing tells. Or the file cannot be read.
    """
    found, first = read(path, network), _first_kernel(known_networks()[network])
    layout = _layout(path, found, first, asked)
    arrays = {name: _apply(layout, array, name == first) for name, array in found.arrays.items()}
    return layout.normalization, arrays | normalization_arrays(layout.normalization)


def _first_kernel(network: Network) -> str:
    """Return the name of the kernel that meets the picture's colors."""
    return f"{network.names[0]}.kernel"


def _layout(path: Path, found: Found, first: str, asked: str | None) -> Layout:
    """Return the layout that the numbers prove, else the one asked for, else the one that names tell."""
    proven = _proven_layout(found.arrays[first])
    if proven is None and (source := identify(path)):
        proven = _usual_layout(found.format, source.normalization)
    if proven and asked not in (None, proven.normalization):
        raise InputError(str(path), f"its normalization is {proven.normalization}", f"got {asked}")
    if proven:
        return proven
    if not (normalization := asked or found.normalization):
        allowed = f"say its normalization: {' or '.join(NORMALIZATIONS)}"
        raise InputError(str(path), allowed, "the file does not tell how its pictures were normalized")
    return _usual_layout(found.format, normalization)


def _proven_layout(kernel: np.ndarray) -> Layout | None:
    """Return the layout in which a network's first kernel is a known one of sources.toml, which are 3x3.

    Names prove no family (Caffe's networks also go about under torchvision's names), and MatConvNet files
    exist with rows and columns either way; the numbers tell.
    """
    if kernel.shape[:2] != (3, 3):
        return None
    for known in table()["first_kernels"]:
        for bgr in (False, True):
            for transposed in (False, True):
                layout = Layout(known["normalization"], bgr, transposed)
                rgb = _apply(layout, kernel, first=True)
                numbers = [*rgb[0, 0, :, 0], rgb[0, 1, 2, 0], rgb[1, 0, 2, 0]]
                if np.allclose(numbers, known["numbers"], atol=1e-3):
                    return layout
    return None


def _usual_layout(format: str, normalization: str) -> Layout:
    # Caffe works in BGR, and so do copies of its networks, except MatConvNet's. Those are documented with
    # rows and columns exchanged; the published VGG-19 prints unexchanged, which _proven_layout sees to.
    matconvnet = format == "matconvnet"
    return Layout(normalization, normalization == "caffe" and not matconvnet, matconvnet)


def _apply(layout: Layout, array: np.ndarray, first: bool) -> np.ndarray:
    if layout.transposed and array.ndim == 4:
        array = array.swapaxes(0, 1)
    return array[:, :, ::-1] if layout.bgr and first else array


def normalization_arrays(normalization: str) -> dict[str, np.ndarray]:
    """Return mean and std (3) of a normalization, a key of NORMALIZATIONS."""
    mean, std = NORMALIZATIONS[normalization]
    return {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
