import numpy as np
import pytest

from nst_jax.launchers import weights as launcher
from nst_jax.launchers.flags import run
from nst_jax.weights import load_weights


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments):
        code = run(launcher.PROGRAM, arguments)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def test_list_names_every_source_with_its_address_and_license(call):
    code, out, _ = call("--list")
    assert code == 0
    assert out[0].startswith("vgg16: vgg16, torchvision, ")
    assert "  https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in out


def test_verify_tells_good_absent_and_damaged(call, tmp_path):
    code, out, _ = call("--verify")
    assert code == 0
    assert any(line.startswith("vgg16: good") for line in out)
    assert any(line.startswith("vgg19: absent") for line in out)
    (tmp_path / "cache/nst_jax/vgg19-dcbb9e9d.safetensors").write_text("not weights")
    code, out, _ = call("--verify")
    assert code == 2
    assert any(line.startswith("vgg19: damaged") for line in out)


@pytest.mark.parametrize("network", ["vgg16", "alexnet"])
def test_fetch_of_a_bundled_network_and_use_of_the_file(call, network):
    assert call(f"--fetch={network}", "--output=mine.safetensors")[:2] == (0, ["mine.safetensors"])
    mine, bundled = load_weights(network, "mine.safetensors"), load_weights(network)
    assert mine.sha256 == bundled.sha256
    for name, array in bundled.arrays.items():
        np.testing.assert_array_equal(mine.arrays[name], array)


def test_convert_refuses_what_is_no_weights(call, tmp_path):
    (tmp_path / "x.pth").write_text("hello")
    code, out, err = call("--convert=x.pth", "--network=vgg19", "--output=y.safetensors")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("error: x.pth: ")
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nst-weights: one of --list, --verify, --fetch, --convert; got none or several"),
        (["--list", "--verify"], "one of --list, --verify, --fetch, --convert"),
        (["--fetch=vgg20"], "--fetch: vgg16, .*got 'vgg20' (did you mean vgg1"),
        (["--convert=x.pth", "--network=vgg19"], "--convert: goes with --network and --output"),
        (["--list", "--output=x"], "--output: goes with --convert or --fetch"),
        (["--verify", "--network=vgg16"], "--network, --normalization: go with --convert"),
    ],
)
def test_wrong_requests(call, arguments, message):
    code, _, err = call(*arguments)
    assert code == 2
    assert all(part in err[0] for part in message.split(".*"))
