"""Slow float64 NumPy twins of the network and the objective, from the formulas, gradients by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def gram(maps: np.ndarray, shift: float = 0.0) -> np.ndarray:
    rows = np.float64(maps).reshape(-1, maps.shape[-1]) + shift
    return rows.T @ rows / len(rows)


def gram_statistics(maps: Mapping[str, np.ndarray], shift: float = 0.0) -> dict[str, np.ndarray]:
    return {layer: gram(map_, shift) for layer, map_ in maps.items()}


STYLE_STATISTICS: dict[str, Callable[..., dict[str, np.ndarray]]] = {"gram": gram_statistics}


def style_layer_loss(x: np.ndarray, s: np.ndarray) -> float:
    return float(((x - s) ** 2).sum() / (4 * x.shape[0] * x.shape[1]))


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
    style_layers: Mapping[str, float] = STYLE_WEIGHTS,
    mix: Sequence[float] = (1.0,),
    shift: float = 0.0,
    power: float = 2.5,
    pooling: str = "max",
) -> tuple[dict[str, Any], np.ndarray]:
    """The report's losses of objective.md's Base, and the gradient of the total with respect to the image."""
    used = list(dict.fromkeys([*(content_layers if content is not None else ()), *style_layers]))
    maps, tape = forward(arrays, image, used, pooling)
    gradients = {name: np.zeros_like(map_) for name, map_ in maps.items()}
    by_content, by_style = {}, dict.fromkeys(style_layers, 0.0)
    if content is not None:
        for name, target in forward(arrays, content, list(content_layers), pooling)[0].items():
            difference = maps[name] - target
            by_content[name] = float((difference**2).sum() / 2)
            gradients[name] += alpha * content_layers[name] * difference
    for share, style in zip(mix, styles, strict=True):
        for name, target in forward(arrays, style, list(style_layers), pooling)[0].items():
            difference = gram(maps[name], shift) - gram(target, shift)
            channels = difference.shape[0]
            by_style[name] += share * style_layer_loss(gram(maps[name], shift), gram(target, shift))
            positions = maps[name].shape[0] * maps[name].shape[1]
            factor = beta * style_layers[name] * share / (channels**2 * positions)
            gradients[name] += factor * ((maps[name] + shift) @ difference)
    tv, tv_gradient = total_variation(image, power)
    losses: dict[str, Any] = {
        "content": sum(content_layers[name] * value for name, value in by_content.items()),
        "style": sum(style_layers[name] * value for name, value in by_style.items()),
        "tv": tv,
        "content_by_layer": by_content,
        "style_by_layer": by_style,
    }
    losses["total"] = alpha * losses["content"] + beta * losses["style"] + gamma * tv
    return losses, backward(arrays, tape, gradients, pooling) + gamma * tv_gradient
