"""The results of a batch: a folder of JSONL files, one for each worker, to which lines are only added."""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import nst_jax
from nst_jax.errors import InputError
from nst_jax.report import to_json
from nst_jax.runs.input_files import ImageCache, settings
from nst_jax.runs.request import Request
from nst_jax.system import storage
from nst_jax.weights import Weights

PART = "part-"
PART_SECONDS = 10.0  # of lines in a part at an address, where nothing can be appended


class Made(NamedTuple):
    """What the newest line of a row says."""

    ended: float  # seconds since 1970
    key: str
    paths: tuple[str, ...]
    error: str  # empty: the row is good


def key_of(request: Request, weights: Weights) -> str:
    """Return a hash of all that a picture depends on: input files, options, weights, version."""
    told = settings(request.inputs, request.config, ImageCache(request.inputs.max_pixels))
    outputs = request.outputs
    written = [outputs.output_size, outputs.depth, outputs.dpi, outputs.judge, outputs.no_settings]
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

    def load(self) -> None:
        """Read the parts of all workers. Raises InputError where they are of another version."""
        for name in sorted(storage.sizes(self.folder)):
            if name.rpartition("/")[2].startswith(PART) and name.endswith(".jsonl"):
                for line in storage.read(name).splitlines():
                    self._take(name, line)

    def _take(self, name: str, line: bytes) -> None:
        try:
            entry = json.loads(line)
            paths = tuple(map(str, entry["paths"]))
            made = Made(float(entry["ended"]), str(entry["key"]), paths, str(entry["error"] or ""))
            number, version = str(entry["id"]), entry["nst_jax"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return  # cut off when its worker was killed: the row is made again
        if version != nst_jax.__version__:
            allowed = f"a folder with results of this version, {nst_jax.__version__}; or another --results"
            raise InputError(name, allowed, f"it holds those of {version}")
        if number not in self.last or made.ended >= self.last[number].ended:
            self.last[number] = made

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
