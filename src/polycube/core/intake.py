# SPDX-License-Identifier: Apache-2.0
"""The slow path of one cube, from its ring buffer to `await cube.packet()`.

Mechanism: the loop watches the ring buffer. Each turn takes a limited number of records from each cube that has some, so that a flood
of one does not starve the others. Records wait in a queue of limited length, and a limited number of packets is in the cube's hands at
a time. While the queue is full the ring buffer is not read: it fills up in its turn, and the data plane drops (and counts, as
PCN_DROP_SLOWPATH_FULL) what it cannot hold, which costs this process nothing.

Invariants: what `packet` raises is counted and logged, a limited number of times, and harms no other packet; what it does not finish in
`PATIENCE` is given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polycube.bpf import Map, RingBuffer
from polycube.core.complaint import Complaints
from polycube.core.cube import Cube, PortFacts
from polycube.core.slowpath import decode

BUDGET = 32
QUEUE = 256
IN_FLIGHT = 8
PATIENCE = 30.0


@dataclass
class Counts:
    """Of one cube, since it came into this process."""

    packets: int = 0  # handed to the cube
    failed: int = 0  # what it raised, or did not finish
    malformed: int = 0  # records that are none
    stalls: int = 0  # times that the queue was full
    sent: int = 0
    unsent: int = 0  # frames that the kernel did not take
    timer_failures: int = 0

    def as_data(self) -> dict[str, int]:
        return asdict(self)


class Intake:
    """Reads a ring buffer into a cube, between `open` and `close`."""

    def __init__(
        self,
        cube: Cube[Any],
        counts: Counts,
        complaints: Complaints,
        ports: Callable[[], Mapping[int, PortFacts]],
    ) -> None:
        self._cube = cube
        self._counts = counts
        self._complaints = complaints
        self._ports = ports
        self._queue: deque[bytes] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ring: RingBuffer | None = None
        self._map: Map | None = None
        self._reading = False

    @property
    def waiting(self) -> int:
        """Records taken from the ring buffer that wait for their turn."""
        return len(self._queue)

    def open(self, pin: Path) -> bool:
        """Starts; False if the cube has no slow path."""
        self._map = Map.find(pin)
        if self._map is None:
            return False
        self._ring = RingBuffer(self._map, self._queue.append)
        self._watch(True)
        return True

    async def close(self) -> None:
        """Stops; packets in the cube's hands are cancelled. What is unread stays for the next reader of the pin."""
        self._watch(False)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._queue.clear()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        if self._map is not None:
            self._map.close()
            self._map = None

    def _watch(self, on: bool) -> None:
        if self._ring is None or on == self._reading:
            return
        loop = asyncio.get_running_loop()
        if on:
            loop.add_reader(self._ring.epoll_fd, self._read)
        else:
            loop.remove_reader(self._ring.epoll_fd)
        self._reading = on

    def _read(self) -> None:
        assert self._ring
        self._ring.consume(min(BUDGET, QUEUE - len(self._queue)))
        self._dispatch()
        if len(self._queue) >= QUEUE:
            self._counts.stalls += 1
            self._watch(False)

    def _dispatch(self) -> None:
        while self._queue and len(self._tasks) < IN_FLIGHT:
            task = asyncio.create_task(self._handle(self._queue.popleft()), name=f"packet {self._cube.name}")
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._ring is None or task.cancelled():
            return
        self._dispatch()
        if len(self._queue) <= QUEUE // 2:
            self._watch(True)

    async def _handle(self, record: bytes) -> None:
        try:
            packet = decode(record, self._ports())
        except ValueError as error:
            self._counts.malformed += 1
            self._complaints.error("bad record in the ring buffer", error)
            return
        self._counts.packets += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._cube.packet(packet)
        except Exception as error:
            self._counts.failed += 1
            self._complaints.error("packet failed", error)
