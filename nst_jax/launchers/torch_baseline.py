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


class Objective:
    """The total loss of a picture: content, Gram matrices and total variation."""

    def __init__(self, arrays: dict[str, np.ndarray], problem: Problem, layout: Any, device: str):
        """Take the network's arrays, and the weights and targets of a problem, to a device."""
        self.spec, self.layout, self.device = problem.spec, layout, device
        self.dtype = torch.bfloat16 if in_force(self.spec.precision) == "bfloat16" else torch.float32
        names = self.spec.network.names
        self.kernels = {name: self.kernel(arrays[f"{name}.kernel"]) for name in names}
        self.biases = {name: self.tensor(arrays[f"{name}.bias"]).to(self.dtype) for name in names}
        self.mean, self.std = (self.tensor(arrays[key].reshape(1, 3, 1, 1)) for key in ("mean", "std"))
        terms = problem.weights.terms
        self.tv_weight = float(terms["tv"])
        self.content_weights, self.style_weights = (
            {layer: float(terms[name] * w) for layer, w in problem.weights.parts[name].items()}
            for name in ("content", "style")
        )
        with torch.no_grad():
            self.content = self.features(self.image(problem.content), self.spec.content_layers)
            style = self.features(self.image(problem.styles[0]), self.spec.style_layers)
            self.grams = {name: gram(style[name]) for name in self.spec.style_layers}

    def tensor(self, array: Any) -> Any:
        """Return an array on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def image(self, picture: Any) -> Any:
        """Return a picture (height, width, 3) as (1, 3, height, width) in the layout."""
        return self.tensor(picture.transpose(2, 0, 1)[None]).to(memory_format=self.layout)

    def kernel(self, kernel: Any) -> Any:
        """Return a kernel (height, width, in, out) as (out, in, height, width) in the layout."""
        return self.tensor(kernel.transpose(3, 2, 0, 1)).to(self.dtype, memory_format=self.layout)

    def features(self, x: Any, layers: tuple[str, ...]) -> dict[str, Any]:
        """Return the maps of all layers as far as the deepest of those that are wanted."""
        x, stride, maps = ((x - self.mean) / self.std).to(self.dtype), 1, {}
        for layer in self.spec.network.layers[: self.spec.network.deepest(layers).depth]:
            if layer.stride > stride:
                x, stride = F.max_pool2d(x, 2), layer.stride
            name = layer.name
            x = maps[name] = F.relu(F.conv2d(x, self.kernels[name], self.biases[name], padding=1))
        return maps

    def loss(self, x: Any) -> Any:
        """Return the total loss of a picture (1, 3, height, width) in 0..1."""
        maps = self.features(x, self.spec.layers)
        total = self.tv_weight * total_variation(x)
        for name, weight in self.content_weights.items():
            total += weight * ((maps[name].float() - self.content[name].float()) ** 2).sum() / 2
        for name, weight in self.style_weights.items():
            distance = ((gram(maps[name]) - self.grams[name]) ** 2).sum() / (4 * maps[name].shape[1] ** 2)
            total += weight * distance
        return total


def gram(maps: Any) -> Any:
    """Return the Gram matrix of maps (1, channels, height, width), a mean over positions."""
    rows = maps.float().flatten(2)[0]
    return rows @ rows.T / rows.shape[1]


def total_variation(x: Any) -> Any:
    """Return the tutorial's total variation, of pixels in 0..255."""
    pixels = 255 * x
    corner = pixels[:, :, :-1, :-1]
    squares = (pixels[:, :, :-1, 1:] - corner) ** 2 + (pixels[:, :, 1:, :-1] - corner) ** 2
    return (squares**1.25).sum()


def evaluation(arrays: dict[str, np.ndarray], problem: Problem, variant: str) -> Evaluation:
    """Return a function that evaluates the total loss and its gradient at the first picture.

    Args:
        arrays: the network's, by the names of weights/layout.py.
        problem: whose objective is evaluated.
        variant: a name of VARIANTS.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Of the whole process. What bfloat16 holds is exact in TF32, so its Grams may take it, as ours do.
    tf32 = in_force(problem.spec.precision) != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    layout, compiled = VARIANTS[variant]
    objective = Objective(arrays, problem, layout, device)
    loss = objective.loss
    if compiled:
        torch.compiler.reset()  # else after a few sizes it compiles for all of them, or no more
        loss = torch.compile(loss, dynamic=False)
    image = objective.image(problem.first).requires_grad_()

    def evaluate() -> tuple[float, Any]:
        value = loss(image)
        (gradient,) = torch.autograd.grad(value, image)
        if device == "cuda":
            torch.cuda.synchronize()
        return value.item(), gradient

    return evaluate
