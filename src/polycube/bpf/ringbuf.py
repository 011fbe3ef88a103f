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
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


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
        (self._position,) = _U64.unpack_from(self._position_page)
        self._views: list[memoryview] = []

    def read(self, records: int = 1024, size: int = 1 << 20) -> list[memoryview]:
        """Up to so many records, and no more after so many bytes. Empty: there are none."""
        position, data, view, page, mask = self._position, self._data, self._view, self._page, self.size - 1
        length_at, found, unpack = self._length_at, self._views, _U32.unpack_from
        (end,) = _U64.unpack_from(data)
        stop = min(end, position + size)
        while position < stop and len(found) < records:
            at = page + (position & mask)
            (length,) = unpack(data, at)
            if length & _BUSY:
                break
            at += _HEAD
            whole = length & ~_DISCARDED
            if whole == length:
                used = whole if length_at is None else unpack(data, at + length_at)[0]
                found.append(view[at : at + min(used, whole)])
            position += whole + _HEAD + 7 & ~7
        self._position = position
        return found

    def release(self) -> None:
        """What was read makes room for more."""
        for one in self._views:
            one.release()
        self._views = []
        _U64.pack_into(self._position_page, 0, self._position)

    def close(self) -> None:
        for one in self._views:
            one.release()
        self._view.release()
        self._data.close()
        self._position_page.close()
