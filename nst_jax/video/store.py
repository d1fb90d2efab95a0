"""The frames that are made, in a folder: each whole or not there, so that a killed run goes on."""

import contextlib
import fcntl
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nst_jax.errors import InputError
from nst_jax.files import atomic_write, check_folder, remove_stale, write_whole
from nst_jax.runs.checkpointing import check_same
from nst_jax.video.sequence import Made, Stored

BACKWARD = "backward"  # the folder of the second pass, in that of the first
ENCODED = "encoded"  # the folder of what is encoded of them so far
NAME = re.compile(
    rf"\d{{8}}\.npz|run\.json|run\.lock|{BACKWARD}|{ENCODED}|\.nst_jax-[0-9a-f]{{16}}\.tmp"
)  # all that is ours
MAX_RECORD_BYTES = 2**24


class Kept(NamedTuple):
    """A frame as it is kept."""

    made: Made
    time: int  # in units of the clip's time base, as its duration is
    duration: int
    start: int  # number of the first frame of its shot
    seconds: float  # that it took
    warping_error: float  # NaN: of the frame with which a shot begins
    content: Stored | None = None  # None: no second pass needs it


class Store:
    """The frames of one run; a context, at whose end other runs have the folder."""

    def __init__(self, folder: Path, told: Mapping[str, str]):
        """Open a folder, made if it is not there. told: what the frames depend on, in words.

        Raises InputError where it holds other things, frames of another run, or is in use.
        """
        check_folder(folder)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in folder.iterdir() if not NAME.fullmatch(path.name))
        if strange:
            raise InputError(str(folder), "an empty folder, or frames of nst-video", f"it holds {strange[0]}")
        self.lock = (folder / "run.lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.lock.close()
            raise InputError(str(folder), "a folder that no other run uses", "one does") from error
        try:
            self._check(told)
        except BaseException:
            self.lock.close()
            raise
        remove_stale(folder)
        shutil.rmtree(folder / ENCODED, ignore_errors=True)  # an encoder cannot go on

    def __enter__(self) -> "Store":
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let other runs have the folder."""
        shutil.rmtree(self.folder / ENCODED, ignore_errors=True)
        self.lock.close()

    def _check(self, told: Mapping[str, str]) -> None:
        path = self.folder / "run.json"
        if not path.exists():
            write_whole(path, json.dumps(dict(told), indent=1).encode())
        try:
            with path.open("rb") as file:
                before = json.loads(file.read(MAX_RECORD_BYTES))
            before = {str(name): str(value) for name, value in before.items()}
        except (AttributeError, OSError, ValueError, RecursionError) as error:
            raise InputError(
                str(path), "as nst-video wrote it; remove the folder to begin anew", f"{error}"
            ) from error
        check_same(told, before, self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"

    def load(self, number: int, size: tuple[int, int]) -> Kept | None:
        """Return a frame of so many rows and columns; None where it is not there, or damaged."""
        try:
            with np.load(self._path(number), allow_pickle=False) as file:
                record = json.loads(str(file["record"]))
                picture, shown, content = file["picture"], file.get("shown", None), file.get("content", None)
            for array in (picture, *(other for other in (shown, content) if other is not None)):
                if array.shape != (*size, 3) or array.dtype != np.uint16:
                    raise ValueError("of another size")
            made = Made(
                picture, shown, float(record["log_ratio"]), int(record["steps"]), dict(record["losses"])
            )
            time, duration, start = (int(record[name]) for name in ("time", "duration", "start"))
            seconds, error = (float(record[name]) for name in ("seconds", "warping_error"))
            return Kept(made, time, duration, start, seconds, error, content)
        except (
            AttributeError,
            EOFError,
            KeyError,
            OSError,
            RuntimeError,  # of a damaged header: encrypted, or compressed in a way that is not known
            TypeError,
            ValueError,
            zipfile.BadZipFile,
            zlib.error,
        ):
            return None

    def save(self, number: int, kept: Kept) -> None:
        """Write a frame. Raises NotWritten."""
        made = kept.made
        record = kept._asdict() | made._asdict()
        pictures = {"picture": made.picture, "shown": made.shown, "content": kept.content}
        for name in ("made", *pictures):
            del record[name]
        arrays = {name: picture for name, picture in pictures.items() if picture is not None}
        with atomic_write(self._path(number)) as file:
            np.savez(file, allow_pickle=False, record=np.array(json.dumps(record)), **arrays)

    def remove(self) -> None:
        """Remove the frames, and the folder."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)

    def deliver(self, folder: Path) -> None:
        """Move what is encoded to a folder, each file whole or not at all. Raises NotWritten."""
        for path in sorted((self.folder / ENCODED).iterdir()):
            with path.open("rb") as source, atomic_write(folder / path.name) as file:
                shutil.copyfileobj(source, file)
            path.unlink()


def bytes_kept(folder: Path) -> int:
    """Return the bytes of the frames in a folder and in that of its second pass."""
    return sum(path.stat().st_size for path in folder.glob("**/*.npz"))
