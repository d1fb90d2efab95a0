import io
import random
import shutil
import struct
import tempfile
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tifffile
from fuzz.mutate import png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, features

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.images import io as image_io
from nst_jax.images import png_tiff

SUFFIXES = sorted(images.FORMATS)
COLORS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [40, 40, 40]]], np.uint8
)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def _smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([y / height, x / width, (x + y) / (height + width)], -1)


def _load(tmp_path: Path, image: Image.Image, suffix: str = ".png", **options: Any) -> images.Picture:
    image.save(tmp_path / f"in{suffix}", **options)
    return images.load(str(tmp_path / f"in{suffix}"))


def _bytes(image: Image.Image, name: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, name, **options)
    return data.getvalue()


def _tiff(bits: tuple[int, ...], photometric: int, kind: int, data: bytes, *more: tuple[int, int]) -> bytes:
    """Return a little-endian TIFF of one row with two pixels, of the given bits and kind of sample."""
    samples = len(bits)
    tags = [(256, 2), (257, 1), (258, *bits), (259, 1), (262, photometric), (273, 8), (277, samples)]
    tags += [(278, 1), (279, len(data)), *more, (339, *[kind] * samples)]
    entries = b"".join(
        struct.pack("<HHI", tag, 3, len(values)) + struct.pack("<2H", *values, *[0] * (2 - len(values)))
        for tag, *values in tags
    )
    return (
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


def _chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """Return the chunks of a PNG, their checksums compared."""
    data, found, place = path.read_bytes(), [], 8
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert data[place + 8 + length : place + 12 + length] == struct.pack(">I", zlib.crc32(kind + body))
        found.append((kind, body))
        place += 12 + length
    return found


def _decode_png(path: Path) -> np.ndarray:
    """Return the samples of a PNG of color, byte by byte as its standard says it."""
    chunks = _chunks(path)
    width, height, bit_depth, color, *rest = struct.unpack(">2I5B", chunks[0][1])
    assert rest == [0, 0, 0]
    channels = {2: 3, 6: 4}[color]
    step, length = channels * bit_depth // 8, width * channels * bit_depth // 8
    data = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    assert len(data) == height * (1 + length)
    above, rows = bytearray(length), []
    for top in range(0, len(data), 1 + length):
        kind, row = data[top], bytearray(data[top + 1 : top + 1 + length])
        for i in range(length):
            a, b, c = row[i - step] if i >= step else 0, above[i], above[i - step] if i >= step else 0
            paeth = min((a, b, c), key=lambda value, guess=a + b - c: abs(guess - value))
            row[i] = (row[i] + (0, a, b, (a + b) // 2, paeth)[kind]) % 256
        rows.append(row)
        above = row
    return np.frombuffer(b"".join(rows), f">u{bit_depth // 8}").reshape(height, width, channels)


# Color profiles by hand, after ICC.1:2001-04.


def _icc(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">8xI4s4s4s12x4s", 0x02100000, kind, space, connection, b"acsp").ljust(68, b"\0")
    header = (head + _xyz(0.9642, 1, 0.8249)[8:]).ljust(128, b"\0")
    return struct.pack(">I", len(header + table + body)) + (header + table + body)[4:]


def _xyz(*values: float) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(value * 65536) for value in values))


LINEAR = b"curv" + bytes(8)
RED, GREEN, BLUE = (
    (0.4360, 0.2225, 0.0139),
    (0.3851, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7141),
)  # of sRGB, D50


def _rgb_icc(red: Any, green: Any, blue: Any) -> bytes:
    columns = {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue)}
    curves = dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], LINEAR)
    return _icc(b"mntr", b"RGB ", b"XYZ ", {b"wtpt": _xyz(0.9642, 1, 0.8249), **columns, **curves})


def _gray_icc() -> bytes:
    return _icc(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(0.9642, 1, 0.8249), b"kTRC": LINEAR})


def _cmyk_icc() -> bytes:
    """Return the profile of an odd press: L* = (100 - 49.8 cyan) (1 - black), no color at all."""
    ramp = bytes(range(256))
    grid = b"".join(bytes([(255 - 127 * (i // 8)) * (1 - i % 2), 128, 128]) for i in range(16))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + grid + 3 * ramp
    return _icc(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(0.9642, 1, 0.8249), b"A2B0": table})


def _srgb_of_linear(value: float) -> float:
    return float(1.055 * value ** (1 / 2.4) - 0.055)


# Names


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "examples"
    folder.mkdir()
    for name in ("cat", "coffee"):
        Image.fromarray(COLORS).save(folder / f"{name}.jpg")
    monkeypatch.setattr(image_io, "EXAMPLES", folder)
    return folder


def test_resolve_finds_examples_and_paths(examples: Path) -> None:
    assert images.resolve("example:cat") == examples / "cat.jpg"
    assert images.resolve("some/cat.jpg") == Path("some/cat.jpg")
    assert images.load("example:cat").rgb.shape == (2, 3, 3)


def test_resolve_names_the_examples(examples: Path) -> None:
    with pytest.raises(InputError, match=r"one of cat, coffee; 'cofee' \(did you mean coffee\?\)"):
        images.resolve("example:cofee")
    with pytest.raises(InputError, match="one of cat, coffee"):
        images.resolve("example:../examples/cat")


@pytest.mark.parametrize("name", ["cat", "cat.jpg", "exampel:cat"])
def test_a_missing_file_with_the_name_of_an_example_gets_a_hint(
    examples: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(examples.parent)
    with pytest.raises(InputError, match=r"No such file.*\(did you mean example:cat\?\)"):
        images.load(name)


# Reading: modes, depths, alpha


def test_eight_bit_color_is_exact(tmp_path: Path) -> None:
    rgb, alpha = _load(tmp_path, Image.fromarray(COLORS))
    assert rgb.dtype == np.float32
    assert alpha is None
    np.testing.assert_array_equal(rgb, (COLORS / 255).astype(np.float32))


def test_sixteen_bits_of_gray_are_kept(tmp_path: Path) -> None:
    values = np.array([[0, 1, 1000], [40000, 65534, 65535]], np.uint16)
    for suffix in (".png", ".tif"):
        rgb, alpha = _load(tmp_path, Image.fromarray(values), suffix)
        assert alpha is None
        np.testing.assert_allclose(rgb, np.repeat(values[..., None] / 65535, 3, -1), atol=1e-7)
    rgb, alpha = _load(tmp_path, Image.fromarray(values), transparency=1000)
    assert alpha is not None
    np.testing.assert_array_equal(alpha, [[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("bits", "photometric", "kind", "data", "expected"),
    [
        (12, 1, 1, b"\xff\xf8\x00", [1, 2048 / 4095]),
        (16, 1, 1, struct.pack("<2H", 65535, 13107), [1, 0.2]),
        (16, 0, 1, struct.pack("<2H", 65535, 13107), [0, 0.8]),
        (16, 1, 2, struct.pack("<2h", -5, 13107), [0, 0.2]),
        (32, 1, 1, struct.pack("<2I", 70000, 13107), [1, 0.2]),
        (32, 1, 3, struct.pack("<2f", 0.25, 7), [0.25, 1]),
        (32, 1, 3, struct.pack("<2f", float("nan"), -1), [0, 0]),
    ],
)
def test_deep_gray_tiffs(
    tmp_path: Path, bits: int, photometric: int, kind: int, data: bytes, expected: list[float]
) -> None:
    (tmp_path / "in.tif").write_bytes(_tiff((bits,), photometric, kind, data))
    np.testing.assert_allclose(images.load(str(tmp_path / "in.tif")).rgb[0, :, 1], expected, atol=1e-4)


def test_big_endian_gray_and_sixteen_bit_pgm(tmp_path: Path) -> None:
    rgb = _load(tmp_path, Image.frombytes("I;16B", (2, 1), b"\xff\xff\x33\x33"), ".tif").rgb
    np.testing.assert_allclose(rgb[0, :, 0], [1, 0.2], atol=1e-4)
    (tmp_path / "in.pgm").write_bytes(b"P5 2 1 65535\n\xff\xff\x33\x33")
    np.testing.assert_allclose(images.load(str(tmp_path / "in.pgm")).rgb[0, :, 0], [1, 0.2], atol=1e-4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr"])
def test_opaque_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).convert(mode)
    rgb, alpha = _load(tmp_path, image, ".tif")
    assert alpha is None
    np.testing.assert_allclose(rgb, [[[0, 0, 0], [1, 1, 1]]], atol=0.01)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("LA", ".png"), ("LA", ".tif"), ("PA", ".tif"), ("RGBA", ".png")]
)
def test_alpha_is_composited_on_white(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.new(mode, (2, 1))
    if mode == "PA":
        image.putpalette([100, 100, 100])
    gray: tuple[int, ...] = {"LA": (100,), "PA": (0,), "RGBA": (100, 100, 100)}[mode]
    image.putpixel((0, 0), (*gray, 51))
    image.putpixel((1, 0), (*gray, 255))
    rgb, alpha = _load(tmp_path, image, suffix)
    assert alpha is not None
    np.testing.assert_allclose(alpha, [[0.2, 1]], atol=1e-6)
    expected = np.array([[[0.2 * 100 / 255 + 0.8], [100 / 255]]])
    np.testing.assert_allclose(rgb, np.repeat(expected, 3, -1), atol=1e-6)


def test_premultiplied_gray_is_divided_out(tmp_path: Path) -> None:
    (tmp_path / "in.tif").write_bytes(_tiff((8, 8), 1, 1, bytes([40, 80, 200, 255]), (338, 1)))
    rgb, alpha = images.load(str(tmp_path / "in.tif"))
    assert alpha is not None
    np.testing.assert_allclose(alpha, [[80 / 255, 1]], atol=1e-6)
    expected = [[40 / 255 + (1 - 80 / 255), 200 / 255]]
    np.testing.assert_allclose(rgb, np.repeat(np.array(expected)[..., None], 3, -1), atol=0.003)


def test_transparent_palette_entry_and_color(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    rgb, alpha = _load(tmp_path, palette, transparency=bytes([51, 255]))
    assert alpha is not None
    np.testing.assert_allclose(alpha, [[0.2, 1]], atol=1e-6)
    np.testing.assert_allclose(rgb, [[[1.0, 0.8, 0.8], [0.0, 0.0, 1.0]]], atol=1e-6)
    rgb, alpha = _load(tmp_path, Image.fromarray(COLORS), transparency=(0, 255, 0))
    assert alpha is not None
    np.testing.assert_array_equal(alpha, [[1, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(rgb[0, 1], [1, 1, 1])


def test_alpha_that_is_opaque_everywhere_is_none(tmp_path: Path) -> None:
    rgb, alpha = _load(tmp_path, Image.fromarray(COLORS).convert("RGBA"))
    assert alpha is None
    np.testing.assert_array_equal(rgb, (COLORS / 255).astype(np.float32))


def test_a_picture_that_is_transparent_all_over_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="in.png: it is transparent all over, and read as white"):
        rgb, alpha = _load(tmp_path, Image.new("RGBA", (3, 2), (9, 9, 9, 0)))
    assert alpha is not None
    assert not alpha.any()
    np.testing.assert_array_equal(rgb, 1)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_the_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    rgb = _load(tmp_path, first, suffix, save_all=True, append_images=[second], lossless=True).rgb
    np.testing.assert_array_equal(rgb, np.broadcast_to([1, 0, 0], (8, 8, 3)))


def _deep(height: int, width: int, channels: int) -> np.ndarray:
    samples = np.random.default_rng(1).integers(0, 2**16, (height, width, channels), np.uint16)
    samples[0, 0] = (0x1234, 0x00FF, 0xFF00, 0x8001)[:channels]
    return samples


def _write_deep(path: Path, samples: np.ndarray, icc: bytes = b"", exif: bytes = b"", **options: Any) -> None:
    """Write red, green, blue and perhaps alpha of 16 bits, without the code under test."""
    height, width, channels = samples.shape
    if path.suffix == ".tif":
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(
            *(path, samples), photometric="rgb", extrasamples=extra, iccprofile=icc or None, **options
        )
        return
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0))]
    chunks += [(b"iCCP", b"a\0\0" + zlib.compress(icc))] if icc else []
    chunks += [(b"eXIf", exif)] if exif else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def _orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def _turned(suffix: str, orientation: int) -> dict[str, Any]:
    """Return what tells _write_deep of an orientation."""
    if suffix == ".tif":
        return {"extratags": [(274, 3, 1, orientation, True)]}
    return {"exif": _orientation(orientation).tobytes()[6:]}


DEEP_FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "png": (".png", {}),
    "tiff": (".tif", {"byteorder": "<"}),
    "big-endian tiff": (".tif", {"byteorder": ">"}),
    "deflated tiff": (".tif", {"byteorder": "<", "compression": "zlib", "predictor": 2}),
    "deflated big-endian tiff": (".tif", {"byteorder": ">", "compression": "zlib"}),
    "striped tiff": (".tif", {"rowsperstrip": 2}),
    "bigtiff": (".tif", {"bigtiff": True}),
}


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", DEEP_FILES)
def test_sixteen_bits_of_color_are_kept(tmp_path: Path, kind: str, channels: int) -> None:
    (suffix, options), samples = DEEP_FILES[kind], _deep(5, 7, channels)
    for icc in (b"", image_io._srgb_icc()):
        _write_deep(tmp_path / f"in{suffix}", samples, icc, **options)
        source = images.read(str(tmp_path / f"in{suffix}"))
        np.testing.assert_array_equal(source.colors, samples[..., :3])
        picture = images.load(str(tmp_path / f"in{suffix}"))
        rgb = samples[..., :3] / 65535
        if channels == 4:
            assert picture.alpha is not None
            np.testing.assert_allclose(picture.alpha, samples[..., 3] / 65535, atol=1e-7)
            rgb = rgb * samples[..., 3:] / 65535 + 1 - samples[..., 3:] / 65535
        np.testing.assert_allclose(picture.rgb, rgb, atol=2e-7)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_deep_color_that_is_read_as_eight_bits(tmp_path: Path, compression: str | None) -> None:
    samples = _deep(5, 7, 3)
    _write_deep(tmp_path / "in.tif", samples, _rgb_icc(GREEN, RED, BLUE), compression=compression)
    colors = images.read(str(tmp_path / "in.tif")).colors  # through the profile, red and green changed places
    assert colors.dtype == np.uint8
    np.testing.assert_allclose(
        colors[..., 0] / 255,
        [[_srgb_of_linear(v / 65535) for v in row] for row in samples[..., 1]],
        atol=0.05,
    )


def test_a_broken_profile_of_deep_color_is_one_warning(tmp_path: Path) -> None:
    samples = _deep(5, 7, 3)
    _write_deep(tmp_path / "in.png", samples, b"junk")
    with pytest.warns(UserWarning, match="in.png: read as sRGB, its color profile is broken") as caught:
        source = images.read(str(tmp_path / "in.png"))
    assert len(caught) == 1
    np.testing.assert_array_equal(source.colors, samples)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_color_stands_upright(tmp_path: Path, orientation: int, channels: int, suffix: str) -> None:
    samples = _deep(5, 7, channels)
    _write_deep(tmp_path / f"in{suffix}", samples, **_turned(suffix, orientation))
    lower = Image.fromarray((samples % 256).astype(np.uint8))
    lower.save(tmp_path / "lower.tif", exif=_orientation(orientation))
    source = images.read(str(tmp_path / f"in{suffix}"))
    np.testing.assert_array_equal(source.colors % 256, images.read(str(tmp_path / "lower.tif")).colors)


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 3), (".png", 4), (".tif", 3), (".tif", 4)])
def test_what_is_written_in_sixteen_bits_is_read_in_sixteen_bits(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    samples = _deep(9, 6, channels)
    samples[..., 3:] |= 0x8000
    _write_deep(tmp_path / f"in{suffix}", samples)
    rgb, alpha = images.load(str(tmp_path / f"in{suffix}"))
    images.save(tmp_path / f"out{suffix}", rgb, alpha=alpha, settings="{}", bit_depth=16, dpi=300)
    np.testing.assert_array_equal(images.read(str(tmp_path / f"out{suffix}")).colors, samples[..., :3])


# Reading: every PNG

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
GRAY, COLOR, PALETTE, GRAY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6  # PNG's color types
PNG_KINDS = [(GRAY, bit_depth) for bit_depth in (1, 2, 4, 8, 16)] + [
    (PALETTE, bit_depth) for bit_depth in (1, 2, 4, 8)
]
PNG_KINDS += [(kind, bit_depth) for kind in (COLOR, GRAY_ALPHA, COLOR_ALPHA) for bit_depth in (8, 16)]


def _png(samples: np.ndarray, bit_depth: int, kind: int, more: Any = (), interlaced: bool = False) -> bytes:
    """Return a PNG of whole numbers below 2**bit_depth, packed as its standard says it."""
    data = b""
    for left, top, over, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::over]
        for row in part if part.size else ():
            bits = (row.reshape(-1, 1) >> np.arange(bit_depth)[::-1]) & 1
            data += b"\0" + np.packbits(bits.astype(np.uint8)).tobytes()
    header = struct.pack(">2I5B", samples.shape[1], samples.shape[0], bit_depth, kind, 0, 0, interlaced)
    return png([(b"IHDR", header), *more, (b"IDAT", zlib.compress(data)), (b"IEND", b"")])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "bit_depth"), PNG_KINDS)
def test_every_png(tmp_path: Path, kind: int, bit_depth: int, interlaced: bool) -> None:
    rng, channels = (
        np.random.default_rng(bit_depth),
        {GRAY: 1, COLOR: 3, PALETTE: 1, GRAY_ALPHA: 2, COLOR_ALPHA: 4},
    )
    samples = rng.integers(0, 2**bit_depth, (13, 19, channels[kind]))
    palette = rng.integers(0, 256, (2**bit_depth, 3), np.uint8)
    more = [(b"PLTE", palette.tobytes())] if kind == PALETTE else []
    (tmp_path / "in.png").write_bytes(_png(samples, bit_depth, kind, more, interlaced))
    rgb, alpha = images.load(str(tmp_path / "in.png"))
    # Gray with alpha of 16 bits is read as 8.
    within = 1 / 255 if (kind, bit_depth) == (GRAY_ALPHA, 16) else 1e-6
    expected = palette[samples[..., 0]] / 255 if kind == PALETTE else samples / (2**bit_depth - 1)
    if kind in (GRAY_ALPHA, COLOR_ALPHA):
        assert alpha is not None
        np.testing.assert_allclose(alpha, expected[..., -1], atol=within)
        expected = expected[..., :-1] * expected[..., -1:] + 1 - expected[..., -1:]
    np.testing.assert_allclose(rgb, np.broadcast_to(expected, rgb.shape), atol=2 * within)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("icc", [b"", _rgb_icc(GREEN, RED, BLUE)])
@pytest.mark.parametrize(
    ("kind", "bit_depth"), [*((GRAY, bit_depth) for bit_depth in (1, 2, 4, 8, 16)), (COLOR, 8), (COLOR, 16)]
)
def test_the_color_that_is_transparent(
    tmp_path: Path, kind: int, bit_depth: int, icc: bytes, interlaced: bool
) -> None:
    samples = np.random.default_rng(bit_depth).integers(0, 2**bit_depth, (13, 19, 3 if kind == COLOR else 1))
    samples[4:6, 7] = key = samples[0, 0]
    samples[5, 7, 0] ^= 1  # one less or more, which the upper byte of 16 bits does not tell
    more = [(b"iCCP", b"a\0\0" + zlib.compress(icc))] if icc else []
    more.append((b"tRNS", key.astype(">u2").tobytes()))
    (tmp_path / "in.png").write_bytes(_png(samples, bit_depth, kind, more, interlaced))
    source = images.read(str(tmp_path / "in.png"))
    assert source.alpha is not None
    np.testing.assert_array_equal(source.alpha == 0, (samples == key).all(-1))
    assert source.alpha[4, 7] < source.alpha[5, 7]
    if not icc:
        expected = np.where(source.alpha[..., None] == 0, 1, samples / (2**bit_depth - 1))
        np.testing.assert_allclose(source.rgb(13, 19), np.broadcast_to(expected, (13, 19, 3)), atol=1e-6)


# Reading: orientation and color


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    height, width = COLORS.shape[:2]
    # EXIF: which place of the upright picture row r and column c of the file is.
    place: Callable[[int, int], tuple[int, int]] = [
        lambda r, c: (r, c),
        lambda r, c: (r, width - 1 - c),
        lambda r, c: (height - 1 - r, width - 1 - c),
        lambda r, c: (height - 1 - r, c),
        lambda r, c: (c, r),
        lambda r, c: (c, width - 1 - r),
        lambda r, c: (height - 1 - c, width - 1 - r),
        lambda r, c: (height - 1 - c, r),
    ][orientation - 1]
    shape = (height, width) if orientation < 5 else (width, height)
    stored = np.array([[COLORS[place(r, c)] for c in range(shape[1])] for r in range(shape[0])])
    exif = _orientation(orientation)
    image = Image.fromarray(stored.repeat(16, 0).repeat(16, 1))
    rgb = _load(tmp_path, image, suffix, exif=exif).rgb
    assert rgb.shape == (16 * height, 16 * width, 3)
    np.testing.assert_allclose(rgb[8::16, 8::16], COLORS / 255, atol=0.05)


@pytest.mark.parametrize(
    ("mode", "icc"),
    [
        *[(mode, _rgb_icc(RED, GREEN, BLUE)) for mode in ("RGB", "RGBA", "L", "LA", "P")],
        *[(mode, _gray_icc()) for mode in ("L", "LA")],
    ],
)
def test_the_color_profile_is_applied(tmp_path: Path, mode: str, icc: bytes) -> None:
    image = Image.new("RGBA", (4, 4), (64, 64, 64, 255)).convert(mode)
    rgb = _load(tmp_path, image, icc_profile=icc).rgb
    np.testing.assert_allclose(rgb, _srgb_of_linear(64 / 255), atol=1 / 255)


@pytest.mark.parametrize("icc", [_gray_icc(), _rgb_icc(RED, GREEN, BLUE)])
def test_the_profile_of_deep_gray_is_applied(tmp_path: Path, icc: bytes) -> None:
    image = Image.fromarray(np.full((4, 4), 64 * 257, np.uint16))
    np.testing.assert_allclose(
        _load(tmp_path, image, icc_profile=icc).rgb, _srgb_of_linear(64 / 255), atol=1 / 255
    )


def test_primaries_of_the_profile_are_used(tmp_path: Path) -> None:
    image = Image.new("RGB", (1, 1), (255, 0, 128))
    rgb = _load(tmp_path, image, icc_profile=_rgb_icc(GREEN, RED, BLUE)).rgb
    np.testing.assert_allclose(rgb[0, 0], [0, 1, _srgb_of_linear(128 / 255)], atol=0.01)


def test_the_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    rgb = _load(tmp_path, Image.fromarray(pixels), icc_profile=image_io._srgb_icc()).rgb
    np.testing.assert_array_equal(rgb, (pixels / 255).astype(np.float32))


@pytest.mark.parametrize("icc", [b"junk", _rgb_icc(RED, GREEN, BLUE)[:200], _gray_icc(), _cmyk_icc()])
def test_a_profile_that_cannot_be_used_is_a_warning(tmp_path: Path, icc: bytes) -> None:
    with pytest.warns(UserWarning, match="in.png: read as sRGB, its color profile is broken"):
        rgb = _load(tmp_path, Image.fromarray(COLORS), icc_profile=icc).rgb
    np.testing.assert_array_equal(rgb, (COLORS / 255).astype(np.float32))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_profile(tmp_path: Path, suffix: str) -> None:
    inks: dict[tuple[int, ...], tuple[float, ...]] = {
        (0, 0, 0, 0): (1, 1, 1),
        (255, 0, 0, 0): (0, 1, 1),
        (0, 255, 0, 0): (1, 0, 1),
    }
    inks |= {(0, 0, 255, 0): (1, 1, 0), (0, 0, 0, 255): (0, 0, 0), (255, 255, 0, 0): (0, 0, 1)}
    inks |= {(0, 0, 0, 51): (0.8, 0.8, 0.8), (51, 0, 0, 51): (0.64, 0.8, 0.8)}
    for ink, expected in inks.items():
        rgb, alpha = _load(tmp_path, Image.new("CMYK", (8, 8), ink), suffix)
        assert alpha is None
        np.testing.assert_allclose(rgb, np.broadcast_to(expected, (8, 8, 3)), atol=0.01)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_with_a_profile(tmp_path: Path, suffix: str) -> None:
    # L* of 100 is white; L* of 50.2 is the luminance ((50.2 + 16) / 116)^3 = 0.1859
    for cyan, expected in ((0, 1.0), (255, _srgb_of_linear(0.1859))):
        rgb = _load(
            tmp_path, Image.new("CMYK", (8, 8), (cyan, 90, 0, 0)), suffix, icc_profile=_cmyk_icc()
        ).rgb
        np.testing.assert_allclose(rgb, expected, atol=0.015)


def test_lab(tmp_path: Path) -> None:
    rgb = _load(tmp_path, Image.new("LAB", (1, 1), (128, 128, 128)), ".tif").rgb
    np.testing.assert_allclose(rgb, _srgb_of_linear(0.1859), atol=0.01)


# Reading: what is refused


@pytest.mark.parametrize(("bit_depth", "color"), [(8, 0), (16, 2)])
def test_the_limit_on_pixels_is_checked_before_decoding(tmp_path: Path, bit_depth: int, color: int) -> None:
    header = b"IHDR" + struct.pack(">2I5B", 20000, 10000, bit_depth, color, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(
        InputError, match=r"big.png: at most 100000000 pixels \(`max_pixels`\); .* 20000x10000"
    ):
        images.load(str(tmp_path / "big.png"))
    with pytest.raises(InputError, match="must be a whole picture"):  # the user's limit, not pillow's
        images.load(str(tmp_path / "big.png"), max_pixels=10**9)
    assert before == Image.MAX_IMAGE_PIXELS
    Image.new("L", (10, 10)).save(tmp_path / "in.png")
    assert images.load(str(tmp_path / "in.png"), max_pixels=100).rgb.shape == (10, 10, 3)
    with pytest.raises(InputError, match="at most 99 pixels"):
        images.load(str(tmp_path / "in.png"), max_pixels=99)


@pytest.mark.parametrize(
    ("name", "channels", "turned", "enough"),
    [("in.webp", 3, 1, 160), ("in.avif", 3, 1, 120), ("in.jp2", 3, 1, 250), ("in.png", 3, 1, 100)]
    + [("in.tif", 4, 1, 120), ("in.png", 3, 6, 100), ("in.tif", 3, 6, 140)],
)
def test_files_that_take_more_memory_to_read_may_have_fewer_pixels(
    tmp_path: Path, name: str, channels: int, turned: int, enough: int
) -> None:
    if name in ("in.png", "in.tif"):
        told = _turned(Path(name).suffix, turned) if turned > 1 else {}
        _write_deep(tmp_path / name, _deep(10, 10, channels), **told)
    else:
        Image.new("RGB", (10, 10)).save(tmp_path / name)
    assert images.read(str(tmp_path / name), enough).size == (10, 10)
    with pytest.raises(
        InputError, match=rf"at most 99 pixels( of .* for `max_pixels={enough - 1}`)?; |`max_pixels`\)"
    ):
        images.read(str(tmp_path / name), enough - 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty$"),
        (b"\n <!DOCTYPE html><html><title>Not found</title>", "it is a web page"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="8"/>', "it is SVG; export it as PNG$"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "it is HEIC; convert it to JPEG or PNG$"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100), "it is HEIC; convert it to JPEG or PNG$"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "it is JPEG XL"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(100), "it is a raw file of a camera; convert it to TIFF or PNG"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(100), "it is a raw file of a camera"),
        (b"%PDF-1.7\n", "it is PDF"),
        (b"8BPS\0\1" + bytes(100), "it is a Photoshop file"),
        (b"a letter, not a picture\n" * 99, "the format is not known"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "the format is not known"),
        (_bytes(Image.fromarray(COLORS), "PNG")[:50], "truncated|Truncated"),
        (b"BM" + struct.pack("<3I3I2H6I", 54, 0, 54, 40, 0, 0, 1, 24, *[0] * 6), "."),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "in.png").write_bytes(data)
    with pytest.raises(InputError, match=f"in.png: must be a whole picture file .*; .*({reason})"):
        images.load(str(tmp_path / "in.png"))


@pytest.mark.parametrize("name", ["https://example.org/cat.jpg", "http://example.org"])
def test_addresses_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="a file or example:NAME; it is an address; download it first"):
        images.load(name)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent.png: .*; No such file or directory$"):
        images.load(str(tmp_path / "absent.png"))
    with pytest.raises(InputError, match="it is a folder or a device"):
        images.load(str(tmp_path))
    with pytest.raises(InputError, match="null byte|null character"):
        images.load("a\0b")
    with pytest.raises(InputError, match="File name too long"):
        images.load("x" * 300)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything, so chmod is no test

    (tmp_path / "in.png").write_bytes(b"")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="in.png: .*; Permission denied"):
        images.load(str(tmp_path / "in.png"))


def _deep_samples() -> dict[str, bytes]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("png", "tiff", "deflated tiff"):
            suffix, options = DEEP_FILES[kind]
            _write_deep(Path(folder, f"in{suffix}"), _deep(14, 18, 4), image_io._srgb_icc(), **options)
            found[f"deep {kind}"] = Path(folder, f"in{suffix}").read_bytes()
    return found


def _samples() -> dict[str, bytes]:
    rgba = Image.fromarray(images.to_uint8(np.dstack([_smooth(14, 18), _random(14, 18)])))
    rgb, exif = rgba.convert("RGB"), _orientation(6)
    tags: dict[str, Any] = {"exif": exif, "icc_profile": image_io._srgb_icc()}
    return {
        "png": _bytes(rgba, "PNG", **tags),
        "palette": _bytes(rgb.convert("P"), "PNG"),
        "jpeg": _bytes(rgb, "JPEG", **tags),
        "cmyk": _bytes(rgb.convert("CMYK"), "JPEG"),
        "webp": _bytes(rgba, "WEBP", **tags),
        "tiff": _bytes(rgba, "TIFF", **tags),
        "lzw": _bytes(rgb, "TIFF", compression="tiff_lzw"),
        "gif": _bytes(rgb, "GIF"),
        **_deep_samples(),
        "avif": _bytes(rgb, "AVIF"),
    }


@pytest.mark.parametrize("kind", _samples())
def test_truncated_files_are_refused(tmp_path: Path, kind: str) -> None:
    data = _samples()[kind]
    for end in range(0, len(data) * 9 // 10, max(1, len(data) // 60)):
        (tmp_path / "in").write_bytes(data[:end])
        with pytest.raises(InputError, match="must be a whole picture file"):
            images.load(str(tmp_path / "in"))


@pytest.mark.parametrize("kind", _samples())
def test_damaged_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    original, dice = _samples()[kind], random.Random(0)
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for _ in range(dice.choice([1, 3, 20])):
            data[dice.randrange(min(len(data), dice.choice([40, 200, 10**6])))] = dice.randrange(256)
        (tmp_path / "in").write_bytes(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*(is broken|not applied|transparent all over)")
            try:
                rgb = images.load(str(tmp_path / "in"), max_pixels=10**6).rgb
                assert 0 <= rgb.min() <= rgb.max() <= 1
            except InputError:
                refused += 1
    assert refused


@pytest.mark.parametrize(
    "chunks",
    [
        {b"tRNS": bytes(257)},
        {b"PLTE": None, b"tRNS": None},
    ],  # more opacities than colors there can be; no palette
)
def test_palettes_that_do_not_fit_are_refused(tmp_path: Path, chunks: dict[bytes, bytes | None]) -> None:
    whole = _bytes(Image.fromarray(COLORS).convert("P"), "PNG", transparency=1)
    (tmp_path / "whole").write_bytes(whole)
    changed = [(name, chunks.get(name, content)) for name, content in _chunks(tmp_path / "whole")]
    (tmp_path / "in").write_bytes(png([(name, content) for name, content in changed if content is not None]))
    with pytest.raises(InputError, match="must be a whole picture file"):
        images.load(str(tmp_path / "in"))


def test_libtiff_says_nothing_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = _bytes(Image.fromarray(COLORS), "TIFF", compression="tiff_adobe_deflate")
    start = data.index(b"\x78\x9c") if b"\x78\x9c" in data else 8
    (tmp_path / "in.tif").write_bytes(data[:start] + b"\0\0\0\0" + data[start + 4 :])
    with pytest.raises(InputError, match="must be a whole picture"):
        images.load(str(tmp_path / "in.tif"))
    assert capfd.readouterr().err == ""


def test_deep_gray_is_scaled_in_place(tmp_path: Path) -> None:
    Image.new("I;16", (3000, 2000)).save(tmp_path / "in.tif", compression="tiff_adobe_deflate")
    tracemalloc.start()
    images.read(str(tmp_path / "in.tif"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        peak < 10 * 6_000_000
    )  # bytes a pixel: 4 of float32, 2 of the file and what pillow takes on the way


# Sizes


def _lanczos(old: int, new: int) -> np.ndarray:
    """Return the (new, old) matrix of the antialiased Lanczos-3 window, in float64."""
    stretch = max(old / new, 1.0)
    distance = (np.arange(old) + 0.5 - ((np.arange(new) + 0.5) * old / new)[:, None]) / stretch
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    return np.asarray(weights / weights.sum(1, keepdims=True))


@pytest.mark.parametrize("size", [(5, 4), (30, 44), (7, 22), (1, 1), (9, 13)])
def test_resize_is_lanczos(size: tuple[int, int]) -> None:
    array = _random(11, 13, 3)
    rows, columns = _lanczos(11, size[0]), _lanczos(13, size[1])
    expected = np.clip(np.einsum("yh,xw,hwc->yxc", rows, columns, array.astype(np.float64)), 0, 1)
    result = images.resize(array, *size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
    np.testing.assert_array_equal(images.resize(array[..., 1], *size), result[..., 1])


def test_resize_keeps_constants_and_the_mean() -> None:
    np.testing.assert_allclose(images.resize(np.full((9, 7, 3), 0.3, np.float32), 20, 4), 0.3, atol=1e-6)
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (48, 1))
    for size in ((12, 16), (7, 200)):
        np.testing.assert_allclose(images.resize(ramp, *size).mean(), 0.5, atol=1e-5)


def test_resize_to_the_same_size_is_the_same_array() -> None:
    array = _random(5, 6, 3) * 4 - 1  # not even clipped
    assert images.resize(array, 5, 6) is array


@pytest.mark.parametrize("tall", [1, 200, 2**23])
@pytest.mark.parametrize("size", [(20, 30), (7, 30), (20, 11), (7, 11), (50, 70), (1, 1), (20, 90), (3, 90)])
@pytest.mark.parametrize("kind", ["8", "8 with alpha", "16", "16 with alpha", "gray", "gray with alpha"])
def test_a_source_at_a_size_is_its_picture_resized_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, kind: str, size: tuple[int, int], tall: int
) -> None:
    rng = np.random.default_rng(3)
    dtype = np.uint16 if kind.startswith("16") else np.uint8
    white = np.iinfo(dtype).max
    colors = rng.integers(0, white, (20, 30, 3), dtype, endpoint=True)
    opacity = rng.integers(0, white, (20, 30), dtype, endpoint=True)
    rgb, alpha = colors.astype(np.float32) / white, opacity.astype(np.float32)[..., None] / white
    if kind.startswith("gray"):
        colors = _random(20, 30, 1)
        rgb = colors.repeat(3, -1)
    if "alpha" in kind:
        rgb = np.clip(rgb * alpha + (1 - alpha), 0, 1)
    monkeypatch.setattr(image_io, "BAND_SAMPLES", tall)
    source = images.Source(colors, opacity if "alpha" in kind else None)
    result = source.rgb(*size)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, images.resize(rgb, *size))
    channels = [
        Image.fromarray(np.ascontiguousarray(rgb[..., c])).resize(size[::-1], Image.Resampling.LANCZOS)
        for c in range(3)
    ]
    np.testing.assert_allclose(result, np.stack(channels, -1).clip(0, 1), atol=3e-7)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_big_picture_used_small_is_never_in_float32(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (6000, 4000), (200, 100, 50)).save(tmp_path / f"in{suffix}")  # 69 MiB of bytes
    images.load("example:cat")  # what is imported and cached
    tracemalloc.start()
    try:
        rgb = images.read(str(tmp_path / f"in{suffix}")).rgb(400, 600)
        _, peak = tracemalloc.get_traced_memory()  # all but pillow's own
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(rgb, np.broadcast_to(np.float32([200, 100, 50]) / 255, rgb.shape), atol=0.01)
    assert peak < (69 + 10 + 4 * 32) * 2**20  # the bytes, a narrow channel, a few bands; float32 alone: 275


def test_fit() -> None:
    assert images.size_to_fit(300, 451, 512) == (341, 512)  # 340.58
    assert images.size_to_fit(600, 400, 512) == (512, 341)  # 341.33
    assert images.size_to_fit(3, 4, 2) == (2, 2)  # 1.5, half up
    assert images.size_to_fit(1, 1000, 10) == (1, 10)
    assert images.size_to_fit(512, 512, 512) == (512, 512)


# Writing


def test_to_uint8() -> None:
    steps = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(images.to_uint8(steps / 255), steps)
    values = np.array([-1, 2, 0.49 / 255, 0.51 / 255, 0.5 / 255, 1.5 / 255, 2.5 / 255])
    np.testing.assert_array_equal(images.to_uint8(values), [0, 255, 0, 1, 0, 2, 2])


PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.sampled_from([3, 4])))


@pytest.mark.filterwarnings("ignore:.*it is transparent all over")
@settings(deadline=None, max_examples=60)
@given(pixels=PIXELS, suffix=st.sampled_from([".png", ".webp", ".tif"]))
def test_lossless_files_give_back_every_pixel(
    tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    rgb = (pixels[..., :3] / 255).astype(np.float32)
    alpha = (pixels[..., 3] / 255).astype(np.float32) if pixels.shape[2] == 4 else None
    on_white = rgb if alpha is None else rgb * alpha[..., None] + 1 - alpha[..., None]
    images.save(path, on_white, alpha=alpha)
    shown = pixels[..., -1] > 0 if alpha is not None else slice(None)  # the color of nothing is any
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[shown], pixels[..., :3][shown])
    loaded = images.load(str(path))
    if alpha is None or alpha.min() == 1:
        assert loaded.alpha is None
        np.testing.assert_array_equal(loaded.rgb, rgb)
    else:
        np.testing.assert_array_equal(loaded.alpha, alpha)
        np.testing.assert_allclose(loaded.rgb, on_white, atol=1e-6)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG", ".Jpg"])
def test_every_format_is_srgb_deterministic_and_near(tmp_path: Path, suffix: str) -> None:
    rgb, first, second = _smooth(40, 50), tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    images.save(first, rgb, settings="{}")
    image_io._srgb_icc.cache_clear()
    images.save(second, rgb, settings="{}")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])).profile
    assert "sRGB" in str(profile.profile_description)
    assert "2000-01-01" in str(profile.creation_date)
    np.testing.assert_allclose(images.load(str(first)).rgb, rgb, atol=0.03)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_color_is_not_subsampled(tmp_path: Path, suffix: str) -> None:
    rgb = np.zeros((16, 16, 3), np.float32)
    rgb[:, ::2, 0] = rgb[:, 1::2, 2] = 1  # red and blue columns
    images.save(tmp_path / f"out{suffix}", rgb)
    np.testing.assert_allclose(images.load(str(tmp_path / f"out{suffix}")).rgb, rgb, atol=0.15)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_alpha_is_written_where_the_format_has_it(tmp_path: Path, suffix: str) -> None:
    alpha = _smooth(24, 24)[..., 0]
    rgb = 1 - alpha[..., None] * (1 - _smooth(24, 24))  # on white
    images.save(tmp_path / f"out{suffix}", rgb, alpha=alpha)
    loaded = images.load(str(tmp_path / f"out{suffix}"))
    if suffix in (".jpg", ".jpeg"):
        assert loaded.alpha is None
        np.testing.assert_allclose(loaded.rgb, rgb, atol=0.03)
    else:
        assert loaded.alpha is not None
        np.testing.assert_allclose(loaded.alpha, alpha, atol=0.03)
        np.testing.assert_allclose(loaded.rgb, rgb, atol=0.03)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "text", ['{"a": "b\\n", "style_weight": [1e4]}', '{"content": "Å ☃ 🐈.jpg"}', "", "\n é "]
)
def test_settings_come_back(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"out{suffix}"
    images.save(path, _smooth(8, 8), settings=text)
    assert images.read_settings(path) == text
    images.save(path, _smooth(8, 8))
    assert images.read_settings(path) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_settings_that_are_not_unicode_do_not_cost_the_picture(tmp_path: Path, suffix: str) -> None:
    images.save(tmp_path / f"out{suffix}", _smooth(1, 1), settings='{"content": "\udcff.jpg"}')
    assert images.read_settings(tmp_path / f"out{suffix}") == r'{"content": "\udcff.jpg"}'


def test_descriptions_by_others_are_no_settings(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "OLYMPUS DIGITAL CAMERA"
    Image.fromarray(COLORS).save(tmp_path / "in.jpg", exif=exif)
    assert images.read_settings(tmp_path / "in.jpg") is None
    with pytest.raises(InputError, match="must be a whole picture file"):
        images.read_settings(tmp_path / "absent.jpg")


def test_settings_too_long_for_a_jpeg_are_left_out(tmp_path: Path) -> None:
    for length, kept in ((65_000, True), (66_000, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            images.save(tmp_path / "out.jpg", _smooth(8, 8), settings="x" * length)
        assert (images.read_settings(tmp_path / "out.jpg") == "x" * length) == kept
        assert [str(warning.message).split(": ")[1] for warning in caught] == [
            "the settings are too long for a JPEG; left out"
        ] * (not kept)


def test_check_output_accepts_what_can_be_written(tmp_path: Path) -> None:
    for suffix in [*SUFFIXES, ".JPG"]:
        assert images.check_output(f"{tmp_path}/out{suffix}") == tmp_path / f"out{suffix}"
    assert images.check_output(tmp_path / "report.json", {".json"}) == tmp_path / "report.json"
    assert not list(tmp_path.iterdir())


def test_check_output_refuses_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"must end in one of \.png .*; .* '\.pgn' \(did you mean \.png\?\)"):
        images.check_output(tmp_path / "out.pgn")
    with pytest.raises(InputError, match="no extension"):
        images.check_output(tmp_path / "out")
    with pytest.raises(InputError, match=r"must end in one of \.json; .* '\.png'"):
        images.check_output(tmp_path / "out.png", {".json"})
    with pytest.raises(InputError, match="there is no folder"):
        images.check_output(tmp_path / "absent" / "out.png")
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(InputError, match="built without avif"):
        images.check_output(tmp_path / "out.avif")
    images.check_output(tmp_path / "out.png")


@pytest.mark.parametrize(("suffix", "longest"), [(".jpg", 65500), (".webp", 16383), (".avif", 32768)])
def test_sides_a_format_cannot_hold(tmp_path: Path, suffix: str, longest: int) -> None:
    path = tmp_path / f"out{suffix}"
    images.check_output_size(path, 1, longest)
    images.check_output_size(tmp_path / "out.png", 1, 100_000)
    for size in ((1, longest + 1), (longest + 1, 1)):
        with pytest.raises(InputError, match=f"at most {longest} pixels; the picture is {size[1]}x{size[0]}"):
            images.check_output_size(path, *size)
    with pytest.raises(InputError, match="at most"):
        images.save(path, np.zeros((1, longest + 1, 3), np.float32))
    images.save(path, np.zeros((1, longest, 3), np.float32))
    assert images.load(str(path)).rgb.shape == (1, longest, 3)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    images.save(tmp_path / "out.png", _smooth(4, 4))
    before = (tmp_path / "out.png").read_bytes()
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="out.png: .*; No space left on device"):
        images.save(tmp_path / "out.png", _smooth(5, 5))
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == before


# Writing for print: 16 bits, resolution, bands


def _decode(path: Path) -> np.ndarray:
    return _decode_png(path) if path.suffix == ".png" else tifffile.imread(path)


SIZES = [(1, 1), (1, 700), (700, 1), (13, 7), (31, 257)]


@pytest.mark.parametrize("band", [1, 300, 2**18])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_files_for_print_hold_every_sample(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    bit_depth: int,
    channels: int,
    size: tuple[int, int],
    band: int,
) -> None:
    monkeypatch.setattr(png_tiff, "BAND_SAMPLES", band)
    white = 2**bit_depth - 1
    samples = np.random.default_rng(0).integers(0, white + 1, (*size, channels))
    samples[..., 3:] = samples[..., 3:].clip(white // 20)  # float32 on white has no more of the faintest
    rgb, alpha = samples[..., :3] / white, None
    if channels == 4:
        alpha = (samples[..., 3] / white).astype(np.float32)
        opacity = samples[..., 3:] / white
        rgb = rgb * opacity + 1 - opacity
    path = tmp_path / f"out{suffix}"
    images.save(path, rgb.astype(np.float32), alpha=alpha, bit_depth=bit_depth)
    decoded = _decode(path)
    assert decoded.dtype.itemsize == bit_depth // 8
    np.testing.assert_array_equal(decoded, samples)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_all_levels_of_sixteen_bits_are_written(tmp_path: Path, suffix: str) -> None:
    levels = np.arange(2**16).reshape(128, 512, 1).repeat(3, -1)
    images.save(tmp_path / f"out{suffix}", (levels / 65535).astype(np.float32), bit_depth=16)
    if suffix == ".png":
        decoded = _decode_png(tmp_path / "out.png")
    else:
        decoded = tifffile.imread(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(decoded, levels)
    images.save(tmp_path / f"out{suffix}", np.array([[[-1, 2, 0.6 / 65535]]], np.float32), bit_depth=16)
    with Image.open(tmp_path / f"out{suffix}") as image:
        np.testing.assert_array_equal(np.asarray(image), [[[0, 255, 0]]])  # pillow shows the upper half


@pytest.mark.parametrize(
    ("suffix", "bit_depth"), [*((suffix, 8) for suffix in SUFFIXES), (".png", 16), (".tif", 16)]
)
def test_resolution_profile_and_settings_of_every_format(tmp_path: Path, suffix: str, bit_depth: int) -> None:
    first, second = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    for path in (first, second):
        images.save(path, _smooth(9, 7), settings='{"a": "☃"}', bit_depth=bit_depth, dpi=300)
    assert first.read_bytes() == second.read_bytes()
    assert images.read_settings(first) == '{"a": "☃"}'
    with Image.open(first) as image:
        assert image.info["icc_profile"] == image_io._srgb_icc()
        told, exif = image.info.get("dpi"), image.getexif()
    if suffix in (".webp", ".avif"):
        told = exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution]
        assert exif[ExifTags.Base.ResolutionUnit] == 2
    assert told == pytest.approx((300, 300), abs=0.01)
    images.save(first, _smooth(9, 7), bit_depth=bit_depth)
    with Image.open(first) as image:
        assert image.info.get("dpi", (1, 1)) == (1, 1)
        assert image.getexif().get(ExifTags.Base.ResolutionUnit, 1) == 1  # 1: no unit


def test_the_resolution_of_a_png_is_in_pixels_per_metre(tmp_path: Path) -> None:
    images.save(tmp_path / "out.png", _smooth(3, 3), dpi=254)
    kinds = [kind for kind, _ in _chunks(tmp_path / "out.png")]
    assert kinds.index(b"pHYs") < kinds.index(b"IDAT")
    assert dict(_chunks(tmp_path / "out.png"))[b"pHYs"] == struct.pack(">2IB", 10000, 10000, 1)


def test_tags_of_a_tiff(tmp_path: Path) -> None:
    images.save(
        tmp_path / "out.tif", _smooth(3, 3), alpha=_smooth(3, 3)[..., 0], settings="{}", bit_depth=16, dpi=300
    )
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        tags = tiff.pages[0].tags
        assert not tiff.is_bigtiff
        assert (tags["XResolution"].value, tags["ResolutionUnit"].value) == ((300, 1), 2)
        assert tags["ExtraSamples"].value == (2,)  # not premultiplied
        assert not {"Software", "DateTime"} & {tag.name for tag in tags}


def test_a_tiff_of_over_four_gigabytes_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_tiff, "MAX_CLASSIC_BYTES", 99)
    samples = np.arange(6 * 6 * 3).reshape(6, 6, 3)
    images.save(tmp_path / "out.tif", (samples / 255).astype(np.float32), settings="{}", dpi=72)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.is_bigtiff
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.tif")), samples)
    assert images.read_settings(tmp_path / "out.tif") == "{}"


def test_a_photograph_takes_little_more_room_than_with_pillow(tmp_path: Path) -> None:
    for name in ("cat", "rocket"):
        rgb = images.load(f"example:{name}").rgb
        images.save(tmp_path / "out.png", rgb)
        pillow = len(_bytes(Image.fromarray(images.to_uint8(rgb)), "PNG", icc_profile=image_io._srgb_icc()))
        assert (tmp_path / "out.png").stat().st_size < 1.05 * pillow


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_files_for_print_are_written_without_a_second_copy(
    tmp_path: Path, suffix: str, bit_depth: int
) -> None:
    images.save(tmp_path / f"out{suffix}", _smooth(8, 8), bit_depth=bit_depth)  # what is imported and cached
    rgb = np.full((4000, 2000, 3), 0.25, np.float32)  # 92 MiB; of one byte a sample 23 MiB
    alpha = rgb[..., 0].copy()
    tracemalloc.start()
    try:
        images.save(tmp_path / f"out{suffix}", rgb, alpha=alpha, bit_depth=bit_depth)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


def test_sixteen_bits_are_for_png_and_tiff(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        images.check_bit_depth(f"out{suffix}", 8)
    for suffix in (".png", ".tif", ".TIFF"):
        images.check_bit_depth(f"out{suffix}", 16)
    for suffix in (".jpg", ".webp", ".avif"):
        with pytest.raises(InputError, match=r"`bit_depth`: 8, or 16 for \.png \.tif \.tiff; got 16 for out"):
            images.check_bit_depth(f"out{suffix}", 16)
    with pytest.raises(InputError, match="`bit_depth`: 8 or 16; got 12"):
        images.save(tmp_path / "out.png", _smooth(2, 2), bit_depth=12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("band", [0, 5])
def test_a_disk_that_fills_up_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, band: int
) -> None:
    path, asked = tmp_path / f"out{suffix}", []

    def fill(array: np.ndarray, bit_depth: int) -> np.ndarray:
        asked.append(len(list(tmp_path.iterdir())))
        if len(asked) > band:
            raise OSError(28, "No space left on device")
        return whole_numbers(array, bit_depth)

    images.save(path, _smooth(40, 50))
    before, whole_numbers = path.read_bytes(), image_io._whole_numbers
    monkeypatch.setattr(png_tiff, "BAND_SAMPLES", 500)
    monkeypatch.setattr(image_io, "_whole_numbers", fill)
    with pytest.raises(
        InputError, match="out.*: must be a file that can be written; No space left on device"
    ):
        images.save(path, _smooth(40, 50))
    assert asked[-1] == 2  # it was being written, beside the old one
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


class Disk(NamedTuple):
    """What shutil.disk_usage tells."""

    total: int
    used: int
    free: int


def test_a_disk_that_cannot_hold_the_picture_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Disk:
        asked.append(path)
        return Disk(10**12, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    (tmp_path / "other").mkdir()
    (tmp_path / "link.tif").symlink_to(tmp_path / "other" / "out.tif")
    free = 25 * 2**20
    images.check_space(tmp_path / "link.tif", 2**11, 2**12)  # 24 MiB
    assert asked == [tmp_path / "other"]
    for name, alpha, bit_depth, needed in (
        ("a.tif", True, 8, 33),
        ("a.png", False, 16, 49),
        ("a.png", True, 16, 65),
    ):
        allowed = f"must lie on a disk with {needed} MiB free, which it may need; 25 MiB are free"
        with pytest.raises(InputError, match=f"{name}: {allowed}"):
            images.check_space(tmp_path / name, 2**11, 2**12, alpha=alpha, bit_depth=bit_depth)
    images.check_space(tmp_path / "a.jpg", 2**11, 2**12, alpha=True)
    free -= 1
    with pytest.raises(InputError, match="25 MiB free, which it may need; 24 MiB"):
        images.check_space(tmp_path / "a.jpg", 2**11, 2**12)


def test_a_disk_that_does_not_tell_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Disk:
        raise OSError(38, "Function not implemented")

    for usage in (refuse, lambda path: Disk(0, 0, 0)):
        monkeypatch.setattr(shutil, "disk_usage", usage)
        images.check_space(tmp_path / "a.png", 2**14, 2**14)


@pytest.mark.parametrize(
    ("suffix", "bit_depth"), [*((suffix, 8) for suffix in SUFFIXES), (".png", 16), (".tif", 16)]
)
def test_no_file_is_larger_than_the_room_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, bit_depth: int
) -> None:
    path, alpha = tmp_path / f"out{suffix}", None if suffix == ".jpg" else _random(600, 800)
    images.save(path, _random(600, 800, 3), alpha=alpha, bit_depth=bit_depth)  # noise: nothing to compress
    size = path.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(10**12, 0, size))
    with pytest.raises(InputError, match="MiB are free"):
        images.check_space(path, 600, 800, alpha=alpha is not None, bit_depth=bit_depth)
