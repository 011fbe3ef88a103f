# SPDX-License-Identifier: Apache-2.0
"""The reading end of a ring buffer. What was not consumed stays in the buffer, also for the next process that opens the map."""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Callable
from typing import Any, Self

from polycube.bpf.errors import BpfError
from polycube.bpf.lib import check, ffi, lib
from polycube.bpf.map import Map


class RingBuffer:
    """Calls `callback` with each record. `epoll_fd` becomes readable when there are some. The map may be closed: the mapping keeps it."""

    def __init__(self, map: Map, callback: Callable[[bytes], None]) -> None:
        self._callback = callback
        self._left = 0
        self._taken = 0
        self._failure: BaseException | None = None
        self._trampoline = ffi.callback("int(void *, void *, size_t)", self._record)
        self._ring: Any = check(lib.ring_buffer__new(map.fd, self._trampoline, ffi.NULL, ffi.NULL), "open ring buffer")
        self.epoll_fd = int(lib.ring_buffer__epoll_fd(self._ring))

    def consume(self, budget: int = 1 << 30) -> int:
        """Takes up to `budget` records and returns their number. What the callback raises ends it and comes out here."""
        self._left, self._taken, self._failure = budget, 0, None
        if self._ring is None:
            raise BpfError(errno.EBADF, "consume ring buffer", "it is closed")
        if budget <= 0:
            return 0
        result = int(lib.ring_buffer__consume(self._ring))
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if result < 0 and self._left > 0:
            check(result, "consume ring buffer")
        return self._taken

    def close(self) -> None:
        if self._ring is not None:
            lib.ring_buffer__free(self._ring)
            self._ring = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, _context: Any, data: Any, size: int) -> int:
        # A negative result ends libbpf's loop behind this record, whose consumption is committed all the same.
        self._left -= 1
        self._taken += 1
        try:
            self._callback(bytes(ffi.buffer(data, size)))
        except BaseException as failure:
            self._failure = failure
            return -1
        return 0 if self._left > 0 else -1


_BUSY, _DISCARDED, _HEAD = 1 << 31, 1 << 30, 8  # BPF_RINGBUF_BUSY_BIT, _DISCARD_BIT, _HDR_SZ
_U64 = struct.Struct("<Q")


class RingReader:
    """Reads many records at once, where they lie: views of shared memory that are valid until `release`. For one reader at a time.

    Layout (Linux, kernel/bpf/ringbuf.c): a page with the consumer's position, one with the producers', the data, twice in a row so that a
    record that passes the end lies in one piece. A record is its length with two marks, a word for the kernel, and the bytes.
    """

    def __init__(self, map: Map, length_at: int | None = None) -> None:
        """`length_at`: where in a record stands (u32) how much of it is used, if it was reserved larger."""
        self.size = map.info.max_entries
        self._length_at = length_at
        self._page = mmap.PAGESIZE
        self._position_page = mmap.mmap(map.fd, self._page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._data = mmap.mmap(map.fd, self._page + 2 * self.size, mmap.MAP_SHARED, mmap.PROT_READ, offset=self._page)
        self._view = memoryview(self._data)
        self._words = self._view.cast("I")
        (self._position,) = _U64.unpack_from(self._position_page)

    def read(self, records: int = 1024, size: int = 1 << 20) -> list[memoryview]:
        """Up to so many records, and no more after so many bytes. Empty: there are none. The views are valid until `release`; whoever keeps
        one keeps the memory.

        Records of the same size in a row are taken at once, by slices with a step: that is several times as fast as one by one.
        """
        found: list[memoryview] = []
        (end,) = _U64.unpack_from(self._data)
        stop = min(end, self._position + size)
        while self._position < stop and len(found) < records:
            at = self._page + (self._position & self.size - 1)
            length = self._words[at >> 2]
            if length & _BUSY:
                break
            step = (length & ~_DISCARDED) + _HEAD + 7 & ~7
            count = self._run(at, length, step, min(records - len(found), max(1, (stop - self._position) // step)))
            if not length & _DISCARDED:
                found += self._records(at + _HEAD, length, step, count)
            self._position += count * step
        return found

    def _run(self, at: int, length: int, step: int, most: int) -> int:
        """How many records of this length follow each other."""
        lengths = self._column(at, step, most)
        return most if lengths.count(length) == most else next(i for i, one in enumerate(lengths) if one != length)

    def _records(self, at: int, length: int, step: int, count: int) -> list[memoryview]:
        view = self._view
        if self._length_at is None:
            return [view[begin : begin + length] for begin in range(at, at + count * step, step)]
        used = self._column(at + self._length_at, step, count)
        if max(used) > length:
            used = [min(one, length) for one in used]
        return [view[begin : begin + one] for begin, one in zip(range(at, at + count * step, step), used, strict=True)]

    def _column(self, at: int, step: int, count: int) -> list[int]:
        """The word at the same place of so many records."""
        return self._words[at >> 2 : (at >> 2) + (count - 1) * (step >> 2) + 1 : step >> 2].tolist()

    @property
    def position(self) -> int:
        """Bytes read since the ring was made, what stands around records included."""
        return int(self._position)

    def release(self) -> None:
        """What was read makes room for more."""
        _U64.pack_into(self._position_page, 0, self._position)

    def close(self) -> None:
        self._words.release()
        self._view.release()
        self._data.close()
        self._position_page.close()
