"""The study: every preset on six pairs of pictures at three sizes, judged; and what --strength does.

python docs/study.py --out=FOLDER makes what FOLDER does not have yet, by the program nst, then docs/study.md,
docs/study.json and the sheets docs/study-*.jpg anew. About an hour on two CPU cores.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nst_jax.config import PRESETS
from nst_jax.launchers.flags import run as run_program
from nst_jax.launchers.nst import PROGRAM
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.metrics.judge import METRICS

DOCS = Path(__file__).parent
PAIRS = ("coffee night", "cat waves", "rocket glass", "coffee glass", "cat night", "rocket ink")
SIZES = (96, 192, 320)
STEPS = 24
STRENGTHS = {"sizes": (0.35, 0.65), "losses": (0.2, 0.35, 0.5, 0.65)}
STRENGTH_SIZES = (256, 512, 1024)
LOSSES_AT, LOSSES_STEPS = 192, 80  # pixels; enough steps for the weights to tell, and not where steps end
TABLES = "# Tables and sheets\n"  # what follows in the page is written anew
SIDE, LINE = 200, 16  # pixels of a picture on a sheet, and of a line of text


class Run(NamedTuple):
    """A picture of the study."""

    pair: str
    size: int
    options: tuple[str, ...]
    steps: int = STEPS

    @property
    def name(self) -> str:
        """Return the name of its files."""
        told = "-".join(option.removeprefix("--").replace("=", "-") for option in self.options)
        return f"{self.pair.replace(' ', '-')}-{self.size}-{self.steps}-{told}"


def make(run: Run, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Make the picture and its report, if they are not there; return both."""
    picture, report = folder / f"{run.name}.png", folder / f"{run.name}.json"
    if not report.exists():
        content, style = run.pair.split()
        fixed = [f"--content=example:{content}", f"--style=example:{style}", f"--size={run.size}"]
        fixed += [
            f"--iterations={run.steps}",
            f"--output={picture}",
            f"--report={report}",
            "--judge",
            "--quiet",
        ]
        if run_program(PROGRAM, [*fixed, *run.options]):
            sys.exit(f"{run.name} failed")
    return picture, json.loads(report.read_text())


def sheet(path: Path, rows: dict[str, list[Path]], heads: list[str]) -> None:
    """Write pictures in rows, with what they are above and beside them."""
    height = max(
        round(SIDE * image.height / image.width) for image in map(Image.open, sum(rows.values(), []))
    )
    whole = Image.new("RGB", (SIDE * len(heads), LINE + (height + LINE) * len(rows)), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(LINE - 5)
    for column, head in enumerate(heads):
        pen.text((column * SIDE + 3, 1), head, "black", font)
    for row, (side, pictures) in enumerate(rows.items()):
        top = LINE + row * (height + LINE)
        for column, picture in enumerate(pictures):
            image = Image.open(picture).convert("RGB")
            image.thumbnail((SIDE, height), Image.Resampling.LANCZOS)
            whole.paste(image, (column * SIDE, top))
        pen.text((3, top + height), side, "black", font)
    whole.save(path, quality=85)


def numbers(report: dict[str, Any]) -> dict[str, float]:
    """Return what the judge says, and the seconds of an evaluation."""
    return {name: value for name, value in report["judge"].items() if name in METRICS} | {
        "seconds_per_evaluation": report["seconds"]["per_evaluation"],
        "evaluations": report["evaluations"],
    }


def table(found: dict[str, dict[str, float]], first: str) -> list[str]:
    """Return lines of Markdown: a row for each name, a column for each number."""
    columns = list(next(iter(found.values())))
    lines = [
        f"| {first} | " + " | ".join(f"`{name}`" for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    return lines + [
        f"| `{name}` | " + " | ".join(f"{values[column]:.3g}" for column in columns) + " |"
        for name, values in found.items()
    ]


def presets(folder: Path, sizes: list[int]) -> tuple[list[str], dict[str, Any]]:
    """Make the pictures of all presets, the sheets and the tables of means over the pairs."""
    lines, kept = [], {}
    for size in sizes:
        made = {
            (preset, pair): make(Run(pair, size, (f"--preset={preset}",)), folder)
            for preset in PRESETS  # one after the other: programs of one preset and shape are compiled once
            for pair in PAIRS
        }
        rows = {pair: [made[preset, pair][0] for preset in PRESETS] for pair in PAIRS}
        sheet(DOCS / f"study-{size}.jpg", rows, list(PRESETS))
        each = {key: numbers(report) for key, (_, report) in made.items()}
        kept |= {f"{size} {preset} {pair}": values for (preset, pair), values in each.items()}
        means = {
            preset: {
                name: float(np.mean([each[preset, pair][name] for pair in PAIRS]))
                for name in each[preset, PAIRS[0]]
            }
            for preset in PRESETS
        }
        lines += [
            f"## {size} pixels",
            "",
            *table(means, "preset"),
            "",
            f"![all at {size}](study-{size}.jpg)",
            "",
        ]
    return lines, kept


def strengths(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Make the pictures of some strengths, at some sizes and with every style loss, and their sheets."""
    lines, kept = [], {}
    losses = {name: (f"--style_loss={name}",) for name in STYLE_LOSSES if name != "tutorial"}
    losses["patch"] = ("--preset=patch",)
    asked = {
        "sizes": [(str(size), Run(PAIRS[0], size, ())) for size in STRENGTH_SIZES],
        "losses": [
            (name, Run(PAIRS[0], LOSSES_AT, options, LOSSES_STEPS)) for name, options in losses.items()
        ],
    }
    for what, columns in asked.items():
        rows, found = {}, {}
        for strength in STRENGTHS[what]:
            runs = [run._replace(options=(f"--strength={strength}", *run.options)) for _, run in columns]
            made = [make(run, folder) for run in runs]
            rows[f"strength {strength}"] = [picture for picture, _ in made]
            for (head, _), (_, report) in zip(columns, made, strict=True):
                found[f"{head}, {strength}"] = numbers(report)
        heads = [head for head, _ in columns]
        sheet(DOCS / f"study-strength-{what}.jpg", rows, heads)
        kept |= {f"strength {name}": values for name, values in found.items()}
        lines += [f"## --strength, {what}", "", *table(found, what), ""]
        lines += [f"![strength, {what}](study-strength-{what}.jpg)", ""]
    return lines, kept


def main() -> None:
    """Make what is missing, and the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder of the pictures")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    asked = parser.parse_args()
    folder = Path(asked.out)
    folder.mkdir(parents=True, exist_ok=True)
    lines, kept = presets(folder, [int(size) for size in asked.sizes.split(",")])
    more, numbers = strengths(folder)
    page = DOCS / "study.md"
    said = page.read_text().partition(TABLES)[0]  # written by hand, and kept
    page.write_text("\n".join([said + TABLES, *lines, *more]).rstrip() + "\n")
    (DOCS / "study.json").write_text(json.dumps(kept | numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
