"""A batch on a Ray cluster: each shard is a task, which Ray starts again if its machine goes away.

ray comes with the extra `ray`; it is imported when it is asked for. Files lie at addresses, or on a disk that
all machines share.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nst_jax.errors import InputError
from nst_jax.options import check_options, option
from nst_jax.runs.batch_job import BatchEvent, prepare_batch
from nst_jax.runs.batch_request import BatchRequest
from nst_jax.system import device

STOP_SECONDS = 1.0  # between two questions whether to end


@dataclasses.dataclass(frozen=True)
class RunnerOptions:
    """Where the rows are made."""

    runner: str = option(
        "local",
        "local, in this process; or ray, on the cluster of RAY_ADDRESS or on this machine (extra ray)",
        choices=("local", "ray"),
    )
    workers: int = option(
        1, "number of shards; ray runs as many at once as it has room for", low=1, high=10**6
    )
    cpus_per_worker: int = option(0, "processors for each worker, in place of a GPU", low=0, high=10**4)

    def __post_init__(self) -> None:
        check_options(self)


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Join a Ray cluster, before JAX has threads: this starts processes. Raises InputError."""
    try:
        import ray
    except ImportError:
        allowed = "ray for `runner=ray` (pip install 'nst-jax[ray]')"
        raise InputError("`runner=ray`", allowed, "it is not installed") from None
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError("RAY_ADDRESS", "a cluster that can be joined", str(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def run_on_ray(
    request: BatchRequest, options: RunnerOptions, stop: Callable[[], Any] = lambda: False
) -> Iterator[BatchEvent]:
    """Make the rows of a batch in a ray_session, and yield what came of them, shard after shard.

    Args:
        request: what is asked for; prepare_batch has checked it.
        options: how many workers there are, and of what.
        stop: asked now and then whether to end; the rows in hand are then lost.
    """
    import ray

    room = {"num_cpus": options.cpus_per_worker or 1, "num_gpus": 0 if options.cpus_per_worker else 1}
    make = ray.remote(max_retries=-1, **room)(make_shard)  # where a machine goes away, not on errors
    shards = [(number, options.workers) for number in range(options.workers)]
    left = [make.remote(request._replace(shard=shard), os.getcwd()) for shard in shards]
    while left and not stop():
        done, left = ray.wait(left, timeout=STOP_SECONDS)
        for each in done:
            yield from ray.get(each)


def make_shard(request: BatchRequest, folder: str) -> list[BatchEvent]:
    """Make the rows of a shard, with paths relative to a folder; return what came of them."""
    os.chdir(folder)
    device.set_up()
    with tempfile.TemporaryDirectory(prefix="nst_jax-") as scratch:
        return list(prepare_batch(request, Path(scratch)).run())
