"""The same objective window by window: exact value, gradient and terms of a picture of any size.

Terms are made of sums over positions (losses/), so they can be added up over windows. A window is a core,
whose positions count, and a halo as wide as the deepest layer sees. Pass 1 adds up what the total is not
linear in, as the style's sums. The slope of the total with respect to these is a small matrix for each term.
Pass 2 runs the windows again and takes that slope, with those of the linear terms, back to the picture. What
is the least over all positions has its slope in the window where that lies. The memory is that of one window,
whatever the picture's size; the work about two forward passes and one backward pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nst_jax.losses import TERMS
from nst_jax.losses.base import Min, View, is_node
from nst_jax.losses.sampling import Tile
from nst_jax.networks.base import AnyArray, Layer, Params
from nst_jax.objective import objective
from nst_jax.objective.objective import (
    Evaluation,
    PartialSums,
    Targets,
    Terms,
    given_terms,
    layers_of,
    loss_pieces,
    network,
    recomputed_terms,
    seen,
    sums_of,
    terms_of,
    weighted_sum,
)
from nst_jax.spec import Spec


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


def split_axis(length: int, tile: int, margin: int, unit: int) -> Axis:
    """Cut a side into windows of at most `tile` pixels, as few and as short as that allows.

    A window ends on a unit or with the picture. It has the picture's own odd rest of pixels, so pooling drops
    the same rows in it as in the picture.

    Args:
        length: Pixels of the side.
        tile: Pixels of a window, at most.
        margin: Pixels that a core keeps from the window's border, where that is not the picture's; a multiple
            of unit.
        unit: Pixels on whose multiples windows and cores begin.
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


def least_tile(spec: Spec) -> int:
    """Return the shortest side of a window that has a core, in pixels."""
    margin, unit = _margin(spec)
    return 2 * margin + 2 * unit


def _margin(spec: Spec) -> tuple[int, int]:
    deepest = spec.network.deepest(spec.layers)
    reaches = [TERMS[name].reach(spec) for name in spec.terms]
    beside = max(reach.maps for reach in reaches)
    sees = max(deepest.reach + beside, *(reach.image for reach in reaches))
    return math.ceil(sees / deepest.stride) * deepest.stride, deepest.stride


class Grid(NamedTuple):
    """A picture cut into windows."""

    rows: Axis
    columns: Axis
    layers: tuple[Layer, ...]  # in use

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

    def part(self, window: Window) -> Tile:
        """Return the part of the picture that a window stands for: the positions of its core."""
        found = {}
        for unit in {1, *(layer.stride for layer in self.layers)}:
            sides = [
                _between(side // unit, *(bound // unit for bound in bounds))
                for side, *bounds in zip(self.window_shape, *window, strict=True)
            ]
            found[unit] = sides[0][:, None] * sides[1][None, :]
        owned = {layer.name: found[layer.stride] for layer in self.layers}
        return Tile(found[1], owned, {layer.name: _first(window, layer.stride) for layer in self.layers})


def _place(axis: Axis, number: Int[Array, ""]) -> tuple[Array, Array, Array]:
    ends = (*axis.cores[1:], 2 * axis.length)  # the last core has all that is left, at every layer
    start, core, end = (jnp.asarray(places, jnp.int32)[number] for places in (axis.starts, axis.cores, ends))
    return start, core, end


def _between(length: int, start: Array, core: Array, end: Array) -> Float[Array, " n"]:
    where = start + jnp.arange(length, dtype=jnp.int32)
    return ((where >= core) & (where < end)).astype(jnp.float32)


def grid(shape: Sequence[int], spec: Spec) -> Grid:
    """Return the windows of a picture of this shape, of at most spec.tile pixels a side.

    With a mesh every window has all rows: they are spread over devices.
    """
    margin, unit = _margin(spec)
    tiles = shape[0] if spec.mesh else spec.tile, spec.tile
    rows, columns = (
        split_axis(length, most, margin, unit) for length, most in zip(shape[:2], tiles, strict=True)
    )
    return Grid(rows, columns, spec.network.select(spec.layers))


def _first(window: Window, stride: int) -> tuple[Array, Array]:
    """Return the row and column of a map of this stride where a window of it begins."""
    row, column = window.start
    return row // stride, column // stride


def _slice(array: AnyArray, stride: int, window: Window, shape: tuple[int, int]) -> Array:
    """Return a window of what is given at positions, so many pixels from one to the next."""
    starts = [*_first(window, stride)] + [jnp.int32(0)] * (array.ndim - 2)
    return lax.dynamic_slice(
        jnp.asarray(array), starts, (shape[0] // stride, shape[1] // stride, *array.shape[2:])
    )


def _windowed(image: AnyArray, window: Window, shape: tuple[int, int]) -> Array:
    return _slice(image, 1, window, shape)


def evaluate(
    params: Params, image: Float[AnyArray, "h w 3"], targets: Targets, factors: Terms, spec: Spec
) -> Evaluation:
    """Return what objective.evaluate returns, in the memory of one window of spec.tile pixels a side.

    Args:
        params: The network.
        image: As optimized, RGB in [0, 1].
        targets: What the picture is compared with (make_targets).
        factors: Coefficients of the terms (weights.coefficients).
        spec: What is static.
    """
    windows = grid(image.shape, spec)
    if windows.windows == 1:  # then one pass will do
        return objective.evaluate(params, image, targets, factors, spec)
    picture, unsee = jax.vjp(lambda image: seen(image, targets.background, spec), jnp.asarray(image))
    looked_at = [name for name in spec.terms if not TERMS[name].linear(spec)]

    near = partial(_share, params, picture, targets, windows, spec)

    def look(number: Array) -> PartialSums:
        """Return the pieces of a window that the total is not linear in."""
        _, pixels, local, part = near(number)
        layers = layers_of(looked_at, spec)
        maps = network(params, pixels, layers, spec) if layers else {}
        linear = {name: factors[name] for name in spec.terms if name not in looked_at}
        return jax.tree.map(jnp.zeros_like, linear) | sums_of(looked_at, pixels, maps, local, spec, part)

    whole, places = _over_windows(look, windows)

    def total(pieces: PartialSums) -> Any:
        terms = terms_of(pieces, targets, image.shape, spec)
        return weighted_sum(factors, terms), terms

    slopes = jax.grad(total, has_aux=True)(whole)[0]

    def add(number: Array, sums: tuple[Array, PartialSums]) -> tuple[Array, PartialSums]:
        gradient, pieces = sums
        window, pixels, local, part = near(number)
        found, back = jax.vjp(lambda pixels: loss_pieces(params, pixels, local, spec, part), pixels)
        (slope,) = back(_slopes_in(number, slopes, places))
        moved = _windowed(gradient, window, windows.window_shape) + slope
        gradient = lax.dynamic_update_slice(gradient, moved, (*window.start, jnp.int32(0)))
        return gradient, _together(pieces, found)

    none = jnp.zeros_like(picture), _nothing(whole)
    gradient, pieces = lax.fori_loop(0, windows.windows, add, none)
    value, terms = total(pieces)
    return Evaluation(value, unsee(gradient)[0], terms)


def _over_windows(look: Callable[[Array], Any], windows: Grid) -> tuple[Any, list[Array]]:
    """Return what is seen of all windows together, and for each Min in it the windows where it lies."""

    def add(number: Array, seen: tuple[Any, list[Array]]) -> tuple[Any, list[Array]]:
        (whole, places), found = seen, look(number)
        nearer = [new.value < old.value for old, new in zip(_minima(whole), _minima(found), strict=True)]
        places = [jnp.where(*each) for each in zip(nearer, [number] * len(places), places, strict=True)]
        return _together(whole, found), places

    none = _nothing(jax.eval_shape(look, jnp.int32(0)))
    places = [jnp.zeros(least.value.shape, jnp.int32) for least in _minima(none)]
    return lax.fori_loop(0, windows.windows, add, (none, places))


def _minima(tree: Any) -> list[Min]:
    return [node for node in jax.tree.leaves(tree, is_leaf=is_node) if isinstance(node, Min)]


def _nothing(shapes: Any) -> Any:
    """Return what is seen of no position at all."""

    def nothing(node: Any) -> Any:
        if isinstance(node, Min):
            return Min(jnp.full(node.value.shape, jnp.inf))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), node)

    return jax.tree.map(nothing, shapes, is_leaf=is_node)


def _together(one: Any, other: Any) -> Any:
    """Return what is seen of two parts of a picture, from what is seen of each."""

    def both(one: Any, other: Any) -> Any:
        if isinstance(one, Min):
            return Min(jnp.minimum(one.value, other.value))
        return jax.tree.map(jnp.add, one, other)

    return jax.tree.map(both, one, other, is_leaf=is_node)


def _slopes_in(number: Array, slopes: PartialSums, places: list[Array]) -> PartialSums:
    """Return the slopes with respect to what is seen of one window: of a Min, only where it lies there."""
    left = iter(places)

    def here(node: Any) -> Any:
        if isinstance(node, Min):
            return Min(jnp.where(next(left) == number, node.value, 0))
        return node

    return jax.tree.map(here, slopes, is_leaf=is_node)


def _share(
    params: Params, picture: AnyArray, targets: Targets, windows: Grid, spec: Spec, number: Array
) -> tuple[Window, Array, Targets, Tile]:
    """Return a window, its pixels, its targets, and the part of the picture that it stands for."""
    window = windows.window(number)
    pixels = _windowed(picture, window, windows.window_shape)
    return window, pixels, _near(params, targets, window, windows, spec), windows.part(window)


def _near(params: Params, targets: Targets, window: Window, windows: Grid, spec: Spec) -> Targets:
    """Return the targets of a window: its share of what is kept, or its content's activations recomputed."""
    shape, names = windows.window_shape, recomputed_terms(spec)
    given = {name: _near_maps(targets.terms[name], window, shape, spec) for name in given_terms(spec)}
    original = None if targets.original is None else _windowed(targets.original, window, shape)
    if original is None:
        own = {name: _near_maps(targets.terms[name], window, shape, spec) for name in names}
    else:
        layers = layers_of(names, spec)
        view = View(original, network(params, original, layers, spec), targets.numbers, spec)
        own = {name: make(view) for name in names if (make := TERMS[name].of_content)}
    regions = [_near_maps(region, window, shape, spec) for region in targets.regions]
    return targets.replace(terms=targets.terms | own | given, regions=regions, original=original)


def _near_maps(
    maps: Mapping[str, AnyArray], window: Window, shape: tuple[int, int], spec: Spec
) -> dict[str, Array]:
    """Return a window of arrays of a layer's positions, or by another name of pixels."""
    return {name: _slice(whole, spec.stride(name), window, shape) for name, whole in maps.items()}


def over_windows(
    look: Callable[[View], Any],
    params: Params,
    style: AnyArray,
    layers: Sequence[str],
    numbers: Mapping[str, Array],
    regions: Sequence[Mapping[str, Array]],
    spec: Spec,
) -> Any:
    """Return what a look sees of all of a style picture, window by window.

    Args:
        look: Returns what adds up over windows.
        params: The network.
        style: The painting.
        layers: That are looked at.
        numbers: Options that are traced, by name.
        regions: Weights by layer, of the style's mask.
        spec: What is static.
    """
    windows = grid(style.shape, spec)

    def look_here(number: Array) -> Any:
        window, shape = windows.window(number), windows.window_shape
        pixels = _windowed(style, window, shape)
        near = [_near_maps(region, window, shape, spec) for region in regions]
        maps = network(params, pixels, layers, spec)
        return look(View(pixels, maps, numbers, spec, windows.part(window), near))

    return _over_windows(look_here, windows)[0]


def activations(
    params: Params, image: Float[AnyArray, "h w 3"], layers: Sequence[str], spec: Spec
) -> dict[str, Float[Array, "_ _ _"]]:
    """Return a picture's activations at the layers, window by window.

    Args:
        params: The network.
        image: RGB in [0, 1].
        layers: Their names.
        spec: What is static.
    """
    windows = grid(image.shape, spec)
    shape = windows.window_shape

    def put(number: Array, whole: dict[str, Array]) -> dict[str, Array]:
        window = windows.window(number)
        maps, part = network(params, _windowed(image, window, shape), layers, spec), windows.part(window)
        found = {}
        for layer, map_ in maps.items():
            kept = _slice(whole[layer], spec.network.layer(layer).stride, window, shape)
            owned = jnp.where(part.owned[layer][..., None] > 0, map_, kept)
            at = (*part.starts[layer], jnp.int32(0))
            found[layer] = lax.dynamic_update_slice(whole[layer], owned, at)
        return found

    sizes = jax.eval_shape(lambda image: network(params, image, layers, spec), image)
    none = {layer: jnp.zeros(size.shape, size.dtype) for layer, size in sizes.items()}
    return lax.fori_loop(0, windows.windows, put, none)
