"""Write the tables of flags in reference.md anew, from the options of every program.

python docs/option_tables.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nst_jax.launchers import batch, bench, judge, nst, studio, sweep, video, weights
from nst_jax.options import default_values, describe_range, fields_of, is_tuple

PROGRAMS = [module.PROGRAM for module in (nst, sweep, batch, video, studio, judge, weights, bench)]
OPTIONS = {kind.__name__: kind for program in PROGRAMS for kind in program.options}
HEAD = "| flag | default | values | |\n|---|---|---|---|\n"


def rows(options: Any) -> Iterator[str]:
    """Return a row for each option: flag, default, values, help."""
    defaults = default_values(options)
    for field in fields_of(options):
        value = defaults[field.name]
        default = ",".join(map(str, value)) if is_tuple(field) else str("" if value is None else value)
        values = describe_range(field) + (", may repeat" if field.metadata["repeated"] else "")
        shown = f"`{default}`" if default else ""
        yield f"| `--{field.name}` | {shown} | {values} | {field.metadata['help']} |"


def filled(text: str) -> str:
    """Return a page with the table below each line `<!-- options: NAME -->` made anew."""
    return re.sub(
        r"(<!-- options: (\w+) -->\n)[^\n]*\n[^\n]*\n(\|[^\n]*\n)*",
        lambda found: found[1] + HEAD + "".join(f"{row}\n" for row in rows(OPTIONS[found[2]])),
        text,
    )


if __name__ == "__main__":
    page = Path(__file__).parent / "reference.md"
    page.write_text(filled(page.read_text()))
