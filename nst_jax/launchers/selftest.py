"""Whether a device's arithmetic can be trusted: features, losses and gradient against numbers in float64."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.launchers.console import DONE, WRONG_NUMBERS, fail, tell
from nst_jax.networks.base import Params
from nst_jax.networks.precision import PRECISIONS
from nst_jax.objective import objective
from nst_jax.objective.targets import make_targets
from nst_jax.objective.weights import coefficients
from nst_jax.spec import Spec
from nst_jax.system import device
from nst_jax.weights import load_vgg

FILE = Path(__file__).with_name("selftest.npz")  # written by tests/selftest_values.py
CONFIG = Config(style_weight=1e6, tv_weight=1e-2)  # so that each loss has a share in the gradient
LAYER = CONFIG.spec().style_layers[-1]  # the deepest in use: it has the errors of all below it

# float32 comes to 4e-7 on a CPU. With factors rounded to the 10 bits of TF32 it would be 4e-3, with
# those of the Grams alone 3e-5; bfloat16, of 7 bits, comes to 3e-2.
BOUNDS = {"float32": 1e-5, "tensorfloat32": 1e-2, "bfloat16": 1e-1}


def main() -> int:
    """Print a row for every number in every precision; return the exit code."""
    params = load_vgg(CONFIG.network)
    trusted = {precision: _check(params, precision) for precision in PRECISIONS}
    found = device.describe()
    here = f"on this device ({found['platform']}, {found['kind']})"
    good = " and ".join(precision for precision, right in trusted.items() if right)
    bad = " and ".join(precision for precision, right in trusted.items() if not right)
    if bad:
        came = f"{bad} cannot be trusted {here}, {good or 'nothing'} can"
        return fail(WRONG_NUMBERS, InputError("arithmetic", "errors within their bounds", came))
    tell(f"{good} can be trusted {here}")
    return DONE


def _check(params: Params, precision: str) -> bool:
    """Print the errors in a precision; tell whether all are within its bound."""
    bound, right = BOUNDS[precision], True
    for name, error in errors(params, precision).items():
        good = error <= bound  # which no NaN is
        right &= good
        tell(
            f"{precision:13}  {name:12}  error {error:7.1e}  bound {bound:.0e}  {'good' if good else 'WRONG'}"
        )
    return right


def errors(params: Params, precision: str) -> dict[str, float]:
    """Return the relative error of every number that is kept, as this device computes it."""
    with np.load(FILE) as kept:
        numbers = dict(kept)
    content, style = (np.float32(numbers.pop(name) / 255) for name in ("content", "style"))
    spec = CONFIG.spec()._replace(precision=precision)
    found = jax.device_get(jax.jit(_numbers, static_argnums=3)(params, content, style, spec))
    return {name: _error(np.asarray(found[name], np.float64), number) for name, number in numbers.items()}


def _numbers(params: Params, content: jax.Array, style: jax.Array, spec: Spec) -> dict[str, Any]:
    """Return the numbers of the content, turned left to right, as a picture."""
    picture, weights = content[:, ::-1], CONFIG.loss_weights(1)
    targets = make_targets(params, content, [style], spec)
    found = objective.evaluate(params, picture, targets, coefficients(weights), spec)
    losses = [jnp.sum(jnp.stack(jax.tree.leaves(found.terms[name]))) for name in ("content", "style", "tv")]
    maps = objective.network(params, picture, (LAYER,), spec)[LAYER]
    return {
        "features": maps.astype(jnp.float32),
        **dict(zip(("content loss", "style loss", "variation"), losses, strict=True)),
        "gradient": found.gradient,
    }


def _error(found: np.ndarray, kept: np.ndarray) -> float:
    """Return the median error of what is not 0, relative to the root mean square.

    The median, as the gradient jumps at the few places where rounding turns a ReLU or a maximum over.
    """
    errors = np.abs(found - kept)[kept != 0]
    return float(np.median(errors) / np.sqrt(np.mean(kept**2)))
