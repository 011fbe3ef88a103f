# SPDX-License-Identifier: Apache-2.0
"""The daemon's core as the API sees it: `Controller`, over the keeper. Shows what stands, and turns requests into changes of drafts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import structlog

from polycube import __version__
from polycube.core.cube import Cube
from polycube.core.registry import Installed
from polycube.core.waysin import INTERNAL
from polycube.daemon import closer
from polycube.daemon.catalogue import Catalogue
from polycube.daemon.controller import (
    Change,
    CubeView,
    DeleteCube,
    EditCube,
    NoSuchCube,
    Placement,
    Planned,
    Result,
    Service,
    applied,
)
from polycube.daemon.draft import Draft, Entry, Refused
from polycube.daemon.events import Events
from polycube.daemon.keeper import Keeper
from polycube.daemon.log import quietly
from polycube.daemon.metrics import drop_counts, render
from polycube.daemon.objects import Objects
from polycube.daemon.snapshot import read, restack, snapshot
from polycube.daemon.units import code, units
from polycube.model import Edit, ModelError, Node, Op, Path, Tag, dump, key_segments, measured, resolve
from polycube.model import Kind as NodeKind

log = structlog.get_logger("polycubed")
MORE = {"maps": closer.fill, "cost": closer.cost}
PATIENCE = 2.0  # seconds for a cube's state when metrics are asked for


class Manager:
    """Implements `Controller`."""

    def __init__(self, services: Mapping[str, Installed], objects: Objects, keeper: Keeper, catalogue: Catalogue) -> None:
        self._installed = services
        self._catalogue = catalogue
        self._objects = objects
        self._keeper = keeper

    # ---- reading: Controller ----

    def services(self) -> Mapping[str, Service]:
        return {
            name: Service(name, one.description, one.cls.version, "transparent" if one.transparent else "standard", one.config, one.target)
            for name, one in self._installed.items()
        }

    def cubes(self) -> Mapping[str, CubeView]:
        return {name: CubeView(name, e.service, e.uuid, e.config, self._common(e)) for name, e in self._keeper.entries.items()}

    def netdevs(self) -> Sequence[Mapping[str, Any]]:
        return [
            {"name": one.name, "addresses": [str(address) for address in one.addresses]}
            for one in self._keeper.present.values()
            if one.up and not one.loopback and one.ifindex < INTERNAL
        ]

    def version(self) -> str:
        return __version__

    def _entry(self, name: str) -> Entry:
        """A cube, which may have gone since the request was begun."""
        entry = self._keeper.entries.get(name)
        if entry is None:
            raise NoSuchCube(name, list(self._keeper.entries))
        return entry

    async def overlay(self, name: str, path: Path = (), *, read: bool = False) -> Mapping[str, Any]:
        entry = self._entry(name)
        common = self._common(entry)
        if path and path[0] in ("uuid", "type", "service-name", "loglevel", "parent", "name"):
            return common
        state = dict(await self._keeper.workers.state(entry.service, entry.uuid, path if read else None))
        ports = {port["name"]: port for port in state.pop("ports", ())}
        if "ports" in common:
            common["ports"] = [{**ports.get(port["name"], {}), **port} for port in common["ports"]]
        return {**state, **common}

    def _common(self, entry: Entry) -> dict[str, Any]:
        common: dict[str, Any] = {"uuid": entry.uuid}
        if entry.transparent:
            parent = Draft(self._keeper.entries, self._keeper.attached).parent(entry.name)
            return common | {"parent": parent or ""}
        common["ports"] = []
        for port in entry.standard.ports.values():
            state = self._keeper.state_of(entry.name, port.name)
            line = {
                "name": port.name,
                "peer": "",
                "uuid": f"{entry.uuid[:-4]}{entry.ports[port.name][0]:04x}",
                "status": "UP" if state.up else "DOWN",
            }
            common["ports"].append(line if state.up else line | {"reason": state.reason})
        return common

    def topology_of(self, ifname: str) -> Mapping[str, Any]:
        if ifname not in self._keeper.present:
            return {"name": ifname}
        stack = [name for name in self._keeper.attached.get(ifname, ()) if name in self._keeper.entries]
        owner = next(
            (f"{e.name}:{p.name}" for e, p in Draft(self._keeper.entries, self._keeper.attached).ports() if p.peer == ifname), "stack"
        )
        lines = [f"{name},\t{self._keeper.entries[name].number * 2},\t{self._keeper.entries[name].number * 2 + 1}" for name in stack]
        return {
            "name": ifname,
            "cubes, ingress_index, egress_index": lines,
            "ingress service chain": " ---> ".join([*stack, owner]),
            "egress service chain": " ---> ".join([*stack[::-1], "stack"]),  # upstream's word for the end
        }

    async def metrics(self, more: Collection[str] = ()) -> str:
        wanted = [entry for entry in self._keeper.entries.values() if measured(type(entry.config))]
        answers = await asyncio.gather(*(asyncio.wait_for(self.overlay(one.name), PATIENCE) for one in wanted), return_exceptions=True)
        dumps = {}
        for entry, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, BaseException):
                log.warning("no metrics from its state", cube=entry.name, reason=str(answer) or type(answer).__name__)
            else:
                dumps[entry.name] = dump(entry.config, answer)
        return await asyncio.to_thread(render, self._keeper, self.reasons, dumps, [MORE[one] for one in more])

    def events(self) -> Events:
        return self._keeper.events

    def drop_counts(self) -> Mapping[tuple[str, str], int]:
        return drop_counts(self._keeper, self.reasons)

    def reasons(self, entry: Entry) -> dict[int, str]:
        """Names of the drop reasons of a cube."""
        return self._objects.reasons(self._installed[entry.service].cls.function_of(entry.config), entry.hook)

    def config(self) -> Mapping[str, Any]:
        return snapshot(self._keeper.entries, self._keeper.attached)

    async def units(self) -> Sequence[Mapping[str, Any]]:
        return await asyncio.to_thread(units, self._keeper)

    async def unit_code(self, name: str) -> str | None:
        return await asyncio.to_thread(code, self._keeper, name)

    def fusing(self) -> Mapping[str, Any]:
        cubes = [{"name": name, "enabled": entry.fuse} for name, entry in self._keeper.entries.items()]
        return {"enabled": self._keeper.fuser.on, "cubes": cubes}

    # ---- changing: Controller ----

    async def fuse(self, enabled: bool, cube: str | None = None, *, dry_run: bool) -> Result:
        if cube is not None:
            return await self._keeper.change(lambda draft: draft.fuse(self._entry(cube).name, enabled), dry_run)
        if dry_run:
            raise Refused("fusing is switched as a whole: what it would do can't be shown")
        self._keeper.fuser.on = enabled
        return await self._keeper.change(lambda draft: None, dry_run)

    async def add_service(self, name: str, uri: str) -> None:
        await self._catalogue.add(name, uri)

    async def reload_service(self, name: str) -> None:
        await self._catalogue.reload(name)

    async def remove_service(self, name: str) -> None:
        await self._catalogue.remove(name)

    async def apply(self, document: Any, *, dry_run: bool) -> Result:
        wanted = read(document)

        def act(draft: Draft) -> None:
            self._draw(draft, list(wanted.changes(draft.cubes)))
            restack(draft, wanted.stacks, self._keeper.present)

        return await self._keeper.change(act, dry_run)

    async def change(self, changes: Sequence[Change], *, dry_run: bool) -> Result:
        try:
            result = await self._keeper.change(lambda draft: self._draw(draft, changes), dry_run)
        except ModelError as error:
            return await self._forget_learned(changes, error, dry_run)
        for change in changes if not dry_run else ():
            if isinstance(change, EditCube):
                await quietly(self._forget(change), f"forget what {change.name} learned")
        return result

    def _draw(self, draft: Draft, changes: Sequence[Change]) -> None:
        planned = applied(changes, self.services(), self.cubes())
        deleted = {one.name for one in changes if isinstance(one, DeleteCube)}
        for name in [name for name, one in planned.items() if one.old is not None and (one.new is None or name in deleted)]:
            draft.delete(name)
        for name, one in planned.items():
            self._take(draft, name, one, changes)

    def _take(self, draft: Draft, name: str, one: Planned, changes: Sequence[Change]) -> None:
        if one.new is None:
            return
        if name not in draft.cubes:
            draft.create(name, one.service, self._installed[one.service].transparent, one.new)
            return
        edits = [edit for change in changes if isinstance(change, EditCube) and change.name == name for edit in change.edits]
        draft.reconfigure(name, one.new, edits)

    async def _forget_learned(self, changes: Sequence[Change], error: ModelError, dry_run: bool) -> Result:
        """A DELETE of what is not configured may mean something the cube has learned."""
        change = changes[0]
        if len(changes) > 1 or not isinstance(change, EditCube) or any(one.tag is not Tag.DATA_MISSING for one in error.problems):
            raise error
        if dry_run or not await self._forget(change):
            raise error
        return Result()

    async def _forget(self, change: EditCube) -> bool:
        """Has a cube forget what the deletions of a request mean: one learned element, or all of a list."""
        entry, forgotten = self._keeper.entries.get(change.name), False
        if entry and self._installed[entry.service].cls.forget is Cube.forget:  # it learns nothing that could be forgotten
            return False
        for edit in change.edits if entry else ():
            assert entry
            target = resolve(type(entry.config), edit.path)
            if edit.op is Op.DELETE and target.member and target.kind in (NodeKind.ELEMENT, NodeKind.LIST):
                step = target.steps[-1]
                key = key_segments(step.member.child, step.key) if target.kind is NodeKind.ELEMENT else None
                names = "/".join(step.member.name for step in target.steps)
                forgotten |= await self._keeper.workers.forget(entry.service, entry.uuid, names, key[0] if key and len(key) == 1 else key)
        return forgotten

    async def action(self, name: str, path: Path, input: Node | None, *, dry_run: bool) -> Result:
        if dry_run:
            raise Refused(f"{'/'.join(path)} of {name} is an action: what it would do can't be shown")
        entry = self._entry(name)
        body = dump(input) if input is not None else None
        return Result(output=await self._keeper.workers.action(entry.service, entry.uuid, path, body))

    async def stream(self, name: str, path: Path) -> AsyncIterator[bytes]:
        entry = self._entry(name)
        return _chunks(await self._keeper.workers.stream(entry.service, entry.uuid, path))

    async def connect(self, peer1: str, peer2: str, *, dry_run: bool) -> Result:
        return await self._keeper.change(lambda draft: draft.connect(peer1, peer2), dry_run)

    async def disconnect(self, peer1: str, peer2: str, *, dry_run: bool) -> Result:
        return await self._keeper.change(lambda draft: draft.disconnect(peer1, peer2), dry_run)

    async def attach(self, cube: str, port: str, placement: Placement, *, dry_run: bool) -> Result:
        def act(draft: Draft) -> None:
            if ":" not in port and port not in self._keeper.present:
                raise Refused(f"netdev {port} not found")
            draft.attach(cube, port, placement, {name: one.cls.layer for name, one in self._installed.items()})

        return await self._keeper.change(act, dry_run)

    async def detach(self, cube: str, port: str, *, dry_run: bool) -> Result:
        def act(draft: Draft) -> None:
            if ":" not in port and port not in self._keeper.present and port not in self._keeper.attached:
                raise Refused(f"netdev {port} not found")
            draft.detach(cube, port)

        return await self._keeper.change(act, dry_run)

    async def edited(self, uuid: str, edits: list[Edit]) -> None:
        """A cube wants its own configuration changed."""
        entry = next((one for one in self._keeper.entries.values() if one.uuid == uuid), None)
        if entry:
            await self.change([EditCube(entry.name, tuple(edits))], dry_run=False)


async def _chunks(connected: socket.socket) -> AsyncIterator[bytes]:
    with connected:
        connected.setblocking(False)
        while chunk := await asyncio.get_running_loop().sock_recv(connected, 1 << 18):
            yield chunk
