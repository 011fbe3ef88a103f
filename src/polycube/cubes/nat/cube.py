# SPDX-License-Identifier: Apache-2.0
"""Network address translation. The data plane opens and follows sessions by itself; the control plane turns rules into tables, follows the
address of the port it stands before, removes what has expired, and sends back what goes from one inside host to another.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polycube.core.cube import Cube, Packet, every, stream
from polycube.core.cube import action as carries_out
from polycube.core.slowpath import NotSent
from polycube.cubes.nat import rules
from polycube.cubes.nat.model import Appended, Behaviour, Done, Flushed, FlushInput, NatConfig
from polycube.cubes.nat.sessions import Sessions
from polycube.model import Diff, Edit, Node, Op, PolycubeError, dump
from polycube.net.addr import Address
from polycube.toolkit.address import mapped
from polycube.toolkit.conntrack import failures

SHOWN = 10_000  # sessions


class BadRange(PolycubeError):
    """There is no port between the first and the last one."""

    def __init__(self, cube: str, first: int, last: int) -> None:
        super().__init__(f"{cube}: first-port {first} is above last-port {last}")


class NeedsMapping(PolycubeError):
    """Anybody may send to a mapped port only if ports are mapped for everybody."""

    def __init__(self, cube: str) -> None:
        super().__init__(f"{cube}: endpoint-independent filtering needs endpoint-independent mapping")


class NotConfigured(PolycubeError):
    """Sessions come of packets, not of requests."""

    def __init__(self, cube: str) -> None:
        super().__init__(f"sessions can't be added to the natting-table of {cube}: packets do that; it can be shown and deleted")


class Nat(Cube[NatConfig]):
    """NAT Service"""

    config = NatConfig
    layer = -10  # nearer to the router than what filters by outside addresses
    learned = ("sessions", "twins", "mappings")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hairpins = 0
        self._masqueraded: dict[int, Address | None] | None = None  # own addresses that the sessions were last compared with
        self._sessions = Sessions(self.maps)

    @classmethod
    def sizes(cls, config: NatConfig) -> dict[str, int]:
        return dict.fromkeys(("sessions", "twins"), config.max_sessions) | {"mappings": 2 * config.max_sessions}

    def apply(self, change: Diff[NatConfig]) -> None:
        new = change.node
        if new.natting_table:
            raise NotConfigured(self.name)
        if new.first_port > new.last_port:
            raise BadRange(self.name, new.first_port, new.last_port)
        if new.filtering == Behaviour.ENDPOINT_INDEPENDENT != new.mapping:
            raise NeedsMapping(self.name)
        self._replace("sources", rules.sources, change)
        self._replace("forwards", rules.forwards, change)
        self._replace("translations", rules.translations, change)
        self.cfg["forwarding"] = int(bool(new.rule.dnat.entry or new.rule.port_forwarding.entry))
        self.cfg["npt"] = int(bool(new.rule.prefix_translation.entry))
        self.cfg["any_mapping"] = int(new.mapping == Behaviour.ENDPOINT_INDEPENDENT)
        self.cfg["any_filter"] = int(new.filtering == Behaviour.ENDPOINT_INDEPENDENT)
        self.cfg["first_port"], self.cfg["port_count"] = new.first_port, new.last_port - new.first_port + 1
        self.cfg["ct_timeouts"] = new.timeouts.cfg()
        self._masquerade(new)

    def facts(self, changed: Sequence[str]) -> None:
        assert self.current
        self._masquerade(self.current)

    def _replace(self, name: str, entries: Callable[[str, NatConfig], rules.Entries], change: Diff[NatConfig]) -> None:
        """Writes the difference of a table."""
        old = entries(self.name, change.old) if change.old else {}
        new = entries(self.name, change.node)
        for identity, (key, _) in old.items():
            if identity not in new:
                del self.maps[name][key]
        for identity, entry in new.items():
            if old.get(identity) != entry:
                self.maps[name][entry[0]] = entry[1]

    def _masquerade(self, config: NatConfig) -> None:
        for version, name in ((4, "masquerade4"), (6, "masquerade6")):
            address = self._own(version) if config.rule.masquerade.enabled else None
            self.cfg[name] = {"bytes": mapped(address) if address else bytes(16)}

    def _own(self, version: int) -> Address | None:
        """The address of the port or netdev that the cube stands before: the primary one of its version, link-local ones excepted."""
        port = self.ports.get("egress")
        if port is None:
            return None
        leaves = port.peer_facts
        texts = [leaves.get("ip"), *(one.get("ip") for one in leaves.get("secondaryip", ()))]
        if not any(texts) and port.netdev:
            texts = list(port.netdev.addresses)
        addresses = [ipaddress.ip_interface(text).ip for text in texts if text]
        return next((one for one in addresses if one.version == version and not one.is_link_local), None)

    # ---- rules by action ----

    @carries_out("rule/snat/append")
    async def append_snat(self, input: Node) -> Appended:
        return await self._append("snat", input)

    @carries_out("rule/dnat/append")
    async def append_dnat(self, input: Node) -> Appended:
        return await self._append("dnat", input)

    @carries_out("rule/port-forwarding/append")
    async def append_forwarding(self, input: Node) -> Appended:
        return await self._append("port-forwarding", input)

    async def _append(self, kind: str, rule: Node) -> Appended:
        assert self.current
        entry = getattr(self.current.rule, kind.replace("-", "_")).entry
        number = max(entry, default=-1) + 1
        await self.edit([Edit(Op.CREATE, ("rule", kind, "entry", str(number)), dump(rule))])
        return Appended(id=number)

    @carries_out("rule/masquerade/enable")
    async def enable_masquerade(self) -> Done:
        await self.edit([Edit(Op.MERGE, ("rule", "masquerade", "enabled"), True)])
        return Done(result=True)

    @carries_out("rule/masquerade/disable")
    async def disable_masquerade(self) -> Done:
        await self.edit([Edit(Op.MERGE, ("rule", "masquerade", "enabled"), False)])
        return Done(result=True)

    # ---- sessions ----

    @carries_out("flush")
    async def flush(self, input: FlushInput) -> Flushed:
        return Flushed(flushed=await self._sessions.flush(input.internal_ip, input.external_ip))

    @stream("sessions")
    def pour(self, reader: socket.socket) -> None:
        """All of them, however many."""
        self._sessions.table.pour(reader, self._sessions.shown)

    def forget(self, path: str, key: str | tuple[Any, ...] | None) -> bool:
        return path == "natting-table" and self._sessions.forget(key if isinstance(key, tuple) else None, everything=key is None)

    def state(self) -> Mapping[str, Any]:
        assert self.current
        enabled = self.current.rule.masquerade.enabled
        own = {name: self._own(version) for version, name in ((4, "address"), (6, "address6"))}
        table = self._sessions.table
        return {
            "rule": {"masquerade": {name: str(address) for name, address in own.items() if enabled and address}},
            "natting-table": [self._sessions.shown(session) for session in itertools.islice(table, SHOWN)],
            "statistics": {
                "sessions": table.live,
                "tcp-established": self._sessions.established,
                "mappings": self._sessions.mapped,
                "failures": failures(self.maps["ct_failures"]),
                "hairpins": self._hairpins,
            },
        }

    async def start(self) -> None:
        await self._sessions.mend()

    @every(5)
    async def sweep(self) -> None:
        """Removes what has expired, and masqueraded sessions of an address that is no longer there: nobody answers to it."""
        assert self.current
        await self._sessions.sweep()
        own = {version: self._own(version) for version in (4, 6)}
        if self.current.rule.masquerade.enabled and self.parent and own != self._masqueraded:
            await self._sessions.drop_masqueraded(own)
            self._masqueraded = own

    async def packet(self, packet: Packet) -> None:
        """From one inside host to another: comes in again as from outside, to the MAC that it was sent from."""
        frame = packet.data[6:12] + packet.data[:6] + packet.data[12:]
        self._hairpins += 1
        with contextlib.suppress(NotSent):
            self.receive(self.ports["ingress"], frame, ifindex=packet.ifindex)
