"""What --strength comes to on real pairs: LPIPS to the photograph, by loss, size and steps; numbers alone.

python docs/strength.py --pairs=FOLDER --out=FOLDER
makes what neither docs/strength.json nor --out has yet, then that file and the tables of docs/strength.md.
Without docs/strength.json everything is made anew. FOLDER of --pairs: as for docs/pairs.py. On two CPU cores
about three hours; it can be stopped at any time.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from pairs import SETS, inputs

from nst_jax import images
from nst_jax.config import TEXTURE, Config
from nst_jax.metrics import judge
from nst_jax.runs.transfer import stylize
from nst_jax.weights import load_vgg

DOCS = Path(__file__).parent
PAIRS = SETS["reported"].split()[:8]  # the dial was fitted on others
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
PRESETS = {"gram": "gatys", "wasserstein": "wasserstein"}
RUNS = ((128, 40), (128, 150), (256, 80))  # pixels, steps
TABLES = "# Tables\n"


def load(path: str, size: int) -> np.ndarray:
    """Return a picture whose longest side has so many pixels."""
    image = images.load(path).rgb
    return images.resize(image, *images.size_to_fit(*image.shape[:2], size))


def distances(pairs: Path, loss: str, size: int, steps: int, pair: str, out: Path) -> list[float]:
    """Return the LPIPS of the pictures of all strengths; they and the numbers are kept in out."""
    kept = out / f"{pair}-{loss}-{size}-{steps}.json"
    if not kept.exists():
        content, style = (load(path, size) for path in inputs(pairs, pair))
        network, params = judge.load(), load_vgg("vgg16")
        there, found = judge.view(network, content), []
        for strength in STRENGTHS:
            config = Config(preset=PRESETS[loss], strength=strength, iterations=steps)
            path = kept.with_suffix(f".{strength}.png")
            if not path.exists():
                images.save(str(path), stylize(params, content, [style], config=config).image)
            image = images.load(str(path)).rgb
            found.append(float(judge.lpips(judge.view(network, image), there)))
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return lines of Markdown: the mean of each strength, and how far a pair is from it at most."""
    means = np.mean([numbers for each in found.values() for numbers in each.values()], 0)
    head = " | ".join(f"{strength:g}" for strength in STRENGTHS)
    lines = [f"| | {head} |", "|---" * (len(STRENGTHS) + 1) + "|"]
    lines += [f"| wanted | {' | '.join(f'{TEXTURE * s:.3f}' for s in STRENGTHS)} |"]
    lines += [f"| mean of all | {' | '.join(f'{mean:.3f}' for mean in means)} |"]
    for name, each in found.items():
        numbers = np.array(list(each.values()))
        farthest = np.abs(numbers - means).max(0)
        cells = [f"{m:.3f} ± {f:.3f}" for m, f in zip(numbers.mean(0), farthest, strict=True)]
        lines.append(f"| {name}, {len(each)} pair{'s'[: len(each) > 1]} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Make the pictures and the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = DOCS / "strength.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    # All pairs of the cheapest row first, then pair by pair: what is there early stands for all rows.
    first = itertools.product(PAIRS, RUNS[:1], PRESETS)
    for pair, (size, steps), loss in (*first, *itertools.product(PAIRS, RUNS[1:], PRESETS)):
        row = found.setdefault(f"{loss}, {size} pixels, {steps} steps", {})
        if pair not in row:
            row[pair] = distances(options.pairs, loss, size, steps, pair, options.out)
            kept.write_text(json.dumps(found, indent=1) + "\n")
    page = DOCS / "strength.md"
    before, *_ = page.read_text().partition(TABLES)
    page.write_text(before + TABLES + "\n" + "\n".join(table(found)) + "\n")


if __name__ == "__main__":
    main()
