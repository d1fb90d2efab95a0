"""How a network holds numbers between its layers, and how it takes products."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax


class Precision(NamedTuple):
    """How numbers are held between layers, and how products are taken (and always summed in float32)."""

    activations: Any  # a dtype
    products: lax.Precision


PRECISIONS = {
    "float32": Precision(jnp.float32, lax.Precision.HIGHEST),
    "tensorfloat32": Precision(jnp.float32, lax.Precision.HIGH),  # GPU: TF32; TPU: three bfloat16 passes
    "bfloat16": Precision(jnp.bfloat16, lax.Precision.HIGH),
}
