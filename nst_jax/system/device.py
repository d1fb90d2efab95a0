"""The device the programs run on: found, described, its memory; compilation times; the compile cache."""

import contextlib
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax import monitoring

import nst_jax
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.system.limits import host_memory
from nst_jax.weights import cache_folder

# One flag for both: operations that sum in a fixed order, and no timing of kernels to choose the fastest.
# XLA ends the process at a flag that it does not know; those of jax 0.10 to 0.12 know this one.
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def be_deterministic() -> None:
    """Have XLA give the same bits in every run on a GPU. Has no effect once JAX's backend has started."""
    add_flags(DETERMINISTIC)


def add_flags(*flags: str) -> None:
    """Add flags of XLA to the user's. Has no effect once JAX's backend has started."""
    if flags:
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()


def versions() -> dict[str, str]:
    """Return the versions of what a measurement depends on, of those that are installed."""
    packages = ("jax", "jaxlib", "optax", "numpy", "torch")
    installed = {dist.metadata["Name"].lower() for dist in metadata.distributions()}
    return {name: metadata.version(name) for name in packages if name in installed}


def set_up(cached: bool = True) -> None:
    """Find the device; if cached, keep compiled programs in the user's cache folder. Raises InputError."""
    jax.config.update("jax_enable_x64", False)  # float32 is what everything here is made for
    # To take three quarters of a GPU's memory beforehand costs a second, and keeps other programs out.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # A damaged or full cache costs a compilation, no more.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if not cached:
        jax.config.update("jax_enable_compilation_cache", False)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and (folder := cache_folder()):
        jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _check_variables()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter is what a missing CUDA ends in
        came = " ".join(str(error).split()) or "no such device"
        names = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
        asked = ", ".join(f"{name}={os.environ[name]}" for name in names) or "JAX_PLATFORMS="
        raise InputError(asked, "a platform this machine has (cpu always is)", came) from None


def _check_variables() -> None:
    """Raise InputError where a variable of JAX has a value that JAX knows and no program here runs with."""
    count = jax.config.values["jax_num_cpu_devices"]
    if count < 1 and "JAX_NUM_CPU_DEVICES" in os.environ:
        raise InputError("JAX_NUM_CPU_DEVICES", "a whole number from 1", f"got {count}")
    if jax.config.values["jax_debug_infs"]:  # as is the value of a picture that is not evaluated yet
        raise InputError("JAX_DEBUG_INFS", "false, as some numbers here are infinite", "got true")
    for name, value in os.environ.items():
        if name.startswith("JAX_TRANSFER_GUARD") and value.startswith("disallow"):
            raise InputError(name, "allow or log, as arrays come from the host", f"got {value}")


def describe(count: int | None = None) -> dict[str, Any]:
    """Return the devices' platform, kind and count: of all there are, if not of so many."""
    first = jax.devices()[0]
    kind = _cpu_model() if first.platform == "cpu" else first.device_kind
    return {"platform": first.platform, "kind": kind, "count": count or jax.device_count()}


def depends_on(count: int) -> dict[str, Any]:
    """Return all that the bytes of a result depend on, beside the options and the files that are read.

    threads: of a CPU, whose number says how XLA cuts sums into parts.
    """
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "optax", "pillow")}
    return {
        "nst_jax": nst_jax.__version__,
        **versions,
        **describe(count),
        "threads": _threads() if jax.default_backend() == "cpu" else None,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _threads() -> int:
    """Return how many threads XLA has on a CPU: one for each core that it may use, or for each device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, jax.local_device_count())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")


def peak_memory() -> int:
    """Return the most bytes in use so far: the device's where it counts them, else this process's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def running_out(height: int, width: int) -> Iterator[None]:
    """Raise NotEnoughMemory where the device runs out of it, which no forecast saw (other programs)."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory")):
            raise
        came = f"the device ran out of it at {width}x{height}"
        message = f"memory: a smaller `size` needs less, half of it a quarter; {came}"
        raise NotEnoughMemory(message) from None


def free_memory(devices: int = 1) -> int | None:
    """Return the bytes a program may still take on a device, None where that is not known.

    devices: of this process, that it runs on; those of a CPU share one memory.
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    free = host_memory()
    return None if free is None else free // devices


class CompileTime:
    """Adds up the seconds that JAX spends on tracing, lowering and compiling (or reading its cache)."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.programs = 0

    def __enter__(self) -> "CompileTime":
        monitoring.register_event_duration_secs_listener(self._add)
        return self

    def __exit__(self, *_: object) -> None:
        monitoring.unregister_event_duration_listener(self._add)

    def _add(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration_secs
            self.programs += event.endswith("backend_compile_duration")
