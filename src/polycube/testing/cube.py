# SPDX-License-Identifier: Apache-2.0
"""A cube under test: its real unit of one with maps of its own, loaded onto a stage. Made by `Chain.cube` (harness.py)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from polycube.bpf import Map, MapType, Program, RingBuffer, u32
from polycube.compiler.function import Function, Hook, UnitSpec
from polycube.core.fusing import Piece
from polycube.core.handlertime import HANDLERS, TIMES, HandlerTime, handler_time
from polycube.core.maps import MapView, MapViews, Shapes
from polycube.core.paths import COPIES
from polycube.core.slowpath import META_OUT
from polycube.testing.packets import PacketLike
from polycube.testing.result import Drop, Event, Exit, Result, decode_event
from polycube.testing.stage import Stage, emit

if TYPE_CHECKING:
    from polycube.testing.harness import Chain

INGRESS, EGRESS = 0, 1
ANY_PORT = 0xFFFF
FLOOD_KEY = struct.Struct("<HH")
COPY = struct.Struct("<2I")  # struct pcn_copy
REASONS = 64
CUBE_REASON = 16


@dataclass
class Changes:
    """Difference of a map: entries (key, value) that came, went, or have another value now."""

    added: list[tuple[Any, Any]] = field(default_factory=list)
    removed: list[tuple[Any, Any]] = field(default_factory=list)
    changed: list[tuple[Any, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class Counters:
    """Counters of a port (transparent: a direction), all CPUs together."""

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0


class CubeUnderTest:
    """One cube on a stage. Made by `Chain.cube`."""

    def __init__(self, chain: Chain, function: Function, ports: int, name: str, sizes: dict[str, int]) -> None:
        self.chain = chain
        self.stage: Stage = chain.stage
        self.function = function
        self.name = name
        self.number = self.stage.cubes.take()
        self.ports = 2 if function.transparent else ports
        self.ids = [self.stage.ids.take() for _ in range(self.ports)]
        self.stacks: dict[int, list[CubeUnderTest]] = {}
        self.peers: dict[int, tuple[CubeUnderTest, int]] = {}
        self.netdevs: dict[int, int] = {}
        self.next_hops: dict[int, dict[str, int]] = {}  # what `ports` holds
        self.domains: dict[int, list[int]] = {}
        self._flood_maps: list[Map] = []
        self.has_shadow = False
        self._copied: list[Exit] = []
        self._events: list[Event] = []
        self._programs: dict[str, Program] = {}
        data = emit(UnitSpec(function, self.stage.hook))
        self._object = self.stage.load(data, function.name, sizes)
        self._maps = {key: self._object.map(key) for key in self._object.maps}
        self.shapes = Shapes.of(data)
        self.maps = MapViews(self.shapes, self._maps.get)  # its own ones, as its control plane has them
        self.reasons = {value: key.removeprefix("PCN_DROP_").lower() for key, value in self._object.enum_values("pcn_drop_reason").items()}
        own = self._object.enum_values("pcn_cube_drop")
        self.reasons.update({value: key.lower() for key, value in own.items() if value >= CUBE_REASON})
        self._ring = RingBuffer(self._maps["slowpath"], self._event) if "slowpath" in self._maps else None
        self._copies = RingBuffer(self._maps[COPIES], self._copy) if COPIES in self._maps else None
        self._drops = self._seen = self._drop_counts()
        self._times = {handler: self._time(handler) for handler in HANDLERS}
        zero = bytes(32)
        for id in self.ids:
            self.stage.maps["pcn_counters"].set(u32(id), zero)
        self.cfg(pcn_cube=self.number, pcn_loglevel=0)
        self.stage.logs()  # of who had the number before
        if self.stage.hook == Hook.TC:
            self.cfg(pcn_inject=self.stage.near)
        self.tails = ["ingress_tail", "egress_tail"] if function.transparent else ["tail"]
        for offset, program in enumerate(self.tails):
            self.stage.maps["pcn_progs"].set(u32(self.number * 2 + offset), u32(self.program(program).fd))

    def __str__(self) -> str:
        return self.name

    # ---- state ----

    def cfg(self, **values: Any) -> None:
        """Sets configuration constants by their CFG names."""
        variables = self._object.maps[".data.cfg"].variables()
        packed = {}
        for name, value in values.items():
            if name not in variables:
                raise KeyError(f"no CFG({name}) in {self.function.name}; it has {', '.join(variables)}")
            _, layout = variables[name]
            if isinstance(value, str) and layout.names:
                value = dict(layout.names)[value]
            packed[name] = layout.pack(value, name)
        self.set_packed(packed)

    def set_packed(self, values: Mapping[str, bytes]) -> None:
        """Sets configuration constants, bytes as the data plane has them."""
        section, variables = self._maps[".data.cfg"], self._object.maps[".data.cfg"].variables()
        data = bytearray(section.get(u32(0)) or b"")
        for name, value in values.items():
            offset, layout = variables[name]
            data[offset : offset + layout.size] = value
        section.set(u32(0), bytes(data))

    def constants(self) -> dict[str, str]:
        """All configuration constants, in hexadecimal."""
        data = self._maps[".data.cfg"].get(u32(0)) or b""
        variables = self._object.maps[".data.cfg"].variables()
        return {name: data[offset : offset + layout.size].hex() for name, (offset, layout) in variables.items()}

    @cached_property
    def piece(self) -> Piece:
        """For the planner of fused units."""
        return Piece.of(self.function, self.stage.hook, self._object)

    def map(self, name: str) -> MapView:
        """A map of the cube: keys and values as the C types say, structs as dicts, arrays of bytes as bytes."""
        return self.maps[name]

    def records(self, name: str) -> list[bytes]:
        """What the data plane has put into a ring buffer since the last call."""
        found: list[bytes] = []
        with RingBuffer(self._maps[name], found.append) as ring:
            ring.consume()
        return found

    def kernel_map(self, name: str) -> Map:
        """A map of the cube, bytes in and out."""
        return self._maps[name]

    def enum(self, name: str) -> dict[str, int]:
        """Enumerators of an enum that is used in a map or a CFG."""
        return self._object.enum_values(name)

    def counters(self, port: int = 0) -> Counters:
        """Counters of a port; in a transparent cube of a direction (0 ingress, 1 egress)."""
        cpus = self.stage.maps["pcn_counters"].get_percpu(u32(self.ids[port]))
        words = [[int.from_bytes(cpu[i : i + 8], "little") for i in range(0, 32, 8)] for cpu in cpus]
        return Counters(*map(sum, zip(*words, strict=True)))

    def time(self, handler: str = "ingress") -> HandlerTime:
        """What a handler took since the cube was made: of a `Function` that is timed."""
        now, before = self._time(handler), self._times[handler]
        return HandlerTime(now.nanoseconds - before.nanoseconds, now.packets - before.packets)

    def drops(self) -> dict[str, int]:
        """Drop counters that are not zero, by reason, since the cube was made."""
        counts = {reason: count - self._drops.get(reason, 0) for reason, count in self._drop_counts().items()}
        return {self.reasons.get(reason, str(reason)): count for reason, count in counts.items() if count}

    @contextmanager
    def changes(self, name: str) -> Iterator[Changes]:
        """What happens to a map within the block; filled when it ends."""
        view, changes = self.map(name), Changes()
        before = dict(view.packed_items())
        yield changes
        after = dict(view.packed_items())
        changes.added = [view.unpack(k, v) for k, v in after.items() if k not in before]
        changes.removed = [view.unpack(k, v) for k, v in before.items() if k not in after]
        changes.changed = [view.unpack(k, v) for k, v in after.items() if k in before and before[k] != v]

    def domain(self, number: int, ports: Sequence[int]) -> None:
        """Sets the members of a flood domain. Domain 0 has all ports from the start."""
        self.domains[number] = list(ports)
        self.chain.wire()

    def netdev(self, port: int) -> int:
        """Lets a port lead to a netdev directly, as it does at the edge of a real topology; returns its ifindex.

        What leaves there is observed all the same. In TC a test run does not carry out the redirect of the original, whose port is
        then told by its counter.
        """
        self.netdevs[port] = 0
        self.chain.wire()
        return self.netdevs[port]

    def shadow(self) -> None:
        """Gives the cube a namespace. What is handed over there is in `Result.namespace`; if the function has `span`, copies of all frames
        are in `Result.spanned`."""
        for id in self.ids:
            self.stage.shadow(id)
        self.has_shadow = True
        self.cfg(pcn_shadow_base=self.stage.shadow_base)

    # ---- packets ----

    def send(self, packet: PacketLike, port: int = 0, direction: str = "ingress", **options: Any) -> Result:
        """A frame received by a port (transparent: on its way in a direction)."""
        if self.function.transparent:
            port = {"ingress": INGRESS, "egress": EGRESS}[direction]
        return self.chain.send(packet, self, port, **options)

    def inject(self, packet: PacketLike, port: int = 0, *, out: bool = True) -> Result:
        """A frame from the control plane: sent out of a port, or treated as received there."""
        return self.chain.inject(packet, self, port, out=out)

    def program(self, name: str) -> Program:
        """A program of the unit: entry, tail; of a transparent cube ingress, ingress_tail, egress, egress_tail."""
        if name not in self._programs:
            self._programs[name] = self._object.program(name)
        return self._programs[name]

    def logs(self) -> list[str]:
        """What it has logged since the last call on any cube: `LEVEL text`. Everything is logged under test."""
        return [f"{line.level} {line.text}" for line in self.stage.logs() if line.cube == self.number]

    # ---- inside ----

    @property
    def floods(self) -> bool:
        """Whether its code can flood."""
        return "domains" in self._maps

    def take_events(self) -> list[Event]:
        """What has been handed up since the last call."""
        if self._ring:
            self._ring.consume()
        taken, self._events = self._events, []
        return taken

    def take_copies(self) -> list[Exit]:
        """XDP: what has been copied for the namespace since the last call."""
        if self._copies:
            self._copies.consume()
        taken, self._copied = self._copied, []
        return taken

    def take_drops(self) -> list[Drop]:
        """What has been dropped since the last call."""
        now = self._drop_counts()
        found = []
        for reason, count in now.items():
            found += [Drop(self.name, self.reasons.get(reason, str(reason)))] * (count - self._seen.get(reason, 0))
        self._seen = now
        return found

    def write_port(self, port: int, **fields: int) -> None:
        """Writes an entry of `ports`."""
        self.next_hops[port] = fields
        layout = self._object.maps["ports"].value_layout
        self._maps["ports"].set(u32(port), layout.pack(fields))

    def write_domains(self) -> None:
        """Writes the flood domains, in XDP with a device map for each in-port."""
        layout, key = self._object.maps["domains"].value_layout, self._object.maps["domains"].key_layout
        self._flood_maps.clear()
        for domain, members in self.domains.items():
            self._maps["domains"].set(key.pack(domain), layout.pack({"count": len(members), "port": members}))
            if self.stage.hook != Hook.XDP:
                continue
            outer = {member: self._device(member) for member in members}
            for in_port in [*range(self.ports), ANY_PORT]:
                devices = Map.create(MapType.DEVMAP_HASH, 4, 4, 1024)
                for member, ifindex in outer.items():
                    if member != in_port:
                        devices.set(u32(member), u32(ifindex))
                self._maps["flood_devices"].set(FLOOD_KEY.pack(domain, in_port), u32(devices.fd))
                self._flood_maps.append(devices)

    def close(self) -> None:
        """Leaves the stage."""
        for offset in range(2):
            self.stage.maps["pcn_progs"].delete(u32(self.number * 2 + offset))
        for ring in (self._ring, self._copies):
            if ring:
                ring.close()
        for handle in [*self._maps.values(), *self._programs.values(), *self._flood_maps]:
            handle.close()
        self._object.close()
        self.stage.cubes.give(self.number)
        for id in self.ids:
            self.stage.ids.give(id)

    def _device(self, port: int) -> int:
        """XDP: where a flooded copy for a port is redirected to."""
        if port in self.netdevs:
            return self.netdevs[port]
        return self.stage.lead_to(self.number * 2, port, META_OUT, self.ids[port])

    def _event(self, data: bytes) -> None:
        self._events.append(decode_event(self.name, data))

    def _copy(self, data: bytes) -> None:
        id, length = COPY.unpack_from(data)
        self._copied.append(Exit(self.name, self.ids.index(id), data[COPY.size : COPY.size + length]))

    def _time(self, handler: str) -> HandlerTime:
        times = self.stage.maps.get(TIMES)
        return handler_time(times.get_percpu, self.number, handler) if times else HandlerTime()

    def _drop_counts(self) -> dict[int, int]:
        counts = {}
        for reason in range(REASONS):
            cpus = self.stage.maps["pcn_drops"].get_percpu(u32(self.number * REASONS + reason))
            counts[reason] = sum(int.from_bytes(cpu[:8], "little") for cpu in cpus)
        return counts
