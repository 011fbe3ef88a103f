# SPDX-License-Identifier: Apache-2.0
"""Nodes to JSON-able data, with the operational data of the service laid over.

Mechanism: the overlay is a dictionary in the shape of the answer (names on the wire, lists as arrays whose elements
hold their keys). Where it says nothing, pydantic's serialiser dumps the configuration; where it does, members are
merged one by one: lists by key, learned elements after the configured ones.

Invariants: a configured value wins over the overlay; read-only members come from the overlay only. What has no value
and lists that are empty are left out. An overlay with a name the model does not have is a mistake of the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polycube.model.base import Node
from polycube.model.errors import Path
from polycube.model.path import Step, Target, missing
from polycube.model.schema import Kind, Member, key_segments, keys, members, to_wire

Overlay = Mapping[str, Any]


def dump(config: Node, overlay: Overlay | None = None) -> dict[str, Any]:
    """The JSON object of a node."""
    return _dump(type(config), config, overlay)


def dump_at(config: Node, target: Target, overlay: Overlay | None = None) -> Any:
    """What is at a place: an object, an array, or a bare value (null if unset); raises data-missing."""
    here: Node | None = config
    over: Any = overlay
    path: Path = ()
    for step in target.steps:
        name = step.member.name
        path = (*path, name)
        value = None if here is None else getattr(here, step.member.attr)
        over = (over or {}).get(name)
        if step.member.kind is Kind.LEAF:
            return to_wire(value if value is not None else over)
        if step.member.kind is Kind.LIST and not step.has_key:
            return _dump_list(step.member, value or {}, over)
        if step.has_key:
            words = key_segments(step.member.child, step.key)
            here, over = (value or {}).get(step.key), _find(step, words, over)
            if here is None and over is None:
                raise missing(path, words, [*(value or {})], step.member)
            path = (*path, *words)
        else:
            here = value
    cls = target.member.child if target.member else target.cls
    return _dump(cls, here, over)


def _find(step: Step, words: tuple[str, ...], overlay: Any) -> Any:
    return next((element for element in overlay or () if _key(step.member.child, element) == words), None)


def _key(cls: type[Node], element: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(to_wire(element[key.name])) for key in keys(cls))


def _dump(cls: type[Node], node: Node | None, overlay: Overlay | None) -> dict[str, Any]:
    if not overlay:
        return {} if node is None else node.model_dump(mode="json", by_alias=True, exclude_none=True)
    odd = overlay.keys() - members(cls).keys()
    if odd:
        raise TypeError(f"operational data of {cls.__name__} holds {sorted(odd)[0]!r}, which the model does not have")
    dumped: dict[str, Any] = {}
    for name, member in members(cls).items():
        value = None if node is None else getattr(node, member.attr)
        over = overlay.get(name)
        if member.kind is Kind.LEAF:
            chosen = to_wire(over if value is None else value)
            if chosen is not None and chosen != []:
                dumped[name] = chosen
        elif member.kind is Kind.LIST:
            elements = _dump_list(member, value or {}, over)
            if elements:
                dumped[name] = elements
        elif value is not None or over is not None:
            dumped[name] = _dump(member.child, value, over)
    return dumped


def _dump_list(member: Member, elements: Mapping[Any, Node], overlay: Any) -> list[Any]:
    cls = member.child
    if not overlay:
        return [_dump(cls, element, None) for element in elements.values()]
    learned = {_key(cls, element): element for element in overlay}
    dumped = [_dump(cls, element, learned.pop(key_segments(cls, key), None)) for key, element in elements.items()]
    return dumped + [_dump(cls, None, element) for element in learned.values()]
