# SPDX-License-Identifier: Apache-2.0
"""Between what the daemon holds (draft.py) and what the store keeps (store.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polycube.core.registry import Installed
from polycube.daemon.draft import Absent, Entry
from polycube.daemon.store import Change, CubeRecord, PortRecord, Stored, StoredCube
from polycube.model import from_rows, row_changes
from polycube.net.readiness import Preparation


@dataclass(frozen=True)
class Kept:
    """What the store brings back."""

    entries: Mapping[str, Entry]
    attached: Mapping[str, tuple[str, ...]]
    preparations: Mapping[int, Preparation]
    absent: Absent  # cubes whose service is not installed; they stay in the store


def restored(stored: Stored, services: Mapping[str, Installed]) -> Kept:
    """What was stored, as the daemon holds it."""
    entries: dict[str, Entry] = {}
    absent: dict[str, str] = {}
    numbers: set[int] = set()
    ids: set[int] = set()
    for cube in stored.cubes.values():
        if cube.record.service in services:
            entries[cube.record.name] = _entry(cube, services[cube.record.service])
        else:
            absent[cube.record.name] = cube.record.service
            numbers.add(cube.record.number)
            ids.update(cube.record.extra["ids"], (port.id for port in cube.ports.values()))
    names = {entry.uuid: entry.name for entry in entries.values()}
    attached = {target: tuple(names[uuid] for uuid in uuids if uuid in names) for target, uuids in stored.attachments.items()}
    preparations = [Preparation.from_json(data) for data in stored.ready.values()]
    return Kept(entries, attached, {one.ifindex: one for one in preparations}, Absent(absent, frozenset(numbers), frozenset(ids)))


def _entry(cube: StoredCube, installed: Installed) -> Entry:
    record, extra = cube.record, cube.record.extra
    return Entry(
        record.name,
        record.uuid,
        record.number,
        record.service,
        installed.transparent,
        from_rows(installed.config, cube.rows),
        extra["hook"],
        extra["mode"],
        extra["settled"],
        {name: (port.number, port.id) for name, port in cube.ports.items()},
        (extra["ids"][0], extra["ids"][1]),
        extra.get("fuse", True),
    )


def changes(
    before: Kept, entries: Mapping[str, Entry], attached: Mapping[str, tuple[str, ...]], preparations: Mapping[int, Preparation]
) -> Change:
    """What has to be written so that the store holds these."""
    change = Change()
    old = {entry.uuid: entry for entry in before.entries.values()}
    new = {entry.uuid: entry for entry in entries.values()}
    for uuid in old.keys() - new.keys():
        change.cubes[uuid] = None
    for uuid, entry in new.items():
        standing = old.get(uuid)
        if standing is entry:
            continue
        if standing is None or _record(standing) != _record(entry):
            change.cubes[uuid] = _record(entry)
        if standing is None or standing.config is not entry.config:
            upserts, deletes = row_changes(standing.config if standing else None, entry.config)
            if upserts or deletes:
                change.rows[uuid] = (upserts, deletes)
        ports = _port_changes(standing.ports if standing else {}, entry.ports)
        if ports:
            change.ports[uuid] = ports
    uuids = {entry.name: entry.uuid for entry in entries.values()}
    for target in before.attached.keys() | attached.keys():
        if before.attached.get(target) != attached.get(target):
            change.attachments[target] = [uuids[name] for name in attached.get(target, ())]
    for ifindex in before.preparations.keys() | preparations.keys():
        if before.preparations.get(ifindex) != preparations.get(ifindex):
            change.ready[str(ifindex)] = preparations[ifindex].to_json() if ifindex in preparations else None
    return change


def _record(entry: Entry) -> CubeRecord:
    extra: dict[str, Any] = {"hook": entry.hook, "mode": entry.mode, "settled": entry.settled, "ids": list(entry.ids)}
    if not entry.fuse:
        extra["fuse"] = False
    return CubeRecord(entry.uuid, entry.name, entry.service, entry.number, extra)


def _port_changes(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, PortRecord | None]:
    found: dict[str, PortRecord | None] = {name: None for name in before if name not in after}
    found.update({name: PortRecord(name, *numbers) for name, numbers in after.items() if before.get(name) != numbers})
    return found
