"""What every program does before and beside its work: closed streams, signals, variables, odd places to run at."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from nst_jax import images

BIN = Path(__file__).parents[2] / "bin"
PROGRAMS = sorted(path.name for path in BIN.iterdir())
QUICK = "--style=example:waves --size=32 --iterations=1 --style_layers=conv1_1 --content_layers=conv2_1 --scales= "
QUICK = [*QUICK.split(), "--loss_balancing=none", "--devices=1"]
NST = [sys.executable, str(BIN / "nst"), *QUICK]
CAT = [*NST, "--content=example:cat"]


def start(command, **options):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, errors="replace", **options)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_imports_is_a_line(tmp_path, name, number):
    (tmp_path / "jax.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = ["env", "--default-signal", sys.executable, BIN / name, "--help"]
    with start(command, env=environment) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number
        said = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
        assert process.stderr.read() == f"error: {said[number]}\n"


def test_a_signal_that_nohup_has_taken_away_stays_away(tmp_path):
    (tmp_path / "jax.py").write_text(
        "import time; print('importing', flush=True); time.sleep(0.5); print('imported', flush=True); 1 / 0"
    )
    command = ["env", "--ignore-signal=HUP", sys.executable, BIN / "nst", "--help"]
    with start(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "imported\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_place_for_files(tmp_path, closed):
    with Image.open(images.resolve("example:cat")) as picture:
        picture.save(tmp_path / "c.tif", compression="tiff_lzw")
    command = ["bash", "-c", f'"$@" {closed}', "bash", *NST, "--content=c.tif", "--output=o.png"]
    done = run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("JAX_NUM_CPU_DEVICES=many", "JAX_NUM_CPU_DEVICES=many: a value that JAX knows; "),
        ("JAX_NUM_CPU_DEVICES=0", "JAX_NUM_CPU_DEVICES: a whole number from 1; got 0"),
        ("JAX_DEBUG_INFS=maybe", "JAX_DEBUG_INFS=maybe: a value that JAX knows; "),
        ("JAX_DEBUG_INFS=1", "JAX_DEBUG_INFS: false, as some numbers here are infinite; got true"),
        ("JAX_TRANSFER_GUARD=some", "JAX_TRANSFER_GUARD=some: a value that JAX knows; "),
        (
            "JAX_TRANSFER_GUARD=disallow",
            "JAX_TRANSFER_GUARD: allow or log, as arrays come from the host; got",
        ),
        ("JAX_PLATFORM_NAME=abacus", "JAX_PLATFORM_NAME=abacus: a platform this machine has (cpu always is)"),
    ],
)
def test_a_wrong_variable_of_jax_is_a_line_that_names_it(tmp_path, variable, said):
    name, _, value = variable.partition("=")
    done = run([*CAT, "--output=a.png"], cwd=tmp_path, env=os.environ | {name: value})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("stream", ["2>/dev/full", ">/dev/full", "2>/dev/full >/dev/full", "2>&1 | head -1"])
def test_streams_that_take_nothing_lose_no_picture_of_any_name(tmp_path, stream):
    """With names that are not UTF-8, where the locale knows ASCII alone."""
    content, output = os.fsdecode(b"katz\xe9.png"), os.fsdecode(b"gem\xe4lde.png")
    (tmp_path / content).write_bytes(images.resolve("example:cat").read_bytes())
    arguments = [*NST, "--save_every=1", f"--content={content}", f"--output={output}"]
    script = f'set -o pipefail; "$@" {stream}'
    for locale in ({"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"}):
        done = run(["bash", "-c", script, "bash", *arguments], cwd=tmp_path, env=os.environ | locale)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / output) as picture:
            picture.load()
        os.unlink(tmp_path / output)


def test_two_runs_at_once_share_an_empty_cache_and_an_output(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    two = [start([*CAT, "--output=a.png", "--quiet"], cwd=tmp_path, env=environment) for _ in range(2)]
    for process in two:
        assert process.communicate() == ("a.png\n", "")
        assert process.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["a.png", "cache"]
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()


def test_a_user_that_nobody_knows_without_a_home_or_a_place_for_temporary_files(tmp_path, mounting):
    """As in a container: the user id has no name, the root folder is the home and cannot be written to."""
    (tmp_path / "tmp").mkdir()
    mounts = f"mount --bind {tmp_path}/tmp {tmp_path}/tmp && mount -o remount,bind,ro {tmp_path}/tmp && cd {tmp_path}"
    as_nobody = f'{mounts} && exec unshare --user --map-user=54321 "$@"'
    inside = [*mounting, "bash", "-c", as_nobody, "bash"]
    home = os.environ | {"HOME": f"{tmp_path}/tmp", "TMPDIR": f"{tmp_path}/tmp"}
    home |= {"XDG_CACHE_HOME": "", "JAX_COMPILATION_CACHE_DIR": ""}
    assert run([*inside, "id", "-u"], env=home).stdout == "54321\n"
    done = run([*inside, *CAT, "--output=a.png", "--report=r.json", "--judge", "--quiet"], env=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.png\nr.json\n", "")
    assert os.listdir(tmp_path / "tmp") == []
