"""TIFF as pillow leaves it: which picture of a file is meant, and layouts it reads wrongly or not at all."""

import contextlib
import math
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import ImageFile, TiffImagePlugin

from nst_jax.images.metadata import File

SEPARATE = 2  # PlanarConfiguration: each channel apart
SIGNED = 2  # SampleFormat
REDUCED, MASK = 1, 4  # bits of NewSubfileType: a smaller copy of another picture, a mask of one
CHANNELS = {0: 1, 1: 1, 2: 3, 5: 4}  # by PhotometricInterpretation: white is 0, black is 0, RGB, CMYK
WHITE_IS_ZERO, RGB = 0, 2
PREMULTIPLIED, STRAIGHT = 1, 2  # ExtraSamples
RAW = (32803, 34892)  # PhotometricInterpretation: mosaics and linear colors of cameras
DEFLATED = (8, 32946)  # Compression; 1: none
DEVELOP = "convert it to TIFF or PNG with a raw developer"
SAVE = "save it as RGB of 8 or 16 bits"
SPARE_TILE_BYTES = 2**24  # bytes that the tiles of a small picture may have beyond it

# libtiff gives samples in the machine's order of bytes, which pillow knows for some of them only.
NATIVE = {
    f"{kind}{order}{sign}": f"{kind}N{sign}"
    for kind, sign in (("F;32", "F"), ("I;16", "S"), ("I;32", "S"))
    for order in ("", "B")
}
# Channels that lie apart pillow only puts together, so nothing else may be left to do.
PLAIN = ("RGB", "RGBX", "RGBA", "CMYK", "CMYKX", "RGB;16N", "RGBX;16N", "RGBA;16N", "CMYK;16N")

Samples = UInt8[np.ndarray, "h w s"] | UInt16[np.ndarray, "h w s"] | Float32[np.ndarray, "h w s"]
Sample = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"] | Float32[np.ndarray, "h w"]


class Layers(NamedTuple):
    """The samples of a TIFF: whole numbers up to their type's largest, or floats in [0, 1]."""

    colors: Samples  # one channel, gray; three; or four, cyan to black
    opacity: Sample | None
    icc: bytes
    orientation: int


def is_tiff(file: File) -> bool:
    """Tell it by the first bytes."""
    file.seek(0)
    return file.read(4) in TiffImagePlugin.PREFIXES


def choose(image: ImageFile.ImageFile) -> None:
    """Go to the first picture of a file that is no smaller copy of another; raises ValueError without one."""
    first, number = image.size, 0
    while _is_reduced(_tags(image).get(254, 0), _tags(image).get(255, 1)):
        number += 1
        try:
            image.seek(number)
        except EOFError:
            raise ValueError(_only_a_preview(*first)) from None
    image.tile = [_native(tile) for tile in image.tile]


def _tags(image: ImageFile.ImageFile) -> TiffImagePlugin.ImageFileDirectory_v2:
    return cast(TiffImagePlugin.TiffImageFile, image).tag_v2


def _is_reduced(kind: int, old_kind: int) -> bool:
    return bool(kind & (REDUCED | MASK)) or old_kind == 2


def _only_a_preview(width: int, height: int) -> str:
    return f"only a preview of {width}x{height} is found, as raw files of cameras have it; {DEVELOP}"


def _native(tile: ImageFile._Tile) -> ImageFile._Tile:
    if tile.codec_name != "libtiff":
        return tile
    assert isinstance(tile.args, tuple)
    return tile._replace(args=(NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))


def is_separate(image: ImageFile.ImageFile) -> bool:
    """Tell whether a TIFF keeps each channel apart."""
    tags = _tags(image)
    return tags.get(284, 1) == SEPARATE and tags.get(277, 1) > 1


def is_misread(image: ImageFile.ImageFile) -> bool:
    """Tell whether pillow would make something else of a TIFF than its tags say."""
    tags, tile = _tags(image), image.tile[0]
    if is_separate(image):
        return tile.codec_name != "libtiff" or not isinstance(tile.args, tuple) or tile.args[0] not in PLAIN
    if tags.get(262) == 6 and tile.codec_name == "raw":
        return bool(tags.get(530, (2, 2)) != (1, 1))  # fewer samples of color than of lightness
    return SIGNED in tags.get(339, ()) and max(tags.get(258, (1,))) == 8


def measure(file: File) -> tuple[int, int, int]:
    """Return the rows, columns and bytes a pixel that decode takes; raises ValueError where it would."""
    with _page(file) as page:
        return page.imagelength, page.imagewidth, page.samplesperpixel * (3 * page.dtype.itemsize + 5)


def decode(file: File) -> Layers:
    """Read a picture with tifffile; raises ValueError for a layout that leaves something to guess."""
    with _page(file) as page:
        _check_parts(page)
        samples = page.asarray()
        if page.planarconfig == SEPARATE:
            samples = np.moveaxis(samples.reshape(-1, page.imagelength, page.imagewidth), 0, -1)
        samples = samples.reshape(page.imagelength, page.imagewidth, -1)
        alpha, channels = _alpha(page), CHANNELS[page.photometric]
        icc, orientation = page.iccprofile or b"", page.tags.valueof(274, 1)
        white_is_zero = page.photometric == WHITE_IS_ZERO
    if samples.dtype.kind == "f":
        samples = np.clip(np.nan_to_num(samples.astype(np.float32), copy=False), 0, 1)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    colors, opacity = samples[..., :channels], samples[..., channels] if alpha else None
    white = np.float32(1) if samples.dtype.kind == "f" else samples.dtype.type(np.iinfo(samples.dtype).max)
    if white_is_zero:
        colors = white - colors
    if opacity is not None and alpha == PREMULTIPLIED:
        colors = np.clip(colors / np.maximum(opacity, np.float32(1e-6))[..., None], 0, 1, dtype=np.float32)
    return Layers(colors, opacity, icc, orientation)


@contextlib.contextmanager
def _page(file: File) -> Iterator[Any]:
    """Give tifffile's page of the first picture that is no smaller copy of another, if decode knows it."""
    import tifffile  # not at every start

    file.seek(0)
    with tifffile.TiffFile(cast(BinaryIO, file)) as tiff:
        pages: Any = tiff.pages
        for page in pages:
            if not _is_reduced(page.subfiletype, page.tags.valueof(255, 1)):
                _check(page)
                yield page
                return
        raise ValueError(_only_a_preview(pages[0].imagewidth, pages[0].imagelength))


def _alpha(page: Any) -> int:
    """Return how the first sample beyond the colors is opacity, as pillow takes it; 0 where it is none."""
    if page.extrasamples:
        return page.extrasamples[0] if page.extrasamples[0] in (PREMULTIPLIED, STRAIGHT) else 0
    return STRAIGHT if page.photometric == RGB and page.samplesperpixel == 4 else 0


def _check(page: Any) -> None:
    """Raise ValueError for what decode does not know, or knows more than one reading of."""
    sizes = page.imagelength, page.imagewidth, page.samplesperpixel, page.imagedepth
    if not all(isinstance(size, int) and size > 0 for size in sizes):  # a damaged tag gives several numbers
        raise ValueError("its size is no size")
    if page.photometric in RAW:
        raise ValueError(f"it is a raw file of a camera; {DEVELOP}")
    kinds = [f"{page.samplesperpixel} samples a pixel of {page.dtype or f'{page.bitspersample} bits'}"]
    kinds += ["each apart"] if page.planarconfig == SEPARATE and page.samplesperpixel > 1 else []
    kinds += [getattr(value, "name", str(value)) for value in (page.photometric, page.compression)]
    named = len(page.extrasamples) or (page.photometric == RGB and page.samplesperpixel == 4)
    if (
        page.dtype not in ("uint8", "uint16", "float16", "float32", "float64")
        or page.bitspersample != 8 * page.dtype.itemsize
        or page.photometric not in CHANNELS
        or page.samplesperpixel != CHANNELS[page.photometric] + named
        or page.compression not in (1, *DEFLATED)
        or page.predictor not in (1, 2)
        or page.fillorder != 1
        or page.imagedepth != 1
    ):
        raise ValueError(f"a TIFF of this layout is not read ({', '.join(kinds)}); {SAVE}")


def _check_parts(page: Any) -> None:
    """Raise ValueError where strips or tiles do not fill the picture, or unpack to more than they should."""
    file, part, whole = page.parent.filehandle, math.prod(page.chunks) * page.dtype.itemsize, 0
    count = len(page.dataoffsets)
    if count != math.prod(page.chunked) or count * part > 4 * page.nbytes + SPARE_TILE_BYTES:
        raise ValueError("its strips or tiles do not fit its size")
    for place, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if place + size > file.size:
            raise ValueError("image file is truncated")
        if page.compression in DEFLATED:
            file.seek(place)
            unpacker = zlib.decompressobj()
            whole += len(unpacker.decompress(file.read(size), part))
            if not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
                raise ValueError("its strips or tiles do not fit its size")
        else:
            whole += size
    if whole < page.nbytes:
        raise ValueError("image file is truncated")
