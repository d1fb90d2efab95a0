"""Damage: functions of a random generator and bytes that give other bytes."""

import io
import itertools
import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Mutator = Callable[[np.random.Generator, bytes], bytes]

SIZE = (23, 37)  # rows and columns of the pictures that are damaged: numbers that are seldom anything else
NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 4095, 9_999, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1)
NUMBERS += (2**31, 2**32 - 1, 2**48, 2**63 - 1, 2**63, 2**64 - 1)


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[rng.integers(len(choices))]


def place(rng: np.random.Generator, data: bytes) -> int:
    """Return a place in the data; half of them in its head, where formats keep what they say of themselves."""
    return int(rng.integers(min(len(data), pick(rng, (32, 200, len(data), len(data)))) or 1))


def number(rng: np.random.Generator, width: int) -> bytes:
    value = pick(rng, NUMBERS) % 2 ** (8 * width)
    return value.to_bytes(width, pick(rng, ("little", "big")))


# --- any file ---


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 4) if data else 0):
        damaged[place(rng, data)] ^= 1 << rng.integers(8)
    return bytes(damaged)


def set_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(pick(rng, (1, 3, 20)) if data else 0):
        damaged[place(rng, data)] = rng.integers(256)
    return bytes(damaged)


def set_number(rng: np.random.Generator, data: bytes) -> bytes:
    start, width = place(rng, data), pick(rng, (1, 2, 4, 4, 8))
    if rng.random() < 0.5:
        start -= start % width
    return data[:start] + number(rng, width) + data[start + width :]


def set_length(rng: np.random.Generator, data: bytes) -> bytes:
    """Change the four bytes before or after a name of four letters: chunks, boxes, tags."""
    names = [match.start() for match in re.finditer(rb"[A-Za-z]{4}", data)]
    start = pick(rng, names) + pick(rng, (-4, 4)) if names else 0
    return data[: max(0, start)] + number(rng, 4) + data[max(0, start) + 4 :]


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: place(rng, data)]


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    start = place(rng, data)
    return data[:start] + rng.bytes(pick(rng, (1, 2, 4, 100, 5000))) + data[start:]


def delete(rng: np.random.Generator, data: bytes) -> bytes:
    start = place(rng, data)
    return data[:start] + data[start + pick(rng, (1, 2, 4, 100)) :]


def copy(rng: np.random.Generator, data: bytes) -> bytes:
    """Put a part of the data elsewhere, over what is there or between it."""
    start, to, length = place(rng, data), place(rng, data), pick(rng, (4, 12, 100, 1000))
    part = data[start : start + length] * pick(rng, (1, 1, 1, 500))
    return data[:to] + part + data[to + pick(rng, (0, len(part))) :]


def clear(rng: np.random.Generator, data: bytes) -> bytes:
    start, length = place(rng, data), pick(rng, (8, 64, 512))
    return data[:start] + pick(rng, (b"\0", b"\xff")) * length + data[start + length :]


GENERAL: tuple[Mutator, ...] = (flip_bits, set_bytes, set_number, set_length, truncate)
GENERAL += (insert, delete, copy, clear)


def damage(rng: np.random.Generator, data: bytes) -> bytes:
    return pick(rng, GENERAL)(rng, data)


# --- pictures ---


def set_size(rng: np.random.Generator, data: bytes) -> bytes:
    """Let the picture claim other rows or columns, wherever its format keeps them."""
    side = pick(rng, SIZE)
    forms = [f"{side}".encode(), *(struct.pack(form, side) for form in (">H", "<H", ">I", "<I"))]
    forms.append(struct.pack("<I", side - 1)[:3])  # WebP
    places = [(m.start(), len(form)) for form in forms for m in re.finditer(re.escape(form), data[:4000])]
    if not places:
        return set_number(rng, data)
    start, width = pick(rng, places)
    return data[:start] + number(rng, width) + data[start + width :]


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, start = [], 8
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length
    return chunks


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        packed += struct.pack(">I", len(content)) + name + content + checksum
    return packed


def change_png(rng: np.random.Generator, data: bytes) -> bytes:
    """Damage a chunk, what is packed in it, or the order of chunks, and leave the checksums right."""
    if not data.startswith(b"\x89PNG") or not (chunks := png_chunks(data)):
        return damage(rng, data)
    n = int(rng.integers(len(chunks)))
    name, content = chunks[n]
    match rng.integers(6):
        case 0 | 1:
            chunks[n] = name, damage(rng, content)
        case 2:
            chunks[n] = pick(rng, (b"IHDR", b"PLTE", b"tRNS", b"fcTL", b"fdAT", b"acTL", b"eXIf")), content
        case 3:
            chunks.insert(int(rng.integers(len(chunks))), pick(rng, chunks))
        case 4:
            del chunks[n]
        case 5:
            for n, (name, content) in enumerate(chunks):
                if name in (b"IDAT", b"iCCP", b"zTXt"):
                    head = content[: 0 if name == b"IDAT" else content.find(b"\0") + 2]
                    chunks[n] = name, head + repacked(rng, content[len(head) :])
    return png(chunks)


def repacked(rng: np.random.Generator, packed: bytes) -> bytes:
    """Damage what is deflated."""
    try:
        return zlib.compress(damage(rng, zlib.decompressobj().decompress(packed, 2**20)))
    except zlib.error:
        return damage(rng, packed)


def change_tiff(rng: np.random.Generator, data: bytes) -> bytes:
    """Change an entry of the first directory of a TIFF, or of the Exif of another file."""
    starts = [match.start() for match in re.finditer(rb"II\*\0|MM\0\*", data)]
    if not starts:
        return damage(rng, data)
    start = pick(rng, starts)
    order = "<" if data[start : start + 1] == b"I" else ">"
    try:
        (offset,) = struct.unpack_from(f"{order}I", data, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start + offset)
    except struct.error:
        return damage(rng, data)
    at = start + offset + 2 + 12 * int(rng.integers(entries or 1))
    tags = (
        256,
        257,
        258,
        259,
        262,
        273,
        274,
        277,
        278,
        279,
        284,
        317,
        320,
        322,
        323,
        324,
        330,
        338,
        339,
        347,
    )
    change, to = pick(
        rng,
        (
            (0, struct.pack(f"{order}H", pick(rng, tags))),
            (2, struct.pack(f"{order}H", rng.integers(20))),
            (4, number(rng, 4)),
            (8, number(rng, 4)),
            (8, struct.pack(f"{order}HH", rng.integers(9), 0)),
        ),
    )
    return data[: at + change] + to + data[at + change + len(to) :]


PICTURES: tuple[Mutator, ...] = (set_size, set_size, change_png, change_png, change_tiff)


# --- JSON ---

DEEP = 100_000
VALUES = (
    None,
    True,
    -1,
    0.5,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    "../../x",
    "a\nb",
    "\udcff",
)
VALUES += ([], {}, [[]], [None], {"file": None}, "y" * 100_000, [0] * 10_000)


def change_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Put another value, or brackets without end, in place of any value, or drop it."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return damage(rng, data)
    holders = list(_holders([tree]))
    holder, key = pick(rng, holders)
    match rng.integers(6):
        case 0:
            holder.pop(key)
        case 1:
            holder[key] = "DEEP"
            opened, closed = pick(rng, (("[", "]"), ('{"a":', "}")))
            inner = pick(rng, (f"{opened * DEEP}", f"{opened * DEEP}0{closed * DEEP}"))
            return json.dumps(tree).replace('"DEEP"', inner).encode()
        case 2:
            other, name = pick(rng, holders)
            holder[key] = json.loads(json.dumps(other[name])) if name in other or other is not holder else 0
        case _:
            holder[key] = pick(rng, VALUES)
    return json.dumps(tree).encode()


def _holders(node: Any) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _holders(node[key])


def change_safetensors(rng: np.random.Generator, data: bytes) -> bytes:
    """Change the header: names, types, shapes, offsets that overlap; its length fits or not."""
    (length,) = struct.unpack("<Q", data[:8].ljust(8, b"\0"))
    header = pick(rng, (change_json, change_json, change_json, damage))(rng, data[8 : 8 + length])
    stated = len(header) if rng.random() < 0.8 else pick(rng, NUMBERS)
    return struct.pack("<Q", stated) + header + data[8 + length :]


# --- pickles ---

RUNS = (  # what would make the file "canary", for the standard library's reader
    b"cos\nsystem\n(S'touch canary'\ntR",
    b"cposix\nsystem\n(X\x0c\0\0\0touch canarytR",
    b"\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R",
    b"cbuiltins\nopen\n(S'canary'\nS'w'\ntR",
    b"c__builtin__\nopen\n(S'canary'\nS'w'\ntR",
    b"cio\nopen\n(S'canary'\nS'w'\nt\x81",
    b"(S'touch canary'\nios\nsystem\n",
    b"(cos\nsystem\nS'touch canary'\no",
    b'cbuiltins\neval\n(S\'open("canary","w")\'\ntR',
    b"csubprocess\ncall\n((S'touch'\nS'canary'\nltR",
)
DOUBLED = b"q\xfah\xfa\x86"  # t -> (t, t)
OPCODES = (
    *RUNS,
    *(b"]" * DEEP + b"a" * (DEEP - 1), b"(" * DEEP, b"(" * DEEP + b"t" * DEEP, b"]" * DEEP, b"}" * DEEP),
    *(b")" + b"\x85" * DEEP, b")" + DOUBLED * 70, b"})" + DOUBLED * 70 + b"Ns", b"]q\xfah\xfaa"),
    *(
        b"Nr\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
    ),
    *(
        b"I" + b"9" * 50_000 + b"\n",
        b"L" + b"9" * 50_000 + b"L\n",
        b"Fnan\n",
        b"\x82\x01",
        b"Pname\n",
        b"\x97",
    ),
    *(
        b"0",
        b"a",
        b"s",
        b"u",
        b"b",
        b"R",
        b"\x81",
        b"\x92",
        b"t",
        b"l",
        b"d",
        b"e",
        b"Q",
        b"1",
        b"2",
        b"h\x00",
    ),
    *(b"cnumpy\ndtype\n(S'O8'\nK\0K\1tR", b"cnumpy\ndtype\n(S'f4'\nK\0K\1tR", b"cnumpy\nndarray\n)R"),
    *(b"ccollections\nOrderedDict\n)R", b"ccollections\nOrderedDict\n(]]aaatR", b"c_codecs\nencode\n(VxVytR"),
    *(
        b"N",
        b"\x88",
        b"K\xff",
        b"\x8a\x09" + b"\xff" * 8 + b"\0",
        b"G\x7f\xf8\0\0\0\0\0\0",
        b"X\0\0\0\0",
        b".",
    ),
)


def pickles(data: bytes) -> list[tuple[int, list[int]]]:
    """Return the end of each of the pickles that follow each other, and where its opcodes begin."""
    found, stream = [], io.BytesIO(data)
    try:
        while stream.tell() < len(data):
            starts = [position or 0 for _, _, position in pickletools.genops(stream)]
            found.append((stream.tell(), starts))
    except Exception:  # pickletools tells of damage in many ways
        pass
    return found


def change_pickle(rng: np.random.Generator, data: bytes) -> bytes:
    """Put opcodes of malice between those of a pickle, or in place of some."""
    if not (found := pickles(data)):
        return damage(rng, data)
    _, starts = pick(rng, found)
    start = pick(rng, starts)
    end = starts[min(len(starts) - 1, starts.index(start) + int(rng.integers(3)))]
    return data[:start] + pick(rng, OPCODES) * pick(rng, (1, 1, 1, 2, 50)) + data[end:]


def change_zip(rng: np.random.Generator, data: bytes) -> bytes:
    """Damage a member of an archive, its name or how it is packed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # it has been damaged before
        return damage(rng, data)
    if not members:
        return damage(rng, data)
    n = int(rng.integers(len(members)))
    pickled = [k for k, (name, _) in enumerate(members) if name.endswith("data.pkl")]
    index = pick(rng, pickled) if pickled and rng.random() < 0.6 else n
    name, content = members[index]
    change = change_pickle if name.endswith("pkl") else damage
    match rng.integers(6):
        case 0:
            members[n] = pick(rng, members)
        case 1:
            members[n] = pick(rng, ("a\nb", "/data.pkl", "../data.pkl", "vgg/data/0", "x" * 999)), content
        case _:
            members[index] = name, change(rng, content)
    packed, names = io.BytesIO(), set()
    how = pick(rng, (*(zipfile.ZIP_STORED,) * 9, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(packed, "w", how) as archive:
        for name, content in members:
            if name not in names:
                names.add(name)
                archive.writestr(name, content)
    return packed.getvalue()


# --- MATLAB ---


def change_matlab(rng: np.random.Generator, data: bytes) -> bytes:
    """Damage a packed element, mostly at a multiple of four bytes, and pack it again or leave it so."""
    changed, start = data[:128], 128
    while start + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, start)
        content = data[start + 8 : start + 8 + length]
        if kind == 15:
            try:
                content = zlib.decompressobj().decompress(content, 2**24)
            except zlib.error:
                return damage(rng, data)
            for _ in range(rng.integers(1, 4)):
                at = int(rng.integers(max(1, len(content) // 4))) * 4
                to = struct.pack("<I", pick(rng, NUMBERS) % 2**32)
                if rng.random() < 0.5:
                    to = struct.pack("<I", rng.integers(20))
                content = (
                    content[:at] + to + content[at + 4 :] if rng.random() < 0.8 else damage(rng, content)
                )
            if rng.random() < 0.5:
                content = zlib.compress(content)
                content = struct.pack("<II", 15, len(content)) + content
            changed += content
        else:
            changed += data[start : start + 8] + content
        start += 8 + length
    return changed


# --- text ---

WORDS = (
    b"--",
    b"-",
    b"--flagfile=",
    b"--flagfile=case/file",
    b"--undefok=x",
    b"--help",
    b"--helpfull",
    b"--quiet=x",
)
WORDS += (
    b"\0",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\x85",
    b"\r",
    b"\x1b[2J",
    b"=",
    b"--size=",
    b"--style=a\0b",
    b"#",
)
WORDS += (
    b"--flagfile=/dev/zero",
    b"--flagfile=~",
    b"--iterations=" + b"9" * 5000,
    b"--style_weight=1e999",
    b"-h",
)
WORDS += (
    b"--style_mix=" + b"1," * 50_000,
    b"x" * 10**6,
    b"--output=a\0.png",
    b"--content=" + b"y" * 5000,
    b'"',
)
WORDS += (
    b"--flagfile=a\0b",
    b"--flagfile=missing",
    b"--flagfile=case",
    b"--sweep=1",
    b"--preset=gatys",
    b"--seed=-0",
)


def change_lines(rng: np.random.Generator, data: bytes) -> bytes:
    """Put a word of malice into a text, as a line or within one."""
    lines = data.split(b"\n")
    n = int(rng.integers(len(lines)))
    word = pick(rng, WORDS)
    cut = int(rng.integers(len(lines[n]) + 1))
    lines[n : n + 1] = pick(
        rng, ([word], [lines[n], word], [lines[n][:cut] + word + lines[n][cut:]], [], [word] * 300)
    )
    return b"\n".join(lines)


def change_value(rng: np.random.Generator, data: bytes) -> bytes:
    """Give a flag another flag's value, or one of malice."""
    lines = [line.split(b"=", 1) for line in data.split(b"\n") if b"=" in line]
    if not lines:
        return change_lines(rng, data)
    values = [value for _, value in lines] + [
        b"",
        b"nan",
        b"-1",
        b"1e400",
        b"\xff",
        b"0x10",
        b"1,,2",
        b"true",
        b"\0",
    ]
    pick(rng, lines)[1] = pick(rng, values)
    return b"\n".join(itertools.chain(b"=".join(line) for line in lines))
