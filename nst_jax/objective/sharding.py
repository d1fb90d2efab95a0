"""One picture over several devices: each has a share of its rows, and the compiler exchanges their borders.

What has rows is padded to a height that every device has the same share of, at every layer; what lies below
the picture's own rows counts for nothing (Spec.rows). All else is on every device. Without a mesh nothing is
padded or moved.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from nst_jax.errors import InputError
from nst_jax.losses import TERMS
from nst_jax.networks.base import AnyArray
from nst_jax.objective.objective import Targets
from nst_jax.spec import Spec


def make_mesh(devices: Sequence[Any] | int) -> Mesh | None:
    """Return the mesh of these devices, or of the first so many; None for one. Raises InputError."""
    there = jax.devices()
    chosen = there[:devices] if isinstance(devices, int) else list(devices)
    if isinstance(devices, int) and not 1 <= devices <= len(there):
        raise InputError("`devices`", f"from 1 to {len(there)}, as many as there are", f"got {devices}")
    if len(chosen) == 1 and jax.process_count() == 1:
        return None
    return Mesh(np.array(chosen), ("rows",), axis_types=(AxisType.Auto,))


def most_devices(height: int, spec: Spec) -> int:
    """Return how many devices a picture of so many rows has work for: a row of the deepest layer for each."""
    return max(1, height // _unit(spec))


def _unit(spec: Spec) -> int:
    """Return the pixels that a device has at least, and a multiple of them."""
    return max(2, spec.network.deepest(spec.layers).stride)  # 2 for the variation


def spec_of(picture: AnyArray, spec: Spec) -> Spec:
    """Return the spec for a picture of this height: a style has rows of its own."""
    return spec._replace(rows=picture.shape[0] if spec.mesh else 0)


def pad(array: Any, spec: Spec) -> Any:
    """Return a picture, or a mask, with zeros below its rows."""
    if spec.mesh is None:
        return array
    missing = height(array.shape[0], spec) - array.shape[0]
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


def height(own: int, spec: Spec) -> int:
    """Return how many rows a picture is padded to that has so many of its own."""
    if spec.mesh is None:
        return own
    unit = _unit(spec) * spec.mesh.size
    return math.ceil(own / unit) * unit


def shard(array: AnyArray, spec: Spec) -> Array:
    """Place what is padded, each device's rows on it. Every process gives its own devices their share."""
    return _put(array, _place(spec, "rows"))


def replicate(tree: Any, spec: Spec) -> Any:
    """Place arrays whole on every device."""
    return jax.tree.map(lambda leaf: _put(leaf, _place(spec)), tree)


def _place(spec: Spec, *axes: str | None) -> NamedSharding | None:
    return None if spec.mesh is None else NamedSharding(spec.mesh, PartitionSpec(*axes))


def _put(array: Any, sharding: NamedSharding | None) -> Array:
    if sharding is None:
        return jnp.asarray(array)
    if isinstance(array, jax.Array) and array.sharding == sharding:
        return array
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def constrain(tree: Any, spec: Spec) -> Any:
    """Say within a program where its results lie: pictures, and stacks of them, by rows, numbers everywhere.

    Zeros depend on nothing that has a place, so the compiler would put all of them on every device.
    """
    return tree if spec.mesh is None else jax.lax.with_sharding_constraint(tree, _places(tree, spec))


def gather(picture: Float[AnyArray, "h ..."], spec: Spec) -> Float[AnyArray, "_ ..."]:
    """Return within a program the picture's own rows, whole on every device."""
    if spec.mesh is None:
        return picture
    return jax.lax.with_sharding_constraint(picture, _place(spec))[: spec.rows]


def placed(shapes: Any, spec: Spec) -> Any:
    """Return the shapes of a state, or of targets, with the places that such arrays have."""
    if spec.mesh is None:
        return shapes
    places = _places(shapes, spec)
    if isinstance(shapes, Targets):
        places = jax.tree.map(lambda leaf: _place(spec, *["rows"][: leaf.ndim]), shapes)
        places = places.replace(
            terms={
                name: jax.tree.map(lambda leaf: _place(spec), wanted)
                if TERMS[name].of_style
                else _places(wanted, spec)
                for name, wanted in shapes.terms.items()
            }
        )
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )


def _places(state: Any, spec: Spec) -> Any:
    def place(leaf: Any) -> NamedSharding | None:
        return _place(spec, *[None] * (leaf.ndim - 3), "rows") if leaf.ndim >= 3 else _place(spec)

    return jax.tree.map(place, state)
