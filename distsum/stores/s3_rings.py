"""Memory that bodies of objects are received into, used again by the next ones."""

from __future__ import annotations

import mmap
import threading
from typing import Final

_MUCH_BYTES: Final = 1 << 20


class Rings:
    """Lends memory to bodies, from any thread.

    It is mapped by itself, since an allocator would keep some of what it gets back, beyond what is planned for. What
    comes back is kept for the next body of that size as long as others are out, which saves clearing it again.

    Attributes:
        lent: How many are out; what is small does not count.
        filled: Bytes that have arrived in those that are out, and wait to be taken.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lent = 0
        self.filled = 0
        self._spare: list[memoryview] = []

    def lend(self, size: int) -> memoryview:
        """Return memory for so many bytes; what lies in it is of no meaning."""
        if size < _MUCH_BYTES:
            return memoryview(bytearray(size))
        with self._lock:
            self.lent += 1
            self._spare = [each for each in self._spare if len(each) == size]
            if self._spare:
                return self._spare.pop()
            return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def note(self, size: int) -> None:
        """Note that so many bytes have arrived; fewer than 0 for those that were taken, or are not wanted any more."""
        with self._lock:
            self.filled += size

    def take_back(self, ring: memoryview) -> None:
        """Take back what was lent, and is not used any more."""
        if len(ring) < _MUCH_BYTES:
            return
        with self._lock:
            self.lent -= 1
            self._spare.append(ring)
            if not self.lent:
                self._spare.clear()
