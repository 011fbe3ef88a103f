# SPDX-License-Identifier: Apache-2.0
"""What a node class consists of, read once: members, types, actions. All generic code walks these, never pydantic.

Mechanism: `members(cls)` turns the fields of a node class into `Member`s by their name on the wire; `LeafType` reads
the annotation (and `Named`) of a leaf. Both are cached for the life of the class.

Invariants: a `Member` says everything REST, help, docs, YANG and OpenAPI need to know about a field; `parse` and
`to_wire` are inverse to one another for every leaf value.
"""

from __future__ import annotations

import enum
import types
import typing
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, TypeAlias

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from polycube.model.base import Action, Keyed, Metric, Node, refuse_bool
from polycube.model.ordered import Ordered
from polycube.model.types import Choice, Named

NodeClass: TypeAlias = type[Node]


class Kind(enum.StrEnum):
    """What a member, or a place in the tree, is."""

    LEAF = "leaf"
    LIST = "list"
    ELEMENT = "element"
    CONTAINER = "container"
    ACTION = "action"


@dataclass(frozen=True)
class LeafType:
    """The type of a leaf: its YANG name and all restrictions."""

    name: str
    expected: str
    example: str = ""
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    union: tuple[LeafType, ...] = ()
    many: bool = False  # a leaf-list
    base: Any = str


@dataclass(frozen=True)
class Member:
    """One member of a node: a leaf, a list or a container."""

    attr: str
    name: str
    kind: Kind
    description: str
    key: bool = False
    mandatory: bool = False
    init_only: bool = False
    state: bool = False
    presence: bool = False
    implied: bool = False
    default: Any = None
    example: str = ""
    type: LeafType | None = None  # of a leaf
    node: NodeClass | None = None  # of a list (its element) or a container
    metric: Metric | None = None
    annotation: Any = field(default=Any, repr=False, compare=False)

    @property
    def child(self) -> NodeClass:
        assert self.node is not None
        return self.node

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.annotation)

    def parse(self, value: Any) -> Any:
        """The Python value of a leaf from what JSON or a URL holds; raises ValueError."""
        if self.type is not None and self.type.base is int:
            try:
                refuse_bool(value)
            except ValueError:
                raise ValueError(self.expected) from None
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            raise ValueError(self.expected) from None

    @property
    def expected(self) -> str:
        """What is expected of a value, for the end of a sentence."""
        if self.kind is Kind.LEAF:
            assert self.type is not None
            return f"an array, each {self.type.expected}" if self.type.many else self.type.expected
        return "an array" if self.kind is Kind.LIST else "an object"


@cache
def members(cls: type[Node]) -> dict[str, Member]:
    """The members of a node class by wire name, in declaration order."""
    found = (_member(attribute, info) for attribute, info in cls.model_fields.items())
    return {member.name: member for member in found}


@cache
def keys(cls: type[Node]) -> tuple[Member, ...]:
    """The key leaves of a list element, in order."""
    return tuple(member for member in members(cls).values() if member.key)


@cache
def stored(cls: type[Node]) -> tuple[Member, ...]:
    """The members that are configuration."""
    return tuple(member for member in members(cls).values() if not member.state)


@cache
def actions(cls: type[Node]) -> dict[str, Action]:
    """The actions of a node class by wire name; a subclass may override one."""
    found: dict[str, Action] = {}
    for base in reversed(cls.__mro__):
        found.update({value.name: value for value in vars(base).values() if isinstance(value, Action)})
    return found


_PLAIN = {type(None), bool, int, float, str}


def to_wire(value: Any) -> Any:
    """A leaf's value as JSON holds it."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, (tuple, list, frozenset)):
        return [to_wire(item) for item in value]
    return str(value)


def key_segments(cls: type[Node], key: Any) -> tuple[str, ...]:
    """A key as path segments."""
    parts = key if len(cls.key_attrs) > 1 else (key,)
    return tuple(str(to_wire(part)) for part in parts)


def make_key(parts: typing.Sequence[Any]) -> Any:
    """The key from the values of the key leaves."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def _member(attribute: str, info: Any) -> Member:
    extra = info.json_schema_extra
    kind = Kind(extra["x-kind"])
    common: dict[str, Any] = dict(
        attr=attribute,
        name=info.alias,
        kind=kind,
        description=info.description,
        key=extra.get("x-key", False),
        init_only=extra.get("x-init-only", False),
        state=extra.get("readOnly", False),
        presence=extra.get("x-presence", False),
        implied=extra.get("x-implied", False),
        metric=extra.get("x-metric"),
    )
    if kind is Kind.LEAF:
        leaf_type = _leaf_type(info.annotation, list(info.metadata))
        return Member(
            **common,
            mandatory=info.is_required(),
            default=None if info.default is PydanticUndefined else to_wire(info.default),
            example=extra.get("x-example") or leaf_type.example,
            type=leaf_type,
            annotation=Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation,
        )
    if kind is Kind.LIST:
        if typing.get_origin(info.annotation) not in (Keyed, Ordered):
            raise TypeError(f"{attribute}: a listing is annotated Keyed[Element] or Ordered[Element]")
        (element,) = typing.get_args(info.annotation)
        if not element.key_attrs and not extra.get("x-keyless"):
            raise TypeError(f"{attribute}: {element.__name__} has no key")
        return Member(**common, node=element)
    node = _optional(info.annotation)[0]
    needs = any(m.mandatory for m in members(node).values())
    return Member(**common, node=node, mandatory=needs and not common["presence"])


def _optional(annotation: Any) -> list[Any]:
    """The alternatives of a union, without None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for part in typing.get_args(annotation) if part is not type(None)]
    return [annotation]


_INTS = {8: "int8", 16: "int16", 32: "int32", 64: "int64"}


def _leaf_type(annotation: Any, metadata: list[Any]) -> LeafType:
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, *inner = typing.get_args(annotation)
            metadata = [*(one for item in inner for one in (item.metadata if isinstance(item, FieldInfo) else [item])), *metadata]
            continue
        named = next((m for m in reversed(metadata) if isinstance(m, Named)), None)
        parts = _optional(annotation)
        if len(parts) == 1 and parts[0] is not annotation:
            annotation = parts[0]
            continue
        break
    origin = typing.get_origin(annotation)
    if origin in (tuple, frozenset):
        item = _leaf_type(typing.get_args(annotation)[0], [])
        return LeafType(**{**item.__dict__, "many": True})
    if len(parts) > 1 and named is None:
        union = tuple(_leaf_type(part, []) for part in parts)
        return LeafType("union", " or ".join(part.expected for part in union), union=union, base=object)
    limits = _limits(metadata)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        if not issubclass(annotation, Choice):
            raise TypeError(f"{annotation.__name__}: enumerations of a model derive from Choice")
        choices = tuple(member.value for member in annotation)
        return LeafType("enumeration", f"one of {', '.join(choices)}", choices[0], choices, base=annotation)
    if annotation is bool:
        return LeafType("boolean", "true or false", "true", ("true", "false"), base=bool)
    if annotation is int:
        name = named.name if named else _int_name(limits)
        return LeafType(name, _int_text(named, limits), _eg(named), base=int, **limits)
    if annotation is float:
        return LeafType("decimal64", "a number", base=float, **limits)
    if annotation is str:
        name, expected = (named.name, named.expected) if named else ("string", _text(limits))
        return LeafType(name, expected, _eg(named), **limits)
    if named is None:
        raise TypeError(f"{annotation!r} is no type of a leaf: annotate it with Named, or use a type of model.types")
    return LeafType(named.name, named.expected, named.example, base=annotation, **limits)


def _eg(named: Named | None) -> str:
    return named.example if named else ""


_BOUNDS = (("ge", "minimum", 0), ("gt", "minimum", 1), ("le", "maximum", 0), ("lt", "maximum", -1))


def _limits(metadata: list[Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for item in metadata:
        for name, limit, step in _BOUNDS:
            value = getattr(item, name, None)
            if value is not None:
                pick = max if limit == "minimum" else min
                limits[limit] = pick(limits.get(limit, value + step), value + step)
        for name in ("min_length", "max_length", "pattern"):
            if getattr(item, name, None) is not None:
                limits[name] = getattr(item, name)
    return limits


def _int_name(limits: dict[str, Any]) -> str:
    low, high = limits.get("minimum"), limits.get("maximum")
    signed = low is None or low < 0
    for bits, name in _INTS.items():
        top = 2 ** (bits - signed) - 1
        if high is not None and high <= top and (not signed or (low is not None and low >= -top - 1)):
            return name if signed else f"u{name}"
    return "int64" if signed else "uint64"


def _int_text(named: Named | None, limits: dict[str, Any]) -> str:
    low, high = limits.get("minimum"), limits.get("maximum")
    if named and str(low) in named.expected and str(high) in named.expected:
        return named.expected
    if low is None and high is None:
        return "an integer"
    if high is None:
        return f"an integer of at least {low}"
    return f"an integer of at most {high}" if low is None else f"an integer from {low} to {high}"


def _text(limits: dict[str, Any]) -> str:
    text = "text"
    if "max_length" in limits:
        text += f" of {limits.get('min_length', 0)} to {limits['max_length']} characters"
    elif "min_length" in limits:
        text += f" of at least {limits['min_length']} characters"
    return f"{text} matching {limits['pattern']}" if "pattern" in limits else text


def describe(cls: type[Node]) -> dict[str, Any]:
    """The whole model of a class as plain data, for documentation and generators."""
    described: dict[str, Any] = {"description": (cls.__doc__ or "").strip(), "members": []}
    for member in members(cls).values():
        entry: dict[str, Any] = {"name": member.name, "kind": str(member.kind), "description": member.description}
        entry |= {flag.replace("_", "-"): True for flag in ("key", "mandatory", "init_only", "state", "presence") if getattr(member, flag)}
        entry |= {"metric": member.metric.kind} if member.metric else {}
        if member.type is not None:
            entry["type"] = _describe_type(member.type)
            entry |= {"default": member.default} if member.default is not None else {}
            entry |= {"example": member.example} if member.example else {}
        else:
            entry |= {"keys": [key.name for key in keys(member.child)]} if member.kind is Kind.LIST else {}
            entry |= describe(member.child) | {"description": member.description}
        described["members"].append(entry)
    described["actions"] = [
        {
            "name": action.name,
            "description": action.description,
            "input": describe(action.input) if action.input else None,
            "output": describe(action.output) if action.output else None,
        }
        for action in actions(cls).values()
    ]
    return described


def _describe_type(leaf_type: LeafType) -> dict[str, Any]:
    described: dict[str, Any] = {"name": leaf_type.name, "expected": leaf_type.expected}
    for name in ("choices", "minimum", "maximum", "min_length", "max_length", "pattern", "many"):
        value = getattr(leaf_type, name)
        if value not in (None, (), False):
            described[name.replace("_", "-")] = list(value) if isinstance(value, tuple) else value
    if leaf_type.union:
        described["union"] = [_describe_type(part) for part in leaf_type.union]
    return described
