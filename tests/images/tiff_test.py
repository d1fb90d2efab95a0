import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nst_jax import images
from nst_jax.errors import InputError

KINDS: dict[str, tuple[str, int, list[str]]] = {
    "gray": ("minisblack", 1, []),
    "gray, white is 0": ("miniswhite", 1, []),
    "gray, alpha": ("minisblack", 2, ["unassalpha"]),
    "rgb": ("rgb", 3, []),
    "rgba": ("rgb", 4, ["unassalpha"]),
    "rgb, premultiplied": ("rgb", 4, ["assocalpha"]),
    "cmyk": ("separated", 4, []),
}


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tiff(tmp_path: Path, kind: str, dtype: str, layout: dict[str, Any]) -> None:
    photometric, channels, extra = KINDS[kind]
    shares = np.random.default_rng(0).random((23, 37, channels))
    shares[..., channels - len(extra) :] = shares[..., channels - len(extra) :] * 0.8 + 0.2
    if kind == "rgb, premultiplied":
        shares[..., :3] *= shares[..., 3:]
    white = np.iinfo(dtype).max if dtype[0] == "u" else 1
    stored = (shares * white).round().astype(dtype) if dtype[0] == "u" else shares.astype(dtype)
    shares = stored / np.float64(white)
    colors, alpha = shares[..., :3], shares[..., -1:]
    expected = {
        "gray, white is 0": 1 - colors,
        "gray, alpha": colors[..., :1] * alpha + 1 - alpha,
        "rgba": colors * alpha + 1 - alpha,
        "rgb, premultiplied": colors + 1 - alpha,
        "cmyk": (1 - colors) * (1 - alpha),
    }.get(kind, colors)
    for order, compression, apart in itertools.product("<>", (None, "zlib"), (False, True)):
        samples = np.ascontiguousarray(np.moveaxis(stored, -1, 0)) if apart else stored
        planes = {"planarconfig": "separate" if apart else "contig"} if channels > 1 else {}
        told = {"photometric": photometric, "extrasamples": extra or None, "byteorder": order, **planes}
        tifffile.imwrite(tmp_path / "in.tif", samples.squeeze(), compression=compression, **told, **layout)
        picture = images.load(str(tmp_path / "in.tif"))
        assert (picture.alpha is not None) == bool(extra)
        if extra:
            np.testing.assert_allclose(picture.alpha, alpha[..., 0], atol=2 / 255)
        coarse = dtype == "u1" or kind in ("cmyk", "rgb, premultiplied") or (apart and compression)
        within = 3 / 255 if coarse else 1e-6  # 3: of colors that pillow divides by alpha in 8 bits
        np.testing.assert_allclose(picture.rgb, np.broadcast_to(expected, picture.rgb.shape), atol=within)


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("dtype", "white"), [("u2", 65535), ("i2", 65535), ("f4", 1)])
def test_deep_gray_in_either_order_of_bytes(
    tmp_path: Path, dtype: str, white: int, order: str, predictor: bool
) -> None:
    gray = (np.random.default_rng(0).random((9, 8)) * (32767 / 65535 if dtype == "i2" else 1) * white).astype(
        dtype
    )
    options = {"compression": "zlib", "predictor": predictor and dtype != "f4"}
    tifffile.imwrite(tmp_path / "in.tif", gray, photometric="minisblack", byteorder=order, **options)
    expected = np.repeat(gray[..., None] / white, 3, -1)
    np.testing.assert_allclose(images.load(str(tmp_path / "in.tif")).rgb, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "options", "named"),
    [
        (
            np.zeros((5, 4), np.int8),
            {"photometric": "minisblack"},
            "1 samples a pixel of int8, MINISBLACK, NONE",
        ),
        (np.zeros((5, 4, 3), np.uint32), {"photometric": "rgb"}, "3 samples a pixel of uint32, RGB, NONE"),
        (np.zeros((5, 4), np.uint16), {"photometric": "cfa"}, "it is a raw file of a camera"),
    ],
)
def test_tiffs_that_leave_something_to_guess_are_refused(
    tmp_path: Path, samples: np.ndarray, options: dict[str, Any], named: str
) -> None:
    tifffile.imwrite(tmp_path / "in.tif", samples, **options)
    with pytest.raises(InputError, match=f"in.tif: must be a whole picture file .*; .*{named}"):
        images.load(str(tmp_path / "in.tif"))


def test_channels_apart_that_pillow_only_puts_together_are_refused(tmp_path: Path) -> None:
    # LZW, which tifffile alone cannot read: an index, then the codes that make these bytes.
    opacity = np.full((1, 2), 255, np.uint8)
    tifffile.imwrite(
        *(tmp_path / "in.tif", np.stack([opacity, opacity])),
        **{"photometric": "minisblack", "planarconfig": "separate", "extrasamples": ["unassalpha"]},
    )
    data = bytearray((tmp_path / "in.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "in.tif") as tiff:
        place = tiff.pages[0].tags["Compression"].valueoffset
    data[place : place + 2] = struct.pack("<H", 5)
    (tmp_path / "in.tif").write_bytes(data)
    with pytest.raises(InputError, match="2 samples a pixel of uint8, each apart, MINISBLACK, LZW"):
        images.load(str(tmp_path / "in.tif"))


def test_previews_are_passed_over(tmp_path: Path) -> None:
    preview, whole = np.full((3, 4, 3), 9, np.uint8), np.full((6, 8, 3), 200, np.uint8)
    for dtype in (np.uint8, np.uint16, np.float32):  # by pillow, by pillow twice, by tifffile
        with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
            tiff.write(preview, photometric="rgb", subfiletype=1)
            tiff.write(whole.astype(dtype), photometric="rgb")
        source = images.read(str(tmp_path / "in.tif"))
        assert source.size == (6, 8)
        np.testing.assert_array_equal(
            source.colors, np.clip(whole.astype(dtype), 0, 1 if dtype == np.float32 else 255)
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_preview_alone_is_refused(tmp_path: Path, dtype: type) -> None:
    preview, whole = np.full((3, 4, 3), 9, dtype), np.full((6, 8, 3), 200, dtype)
    with tifffile.TiffWriter(tmp_path / "in.dng") as tiff:
        tiff.write(preview, photometric="rgb", subfiletype=1, subifds=1)
        tiff.write(whole, photometric="rgb")  # in a part of the first
    allowed = "only a preview of 4x3 is found, as raw files of cameras have it; convert it to TIFF or PNG"
    with pytest.raises(InputError, match=allowed):
        images.load(str(tmp_path / "in.dng"))


def test_strips_that_unpack_to_more_than_they_should_are_refused(tmp_path: Path) -> None:
    samples = np.zeros((4000, 2000, 3), np.float32)  # 92 MiB, of which the tags then tell 4 rows
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb", compression="zlib", rowsperstrip=4000)
    with tifffile.TiffFile(tmp_path / "in.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(4)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="its strips or tiles do not fit its size"):
            images.load(str(tmp_path / "in.tif"))
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
def test_truncated_tiffs_are_refused(tmp_path: Path, compression: str | None, layout: dict[str, Any]) -> None:
    samples = np.random.default_rng(0).random((23, 37, 3), np.float32)
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb", compression=compression, **layout)
    data = (tmp_path / "in.tif").read_bytes()
    for end in range(0, len(data), max(1, len(data) // 40)):
        (tmp_path / "in.tif").write_bytes(data[:end])
        with pytest.raises(InputError, match="must be a whole picture file"):
            images.load(str(tmp_path / "in.tif"))


def test_tiffs_that_take_more_memory_to_read_may_have_fewer_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.zeros((10, 10, 3), np.float32), photometric="rgb")
    assert images.read(str(tmp_path / "in.tif"), 510).size == (10, 10)
    with pytest.raises(
        InputError, match="at most 99 pixels of such a TIFF for `max_pixels=509`; it is 10x10"
    ):
        images.read(str(tmp_path / "in.tif"), 509)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_tifffile_reads_stands_upright(tmp_path: Path, orientation: int) -> None:
    samples = np.random.default_rng(0).random((5, 7, 3), np.float32)
    for dtype in (np.float32, np.uint8):  # by tifffile, and by pillow, which turns it by itself
        stored = samples if dtype == np.float32 else (samples * 255).round().astype(np.uint8)
        name = str(tmp_path / f"{stored.dtype}.tif")
        tifffile.imwrite(name, stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    ours, pillows = (images.load(str(tmp_path / f"{dtype}.tif")).rgb for dtype in ("float32", "uint8"))
    np.testing.assert_allclose(ours, pillows, atol=1 / 255)


def test_a_pixel_is_no_name_of_a_camera(tmp_path: Path) -> None:
    """Pixels that come right after the head, as (99, 114) do in CR2 the letters, are no CR2."""
    tags = [
        (256, 3, 8),
        (257, 3, 8),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 8),
    ]
    tags += [(279, 4, 64)]
    body = b"CR" + bytes(range(62))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + 64) + body + directory)
    np.testing.assert_allclose(
        images.read(str(tmp_path / "a.tif")).rgb(8, 8)[..., 0],
        np.frombuffer(body, np.uint8).reshape(8, 8) / 255,
        atol=1e-6,
    )
