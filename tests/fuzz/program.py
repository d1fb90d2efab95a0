"""python tests/fuzz --count=20000 --seed=0: hostile files of all kinds; exit code 1 where one is a fault.

Every fault is told with the command that rebuilds it: --kinds=KIND --seed=SEED --number=NUMBER, which says what
came of that one case; --keep=FILE keeps its bytes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fuzz import cases
from fuzz.kinds import KINDS, prepare
from fuzz.watchdog import Watchdog
from fuzz.worker import FAULT, READ, REFUSED, Verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000, help="cases in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--number", type=int, help="one case only")
    parser.add_argument("--keep", help="with --number: file to write its bytes to")
    asked = parser.parse_args()
    names = asked.kinds.split(",")
    if asked.number is not None:
        return one(names[0], asked.seed, asked.number, asked.keep)
    return many(names, asked.seed, -(-asked.count // len(names)))


def one(kind: str, seed: int, number: int, keep: str | None) -> int:
    if keep:
        with tempfile.TemporaryDirectory() as folder:
            here = os.getcwd()
            os.chdir(folder)
            prepare()
            data = cases.make(kind, seed, number).data
            os.chdir(here)
        Path(keep).write_bytes(data)
    with Watchdog(seed) as watchdog:
        verdict = watchdog.judge(kind, number)
    print(f"{verdict.outcome} in {verdict.seconds:.2f} s, {verdict.mib} MiB\n{verdict.detail}")
    return int(verdict.outcome == FAULT)


def many(names: Sequence[str], seed: int, count: int) -> int:
    found: dict[str, list[Verdict]] = {name: [] for name in names}
    began = time.monotonic()
    with Watchdog(seed) as watchdog:
        for name in names:
            for number in range(count):
                verdict = watchdog.judge(name, number)
                found[name].append(verdict)
                if verdict.outcome == FAULT:
                    print(f"--kinds={name} --seed={seed} --number={number}\n{verdict.detail}\n", flush=True)
    print(table(found))
    seconds, total = time.monotonic() - began, count * len(names)
    print(f"{total} cases in {seconds:.0f} s")
    return int(any(verdict.outcome == FAULT for verdicts in found.values() for verdict in verdicts))


def table(found: dict[str, list[Verdict]]) -> str:
    lines = [
        f"{'kind':16}{'cases':>8}{'read':>8}{'refused':>9}{'faults':>8}{'slowest s':>11}{'most MiB':>10}"
    ]
    for name, verdicts in found.items():
        counts = [sum(v.outcome == outcome for v in verdicts) for outcome in (READ, REFUSED, FAULT)]
        slowest, most = max(v.seconds for v in verdicts), max(v.mib for v in verdicts)
        numbers = f"{counts[0]:8}{counts[1]:9}{counts[2]:8}{slowest:11.2f}{most:10}"
        lines.append(f"{name:16}{len(verdicts):8}{numbers}")
    return "\n".join(lines)
