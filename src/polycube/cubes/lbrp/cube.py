# SPDX-License-Identifier: Apache-2.0
"""The control plane of lbrp: services to tables, health checks, and the end of sessions.

Services, their tables and health checks are what any balancer has (toolkit/balancer.py). Sessions are the data plane's: they keep their
backend whatever happens to services, until it is found to be down; then they are forgotten, so that clients are reset by another backend
instead of waiting for a dead one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from polycube.core.cube import action, every
from polycube.cubes.lbrp import services
from polycube.cubes.lbrp.model import LbrpConfig, PortMode, Removed
from polycube.model import Diff, ModelError
from polycube.toolkit.address import mapped, unmapped
from polycube.toolkit.balancer import NO_PORT, Balanced, Balancer, PortType, Server, ServiceKey
from polycube.toolkit.conntrack import GRACE, Session, SessionTable, failures, monotonic, protocol_name, tuple_key, unpacked

SHOWN = 1000  # sessions in an answer


class Lbrp(Balancer[LbrpConfig]):
    """LoadBalancer Reverse-Proxy Service"""

    config = LbrpConfig
    backends = "targets"
    learned = ("sessions", "returns", "affinities", "clients")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sessions: SessionTable | None = None
        self._forgetting: set[asyncio.Task[int]] = set()

    @classmethod
    def sizes(cls, config: LbrpConfig) -> dict[str, int]:
        sizes = {"sessions": config.session_table_size, "returns": config.session_table_size}
        return sizes | {f"shortcuts{version}": os.cpu_count() or 1 for version in (4, 6)}  # a CPU that comes later does without

    # ---- configuration ----

    def apply(self, change: Diff[LbrpConfig]) -> None:
        new = change.new
        if new is None:
            return
        found = services.problems(new)
        if found:
            raise ModelError(*found)
        self.cfg["rewrite"] = services.rewrite(new.src_ip_rewrite)
        self.cfg["ct_timeouts"] = new.session.timeout.cfg()
        self._write_ports(new)
        self.balance(change)

    def services(self, config: LbrpConfig) -> Mapping[ServiceKey, Balanced]:
        return services.balanced(config)

    def facts(self, changed: Sequence[str]) -> None:
        if self.current is not None:
            self._write_ports(self.current)

    def _write_ports(self, config: LbrpConfig) -> None:
        numbers = {name: facts.number for name, facts in self.ports.items()}
        by_type = {port.type: numbers[name] for name, port in config.ports.items() if name in numbers}
        self.cfg["settings"] = {
            "backend": by_type.get(PortType.BACKEND, NO_PORT),
            "frontend": by_type.get(PortType.FRONTEND, NO_PORT),
            "multi": int(config.port_mode is PortMode.MULTI),
        }
        view, wanted = self.maps["frontends"], services.frontends(config, numbers)
        there = {key["bytes"]: number for key, number in view.items()}
        for ip, number in wanted.items():
            if there.pop(mapped(ip), None) != number:
                view[{"bytes": mapped(ip)}] = number
        for gone in there:
            del view[{"bytes": gone}]

    # ---- health ----

    def lost(self, servers: Sequence[tuple[ServiceKey, Server]]) -> None:
        gone = [(key.vip, one.key["backend"] | {"pad": 0}) for key, one in servers]

        def is_lost(session: Session) -> bool:
            found = [backend for vip, backend in gone if session.destination == vip]
            return bool(found) and unpacked(self.maps["sessions"], session)["backend"] in found

        task = asyncio.create_task(self._remove(is_lost))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    def close(self) -> None:
        super().close()
        for task in self._forgetting:
            task.cancel()

    # ---- sessions ----

    @property
    def sessions(self) -> SessionTable:
        if self._sessions is None:
            self._sessions = SessionTable(self.maps["sessions"], self.maps["returns"], self._twin_of)
        return self._sessions

    def _twin_of(self, session: Session) -> bytes | None:
        """The key that leads to a session from the backend's side."""
        value = unpacked(self.maps["sessions"], session)
        source = unmapped(value["source"]["bytes"]) if value["other_source"] else session.source
        backend = unmapped(value["backend"]["address"]["bytes"])
        port = socket.ntohs(value["backend"]["port"]) or session.dport
        return tuple_key(source, socket.ntohs(value["sport"]), backend, port, session.protocol)

    @every(5.0)
    async def sweep(self) -> None:
        """Removes what has expired: sessions, and clients whose backend is remembered."""
        await self.sessions.sweep()
        view = self.maps["affinities"]
        field = next(one for one in view.shape.value.fields if one.name == "expires")
        limit = monotonic() - GRACE
        gone = [key for key, value in view.packed_items() if int.from_bytes(value[field.offset : field.offset + 4], "little") < limit]
        view.delete_many(gone)

    @action("session/flush")
    async def flush(self) -> Removed:
        return Removed(removed=await self._remove(lambda _: True))

    async def _remove(self, which: Callable[[Session], bool]) -> int:
        """Removes sessions that may be in use, and then the shortcuts to them (shortcut.h)."""
        try:
            return await self.sessions.flush(which)
        finally:
            self.maps["removals"][0] = ((self.maps["removals"].get(0) or 0) + 1) & 0xFFFFFFFF

    # ---- state ----

    def state(self) -> Mapping[str, Any]:
        if self.current is None:
            return {}
        known, shown = self.known(), []
        for service in self.current.service.values():
            about = {ip: known.get(services.about(service, ip), {}) for ip in service.backend}
            backends = [{"ip": str(ip), **found} for ip, found in about.items()]
            shown.append({"vip": str(service.vip), "vport": service.vport, "proto": str(service.proto), "backend": backends})
        return {"service": shown, "session": self._session_state()}

    def _session_state(self) -> dict[str, Any]:
        entries = []
        for session in islice(self.sessions, SHOWN):
            backend = unpacked(self.maps["sessions"], session)["backend"]
            entries.append(
                {
                    "client": str(session.source),
                    "cport": session.sport,
                    "vip": str(session.destination),
                    "vport": session.dport,
                    "proto": protocol_name(session.protocol),
                    "backend": str(unmapped(backend["address"]["bytes"])),
                    "port": socket.ntohs(backend["port"]) or session.dport,
                    "state": session.state.word,
                    "eta": session.eta,
                }
            )
        failed = sum(self.maps["affinity_failures"].percpu(0))
        return {"live": self.sessions.live, "failures": failures(self.maps["ct_failures"]), "affinity-failures": failed, "entry": entries}
