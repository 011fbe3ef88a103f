# SPDX-License-Identifier: Apache-2.0
"""A configuration as rows of a store: one row for the cube and one for every list element.

Mechanism: the row of a node is the JSON object of its leaves and containers; nested lists get rows of their own, whose
path (as in a URL, keys percent-encoded) starts with that of the row above. `row_changes` descends only where identity
says that something changed.

Invariants: `from_rows(cls, rows(config)) == config`, whatever the order in which rows come back; elements keep the
order of their rows. Read-only members are never stored. Rows hold no key leaves twice and no array indexes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic import ValidationError

from polycube.model.base import Keyed, Node, key_of
from polycube.model.diff import touched
from polycube.model.errors import path_text
from polycube.model.parse import translate
from polycube.model.path import resolve
from polycube.model.schema import Kind, key_segments, stored, to_wire

N = TypeVar("N", bound=Node)
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def rows(config: Node) -> dict[str, str]:
    """Path to JSON text, parents before children; the path of the cube itself is empty."""
    found: dict[str, str] = {}
    _collect(config, (), found)
    return found


def _collect(node: Node, path: tuple[str, ...], found: dict[str, str]) -> None:
    found[path_text(path)] = _row(node)
    for at, elements in _lists(node, path):
        for element in elements.kept:
            _collect(element, (*at, *key_segments(type(element), key_of(element))), found)


def _row(node: Node) -> str:
    return _json(_own(node))


def _own(node: Node) -> dict[str, Any]:
    """Leaves and containers, without the lists in them."""
    own: dict[str, Any] = {}
    for member in stored(type(node)):
        value = getattr(node, member.attr)
        if member.kind is Kind.LEAF:
            if value is not None or member.default is not None:
                own[member.name] = to_wire(value)
        elif member.kind is Kind.CONTAINER and value is not None:
            own[member.name] = _own(value)
    return own


def _own_alike(old: Node, new: Node) -> bool:
    """Whether all that is in their rows are the same objects: edits share what they do not touch."""
    return all(getattr(old, one.attr) is getattr(new, one.attr) for one in stored(type(new)) if one.kind is not Kind.LIST)


def _lists(node: Node, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Keyed[Node]]]:
    """The lists of a node and of its containers."""
    found: list[tuple[tuple[str, ...], Keyed[Node]]] = []
    for member in stored(type(node)):
        value = getattr(node, member.attr)
        if member.kind is Kind.LIST:
            found.append(((*path, member.name), value))
        elif member.kind is Kind.CONTAINER and value is not None:
            found += _lists(value, (*path, member.name))
    return found


@cache
def has_lists(cls: type[Node]) -> bool:
    """Whether there are lists in a node or in its containers."""
    inner = (member for member in stored(cls) if member.kind is not Kind.LEAF)
    return any(member.kind is Kind.LIST or has_lists(member.child) for member in inner)


def row_changes(old: Node | None, new: Node | None) -> tuple[dict[str, str], list[str]]:
    """The rows to write and the paths of the rows to delete, to get from one configuration to the other."""
    upserts: dict[str, str] = {}
    gone: dict[str, str] = {}
    _compare(old, new, (), upserts, gone)
    return upserts, [path for path in gone if path not in upserts]


def _compare(old: Node | None, new: Node | None, path: tuple[str, ...], upserts: dict[str, str], gone: dict[str, str]) -> None:
    if old is new:
        return
    if new is None:
        assert old is not None
        _collect(old, path, gone)
        return
    if old is None:
        _collect(new, path, upserts)
        return
    if not has_lists(type(new)):
        if old != new:
            upserts[path_text(path)] = _row(new)
        return
    if not _own_alike(old, new) and (row := _row(new)) != _row(old):
        upserts[path_text(path)] = row
    before, after = dict(_lists(old, path)), dict(_lists(new, path))
    for at in {**before, **after}:
        if before.get(at) is after.get(at):
            continue
        was, now = touched(before.get(at), after.get(at))
        for key, element in was.items():
            _compare(element, now.get(key), (*at, *key_segments(type(element), key)), upserts, gone)
        for key, element in now.items():
            if key not in was:
                _collect(element, (*at, *key_segments(type(element), key)), upserts)


def from_rows(cls: type[N], stored_rows: Mapping[str, str]) -> N:
    """The configuration that these rows hold; raises `ModelError` if they do not fit the model (any more)."""
    bodies: dict[tuple[Any, ...], dict[str, Any]] = {}
    ordered = sorted(stored_rows.items(), key=lambda row: row[0].count("/"))
    for text, content in ordered:
        body = json.loads(content)
        segments = [unquote(segment) for segment in text.split("/")] if text else []
        target = resolve(cls, segments)
        names = tuple((step.member.name, step.key) for step in target.steps)
        bodies[names] = body
        if names:
            holder, upper = bodies[_holder(names, target.steps)], names
            for name, _ in upper[len(_holder(names, target.steps)) : -1]:
                holder = holder.setdefault(name, {})
            holder.setdefault(names[-1][0], []).append(body)
    body = bodies.get((), {})
    try:
        return cls.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        raise translate(cls, error, body, ()) from None


def _holder(names: tuple[Any, ...], steps: Any) -> tuple[Any, ...]:
    """The names of the row above: everything up to the last list element before this one."""
    length = len(names) - 1
    while length and not steps[length - 1].has_key:
        length -= 1
    return names[:length]
