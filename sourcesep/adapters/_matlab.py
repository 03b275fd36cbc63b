"""MATLAB 5 files, looked through before SciPy's reader trusts what they say of themselves.

SciPy reads EEGLAB's .set files in C and believes every type, size and depth that it finds; a
damaged file can end the process. So all of them are checked first, in the order in which
SciPy takes them, without keeping any samples. The format: MathWorks, "MAT-File Format", 2024.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_matlab"]

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
NUMBERS = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 12, 13))
TEXTS = NUMBERS | {16, 17, 18}
"""Types of elements that hold numbers, and those that may hold text."""
CELL, STRUCT, OBJECT, CHAR, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 4, 5, 16, 17
NUMERIC = range(6, 16)
"""Classes of arrays; `NUMERIC` are those of numbers."""
DEEPEST = 50
"""How deep arrays may lie within arrays; EEGLAB's are less than ten deep."""
CHUNK = 2**16


def check_matlab(path: Path) -> None:
    """Refuse a file that is not what SciPy can read.

    Raises
    ------
    ValueError
        If it is no MATLAB 5 file, or damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(128)
            orders = {b"\0\1IM": "<", b"\1\0MI": ">"}
            if head[124:] not in orders or 0 in head[:4]:
                raise ValueError("no MATLAB 5 file")
            order = orders[head[124:]]
            while (at := file.tell()) < size:
                kind, length = struct.unpack(order + "II", file.read(8))
                end = at + 8 + length
                if end > size:
                    raise ValueError("the file is truncated")
                if kind == COMPRESSED:
                    inside: _Plain | _Packed = _Packed(file, length)
                elif kind == MATRIX:
                    file.seek(at)
                    inside = _Plain(file)
                else:
                    raise ValueError(f"an element of type {kind}")
                _Elements(inside, order).array(math.inf)
                file.seek(end)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"it is damaged: {error}") from error


class _Plain:
    """Bytes of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, n: int) -> bytes:
        return self.file.read(n)

    def skip(self, n: int) -> None:
        self.file.seek(n, 1)


class _Packed:
    """Bytes that a compressed part of a file holds, unpacked as they are read."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file, self.left = file, length
        self.unpacker = zlib.decompressobj()

    def read(self, n: int) -> bytes:
        found = b""
        while len(found) < n and not self.unpacker.eof:
            packed = self.unpacker.unconsumed_tail
            if not packed:
                packed = self.file.read(min(CHUNK, self.left))
                self.left -= len(packed)
            if not packed:
                break
            found += self.unpacker.decompress(packed, n - len(found))
        return found

    def skip(self, n: int) -> None:
        while n:
            size = min(n, CHUNK)
            if len(self.read(size)) < size:
                raise ValueError("an element is truncated")
            n -= size


class _Elements:
    """The elements of an array, one after the other."""

    def __init__(self, source: _Plain | _Packed, order: str) -> None:
        self.source, self.order, self.at = source, order, 0

    def _take(self, n: int) -> bytes:
        found = self.source.read(n)
        if len(found) < n:
            raise ValueError("an element is truncated")
        self.at += n
        return found

    def _element(self, kinds: frozenset[int], end: float, keep: bool = False) -> tuple[int, bytes]:
        """Go past an element of data; return its size, and its content if it is to be kept."""
        tag = self._take(8)
        kind, size = struct.unpack(self.order + "II", tag)
        if kind >> 16:  # a small one: its content lies within the tag
            kind, size = kind & 0xFFFF, kind >> 16
            content, length = tag[4 : 4 + size], 0
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
        else:
            length = -(-size // 8) * 8
            content = b""
        if kind not in kinds:
            raise ValueError(f"an element of type {kind} where there must be data")
        if self.at + length > end:
            raise ValueError("an element is longer than what it is part of")
        if keep and length:
            content = self._take(length)[:size]
        elif length:
            self.source.skip(length)
            self.at += length
        return size, content

    def _whole_numbers(self, end: float) -> list[int]:
        _, content = self._element(frozenset((INT32, UINT32)), end, keep=True)
        return list(struct.unpack(f"{self.order}{len(content) // 4}i", content))

    def _text(self, end: float) -> bytes:
        return self._element(frozenset((INT8,)), end, keep=True)[1]

    def array(self, end: float, depth: int = 0) -> None:
        """Go past an array, and all that lies in it."""
        if depth > DEEPEST:
            raise ValueError(f"arrays within arrays, more than {DEEPEST} deep")
        kind, size = struct.unpack(self.order + "II", self._take(8))
        if kind != MATRIX:
            raise ValueError(f"an element of type {kind} where there must be an array")
        if size == 0:
            return
        stop = self.at + size
        if stop > end:
            raise ValueError("an array is longer than what it is part of")
        self._content(stop, depth + 1)
        if self.at != stop:
            raise ValueError("an array is not as long as it says")

    def _content(self, stop: int, depth: int) -> None:
        """Go past what an array consists of, by its class."""
        flags = self._whole_numbers(stop)
        if len(flags) != 2:
            raise ValueError("an array without flags")
        kind, is_complex = flags[0] & 0xFF, bool(flags[0] >> 11 & 1)
        if kind == OPAQUE:
            for _ in range(3):
                self._text(stop)
            self.array(stop, depth)
            return
        count = self._count(stop)
        self._text(stop)  # the array's name
        if kind in NUMERIC or kind == SPARSE:  # sparse ones have two index arrays first
            for _ in range(1 + is_complex + 2 * (kind == SPARSE)):
                self._element(NUMBERS, stop)
        elif kind == CHAR:
            size, _ = self._element(TEXTS, stop)
            if count > max(size, 1000):
                raise ValueError(f"a text of {count} letters in {size} bytes")
        elif kind == FUNCTION:
            self.array(stop, depth)
        elif kind in (CELL, STRUCT, OBJECT):
            if kind == OBJECT:
                self._text(stop)  # its class's name
            self._arrays(count if kind == CELL else count * self._n_fields(stop), stop, depth)
        else:
            raise ValueError(f"an array of class {kind}")

    def _count(self, stop: int) -> int:
        """Read an array's shape; return how many values it has."""
        shape = self._whole_numbers(stop)
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise ValueError(f"an array of shape {tuple(shape[:32])}")
        return math.prod(shape)

    def _n_fields(self, stop: int) -> int:
        lengths = self._whole_numbers(stop)
        names = self._text(stop)
        if len(lengths) != 1 or lengths[0] < 1 or len(names) % lengths[0]:
            raise ValueError("a structure whose fields have no names")
        return len(names) // lengths[0]

    def _arrays(self, count: int, stop: int, depth: int) -> None:
        if count > (stop - self.at) // 8:
            raise ValueError(f"{count} arrays in {stop - self.at} bytes")
        for _ in range(count):
            self.array(stop, depth)
