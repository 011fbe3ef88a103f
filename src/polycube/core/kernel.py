# SPDX-License-Identifier: Apache-2.0
"""Carries out operations in the kernel, and reads back what stands there.

One pair of methods a kind of resource: `_set_<kind>` makes the kernel hold the new value, `_unset_<kind>` removes it. Everything is
pinned (paths.py), so that what was done outlives this process, and `read` can find it again: the result of `read` compares equal to what
`topology.build` asks for if nothing is to be mended.

Each generation of a unit owns its programs, its constants, ports and flood domains, all of which follow from the configuration; the cube
owns its author's maps and its slow-path queue, which outlive generations. Counters, drop reasons, tail-call arrays and device maps are
shared by all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polycube.bpf import AttachType, Link, Map, MapType, Object, Program, XdpMode, ensure_bpffs, features, pin, tcfilter, u32
from polycube.core.datalog import LOGS
from polycube.core.fusedunits import PROGRAM as FUSED_PROGRAM
from polycube.core.fusedunits import FusedUnits
from polycube.core.handlertime import HANDLERS, TIMES
from polycube.core.loading import Loader
from polycube.core.netdevs import Netdevs
from polycube.core.openmaps import OpenMaps
from polycube.core.operation import FLAGS, NEXT, Operation
from polycube.core.paths import LEAD_XDP, Paths, Point
from polycube.core.shadownetdevs import ShadowNetdevs
from polycube.core.slowpath import INJECT, META_OUT, META_SEEN
from polycube.core.topology import HOST_BASE, SHADOW_BASE
from polycube.core.waysin import WaysIn, create_veth
from polycube.net.links import Links

PROGRAMS: dict[bool, set[str]] = {False: {"entry", "tail"}, True: {"ingress", "ingress_tail", "egress", "egress_tail"}}
REASONS = 64  # PCN_REASONS
LOG_BYTES = 256 * 1024  # as in unit_log.h
_ATTACH = {Point.TC_INGRESS: AttachType.TCX_INGRESS, Point.TC_EGRESS: AttachType.TCX_EGRESS}


class KernelError(Exception):
    """A resource could not be changed; says which and why."""

    def __init__(self, operation: Operation, cause: BaseException) -> None:
        self.operation = operation
        self.cause = cause
        super().__init__(f"can't {operation}: {cause}")


class Kernel:
    """The kernel of one network namespace, as far as this daemon rules it."""

    def __init__(self, paths: Paths, links: Links) -> None:
        self.paths = paths
        self.links = links
        self.tcx = features().tcx
        self._opened = OpenMaps()
        self.loader = Loader(paths, self._opened)
        self.fused = FusedUnits(paths, self.loader.pin_of)
        self.shadows = ShadowNetdevs(paths, links)
        self.netdevs = Netdevs(links)
        self._ways_in = WaysIn(paths, links)

    async def start(self, injectors: Mapping[str, bytes]) -> None:
        """Makes what all cubes share: folders, the ways in for frames of the slow path. `injectors`: hook -> object."""
        ensure_bpffs(self.paths.root.parent)
        for folder in (self.paths.root, self.paths.shared, self.paths.cubes, self.paths.units, self.paths.fused, self.paths.links):
            folder.mkdir(exist_ok=True)
        self.loader.load_injectors(injectors)
        self._make_log()
        await self._ways_in.make()

    async def remove(self) -> None:
        """Takes away what `start` made. What cubes own must be gone already."""
        await self._ways_in.remove()
        self.close()
        pin.remove(self.paths.root)

    def close(self) -> None:
        """Forgets open handles; the kernel keeps everything."""
        self._opened.close()
        self.fused.close()

    # ---- carrying out ----

    async def carry_out(self, operation: Operation) -> None:
        """One operation, or KernelError."""
        name = operation.key.kind.name.lower()
        try:
            if operation.new is None:
                await getattr(self, f"_unset_{name}")(*operation.key.name, old=operation.old)
            else:
                await getattr(self, f"_set_{name}")(*operation.key.name, new=operation.new)
        except Exception as error:
            raise KernelError(operation, error) from error

    async def _set_state(self, uuid: str, new: Any) -> None:
        self.paths.cube(uuid).mkdir(exist_ok=True)

    async def _unset_state(self, uuid: str, old: Any) -> None:
        self._opened.forget(self.paths.cube(uuid))
        pin.remove(self.paths.cube(uuid))
        self.loader.fresh.pop(uuid, None)

    async def _set_unit(self, uuid: str, unit: str, new: Any) -> None:
        await asyncio.to_thread(self.loader.load, uuid, unit)

    async def _unset_unit(self, uuid: str, unit: str, old: Any) -> None:
        await asyncio.to_thread(self.loader.unload, uuid, unit)
        self.loader.forget(uuid)

    async def _set_fused(self, name: str, new: dict[str, str]) -> None:
        await asyncio.to_thread(self.fused.add, name, new)

    async def _unset_fused(self, name: str, old: Any) -> None:
        self.fused.remove(name)

    async def _set_cfg(self, uuid: str, unit: str, new: dict[str, str]) -> None:
        with Object.open(self.loader.loads[uuid, unit].data, unit.replace("-", "_")) as object:
            spec = object.maps[".data.cfg"]
            value = bytearray(spec.value_size)
            variables = spec.variables()
        for name, data in new.items():
            if name in variables:
                offset, layout = variables[name]
                value[offset : offset + layout.size] = bytes.fromhex(data)
        self._unit_map(uuid, unit, "cfg").set(u32(0), bytes(value))

    async def _unset_cfg(self, uuid: str, unit: str, old: Any) -> None:
        return  # goes with its unit

    async def _set_map(self, uuid: str, name: str, key: str, new: str) -> None:
        self._opened.at(self.paths.cube_map(uuid, name)).set(bytes.fromhex(key), bytes.fromhex(new))

    async def _unset_map(self, uuid: str, name: str, key: str, old: Any) -> None:
        self._opened.at(self.paths.cube_map(uuid, name)).delete(bytes.fromhex(key))

    def map_values(self, writes: Sequence[Operation]) -> list[str | None]:
        """What one map holds now under the keys of many writes to it."""
        uuid, name, _ = writes[0].key.name
        try:
            standing = dict(self._opened.at(self.paths.cube_map(uuid, name)).items())
        except Exception as error:
            raise KernelError(writes[0], error) from error
        found = [standing.get(bytes.fromhex(write.key.name[2])) for write in writes]
        return [None if value is None else value.hex() for value in found]

    def write_map(self, writes: Sequence[Operation]) -> None:
        """Many writes to one map, by batches. KernelError: some of them may have been made."""
        uuid, name, _ = writes[0].key.name
        entries = [(bytes.fromhex(write.key.name[2]), write.new) for write in writes]
        try:
            table = self._opened.at(self.paths.cube_map(uuid, name))
            table.delete_many(key for key, value in entries if value is None)
            table.set_many((key, bytes.fromhex(value)) for key, value in entries if value is not None)
        except Exception as error:
            raise KernelError(writes[0], error) from error

    def map_value(self, uuid: str, name: str, key: str) -> str | None:
        """What a map holds now, for the undo of a write."""
        value = self._opened.at(self.paths.cube_map(uuid, name)).get(bytes.fromhex(key))
        return None if value is None else value.hex()

    async def _set_slot(self, hook: str, slot: int, new: dict[str, str]) -> None:
        with Program.open(self._program(new)) as program:
            self._shared(f"pcn_progs_{hook}").set(u32(slot), u32(program.fd))

    async def _unset_slot(self, hook: str, slot: int, old: Any) -> None:
        self._shared(f"pcn_progs_{hook}").delete(u32(slot))

    async def _set_entry(self, ifindex: int, new: dict[str, int]) -> None:
        table = self._shared("pcn_entries" if ifindex < self._small else "pcn_entries_high")
        table.set(u32(ifindex), u32(new["port"]) + u32(new["id"]))

    async def _unset_entry(self, ifindex: int, old: Any) -> None:
        if ifindex < self._small:
            self._shared("pcn_entries").set(u32(ifindex), bytes(8))
        else:
            self._shared("pcn_entries_high").delete(u32(ifindex))

    async def _set_port(self, uuid: str, unit: str, number: int, new: dict[str, Any]) -> None:
        flags = sum(FLAGS[flag] for flag in new["flags"])
        value = bytes((NEXT.index(new["next"]), flags)) + new["peer_port"].to_bytes(2, "little")
        value += u32(new["target"]) + u32(new["id"]) + u32(new["peer_id"])
        self._unit_map(uuid, unit, "ports").set(u32(number), value)

    async def _unset_port(self, uuid: str, unit: str, number: int, old: Any) -> None:
        if (self.paths.units / uuid / unit).is_dir():
            self._unit_map(uuid, unit, "ports").set(u32(number), bytes(16))

    async def _set_device(self, id: int, new: int) -> None:
        self._shared("pcn_netdevs").set(u32(id), u32(new))

    async def _unset_device(self, id: int, old: Any) -> None:
        self._shared("pcn_netdevs").delete(u32(id))

    async def _set_domain(self, uuid: str, unit: str, domain: int, new: list[int]) -> None:
        table = self._unit_map(uuid, unit, "domains")
        members = b"".join(number.to_bytes(2, "little") for number in new)
        table.set(u32(domain), (u32(len(new)) + members).ljust(table.info.value_size, b"\0"))

    async def _unset_domain(self, uuid: str, unit: str, domain: int, old: Any) -> None:
        self._unit_map(uuid, unit, "domains").delete(u32(domain))

    async def _set_flood(self, uuid: str, unit: str, domain: int, port: int, new: list[int]) -> None:
        with Map.create(MapType.DEVMAP_HASH, 4, 4, 1024, name="flood_devices") as devices:
            for ifindex in new:
                devices.set(u32(ifindex), u32(ifindex))
            self._unit_map(uuid, unit, "flood_devices").set(_flood_key(domain, port), u32(devices.fd))

    async def _unset_flood(self, uuid: str, unit: str, domain: int, port: int, old: Any) -> None:
        self._unit_map(uuid, unit, "flood_devices").delete(_flood_key(domain, port))

    # ---- netdevs ----

    async def _set_attach(self, ifindex: int, point: str, new: dict[str, str]) -> None:
        path = self.paths.link(ifindex, point)
        mode = XdpMode[new["mode"].upper()] if "mode" in new else XdpMode.DEFAULT
        with Program.open(self._program(new)) as program:
            if not self.tcx and point != Point.XDP:
                tcfilter.attach(program, ifindex, _ATTACH[Point(point)])
                return
            standing = Link.find(path)
            if standing and standing.info.ifindex != ifindex:  # of a netdev that is gone; indexes come back
                standing.close()
                pin.remove(path)
                standing = None
            if standing:
                with standing:
                    standing.update(program)
                return
            link = Link.xdp(program, ifindex, mode) if point == Point.XDP else Link.tcx(program, ifindex, _ATTACH[Point(point)])
            with link:
                link.pin(path)

    async def _unset_attach(self, ifindex: int, point: str, old: Any) -> None:
        path = self.paths.link(ifindex, point)
        if not self.tcx and point != Point.XDP:
            tcfilter.detach(ifindex, _ATTACH[Point(point)])
        link = Link.find(path)
        if link:
            with link:
                link.detach()
            pin.remove(path)

    async def _set_namespace(self, name: str, new: dict[str, str]) -> None:
        await self.shadows.add_namespace(name, new["uuid"])

    async def _unset_namespace(self, name: str, old: Any) -> None:
        await self.shadows.remove_namespace(name)

    async def _set_shadow(self, index: int, new: dict[str, Any]) -> None:
        await self.shadows.add(index, new)

    async def _unset_shadow(self, index: int, old: Any) -> None:
        await self.shadows.remove(index)

    async def _set_host(self, index: int, new: dict[str, str]) -> None:
        await create_veth(new["name"], index, new["port"], index + 1)
        try:
            await self.links.disable_ipv6(index + 1)
            for end in (index, index + 1):
                await self.links.set_up(end)
        except BaseException:
            await self._unset_host(index, new)
            raise

    async def _unset_host(self, index: int, old: Any) -> None:
        if await self.links.find(index):
            await self.links.delete(index)

    async def _set_veth(self, index: int, new: dict[str, str]) -> None:
        await self._unset_veth(index, None)  # one that a killed daemon left without its program
        await create_veth(new["name"] + "a", index, new["name"] + "b", index + 1)
        mode = XdpMode[new["mode"].upper()]
        try:
            for end in (index + 1, index):  # the last one takes frames at once, the other when the kernel has looked at its carrier
                await self.links.disable_ipv6(end)
                await self.links.set_up(end)
            with Program.open(self.paths.shared_map(LEAD_XDP)) as program, Link.xdp(program, index + 1, mode) as link:
                link.pin(self.paths.link(index + 1, Point.XDP))
        except BaseException:
            await self._unset_veth(index, new)
            raise

    async def _unset_veth(self, index: int, old: Any) -> None:
        pin.remove(self.paths.link(index + 1, Point.XDP))
        if await self.links.find(index):
            await self.links.delete(index)

    async def _set_lead(self, index: int, new: dict[str, int]) -> None:
        flags = META_OUT | (META_SEEN if SHADOW_BASE <= index < HOST_BASE else 0)
        value = INJECT.pack(new["port"], flags, 0, new["slot"], 0)
        self._shared("pcn_leads").set(u32(index), value)

    async def _unset_lead(self, index: int, old: Any) -> None:
        self._shared("pcn_leads").delete(u32(index))

    async def _set_ready(self, ifindex: int, new: dict[str, str]) -> None:
        await self.netdevs.make_ready(ifindex)

    async def _unset_ready(self, ifindex: int, old: Any) -> None:
        await self.netdevs.restore(ifindex)

    async def _set_netdev(self, ifindex: int, property: str, new: str) -> None:
        await self.netdevs.give(ifindex, property, new)

    async def _unset_netdev(self, ifindex: int, property: str, old: Any) -> None:
        await self.netdevs.take_back(ifindex, property)

    # ---- counters ----

    def reset_port(self, id: int) -> None:
        """Counters of a port begin at zero."""
        counters = self._counting("pcn_counters")
        if counters:
            counters.set(u32(id), bytes(counters.info.value_size))

    def reset_cube(self, cube: int) -> None:
        """Drop reasons and times of a cube begin at zero."""
        for name, rows in (("pcn_drops", REASONS), (TIMES, len(HANDLERS))):
            counters = self._counting(name)
            if counters:
                for row in range(rows):
                    counters.set(u32(cube * rows + row), bytes(counters.info.value_size))

    # ---- what all cubes share ----

    def _make_log(self) -> None:
        """The ring buffer of log lines, so that it can be read from the start."""
        path = self.paths.shared_map(LOGS)
        if not path.exists():
            with Map.create(MapType.RINGBUF, 0, 0, LOG_BYTES, name=LOGS) as ring:
                ring.pin(path)

    def logs(self) -> Map:
        """Log lines of all data planes."""
        return Map.open(self.paths.shared_map(LOGS))

    # ---- open pins ----

    @property
    def _small(self) -> int:
        return self._shared("pcn_entries").info.max_entries

    def _shared(self, name: str) -> Map:
        return self._opened.at(self.paths.shared_map(name))

    def _counting(self, name: str) -> Map | None:
        """Counters come with the first unit."""
        path = self.paths.shared_map(name)
        return self._opened.at(path) if path.exists() else None

    def _unit_map(self, uuid: str, unit: str, name: str) -> Map:
        return self._opened.at(self.paths.units / uuid / unit / name)

    def _program(self, value: Mapping[str, str]) -> Path:
        if "fused" in value:
            return self.paths.fused / value["fused"] / FUSED_PROGRAM
        return self.paths.units / value["uuid"] / value["unit"] / value["program"]


def _flood_key(domain: int, port: int) -> bytes:
    return domain.to_bytes(2, "little") + port.to_bytes(2, "little")
