"""Write golden.json: what the presets come to on two example pictures, by precision, as plain numbers.

Those of bfloat16 are the native part's, on a processor that multiplies it. Example, with what conftest.py sets: JAX_NUM_CPU_DEVICES=4 XLA_FLAGS="--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false" python tests/golden/generate.py
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

import nst_jax as nst
from nst_jax.networks.base import features

FILE = Path(__file__).with_name("golden.json")
PRECISIONS = ("float32", "bfloat16")
SIZE = 64
LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_2", "conv5_1")
# The preset's content layers when bfloat16's numbers were taken: not every machine can take them again.
CONTENT = ("conv3_2", "conv4_2")
RUNS = {  # preset, options
    "wasserstein": ("wasserstein", {"scales": "45,64", "iterations": (3, 3), "content_layers": CONTENT}),
    "gatys on two scales": ("gatys", {"scales": "45,64", "iterations": (3, 3), "style_weight": 4e8}),
    "improved": ("improved", {"iterations": 5, "optimizer": "adam"}),
    "tutorial": ("tutorial", {"iterations": 5}),
}


def picture(name: str) -> np.ndarray:
    """Return an example picture with SIZE for its longest side."""
    pixels = nst.images.load(f"example:{name}").rgb
    return nst.images.resize(pixels, *nst.images.size_to_fit(*pixels.shape[:2], SIZE))


def run(params: Any, name: str, precision: str) -> list[nst.Progress]:
    """Return where one of RUNS stands after its chunks."""
    preset, options = RUNS[name]
    config = nst.Config.from_preset(preset, **{"size": SIZE, "precision": precision, **options})
    return list(nst.stylize_steps(params, picture("coffee"), [picture("night")], config=config))


def measure(params: Any, runs: dict[str, list[nst.Progress]], precision: str) -> dict[str, dict[str, float]]:
    """Return by group and name the numbers that are kept."""
    content, style = picture("coffee"), picture("night")
    maps = features(params, content, LAYERS, precision=precision)
    found = {
        "pictures": {"content": float(content.mean()), "style": float(style.mean())},
        "features": {layer: float(np.mean(np.float32(maps[layer]))) for layer in LAYERS},
    }
    for name, (first, *_, last) in runs.items():  # at the start the content loss is 0 but for rounding
        found[f"{name}, start"] = {term: first.losses[term] for term in ("total", "style", "tv")}
        found[f"{name}, end"] = {term: last.losses[term] for term in ("total", "content", "style", "tv")}
    return found


def key(precision: str) -> str:
    """Return where the numbers of this processor are kept: without AVX-512 sums have another order."""
    wide = "avx512f" in Path("/proc/cpuinfo").read_text()
    return precision if wide else f"{precision} without AVX-512"


if __name__ == "__main__":
    params = nst.load_vgg()
    kept = json.loads(FILE.read_text())
    for precision in PRECISIONS if key("") == "" else ("float32",):
        runs = {name: run(params, name, precision) for name in RUNS}
        kept[key(precision)] = measure(params, runs, precision)
    FILE.write_text(json.dumps(kept, indent=1) + "\n")
    print(FILE)
