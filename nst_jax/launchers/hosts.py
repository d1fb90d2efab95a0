"""The devices and processes that nst runs on: found, joined, checked to be of one mind, left in good order.

Every process parses the same options and reads the same files; what it reads is compared by checksum before
anything runs on it. Process 0 writes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nst_jax.errors import InputError
from nst_jax.launchers import device
from nst_jax.launchers.common import WRONG_REQUEST, explain, fail, leave
from nst_jax.options import check_options, option

HEARTBEAT = 10  # seconds after which a process that is not heard of is gone
FAULT = 1
STATUS = re.compile("(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ")  # of XLA's errors


@dataclasses.dataclass(frozen=True)
class Machine:
    """The devices and processes that share a picture."""

    devices: int = option(
        0, "devices that share the picture's rows; 0: all that have rows to work on", low=0, high=10**6
    )
    coordinator: str = option("", "HOST:PORT of process 0, where the processes of several hosts meet")
    num_processes: int = option(1, "processes that make the picture together", low=1, high=10**6)
    process_id: int = option(0, "number of this process; 0 writes the files", low=0, high=10**6)
    join_timeout: int = option(
        60, "seconds that processes wait for each other at the start", low=1, high=10**6
    )
    deterministic: bool = option(False, "equal bytes from equal commands on GPUs too, where that costs time")

    def __post_init__(self) -> None:
        check_options(self)
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise InputError("--coordinator", "HOST:PORT", f"got {self.coordinator!r}")
        if bool(self.coordinator) != (self.num_processes > 1):
            came = "one without the other"
            raise InputError("--coordinator, --num_processes", "together, with 2 processes or more", came)
        if self.process_id >= self.num_processes:
            allowed = f"from 0 to {self.num_processes - 1}, for --num_processes={self.num_processes}"
            raise InputError("--process_id", allowed, f"got {self.process_id}")


@contextlib.contextmanager
def joined(machine: Machine) -> Iterator[None]:
    """Join the other processes, if there are any; none is left waiting for one that fails.

    With several processes what is raised ends this one here: Python's own end would wait for the others.
    """
    if machine.deterministic:
        device.be_deterministic()
    if machine.num_processes == 1:
        yield
        return
    try:
        _join(machine)
        yield
        jax.distributed.shutdown()
    except BaseException as error:
        code = explain(error)
        if code is None and STATUS.match(str(error)):
            came = str(error).strip().splitlines()[0]
            code = fail(FAULT, InputError("processes", "all of them to the end", f"one has gone? {came}"))
        if code is None:
            traceback.print_exc()
        leave(FAULT if code is None else code)


def _join(machine: Machine) -> None:
    came = f"they did not meet at {machine.coordinator} within {machine.join_timeout} s"
    error = InputError("--num_processes", f"{machine.num_processes} processes that start together", came)
    # JAX's own end of patience is an abort that shows where in its code, and not what to do.
    late = threading.Timer(machine.join_timeout, lambda: leave(fail(WRONG_REQUEST, error)))
    late.daemon = True
    late.start()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    jax.distributed.initialize(
        machine.coordinator,
        machine.num_processes,
        machine.process_id,
        initialization_timeout=2 * machine.join_timeout,
        heartbeat_timeout_seconds=HEARTBEAT,
    )
    device.set_up()
    with _silent_output():
        multihost_utils.sync_global_devices("joined")
    late.cancel()


@contextlib.contextmanager
def _silent_output() -> Iterator[None]:
    """Drop what is printed: the library of CPU collectives tells on standard output that it is there."""
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def agreed(prepare: Callable[[], tuple[Any, Mapping[str, Any]]]) -> Any:
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
        message = {"told": {name: short(value) for name, value in told.items()}}
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


def short(value: Any) -> str:
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


def largest(number: int) -> int:
    """Return the largest of the processes' small numbers."""
    return number if jax.process_count() == 1 else int(_gather(np.int32(number)).max())


def least(number: int | None) -> int | None:
    """Return the least of the processes' numbers, None where one has none. Rounded to 24 bits."""
    if jax.process_count() == 1:
        return number
    numbers = _gather(np.float32(-1 if number is None else number))  # arrays here have 32 bits
    return None if numbers.min() < 0 else int(numbers.min())


def writes() -> bool:
    """Tell whether this is the process that writes."""
    return jax.process_index() == 0
