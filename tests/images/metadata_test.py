import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.mutate import png
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from nst_jax import images
from nst_jax.errors import InputError

Y, X = np.mgrid[:24, :40]
RGB = np.stack([X * 6, Y * 9, 255 - X * 5], -1).astype(np.uint8)
SMOOTH = Image.fromarray(RGB)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _bytes(image: Image.Image, name: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, name, **options)
    return data.getvalue()


def _png(*more: tuple[bytes, bytes], broken: bytes = b"", behind: bool = False) -> bytes:
    """Return a PNG of RGB with more chunks, the checksums of one kind of them wrong."""
    rows = b"".join(b"\0" + row.tobytes() for row in RGB)
    picture = [(b"IHDR", struct.pack(">2I5B", 40, 24, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    chunks = [*picture, *more] if behind else [picture[0], *more, picture[1]]
    data = bytearray(png([*chunks, (b"IEND", b"")]))
    if broken:
        place = data.index(broken)
        (size,) = struct.unpack_from(">I", data, place - 4)
        data[place + 4 + size] ^= 1
    return bytes(data)


def _jpeg_with(body: bytes) -> bytes:
    """Return a JPEG with an APP1 segment."""
    data = _bytes(SMOOTH, "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def _read(tmp_path: Path, data: bytes) -> tuple[np.ndarray, list[str]]:
    """Return the colors of a file and the warnings, without its name."""
    (tmp_path / "in").write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = images.read(str(tmp_path / "in"))
    return source.colors, [str(warning.message).removeprefix(f"{tmp_path / 'in'}: ") for warning in caught]


def _profile(size: int) -> bytes:
    """Return the profile of sRGB with something behind it."""
    return struct.pack(">I", size) + SRGB[4:] + bytes(size - len(SRGB))


DROPPED = {
    "no TIFF in Exif": ((b"eXIf", b"\0\x08\0\2\1\x12\0\3"), "its Exif is broken, and not used"),
    "Python in Exif": ((b"eXIf", b"b'Exif\\x00\\x00MM'"), "its Exif is broken, and not used"),
    "Python as Exif": ((b"tEXt", b"exif\0b'Exif\\x00MM'"), "its Exif is broken, and not used"),
    "no digits": ((b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzz\n"), "its Exif is broken, and not used"),
    "2 MiB of zTXt": ((b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21))), None),
    "2 MiB of iTXt": ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**21))), None),
    "2 MiB of iCCP": ((b"iCCP", b"scanner\0\0" + zlib.compress(_profile(2**21))), None),
    "a huge zTXt": (
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**25))),
        "its zTXt chunk is broken or too",
    ),
    "a huge iCCP": ((b"iCCP", b"s\0\0" + zlib.compress(_profile(2**25))), "its iCCP chunk is broken or too"),
    "a huge unknown one": ((b"noNe", bytes(2**24 + 1)), "its noNe chunk is broken or too large; not used"),
    "a method of iCCP": (
        (b"iCCP", b"icc\0\1" + zlib.compress(SRGB)),
        "its iCCP chunk is broken or too large",
    ),
    "a damaged iCCP": ((b"iCCP", b"icc\0\0junk"), "its iCCP chunk is broken or too large; not used"),
    "a short gAMA": ((b"gAMA", b"\0"), "its gAMA chunk is broken or too large; not used"),
    "a short pHYs": ((b"pHYs", bytes(8)), "its pHYs chunk is broken or too large; not used"),
    "a short tRNS": ((b"tRNS", b"\0"), "its tRNS chunk is broken or too large; not used"),
    "an animation": ((b"fcTL", b"\0"), None),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", DROPPED)
def test_what_lies_beside_the_pixels_of_a_png_costs_no_picture(
    tmp_path: Path, kind: str, behind: bool
) -> None:
    chunk, told = DROPPED[kind]
    colors, caught = _read(tmp_path, _png(chunk, behind=behind))
    np.testing.assert_array_equal(colors, RGB)
    assert len(caught) == (told is not None)
    assert not told or caught[0].startswith(told)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", [b"tEXt", b"tIME", b"gAMA", b"iCCP", b"eXIf", b"tRNS"])
def test_a_chunk_with_a_wrong_checksum_is_left_out(tmp_path: Path, kind: bytes, behind: bool) -> None:
    colors, caught = _read(tmp_path, _png((kind, bytes(9)), broken=kind, behind=behind))
    np.testing.assert_array_equal(colors, RGB)
    assert caught == [f"its {kind.decode()} chunk is broken or too large; not used"]
    assert images.read_settings(tmp_path / "in") is None


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_pixels_with_a_wrong_checksum_are_refused(tmp_path: Path, kind: bytes) -> None:
    data = _png(broken=kind)
    if kind == b"IDAT":
        data = data[: data.index(b"IDAT") + 20] + bytes(20) + data[data.index(b"IDAT") + 40 :]
    with pytest.raises(InputError, match="must be a whole picture file"):
        _read(tmp_path, data)


def test_a_broken_chunk_costs_no_other(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    turned = (b"eXIf", exif.tobytes()[6:])
    settings = (b"iTXt", b"nst_jax" + bytes(5) + b"{}")
    colors, caught = _read(tmp_path, _png((b"tEXt", b"a\0b"), turned, settings, broken=b"tEXt"))
    np.testing.assert_array_equal(colors, RGB[::-1, ::-1])
    assert len(caught) == 1
    assert images.read_settings(tmp_path / "in") == "{}"


def test_texts_of_many_megabytes_cost_no_picture(tmp_path: Path) -> None:
    texts = [(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(15 * 2**20))) for n in range(6)]
    colors, caught = _read(tmp_path, _png(*texts))
    np.testing.assert_array_equal(colors, RGB)
    assert set(caught) == {"its zTXt chunk is broken or too large; not used"}
    assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20  # pillow's own again


def test_the_rest_of_a_webp_with_broken_exif_is_read(tmp_path: Path) -> None:
    colors, caught = _read(tmp_path, _bytes(SMOOTH, "WEBP", lossless=True, exif=b"Exif\0\0nothing here"))
    np.testing.assert_array_equal(colors, RGB)
    assert caught == ["its Exif is broken, and not used"]


# Color that is told and not applied


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ([(b"gAMA", struct.pack(">I", 45455))], ""),
        ([(b"gAMA", struct.pack(">I", 100000))], "gAMA"),
        ([(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")], ""),
        ([(b"gAMA", struct.pack(">I", 100000)), (b"iCCP", b"a\0\0" + zlib.compress(SRGB))], ""),
        ([(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))], ""),
        ([(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))], "cHRM"),
        ([(b"cICP", bytes([1, 13, 0, 1]))], ""),
        ([(b"cICP", bytes([12, 13, 0, 1]))], "cICP"),
        ([(b"cICP", bytes([12, 13, 0, 1])), (b"sRGB", b"\0")], "cICP"),
    ],
)
def test_colors_of_a_png_that_are_not_applied_are_told(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], told: str
) -> None:
    colors, caught = _read(tmp_path, _png(*chunks))
    np.testing.assert_array_equal(colors, RGB)
    assert caught == ([f"read as sRGB; its {told} says otherwise, and is not applied"] if told else [])


@pytest.mark.parametrize(
    ("index", "icc", "told"), [("R98", b"", False), ("R03", b"", True), ("R03", SRGB, False)]
)
def test_adobe_rgb_that_only_exif_tells_is_told(tmp_path: Path, index: str, icc: bytes, told: bool) -> None:
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {0xA001: 65535, ExifTags.IFD.Interop: {1: index}}
    _, caught = _read(tmp_path, _bytes(SMOOTH, "JPEG", exif=exif, icc_profile=icc or None))
    adobe = "read as sRGB; its Exif says Adobe RGB (InteropIndex R03), which is not applied"
    assert caught == ([adobe] if told else [])


# JPEG: what stands in front of the data and behind it


def _orientation(kind: int, count: int, value: bytes) -> bytes:
    entry = struct.pack("<HHI", ExifTags.Base.Orientation, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + bytes(4)


SHORT, LONG, ASCII, UNDEFINED = 3, 4, 2, 7
XMP = b'http://ns.adobe.com/xap/1.0/\0<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%b"/>'


@pytest.mark.parametrize(
    ("body", "turned"),
    [
        (_orientation(SHORT, 1, b"\6"), True),
        (_orientation(LONG, 1, b"\6"), True),
        (_orientation(SHORT, 2, b"\6\0\6\0"), True),
        (_orientation(SHORT, 1, b"\0"), False),
        (_orientation(SHORT, 1, b"\x09"), False),
        (_orientation(SHORT, 1, b"\xff\xff"), False),
        (_orientation(ASCII, 2, b"6"), False),
        (_orientation(UNDEFINED, 1, b"\6"), False),
        (XMP % b"6", True),
        (XMP % b"\xff\xfe6", False),
        (b"Exif\0\0", False),
        (b"Exif\0\0II*\0", False),
        (b"Exif\0\0II*\0\x88\x13\0\0", False),  # its directory lies behind its end
        (b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\0\0", False),
        (b"Exif\0\0http://nothing", False),
    ],
)
def test_odd_orientations_of_a_jpeg(tmp_path: Path, body: bytes, turned: bool) -> None:
    plain, _ = _read(tmp_path, _bytes(SMOOTH, "JPEG"))
    colors, _ = _read(tmp_path, _jpeg_with(body))
    np.testing.assert_array_equal(colors, plain[::-1].swapaxes(0, 1) if turned else plain)


@pytest.mark.parametrize(
    "trailer",
    [
        b"\0" * 1000 + b"trailer",
        b"<!-- cached -->\n",
        _bytes(NOISE, "JPEG"),
        b"\0\0samsung" + bytes(range(256)),
    ],
)
def test_what_follows_a_jpeg_is_left_out(tmp_path: Path, trailer: bytes) -> None:
    plain, _ = _read(tmp_path, _bytes(SMOOTH, "JPEG"))
    colors, caught = _read(tmp_path, _bytes(SMOOTH, "JPEG") + trailer)
    np.testing.assert_array_equal(colors, plain)
    assert caught == []


@pytest.mark.parametrize("image", [SMOOTH, NOISE, Image.new("RGB", (40, 24), (128, 128, 128))])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0, "quality": 95}, {"restart_marker_rows": 1}, {"progressive": True}]
)
def test_a_jpeg_without_its_end_marker_is_read_if_no_row_is_missing(
    tmp_path: Path, image: Image.Image, options: dict[str, Any]
) -> None:
    data = _bytes(image, "JPEG", **options)
    whole, _ = _read(tmp_path, data)
    colors, caught = _read(tmp_path, data[:-2])
    np.testing.assert_array_equal(colors, whole)
    assert caught == ["its end marker is missing; all its rows are there"]
    start = data.index(b"\xff\xda")
    for end in range(start, len(data) - 2, 1 + len(data) // 200):
        if data[end : end + 2] == b"\xff\xc4" or data[end : end + 2] == b"\xff\xda":
            continue  # just between two passes of a progressive one
        try:
            colors, _ = _read(tmp_path, data[:end])
        except InputError:
            continue
        np.testing.assert_array_equal(colors, whole, err_msg=f"cut at {end} of {len(data)}")
