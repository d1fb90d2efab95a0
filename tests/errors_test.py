"""Errors: they say which option, in the library by its name and in a program by its flag, and travel whole."""

import ast
import pickle
from pathlib import Path

import pytest

import nst_jax
from nst_jax.config import Config
from nst_jax.errors import InputError, NotWritten
from nst_jax.launchers.console import fail


@pytest.mark.parametrize("kind", [InputError, NotWritten])
def test_errors_can_be_pickled(kind):
    error = kind("`size`", "at least 2", "got 1")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "`size`: at least 2; got 1"
    assert (again.what, again.allowed, again.came) == ("`size`", "at least 2", "got 1")


def test_a_program_prints_options_as_flags(capsys):
    with pytest.raises(InputError) as caught:
        Config(scales="32,64", iterations=2)
    assert fail(2, caught.value) == 2
    assert capsys.readouterr().err == (
        "error: --scales: auto, or longest sides that grow and end at --size=512; got '32,64'\n"
    )


def test_a_file_that_is_called_like_an_option_stays_a_file(capsys):
    fail(2, InputError("style", "must be a whole picture file", "no such file"))
    assert capsys.readouterr().err == "error: style: must be a whole picture file; no such file\n"


def test_the_library_names_options_not_flags():
    """In what its errors and warnings say; a help text is the flag's, and a command line has flags."""
    package = Path(nst_jax.__file__).parent
    for path in package.rglob("*.py"):
        if "launchers" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "InputError",
                "NotEnoughMemory",
            ):
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                flags = [text for text in texts if isinstance(text, str) and text.startswith("--")]
                assert not flags, (path.name, node.lineno, flags)
