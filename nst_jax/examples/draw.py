"""Style pictures drawn by a seeded program, so that they are free of rights and exist at any size; and masks.

Smooth noise bends all of them: brush strokes and contours follow the level curves of such a field, and leads,
rocks and clouds take their shape from it. Positions are in points, 600 to the shorter side, so that a picture
looks the same at every size. A mask shows one region of an example photograph, a label map all regions of a
picture, both outlined by hand.

`python -m nst_jax.examples.draw` writes the shipped files anew.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import interpolate, ndimage, spatial

Array = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int_]
Number = int | float
Field = Callable[[Array, Array], Array]  # a function of position (x, y)

FOLDER = Path(__file__).parent
SHORT_SIDE = 600.0  # points
PIXELS = 480  # to the shorter side of a canvas, at least: less would not show the finest lines


class Canvas:
    """A picture being drawn, addressed in points; alpha holds the thickness of the paint."""

    def __init__(self, size: tuple[int, int], background: str):
        # Pillow's lines have hard edges: draw at least twice as large as asked for, then average.
        times = max(2, math.ceil(PIXELS / min(size)))
        self.size = size
        self.scale = times * min(size) / SHORT_SIDE
        self.height, self.width = (times * side / self.scale for side in size)
        pixels = (times * size[1], times * size[0])
        self.image = Image.new("RGBA", pixels, "#" + background)
        self.draw = ImageDraw.Draw(self.image)

    def grid(self) -> tuple[Array, Array]:
        """Return the positions (x, y) of all pixels."""
        y, x = np.indices((self.image.height, self.image.width)) / self.scale
        return x, y

    def rgb(self) -> Array:
        """Return what has been drawn (h, w, 3), in [0, 255]."""
        return np.asarray(self.image)[..., :3].astype(float)

    def line(self, points: Array, color: Array, width: Number) -> None:
        """Draw the curve points (n, 2)."""
        self.draw.line(self._flat(points), self._fill(color), max(1, round(width * self.scale)))

    def polygon(self, points: Array, color: Array, outline: Array, width: Number) -> None:
        """Fill the polygon with corners points (n, 2) and draw its outline."""
        self.draw.polygon(self._flat(points), self._fill(color))
        self.line(np.concatenate([points, points[:1]]), outline, width)

    def scatter(self, rng: np.random.Generator, spacing: Number) -> tuple[Array, Array]:
        """Return positions (x, y) in random order, one per square of side spacing, also past the border."""
        y, x = np.mgrid[-20 : self.height + 20 : spacing, -20 : self.width + 20 : spacing]
        at = np.stack([x.ravel(), y.ravel()]) + rng.uniform(0, spacing, (2, x.size))
        x, y = rng.permutation(at, axis=1)
        return x, y

    def finish(self, rgb: Array) -> Pixels:
        """Return rgb in [0, 255], as large as the canvas, at the size asked for."""
        image = Image.fromarray(np.clip(rgb + 0.5, 0, 255).astype(np.uint8))
        return np.asarray(image.resize(self.size[::-1], Image.Resampling.BOX))

    def _flat(self, points: Array) -> list[float]:
        return (points * self.scale).ravel().tolist()

    def _fill(self, color: Array) -> tuple[int, ...]:
        return tuple(np.clip(color, 0, 255).astype(int).tolist())


def noise(rng: np.random.Generator, scale: Number, octaves: int = 1) -> Field:
    """Return smooth noise, about unit variance, whose features are about `scale` points wide."""
    lattices = [rng.standard_normal((64, 64)) * 2 for _ in range(octaves)]

    def field(x: Array, y: Array) -> Array:
        at = np.stack(np.broadcast_arrays(y, x)) / scale
        # The lattice taken as B-spline coefficients: twice differentiable, periodic, never overshooting.
        layers = [
            ndimage.map_coordinates(lattice / 2**k, at * 2**k, mode="grid-wrap", prefilter=False)
            for k, lattice in enumerate(lattices)
        ]
        return np.asarray(sum(layers), float)

    return field


def trace(potential: Field, x: Array, y: Array, step: Number, steps: int) -> Array:
    """Return curves (n, steps + 1, 2) that run from x, y (n,) along the level curves of potential."""
    path = [np.stack([x, y], -1)]
    for _ in range(steps):
        x, y = path[-1].T
        dx = potential(x + 0.5, y) - potential(x - 0.5, y)
        dy = potential(x, y + 0.5) - potential(x, y - 0.5)
        path.append(path[-1] + step * np.stack([dy, -dx], -1) / (np.hypot(dx, dy) + 1e-9)[:, None])
    return np.stack(path, 1)


def ramp(colors: str, tone: Array) -> Array:
    """Return the colors (..., 3) at tone in [0, 1] on a ramp of evenly spaced hexadecimal colors."""
    stops = np.array([list(bytes.fromhex(color)) for color in colors.split()], float)
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(tone, at, channel) for channel in stops.T], -1)


def lit(thickness: Array) -> Array:
    """Return how much a relief (h, w) faces the upper left, where the light comes from."""
    down, right = np.gradient(thickness)
    return np.asarray(down + right)


def turned(points: Array, angle: Array | Number) -> Array:
    """Return points (..., 2) turned by angle, from the x axis toward the y axis."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], -1)


def brush(canvas: Canvas, rng: np.random.Generator, paths: Array, colors: Array, width: Number) -> None:
    """Paint a stroke along every path (n, points, 2) in its color (n, 3): bristles side by side."""
    bristles = max(3, round(width / 1.4))
    across = np.linspace(-0.5, 0.5, bristles)[:, None, None]
    along = np.gradient(paths, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    taper = np.sin(np.linspace(0.5, 2.7, paths.shape[1]))[:, None]
    normals = width * taper * np.stack([-along[..., 1], along[..., 0]], -1)
    lines = (paths[:, None] + across * normals[:, None]) * canvas.scale
    streaks = rng.normal(0, 9, (len(paths), bristles, 1))
    thickness = np.maximum(140 + 360 * across[..., 0] ** 2 + 4 * streaks, 1)  # paint piles up at the sides
    shades = colors[:, None] * (1 + streaks / 100) + streaks
    fills = np.clip(np.concatenate([shades, thickness], -1), 0, 255).astype(int)
    ragged = 2 * rng.integers(0, 3, (len(paths), bristles, 2))  # bristles touch down and lift off unevenly
    for stroke in zip(lines, fills.tolist(), ragged.tolist(), strict=True):
        for points, fill, (start, stop) in zip(*stroke, strict=True):
            flat = points.ravel().tolist()
            canvas.draw.line(flat[start : len(flat) - stop], tuple(fill), max(1, round(2.1 * canvas.scale)))


def impasto(canvas: Canvas, strength: Number) -> Array:
    """Return the canvas's colors (h, w, 3) with light from the upper left on the relief of its paint."""
    thickness = np.asarray(canvas.image)[..., 3].astype(float) / 255
    light = strength * canvas.scale * lit(ndimage.gaussian_filter(thickness, 0.45 * canvas.scale))
    light = np.clip(light, -0.35, 0.45)[..., None]
    return np.asarray(canvas.rgb() * (1 + light) + 40 * np.maximum(light, 0))


def night(size: tuple[int, int], seed: int) -> Pixels:
    """Draw a night of whirling brush strokes over hills and poplars."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(size, "10204a80")
    wander, patches, sway = noise(rng, 170), noise(rng, 60, 2), noise(rng, 40)
    _whirls(canvas, rng, wander, patches)
    _hills(canvas, rng, patches)
    _poplars(canvas, rng, patches, sway)
    return canvas.finish(impasto(canvas, 1.2))


def _whirls(canvas: Canvas, rng: np.random.Generator, wander: Field, patches: Field) -> None:
    """Paint the sky of night: two great whirls that turn against each other, the moon and the stars."""
    w, h = canvas.width, canvas.height
    whirls = [(0.40, 0.35, 105.0, 2.6), (0.635, 0.49, 75.0, -2.4)]  # x, y, radius, turn
    lights = [(0.86, 0.17, 82.0), (0.09, 0.15, 54.0), (0.27, 0.09, 38.0), (0.55, 0.11, 46.0)]
    lights += [(0.71, 0.25, 32.0), (0.12, 0.46, 44.0), (0.24, 0.58, 28.0), (0.80, 0.52, 36.0)]
    vortices = whirls + [(*light, 3.0) for light in lights]

    def sky(x: Array, y: Array) -> Array:
        total = y + 30 * wander(x, y)
        for cx, cy, radius, turn in vortices:
            near = np.exp(-((x - w * cx) ** 2 + (y - h * cy) ** 2) / radius**2)
            total += (turn * radius + h * cy - y) * near  # the level curves close around the center
        return total

    def sky_color(x: Array, y: Array) -> Array:
        tone = 0.42 + 0.25 * np.sin(sky(x, y) / 13 + patches(x, y)) + 0.13 * patches(x, y)
        color = ramp("0a1636 14287a 1f49a0 3f7cc4 8fb8d4 dfe6cf", tone + rng.normal(0, 0.09, x.shape))
        for cx, cy, radius in lights:
            r = np.hypot(x - w * cx, y - h * cy) / radius
            warm = ramp("7fae9c a9b85c e8a92c f9d648 fdf3c4 fffbe6", 1.15 - r + rng.normal(0, 0.1, x.shape))
            halo = np.clip((1.35 - r) * (1 + 0.8 * np.cos(11 * r)) + rng.normal(0, 0.12, x.shape), 0, 1)
            color += (warm - color) * np.maximum(halo, r < 0.3)[:, None]
        return color

    for spacing, length, width in ((11, 56, 15), (8, 40, 10), (12, 28, 7)):
        x, y = canvas.scatter(rng, spacing)
        paths = trace(sky, x, y, 4, length // 4)
        brush(canvas, rng, paths, sky_color(*paths[:, length // 8].T), width)


def _hills(canvas: Canvas, rng: np.random.Generator, patches: Field) -> None:
    """Paint the hills of night, the farthest first."""
    h = canvas.height

    def hill(layer: int) -> Field:
        ridge = noise(rng, 150 - 15 * layer, 2)
        top = h * (0.70 + 0.075 * layer)
        return lambda x, y: y - top - (26 - 3 * layer) * ridge(x, np.full_like(x, 300.0 * layer))

    def swayed(potential: Field, much: Number) -> Field:
        return lambda x, y: potential(x, y) + much * patches(x, y)

    for layer in range(4):
        ground = hill(layer)
        x, y = canvas.scatter(rng, 6.5)
        depth = ground(x, y)
        x, y, depth = x[depth > 2], y[depth > 2], depth[depth > 2]
        furrows = 0.32 * np.sin(depth / 7 + 2 * patches(x, y)) - 0.002 * depth
        tone = 0.47 + furrows + rng.normal(0, 0.14, x.shape)
        far = ramp("1a2f5e 27508a 3f7a94 7ba79a c8cf9a", tone)
        near = ramp("0b1a2a 12343f 1f5145 67802f d8b440", tone)
        brush(canvas, rng, trace(swayed(ground, 10), x, y, 4, 7), far + (near - far) * layer / 3, 8)


def _poplars(canvas: Canvas, rng: np.random.Generator, patches: Field, sway: Field) -> None:
    """Paint the poplars of night."""
    w, h = canvas.width, canvas.height
    for cx, top, wide in ((0.925, 0.36, 34.0), (0.855, 0.50, 26.0), (0.975, 0.52, 26.0)):
        x, y = canvas.scatter(rng, 4.5)
        rise = np.clip((y / h - top) / (1.02 - top), 0, 1)
        side = x - w * cx + 7 * sway(x, y)
        inside = (rise > 0) & (np.abs(side) < wide * np.sqrt(rise) * (1.25 - 0.5 * rise))
        x, y, side = x[inside], y[inside], side[inside]
        tone = 0.38 + 0.3 * np.sin(side / 5 + patches(x, y)) - 0.006 * side + rng.normal(0, 0.16, x.shape)
        flames = trace(lambda x, y: x + 7 * sway(x, y), x, y, 4, 8)
        brush(canvas, rng, flames, ramp("081214 10251f 1d3f2b 3f5426 8a6a2c", tone), 7)


# Two tones for every theme of the window: the sun's rings, its two kinds of rays, three hills and water.
JEWELS = """
    fff6c2 ffd94a  ff9a1c ffd04a  d81f26 ff6a2b  ffb01f ffe79a  8f1238 d9305e
    12308f 2f7be8  2a9fe0 86e4ea  4f9a2a b9d83a  0b7a52 2cc08d  3a2390 8a4fd0
"""


def glass(size: tuple[int, int], seed: int) -> Pixels:
    """Draw a stained-glass window: a sun with its rays over hills and water."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(size, "000000")
    sun = np.array([0.60 * canvas.width, 0.34 * canvas.height])
    sites, theme, hue = _panes(canvas, rng, sun)

    px, py = canvas.grid()
    sway = noise(rng, 45), noise(rng, 45)
    at = np.stack([px + 6 * sway[0](px, py), py + 6 * sway[1](px, py)], -1)  # leads are not quite straight
    distance, near = spatial.cKDTree(sites).query(at, k=3)
    pane = near[..., 0]
    lead = np.full(pane.shape, np.inf)  # distance to the nearest lead's axis, in half its widths
    for k in (1, 2):
        gap = np.linalg.norm(sites[near[..., k]] - sites[pane], axis=-1)
        edge = (distance[..., k] ** 2 - distance[..., 0] ** 2) / (2 * gap)  # distance to the bisector
        wide = np.where(theme[near[..., k]] == theme[pane], 2.3, 4.2) + 0.5 * sway[k - 1](2 * px, 2 * py)
        lead = np.minimum(lead, edge / wide)

    # The glass: two tones mixed along a direction of the pane's own, in streaks, over a hammered surface.
    across = turned(at - sites[pane], rng.uniform(0, 2 * np.pi, len(sites))[pane]) / 40
    streaks = noise(rng, 1, 3)(across[..., 0] / 3 + 3 * pane, across[..., 1] * 2.5)
    hammered = noise(rng, 8, 2)(px, py)
    slope = lit(hammered) * canvas.scale
    tone = np.clip(rng.uniform(size=len(sites))[pane] + 0.5 * across[..., 0] + 0.4 * streaks, 0, 1)[..., None]
    dark, pale = ramp(JEWELS, np.linspace(0, 1, 20)).reshape(10, 2, 3)[hue].swapaxes(0, 1)
    rgb = dark[pane] * (1 - tone) + pale[pane] * tone
    light = 1.15 - 0.3 * np.linalg.norm(np.stack([px, py], -1) - sun, axis=-1) / canvas.height
    light += 0.22 * across[..., 0] + 0.2 * slope + 0.05 * hammered
    light *= 1 - 0.4 * np.exp(-np.maximum(lead - 1, 0) * 2.2)  # dirt gathers along the lead
    rgb = rgb * light[..., None] + 90 * np.clip(slope - 0.2, 0, 1)[..., None]
    # The lead: a round bar, lit from the upper left.
    bar = ndimage.gaussian_filter(np.sqrt(np.clip(1 - lead**2, 0, 1)), 0.6 * canvas.scale)
    metal = 24 + 8 * hammered + 110 * np.clip(lit(bar) * canvas.scale, 0, 1)
    cover = np.clip((1 - lead) * 3, 0, 1)[..., None]
    return canvas.finish(rgb * (1 - cover) + metal[..., None] * np.array([0.95, 1.0, 1.1]) * cover)


def _panes(canvas: Canvas, rng: np.random.Generator, sun: Array) -> tuple[Array, Numbers, Numbers]:
    """Return where the panes of glass are (n, 2), and of each its theme and its hue (n,).

    Args:
        canvas: for its size.
        rng: of the picture.
        sun: where it stands (2,).
    """
    h = canvas.height
    free = np.stack(canvas.scatter(rng, 38), -1)
    rings = [sun[None]]
    for radius, panes in ((34.0, 7), (68.0, 14), (104.0, 14), (140.0, 28)):
        spokes = np.arange(panes) * 2 * np.pi / panes + radius
        rings.append(sun + radius * np.stack([np.cos(spokes), np.sin(spokes)], -1))
    sites = np.concatenate([*rings, free[np.linalg.norm(free - sun, axis=-1) > 155]])

    x, y = sites.T
    radius = np.linalg.norm(sites - sun, axis=-1)
    ray = np.arctan2(y - sun[1], x - sun[0]) * 7 // np.pi % 2
    hills = noise(rng, 260)
    below = [y > h * top + 45 * hills(x, np.full_like(x, 900 * top)) for top in (0.60, 0.70, 0.80)]
    theme = np.where(np.any(below, axis=0), 6 + np.sum(below, axis=0), 5 + ray).astype(int)
    theme = np.where(radius < 150, np.searchsorted([20, 50, 85, 120], radius), theme)
    stray = (rng.uniform(size=x.shape) < 0.08) & (radius > 150)
    hue = np.where(stray, rng.integers(0, 10, x.shape), theme)
    hue = np.where((theme == 9) & (y // 26 % 3 == 0), 5, hue)  # the water mirrors the sky
    return sites, theme, hue


# A breaking wave's outside and inside, from its foot to the tip of its lip; height 1, y up.
OUTSIDE = "-2,-.6 -1.25,0 -.75,.26 -.35,.66 0,.94 .32,1 .6,.86 .7,.58"
INSIDE = "1.2,-.6 .62,-.1 .24,.08 .06,.34 .1,.6 .3,.76 .52,.74 .7,.58"
BLUES = "14234f 1f3f77 2f62a0 5f93b8 a9c6c6 e9e2c8"
INDIGO, FOAM = np.array([18.0, 32.0, 66.0]), np.array([245.0, 239.0, 220.0])
SEPIA = np.array([34.0, 24.0, 20.0])


def parse(corners: str) -> Array:
    """Return the points (n, 2) written "x,y x,y ..."."""
    return np.array([corner.split(",") for corner in corners.split()], float)


def smooth(corners: str, count: int = 70) -> Array:
    """Return count points (count, 2) on a smooth curve through the corners, written "x,y x,y ..."."""
    points = parse(corners)
    spline = interpolate.CubicSpline(np.linspace(0, 1, len(points)), points)
    return np.asarray(spline(np.linspace(0, 1, count)))


def claw() -> Array:
    """Return the outline (n, 2) of a finger of foam that reaches forward, along x, and hooks to the right."""
    s = np.linspace(0, 1, 12)
    angle = np.pi * (0.95 - 1.15 * s)
    middle = np.stack([0.5 + 0.55 * np.cos(angle), 0.9 * np.sin(angle)], -1)
    out = np.stack([np.cos(angle), np.sin(angle)], -1) * (0.30 * (1 - s) ** 0.7)[:, None]
    return np.concatenate([middle + out, (middle - out)[::-1]])


def breaker(canvas: Canvas, rng: np.random.Generator, foot: Array, tall: Array, shades: Array) -> None:
    """Draw a breaking wave at foot, tall = (width, height), in bands of the shades (n, 3), inside first."""
    inside, outside = smooth(INSIDE), smooth(OUTSIDE)
    fine = 0.8 + tall[1] / 220
    for i, shade in enumerate(shades):
        a, b = (foot + (inside + (outside - inside) * k / len(shades)) * tall * [1, -1] for k in (i, i + 1))
        canvas.polygon(np.concatenate([a, b[::-1]]), shade, INDIGO, fine)
    for first, reach, lean in ((26, 0.09, 0.2), (30, 0.14, 0.5), (34, 0.10, 1.0)):
        for i in range(first, 69, 2):
            along = outside[i + 1] - outside[i - 1]
            turn = np.arctan2(along[1], along[0]) + lean * rng.uniform(-0.8, 0.6)
            finger = reach * rng.uniform(0.7, 1.3) * turned(claw(), turn)
            root = outside[i] - (0.05 - 0.05 * lean) * np.array([-along[1], along[0]])
            canvas.polygon(foot + (root + finger) * tall * [1, -1], FOAM, INDIGO, 0.8)
    for _ in range(14):  # spray
        at = np.array([rng.uniform(-0.5, 1.1), 1.12 + 0.12 * abs(rng.normal())])
        drop = turned(np.array([[1.0, 0.0]]), np.linspace(0, 6, 9)) * rng.uniform(0.8, 2.2)
        canvas.polygon(foot + at * tall * [1, -1] + drop, FOAM, INDIGO, 0.6)


def waves(size: tuple[int, int], seed: int) -> Pixels:
    """Draw breaking waves under a banded sky, as a woodcut prints them."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(size, "efe2c4")
    w, h = canvas.width, canvas.height
    px, py = canvas.grid()
    streams, swirl, grain = noise(rng, 120, 2), noise(rng, 90), noise(rng, 60, 2)

    level = py / 11 + 2.2 * streams(px / 3, py) + 1.1 * swirl(px, py)
    shade = np.array([0.55, 0.9, 0.7, 1.0, 0.2, 0.8, 0.95, 0.4, 0.85])[np.floor(level).astype(int) % 9]
    rgb = ramp("5f86a0 a9bdb4 d9c79a f1e4c6", shade + 0.15 * (level % 1))
    disc = np.hypot(px - 0.27 * w, py - 0.2 * h) < 62
    rgb[disc & (shade > 0.5)] = [206, 84, 52]
    steep = np.hypot(*np.gradient(level)) * canvas.scale
    contour = np.clip(1.4 - (0.5 - np.abs(level * 2 % 1 - 0.5)) / steep, 0, 1)[..., None]
    rgb += (INDIGO - rgb) * contour
    canvas.image.paste(Image.fromarray(rgb.astype(np.uint8)))

    for row in range(6):
        near = row / 5
        tall = 55 + 190 * near**1.3
        y = h * (0.40 + 0.70 * near)
        x = np.linspace(-20, w + 20, 80)
        for k in range(9):  # the sea between the waves
            ripple = 0.04 * np.sin(3 * x / tall + 0.7 * k + row) + 0.03 * swirl(x, np.full_like(x, y))
            edge = np.stack([x, y + tall * (0.09 * k - 0.22 + ripple)], -1)
            body = np.concatenate([edge, [[w + 20, h + 20], [-20, h + 20]]])
            canvas.polygon(body, ramp(BLUES, np.array((0.2, 0.5, 0.05, 0.75)[k % 4])), INDIGO, 1.0)
        for x0 in np.arange(rng.uniform(-0.8, 0.6), w / tall + 1.5, 1.75) * tall:
            tone = np.linspace(0.0, 0.8, 6 + 2 * row) + 0.25 * (np.arange(6 + 2 * row) % 2)
            foot = np.array([x0, y + rng.normal(0, 0.06) * tall])
            breaker(canvas, rng, foot, tall * rng.uniform(0.85, 1.15, 2), ramp(BLUES, tone))
    wood = 5 * grain(px / 2, 12 * py) + 5 * noise(rng, 2.5)(px, py)
    return canvas.finish(canvas.rgb() + wood[..., None])


def hatch(canvas: Canvas, rng: np.random.Generator, angle: Array, darkness: Array, edge: Mask) -> None:
    """Hatch along angle (h, w), one value per point, the closer and bolder the darker; stop at an edge.

    Lines keep their distance: each is drawn, as wide as that distance, on a second canvas. There a line that
    grows looks before each step (after Jobard and Lefer 1997, evenly spaced streamlines).
    """
    rows, columns = angle.shape
    taken = Image.new("1", (2 * columns, 2 * rows))
    pencil, used = ImageDraw.Draw(taken), taken.load()
    assert used is not None

    def grow(seed: list[float], longest: Number) -> list[tuple[float, float]]:
        line: list[tuple[float, float]] = []
        for step in (-2.0, 2.0):  # one way, then the other way from the seed
            x, y = seed
            line, end = line[:0:-1], len(line) + longest
            while len(line) < end and 0 <= x < columns and 0 <= y < rows:
                at = int(y), int(x)
                if used[int(2 * x), int(2 * y)] or darkness[at] <= 0 or (line and edge[at]):
                    break
                line.append((x, y))
                x, y = x + step * math.cos(angle[at]), y + step * math.sin(angle[at])
        return line

    seeds = np.stack(canvas.scatter(rng, 2.4), -1)
    inside = np.all((seeds >= 0) & (seeds < [columns, rows]), axis=-1)
    column, row = seeds[inside].astype(int).T
    for seed in seeds[inside][darkness[row, column] > 0].tolist():
        line = grow(seed, rng.uniform(8, 26))
        if len(line) < 4:
            continue
        dark = [min(1.0, float(darkness[int(y), int(x)])) for x, y in line]
        for (a, b), tone in zip(itertools.pairwise(line), dark, strict=False):
            pencil.line([2 * a[0], 2 * a[1], 2 * b[0], 2 * b[1]], 1, round(4 * (5.0 - 3.5 * tone)))
        path = np.array(line) + rng.normal(0, 0.1, (len(line), 2))
        canvas.line(path, SEPIA + rng.uniform(0, 25), 0.6 + 1.1 * float(np.mean(dark)))


def pine(canvas: Canvas, rng: np.random.Generator, foot: Array, tall: Number) -> None:
    """Draw a pine at foot: a trunk, and needles that hang from it, the longer the lower."""
    canvas.line(foot - [[0, 0], [0, tall]], SEPIA, tall / 30)
    for rise in np.linspace(0.12, 1, math.ceil(1.6 * tall)):
        reach = tall * 0.3 * (1 - rise) * rng.uniform(0.4, 1.1) * rng.choice([-1, 1]) + rng.normal()
        root = foot - [0, tall * rise]
        canvas.line(root + [[0, 0], [0.6 * reach, 0.15 * abs(reach)], [reach, 0.5 * abs(reach)]], SEPIA, 1.1)


def ink(size: tuple[int, int], seed: int) -> Pixels:
    """Draw mountains under a clouded sky, hatched in ink on warm paper."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(size, "f3e6cb")
    w, h = canvas.width, canvas.height
    rough, swell, clouds = noise(rng, 420, 4), noise(rng, 700), noise(rng, 120, 4)

    def land(x: Array, z: Array) -> Array:
        return 150 * (1 - np.abs(rough(x, z))) + 60 * swell(x, z)

    # Paint the land from far to near: a pixel keeps the nearest depth that covers it.
    px, py = np.meshgrid(np.arange(math.ceil(w)) + 0.5, np.arange(math.ceil(h)) + 0.5)
    depth = np.full(px.shape, 1e4)
    for z in np.geomspace(3500, 600, 400):
        x = (px[0] - w / 2) * z / h
        depth[py > 0.22 * h + (560 - land(x, np.full_like(x, z))) * h / z] = z
    sky = depth == 1e4
    x = (px - w / 2) * depth / h
    east, north = land(x + 3, depth) - land(x - 3, depth), land(x, depth + 3) - land(x, depth - 3)
    slope = (east * 0.9 + north * 0.4 + 1.2) / np.sqrt(36 + east**2 + north**2)
    sx, sy = px - 0.66 * w, py - 0.17 * h
    sun = np.hypot(sx, sy)
    cloud = clouds(px, 1.6 * py) - 0.15 - 2 * np.exp(-((sun / 110) ** 2))  # they part before the sun
    # Tone and direction of the lines: round the sun, along the clouds' contours, downhill on land.
    zones = [sun < 34, sky & (cloud > 0), sky]
    billow = 0.3 + 0.9 * (clouds(px, 1.6 * py) - clouds(px + 9, 1.6 * py + 14))
    rock = (0.85 - 0.95 * slope) * np.clip(1.25 - depth / 3600, 0.35, 1)
    rock += 0.25 * np.clip(1 - depth / 1100, 0, 1)
    tones = np.clip([0 * sun, billow, 0.1 + sun / 480], 0.12, 0.78)
    darkness = np.select(zones, [0 * sun, tones[1], tones[2]], np.clip(rock, 0.12, 0.85))
    contour = np.arctan2(*np.gradient(ndimage.gaussian_filter(cloud, 5))) + np.pi / 2
    fall = np.arctan2(east**2 + north**2 + 4 * north, -6 * east)
    angle = np.select(zones, [sun, contour, np.arctan2(sx, -sy)], fall)
    edge = ndimage.morphological_gradient(np.log(depth) + 0.2 * zones[1], 3) > 0.1
    for turn, least in ((0.0, 0.0), (0.9, 0.4), (-0.7, 0.65)):
        hatch(canvas, rng, angle + turn, np.where(darkness > least, darkness, 0), edge)
    for at in rng.permutation(np.argwhere((depth < 1700) & (clouds(x / 3, depth / 3) > 0.2)))[:90]:
        pine(canvas, rng, at[::-1].astype(float), 36000 / depth[tuple(at)])
    qx, qy = canvas.grid()
    paper = noise(rng, 3, 3)(qx, qy) * 4 + 6 * noise(rng, 120, 2)(qx, qy)
    return canvas.finish(canvas.rgb() + paper[..., None])


STYLES: dict[str, Callable[[tuple[int, int], int], Pixels]] = {
    "night": night,
    "glass": glass,
    "waves": waves,
    "ink": ink,
}
SHIPPED = {"night": (608, 768), "glass": (768, 624), "waves": (576, 800), "ink": (704, 704)}


def draw(name: str, size: tuple[int, int], seed: int = 0) -> Pixels:
    """Return the style picture of that name, uint8 (h, w, 3), for size (h, w)."""
    return STYLES[name](size, seed)


# What is outlined in a photograph, in its pixels: the corners of a polygon or, where there are two, of the
# box round an ellipse. Lattice towers count as solid: a style has no room between their struts.
OUTLINES = {
    "coffee": {
        "saucer": """
            180,70 160,78 140,91 120,109 100,135 90,153 82,174 77,195 76,213 77,230 81,248 90,275 100,295
            120,319 140,339 160,354 180,366 200,375 220,382 240,387 260,389 280,390 300,390 320,389 340,386
            360,380 380,371 400,360 420,345 440,326 450,314 460,299 470,278 475,260 478,240 479,220 478,208
            475,195 470,180 460,158 450,142 440,129 430,117 417,105
        """,
        "cup": """
            173,108 174,98 177,86 180,76 184,67 190,59 200,49 210,41 220,35 240,25 260,19 280,17 300,18 320,22
            340,29 360,39 370,46 380,54 390,65 397,76 403,88 407,100 408,115 400,150
        """,
        "spoon": "395,74 400,69 408,67 415,67 420,70 424,76 424,81 420,92 416,106 408,132 403,88",
    },
    "cat": {
        "head": """
            39,0 38,20 33,40 31,60 30,80 29,100 30,114 36,122 38,138 42,152 50,170 60,188 73,204 88,219
            104,235 122,249 140,257 160,265 178,275 195,284 212,290 225,292 242,292 256,289 270,282 286,279
            300,275 309,267 313,255 316,240 317,224 323,214 334,204 343,192 351,177 358,161 362,145 364,127
            363,112 359,95 356,78 363,68 372,53 378,35 384,22 392,11 401,0
        """,
    },
    "rocket": {
        "rocket": """
            323,126 328,129 332,136 334,146 334,178 337,184 336,318 342,319 342,322 336,323 336,342 356,363
            356,408 284,408 284,400 290,398 288,364 309,342 309,323 302,322 302,319 309,318 308,158 310,156
            312,142 314,136 318,129
        """,
        "pad": "267,408 373,407 376,413 382,417 384,427 267,427",
        "left tower": """
            45,0 92,0 88,3 87,60 84,140 82,215 80,300 77,350 73,427 0,427 0,343 10,290 21,215 33,145 40,97
            49,40 53,9 46,8
        """,
        "right tower": """
            559,0 598,0 606,55 619,130 633,205 640,246 640,427 580,427 572,290 567,205 562,80 560,40
        """,
        "left mast": """
            197,123 205,123 204,128 202,191 204,195 202,380 202,427 162,427 168,380 178,300 185,240 189,192
            196,190 199,128
        """,
        "right mast": """
            443,123 449,123 453,190 457,194 458,220 464,280 472,350 479,427 440,427 441,194 446,191
        """,
        "bushes": "72,423 82,423 86,417 92,422 120,421 150,423 152,427 72,427",
        "roof": "178,427 196,423 216,425 260,425 260,427",
        "post": "565,412 570,412 572,427 567,427",
        "first lamp": "75,341 91,357",
        "second lamp": "96,403 124,431",
        "third lamp": "141,367 161,387",
        "its pole": "147,380 150,380 147,427 143,427",
        "fourth lamp": "181,383 205,407",
        "fifth lamp": "351,385 375,409",
        "sixth lamp": "424,385 442,403",
        "its pole too": "433,400 440,400 440,427 433,427",
        "seventh lamp": "438,408 464,434",
    },
}
# Every mask's photograph, and whether the style acts on what is outlined there or on the rest.
MASKS = {
    "coffee-cup": ("coffee", True),
    "coffee-table": ("coffee", False),
    "cat-face": ("cat", True),
    "rocket-sky": ("rocket", False),
    "rocket-pad": ("rocket", True),
}


def mask(name: str) -> Pixels:
    """Return the mask of that name, uint8 (h, w) as its photograph: 255 where the style acts, else 0."""
    photograph, inside = MASKS[name]
    with Image.open(FOLDER / f"{photograph}.jpg") as image:
        drawn = Image.new("L", image.size)
    for corners in OUTLINES[photograph].values():
        outline(drawn, corners, 255)
    outlined = np.asarray(drawn)
    return outlined if inside else 255 - outlined


def outline(image: Image.Image, corners: str, fill: int | str) -> None:
    """Fill a polygon or, where there are two corners, the ellipse in their box."""
    points, pencil = parse(corners), ImageDraw.Draw(image)
    shape = pencil.ellipse if len(points) == 2 else pencil.polygon
    shape(points.ravel().tolist(), fill)


# The colors of label maps. Of two paintings, a photograph and a picture that is not there yet: the size, and
# what lies before the sky, the nearer the later.
SKY, SEA, LIGHT, HILLS, TREES = "#2a6fdb", "#16407f", "#ffd94a", "#3cae5c", "#7a4a1e"
LABELS: dict[str, tuple[tuple[int, int], list[tuple[str, str]]]] = {
    "night-labels": (
        SHIPPED["night"],
        [
            (LIGHT, "594,37 726,169"),
            (LIGHT, "25,47 113,135"),
            (LIGHT, "177,25 239,87"),
            (LIGHT, "384,29 460,105"),
            (LIGHT, "519,126 571,178"),
            (LIGHT, "56,244 128,316"),
            (LIGHT, "161,330 207,376"),
            (LIGHT, "585,287 643,345"),
            (
                HILLS,
                """
                0,388 20,374 50,365 80,366 100,375 120,388 160,401 200,430 220,440 250,451 280,472 320,483
                360,488 400,483 430,472 480,464 520,448 550,438 600,433 640,438 768,470 768,608 0,608
            """,
            ),
            (
                TREES,
                """
                632,608 631,490 636,420 642,340 645,300 651,285 663,275 668,320 673,380 675,400 678,360
                684,320 692,285 701,262 702,235 695,208 701,192 714,210 731,230 736,270 742,305 747,300
                752,288 768,291 768,608
            """,
            ),
        ],
    ),
    "waves-labels": (
        SHIPPED["waves"],
        [
            (LIGHT, "156,55 276,175"),
            (
                SEA,
                """
                0,176 8,200 28,195 45,177 65,170 88,176 100,192 102,210 118,208 128,180 150,165 172,167
                190,190 194,207 202,205 215,182 240,169 265,172 287,190 290,208 303,205 315,180 340,167
                362,172 377,192 380,213 390,210 402,182 425,161 450,165 474,190 478,215 490,212 500,182
                520,166 540,172 551,195 556,214 572,212 582,192 605,176 630,178 648,197 652,212 668,208
                680,188 705,176 730,180 744,200 748,214 758,210 768,182 785,168 800,163 800,576 0,576
            """,
            ),
        ],
    ),
    "rocket-labels": ((427, 640), [(SEA, corners) for corners in OUTLINES["rocket"].values()]),
    "doodle": (
        (480, 640),
        [
            (LIGHT, "380,60 560,240"),
            (LIGHT, "60,50 130,120"),
            (LIGHT, "210,120 260,170"),
            (
                HILLS,
                """
                0,330 60,300 130,310 200,350 270,400 330,410 400,380 470,320 540,290 600,300 640,330 640,480
                0,480
            """,
            ),
            (TREES, "90,480 86,380 96,260 118,180 140,260 152,380 150,480"),
            (TREES, "168,480 166,400 180,310 196,250 212,320 222,400 220,480"),
        ],
    ),
}


def labels(name: str) -> Image.Image:
    """Return the label map of that name: a picture of few colors."""
    (height, width), outlines = LABELS[name]
    image = Image.new("RGB", (width, height), SKY)
    for color, corners in outlines:
        outline(image, corners, color)
    return image.quantize(dither=Image.Dither.NONE)


if __name__ == "__main__":
    for name, size in SHIPPED.items():
        Image.fromarray(draw(name, size)).save(FOLDER / f"{name}.jpg", quality=92, subsampling=0)
    for name in MASKS:
        Image.fromarray(mask(name)).save(FOLDER / f"{name}.png", optimize=True)
    for name in LABELS:
        labels(name).save(FOLDER / f"{name}.png", optimize=True)
