# SPDX-License-Identifier: Apache-2.0
"""Metrics of a service from its model: which members have one, and their values in a dump."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from polycube.model.base import Metric, Node
from polycube.model.schema import Kind, Member, keys, members


@dataclass(frozen=True)
class Measured:
    """A member with a metric: the way to it, and the keys of the lists on the way as label names."""

    way: tuple[Member, ...]

    @property
    def metric(self) -> Metric:
        found = self.way[-1].metric
        assert found
        return found

    @property
    def description(self) -> str:
        return self.way[-1].description

    def name(self, service: str) -> str:
        """Its name among the metrics of all services."""
        if self.metric.name:
            return self.metric.name
        path = "_".join(member.name.replace("-", "_") for member in self.way)
        return f"polycube_{service}_{path}{'_number' if self.way[-1].kind is Kind.LIST else ''}"

    @property
    def labels(self) -> tuple[str, ...]:
        if self.metric.name:
            return ()
        lists = [member for member in self.way[:-1] if member.kind is Kind.LIST]
        return tuple(f"{one.name}_{key.name}".replace("-", "_") for one in lists for key in keys(one.child))

    def samples(self, dumped: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of the labels, and the value itself, for each place where there is one; under a name of its own, the sum of all places."""
        found = _samples(self.way, dumped, ())
        if self.metric.name:
            yield (), sum(value for _, value in found)
        else:
            yield from found


def _samples(way: tuple[Member, ...], here: Mapping[str, Any], labels: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    member, *rest = way
    value = here.get(member.name)
    if not rest:
        if member.kind is Kind.LIST:
            yield labels, len(value or ())
        elif value is not None:
            yield labels, float(value) if isinstance(value, int | float) else 1.0
    elif member.kind is Kind.LIST:
        for element in value or ():
            yield from _samples(tuple(rest), element, (*labels, *(str(element[key.name]) for key in keys(member.child))))
    elif value is not None:
        yield from _samples(tuple(rest), value, labels)


@cache
def measured(cls: type[Node]) -> tuple[Measured, ...]:
    """All members of a model that have a metric, at any depth."""
    return tuple(Measured(way) for way in _ways(cls, ()))


def _ways(cls: type[Node], way: tuple[Member, ...]) -> Iterator[tuple[Member, ...]]:
    for member in members(cls).values():
        if member.metric:
            yield (*way, member)
        if member.node:
            yield from _ways(member.node, (*way, member))
