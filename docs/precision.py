"""What bfloat16 costs in quality on a CPU with the native part: losses and dirt on real pairs; numbers alone.

python docs/precision.py --pairs=FOLDER --out=FOLDER [--sizes=256,512]
makes what docs/precision.json does not have yet, then the table of docs/precision.md; the pictures, float32
beside bfloat16, lie in --out. FOLDER of --pairs: as for docs/pairs.py. On two CPU cores about a minute a pair
at 256 pixels, five at 512.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
from pairs import SETS, inputs
from strength import load

from nst_jax import images
from nst_jax.config import Config
from nst_jax.metrics import judge
from nst_jax.runs.transfer import stylize
from nst_jax.weights import load_vgg

DOCS = Path(__file__).parent
PAIRS = SETS["reported"].split()[:8]
PRECISIONS = ("float32", "bfloat16")
TABLES = "# Tables\n"


def compare(pairs: Path, pair: str, size: int, out: Path) -> dict[str, dict[str, float]]:
    """Return by precision the loss of its picture in float32, its dirt, and the seconds that it took."""
    content, style = (load(path, size) for path in inputs(pairs, pair))
    network, params, found, made = judge.load(), load_vgg("vgg16"), {}, []
    for precision in PRECISIONS:
        began = time.monotonic()
        image = stylize(
            params, content, [style], config=Config.from_preset(precision=precision, size=size)
        ).image
        seconds = time.monotonic() - began
        evaluated = Config.from_preset(iterations=0, scales="", precision="float32", size=size)
        loss = stylize(params, content, [style], init=image, config=evaluated).losses["total"]
        dirt = judge.measure(network, image, content, [style])["dirt"]
        found[precision] = {"loss": float(loss), "dirt": dirt, "seconds": round(seconds, 1)}
        made.append(image)
    images.save(str(out / f"{pair}-{size}.png"), np.concatenate(made, 1))
    return found


def table(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return lines of Markdown: each picture by float32, and what bfloat16 has of it."""
    lines = [
        "| pair and pixels | loss | bfloat16 / float32 | dirt | bfloat16's | seconds | bfloat16's |",
        "|---" * 7 + "|",
    ]
    for name, each in found.items():
        wide, narrow = (each[precision] for precision in PRECISIONS)
        lines.append(
            f"| {name} | {wide['loss']:.4g} | {narrow['loss'] / wide['loss']:.4f} | {wide['dirt']:.3f} | "
            f"{narrow['dirt']:.3f} | {wide['seconds']:.0f} | {narrow['seconds']:.0f} |"
        )
    return lines


def main() -> None:
    """Make the pictures and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", default="256,512")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept, page = DOCS / "precision.json", DOCS / "precision.md"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for size, pair in itertools.product(map(int, options.sizes.split(",")), PAIRS):
        if (name := f"{pair}, {size}") not in found:
            found[name] = compare(options.pairs, pair, size, options.out)
            kept.write_text(json.dumps(found, indent=1) + "\n")
    before, *_ = page.read_text().partition(TABLES)
    page.write_text(before + TABLES + "\n" + "\n".join(table(found)) + "\n")


if __name__ == "__main__":
    main()
