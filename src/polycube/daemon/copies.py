# SPDX-License-Identifier: Apache-2.0
"""Copies of XDP cubes' traffic, from the ring buffer of unit_shadow.h into the namespaces of the cubes (span mode).

XDP can't clone a frame, so copies take this way; those of TC cubes never come here. What finds no room in the ring buffer while the daemon
is busy, or away, is counted there (PCN_DROP_SPAN); what the netdev does not take is counted here (`Keeper.lost_copies`). The traffic itself
is not held up.
"""

from __future__ import annotations

import asyncio
import struct

from polycube.bpf import Map, RingBuffer
from polycube.core.kernel import Kernel
from polycube.core.paths import COPIES
from polycube.core.slowpath import MARK_SPAN, ShadowSockets
from polycube.daemon.keeper import Keeper
from polycube.net.errors import NetError

BATCH = 128  # copies at a time, so that requests get their turn
_COPY = struct.Struct("<2I")  # struct pcn_copy


class Copies:
    """Begins with the first cube that needs it."""

    def __init__(self, keeper: Keeper, kernel: Kernel) -> None:
        self._keeper = keeper
        self._pin = kernel.paths.shared_map(COPIES)
        self._ring: RingBuffer | None = None
        self._sockets = ShadowSockets()

    def touched(self) -> None:
        """What stands has changed."""
        entries = self._keeper.entries.values()
        wanted = any(one.hook == "xdp" and not one.transparent and one.standard.span for one in entries)
        if wanted and self._ring is None and self._pin.exists():
            with Map.open(self._pin) as map:
                self._ring = RingBuffer(map, self._copy)
            asyncio.get_running_loop().add_reader(self._ring.epoll_fd, self._ring.consume, BATCH)
        elif not wanted:
            self.close()

    def _copy(self, record: bytes) -> None:
        id, length = _COPY.unpack_from(record)
        try:
            if not self._sockets.send(id, record[_COPY.size : _COPY.size + length], MARK_SPAN):
                self._keeper.lost_copies += 1
        except NetError:  # the port has gone, or is down
            self._keeper.lost_copies += 1

    def close(self) -> None:
        """What comes from now on waits, as far as there is room."""
        self._sockets.close()
        if self._ring is not None:
            asyncio.get_running_loop().remove_reader(self._ring.epoll_fd)
            self._ring.close()
            self._ring = None
