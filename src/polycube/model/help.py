# SPDX-License-Identifier: Apache-2.0
"""Help and completion for every place in a model, as upstream's OPTIONS answers them.

Mechanism: `help_at` gives an object with `commands`, `params`, `optional-params` and `elements`, whichever the place
has under the command asked for; `complete_at` gives the words that may come next. Both read the model; existing
elements come from the configuration, if there is one, and from the overlay.

Invariants: what is offered is accepted: no read-only leaf under SET, no creation-only leaf outside ADD.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from polycube.model.base import Action, Node
from polycube.model.dump import Overlay, dump_at
from polycube.model.errors import ModelError
from polycube.model.path import Target
from polycube.model.schema import Kind, Member, actions, keys, members, to_wire


class Command(enum.StrEnum):
    """The command of the command line that help is asked for."""

    NONE = "NONE"
    SHOW = "SHOW"
    SET = "SET"
    ADD = "ADD"
    DEL = "DEL"


def help_at(target: Target, command: Command, config: Node | None = None, overlay: Overlay | None = None) -> dict[str, Any]:
    """Help for one place."""
    if target.kind is Kind.ACTION:
        assert target.action is not None
        return _inputs(target.action)
    if target.kind is Kind.LEAF:
        return _leaf_help(target, command)
    if target.kind is Kind.LIST:
        return _list_help(target, command, config, overlay)
    found = list(members(target.cls).values())
    if command is Command.NONE:
        params = _params(found) | _action_params(target.cls)
        return {"commands": _commands(target), "params": params}
    if command is Command.SHOW:
        return {"params": _params(found)}
    if command is Command.SET:
        return {"params": _params(member for member in found if _writable(member))}
    if command is Command.DEL:
        return {"params": _params(member for member in found if _removable(member))}
    return _settable(found)


def complete_at(target: Target, command: Command, config: Node | None = None, overlay: Overlay | None = None) -> list[str]:
    """The words that may follow a place."""
    if target.kind is Kind.ACTION:
        assert target.action is not None
        return [f"{member.name}=" for member in _members_of(target.action.input)]
    if target.kind is Kind.LEAF:
        assert target.member is not None and target.member.type is not None
        return list(target.member.type.choices) if command in (Command.NONE, Command.SET) else []
    if target.kind is Kind.LIST:
        return _complete_list(target, command, config, overlay)
    found = list(members(target.cls).values())
    nested = [member.name for member in found if member.node is not None and not member.state]
    if command is Command.NONE:
        return [*_commands(target), *(m.name for m in found if m.node is not None), *actions(target.cls)]
    if command is Command.SHOW:
        return [member.name for member in found]
    if command is Command.SET:
        return [f"{member.name}=" for member in found if _writable(member)] + nested
    if command is Command.DEL:
        return nested
    return [f"{member.name}=" for member in found if _creatable(member)] + nested


def _commands(target: Target) -> list[str]:
    if target.state:
        return ["show"]
    return ["set", "show", "add", "del"]


def _writable(member: Member) -> bool:
    return member.kind is Kind.LEAF and not (member.state or member.init_only or member.key)


def _creatable(member: Member) -> bool:
    return member.kind is Kind.LEAF and not (member.state or member.key)


def _removable(member: Member) -> bool:
    return member.node is not None and not member.state


def _params(found: Iterable[Member]) -> dict[str, Any]:
    return {member.name: param(member) for member in found}


def param(member: Member) -> dict[str, Any]:
    """The line of help for a member."""
    if member.kind is not Kind.LEAF:
        kind = "list" if member.kind is Kind.LIST else "complex"
        return {"name": member.name, "type": kind, "description": member.description}
    assert member.type is not None
    line = {
        "name": member.name,
        "type": "key" if member.key else "leaf",
        "simpletype": member.type.name,
        "description": member.description,
    }
    if member.type.choices and member.type.base is not bool:
        line["values"] = ", ".join(member.type.choices)
    if member.example:
        line["example"] = member.example
    return line


def _action_params(cls: type[Node]) -> dict[str, Any]:
    return {action.name: {"name": action.name, "type": "action", "description": action.description} for action in actions(cls).values()}


def _settable(found: Iterable[Member]) -> dict[str, Any]:
    leaves = [member for member in found if _creatable(member)]
    return {
        "params": _params(member for member in leaves if member.mandatory),
        "optional-params": _params(member for member in leaves if not member.mandatory),
    }


def _members_of(cls: type[Node] | None) -> list[Member]:
    return list(members(cls).values()) if cls is not None else []


def _inputs(action: Action) -> dict[str, Any]:
    found = _members_of(action.input)
    return {
        "params": _params(member for member in found if member.mandatory),
        "optional-params": _params(member for member in found if not member.mandatory),
    }


def _leaf_help(target: Target, command: Command) -> dict[str, Any]:
    assert target.member is not None
    writable = _writable(target.member) and not target.state
    line = {"params": {target.member.name: param(target.member)}}
    if command is Command.NONE:
        return {"commands": ["set", "show"] if writable else ["show"], **line}
    return line


def _list_help(target: Target, command: Command, config: Node | None, overlay: Overlay | None) -> dict[str, Any]:
    following = _params(keys(target.cls)[len(target.partial) :])
    if command is Command.ADD:
        settable = _settable(list(members(target.cls).values()))
        return {**settable, "params": {**following, **settable["params"]}}
    answer: dict[str, Any] = {"params": following}
    if command is Command.NONE:
        answer["commands"] = ["show"] if target.state else ["add", "del", "show"]
    answer["elements"] = _elements(target, config, overlay)
    return answer


def _elements(target: Target, config: Node | None, overlay: Overlay | None) -> list[dict[str, Any]]:
    """The keys of what is there, by name, below the keys already given."""
    if config is None:
        return []
    try:
        present = dump_at(config, target, overlay)
    except ModelError:
        return []
    names = [key.name for key in keys(target.cls)]
    found = [{name: element[name] for name in names} for element in present]
    given = [to_wire(part) for part in target.partial]
    return [one for one in found if [one[name] for name in names[: len(given)]] == given]


def _complete_list(target: Target, command: Command, config: Node | None, overlay: Overlay | None) -> list[str]:
    following = keys(target.cls)[len(target.partial)]
    if command is Command.ADD:
        return [f"<{following.name}>"]
    words = [str(element[following.name]) for element in _elements(target, config, overlay)]
    if command is Command.NONE and not target.partial:
        words = [*(["show"] if target.state else ["add", "del", "show"]), *words]
    return list(dict.fromkeys(words))
