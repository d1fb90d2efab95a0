import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.launchers import bench, selftest
from nst_jax.launchers.flags import run
from nst_jax.networks import vgg
from nst_jax.objective.objective import total_loss
from nst_jax.runs.problem import make_problem
from nst_jax.system import device

pytestmark = pytest.mark.usefixtures("optax_promotion")


def test_measures_every_row_that_fits_and_reports_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(device, "free_memory", lambda: 2**28)
    arguments = [
        "--sizes=32,512",
        "--style_losses=moments",
        "--repeats=1",
        "--optimizers=adam",
        "--iterations=1",
    ]
    assert run(bench.PROGRAM, [*arguments, "--report=b.json", "--plot=p.svg"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:7] == ["network", "size", "style", "loss", "optimizer", "precision", "batch"]
    case = ["moments", "adam", "float32", "1"]
    assert [line.split()[:6] for line in out[1:3]] == [["vgg16", size, *case] for size in ("32", "512")]
    assert re.search(r"1 +auto does not fit: needs 0\.[5-9] GiB, 0\.2 GiB free$", out[2])
    assert out[3:] == ["b.json", "p.svg"]
    assert (tmp_path / "p.svg").read_bytes().startswith(b"<?xml")
    assert not (tmp_path / "cache/nst_jax/xla").exists()

    report = json.loads((tmp_path / "b.json").read_text())
    assert report["versions"]["jax"]
    assert report["device"]["platform"] == jax.default_backend()
    assert report["flags"]["sizes"] == [32, 512]
    assert report["ceilings"]["convolution_gflop_per_second"].keys() == {"float32"}
    assert report["scaling"] == {
        "seconds_against_pixels": [],  # nothing to go through one point
        "evaluations_per_second_against_batch": [],
    }
    row, too_large = report["rows"]
    assert too_large.keys() == {*bench.Case._fields, "does_not_fit"}
    times = row["seconds_per_evaluation"]
    assert 0 < times["min"] <= times["median"] <= times["max"]
    np.testing.assert_allclose(row["chunk_seconds"], bench.STEPS * times["median"])
    assert 0 < row["lone_over_gram"] != 1
    np.testing.assert_allclose(row["loop_over_lone"], times["median"] / row["lone_seconds"])
    np.testing.assert_allclose(row["gflop_per_second"], row["gflop"] / times["median"])
    share = row["gflop_per_second"] / row["ceiling_gflop_per_second"]
    np.testing.assert_allclose(row["share_of_ceiling"], share)
    np.testing.assert_allclose(row["gflop_compiler"], row["gflop"], rtol=0.15)  # 32 pixels: much is border
    assert 0 < row["warm_compile_seconds"] < row["compile_seconds"]
    assert 2**26 < row["memory"]["compiler_bytes"] < 2**28 < row["memory"]["peak_bytes"]
    assert row["run_seconds"] > 0


def test_a_batch_is_told_by_the_picture_and_goes_on_without_a_compiler(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")

    def no_compiler(*_, **__):
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.chdir(tmp_path)
    arguments = ["--sizes=32", "--batch=2", "--precisions=tensorfloat32", "--optimizers=adam", "--repeats=1"]
    assert run(bench.PROGRAM, [*arguments, "--iterations=1", "--compare=torch", "--report=b.json"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:6] == [
        "vgg16",
        "32",
        "gram",
        "adam",
        "tensorfloat32",
        "2",
    ]
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    median = row["seconds_per_evaluation"]["median"]
    np.testing.assert_allclose(row["chunk_seconds"], 2 * bench.STEPS * median)
    np.testing.assert_allclose(row["gflop_compiler"], row["gflop"], rtol=0.15)
    assert row["compared_seconds"].keys() == {"torch_nchw", "torch_channels_last"}
    assert row["compared_failures"] == {"torch_compile": "no C++ compiler"}
    np.testing.assert_allclose(row["compared_over_loop"], min(row["compared_seconds"].values()) / median)


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16"])
def test_torch_evaluates_the_same_loss_in_every_variant(precision, weights, params, rng, monkeypatch):
    torch = pytest.importorskip("torch")
    from nst_jax.launchers.torch_baseline import VARIANTS, evaluations

    # That it compiles takes a minute, and not with the annotations executed as they are here.
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    first, content, style = rng.random((3, 32, 32, 3), np.float32)
    config = Config(precision=precision, content_weight=3e4, tv_weight=1.0)  # three terms of one size
    problem = make_problem(params, content, [style], config, first)
    arguments = problem.params, first, problem.targets(), problem.weights, problem.spec
    loss = jax.jit(total_loss, static_argnames="spec")(*arguments)
    calls, failures = evaluations(weights.arrays, problem, float(loss))
    assert (calls.keys(), failures) == (VARIANTS.keys(), {})
    with pytest.raises(AssertionError, match="void"):
        evaluations(weights.arrays, problem, 1.1 * float(loss))


def test_rows_that_run_out_of_memory_say_so_and_other_faults_are_not_hidden(monkeypatch):
    case = bench.Case("vgg16", 32, "gram", "adam", "float32", 1)

    def fail_with(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(bench, "_measure", fail)

    fail_with(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"))
    assert "ran out of it at 32x32" in bench.measure({}, case, bench.Bench())["does_not_fit"]
    fail_with(jax.errors.JaxRuntimeError("INTERNAL: a fault"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault"):
        bench.measure({}, case, bench.Bench())


def test_the_selftest_trusts_this_device(capsys):
    assert run(bench.PROGRAM, ["--selftest"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert len(rows) == 15
    assert all(row.endswith(" good") for row in rows)
    assert last.startswith("float32 and tensorfloat32 and bfloat16 can be trusted on this device (cpu, ")


@pytest.mark.parametrize("where", ["convolutions", "products"])
def test_the_selftest_finds_a_silent_tf32(where, capsys, monkeypatch):
    """Factors rounded to 10 bits, as a GPU does unasked: in the network, or in the Grams alone."""

    def rounding(function):
        def rounded(a, b, *rest, **options):
            a, b = (jax.lax.reduce_precision(x, 8, 10) for x in (a, b))
            return function(a, b, *rest, **options)

        return rounded

    owner, name = (vgg, "convolution") if where == "convolutions" else (jnp, "dot")
    monkeypatch.setattr(owner, name, rounding(getattr(owner, name)))
    monkeypatch.delitem(vgg.PRECISIONS, "bfloat16")
    jax.clear_caches()
    assert run(bench.PROGRAM, ["--selftest"]) == 3
    jax.clear_caches()
    err = capsys.readouterr().err
    assert err.startswith("error: arithmetic: errors within their bounds; float32 cannot be trusted on this")
    assert err.endswith("), tensorfloat32 can\n")


def test_the_selftest_trusts_no_number_that_is_none(params, monkeypatch):
    monkeypatch.setattr(selftest, "errors", lambda *_: {"gradient": float("nan")})
    assert not selftest._check(params, "bfloat16")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--sizes=8", "--sizes: a whole number from 16 to 16384; got 8"),
        ("--sizes=", "--sizes: at least one"),
        (
            ["--compare=torch", "--style_losses=gram,patch"],
            "--style_losses: gram, where there is --compare; got gram,patch",
        ),
        ("--batch=", "--batch: at least one"),
        ("--batch=0", "--batch: a whole number from 1 to 4096; got 0"),
        ("--optimizers=sgd", "--optimizers: lbfgs or adam; got 'sgd'"),
        ("--precisions=half", "--precisions: float32, tensorfloat32 or bfloat16; got 'half'"),
        ("--compare=theano", "--compare: torch; got 'theano'"),
        ("--report=no/b.json", "no/b.json: must be a file that can be written"),
        ("--plot=roof.gif", "roof.gif: must end in one of .png .svg .pdf"),
    ],
)
def test_wrong_requests_are_told_before_anything_is_measured(argument, message, capsys, monkeypatch):
    monkeypatch.delattr(bench, "load_weights")
    assert run(bench.PROGRAM, argument if isinstance(argument, list) else [argument]) == 2
    assert message in capsys.readouterr().err
