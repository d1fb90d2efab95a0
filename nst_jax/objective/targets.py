"""What a picture is compared with: what the losses want of the content and of the styles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from nst_jax.errors import InputError
from nst_jax.images import masks as masking
from nst_jax.images.masks import Masks
from nst_jax.losses import TERMS
from nst_jax.losses.base import Painting, View
from nst_jax.losses.sampling import sample_positions
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.networks.base import AnyArray, Params, check_picture, picture_list
from nst_jax.objective import sharding, tiling
from nst_jax.objective.objective import (
    Background,
    Targets,
    given_terms,
    layers_of,
    network,
    of_content,
    of_styles,
    recomputed_terms,
)
from nst_jax.spec import Spec


def make_targets(
    params: Params,
    content: Float[AnyArray, "h w 3"] | None,
    styles: Sequence[Float[AnyArray, "_ _ 3"]] | Float[AnyArray, "_ _ 3"],
    spec: Spec,
    *,
    masks: Masks | None = None,
    background: Float[AnyArray, "h w 3"] | None = None,
    **numbers: float,
) -> Targets:
    """Return the targets: the arrays with which the losses compare a picture. This runs the network.

    Args:
        params: The network.
        content: A picture (h, w, 3), RGB in [0, 1]. None: spec.content_layers must be empty.
        styles: Pictures of any sizes, or one. With masks.labels, one for each label (masks.each).
        spec: Config.spec(). With a mesh, all arrays are placed on its devices.
        masks: Where each style acts, in [0, 1]. None: everywhere.
        background: The picture where no mask is white, of the content's size. None: the content.
        numbers: Options that are arrays: activation_shift, which is added to activations before their
            statistics (0), and tv_power, p of the total variation (2.5).

    Raises:
        InputError: A picture has a wrong shape, or is too small for the deepest layer.
    """
    paintings = picture_list(styles)
    for what, picture in [("content", content), *(("style", painting) for painting in paintings)]:
        if picture is not None:
            check_picture(what, picture)
    traced = traced_numbers(spec, **numbers)
    masks = masks or Masks()
    parts = masking.regions(masks)
    around = content if background is None else background
    wanted = {} if content is None else content_targets(params, _lay(content, spec), spec)
    wanted |= {} if around is None else {name: _none_given(name, around, spec) for name in given_terms(spec)}
    return Targets(
        terms=wanted | style_targets(params, paintings, masks, traced, spec),
        numbers=traced,
        regions=[] if around is None else regions_by_layer(parts, around.shape, spec),
        background=make_background(around, parts, spec),
        original=_lay(content, spec) if spec.recompute_content else None,
    )


def with_content(
    targets: Targets,
    params: Params,
    content: Float[AnyArray, "h w 3"],
    spec: Spec,
    masks: Masks,
    given: Mapping[str, Mapping[str, AnyArray]],
) -> Targets:
    """Return targets with another content and masks of the same size; those of the styles stay.

    Args:
        targets: Made once, with the first content.
        params: The network.
        content: The new one (h, w, 3), as the network is to see it.
        spec: What is static.
        masks: Where styles act.
        given: Of the terms that take them (Term.given), the arrays, by term and name.
    """
    laid, parts = _lay(content, spec), masking.regions(masks)
    wanted = content_targets(params, laid, spec)
    wanted |= {name: {part: _lay(array, spec) for part, array in own.items()} for name, own in given.items()}
    return targets.replace(
        terms=targets.terms | wanted,
        regions=regions_by_layer(parts, content.shape, spec),
        background=make_background(content, parts, spec),
        original=laid if spec.recompute_content else None,
    )


def make_background(
    background: Float[AnyArray, "h w 3"] | None, parts: Float32[np.ndarray, "r h w"] | None, spec: Spec
) -> Background | None:
    """Return what lies around the regions, None where there are none.

    Args:
        background: The picture that shows where no mask is white.
        parts: A mask for each region. None: there are no masks.
        spec: What is static.
    """
    if parts is None:
        return None
    return Background(
        *(_lay(one, spec) for one in (background, masking.opacity(parts), masking.optimized(parts)))
    )


def traced_numbers(spec: Spec, **given: float) -> dict[str, Array]:
    """Return the options that terms take traced, by name. Raises InputError for others."""
    known = dict(number for name in spec.terms for number in TERMS[name].numbers)
    for name in given.keys() - known.keys():
        raise InputError(f"`{name}`", f"one of {', '.join(known)}", "no term takes it")
    traced: dict[str, Array] = sharding.replicate(
        {name: np.float32(number) for name, number in (known | given).items()}, spec
    )
    return traced


def _lay(array: Any, spec: Spec) -> Array:
    return sharding.shard(sharding.pad(array, spec), spec)


@jax.jit(static_argnames="spec")
def content_targets(params: Params, content: AnyArray, spec: Spec) -> dict[str, Any]:
    """Return the content targets by term, without those that windows recompute.

    Args:
        params: The network.
        content: Padded and placed.
        spec: What is static.
    """
    names = [
        name for name in of_content(spec) if not (spec.recompute_content and name in recomputed_terms(spec))
    ]
    layers = layers_of(names, spec)
    how = tiling.activations if spec.tile and layers else network
    view = View(content, how(params, content, layers, spec) if layers else {}, {}, spec)
    wanted: dict[str, Any] = sharding.constrain({name: _of_content(name, view) for name in names}, spec)
    return wanted


def style_targets(
    params: Params, styles: Sequence[AnyArray], masks: Masks, numbers: dict[str, Array], spec: Spec
) -> dict[str, Any]:
    """Return the targets of the styles, or of the parts that their masks name: by term, stacked.

    Args:
        params: The network.
        styles: The paintings.
        masks: Which part of each style is used.
        numbers: Options that are traced, by name.
        spec: What is static.
    """
    wanted = [
        wanted_of_style(*style_arguments(params, style, numbers, source, spec))
        for style, source in zip(styles, masks.sources_of(len(styles)), strict=True)
    ]
    return jax.tree.map(lambda *one: jnp.stack(one), *wanted) if wanted else {}


def style_arguments(
    params: Params,
    style: AnyArray,
    numbers: dict[str, Array],
    source: Float32[np.ndarray, "h w"] | None,
    spec: Spec,
) -> tuple[Params, Array, dict[str, Array], dict[str, Array] | None, dict[str, Array], Spec]:
    """Return what wanted_of_style takes of a style and its mask.

    Args:
        params: The network.
        style: The painting.
        numbers: Options that are traced, by name.
        source: Its mask. None: all of it is used.
        spec: What is static.
    """
    own = sharding.spec_of(style, spec)
    places = sharding.replicate(_style_positions(style, source, own), own)
    return params, _lay(style, own), numbers, mask_by_layer(source, style.shape, own), places, own


def _style_positions(
    style: AnyArray, source: Float32[np.ndarray, "h w"] | None, spec: Spec
) -> dict[str, Int32[np.ndarray, "n 2"]]:
    """Return the positions that stand for a style, by layer, where its loss asks for some."""
    count, found = STYLE_LOSSES[spec.style_loss].samples, {}
    for layer in spec.network.select(spec.style_layers) if count else ():
        everywhere = np.ones(layer.map_shape(*style.shape[:2]), np.float32)
        found[layer.name] = sample_positions(
            everywhere if source is None else masking.pooled(source, layer.stride), count
        )
    return found


def regions_by_layer(
    parts: Float32[np.ndarray, "r h w"] | None, shape: Sequence[int], spec: Spec
) -> list[dict[str, Float[Array, "_ _"]]]:
    """Return the regions of a picture, and their rings, as the layers of styles see them.

    A region that covers less than a position of the deepest layer is white everywhere: over nothing there is
    no mean. Its style is to have no share.

    Args:
        parts: A mask for each region. None: the whole picture is one.
        shape: Of the picture.
        spec: What is static.
    """
    wide: Sequence[Any] = [None]
    if parts is not None:
        acting = masking.acting(parts, spec.network, spec.style_layers)
        wide = [
            np.ones_like(one) if not acts else one
            for one, acts in zip(masking.widened(parts), acting, strict=True)
        ]
    found = [mask_by_layer(part, shape, spec) for part in wide]
    return [region for region in found if region is not None]


def mask_by_layer(
    mask: Float32[np.ndarray, "h w"] | None, shape: Sequence[int], spec: Spec
) -> dict[str, Array] | None:
    """Return a mask as the layers of styles see it.

    Args:
        mask: None: white everywhere. It stays None unless the style loss leaves out the outermost positions.
        shape: Of its picture.
        spec: What is static.
    """
    inner = STYLE_LOSSES[spec.style_loss].inner
    if mask is None and not inner:
        return None
    height, found = sharding.height(shape[0], spec), {}
    for layer in spec.network.select(layers_of(of_styles(spec), spec)):
        if mask is None:
            seen = np.ones(layer.map_shape(*shape[:2]), np.float32)
        else:
            seen = masking.pooled(mask, layer.stride)
        below = layer.map_shape(height, shape[1])[0] - len(seen)
        found[layer.name] = sharding.shard(
            np.pad(masking.inner(seen) if inner else seen, [(0, below), (0, 0)]), spec
        )
    return found


@jax.jit(static_argnames="spec")
def wanted_of_style(
    params: Params,
    style: AnyArray,
    numbers: dict[str, Array],
    mask: dict[str, Array] | None,
    places: dict[str, Array],
    spec: Spec,
) -> dict[str, Any]:
    """Return the targets of one style picture, or of the part of it that a mask weighs, by term.

    Args:
        params: The network.
        style: Padded and placed.
        numbers: Options that are traced, by name.
        mask: Weights of the positions, by layer. None: all count alike.
        places: Positions that stand for it, by layer.
        spec: What is static.
    """
    names = of_styles(spec)
    layers, regions = layers_of(names, spec), [] if mask is None else [mask]

    def at_once(look: Callable[[View], Any]) -> Any:
        return look(View(style, network(params, style, layers, spec), numbers, spec, None, regions))

    def by_windows(look: Callable[[View], Any]) -> Any:
        return tiling.over_windows(look, params, style, layers, numbers, regions, spec)

    size = spec.own_size(style.shape)
    painting = Painting(by_windows if spec.tile else at_once, places, numbers, size, spec)
    wanted: dict[str, Any] = sharding.constrain({name: _of_style(name, painting) for name in names}, spec)
    return wanted


def _none_given(name: str, picture: AnyArray, spec: Spec) -> dict[str, Array]:
    make = TERMS[name].given
    assert make is not None
    return {part: _lay(array, spec) for part, array in make(*picture.shape[:2]).items()}


def _of_content(name: str, view: View) -> Any:
    make = TERMS[name].of_content
    assert make is not None
    return make(view)


def _of_style(name: str, painting: Painting) -> Any:
    make = TERMS[name].of_style
    assert make is not None
    return make(painting)
