# SPDX-License-Identifier: Apache-2.0
"""From cubes, links and netdevs to what the kernel must hold: a pure function.

`build` takes the world as data and returns resources (operation.py) together with the state of every port. It is called for each
change, each netdev event and each start, and never looks at what stands: differences are found by comparing its results.

A frame's way is a list of *hops*. Leaving a port it meets the port's transparent cubes from the innermost to the outermost, then the
peer: a netdev, or the other cube's transparent cubes from the outermost to the innermost and that cube. Each hop's table holds the next
one, so that any of them can be replaced alone. In native XDP a netdev's own transparent cubes are hops before the redirect, since
redirected frames do not meet TC; in TC they stand on the netdev's egress hook and are met there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from polycube.core.operation import Key, Kind

HOST = ":host"
IFNAMSIZ = 16
MTU = 1500  # of ports that lead to no netdev
VETH_BASE = 0x40000000  # internal veths have indexes of their own choosing, beyond what the kernel gives out
SHADOW_BASE = 0x44000000  # those of veths into cubes' namespaces, by the port's id
HOST_BASE = 0x48000000  # and so have those of ports that lead to the host
ANY_PORT = 0xFFFF
INGRESS, EGRESS = 0, 1


@dataclass(frozen=True)
class PortSpec:
    """A port of a standard cube."""

    name: str
    number: int
    id: int
    peer: str = ""
    tcubes: tuple[str, ...] = ()  # innermost first


@dataclass(frozen=True)
class CubeSpec:
    """A cube, as far as the kernel is concerned."""

    name: str
    uuid: str
    number: int
    transparent: bool
    hook: str  # "tc" or "xdp"
    mode: str = ""  # of XDP: "skb" or "drv"
    ports: tuple[PortSpec, ...] = ()
    ids: tuple[int, int] = (0, 0)  # of a transparent cube: of its two directions
    units: Mapping[str, str] = field(default_factory=dict)  # hook -> its unit, named by hook and digest of the object
    floods: bool = False
    egress: bool = False  # has an egress handler
    cfg: Mapping[str, str] = field(default_factory=dict)
    netdevs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # port -> MAC and addresses it gives to its netdev
    loglevel: int = 2  # enum pcn_log_level
    domains: Mapping[int, Sequence[int]] = field(default_factory=dict)  # flood domains beside 0 -> numbers of their ports
    shadow: bool = False  # has a namespace

    @property
    def namespace(self) -> str:
        """What the namespace of a shadow cube is called by `ip netns`."""
        return f"pcn-{self.name}"

    @property
    def slot(self) -> int:
        return self.number * 2


@dataclass(frozen=True)
class NetdevSpec:
    """A netdev of the daemon's namespace."""

    name: str
    ifindex: int
    up: bool = True
    mtu: int = MTU
    peer_away: bool = False  # a veth whose other end is in another namespace
    xdp_problem: str = ""  # why it can't be made ready for native XDP


@dataclass(frozen=True)
class World:
    """Everything `build` looks at."""

    cubes: Mapping[str, CubeSpec]
    netdevs: Mapping[str, NetdevSpec]
    attached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # netdev -> transparent cubes, nearest to the wire first
    inject: int = 0  # ifindex of the injection device
    shut: AbstractSet[int] = frozenset()  # ids of ports that somebody has set down in the namespace of their cube


@dataclass(frozen=True)
class PortState:
    """Whether frames can pass a port, and if not, why."""

    up: bool
    reason: str = ""
    netdev: str = ""


@dataclass(frozen=True)
class Hop:
    """A cube on a frame's way: which of its programs, and where the frame arrives."""

    cube: CubeSpec
    port: int
    id: int

    @property
    def slot(self) -> int:
        return self.cube.slot + (self.port if self.cube.transparent else 0)

    @property
    def program(self) -> str:
        """The one that is attached to a netdev's hook."""
        return ("ingress", "egress")[self.port] if self.cube.transparent else "entry"


class Builder:
    """One run of `build`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.resources: dict[Key, Any] = {}
        self.states: dict[tuple[str, str], PortState] = {}
        self.hosts: dict[str, NetdevSpec] = {}  # ends of ports that lead to the host
        self.owners = {port.peer: (cube, port) for cube in world.cubes.values() for port in cube.ports if port.peer in world.netdevs}

    def build(self) -> None:
        for cube in self.world.cubes.values():
            if not cube.transparent:
                self._standard(cube)
        for name in dict.fromkeys([*self.owners, *self.world.attached]):
            netdev = self.hosts.get(name) or self.world.netdevs.get(name)
            if netdev:
                self._netdev(netdev)
        for cube in self.world.cubes.values():
            self._unit(cube)

    # ---- cubes ----

    def _unit(self, cube: CubeSpec) -> None:
        self._put(Kind.STATE, (cube.uuid,), {})
        programs = ("ingress_tail", "egress_tail") if cube.transparent else ("tail",)
        for hook, unit in cube.units.items():
            self._put(Kind.UNIT, (cube.uuid, unit), {})
            numbers = {"pcn_cube": cube.number, "pcn_loglevel": cube.loglevel, "pcn_shadow_base": SHADOW_BASE if cube.shadow else 0}
            numbers |= {"pcn_inject": self.world.inject} if hook == "tc" else {}
            framework = {name: number.to_bytes(4, "little").hex() for name, number in numbers.items()}
            self._put(Kind.CFG, (cube.uuid, unit), dict(cube.cfg) | framework)
            for offset, program in enumerate(programs):
                self._put(Kind.SLOT, (hook, cube.slot + offset), {"uuid": cube.uuid, "unit": unit, "program": program})
            if cube.transparent:  # what is attached nowhere leads nowhere
                for direction in (INGRESS, EGRESS):
                    self.resources.setdefault(Key(Kind.PORT, (cube.uuid, unit, direction)), _none(cube.ids[direction]))

    def _standard(self, cube: CubeSpec) -> None:
        members: list[tuple[PortSpec, dict[str, Any]]] = []
        for port in cube.ports:
            state, final = self._peer(cube, port)
            self.states[cube.name, port.name] = state
            if isinstance(final, NetdevSpec):
                self._give(final, cube.netdevs.get(port.name, {}))
            stack = self._stack(port)
            self._chain_in(cube.hook, list(reversed(stack)), Hop(cube, port.number, port.id))
            value = self._chain_out(cube, port, stack, final)
            if value["next"] != "none":
                members.append((port, value))
        if cube.floods:
            self._flood(cube, members)
        if cube.shadow:
            self._shadow(cube)

    def _shadow(self, cube: CubeSpec) -> None:
        """A namespace, and a veth into it for each port, with a carrier while the port is up. What comes from there leaves by the port."""
        self._put(Kind.NAMESPACE, (cube.namespace,), {"uuid": cube.uuid})
        for port in cube.ports:
            index, state = SHADOW_BASE + port.id, self.states[cube.name, port.name]
            netdev = self.world.netdevs.get(state.netdev)
            value = {
                "namespace": cube.namespace,
                "name": port.name,
                "mode": cube.mode,
                "mtu": netdev.mtu if netdev else MTU,
                "up": state.up,
            }
            self._put(Kind.SHADOW, (index,), value)
            self._put(Kind.LEAD, (index,), {"slot": cube.slot, "port": port.number})

    def _give(self, netdev: NetdevSpec, wanted: Mapping[str, Any]) -> None:
        if "mac" in wanted:
            self._put(Kind.NETDEV, (netdev.ifindex, "mac"), wanted["mac"])
        for address in wanted.get("addresses", ()):
            self._put(Kind.NETDEV, (netdev.ifindex, address), "address")

    def _stack(self, port: PortSpec) -> list[CubeSpec]:
        return [self.world.cubes[name] for name in port.tcubes if name in self.world.cubes]

    def _peer(self, cube: CubeSpec, port: PortSpec) -> tuple[PortState, list[Hop] | NetdevSpec | str]:
        """State of a port, and what follows behind its own transparent cubes."""
        if self._shut(cube, port.id):
            return PortState(False, f"{port.name} is set down in the namespace {cube.namespace}"), "none"
        if not port.peer:
            return PortState(False, "no peer"), "none"
        if port.peer == HOST:
            return self._host(cube, port)
        if ":" in port.peer:
            return self._peer_cube(cube, port)
        netdev = self.world.netdevs.get(port.peer)
        if netdev is None:
            return PortState(False, f"netdev {port.peer} is not there"), "none"
        if cube.mode == "drv" and netdev.xdp_problem:
            return PortState(False, netdev.xdp_problem), "none"
        if not netdev.up:
            return PortState(False, f"netdev {port.peer} is down", netdev.name), "none"
        return PortState(True, netdev=netdev.name), netdev

    def _shut(self, cube: CubeSpec, id: int) -> bool:
        """Whether a port is set down: nothing leaves or enters by it."""
        return cube.shadow and id in self.world.shut

    def _host(self, cube: CubeSpec, port: PortSpec) -> tuple[PortState, NetdevSpec]:
        """A veth pair: one end for the host to put addresses on, the other one is the port's netdev."""
        index, name = HOST_BASE + 2 * port.id, f"{cube.name}-{port.name}"
        self._put(Kind.HOST, (index,), {"name": name if len(name) < IFNAMSIZ else f"pcn-{port.id}", "port": f"pcn{port.id}h"})
        netdev = NetdevSpec(f"pcn{port.id}h", index + 1)
        self.owners[netdev.name] = (cube, port)
        self.hosts[netdev.name] = netdev
        return PortState(True, netdev=netdev.name), netdev

    def _peer_cube(self, cube: CubeSpec, port: PortSpec) -> tuple[PortState, list[Hop] | str]:
        name, _, other_name = port.peer.partition(":")
        other = self.world.cubes.get(name)
        peer = next((p for p in other.ports if p.name == other_name), None) if other else None
        if other is None or peer is None:
            return PortState(False, f"peer {port.peer} is not there"), "none"
        if peer.peer != f"{cube.name}:{port.name}":
            return PortState(False, f"peer {port.peer} does not name this port"), "none"
        if self._shut(other, peer.id):
            return PortState(False, f"peer {port.peer} is set down in the namespace {other.namespace}"), "none"
        inward = [Hop(tcube, INGRESS, tcube.ids[INGRESS]) for tcube in reversed(self._stack(peer))]
        return PortState(True), [*inward, Hop(other, peer.number, peer.id)]

    def _chain_in(self, hook: str, inward: Iterable[CubeSpec], last: Hop | None, netdev: NetdevSpec | None = None) -> None:
        """Next hops of transparent cubes on the way in, from the outermost; behind the last one `last`, or the stack."""
        hops = [Hop(tcube, INGRESS, tcube.ids[INGRESS]) for tcube in inward]
        for hop, following in zip(hops, [*hops[1:], last], strict=False):
            closed = following is last and last is not None and self._shut(last.cube, last.id)
            value = _none(hop.id) if closed else _to_hop(hop.id, following) if following else _hook(hop.id, "stack", netdev)
            self._port(hop, hook, value)

    def _chain_out(self, cube: CubeSpec, port: PortSpec, stack: list[CubeSpec], final: list[Hop] | NetdevSpec | str) -> dict[str, Any]:
        """Next hops on the way out of a port; returns the port's own."""
        outward = [Hop(tcube, EGRESS, tcube.ids[EGRESS]) for tcube in stack]
        netdev = final if isinstance(final, NetdevSpec) else None
        if netdev and cube.hook == "xdp":
            outward += [Hop(tcube, EGRESS, tcube.ids[EGRESS]) for tcube in reversed(self._attached(netdev))]
        way = [Hop(cube, port.number, port.id), *outward]
        values = [_to_hop(hop.id, following) for hop, following in pairwise(way)]
        values.append(self._final(cube.hook, way[-1].id, final))
        if len(outward) or values[0]["next"] != "netdev" or cube.egress:
            values[0]["flags"] = [*values[0]["flags"], "indirect"]
        for hop, value in zip(way, values, strict=True):
            self._port(hop, cube.hook, value)
        return values[0]

    def _final(self, hook: str, id: int, final: list[Hop] | NetdevSpec | str) -> dict[str, Any]:
        if isinstance(final, NetdevSpec):
            value = _none(id) | {"next": "netdev", "target": final.ifindex}
            if hook == "xdp":
                self._put(Kind.DEVICE, (id,), final.ifindex)
            elif final.peer_away and not self._attached(final):
                value["flags"] = ["peer"]
            return value
        if isinstance(final, list):
            return _to_hop(id, final[0])
        return _none(id)

    # ---- flooding ----

    def _flood(self, cube: CubeSpec, members: list[tuple[PortSpec, dict[str, Any]]]) -> None:
        """Of each domain the ports that lead somewhere; of domain 0 all of them."""
        unit = cube.units[cube.hook]
        leading = {port.number for port, _ in members}
        domains = {0: sorted(leading)} | {domain: [one for one in ports if one in leading] for domain, ports in cube.domains.items()}
        domains = {domain: ports for domain, ports in domains.items() if ports}
        for domain, ports in domains.items():
            self._put(Kind.DOMAIN, (cube.uuid, unit, domain), ports)
        if cube.hook != "xdp":
            return
        devices: dict[int, int] = {}
        own_flood = set()
        for port, value in members:
            devices[port.number] = value["target"]
            if "indirect" in value["flags"]:
                index = devices[port.number] = VETH_BASE + 2 * port.id
                self._put(Kind.VETH, (index,), {"name": f"pcn{port.id}", "mode": cube.mode})
                self._put(Kind.LEAD, (index + 1,), {"slot": cube.slot, "port": port.number})
            if "indirect" in value["flags"] or cube.mode == "skb":  # there, injected frames do not show the netdev they stand for
                value["flags"] = [*value["flags"], "own_flood"]
                own_flood.add(port.number)
        for domain, ports in domains.items():
            self._put(Kind.FLOOD, (cube.uuid, unit, domain, ANY_PORT), sorted(devices[one] for one in ports))
            for number in own_flood.intersection(ports):
                self._put(Kind.FLOOD, (cube.uuid, unit, domain, number), sorted(devices[one] for one in ports if one != number))

    # ---- netdevs ----

    def _attached(self, netdev: NetdevSpec) -> list[CubeSpec]:
        return [self.world.cubes[name] for name in self.world.attached.get(netdev.name, ()) if name in self.world.cubes]

    def _netdev(self, netdev: NetdevSpec) -> None:
        attached = self._attached(netdev)
        owner, port = self.owners.get(netdev.name, (None, None))
        if owner and owner.mode == "drv" and netdev.xdp_problem:
            owner = port = None
        for hook, point in (("xdp", "xdp"), ("tc", "tc-ingress")):
            inward = [tcube for tcube in attached if tcube.hook == hook]
            last = None
            if owner and port and owner.hook == hook:
                inward += reversed(self._stack(port))
                last = Hop(owner, port.number, port.id)
                if not self._shut(owner, port.id):
                    self._put(Kind.ENTRY, (netdev.ifindex,), {"port": port.number, "id": port.id})
                if owner.hook == "xdp" and not netdev.xdp_problem:  # generic XDP works without, but not with segmentation offload
                    self._put(Kind.READY, (netdev.ifindex,), {"name": netdev.name})
            if not inward and not last:
                continue
            self._chain_in(hook, inward, last, netdev)
            first = Hop(inward[0], INGRESS, 0) if inward else last
            assert first
            mode = next((cube.mode for cube in [*inward, owner] if cube and cube.hook == "xdp"), "") if hook == "xdp" else ""
            self._attach(netdev, point, hook, first, mode)
        outward = [Hop(tcube, EGRESS, tcube.ids[EGRESS]) for tcube in reversed(attached)]
        if outward:
            for hop, following in pairwise(outward):
                self._port(hop, "tc", _to_hop(hop.id, following))
            self._port(outward[-1], "tc", _hook(outward[-1].id, "netdev", netdev))
            self._attach(netdev, "tc-egress", "tc", outward[0], "")

    def _attach(self, netdev: NetdevSpec, point: str, hook: str, hop: Hop, mode: str) -> None:
        value = {"uuid": hop.cube.uuid, "unit": hop.cube.units[hook], "program": hop.program}
        self._put(Kind.ATTACH, (netdev.ifindex, point), value | ({"mode": mode} if mode else {}))

    def _port(self, hop: Hop, hook: str, value: dict[str, Any]) -> None:
        self._put(Kind.PORT, (hop.cube.uuid, hop.cube.units[hook], hop.port), value)

    def _put(self, kind: Kind, name: tuple[Any, ...], value: Any) -> None:
        self.resources[Key(kind, name)] = value


def build(world: World) -> tuple[dict[Key, Any], dict[tuple[str, str], PortState]]:
    """Resources that the world needs, and the state of each port by (cube, port)."""
    builder = Builder(world)
    builder.build()
    return builder.resources, builder.states


def hooks(cube: CubeSpec, world: World) -> Iterator[str]:
    """Hooks a cube needs programs for. A transparent cube on a netdev also stands on TC egress, and in XDP before the redirect."""
    yield cube.hook
    if not cube.transparent:
        return
    for name, tcubes in world.attached.items():
        if cube.name in tcubes:
            if cube.hook != "tc":
                yield "tc"
            elif any(other.hook == "xdp" and port.peer == name for other in world.cubes.values() for port in other.ports):
                yield "xdp"


def _none(id: int) -> dict[str, Any]:
    return {"next": "none", "flags": [], "target": 0, "peer_port": 0, "id": id, "peer_id": 0}


def _hook(id: int, following: str, netdev: NetdevSpec | None) -> dict[str, Any]:
    """The end of a netdev's own chain."""
    assert netdev
    return _none(id) | {"next": following, "flags": ["hook"], "target": netdev.ifindex}


def _to_hop(id: int, hop: Hop) -> dict[str, Any]:
    return _none(id) | {"next": "cube", "target": hop.slot, "peer_port": hop.port, "peer_id": hop.id}
