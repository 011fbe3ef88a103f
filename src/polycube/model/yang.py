# SPDX-License-Identifier: Apache-2.0
"""The data model of a service as a YANG 1.1 module (RFC 7950).

The cube is a list at the top, keyed by its name, as the REST tree has it; members follow in the order of the model. Types of RFC 6991 are
used where the model has them; all else is a built-in type with its restrictions. Patterns are written for XML Schema, which has no
anchors: a whole value must match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from polycube.model.base import Action, Node
from polycube.model.schema import Kind, LeafType, Member, actions, keys, members

NAMESPACE = "http://polycube.network/"
REVISION = "2026-11-26"
INDENT = "  "
# names of the model's types -> names of RFC 6991
DERIVED = {
    "ip-address": "inet:ip-address",
    "ipv4-address": "inet:ipv4-address-no-zone",
    "ipv6-address": "inet:ipv6-address-no-zone",
    "ip-prefix": "inet:ip-prefix",
    "ipv4-prefix": "inet:ipv4-prefix",
    "ipv6-prefix": "inet:ipv6-prefix",
    "port-number": "inet:port-number",
    "mac-address": "yang:mac-address",
}
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
PREFIX_OR_ADDRESS = "ip-prefix-or-address"
Lines = Iterator[str]


def yang(name: str, model: type[Node], description: str, version: str) -> str:
    """The text of the module. `name` and `version` are the service's."""
    body = list(_children(model))
    uses = [one for one in ("inet", "yang") if any(f"type {one}:" in line for line in body)]
    lines = [f"module {name} {{"]
    lines += _indented(
        [
            "yang-version 1.1;",
            f'namespace "{NAMESPACE}{name}";',
            f"prefix {name};",
            *(f"import ietf-{one}-types {{ prefix {one}; }}" for one in uses),
            'organization "Polycube";',
            'contact "Polycube";',
            f"description {quoted(description)};",
            f"revision {REVISION} {{",
            *_indented(
                [f"description {quoted(f'Version {version} of the service.')};", 'reference "The service\'s data model in Python";']
            ),
            "}",
            f"list {name} {{",
            *_indented(["key name;", f"description {quoted((model.__doc__ or description).strip())};", *body]),
            "}",
        ]
    )
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    """A double-quoted string (RFC 7950, 6.1.3)."""
    inner = re.sub(r"\s+", " ", text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def _indented(lines: Sequence[str]) -> list[str]:
    return [INDENT + line for line in lines]


def _children(node: type[Node], state: bool = False) -> Lines:
    """Members and actions; `state`: all of it is read-only, which needs to be said once only."""
    for member in members(node).values():
        yield from _member(member, state)
    for action in actions(node).values() if not state else ():
        yield from _action(action)


def _member(member: Member, state: bool) -> Lines:
    here = state or member.state
    config = ["config false;"] if member.state and not state else []
    description = [f"description {quoted(member.description)};"]
    if member.kind is Kind.LEAF:
        assert member.type
        yield f"{'leaf-list' if member.type.many else 'leaf'} {member.name} {{"
        yield from _indented([*_type(member.type), *_default(member, here), *config, *description])
    elif member.kind is Kind.LIST:
        yield f"list {member.name} {{"
        names = " ".join(key.name for key in keys(member.child))
        yield from _indented([*([f"key {quoted(names)};"] if names else []), *config, *description, *_children(member.child, here)])
    else:
        yield f"container {member.name} {{"
        presence = [f"presence {quoted(member.description)};"] if member.presence else []
        yield from _indented([*presence, *config, *description, *_children(member.child, here)])
    yield "}"


def _default(member: Member, state: bool) -> Lines:
    assert member.type
    if state or member.key:
        return
    if member.mandatory and not member.type.many:
        yield "mandatory true;"
    elif member.mandatory:
        yield "min-elements 1;"
    values = member.default if member.type.many else [member.default]
    for value in values or ():
        if value is not None:
            yield f"default {quoted(str(value).lower() if isinstance(value, bool) else str(value))};"


def _action(action: Action) -> Lines:
    yield f"action {action.name} {{"
    yield INDENT + f"description {quoted(action.description)};"
    for word, node in (("input", action.input), ("output", action.output)):
        if node is not None:
            yield from _indented([f"{word} {{", *_indented(list(_children(node, True))), "}"])
    yield "}"


def _type(leaf: LeafType) -> Lines:
    """The type statement."""
    if leaf.union:
        yield "type union {"
        for part in leaf.union:
            yield from _indented(list(_type(part)))
        yield "}"
        return
    if leaf.choices and leaf.name == "enumeration":
        yield "type enumeration {"
        yield from _indented([f"enum {quoted(choice)};" for choice in leaf.choices])
        yield "}"
        return
    if leaf.name == PREFIX_OR_ADDRESS:
        yield from ("type union {", f"{INDENT}type inet:ip-prefix;", f"{INDENT}type inet:ip-address;", "}")
        return
    if leaf.name in DERIVED:
        yield f"type {DERIVED[leaf.name]};"
        return
    restrictions = list(_restrictions(leaf))
    name = _built_in(leaf)
    if not restrictions:
        yield f"type {name};"
        return
    yield f"type {name} {{"
    yield from _indented(restrictions)
    yield "}"


def _built_in(leaf: LeafType) -> str:
    if leaf.base is bool:
        return "boolean"
    if leaf.base is float:
        return "decimal64"
    if leaf.base is int:
        return leaf.name if leaf.name in INTEGERS else _width(leaf.minimum, leaf.maximum)
    return "string"


def _width(low: int | None, high: int | None) -> str:
    """The smallest type of integer that holds the range."""
    sign = "" if low is None or low < 0 else "u"
    for bits in (8, 16, 32):
        top = 2 ** (bits - (not sign)) - 1
        if high is not None and high <= top and (sign or (low is not None and low >= -top - 1)):
            return f"{sign}int{bits}"
    return f"{sign}int64"


def _restrictions(leaf: LeafType) -> Lines:
    name = _built_in(leaf)
    if name == "decimal64":
        yield "fraction-digits 6;"
    if leaf.base is int:
        bits = int(name.lstrip("uint"))
        least, most = (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        low = least if leaf.minimum is None else leaf.minimum
        high = most if leaf.maximum is None else leaf.maximum
        if (low, high) != (least, most):
            yield f"range {quoted(f'{low}..{high}')};"
    if name == "string":
        if leaf.min_length is not None or leaf.max_length is not None:
            top = "max" if leaf.max_length is None else leaf.max_length
            yield f"length {quoted(f'{leaf.min_length or 0}..{top}')};"
        if leaf.pattern is not None:
            yield f"pattern '{_pattern(leaf.pattern)}';"


def _pattern(python: str) -> str:
    """A regular expression for XML Schema: whole values match, a group is a group, and there is no NUL in any text."""
    inner = python.removeprefix("^").removesuffix("$").replace("(?:", "(").replace(r"[^\x00]", ".").replace(r"\x00", "")
    return inner if python.startswith("^") and python.endswith("$") else f".*({inner}).*"


def instance(name: str, dumped: dict[str, Any], model: type[Node]) -> dict[str, Any]:
    """A cube as RFC 7951 has it: 64-bit integers and decimals are text, the list has its module's name."""
    return {f"{name}:{name}": [_data(dumped, model)]}


def _data(dumped: dict[str, Any], node: type[Node]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in dumped.items():
        member = members(node)[name]
        if member.kind is Kind.LEAF:
            assert member.type
            found[name] = [_value(one, member.type) for one in value] if member.type.many else _value(value, member.type)
        elif member.kind is Kind.LIST:
            found[name] = [_data(element, member.child) for element in value]
        else:
            found[name] = _data(value, member.child)
    return found


def _value(value: Any, leaf: LeafType) -> Any:
    return str(value) if not leaf.union and _built_in(leaf) in ("int64", "uint64", "decimal64") else value
