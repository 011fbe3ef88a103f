# SPDX-License-Identifier: Apache-2.0
"""Bodies to nodes: validation before a service sees anything, and pydantic's findings in our words.

Mechanism: pydantic validates a whole subtree in one go; its errors are walked back through the schema, so that each
problem has a path with keys (not array indexes), a tag, and a sentence that names the value and what was expected.

Invariants: only names on the wire are members of a body, never Python attributes; read-only members are refused
wherever they stand; one wrong leaf is one problem, whatever number of alternatives its type has.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from polycube.model.base import INPUT, Node
from polycube.model.errors import ModelError, Path, Problem, Tag, problem, suggest
from polycube.model.schema import Kind, Member, actions, keys, members, to_wire

N = TypeVar("N", bound=Node)


def load(cls: type[N], body: Any, path: Path = ()) -> N:
    """A node from a complete JSON body, as in creation or replacement; raises `ModelError`."""
    if not isinstance(body, dict):
        raise problem(Tag.INVALID_VALUE, path, f"cannot be {shown(body)}: expected an object")
    try:
        return cls.model_validate(body, by_alias=True, by_name=False, context=INPUT)
    except ValidationError as error:
        raise translate(cls, error, body, path) from None


def load_all(cls: type[N], bodies: list[Any]) -> list[N]:
    """Many nodes at once; raises `ModelError`, which does not say more than that something is wrong."""
    try:
        return _list_of(cls).validate_python(bodies, by_alias=True, by_name=False, context=INPUT)
    except ValidationError:
        raise ModelError(Problem(Tag.INVALID_VALUE, (), "is not right")) from None


@cache
def _list_of(cls: type[N]) -> TypeAdapter[list[N]]:
    return TypeAdapter(list[cls])  # type: ignore[valid-type]


def rebuild(node: N, changes: dict[str, Any], path: Path = ()) -> N:
    """The node with some attributes changed (raw or parsed values); only this level is validated."""
    values = {member.attr: getattr(node, member.attr) for member in members(type(node)).values()}
    if all(values[attribute] is value for attribute, value in changes.items()):
        return node
    values |= changes
    try:
        return type(node).model_validate(values, by_alias=False, by_name=True)
    except ValidationError as error:
        raise translate(type(node), error, {}, path) from None


def shown(value: Any, limit: int = 60) -> str:
    """A value as a user would write it, shortened."""
    try:
        text = json.dumps(to_wire(value) if not isinstance(value, (dict, list)) else value, ensure_ascii=False)
    except RecursionError:
        return "something nested too deeply"
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def translate(cls: type[Node], error: ValidationError, body: Any, path: Path) -> ModelError:
    """pydantic's errors as problems."""
    problems: dict[tuple[Path, str], Problem] = {}
    for item in error.errors(include_url=False):
        where, member, rest = _locate(cls, item["loc"], body, item["type"] == "extra_forbidden")
        found = _problem(cls, item, (*path, *where), member, rest)
        problems.setdefault((found.path, "" if member and member.kind is Kind.LEAF else found.message), found)
    return ModelError(*problems.values())


def _locate(cls: type[Node], loc: tuple[int | str, ...], body: Any, odd: bool) -> tuple[Path, Member | None, tuple[Any, ...]]:
    """Path, member and what is left of a location: the name of an unknown member, or the insides of a leaf."""
    path: Path = ()
    member: Member | None = None
    here: type[Node] = cls
    rest = list(loc)
    while rest:
        item = rest[0]
        if member is not None and member.kind is Kind.LIST and isinstance(item, int):
            body = body[item] if isinstance(body, list) and item < len(body) else None
            path = (*path, *_keys_in(here, body, item))
            member = None
            rest.pop(0)
            continue
        found = members(here).get(str(item))
        if found is None or (odd and len(rest) == 1):
            return path, None, tuple(rest)
        member = found
        path = (*path, found.name)
        body = body.get(found.name) if isinstance(body, dict) else None
        rest.pop(0)
        if member.kind is Kind.LEAF:
            break
        here = member.child
    return path, member, tuple(rest)


def _keys_in(cls: type[Node], body: Any, index: int) -> Path:
    names = [key.name for key in keys(cls)]
    if names and isinstance(body, dict) and all(name in body for name in names):
        return tuple(str(to_wire(body[name])) for name in names)
    return (f"[{index}]",)


def _class_at(cls: type[Node], loc: tuple[int | str, ...]) -> type[Node]:
    for item in loc:
        member = members(cls).get(str(item)) if isinstance(item, str) else None
        if member is not None and member.node is not None:
            cls = member.node
    return cls


def _problem(cls: type[Node], item: Any, path: Path, member: Member | None, rest: tuple[Any, ...]) -> Problem:
    kind = item["type"]
    if kind == "missing":
        if member is None:
            return Problem(Tag.MISSING_ATTRIBUTE, path, "is incomplete")
        tag = Tag.MISSING_ATTRIBUTE if member.kind is Kind.LEAF else Tag.MISSING_ELEMENT
        return Problem(tag, path, f"is missing: {member.description}, {member.expected}")
    if kind == "extra_forbidden":
        holder = _class_at(cls, item["loc"][:-1])
        name = str(item["loc"][-1])
        return unknown(holder, name, path)
    if kind == "read_only":
        return Problem(Tag.INVALID_VALUE, path, "is read-only")
    if kind == "duplicate_key":
        return Problem(Tag.BAD_ELEMENT, path, item["msg"])
    if kind in ("value_error", "assertion_error") and (member is None or member.kind is not Kind.LEAF):
        return Problem(Tag.INVALID_VALUE, path, str(item.get("ctx", {}).get("error", item["msg"])))
    if member is None:
        return Problem(Tag.INVALID_VALUE, path, f"cannot be {shown(item['input'])}: expected an object")
    return Problem(Tag.INVALID_VALUE, path, f"cannot be {shown(item['input'])}: expected {member.expected}")


def unknown(cls: type[Node], name: str, path: Path) -> Problem:
    """The problem of a member that the class does not have."""
    if name in actions(cls):
        return Problem(Tag.INVALID_VALUE, path, f"has no member {name}: it is an action")
    known = [member.name for member in members(cls).values() if not member.state]
    return Problem(Tag.INVALID_VALUE, path, f"has no member {name}{suggest(name, known, limit=20)}")
