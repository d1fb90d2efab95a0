"""The same evaluation in plain PyTorch, as its users write it: what nst-bench --compare=torch times."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nst_jax.objective import LossWeights, Spec
from nst_jax.vgg import block_of


def evaluation(
    arrays: dict[str, np.ndarray],
    content: np.ndarray,
    style: np.ndarray,
    weights: LossWeights,
    spec: Spec,
    channels_last: bool,
) -> Callable[[], tuple[float, Any]]:
    """Return a function that evaluates the total loss and its gradient at the content picture."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def image_of(picture: np.ndarray) -> Any:
        return tensor(picture.transpose(2, 0, 1)[None]).to(memory_format=layout)

    names = sorted(key.removesuffix(".kernel") for key in arrays if key.endswith(".kernel"))
    kernels = {n: tensor(arrays[f"{n}.kernel"].transpose(3, 2, 0, 1)).to(memory_format=layout) for n in names}
    biases = {n: tensor(arrays[f"{n}.bias"]) for n in names}
    mean, std = (tensor(arrays[key].reshape(1, 3, 1, 1)) for key in ("mean", "std"))

    def features(x: Any, layers: tuple[str, ...]) -> dict[str, Any]:
        x, block, maps = (x - mean) / std, 1, {}
        for name in names:
            if block_of(name) > block:
                x, block = F.max_pool2d(x, 2), block_of(name)
            x = maps[name] = F.relu(F.conv2d(x, kernels[name], biases[name], padding=1))
            if name == max(layers):
                break
        return maps

    def gram(x: Any) -> Any:
        rows = x.flatten(2)[0]
        return rows @ rows.T / rows.shape[1]

    with torch.no_grad():
        content_maps = features(image_of(content), spec.content_layers)
        style_maps = features(image_of(style), spec.style_layers)
        grams = {name: gram(style_maps[name]) for name in spec.style_layers}

    def loss(x: Any) -> Any:
        maps = features(x, spec.content_layers + spec.style_layers)
        total = 0
        for name, weight in weights.content_layers.items():
            total += float(weights.content * weight) * ((maps[name] - content_maps[name]) ** 2).sum() / 2
        for name, weight in weights.style_layers.items():
            distance = ((gram(maps[name]) - grams[name]) ** 2).sum() / (4 * maps[name].shape[1] ** 2)
            total += float(weights.style * weight) * distance
        pixels = 255 * x
        corner = pixels[:, :, :-1, :-1]
        squares = (pixels[:, :, :-1, 1:] - corner) ** 2 + (pixels[:, :, 1:, :-1] - corner) ** 2
        return total + float(weights.tv) * (squares**1.25).sum()

    image = image_of(content).requires_grad_()

    def evaluate() -> tuple[float, Any]:
        value = loss(image)
        (gradient,) = torch.autograd.grad(value, image)
        return value.item(), gradient  # item() waits for the device

    return evaluate
