"""A process that reads case after case, and says of each what came of it."""

import faulthandler
import os
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from logging import CRITICAL, getLogger
from multiprocessing.connection import Connection
from typing import NamedTuple

import jax

from fuzz import cases, kinds
from fuzz.kinds import KINDS
from nst_jax.errors import InputError
from nst_jax.launchers.console import CHATTY

MIB = 2**20
MOST_MIB = 1024
MOST_SECONDS = 10.0  # of the processor, so that what else runs does not matter
SAFETY = 8 * 2**30  # bytes that no case may ask for, so that the machine lives on
LINE = re.compile("error: .+: .+; .+", re.DOTALL)
CANARY = "canary"  # the file that is there once a pickle has been obeyed
READ, REFUSED, FAULT = "read", "refused", "fault"


class Verdict(NamedTuple):
    """What came of a case: READ, REFUSED or FAULT, and what was said."""

    outcome: str
    detail: str
    seconds: float
    mib: int


def serve(connection: Connection, folder: str, seed: int, prepare: Callable[[], object] = dict) -> None:
    """Judge the cases that are asked for, (kind, number), until None comes; prepare may add kinds."""
    os.chdir(folder)
    out, said = (
        os.open(os.devnull, os.O_WRONLY),
        os.open("said", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND),
    )
    os.dup2(out, 1)
    os.dup2(said, 2)
    faulthandler.enable()
    for library in CHATTY:  # as the programs' own start does
        getLogger(library).setLevel(CRITICAL)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    warnings.simplefilter("error")
    for said in (
        *("its color profile is broken", "damaged, and not used", "not used", "is not applied"),
        *("transparent all over", "its end marker is missing"),
    ):
        warnings.filterwarnings("always", f"(?s).*{said}", UserWarning)
    kinds.prepare()
    prepare()
    jax.devices()
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") * MIB + SAFETY, resource.RLIM_INFINITY))
    connection.send(None)
    while asked := connection.recv():
        with warnings.catch_warnings(action="ignore"):  # of whoever writes a wrong file
            name = make(asked[0], seed, asked[1])
        connection.send(None)
        connection.send(tuple(judge(KINDS[asked[0]].read, name)))


def make(kind: str, seed: int, number: int) -> str:
    """Put a case on the disk, and return its name."""
    shutil.rmtree("case", ignore_errors=True)
    os.mkdir("case")
    case = cases.make(kind, seed, number)
    return case.put(case.data)


def judge(read: Callable[[str], int | None], name: str) -> Verdict:
    """Read a case, and return what came of it."""
    os.truncate("said", 0)
    before, began = _start_peak(), time.process_time()
    try:
        code = read(name) or 0
    except InputError as error:
        code = 2
        print(f"error: {error}", file=sys.stderr)
    except BaseException:
        code = 1
        traceback.print_exc()
    seconds, mib = time.process_time() - began, _memory("VmHWM") - before
    sys.stderr.flush()
    with open("said", errors="replace") as file:
        said = file.read()
    fault = _fault(code, said, mib, seconds)
    outcome = FAULT if fault else (READ, REFUSED)[code == 2]
    return Verdict(outcome, fault or said[-500:], seconds, mib)


def _fault(code: int, said: str, mib: int, seconds: float) -> str:
    """Return what is wrong with an exit code, what was said and what was taken; nothing if all is well."""
    lines = [line for line in said.splitlines() if not line.startswith("warning: ")]
    if os.path.exists(CANARY):
        os.remove(CANARY)
        return "code of the file was run"
    if code not in (0, 2):
        return said[-3000:]
    if lines and code == 0:
        return f"it was read, and said:\n{said[:2000]}"
    if code == 2 and not (len(lines) == 1 and LINE.fullmatch(lines[0])):
        return f"not one line WHAT: ALLOWED; CAME:\n{said[:2000]}"
    if mib > MOST_MIB:
        return f"{mib} MiB"
    return f"{seconds:.1f} seconds of the processor" if seconds > MOST_SECONDS else ""


def _start_peak() -> int:
    """Let the process's peak of memory begin anew, now; return what it has in MiB."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) // 1024
