# SPDX-License-Identifier: Apache-2.0
"""A service's control plane on the maps of a cube under test: both halves of a network function together, without a daemon.

It is to the service's class what a worker is: it gives it a configuration, the facts of its ports and what the data plane hands up, and
keeps what the class sends, logs, alarms and asks for. Writes of `apply` and `facts` are recorded, and made when nothing was raised. Time
passes when the test says so: timers are called by `run`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from polycube.core.cube import Cube, NetdevFacts, Packet, PortFacts
from polycube.core.maps import CfgView, MapWrite
from polycube.core.mirror import AddressOf, Fact, MacOf, NeighbourOf, RouteTo
from polycube.model import Diff, Edit, edit, load
from polycube.testing.cube import CubeUnderTest
from polycube.testing.packets import PacketLike
from polycube.testing.result import Event, Result

__all__ = [
    "AddressOf",
    "ControlPlane",
    "Fact",
    "Log",
    "MacOf",
    "MapWrite",
    "NeighbourOf",
    "NetdevFacts",
    "Packet",
    "PortFacts",
    "RouteTo",
    "port_facts",
]

C = TypeVar("C", bound=Cube[Any])
UUID = "5c1f0a52-0000-4000-8000-000000000001"


class Log:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, **_: Any) -> None:
        self.lines.append(text)

    debug = info = error = warning


def port_facts(number: int, mtu: int = 1500, mac: str = "", addresses: tuple[str, ...] = ()) -> PortFacts:
    """A port p<number> that is up and leads to a netdev eth<number>."""
    netdev = NetdevFacts(f"eth{number}", 10 + number, mac or f"02:00:00:00:00:c{number}", mtu, addresses)
    return PortFacts(f"p{number}", number, number + 1, up=True, peer=netdev.name, netdev=netdev)


@dataclass
class Host:
    """What a worker gives to the cubes in it (core.cube.Host)."""

    control: ControlPlane[Any]

    def transmit(self, cube: Any, port: int, frame: bytes, *, out: bool, ifindex: int = 0, xdp: bool | None = None) -> None:
        (self.control.sent if out else self.control.received).append((port, frame))

    def hand_over(self, cube: Any, port: int, frame: bytes) -> None:
        self.control.handed_over.append((port, frame))

    async def edit(self, cube: Any, edits: Sequence[Edit]) -> None:
        self.control.edits += edits
        self.control.edit(*edits)

    def alarm(self, cube: Any, alarm: str, fields: Mapping[str, Any]) -> None:
        self.control.alarms.append((alarm, dict(fields)))


class ControlPlane(Generic[C]):
    """One cube. `service` is the instance of the class; ports are named p0, p1, … (transparent: ingress, egress). `facts` makes those of
    a port from its number."""

    def __init__(
        self,
        cube: CubeUnderTest,
        service: type[C],
        config: Mapping[str, Any] | None = None,
        name: str = "cube1",
        facts: Callable[[int], PortFacts] = port_facts,
    ) -> None:
        self.cube = cube
        self.name = name
        self.log = Log()
        self._class = service
        self.sent: list[tuple[int, bytes]] = []  # frames out of a port, by its number
        self.received: list[tuple[int, bytes]] = []  # frames as if a port had received them
        self.handed_over: list[tuple[int, bytes]] = []  # frames for the cube's namespace
        self.writes: list[MapWrite] = []  # that the last change has made
        self.edits: list[Edit] = []  # of its own configuration; they have been made
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.service = self._made()
        ports = [facts(number) for number in range(cube.ports)]
        if cube.function.transparent:
            ports = [replace(one, name=direction) for one, direction in zip(ports, ("ingress", "egress"), strict=True)]
        self.service.ports = {one.name: one for one in ports}
        self.configure(config or {})

    def _made(self) -> C:
        return self._class(self.name, UUID, self.cube.maps, CfgView(self.cube.shapes.cfg), Host(self), self.log)  # type: ignore[arg-type]

    def adopt(self) -> None:
        """A new process of the service takes the cube over, as after a crash: what is in the maps is all it finds."""
        before, self.service = self.service, self._made()
        self.service.current, self.service.ports, self.service.parent = before.current, before.ports, before.parent

    # ---- configuration ----

    def configure(self, config: Mapping[str, Any]) -> None:
        """Another configuration, whole; members that are not named have their defaults. Raises what the class raises; then all is as
        before."""
        self._apply(load(self.service.config, {"name": self.name, **config}))

    def edit(self, *edits: Edit) -> None:
        """A change of the configuration that stands."""
        assert self.service.current
        self._apply(edit(self.service.current, edits))

    def set_facts(self, *ports: PortFacts) -> None:
        """Ports whose netdev, MAC, MTU or peer has changed, or that are new; others stay."""
        self.service.former_ports = self.service.ports
        self.service.ports = {**self.service.ports, **{one.name: one for one in ports}}
        with self._recording():
            self.service.facts([one.name for one in ports])
        self.service.former_ports = {}

    def _apply(self, new: Any) -> None:
        """As the worker does it: what is applied is seen as the configuration meanwhile, and stays if nothing is raised."""
        old, self.service.current = self.service.current, new
        self.service.former_ports = self.service.ports if old else {}
        try:
            with self._recording():
                self.service.apply(Diff(old, new))
                self.service.facts(list(self.service.ports))
        except Exception:
            self.service.current = old
            raise
        finally:
            self.service.former_ports = {}
        self.service.settled()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """What is written within is made at the end."""
        cfg = self.service.cfg
        cfg.take()
        with self.cube.maps.recording() as self.writes:
            yield
        for write in self.writes:
            kernel = self.cube.kernel_map(write.map)
            if write.value is None:
                kernel.delete(write.key)
            else:
                kernel.set(write.key, write.value)
        self.cube.set_packed(cfg.take())

    # ---- packets and time ----

    def send(self, packet: PacketLike, port: int = 0, **options: Any) -> Result:
        """Through the data plane, as `cube.send`; what is handed up, the control plane handles before this returns."""
        result = self.cube.send(packet, port, **options)
        for event in result.events:
            self.handle(event)
        return result

    def handle(self, event: Event) -> None:
        """What the data plane has handed up."""
        port = next((one for one in self.service.ports.values() if one.number == event.port), None)
        packet = Packet(bytes(event.packet), port, event.reason, event.metadata, event.egress, event.truncated)
        self.run(self.service.packet, packet)

    def run(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a method of the class, async or not: a timer, an action, `start`."""
        result = method(*arguments)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result
