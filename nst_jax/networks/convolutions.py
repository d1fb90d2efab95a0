"""Which precision auto stands for, and whose convolutions a network runs: XLA's, or oneDNN's (native/)."""

import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nst_jax.errors import InputError, did_you_mean
from nst_jax.networks.precision import PRECISIONS

LIBRARY = "libnst_jax_onednn.so"  # native/build.py leaves it there: beside oneDNN's own
CHOICES = ("auto", "xla", "onednn")
using = jax.make_user_context("auto")  # `with using("xla"):`; part of what compiled programs are known by


@functools.cache
def library() -> Any:
    """Return the module that calls the native part, None where that is not built."""
    path = Path(sys.prefix, "lib", LIBRARY)
    if not path.exists():
        return None
    from nst_jax.networks import onednn

    try:
        onednn.load(path)
    except (OSError, AttributeError) as error:
        warnings.warn(f"{path}: not used, `python native/build.py` builds it anew ({error})", stacklevel=2)
        return None
    return onednn


def in_force(precision: str) -> str:
    """Return the key of PRECISIONS that a precision stands for.

    auto is bfloat16 on a GPU, and on a CPU that multiplies it where the native part is built; else float32.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if jax.default_backend() == "gpu" or _narrow() else "float32"


def _narrow() -> bool:
    """Return whether oneDNN may run here in bfloat16, on a processor that multiplies it."""
    return bool(using.value != "xla" and (there := _built()) and there.has_bfloat16())


def _built() -> Any:
    """Return the module that calls the native part, None where it is not for this device."""
    return library() if jax.default_backend() == "cpu" else None


def chosen(precision: str) -> str:
    """Return whose convolutions are run here in this precision, a key of PRECISIONS or auto: xla or onednn.

    Of its own accord onednn for bfloat16, where the processor multiplies that. Raises InputError where onednn
    is asked for and cannot be had.
    """
    choice, narrow = using.value, PRECISIONS[in_force(precision)].activations == jnp.bfloat16
    if choice not in CHOICES:
        hint = did_you_mean(choice, CHOICES)
        raise InputError("`convolutions`", f"one of {', '.join(CHOICES)}", f"got {choice!r}{hint}")
    if choice == "xla" or (choice == "auto" and not narrow):
        return "xla"
    if choice == "onednn" and not _built():
        allowed = "auto or xla, as the native part (native/build.py) is not built for this device"
        raise InputError("`convolutions`", allowed, "got onednn")
    if choice == "onednn" and narrow and not _built().convolves_bfloat16():
        allowed = "auto or xla, as oneDNN convolves bfloat16 with AVX-512 only, which this processor lacks"
        raise InputError("`convolutions`", allowed, "got onednn")
    return "onednn" if choice == "onednn" or _narrow() else "xla"


def native(precision: str) -> Any:
    """Return the module that runs convolutions in this precision, None where XLA runs them."""
    return library() if chosen(precision) == "onednn" else None


def describe(precision: str) -> str:
    """Return in words whose convolutions are run here in this precision."""
    return found.describe() if (found := native(precision)) else "xla"
