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


def wasserstein_distance(x: np.ndarray, s: np.ndarray, damping: float = 1e-5) -> tuple[float, np.ndarray]:
    """By symmetric roots: tr (s^1/2 x s^1/2)^1/2 = tr T x, and its slope is T / 2."""
    mean, one = x[:, -1] - s[:, -1], np.eye(len(x))
    ridge = (damping * (np.trace(x[:, :-1]) + np.trace(s[:, :-1])) + 1e-12) * one
    spread_x, spread_s = covariance(x) + ridge, covariance(s) + ridge
    there = transport(spread_x, spread_s)
    value = mean @ mean + np.trace(spread_x + spread_s - 2 * there @ spread_x)
    slope = moment_slope(x, 2 * mean, one - there)
    slope[:, :-1] += damping * np.trace(2 * one - there - np.linalg.inv(there)) * one  # through the ridge
    return float(value) / len(x), slope / len(x)


class StyleLoss(NamedTuple):
    statistics: Callable[..., dict[str, np.ndarray]]
    back: Callable[..., dict[str, np.ndarray]]  # of a gradient with respect to the statistics, to the maps
    distance: Distance  # and its gradient with respect to the first


STYLE_LOSSES = {
    "gram": StyleLoss(gram_statistics, gram_back, squares(lambda a, b: 1 / (4 * a * b))),
    "chain": StyleLoss(chain_statistics, chain_back, squares(lambda a, b: 1 / (4 * a * b))),
    "tutorial": StyleLoss(tutorial_statistics, tutorial_back, squares(lambda a, b: 1 / 36)),
    "moments": StyleLoss(moment_statistics, moment_back, moments_distance),
    "wasserstein": StyleLoss(moment_statistics, moment_back, wasserstein_distance),
}


def style_layer_loss(x: np.ndarray, s: np.ndarray, loss: str = "gram") -> float:
    return STYLE_LOSSES[loss].distance(x, s)[0]


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
    twin, layers = STYLE_LOSSES[loss], list(style_layers)
    ours = {name: maps[name] for name in layers}
    for k, (share, style) in enumerate(zip(mix, styles, strict=True)):
        region = pooled(regions[k] if regions else None, layers)
        source = pooled(sources[k] if sources else None, layers)
        x = twin.statistics(ours, shift, region)
        s = twin.statistics(forward(arrays, style, layers, pooling)[0], shift, source)
        slopes = {}
        for term, weight in style_weights.items():
            value, slope = twin.distance(x[term], s[term])
            by_style[term] += share * value
            slopes[term] = beta * weight * share * slope
        for name, gradient in twin.back(ours, shift, region, slopes).items():
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
