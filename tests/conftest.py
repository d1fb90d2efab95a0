"""Strict numerics for every test, and the real network they share."""

import logging
import os
import runpy
import signal
import subprocess
from pathlib import Path
from typing import Any

# Before JAX starts: several CPU devices, so that what is sharded is tested on a laptop.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
# Half of the time to compile, and programs of small pictures as fast. XLA_FLAGS that are given stand behind and
# win: "--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" is what users run.
# Level 0 compiles sooner still, but its programs run 18 times as long, and it fuses no products with sums.
os.environ["XLA_FLAGS"] = (
    f"--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"
)

# Compiled programs are kept apart from the user's, for the next run too: it takes half the time of the first.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".xla_cache")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import numpy as np
import pytest

from nst_jax.networks import convolutions
from nst_jax.networks.base import Params
from nst_jax.weights import Weights, load_weights, on_device

ROOT = Path(__file__).parents[1]

# Ignored in a job in the background, and so in every program that a test starts and sends it to.
signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# The twins are exact to float32, so auto is float32 on every processor. Programs that tests start choose freely.
convolutions.using.set_global("xla")


@pytest.fixture(scope="session")
def weights() -> Weights:
    """Return the bundled VGG-16."""
    return load_weights("vgg16")


@pytest.fixture(scope="session")
def params(weights: Weights) -> Params:
    return on_device(weights)


@pytest.fixture(scope="session")
def native_part() -> Any:
    """Return the module that calls the native part; skip where something stands in the way of building it.

    Else one that is not there fails, and is not skipped.
    """
    if missing := runpy.run_path(str(ROOT / "native" / "build.py"))["missing"]():
        pytest.skip(missing)
    library = convolutions.library()
    assert library, "the native part is not built: python native/build.py"
    return library


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def mounting() -> list[str]:
    """Return the start of a command that may mount, seen by nobody else; skip where the system forbids it."""
    command = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    return command


@pytest.fixture
def optax_promotion():
    """Allow what optax's Adam does: a float to the power of its integer count of steps."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def compilations(caplog):
    """Return a function that counts the programs compiled since the test began, by the loop's name."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        yield lambda name: sum(
            f"Finished XLA compilation of jit({name})" in r.getMessage() for r in caplog.records
        )


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Drop what a module has compiled: thousands of programs run out of memory maps, which ends in a crash."""
    yield
    jax.clear_caches()
