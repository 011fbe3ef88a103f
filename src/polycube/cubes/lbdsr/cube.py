# SPDX-License-Identifier: Apache-2.0
"""The control plane of lbdsr: services, their tables and health checks are what any balancer has (toolkit/balancer.py); beside them the
addresses of outer headers, and answers to what does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from polycube.core.cube import Packet, PortFacts
from polycube.core.slowpath import NotSent
from polycube.cubes.lbdsr.model import LbdsrConfig
from polycube.cubes.lbdsr.services import pools, problems
from polycube.model import Diff, ModelError
from polycube.net.addr import Mac
from polycube.toolkit import frame, icmp
from polycube.toolkit.balancer import NO_PORT, Balanced, Balancer, PortType, ServiceKey

TOO_BIG = 2  # enum lbdsr_reason


class Lbdsr(Balancer[LbdsrConfig]):
    """LoadBalancer Direct Server Return Service"""

    config = LbdsrConfig
    backends = "backends"
    learned = ("flows",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answered = 0

    @classmethod
    def sizes(cls, config: LbdsrConfig) -> dict[str, int]:
        return {"flows": max(1, config.flow_table_size)}

    # ---- configuration ----

    def apply(self, change: Diff[LbdsrConfig]) -> None:
        new = change.new
        if new is None:
            return
        found = problems(new)
        if found:
            raise ModelError(*found)
        self.cfg["settings"] = self._settings(new)
        self.balance(change)

    def services(self, config: LbdsrConfig) -> Mapping[ServiceKey, Balanced]:
        return {pool.key: Balanced(pool, pool.servers) for pool in pools(config)}

    def facts(self, changed: Sequence[str]) -> None:
        if self.current is not None:
            self.cfg["settings"] = self._settings(self.current)

    def _settings(self, config: LbdsrConfig) -> dict[str, Any]:
        ports = {port.type: self.ports[name] for name, port in config.ports.items() if name in self.ports}
        front, back = ports.get(PortType.FRONTEND), ports.get(PortType.BACKEND)
        return {
            "frontend": front.number if front else NO_PORT,
            "backend": back.number if back else NO_PORT,
            "mtu": back.netdev.mtu if back and back.netdev else 0,
            "flow_table": int(config.flow_table_size > 0),
            "mac": bytes(self._mac(config)),
            "own_mac": bytes(self._netdev_mac(PortType.BACKEND, config)),
            "gateway": bytes(Mac.parse(config.outer.gateway)) if config.outer.gateway else bytes(6),
            "source4": config.outer.source.packed,
            "source6": config.outer.source6.packed,
            "gue_port": int.from_bytes(config.outer.gue_port.to_bytes(2, "big"), "little"),
        }

    def _mac(self, config: LbdsrConfig) -> Mac:
        """That of the VIPs."""
        return Mac.parse(config.frontend.mac) if config.frontend.mac is not None else self._netdev_mac(PortType.FRONTEND, config)

    def _netdev_mac(self, type: PortType, config: LbdsrConfig) -> Mac:
        """That of the netdev a port leads to, else one of its own."""
        for name, port in config.ports.items():
            netdev = self.ports[name].netdev if name in self.ports else None
            if port.type is type and netdev is not None:
                return Mac.parse(netdev.mac)
        return Mac.derived(self.uuid, str(type))

    # ---- packets ----

    async def packet(self, packet: Packet) -> None:
        await super().packet(packet)
        if packet.reason == TOO_BIG and packet.port is not None and self.current is not None:
            self._too_big(packet.data, packet.port, packet.metadata[0], self.current)

    def _too_big(self, data: bytes, port: PortFacts, mtu: int, config: LbdsrConfig) -> None:
        """Tells the client, on behalf of the VIP; also one that left it to routers to fragment, since none will."""
        packet = frame.read_ip(data)
        if packet is None or not icmp.may_answer(packet):
            return
        error = icmp.error(icmp.Error.TOO_BIG, packet, packet.target, mtu)
        with suppress(NotSent):
            self.send(port, frame.ip_frame(frame.source_mac(data), self._mac(config), error))
            self._answered += 1

    # ---- state ----

    def state(self) -> Mapping[str, Any]:
        if self.current is None:
            return {}
        shown: dict[str, Any] = {"frontend": {"mac": str(self._mac(self.current))}, "service": [], "answered": self._answered}
        known = self.known()
        for pool in pools(self.current):
            servers = [{"id": id, **known[pool.about(id)]} for id in pool.entries]
            if pool.path[0] == "backend":
                shown["backend"] = {"pool": servers}
            else:
                shown["service"].append({"vip": str(pool.vip), "vport": pool.vport, "proto": str(pool.proto), "backend": servers})
        return shown
