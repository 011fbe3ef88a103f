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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from polycube.bpf import AttachType, Link, Map, MapSpec, MapType, Object, Program, XdpMode, ensure_bpffs, features, pin, tcfilter, u32
from polycube.core.datalog import LOGS
from polycube.core.fusedunits import PROGRAM as FUSED_PROGRAM
from polycube.core.fusedunits import FusedUnits
from polycube.core.fusing import Piece
from polycube.core.operation import FLAGS, NEXT, Operation
from polycube.core.paths import GENERIC_DEVICE, INJECTION_DEVICE, LEAD_XDP, SLOWPATH, XDP_INJECTOR, Paths, Point
from polycube.core.shadownetdevs import SHADOW_PROGRAMS, ShadowNetdevs
from polycube.core.slowpath import INJECT, META_OUT, META_SEEN
from polycube.core.topology import HOST_BASE, SHADOW_BASE, VETH_BASE
from polycube.net import netns, readiness
from polycube.net.addr import Mac, parse_interface
from polycube.net.links import Links
from polycube.net.rtnl import Rtnl

INJECT_OUTER, INJECT_INNER = VETH_BASE - 2, VETH_BASE - 1
GENERIC_OUTER, GENERIC_INNER = VETH_BASE - 4, VETH_BASE - 3
INTERNAL = GENERIC_OUTER  # netdevs with this ifindex or a higher one are the daemon's own
PROGRAMS: dict[bool, set[str]] = {False: {"entry", "tail"}, True: {"ingress", "ingress_tail", "egress", "egress_tail"}}
REASONS = 64  # PCN_REASONS
_OWNED_BY_UNIT = {"ports", "domains", "flood_devices"}
LOG_BYTES = 256 * 1024  # as in unit_log.h
_PER_HOOK = {"pcn_progs"}
_ATTACH = {Point.TC_INGRESS: AttachType.TCX_INGRESS, Point.TC_EGRESS: AttachType.TCX_EGRESS}


log = structlog.get_logger("polycubed")


class KernelError(Exception):
    """A resource could not be changed; says which and why."""

    def __init__(self, operation: Operation, cause: BaseException) -> None:
        self.operation = operation
        self.cause = cause
        super().__init__(f"can't {operation}: {cause}")


@dataclass(frozen=True)
class Load:
    """What is needed to load a unit."""

    name: str  # for messages: the service
    data: bytes
    sizes: Mapping[str, int] = field(default_factory=dict)
    piece: Piece | None = None  # what it takes to fuse it with others


class Kernel:
    """The kernel of one network namespace, as far as this daemon rules it."""

    def __init__(self, paths: Paths, links: Links) -> None:
        self.paths = paths
        self.links = links
        self.tcx = features().tcx
        self.loads: dict[tuple[str, str], Load] = {}  # (uuid, unit) -> its object; filled by who plans
        self.fresh: dict[str, set[str]] = {}  # uuid -> maps that had to be created
        self.lost: list[str] = []  # sentences on maps whose layout changed
        self.preparations: dict[int, readiness.Preparation] = {}  # ifindex -> what was set for XDP, to be restored
        self.fused = FusedUnits(paths, self._pin_of)
        self.shadows = ShadowNetdevs(paths, links)
        self._maps: dict[Path, Map] = {}  # open pins
        self._former_macs: dict[int, Mac] = {}  # ifindex -> what it was before a cube gave it its own
        self._given: set[tuple[int, str]] = set()  # ifindex and address: those that netdevs did not have before

    async def start(self, injectors: Mapping[str, bytes]) -> None:
        """Makes what all cubes share: folders, the ways in for frames of the slow path. `injectors`: hook -> object."""
        ensure_bpffs(self.paths.root.parent)
        for folder in (self.paths.root, self.paths.shared, self.paths.cubes, self.paths.units, self.paths.fused, self.paths.links):
            folder.mkdir(exist_ok=True)
        self._load_injectors(injectors)
        self._make_log()
        await self._make_injection_devices()

    async def remove(self) -> None:
        """Takes away what `start` made. What cubes own must be gone already."""
        for index in (INJECT_OUTER, GENERIC_OUTER):
            if await self.links.find(index):
                await self.links.delete(index)
        self.close()
        pin.remove(self.paths.root)

    def close(self) -> None:
        """Forgets open handles; the kernel keeps everything."""
        for handle in self._maps.values():
            handle.close()
        self._maps.clear()
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
        self._forget(self.paths.cube(uuid))
        pin.remove(self.paths.cube(uuid))
        self.fresh.pop(uuid, None)

    async def _set_unit(self, uuid: str, unit: str, new: Any) -> None:
        await asyncio.to_thread(self._load, uuid, unit, self.loads[uuid, unit])

    async def _unset_unit(self, uuid: str, unit: str, old: Any) -> None:
        folder = self.paths.units / uuid
        self._forget(folder / unit)
        pin.remove(folder / unit)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        self._remove_unused(uuid)

    async def _set_fused(self, name: str, new: dict[str, str]) -> None:
        await asyncio.to_thread(self.fused.add, name, new)

    async def _unset_fused(self, name: str, old: Any) -> None:
        self.fused.remove(name)

    async def _set_cfg(self, uuid: str, unit: str, new: dict[str, str]) -> None:
        with Object.open(self.loads[uuid, unit].data, unit.replace("-", "_")) as object:
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
        self._map(self.paths.cube_map(uuid, name)).set(bytes.fromhex(key), bytes.fromhex(new))

    async def _unset_map(self, uuid: str, name: str, key: str, old: Any) -> None:
        self._map(self.paths.cube_map(uuid, name)).delete(bytes.fromhex(key))

    def map_values(self, writes: Sequence[Operation]) -> list[str | None]:
        """What one map holds now under the keys of many writes to it."""
        uuid, name, _ = writes[0].key.name
        try:
            standing = dict(self._map(self.paths.cube_map(uuid, name)).items())
        except Exception as error:
            raise KernelError(writes[0], error) from error
        found = [standing.get(bytes.fromhex(write.key.name[2])) for write in writes]
        return [None if value is None else value.hex() for value in found]

    def write_map(self, writes: Sequence[Operation]) -> None:
        """Many writes to one map, by batches. KernelError: some of them may have been made."""
        uuid, name, _ = writes[0].key.name
        entries = [(bytes.fromhex(write.key.name[2]), write.new) for write in writes]
        try:
            table = self._map(self.paths.cube_map(uuid, name))
            table.delete_many(key for key, value in entries if value is None)
            table.set_many((key, bytes.fromhex(value)) for key, value in entries if value is not None)
        except Exception as error:
            raise KernelError(writes[0], error) from error

    def map_value(self, uuid: str, name: str, key: str) -> str | None:
        """What a map holds now, for the undo of a write."""
        value = self._map(self.paths.cube_map(uuid, name)).get(bytes.fromhex(key))
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
        await _create_veth(new["name"], index, new["port"], index + 1)
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
        await _create_veth(new["name"] + "a", index, new["name"] + "b", index + 1)
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
        netdev = await self.links.get(ifindex)
        known = self.preparations.get(ifindex)
        result = await netns.call_in(None, lambda: readiness.apply(known) if known else readiness.prepare(netdev))
        if known and isinstance(result, readiness.NotReady):  # made for another netdev, which had this index before
            known, result = None, await netns.call_in(None, lambda: readiness.prepare(netdev))
        if isinstance(result, readiness.NotReady):
            raise ValueError(result.reason)
        self.preparations[ifindex] = result
        for line in _said(result):
            log.info("made ready for XDP", netdev=result.netdev, setting=line)

    async def _unset_ready(self, ifindex: int, old: Any) -> None:
        preparation = self.preparations.pop(ifindex, None)
        if preparation:
            restored = await netns.call_in(None, lambda: readiness.restore(preparation))
            log.info("no longer needed for XDP", netdev=preparation.netdev, settings_restored=len(restored))

    async def renew_readiness(self) -> None:
        """Settings made while the other end of a veth was down don't count in full: makes them again where it came up."""
        for preparation in self.preparations.values():
            if await self.links.find(preparation.ifindex):
                await netns.call_in(None, lambda one=preparation: readiness.is_ready(one) or readiness.apply(one))  # type: ignore[misc]

    async def _set_netdev(self, ifindex: int, property: str, new: str) -> None:
        netdev = await self.links.get(ifindex)
        if property == "mac":
            if str(netdev.mac) != new.lower():
                self._former_macs.setdefault(ifindex, netdev.mac)
                await self.links.set_mac(ifindex, Mac.parse(new))
        elif parse_interface(property) not in netdev.addresses:
            await self.links.add_address(ifindex, parse_interface(property))
            self._given.add((ifindex, property))

    async def _unset_netdev(self, ifindex: int, property: str, old: Any) -> None:
        netdev = await self.links.find(ifindex)
        former = self._former_macs.pop(ifindex, None) if property == "mac" else None
        given = (ifindex, property) in self._given
        self._given.discard((ifindex, property))
        if netdev and former:
            await self.links.set_mac(ifindex, former)
        elif netdev and given and parse_interface(property) in netdev.addresses:
            await self.links.del_address(ifindex, parse_interface(property))

    # ---- counters ----

    def reset_port(self, id: int) -> None:
        """Counters of a port begin at zero."""
        counters = self._counting("pcn_counters")
        if counters:
            counters.set(u32(id), bytes(counters.info.value_size))

    def reset_drops(self, cube: int) -> None:
        """Drop reasons of a cube begin at zero."""
        drops = self._counting("pcn_drops")
        if drops:
            for reason in range(REASONS):
                drops.set(u32(cube * REASONS + reason), bytes(8))

    # ---- loading ----

    def _load(self, uuid: str, unit: str, load: Load) -> None:
        hook = unit.partition("-")[0]
        folder = self.paths.units / uuid / unit
        pin.remove(folder)
        folder.mkdir(parents=True)
        made: list[Path] = []
        with Object.open(load.data, load.name[:15]) as object:
            new: dict[str, Path] = {}
            for name, spec in object.maps.items():
                if name in load.sizes:
                    spec.max_entries = load.sizes[name]
                path = self._pin_of(uuid, folder, hook, name)
                standing = None if folder in path.parents else self._adoptable(path, spec)
                if standing:
                    spec.reuse(standing)
                else:
                    new[name] = path
            try:
                object.load()
                for name, path in new.items():
                    pin.remove(path)
                    self._maps.pop(path, None)
                    with object.map(name) as created:
                        created.pin(path)
                    made.append(path)
                for name in object.programs:
                    with object.program(name) as program:
                        program.pin(folder / name)
            except BaseException:
                for path in [*made, folder]:
                    pin.remove(path)
                raise
        own = {path.name for path in made if path.parent == self.paths.cube(uuid)} - {SLOWPATH}
        self.fresh.setdefault(uuid, set()).update(own)

    def _remove_unused(self, uuid: str) -> None:
        """Maps of a cube that no generation of its programs has any more, and what would be needed to load others."""
        for key in [key for key in self.loads if key[0] == uuid and not (self.paths.units / uuid / key[1]).is_dir()]:
            del self.loads[key]
        used = {SLOWPATH}
        loads = [load for key, load in self.loads.items() if key[0] == uuid]
        for load in loads:
            with Object.open(load.data, load.name[:15]) as object:
                used.update(object.maps)
        folder = self.paths.cube(uuid)
        for path in list(folder.iterdir()) if loads and folder.is_dir() else ():
            if path.name not in used:
                self._forget(path)
                pin.remove(path)

    def _pin_of(self, uuid: str, folder: Path, hook: str, name: str) -> Path:
        if name in _OWNED_BY_UNIT or name.startswith("."):  # sections of the program: constants and tables of the compiler's making, too
            return folder / name.rpartition(".")[2]
        if name.startswith("pcn_"):
            return self.paths.shared_map(f"{name}_{hook}" if name in _PER_HOOK else name)
        return self.paths.cube_map(uuid, name)

    def _adoptable(self, path: Path, spec: MapSpec) -> Map | None:
        """The pinned map, if it has the layout that the object wants."""
        standing = Map.find(path)
        if standing is None:
            return None
        layouts = standing.layouts()
        info = standing.info
        described = ":".join(
            [MapType(info.type).name, str(spec.flags), str(info.key_size), str(info.value_size)]
            + ([layouts[0].describe(), layouts[1].describe()] if layouts else [])
        )
        if described == spec.describe() or (not layouts and spec.describe().startswith(described)):
            return standing
        standing.close()
        self.lost.append(f"map {path.name} of {path.parent.name} has another layout in the new program; its entries are lost")
        return None

    def _load_injectors(self, injectors: Mapping[str, bytes]) -> None:
        """Replaces the programs that lead frames into cubes; the maps they share with units are adopted."""
        folder = self.paths.shared
        for hook, data in injectors.items():
            with Object.open(data, f"inject_{hook}") as object:
                missing = []
                for name, spec in object.maps.items():
                    path = self._pin_of("", folder, hook, name)
                    standing = self._adoptable(path, spec)
                    if standing:
                        spec.reuse(standing)
                    else:
                        missing.append((name, path))
                object.load()
                for name, path in missing:
                    pin.remove(path)
                    with object.map(name) as created:
                        created.pin(path)
                pins = {"pcn_inject": XDP_INJECTOR, "pcn_lead": LEAD_XDP} if hook == "xdp" else {"pcn_lead": "lead_tc", **SHADOW_PROGRAMS}
                for name, target in pins.items():
                    pin.remove(folder / target)
                    with object.program(name) as program:
                        program.pin(folder / target)

    def _make_log(self) -> None:
        """The ring buffer of log lines, so that it can be read from the start."""
        path = self.paths.shared_map(LOGS)
        if not path.exists():
            with Map.create(MapType.RINGBUF, 0, 0, LOG_BYTES, name=LOGS) as ring:
                ring.pin(path)

    def logs(self) -> Map:
        """Log lines of all data planes."""
        return Map.open(self.paths.shared_map(LOGS))

    async def _make_injection_devices(self) -> None:
        """Veth pairs: user space sends into the outer end, the program on the inner end leads the frame to a cube."""
        await self._make_injection_device(INJECTION_DEVICE, INJECT_OUTER, 65535)
        await self._make_injection_device(GENERIC_DEVICE, GENERIC_OUTER, 9000)
        with Program.open(self.paths.shared / "lead_tc") as program:
            if self.tcx:
                self._attach_own(program, INJECT_INNER, Point.TC_INGRESS)
            else:
                tcfilter.attach(program, INJECT_INNER, AttachType.TCX_INGRESS)
        with Program.open(self.paths.shared / XDP_INJECTOR) as program:
            self._attach_own(program, GENERIC_INNER, Point.XDP)

    async def _make_injection_device(self, name: str, index: int, mtu: int) -> None:
        if not await self.links.find(index):
            await _create_veth(name, index, name[:-1] + "1", index + 1, mtu)
        for end in (index + 1, index):  # as above: what is injected at once would be dropped
            await self.links.disable_ipv6(end)
            await self.links.set_up(end)

    def _attach_own(self, program: Program, ifindex: int, point: Point) -> None:
        path = self.paths.link(ifindex, point)
        standing = Link.find(path)
        if standing and standing.info.ifindex:
            with standing:
                standing.update(program)
            return
        pin.remove(path)
        made = Link.xdp(program, ifindex, XdpMode.SKB) if point is Point.XDP else Link.tcx(program, ifindex, _ATTACH[point])
        with made as link:
            link.pin(path)

    # ---- open pins ----

    @property
    def _small(self) -> int:
        return self._shared("pcn_entries").info.max_entries

    def _shared(self, name: str) -> Map:
        return self._map(self.paths.shared_map(name))

    def _counting(self, name: str) -> Map | None:
        """Counters come with the first unit."""
        path = self.paths.shared_map(name)
        return self._map(path) if path in self._maps or path.exists() else None

    def _unit_map(self, uuid: str, unit: str, name: str) -> Map:
        return self._map(self.paths.units / uuid / unit / name)

    def _program(self, value: Mapping[str, str]) -> Path:
        if "fused" in value:
            return self.paths.fused / value["fused"] / FUSED_PROGRAM
        return self.paths.units / value["uuid"] / value["unit"] / value["program"]

    def _map(self, path: Path) -> Map:
        if path not in self._maps:
            self._maps[path] = Map.open(path)
        return self._maps[path]

    def _forget(self, folder: Path) -> None:
        for path in [path for path in self._maps if folder in (path, *path.parents)]:
            self._maps.pop(path).close()


def _said(preparation: readiness.Preparation) -> list[str]:
    """What was set, for people."""
    settings = [
        f"{one.feature} {'on' if one.new else 'off'} at {one.end.ifname} in {one.end.netns_hint or 'this namespace'}"
        for one in preparation.settings
    ]
    return [*settings, *preparation.notes]


async def _create_veth(name: str, index: int, peer: str, peer_index: int, mtu: int = 1500) -> None:
    def create() -> None:
        with Rtnl() as rtnl:
            rtnl.create_veth(name, index, peer, peer_index, mtu)

    await netns.call_in(None, create)


def _flood_key(domain: int, port: int) -> bytes:
    return domain.to_bytes(2, "little") + port.to_bytes(2, "little")
