"""Signals, kills and full disks: short versions of tests/kill.py and tests/full_disk.py."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import full_disk
import kill
import pytest
import signals

HERE = Path(__file__).parents[1]

WAITING = """
import sys, time; from pathlib import Path
from nst_jax.files import atomic_write
from nst_jax.launchers.signals import interrupts
with interrupts() as interrupted, atomic_write(Path(sys.argv[1])) as file:
    interrupted()
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    while True:
        time.sleep(60)
"""


def test_runs_that_are_ended_go_on_to_the_same_bytes(monkeypatch, capsys):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    assert kill.main(["--count=2", "--signals=KILL,TERM", "--runs=short"]) == 0
    assert "KILL,TERM: 2 runs, 2 equal, 0 wrong" in capsys.readouterr().out


def test_a_signal_at_any_statement_of_the_launcher_leaves_the_picture():
    """All of them: python tests/signals.py. In a process of its own, as none with JAX's backend can fork."""
    sampled = ["--signals=HUP,TERM,INT", "--first=40", "--stride=150"]
    done = subprocess.run([sys.executable, signals.__file__, *sampled], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"HUP,TERM,INT: 9 signals, 0 ends wrong", done.stdout)


def test_a_signal_before_there_is_anything_to_keep_ends_a_run_that_is_busy():
    waiting = WAITING.replace("    interrupted()\n", "").replace(
        ", atomic_write(Path(sys.argv[1])) as file", ""
    )
    waiting = re.sub(r"    file.*\n", "", waiting)
    command = [sys.executable, "-c", waiting]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143
        assert process.stderr.read() == "error: terminated\n"


def test_a_signal_ends_a_run_whose_standard_error_nobody_reads():
    waiting = WAITING.replace("    interrupted()\n", "").replace(
        ", atomic_write(Path(sys.argv[1])) as file", ""
    )
    waiting = re.sub(r"    file.*\n", "", waiting)
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, stderr=full) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143
    os.close(unread)
    os.close(full)


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_half_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    command = [sys.executable, "-c", WAITING, tmp_path / "a.png"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        assert len(os.listdir(tmp_path)) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130
        assert process.stderr.read() == "error: interrupted twice: nothing more is written\n"
    assert os.listdir(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_a_disk_that_fills_in_the_middle_loses_nothing(mounting):
    done = subprocess.run([*mounting, sys.executable, HERE / "full_disk.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": nothing lost") == 8


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what orbax drops
@pytest.mark.parametrize("name", full_disk.FORBIDDEN)
def test_a_folder_that_is_forbidden_in_the_middle_loses_nothing(name):
    user, nobody = os.geteuid(), 65534
    with tempfile.TemporaryDirectory() as where:
        disk = Path(where) / "disk"
        disk.mkdir()
        if user == 0:  # whom no permission holds; and another user may not be able to import
            for other in full_disk.FORBIDDEN.values():
                full_disk.look(name, other._replace(fault=lambda disk: None), disk)
                shutil.rmtree(disk / "there")
            for path in (where, disk):
                os.chown(path, nobody, -1)
            os.seteuid(nobody)
        try:
            assert full_disk.look(name, full_disk.FORBIDDEN[name], disk) == ""
        finally:
            os.seteuid(user)
            full_disk.allow(disk, 0o755)
