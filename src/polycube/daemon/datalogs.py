# SPDX-License-Identifier: Apache-2.0
"""Lines of data planes in the daemon's log. While no daemon lives they wait in the ring buffer, as far as there is room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from polycube.bpf import Map, RingBuffer
from polycube.core.datalog import decode

LIMIT = 500  # lines a second; a cube that logs every frame must not keep the daemon busy
BATCH = 64


class DataLogs:
    """Reads the ring buffer. `said(number of the cube, line)` gets lines as `logs.relay` takes them."""

    def __init__(self, map: Map, said: Callable[[int, Mapping[str, Any]], None]) -> None:
        self._said = said
        self._ring = RingBuffer(map, self._record)
        self._lines = 0
        self._left_out = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ring.epoll_fd, self._ring.consume, BATCH)
        self._timer = self._loop.call_later(1, self._end_second)

    def close(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._ring.epoll_fd)
        self._ring.close()

    def _record(self, record: bytes) -> None:
        self._lines += 1
        if self._lines > LIMIT:
            self._left_out += 1
            return
        line = decode(record)
        self._say(line.cube, line.level.lower(), line.text)

    def _end_second(self) -> None:
        self._timer = self._loop.call_later(1, self._end_second)
        left_out, self._lines, self._left_out = self._left_out, 0, 0
        if left_out:
            self._say(-1, "warn", f"{left_out} log lines of data planes were left out")

    def _say(self, cube: int, level: str, text: str) -> None:
        self._said(cube, {"time": time.time(), "level": level, "event": text, "fields": {}, "exception": None})
