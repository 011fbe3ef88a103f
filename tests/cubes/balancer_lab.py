# SPDX-License-Identifier: Apache-2.0
"""A load balancer on the test stage: its real data plane, and its real control plane on the kernel's maps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from polycube.testing.control import ControlPlane
from polycube.testing.control import port_facts as facts
from polycube.testing.harness import CubeUnderTest
from polycube.testing.result import Result
from polycube.toolkit import tokenbucket
from polycube.toolkit.balancer import Balancer
from polycube.toolkit.vantage import set_limit

C = TypeVar("C", bound=Balancer[Any])


class Lab(ControlPlane[C]):
    """One load balancer."""

    def __init__(self, under_test: CubeUnderTest, service: type[C], config: Mapping[str, Any]) -> None:
        super().__init__(under_test, service, config, "lb1")

    def reset(self, config: Mapping[str, Any], *, mtu: int = 1500, forget: Sequence[str] = ()) -> None:
        """Another configuration, and nothing learnt in the maps of `forget`: as good as another cube, and cheaper."""
        self.service.ports = {name: facts(one.number, mtu) for name, one in self.service.ports.items()}
        self.configure(config)
        for name in forget:
            self.cube.map(name).clear()
        self.sent.clear()
        self.log.lines.clear()

    @contextmanager
    def limited(self, frames: int) -> Iterator[None]:
        """Within, so many frames go up, and one more with each second."""
        self.cube.map("vantage_limit")[0] = {"rate": tokenbucket.rate(1, frames)}
        yield
        set_limit(self.service.maps)

    def flooded(self, packet: Any, port: int, count: int, reason: str) -> int:
        """How many of so many packets went up; the others must have been dropped for this reason."""
        before = self.cube.drops().get(reason, 0)
        up = sum(bool(self.cube.send(packet, port).events) for _ in range(count))
        assert self.cube.drops().get(reason, 0) - before == count - up
        return up


def nonsense(good: Sequence[Any], count: int) -> Iterator[bytes]:
    """Frames with a few bytes changed, or cut off: the same in every run."""
    chance = random.Random(1)
    for _ in range(count):
        frame = bytearray(bytes(chance.choice(good)))
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(12, min(len(frame), 80))] = chance.randrange(256)
        yield bytes(frame[: chance.choice((len(frame), chance.randrange(14, len(frame) + 1)))])


def decided(result: Result) -> bool:
    """Whether it went somewhere, or was dropped for a reason."""
    return bool(result.drops or result.port is not None or result.copies or result.events)
