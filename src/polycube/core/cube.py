# SPDX-License-Identifier: Apache-2.0
"""What the author of a network function writes against.

A service is a folder with three files: `model.py` (typed configuration), `<service>.bpf.c` (data plane) and `cube.py` with one class
derived from `Cube`. An instance lives in the worker process of its service and follows one rule: **configuration reaches the maps
through `apply` only**, which has no side effect of its own. What it writes to `self.maps` and `self.cfg` is recorded, shown on request,
carried out and, should a later step fail, undone by the daemon. Outside `apply` and `facts` (slow path, timers, actions) the same views
write at once: that is learned state, which nobody undoes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from polycube.compiler.code import Code
from polycube.compiler.function import Function
from polycube.core.config import CubeConfig, TransparentCube
from polycube.model import Diff, Edit
from polycube.model import Path as ModelPath

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from polycube.core.maps import CfgView, MapViews
    from polycube.core.mirror import Fact

C = TypeVar("C", bound=CubeConfig)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class NetdevFacts:
    """What the daemon knows of a netdev that a port leads to."""

    name: str
    ifindex: int
    mac: str
    mtu: int
    addresses: tuple[str, ...] = ()  # "10.0.0.1/24", "fe80::1/64"
    running: bool = True  # whether it has a carrier


@dataclass(frozen=True)
class PortFacts:
    """A port as it stands in the kernel. `number` is what the data plane knows it by; it never changes while the port lives.

    A transparent cube has two, "ingress" (number 0) and "egress" (1), whose peer is what it is attached to; `peer_facts` are then the
    leaves of the port it stands before, empty if that is the host's stack.
    """

    name: str
    number: int
    id: int
    up: bool = False
    peer: str = ""  # as configured: netdev name, "cube:port", ":host" or ""
    netdev: NetdevFacts | None = None  # the netdev it leads to, if it leads to one and it is there
    peer_facts: Mapping[str, Any] = field(default_factory=dict)  # leaves of the peer's port (mac, ip, ...) if the peer is a cube

    def as_data(self) -> dict[str, Any]:
        """For the way to a worker."""
        return {**vars(self), "netdev": self.netdev and vars(self.netdev)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> PortFacts:
        netdev = data.get("netdev")
        if netdev is not None:
            netdev = NetdevFacts(**{**netdev, "addresses": tuple(netdev.get("addresses", ()))})
        return cls(**{**data, "netdev": netdev})


@dataclass(frozen=True)
class Packet:
    """A frame handed up by the data plane, whole: tags are in the bytes again, offloaded checksums are finished."""

    data: bytes
    port: PortFacts | None  # the port it arrived by; None when that port is gone
    reason: int  # as given to pcn_slowpath()
    metadata: tuple[int, int, int]
    egress: bool = False  # handed up by the egress handler
    truncated: bool = False
    xdp: bool = False
    ifindex: int = 0  # of the netdev whose program ran


class Host(Protocol):
    """What the worker gives to the cubes that live in it."""

    def transmit(self, cube: Cube[Any], port: int, frame: bytes, *, out: bool, ifindex: int = 0, xdp: bool | None = None) -> None: ...

    def hand_over(self, cube: Cube[Any], port: int, frame: bytes) -> None: ...

    async def edit(self, cube: Cube[Any], edits: Sequence[Edit]) -> None: ...

    def alarm(self, cube: Cube[Any], alarm: str, fields: Mapping[str, Any]) -> None: ...


def every(seconds: float) -> Callable[[F], F]:
    """Marks an (async) method of a cube that the worker calls every so many seconds."""

    def mark(method: F) -> F:
        method.__polycube_period__ = seconds  # type: ignore[attr-defined]
        return method

    return mark


def action(path: str) -> Callable[[F], F]:
    """Marks the method that carries out a model's action, by its path in wire names: `@action("fdb/flush")`."""

    def mark(method: F) -> F:
        method.__polycube_action__ = path  # type: ignore[attr-defined]
        return method

    return mark


def stream(path: str) -> Callable[[F], F]:
    """Marks the method that feeds an action of the model that is a stream: it is given a connected socket (socket.socket), which it owns
    and writes to, then or later; the reader is gone when writing fails or the socket reads as ended."""

    def mark(method: F) -> F:
        method.__polycube_stream__ = path  # type: ignore[attr-defined]
        return method

    return mark


class Cube(Generic[C]):
    """One instance of a network function. Subclass it in `cubes/<service>/cube.py`."""

    config: ClassVar[type[CubeConfig]]
    version: ClassVar[str] = "1.0.0"
    learned: ClassVar[Collection[str]] = ()  # maps of what is learned: programs of another layout get the entries, by the names of fields
    layer: ClassVar[int] = 0  # of a transparent cube: where `position=auto` puts it in a stack, the lower the nearer to index 0

    def __init__(
        self,
        name: str,
        uuid: str,
        maps: MapViews,
        cfg: CfgView,
        host: Host,
        log: FilteringBoundLogger,
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.maps = maps
        self.cfg = cfg
        self.log = log
        self.current: C | None = None  # the configuration that stands; set by the worker
        self.ports: Mapping[str, PortFacts] = {}
        self.former_ports: Mapping[str, PortFacts] = {}  # in `apply` and `facts`: as they were before the change
        self.parent = ""  # of an attached transparent cube: "cube:port" or a netdev's name
        self.decided = asyncio.Event()  # not set: what `apply` or `facts` recorded is not decided yet; who writes many entries waits
        self.decided.set()
        self._host = host

    # ---- for authors to define ----

    def apply(self, change: Diff[C]) -> None:
        """Turns a change of configuration into map writes. `change.old` is None when the cube is new (or its maps are).

        While it runs, `current`, `ports` and `parent` are those of the new configuration; they change back if the request fails.
        """

    def settled(self) -> None:
        """What was applied is stored and in effect, and `current` stays: the place for effects of a change beside map writes (files)."""

    def facts(self, changed: Sequence[str]) -> None:
        """Ports whose facts (number, netdev, MAC, MTU, addresses, peer) changed; writes are recorded as in `apply`."""

    def netdev(self) -> dict[str, dict[str, Any]]:
        """What ports give to the netdevs they lead to: name of the port -> {"mac": text, "addresses": [text]}. Asked after each change."""
        return {}

    def domains(self) -> Mapping[int, Sequence[int]]:
        """Flood domains beside 0, which all ports are in: number -> numbers of its ports. Asked after each change."""
        return {}

    def shadow(self) -> Iterable[Fact] | None:
        """What `ip` shows in the namespace of a shadow cube (core/mirror.py): MACs, addresses, routes, neighbours. Asked after each change.
        None: this service leaves the namespace to whoever works there."""
        return None

    def shadowed(self, gone: AbstractSet[Fact], come: AbstractSet[Fact]) -> Sequence[Edit]:
        """What somebody has changed in the namespace, as changes of the own configuration, and without effects. What is not taken over, or
        refused, is taken back there."""
        return ()

    def state(self) -> Mapping[str, Any]:
        """Operational data in wire names, laid over the configuration in answers: `{"fdb": {"entry": [...]}}`."""
        return {}

    async def state_at(self, path: ModelPath) -> Mapping[str, Any]:
        """The same for a client that asks for what is at `path` (segments below the cube): where reading takes something away, or is dear.
        `state` is also asked for metrics and completion."""
        return self.state()

    def forget(self, path: str, key: str | tuple[Any, ...] | None) -> bool:
        """Removes a learned element that is no configuration (all of them when `key` is None). False: there is no such thing."""
        return False

    async def packet(self, packet: Packet) -> None:
        """A frame from the slow path."""

    async def start(self) -> None:
        """Called once the cube's maps are there, also after a restart of the worker."""

    def close(self) -> None:
        """Called before the cube leaves the worker."""

    @classmethod
    def sizes(cls, config: C) -> dict[str, int]:
        """Maximum entries of maps, by map name, where the configuration decides them; known at creation."""
        return {}

    @classmethod
    def code(cls, config: C) -> tuple[Code, ...]:
        """Data-plane code of this instance alone, by its configuration (compiler/code.py); most services have none.

        Asked for in the daemon: quick, without effects. Raises `ModelError`, with the path of the leaf, for what can't be code.
        """
        return ()

    # ---- for authors to call ----

    def hand_over(self, port: PortFacts | int, frame: bytes) -> None:
        """Has the namespace of a shadow cube receive a frame by a port; without one nothing happens."""
        if getattr(self.current, "shadow", False):
            self._host.hand_over(self, port if isinstance(port, int) else port.number, frame)

    def send(self, port: PortFacts | int, frame: bytes, *, ifindex: int = 0) -> None:
        """Sends a frame out of a port: it passes the egress handler and what is attached there."""
        self._host.transmit(self, port if isinstance(port, int) else port.number, frame, out=True, ifindex=ifindex)

    def receive(self, port: PortFacts | int, frame: bytes, *, ifindex: int = 0) -> None:
        """Has a frame treated as if it had been received by the port."""
        self._host.transmit(self, port if isinstance(port, int) else port.number, frame, out=False, ifindex=ifindex)

    async def edit(self, edits: Sequence[Edit]) -> None:
        """Changes the own configuration, as a request through the API would."""
        await self._host.edit(self, edits)

    def alarm(self, alarm: str, **fields: str | int | float | bool) -> None:
        """Reports something to whoever listens to the daemon's events."""
        self._host.alarm(self, alarm, fields)

    # ---- for the framework ----

    @classmethod
    def service(cls) -> str:
        """The name users type: that of the folder."""
        return cls.__module__.split(".")[-2]

    @classmethod
    @cache
    def function(cls) -> Function:
        """The data plane that stands beside the class."""
        module = sys.modules[cls.__module__]
        assert module.__file__
        return Function(cls.service(), Path(module.__file__).parent, transparent=issubclass(cls.config, TransparentCube))

    @classmethod
    def function_of(cls, config: C) -> Function:
        """The data plane of one instance."""
        function, code, span = cls.function(), cls.code(config), getattr(config, "span", False)
        return replace(function, code=code, span=span, timed=config.timing) if code or span or config.timing else function

    @classmethod
    def actions(cls) -> dict[str, str]:
        """Path of each action -> name of its method."""
        return {path: name for name in dir(cls) if (path := getattr(getattr(cls, name), "__polycube_action__", None))}

    @classmethod
    def streams(cls) -> dict[str, str]:
        """Path of each stream -> name of its method."""
        return {path: name for name in dir(cls) if (path := getattr(getattr(cls, name), "__polycube_stream__", None))}

    @classmethod
    def timers(cls) -> dict[str, float]:
        """Name of each periodic method -> period in seconds."""
        return {name: period for name in dir(cls) if (period := getattr(getattr(cls, name), "__polycube_period__", None))}
