"""Checkpoints on disk, and runs that go on from them to the same bytes."""

import hashlib
import json
import os
import re
import signal
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nst_jax import files, images
from nst_jax.errors import InputError, NotWritten
from nst_jax.launchers import nst
from nst_jax.launchers.flags import run
from nst_jax.runs import checkpoint, checkpointing, job
from nst_jax.runs.checkpoint import Checkpoints, newest, restore
from nst_jax.system import device

pytestmark = pytest.mark.usefixtures("optax_promotion")

LAYERS = ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]  # quick to compile
PAIR = ["--content=c.png", "--style=s.png"]
RUN = [*PAIR, *LAYERS, "--size=32", "--iterations=6"]


def tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.random((8, 9, 3), np.float32)),
        "step": (jnp.int32(seed), jnp.asarray(True)),
    }


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def three(tmp_path):
    """Return a folder to which checkpoints of the steps 1, 2 and 30 were written."""
    checkpoints = Checkpoints(tmp_path, None)
    for step in (1, 2, 30):
        checkpoints.save(step, tree(step), {"told": step})
    checkpoints.finish()
    checkpoints.close()
    return tmp_path


def test_the_newest_comes_back_bit_for_bit_and_the_last_two_are_kept(three):
    saved = newest(three)
    assert (saved.step, saved.record) == (30, {"told": 30})
    assert_equal(restore(saved, jax.eval_shape(lambda: tree(0))), tree(30))
    assert sorted(os.listdir(three)) == [
        *("nst_jax.lock", "nst_jax_2", "nst_jax_2.json", "nst_jax_30", "nst_jax_30.json"),
    ]


def test_nothing_else_in_the_folder_is_touched(tmp_path):
    (tmp_path / "2019").mkdir()
    (tmp_path / "2019" / "cat.png").write_bytes(b"cat")
    (tmp_path / "40.json").write_bytes(b"{}")
    (tmp_path / "nst_jax_notes.txt").write_bytes(b"notes")
    (tmp_path / "checkpoint_7").mkdir()  # flax's default name
    (tmp_path / "checkpoint_7" / "model").write_bytes(b"weights")
    before = sorted(os.listdir(tmp_path))
    assert newest(tmp_path) is None
    checkpoints = Checkpoints(tmp_path, None)
    for step in (1, 2, 3):
        checkpoints.save(step, tree(step), {})
    checkpoints.finish()
    assert [name for name in before if not (tmp_path / name).exists()] == []
    assert (tmp_path / "2019" / "cat.png").read_bytes() == b"cat"
    checkpoints.remove()
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "checkpoint_7" / "model").read_bytes() == b"weights"


def test_what_was_written_after_the_step_that_is_gone_on_from_goes_and_what_a_kill_left(three):
    (three / "nst_jax_31.orbax-checkpoint-tmp").mkdir()
    files._beside(three / "nst_jax_31.json").write_bytes(b"half of a reco")
    checkpoints = Checkpoints(three, 2)
    assert sorted(os.listdir(three)) == ["nst_jax.lock", "nst_jax_2", "nst_jax_2.json"]
    checkpoints.remove()
    assert not three.exists()


def test_no_two_runs_write_to_one_folder(three):
    first = Checkpoints(three, 30)
    with pytest.raises(InputError, match="another run writes to it"):
        Checkpoints(three, 30)
    first.close()
    Checkpoints(three, 30).close()


def test_a_folder_that_another_has_taken_the_place_of_is_left_alone(three, tmp_path):
    checkpoints = Checkpoints(three, 30)
    gone = tmp_path.with_name("gone")
    three.rename(gone)
    with pytest.raises(InputError, match="No such file or directory"):
        checkpoints.save(31, tree(31), {})
    assert not three.exists()
    other = Checkpoints(three, None)
    other.save(1, tree(1), {})
    other.finish()
    with pytest.raises(InputError, match="another folder has taken its place"):
        checkpoints.save(31, tree(31), {})
    checkpoints.remove()
    assert newest(three).step == 1
    assert newest(gone).step == 30
    other.close()


def first_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the arrays": lambda folder: flip(first_file(folder / "nst_jax_30")),
    "a bit of the record": lambda folder: flip(folder / "nst_jax_30.json"),
    "a file of the arrays is short": lambda folder: os.truncate(first_file(folder / "nst_jax_30"), 10),
    "a file of the arrays is gone": lambda folder: first_file(folder / "nst_jax_30").unlink(),
    "a file too many": lambda folder: (folder / "nst_jax_30" / "new").write_bytes(b""),
    "an empty record": lambda folder: (folder / "nst_jax_30.json").write_bytes(b""),
    "a record that is a folder": lambda folder: (
        (folder / "nst_jax_30.json").unlink(),
        (folder / "nst_jax_30.json").mkdir(),
    ),
    "a record that is a pipe": lambda folder: (
        (folder / "nst_jax_30.json").unlink(),
        os.mkfifo(folder / "nst_jax_30.json"),
    ),
    "an array that is a pipe": lambda folder: os.mkfifo(folder / "nst_jax_30" / "pipe"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(three, damage):
    DAMAGE[damage](three)
    with pytest.warns(UserWarning, match="nst_jax_30: damaged, and not used"):
        saved = newest(three)
    assert saved.step == 2
    assert_equal(restore(saved, jax.eval_shape(lambda: tree(0))), tree(2))


def test_nothing_but_damaged_checkpoints_are_refused(three):
    flip(three / "nst_jax_2.json")
    flip(three / "nst_jax_30.json")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="all in it are damaged"):
        newest(three)


def test_arrays_without_a_record_are_half_written_and_not_used(three):
    (three / "nst_jax_30.json").unlink()
    assert newest(three).step == 2


def test_arrays_of_other_shapes_are_refused(three):
    like = jax.eval_shape(lambda: tree(0) | {"image": jnp.zeros((8, 8, 3))})
    with pytest.raises(
        InputError, match=r"arrays of this run, image: float32\[8, 8, 3\]; it has image: float32\[8, 9, 3\]"
    ):
        restore(newest(three), like)
    with pytest.raises(InputError, match="arrays of this run, "):
        restore(newest(three), {"other": jax.ShapeDtypeStruct((3,), jnp.float32)})


def test_a_file_for_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="a folder that checkpoints can be written to"):
        Checkpoints(tmp_path / "file", None)


def test_a_write_that_fails_leaves_the_last_one_and_the_next_is_tried(tmp_path, monkeypatch):
    keeper = checkpointing.CheckpointWriter(tmp_path / "k", 0.0, None, {})
    keeper.save(1, tree(1), {})
    keeper.finish()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_whole", full)
        keeper.save(2, tree(2), {})
        keeper.finish()
    assert keeper.last == newest(tmp_path / "k").step == 1
    keeper.save(3, tree(3), {})
    keeper.close()
    assert keeper.last == newest(tmp_path / "k").step == 3


def full(*_, **__):
    raise OSError(28, "No space left on device")


def refused(path, *_, **named):
    raise NotWritten(str(path), "must be a file that can be written", "No space left on device")


HOSTILE = {
    "arrays of lists": lambda told: told.update(arrays=[1, 2]),
    "no arrays": lambda told: told.pop("arrays"),
    "a record that is a number": lambda told: told.update(record=3),
    "shapes that are lists": lambda told: told["arrays"].update(image=[8, 9]),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_record_whose_author_made_the_checksum_is_refused_in_a_line(three, change):
    path = three / "nst_jax_30.json"
    told = json.loads(path.read_bytes().partition(b"\n")[2])
    HOSTILE[change](told)
    body = json.dumps(told).encode()
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with warnings.catch_warnings(action="ignore"):
        saved = newest(three)
    if saved.step == 30:
        with pytest.raises(InputError, match="arrays of this run, image: "):
            restore(saved, jax.eval_shape(lambda: tree(0)))


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs nst in a folder of small pictures: exit code, lines of both outputs."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("c.png", 1), ("s.png", 2), ("other.png", 3)):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(name)
    Image.fromarray(np.repeat(np.uint8([[0], [255]]), 12, 0).repeat(32, 1)).save("m.png")

    def call(*arguments, devices=1):
        code = run(nst.PROGRAM, ["--quiet", f"--devices={devices}", *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def interrupt_at(monkeypatch, step, number=signal.SIGINT):
    """Send a signal where a run first stands at a step; return the list of the steps it is told at."""
    original, seen = job.run, []

    def interrupted(*arguments):
        for now in original(*arguments):
            seen.append(now.step)
            if now.step >= step >= 0 and seen[-2:-1] < [step]:
                signal.raise_signal(number)
                time.sleep(0.2)  # until the thread that waits for signals has seen it
            yield now

    monkeypatch.setattr(job, "run", interrupted)
    return seen


def read(path):
    with open(path, "rb") as file:
        return file.read()


def history(path):
    report = json.loads(read(path))
    return {name: report[name] for name in ("losses", "scales", "history", "evaluations", "image")}


GOING_ON = {
    "lbfgs": ([], 3, 1),
    "adam with its average": (["--optimizer=adam", "--ema_decay=0.9"], 4, 1),
    "the first of the scales": (["--scales=20,32", "--iterations=4,3"], 2, 1),
    "between scales": (["--scales=20,32", "--iterations=4,3", "--optimizer=adam"], 4, 1),
    "the last of the scales": (["--scales=20,32", "--iterations=4,3", "--optimizer=adam"], 5, 1),
    "several devices": ([], 3, 2),
    "masks and colors": (["--style_mask=m.png", "--preserve_color=luma"], 3, 1),
}


@pytest.mark.parametrize("case", GOING_ON)
def test_a_run_goes_on_to_the_same_bytes(call, monkeypatch, case):
    options, step, devices = GOING_ON[case]
    arguments = [*RUN, *options, "--output=a.png", "--report=a.json"]
    assert call(*arguments, devices=devices)[0] == 0
    whole, told = read("a.png"), history("a.json")
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        code, _, err = call(*arguments, "--checkpoint=k", devices=devices)
    assert code == 130
    assert err == [f"error: interrupted: a.png is the picture of step {step}; --resume=k goes on"]
    assert read("a.png") != whole
    seen = interrupt_at(monkeypatch, -1)
    assert call("--resume=k", devices=devices) == (0, ["a.png", "a.json"], [])
    assert seen[0] == step
    assert read("a.png") == whole
    assert history("a.json") == told


def test_the_same_command_again_goes_on_and_a_finished_one_only_writes(call, monkeypatch):
    arguments = [*RUN, "--output=a.png", "--checkpoint=k"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, signal.SIGTERM)
        code, _, err = call(*arguments)
    assert code == 143
    assert err == ["error: terminated: a.png is the picture of step 4; --resume=k goes on"]
    seen = interrupt_at(monkeypatch, -1)
    assert call(*arguments)[0] == 0
    assert seen == [4, 5, 6]
    whole = read("a.png")
    os.unlink("a.png")
    assert call(*arguments)[0] == 0
    assert seen == [4, 5, 6, 6]
    assert read("a.png") == whole


def test_a_finished_run_is_extended_to_what_a_longer_one_gives(call):
    assert call(*RUN, "--output=a.png", "--checkpoint=k")[0] == 0
    longer = ["--iterations=9", "--output=a.png"]
    code, _, err = call("--resume=k", *longer)
    assert (code, err) == (
        2,
        ["error: --iterations: as in the run in k (or --allow_change=iterations); 6 there, 9 now"],
    )
    assert call("--resume=k", "--allow_change=iterations", *longer)[0] == 0
    extended = read("a.png")
    assert call(*RUN, *longer)[0] == 0
    assert read("a.png") == extended
    code, _, err = call("--resume=k", "--allow_change=iterations", "--iterations=8")
    assert code == 2
    assert err == ["error: --iterations: 9, or more of the last; got 8"]


def test_a_finished_run_says_so_and_what_is_kept_of_it_until_that_is_dropped(call, caplog):
    arguments = [*RUN, "--scales=20,32", "--iterations=4,3", "--output=a.png", "--devices=1"]

    def told(*flags):
        caplog.clear()
        assert run(nst.PROGRAM, flags) == 0
        return [line for line in caplog.messages if line.startswith(("goes on", "finished", "k keeps"))]

    kept = [r"k keeps \d\.\d MB, to extend the run \(--keep_checkpoints=false drops them\)"]
    (line,) = told(*arguments, "--checkpoint=k")
    assert re.fullmatch(kept[0], line)
    whole = read("a.png")
    again = told("--resume=k")
    assert again[0] == "finished already, after step 7, in k; --allow_change=iterations extends it"
    extended = told("--resume=k", "--allow_change=iterations", "--iterations=4,4")
    assert extended[0] == "goes on after step 7, from k"
    assert told("--resume=k", "--keep_checkpoints=false")[0].startswith("finished already, after step 8")
    assert not os.path.exists("k")
    assert told(*arguments, "--checkpoint=k", "--keep_checkpoints=false") == []
    assert not os.path.exists("k")
    assert read("a.png") == whole


def test_a_run_that_has_converged_is_finished(call, caplog):
    weights = ["--preset=gatys", "--style_weight=0", "--tv_weight=0"]  # the content is at its minimum
    arguments = [*RUN, *weights, "--iterations=300", "--output=a.png", "--checkpoint=k", "--devices=1"]
    assert run(nst.PROGRAM, arguments) == 0
    assert run(nst.PROGRAM, ["--resume=k"]) == 0
    assert re.search(r"finished already, after step \d\d?, in k; no step lowers the loss", caplog.text)


def test_an_interrupted_run_and_one_that_is_not_written_keep_their_checkpoints(call, monkeypatch):
    arguments = [*RUN, "--output=a.png", "--checkpoint=k", "--keep_checkpoints=false"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert call(*arguments)[0] == 130
    assert newest(Path("k")).step == 3
    with monkeypatch.context() as patch:
        patch.setattr(images, "save", refused)
        assert call("--resume=k")[0] == 5
    assert newest(Path("k")).step == 6
    assert call("--resume=k")[0] == 0
    assert not os.path.exists("k")


CHANGED = {
    "an option": (["--tv_weight=7"], "--tv_weight: as in the run in k; 0.07 there, 7.0 now"),
    "several": (
        ["--tv_weight=7", "--seed=1", "--optimizer=adam"],
        r"--tv_weight: .* now \(and --seed, --optimizer\)",
    ),
    "a picture": (["--content=other.png"], "--content 1: as in the run in k; 32x24 with sha256 .*"),
    "the devices": (["--devices=2"], "devices: as in the run in k; 1 there, 2 now"),
}


def test_what_a_run_was_not_made_with_is_refused(call, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        call(*RUN, "--output=a.png", "--checkpoint=k")
    for options, said in CHANGED.values():
        code, _, err = call("--resume=k", *options)
        assert (code, len(err)) == (2, 1)
        assert re.fullmatch(f"error: {said}", err[0]), err
    monkeypatch.setattr(device.nst_jax, "__version__", "0.0.1")
    code, _, err = call("--resume=k")
    assert (code, len(err)) == (2, 1)
    assert re.match("error: nst_jax: as in the run in k; .* there, 0.0.1 now", err[0])


WRONG = {
    "--resume=k": "--resume=k: a folder with a checkpoint; there is none in it",
    "--resume=c.png": "c.png: a checkpoint that can be read; Not a directory",
    "--checkpoint=c.png": "c.png: a checkpoint that can be read; Not a directory",
    "--checkpoint=a.png": "--output, .*--checkpoint: each a file of its own; a.png is named twice",
    "--checkpoint=/proc/no/k --dry_run": "/proc/no/k: must be a folder that can be written to; No such file or directory",
    "--resume=k --checkpoint=l": "--resume, --checkpoint: one of the two, or one folder for both; got k and l",
    "--allow_change=iterations": "--allow_change: with --resume or --checkpoint; neither was given",
    "--checkpoint_every=-1 --checkpoint=k": "--checkpoint_every: a finite number from 0 to 1000000; got -1.0",
}


def test_the_last_rung_is_extended_and_no_other(call):
    scales = [*RUN, "--scales=20,32", "--iterations=4,3", "--output=a.png"]
    assert call(*scales, "--checkpoint=k")[0] == 0
    code, _, err = call("--resume=k", "--allow_change=iterations", "--iterations=8,6")
    assert (code, len(err)) == (2, 1)
    assert err[0] == "error: --iterations: 4,3, or more of the last, for the first 2 of the --scales; got 8,6"
    assert call("--resume=k", "--allow_change=iterations", "--iterations=4,5")[0] == 0
    extended = read("a.png")
    assert call(*scales, "--iterations=4,5")[0] == 0
    assert read("a.png") == extended


def test_a_picture_is_not_replaced_where_not_one_step_was_taken(call, monkeypatch):
    Path("a.png").write_bytes(b"old")
    interrupt_at(monkeypatch, 0)
    code, _, err = call(*RUN, "--output=a.png", "--checkpoint=k")
    assert (code, err) == (130, ["error: interrupted: a.png is as it was; --resume=k goes on"])
    assert read("a.png") == b"old"


@pytest.mark.parametrize("flags", WRONG)
def test_wrong_flags_are_told_in_a_line(call, flags):
    code, _, err = call(*RUN, "--output=a.png", *flags.split())
    assert (code, len(err)) == (2, 1)
    assert re.fullmatch(f"error: {WRONG[flags]}", err[0]), err
    assert not os.path.exists("a.png")


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(call, monkeypatch, caplog):
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", full)
    code = run(nst.PROGRAM, [*RUN, "--devices=1", "--output=a.png", "--checkpoint=k", "--checkpoint_every=0"])
    assert code == 0
    assert (
        "k: a folder that checkpoints can be written to; [Errno 28] No space left on device; the run goes on"
        in (caplog.text)
    )
    assert newest(Path("k")) is None
