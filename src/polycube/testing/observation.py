# SPDX-License-Identifier: Apache-2.0
"""What becomes of one frame on its way through a chain: what the probe writes down, and what cubes count and hand up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from polycube.core.slowpath import MARK_SPAN
from polycube.testing.cube import CubeUnderTest
from polycube.testing.result import Exit, Result
from polycube.testing.stage import PASSED, SHADOW, Record, Stage

LATE = 0.001  # seconds without a copy after which no more are expected
PATIENCE = 1.0


class Observation:
    """Begins when it is made: what was there before does not count."""

    def __init__(self, stage: Stage, cubes: Sequence[CubeUnderTest], cube: CubeUnderTest) -> None:
        self._stage = stage
        self._cubes = cubes
        self._edges = {id: (member.name, port) for member in cubes for port, id in enumerate(member.ids)}
        self.result = Result(cube.name)
        self.collect()
        self.result = Result(cube.name, wait=self.wait)
        self._sent = {(member, port): member.counters(port).tx_packets for member in cubes for port in member.netdevs}

    def collect(self) -> bool:
        """Takes what has come since the last call; whether there was anything."""
        result, before = self.result, self.result.size
        self._stage.consume()
        for record in self._stage.records:
            self._take(record)
        self._stage.records.clear()
        for member in self._cubes:
            result.events += member.take_events()
            result.drops += member.take_drops()
            result.spanned += member.take_copies()
        return result.size > before

    def wait(self, done: Callable[[], bool]) -> None:
        """Collects until a condition holds, or patience is at its end."""
        deadline = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < deadline:
            time.sleep(LATE)
            self.collect()

    def settle(self) -> None:
        """Collects until nothing more comes."""
        time.sleep(LATE)
        while self.collect():
            time.sleep(LATE)

    def redirected(self, frame: bytes) -> bool:
        """TC, where a test run does not carry out the redirect of the original: whether a counter tells by which port it left."""
        copied, known = [(exit.cube, exit.port) for exit in self.result.exits], self.result.size
        for (member, number), before in self._sent.items():
            if member.counters(number).tx_packets > before and (member.name, number) not in copied:
                self.result.exits.append(Exit(member.name, number, frame))
        return self.result.size > known

    def _take(self, record: Record) -> None:
        if record.endpoint == PASSED:
            self.result.stack.append(record.frame)
        elif edge := self._edges.get(record.endpoint):
            self.result.exits.append(Exit(*edge, record.frame, record.mark))
        elif edge := self._edges.get(record.endpoint - SHADOW):
            into = self.result.spanned if record.mark == MARK_SPAN else self.result.namespace
            into.append(Exit(*edge, record.frame))
