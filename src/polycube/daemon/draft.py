# SPDX-License-Identifier: Apache-2.0
"""What the daemon holds of its cubes, and a copy of it that a request may change and then keep or throw away. No effects, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar
from uuid import uuid4

from polycube.core.config import CubeConfig, CubeType, LogLevel, StandardCube
from polycube.core.topology import HOST, IFNAMSIZ, CubeSpec, PortSpec
from polycube.daemon.controller import Placement
from polycube.model import Edit, Op, PolycubeError, suggest

NO_NETDEVS = ("lo", "all", "default")  # there is one, or the kernel has another meaning for it
MAX_PORTS = 1022
MAX_CUBES = 2047
MAX_IDS = 16383
HOOKS = {CubeType.XDP_SKB: ("xdp", "skb"), CubeType.XDP_DRV: ("xdp", "drv"), CubeType.TC: ("tc", ""), CubeType.AUTO: ("tc", "")}


class Refused(PolycubeError):
    """A request that makes no sense as things are."""

    status: ClassVar[int] = 400


class OutOfRoom(PolycubeError):
    """One of the data plane's fixed tables is full."""

    status: ClassVar[int] = 507

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"No room for another {what}: {limit} is the limit")


@dataclass(frozen=True)
class Entry:
    """A cube, and what the daemon decided about it."""

    name: str
    uuid: str
    number: int
    service: str
    transparent: bool
    config: CubeConfig
    hook: str
    mode: str = ""
    settled: bool = True  # False: type AUTO, and nothing joined yet
    ports: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> (number in the cube, id among all ports)
    ids: tuple[int, int] = (0, 0)  # of a transparent cube's directions
    fuse: bool = True  # may become part of a fused unit

    @property
    def standard(self) -> StandardCube:
        assert isinstance(self.config, StandardCube)
        return self.config

    @cached_property
    def bare(self) -> CubeSpec:
        """For the topology, which needs more of it in the end (`spec`)."""
        return self.spec()

    def spec(self, **more: Any) -> CubeSpec:
        """For the topology."""
        ports: tuple[PortSpec, ...] = ()
        if not self.transparent:
            ports = tuple(
                PortSpec(port.name, *self.ports[port.name], peer=port.peer or "", tcubes=tuple(port.tcubes))
                for port in self.standard.ports.values()
            )
        loglevel = list(LogLevel).index(self.config.loglevel)
        given = (self.name, self.uuid, self.number, self.transparent, self.hook, self.mode, ports, self.ids)
        return CubeSpec(*given, loglevel=loglevel, shadow=not self.transparent and self.standard.shadow, **more)


@dataclass(frozen=True)
class Absent:
    """Cubes that are stored and whose service is not there: what they hold is not given to others."""

    services: Mapping[str, str] = field(default_factory=dict)  # by name of the cube
    numbers: frozenset[int] = frozenset()
    ids: frozenset[int] = frozenset()


class Draft:
    """Cubes and attachments, to be changed freely."""

    def __init__(self, cubes: Mapping[str, Entry], attached: Mapping[str, tuple[str, ...]], absent: Absent | None = None) -> None:
        self.cubes = dict(cubes)
        self.attached = dict(attached)
        self.absent = absent or Absent()
        self.edits: dict[str, list[Edit]] = {}  # cube -> what its worker is to be told
        self.named: list[tuple[str, str, str]] = []  # (cube, port, peer) set by this request: these must make sense now

    # ---- cubes ----

    def create(self, name: str, service: str, transparent: bool, config: CubeConfig) -> Entry:
        if name in self.absent.services:
            raise Refused(f"Cube {name} exists already; its service {self.absent.services[name]} is not installed")
        number = _free({entry.number for entry in self.cubes.values()} | self.absent.numbers, MAX_CUBES, "cube")
        hook, mode = HOOKS[config.type]
        settled = transparent or config.type is not CubeType.AUTO
        entry = Entry(name, str(uuid4()), number, service, transparent, config, hook, mode, settled)
        self.cubes[name] = entry
        if transparent:
            first = self._free_id()
            self.cubes[name] = replace(entry, ids=(first, self._free_id({first})))
        else:
            self._number_ports(name, None)
        return self.cubes[name]

    def reconfigure(self, name: str, config: CubeConfig, edits: Iterable[Edit]) -> None:
        before = self.cubes[name]
        self.cubes[name] = replace(before, config=config)
        self.edits.setdefault(name, []).extend(edits)
        if not before.transparent:
            self._number_ports(name, before)

    def fuse(self, name: str, wanted: bool) -> None:
        """Whether a cube may become part of a fused unit."""
        self.cubes[name] = replace(self.cubes[name], fuse=wanted)

    def delete(self, name: str) -> None:
        entry = self.cubes.pop(name)
        self.edits.pop(name, None)
        if entry.transparent:
            self._forget_attachment(name)
        for cube, port in list(self.ports()):
            if (port.peer or "").partition(":")[0] == name and ":" in (port.peer or "")[1:]:
                self.set_peer(cube.name, port.name, None)

    def _number_ports(self, name: str, before: Entry | None) -> None:
        entry = self.cubes[name]
        old = before.standard.ports if before else {}
        numbers: dict[str, tuple[int, int]] = {}
        for port in entry.standard.ports.values():
            if port.name in entry.ports:
                numbers[port.name] = entry.ports[port.name]
                continue
            taken = {number for number, _ in [*entry.ports.values(), *numbers.values()]}
            number = _free(taken, MAX_PORTS - 1, f"port in {name}", 0)
            numbers[port.name] = (number, self._free_id({id for _, id in numbers.values()}))
        for port in entry.standard.ports.values():
            if port.peer and (port.name not in old or old[port.name].peer != port.peer):
                self.named.append((name, port.name, port.peer))
        self.cubes[name] = replace(entry, ports=numbers)

    def _free_id(self, also: set[int] = frozenset()) -> int:  # type: ignore[assignment]
        taken = set(also) | self.absent.ids
        for entry in self.cubes.values():
            taken.update(entry.ids)
            taken.update(id for _, id in entry.ports.values())
        return _free(taken, MAX_IDS, "port")

    def ask(self, name: str) -> None:
        """Has a cube's worker asked, although nothing changes."""
        self.edits.setdefault(name, [])

    # ---- ports ----

    def ports(self) -> Iterator[tuple[Entry, Any]]:
        for entry in self.cubes.values():
            if not entry.transparent:
                for port in entry.standard.ports.values():
                    yield entry, port

    def port(self, name: str) -> tuple[Entry, Any]:
        """By "cube:port"."""
        cube, _, port = name.partition(":")
        entry = self.cubes.get(cube)
        if entry is None:
            raise Refused(f"Cube {cube} does not exist{suggest(cube, self.cubes)}")
        if entry.transparent:
            raise Refused(f"Cube {cube} is transparent: it has no ports")
        found = entry.standard.ports.get(port)
        if found is None:
            raise Refused(f"Port {port} does not exist in {cube}{suggest(port, entry.standard.ports)}")
        return entry, found

    def set_peer(self, cube: str, port: str, peer: str | None) -> None:
        path = ("ports", port, "peer")
        self._change_port(cube, port, peer=peer)
        self.edits.setdefault(cube, []).append(Edit(Op.MERGE, path, peer or ""))
        if peer:
            self.named.append((cube, port, peer))

    def _change_port(self, cube: str, port: str, **values: Any) -> None:
        entry = self.cubes[cube]
        changed = entry.standard.ports[port].model_copy(update=values)
        config = entry.standard.model_copy(update={"ports": entry.standard.ports.adding(changed)})
        self.cubes[cube] = replace(entry, config=config)

    def connect(self, one: str, other: str) -> None:
        """Both ends name each other; at least one is "cube:port"."""
        ends = [(one, other), (other, one)]
        if all(":" not in end for end, _ in ends):
            raise Refused(f"Error setting peer: at least one of {one} and {other} must be cube:port")
        for end, _ in ends:
            if ":" in end[1:] and self.port(end)[1].peer:
                raise Refused(f"{end} already has a peer {self.port(end)[1].peer}")
        for end, peer in ends:
            if ":" in end[1:]:
                entry, port = self.port(end)
                self.set_peer(entry.name, port.name, peer)

    def disconnect(self, one: str, other: str) -> None:
        if ":" not in one[1:]:
            one, other = other, one
        entry, port = self.port(one)
        if port.peer != other:
            raise Refused(f"{one} is not connected to {other}" + (f": its peer is {port.peer}" if port.peer else ""))
        self.set_peer(entry.name, port.name, None)
        if ":" in other[1:]:
            far, far_port = self.port(other)
            if far_port.peer == one:
                self.set_peer(far.name, far_port.name, None)

    # ---- transparent cubes ----

    def parent(self, name: str) -> str:
        """What a transparent cube is attached to: "cube:port", a netdev, or ""."""
        for entry, port in self.ports():
            if name in port.tcubes:
                return f"{entry.name}:{port.name}"
        return next((netdev for netdev, cubes in self.attached.items() if name in cubes), "")

    def stack(self, target: str) -> tuple[str, ...]:
        return tuple(self.port(target)[1].tcubes) if ":" in target else self.attached.get(target, ())

    def attach(self, name: str, target: str, placement: Placement, layers: Mapping[str, int]) -> None:
        """`layers`: service -> where it belongs in a stack if nobody says, the lower the nearer to the cube."""
        entry = self.transparent(name)
        standing = self.parent(name)
        if standing:
            raise Refused(f"{name} is already attached to {standing}")
        if ":" in target:
            self._check_types(entry, self.port(target)[0], target)
        stack = list(self.stack(target))
        stack.insert(self._place(stack, entry, placement, layers), name)
        self._set_stack(target, tuple(stack))

    def _check_types(self, one: Entry, other: Entry, where: str) -> None:
        if (one.hook, one.mode) != (other.hook, other.mode):
            raise Refused(f"{one.name} and {where} have incompatible types: {one.config.type} and {other.config.type}")

    def detach(self, name: str, target: str) -> None:
        self.transparent(name)
        stack = self.stack(target)
        if name not in stack:
            standing = self.parent(name)
            raise Refused(f"{name} is not attached to {target}" + (f": it is attached to {standing}" if standing else ""))
        self._set_stack(target, tuple(one for one in stack if one != name))

    def transparent(self, name: str) -> Entry:
        entry = self.cubes.get(name)
        if entry is None:
            raise Refused(f"Cube {name} does not exist{suggest(name, self.cubes)}")
        if not entry.transparent:
            raise Refused(f"Cube {name} is not transparent")
        return entry

    def _place(self, stack: list[str], entry: Entry, placement: Placement, layers: Mapping[str, int]) -> int:
        if placement.position == "first":
            return 0
        if placement.position == "last":
            return len(stack)
        if placement.position == "auto":
            own = layers.get(entry.service, 0)
            return next((i for i, other in enumerate(stack) if layers.get(self.cubes[other].service, 0) > own), len(stack))
        if placement.other not in stack:
            raise Refused(f"{placement.other} is not attached there: {', '.join(stack) or 'nothing'} is")
        return stack.index(placement.other) + (placement.position == "after")

    def _set_stack(self, target: str, stack: tuple[str, ...]) -> None:
        if ":" in target:
            cube, _, port = target.partition(":")
            self._change_port(cube, port, tcubes=stack)
        elif stack:
            self.attached[target] = stack
        else:
            self.attached.pop(target, None)

    def restack(self, stacks: Mapping[str, tuple[str, ...]]) -> None:
        """Puts all transparent cubes anew: only these stacks are left."""
        standing = {f"{entry.name}:{port.name}" for entry, port in self.ports() if port.tcubes} | set(self.attached)
        for target in standing - set(stacks):
            self._set_stack(target, ())
        for target, names in stacks.items():
            for name in names:
                self.transparent(name)
            if ":" in target:
                self.port(target)
            self._set_stack(target, names)
        for netdev, names in self.attached.items():
            for name in names:
                self._check_attached(name, netdev)

    def _forget_attachment(self, name: str) -> None:
        target = self.parent(name)
        if target:
            self._set_stack(target, tuple(one for one in self.stack(target) if one != name))

    # ---- what must hold ----

    def settle(self, kinds: Mapping[str, str]) -> None:
        """A cube of type AUTO takes the hook that suits what it is joined with first. `kinds`: netdev -> kind ("" is hardware)."""
        for cube, _, peer in self.named:
            entry = self.cubes.get(cube)
            if entry is None or entry.settled:
                continue
            other = self.cubes.get(peer.partition(":")[0])
            hook, mode = ("xdp", "drv") if kinds.get(peer) == "" else ("tc", "")
            if other:
                hook, mode = other.hook, other.mode
            self.cubes[cube] = replace(entry, hook=hook, mode=mode, settled=True)

    def check(self, netdevs: Mapping[str, bool]) -> None:
        """Refuses links that can't be. `netdevs`: those there are -> whether they are up."""
        for entry in self.cubes.values():
            if not entry.transparent:
                _check_shadow(entry.name, entry.standard)
        users: dict[str, str] = {}
        for entry, port in self.ports():
            if port.peer and port.peer != HOST and ":" not in port.peer:
                here = f"{entry.name}:{port.name}"
                if port.peer in users:
                    raise Refused(f"netdev {port.peer} can't be the peer of {here}: it is that of {users[port.peer]}")
                users[port.peer] = here
            for tcube in port.tcubes:
                self._check_attached(tcube, f"{entry.name}:{port.name}")
                self._check_types(self.cubes[tcube], entry, f"{entry.name}:{port.name}")
        for netdev, stack in self.attached.items():
            self._check_netdev(netdev, [self.cubes[name] for name in stack if name in self.cubes])
        for cube, port_name, peer in self.named:
            self._check_peer(cube, port_name, peer, netdevs)

    def _check_netdev(self, netdev: str, stack: Iterable[Entry]) -> None:
        """A netdev runs XDP in one mode."""
        owners = [entry for entry, port in self.ports() if port.peer == netdev]
        users = [entry for entry in [*owners, *stack] if entry.hook == "xdp"]
        for entry in users[1:]:
            self._check_types(entry, users[0], f"{users[0].name} on {netdev}")

    def _check_attached(self, name: str, target: str) -> None:
        self.transparent(name)
        places = [f"{e.name}:{p.name}" for e, p in self.ports() if name in p.tcubes]
        places += [netdev for netdev, cubes in self.attached.items() if name in cubes]
        if len(places) > 1:
            raise Refused(f"{name} can't be attached to {target}: it is attached to {next(p for p in places if p != target)}")

    def _check_peer(self, cube: str, port: str, peer: str, netdevs: Mapping[str, bool]) -> None:
        here = f"{cube}:{port}"
        if cube not in self.cubes or peer == HOST:
            return
        if peer.startswith(":"):
            raise Refused(f"{peer} can't be the peer of {here}: a netdev, cube:port or {HOST} is expected")
        if peer == "lo":
            raise Refused(f"lo can't be the peer of {here}: it is the loopback device")
        if ":" not in peer:
            if not netdevs.get(peer):
                state = "is down" if peer in netdevs else f"does not exist{suggest(peer, netdevs)}"
                raise Refused(f"Interface {peer}, wanted as peer of {here}, {state}")
            return
        if peer == here:
            raise Refused(f"{here} can't be its own peer")
        other = self.cubes.get(peer.partition(":")[0])
        if other is None:
            return
        if other.transparent:
            raise Refused(f"{peer} can't be the peer of {here}: {other.name} is transparent")
        if other.hook != self.cubes[cube].hook:
            raise Refused("It is not possible to connect TC and XDP ports")


def _check_shadow(name: str, config: StandardCube) -> None:
    """Span without a namespace, and ports that can't be netdevs in one."""
    if config.span and not config.shadow:  # the first part in upstream's words
        raise Refused(f"Span mode is not present in no-shadow services: create {name} with shadow=true, or leave out span")
    for port in config.ports if config.shadow else ():
        if len(port) >= IFNAMSIZ or port in NO_NETDEVS:
            raise Refused(
                f"{name}:{port} can't be the netdev {port} of the namespace of a shadow cube: "
                f"a name of at most {IFNAMSIZ - 1} characters is expected, other than {', '.join(NO_NETDEVS)}"
            )


def _free(taken: set[int], limit: int, what: str, first: int = 1) -> int:
    for number in range(first, limit + 1):
        if number not in taken:
            return number
    raise OutOfRoom(what, limit + 1 - first)
