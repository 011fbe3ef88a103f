# SPDX-License-Identifier: Apache-2.0
"""What the daemon and a worker tell each other about a cube, as data: its circumstances one way, recorded writes the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polycube.core.cube import PortFacts
from polycube.core.maps import MapWrite
from polycube.core.mirror import Fact, fact_data, fact_from
from polycube.model import Edit, Op, PolycubeError


@dataclass(frozen=True)
class Instance:
    """A cube as the daemon hands it to a worker."""

    uuid: str
    name: str
    number: int  # of the cube in the data plane: it owns slots 2n and 2n+1
    config: Mapping[str, Any]  # JSON dump of the whole configuration; read-only members are passed over
    ports: Sequence[PortFacts]
    objects: Mapping[str, Path]  # hook ("xdp", "tc") -> BPF object, read for layouts only
    pins: Path  # folder of the cube's maps, which need not exist yet
    parent: str = ""

    def as_data(self) -> dict[str, Any]:
        return {
            "uuid": self.uuid,
            "name": self.name,
            "number": self.number,
            "config": self.config,
            "ports": [port.as_data() for port in self.ports],
            "objects": {hook: str(path) for hook, path in self.objects.items()},
            "pins": str(self.pins),
            "parent": self.parent,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Instance:
        return cls(
            uuid=data["uuid"],
            name=data["name"],
            number=data["number"],
            config=data["config"],
            ports=tuple(PortFacts.from_data(port) for port in data["ports"]),
            objects={hook: Path(path) for hook, path in data["objects"].items()},
            pins=Path(data["pins"]),
            parent=data.get("parent", ""),
        )


@dataclass(frozen=True)
class Recorded:
    """What a change of configuration wants written."""

    writes: list[MapWrite] = field(default_factory=list)
    cfg: dict[str, bytes] = field(default_factory=dict)
    netdevs: dict[str, dict[str, Any]] = field(default_factory=dict)  # port -> {"mac": ..., "addresses": [...]} for its netdev
    domains: dict[int, list[int]] = field(default_factory=dict)  # flood domain -> numbers of its ports
    shadow: frozenset[Fact] | None = None  # what its namespace shows

    def as_data(self) -> dict[str, Any]:
        return {
            "writes": [[w.map, w.key.hex(), None if w.value is None else w.value.hex()] for w in self.writes],
            "cfg": {name: value.hex() for name, value in self.cfg.items()},
            "netdevs": self.netdevs,
            "domains": list(self.domains.items()),
            "shadow": None if self.shadow is None else [fact_data(fact) for fact in self.shadow],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recorded:
        writes = [MapWrite(name, bytes.fromhex(k), None if v is None else bytes.fromhex(v)) for name, k, v in data["writes"]]
        cfg = {name: bytes.fromhex(value) for name, value in data["cfg"].items()}
        shadow = data.get("shadow")
        return cls(writes, cfg, data["netdevs"], dict(data["domains"]), None if shadow is None else frozenset(map(fact_from, shadow)))


def edit_data(edit: Edit) -> list[Any]:
    """An edit as data."""
    return [str(edit.op), list(edit.path), edit.value]


def edit_from(data: Sequence[Any]) -> Edit:
    op, path, value = data
    return Edit(Op(op), tuple(path), value)


class ServiceFailed(PolycubeError):
    """The code of a service raised what is no error for users: a bug in it."""

    status = 500

    def __init__(self, service: str, doing: str, reason: str) -> None:
        self.service, self.doing, self.reason = service, doing, reason
        super().__init__(f"service {service} failed while {doing}: {reason}")


class NoSuchInstance(PolycubeError):
    """The worker does not hold the cube: it is a new process, or the cube was removed."""

    status = 503

    def __init__(self, service: str, uuid: str) -> None:
        self.service, self.uuid = service, uuid
        super().__init__(f"the worker of {service} holds no cube {uuid}")


class NotPending(PolycubeError):
    """There is no change to commit."""

    status = 409

    def __init__(self, cube: str) -> None:
        self.cube = cube
        super().__init__(f"no change of {cube} is under way")


class ChangePending(PolycubeError):
    """A change was not decided yet when the next one came."""

    status = 409

    def __init__(self, cube: str) -> None:
        self.cube = cube
        super().__init__(f"another change of {cube} is under way")
