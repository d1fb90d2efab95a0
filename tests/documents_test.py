"""The documents: their snippets run, their links, flags and tables are the code's; their words are simple."""

import ast
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nst_jax.config import Config
from nst_jax.launchers.flags import run
from nst_jax.metrics.judge import METRICS
from nst_jax.options import check_option, fields_of, option_type, parse_option
from nst_jax.runs.batch_job import Batch
from nst_jax.runs.job import Job
from nst_jax.runs.sweep_job import SweepJob

ROOT = Path(__file__).parents[1]
TABLES = runpy.run_path(str(ROOT / "docs" / "option_tables.py"))
TOP = [ROOT / name for name in ("README.md", "BUILD.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
READMES = [ROOT / "weights" / "README.md", ROOT / "nst_jax" / "examples" / "README.md"]
NAMES = {page: str(page.relative_to(ROOT)) for page in (*TOP, *PAGES, *READMES)}
CODE = sorted((ROOT / "nst_jax").rglob("*.py"))
STATIC = (ROOT / "nst_jax" / "studio" / "static").iterdir()
SOURCES = [
    *CODE,
    ROOT / "nst_programs.py",
    *sorted(path for path in STATIC if path.suffix in (".css", ".html", ".js")),
]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
SHARED = {"quiet", "flagfile", "version", "help", "helpfull"}
LONGEST = 30  # words of a sentence

BRITISH = (
    r"colour|grey|optimis|normalis|maximis|minimis|parametris|regularis|initialis|visualis|organis|recognis|"
    r"summaris|generalis|serialis|synchronis|centre|licence|behaviour|neighbour|favour|labelled|modelled|"
    r"cancelled|analyse|artefact|programme\b|aluminium|metre\b|whilst|defence|judgement"
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def prose(page: Path) -> str:
    """Return a page without its blocks of code and without what the code writes into it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    rows = {row for options in TABLES["OPTIONS"].values() for row in TABLES["rows"](options)}
    made = [f"{metric.to} | {metric.range} | {metric.tells} | {metric.blind}" for metric in METRICS.values()]
    return "\n".join(
        line for line in text.splitlines() if line not in rows and not any(row in line for row in made)
    )


def sentences(page: Path) -> list[str]:
    """Return the sentences of the paragraphs and lists of a page: no headings, tables and pictures."""
    text = re.sub(r"^(#|\||<).*$", "", prose(page), flags=re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "CODE", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return split(text, r"- |\d+\. ")


def split(text: str, item: str) -> list[str]:
    """Return the sentences of a text; item: how an entry of its lists begins."""
    parts = re.split(rf"\n\s*\n|\n(?=\s*(?:{item}))|(?<=[.!?])\s", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


def docstrings(module: Path) -> list[str]:
    """Return the docstrings of a module without their code."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, kinds)]
    found = [text for node in nodes if (text := ast.get_docstring(node))]
    # A paragraph is code where all of its lines are indented, or where it is a session.
    return [re.sub(r"(?:\A|(?<=\n\n))(?:(?: {4}|>>>).*\n?)+", "", text) for text in found]


@pytest.mark.parametrize("page", [page for page in NAMES if blocks(page, "python")], ids=NAMES.get)
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A process of its own: the snippets must run under JAX's ordinary rules, with nothing imported before.
    subprocess.run([sys.executable, "-W", "error", "-c", "".join(blocks(page, "python"))], check=True)


@pytest.mark.parametrize("page", NAMES, ids=NAMES.get)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"(?:\]\(|src=\")([^)\"\s]+)", text):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert "://" in target or file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads], (
                target
            )


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    index += (ROOT / "docs" / "decisions.md").read_text()
    missing = [page for page in PAGES if f"({page.relative_to(ROOT / 'docs')})" not in index]
    assert missing == [ROOT / "docs" / "index.md"]


def test_decisions_are_dated_and_whole():
    index = (ROOT / "docs" / "decisions.md").read_text()
    for page in DECISIONS:
        title, date, *parts = page.read_text().strip().split("\n\n")
        assert f"- [{title.removeprefix('# ')}](decisions/{page.name}), {date.strip('*')}\n" in index
        assert page.name.startswith(date.strip("*"))
        assert sum(part.startswith("**Decision.**") for part in parts) == 1, page


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    public = re.findall(r"import (\w+) as \1\b", (ROOT / "nst_jax" / "__init__.py").read_text())
    assert len(public) > 30
    assert [name for name in public if not re.search(rf"\b{name}\b", page)] == []


def test_every_picture_is_shown_and_made_by_a_command():
    shown = "".join(page.read_text() for page in NAMES)
    made = "".join(path.read_text() for path in (ROOT / "docs").iterdir() if path.suffix in (".sh", ".py"))
    for picture in (ROOT / "docs").glob("*.jpg"):
        assert picture.name in shown
        known = picture.stem in made or picture.stem.removesuffix("-default").replace("-", " ") in made
        assert known or picture.stem.startswith(("study-", "studio")), picture  # studio: of its page


def test_the_tables_of_options_are_the_code_s():
    page = ROOT / "docs" / "reference.md"
    assert page.read_text() == TABLES["filled"](page.read_text()), "python docs/option_tables.py"
    named = re.findall(r"<!-- options: (\w+) -->", page.read_text())
    assert sorted(named) == sorted(TABLES["OPTIONS"])


PROGRAMS = {program.name: program for program in TABLES["PROGRAMS"]}
COMMANDS = [
    (NAMES[page], command)
    for page in NAMES
    for block in blocks(page, "sh")
    for command in block.replace("\\\n", " ").splitlines()
    if command.split(" ")[0] in PROGRAMS
]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[" ".join(pair)[:80] for pair in COMMANDS])
def test_a_command_has_flags_of_its_program(page, command):
    program, *arguments = shlex.split(command, comments=True)
    known = {field.name: field for kind in PROGRAMS[program].options for field in fields_of(kind)}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        assert argument.startswith("--"), argument
        assert name in known, argument
        if option_type(known[name]) is not bool:
            check_option(known[name], parse_option(known[name], value))


class Prepared(Exception):
    """A job is ready to run."""


def stop_here(*_, **__):
    raise Prepared


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Stand in a folder that has the pages' files, and end each job where it would begin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")  # of --shard=auto
    (tmp_path / "photos").mkdir()
    for name, files in {"coffee": ("photo.jpg", "photos/a.jpg"), "night": ("painting.jpg",)}.items():
        for file in files:
            shutil.copy(ROOT / "nst_jax" / "examples" / f"{name}.jpg", file)
    Path("rows.csv").write_text("content,style\n" + "photo.jpg,painting.jpg\n" * 8)
    for job in (Job, SweepJob):
        for method in ("run", "forecast"):
            monkeypatch.setattr(job, method, stop_here)
    monkeypatch.setattr(Batch, "run", stop_here)


# Prepared by their own tests: what needs other weights, other hosts, a cluster, or what the line before has made.
OTHERS = r"vgg19|--coordinator|--runner|--settings|--resume"
JOBS = [
    pair
    for pair in COMMANDS
    if pair[1].split()[0] in ("nst", "nst-sweep", "nst-batch") and not re.search(OTHERS, pair[1])
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a manifest left open
@pytest.mark.parametrize(("page", "command"), JOBS, ids=[" ".join(pair)[:80] for pair in JOBS])
def test_a_command_makes_a_job(page, command, pictures):
    quick = re.sub(r"--size=(?=\d{4})\d+", "--size=999", command)
    program, *arguments = shlex.split(quick, comments=True)
    with pytest.raises(Prepared):
        run(PROGRAMS[program], arguments)


def test_the_commands_of_the_gallery_make_jobs(pictures, tmp_path):
    """The script runs, with an nst that keeps its arguments, and removes nothing."""
    shutil.copy(ROOT / "docs" / "gallery.sh", tmp_path)
    for name in ("nst", "python", "rm"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >>said\n')
        (tmp_path / name).chmod(0o755)
    here = {"NST": f"{tmp_path}/nst", "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    subprocess.run(["sh", "gallery.sh"], check=True, env=os.environ | here)
    said = (tmp_path / "said").read_text().splitlines()
    commands = [line.split()[1:] for line in said if line.startswith("nst ")]
    assert len(commands) > 20
    for arguments in commands:
        with pytest.raises(Prepared):
            run(PROGRAMS["nst"], arguments)


def test_a_run_is_extended_by_what_its_scales_had():
    command = next(command for _, command in COMMANDS if "--allow_change=iterations" in command)
    *taken, last = map(int, re.search(r"--iterations=(\S+)", command)[1].split(","))
    before = [scale.iterations for scale in Config.from_preset(size=1024).pyramid()]
    assert taken == before[:-1]
    assert last > before[-1]


def test_what_make_is_told_to_make_has_its_rules():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    named = {name for page in NAMES for name in re.findall(r"\bmake ([a-z-]+)`", page.read_text())}
    assert len(named) > 5
    for name in named | set(phony):
        done = subprocess.run(["make", "--dry-run", name], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_flags_named_in_the_prose_are_flags_of_a_program():
    known = {field.name for kind in TABLES["OPTIONS"].values() for field in fields_of(kind)}
    for page in (ROOT / "README.md", *PAGES):
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            if code.startswith(("--", "nst")):
                for name in re.findall(r"(?:^| )--([a-z_]+)", code):
                    assert name in known | SHARED, (page, code)


@pytest.mark.parametrize("page", NAMES, ids=NAMES.get)
def test_spelling_is_american(page):
    assert not re.findall(rf"\w*(?:{BRITISH})\w*", prose(page), re.IGNORECASE)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_and_its_words_are_american(source):
    words = BRITISH.replace("cancelled|", "")  # a state of the studio's jobs, on disks; a status of XLA's
    assert not re.findall(rf"\w*(?:{words})\w*", source.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("module", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_of_docstrings_are_short(module):
    found = [text for docstring in docstrings(module) for text in split(docstring, r"\w+(?:, \w+)*: ")]
    assert not [text for text in found if len(text.split()) > LONGEST]


@pytest.mark.parametrize(
    "page",
    [
        *TOP[:4],
        *PAGES,
        *READMES,
    ],
    ids=NAMES.get,
)
def test_sentences_are_short(page):
    assert not [text for text in sentences(page) if len(text.split()) > LONGEST]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
