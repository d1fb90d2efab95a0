"""Suites: every command told, whatever comes of it; what is known is on the disk at any moment."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.launchers import bench, experiments, nst, suite
from nst_jax.launchers.experiments import EXPERIMENTS
from nst_jax.launchers.flags import _given, _parse, run
from nst_jax.objective import objective
from nst_jax.objective.targets import make_targets
from nst_jax.objective.weights import coefficients

BENCH = "nst-bench --sizes=16 --optimizers=adam --brief --iterations=0 --repeats=1"
NST = "nst --preset=gatys --content=example:coffee --style=example:night --size=32 --iterations=1"
NST += " --style_layers=conv1_1,conv2_1 --content_layers=conv2_1"
THREE = f"""
[[step]]
name = "evaluation"
share = 0.9
commands.measured = "{BENCH}"

[[step]]
name = "twice"
share = 0.9
equal = true
commands.once = "{NST}"
commands.again = "{NST}"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder):
    return json.loads((folder / "suite/results.json").read_text())["results"]


def test_every_command_is_told_and_one_that_fails_stops_nothing(folder, capsys):
    (folder / "mine.toml").write_text(
        f"""
        [[step]]
        name = "tried"
        share = 0.9
        experiments = ["padded-8", "buffers"]
        commands.plain = "{BENCH}"
        [[step]]
        name = "wrong"
        share = 0.5
        commands.failing = "{NST} --style_layers=conv9_9"
        [[step]]
        name = "elsewhere"
        share = 0.5
        platform = "gpu"
        commands.measured = "{BENCH}"
        [[step]]
        name = "too long"
        share = 0.01
        commands.measured = "{BENCH} --repeats=1000"
        [[step]]
        name = "picture"
        share = 0.9
        equal = true
        commands.once = "{NST}"
        commands.other = "{NST} --seed=3 --init=noise"
        """
    )
    assert run(bench.PROGRAM, ["--suite=mine.toml", "--minutes=15"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "suite/results.md"
    states = [(one["step"], one["label"], one["state"]) for one in results(folder)]
    assert states == [
        ("tried", "plain", "done"),
        ("tried", "padded-8", "done"),
        ("tried", "buffers", "skipped: only on gpu"),
        ("tried", "plain again", "done"),
        ("wrong", "failing", states[4][2]),
        ("elsewhere", "measured", "skipped: only on gpu"),
        ("too long", "measured", "took too long"),
        ("picture", "once", "done"),
        ("picture", "other", "done"),
    ]
    assert states[4][2].startswith("failed, exit 2: --style_layers: layers of vgg16 are")
    table = (folder / "suite/results.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in table) == 1 + len(states) + 1
    (tried,) = (line for line in table if "| padded-8 |" in line)
    times = [one["report"]["rows"][0]["seconds_per_evaluation"]["median"] for one in results(folder)[:2]]
    again = results(folder)[3]["report"]["rows"][0]["seconds_per_evaluation"]["median"]
    assert tried.endswith(f"{times[1] / np.mean([times[0], again]):.3f} of without |")
    assert "| picture | all of them | DIFFERENT bytes |" in table


def test_a_suite_that_is_killed_goes_on_where_it_was(folder):
    (folder / "mine.toml").write_text(THREE)
    start = "from nst_jax.launchers.bench import console; console()"
    process = subprocess.Popen([sys.executable, "-c", start, "--suite=mine.toml"], stdout=subprocess.PIPE)
    while not (folder / "suite/results.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    (first,) = results(folder)
    assert run(bench.PROGRAM, ["--suite=mine.toml"]) == 2  # it would begin anew
    assert run(bench.PROGRAM, ["--suite=mine.toml", "--resume"]) == 0
    before, *after = results(folder)
    assert before == first
    assert [one["state"] for one in after] == ["done", "done"]
    assert "| twice | all of them | equal bytes |" in (folder / "suite/results.md").read_text()


def test_a_suite_that_is_ended_leaves_no_command_running(folder):
    (folder / "mine.toml").write_text(THREE)
    start = "from nst_jax.launchers.bench import console; console()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "--suite=mine.toml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def running():
        return subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
        ).stdout.split()

    while not (children := running()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert (process.returncode, err) == (143, b"error: terminated\n")
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)


def test_what_time_is_not_left_for_is_told_and_done_by_the_next(folder, monkeypatch):
    (folder / "mine.toml").write_text(THREE)
    monkeypatch.setattr(suite, "MIN_COMMAND_SECONDS", 1e9)
    assert run(bench.PROGRAM, ["--suite=mine.toml"]) == 0
    assert {one["state"] for one in results(folder)} == {"no time left"}
    monkeypatch.setattr(suite, "MIN_COMMAND_SECONDS", 0)
    monkeypatch.setattr(suite, "_run", lambda *_: (0, ""))
    assert run(bench.PROGRAM, ["--suite=mine.toml", "--resume"]) == 0
    assert [one["state"] for one in results(folder)] == ["done"] * 3


def test_a_flag_that_xla_does_not_know_is_a_step_that_is_skipped():
    said = "F1127 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --xla_gpu_no_such_thing=true"
    assert suite._state(-6, said) == "skipped: this version of XLA has no such flag"
    assert suite._state(1, "Traceback\nValueError: a fault\n") == "failed, exit 1: ValueError: a fault"
    assert suite._state(-9, "") == "failed, exit -9: it said nothing"


def test_an_experiment_s_unknown_flag_ends_its_process_with_the_words_that_are_looked_for():
    """XLA's own words, of the version that is installed."""
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": "--xla_gpu_no_such_thing=true"},
        capture_output=True,
        text=True,
    )
    assert suite._state(done.returncode, done.stderr).startswith("skipped: this version of XLA")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no toml", "must be TOML with [[step]] tables"),
        ("", "must be TOML with [[step]] tables"),
        ('[[step]]\nname = "a"\ncommands.b = "nst"', "KeyError: 'share'"),
        ('[[step]]\nname = "a"\nshare = 2\ncommands.b = "nst"', "a share is above 0 and at most 1, not 2"),
        ('[[step]]\nname = "a"\nshare = 1\ncommands.b = "rm -r x"', "b runs nst-bench or nst, not rm"),
        ('[[step]]\nname = "a"\nshare = 1\ncommands.b = ""', "must be TOML with [[step]] tables"),
        ('[[step]]\nname = "a"\nshare = 1\ncommands.b = 3', "must be TOML with [[step]] tables"),
        ('[[step]]\nname = "a"\nshare = 1\ncommands = "nst"', "must be TOML with [[step]] tables"),
        ('[[step]]\nname = ["a"]\nshare = 1\ncommands.b = "nst"', "a name and at least one command"),
        ('[[step]]\nname = "a"\nshare = 1\ncommands = {}', "a name and at least one command"),
        ("step = []", "it has no step, or two of one name"),
        (f"step = {900 * '['}", "must be TOML with [[step]] tables"),
        (
            '[[step]]\nname = "a"\nshare = 1\ncommands.b = "nst-bench --experiment=typo"',
            "experiments are named by experiments = [...]",
        ),
        (
            '[[step]]\nname = "a"\nshare = 1\ncommands.transposed = "nst-bench"',
            "experiments are named by experiments = [...]",
        ),
        (
            '[[step]]\nname = "a"\nshare = 1\nexperiments = ["buffers"]\ncommands.b = "nst"',
            "experiments are of one command, of nst-bench",
        ),
        ('[[step]]\nname = "a"\nshare = 1\nspeed = 1\ncommands.b = "nst"', "experiments, name, platform"),
        (
            '[[step]]\nname = "a"\nshare = 1\nexperiments = ["fast"]\ncommands.b = "nst-bench"',
            "no experiment is called 'fast'",
        ),
        (2 * '[[step]]\nname = "a"\nshare = 1\ncommands.b = "nst"\n', "it has no step, or two of one name"),
    ],
)
def test_files_that_are_no_suites_are_told_before_anything_runs(content, message, folder, capsys):
    (folder / "mine.toml").write_text(content)
    assert run(bench.PROGRAM, ["--suite=mine.toml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (folder / "suite").exists()


def test_wrong_requests_of_suites_are_told(folder, capsys):
    assert run(bench.PROGRAM, ["--suite=laptopp"]) == 2
    assert "--suite: accelerator, laptop, quick, or a TOML file" in (err := capsys.readouterr().err)
    assert "did you mean laptop?" in err
    assert run(bench.PROGRAM, ["--suite=quick", "--resume"]) == 2
    assert "--resume: a results.json of this suite in suite" in capsys.readouterr().err
    found = suite._found(folder, suite.find("quick"), False) | {"minutes": 1}
    (folder / "suite").mkdir()
    (folder / "suite/results.json").write_text(json.dumps(found | {"versions": {"jax": "0.0.1"}}))
    assert run(bench.PROGRAM, ["--suite=quick", "--resume"]) == 2
    assert "versions was {'jax': '0.0.1'} and is {" in capsys.readouterr().err
    lacking = {name: value for name, value in found.items() if name != "minutes"}
    for damage in ("{", json.dumps(lacking), json.dumps(found | {"results": [3]}), 9000 * "["):
        (folder / "suite/results.json").write_text(damage)
        assert run(bench.PROGRAM, ["--suite=quick", "--resume"]) == 2
        assert "--resume: a results.json of this suite in suite" in capsys.readouterr().err
    for lone in (["--minutes=3"], ["--resume"], ["--selftest", "--experiment=transposed"]):
        assert run(bench.PROGRAM, lone) == 2
        assert "with --suite; got no --suite" in (err := capsys.readouterr().err) or "not beside" in err
    assert run(bench.PROGRAM, ["--experiment=buffers"]) == 2
    assert "--experiment=buffers: on gpu only; this is cpu" in capsys.readouterr().err
    assert run(bench.PROGRAM, ["--suite=quick", "--sizes=16"]) == 2
    assert "--sizes: not beside --suite; got both" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["accelerator", "laptop", "quick"])
def test_every_command_of_our_suites_has_flags_that_its_program_takes(name):
    for step in suite.read(suite.find(name)):
        for label, (program, *flags) in step.commands.items():
            values = _parse(bench.PROGRAM if program == "nst-bench" else nst.PROGRAM, flags)
            if program == "nst-bench":
                bench.Bench(**_given(values, bench.Bench))
            elif label != "failing":
                Config.from_preset(**_given(values, Config))


def test_every_experiment_has_its_prediction_in_the_notes():
    notes = (suite.HERE.parents[1] / "benchmarks/NOTES.md").read_text()
    assert [name for name in EXPERIMENTS if f"`{name}`" not in notes and name] == []


@pytest.fixture(scope="module")
def evaluate(params):
    """Return a function that evaluates one objective, by the network as it then is."""
    image, content, style = np.random.default_rng(7).random((3, 32, 24, 3), np.float32)
    spec = Config(precision="float32").spec()
    factors = coefficients(Config().loss_weights(1))

    def evaluate():
        targets = make_targets(params, content, [style], spec)
        return objective.evaluate(params, image, targets, factors, spec)

    return evaluate


@pytest.fixture(scope="module")
def expected(evaluate):
    return evaluate()


@pytest.mark.parametrize(
    "name",
    ["wide-sums", "padded-3", "padded-4", "padded-8", "transposed", "wide-grams", "bias-in-bfloat16"],
)
def test_a_variant_of_the_network_is_the_same_function(name, evaluate, expected):
    layer = experiments.vgg._layer
    with experiments.replaced(name):
        found = evaluate()
    assert experiments.vgg._layer is layer  # it is put back
    close = 1e-5 * np.linalg.norm(expected.gradient)
    assert np.linalg.norm(found.gradient - expected.gradient) < close
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.terms, expected.terms)


def test_an_experiment_s_flags_are_added_to_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    experiments.set_flags("autotuning-saved")
    assert (
        os.environ["XLA_FLAGS"] == f"--xla_a=1 --xla_gpu_dump_autotune_results_to={tmp_path}/autotuning.txt"
    )
    with pytest.raises(InputError):
        bench.Bench(experiment="no such")
