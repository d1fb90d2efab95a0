"""Several processes that make one picture: what they agree on before anything runs, and collective numbers.

Every process has the same options and reads the same files. A checksum of what each has read is compared
before anything runs on it. Process 0 writes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nst_jax.errors import InputError
from nst_jax.options import check_options, option


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """The devices and processes that share a picture."""

    devices: int = option(
        0,
        "number of devices that share the picture's rows; 0: all that have rows to work on",
        low=0,
        high=10**6,
    )
    coordinator: str = option("", "HOST:PORT of process 0, where the processes of several hosts meet")
    num_processes: int = option(1, "number of processes that make the picture together", low=1, high=10**6)
    process_id: int = option(0, "number of this process; 0 writes the files", low=0, high=10**6)
    join_timeout: int = option(
        60, "seconds that processes wait for each other at the start", low=1, high=10**6
    )
    deterministic: bool = option(
        False, "make equal bytes from equal commands on GPUs too, which may take longer"
    )

    def __post_init__(self) -> None:
        check_options(self)
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise InputError("`coordinator`", "HOST:PORT", f"got {self.coordinator!r}")
        if bool(self.coordinator) != (self.num_processes > 1):
            came = "one without the other"
            raise InputError("`coordinator`, `num_processes`", "together, with 2 processes or more", came)
        if self.process_id >= self.num_processes:
            allowed = f"from 0 to {self.num_processes - 1}, for `num_processes={self.num_processes}`"
            raise InputError("`process_id`", allowed, f"got {self.process_id}")


def prepare_on_all(prepare: Callable[[], tuple[Any, Mapping[str, Any]]]) -> Any:
    """Return what prepare makes. It tells beside it, by name, what must be the same in all processes.

    Raises InputError in all of them where it is not, or where prepare raises one in any of them.
    """
    if not jax.distributed.is_initialized():
        return prepare()[0]
    made: Any = None
    own: InputError | None = None
    message: dict[str, Any]
    try:
        made, told = prepare()
        message = {"told": {name: fingerprint(value) for name, value in told.items()}}
    except InputError as error:
        own, message = error, {"error": [error.what, error.allowed, error.came]}
    messages = [json.loads(text) for text in _tell_all(json.dumps(message))]
    if own:
        raise own
    for number, other in enumerate(messages):
        if "error" in other:
            what, allowed, came = other["error"]
            raise InputError(f"process {number}: {what}", allowed, came)
    _check_alike([other["told"] for other in messages])
    return made


def _check_alike(told: list[dict[str, str]]) -> None:
    """Raise InputError that names the first thing in which processes differ, and how many more there are."""
    differing = [name for name in told[0] if len({one.get(name) for one in told}) > 1]
    if differing:
        name = differing[0]
        first = told[0][name]
        number, other = next((n, one.get(name)) for n, one in enumerate(told) if one.get(name) != first)
        more = f" (and {', '.join(differing[1:])})" if differing[1:] else ""
        came = f"{first} in process 0, {other} in process {number}{more}"
        raise InputError(name, "the same in all processes", came)


def fingerprint(value: Any) -> str:
    """Return a value in words, a picture as its size and checksum."""
    if not isinstance(value, np.ndarray):
        return str(value)
    checksum = hashlib.sha256(value.tobytes()).hexdigest()[:16]
    return f"{'x'.join(map(str, value.shape[1::-1]))} with sha256 {checksum}..."


def _tell_all(text: str) -> list[str]:
    """Return the texts of all processes: first their lengths, then their bytes, padded to the longest."""
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.ravel(_gather(np.int32(len(data))))
    table = _gather(np.pad(data, (0, lengths.max() - len(data)))).reshape(len(lengths), -1)
    return [bytes(row[:length]).decode() for row, length in zip(table, lengths, strict=True)]


def _gather(value: Any) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(value))


def all_max(number: int) -> int:
    """Return the largest of the processes' small numbers."""
    return number if jax.process_count() == 1 else int(_gather(np.int32(number)).max())


def all_min(number: int | None) -> int | None:
    """Return the least of the processes' numbers, None where one has none. Rounded to 24 bits."""
    if jax.process_count() == 1:
        return number
    numbers = _gather(np.float32(-1 if number is None else number))  # arrays here have 32 bits
    return None if numbers.min() < 0 else int(numbers.min())


def is_primary() -> bool:
    """Tell whether this is the process that writes."""
    return jax.process_index() == 0
