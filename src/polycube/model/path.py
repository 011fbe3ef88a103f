# SPDX-License-Identifier: Apache-2.0
"""Paths into a model: from URL segments to a place, and from a place to the data there.

Mechanism: `resolve` walks the classes, not the data, consuming one segment a member and as many as a list has key
leaves; the result is a `Target` made of `Step`s. Keys are parsed to their Python values on the way, so `AA:BB..` and
`aa:bb..` reach the same element.

Invariants: a resolved target is valid for every configuration of that class; whether the data exists is found out by
`Target.get`. Segments are URL-decoded by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polycube.model.base import Action, Node
from polycube.model.errors import ModelError, Path, Tag, problem, suggest
from polycube.model.schema import Kind, Member, actions, key_segments, keys, make_key, members


@dataclass(frozen=True)
class Step:
    """One step down: a member, and for an element of a list its key."""

    member: Member
    key: Any = None
    has_key: bool = False


@dataclass(frozen=True)
class Target:
    """A place in the tree of a node class."""

    kind: Kind
    cls: type[Node]  # of a container or element its class, of a list its element's, of a leaf or action its holder's
    path: Path
    steps: tuple[Step, ...] = ()
    action: Action | None = None
    partial: tuple[Any, ...] = ()  # of a list: the first keys, if some but not all were given (`resolve(partial=True)`)

    @property
    def member(self) -> Member | None:
        """The last member on the way; None for the root."""
        return self.steps[-1].member if self.steps else None

    @property
    def state(self) -> bool:
        """Whether the place is read-only."""
        return any(step.member.state for step in self.steps)

    def get(self, config: Node) -> Any:
        """The node, list or value there; raises data-missing."""
        here: Any = config
        done: Path = ()
        for step in self.steps:
            here, done = descend(here, step, done)
        return here


def descend(here: Node, step: Step, done: Path) -> tuple[Any, Path]:
    """One step down from a node; raises data-missing."""
    value = getattr(here, step.member.attr)
    done = (*done, step.member.name)
    if step.has_key:
        words = key_segments(step.member.child, step.key)
        element = value.get(step.key)
        if element is None:
            raise missing(done, words, value, step.member)
        return element, (*done, *words)
    if value is None and step.member.kind is Kind.CONTAINER:
        raise problem(Tag.DATA_MISSING, done, "is not there")
    return value, done


def missing(path: Path, words: Sequence[str], elements: Any, member: Member) -> ModelError:
    """The error for an element that is not in its list."""
    present = [" ".join(key_segments(member.child, key)) for key in elements]
    wanted = " ".join(words)
    hint = suggest(wanted, present)
    return problem(Tag.DATA_MISSING, path, f"has no {wanted}{hint}")


def resolve(cls: type[Node], segments: Sequence[str], *, partial: bool = False) -> Target:
    """The place in `cls` that URL-decoded `segments` lead to.

    With `partial`, a list element whose keys are not all given resolves to the list (for completion)."""
    here, steps, path = cls, [], ()  # type: type[Node], list[Step], Path
    kind = Kind.CONTAINER
    rest = list(segments)
    while rest:
        name = rest.pop(0)
        if kind is Kind.LEAF:
            raise problem(Tag.INVALID_VALUE, path, f"is a single value and has no {name}")
        action = actions(here).get(name)
        if action is not None:
            if rest:
                raise problem(Tag.INVALID_VALUE, (*path, name), f"is an action and has no {rest[0]}")
            return Target(Kind.ACTION, here, (*path, name), tuple(steps), action)
        member = members(here).get(name)
        if member is None:
            known = [*members(here), *actions(here)]
            raise problem(Tag.INVALID_VALUE, path, f"has no {name}{suggest(name, known, limit=20)}")
        path = (*path, name)
        if member.kind is Kind.LEAF:
            kind = Kind.LEAF
            steps.append(Step(member))
            continue
        if member.kind is Kind.CONTAINER:
            here, kind = member.child, Kind.CONTAINER
            steps.append(Step(member))
            continue
        if not rest:
            return Target(Kind.LIST, member.child, path, (*steps, Step(member)))
        parts: list[Any] = []
        for key in keys(member.child):
            if not rest:
                if partial:
                    return Target(Kind.LIST, member.child, path, (*steps, Step(member)), partial=tuple(parts))
                names = " ".join(key.name for key in keys(member.child))
                raise problem(Tag.MISSING_ELEMENT, path, f"is identified by {names}; {key.name} is missing")
            parts.append(parse_key(key, rest.pop(0), path))
        steps.append(Step(member, make_key(parts), True))
        here, kind = member.child, Kind.ELEMENT
        path = (*path, *key_segments(here, make_key(parts)))
    return Target(kind, here, path, tuple(steps))


def parse_key(member: Member, value: Any, path: Path) -> Any:
    """The value of a key leaf; raises invalid-value."""
    try:
        return member.parse(value)
    except ValueError as error:
        raise problem(Tag.INVALID_VALUE, (*path, member.name), f"cannot be {value!r}: expected {error}") from None
