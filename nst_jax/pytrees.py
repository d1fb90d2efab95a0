"""Pytrees with names for their fields: flax's dataclasses, made by keywords and changed by .replace()."""

from typing import Any, dataclass_transform

from flax import struct


@dataclass_transform(kw_only_default=True)
class Pytree(struct.PyTreeNode):
    """A frozen dataclass that JAX maps over, as State and Targets are."""

    # JAX fills one with anything, such as shapes, axes and batches: its fields' types are not executed.
    __no_type_check__ = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(kw_only=True, **options)
