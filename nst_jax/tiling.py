"""The same objective window by window: exact value, gradient and terms of a picture of any size.

Style statistics, content and variation are sums over positions (style/), so they can be added up over
windows. A window is a core, whose positions count, and a halo as wide as the deepest layer sees. Pass 1 adds
up the style's sums; the slope of the total with respect to these is a small matrix for each term; pass 2 runs
the windows again and takes that slope, with those of content and variation, back to the picture. The memory
is that of one window, whatever the picture's size; the work about two forward passes and one backward pass.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nst_jax import objective
from nst_jax.objective import (
    Evaluation,
    Pieces,
    Spec,
    Targets,
    Terms,
    loss_pieces,
    network,
    owned_regions,
    positions,
    shown,
    style_sums,
    terms_of,
    weighted_sum,
)
from nst_jax.style import STYLE_LOSSES, Statistics, Sums
from nst_jax.vgg import AnyArray, Params, block_of, halo, map_shape


class Axis(NamedTuple):
    """How one side of a picture is cut into windows of one length."""

    length: int  # of the side
    window: int
    starts: tuple[int, ...]  # of the windows: multiples of the unit
    cores: tuple[int, ...]  # where the cores begin; each ends where the next begins, the last with the side


class Window(NamedTuple):
    """Where a window lies, traced: its first row and column, and where its core begins and ends."""

    start: tuple[Int[Array, ""], Int[Array, ""]]
    core: tuple[Int[Array, ""], Int[Array, ""]]
    end: tuple[Int[Array, ""], Int[Array, ""]]


def cut(length: int, tile: int, margin: int, unit: int) -> Axis:
    """Cut a side into windows of at most `tile` pixels, as few and as short as that allows.

    margin: pixels that a core must keep from the window's border, where that is not the picture's; a
    multiple of unit, on which windows and cores begin. A window ends on a unit or with the picture, and has
    the picture's own odd rest of pixels: so pooling drops the same rows in it as in the picture.
    """
    if length <= tile:
        return Axis(length, length, (0,), (0,))
    rest = length % unit
    most = (tile - rest) // unit * unit - 2 * margin  # of pixels from one window to the next
    count = 1 + math.ceil((length - rest - 2 * margin - most) / most)
    step = math.ceil((length - rest - 2 * margin) / count / unit) * unit  # of windows as short as will do
    window = step + 2 * margin + rest
    starts = tuple((length - window) * n // (count - 1) // unit * unit for n in range(count))
    return Axis(length, window, starts, (0, *(start + margin for start in starts[1:])))


def least_tile(names: Iterable[str], layers: Sequence[str]) -> int:
    """Return the shortest side of a window that has a core, in pixels. names: the network's convolutions."""
    margin, unit = _margin(names, layers)
    return 2 * margin + 2 * unit


def _margin(names: Iterable[str], layers: Sequence[str]) -> tuple[int, int]:
    unit: int = 2 ** (block_of(max(layers)) - 1)
    return math.ceil(halo(names, layers) / unit) * unit, unit


class Grid(NamedTuple):
    """A picture cut into windows."""

    rows: Axis
    columns: Axis
    blocks: int  # of the network, that the layers in use are of

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def window_shape(self) -> tuple[int, int]:
        """The rows and columns of every window."""
        return self.rows.window, self.columns.window

    def window(self, number: Int[Array, ""]) -> Window:
        """Return where a window lies."""
        row, column = number // len(self.columns.starts), number % len(self.columns.starts)
        start, core, end = zip(_place(self.rows, row), _place(self.columns, column), strict=True)
        return Window(start, core, end)

    def owned(self, window: Window) -> dict[int, Float[Array, "_ _"]]:
        """Return by block 1 where a position lies in the window's core, else 0."""
        found = {}
        for block in range(1, self.blocks + 1):
            unit = 2 ** (block - 1)
            sides = [
                _between(side // unit, *(bound // unit for bound in bounds))
                for side, *bounds in zip(self.window_shape, *window, strict=True)
            ]
            found[block] = sides[0][:, None] * sides[1][None, :]
        return found


def _place(axis: Axis, number: Int[Array, ""]) -> tuple[Array, Array, Array]:
    ends = (*axis.cores[1:], 2 * axis.length)  # the last core has all that is left, at every layer
    start, core, end = (jnp.asarray(places, jnp.int32)[number] for places in (axis.starts, axis.cores, ends))
    return start, core, end


def _between(length: int, start: Array, core: Array, end: Array) -> Float[Array, " n"]:
    where = start + jnp.arange(length, dtype=jnp.int32)
    return ((where >= core) & (where < end)).astype(jnp.float32)


def grid(
    shape: Sequence[int], names: Iterable[str], layers: Sequence[str], tile: int, whole_rows: bool = False
) -> Grid:
    """Return the windows of a picture of this shape, of at most tile pixels a side, for these layers.

    names: the network's convolutions. whole_rows: every window has all rows: they are spread over devices.
    """
    margin, unit = _margin(names, layers)
    tiles = shape[0] if whole_rows else tile, tile
    rows, columns = (cut(length, most, margin, unit) for length, most in zip(shape[:2], tiles, strict=True))
    return Grid(rows, columns, block_of(max(layers)))


def _grid(params: Params, image: AnyArray, layers: Sequence[str], spec: Spec) -> Grid:
    return grid(image.shape, params.convolutions, layers, spec.tile, spec.mesh is not None)


def _slice(array: AnyArray, layer: str, window: Window, shape: tuple[int, int]) -> Array:
    """Return a window of what is given at the positions of a layer."""
    unit = 2 ** (block_of(layer) - 1)
    starts = [start // unit for start in window.start] + [jnp.int32(0)] * (array.ndim - 2)
    return lax.dynamic_slice(jnp.asarray(array), starts, map_shape(layer, *shape) + array.shape[2:])


def _windowed(image: AnyArray, window: Window, shape: tuple[int, int]) -> Array:
    return _slice(image, "conv1_1", window, shape)


def evaluate(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, factors: Terms, spec: Spec
) -> Evaluation:
    """Return what objective.evaluate returns, in the memory of one window of spec.tile pixels a side."""
    windows = _grid(params, image, spec.layers, spec)
    if windows.windows == 1:  # then one pass will do
        return objective.evaluate(params, image, targets, factors, spec)
    picture, unshow = jax.vjp(lambda image: shown(image, targets.frame, spec), jnp.asarray(image))
    style = _sums(params, picture, targets.regions, targets.activation_shift, windows, spec)

    def total(pieces: Pieces) -> Any:
        terms = terms_of(pieces, targets, image.shape, spec)
        return weighted_sum(factors, terms), terms

    nothing = jnp.zeros(())
    empty = Pieces(dict.fromkeys(spec.content_layers, nothing), style, nothing)
    slopes = jax.grad(total, has_aux=True)(empty)[0]

    def add(number: Array, sums: tuple[Array, Pieces]) -> tuple[Array, Pieces]:
        gradient, pieces = sums
        window = windows.window(number)
        part = _windowed(picture, window, windows.window_shape)
        near = _near(params, targets, window, windows, spec)
        owned = windows.owned(window)
        found, back = jax.vjp(lambda part: loss_pieces(params, part, near, spec, owned), part)
        (slope,) = back(slopes)
        at = (*window.start, jnp.int32(0))
        moved = _windowed(gradient, window, windows.window_shape) + slope
        gradient = lax.dynamic_update_slice(gradient, moved, at)
        return gradient, jax.tree.map(jnp.add, pieces, found)

    none = jax.tree.map(jnp.zeros_like, (picture, empty))
    gradient, pieces = lax.fori_loop(0, windows.windows, add, none)
    value, terms = total(pieces)
    return Evaluation(value, unshow(gradient)[0], terms)


def _near(params: Params, targets: Targets, window: Window, windows: Grid, spec: Spec) -> Targets:
    """Return the targets of a window: its share of what is kept, or its content's activations made anew."""
    shape = windows.window_shape
    if targets.original is None:
        content = _near_maps(targets.content, window, shape)
    else:
        content = network(params, _windowed(targets.original, window, shape), spec.content_layers, spec)
    regions = [_near_maps(region, window, shape) for region in targets.regions]
    return targets._replace(content=content, regions=regions)


def _near_maps(maps: Mapping[str, AnyArray], window: Window, shape: tuple[int, int]) -> dict[str, Array]:
    return {layer: _slice(whole, layer, window, shape) for layer, whole in maps.items()}


def _sums(
    params: Params,
    image: Float[AnyArray, "h w 3"],
    regions: Sequence[dict[str, Array]],
    shift: Array,
    windows: Grid,
    spec: Spec,
) -> list[Sums]:
    """Return the sums of the style's statistics over all windows, by region."""

    def part(number: Array) -> list[Sums]:
        window, shape = windows.window(number), windows.window_shape
        maps = network(params, _windowed(image, window, shape), spec.style_layers, spec)
        near = [_near_maps(region, window, shape) for region in regions]
        return [
            style_sums(maps, shift, region, spec)
            for region in owned_regions(near, spec, windows.owned(window))
        ]

    none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(part, jnp.int32(0)))
    return lax.fori_loop(0, windows.windows, lambda n, sums: jax.tree.map(jnp.add, sums, part(n)), none)


def style_statistics(
    params: Params,
    style: Float[AnyArray, "h w 3"],
    shift: Float[Array, ""],
    mask: dict[str, Array] | None,
    spec: Spec,
) -> Statistics:
    """Return the statistics of a style picture, as objective.style_statistics does, window by window."""
    windows = _grid(params, style, spec.style_layers, spec)
    (sums,) = _sums(params, style, [] if mask is None else [mask], shift, windows, spec)
    return STYLE_LOSSES[spec.style_loss].means(sums, positions(style.shape, spec))


def activations(
    params: Params, image: Float[AnyArray, "h w 3"], layers: Sequence[str], spec: Spec
) -> dict[str, Float[Array, "_ _ _"]]:
    """Return a picture's activations at the layers, window by window."""
    windows = _grid(params, image, layers, spec)
    shape = windows.window_shape

    def put(number: Array, whole: dict[str, Array]) -> dict[str, Array]:
        window = windows.window(number)
        maps, owned = network(params, _windowed(image, window, shape), layers, spec), windows.owned(window)
        found = {}
        for layer, map_ in maps.items():
            unit = 2 ** (block_of(layer) - 1)
            kept = _slice(whole[layer], layer, window, shape)
            part = jnp.where(owned[block_of(layer)][..., None] > 0, map_, kept)
            at = (*(start // unit for start in window.start), jnp.int32(0))
            found[layer] = lax.dynamic_update_slice(whole[layer], part, at)
        return found

    sizes = jax.eval_shape(lambda image: network(params, image, layers, spec), image)
    none = {layer: jnp.zeros(size.shape, size.dtype) for layer, size in sizes.items()}
    return lax.fori_loop(0, windows.windows, put, none)
