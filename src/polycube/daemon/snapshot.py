# SPDX-License-Identifier: Apache-2.0
"""The whole configuration as one document, out and in.

    cubes:
    - name: r1
      service-name: router
      ports:
      - name: p1
        ip: 10.0.1.254/24
        peer: veth1
    attached:
      veth1: [fw1]

Only what differs from the defaults is in it, cubes in the order of their names, so that two of them compare well. Applying one makes what
stands equal to it, as one change: cubes that are not in it are deleted, others created, changed, or, where something can be set at creation
only, made anew. An array of cubes, as upstream's cubes.yaml holds, is taken for such a document without attachments.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polycube.core.config import CubeConfig
from polycube.daemon.controller import Change, CreateCube, DeleteCube, EditCube
from polycube.daemon.draft import Draft, Entry, Refused
from polycube.model import Edit, Node, Op, Path, Tag, problem, suggest
from polycube.model.schema import Kind, members, stored, to_wire

MEMBERS = ("cubes", "attached")


def snapshot(entries: Mapping[str, Entry], attached: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The document of what stands."""
    cubes = [{"name": name, "service-name": entry.service} | differing(entry.config) for name, entry in sorted(entries.items())]
    return {"cubes": cubes} | ({"attached": {netdev: list(names) for netdev, names in sorted(attached.items())}} if attached else {})


def differing(node: Node) -> dict[str, Any]:
    """The configuration of a node as far as it is not the default; keys always. Of a cube, without its name and service."""
    found: dict[str, Any] = {}
    for member in stored(type(node)):
        value = getattr(node, member.attr)
        if member.kind is Kind.LEAF:
            wire = to_wire(value)
            if wire is not None and wire != [] and (member.key or member.mandatory or wire != member.default):
                found[member.name] = wire
        elif member.kind is Kind.LIST:
            if value:
                found[member.name] = [differing(element) for element in value.values()]
        elif value is not None and ((inner := differing(value)) or member.presence):
            found[member.name] = inner
    return {name: value for name, value in found.items() if not isinstance(node, CubeConfig) or name not in ("name", "service-name")}


@dataclass(frozen=True)
class Wanted:
    """A document, read: whole configurations without stacks, and the stacks by where they are."""

    cubes: Mapping[str, dict[str, Any]]
    stacks: Mapping[str, tuple[str, ...]]

    def changes(self, entries: Mapping[str, Entry]) -> Iterator[Change]:
        """What makes the cubes that stand those that are wanted; links come when all cubes are there."""
        for name, entry in entries.items():
            if name not in self.cubes or anew(entry, self.cubes[name]):
                yield DeleteCube(name)
        linked = []
        for name, body in self.cubes.items():
            if name in entries and not anew(entries[name], body):
                linked.append(EditCube(name, (Edit(Op.REPLACE, (), {k: v for k, v in body.items() if k != "service-name"}),)))
                continue
            bare, edits = without_peers(body)
            yield CreateCube(body["service-name"], name, bare)
            if edits:
                linked.append(EditCube(name, tuple(edits)))
        yield from linked


def anew(entry: Entry, body: Mapping[str, Any]) -> bool:
    """Whether a cube that stands can't become this one."""
    if entry.service != body["service-name"]:
        return True
    fixed = (member for member in members(type(entry.config)).values() if member.init_only and member.kind is Kind.LEAF)
    for member in fixed:
        if member.name == "service-name":
            continue
        standing, wanted = to_wire(getattr(entry.config, member.attr)), body.get(member.name, member.default)
        if str(standing).lower() != str(wanted).lower():
            return True
    return False


def without_peers(body: dict[str, Any]) -> tuple[dict[str, Any], list[Edit]]:
    """A cube without the peers of its ports, and the edits that set them."""
    bare, edits = copy.deepcopy(body), []
    ports = bare.get("ports")
    for port in ports if isinstance(ports, list) else ():
        if isinstance(port, dict) and isinstance(port.get("name"), str) and port.get("peer"):
            edits.append(Edit(Op.MERGE, ("ports", port["name"], "peer"), port.pop("peer")))
    return bare, edits


def read(document: Any) -> Wanted:
    """A document; raises `ModelError` for what is none. Contents of cubes are checked when they are made."""
    if isinstance(document, list):
        document = {"cubes": document}
    if not isinstance(document, dict):
        raise problem(Tag.INVALID_VALUE, ("config",), "is no configuration: expected an object with cubes and attached")
    for name in document:
        if name not in MEMBERS:
            raise problem(Tag.BAD_ELEMENT, ("config",), f"has no {name}{suggest(name, MEMBERS)}: expected {' and '.join(MEMBERS)}")
    bodies = document.get("cubes") or []
    if not isinstance(bodies, list):
        raise problem(Tag.INVALID_VALUE, ("config", "cubes"), "cannot be read: expected an array of cubes")
    cubes, stacks = {}, dict(_attached(document.get("attached") or {}))
    for index, body in enumerate(bodies):
        cube = copy.deepcopy(cube_of(body, ("config", "cubes", f"[{index}]")))
        if cube["name"] in cubes:
            raise problem(Tag.INVALID_VALUE, ("config", "cubes", f"[{index}]"), f"is {cube['name']} a second time")
        for port in _ports(cube):
            tcubes = port.pop("tcubes", None)
            if tcubes:
                stacks[f"{cube['name']}:{port.get('name')}"] = _names(tcubes, ("config", "cubes", cube["name"], "tcubes"))
        cubes[cube["name"]] = cube
    return Wanted(cubes, stacks)


def cube_of(body: Any, place: Path) -> dict[str, Any]:
    """A body that says which cube of which service it is."""
    if not isinstance(body, dict):
        raise problem(Tag.INVALID_VALUE, place, "is not a cube: expected an object")
    for member in ("name", "service-name"):
        if not isinstance(body.get(member), str):
            raise problem(Tag.MISSING_ATTRIBUTE, (*place, member), "is missing, or is not text")
    return body


def _ports(cube: Mapping[str, Any]) -> list[dict[str, Any]]:
    ports = cube.get("ports")
    return [port for port in ports if isinstance(port, dict)] if isinstance(ports, list) else []


def _attached(given: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not isinstance(given, dict):
        raise problem(Tag.INVALID_VALUE, ("config", "attached"), "cannot be read: expected netdevs, each with an array of cubes")
    for netdev, names in given.items():
        if ":" in netdev:
            raise problem(Tag.INVALID_VALUE, ("config", "attached", netdev), "is no netdev: stacks of ports are the tcubes of the port")
        yield netdev, _names(names, ("config", "attached", netdev))


def _names(given: Any, place: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise problem(Tag.INVALID_VALUE, place, "cannot be read: expected an array of names of cubes")
    return tuple(given)


def restack(draft: Draft, stacks: Mapping[str, tuple[str, ...]], netdevs: Mapping[str, Any]) -> None:
    """Has the draft hold these stacks and no others."""
    for target in stacks:
        if ":" not in target and target not in netdevs and target not in draft.attached:
            raise Refused(f"netdev {target} not found{suggest(target, netdevs)}")
    draft.restack(stacks)
