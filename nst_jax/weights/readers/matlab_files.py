"""MATLAB's files of version 5, as far as networks are kept in them: numbers, text, cells and structs.

A reader of our own, because scipy's crashes the interpreter on damaged files. The format: a header of 128
bytes, then elements, each a tag (kind, length) and its data; see MathWorks, "MAT-File Format", chapter 1.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_UNPACKED_BYTES = 2**30  # bytes after decompression; VGG-19 with all its layers has 575 million
MAX_COMPRESSION_RATIO = (
    16  # times a compressed element's own length; numbers of a network compress to half at best
)
SPARE_BYTES = 2**20  # bytes that any element may have
MAX_NESTING = 12  # cells in structs in cells; a network needs four

MATRIX, COMPRESSED = 14, 15  # kinds of elements
CELL, STRUCT, TEXT = 1, 2, 4  # classes of matrices
NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
WIDE = (4, 17)  # kinds of text in UTF-16

Element = tuple[int, memoryview]


def read_variables(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the named variables that a file has: arrays, text, lists of cells, dictionaries of fields.

    A struct array is a list of dictionaries. Raises ValueError, LookupError, TypeError, struct.error or
    zlib.error for a damaged file.
    """
    variables, left = {}, MAX_UNPACKED_BYTES
    with path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}II", tag)
            data = file.read(size)
            if len(data) < size:
                raise ValueError("the file is cut short")
            if kind == COMPRESSED:
                data = _inflate(data, min(left, SPARE_BYTES + MAX_COMPRESSION_RATIO * size))
                left -= len(data)
                kind, content = next(_elements(memoryview(data), order))
            else:
                content = memoryview(data)
            if kind == MATRIX and (name := _Matrix(content, order).name) in names:
                variables[name] = _Matrix(content, order).value()
    return variables


def _inflate(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    inflated = unpacker.decompress(data, limit)
    if not unpacker.eof:
        raise ValueError("compressed data that is cut short, or grows beyond any network's size")
    return inflated


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Yield the elements, which start at multiples of 8 bytes; four bytes or less fit into the tag."""
    start = 0
    while start < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        begin, end = start + 8, start + 8 + size
        if kind >> 16:
            kind, begin, end = kind & 0xFFFF, start + 4, start + 4 + (kind >> 16)
        if end > len(data):
            raise ValueError("an element that reaches past its container")
        yield kind, data[begin:end]
        start = max(start + 8, end + -end % 8)


class _Matrix:
    """An element of kind MATRIX: flags, shape, name, and what its class asks for."""

    def __init__(self, data: memoryview, order: str, depth: int = 0):
        if depth > MAX_NESTING:
            raise ValueError("nested too deeply")
        self.order, self.depth = order, depth
        self.parts = _elements(data, order)
        self.kind = struct.unpack_from(f"{order}I", self.next())[0] & 0xFF
        self.shape = tuple(np.frombuffer(self.next()[:128], f"{order}i4").tolist())
        self.name = bytes(self.next()).decode("ascii")

    def next(self) -> memoryview:
        return self.next_element()[1]

    def next_element(self) -> Element:
        return next(self.parts, (0, memoryview(b"")))

    def value(self) -> Any:
        if self.kind == CELL:
            return self.members(math.prod(self.shape))
        if self.kind == STRUCT:
            return self.structs()
        kind, data = self.next_element()
        if self.kind == TEXT:
            wide = "utf-16-le" if self.order == "<" else "utf-16-be"
            return bytes(data).decode(wide if kind in WIDE else "utf-8")
        numbers = np.frombuffer(data, f"{self.order}{STORED[kind]}")
        return numbers.astype(NUMBERS[self.kind], copy=False).reshape(self.shape, order="F")

    def members(self, count: int) -> list[Any]:
        members = []
        for _ in range(count):
            kind, data = self.next_element()
            if kind != MATRIX:
                raise ValueError("a cell or field is missing")
            members.append(_Matrix(data, self.order, self.depth + 1).value() if data else None)
        return members

    def structs(self) -> Any:
        (width,) = struct.unpack_from(f"{self.order}i", self.next())
        text = bytes(self.next()).decode("ascii")
        names = [text[i : i + width].rstrip("\0") for i in range(0, len(text), width)]
        count = math.prod(self.shape) if names else 0
        structs = [dict(zip(names, self.members(len(names)), strict=True)) for _ in range(count)]
        return structs[0] if len(structs) == 1 else structs
