"""What a picture is compared with: what the losses want of the content and of the styles."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from nst_jax import masks as masking
from nst_jax import rows, tiling
from nst_jax.losses.content import CONTENT_LOSSES
from nst_jax.losses.samples import sample_positions
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.masks import Masks
from nst_jax.objective import Frame, Spec, Targets, network, over_style, positions
from nst_jax.vgg import AnyArray, Params, check_picture, map_shape, picture_list


def make_targets(
    params: Params,
    content: Float[AnyArray, "h w 3"] | None,
    styles: Sequence[Float[AnyArray, "_ _ 3"]] | Float[AnyArray, "_ _ 3"],
    spec: Spec,
    *,
    activation_shift: float = 0.0,
    tv_power: float = 2.5,
    masks: Masks | None = None,
    background: Float[AnyArray, "h w 3"] | None = None,
) -> Targets:
    """Return what the losses compare a picture with: arrays, made once. This runs the network.

    Args:
        params: The network.
        content: A picture (h, w, 3), RGB in [0, 1]. None: spec.content_layers must be empty, and
            spec.photorealistic False.
        styles: Pictures of any sizes, or one. With masks.labels there is one for each label (masks.each).
        spec: Config.spec(). With a mesh all arrays are placed on its devices.
        activation_shift: The number that is added to activations before their statistics.
        tv_power: p of the total variation.
        masks: Where each style acts, in [0, 1]. None: everywhere.
        background: What shows where no mask is white, of the content's size. None: the content.

    Raises:
        InputError: A picture is none, or too small for the deepest layer.
    """
    paintings = picture_list(styles)
    for what, picture in [("content", content), *(("style", painting) for painting in paintings)]:
        if picture is not None:
            check_picture(what, picture)
    shift, power = rows.put_everywhere((np.float32(activation_shift), np.float32(tv_power)), spec)
    masks = masks or Masks()
    parts = masking.regions(masks)
    around = content if background is None else background
    return Targets(
        content={} if content is None or spec.anew else content_targets(params, _lay(content, spec), spec),
        style=style_targets(params, paintings, masks, shift, spec),
        activation_shift=shift,
        tv_power=power,
        regions=[] if around is None else regions_by_layer(parts, around.shape, spec),
        frame=None if parts is None else Frame(_lay(around, spec), _lay(masking.opacity(parts), spec)),
        original=_lay(content, spec) if spec.anew or spec.photorealistic else None,
    )


def _lay(array: Any, spec: Spec) -> Array:
    return rows.put(rows.pad(array, spec), spec)


@jax.jit(static_argnames="spec")
def content_targets(params: Params, content: AnyArray, spec: Spec) -> dict[str, Any]:
    """Return what is wanted of the content, by term."""
    how = tiling.activations if spec.tile and spec.content_layers else network
    maps = how(params, content, spec.content_layers, spec)
    return rows.keep(CONTENT_LOSSES[spec.content_loss].wanted(content, maps, spec.rows), spec)


def style_targets(
    params: Params, styles: Sequence[AnyArray], masks: Masks, shift: Array, spec: Spec
) -> dict[str, Any]:
    """Return what is wanted of the styles, or of the parts that their masks name: by term, stacked."""
    wanted = [
        wanted_of_style(*style_arguments(params, style, shift, source, spec))
        for style, source in zip(styles, masks.sources_of(len(styles)), strict=True)
    ]
    return jax.tree.map(lambda *one: jnp.stack(one), *wanted) if wanted else {}


def style_arguments(
    params: Params, style: AnyArray, shift: Any, source: Float32[np.ndarray, "h w"] | None, spec: Spec
) -> tuple[Params, Array, Any, dict[str, Array] | None, dict[str, Array], Spec]:
    """Return what wanted_of_style takes of a style and its mask."""
    own = rows.spec_of(style, spec)
    places = rows.put_everywhere(_style_positions(style, source, own), own)
    return params, _lay(style, own), shift, mask_by_layer(source, style.shape, own), places, own


def _style_positions(
    style: AnyArray, source: Float32[np.ndarray, "h w"] | None, spec: Spec
) -> dict[str, Int32[np.ndarray, "n 2"]]:
    """Return the positions that stand for a style, by layer, where its loss asks for some."""
    count, found = STYLE_LOSSES[spec.style_loss].samples, {}
    for layer in spec.style_layers if count else ():
        everywhere = np.ones(map_shape(layer, *style.shape[:2]), np.float32)
        found[layer] = sample_positions(
            everywhere if source is None else masking.pooled(source, layer), count
        )
    return found


def regions_by_layer(
    parts: Float32[np.ndarray, "r h w"] | None, shape: Sequence[int], spec: Spec
) -> list[dict[str, Float[Array, "_ _"]]]:
    """Return the regions of a picture of this shape as the style's layers see them; none: all of it."""
    found = [mask_by_layer(part, shape, spec) for part in ([None] if parts is None else parts)]
    return [region for region in found if region is not None]


def mask_by_layer(
    mask: Float32[np.ndarray, "h w"] | None, shape: Sequence[int], spec: Spec
) -> dict[str, Array] | None:
    """Return a mask of a picture of this shape as the style's layers see it.

    None is white everywhere, and stays None unless the style loss leaves out the outermost positions.
    """
    inner = STYLE_LOSSES[spec.style_loss].inner
    if mask is None and not inner:
        return None
    height, found = rows.height(shape[0], spec), {}
    for layer in spec.style_layers:
        if mask is None:
            seen = np.ones(map_shape(layer, *shape[:2]), np.float32)
        else:
            seen = masking.pooled(mask, layer)
        below = map_shape(layer, height, shape[1])[0] - len(seen)
        found[layer] = rows.put(np.pad(masking.inner(seen) if inner else seen, [(0, below), (0, 0)]), spec)
    return found


@jax.jit(static_argnames="spec")
def wanted_of_style(
    params: Params,
    style: AnyArray,
    shift: Array,
    mask: dict[str, Array] | None,
    places: dict[str, Array],
    spec: Spec,
) -> dict[str, Any]:
    """Return what is wanted of one style picture, or of the part of it that a mask weighs, by term.

    places: the positions that stand for it, by layer.
    """
    how = tiling.over_style if spec.tile else over_style
    over = partial(how, params=params, style=style, mask=mask, spec=spec)
    loss = STYLE_LOSSES[spec.style_loss]
    return rows.keep(loss.wanted(over, shift, spec.rows, places, positions(style.shape, spec)), spec)
