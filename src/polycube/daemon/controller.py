# SPDX-License-Identifier: Apache-2.0
"""What the API asks of the daemon's core, and the pure first half of every change.

Mechanism: a request that changes cubes becomes a sequence of `Change`s, and the controller carries out the whole
sequence or nothing. `applied` is the part without effects: it turns changes into configurations before and after, with
every check the model can make; the controller calls it under its lock and goes on from there.

Invariants: nothing here or in the API knows a service except through its model. Errors of `applied` name the cube as
the first part of their path. `CubeView`s are snapshots: their configuration never changes under the reader.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from polycube.core.config import CubeConfig
from polycube.daemon.events import Events
from polycube.model import Edit, ModelError, Node, Path, PolycubeError, Tag, edit, load, problem, suggest

FIXED_WORDS = (
    "services",
    "cubes",
    "netdevs",
    "version",
    "connect",
    "disconnect",
    "attach",
    "detach",
    "topology",
    "metrics",
    "events",
    "requests",
    "openapi",
    "units",
    "fusing",
    "config",
)
RESERVED_NAMES = frozenset({*FIXED_WORDS, "add", "del", "show", "set"})


@dataclass(frozen=True)
class Service:
    """A kind of cube."""

    name: str
    description: str
    version: str
    kind: Literal["standard", "transparent"]
    config: type[CubeConfig]
    module: str = ""


@dataclass(frozen=True)
class CubeView:
    """A cube as it is now. `state` is what the daemon itself knows of it, in the shape of an overlay: parent, status."""

    name: str
    service: str
    uuid: str
    config: CubeConfig
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CreateCube:
    """Make a cube from a JSON body; `name` and service need not stand in the body, but may not differ there."""

    service: str
    name: str
    body: Any


@dataclass(frozen=True)
class EditCube:
    """Change the configuration of a cube."""

    name: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class DeleteCube:
    """Remove a cube."""

    name: str


Change: TypeAlias = CreateCube | EditCube | DeleteCube


@dataclass(frozen=True)
class Result:
    """What was done, or would be: the operations as data, and the output of an action (a node or JSON-able data)."""

    operations: Sequence[Mapping[str, Any]] = ()
    output: Any = None


@dataclass(frozen=True)
class Placement:
    """Where a transparent cube goes among those already there."""

    position: Literal["auto", "first", "last", "before", "after"] = "auto"
    other: str | None = None  # the cube that before and after refer to


class Controller(Protocol):
    """The daemon's core as the API sees it. Every method may raise a `PolycubeError`; the API tells it to the client."""

    def services(self) -> Mapping[str, Service]: ...

    async def add_service(self, name: str, uri: str) -> None:
        """Loads one while the daemon runs. `uri`: a folder by its whole path, or "module:Class"."""
        ...

    async def reload_service(self, name: str) -> None: ...

    async def remove_service(self, name: str) -> None: ...

    def cubes(self) -> Mapping[str, CubeView]: ...

    def netdevs(self) -> Sequence[Mapping[str, Any]]:
        """[{name, addresses?, description?}] of what a port can be connected to."""
        ...

    def version(self) -> str: ...

    async def change(self, changes: Sequence[Change], *, dry_run: bool) -> Result:
        """All of it or nothing, as one plan."""
        ...

    async def overlay(self, name: str, path: Path = (), *, read: bool = False) -> Mapping[str, Any]:
        """Operational data of a cube, in the shape of its dump, from the root; only what is at or below `path` is
        asked for. `read`: for a client that reads, which takes something away in places. Includes the common part: uuid,
        parent, uuid and status of ports."""
        ...

    async def action(self, name: str, path: Path, input: Node | None, *, dry_run: bool) -> Result:
        """Invoke an action of a cube with its validated input."""
        ...

    async def stream(self, name: str, path: Path) -> AsyncIterator[bytes]:
        """What a cube writes to a stream, as it comes; whoever has enough closes the iterator."""
        ...

    async def connect(self, peer1: str, peer2: str, *, dry_run: bool) -> Result: ...

    async def disconnect(self, peer1: str, peer2: str, *, dry_run: bool) -> Result: ...

    async def attach(self, cube: str, port: str, placement: Placement, *, dry_run: bool) -> Result: ...

    async def detach(self, cube: str, port: str, *, dry_run: bool) -> Result: ...

    def topology_of(self, ifname: str) -> Mapping[str, Any]:
        """The chains at a netdev, as upstream's `topology/:ifname`."""
        ...

    async def metrics(self, more: Collection[str] = ()) -> str:
        """OpenMetrics text. `more`: what is made on request only, of "maps" and "cost"."""
        ...

    def config(self) -> Mapping[str, Any]:
        """The whole configuration, in the shape of `snapshot`."""
        ...

    async def apply(self, document: Any, *, dry_run: bool) -> Result:
        """Makes what stands equal to a document."""
        ...

    def events(self) -> Events: ...

    async def units(self) -> Sequence[Mapping[str, Any]]:
        """The programs that stand in the kernel, by unit."""
        ...

    async def unit_code(self, name: str) -> str | None:
        """The instructions of a unit, with lines of C; None: there is no such unit."""
        ...

    def fusing(self) -> Mapping[str, Any]:
        """Whether chains are fused, and cubes for which that differs: {enabled, cubes: [{name, enabled}]}."""
        ...

    async def fuse(self, enabled: bool, cube: str | None = None, *, dry_run: bool) -> Result:
        """Switches fusing on or off, in all until the daemon ends, or for a cube for good."""
        ...

    def drop_counts(self) -> Mapping[tuple[str, str], int]:
        """Frames dropped so far, by cube and reason. May block: to be called in a thread."""
        ...


class NoSuchService(PolycubeError):
    """A service that is not installed."""

    status: ClassVar[int] = 404

    def __init__(self, service: str, known: Sequence[str]) -> None:
        self.service = service
        super().__init__(f"No service named {service}{suggest(service, known)}")


class NoSuchCube(PolycubeError):
    """A cube that does not exist."""

    status: ClassVar[int] = 404

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        super().__init__(f"No cube found named {name}{suggest(name, known)}")


class ReservedName(PolycubeError):
    """A name that the grammar of REST and the command line needs for itself."""

    def __init__(self, name: str, use: str) -> None:
        self.name = name
        super().__init__(f"A cube cannot be named {name}: it is {use}")


@dataclass(frozen=True)
class Planned:
    """A cube before and after a sequence of changes; `old` is None if it is new, `new` if it goes away."""

    name: str
    service: str
    old: CubeConfig | None
    new: CubeConfig | None


def applied(changes: Sequence[Change], services: Mapping[str, Service], cubes: Mapping[str, CubeView]) -> dict[str, Planned]:
    """What the changes make of the cubes they name; raises before anything has an effect."""
    planned: dict[str, Planned] = {}
    for change in changes:
        try:
            found = _step(change, services, cubes, planned)
        except ModelError as error:
            raise error.within(change.name) from None
        planned[change.name] = found
    return planned


def _step(change: Change, services: Mapping[str, Service], cubes: Mapping[str, CubeView], planned: Mapping[str, Planned]) -> Planned:
    view = cubes.get(change.name)
    before = planned.get(change.name) or (Planned(view.name, view.service, view.config, view.config) if view else None)
    now = before.new if before else None
    if isinstance(change, CreateCube):
        if now is not None and before is not None:
            raise problem(Tag.DATA_EXISTS, (), f"exists already: it is a {before.service}")
        new = load_cube(services, change)
        old = before.old if before and before.service == change.service else None
        return Planned(change.name, change.service, old, new)
    if now is None or before is None:
        known = [name for name in {**cubes, **planned} if name not in planned or planned[name].new is not None]
        raise problem(Tag.DATA_MISSING, (), f"does not exist{suggest(change.name, known)}")
    if isinstance(change, DeleteCube):
        return Planned(before.name, before.service, before.old, None)
    return Planned(before.name, before.service, before.old, edit(now, change.edits))


def load_cube(services: Mapping[str, Service], change: CreateCube) -> CubeConfig:
    """The configuration of a new cube."""
    service = services.get(change.service)
    if service is None:
        raise NoSuchService(change.service, list(services))
    if change.name in RESERVED_NAMES or change.name in services:
        raise ReservedName(change.name, "the name of a service" if change.name in services else "a word of the grammar")
    body = change.body
    if isinstance(body, dict):
        for member, value in (("name", change.name), ("service-name", change.service)):
            if body.get(member, value) != value:
                raise problem(Tag.INVALID_VALUE, (member,), f"cannot be {body[member]!r}: the path says {value}")
        body = {**body, "name": change.name, "service-name": change.service}
    return load(service.config, body)
