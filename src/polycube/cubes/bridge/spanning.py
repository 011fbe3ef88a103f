# SPDX-License-Identifier: Apache-2.0
"""The spanning trees of a bridge, one for each VLAN, between the engine (tree.py) and the data plane.

Configuration, ports and links are looked at anew with every tick, messages come from the slow path. Whatever a tree decides goes into the
maps before its messages go out. Maps also hold what a successor of this process needs: what each port believed, so that it goes on without
anybody noticing, if it comes before the others have changed the tree. Where another bridge has claimed a port's place meanwhile (the data
plane has blocked the port then), the port begins anew.

VLANs that no port names but trunks of all VLANs carry follow the tree of VLAN 1, until a BPDU of their own is heard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from polycube.core.cube import PortFacts
from polycube.core.slowpath import NotSent
from polycube.cubes.bridge.bpdu import Bpdu, Times, frame
from polycube.cubes.bridge.model import BridgeConfig, BridgePort, PortStp, Stp, StpRole, StpState, StpVersion
from polycube.cubes.bridge.port import Role, TreePort
from polycube.cubes.bridge.tree import ADDRESS, Settings, Tree
from polycube.cubes.bridge.vlans import DEFAULT, EVERY, VLANS, Membership, memberships, named
from polycube.net.addr import Mac
from polycube.toolkit.fdb import now

if TYPE_CHECKING:
    from polycube.core.maps import MapViews
    from polycube.cubes.bridge.cube import Bridge

DISCARDING, LEARNING, FORWARDING, TOWARDS_ROOT = range(4)  # enum bridge_state
GUARDED = 0  # in the place of a VLAN: the port was closed by its guard
MOST_HEARD = 256  # VLANs that have a tree only because a BPDU of theirs was heard


class Spanning:
    """See the module's docstring."""

    def __init__(self, cube: Bridge) -> None:
        self.cube = cube
        self.trees: dict[int, Tree] = {}
        self._heard: set[int] = set()
        self._states: dict[int, dict[str, Any]] = {}  # as they are in the map, by port
        self._kept: dict[tuple[int, int], bytes] = {}  # likewise, by VLAN and port
        self._next = time.monotonic() + 1

    # ---- what happens ----

    def tick(self) -> None:
        """To be called more often than once a second."""
        self._follow()
        while self._next <= time.monotonic():
            self._next += 1
            for tree in self.trees.values():
                tree.tick()
        self._settle()
        hello = min((min(tree.settings.times.hello, tree.root_times.hello) for tree in self.trees.values()), default=2)
        self.cube.beat(max(2 * hello - 1, 1))

    def receive(self, port: int, vlan: int, bpdu: Bpdu) -> None:
        """A BPDU came by a port."""
        config = self.cube.current
        assert config is not None
        for name, facts in self.cube.ports.items():
            if facts.number == port and config.ports[name].bpdu_guard:
                self.cube.maps["bridge_heard"][{"vlan": GUARDED, "port": port}] = now()
                self.cube.log.warning("closed: a bridge is where none may be", port=name)
        if vlan not in self.trees and len(self._heard) < MOST_HEARD:
            self._heard.add(vlan)
        self._follow()
        if vlan in self.trees:
            self.trees[vlan].receive(port, bpdu)
        self._settle()

    # ---- configuration ----

    def _follow(self) -> None:
        """Trees and their ports become what configuration and links say."""
        config = self.cube.current
        assert config is not None
        members = memberships(config)
        if not self.trees:
            self._adopt()
        wanted = named(members) | self._heard
        if any(one.vlans is EVERY for one in members.values()):
            wanted |= {DEFAULT}
        for vlan in self.trees.keys() - wanted:
            del self.trees[vlan]
        for vlan in wanted:
            tree = self.trees.get(vlan)
            settings = _settings(config, vlan, self.cube.address)
            if tree is None:
                tree = self.trees[vlan] = Tree(settings)
            tree.configure(settings)
            self._follow_ports(config, vlan, tree, {name for name, one in members.items() if vlan in one.vlans})
            tree.run()

    def _follow_ports(self, config: BridgeConfig, vlan: int, tree: Tree, names: set[str]) -> None:
        numbers = {self.cube.ports[name].number: name for name in names if name in self.cube.ports}
        for number in tree.ports.keys() - numbers.keys():
            tree.remove(number)
        for number, name in numbers.items():
            port = config.ports[name]
            own = port.stp.get(vlan) or PortStp(vlan=vlan)
            if number not in tree.ports:
                tree.add(number, kept=self._kept.get((vlan, number)))
            tree.change(number, cost=own.path_cost, priority=own.port_priority, edge=port.edge)
            tree.link(number, has_link(self.cube.ports[name]) and not self._is_guarded(port, number))

    def _is_guarded(self, port: BridgePort, number: int) -> bool:
        return port.bpdu_guard and {"vlan": GUARDED, "port": number} in self.cube.maps["bridge_heard"]

    def _adopt(self) -> None:
        """What an earlier process has left; what others may have taken back is forgotten."""
        config = self.cube.current
        assert config is not None
        beat = self.cube.maps["bridge_heartbeats"][0]["beat"]
        heard = {(key["vlan"], key["port"]): second for key, second in self.cube.maps["bridge_heard"].items()}
        oldest = now() - min((one.max_message_age for one in config.stp.values()), default=Stp(vlan=DEFAULT).max_message_age)
        for key, value in list(self.cube.maps["bridge_memories"].items()):
            at, kept = (key["vlan"], key["port"]), value["data"]
            claimed = heard.get(at, 0) >= beat and TreePort.kept_role(kept) is not Role.ROOT
            if beat < oldest or claimed:
                del self.cube.maps["bridge_memories"][key]
            else:
                self._kept[at] = kept

    # ---- effects ----

    def _settle(self) -> None:
        """The maps become what the trees say, then their messages are sent."""
        for number, record in self._records():
            if self._states.get(number) != record:
                self.cube.maps["bridge_trees"][number] = record
                self._states[number] = record
        self._remember()
        config = self.cube.current
        assert config is not None
        members = memberships(config)
        names = {facts.number: name for name, facts in self.cube.ports.items()}
        for vlan, tree in self.trees.items():
            for number, bpdu in tree.outbox:
                if number in names:
                    self._send(number, config.ports[names[number]], members[names[number]], vlan, bpdu)
            tree.outbox.clear()

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """struct bridge_tree of each port."""
        config = self.cube.current
        assert config is not None
        flushed = {number for tree in self.trees.values() for number in tree.flushed}
        for tree in self.trees.values():
            tree.flushed.clear()
        for name, one in memberships(config).items():
            if name not in self.cube.ports:
                continue
            number = self.cube.ports[name].number
            fill = _state(self.trees[DEFAULT].ports[number]) if one.vlans is EVERY else DISCARDING
            states = bytearray([fill * 0x55]) * (VLANS // 4)
            for vlan, tree in self.trees.items():
                if number in tree.ports:
                    shift = (vlan & 3) * 2
                    states[vlan >> 2] = states[vlan >> 2] & ~(3 << shift) | _state(tree.ports[number]) << shift
            before = self._states.get(number) or self.cube.maps["bridge_trees"][number]
            yield number, {"flushed": now() if number in flushed else before["flushed"], "states": bytes(states)}

    def _remember(self) -> None:
        memories = self.cube.maps["bridge_memories"]
        kept = {(vlan, number): port.pack() for vlan, tree in self.trees.items() for number, port in tree.ports.items()}
        for at, data in kept.items():
            if self._kept.get(at) != data:
                memories[{"vlan": at[0], "port": at[1]}] = {"data": data}
        for at in self._kept.keys() - kept.keys():
            del memories[{"vlan": at[0], "port": at[1]}]
        self._kept = kept

    def _send(self, number: int, port: BridgePort, member: Membership, vlan: int, bpdu: Bpdu) -> None:
        source = Mac.parse(port.mac) if port.mac else self.cube.address
        try:
            self.cube.send(number, frame(bpdu, source, vlan, per_vlan=vlan != member.pvid))
        except NotSent as error:  # lost, as on any link; the next one follows soon
            self.cube.log.debug("BPDU not sent", reason=str(error))

    # ---- answers ----

    def ports(self) -> dict[str, list[dict[str, Any]]]:
        """What the ports are in the trees, in the words of the model."""
        names = {facts.number: name for name, facts in self.cube.ports.items()}
        found: dict[str, list[dict[str, Any]]] = {}
        for vlan, tree in sorted(self.trees.items()):
            for number, port in tree.ports.items():
                if number in names:
                    shown = {"vlan": vlan, "state": shown_state(port), "role": StpRole[port.role.name]}
                    found.setdefault(names[number], []).append(shown | {"path-cost": port.cost, "port-priority": port.priority})
        return found

    def bridges(self) -> list[dict[str, Any]]:
        """The trees, likewise."""
        names = {facts.number: name for name, facts in self.cube.ports.items()}
        return [
            {
                "vlan": vlan,
                "version": StpVersion.RSTP if tree.settings.rapid else StpVersion.STP,
                "priority": tree.settings.identifier >> 48,
                "forward-delay": tree.settings.times.forward_delay,
                "hello-time": tree.settings.times.hello,
                "max-message-age": tree.settings.times.max_age,
                "root": f"{tree.root_priority.root >> 48} {Mac.from_bytes((tree.root_priority.root & ADDRESS).to_bytes(6, 'big'))}",
                "root-cost": tree.root_priority.cost,
                "root-port": names.get(-1 if tree.root_port is None else tree.root_port),
                "topology-changes": tree.changes,
            }
            for vlan, tree in sorted(self.trees.items())
        ]


def _settings(config: BridgeConfig, vlan: int, address: Mac) -> Settings:
    own = config.stp.get(vlan) or Stp(vlan=vlan)
    times = Times(0, own.max_message_age, own.hello_time, own.forward_delay)
    return Settings(own.priority << 48 | int.from_bytes(bytes(address), "big"), times, own.version is StpVersion.RSTP)


def _state(port: TreePort) -> int:
    if port.forwarding:
        return TOWARDS_ROOT if port.role is Role.ROOT else FORWARDING
    return LEARNING if port.learning else DISCARDING


def shown_state(port: TreePort) -> StpState:
    """In the words of 802.1D-1998."""
    if not port.enabled:
        return StpState.DISABLED
    if port.forwarding:
        return StpState.FORWARDING
    if port.learning:
        return StpState.LEARNING
    return StpState.LISTENING if port.role in (Role.ROOT, Role.DESIGNATED) else StpState.BLOCKING


def has_link(port: PortFacts) -> bool:
    """Whether frames can pass the port's link."""
    return port.up and (port.netdev is None or port.netdev.running)


def forget_port(maps: MapViews, number: int) -> None:
    """Nothing was ever heard there: its link went down."""
    for key in list(maps["bridge_heard"]):
        if key["port"] == number:
            del maps["bridge_heard"][key]
