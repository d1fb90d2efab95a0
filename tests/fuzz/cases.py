"""Cases: each is rebuilt from the name of its kind, a seed and a number."""

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fuzz.bombs import Bomb
from fuzz.kinds import KINDS
from fuzz.mutate import GENERAL, pick

ROUND = 40  # of so many cases the first is a whole file, the last one a bomb


class Case(NamedTuple):
    """A hostile file: what it holds, and what becomes of it on the disk."""

    data: bytes
    put: Callable[[bytes], str]  # returns the name to read


def plain(data: bytes, name: str = "case/file") -> str:
    Path(name).write_bytes(data)
    return name


def folder(data: bytes) -> str:
    Path("case/file").mkdir()
    return "case/file"


def pipe(data: bytes) -> str:
    os.mkfifo("case/file")
    return "case/file"


def bound_socket(data: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("case/file")
    return "case/file"


def link(target: str, data: bytes) -> str:
    plain(data, "case/real")
    os.symlink(target, "case/file")
    return "case/file"


def named(name: str, data: bytes) -> str:
    """Return a name for which there is a file where the file system allows one."""
    if "\0" not in name and len(os.fsencode(name)) < 250 and not name.endswith("/"):
        plain(data, name)
    return name


LINKS = ("real", "missing", "file", ".", "/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "x" * 300)
NAMES = ("case/a\nb", "case/a\0b", "case/\udcff\udcfe", "case/\x1b[2Ja", "case/ a ", "case/" + "x" * 300)
NAMES += (
    "case/a;b: c",
    "case/real/",
    "case/%s{}",
    "case/-a",
    "case/\u2028\u202e",
    "example:",
    "example:a\nb",
)
PLACES = [
    *(folder, pipe, bound_socket),
    *(functools.partial(link, target) for target in LINKS),
    *(functools.partial(named, name) for name in NAMES),
]


@functools.cache
def seeds(kind: str) -> list[bytes]:
    return list(KINDS[kind].seeds())


@functools.cache
def bombs(kind: str) -> list[Bomb]:
    return list(KINDS[kind].bombs())


def make(kind: str, seed: int, number: int) -> Case:
    """Return a case: a whole file, a bomb, or a file with some damage, in a hostile place now and then."""
    whole, (turn, step) = seeds(kind), divmod(number, ROUND)
    if step == 0:
        return Case(whole[turn % len(whole)], plain)
    if step == ROUND - 1 and turn < len(explosives := bombs(kind)):
        bomb = explosives[turn]
        return Case(bomb() if callable(bomb) else bomb, plain)
    rng = np.random.default_rng([seed, number])
    data = pick(rng, whole)
    if rng.random() < 0.1:  # the head of one, the rest of another
        other = pick(rng, whole)
        data = data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]
    for _ in range(pick(rng, (1, 1, 1, 2, 3, 5))):
        data = pick(rng, pick(rng, (GENERAL, KINDS[kind].changes)))(rng, data)
    return Case(data, pick(rng, PLACES) if rng.random() < 0.05 else plain)
