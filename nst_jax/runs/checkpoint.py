"""Checkpoints: arrays, and a record beside them, on disk whole or not at all.

FOLDER/nst_jax_STEP/ has the arrays as orbax writes them. FOLDER/nst_jax_STEP.json is written after them: the
record, and the checksum of every file of the arrays. What lacks it, or differs from it, is half-written or
damaged, and not used.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nst_jax.errors import InputError
from nst_jax.files import check_folder, check_space, write_whole

MAX_RECORD_BYTES = 2**28  # bytes of a record that is read
KEPT_CHECKPOINTS = 2  # checkpoints: while one is written, the one before is whole
PREFIX = "nst_jax"
NAME = re.compile(PREFIX + r"_(\d{1,18})(\.json)?")  # nothing else in the folder is ours, but
# Of a process that was killed: arrays of orbax, and a record of ours (files.py) that was being written.
UNFINISHED = re.compile(PREFIX + r"_\d{1,18}\.orbax-checkpoint-tmp.*|\.nst_jax-[0-9a-f]{16}\.tmp")
LOCK = f"{PREFIX}.lock"


class Saved(NamedTuple):
    """A checkpoint that is whole."""

    folder: Path
    step: int
    arrays: dict[str, str]  # shape and type, by name
    record: dict[str, Any]


def newest(folder: Path) -> Saved | None:
    """Return the newest checkpoint that is whole, None where there is none.

    Warns of those that are damaged. Raises InputError where there are no others.
    """
    steps = sorted((step for path, step in _ours(folder) if path.suffix), reverse=True)
    for step in steps:
        try:
            return _read(folder, step)
        except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
            came = " ".join(f"{error}".split())
            warnings.warn(f"{_path(folder, step)}: damaged, and not used ({came})", stacklevel=2)
    if steps:
        raise InputError(str(folder), "a folder with a checkpoint that is whole", "all in it are damaged")
    return None


def _ours(folder: Path) -> list[tuple[Path, int]]:
    """Return the files and folders of checkpoints, each with its step. Raises InputError."""
    try:
        found = [(path, NAME.fullmatch(path.name)) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    return [(path, int(match[1])) for path, match in found if match]


def _path(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX}_{step}"


def _read(folder: Path, step: int) -> Saved:
    """Return a checkpoint whose files are all as they were written. Raises ValueError, and others."""
    path = _path(folder, step).with_suffix(".json")
    if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > MAX_RECORD_BYTES:
        raise ValueError(f"{path.name} is not a file of at most {MAX_RECORD_BYTES} bytes")
    checksum, _, data = path.read_bytes().partition(b"\n")
    if checksum.decode() != hashlib.sha256(data).hexdigest():
        raise ValueError(f"{path.name} is not as it was written")
    told = json.loads(data)
    if told["files"] != _checksums(_path(folder, step)):
        raise ValueError("its arrays are not as they were written")
    arrays = {name: str(shape) for name, shape in told["arrays"].items()}
    return Saved(folder, step, arrays, dict(told["record"]))


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by path. Raises ValueError for what is no file."""
    sums = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ValueError(f"{name} is not a file")
            with path.open("rb") as file:
                sums[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def restore(saved: Saved, like: Any) -> Any:
    """Return a checkpoint's tree, of the structure, shapes, types and places of `like`. Raises InputError."""
    import orbax.checkpoint as ocp

    where, named = _path(saved.folder, saved.step), _named(like)
    if differing := dict(_shapes(named).items() ^ saved.arrays.items()):
        name = min(differing)
        came = f"it has {name}: {saved.arrays.get(name, 'none')}"
        raise InputError(str(where), f"arrays of this run, {name}: {_shapes(named).get(name, 'none')}", came)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or place)
        for name, leaf in named.items()
    }
    with _refusing(_unreadable, where), _manager(saved.folder) as manager:
        found = manager.restore(saved.step, args=ocp.args.StandardRestore(wanted))
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def _named(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _shapes(arrays: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in arrays.items()}


def _unreadable(what: Path, error: BaseException) -> InputError:
    came = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return InputError(str(what), "a checkpoint that can be read", came[:300])


def _unwritable(folder: Path, error: BaseException) -> InputError:
    return InputError(str(folder), "a folder that checkpoints can be written to", f"{error}"[:300])


@contextlib.contextmanager
def _refusing(refusal: Callable[[Path, BaseException], InputError], path: Path) -> Iterator[None]:
    """Raise the refusal for whatever orbax, tensorstore and the disk raise, which have no class in common."""
    try:
        yield
    except Exception as error:
        raise refusal(path, error) from error


def _manager(folder: Path) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT_CHECKPOINTS, step_prefix=PREFIX)
    return ocp.CheckpointManager(folder.absolute(), options=options)


class Checkpoints:
    """A folder that checkpoints are written to, by a thread of its own."""

    def __init__(self, folder: Path, kept: int | None):
        """Open the folder, dropping its checkpoints after step `kept`, or all. Raises InputError.

        Nobody else can open it until it is closed, or the process has ended.
        """
        self.folder = folder
        self.lock: int | None = None
        self.thread = ThreadPoolExecutor(1)
        self.written: Future[None] | None = None
        with _refusing(_unwritable, folder):
            if jax.process_index() == 0:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock()
                self._remove(-1 if kept is None else kept)
            self.manager = _manager(folder)

    def _lock(self) -> None:
        self.lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise OSError("another run writes to it") from error

    def _check_lock(self) -> None:
        """Raise OSError where the folder is not the one that was opened: orbax makes it anew, unlocked."""
        if self.lock is not None and not os.path.samestat(os.fstat(self.lock), os.stat(self.folder / LOCK)):
            raise OSError("another folder has taken its place")

    @property
    def size(self) -> int:
        """The bytes of the checkpoints in the folder."""
        files = (path for own, _ in _ours(self.folder) for path in (own, *own.rglob("*")))
        return sum(path.stat().st_size for path in files if path.is_file())

    def close(self) -> None:
        """Let others open the folder."""
        self.thread.shutdown()
        if self.lock is not None:
            os.close(self.lock)
        self.lock = None

    def _remove(self, after: int) -> None:
        """Remove the checkpoints after a step, and what was never finished."""
        left = [path for path in self.folder.iterdir() if UNFINISHED.fullmatch(path.name)]
        for path in [*left, *(path for path, step in _ours(self.folder) if step > after)]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def remove(self) -> None:
        """Close the folder, and remove all checkpoints; itself, too, where nothing else is in it."""
        with contextlib.suppress(OSError, InputError):
            self.finish()
            self._check_lock()
            self._remove(-1)
            (self.folder / LOCK).unlink()
            self.folder.rmdir()
        self.close()

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Begin to write a checkpoint; the arrays are free when this returns.

        Args:
            step: Its number.
            tree: Of arrays.
            record: What JSON can hold.

        Raises:
            InputError: This one, or the one before, cannot be written; the last whole one stays.
        """
        import orbax.checkpoint as ocp

        self.finish()
        named = _named(tree)
        check_folder(self.folder)  # in one that is forbidden orbax waits for minutes
        check_space(_path(self.folder, step), sum(leaf.nbytes for leaf in named.values()))
        with _refusing(_unwritable, self.folder):
            self._check_lock()
            self.manager.save(step, args=ocp.args.StandardSave(named), force=True)
        self.written = self.thread.submit(self._commit, step, _shapes(named), record)
        if jax.process_count() > 1:  # whose own exchanges would cross those of the thread
            self.finish()

    def finish(self) -> None:
        """Wait until what was begun is whole. Raises InputError where it could not be written."""
        written, self.written = self.written, None
        with _refusing(_unwritable, self.folder):
            if written:
                written.result()

    def _commit(self, step: int, arrays: dict[str, str], record: dict[str, Any]) -> None:
        self.manager.wait_until_finished()
        if jax.process_index() > 0:
            return
        self._check_lock()
        path = _path(self.folder, step)
        if not (sums := _checksums(path)):
            raise OSError("nothing was written")
        data = json.dumps({"files": sums, "arrays": arrays, "record": record}).encode()
        if len(data) > MAX_RECORD_BYTES - 100:
            raise OSError(f"its record would have {len(data)} bytes, more than is read")
        write_whole(path.with_suffix(".json"), hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        for other, _ in _ours(self.folder):
            if other.suffix and not other.with_suffix("").exists():
                other.unlink()
