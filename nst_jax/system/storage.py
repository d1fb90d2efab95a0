"""Files by name: paths of this machine, and addresses such as s3://BUCKET/NAME through fsspec.

fsspec comes with the extra `batch`; it is imported when the first address is used.
"""

import glob as globbing
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from nst_jax.errors import InputError, NotWritten
from nst_jax.files import write_whole

EXTRA = "pip install 'nst-jax[batch]'"
TRIES = 4  # of an operation on a store
PAUSE_SECONDS = 0.5  # before the second try; it doubles with each
USABLE = "must be a file or folder that can be used"
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss")  # have no folders
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # another try is no use

T = TypeVar("T")


def is_address(name: str) -> bool:
    """Tell whether a name is an address, not a path."""
    return "://" in name


def open_file(name: str) -> Any:
    """Open a file to read its bytes; fsspec's files are of classes of its own. Raises InputError."""
    return _try(name, lambda store, path: store.open(path, "rb"), lambda: _open(name))


def read(name: str, offset: int = 0) -> bytes:
    """Return a file's bytes from an offset on. Raises InputError."""

    def local() -> bytes:
        with _open(name) as file:
            file.seek(offset)
            return file.read()

    return _try(name, lambda store, path: bytes(store.cat_file(path, start=offset)), local)


def fetch(address: str, path: Path) -> None:
    """Copy what lies at an address to a local file. Raises InputError."""
    store, there = _store(address)
    _retried(address, lambda: store.get_file(there, str(path)))


def check_driver(address: str) -> None:
    """Raise InputError unless fsspec has what an address needs."""
    _store(address)


def write(name: str, data: bytes) -> None:
    """Write a file whole or not at all, and its folders. Raises NotWritten."""
    try:
        make_folder(os.path.dirname(name))
        _try(name, lambda store, path: store.pipe_file(path, data), lambda: write_whole(Path(name), data))
    except NotWritten:
        raise
    except InputError as error:
        raise NotWritten(name, "must be a file that can be written", error.came) from error


def append(name: str, data: bytes) -> None:
    """Append to a local file. Raises NotWritten."""
    try:
        with open(name, "ab") as file:
            file.write(data)
    except OSError as error:
        raise NotWritten(name, "must be a file that can be written", error.strerror or str(error)) from error


def make_folder(folder: str) -> None:
    """Make a folder and those above it, where they are missing. Raises InputError.

    An object store needs none: its driver would make the bucket, which may be misspelt.
    """
    if folder and _protocol(folder) not in OBJECT_STORES:
        _try(
            folder,
            lambda store, path: store.makedirs(path, exist_ok=True),
            lambda: os.makedirs(folder, exist_ok=True),
        )


def exists(name: str) -> bool:
    """Tell whether a file is there. Raises InputError."""
    return _try(name, lambda store, path: bool(store.exists(path)), lambda: os.path.exists(name))


def sizes(folder: str) -> dict[str, int]:
    """Return the files of a folder with their sizes in bytes, none where there is no folder."""

    def remote(store: Any, path: str) -> dict[str, int]:
        store.invalidate_cache()  # other workers write there
        if not store.exists(path):
            return {}
        found = store.ls(path, detail=True)
        return {store.unstrip_protocol(one["name"]): one["size"] for one in found if one["type"] == "file"}

    def local() -> dict[str, int]:
        if not os.path.isdir(folder):
            return {}
        with os.scandir(folder) as entries:
            return {entry.path: entry.stat().st_size for entry in entries if entry.is_file()}

    return _try(folder, remote, local)


def glob(pattern: str) -> list[str]:
    """Return the files that match a pattern, sorted. Raises InputError."""

    def remote(store: Any, path: str) -> list[str]:
        return sorted(map(store.unstrip_protocol, store.glob(path)))

    return _try(
        pattern,
        remote,
        lambda: sorted(filter(os.path.isfile, globbing.glob(pattern, recursive=True))),
    )


def _protocol(name: str) -> str:
    """Return what is before an address, s3 of s3://BUCKET/NAME and of simplecache::s3://BUCKET/NAME."""
    return name.partition("://")[0].rpartition("::")[2]


def _open(name: str) -> BinaryIO:
    if os.path.exists(name) and not os.path.isfile(name):  # to open a pipe would wait for its other end
        raise OSError("it is a folder or a device")
    return open(name, "rb")


def _try(name: str, remote: Callable[[Any, str], T], local: Callable[[], T]) -> T:
    """Return what an operation on a file gives. Raises InputError."""
    if is_address(name):
        store, path = _store(name)
        return _retried(name, lambda: remote(store, path))
    try:
        return local()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(name, USABLE, getattr(error, "strerror", None) or str(error)) from error


def _retried(address: str, operation: Callable[[], T]) -> T:
    """Return what an operation on a store gives, after some tries where it fails. Raises InputError."""
    for attempt in itertools.count(1):
        try:
            return operation()
        except FINAL as error:
            raise InputError(address, USABLE, error.strerror or type(error).__name__) from error
        except Exception as error:  # each driver has exceptions of its own
            if attempt == TRIES:
                raise InputError(address, USABLE, f"{_told(error)} ({TRIES} tries)") from error
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    raise AssertionError("the last try returns or raises")


def _store(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it. Raises InputError."""
    try:
        import fsspec.core
    except ImportError:
        raise InputError(address, f"fsspec for addresses ({EXTRA})", "it is not installed") from None
    try:
        store, path = fsspec.core.url_to_fs(address)
    except Exception as error:  # an unknown protocol, or a driver that is not installed or not set up
        allowed = "an address that fsspec has a driver for"
        raise InputError(address, allowed, _told(error)) from error
    return store, path


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
