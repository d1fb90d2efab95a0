"""Picture files and host arrays: float32, sRGB in [0, 1], height by width by channels."""

import contextlib
import functools
import io
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageFile,
    PngImagePlugin,
    UnidentifiedImageError,
    features,
)

from nst_jax import files
from nst_jax.errors import InputError, did_you_mean
from nst_jax.files import atomic_write, check_writable
from nst_jax.images import metadata, png_tiff, tiff
from nst_jax.images.metadata import UNREADABLE
from nst_jax.images.png_tiff import SETTINGS

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = "example:"
MAX_PIXELS = 100_000_000
BYTES = 10  # that reading takes at its peak for each of MAX_PIXELS, so that it stays below 1 GiB
LAVISH = {"AVIF": 12, "JPEG2000": 25, "WEBP": 16}  # decoders that take more

# Named one by one: pillow would also try formats that start other programs (EPS runs Ghostscript).
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000")
# What people take for a picture file, or what looks like one to pillow: patterns of the first bytes.
FOREIGN = {
    rb"\Z": "it is empty",
    rb"(?i:\s*<(!doctype html|html))": "it is a web page (HTML), not a picture",
    rb"(?i:\s*(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg)": (
        "it is SVG; export it as PNG"
    ),
    rb"....ftyp(hei|hev|mif1(?!.{,64}avif))": "it is HEIC; convert it to JPEG or PNG",
    rb"\xff\x0a|....JXL ": "it is JPEG XL; convert it to PNG",
    rb"....ftypcrx|FUJIFILM|II\*\0\x10\0\0\0CR\x02\0|IIR[OS]|IIU\0": (
        f"it is a raw file of a camera; {tiff.DEVELOP}"
    ),
    rb"%PDF": "it is PDF; export it as PNG",
    rb"8BPS": "it is a Photoshop file; export it as PNG or TIFF",
}
SPARE_BYTES = 2**20  # bytes: more than a file holds beside its pixels, but for settings of many files
DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # gray, more than 8 bits
KEY_SCALES = {"L;2": 85, "L;4": 17}  # pillow scales the samples of a PNG, and not the one that is transparent
BAND_SAMPLES = 2**23  # samples in a band that is resampled: each has to compute its weights anew
# Of 16 bits of color pillow reads the upper byte; told the other order of bytes, it reads the lower one.
OTHER = "B" if sys.byteorder == "little" else "L"  # than this machine's
OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("L", "B"), ("B", "L"), ("N", OTHER))
}

# What brings pixels upright, by Exif's orientation: views, no copies. TIFFs come upright from pillow.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}

Plane = Float32[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]
Planes = Float32[np.ndarray, "h w c"] | UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]


class Picture(NamedTuple):
    """A picture: `rgb` (h, w, 3) in [0, 1] on white, and its opacity `alpha` (h, w), None if it is opaque."""

    rgb: Float32[np.ndarray, "h w 3"]
    alpha: Float32[np.ndarray, "h w"] | None


class Source(NamedTuple):
    """What a file holds, not yet on white: whole numbers up to their type's largest, or floats in [0, 1].

    So that what is used at a smaller size never exists in float32 at its full one.
    """

    colors: Planes  # one, gray, or three
    opacity: Plane | None  # None where all is opaque

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.colors.shape[0], self.colors.shape[1]

    @property
    def alpha(self) -> Float32[np.ndarray, "h w"] | None:
        """The opacity in [0, 1], None where all is opaque."""
        return None if self.opacity is None else _unit(self.opacity)

    def rgb(self, height: int, width: int) -> Float32[np.ndarray, "{height} {width} 3"]:
        """Return the picture on white at height by width pixels: what resize makes of it, to the bit."""
        picture = np.empty((height, width, 3), np.float32)
        for channel in range(3):
            narrow = np.empty((self.size[0], width), np.float32)
            for rows in png_tiff.bands((*self.size, 1), BAND_SAMPLES):
                narrow[rows] = _resample(self._on_white(rows, channel), rows.stop - rows.start, width)
            picture[..., channel] = _resample(narrow, height, width)
        return np.clip(picture, 0, 1, out=picture)

    def bands(self) -> Iterator[tuple[slice, Float32[np.ndarray, "3 rows w"], Plane | None]]:
        """Yield rows from top to bottom: which they are, their channels on white, their opacity in [0, 1]."""
        for rows in png_tiff.bands((*self.size, 3), png_tiff.BAND_SAMPLES):
            rgb = np.stack([self._on_white(rows, channel) for channel in range(3)])
            yield rows, rgb, None if self.opacity is None else _unit(self.opacity[rows])

    def _on_white(self, rows: slice, channel: int) -> Float32[np.ndarray, "rows w"]:
        colors = _unit(self.colors[rows, :, min(channel, self.colors.shape[2] - 1)])
        if self.opacity is None:
            return colors
        opacity = _unit(self.opacity[rows])
        return np.clip(colors * opacity + (1 - opacity), 0, 1)


def _unit(samples: Plane | Planes) -> Float32[np.ndarray, "..."]:
    if samples.dtype == np.float32:
        return samples
    return samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)


class Format(NamedTuple):
    """How a kind of file is written."""

    name: str  # pillow's
    longest: int  # side, in pixels
    alpha: bool  # is it kept?
    # None: by pillow
    write: Callable[[BinaryIO, png_tiff.Header, Callable[[slice], png_tiff.Band]], None] | None
    options: dict[str, Any]  # pillow's


# JPEG: the limit is libjpeg's own, not the 65535 of the standard; color is not subsampled.
# WebP: lossless, keeping the color of transparent pixels. AVIF: the limit is what decoders accept;
# one thread, because the bytes depend on the number of threads.
_JPEG = Format("JPEG", 65500, False, None, {"quality": 95, "subsampling": "4:4:4"})
_TIFF = Format("TIFF", 2**31 - 1, True, png_tiff.write_tiff, {})
_AVIF = {"quality": 90, "subsampling": "4:4:4", "max_threads": 1}
FORMATS = {
    ".png": Format("PNG", 2**31 - 1, True, png_tiff.write_png, {}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", 16383, True, None, {"lossless": True, "exact": True}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".avif": Format("AVIF", 32768, True, None, _AVIF),
}
DEPTHS = (8, 16)  # bits a channel


def resolve(name: str | Path) -> Path:
    """Return the file that name stands for: "example:NAME" is a picture of the package, else it is a path.

    Raises InputError for an example that does not exist.
    """
    name = str(name)
    if re.match("https?://", name):
        raise InputError(name, "a file or example:NAME", "it is an address; download it first")
    if not name.startswith(EXAMPLE):
        return Path(name)
    wanted, names = name.removeprefix(EXAMPLE), _examples()
    if wanted not in names:
        raise InputError(name, f"one of {', '.join(names)}", f"{wanted!r}{did_you_mean(wanted, names)}")
    return names[wanted]


def load(name: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture file or "example:NAME" in float32, at its full size, on white where it is transparent.

    Raises InputError if the file is missing, damaged or no picture.
    """
    source = read(name, max_pixels)
    return Picture(source.rgb(*source.size), source.alpha)


def read(name: str | Path, max_pixels: int = MAX_PIXELS) -> Source:
    """Read a picture file or "example:NAME", upright, in sRGB; of an animation the first frame.

    The embedded color profile is applied (perceptual intent). A profile that cannot be used is a UserWarning.
    Without a usable profile the picture is read as sRGB, CMYK as (1-c)(1-k).

    Depth: gray keeps 12 or 16 bits. Red, green and blue keep 16 bits in PNG and TIFF. So does what only
    tifffile reads of TIFF: gray with alpha of 16 bits, color in floating point. Floating point is clipped to
    [0, 1]; 32-bit integer gray has its white at 65535. Gray with a profile, and color with one that is not
    sRGB, are rounded to 8 bits. All other color of 16 bits is read as 8 (pillow).

    Metadata costs no picture. Broken metadata is a UserWarning, and so are tags about colors that are not
    applied. A picture that is transparent all over is one, too. Of a TIFF the first picture is read that is
    no preview.

    Raises:
        InputError: The file is missing, no picture, damaged, or a TIFF of a layout that leaves something to
            guess. Or it has more than max_pixels. AVIF, WebP, JPEG 2000 and some pictures of 16 bits or in
            floating point may have fewer, because reading these takes more memory.
    """
    name = str(name)
    with _opened(resolve(name), name) as original:
        file = metadata.mended(original, name)
        image = _open(file)
        if image is None:
            source = _by_tifffile(file, name, max_pixels)
        else:
            source = _by_pillow(image, file, name, max_pixels)
    if source.opacity is not None and not source.opacity.any():
        warnings.warn(f"{name}: it is transparent all over, and read as white", stacklevel=2)
    return source


def _open(file: metadata.File) -> ImageFile.ImageFile | None:
    """Open a picture, none of its pixels read; None for a TIFF that pillow does not know or reads wrongly."""
    try:
        image = Image.open(cast(BinaryIO, file), formats=READABLE)
        if image.format == "TIFF":
            tiff.choose(image)
            return None if tiff.is_misread(image) else image
    except (KeyError, SyntaxError, UnidentifiedImageError):
        if tiff.is_tiff(file):
            return None
        raise
    if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        image.info["transparency"] *= KEY_SCALES.get(str(image.tile[0].args), 1)
    return image


def _by_pillow(image: ImageFile.ImageFile, file: metadata.File, name: str, max_pixels: int) -> Source:
    _check_pixels(image.size, *_bytes_to_read(image), name, max_pixels)
    deep = _is_deep_color(image)
    with _libtiff_silent() if image.format == "TIFF" else contextlib.nullcontext():
        image = _load(image, file, name)
        samples = _sixteen_bits(image, file) if deep else None
    turn = UPRIGHT.get(metadata.exif(image, name).get(ExifTags.Base.Orientation, 1), np.asarray)
    if samples is None:
        colors, opacity = _to_srgb(image, name), _opacity(image)
    else:
        opacity = samples[..., 3] if samples.shape[2] == 4 else _unlike(samples, image)
        colors = _deep_to_srgb(samples[..., :3], image.info.get("icc_profile"), name)
    return _source(turn(colors), None if opacity is None else turn(opacity))


def _by_tifffile(file: metadata.File, name: str, max_pixels: int) -> Source:
    height, width, needed = tiff.measure(file)
    _check_pixels((width, height), needed, "such a TIFF", name, max_pixels)
    layers = tiff.decode(file)
    turn = UPRIGHT.get(layers.orientation, np.asarray)
    colors = _deep_to_srgb(layers.colors, layers.icc, name)
    return _source(turn(colors), None if layers.opacity is None else turn(layers.opacity))


def _load(image: ImageFile.ImageFile, file: metadata.File, name: str) -> ImageFile.ImageFile:
    """Read the pixels; of a JPEG that lacks no more than its end marker, too."""
    try:
        image.load()
    except OSError:
        whole = metadata.ended(file, name) if image.format == "JPEG" else None
        if whole is None:
            raise
        image = Image.open(whole, formats=READABLE)
        image.load()
    return image


def _check_pixels(size: tuple[int, int], needed: int, of: str, name: str, max_pixels: int) -> None:
    """Raise InputError for a picture that takes more memory to read than max_pixels of most files do.

    needed are the bytes a pixel that reading takes at its peak, and of says of which kind of file.
    """
    most = max_pixels * BYTES // max(BYTES, needed)
    if size[0] * size[1] > most:
        share = f" of {of} for `max_pixels={max_pixels}`" if most < max_pixels else " (`max_pixels`)"
        raise InputError(name, f"at most {most} pixels{share}", f"it is {size[0]}x{size[1]}")


def _bytes_to_read(image: ImageFile.ImageFile) -> tuple[int, str]:
    """Return the bytes that are taken at the peak of reading, for each pixel, and by what kind of file."""
    if image.format in LAVISH:
        return LAVISH[image.format], image.format
    if _is_deep_color(image):  # ours, and pillow's picture of four bytes, twice while it turns a TIFF
        turned = image.format == "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        keyed = "transparency" in image.info
        return 2 * len(image.getbands()) + 4 * (1 + turned) + keyed, "such color of 16 bits"
    return BYTES, ""


def _source(colors: Planes, opacity: Plane | None) -> Source:
    if opacity is not None and _unit(opacity.min(keepdims=True)) == 1:
        opacity = None
    return Source(colors, opacity)


def resize(
    array: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "h w c"], height: int, width: int
) -> Float32[np.ndarray, "{height} {width}"] | Float32[np.ndarray, "{height} {width} c"]:
    """Resample to height by width pixels with an antialiased Lanczos-3 filter, clipped to [0, 1].

    An array of this size is returned unchanged.

    Args:
        array: In [0, 1], with channels or without.
        height: Rows of the result.
        width: Columns of the result.
    """
    if array.shape[:2] == (height, width):
        return array
    resampled = _resample(array, height, width)
    return np.clip(resampled, 0, 1, out=resampled)


def _resample(
    array: Float32[np.ndarray, "h w"] | Float32[np.ndarray, "h w c"], height: int, width: int
) -> Float32[np.ndarray, "{height} {width}"] | Float32[np.ndarray, "{height} {width} c"]:
    if array.shape[:2] == (height, width):
        return array
    if height != array.shape[0] and width != array.shape[1]:
        # First the width, as Source has to; pillow's own order depends on the sizes and on its version.
        return _resample(_resample(array, array.shape[0], width), height, width)
    resampled = np.empty((height, width, *array.shape[2:]), np.float32)
    for channel in np.ndindex(array.shape[2:]):
        plane = Image.fromarray(np.ascontiguousarray(array[:, :, *channel]))
        resampled[:, :, *channel] = np.asarray(plane.resize((width, height), Image.Resampling.LANCZOS))
    return resampled


def size_to_fit(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return (height, width) with the same aspect and the given longest side, rounded half up, at least 1.

    Args:
        height: Rows.
        width: Columns.
        longest: Pixels of the longest side.
    """
    old = max(height, width)
    return max(1, (2 * height * longest + old) // (2 * old)), max(1, (2 * width * longest + old) // (2 * old))


def to_uint8(array: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Clip to [0, 1], scale to [0, 255] and round (half to even); the values must be finite."""
    return _whole_numbers(array, 8)


def _whole_numbers(array: Float[np.ndarray, "*shape"], bit_depth: int) -> np.ndarray:
    return (array.clip(0, 1) * (2**bit_depth - 1)).round().astype(f"u{bit_depth // 8}")


def check_output(path: str | Path, formats: Collection[str] = FORMATS) -> Path:
    """Return path if a file of one of these extensions can be written there, else raise InputError."""
    path = Path(path)
    _check_extension(path, formats)
    check_writable(path)
    return path


def _check_extension(path: Path, formats: Collection[str] = FORMATS) -> None:
    suffix = path.suffix.lower()
    if suffix not in formats:
        came = f"the extension is {suffix!r}{did_you_mean(suffix, formats)}" if suffix else "no extension"
        raise InputError(str(path), f"must end in one of {' '.join(formats)}", came)
    codec = FORMATS[suffix].name.lower() if suffix in FORMATS else ""
    if codec in ("webp", "avif") and not features.check(codec):
        raise InputError(
            str(path), "must be a format of the installed pillow", f"it was built without {codec}"
        )


def check_output_size(path: str | Path, height: int, width: int) -> None:
    """Raise InputError if the format of path cannot hold height by width pixels.

    Args:
        path: Its extension names the format.
        height: Rows.
        width: Columns.
    """
    kind = FORMATS[Path(path).suffix.lower()]
    if max(height, width) > kind.longest:
        allowed = f"a side of {kind.name} has at most {kind.longest} pixels"
        raise InputError(str(path), allowed, f"the picture is {width}x{height}")


def check_bit_depth(path: str | Path, bit_depth: int) -> None:
    """Raise InputError if the format of path has no such number of bits a channel."""
    deep = [suffix for suffix, kind in FORMATS.items() if kind.write]
    if bit_depth not in DEPTHS:
        raise InputError("`bit_depth`", "8 or 16", f"got {bit_depth}")
    if bit_depth == 16 and Path(path).suffix.lower() not in deep:
        raise InputError("`bit_depth`", f"8, or 16 for {' '.join(deep)}", f"got {bit_depth} for {path}")


def check_space(
    path: str | Path, height: int, width: int, *, alpha: bool = False, bit_depth: int = 8
) -> None:
    """Raise InputError where the disk of path may be too full for a picture of this size.

    What is asked for is the size of the pixels as they are, which no format exceeds.

    Args:
        path: Where the picture is to be.
        height: Rows.
        width: Columns.
        alpha: Whether it has opacity, too.
        bit_depth: Bits a channel, 8 or 16.
    """
    kind = FORMATS[Path(path).suffix.lower()]
    channels = 4 if alpha and kind.alpha else 3
    files.check_space(Path(path), height * width * channels * bit_depth // 8 + SPARE_BYTES)


def save(
    path: str | Path,
    rgb: Float32[np.ndarray, "h w 3"],
    *,
    alpha: Float32[np.ndarray, "h w"] | None = None,
    settings: str | None = None,
    bit_depth: int = 8,
    dpi: int = 0,
) -> None:
    """Write a picture as sRGB, whole or not at all. Equal input gives equal bytes.

    PNG and TIFF are written in bands of rows, without another copy of the picture.

    Args:
        path: The file. Its extension names the format, a key of FORMATS.
        rgb: The picture in [0, 1], on white, as load returns it.
        alpha: The opacity in [0, 1]. The white is removed from rgb, so that the file on white shows rgb.
            JPEG has no alpha.
        settings: Text for read_settings.
        bit_depth: Bits per channel: 8, or 16 for PNG and TIFF.
        dpi: The resolution stored in the file, in pixels per inch. 0: none.

    Raises:
        InputError: The format is unknown or cannot hold the picture, or the file cannot be written.
    """
    path = Path(path)
    _check_extension(path)
    if not np.issubdtype(rgb.dtype, np.floating):
        raise InputError("rgb", "floats in [0, 1]", f"got {rgb.dtype}")
    kind = FORMATS[path.suffix.lower()]
    check_bit_depth(path, bit_depth)
    check_output_size(path, *rgb.shape[:2])
    if not kind.alpha:
        alpha = None

    def pixels(rows: slice) -> png_tiff.Band:
        band = rgb[rows] if alpha is None else straight(rgb[rows], alpha[rows])
        return _whole_numbers(band, bit_depth)

    text = None if settings is None else settings.encode(errors="backslashreplace").decode()
    shape = (rgb.shape[0], rgb.shape[1], 3 if alpha is None else 4)
    header = png_tiff.Header(shape, bit_depth, _srgb_icc(), dpi, text)  # text: file names need not be Unicode
    with atomic_write(path) as file:
        if kind.write:
            kind.write(file, header, pixels)
        else:
            metadata = _metadata(kind, header, path)
            image = _image("RGB" if alpha is None else "RGBA", shape, pixels)
            image.save(file, kind.name, icc_profile=header.icc, **kind.options, **metadata)


def _image(mode: str, shape: tuple[int, int, int], pixels: Callable[[slice], png_tiff.Band]) -> Image.Image:
    image = Image.new(mode, (shape[1], shape[0]))
    for rows in png_tiff.bands(shape, png_tiff.BAND_SAMPLES):
        band = pixels(rows)
        image.paste(Image.frombytes(mode, (shape[1], len(band)), band.tobytes()), (0, rows.start))
    return image


def straight(
    rgb: Float32[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 4"]:
    """Return a picture on white with its opacity, the white taken out of its colors."""
    opacity = alpha[..., None]
    shown = opacity > 0  # where nothing shows, the color may be any
    return np.dstack([np.where(shown, (rgb - (1 - opacity)) / np.where(shown, opacity, 1), rgb), alpha])


def read_settings(path: str | Path) -> str | None:
    """Return the settings stored in a file by save, or None; raises InputError if it is no picture."""
    with _opened(Path(path), str(path)) as file, warnings.catch_warnings(action="ignore"):
        image = _open(metadata.mended(file, str(path)))
        if image is None:
            return None
        if SETTINGS in image.info:
            return str(image.info[SETTINGS])
        text = metadata.exif(image, str(path)).get(ExifTags.Base.ImageDescription)
        if not isinstance(text, str) or not text.startswith(f"{SETTINGS} "):
            return None
        return text.removeprefix(f"{SETTINGS} ").encode("latin-1").decode()


def _metadata(kind: Format, header: png_tiff.Header, path: Path) -> dict[str, Any]:
    """Return pillow's options for the resolution and the settings."""
    exif, options = Image.Exif(), {}
    if header.dpi and kind.name == "JPEG":
        options["dpi"] = (header.dpi, header.dpi)
    elif header.dpi:
        exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = float(header.dpi)
        exif[ExifTags.Base.ResolutionUnit] = 2  # inches
    if header.text is not None:
        # As bytes, because pillow writes str as ASCII with question marks and reads this field as Latin-1.
        exif[ExifTags.Base.ImageDescription] = f"{SETTINGS} {header.text}".encode()
    if kind.name == "JPEG" and len(exif.tobytes()) > 65533:
        warnings.warn(f"{path}: the settings are too long for a JPEG; left out", stacklevel=3)
        return options
    return {**options, "exif": exif} if exif else options


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    # Pillow's limit on pixels is global and warns; load() has its own, which a flag can raise.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    text, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, metadata.MAX_CHUNK_BYTES
    try:
        if path.exists() and not path.is_file():
            raise IsADirectoryError("it is a folder or a device")
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata; the pixels decide
            head = file.read(512)
            for pattern, kind in FOREIGN.items():
                if re.match(pattern, head, re.DOTALL):
                    raise ValueError(kind)
            file.seek(0)
            yield file
    except InputError:
        raise
    except UNREADABLE as error:
        allowed = f"must be a whole picture file ({', '.join(READABLE)})"
        raise InputError(name, allowed, _reason(error, path)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
        PngImagePlugin.MAX_TEXT_CHUNK = text


@contextlib.contextmanager
def _libtiff_silent() -> Iterator[None]:
    """Drop what libtiff writes on standard error by itself; what is wrong comes as an exception as well."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the format is not known"  # pillow's own text shows an object's address
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    stem = Path(path.name.rpartition(":")[2]).stem
    hint = isinstance(error, FileNotFoundError) and stem in _examples()
    return f"{reason} (did you mean {EXAMPLE}{stem}?)" if hint else reason


def _examples() -> dict[str, Path]:
    files = sorted(EXAMPLES.iterdir(), key=lambda file: file.stem)
    return {file.stem: file for file in files if file.suffix in (".jpg", ".png")}


def _is_deep_color(image: ImageFile.ImageFile) -> bool:
    deep = [_other_byte(tile) is not None for tile in image.tile]
    return any(deep) and all(deep) and not (image.format == "TIFF" and tiff.is_separate(image))


def _deep_to_srgb(colors: tiff.Samples, icc: bytes | None, name: str) -> Planes:
    """Return colors as they are where they are sRGB or plain gray, else what a profile makes of 8 bits."""
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colors.shape[2]]
    if mode != "CMYK" and (not icc or (mode == "RGB" and _is_srgb(icc, name))):
        return colors
    image = _image(mode, colors.shape, lambda rows: to_uint8(_unit(colors[rows])))
    image.info["icc_profile"] = icc
    return _to_srgb(image, name)


def _is_srgb(icc: bytes, name: str) -> bool:
    """Tell whether a profile changes no color by more than 1 of 255."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(18, -1, 3)
    through = np.asarray(_through_profile("RGB", icc, name)(Image.fromarray(colors)))
    return bool(np.abs(through.astype(int) - colors).max() <= 1)


def _sixteen_bits(upper: Image.Image, file: metadata.File) -> UInt16[np.ndarray, "h w c"]:
    """Return the samples of a file of which pillow has read the upper bytes, by reading it again."""
    lower = _open(file)
    assert lower is not None  # it was not before
    lower.tile = [other for tile in lower.tile if (other := _other_byte(tile))]
    samples = np.empty(_shape(upper), np.uint16)
    for rows in png_tiff.bands(samples.shape, png_tiff.BAND_SAMPLES):
        samples[rows] = _rows(upper, rows) * np.uint16(256)
    upper.im = Image.new("L", (1, 1)).im  # drops its pixels: there is room for those of one picture
    lower.load()
    for rows in png_tiff.bands(samples.shape, png_tiff.BAND_SAMPLES):
        samples[rows] += _rows(lower, rows)
    return samples


def _other_byte(tile: ImageFile._Tile) -> ImageFile._Tile | None:
    """Return what makes pillow read the other byte of each sample; None where there are not two."""
    raw, *rest = tile.args if isinstance(tile.args, tuple) and tile.args else (tile.args,)
    return tile._replace(args=(OTHER_BYTE[raw], *rest)) if raw in OTHER_BYTE else None


def _unlike(samples: UInt16[np.ndarray, "h w c"], image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """Return the opacity of a picture in which one color stands for transparent; None without such a one."""
    if "transparency" not in image.info:
        return None
    opacity = np.empty(samples.shape[:2], np.uint8)
    for rows in png_tiff.bands(samples.shape, png_tiff.BAND_SAMPLES):
        opacity[rows] = (samples[rows] != image.info["transparency"]).any(-1) * np.uint8(255)
    return opacity


def _shape(image: Image.Image) -> tuple[int, int, int]:
    return image.height, image.width, len(image.getbands())


def _rows(image: Image.Image, rows: slice) -> UInt8[np.ndarray, "rows w c"]:
    return np.asarray(_crop(image, rows))


def _crop(image: Image.Image, rows: slice) -> Image.Image:
    return image.crop((0, rows.start, image.width, rows.stop))


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # pillow's only way out of premultiplied gray
    return image.convert("LA" if Image.getmodebase(image.mode) == "L" else "RGBA")


def _opaque(image: Image.Image) -> Image.Image:
    """Return a picture without its opacity."""
    if not image.has_transparency_data or image.mode in DEEP:
        return image
    both = _with_alpha(image)
    return both.convert(both.mode[:-1])


def _opacity(image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    if not image.has_transparency_data:
        return None
    opacity = np.empty((image.height, image.width), np.uint8)
    for rows in png_tiff.bands((*opacity.shape, 1), png_tiff.BAND_SAMPLES):
        band = _crop(image, rows)
        if image.mode in DEEP:  # one gray level of the file stands for transparent
            opacity[rows] = (np.asarray(band) != image.info["transparency"]) * np.uint8(255)
        else:
            opacity[rows] = np.asarray(_with_alpha(band).getchannel("A"))
    return opacity


def _to_srgb(image: Image.Image, name: str) -> Planes:
    icc = image.info.get("icc_profile")
    if image.mode in DEEP:
        gray = _deep_gray(image)
        if not icc:
            return gray[..., None]
        image = Image.fromarray(to_uint8(gray))  # pillow's color engine takes 8 bits
        del gray
    through = None
    if icc or image.mode == "LAB":
        through = _through_profile(_opaque(_crop(image, slice(0, 1))).mode, icc or b"", name)
    # In bands: for the whole picture pillow would make up to three more copies on the way.
    samples = np.empty((image.height, image.width, 3), np.uint8)
    for rows in png_tiff.bands(samples.shape, png_tiff.BAND_SAMPLES):
        band = _opaque(_crop(image, rows))
        samples[rows] = np.asarray((through(band) if through else band).convert("RGB"))
    return samples


def _deep_gray(image: Image.Image) -> Float32[np.ndarray, "h w"]:
    tags = getattr(image, "tag_v2", {})  # pillow leaves 12 bits and "white is zero" of TIFF to its callers
    white = {"F": 1, "I": 65535}.get(image.mode, 2 ** tags.get(258, (16,))[0] - 1)
    gray = np.empty((image.height, image.width), np.float32)
    for rows in png_tiff.bands((*gray.shape, 1), png_tiff.BAND_SAMPLES):
        band = np.nan_to_num(np.array(_crop(image, rows), np.float32), copy=False)
        np.clip(band / np.float32(white), 0, 1, out=gray[rows])
        if tags.get(262) == 0:
            np.subtract(1, gray[rows], out=gray[rows])
    return gray


def _through_profile(mode: str, icc: bytes, name: str) -> Callable[[Image.Image], Image.Image]:
    """Return what takes pictures of a mode to sRGB; a broken profile leaves them as they are, and warns."""
    try:
        if mode == "LAB":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        # Gray files with a color profile are common; the other mismatches are refused by the engine.
        gray = Image.getmodebase(mode) == "L" and profile.profile.xcolor_space == "GRAY"
        taken = mode if mode in ("CMYK", "LAB", "RGB") else "L" if gray else "RGB"
        srgb = ImageCms.ImageCmsProfile(io.BytesIO(_srgb_icc()))
        transform = ImageCms.buildTransform(profile, srgb, taken, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        warnings.warn(f"{name}: read as sRGB, its color profile is broken ({error})", stacklevel=5)
        return lambda image: image
    return lambda image: transform.apply(image if image.mode == taken else image.convert(taken))


@functools.cache
def _srgb_icc() -> bytes:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return icc[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + icc[36:]  # bytes 24-35: the time of day
