# SPDX-License-Identifier: Apache-2.0
"""Forwards by in-port. The data plane knows ports by their numbers, so an entry names ports that exist."""

from polycube.core.cube import Cube, Packet
from polycube.cubes.simpleforwarder.model import ForwardingAction, SimpleforwarderConfig, Verb
from polycube.model import Diff, PolycubeError, suggest


class NoSuchPort(PolycubeError):
    """An action names a port that the cube does not have."""

    def __init__(self, cube: str, port: str, known: list[str]) -> None:
        super().__init__(f"Port {port} does not exist in {cube}{suggest(port, known)}")


class NoOutport(PolycubeError):
    """FORWARD without a port to forward to."""

    def __init__(self, cube: str, inport: str) -> None:
        super().__init__(f"Outport is mandatory for FORWARD action: {cube} has none for inport {inport}")


class Simpleforwarder(Cube[SimpleforwarderConfig]):
    """Simple Forwarder Base Service"""

    config = SimpleforwarderConfig

    def apply(self, change: Diff[SimpleforwarderConfig]) -> None:
        for entry in change.node.actions.values():  # also unchanged ones: a port they name may be gone
            self._check(entry)
        for entry in change.removed("actions"):
            if entry.inport in self.ports:
                del self.maps["actions"][self.ports[entry.inport].number]
        for entry in change.added("actions"):
            self._write(entry)
        for _, entry in change.changed("actions"):
            self._write(entry)

    def _check(self, entry: ForwardingAction) -> None:
        for port in (entry.inport, entry.outport):
            if port is not None and port not in self.ports:
                raise NoSuchPort(self.name, port, list(self.ports))
        if entry.action is Verb.FORWARD and entry.outport is None:
            raise NoOutport(self.name, entry.inport)

    def _write(self, entry: ForwardingAction) -> None:
        out = self.ports[entry.outport].number if entry.outport else 0
        self.maps["actions"][self.ports[entry.inport].number] = {"verb": list(Verb).index(entry.action), "port": out}

    async def packet(self, packet: Packet) -> None:
        self.log.info("packet from the data plane", length=len(packet.data), port=packet.port and packet.port.name)
