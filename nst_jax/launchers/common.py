"""What all programs share: flags made from options, one-line errors, exit codes."""

import contextlib
import dataclasses
import inspect
import os
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from logging import CRITICAL, ERROR, INFO, LogRecord, getLogger
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from absl import app, flags, logging

import nst_jax
from nst_jax.errors import InputError, NotEnoughMemory, NotWritten, as_flags, nearest
from nst_jax.files import abandon
from nst_jax.options import default_values, describe_range, fields_of, is_tuple, option_type, parse_option
from nst_programs import ENDINGS, taken

DONE, WRONG_REQUEST, WRONG_NUMBERS, NO_MEMORY, NOT_WRITTEN = 0, 2, 3, 4, 5
GRACE = 1.0  # seconds that a run has to come to something that can be kept, when a signal has asked it to end

LARGEST = 2**20  # bytes of a flag file
LONGEST = 100  # letters in the name of a flag: absl's search for a similar one recurses through them
MOST = 10_000  # arguments with those of flag files: absl's time grows with their square
# They tell of orbax's tasks, platforms that are not there, fonts, odd tags.
CHATTY = ("asyncio", "jax", "matplotlib", "PIL", "tifffile")
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


def leave(code: int) -> NoReturn:
    """End the process: Python's own end waits for threads, and can crash in an interrupted compilation."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end(number: int, how: str = "") -> NoReturn:
    """End the process, as a signal asks, from whatever thread: no file is half-written, nothing runs on."""
    late = threading.Timer(2 * GRACE, os._exit, [128 + number])  # standard error may take nothing any more
    late.daemon = True
    late.start()
    try:
        for undo in reversed(_at_end):
            with contextlib.suppress(Exception):
                undo()
        abandon()
        fail(128 + number, how or ENDINGS[number])
    finally:
        os._exit(128 + number)


_at_end: list[Callable[[], object]] = []


@contextlib.contextmanager
def surely(undo: Callable[[], object]) -> Iterator[None]:
    """Have something undone at the end of the block, also where a signal ends the process within it."""
    _at_end.append(undo)
    try:
        yield
    finally:
        undo()
        _at_end.remove(undo)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder that is gone at the end of the block, however that comes."""
    folder = tempfile.mkdtemp(prefix="nst_jax-")
    with surely(lambda: shutil.rmtree(folder, ignore_errors=True)):
        yield Path(folder)


def not_of_orbax(line: LogRecord) -> bool:
    """Tell whether a line of absl's log is not of orbax, which tells there of each of its steps."""
    return "orbax" not in line.pathname


def tell_unraisable(error: Any) -> None:
    """Tell of an error that nobody can catch; not of what orbax leaves undone where a file was wrong."""
    code = getattr(error.object, "cr_code", None)
    if str(error.exc_value) != "Event loop is closed" and "orbax" not in getattr(code, "co_filename", ""):
        sys.__unraisablehook__(error)


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


def set_verbosity(quiet: bool) -> None:
    """Have the programs, and the library below them, tell errors only, or all."""
    logging.set_verbosity(logging.ERROR if quiet else logging.INFO)
    getLogger("nst_jax").setLevel(ERROR if quiet else INFO)


def explain(error: BaseException) -> int | None:
    """Print the line that a user's error ends a program with; return its exit code, None for others."""
    if isinstance(error, InputError):
        return fail(NOT_WRITTEN if isinstance(error, NotWritten) else WRONG_REQUEST, error)
    if isinstance(error, NotEnoughMemory):
        return fail(NO_MEMORY, error)
    if isinstance(error, MemoryError):
        return fail(
            NO_MEMORY, "memory: a smaller picture needs less; the machine has too little for this one"
        )
    return None


def in_minutes(seconds: float) -> str:
    """Return a time in words."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def fail(code: int, message: object) -> int:
    """Print one line on standard error, with options as flags, and return the exit code."""
    print(f"error: {as_flags(message)}", file=sys.stderr, flush=True)
    return code


def tell(result: object) -> None:
    """Print a result on standard output, such as the path of a file that was written."""
    try:
        print(result, flush=True)
    except (OSError, UnicodeError):  # nobody listens, or cannot read it: no reason to lose what follows
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def watching(react: Callable[[int], None]) -> Iterator[None]:
    """Have a thread react to the signals that end a program, at once.

    Python's own handlers wait for the main thread, which may be in a compilation or wait for other processes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := int.from_bytes(os.read(reader, 1)):
            if number in ENDINGS:
                react(number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    before = {number: signal.signal(number, lambda *_: None) for number in taken()}
    outer = signal.set_wakeup_fd(writer)
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writer, b"\0")
        thread.join()
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the exit code that a signal has asked for; 0 if none has come.

    So the chunk in hand is not lost and the picture is written. Before the function is first called there is
    nothing to keep, and a signal ends the process within GRACE. SIGINT as a second one ends it at once, even
    in the middle of a compilation.
    """
    came: list[int] = []
    asked = threading.Event()

    def react(number: int) -> None:
        if came and number == signal.SIGINT:
            end(number, "interrupted twice: nothing more is written")
        came.append(number)
        if not asked.wait(GRACE):
            end(number)

    def interrupted() -> int:
        asked.set()
        return 128 + came[0] if came else 0

    with watching(react):
        yield interrupted


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
            if len(name) > LONGEST and name.startswith("-"):
                raise InputError(f"{name[:20]}...", "a flag of those that --help shows", "no such flag")
            unfolded.append(argument)
        else:
            unfolded += _unfolded(_flag_lines(file if given else next(left, ""), read), read)
        if len(unfolded) > MOST:
            raise InputError("--flagfile", f"at most {MOST} flags in all", "there are more")
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
            content = opened.read(LARGEST + 1)
        real = os.path.realpath(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(name, "a file that can be read", reason) from error
    if real in read:
        raise InputError(name, "each flag file once", "it is read twice, or reads itself")
    read.add(real)
    if len(content) > LARGEST:
        raise InputError(name, f"a text of at most {LARGEST} bytes", "it is longer")
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
