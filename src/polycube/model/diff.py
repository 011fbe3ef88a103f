# SPDX-License-Identifier: Apache-2.0
"""What changed between two configurations, in the words of an author of `apply`.

Mechanism: a `Diff` holds two nodes of one class and compares on demand; identity settles most comparisons, since edits
share what they do not touch. Names are attributes, dotted into containers: `change.changed("fdb.aging_time")`.

Invariants: with `old` None (creation) every leaf has changed and every element was added; with `new` None (deletion)
every element was removed. An element whose creation-only leaves differ was made anew: it is removed *and* added, never
changed. Read-only members never differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from polycube.model.base import Keyed, Node, key_of
from polycube.model.ends import ends
from polycube.model.errors import suggest
from polycube.model.schema import Kind, Member, members

N = TypeVar("N", bound=Node)


class Diff(Generic[N]):
    """The change from `old` to `new`; either may be None, not both."""

    __slots__ = ("_lists", "new", "old")

    def __init__(self, old: N | None, new: N | None) -> None:
        if old is None and new is None:
            raise ValueError("a change needs a configuration before or after it")
        self.old = old
        self.new = new
        self._lists: dict[str, list[tuple[Any, Any]]] = {}  # compared already

    @property
    def created(self) -> bool:
        """Whether there was nothing before."""
        return self.old is None

    @property
    def deleted(self) -> bool:
        """Whether there is nothing after."""
        return self.new is None

    @property
    def node(self) -> N:
        """The new node, or the old one if it is gone."""
        node = self.new if self.new is not None else self.old
        assert node is not None
        return node

    def __bool__(self) -> bool:
        return not _same(self.old, self.new)

    def __repr__(self) -> str:
        return f"Diff({self.old!r}, {self.new!r})"

    def changed(self, name: str) -> list[tuple[Any, Any]]:
        """(old, new) pairs: of a list, the elements present before and after that differ; of a leaf or container, one
        pair if it differs. Hence `if change.changed("mac")` and `for old, new in change.changed("ports")`."""
        holder, member = self._find(name)
        before, after = holder._values(member)
        if member.kind is not Kind.LIST:
            different = holder.created or holder.deleted or not _same(before, after)
            return [(before, after)] if different else []
        return [(old, new) for old, new in self._list(name) if old is not None and new is not None]

    def added(self, name: str) -> list[Any]:
        """The new elements of a list."""
        return [new for old, new in self._list(name) if old is None]

    def removed(self, name: str) -> list[Any]:
        """The elements that left a list, as they were."""
        return [old for old, new in self._list(name) if new is None]

    def each(self, name: str) -> Iterator[Diff[Any]]:
        """A `Diff` for every element of a list that was removed, added or changed, in this order."""
        pairs = sorted(self._list(name), key=lambda pair: 0 if pair[1] is None else 1 if pair[0] is None else 2)
        return (Diff(old, new) for old, new in pairs)

    def at(self, name: str, key: Any = None) -> Diff[Any]:
        """The change inside a container, or of one element of a list. It is false if there is none there."""
        holder, member = self._find(name)
        before, after = holder._values(member)
        if member.kind is Kind.LIST:
            before, after = (before or {}).get(key), (after or {}).get(key)
        if before is None and after is None:
            raise KeyError(f"{name} {key or ''}".strip())
        return Diff(before, after)

    def _list(self, name: str) -> list[tuple[Any, Any]]:
        holder, member = self._find(name)
        if member.kind is not Kind.LIST:
            raise TypeError(f"{name} is a {member.kind}, not a list")
        if name not in self._lists:
            self._lists[name] = list(_pairs(*holder._values(member)))
        return self._lists[name]

    def _values(self, member: Member) -> tuple[Any, Any]:
        before = None if self.old is None else getattr(self.old, member.attr)
        after = None if self.new is None else getattr(self.new, member.attr)
        return before, after

    def _find(self, name: str) -> tuple[Diff[Any], Member]:
        holder: Diff[Any] = self
        first, *rest = name.split(".")
        while rest:
            member = holder._member(first)
            if member.kind is not Kind.CONTAINER:
                raise AttributeError(f"{first} is a {member.kind}: use at({first!r}, key)")
            before, after = holder._values(member)
            if before is None and after is None:
                raise KeyError(first)
            holder = Diff(before, after)
            first, *rest = rest
        return holder, holder._member(first)

    def _member(self, name: str) -> Member:
        cls = type(self.node)
        for member in members(cls).values():
            if member.attr == name:
                return member
        raise AttributeError(f"{cls.__name__} has no {name}{suggest(name, cls.model_fields)}")


def _same(before: Any, after: Any) -> bool:
    return before is after or (type(before) is type(after) and before == after)


def _pairs(before: Keyed[Node] | None, after: Keyed[Node] | None) -> Iterator[tuple[Node | None, Node | None]]:
    if before is after:
        return
    old, new = touched(before, after)
    for key, element in old.items():
        other = new.get(key)
        if other is None:
            yield element, None
        elif element != other:
            if _remade(element, other):
                yield element, None
                yield None, other
            else:
                yield element, other
    for key, element in new.items():
        if key not in old:
            yield None, element


def touched(before: Keyed[Node] | None, after: Keyed[Node] | None) -> tuple[dict[Any, Node], dict[Any, Node]]:
    """The elements of either list that are not, as the same object, in the other, by their keys. Looks at no key of those that are: hashing
    ten thousand addresses would cost more than all the rest of an edit."""
    old, new = list(before.kept if before else ()), list(after.kept if after else ())
    first, last = ends(old, new)
    old, new = old[first : len(old) - last], new[first : len(new) - last]
    return _unlike(old, new), _unlike(new, old)


def _unlike(elements: list[Node], others: list[Node]) -> dict[Any, Node]:
    same = set(map(id, others))
    return {key_of(element): element for element in elements if id(element) not in same}


def _remade(old: Node, new: Node) -> bool:
    for member in members(type(old)).values():
        before, after = getattr(old, member.attr), getattr(new, member.attr)
        if member.init_only and before != after:
            return True
        nested = member.kind is Kind.CONTAINER and isinstance(before, Node) and isinstance(after, Node)
        if nested and before is not after and _remade(before, after):
            return True
    return False
