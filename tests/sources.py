"""Inputs over plain bytes, for tests of what reads a ``Source``."""

from __future__ import annotations


class MemorySource:
    """A ``formats.base.Source`` over bytes that keeps account of what is asked of it.

    Attributes:
        asked: For each read, the offset and the bytes that the buffers would hold.
    """

    def __init__(self, data: bytes, uri: bytes = b"folder/input") -> None:
        self.uri = uri
        self.size = len(data)
        self.asked: list[tuple[int, int]] = []
        self._data = memoryview(data)

    @property
    def asked_bytes(self) -> int:
        return sum(size for _, size in self.asked)

    def read_into(self, buffers: list[memoryview], offset: int) -> int:
        self.asked.append((offset, sum(map(len, buffers))))
        start = offset
        for buffer in buffers:
            piece = self._data[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            start += len(piece)
        return start - offset


class ShrunkSource(MemorySource):
    """A source that ends earlier than its size says, as a file does that is cut short while it is read."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size
