"""Small files that claim, or unpack to, far more than they hold; each is read once, as it is."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from PIL import Image

from fuzz.mutate import png

Bomb = bytes | Callable[[], bytes]  # the large ones are made when their turn comes
SIDE = 10_000  # of the largest picture that most files may hold: images.MAX_PIXELS
LAVISH = {"AVIF": 9_100, "JPEG2000": 6_300, "WEBP": 7_900}  # of files that take more memory to read


def bomb_png(depth: int, color: int, samples: int, *more: tuple[bytes, bytes]) -> bytes:
    """Return a black PNG, the largest that is read."""
    side = 9_100 if (depth, samples) == (16, 4) else SIDE
    packer, rows = zlib.compressobj(9), bytes((1 + side * samples * depth // 8) * 100)
    packed = b"".join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">2I5B", side, side, depth, color, 0, 0, 0)
    return png([(b"IHDR", header), *more, (b"IDAT", packed), (b"IEND", b"")])


def zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()


def by_pillow(mode: str, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        side = LAVISH.get(name, SIDE)
        Image.new(mode, (side, side)).save(file, name, **options)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return file.getvalue()


def pictures() -> Iterator[Bomb]:
    text = b"Comment\0\0" + zeros(2**28)
    profile = b"ICC Profile\0\0" + zeros(2**28)
    small = png(
        [(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", zeros(2**28)), (b"IEND", b"")]
    )
    yield partial(bomb_png, 8, 2, 3)
    yield partial(bomb_png, 8, 6, 4)
    yield partial(bomb_png, 8, 4, 2)
    yield partial(bomb_png, 16, 2, 3)
    yield partial(bomb_png, 16, 6, 4)
    yield partial(bomb_png, 16, 0, 1)
    yield partial(bomb_png, 1, 3, 1, (b"PLTE", bytes(6)), (b"tRNS", b"\0"))
    yield partial(bomb_png, 8, 2, 3, (b"zTXt", text))
    yield partial(bomb_png, 8, 2, 3, (b"iCCP", profile))
    yield small
    yield partial(by_pillow, "RGB", "JPEG")
    yield partial(by_pillow, "RGB", "JPEG", progressive=True)
    yield partial(by_pillow, "CMYK", "JPEG")
    yield partial(by_pillow, "L", "GIF")
    yield partial(by_pillow, "RGB", "TIFF", compression="tiff_adobe_deflate")
    yield partial(by_pillow, "CMYK", "TIFF", compression="tiff_adobe_deflate")
    yield partial(by_pillow, "LAB", "TIFF", compression="tiff_adobe_deflate")
    yield partial(by_pillow, "F", "TIFF", compression="tiff_adobe_deflate")
    for mode in ("RGB", "RGBA"):
        yield partial(by_pillow, mode, "WEBP", lossless=True, quality=0, method=0)
        yield partial(by_pillow, mode, "AVIF", speed=10, quality=1)
        yield partial(by_pillow, mode, "JPEG2000")
    yield b"P6\n7000 7000\n255\n"
    yield b"BM" + struct.pack("<3I3I2H6I", 2**20, 0, 54, 40, SIDE, SIDE, 1, 8, 1, *[0] * 5) + b"\xff\0" * 2000


def masks() -> Iterator[Bomb]:
    white = struct.pack(">2I5B", SIDE, SIDE, 1, 3, 0, 0, 0)
    packer, rows = zlib.compressobj(9), bytes((1 + SIDE // 8) * 100)
    packed = b"".join(packer.compress(rows) for _ in range(SIDE // 100)) + packer.flush()
    yield png([(b"IHDR", white), (b"PLTE", b"\xff" * 6), (b"IDAT", packed), (b"IEND", b"")])
    yield partial(bomb_png, 8, 6, 4)
    yield partial(bomb_png, 16, 0, 1)
    yield partial(bomb_png, 16, 6, 4)


def striped(side: int, colors: int) -> bytes:
    """Return the largest PNG that is read, in columns of so many colors."""
    palette = np.random.default_rng(0).integers(0, 256, (colors, 3), np.uint8)
    row = b"\0" + palette.repeat(-(-side // colors), 0)[:side].tobytes()
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    return png([(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")])


def labels() -> Iterator[Bomb]:
    yield partial(striped, SIDE, 60)
    yield partial(striped, SIDE, 1000)
    yield partial(striped, SIDE, SIDE)
    yield partial(bomb_png, 8, 6, 4)


# --- pickles: values that are copied again and again ---

STREAM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\0\0\0little_endian\x88s."
COUNT = 100_000


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def pickled() -> Iterator[Bomb]:
    """Yield what is below 3 MB and would take gigabytes, or hours."""
    long = text(b"x" * 2**20) + text(b"latin1") + b"\x86q\x01"  # a megabyte, encoded again and again
    yield b"\x80\x02](c_codecs\nencode\nq\0" + long + b"h\0h\x01R" * COUNT + b"e."
    pairs = b"".join(text(b"%d" % n) + b"N\x86" for n in range(COUNT))  # a dictionary, made again and again
    dictionary = b"](ccollections\nOrderedDict\nq\0](" + pairs + b"e\x85q\x01"
    yield b"\x80\x02" + dictionary + b"h\0h\x01R" * COUNT + b"e."
    arguments = b"(" + b"N" * COUNT + b"tq\x01"  # a call with a hundred thousand arguments, again and again
    yield b"\x80\x02](cnumpy\nndarray\nq\0" + arguments + b"h\0h\x01R" * COUNT + b"e."
    yield b"\x80\x02](ctorch._utils\n_rebuild_parameter\nq\0" + arguments + b"h\0h\x01R" * COUNT + b"e."
    storage = text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu") + b"K\1"
    yield b"\x80\x02]((" + storage + b"N" * COUNT + b"tq\x01" + b"h\x01Q" * COUNT + b"e."
    prime = 2**61 - 1  # numbers that have all one hash
    keys = b"".join(b"\x8a\x0a" + (n * prime).to_bytes(10, "little") + b"N" for n in range(COUNT))
    yield b"\x80\x02}(" + keys + b"u."
    yield b"\x80\x02" + b")" + b"q\0h\0\x86" * 70 + b"\x85."  # as a key of a storage


def archives() -> Iterator[Bomb]:
    import zipfile

    for content in pickled():
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("vgg/data.pkl", content)
        yield file.getvalue()
    for how in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        file = io.BytesIO()
        with (
            zipfile.ZipFile(file, "w", how) as archive,
            archive.open("vgg/data.pkl", "w", force_zip64=True) as member,
        ):
            for _ in range(64):
                member.write(bytes(2**20))
        yield file.getvalue()


def streams() -> Iterator[Bomb]:
    for content in pickled():
        yield STREAM + content
        yield STREAM + b"\x80\x02}." + content


# --- the others ---


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name: bytes, kind: int, shape: tuple[int, ...], *parts: bytes) -> bytes:
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return head + element(1, name) + b"".join(parts)


def _bytes_as_doubles(start: bytes, size: int) -> bytes:
    head = matrix(b"layers", 6, (1, size), struct.pack("<II", 2, size - 64))
    packer = zlib.compressobj(9)
    packed = packer.compress(struct.pack("<II", 14, size) + head)
    packed += b"".join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()
    return start + struct.pack("<II", 15, len(packed)) + packed


def matlab() -> Iterator[Bomb]:
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    for size in (2**29, 2**30 - 2**20, 2**31 - 2**20):
        yield partial(_bytes_as_doubles, start, size)
    yield start + struct.pack("<II", 14, 2**32 - 8)
    yield start + element(14, matrix(b"layers", 1, (2**31 - 1, 2**31 - 1), element(14, b"") * 10**5))
    names = element(5, struct.pack("<i", 1)) + element(1, b"abcdefgh" * 10**5)
    yield start + element(14, matrix(b"layers", 2, (2**31 - 1,), names, element(14, b"") * 10**5))
    cells = b""
    for _ in range(5000):
        cells = element(14, matrix(b"", 1, (1, 1), cells))
    yield start + element(14, matrix(b"layers", 1, (1, 1), cells))


def safetensors() -> Iterator[Bomb]:
    for header in (
        b'{"a":' + b"[" * 10**6,
        b'{"a":{"dtype":"F32","shape":[4294967295,4294967295],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"__metadata__":{' + b",".join(b'"%d":"x"' % n for n in range(10**5)) + b"}}",
        b"{"
        + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(20_000))
        + b"}",
    ):
        yield struct.pack("<Q", len(header)) + header
    yield struct.pack("<Q", 2**63)
    yield struct.pack("<Q", 10**8) + b"{" * 1000


def json_files() -> Iterator[Bomb]:
    yield b"[" * 10**6
    yield b'{"a":' * 10**6
    yield b"[" * 10**5 + b"]" * 10**5
    yield b"9" * 10**6
    yield b'"' + b"\\u0000" * 10**6 + b'"'
    yield b"[" + b'{"file":"0000.png"},' * 10**5 + b"{}]"


def flags() -> Iterator[Bomb]:
    yield b"--size=32\n" * 10**6
    yield b"--style=a\n" * 10**5
    yield b"--flagfile=case/file\n" * 1000
    yield b"--size=" + b"9" * 10**7
    yield b"--style_mix=" + b"1," * 10**6
    yield b"--scales=" + b"32," * 10**6 + b"32"
    yield lambda: b"x" * 10**8


def keras() -> Iterator[Bomb]:
    """Yield HDF5 files with arrays that are not there, packed, linked, endless."""
    import h5py

    def layer(number: int, file: h5py.File) -> None:
        group = file.create_group("block1_conv1")
        match number:
            case 0:  # claimed, never written
                group.create_dataset("kernel", (2**20, 2**20, 3, 3), "f4", chunks=(64, 64, 3, 3))
            case 1:  # packed
                group.create_dataset(
                    "kernel", (2**26,), "f4", chunks=(2**24,), compression="gzip", data=np.zeros(2**26, "f4")
                )
            case 2:  # in a circle
                group["a"] = group
                file["block1_conv2"] = file["/"]
            case 3:
                for n in range(20_000):
                    group[f"a{n}"] = group if n else np.zeros(1, "f4")
            case 4:
                group.create_dataset("kernel", (3, 3, 3, 2), h5py.vlen_dtype(np.float32))
            case 5:
                group.create_dataset("kernel", (3, 3, 3, 2), np.dtype([("a", "f4"), ("b", "f4", (2**20,))]))
            case 6:
                inner = group
                for _ in range(2000):
                    inner = inner.create_group("a")
            case 7:
                group["kernel"] = h5py.SoftLink("/block1_conv1/kernel")
            case 8:
                group["kernel"] = h5py.ExternalLink("/dev/zero", "/")

    for number in range(9):
        file = io.BytesIO()
        with h5py.File(file, "w") as opened:
            layer(number, opened)
        yield file.getvalue()
