# SPDX-License-Identifier: Apache-2.0
"""The reading end of a ring buffer. What was not consumed stays in the buffer, also for the next process that opens the map."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
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


class Batch:
    """Records where they lie, to be written as they are, or looked at one by one; valid until the reader's `release`."""

    def __init__(self, view: memoryview, address: int) -> None:
        self._view = view
        self._address = address
        self._parts = array("Q")  # of struct iovec: address and length of each
        self.size = 0  # bytes of all records

    def __len__(self) -> int:
        return len(self._parts) >> 1

    def __iter__(self) -> Iterator[memoryview]:
        for begin, length in zip(self._parts[::2], self._parts[1::2], strict=True):
            yield self._view[begin - self._address : begin - self._address + length]

    def writev(self, fd: int) -> int:
        """Writes them all at once; bytes written, perhaps not all. Raises OSError."""
        done = int(lib.writev(fd, ffi.cast("struct iovec *", self._parts.buffer_info()[0]), len(self)))
        if done < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return done

    def add(self, begin: int, step: int, lengths: Sequence[int]) -> None:
        """Records that begin at an offset, and so many bytes behind one another."""
        begin += self._address
        more = array("Q", bytes(16 * len(lengths)))
        more[::2] = array("Q", list(range(begin, begin + step * len(lengths), step)))  # of a list: four times as fast as of the range
        more[1::2] = array("Q", lengths)
        self._parts += more
        self.size += sum(lengths)


class RingReader:
    """Reads many records at once, where they lie. For one reader at a time.

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
        self._pinned = ffi.from_buffer(self._data)
        self._address = int(ffi.cast("uintptr_t", self._pinned))
        (self._position,) = _U64.unpack_from(self._position_page)

    def read(self, records: int = 1024, size: int = 1 << 20) -> Batch:
        """Up to so many records, and no more after so many bytes; an empty batch if there are none.

        Records of the same size in a row are taken at once, by slices with a step, whatever their number.
        """
        found = Batch(self._view, self._address)
        (end,) = _U64.unpack_from(self._data)
        stop, left = min(end, self._position + size), records
        while self._position < stop and left:
            at = self._page + (self._position & self.size - 1)
            length = self._words[at >> 2]
            if length & _BUSY:
                break
            step = (length & ~_DISCARDED) + _HEAD + 7 & ~7
            count = self._run(at, length, step, min(left, max(1, (stop - self._position) // step)))
            if not length & _DISCARDED:
                found.add(at + _HEAD, step, self._lengths(at + _HEAD, length, step, count))
            self._position += count * step
            left -= count
        return found

    def _run(self, at: int, length: int, step: int, most: int) -> int:
        """How many records of this length follow each other."""
        lengths = self._column(at, step, most)
        return most if lengths.count(length) == most else next(i for i, one in enumerate(lengths) if one != length)

    def _lengths(self, at: int, length: int, step: int, count: int) -> list[int]:
        """How much of each of so many records is used."""
        if self._length_at is None:
            return [length] * count
        used = self._column(at + self._length_at, step, count)
        return used if max(used) <= length else [min(one, length) for one in used]

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
        ffi.release(self._pinned)
        self._words.release()
        self._view.release()
        self._data.close()
        self._position_page.close()
