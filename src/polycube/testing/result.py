# SPDX-License-Identifier: Apache-2.0
"""What came of a frame: where it left, as what, why it was dropped, what went up to the control plane. With assertions that explain."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from polycube.testing.packets import PacketLike, assert_equal, summary

EVENT = struct.Struct("<IIHHHHHHI3I")
EVENT_XDP, EVENT_VLAN, EVENT_EGRESS, EVENT_TRUNCATED = 1, 2, 4, 8


@dataclass(frozen=True)
class Exit:
    """A frame that left by a port."""

    cube: str
    port: int
    packet: bytes
    mark: int = 0


@dataclass(frozen=True)
class Drop:
    """A counted drop."""

    cube: str
    reason: str


@dataclass(frozen=True)
class Event:
    """A frame handed up to the control plane."""

    cube: str
    port: int
    reason: int
    metadata: tuple[int, int, int]
    flags: int
    len: int
    packet: bytes  # tags included

    @property
    def egress(self) -> bool:
        """Handed up by the egress handler."""
        return bool(self.flags & EVENT_EGRESS)

    @property
    def truncated(self) -> bool:
        """The frame was longer than what was kept."""
        return bool(self.flags & EVENT_TRUNCATED)


def decode_event(cube: str, data: bytes) -> Event:
    """A record of a cube's `slowpath`: struct pcn_event and the frame."""
    length, caplen, port, reason, flags, tci, proto, _, _, a, b, c = EVENT.unpack_from(data)
    frame = data[EVENT.size : EVENT.size + caplen]
    if flags & EVENT_VLAN:
        frame = frame[:12] + struct.pack("<H", proto) + struct.pack(">H", tci) + frame[12:]
    return Event(cube, port, reason, (a, b, c), flags, length, frame)


@dataclass
class Result:
    """The outcome of one `send`. The assertions return the result, so that they can be chained."""

    cube: str
    exits: list[Exit] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    stack: list[bytes] = field(default_factory=list)  # passed to the host's stack
    namespace: list[Exit] = field(default_factory=list)  # handed into the cube's namespace, by the port there
    spanned: list[Exit] = field(default_factory=list)  # copies for it
    wait: Callable[[Callable[[], bool]], None] = lambda _: None  # collects late copies until the condition holds

    @property
    def size(self) -> int:
        """How much is known."""
        return len([*self.exits, *self.drops, *self.events, *self.stack, *self.namespace, *self.spanned])

    @property
    def verdict(self) -> str:
        """forwarded, flooded (several copies), slowpath, passed, shadowed, dropped, or lost (nobody knows where it went)."""
        if self.exits:
            return "forwarded" if len(self.exits) == 1 else "flooded"
        if self.events:
            return "slowpath"
        if self.stack:
            return "passed"
        if self.namespace:
            return "shadowed"
        return "dropped" if self.drops else "lost"

    @property
    def port(self) -> int | None:
        """The port it left by, if it left by just one."""
        return self.exits[0].port if len(self.exits) == 1 else None

    @property
    def packet(self) -> bytes | None:
        """The frame as it left, went to the stack or was handed up; None if there are none or several."""
        frames = [exit.packet for exit in self.exits] or [event.packet for event in self.events] or self.stack
        return frames[0] if len(frames) == 1 else None

    @property
    def copies(self) -> dict[int, bytes]:
        """What left, by port. In a chain, ports of the cube that it was sent to count only if it left there; see `exits`."""
        return {exit.port: exit.packet for exit in self.exits}

    @property
    def reason(self) -> str | None:
        """The only drop reason."""
        return self.drops[0].reason if len(self.drops) == 1 else None

    def forwarded(self, port: int | None = None, packet: PacketLike | None = None, cube: object | None = None) -> Self:
        """It left by one port (this one), as this packet."""
        self._check(self.verdict == "forwarded", "forwarded" if port is None else f"forwarded to port {port}")
        out = self.exits[0]
        self._check(port is None or out.port == port, f"forwarded to port {port}")
        self._check(cube is None or out.cube == str(cube), f"forwarded by {cube}")
        if packet is not None:
            assert_equal(out.packet, packet, f"at port {out.port} of {out.cube}")
        return self

    def flooded(self, ports: Iterable[int] | None = None, packet: PacketLike | None = None) -> Self:
        """Copies left by just these ports, each as this packet."""
        wanted = sorted(ports) if ports is not None else None
        if wanted is not None:
            self.wait(lambda: len(self.exits) >= len(wanted))
        left = sorted(exit.port for exit in self.exits)
        self._check(bool(left) and (wanted is None or left == wanted), f"flooded to ports {wanted if wanted is not None else 'at all'}")
        if packet is not None:
            for exit in self.exits:
                assert_equal(exit.packet, packet, f"at port {exit.port} of {exit.cube}")
        return self

    def left(self, *expected: tuple[object, int], packet: PacketLike | None = None) -> Self:
        """In a chain: it left by just these edges, (cube, port) each."""
        wanted = sorted((str(cube), port) for cube, port in expected)
        self.wait(lambda: len(self.exits) >= len(wanted))
        found = sorted((exit.cube, exit.port) for exit in self.exits)
        self._check(found == wanted, "left by " + ", ".join(f"{cube}:{port}" for cube, port in wanted))
        if packet is not None:
            for exit in self.exits:
                assert_equal(exit.packet, packet, f"at port {exit.port} of {exit.cube}")
        return self

    def dropped(self, reason: str | None = None, cube: object | None = None) -> Self:
        """It was dropped and counted, for this reason: an enumerator's name, in lower case, without PCN_DROP_ ("policy")."""
        wanted = "dropped" + (f" for {reason}" if reason else "")
        self._check(self.verdict == "dropped", wanted)
        self._check(reason is None or any(drop.reason == reason.lower() for drop in self.drops), wanted)
        self._check(cube is None or any(drop.cube == str(cube) for drop in self.drops), f"{wanted} by {cube}")
        return self

    def passed(self, packet: PacketLike | None = None) -> Self:
        """It went to the host's stack, as this packet."""
        self._check(self.verdict == "passed", "passed")
        if packet is not None:
            assert_equal(self.stack[0], packet, "passed to the stack")
        return self

    def shadowed(self, port: int | None = None, packet: PacketLike | None = None) -> Self:
        """It was handed into the cube's namespace, as received by this port, as this packet."""
        self._check(self.verdict == "shadowed", "handed into the namespace")
        into = self.namespace[0]
        self._check(port is None or into.port == port, f"handed into the namespace by port {port}")
        if packet is not None:
            assert_equal(into.packet, packet, "handed into the namespace")
        return self

    def slowpath(
        self,
        reason: int | None = None,
        port: int | None = None,
        packet: PacketLike | None = None,
        metadata: tuple[int, int, int] | None = None,
    ) -> Self:
        """It was handed up to the control plane."""
        self._check(self.verdict == "slowpath", "handed up")
        event = self.events[0]
        self._check(reason is None or event.reason == reason, f"handed up with reason {reason}")
        self._check(port is None or event.port == port, f"handed up as received by port {port}")
        self._check(metadata is None or event.metadata == metadata, f"handed up with metadata {metadata}")
        if packet is not None:
            assert_equal(event.packet, packet, "handed up")
        return self

    def __str__(self) -> str:
        lines = [f"{self.verdict}:"]
        lines += [f"  left by port {exit.port} of {exit.cube}: {summary(exit.packet)}" for exit in self.exits]
        lines += [f"  handed up by {e.cube}, port {e.port}, reason {e.reason}, {e.metadata}: {summary(e.packet)}" for e in self.events]
        lines += [f"  passed to the stack: {summary(packet)}" for packet in self.stack]
        lines += [f"  dropped by {drop.cube}: {drop.reason}" for drop in self.drops]
        return "\n".join(lines)

    def _check(self, holds: bool, wanted: str) -> None:
        if not holds:
            raise AssertionError(f"expected: {wanted}; but {self}")
