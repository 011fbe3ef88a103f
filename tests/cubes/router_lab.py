# SPDX-License-Identifier: Apache-2.0
"""A router on the test stage: its real data plane, and its real control plane on the kernel's maps, with time in the test's hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from polycube.cubes.router import Router
from polycube.cubes.router.traffic import Traffic
from polycube.testing.control import ControlPlane, Packet, port_facts
from polycube.testing.harness import CubeUnderTest

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


class Lab(ControlPlane[Router]):
    """The router r1 with three ports. `facts`: other ones of its netdevs, by name."""

    def __init__(self, cube: CubeUnderTest, config: Mapping[str, Any] = CONFIG, **facts: Any) -> None:
        self.time = 1000.0
        super().__init__(cube, Router, config, "r1", partial(port_facts, **{"mac": "02:00:00:00:00:c0"} | facts))
        assert self.service.current
        self.service._running = Traffic(self.service, self.service.current.arp_table_size, lambda: self.time)

    @property
    def router(self) -> Router:
        return self.service

    # ---- packets ----

    def take(self) -> list[tuple[int, bytes]]:
        taken, self.sent = self.sent, []
        return taken

    def up(self, frame: bytes, port: int, reason: int, metadata: tuple[int, int, int] = (0, 0, 0)) -> None:
        facts = next(one for one in self.service.ports.values() if one.number == port)
        self.run(self.service.packet, Packet(frame, facts, reason, metadata))

    def tick(self, seconds: float = 1.0) -> None:
        """Lets time pass, a second at a time."""
        for _ in range(int(seconds)):
            self.time += 1
            self.run(self.service.tick)


LabMaker = Callable[..., Lab]
structlog.configure()
