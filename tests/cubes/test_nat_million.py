# SPDX-License-Identifier: Apache-2.0
"""nat's table with as many sessions as a large network has: filled by packets, read whole, and emptied as they expire."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from nat_lab import EXTERNAL, INSIDE, REMOTE, packet, udp

from polycube.cubes.nat import Nat
from polycube.cubes.nat.cube import SHOWN
from polycube.testing.control import ControlPlane
from polycube.testing.harness import Chain, Hook
from polycube.testing.hosts import eventually
from polycube.testing.quick import Passage, quick

PORTS = 60_000  # of the inside host towards each remote


@dataclass
class Crowd:
    """A nat with room for `count` sessions, and packets that open them."""

    control: ControlPlane[Nat]
    run: Callable[[bytes], Passage]
    count: int
    times: dict[str, float] = field(default_factory=dict)  # seconds

    def send(self, number: int) -> bool:
        """Whether it was let through."""
        frame = bytearray(PLAIN)
        frame[30:34] = (int.from_bytes(PLAIN[30:34], "big") + number // PORTS).to_bytes(4, "big")
        frame[34:36], frame[40:42] = struct.pack("!H", 2000 + number % PORTS), b"\0\0"
        return self.run(bytes(frame)).passed

    def timed(self, what: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        self.times[what] = round(time.perf_counter() - began, 2)
        return result

    def fill(self) -> None:
        for number in range(self.count):
            assert self.send(number), number

    def read(self) -> int:
        """Rows of the stream."""
        return asyncio.run(self._read())

    async def _read(self) -> int:
        ours, theirs = socket.socketpair()
        self.control.service.pour(theirs)

        def lines() -> int:
            with ours, ours.makefile("rb") as stream:
                return sum(json.loads(line)["external-ip"] == EXTERNAL[4] for line in stream)

        return await asyncio.to_thread(lines)


PLAIN = bytes(packet(INSIDE[4], REMOTE[4], udp(0, 53)))


@contextmanager
def crowd(chain: Chain, count: int, life: int) -> Iterator[Crowd]:
    nat = chain.cube("nat", transparent=True, sizes={"sessions": count, "twins": count})
    rule = {"snat": {"entry": [{"id": 0, "internal-net": "10.0.0.0/8", "external-ip": EXTERNAL[4]}]}}
    control = ControlPlane(nat, Nat, {"rule": rule, "max-sessions": count, "timeouts": {"udp": life}})
    with quick(nat, "egress") as run:
        yield Crowd(control, run, count)


def full(made: Crowd) -> None:
    """Fills the table, asks for more, and reads it."""
    cube, count = made.control.cube, made.count
    made.timed("fill", made.fill)
    assert not cube.drops() and len(cube.map("sessions")) == count
    assert not made.send(count) and cube.drops() == {"table_full": 1}
    assert made.send(count - 1), "those that are known go on"
    assert made.control.service.state()["statistics"]["failures"] == 1


@pytest.fixture
def chain(isolated: None) -> Iterator[Chain]:
    with Chain(Hook.XDP) as made:
        yield made


def test_all_sessions_can_be_read_though_the_list_is_cut(chain: Chain) -> None:
    with crowd(chain, SHOWN + 500, 3600) as made:
        full(made)
        assert len(made.control.service.state()["natting-table"]) == SHOWN
        assert made.read() == made.count


@pytest.mark.soak
def test_a_million_sessions_come_and_go(chain: Chain) -> None:
    with crowd(chain, 1_000_000, 240) as made:
        full(made)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert made.timed("read", made.read) == made.count
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        sweep = made.control.service.sweep
        made.timed("sweep, nothing expired", lambda: made.control.run(sweep))
        assert made.control.service.state()["statistics"]["sessions"] == made.count
        cube = made.control.cube

        def empty() -> bool:
            made.times["processor, sweeps that empty"] = made.times.get("processor, sweeps that empty", 0) - time.process_time()
            made.control.run(sweep)
            made.times["processor, sweeps that empty"] += time.process_time()
            return not len(cube.map("sessions"))

        eventually(empty, "all to expire", 600)
        assert not len(cube.map("twins"))
        assert made.send(made.count)
        print(made.times, f"reading took {grown} MB")
