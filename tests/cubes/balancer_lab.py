# SPDX-License-Identifier: Apache-2.0
"""A load balancer on the test stage: its real data plane, and its real control plane on the kernel's maps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from polycube.compiler.function import UnitSpec
from polycube.core.cube import Cube, NetdevFacts, Packet, PortFacts
from polycube.core.maps import MapView, Shapes
from polycube.model import Diff, Edit, edit, load
from polycube.testing.harness import CubeUnderTest
from polycube.testing.result import Result
from polycube.testing.stage import emit
from polycube.toolkit import tokenbucket
from polycube.toolkit.vantage import set_limit

C = TypeVar("C", bound=Cube[Any])
UUID = "5c1f0a52-0000-4000-8000-000000000001"


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, **_: Any) -> None:
        self.lines.append(text)

    debug = info = error = warning


class Cfg:
    """Writes constants of the cube under test, as the daemon would after `apply`."""

    def __init__(self, cube: CubeUnderTest) -> None:
        self._cube = cube

    def __setitem__(self, name: str, value: Any) -> None:
        self._cube.cfg(**{name: value})


def facts(number: int, mtu: int = 1500) -> PortFacts:
    """A port that leads to a netdev."""
    netdev = NetdevFacts(f"eth{number}", 10 + number, f"02:00:00:00:00:c{number}", mtu)
    return PortFacts(f"p{number}", number, number + 1, up=True, peer=netdev.name, netdev=netdev)


class Lab(Generic[C]):
    """One cube, whose ports are named p0, p1, … in the order of their numbers."""

    def __init__(self, under_test: CubeUnderTest, service: type[C], config: Mapping[str, Any]) -> None:
        self.cube = under_test
        self.sent: list[tuple[int, bytes]] = []
        self.log = Log()
        shapes = Shapes._parse(emit(UnitSpec(service.function(), under_test.stage.hook)))
        self.maps = {name: MapView(name, shape, lambda name=name: under_test.map(name).kernel) for name, shape in shapes.maps.items()}
        self.service = service("lb1", UUID, self.maps, Cfg(under_test), self, self.log)  # type: ignore[arg-type]
        self.service.ports = {f"p{number}": facts(number) for number in range(under_test.ports)}
        self.configure(self._load(config), None)

    def _load(self, config: Mapping[str, Any]) -> Any:
        return load(self.service.config, {"name": "lb1", **config})

    def reset(self, config: Mapping[str, Any], *, mtu: int = 1500, forget: Sequence[str] = ()) -> None:
        """Another configuration, and nothing learnt in the maps of `forget`: as good as another cube, and cheaper."""
        self.service.ports = {name: facts(one.number, mtu) for name, one in self.service.ports.items()}
        self.configure(self._load(config), self.service.current)
        for name in forget:
            self.cube.map(name).clear()
        self.sent.clear()
        self.log.lines.clear()

    def configure(self, new: Any, old: Any) -> None:
        """As the worker does it: what is applied is seen as the configuration meanwhile, and stays if nothing is raised."""
        self.service.current = new
        try:
            self.service.apply(Diff(old, new))
            self.service.facts(list(self.service.ports))
        except Exception:
            self.service.current = old
            raise

    def edit(self, *edits: Edit) -> None:
        assert self.service.current
        self.configure(edit(self.service.current, edits), self.service.current)

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

    # ---- Host ----

    def transmit(self, cube: Any, port: int, frame: bytes, *, out: bool, ifindex: int = 0, xdp: bool | None = None) -> None:
        self.sent.append((port, frame))

    # ---- packets ----

    def send(self, packet: Any, port: int = 0) -> Result:
        """Through the data plane; what goes up is handled by the control plane."""
        result = self.cube.send(packet, port)
        for event in result.events:
            facts = next(one for one in self.service.ports.values() if one.number == event.port)
            asyncio.run(self.service.packet(Packet(bytes(event.packet), facts, event.reason, event.metadata)))
        return result


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
