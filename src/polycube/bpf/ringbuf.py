# SPDX-License-Identifier: Apache-2.0
"""The reading end of a ring buffer. What was not consumed stays in the buffer, also for the next process that opens the map."""

from __future__ import annotations

import errno
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
