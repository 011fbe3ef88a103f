# SPDX-License-Identifier: Apache-2.0
"""The smallest transparent service. What its slow path is handed goes on its way unchanged."""

from polycube.core.cube import Cube, Packet
from polycube.cubes.transparenthelloworld.model import TransparenthelloworldConfig, Verdict
from polycube.model import Diff


class Transparenthelloworld(Cube[TransparenthelloworldConfig]):
    """Transparent-Helloworld Service"""

    config = TransparenthelloworldConfig

    def apply(self, change: Diff[TransparenthelloworldConfig]) -> None:
        for leaf in ("ingress_action", "egress_action"):
            for _, verdict in change.changed(leaf):
                self.cfg[leaf] = list(Verdict).index(verdict)

    async def packet(self, packet: Packet) -> None:
        direction = "egress" if packet.egress else "ingress"
        self.log.info("packet from the data plane", length=len(packet.data), direction=direction)
        self.send(self.ports[direction], packet.data, ifindex=packet.ifindex)
