# SPDX-License-Identifier: Apache-2.0
"""The smallest complete service: one constant for the data plane, and a slow path that only says what came."""

from polycube.core.cube import Cube, Packet
from polycube.cubes.helloworld.model import HelloworldConfig, Verdict
from polycube.model import Diff, PolycubeError


class TooManyPorts(PolycubeError):
    """It forwards between two ports."""

    def __init__(self, cube: str) -> None:
        super().__init__(f"maximum number of ports reached: helloworld {cube} takes two")


class Helloworld(Cube[HelloworldConfig]):
    """Helloworld Service"""

    config = HelloworldConfig

    def apply(self, change: Diff[HelloworldConfig]) -> None:
        if len(change.node.ports) > 2:
            raise TooManyPorts(self.name)
        for _, action in change.changed("action"):
            self.cfg["action"] = list(Verdict).index(action)

    async def packet(self, packet: Packet) -> None:
        self.log.info("packet from the data plane", length=len(packet.data), port=packet.port and packet.port.name)
