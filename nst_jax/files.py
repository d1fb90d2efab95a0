"""Files written whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nst_jax.errors import InputError, NotWritten

WRITABLE = "must be a file that can be written"
MIB = 2**20
TEMPORARY = ".nst_jax-"  # at the start of the name of a file that is being written
STALE_SECONDS = 600.0  # without a change, after which nobody is writing it any more
_temporary: set[Path] = set()  # that are being written


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write to; when the block ends well it becomes path, and else path is as it was.

    A new file gets the permission bits of the umask, a replaced one keeps its own; a symbolic link is
    followed. What cannot be replaced (a mount, another's file in a sticky folder) is written in place, once
    all of it is on the disk. Raises NotWritten where the file cannot be written (no rights, disk full).
    """
    target = _target(path)
    temporary = _beside(target)
    _temporary.add(temporary)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes do
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        _replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise NotWritten(str(path), WRITABLE, error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _temporary.discard(temporary)


def _replace(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EPERM) or not target.is_file():
            raise
        with temporary.open("rb") as source, target.open("r+b") as file:
            shutil.copyfileobj(source, file)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def abandon() -> None:
    """Remove what is being written, for a process that ends without ending its blocks."""
    for temporary in list(_temporary):
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_stale(folder: Path) -> None:
    """Remove what killed processes have left half-written in a folder."""
    for path in folder.glob(f"{TEMPORARY}*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Bring a folder's new name to the disk, where the system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_whole(path: Path, data: bytes) -> None:
    """Write data to path so that, whatever happens, path holds all of it or is as it was.

    Raises NotWritten as atomic_write does.
    """
    with atomic_write(path) as file:
        file.write(data)


def check_writable(path: Path) -> None:
    """Raise InputError unless write_whole(path, ...) can be expected to work; leaves no trace."""
    target = _target(path)
    try:
        if not target.parent.is_dir():
            raise InputError(str(path), WRITABLE, f"there is no folder {target.parent}")
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(target.stat().st_mode):
                raise InputError(str(path), WRITABLE, "it is a folder or a device")
            if not os.access(target, os.W_OK):
                raise InputError(str(path), WRITABLE, "it is read-only")
        probe = _beside(target)
        probe.open("xb").close()  # asking os.access is no use: for root it says yes even on read-only disks
        probe.unlink()
    except OSError as error:
        raise InputError(str(path), WRITABLE, error.strerror or str(error)) from error


def check_folder(path: Path) -> None:
    """Raise InputError unless a folder is there to write to, or can be made; leaves no trace."""
    try:
        there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        probe = _beside(there / "probe")
        probe.open("xb").close()
        probe.unlink()
    except (OSError, ValueError) as error:
        came = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), "must be a folder that can be written to", came) from error


def check_space(path: Path, size: int) -> None:
    """Raise InputError unless a file of size bytes fits on the disk of path beside what is there."""
    target = _target(path)
    try:
        there = next(place for place in (target, *target.parents) if place.exists())  # it can be a mount
        disk = shutil.disk_usage(there)
    except OSError:
        return  # file systems need not tell; whoever writes finds out
    if disk.total and disk.free < size:  # some tell of a total of 0
        allowed = f"must lie on a disk with {-(-size // MIB)} MiB free, which it may need"
        raise InputError(str(path), allowed, f"{disk.free // MIB} MiB are free")


def _target(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))  # else a link is replaced, not the file it names
    except (OSError, ValueError) as error:  # a NUL in the name, a folder that is gone
        raise InputError(repr(str(path)), WRITABLE, str(error)) from error


def _beside(target: Path) -> Path:
    # os.replace is atomic only within one file system; a random name lets runs write side by side.
    return target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
