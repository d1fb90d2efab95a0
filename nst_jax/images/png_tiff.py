"""PNG and TIFF files of 8 or 16 bits a channel, written in bands of rows; equal input gives equal bytes."""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16

SETTINGS = "nst_jax"  # the name under which files keep the text
BAND_SAMPLES = 2**18  # samples in a band: few enough to stay in a processor's cache
MAX_CLASSIC_BYTES = 2**32 - 2**24  # of pixels in a TIFF with offsets of 32 bits, less what is beside them

Band = UInt8[np.ndarray, "rows w c"] | UInt16[np.ndarray, "rows w c"]


class Header(NamedTuple):
    """What a file says of its pixels."""

    shape: tuple[int, int, int]  # rows, columns, channels: red, green, blue and perhaps alpha
    bit_depth: int  # bits a channel, 8 or 16
    icc: bytes  # the color profile
    dpi: int  # pixels per inch; 0: not said
    text: str | None  # the settings


def bands(shape: tuple[int, int, int], samples: int) -> Iterator[slice]:
    """Yield the rows of each band of so many samples, from top to bottom, at least one row each."""
    height, step = shape[0], _rows(shape, samples)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _rows(shape: tuple[int, int, int], samples: int) -> int:
    return max(1, samples // (shape[1] * shape[2]))


def write_png(file: BinaryIO, header: Header, pixels: Callable[[slice], Band]) -> None:
    """Write a PNG, asking pixels for one band after the other.

    Args:
        file: Open for writing.
        header: Size, type and metadata.
        pixels: Returns the band of some rows.
    """
    height, width, channels = header.shape
    color = {3: 2, 4: 6}[channels]
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">2I5B", width, height, header.bit_depth, color, 0, 0, 0))
    _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(header.icc))
    if header.dpi:
        per_meter = round(header.dpi / 0.0254)
        _chunk(file, b"pHYs", struct.pack(">2IB", per_meter, per_meter, 1))
    if header.text is not None:
        _chunk(file, b"iTXt", SETTINGS.encode() + bytes(5) + header.text.encode())
    sample = header.bit_depth // 8
    above = np.zeros((1, width * channels * sample), np.uint8)
    packer = zlib.compressobj(strategy=zlib.Z_FILTERED)
    for rows in bands(header.shape, BAND_SAMPLES):
        band = pixels(rows)
        row_bytes = band.astype(f">u{sample}").reshape(len(band), -1).view(np.uint8)
        if packed := packer.compress(_paeth(row_bytes, above, channels * sample).data):
            _chunk(file, b"IDAT", packed)
        above = row_bytes[-1:]
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _paeth(
    rows: UInt8[np.ndarray, "h n"], above: UInt8[np.ndarray, "1 n"], step: int
) -> UInt8[np.ndarray, "h n+1"]:
    """Return rows less what their neighbors (left, up, corner) let expect, each after its filter's number.

    step is the number of bytes of a pixel. Always the fourth filter: on photographs the best for each row,
    as pillow chooses it, saves 1 % more.
    """
    up = np.concatenate([above, rows[:-1]])
    left, corner = (np.pad(array[:, :-step], ((0, 0), (step, 0))) for array in (rows, up))
    a, b, c = (array.astype(np.int16) for array in (left, up, corner))
    off_a, off_b, off_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where(off_b <= off_c, up, corner)
    nearest = np.where((off_a <= off_b) & (off_a <= off_c), left, nearest)
    return np.pad(rows - nearest, ((0, 0), (1, 0)), constant_values=4)


def write_tiff(file: BinaryIO, header: Header, pixels: Callable[[slice], Band]) -> None:
    """Write a TIFF, asking pixels for one band after the other; one of over 4 GiB is a BigTIFF.

    Args:
        file: Open for writing.
        header: Size, type and metadata.
        pixels: Returns the band of some rows.
    """
    import tifffile  # not at every start

    samples = int(np.prod(header.shape))
    with tifffile.TiffWriter(
        file, bigtiff=samples * header.bit_depth // 8 > MAX_CLASSIC_BYTES, byteorder="<"
    ) as tiff:
        tiff.write(
            (_strip(pixels(rows)) for rows in bands(header.shape, BAND_SAMPLES)),
            shape=header.shape,
            dtype=f"<u{header.bit_depth // 8}",
            photometric="RGB",
            extrasamples=["UNASSALPHA"] if header.shape[2] == 4 else None,
            compression="ADOBE_DEFLATE",
            predictor="HORIZONTAL",
            rowsperstrip=_rows(header.shape, BAND_SAMPLES),
            iccprofile=header.icc,
            description=None if header.text is None else f"{SETTINGS} {header.text}".encode(),
            metadata=None,
            software=False,
            resolution=(header.dpi, header.dpi) if header.dpi else None,
            resolutionunit="INCH" if header.dpi else None,
        )


def _strip(band: Band) -> bytes:
    differences = band.copy()
    differences[:, 1:] -= band[:, :-1]
    return zlib.compress(differences.astype(band.dtype.newbyteorder("<")).tobytes())
