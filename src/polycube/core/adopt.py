# SPDX-License-Identifier: Apache-2.0
"""Reads back from bpffs what the project keeps in the kernel, as the resources of operation.py.

What a killed daemon left half done, or half removed, shows as a resource of its own or not at all: a unit counts only when all its
programs and the maps that each has are pinned, and something leads to them. One that has not taken over yet may have tables that are half
filled: it is removed, and made again if it is wanted.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polycube.bpf import AttachType, Link, Map, Object, Program, pin, tcfilter, u32
from polycube.bpf.link import xdp_mode
from polycube.core.fusedunits import PROGRAM
from polycube.core.kernel import PROGRAMS, Kernel
from polycube.core.operation import FLAGS, NEXT, Key, Kind
from polycube.core.paths import Point
from polycube.core.topology import HOST_BASE, SHADOW_BASE, VETH_BASE
from polycube.core.waysin import INTERNAL
from polycube.net import readiness

_POINTS = {Point.TC_INGRESS: AttachType.TCX_INGRESS, Point.TC_EGRESS: AttachType.TCX_EGRESS}
_OF_UNITS = (Kind.UNIT, Kind.CFG, Kind.PORT, Kind.DOMAIN, Kind.FLOOD)
Found = Iterator[tuple[Key, Any]]


class Reader:
    """One reading."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.paths = kernel.paths
        self.programs: dict[int, dict[str, str]] = {}  # id -> where it is pinned
        self.fused: dict[int, tuple[str, dict[str, str]]] = {}  # id -> name of a fused unit, and what it stands in for

    def read(self) -> dict[Key, Any]:
        found = dict([*self._units(), *self._fused(), *self.kernel.shadows.read()])
        for part in (self._states, self._slots, self._entries, self._devices, self._veths, self._links, self._filters):
            found.update(part())
        self._drop_idle(found)
        for preparation in self.kernel.netdevs.preparations.values():
            stale = {} if readiness.is_ready(preparation) else {"stale": True}  # another netdev may have the index by now
            found[Key(Kind.READY, (preparation.ifindex,))] = {"name": preparation.netdev} | stale
        return found

    def _drop_idle(self, found: dict[Key, Any]) -> None:
        ends = [value for key, value in found.items() if key.kind in (Kind.SLOT, Kind.ATTACH) and "uuid" in value]
        live = {(value["uuid"], value["unit"]) for value in ends}
        idle = {key.name for key in found if key.kind is Kind.UNIT} - live
        for name in idle:
            self.kernel.loader.unload(*name)
        for key in [key for key in found if key.kind in _OF_UNITS and key.name[:2] in idle]:
            del found[key]

    def _states(self) -> Found:
        for uuid in pin.listing(self.paths.cubes):
            yield Key(Kind.STATE, (uuid,)), {}

    def _units(self) -> Found:
        for uuid in pin.listing(self.paths.units):
            for unit in pin.listing(self.paths.units / uuid):
                folder = self.paths.units / uuid / unit
                pins = set(pin.listing(folder))
                if not any(names | {"cfg", "ports"} <= pins for names in PROGRAMS.values()):
                    self.kernel.loader.unload(uuid, unit)
                    continue
                for name in pins & (PROGRAMS[False] | PROGRAMS[True]):
                    with Program.open(folder / name) as program:
                        self.programs[program.info.id] = {"uuid": uuid, "unit": unit, "program": name}
                yield Key(Kind.UNIT, (uuid, unit)), {}
                yield from self._unit(uuid, unit, folder)
            if not pin.listing(self.paths.units / uuid):
                pin.remove(self.paths.units / uuid)

    def _unit(self, uuid: str, unit: str, folder: Path) -> Found:
        load = self.kernel.loader.loads.get((uuid, unit))
        if load:
            with Map.open(folder / "cfg") as cfg, Object.open(load.data, "cfg") as object:
                value = cfg.get(u32(0)) or b""
                variables = object.maps[".data.cfg"].variables()
                values = {name: value[at : at + layout.size].hex() for name, (at, layout) in variables.items()}
            yield Key(Kind.CFG, (uuid, unit)), values
        with Map.open(folder / "ports") as ports:
            for key, value in ports.items():
                if any(value):
                    yield Key(Kind.PORT, (uuid, unit, _number(key))), _port(value)
        with Map.find(folder / "domains") or _Nothing() as domains:
            for key, value in domains.items():
                count = min(_number(value[:4]), (len(value) - 4) // 2)
                yield Key(Kind.DOMAIN, (uuid, unit, _number(key))), list(struct.unpack_from(f"<{count}H", value, 4))
        with Map.find(folder / "flood_devices") or _Nothing() as floods:
            for key, value in floods.items():
                with Map.by_id(_number(value)) as devices:
                    yield Key(Kind.FLOOD, (uuid, unit, *struct.unpack("<2H", key))), sorted(map(_number, devices.keys()))

    def _fused(self) -> Found:
        for name, entries in self.kernel.fused.read().items():
            with Program.open(self.paths.fused / name / PROGRAM) as program:
                self.fused[program.info.id] = (name, entries)
            yield Key(Kind.FUSED, (name,)), entries

    def _slots(self) -> Found:
        for hook in ("xdp", "tc"):
            with Map.find(self.paths.shared_map(f"pcn_progs_{hook}")) or _Nothing() as slots:
                for key, value in slots.items():
                    yield Key(Kind.SLOT, (hook, _number(key))), self._program(_number(value))

    def _entries(self) -> Found:
        for name in ("pcn_entries", "pcn_entries_high"):
            with Map.find(self.paths.shared_map(name)) or _Nothing() as entries:
                for key, value in entries.items():
                    if any(value):
                        port, id = struct.unpack("<2I", value)
                        yield Key(Kind.ENTRY, (_number(key),)), {"port": port, "id": id}

    def _devices(self) -> Found:
        with Map.find(self.paths.shared_map("pcn_netdevs")) or _Nothing() as devices:
            for key, value in devices.items():
                if any(value):
                    yield Key(Kind.DEVICE, (_number(key),)), _number(value)

    def _veths(self) -> Found:
        for index, name in socket.if_nameindex():
            if index > HOST_BASE and index % 2 == 0:
                yield Key(Kind.HOST, (index,)), {"name": name, "port": f"pcn{(index - HOST_BASE) // 2}h"}
            elif VETH_BASE <= index < SHADOW_BASE and index % 2 == 0:
                yield Key(Kind.VETH, (index,)), {"name": name[:-1], "mode": xdp_mode(index + 1)}
        with Map.find(self.paths.shared_map("pcn_leads")) or _Nothing() as leads:
            for key, value in leads.items():
                port, _, _, slot, _ = struct.unpack("<2H3I", value)
                yield Key(Kind.LEAD, (_number(key),)), {"slot": slot, "port": port}

    def _links(self) -> Found:
        for name in pin.listing(self.paths.links):
            ifindex, _, point = name.partition("-")
            if INTERNAL <= int(ifindex) < HOST_BASE:
                continue  # belongs to an internal veth
            with Link.open(self.paths.links / name) as link:
                info = link.info
            value: dict[str, Any] = self._attached(info.prog_id, name) if info.ifindex == int(ifindex) else {"gone": name}
            if point == Point.XDP and "uuid" in value:
                value = value | {"mode": xdp_mode(int(ifindex))}
            yield Key(Kind.ATTACH, (int(ifindex), point)), value

    def _filters(self) -> Found:
        if self.kernel.tcx:
            return
        for ifindex, _ in socket.if_nameindex():
            for point, attach_type in _POINTS.items():
                id = tcfilter.query(ifindex, attach_type)
                if id and not INTERNAL <= ifindex < HOST_BASE:
                    yield Key(Kind.ATTACH, (ifindex, str(point))), self._attached(id, f"{ifindex}-{point}")

    def _attached(self, id: int, entry: str) -> dict[str, str]:
        """What stands at an entry: a program of a unit of one, or a fused unit in its place."""
        name, entries = self.fused.get(id, ("", {}))
        if entry not in entries:
            return self._program(id)
        uuid, unit, program = entries[entry].split("/")
        return {"uuid": uuid, "unit": unit, "program": program, "fused": name}

    def _program(self, id: int) -> dict[str, str]:
        return dict(self.programs.get(id, {"unknown": str(id)}))


class _Nothing:
    """Stands for a map that is not there."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


def _port(value: bytes) -> dict[str, Any]:
    following, flags, peer_port, target, id, peer_id = struct.unpack("<2BH3I", value)
    return {
        "next": NEXT[following],
        "flags": [name for name, bit in FLAGS.items() if flags & bit],
        "target": target,
        "peer_port": peer_port,
        "id": id,
        "peer_id": peer_id,
    }


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
