"""The same evaluation in plain PyTorch, as its users write it: what nst-bench --compare=torch times."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nst_jax.networks.convolutions import in_force
from nst_jax.runs.problem import Problem

VARIANTS = {  # memory layout, whether compiled
    "torch_nchw": (torch.contiguous_format, False),
    "torch_channels_last": (torch.channels_last, False),
    "torch_compile": (torch.channels_last, True),
}
TOLERANCES = {"float32": 1e-3, "tensorfloat32": 1e-2, "bfloat16": 5e-2}  # relative, of the loss

Evaluation = Callable[[], tuple[float, Any]]


def evaluations(
    arrays: dict[str, np.ndarray], problem: Problem, expected: float
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Return the evaluation in every variant that runs here, and why the others do not.

    Raises AssertionError where a loss is not the expected one.
    """
    calls, failures = {}, {}
    for name in VARIANTS:
        try:
            call = evaluation(arrays, problem, name)
            value = call()[0]
        except RuntimeError as error:  # no C++ compiler, no memory
            failures[name] = str(error).strip().splitlines()[0]
            continue
        if not np.isclose(value, expected, rtol=TOLERANCES[in_force(problem.spec.precision)]):
            raise AssertionError(f"{name}'s loss {value} is not {expected}: the comparison would be void")
        calls[name] = call
    return calls, failures


def evaluation(arrays: dict[str, np.ndarray], problem: Problem, variant: str) -> Evaluation:
    """Return a function that evaluates the total loss and its gradient at the first picture."""
    spec, weights, precision = problem.spec, problem.weights, in_force(problem.spec.precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout, compiled = VARIANTS[variant]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # Of the whole process. What bfloat16 holds is exact in TF32, so its Grams may take it, as ours do.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"

    def tensor(array: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def image_of(picture: Any) -> Any:
        return tensor(picture.transpose(2, 0, 1)[None]).to(memory_format=layout)

    def kernel_of(name: str) -> Any:
        return tensor(arrays[f"{name}.kernel"].transpose(3, 2, 0, 1)).to(dtype, memory_format=layout)

    names = spec.network.names
    kernels = {name: kernel_of(name) for name in names}
    biases = {name: tensor(arrays[f"{name}.bias"]).to(dtype) for name in names}
    mean, std = (tensor(arrays[key].reshape(1, 3, 1, 1)) for key in ("mean", "std"))
    content_weights, style_weights = (
        {layer: float(weights.terms[name] * w) for layer, w in weights.parts[name].items()}
        for name in ("content", "style")
    )
    tv_weight = float(weights.terms["tv"])

    def features(x: Any, layers: tuple[str, ...]) -> dict[str, Any]:
        x, stride, maps = ((x - mean) / std).to(dtype), 1, {}
        for layer in spec.network.layers[: spec.network.deepest(layers).depth]:
            if layer.stride > stride:
                x, stride = F.max_pool2d(x, 2), layer.stride
            name = layer.name
            x = maps[name] = F.relu(F.conv2d(x, kernels[name], biases[name], padding=1))
        return maps

    def gram(x: Any) -> Any:
        rows = x.float().flatten(2)[0]
        return rows @ rows.T / rows.shape[1]

    with torch.no_grad():
        content_maps = features(image_of(problem.content), spec.content_layers)
        style_maps = features(image_of(problem.styles[0]), spec.style_layers)
        grams = {name: gram(style_maps[name]) for name in spec.style_layers}

    def loss(x: Any) -> Any:
        maps = features(x, spec.layers)
        total = 0
        for name, weight in content_weights.items():
            total += weight * ((maps[name].float() - content_maps[name].float()) ** 2).sum() / 2
        for name, weight in style_weights.items():
            distance = ((gram(maps[name]) - grams[name]) ** 2).sum() / (4 * maps[name].shape[1] ** 2)
            total += weight * distance
        pixels = 255 * x
        corner = pixels[:, :, :-1, :-1]
        squares = (pixels[:, :, :-1, 1:] - corner) ** 2 + (pixels[:, :, 1:, :-1] - corner) ** 2
        return total + tv_weight * (squares**1.25).sum()

    if compiled:
        torch.compiler.reset()  # else after a few sizes it compiles for all of them, or no more
        loss = torch.compile(loss, dynamic=False)
    image = image_of(problem.first).requires_grad_()

    def evaluate() -> tuple[float, Any]:
        value = loss(image)
        (gradient,) = torch.autograd.grad(value, image)
        if device == "cuda":
            torch.cuda.synchronize()
        return value.item(), gradient

    return evaluate
