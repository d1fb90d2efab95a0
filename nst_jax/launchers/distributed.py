"""Runs of several processes: they meet before anything runs, and none is left waiting for one that fails."""

import contextlib
import os
import re
import threading
import traceback
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from nst_jax.errors import InputError
from nst_jax.launchers.console import WRONG_REQUEST, explain, fail
from nst_jax.launchers.signals import leave
from nst_jax.system import device
from nst_jax.system.distributed import DeviceOptions

HEARTBEAT_SECONDS = 10  # seconds after which a process that is not heard of is gone
FAULT = 1
STATUS = re.compile("(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ")  # of XLA's errors


@contextlib.contextmanager
def distributed_session(options: DeviceOptions) -> Iterator[None]:
    """Join the other processes, if there are any; none is left waiting for one that fails.

    With several processes what is raised ends this one here: Python's own end would wait for the others.
    """
    if options.deterministic:
        device.be_deterministic()
    if options.num_processes == 1:
        yield
        return
    try:
        _join(options)
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


def _join(options: DeviceOptions) -> None:
    came = f"they did not meet at {options.coordinator} within {options.join_timeout} s"
    error = InputError("--num_processes", f"{options.num_processes} processes that start together", came)
    # JAX's own end of patience is an abort that shows where in its code, and not what to do.
    late = threading.Timer(options.join_timeout, lambda: leave(fail(WRONG_REQUEST, error)))
    late.daemon = True
    late.start()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    jax.distributed.initialize(
        options.coordinator,
        options.num_processes,
        options.process_id,
        initialization_timeout=2 * options.join_timeout,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
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
