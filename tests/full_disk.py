"""Fills a small disk, or takes its folder away, in the middle of runs of nst, and tells what is left.

Example: unshare --map-root-user --mount python tests/full_disk.py; exit code 1 where something was lost.
It needs the right to mount, which `unshare` gives: the disk is a tmpfs of 8 MiB.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from nst_jax.launchers import nst
from nst_jax.launchers.console import not_of_orbax, tell_unraisable
from nst_jax.launchers.flags import run
from nst_jax.runs import job
from nst_jax.runs.checkpoint import newest

OLD = b"old"
SHORT = [
    "--style_layers=conv1_1,conv2_1",
    "--content_layers=conv2_1",
    "--size=64",
    "--iterations=6",
    "--devices=1",
]


class Case(NamedTuple):
    """What is on the disk, what happens to it, and what must come of it."""

    flags: Callable[[Path], list[str]]
    fault: Callable[[Path], None]
    code: int
    said: str  # in the lines on standard error


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def vanish(disk: Path) -> None:
    """Take the folder away."""
    (disk / "there").rename(disk / "gone")  # at once: a checkpoint may be being written in it
    shutil.rmtree(disk / "gone")


def forbid(disk: Path) -> None:
    """Let nobody write into the folder and those in it."""
    allow(disk, 0o555)


def allow(disk: Path, mode: int) -> None:
    for path in ((disk / "there"), *(disk / "there").rglob("*")):
        if path.is_dir():
            path.chmod(mode)


def at(name: str) -> Callable[[Path], list[str]]:
    return lambda disk: [f"--output={disk}/there/{name}"]


def elsewhere(*flags: str) -> Callable[[Path], list[str]]:
    return lambda disk: [f"--output={disk.parent}/a.png", *(flag.format(disk=disk) for flag in flags)]


CASES = {
    "output, full": Case(at("a.png"), fill, 5, "No space left on device; it was written to"),
    "output as TIFF, full": Case(at("a.tif"), fill, 5, "No space left on device; it was written to"),
    "output, folder gone": Case(at("a.png"), vanish, 5, "No such file or directory; it was written to"),
    "report, full": Case(elsewhere("--report={disk}/there/a.json"), fill, 5, "No space left on device"),
    "preview, full": Case(at("a.png"), fill, 5, "a.png.step000005.png: must be a file that can be written"),
    "checkpoint, full": Case(
        elsewhere("--checkpoint={disk}/there/k", "--checkpoint_every=0"), fill, 0, "the run goes on"
    ),
    "checkpoint, folder gone": Case(
        elsewhere("--checkpoint={disk}/there/k", "--checkpoint_every=0"), vanish, 0, "the run goes on"
    ),
}
# On any disk, for a user whom permissions hold.
FORBIDDEN = {
    "output, folder forbidden": Case(at("a.png"), forbid, 5, "Permission denied; it was written to"),
    "preview, folder forbidden": CASES["preview, full"]._replace(fault=forbid),
    "checkpoint, folder forbidden": CASES["checkpoint, full"]._replace(fault=forbid),
}


def look(name: str, case: Case, disk: Path) -> str:
    """Run a case on a disk of its own; return what is wrong, or nothing."""
    (disk / "there").mkdir()
    (disk.parent / "a.png").unlink(missing_ok=True)
    for old in ("a.png", "a.tif", "a.json"):
        (disk / "there" / old).write_bytes(OLD)
    original = job.run

    def faulty(*arguments):
        for now in original(*arguments):
            if now.step == 4:
                case.fault(disk)
            yield now

    flags = ["--content=example:cat", "--style=example:waves", *SHORT, *case.flags(disk)]
    flags += ["--save_every=5"] if name.startswith("preview") else []
    told = io.StringIO()
    job.run = faulty
    handler = logging.StreamHandler(told)
    handler.addFilter(not_of_orbax)  # as in launch
    for name in ("absl", "nst_jax"):
        logging.getLogger(name).addHandler(handler)
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            code = run(nst.PROGRAM, flags)
    finally:
        job.run = original
        for name in ("absl", "nst_jax"):
            logging.getLogger(name).removeHandler(handler)
    lines = told.getvalue()
    wrong = []
    if code != case.code or case.said not in lines or "Traceback" in lines:
        wrong.append(f"exit code {code}: {lines}")
    if case.fault is not vanish:
        old = [path for path in (disk / "there").glob("a.*") if path.read_bytes() != OLD]
        wrong += [f"{path.name} has changed" for path in old]
    wrong += [f"{path} was left" for path in disk.rglob(".nst_jax-*")]
    if name in ("checkpoint, full", "checkpoint, folder forbidden"):
        saved = newest(disk / "there" / "k")
        if not saved or saved.step < 2:  # that of step 3 may be in hand when the disk is full
            wrong.append(f"the newest whole checkpoint is {saved and saved.step}")
    if kept := re.search("it was written to (.*)", lines):
        with Image.open(kept[1]) as picture:
            wrong += [] if picture.size == (64, 43) else [f"{kept[1]} is not the picture"]
    return "; ".join(wrong)


def look_at_cache(disk: Path) -> str:
    """Run nst with its cache of compiled programs on a full disk; return what is wrong, or nothing."""
    fill(disk)
    nst_program = Path(__file__).parent.parent / "bin/nst"
    flags = [
        "--content=example:cat",
        "--style=example:waves",
        *SHORT,
        f"--output={disk.parent}/a.png",
        "--quiet",
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(disk), "JAX_COMPILATION_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, nst_program, *flags], env=environment, capture_output=True, text=True
    )
    return f"exit code {done.returncode}: {done.stderr}" if done.returncode or done.stderr else ""


def main() -> int:
    """Run all cases; return the exit code."""
    sys.unraisablehook = tell_unraisable  # as in launch
    wrong = 0
    with tempfile.TemporaryDirectory() as where:
        for name, case in (CASES | {"cache of compiled programs, full": None}).items():
            disk = Path(where) / "disk"
            disk.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
            try:
                found = look(name, case, disk) if case else look_at_cache(disk)
            finally:
                subprocess.run(["umount", "--lazy", str(disk)], check=True)
            print(f"{name}: {found or 'nothing lost'}", flush=True)
            wrong += bool(found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
