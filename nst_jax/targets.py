"""What a picture is compared with: the content's activations and the styles' statistics."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from nst_jax import masks as masking
from nst_jax import rows, tiling
from nst_jax.masks import Masks
from nst_jax.objective import Frame, Spec, Targets, network, positions, style_sums
from nst_jax.style import STYLE_LOSSES
from nst_jax.vgg import AnyArray, Params


def make_targets(
    params: Params,
    content: Float[AnyArray, "h w 3"] | None,
    styles: Sequence[Float[AnyArray, "_ _ 3"]],
    spec: Spec,
    activation_shift: float = 0.0,
    tv_power: float = 2.5,
    masks: Masks | None = None,
    background: Float[AnyArray, "h w 3"] | None = None,
) -> Targets:
    """Return the content's activations and the styles' statistics, of RGB pictures in [0, 1] of any sizes.

    Without a content picture spec.content_layers must be empty. With masks.labels there is a style for each
    of these (masks.each). background is what shows where no mask is white: the content, if it is not given.
    With spec.mesh all are placed on its devices.
    Raises InputError for pictures too small.
    """
    shift, power = rows.put_everywhere((np.float32(activation_shift), np.float32(tv_power)), spec)
    masks = masks or Masks()
    parts = masking.regions(masks)
    around = content if background is None else background
    return Targets(
        content={} if content is None or spec.anew else content_targets(params, _lay(content, spec), spec),
        style=style_targets(params, styles, masks, shift, spec),
        activation_shift=shift,
        tv_power=power,
        regions=regions_by_layer(parts, spec),
        frame=None if parts is None else Frame(_lay(around, spec), _lay(masking.opacity(parts), spec)),
        original=_lay(content, spec) if spec.anew else None,
    )


def _lay(array: Any, spec: Spec) -> Array:
    return rows.put(rows.pad(array, spec), spec)


@jax.jit(static_argnames="spec")
def content_targets(params: Params, content: AnyArray, spec: Spec) -> dict[str, Array]:
    """Return the activations of the content, by layer."""
    if not spec.tile or not spec.content_layers:
        return rows.keep(network(params, content, spec.content_layers, spec), spec)
    return rows.keep(tiling.activations(params, content, spec.content_layers, spec), spec)


def style_targets(
    params: Params, styles: Sequence[AnyArray], masks: Masks, shift: Array, spec: Spec
) -> dict[str, Array]:
    """Return the statistics of the styles, or of the parts that their masks name: by term, stacked."""
    statistics = [
        style_statistics(*style_arguments(params, style, shift, source, spec))
        for style, source in zip(styles, masks.sources_of(len(styles)), strict=True)
    ]
    return jax.tree.map(lambda *one: jnp.stack(one), *statistics) if statistics else {}


def style_arguments(
    params: Params, style: AnyArray, shift: Any, source: Float32[np.ndarray, "h w"] | None, spec: Spec
) -> tuple[Params, Array, Any, dict[str, Array] | None, Spec]:
    """Return what style_statistics takes of a style and its mask."""
    return params, _lay(style, spec), shift, mask_by_layer(source, spec), rows.spec_of(style, spec)


def regions_by_layer(
    parts: Float32[np.ndarray, "r h w"] | None, spec: Spec
) -> list[dict[str, Float[Array, "_ _"]]]:
    """Return the regions as the style's layers see them; none where there are no masks."""
    return [] if parts is None else [_by_layer(part, spec) for part in parts]


def mask_by_layer(mask: Float32[np.ndarray, "h w"] | None, spec: Spec) -> dict[str, Array] | None:
    """Return a mask as the style's layers see it; None is None."""
    return None if mask is None else _by_layer(mask, spec)


def _by_layer(mask: Float32[np.ndarray, "h w"], spec: Spec) -> dict[str, Array]:
    padded = rows.pad(mask, spec)
    return {layer: rows.put(masking.pooled(padded, layer), spec) for layer in spec.style_layers}


@jax.jit(static_argnames="spec")
def style_statistics(
    params: Params, style: AnyArray, shift: Array, mask: dict[str, Array] | None, spec: Spec
) -> dict[str, Array]:
    """Return the statistics of one style picture, or of the part of it that a mask weighs, by term."""
    if spec.tile:
        statistics = tiling.style_statistics(params, style, shift, mask, spec)
    else:
        sums = style_sums(network(params, style, spec.style_layers, spec), shift, mask, spec)
        statistics = STYLE_LOSSES[spec.style_loss].means(sums, positions(style.shape, spec))
    return rows.keep(statistics, spec)
