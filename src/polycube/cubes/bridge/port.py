# SPDX-License-Identifier: Apache-2.0
"""One port of a spanning tree: the variables of 802.1D-2004, 17.19, under the names they have there, and what can be kept of them.

Timers count seconds downwards.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from enum import IntEnum

from polycube.cubes.bridge.bpdu import TIMES, Bpdu, Times, Vector

MIGRATE_TIME = 3
WORST = Vector(2**64 - 1, 2**32 - 1, 2**64 - 1, 2**16 - 1)
TIMERS = ("edge_delay", "fd_while", "hello_when", "mdelay_while", "rb_while", "rcvd_info_while", "rr_while", "tc_while", "tx_count")


class Role(IntEnum):
    """A port's place in the tree."""

    DISABLED = 0
    ROOT = 1
    DESIGNATED = 2
    ALTERNATE = 3
    BACKUP = 4


class Info(IntEnum):
    """Where what a port believes comes from (infoIs)."""

    DISABLED = 0
    AGED = 1
    MINE = 2
    RECEIVED = 3


class Received(IntEnum):
    """What a message means for a port (rcvInfo)."""

    SUPERIOR_DESIGNATED = 0
    REPEATED_DESIGNATED = 1
    INFERIOR_DESIGNATED = 2
    NOT_DESIGNATED = 3
    OTHER = 4


@dataclass
class TreePort:
    """See the module's docstring. A link is taken for point to point."""

    number: int
    cost: int = 4
    priority: int = 128
    admin_edge: bool = False
    enabled: bool = False

    # ---- timers ----
    edge_delay: int = 0
    fd_while: int = 0
    hello_when: int = 0
    mdelay_while: int = 0
    rb_while: int = 0
    rcvd_info_while: int = 0
    rr_while: int = 0
    tc_while: int = 0
    tx_count: int = 0

    # ---- what is believed ----
    info_is: Info = Info.DISABLED
    port_priority: Vector = WORST
    port_times: Times = TIMES
    designated_priority: Vector = WORST
    designated_times: Times = TIMES

    # ---- the message in hand ----
    message: Bpdu | None = None
    waiting: list[Bpdu] = field(default_factory=list)
    rcvd_tc: bool = False
    rcvd_tc_ack: bool = False
    rcvd_tcn: bool = False
    rcvd_rstp: bool = False
    rcvd_stp: bool = False

    # ---- roles and states ----
    role: Role = Role.DISABLED
    selected_role: Role = Role.DISABLED
    learn: bool = False
    learning: bool = False
    forward: bool = False
    forwarding: bool = False

    # ---- agreements ----
    agree: bool = False
    agreed: bool = False
    disputed: bool = False
    proposed: bool = False
    proposing: bool = False
    re_root: bool = False
    sync: bool = False
    synced: bool = False

    # ---- work to do ----
    fdb_flush: bool = False
    new_info: bool = False
    reselect: bool = False
    selected: bool = False
    updt_info: bool = False

    oper_edge: bool = False
    send_rstp: bool = True
    tc_ack: bool = False
    tc_prop: bool = False

    # ---- states of the machines that have more than their variables tell ----
    selecting_stp: bool = False
    sensing: bool = False
    tc_active: bool = False
    tc_inactive: bool = True

    @property
    def identifier(self) -> int:
        """Priority and number, as they are sent."""
        return self.priority << 8 | (self.number + 1 & 0xFF)

    def pack(self) -> bytes:
        """What a successor of this process needs to go on: all but timers and messages; KEPT_SIZE bytes."""
        numbers = (self.info_is, self.role, self.selected_role)
        flags = sum(getattr(self, name) << at for at, name in enumerate(_FLAGS))
        return _KEPT.pack(*numbers, *self.port_priority, *self.port_times, flags)

    @staticmethod
    def kept_role(data: bytes) -> Role:
        """The role in what `pack` gave."""
        return Role(data[1])

    def restore(self, data: bytes) -> None:
        """Takes over what `pack` gave; received information counts as just received."""
        info, role, selected, *rest = _KEPT.unpack(data)
        self.info_is, self.role, self.selected_role = Info(info), Role(role), Role(selected)
        self.port_priority, self.port_times = Vector(*rest[:4]), Times(*rest[4:8])
        for at, name in enumerate(_FLAGS):
            setattr(self, name, bool(rest[8] >> at & 1))
        self.hello_when = 1
        self.rcvd_info_while = 3 * self.port_times.hello if self.info_is is Info.RECEIVED else 0
        if not self.forward:
            self.fd_while = self.port_times.forward_delay


_KEPT = struct.Struct("<3BxQIQH4HI26x")
_FLAGS = [one.name for one in fields(TreePort) if one.type == "bool" and one.name not in ("admin_edge", "updt_info", "reselect")]
KEPT_SIZE = _KEPT.size
