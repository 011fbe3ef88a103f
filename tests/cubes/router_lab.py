# SPDX-License-Identifier: Apache-2.0
"""A router on the test stage: its real data plane, and its real control plane on the kernel's maps, with time in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from polycube.core.cube import NetdevFacts, Packet, PortFacts
from polycube.cubes.router import Router
from polycube.cubes.router.model import RouterConfig
from polycube.cubes.router.tables import sizes
from polycube.cubes.router.traffic import Traffic
from polycube.model import Diff, Edit, edit, load
from polycube.testing.control import Log
from polycube.testing.harness import CubeUnderTest
from polycube.testing.result import Result

TABLES = tuple(sizes(RouterConfig.model_fields["route_table_size"].default))
MAPS = (*TABLES, "interfaces", "subinterfaces", "groups", "neighbours4", "neighbours6", "filters", "buckets", "rates", "learn_failures")
MAC = [f"02:00:00:00:00:a{n}" for n in range(3)]
HOST = [f"02:00:00:00:00:b{n}" for n in range(3)]
LINK_LOCAL = [f"fe80::ff:fe00:a{n}" for n in range(3)]
CONFIG = {
    "name": "r1",
    "ports": [
        {
            "name": f"p{n}",
            "mac": MAC[n],
            "ip": f"10.0.{n}.1/24",
            "secondaryip": [{"ip": f"2001:db8:{n}::1/64"}, {"ip": f"192.168.{n}.1/24"}],
        }
        for n in range(3)
    ],
    "route": [
        {"network": "0.0.0.0/0", "nexthop": "10.0.2.2"},
        {"network": "172.16.0.0/12", "nexthop": "10.0.1.2"},
        {"network": "2001:db8:ff::/48", "nexthop": "2001:db8:1::2"},
    ],
    "arp-table": [
        {"address": "10.0.1.2", "mac": HOST[1], "interface": "p1"},
        {"address": "10.0.2.2", "mac": HOST[2], "interface": "p2"},
        {"address": "2001:db8:1::2", "mac": HOST[1], "interface": "p1"},
    ],
}


def port_facts(number: int, *, mtu: int = 1500, mac: str = "02:00:00:00:00:c0", addresses: tuple[str, ...] = ()) -> PortFacts:
    netdev = NetdevFacts(f"eth{number}", 10 + number, mac, mtu, addresses)
    return PortFacts(f"p{number}", number, number + 1, up=True, peer=netdev.name, netdev=netdev)


class Lab:
    """The router r1 with three ports."""

    def __init__(self, cube: CubeUnderTest | None, maps: Any = None, config: Any = None, **facts: Any) -> None:
        self.cube = cube
        self.time = 1000.0
        self.sent: list[tuple[int, bytes]] = []
        self.handed: list[tuple[int, bytes]] = []  # into the namespace
        self.edits: list[Edit] = []
        self.log = Log()
        views = maps if maps is not None else {name: cube.map(name) for name in MAPS}  # type: ignore[union-attr]
        self.cfg: dict[str, int] = {}
        self.router = Router("r1", "8a2f", views, self.cfg, self, self.log)  # type: ignore[arg-type]
        self.router.ports = {f"p{n}": port_facts(n, **facts) for n in range(3)}
        self.configure(load(RouterConfig, config if config is not None else CONFIG), None)

    def configure(self, new: RouterConfig, old: RouterConfig | None) -> None:
        """As the worker does it: what is applied is seen as the configuration meanwhile, and stays if nothing is raised."""
        self.router.current = new
        try:
            self.router.apply(Diff(old, new))
            self.router.facts(list(self.router.ports))
        except Exception:
            self.router.current = old
            raise
        if self.router._running is None:
            self.router._running = Traffic(self.router, new.arp_table_size, lambda: self.time)

    def edit_config(self, *edits: Edit) -> None:
        assert self.router.current
        self.configure(edit(self.router.current, edits), self.router.current)

    # ---- Host ----

    def transmit(self, cube: Any, port: int, frame: bytes, *, out: bool, ifindex: int = 0, xdp: bool | None = None) -> None:
        self.sent.append((port, frame))

    def hand_over(self, cube: Any, port: int, frame: bytes) -> None:
        self.handed.append((port, frame))

    async def edit(self, cube: Any, edits: list[Edit]) -> None:
        self.edits += edits
        self.edit_config(*edits)

    # ---- packets ----

    def take(self) -> list[tuple[int, bytes]]:
        taken, self.sent = self.sent, []
        return taken

    def send(self, packet: Any, port: int = 0) -> Result:
        """Through the data plane; what goes up is handled by the control plane."""
        assert self.cube
        result = self.cube.send(packet, port)
        for event in result.events:
            self.up(bytes(event.packet), event.port, event.reason, event.metadata)
        return result

    def up(self, frame: bytes, port: int, reason: int, metadata: tuple[int, int, int] = (0, 0, 0)) -> None:
        facts = next(one for one in self.router.ports.values() if one.number == port)
        asyncio.run(self.router.packet(Packet(frame, facts, reason, metadata)))

    def tick(self, seconds: float = 1.0) -> None:
        """Lets time pass, a second at a time."""
        for _ in range(int(seconds)):
            self.time += 1
            asyncio.run(self.router.tick())


LabMaker = Callable[..., Lab]
structlog.configure()
