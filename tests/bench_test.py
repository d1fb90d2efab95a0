import json

import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.launchers import bench
from nst_jax.launchers.common import run

pytestmark = pytest.mark.usefixtures("optax_promotion")


def test_flop_count_equals_the_count_by_hand():
    """VGG-16 to conv5_1 at 512x512, forward and gradient: 301 GFLOP; to conv5_3 321; VGG-19: 379 and 408."""
    five, everything = Config().spec(), Config(style_layers=("all",)).spec()
    assert bench.flop_count("vgg16", five, 512) / 1e9 == pytest.approx(301, abs=0.5)
    assert bench.flop_count("vgg16", everything, 512) / 1e9 == pytest.approx(321, abs=0.5)
    assert bench.flop_count("vgg19", five, 512) / 1e9 == pytest.approx(379, abs=0.5)
    everything = Config(network="vgg19", style_layers=("all",)).spec()
    assert bench.flop_count("vgg19", everything, 512) / 1e9 == pytest.approx(408, abs=0.5)


def test_measures_every_row_and_reports_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = run(bench.PROGRAM, ["--sizes=32,48", "--repeats=1", "--optimizers=adam", "--report=b.json"])
    out = capsys.readouterr().out.splitlines()
    assert code == 0
    assert out[0].split()[:3] == ["network", "size", "optimizer"]
    assert [line.split()[:3] for line in out[1:3]] == [["vgg16", "32", "adam"], ["vgg16", "48", "adam"]]
    assert out[3:] == ["b.json"]
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["versions"]["jax"]
    for row in report["rows"]:
        times = row["seconds_per_evaluation"]
        assert 0 < times["min"] <= times["median"] <= times["max"]
        np.testing.assert_allclose(row["loop_over_lone"], times["median"] / row["lone_seconds"])
        np.testing.assert_allclose(row["gflop_per_second"], row["gflop"] / times["median"])


def test_torch_evaluates_the_same_loss(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    arguments = ["--sizes=32", "--repeats=1", "--optimizers=lbfgs", "--compare=torch", "--report=b.json"]
    assert run(bench.PROGRAM, arguments) == 0  # raises where the two losses differ
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    fastest = min(row["compared_seconds"].values())
    assert len(row["compared_seconds"]) == 2
    np.testing.assert_allclose(row["compared_over_loop"], fastest / row["seconds_per_evaluation"]["median"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--sizes=8", "--sizes: a whole number from 16 to 16384; got 8"),
        ("--sizes=", "--sizes: at least one"),
        ("--optimizers=sgd", "--optimizers: lbfgs or adam; got 'sgd'"),
        ("--compare=theano", "--compare: torch; got 'theano'"),
        ("--report=no/b.json", "no/b.json: must be a file that can be written"),
    ],
)
def test_wrong_requests(argument, message, capsys):
    assert run(bench.PROGRAM, [argument]) == 2
    assert message in capsys.readouterr().err
