# SPDX-License-Identifier: Apache-2.0
"""Changes of a configuration: create, replace, merge, delete at a path, by copying the nodes on the way there.

Mechanism: `edit` resolves the path, descends to the node that holds the place, computes its new child and rebuilds the
nodes on the way up, each validated at its own level only. A change of one route among 10,000 validates one route and
copies one dictionary.

Invariants: everything off the path keeps its identity; an edit that changes nothing returns the same object; the given
configuration is never touched. A leaf that is settable at creation only keeps its value through a replace that leaves
it out; an element of a list, though, is made anew by replace. Merge of an absent leaf keeps the leaf.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from polycube.model.base import Keyed, Node, key_of
from polycube.model.errors import ModelError, Path, Problem, Tag, problem
from polycube.model.ordered import Ordered
from polycube.model.parse import load, load_all, rebuild, shown, unknown
from polycube.model.path import Step, Target, descend, missing, parse_key, resolve
from polycube.model.schema import Kind, Member, key_segments, keys, make_key, members, to_wire

N = TypeVar("N", bound=Node)
MANY = 16  # elements: then it pays to have them validated together


class Op(enum.StrEnum):
    """What an edit does at its path."""

    CREATE = "create"
    REPLACE = "replace"
    MERGE = "merge"
    DELETE = "delete"


@dataclass(frozen=True)
class Edit:
    """One change: `Edit(Op.MERGE, ("fdb", "aging-time"), 60)`. The path is URL-decoded segments below the cube."""

    op: Op
    path: Path
    value: Any = None


def edit(config: N, edits: Iterable[Edit]) -> N:
    """The configuration after the edits, in order; raises `ModelError` at the first that does not fit."""
    for one in edits:
        config = _apply(config, Op(one.op), resolve(type(config), one.path), one.value)
    return config


def _apply(config: N, op: Op, target: Target, value: Any) -> N:
    if target.kind is Kind.ACTION:
        raise problem(Tag.OPERATION_NOT_SUPPORTED, target.path, "is an action: it is invoked, not edited")
    if target.state:
        raise problem(Tag.OPERATION_NOT_SUPPORTED, target.path, "is read-only")
    if not target.steps:
        if op in (Op.CREATE, Op.DELETE):
            raise problem(Tag.OPERATION_NOT_SUPPORTED, (), f"is a cube: {op} it as such")
        new = _replace(config, value, ()) if op is Op.REPLACE else _merge(config, value, ())
        return new  # type: ignore[return-value]
    *way, last = target.steps

    def change(holder: Node, path: Path) -> Node:
        return _change(holder, op, last, value, path)

    return _descend(config, way, change, ())  # type: ignore[return-value]


def _descend(node: Node, way: list[Step], change: Callable[[Node, Path], Node], path: Path) -> Node:
    if not way:
        return change(node, path)
    step, *rest = way
    child, child_path = _implied(node, step, path) or descend(node, step, path)
    new = _descend(child, rest, change, child_path)
    if new is child:
        return node
    if step.has_key and step.member.init_only and new != child:
        raise problem(Tag.INVALID_VALUE, (*path, step.member.name), "can only be set at creation")
    value: Any = getattr(node, step.member.attr).adding(new) if step.has_key else new
    return rebuild(node, {step.member.attr: value}, path)


def _implied(node: Node, step: Step, path: Path) -> tuple[Node, Path] | None:
    """An element that is there without being configured."""
    if not step.member.implied or not step.has_key or step.key in getattr(node, step.member.attr):
        return None
    at = (*path, step.member.name, *key_segments(step.member.child, step.key))
    return load(step.member.child, with_key(step.member.child, step.key, {}, at), at), at


def _change(holder: Node, op: Op, step: Step, value: Any, path: Path) -> Node:
    member = step.member
    at = (*path, member.name)
    if member.kind is Kind.LEAF:
        return rebuild(holder, {member.attr: _leaf(holder, member, op, value, at)}, path)
    if member.kind is Kind.CONTAINER:
        return rebuild(holder, {member.attr: _container(holder, member, op, value, at)}, path)
    old: Keyed[Node] = getattr(holder, member.attr)
    new = _element(old, member, op, step.key, value, at) if step.has_key else _list(old, member, op, value, at)
    return rebuild(holder, {member.attr: _same_or_free(old, member, new, at)}, path)


def _same_or_free(old: Keyed[Node], member: Member, new: Keyed[Node], path: Path) -> Keyed[Node]:
    if member.init_only and new != old:
        raise problem(Tag.INVALID_VALUE, path, "can only be set at creation")
    return new


def _leaf(holder: Node, member: Member, op: Op, value: Any, path: Path) -> Any:
    old = getattr(holder, member.attr)
    if op is Op.CREATE:
        raise problem(Tag.OPERATION_NOT_SUPPORTED, path, "is a single value: it is set, not created")
    if op is Op.DELETE:
        if member.mandatory:
            raise problem(Tag.INVALID_VALUE, path, "is mandatory and cannot be removed")
        value = member.default
    return _settable(old, member, _parsed(member, value, path), path)


def _parsed(member: Member, value: Any, path: Path) -> Any:
    try:
        return member.parse(value)
    except ValueError as error:
        raise problem(Tag.INVALID_VALUE, path, f"cannot be {shown(value)}: expected {error}") from None


def _settable(old: Any, member: Member, new: Any, path: Path) -> Any:
    if new == old:
        return old
    if member.key:
        raise problem(Tag.INVALID_VALUE, path, f"cannot be {shown(to_wire(new))}: it is the key, {shown(to_wire(old))}")
    if member.init_only:
        raise problem(Tag.INVALID_VALUE, path, f"is {shown(to_wire(old))} and can only be set at creation")
    return new


def _container(holder: Node, member: Member, op: Op, value: Any, path: Path) -> Node | None:
    old: Node | None = getattr(holder, member.attr)
    if op is Op.DELETE:
        if not member.presence:
            assert old is not None
            return _replace(old, {}, path)
        if old is None:
            raise problem(Tag.DATA_MISSING, path, "is not there")
        return None
    if op is Op.CREATE and old is not None and (member.presence or old != _pristine(old)):
        raise problem(Tag.DATA_EXISTS, path, "exists already")
    if old is None:
        if op is Op.MERGE:
            raise problem(Tag.DATA_MISSING, path, "is not there")
        return load(member.child, value, path)
    return _merge(old, value, path) if op is Op.MERGE else _replace(old, value, path)


def _pristine(node: Node) -> Node | None:
    try:
        return load(type(node), {})
    except ModelError:
        return None


def _replace(old: Node, body: Any, path: Path) -> Node:
    """A node that cannot be made anew (the cube, a container): what is settable at creation only stays."""
    new = load(type(old), _kept(old, body), path)
    problems = list(_fixed(old, new, path))
    if problems:
        raise ModelError(*problems)
    return old if new == old else new


def _kept(old: Node, body: Any) -> Any:
    """The body with the values it leaves out but may not change."""
    if not isinstance(body, dict):
        return body
    body = dict(body)
    for member in members(type(old)).values():
        value = getattr(old, member.attr)
        if (member.init_only or member.key) and value is not None and member.kind is Kind.LEAF:
            body.setdefault(member.name, to_wire(value))
        elif member.init_only and member.kind is Kind.LIST and value:
            elements = [element.model_dump(mode="json", by_alias=True, exclude_none=True) for element in value.values()]
            body.setdefault(member.name, elements)
        elif member.kind is Kind.CONTAINER and not member.state and value is not None and not member.presence:
            body[member.name] = _kept(value, body.get(member.name, {}))
    return body


def _fixed(old: Node, new: Node, path: Path) -> Iterable[Problem]:
    for member in members(type(old)).values():
        before, after = getattr(old, member.attr), getattr(new, member.attr)
        at = (*path, member.name)
        if member.kind is Kind.CONTAINER and isinstance(before, Node) and isinstance(after, Node):
            yield from _fixed(before, after, at)
        elif (member.init_only or member.key) and before != after:
            if member.kind is Kind.LEAF:
                try:
                    _settable(before, member, after, at)
                except ModelError as error:
                    yield from error.problems
            else:
                yield Problem(Tag.INVALID_VALUE, at, "can only be set at creation")


def _merge(old: Node, body: Any, path: Path) -> Node:
    """Every member given is changed, all others stay."""
    if not isinstance(body, dict):
        raise problem(Tag.INVALID_VALUE, path, f"cannot be {shown(body)}: expected an object")
    changes: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in body.items():
        member = members(type(old)).get(name)
        if member is None:
            problems.append(unknown(type(old), name, path))
            continue
        try:
            changes[member.attr] = _merged(old, member, value, (*path, name))
        except ModelError as error:
            problems.extend(error.problems)
    if problems:
        raise ModelError(*problems)
    return rebuild(old, changes, path)


def _merged(old: Node, member: Member, value: Any, path: Path) -> Any:
    before = getattr(old, member.attr)
    if member.state:
        raise problem(Tag.INVALID_VALUE, path, "is read-only")
    if member.kind is Kind.LEAF:
        return _settable(before, member, _parsed(member, value, path), path)
    if member.kind is Kind.CONTAINER:
        return load(member.child, value, path) if before is None else _merge(before, value, path)
    return _same_or_free(before, member, _list(before, member, Op.MERGE, value, path), path)


def _list(old: Keyed[Node], member: Member, op: Op, value: Any, path: Path) -> Keyed[Node]:
    if op is Op.DELETE:
        return type(old)() if old else old
    if op is Op.CREATE and isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise problem(Tag.INVALID_VALUE, path, f"cannot be {shown(value)}: expected an array")
    elements: dict[Any, Node] = _all_new(old, member, value) or {}
    problems: list[Problem] = []
    for index, body in enumerate(value if not elements else ()):
        try:
            element = _listed(old, member, op, body, path, index)
            key = key_of(element)
            if key in elements:
                raise problem(Tag.BAD_ELEMENT, path, f"holds {' '.join(key_segments(member.child, key))} twice")
            elements[key] = element
        except ModelError as error:
            problems.extend(error.problems)
    if problems:
        raise ModelError(*problems)
    if op is Op.REPLACE:
        return old.replaced(list(elements.values()))
    changed = [element for key, element in elements.items() if old.get(key) is not element]
    return old.adding(*changed) if changed else old


def _all_new(old: Keyed[Node], member: Member, bodies: list[Any]) -> dict[Any, Node] | None:
    """The elements of an array, all at once, if they are right and none is there yet; else None, and they are looked at one by one."""
    if len(bodies) < MANY:
        return None
    try:
        made = load_all(member.child, bodies)
    except ModelError:
        return None
    elements = {key_of(element): element for element in made}
    return elements if len(elements) == len(made) and not any(key in old for key in elements) else None


def _listed(old: Keyed[Node], member: Member, op: Op, body: Any, path: Path, index: int) -> Node:
    """One element of an array in a body."""
    if not isinstance(body, dict):
        raise problem(Tag.INVALID_VALUE, (*path, f"[{index}]"), f"cannot be {shown(body)}: expected an object")
    names = [key for key in keys(member.child) if key.name in body]
    if len(names) < len(keys(member.child)):
        return load(member.child, body, (*path, f"[{index}]"))  # raises: a key is missing
    key = make_key([parse_key(leaf, body[leaf.name], path) for leaf in names])
    at = (*path, *key_segments(member.child, key))
    present = old.get(key)
    if present is None:
        return load(member.child, body, at)
    if op is Op.CREATE:
        raise problem(Tag.DATA_EXISTS, at, "exists already")
    if op is Op.MERGE:
        return _merge(present, body, at)
    remade: Node = load(member.child, body, at)
    return present if remade == present else remade


def _element(old: Keyed[Node], member: Member, op: Op, key: Any, value: Any, path: Path) -> Keyed[Node]:
    words = key_segments(member.child, key)
    at = (*path, *words)
    present = old.get(key)
    if op in (Op.DELETE, Op.MERGE) and present is None and not (op is Op.MERGE and member.implied):
        raise missing(path, words, old, member)
    if op is Op.CREATE and present is not None and not isinstance(old, Ordered):  # a place is taken over
        raise problem(Tag.DATA_EXISTS, at, "exists already")
    if op is Op.DELETE:
        return old.without(key)
    if op is Op.MERGE and present is not None:
        new = _merge(present, value, at)
        return old if new is present else old.adding(new)
    new = load(member.child, with_key(member.child, key, value, at), at)
    return old if new == present else old.adding(new)


def with_key(cls: type[Node], key: Any, body: Any, path: Path) -> Any:
    """The body of an element with the keys of its path filled in; they may stand in the body too, but not differ."""
    if not isinstance(body, dict):
        return body
    parts = key if len(cls.key_attrs) > 1 else (key,)
    filled = {}
    for member, part in zip(keys(cls), parts, strict=True):
        if member.name in body and parse_key(member, body[member.name], path) != part:
            message = f"cannot be {shown(body[member.name])}: the path says {shown(to_wire(part))}"
            raise problem(Tag.INVALID_VALUE, (*path, member.name), message)
        filled[member.name] = to_wire(part)
    return {**body, **filled}
