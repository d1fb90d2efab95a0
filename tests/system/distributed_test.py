"""Several devices and processes on the command line: one picture, one set of files, one line for a mistake."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_jax.errors import InputError
from nst_jax.launchers import nst
from nst_jax.launchers.flags import run
from nst_jax.system import device, distributed
from nst_jax.system.distributed import DeviceOptions

NST = Path(__file__).parents[2] / "bin" / "nst"
LIMIT = 120  # seconds until a process that hangs is killed
SMALL = ["--content=example:cat", "--style=example:waves", "--size=48", "--preset=gatys"]
SMALL += ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]
QUICK = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"  # to compile


def begin(folder, *arguments, devices=1, flags=QUICK):
    """Start nst in a process of its own."""
    return subprocess.Popen(
        [sys.executable, NST, *SMALL, *arguments],
        cwd=folder,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(processes):
    """Return exit code, lines on stdout and on stderr of each; kill those that hang."""
    ended = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=LIMIT)
            ended.append((process.returncode, out.splitlines(), err.splitlines()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return ended


def begin_two(folder, *arguments, own=((), ()), flags=QUICK, numbers=(0, 1)):
    """Start two processes that meet, or one of the two."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        meeting = f"--coordinator=127.0.0.1:{found.getsockname()[1]}"
    return [
        begin(folder, *arguments, meeting, "--num_processes=2", f"--process_id={n}", *own[n], flags=flags)
        for n in numbers
    ]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture) / 255


def test_two_processes_make_the_picture_of_one_with_two_devices(tmp_path):
    options = ["--quiet", "--iterations=4", "--save_every=2", "--deterministic"]
    flags = f"{QUICK} --xla_dump_hlo_module_re=jit_snapshot --xla_dump_to="  # with the options that XLA was started with
    two = begin_two(tmp_path, *options, "--output=two.png", "--report=two.json", flags=f"{flags}dump2")
    (first, second) = end(two)
    written = ["two.png.step000002.png", "two.png.step000004.png", "two.png", "two.json"]
    assert first == (0, written, [])
    assert second == (0, [], [])
    files = ["--output=one.png", "--report=one.json"]
    ((code, _, err),) = end([begin(tmp_path, *options, *files, devices=2, flags=f"{flags}dump1")])
    assert (code, err) == (0, [])
    for number in (1, 2):
        (dumped, *_) = (tmp_path / f"dump{number}").glob("*.debug_options")
        assert "xla_gpu_deterministic_ops: true" in dumped.read_text()
    reports = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    assert [report["device"]["count"] for report in reports] == [2, 2]
    assert reports[0]["depends_on"]["xla_flags"] == f"{flags}dump1 {device.DETERMINISTIC}"
    one, other = (report["losses"]["final"]["total"] for report in reports)
    np.testing.assert_allclose(other, one, rtol=1e-4)
    assert np.abs(pixels(tmp_path / "two.png") - pixels(tmp_path / "one.png")).max() <= 1e-4


@pytest.mark.parametrize(
    ("own", "lines"),
    [
        (
            (["--tv_weight=2e-3"], ["--tv_weight=3e-3", "--seed=5"]),
            ["--tv_weight: the same in all processes; 0.002 in process 0, 0.003 in process 1 (and --seed)"] * 2,
        ),
        (
            (["--style=mine.png"], ["--style=../b/mine.png"]),
            ["--style: the same in all processes"] * 2,
        ),
        (
            ([], ["--content=nowhere.png"]),
            ["process 1: nowhere.png: must be a whole picture file", "nowhere.png: must be a whole picture"],
        ),
    ],
)  # fmt: skip
def test_processes_that_disagree_end_with_one_line_each(tmp_path, own, lines):
    for name, color in {"a": (250, 20, 20), "b": (20, 20, 250)}.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40), color).save(tmp_path / name / "mine.png")
    ended = end(begin_two(tmp_path / "a", "--quiet", "--iterations=1", "--output=x.png", own=own))
    for (code, out, err), line in zip(ended, lines, strict=True):
        assert (code, out, len(err)) == (2, [], 1), err
        assert err[0].startswith(f"error: {line}")
    assert os.listdir(tmp_path / "a") == ["mine.png"]


def test_what_differs_is_named_with_its_values():
    told = [
        {"--seed": "1", "--content 1": "48x32 with sha256 ab..."},
        {"--seed": "1", "--content 1": "other"},
    ]
    with pytest.raises(
        InputError, match=r"--content 1: the same .*; 48x32 .* in process 0, other in process 1$"
    ):
        distributed._check_alike(told)
    distributed._check_alike(told[:1] * 3)
    one, other = (distributed.fingerprint(np.full((2, 3), value)) for value in (0.0, 1.0))
    assert one.startswith("3x2 with sha256 ")
    assert one != other


@pytest.mark.parametrize("signals", [[(1, signal.SIGKILL)], [(1, signal.SIGINT)]])
def test_none_is_left_waiting(tmp_path, signals):
    """A process that is gone ends the other with a line; Ctrl-C in one of them is one for all."""
    two = begin_two(tmp_path, "--iterations=1000000", "--save_every=10", "--output=x.png")
    try:
        for line in two[0].stdout:
            if "step000020" in line:
                break
        for number, what in signals:
            two[number].send_signal(what)
    finally:
        ended = end(two)
    if signals[0][1] == signal.SIGKILL:
        code, _, err = ended[0]
        assert code == 1
        assert err[-1].startswith("error: processes: all of them to the end; one has gone? ")
        assert "Traceback" not in "".join(err)
    else:
        assert [code for code, _, _ in ended] == [130, 130]
        assert all(
            err[-1].startswith("error: interrupted: x.png is the picture of step") for *_, err in ended
        )
        assert ended[0][1][-1] == "x.png"


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_waits_for_the_others_ends_when_it_is_told_to(tmp_path, number):
    alone = begin_two(tmp_path, "--output=x.png", numbers=[number])
    time.sleep(4)  # mostly by then it waits; before, it is to end as quickly
    alone[0].send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert end(alone) == [(143, [], ["error: terminated"])]
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("after", [3, 6])
def test_all_end_when_they_are_told_to(tmp_path, after):
    """While they meet, compile or make the first steps, whichever it comes to."""
    two = begin_two(tmp_path, "--output=x.png", "--quiet", "--iterations=1000000")
    time.sleep(after)
    for process in two:
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    for code, _, err in end(two):
        assert (code, len(err)) == (143, 1), err
        assert err[0].startswith("error: terminated")
    assert time.monotonic() - began < 10


def test_one_that_nobody_comes_to_waits_no_longer_than_it_is_told(tmp_path):
    alone = begin_two(tmp_path, "--join_timeout=1", "--output=x.png", numbers=[1])
    ((code, _, err),) = end(alone)
    assert code == 2
    assert err[-1].startswith("error: --num_processes: 2 processes that start together; they did not meet at")
    assert err[-1].endswith("within 1 s")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--devices=5"], "--devices: from 1 to 4, as many as there are; got 5"),
        (["--devices=4"], "--devices: at most 2 for 32 rows, one of the deepest layer's for each; got 4"),
        (["--devices=-1"], "--devices: a whole number from 0"),
        (["--num_processes=2"], "--coordinator, --num_processes: together"),
        (["--coordinator=a:1"], "--coordinator, --num_processes: together"),
        (["--coordinator=nowhere", "--num_processes=2"], "--coordinator: HOST:PORT; got 'nowhere'"),
        (["--process_id=1"], "--process_id: from 0 to 0, for --num_processes=1; got 1"),
    ],
)
def test_machines_that_are_not_there_are_refused(given, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ["--content=example:cat", "--style=example:waves", "--size=48", "--output=a.png"]
    assert run(nst.PROGRAM, ["--quiet", *files, *given]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert os.listdir(tmp_path) == []


def test_one_process_takes_the_devices_that_have_rows(tmp_path, capfd, monkeypatch, optax_promotion):
    monkeypatch.chdir(tmp_path)
    assert run(nst.PROGRAM, ["--quiet", *SMALL, "--iterations=0", "--output=a.png", "--report=a.json"]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["device"]["count"] == 4
    assert report["image"] == {"height": 32, "width": 48}
    assert report["config"]["devices"] == 0
    assert DeviceOptions().devices == 0
