"""How sphinx makes the site of these pages: `make docs`. Read on a forge, the pages need nothing of this."""

import re
from typing import Any

from pygments.lexers.special import TextLexer

import nst_jax

project = "nst_jax"
release = version = nst_jax.__version__
html_title = f"nst_jax {release}"

# The repository is the source, so that a link such as ../BUILD.md is the same here and on a forge.
root_doc = "docs/index"
include_patterns = [
    *("BUILD.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("benchmarks/NOTES.md", "docs/**.md", "nst_jax/examples/README.md", "weights/README.md"),
]
exclude_patterns = [".*", "out"]  # not even looked through

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["html_image"]  # <img> is copied with the page
myst_heading_anchors = 3

# Every build runs the tutorial, and a cell that fails, fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # Args tell shapes and units

html_theme = "sphinx_book_theme"
# The footer would say that the author is not set; the search field is in the sidebar.
html_theme_options = {"footer_content_items": [], "navbar_persistent": []}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def add_contents(app: Any, page: str, source: list[str]) -> None:
    """Add the site's table of contents to a list of pages: a part for each heading, an entry for each link.

    So the index lists a page once, for a forge and for the site.
    """
    if page not in (root_doc, "docs/decisions"):
        return
    for part in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:]:
        heading, links = part.splitlines()[0], re.findall(r"\[([^]]+)\]\(([^):#]+)\.md\)", part)
        entries = "\n".join(
            f"{title[0].upper()}{title[1:]} <{target}>".replace("`", "") for title, target in links
        )
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{entries}\n```\n"


def to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring, which is plain text: its code, its formulas, its lists of `name: words`."""
    parts = "\n".join(lines).split("\n\n")
    for i, part in enumerate(parts):
        if part.startswith("    "):
            parts[i] = "::\n\n" + part
            continue
        part = re.sub(r"([|*]|_(?!\w))", r"\\\1", part)
        if re.match(r"(?!Args|Returns|Raises|Yields)\w[\w, ()]*: ", part):
            part = re.sub(r"^(?! )", "* ", part, flags=re.MULTILINE)
        parts[i] = part
    lines[:] = "\n\n".join(parts).splitlines()


def skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of tuples, which the class describes."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """Tell sphinx what is above."""
    for language in ("csv", "imports"):
        app.add_lexer(language, TextLexer)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", to_rst, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
