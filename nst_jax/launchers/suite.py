"""A suite: the standard measurement of a machine, by steps that are data, within so many minutes.

A suite is a TOML file. Its steps stand in the order of their importance. Each has commands, which run one
after the other in processes of their own. They share a cache of compiled programs that is empty at first, so
the second of two equal commands is warm. A step may take its share of the minutes that are left when it
begins. After every command everything known so far is written: results.json, results.md and plots.
"""

import contextlib
import hashlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nst_jax
from nst_jax.errors import InputError, did_you_mean
from nst_jax.files import check_folder, check_writable, write_whole
from nst_jax.launchers.console import DONE, tell
from nst_jax.launchers.experiments import EXPERIMENTS
from nst_jax.launchers.signals import scratch_folder, surely
from nst_jax.reports.report import can_plot, draw, new_axes, to_json
from nst_jax.system import device

HERE = Path(__file__).resolve().parent
SUITES = HERE / "suites" if (HERE / "suites").exists() else HERE.parents[1] / "benchmarks"  # wheel, checkout
PROGRAMS = {"nst-bench": "bench", "nst": "nst"}  # and the modules that run them
TOO_LONG, NO_TIME = LATER = ("took too long", "no time left")  # what a resumed suite does again
MIN_COMMAND_SECONDS = 2.0  # seconds that a command is started with
UNKNOWN = ("Unknown flag in XLA_FLAGS", "Illegal value for --xla")  # how XLA ends where it does not know one
Result = dict[str, Any]


class Step(NamedTuple):
    """One step of a suite."""

    name: str
    share: float  # of the minutes that are left when it begins, at most
    commands: dict[str, list[str]]  # by label: a program and its flags
    platform: str = ""  # the only one on which it means anything
    equal: bool = False  # whether all commands are to write the same bytes


def main(name: str, folder: Path, minutes: float, resume: bool) -> int:
    """Run a suite, or what is left of it; return the exit code. Raises InputError."""
    deadline = time.monotonic() + 60 * minutes
    path = find(name)
    steps = read(path)
    check_folder(folder)
    found = _found(folder, path, resume)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "results.json")
    found |= {"minutes": found.get("minutes", 0) + minutes}
    found["results"] = [one for one in found["results"] if one["state"] not in LATER]
    known = {(one["step"], one["label"]) for one in found["results"]}
    for step in steps:
        began = time.monotonic()
        step_end = began + step.share * (deadline - began)
        with scratch_folder() as scratch:
            for label in step.commands:
                if (step.name, label) in known:
                    continue
                result = _result(step, label, step_end - time.monotonic(), scratch, found["machine"])
                found["machine"] = found["machine"] or (result.get("report") or {}).get("device", {})
                found["results"].append(result)
                _write(folder, found, steps)
                tell(f"{step.name}, {label}: {headline(result)}")
    tell(folder / "results.md")
    return DONE


def find(name: str) -> Path:
    """Return the path of a suite, by its name among ours or as a file. Raises InputError."""
    names = sorted(path.stem for path in SUITES.glob("*.toml"))
    if name in names:
        return SUITES / f"{name}.toml"
    if not Path(name).is_file():
        allowed = f"{', '.join(names)}, or a TOML file of steps"
        raise InputError("--suite", allowed, f"got {name!r}{did_you_mean(name, names)}")
    return Path(name)


def read(path: Path) -> list[Step]:
    """Return the steps of a suite. Raises InputError where the file is not one."""
    try:
        steps = [_step(table) for table in tomllib.loads(path.read_text())["step"]]
        if not steps or len({step.name for step in steps}) < len(steps):
            raise ValueError("it has no step, or two of one name")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        came = f"{type(error).__name__}: {error}"  # TOML's and Unicode's errors are ValueErrors
        raise InputError(str(path), "must be TOML with [[step]] tables as in benchmarks/", came) from error
    return steps


def _step(table: Mapping[str, Any]) -> Step:
    known = {"name", "share", "commands", "platform", "equal", "experiments"}
    if extra := set(table) - known:
        raise ValueError(f"a step has {', '.join(sorted(known))}, not {min(extra)}")
    name, share, lines = table["name"], float(table["share"]), table["commands"]
    if not isinstance(name, str) or not lines:
        raise ValueError("a step has a name and at least one command")
    if not 0 < share <= 1:
        raise ValueError(f"a share is above 0 and at most 1, not {share:g}")
    commands = {label: shlex.split(line) for label, line in lines.items()}
    for label, (program, *flags) in commands.items():
        if program not in PROGRAMS:
            raise ValueError(f"{label} runs {' or '.join(PROGRAMS)}, not {program}")
        if label in EXPERIMENTS or any(flag.startswith("--experiment") for flag in flags):
            raise ValueError(f"{label}: experiments are named by experiments = [...]")
    if names := table.get("experiments"):
        commands = _tried(commands, names)
    return Step(name, share, commands, table.get("platform", ""), table.get("equal", False))


def _tried(commands: dict[str, list[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the commands of experiments, in turn between two runs of the same command without one."""
    if unknown := [name for name in names if not name or name not in EXPERIMENTS]:
        raise ValueError(f"no experiment is called {unknown[0]!r}")
    if len(commands) != 1 or next(iter(commands.values()))[0] != "nst-bench":
        raise ValueError("experiments are of one command, of nst-bench")
    ((label, command),) = commands.items()
    tried = {name: [*command, f"--experiment={name}"] for name in names}
    return {label: command, **tried, f"{label} again": command}


def _found(folder: Path, suite: Path, resume: bool) -> dict[str, Any]:
    """Return what is known before the first command: of this machine, or what a run found before.

    Raises InputError.
    """
    digest = hashlib.sha256(suite.read_bytes()).hexdigest()
    own = {
        "suite": suite.stem,
        "sha256": digest,
        "nst_jax": nst_jax.__version__,
        "versions": device.versions(),
    }
    own |= {"host": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    there = folder / "results.json"
    if not resume:
        if there.exists():
            raise InputError("--folder", "a folder without results, or --resume", f"{there} is there")
        return own | {"began": time.strftime("%Y-%m-%d %H:%M"), "machine": {}, "results": []}
    try:
        found = json.loads(there.read_text())
        before = {name: found[name] for name in own}
        table(found, [Step(one["step"], 1, {}) for one in found["results"]])  # reads all there has to be
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("--resume", f"a results.json of this suite in {folder}", str(error)) from error
    if differs := [name for name in own if before[name] != own[name]]:
        came = f"{differs[0]} was {before[differs[0]]} and is {own[differs[0]]}"
        raise InputError("--resume", "the same suite, versions and machine", came)
    return dict(found)


def _result(step: Step, label: str, limit: float, scratch: Path, machine: Mapping[str, Any]) -> Result:
    """Run one command of a step, within its limit in seconds; return what came of it."""
    command = step.commands[label]
    result: Result = {"step": step.name, "label": label, "command": shlex.join(command)}
    if step.platform and machine and machine.get("platform") != step.platform:
        return result | {"state": f"skipped: only on {step.platform}", "seconds": 0.0}
    where = EXPERIMENTS[label].platform if label in EXPERIMENTS else ""
    if where and machine and machine.get("platform") != where:
        return result | {"state": f"skipped: only on {where}", "seconds": 0.0}
    if limit < MIN_COMMAND_SECONDS:
        return result | {"state": NO_TIME, "seconds": 0.0}
    report, picture = scratch / "report.json", scratch / "picture.png"
    for file in (report, picture):
        file.unlink(missing_ok=True)
    program, *flags = command
    flags = [*flags, f"--report={report}"] if "--selftest" not in flags else flags
    flags = [*flags, f"--output={picture}", "--quiet"] if program == "nst" else flags
    began = time.monotonic()
    code, said = _run(program, flags, limit, scratch)
    result |= {"state": _state(code, said), "seconds": time.monotonic() - began}
    with contextlib.suppress(OSError, ValueError):
        result["report"] = json.loads(report.read_text())
    with contextlib.suppress(OSError):
        result["sha256"] = hashlib.sha256(picture.read_bytes()).hexdigest()
    return result


def _run(program: str, flags: Sequence[str], limit: float, scratch: Path) -> tuple[int | None, str]:
    """Run a program of ours in a process group of its own; return its exit code, None if it took too long."""
    start = f"from nst_jax.launchers.{PROGRAMS[program]} import console; console()"
    root = str(Path(nst_jax.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(scratch / "programs"), "PYTHONPATH": paths}
    log = scratch / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", start, *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        code: int | None = None

        def end() -> None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

        with surely(end), contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(limit)
    return code, log.read_text(errors="replace")


def _state(code: int | None, said: str) -> str:
    """Return in words how a command ended: done, or why not."""
    if code == 0:
        return "done"
    if code is None:
        return TOO_LONG
    if any(words in said for words in UNKNOWN):
        return "skipped: this version of XLA has no such flag"
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or ["it said nothing"])[-1]
    return f"failed, exit {code}: {last.removeprefix('error: ')}"


def headline(result: Result) -> str:
    """Return the numbers of a result that a table has room for."""
    report = result.get("report") or {}
    if "rows" in report:
        rows = "; ".join(map(_row, report["rows"]))
        return rows if result["state"] == "done" else f"{rows}; then: {result['state']}"
    if result["state"] != "done":
        return str(result["state"])
    if "evaluations" in report:
        seconds = report["seconds"]
        each = 1000 * seconds["per_evaluation"]
        parts = f"compiling {seconds['compile']:.2f} s, {report['evaluations']} evaluations of {each:.3g} ms"
        size = f"{report['image']['width']}x{report['image']['height']}"
        peak = report["peak_memory_bytes"] / 2**30
        return f"{result['seconds']:.2f} s the command: {size}, {parts}, {peak:.2f} GiB"
    return f"done in {result['seconds']:.0f} s"


def _row(row: Mapping[str, Any]) -> str:
    """Return the numbers of a row of nst-bench."""
    case = f"{row['batch']} x {row['size']}, {row['style_loss']}, {row['optimizer']}, {row['precision']}"
    if "does_not_fit" in row:
        return f"{case}: does not fit"
    each = f"{1000 * row['seconds_per_evaluation']['median']:.4g} ms, {row['gflop_per_second']:.0f} GFLOP/s"
    others = {name.removeprefix("torch_"): ratio for name, ratio in row.get("compared_ratios", {}).items()}
    against = "".join(f", {name} takes {ratio:.2f} times as long" for name, ratio in others.items())
    idle = "" if row.get("idle_share") is None else f", idle {100 * row['idle_share']:.0f} %"
    over = row.get("loop_over_convolutions")
    return f"{case}: {each}{'' if over is None else f', {over:.3f} of its convolutions'}{idle}{against}"


def _write(folder: Path, found: Mapping[str, Any], steps: Sequence[Step]) -> None:
    """Write what is known so far: all of it, a table, and plots where there is something to plot."""
    write_whole(folder / "results.json", to_json(dict(found)))
    write_whole(folder / "results.md", table(found, steps).encode())
    for name, data in _plots(found) if can_plot() else ():
        write_whole(folder / name, data)


def table(found: Mapping[str, Any], steps: Sequence[Step]) -> str:
    """Return the results as a table in Markdown."""
    machine = found["machine"] or {"kind": "unknown", "platform": "unknown", "count": 0}
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    where = f"{machine['kind']} ({machine['platform']}, {machine['count']}), {found['host']}"
    lines = [
        f"Suite {found['suite']}, {found['began']}, {found['minutes']:g} minutes: {where}, "
        f"Python {found['python']}, {versions}.",
        "",
        "| step | command | result |",
        "|---|---|---|",
    ]
    for step in steps:
        results = [one for one in found["results"] if one["step"] == step.name]
        for one in results:
            ratio = _against_first(one, results) if one["label"] in EXPERIMENTS else ""
            said = f"{headline(one)}{ratio}".replace("|", "\\|")
            lines.append(f"| {step.name} | {one['label']} | {said} |")
        if step.equal and results and all(one["state"] == "done" for one in results):
            same = len({one.get("sha256") for one in results}) == 1
            lines.append(f"| {step.name} | all of them | {'equal bytes' if same else 'DIFFERENT bytes'} |")
    return "\n".join(lines) + "\n"


def _against_first(one: Result, results: Sequence[Result]) -> str:
    """Return an experiment's time over that of the runs before and after it without one."""
    plain = [_milliseconds(other) for other in results if other["label"] not in EXPERIMENTS]
    own, known = _milliseconds(one), [value for value in plain if value]
    return f"; {own / (sum(known) / len(known)):.3f} of without" if own and known else ""


def _milliseconds(result: Result) -> float | None:
    rows = (result.get("report") or {}).get("rows", [])
    timed = [row for row in rows if "does_not_fit" not in row]
    return 1000 * timed[0]["seconds_per_evaluation"]["median"] if timed else None


def _plots(found: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the plots by file name: milliseconds against size, pictures a second against the batch."""
    plain = [one for one in found["results"] if one["label"] not in EXPERIMENTS]
    rows = [row for one in plain for row in (one.get("report") or {}).get("rows", [])]
    rows = [row for row in rows if "does_not_fit" not in row and row["style_loss"] == "gram"]
    for name, x, y in (
        ("sizes.png", "size", "milliseconds for an evaluation"),
        ("lanes.png", "batch", "evaluations a second"),
    ):
        lines: dict[str, dict[int, float]] = {}
        for row in rows:
            milliseconds = 1000 * row["seconds_per_evaluation"]["median"]
            other = f"batch {row['batch']}" if x == "size" else f"{row['size']} pixels"
            line = lines.setdefault(f"{row['precision']}, {row['optimizer']}, {other}", {})
            line.setdefault(row[x], milliseconds if x == "size" else 1000 / milliseconds)
        several = {label: line for label, line in lines.items() if len(line) > 1}
        if not several:
            continue
        axes = new_axes()
        for label, line in several.items():
            axes.plot(*zip(*sorted(line.items()), strict=True), "o-", label=label)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        axes.legend()
        yield name, draw(axes, ".png")
