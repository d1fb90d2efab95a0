"""How coarse strokes are, by --stroke_size and by --size: pictures of the examples, a sheet and a table.

python docs/strokes.py --out=FOLDER
makes what --out does not have yet, then docs/strokes.jpg and the tables of docs/strokes.md. On two CPU cores
about ten minutes.
"""

import argparse
from pathlib import Path

import numpy as np
from study import sheet

from nst_jax import images
from nst_jax.launchers.flags import run
from nst_jax.launchers.nst import PROGRAM

DOCS = Path(__file__).parent
STROKES, SIZES = (0.5, 1.0, 2.0), (256, 512, 1024, 2048)
PAIRS = (("coffee", "night"), ("cat", "glass"))
BAND = 8, 100  # cycles a picture: below are the photograph's shapes, above what 256 pixels cannot show
TABLES = "# Tables\n"


def make(name: str, out: Path, content: str, style: str, *flags: str) -> Path:
    """Return a picture of two examples, made if it is not there."""
    path = out / f"{name}.png"
    files = [f"--content=example:{content}", f"--style=example:{style}", f"--output={path}", "--quiet"]
    if not path.exists() and run(PROGRAM, [*files, *flags]):
        raise SystemExit(f"{path} failed")
    return path


def fineness(path: Path) -> float:
    """Return the geometric mean frequency of the luma within BAND, weighted by power: cycles a picture."""
    luma = images.load(str(path)).rgb @ np.float32([0.299, 0.587, 0.114])
    height, width = luma.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2
    longest = max(height, width)
    axes = [np.fft.fftfreq(side) * longest for side in (height, width)]
    frequency = np.hypot(axes[0][:, None], axes[1])
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    return float(np.exp(np.average(np.log(frequency[inside]), weights=power[inside])))


def main() -> None:
    """Make the pictures, the sheet and the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Path]] = {}
    lines = [
        "| | " + " | ".join(f"`--stroke_size={stroke:g}`" for stroke in STROKES) + " |",
        "|---|---|---|---|",
    ]
    for content, style in PAIRS:
        pair = f"{content}, {style}"
        rows[pair] = [
            make(f"{content}-{style}-{stroke}", out, content, style, "--size=256", f"--stroke_size={stroke}")
            for stroke in STROKES
        ]
        lines.append(f"| {pair}, 256 pixels | " + " | ".join(f"{fineness(p):.1f}" for p in rows[pair]) + " |")
    lines += [
        "",
        "| | " + " | ".join(f"`--size={size}`" for size in SIZES) + " |",
        "|---" * (len(SIZES) + 1) + "|",
    ]
    for content, style in PAIRS[:1]:
        sizes = [
            make(f"{content}-{style}-at-{size}", out, content, style, f"--size={size}", "--effort=draft")
            for size in SIZES
        ]
        lines.append(
            f"| {content}, {style}, draft | " + " | ".join(f"{fineness(p):.1f}" for p in sizes) + " |"
        )
    sheet(DOCS / "strokes.jpg", rows, [f"{stroke:g}" for stroke in STROKES])
    page = DOCS / "strokes.md"
    before, *_ = page.read_text().partition(TABLES)
    page.write_text(before + TABLES + "\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
