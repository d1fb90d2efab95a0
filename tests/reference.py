"""Slow float64 NumPy twins of the network and the objective, from the formulas, gradients by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_WEIGHTS = {"conv4_2": 1.0}
STYLE_WEIGHTS = dict.fromkeys(STYLE, 0.2)


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Zero-padded cross-correlation of (h, w, i) with (3, 3, i, o)."""
    h, w, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    taps = [padded[a : a + h, b : b + w] @ kernel[a, b] for a in range(3) for b in range(3)]
    return np.sum(taps, axis=0)


def convolve_back(g: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The gradient with respect to x of <g, convolve(x, kernel)>."""
    h, w, _ = g.shape
    padded = np.zeros((h + 2, w + 2, kernel.shape[2]))
    for a in range(3):
        for b in range(3):
            padded[a : a + h, b : b + w] += g @ kernel[a, b].T
    return padded[1:-1, 1:-1]


def quarters(x: np.ndarray) -> np.ndarray:
    """The four corners of every 2x2 window, (4, h // 2, w // 2, c)."""
    h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    return np.stack([x[a:h:2, b:w:2] for a in (0, 1) for b in (0, 1)])


def pool(x: np.ndarray, kind: str) -> np.ndarray:
    return quarters(x).max(0) if kind == "max" else quarters(x).mean(0)


def pool_back(g: np.ndarray, x: np.ndarray, kind: str) -> np.ndarray:
    parts = quarters(x)
    if kind == "max":
        winners = parts == parts.max(0)
        shares = winners / winners.sum(0)  # a tie is shared
    else:
        shares = np.full(parts.shape, 0.25)
    out = np.zeros_like(x)
    h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    for n, (a, b) in enumerate((a, b) for a in (0, 1) for b in (0, 1)):
        out[a:h:2, b:w:2] = shares[n] * g
    return out


def forward(
    arrays: Arrays, image: np.ndarray, layers: Sequence[str], pooling: str = "max"
) -> tuple[dict[str, np.ndarray], list[tuple[str, Any]]]:
    """Activations after ReLU at the layers, and the tape of (operation, what its gradient needs)."""
    x = (image.astype(np.float64) - arrays["mean"]) / np.float64(arrays["std"])
    maps: dict[str, np.ndarray] = {}
    tape: list[tuple[str, Any]] = []
    for name in sorted(key.removesuffix(".kernel") for key in arrays if key.endswith(".kernel")):
        if name.endswith("_1") and name != "conv1_1":
            tape.append(("pool", x))
            x = pool(x, pooling)
        kernel = arrays[f"{name}.kernel"].astype(np.float64)
        x = np.maximum(convolve(x, kernel) + arrays[f"{name}.bias"], 0)
        tape.append((name, (kernel, x > 0)))
        maps[name] = x
        if name == max(layers):
            break
    return {name: maps[name] for name in layers}, tape


def backward(
    arrays: Arrays, tape: list[tuple[str, Any]], gradients: Mapping[str, np.ndarray], pooling: str = "max"
) -> np.ndarray:
    """The gradient with respect to the image, from gradients with respect to the activations of layers."""
    g: Any = 0.0
    for name, saved in reversed(tape):
        if name == "pool":
            g = pool_back(g, saved, pooling)
        else:
            kernel, positive = saved
            g = convolve_back((g + gradients.get(name, 0.0)) * positive, kernel)
    return g / np.float64(arrays["std"])


Masks = Mapping[str, np.ndarray]


def pooled(mask: np.ndarray | None, layers: Sequence[str]) -> dict[str, Any] | None:
    """The mask brought to every layer by averaging."""
    if mask is None:
        return None
    found = {}
    for layer in layers:
        found[layer] = np.float64(mask)[..., None]
        for _ in range(int(layer[4]) - 1):
            found[layer] = pool(found[layer], "average")
        found[layer] = found[layer][..., 0]
    return found


def inner(mask: Mapping[str, Any] | None, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mask without the outermost positions of each layer, unless it is nowhere else."""
    found = {}
    for layer, map_ in maps.items():
        weights = np.ones(map_.shape[:2]) if mask is None else mask[layer]
        rows, columns = np.indices(weights.shape)
        edge = (rows == 0) | (columns == 0) | (rows == rows.max()) | (columns == columns.max())
        found[layer] = weights if not weights[~edge].any() else np.where(edge, 0, weights)
    return found


def weights_of(map_: np.ndarray, mask: Masks | None, layer: str) -> np.ndarray:
    """The weight of every position, summing to 1."""
    mass = np.ones(map_.shape[:2]) if mask is None else np.float64(mask[layer])
    return (mass / mass.sum())[..., None]


def gram(maps: np.ndarray, shift: float = 0.0) -> np.ndarray:
    rows = np.float64(maps).reshape(-1, maps.shape[-1]) + shift
    return rows.T @ rows / len(rows)


def gram_statistics(maps: Arrays, shift: float = 0.0, mask: Masks | None = None) -> dict[str, np.ndarray]:
    found = {}
    for layer, map_ in maps.items():
        f = np.float64(map_) + shift
        found[layer] = np.einsum("hwa,hwb->ab", weights_of(f, mask, layer) * f, f)
    return found


def gram_back(maps: Arrays, shift: float, mask: Masks | None, g: Arrays) -> dict[str, np.ndarray]:
    return {
        layer: weights_of(map_, mask, layer) * ((map_ + shift) @ (g[layer] + g[layer].T))
        for layer, map_ in maps.items()
    }


def chained(maps: Arrays, mask: Masks | None) -> Any:
    """Each layer upsampled beside the one below it, literally: names, maps and weights."""
    layers = list(maps)
    for below, above in zip(layers, layers[1:], strict=False):
        rate = 2 ** (int(above[4]) - int(below[4]))
        up = np.float64(maps[above]).repeat(rate, 0).repeat(rate, 1)
        h, w = up.shape[:2]
        cut = {below: mask[below][:h, :w]} if mask is not None else None
        yield below, above, rate, maps[below][:h, :w], up, weights_of(up, cut, below)


def chain_statistics(maps: Arrays, shift: float = 0.0, mask: Masks | None = None) -> dict[str, np.ndarray]:
    return {
        above: np.einsum("hwa,hwb->ab", weights * (up + shift), np.float64(low) + shift)
        for _, above, _, low, up, weights in chained(maps, mask)
    }


def chain_back(maps: Arrays, shift: float, mask: Masks | None, g: Arrays) -> dict[str, np.ndarray]:
    found = {layer: np.zeros(map_.shape) for layer, map_ in maps.items()}
    for below, above, rate, low, up, weights in chained(maps, mask):
        h, w = up.shape[:2]
        found[below][:h, :w] += weights * ((up + shift) @ g[above])
        repeated = weights * ((low + shift) @ g[above].T)
        for a in range(rate):
            for b in range(rate):
                found[above] += repeated[a::rate, b::rate]
    return found


def share_of_pixels(maps: Arrays, layer: str) -> float:
    first = next(iter(maps.values()))
    return float(np.prod(maps[layer].shape[:2]) / np.prod(first.shape[:2]))


def tutorial_statistics(maps: Arrays, shift: float = 0.0, mask: Masks | None = None) -> dict[str, np.ndarray]:
    grams = gram_statistics(maps, shift, mask)
    return {layer: share_of_pixels(maps, layer) * gram_ for layer, gram_ in grams.items()}


def tutorial_back(maps: Arrays, shift: float, mask: Masks | None, g: Arrays) -> dict[str, np.ndarray]:
    return gram_back(maps, shift, mask, {layer: share_of_pixels(maps, layer) * g[layer] for layer in maps})


def moment_statistics(maps: Arrays, shift: float = 0.0, mask: Masks | None = None) -> dict[str, np.ndarray]:
    """Second moment and, as its last column, the mean."""
    found = {}
    for layer, map_ in maps.items():
        f = np.float64(map_) + shift
        weighted = weights_of(f, mask, layer) * f
        mean = weighted.sum((0, 1))[:, None]
        found[layer] = np.hstack([np.einsum("hwa,hwb->ab", weighted, f), mean])
    return found


def moment_back(maps: Arrays, shift: float, mask: Masks | None, g: Arrays) -> dict[str, np.ndarray]:
    seconds = gram_back(maps, shift, mask, {layer: g[layer][:, :-1] for layer in maps})
    return {
        layer: seconds[layer] + weights_of(map_, mask, layer) * g[layer][:, -1]
        for layer, map_ in maps.items()
    }


Distance = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


def squares(factor: Callable[[int, int], float]) -> Distance:
    """A factor, of the numbers of rows and columns, times the sum of squares; its gradient."""

    def distance(x: np.ndarray, s: np.ndarray) -> tuple[float, np.ndarray]:
        return float(factor(*x.shape) * ((x - s) ** 2).sum()), 2 * factor(*x.shape) * (x - s)

    return distance


def covariance(x: np.ndarray) -> np.ndarray:
    return x[:, :-1] - np.outer(x[:, -1], x[:, -1])


def moment_slope(x: np.ndarray, of_mean: np.ndarray, of_covariance: np.ndarray) -> np.ndarray:
    """The gradient with respect to the statistic, from those with respect to mean and covariance."""
    return np.hstack([of_covariance, (of_mean - (of_covariance + of_covariance.T) @ x[:, -1])[:, None]])


def moments_distance(x: np.ndarray, s: np.ndarray) -> tuple[float, np.ndarray]:
    mean, spread = x[:, -1] - s[:, -1], covariance(x) - covariance(s)
    slope = moment_slope(x, 2 * mean / mean.size, 2 * spread / spread.size)
    return float((mean**2).mean() + (spread**2).mean()), slope


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """The power of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def transport(x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The symmetric T with T x T = s."""
    root = power(s, 0.5)
    return root @ power(root @ x @ root, -0.5) @ root


def wasserstein_distance(
    x: np.ndarray, s: np.ndarray, rank: int = 64, damping: float = 1e-4
) -> tuple[float, np.ndarray]:
    """By symmetric roots: tr (s^1/2 x s^1/2)^1/2 = tr T x, and its slope is T / 2."""
    mean, one, power_s = x[:, -1] - s[:, -1], np.eye(len(x)), np.trace(s[:, :-1])
    variances, axes = np.linalg.eigh(covariance(s))
    axes = axes[:, -rank:][:, variances[-rank:] > 1e-6 * power_s]
    along, others = axes.T @ axes, one - axes @ axes.T
    ridge = damping * (np.trace(x[:, :-1]) + power_s) + 1e-12
    spread_x, spread_s = (axes.T @ covariance(y) @ axes + ridge * along for y in (x, s))
    rest_x, rest_s = (np.trace(others @ covariance(y)) + ridge for y in (x, s))
    there = transport(spread_x, spread_s)
    value = mean @ mean + np.trace(spread_x + spread_s - 2 * there @ spread_x)
    value += (rest_x**0.5 - rest_s**0.5) ** 2
    ratio = (rest_s / rest_x) ** 0.5
    slope = moment_slope(x, 2 * mean, axes @ (along - there) @ axes.T + (1 - ratio) * others)
    through = np.trace(2 * along - there - np.linalg.inv(there)) + 2 - ratio - 1 / ratio
    slope[:, :-1] += damping * through * one  # through the ridge
    return float(value) / len(x), slope / len(x)


Places = Mapping[str, np.ndarray]  # by layer: rows and columns of the positions that stand for a style
Back = Callable[[Mapping[str, float]], dict[str, np.ndarray]]  # of factors of the terms, to the maps


class Seen(NamedTuple):
    """What a style loss is given of a picture and of a style."""

    maps: Arrays
    mask: Masks | None
    style: Arrays
    source: Masks | None
    shift: float = 0.0
    places: Places | None = None


class MeanLoss(NamedTuple):
    """A distance between two means over positions."""

    statistics: Callable[..., dict[str, np.ndarray]]
    back: Callable[..., dict[str, np.ndarray]]  # of a gradient with respect to the statistics, to the maps
    distance: Distance  # and its gradient with respect to the first

    def __call__(self, seen: Seen) -> tuple[dict[str, float], Back]:
        x = self.statistics(seen.maps, seen.shift, seen.mask)
        s = self.statistics(seen.style, seen.shift, seen.source)
        found = {term: self.distance(x[term], s[term]) for term in x}

        def back(factors: Mapping[str, float]) -> dict[str, np.ndarray]:
            slopes = {term: factor * found[term][1] for term, factor in factors.items()}
            return self.back(seen.maps, seen.shift, seen.mask, slopes)

        return {term: value for term, (value, _) in found.items()}, back


def each_layer(
    look: Callable[..., tuple[float, np.ndarray]],
) -> Callable[[Seen], tuple[dict[str, float], Back]]:
    """The style loss whose term of a layer, and its gradient, is what a look at its map and samples gives."""

    def twin(seen: Seen) -> tuple[dict[str, float], Back]:
        places = seen.places or {}
        found = {}
        for layer, map_ in seen.maps.items():
            weights = weights_of(map_, seen.mask, layer)
            style = np.float64(seen.style[layer]), weights_of(seen.style[layer], seen.source, layer)
            found[layer] = look(np.float64(map_), weights, *style, places.get(layer))
        return {layer: value for layer, (value, _) in found.items()}, lambda factors: {
            layer: factor * found[layer][1] for layer, factor in factors.items()
        }

    return twin


def unit(x: np.ndarray, level: float) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + level)


def unit_back(x: np.ndarray, level: float, g: np.ndarray) -> np.ndarray:
    along = unit(x, level) * (unit(x, level) * g).sum(-1, keepdims=True)
    return (g - along) / np.sqrt((x**2).sum(-1, keepdims=True) + level)


def halved_squares(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Half of the squared distance of each to each: 1 - cos, but where a direction means nothing."""
    return np.stack([((ours - one) ** 2).sum(-1) / 2 for one in theirs], 1)


class Directions(NamedTuple):
    """Features less the mean of the style's samples, the level of both, their directions and the samples'."""

    centered: np.ndarray
    level: float
    ours: np.ndarray
    theirs: np.ndarray

    def back(self, slope: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return unit_back(self.centered, self.level, slope).reshape(shape)


def directions(f: np.ndarray, style: np.ndarray, places: np.ndarray) -> Directions:
    samples = style[places[:, 0], places[:, 1]]
    level = 1e-6 * (samples**2).sum(-1).mean() + 1e-12
    centered = (f - samples.mean(0)).reshape(-1, f.shape[-1])
    return Directions(centered, level, unit(centered, level), unit(samples - samples.mean(0), level))


def moments_apart(
    f: np.ndarray, weights: np.ndarray, style: np.ndarray, source: np.ndarray
) -> tuple[float, np.ndarray]:
    """Squared differences of mean and covariance in units of the style's power, and their slope."""
    (x,), (s,) = (
        moment_statistics({"": maps}, 0, {"": mass[..., 0]}).values()
        for maps, mass in ((f, weights), (style, source))
    )
    mean, spread = x[:, -1] - s[:, -1], covariance(x) - covariance(s)
    mean_power, spread_power = np.trace(s[:, :-1]) + 1e-12, (s[:, :-1] ** 2).sum() + 1e-12
    of_moments = moment_slope(x, 2 * mean / mean_power, 2 * spread / spread_power)
    slope = moment_back({"": f}, 0, {"": weights[..., 0]}, {"": of_moments})[""]
    return float((mean**2).sum() / mean_power + (spread**2).sum() / spread_power), slope


def nearest_look(
    f: np.ndarray, weights: np.ndarray, style: np.ndarray, source: np.ndarray, places: np.ndarray
) -> tuple[float, np.ndarray]:
    there, slope = nearest_matches(f, weights, style, places)
    apart, slope_of_moments = moments_apart(f, weights, style, source)
    return there + apart, slope + slope_of_moments


def nearest_matches(
    f: np.ndarray, weights: np.ndarray, style: np.ndarray, places: np.ndarray
) -> tuple[float, np.ndarray]:
    both = directions(f, style, places)
    distances, nearest = halved_squares(both.ours, both.theirs), (both.ours @ both.theirs.T).argmax(1)
    slope = weights.reshape(-1, 1) * (both.ours - both.theirs[nearest])
    value = weights.ravel() @ distances[np.arange(len(distances)), nearest]
    return float(value), both.back(slope, f.shape)


def remd_look(
    f: np.ndarray, weights: np.ndarray, style: np.ndarray, source: np.ndarray, places: np.ndarray
) -> tuple[float, np.ndarray]:
    both = directions(f, style, places)
    there, slope = nearest_matches(f, weights, style, places)
    products = np.where(weights.reshape(-1, 1) > 0, both.ours @ both.theirs.T, -np.inf)
    distances = halved_squares(both.ours, both.theirs)[products.argmax(0), np.arange(len(both.theirs))]
    if distances.mean() > there:
        there, slope = distances.mean(), np.zeros_like(both.centered)
        np.add.at(slope, products.argmax(0), (both.ours[products.argmax(0)] - both.theirs) / len(both.theirs))
        slope = both.back(slope, f.shape)
    apart, slope_of_moments = moments_apart(f, weights, style, source)
    return there + apart, slope + slope_of_moments


def patches(f: np.ndarray) -> np.ndarray:
    """The 3x3 positions around each, with zeros around the map: (h, w, 3, 3, c)."""
    padded = np.pad(f, ((1, 1), (1, 1), (0, 0)))
    h, w, _ = f.shape
    rows = [np.stack([padded[a : a + h, b : b + w] for b in range(3)], 2) for a in range(3)]
    return np.stack(rows, 2)


def patch_look(
    f: np.ndarray, weights: np.ndarray, style: np.ndarray, _: np.ndarray, places: np.ndarray
) -> tuple[float, np.ndarray]:
    ours, theirs = patches(f), patches(style)[places[:, 0], places[:, 1]]
    flat, samples = ours.reshape(-1, ours[0, 0].size), theirs.reshape(len(theirs), -1)
    likeness = flat @ (samples / np.sqrt((samples**2).sum(1, keepdims=True) + 1e-12)).T
    apart = flat - samples[likeness.argmax(1)]
    value = weights.ravel() @ (apart**2).mean(1)
    slope = (2 * weights.reshape(-1, 1) * apart / apart.shape[1]).reshape(ours.shape)
    padded = np.zeros((f.shape[0] + 2, f.shape[1] + 2, f.shape[2]))
    for a in range(3):
        for b in range(3):
            padded[a : a + f.shape[0], b : b + f.shape[1]] += slope[:, :, a, b]
    return float(value), padded[1:-1, 1:-1]


NODES = np.array([0, *(2 ** (k / 2) for k in range(-6, 9))])


def histogram_of(values: np.ndarray, weights: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The mass at each node: a value's is shared between the two around it, in proportion to its nearness."""
    mass = np.zeros(len(nodes))
    for value, weight in zip(values.clip(0, nodes[-1]), weights, strict=True):
        k = min(np.searchsorted(nodes, value, side="right") - 1, len(nodes) - 2)
        share = (value - nodes[k]) / (nodes[k + 1] - nodes[k])
        mass[k] += weight * (1 - share)
        mass[k + 1] += weight * share
    return mass


def earth_moved(x: np.ndarray, s: np.ndarray, nodes: np.ndarray) -> float:
    """The squared 2-Wasserstein distance of masses at nodes: of their quantile functions, step by step."""
    levels = np.unique(np.concatenate([[0.0], np.cumsum(x), np.cumsum(s)]).clip(0, 1))
    middles = (levels[1:] + levels[:-1]) / 2
    at = [nodes[np.searchsorted(np.cumsum(mass), middles).clip(max=len(nodes) - 1)] for mass in (x, s)]
    return float(np.diff(levels) @ (at[0] - at[1]) ** 2)


def histogram_look(
    f: np.ndarray, weights: np.ndarray, style: np.ndarray, source: np.ndarray, places: np.ndarray
) -> tuple[float, np.ndarray]:
    """The slope of what is carried: that of the mass at each node by differences, then to the values."""
    x, s = (np.einsum("hwa,hwb->ab", mass * maps, maps) for maps, mass in ((f, weights), (style, source)))
    factor, channels = 1 / (4 * len(x) ** 2), f.shape[-1]
    slope = weights * (f @ (4 * factor * (x - s)))
    powers = np.diag(s) + 1e-4 * np.diag(s).mean() + 1e-12
    value = factor * ((x - s) ** 2).sum()
    for c in range(channels):
        nodes = NODES * np.sqrt(powers[c])
        ours, theirs = (
            histogram_of(maps[..., c].ravel(), mass.ravel(), nodes)
            for maps, mass in ((f, weights), (style, source))
        )
        value += factor * powers[c] * earth_moved(ours, theirs, nodes)
        for k in range(len(nodes) - 1):  # mass that goes from node k to k + 1
            step = 1e-7 * (np.eye(len(nodes))[k + 1] - np.eye(len(nodes))[k])
            moved = earth_moved(ours + step, theirs, nodes) - earth_moved(ours - step, theirs, nodes)
            between = (f[..., c] > nodes[k]) & (f[..., c] < nodes[k + 1])
            rise = moved / 2e-7 / (nodes[k + 1] - nodes[k])
            slope[..., c] += factor * powers[c] * rise * between * weights[..., 0]
    return float(value), slope


MEAN_LOSSES = {
    "gram": MeanLoss(gram_statistics, gram_back, squares(lambda a, b: 1 / (4 * a * b))),
    "chain": MeanLoss(chain_statistics, chain_back, squares(lambda a, b: 1 / (4 * a * b))),
    "tutorial": MeanLoss(tutorial_statistics, tutorial_back, squares(lambda a, b: 1 / 36)),
    "moments": MeanLoss(moment_statistics, moment_back, moments_distance),
    "wasserstein": MeanLoss(moment_statistics, moment_back, wasserstein_distance),
}
STYLE_LOSSES: dict[str, Callable[[Seen], tuple[dict[str, float], Back]]] = {
    **MEAN_LOSSES,
    "histogram": each_layer(histogram_look),
    "nearest": each_layer(nearest_look),
    "remd": each_layer(remd_look),
    "patch": each_layer(patch_look),
}


def total_variation(image: np.ndarray, power: float = 2.5) -> tuple[float, np.ndarray]:
    """The value and its gradient with respect to the image in [0, 1]."""
    x = 255 * np.float64(image)
    dx, dy = x[:-1, 1:] - x[:-1, :-1], x[1:, :-1] - x[:-1, :-1]
    squares = dx**2 + dy**2
    slope = np.zeros_like(squares)
    slope[squares > 0] = power * squares[squares > 0] ** (power / 2 - 1)
    g = np.zeros_like(x)
    g[:-1, 1:] += slope * dx
    g[1:, :-1] += slope * dy
    g[:-1, :-1] -= slope * (dx + dy)
    return float((squares ** (power / 2)).sum()), 255 * g


def matting_laplacian(guide: np.ndarray, epsilon: float) -> np.ndarray:
    """The dense matrix, entry by entry: Levin et al. 2008, eq. 12."""
    height, width, _ = guide.shape
    pixels, number = np.float64(guide).reshape(-1, 3), np.arange(height * width).reshape(height, width)
    matrix = np.zeros((height * width, height * width))
    for row in range(height - 2):
        for column in range(width - 2):
            window = number[row : row + 3, column : column + 3].ravel()
            apart = pixels[window] - pixels[window].mean(0)
            inverse = np.linalg.inv(apart.T @ apart / 9 + epsilon / 9 * np.eye(3))
            matrix[np.ix_(window, window)] += np.eye(9) - (1 + apart @ inverse @ apart.T) / 9
    return matrix


def matting(image: np.ndarray, guide: np.ndarray, epsilon: float) -> tuple[float, np.ndarray]:
    """The value and its gradient with respect to the image."""
    x = np.float64(image).reshape(-1, 3)
    slope = matting_laplacian(guide, epsilon) @ x
    return float((x * slope).sum()), 2 * slope.reshape(image.shape)


def temporal(image: np.ndarray, picture: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The value and its gradient with respect to the image: Ruder et al. 2016, eq. 7."""
    value, slope = 0.0, np.zeros(image.shape)
    for row, column, channel in np.ndindex(image.shape):
        apart = np.float64(image[row, column, channel]) - np.float64(picture[row, column, channel])
        value += np.float64(weights[row, column]) * apart**2 / image.size
        slope[row, column, channel] = 2 * np.float64(weights[row, column]) * apart / image.size
    return value, slope


def objective(
    arrays: Arrays,
    image: np.ndarray,
    content: np.ndarray | None,
    styles: Sequence[np.ndarray],
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    content_layers: Mapping[str, float] = CONTENT_WEIGHTS,
    style_layers: Sequence[str] = STYLE,
    style_weights: Mapping[str, float] = STYLE_WEIGHTS,
    mix: Sequence[float] = (1.0,),
    shift: float = 0.0,
    power: float = 2.5,
    pooling: str = "max",
    loss: str = "gram",
    regions: Sequence[np.ndarray] | None = None,
    sources: Sequence[np.ndarray | None] | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """The report's losses of objective.md, and the gradient of the total with respect to the image."""
    used = sorted({*(content_layers if content is not None else ()), *style_layers})
    maps, tape = forward(arrays, image, used, pooling)
    gradients = {name: np.zeros_like(map_) for name, map_ in maps.items()}
    by_content, by_style = {}, dict.fromkeys(style_weights, 0.0)
    if content is not None:
        for name, target in forward(arrays, content, list(content_layers), pooling)[0].items():
            difference = maps[name] - target
            by_content[name] = float((difference**2).sum() / 2)
            gradients[name] += alpha * content_layers[name] * difference
    layers = list(style_layers)
    ours = {name: maps[name] for name in layers}
    for k, (share, style) in enumerate(zip(mix, styles, strict=True)):
        region = pooled(regions[k] if regions else None, layers)
        source = pooled(sources[k] if sources else None, layers)
        theirs = forward(arrays, style, layers, pooling)[0]
        if loss == "wasserstein":
            region, source = inner(region, ours), inner(source, theirs)
        values, back = MEAN_LOSSES[loss](Seen(ours, region, theirs, source, shift))
        for term in style_weights:
            by_style[term] += share * values[term]
        factors = {term: beta * weight * share for term, weight in style_weights.items()}
        for name, gradient in back(factors).items():
            gradients[name] += gradient
    tv, tv_gradient = total_variation(image, power)
    losses: dict[str, Any] = {
        "content": sum(content_layers[name] * value for name, value in by_content.items()),
        "style": sum(style_weights[name] * value for name, value in by_style.items()),
        "tv": tv,
        "content_by_layer": by_content,
        "style_by_layer": by_style,
    }
    losses["total"] = alpha * losses["content"] + beta * losses["style"] + gamma * tv
    return losses, backward(arrays, tape, gradients, pooling) + gamma * tv_gradient
