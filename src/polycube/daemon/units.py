# SPDX-License-Identifier: Apache-2.0
"""The units that stand in the kernel, for people: what they are made of, what they cost, whether they are fused and if not, why.

A fused unit is called by its name ("xdp-1f2e…"), a unit of one by its cube and hook ("br1:xdp"). The listing of a unit shows its
instructions with the lines of C they come from; these are read from the sources that the package and the services bring along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycube.bpf import Map, Program, pin
from polycube.bpf.disasm import Line, listing
from polycube.bpf.errors import BpfError
from polycube.compiler.function import COMPILER, PACKAGE
from polycube.core.fusedunits import PROGRAM
from polycube.core.operation import Key, Kind

if TYPE_CHECKING:
    from polycube.daemon.draft import Entry
    from polycube.daemon.fuser import Fuser
    from polycube.daemon.keeper import Keeper


def units(keeper: Keeper) -> list[dict[str, Any]]:
    """All of them: fused ones first, the others by name."""
    fuser, names = keeper.fuser, {entry.uuid: entry.name for entry in keeper.entries.values()}
    ones = [_of_one(keeper, entry, unit) for entry, unit in _standing(keeper)]
    return [*_fused(keeper, fuser, names), *sorted(ones, key=lambda one: str(one["name"]))]


def code(keeper: Keeper, name: str) -> str | None:
    """The listing of a unit's programs; None: there is no such unit."""
    folder = _folder(keeper, name)
    if folder is None:
        return None
    lines: list[str] = []
    for path in _programs(folder):
        with Program.open(path) as program:
            lines += [f"{path.name}:", *listing(program.code(), _with_text(program.lines(), _sources(keeper)), _map_names(program)), ""]
    return "\n".join(lines)


def _fused(keeper: Keeper, fuser: Fuser, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    netdevs = {one.ifindex: one.name for one in keeper.present.values()}
    for name, one in list(fuser.standing.items()):
        made = fuser.made.get(name)
        yield {
            "name": name,
            "kind": "fused",
            "cubes": [names.get(uuid, uuid) for uuid, _ in one.units],
            "entries": [f"{netdevs.get(key.name[0], key.name[0])} {key.name[1]}" for key in one.attached],
            **_measured(keeper.kernel.paths.fused / name),
            **({"build-ms": round(made.build * 1e3), "load-ms": round(made.load * 1e3), "cached": made.cached} if made else {}),
            "fused": "yes",
            "cuts": [f"{names.get(cut.uuid, cut.uuid)}: {cut.reason}" for cut in one.cuts],
        }


def _of_one(keeper: Keeper, entry: Entry, unit: str) -> dict[str, Any]:
    netdevs = {one.ifindex: one.name for one in keeper.present.values()}
    attached = [
        key
        for key, value in keeper.executor.resources.items()
        if key.kind is Kind.ATTACH and (value.get("uuid"), value.get("unit")) == (entry.uuid, unit)
    ]
    return {
        "name": f"{entry.name}:{unit.partition('-')[0]}",
        "kind": "one",
        "cubes": [entry.name],
        "entries": [f"{netdevs.get(key.name[0], key.name[0])} {key.name[1]}" for key in attached],
        **_measured(keeper.kernel.paths.units / entry.uuid / unit),
        "fused": _why(keeper.fuser, entry, unit, attached),
        "cuts": [],
    }


def _why(fuser: Fuser, entry: Entry, unit: str, attached: list[Key]) -> str:
    """Whether a cube is part of fused units, or why not."""
    if any((entry.uuid, unit) in one.units for one in fuser.standing.values()):
        return "yes"
    if not fuser.on:
        return "no: fusing is off"
    if entry.uuid in fuser.off:
        return "no: fusing is off for this cube"
    reasons = [fuser.reasons[key] for key in attached if key in fuser.reasons]
    reasons += [cut.reason for one in fuser.standing.values() for cut in one.cuts if cut.uuid == entry.uuid]
    if reasons:
        return f"no: {reasons[0]}"
    return "no: a change is waiting for a quiet moment" if fuser.waiting else "no: no frames of a netdev come here"


def _measured(folder: Path) -> dict[str, Any]:
    """What the kernel says of the programs of a unit."""
    ids, instructions, jited, verified, maps = [], 0, 0, 0, set[int]()
    for path in _programs(folder):
        with suppress(BpfError), Program.open(path) as program:
            info = program.info
            ids.append(info.id)
            instructions += info.xlated_len // 8
            jited += info.jited_len
            verified += info.verified_insns
            maps |= set(info.map_ids)
    return {"programs": ids, "instructions": instructions, "jited-bytes": jited, "verified": verified, "maps": len(maps)}


def _standing(keeper: Keeper) -> Iterator[tuple[Entry, str]]:
    by_uuid = {entry.uuid: entry for entry in keeper.entries.values()}
    for key in sorted((key for key in keeper.executor.resources if key.kind is Kind.UNIT), key=lambda key: key.name):
        if key.name[0] in by_uuid:
            yield by_uuid[key.name[0]], key.name[1]


def _folder(keeper: Keeper, name: str) -> Path | None:
    paths = keeper.kernel.paths
    if name in keeper.fuser.standing:
        return paths.fused / name
    cube, _, hook = name.partition(":")
    for entry, unit in _standing(keeper):
        if entry.name == cube and unit.partition("-")[0] == hook:
            return paths.units / entry.uuid / unit
    return None


def _programs(folder: Path) -> list[Path]:
    wanted = {PROGRAM, "entry", "tail", "ingress", "ingress_tail", "egress", "egress_tail"}
    return [folder / name for name in pin.listing(folder) if name in wanted]


def _map_names(program: Program) -> dict[int, str]:
    found = {}
    for id in program.info.map_ids:
        with suppress(BpfError), Map.by_id(id) as one:
            found[id] = one.info.name
    return found


def _sources(keeper: Keeper) -> list[Path]:
    """Folders that a name of a source may be relative to."""
    return [PACKAGE.parent, COMPILER, *{one.cls.function().folder for one in keeper.installed.values()}]


def _with_text(lines: Mapping[int, Line], folders: list[Path]) -> dict[int, Line]:
    texts: dict[str, list[str]] = {}
    found = {}
    for at, line in lines.items():
        if line.file not in texts:
            texts[line.file] = _read(line.file, folders)
        content = texts[line.file][line.number - 1 : line.number]
        found[at] = Line(at, line.file.replace("./", ""), line.number, line.text or (content[0] if content else ""))
    return found


def _read(file: str, folders: list[Path]) -> list[str]:
    for folder in folders:
        with suppress(OSError):
            return (folder / file).read_text().splitlines()
    return []
