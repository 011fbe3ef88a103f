# SPDX-License-Identifier: Apache-2.0
"""The rapid spanning tree protocol of one VLAN (802.1D-2004, clause 17), without any I/O.

Messages, seconds and changes of links go in; messages to send, stations to forget and the state of each port come out. The procedures of
17.21 are here, the state machines of 17.23 to 17.31 in machines.py; `run` has them work until none of them has anything left to do. Without
`rapid` it is the protocol of 802.1D-1998, as 17.4 has it: no quick transitions, no RST BPDUs.

Who drives a tree puts the states of the ports into effect first and sends `outbox` then: a message may promise that a port is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from polycube.cubes.bridge import machines
from polycube.cubes.bridge.bpdu import TIMES, Bpdu, BpduType, Flag, SentRole, Times, Vector
from polycube.cubes.bridge.port import MIGRATE_TIME, TIMERS, Info, Received, Role, TreePort

ADDRESS = 2**48 - 1
_SENT = {Role.ROOT: SentRole.ROOT, Role.DESIGNATED: SentRole.DESIGNATED, Role.DISABLED: SentRole.UNKNOWN}


@dataclass(frozen=True)
class Settings:
    """What is configured of a tree. `identifier`: priority << 48 | MAC address."""

    identifier: int
    times: Times = TIMES
    rapid: bool = True


class Tree:
    """A bridge in one tree. After changes of settings, ports and links comes `run`; `receive` and `tick` do it themselves."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ports: dict[int, TreePort] = {}
        self.outbox: list[tuple[int, Bpdu]] = []  # messages to send, by port; emptied by whoever does it
        self.flushed: set[int] = set()  # ports whose stations are to be forgotten; likewise
        self.changes = 0  # of the topology
        self.root_port: int | None = None
        self.root_priority = self.bridge_priority
        self.root_times = settings.times

    @property
    def bridge_priority(self) -> Vector:
        return Vector(self.settings.identifier, 0, self.settings.identifier, 0)

    # ---- what happens ----

    def configure(self, settings: Settings) -> None:
        """Other settings; nothing happens if they are the same."""
        if settings == self.settings:
            return
        afresh = settings.rapid != self.settings.rapid
        self.settings = settings
        for port in self.ports.values():
            if afresh:
                machines.begin(self, port)
            port.reselect, port.selected = True, False

    def add(self, number: int, *, cost: int = 4, priority: int = 128, edge: bool = False, kept: bytes | None = None) -> None:
        """A port, whose link is down, or was up if it was kept."""
        port = self.ports[number] = TreePort(number, cost, priority, edge)
        machines.begin(self, port)
        if kept is not None:
            port.restore(kept)
        port.reselect, port.selected = True, False

    def remove(self, number: int) -> None:
        del self.ports[number]
        for port in self.ports.values():
            port.reselect, port.selected = True, False

    def change(self, number: int, *, cost: int, priority: int, edge: bool) -> None:
        """Other settings of a port; nothing happens if they are the same."""
        port = self.ports[number]
        if (port.cost, port.priority, port.admin_edge) == (cost, priority, edge):
            return
        port.cost, port.priority, port.admin_edge = cost, priority, edge
        port.oper_edge = port.oper_edge or edge
        port.reselect, port.selected = True, False

    def link(self, number: int, up: bool) -> None:
        """The link of a port comes up or goes down."""
        self.ports[number].enabled = up

    def receive(self, number: int, bpdu: Bpdu) -> None:
        """A BPDU came by a port."""
        port = self.ports.get(number)
        if port is None or not port.enabled or (bpdu.type is BpduType.RST and not self.settings.rapid):
            return
        own = bpdu.vector.bridge == self.settings.identifier and bpdu.vector.port == port.identifier
        if own and bpdu.type is not BpduType.TCN:  # come back: whatever is sent there is received again
            port.disputed, port.agreed, port.oper_edge, port.edge_delay = True, False, False, MIGRATE_TIME
        else:
            port.waiting.append(bpdu)
        self.run()

    def tick(self) -> None:
        """A second has passed."""
        for port in self.ports.values():
            for timer in TIMERS:
                if getattr(port, timer):
                    setattr(port, timer, getattr(port, timer) - 1)
        self.run()

    def run(self) -> None:
        """Lets the machines work."""
        while self._step():
            pass
        for port in self.ports.values():
            if port.fdb_flush:
                port.fdb_flush = False
                self.flushed.add(port.number)

    # ---- conditions (17.20) ----

    def forward_delay(self, port: TreePort) -> int:
        return port.designated_times.hello if port.send_rstp else port.designated_times.forward_delay

    def all_synced(self, port: TreePort) -> bool:
        """Whether nothing behind this bridge can be part of a loop through the port."""
        for other in self.ports.values():
            if not other.selected or other.role is not other.selected_role or other.updt_info:
                return False
            if other is not port and other.role is not Role.ROOT and not other.synced:
                return False
        return True

    def re_rooted(self, port: TreePort) -> bool:
        """Whether no other port was root port a moment ago."""
        return all(not other.rr_while for other in self.ports.values() if other is not port)

    # ---- procedures (17.21) ----

    def others(self, port: TreePort) -> Iterator[TreePort]:
        return (other for other in self.ports.values() if other is not port)

    def classify(self, port: TreePort, message: Bpdu) -> Received:
        """rcvInfo(). A configuration BPDU is always that of a designated port."""
        if message.type is BpduType.TCN:
            return Received.OTHER
        theirs, ours = message.vector, port.port_priority
        if message.role is not SentRole.DESIGNATED:
            known = message.role is not SentRole.UNKNOWN and theirs >= ours
            return Received.NOT_DESIGNATED if known else Received.OTHER
        if theirs == ours:
            same = message.times == port.port_times and port.info_is is Info.RECEIVED
            return Received.REPEATED_DESIGNATED if same else Received.SUPERIOR_DESIGNATED
        speaker = (theirs.bridge & ADDRESS, theirs.port & 0xFF)
        if theirs < ours or speaker == (ours.bridge & ADDRESS, ours.port & 0xFF):
            return Received.SUPERIOR_DESIGNATED
        return Received.INFERIOR_DESIGNATED

    def select_roles(self) -> None:
        """updtRolesTree()."""
        own = self.settings.identifier
        self.root_priority, self.root_times, self.root_port = self.bridge_priority, self.settings.times, None
        best = (self.bridge_priority, 0)
        for port in self.ports.values():
            heard = port.port_priority
            if port.info_is is not Info.RECEIVED or heard.bridge & ADDRESS == own & ADDRESS:
                continue
            path = (heard._replace(cost=heard.cost + port.cost), port.identifier)
            if path < best:
                best = path
                self.root_priority, self.root_port = path[0], port.number
                self.root_times = port.port_times._replace(message_age=port.port_times.message_age + 1)
        for port in self.ports.values():
            port.designated_priority = Vector(self.root_priority.root, self.root_priority.cost, own, port.identifier)
            port.designated_times = self.root_times._replace(hello=self.settings.times.hello)
            self._select_role(port)

    def _select_role(self, port: TreePort) -> None:
        if port.info_is is Info.DISABLED:
            port.selected_role = Role.DISABLED
        elif port.info_is is Info.AGED:
            port.selected_role, port.updt_info = Role.DESIGNATED, True
        elif port.info_is is Info.MINE:
            port.selected_role = Role.DESIGNATED
            if (port.port_priority, port.port_times) != (port.designated_priority, port.designated_times):
                port.updt_info = True
        elif port.number == self.root_port:
            port.selected_role, port.updt_info = Role.ROOT, False
        elif port.designated_priority < port.port_priority:
            port.selected_role, port.updt_info = Role.DESIGNATED, True
        else:
            own = port.port_priority.bridge & ADDRESS == self.settings.identifier & ADDRESS
            port.selected_role, port.updt_info = Role.BACKUP if own else Role.ALTERNATE, False

    def new_tc_while(self, port: TreePort) -> None:
        if port.tc_while:
            return
        if port.send_rstp:
            port.tc_while = port.designated_times.hello + 1
            port.new_info = True
        else:
            port.tc_while = self.root_times.max_age + self.root_times.forward_delay

    def transmit(self, port: TreePort) -> None:
        """txRstp(), txConfig() or txTcn()."""
        flags = Flag.TOPOLOGY_CHANGE if port.tc_while else Flag(0)
        if port.send_rstp:
            flags |= Flag.PROPOSAL if port.proposing else Flag(0)
            flags |= Flag.AGREEMENT if port.agree else Flag(0)
            flags |= Flag.LEARNING if port.learning else Flag(0)
            flags |= Flag.FORWARDING if port.forwarding else Flag(0)
            role = _SENT.get(port.role, SentRole.ALTERNATE)
            bpdu = Bpdu(BpduType.RST, port.designated_priority, port.designated_times, flags, role)
        elif port.role is Role.DESIGNATED:
            flags |= Flag.TOPOLOGY_CHANGE_ACK if port.tc_ack else Flag(0)
            bpdu = Bpdu(BpduType.CONFIG, port.designated_priority, port.designated_times, flags)
        else:
            bpdu = Bpdu(BpduType.TCN)
        self.outbox.append((port.number, bpdu))

    def _step(self) -> bool:
        busy = False
        for port in self.ports.values():
            for machine in machines.BEFORE:
                busy = machine(self, port) or busy
        if any(port.reselect for port in self.ports.values()):
            for port in self.ports.values():
                port.reselect = False
            self.select_roles()
            for port in self.ports.values():
                port.selected = True
            busy = True
        for port in self.ports.values():
            for machine in machines.AFTER:
                busy = machine(self, port) or busy
        return busy
