"""The study of real pairs: photographs and paintings that people use, judged; numbers alone are kept.

python docs/pairs.py --pairs=FOLDER --out=FOLDER [--set=reported] [--size=256] [--peer=NAME=FOLDER]
makes what --out does not have yet, by the program nst, then its part of docs/pairs.json, the tables of
docs/pairs.md and a sheet in --out. FOLDER of --pairs: photographs/NN.png and paintings/NN.png, 20 and 40
pictures of COCO and WikiArt, the set of the repository jiwoogit/StyleID; they may not be passed on. A peer's
folder holds its pictures, by the pairs' names. About 100 s a pair on two CPU cores.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from study import sheet

from nst_jax.launchers.flags import run as run_program
from nst_jax.launchers.nst import PROGRAM
from nst_jax.metrics import judge
from nst_jax.runs.input_files import ImageCache
from nst_jax.runs.judging import References, verdict

DOCS = Path(__file__).parent
SETS = {  # photograph x painting: the sets have none in common
    "tuned": "12x09 13x22 00x03 03x18 09x10 16x36 18x05 04x31 06x00 19x02 00x07 03x11 "
    "04x17 06x19 09x20 12x26 13x28 16x33 18x38 19x39 04x26 06x36 19x09 13x10",
    "reported": "01x01 02x04 05x06 07x08 08x12 10x13 11x14 14x15 15x16 17x21 01x23 02x24 "
    "05x25 07x27 08x29 10x30 11x32 14x34 15x35 17x37 17x12 05x14 07x21 14x32",
}
METHODS: dict[str, tuple[str, ...]] = {"gatys": ("--preset=gatys",), "default": ()}
SHOWN = ("lpips", "dists", "ms_ssim_distance", "style_distance", "fid", "color_distance", "dirt")
TABLES = "# Tables\n"  # what follows in the page is written anew


def inputs(pairs: Path, pair: str) -> tuple[str, str]:
    """Return the files of a pair."""
    photograph, painting = pair.split("x")
    return f"{pairs}/photographs/{photograph}.png", f"{pairs}/paintings/{painting}.png"


def make(pairs: Path, pair: str, size: int, method: str, out: Path) -> dict[str, Any]:
    """Make a picture and its report, if they are not there; return what is kept of it."""
    picture, report = (out / f"{pair}-{size}-{method}.{end}" for end in ("png", "json"))
    if not report.exists():
        content, style = inputs(pairs, pair)
        files = [f"--content={content}", f"--style={style}", f"--output={picture}", f"--report={report}"]
        if run_program(PROGRAM, [*files, f"--size={size}", "--judge", "--quiet", *METHODS[method]]):
            sys.exit(f"{picture} failed")
    found = json.loads(report.read_text())
    return {name: value for name, value in found["judge"].items() if name in judge.METRICS}


def measure(pairs: Path, pair: str, size: int, folder: Path, network: judge.Network) -> dict[str, Any]:
    """Return the judge's numbers of a peer's picture."""
    content, style = inputs(pairs, pair)
    found = verdict(
        network, f"{folder}/{pair}.png", References(content, [style], [], 1.0, size), ImageCache(2**40)
    )
    return {name: found[name] for name in judge.METRICS}


def summary(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return lines of Markdown: means over each method's pairs, and on how many it is below those before."""
    methods = list(dict.fromkeys(method for each in found.values() for method in each))
    lines = []
    for number, method in enumerate(methods):
        own = [each for each in found.values() if method in each]
        means = [f"{np.mean([each[method][name] for each in own]):.3g}" for name in SHOWN]
        lines += [f"| `{method}`, {len(own)} pairs | " + " | ".join(means) + " |"]
        for other in methods[:number]:
            both = [each for each in own if other in each]
            below = [str(sum(each[method][name] < each[other][name] for each in both)) for name in SHOWN]
            lines += [f"| less than `{other}`, of {len(both)} | " + " | ".join(below) + " |"]
    head = "| | " + " | ".join(f"`{name}`" for name in SHOWN) + " |"
    return [head, "|---" * (len(SHOWN) + 1) + "|", *lines]


def main() -> None:
    """Make what is missing, and the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, type=Path, help="folder of photographs and paintings")
    parser.add_argument("--out", required=True, type=Path, help="folder of the pictures")
    parser.add_argument("--set", default="reported", choices=SETS)
    parser.add_argument("--size", default=256, type=int)
    parser.add_argument("--peer", default=[], action="append", help="NAME=FOLDER of a peer's pictures")
    parser.add_argument("--method", default=[], action="append", choices=METHODS, help="remade; else all")
    parser.add_argument("--first", default=24, type=int, help="of the pairs, so many")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    kept, methods = DOCS / "pairs.json", asked.method or list(METHODS)
    whole = json.loads(kept.read_text()) if kept.exists() else {}
    found: dict[str, dict[str, dict[str, Any]]] = whole.setdefault(f"{asked.set}, {asked.size} pixels", {})
    names = SETS[asked.set].split()[: asked.first]
    for pair in names:
        made = {method: make(asked.pairs, pair, asked.size, method, asked.out) for method in methods}
        found[pair] = found.get(pair, {}) | made
    network = judge.load()
    for name, folder in (peer.split("=", 1) for peer in asked.peer):
        for pair in names:
            found[pair][name] = measure(asked.pairs, pair, asked.size, Path(folder), network)
    heads = ["photograph", "painting", *methods]
    rows = {
        pair: [
            *map(Path, inputs(asked.pairs, pair)),
            *(asked.out / f"{pair}-{asked.size}-{method}.png" for method in methods),
        ]
        for pair in names
    }
    sheet(asked.out / f"{asked.set}-{asked.size}.jpg", rows, heads)
    kept.write_text(json.dumps(whole, indent=1) + "\n")
    page = DOCS / "pairs.md"
    said = page.read_text().partition(TABLES)[0]  # written by hand, and kept
    lines = [line for name, each in whole.items() for line in ("", f"## {name}", "", *summary(each))]
    page.write_text("\n".join([said + TABLES.rstrip(), *lines]) + "\n")


if __name__ == "__main__":
    main()
