"""PyTorch's saved state dictionaries, as zip archive or as the older stream, without PyTorch.

A pickle holds the names and, for each tensor, which part of which storage it is; the storages' bytes lie
beside it. Only the storages that are asked for are read.
"""

import io
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nst_jax.weights.readers.unpickle import Built, Dictionary, Known, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C  # the first thing in a stream, itself pickled
MAX_COUNT = 2**48  # far above any count in a file, far below where sums overflow


def _missing() -> bytes:
    raise ValueError("a storage that the file does not have")


@dataclass
class Storage:
    """A run of count numbers; read returns its bytes."""

    dtype: np.dtype[Any]
    count: int
    read: Callable[[], bytes] = _missing

    @property
    def size(self) -> int:
        """The length in bytes."""
        return self.count * self.dtype.itemsize


@dataclass
class Tensor(Built):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its numbers."""
        return self.storage.dtype

    def read(self) -> np.ndarray:
        """Return the numbers. Raises ValueError where the storage is cut short."""
        data = self.storage.read()
        if len(data) != self.storage.size:
            raise ValueError("a storage cut short")
        numbers = np.frombuffer(data, self.dtype)[self.offset :]
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides, writeable=False)


State = dict[str, Tensor]


@contextmanager
def open_archive(path: Path) -> Iterator[State]:
    """Yield the tensors of a zip archive by name; they can be read until the context ends.

    Raises the errors of read_pickle, BadZipFile, EOFError and RuntimeError for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        root = index.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder") != b"little":
            raise ValueError("numbers in big-endian order")

        def find(key: str) -> Callable[[], bytes]:
            return partial(_member, archive, f"{root}data/{key}")

        storages: dict[str, Storage] = {}
        pickled = io.BytesIO(_member(archive, index))
        yield _tensors(read_pickle(pickled, GLOBALS, partial(_storage, storages, find)))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    # PyTorch compresses no member; so none is longer than the file, whatever the directory claims.
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


@contextmanager
def open_stream(path: Path) -> Iterator[State]:
    """Yield the tensors of a stream by name; they can be read until the context ends.

    Four pickles (magic number, version, system, tensors), the storages' keys in order, the storages.
    Raises the errors of read_pickle and struct.error for a damaged file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        magic, version, system = (read_pickle(stream, {}) for _ in range(3))
        if (magic, version, system["little_endian"]) != (MAGIC, 1001, True):
            raise ValueError("a stream of an unknown version or byte order")
        storages: dict[str, Storage] = {}
        state = read_pickle(stream, GLOBALS, partial(_storage, storages, lambda _: _missing))
        for key in read_pickle(stream, {}):
            if not isinstance(key, str):  # a tuple of tuples of tuples could take for ever to hash
                raise TypeError("the key of a storage is no text")
            _place(stream, storages[key])
        yield _tensors(state)


def _place(stream: mmap.mmap, storage: Storage) -> None:
    """Go past a storage: its count in 8 bytes, then its numbers, which can be read from now on."""
    if struct.unpack("<q", stream.read(8)) != (storage.count,):
        raise ValueError("a storage of another length than announced")
    start = stream.tell()
    stream.seek(storage.size, os.SEEK_CUR)  # ValueError beyond the end
    storage.read = lambda: stream[start : start + storage.size]


def _tensors(state: Any) -> State:
    if not isinstance(state, dict):
        raise TypeError("no dictionary of tensors")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _storage(
    storages: dict[str, Storage], find: Callable[[str], Callable[[], bytes]], identity: Any
) -> Storage:
    """Return the storage that a persistent id means: the same one for the same key."""
    kind, number, key, _, count, *view = identity
    dtype = number.make()
    if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str) or any(view):
        raise ValueError("a storage of an unknown kind")
    if not isinstance(count, int) or not 0 <= count < MAX_COUNT:
        raise ValueError("a storage of impossible size")
    return storages.setdefault(key, Storage(dtype, count, find(key)))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if len(numbers) > 17 or not all(isinstance(n, int) and 0 <= n < MAX_COUNT for n in numbers):
        raise ValueError("a tensor of impossible size")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # The second test: strides of 0 would make a terabyte out of one number.
    if last >= storage.count or math.prod(shape) > storage.count:
        raise ValueError("a tensor that reaches past its storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


GLOBALS: Known = {
    "collections OrderedDict": Dictionary,
    "torch._utils _rebuild_tensor": _tensor,  # in files of before 2018, torchvision's VGG among them
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch.nn.parameter Parameter": lambda tensor, *_: tensor,
    "torch FloatStorage": lambda: np.dtype("<f4"),
    "torch DoubleStorage": lambda: np.dtype("<f8"),
    "torch HalfStorage": lambda: np.dtype("<f2"),
    "torch LongStorage": lambda: np.dtype("<i8"),
}
