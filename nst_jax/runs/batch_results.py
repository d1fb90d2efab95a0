"""The results of a batch: a folder of JSONL files, one for each worker, to which lines are only added."""

import hashlib
import json
import math
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import nst_jax
from nst_jax.errors import InputError
from nst_jax.reports.report import to_json
from nst_jax.runs.input_files import ImageCache, settings
from nst_jax.runs.request import Request
from nst_jax.system import storage
from nst_jax.weights import Weights

PART = "part-"
PART_SECONDS = 10.0  # of lines in a part at an address, where nothing can be appended
# What a line has to have; those of good rows have more.
LINE = {
    **{"id": str, "key": str, "paths": list, "ended": float, "nst_jax": str},
    **{"error": str | None, "losses": dict},
}


class Made(NamedTuple):
    """What the newest line of a row says."""

    ended: float  # seconds since 1970
    key: str
    paths: tuple[str, ...]
    error: str  # empty: the row is good
    total: float  # loss; not a number if the row has failed


def key_of(request: Request, weights: Weights) -> str:
    """Return a hash of all that a picture depends on: input files, options, weights, version."""
    told = settings(request.inputs, request.config, ImageCache(request.inputs.max_pixels))
    outputs = request.outputs
    written = [outputs.output_size, outputs.bit_depth, outputs.dpi, outputs.judge, outputs.no_settings]
    return hashlib.sha256(json.dumps([told, weights.sha256, written]).encode()).hexdigest()[:32]


class Results:
    """The newest line of each row, by its id, and the part that this worker adds to."""

    def __init__(self, folder: str, shard: tuple[int, int]):
        self.folder = folder
        name = f"{PART}{shard[0]}-of-{shard[1]}-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
        self.part = f"{folder.rstrip('/')}/{name}"
        self.last: dict[str, Made] = {}
        self.lock = threading.Lock()
        self.waiting: list[bytes] = []  # lines that go to an address together
        self.parts, self.due = 0, 0.0

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the whole lines of all workers, each with the name of its part. Raises InputError."""
        for name in sorted(storage.sizes(self.folder)):
            if name.rpartition("/")[2].startswith(PART) and name.endswith(".jsonl"):
                for line in storage.read(name).splitlines():
                    if entry := _parse(line):
                        yield name, entry

    def load(self) -> None:
        """Find the newest line of each row. Raises InputError where some are of another version."""
        for name, entry in self.entries():
            if entry["nst_jax"] != nst_jax.__version__:
                allowed = (
                    f"a folder with results of this version, {nst_jax.__version__}; or another `results`"
                )
                raise InputError(name, allowed, f"it holds those of {entry['nst_jax']}")
            last = self.last.get(entry["id"])
            if not last or entry["ended"] >= last.ended:
                total = entry["losses"].get("total")
                self.last[entry["id"]] = Made(
                    ended=entry["ended"],
                    key=entry["key"],
                    paths=tuple(map(str, entry["paths"])),
                    error=entry["error"] or "",
                    total=total if isinstance(total, float) else math.nan,
                )

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the line of a row. Raises NotWritten."""
        line = json.dumps(json.loads(to_json(dict(entry)))).encode() + b"\n"
        with self.lock:
            if not storage.is_address(self.part):
                storage.make_folder(self.folder)
                storage.append(f"{self.part}.jsonl", line)
                return
            self.waiting.append(line)
            if time.monotonic() >= self.due:
                self._flush()

    def close(self) -> None:
        """Write the lines that wait. Raises NotWritten."""
        with self.lock:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            storage.write(f"{self.part}-{self.parts:06d}.jsonl", b"".join(self.waiting))
            self.parts, self.waiting, self.due = self.parts + 1, [], time.monotonic() + PART_SECONDS


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a line, None if it was cut off when its worker was killed: its row is then made again."""
    try:
        entry = json.loads(line)
        entry = {"error": None, "losses": {}, **entry}
        return entry if all(isinstance(entry[name], kind) for name, kind in LINE.items()) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
