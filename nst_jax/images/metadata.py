"""What lies beside the pixels of a picture file: broken, it costs no picture; not applied, it is told."""

import hashlib
import io
import mmap
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import ExifTags, Image, PngImagePlugin

# Pillow documents OSError for a damaged file; flipped bytes brought out the rest of the first line as well,
# and the second line are faults of the same kind that its readers do not all guard against.
UNREADABLE = (
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error),
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, zlib.error),
)
File = BinaryIO | mmap.mmap
MAX_CHUNK_BYTES = 2**24  # bytes of a chunk, unpacked: color profiles of scanners have 2**21
UNKNOWN = b"skIP"  # a name that no reader knows, so that it passes over the chunk
ANIMATION = (b"acTL", b"fcTL", b"fdAT")  # of an animation: the first frame, which alone is read, needs none
GAMMA = 45455, 0.05  # sRGB's in a PNG, and what share of it is none that anybody sees
PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), 1000  # white, red, green, blue: x, y
SRGB = bytes([1, 13])  # in cICP: the primaries of BT.709, the curve of sRGB
END = b"\xff\xd9"  # of a JPEG
# Before it: bits unlike the zeros that libjpeg makes up, then every restart marker and more of them.
FILLINGS = [
    bits + b"".join(bytes([0xFF, 0xD0 + n]) + bits for n in range(8)) for bits in (b"U" * 64, b"\xaa" * 64)
]


def mended(file: BinaryIO, name: str) -> File:
    """Return a PNG without its broken chunks beside the pixels, each a UserWarning; other files as they are.

    The bytes stay where they are: a chunk that is left out gets another name, in memory only.
    """
    file.seek(0)
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        file.seek(0)
        return file
    reader, colors = PngImagePlugin.PngStream(file), {}
    hidden = []
    file.seek(16)
    reader.chunk_IHDR(16, 13)  # what the others have to fit
    for place, kind, size in _ancillary(file):
        if kind in ANIMATION:
            hidden.append((place, size))
        elif size > MAX_CHUNK_BYTES or not _is_sound(kind, file.read(size), file.read(4), reader):
            warnings.warn(f"{name}: its {_shown(kind)} chunk is broken or too large; not used", stacklevel=2)
            hidden.append((place, size))
        elif kind in (b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM"):
            file.seek(place + 8)
            colors[kind] = file.read(size)
    _tell_colors(colors, name)
    file.seek(0)
    if not hidden:
        return file
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for place, size in hidden:
        end = place + 8 + size
        data[place + 4 : place + 8] = UNKNOWN
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
    return data


def _ancillary(file: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """Yield the place, kind and size of each whole chunk that pixels do not need, the file at its body."""
    place, length = 8, file.seek(0, io.SEEK_END)
    while place + 12 <= length:
        file.seek(place)
        size, kind = struct.unpack(">I4s", file.read(8))
        end = place + 12 + size
        if kind == b"IEND" or end > length:
            return
        if kind[0] & 32:  # the letter is small
            yield place, kind, size
        place = end


def _is_sound(kind: bytes, body: bytes, checksum: bytes, reader: PngImagePlugin.PngStream) -> bool:
    """Tell whether a chunk is what was written, and pillow takes it beside those that reader has taken."""
    if struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))) != checksum:
        return False
    if not hasattr(reader, f"chunk_{_shown(kind)}"):
        return True
    reader.fp = io.BytesIO(body)
    try:
        reader.call(kind, 0, len(body))
    except UNREADABLE:
        return False
    return kind != b"iCCP" or bool(reader.im_info["icc_profile"])


def _shown(kind: bytes) -> str:
    return kind.decode("latin-1")


def _tell_colors(chunks: dict[bytes, bytes], name: str) -> None:
    """Warn of what a PNG says of its colors and nobody applies; the profile is, and goes before the rest."""
    told = ""
    if b"iCCP" in chunks:
        return
    if b"cICP" in chunks:
        told = "cICP" if chunks[b"cICP"][:2] != SRGB else ""
    elif b"sRGB" not in chunks:
        gamma, primaries = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
        if gamma and abs(struct.unpack(">I", gamma[:4])[0] / GAMMA[0] - 1) > GAMMA[1]:
            told = "gAMA"
        elif primaries:
            pairs = zip(struct.unpack(">8I", primaries[:32]), PRIMARIES[0], strict=True)
            told = "cHRM" if any(abs(given - usual) > PRIMARIES[1] for given, usual in pairs) else ""
    if told:
        warnings.warn(f"{name}: read as sRGB; its {told} says otherwise, and is not applied", stacklevel=3)


def exif(image: Image.Image, name: str) -> Image.Exif:
    """Return what a picture's Exif says; where it is broken nothing, and a UserWarning.

    A color space that only Exif tells is a UserWarning as well: it is not applied.
    """
    try:
        found = image.getexif()
        interoperability = found.get_ifd(ExifTags.IFD.Exif) and found.get_ifd(ExifTags.IFD.Interop)
    except UNREADABLE:
        warnings.warn(f"{name}: its Exif is broken, and not used", stacklevel=2)
        return Image.Exif()
    if not image.info.get("icc_profile") and str(interoperability.get(1, "")).startswith("R03"):
        told = "its Exif says Adobe RGB (InteropIndex R03), which is not applied"
        warnings.warn(f"{name}: read as sRGB; {told}", stacklevel=2)
    return found


def _pixels(data: bytes) -> bytes:
    """Return a digest of a JPEG's pixels, so that one picture at a time is in memory."""
    digest = hashlib.sha256()
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        for top in range(image.height):
            digest.update(image.crop((0, top, image.width, top + 1)).tobytes())
    return digest.digest()


def ended(file: File, name: str) -> io.BytesIO | None:
    """Return a JPEG with the end marker that it lacks, and a UserWarning; None where rows are missing too.

    Nothing is missing if what stands between the data and the marker changes no pixel. A progressive JPEG
    that ends just between two passes has all its rows, though coarse ones.
    """
    file.seek(0)
    data = file.read()
    if len({_pixels(data + filling + END) for filling in (b"", *FILLINGS)}) > 1:
        return None
    warnings.warn(f"{name}: its end marker is missing; all its rows are there", stacklevel=2)
    return io.BytesIO(data + END)
