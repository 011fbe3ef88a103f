# SPDX-License-Identifier: Apache-2.0
"""nat's sessions as the control plane has them: the table, its twins and the mappings.

A session goes before its twin: a packet in between opens a new one with another port, whereas the other way round it would use a session
whose answers find nothing. What a death in between leaves (twins without a session) is mended at the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from polycube.core.maps import MapViews
from polycube.cubes.nat.model import OriginatingRule
from polycube.cubes.nat.rules import MASQUERADE
from polycube.net.addr import Address
from polycube.toolkit.address import unmapped
from polycube.toolkit.conntrack import ICMP, Session, SessionTable, State, expired_entries, monotonic, protocol_name, tuple_key

INSIDE_SECOND, HAIRPIN_BACK = 1, 4  # enum nat_flag
HAIRPIN_ZONE = 1
_RULES = list(OriginatingRule)


class Sessions:
    """All that is remembered of sessions."""

    def __init__(self, maps: MapViews) -> None:
        self._maps = maps
        self.table = SessionTable(maps["sessions"], maps["twins"], self._twin)
        self.mapped = 0  # mappings, as of the last sweep
        fields = {field.name: field.offset for field in maps["sessions"].shape.value.fields}
        self._external, self._port, self._rule, self._flags = (fields[name] for name in ("external", "external_port", "rule", "flags"))

    @property
    def established(self) -> int:
        """Established TCP connections, as of the last sweep."""
        return self.table.counts[State.TCP_ESTABLISHED]

    def shown(self, session: Session) -> dict[str, Any]:
        """A row of the natting table."""
        address, port = self.external(session)
        return {
            "internal-src": str(session.source),
            "internal-dst": str(session.destination),
            "internal-sport": session.sport,
            "internal-dport": session.dport,
            "proto": protocol_name(session.protocol),
            "originating-rule": str(_RULES[self.rule(session)].value),
            "external-ip": str(address),
            "external-port": port,
            "state": session.state.word,
            "eta": session.eta,
        }

    def external(self, session: Session) -> tuple[Address, int]:
        """What the inside end is outside."""
        raw = session.value
        return unmapped(raw[self._external : self._external + 16]), int.from_bytes(raw[self._port : self._port + 2], "big")

    def rule(self, session: Session) -> int:
        """enum nat_rule."""
        return session.value[self._rule]

    def inside(self, session: Session) -> tuple[Address, int]:
        """The inside end."""
        return self._ends(session)[0]

    def _ends(self, session: Session) -> tuple[tuple[Address, int], tuple[Address, int]]:
        """Inside and remote end. The session names its opener first, which is the second of the key if it is swapped."""
        ends = (session.source, session.sport), (session.destination, session.dport)
        second = bool(session.value[self._flags] & INSIDE_SECOND)
        return ends if second == session.swapped else (ends[1], ends[0])

    def _twin(self, session: Session) -> bytes:
        external, port = self.external(session)
        _, (remote, remote_port) = self._ends(session)
        zone = HAIRPIN_ZONE if session.value[self._flags] & HAIRPIN_BACK else 0
        return tuple_key(external, port, remote, port if session.protocol in ICMP else remote_port, session.protocol, zone)

    async def flush(self, internal: Address | None, external: Address | None) -> int:
        """Forgets sessions, all or those of an address."""

        def chosen(session: Session) -> bool:
            return (internal is None or self.inside(session)[0] == internal) and (external is None or self.external(session)[0] == external)

        if internal is None and external is None:
            self._maps["mappings"].clear()
        return await self.table.flush(chosen)

    def forget(self, key: tuple[Any, ...] | None, *, everything: bool) -> bool:
        """Removes the session of a row, or all; False: there is no such row."""
        if everything:
            for batch in self.table.batches():
                self.table.remove(batch)
            return True
        if key is None:
            return False
        wanted = tuple(str(part) for part in key)
        for one in self.table:
            row = self.shown(one)
            if tuple(str(row[name]) for name in ("internal-src", "internal-dst", "internal-sport", "internal-dport", "proto")) == wanted:
                self.table.remove([one])
                return True
        return False

    async def drop_masqueraded(self, own: Mapping[int, Address | None]) -> None:
        """Forgets masqueraded sessions whose external address is not the own one of its version."""

        def gone(session: Session) -> bool:
            address = self.external(session)[0]
            return self.rule(session) == MASQUERADE and address != own[address.version]

        await self.table.flush(gone)

    async def sweep(self) -> None:
        """Removes sessions and mappings that have expired."""
        await self.table.sweep()
        view, total = self._maps["mappings"], 0
        offset = next(field.offset for field in view.shape.value.fields if field.name == "expires")
        size, step = view.shape.key.size, view.shape.value.size
        for keys, values in view.raw_batches():
            gone = expired_entries(values, step, offset, monotonic())
            view.delete_many([keys[i * size : (i + 1) * size] for i in gone])
            total += len(values) // step - len(gone)
            await asyncio.sleep(0)
        self.mapped = total // 2  # one entry for each side

    async def mend(self) -> None:
        """Removes twins whose session is gone."""
        twins = self._maps["twins"]
        for batch in twins.batches():
            sessions = [(twin, self.table.get(inside)) for twin, inside in batch]
            twins.delete_many([twin for twin, session in sessions if session is None or self._twin(session) != twin])
            await asyncio.sleep(0)
