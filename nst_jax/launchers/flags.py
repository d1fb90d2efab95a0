"""Programs: flags made from options, --help, and the exit code of a run."""

import dataclasses
import inspect
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from logging import CRITICAL, getLogger
from typing import Any, NamedTuple, NoReturn

from absl import app, flags, logging

import nst_jax
from nst_jax.errors import InputError, nearest
from nst_jax.launchers.console import (
    CHATTY,
    DONE,
    explain,
    not_of_orbax,
    set_verbosity,
    tell,
    tell_unraisable,
)
from nst_jax.launchers.signals import end, leave, watching
from nst_jax.options import default_values, describe_range, fields_of, is_tuple, option_type, parse_option

MAX_FLAG_FILE_BYTES = 2**20  # bytes of a flag file
MAX_FLAG_LETTERS = 100  # letters in the name of a flag: absl's search for a similar one recurses through them
MAX_ARGUMENTS = 10_000  # arguments with those of flag files: absl's time grows with their square
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # what word processors make of --
ParsedFlags = dict[str, Any]  # the options that were on the command line


class Program(NamedTuple):
    """An absl program: main takes what was given of the options of each dataclass, returns the exit code."""

    name: str
    description: str
    options: Sequence[type]  # dataclasses whose fields are made by nst_jax.options.option
    main: Callable[..., int]
    first: Sequence[str] = ()  # flags that --help shows before all others


def launch(program: Program) -> NoReturn:
    """Run a program under absl with the command line's arguments, and exit."""
    for library in CHATTY:
        getLogger(library).setLevel(CRITICAL)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    getLogger("absl").addFilter(not_of_orbax)
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # of orbax, after a failure
    sys.unraisablehook = tell_unraisable
    # run() parses, into flags of the program's own: absl's own parser exits 1 with several lines.
    with watching(end):
        app.run(lambda _: leave(run(program, sys.argv[1:])), flags_parser=lambda argv: flags.FLAGS(argv[:1]))
    raise AssertionError("app.run does not return")


def run(program: Program, arguments: Sequence[str]) -> int:
    """Parse the arguments, run the program and return its exit code; the user's errors are one line."""
    try:
        values = _parse(program, arguments)
        if values.version:
            tell(f"{program.name} {nst_jax.__version__}")
            return DONE
        if values.help or values.helpfull:
            tell(_help(program) if values.help else values.get_help())
            return DONE
        set_verbosity(values.quiet)
        for name in values:
            flag = values[name]
            if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
                logging.warning(
                    "--%s: given %d times; the last one holds: %s", name, flag.present, flag.value
                )
        with warnings.catch_warnings(action="ignore" if values.quiet else None):
            return program.main(*(_given(values, options) for options in program.options))
    except BaseException as error:
        code = explain(error)
        if code is None:
            raise
        return code


def _parse(program: Program, arguments: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for field in _fields(program):
        _define(values, field)
    own = {
        "quiet": "errors only",
        "version": "the version",
        "help": "this help",
        "helpfull": "absl's own help",
    }
    for name, help in own.items():
        short = "h" if name == "help" else None
        flags.DEFINE_boolean(name, False, help, flag_values=values, short_name=short)
    try:
        positional = values([program.name, *_unfolded(arguments, set())])[1:]
    except flags.UnrecognizedFlagError as error:
        near = nearest(error.flagname, values)
        came = "no such flag" + (f" (did you mean --{near}?)" if near else "")
        raise InputError(f"--{error.flagname}", f"the flags of {program.name} --help", came) from None
    except (flags.Error, UnicodeDecodeError) as error:  # the latter from a --flagfile that is no text
        raise InputError(f"{program.name}'s flags", "see --help", str(error)) from None
    bare = positional[0].lstrip(DASHES) if positional and not positional[0].startswith("--") else ""
    if bare and bare != positional[0]:
        name, given, value = bare.partition("=")
        near = nearest(name, values)
        meant = f"; did you mean --{near}{given}{value}?" if near else ""
        raise InputError(positional[0], "flags begin with --", f"got another dash{meant}")
    if positional:
        missing = [
            name for name in ("content", "style", "output") if name in values and not values[name].present
        ]
        meant = f"; did you mean --{missing[0]}={positional[0]}?" if missing else ""
        raise InputError(
            positional[0], "flags only, such as --NAME=VALUE", f"got a positional argument{meant}"
        )
    return values


def _unfolded(arguments: Iterable[str], read: set[str]) -> list[str]:
    """Return the arguments with the lines of flag files in their place. Raises InputError.

    absl's own reader waits for a pipe's other end, reads devices without end and knows no limit.
    """
    unfolded: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, given, file = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            if len(name) > MAX_FLAG_LETTERS and name.startswith("-"):
                raise InputError(f"{name[:20]}...", "a flag of those that --help shows", "no such flag")
            unfolded.append(argument)
        else:
            unfolded += _unfolded(_flag_lines(file if given else next(left, ""), read), read)
        if len(unfolded) > MAX_ARGUMENTS:
            raise InputError("--flagfile", f"at most {MAX_ARGUMENTS} flags in all", "there are more")
        if argument == "--":
            unfolded += left
    return unfolded


def _flag_lines(file: str, read: set[str]) -> list[str]:
    """Return the lines of a flag file without empty ones and comments. Raises InputError."""
    name, path = f"--flagfile={file}", os.path.expanduser(file.strip())
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would wait for its other end
            raise OSError("it is a folder or a device")
        with open(path, "rb") as opened:
            content = opened.read(MAX_FLAG_FILE_BYTES + 1)
        real = os.path.realpath(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(name, "a file that can be read", reason) from error
    if real in read:
        raise InputError(name, "each flag file once", "it is read twice, or reads itself")
    read.add(real)
    if len(content) > MAX_FLAG_FILE_BYTES:
        raise InputError(name, f"a text of at most {MAX_FLAG_FILE_BYTES} bytes", "it is longer")
    lines = [line.strip() for line in re.split("[\r\n]", content.decode())]
    return [line for line in lines if line and not line.startswith(("#", "//"))]


def _fields(program: Program) -> list[dataclasses.Field[Any]]:
    return [field for options in program.options for field in fields_of(options)]


def _define(values: flags.FlagValues, field: dataclasses.Field[Any]) -> None:
    # Text, whatever the option's type: parse_option and check_options give one form of error for all.
    if option_type(field) is bool:
        flags.DEFINE_boolean(field.name, field.default is True, field.metadata["help"], flag_values=values)
    elif field.metadata["repeated"]:
        flags.DEFINE_multi_string(field.name, None, field.metadata["help"], flag_values=values)
    else:
        flags.DEFINE_string(field.name, None, field.metadata["help"], flag_values=values)


def _given(values: flags.FlagValues, options: type) -> ParsedFlags:
    return {
        field.name: _value(field, values[field.name].value)
        for field in fields_of(options)
        if values[field.name].present
    }


def _value(field: dataclasses.Field[Any], value: Any) -> Any:
    if field.metadata["repeated"]:
        return tuple(map(os.path.expanduser, value))
    # After "=" no shell expands ~, with which only names of files begin.
    return value if isinstance(value, bool) else parse_option(field, os.path.expanduser(value))


def _help(program: Program) -> str:
    """Return what the program does, its flags in groups, those most in use first, and its exit codes."""
    fields = {field.name: field for field in _fields(program)}
    defaults = {name: value for options in program.options for name, value in default_values(options).items()}
    groups = {"What most runs need": [fields[name] for name in program.first]} if program.first else {}
    for options in program.options:
        left = [field for field in fields_of(options) if field.name not in program.first]
        groups[re.split("[,:.]", inspect.cleandoc(options.__doc__ or ""))[0]] = left
    lines = inspect.cleandoc(program.description or "").splitlines()
    for title, group in groups.items():
        lines += ["", f"{title}:", *(_help_line(field, defaults[field.name]) for field in group)]
    further = {
        "quiet": "errors only on standard error",
        "flagfile": "a file of further flags, one to a line",
        "version": "the version",
        "help, -h": "this help",
        "helpfull": "absl's own help",
    }
    lines += ["", "All programs:", *(f"  --{name}: {help}" for name, help in further.items())]
    lines += [
        "",
        "Exit codes: 0 done, 2 wrong request, 3 non-finite loss or failed rows, 4 not enough memory, "
        "5 not all written, 129 hung up, 130 interrupted, 143 terminated.",
    ]
    width = max(40, shutil.get_terminal_size().columns)
    fold = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(fold(line, subsequent_indent="      " if line.startswith(" ") else "") for line in lines)


def _help_line(field: dataclasses.Field[Any], value: Any) -> str:
    default = ",".join(map(str, value)) if is_tuple(field) else str("" if value is None else value)
    details = [describe_range(field)] if option_type(field) is not bool else []
    details += ["may repeat"] if field.metadata["repeated"] else []
    details += [f"default {default}"] if default else []
    return f"  --{field.name}: {field.metadata['help']} ({'; '.join(details)})"
