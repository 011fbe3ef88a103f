# SPDX-License-Identifier: Apache-2.0
"""The state machine of neighbours (RFC 4861, 7.3), for ARP as well. No I/O and no clock: time is an argument.

Mechanism: the data plane holds who may be sent to; this table holds what is known of each entry, and packets that wait for one. What has
to be done is returned as effects, in order. The data plane notes when an entry was last used by a coarse clock; entries are asked for
it only when they are due, so that a table of thousands costs a few reads a second.

    INCOMPLETE  asked for once a second, `TRIES` times; then its packets are unreachable
    REACHABLE   for `REACHABLE_TIME` after a confirmation; then PROBE if it was used meanwhile, else STALE
    STALE       usable; looked at every `CHECK`: PROBE once it was used, gone when it was not for `STALE_TIME`
    PROBE       usable; asked by unicast once a second; gone after `TRIES` without an answer
    PERMANENT   configured: nothing changes it

Invariants: an entry in use stays in the data plane while it is refreshed, so no packet waits; nothing is removed but by this table, so
entries outlive a control plane that is away. At most `limit` entries, `PENDING` of them INCOMPLETE, with `QUEUE` packets each, of which
the latest are kept (RFC 4861 7.2.2). When the table is full, the STALE entry that was confirmed longest ago makes room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from polycube.cubes.router.model import NeighbourState
from polycube.net.addr import Address, Mac

TRIES = 3
RETRANSMIT = 0.85  # a second, as the timer that looks ticks about once a second
REACHABLE_TIME = 30.0
CHECK = 5.0
STALE_TIME = 600.0
QUEUE = 5
PENDING = 512

INCOMPLETE, REACHABLE, STALE = NeighbourState.INCOMPLETE, NeighbourState.REACHABLE, NeighbourState.STALE
PROBE, PERMANENT = NeighbourState.PROBE, NeighbourState.PERMANENT


class Key(NamedTuple):
    """A neighbour: number of the interface, and address without a zone."""

    interface: int
    address: Address


class Seen(NamedTuple):
    """What the data plane holds of a neighbour."""

    mac: Mac
    used: int  # a clock's value at the last packet; only whether it changes counts


class Waiting(NamedTuple):
    """A frame that waits for its next hop, without a tag, and the number of the interface it came by."""

    frame: bytes
    interface: int


@dataclass(frozen=True)
class Solicit:
    """Ask who has the address: everybody, or the one who had it."""

    key: Key
    mac: Mac | None


@dataclass(frozen=True)
class Install:
    """Tell the data plane."""

    key: Key
    mac: Mac


@dataclass(frozen=True)
class Remove:
    """Have the data plane forget it."""

    key: Key


@dataclass(frozen=True)
class Release:
    """Send the packets that waited."""

    key: Key
    mac: Mac
    packets: tuple[Waiting, ...]


@dataclass(frozen=True)
class Unreachable:
    """Nobody answered: tell the senders of these packets."""

    key: Key
    packets: tuple[Waiting, ...]


Effect = Solicit | Install | Remove | Release | Unreachable
Look = Callable[[Key], Seen | None]


@dataclass
class Entry:
    """A neighbour."""

    state: NeighbourState
    mac: Mac | None
    confirmed: float  # when it was last heard of
    due: float  # when to look at it again
    used: int = 0
    active: float = 0.0  # when it was last found to have been used
    tries: int = 0
    waiting: deque[Waiting] = field(default_factory=lambda: deque(maxlen=QUEUE))


class Neighbours:
    """The learnt neighbours of one IP version."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pending = 0
        self.refused = 0  # for want of room
        self._entries: dict[Key, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> Entry | None:
        return self._entries.get(key)

    def items(self) -> Iterator[tuple[Key, Entry]]:
        yield from self._entries.items()

    # ---- what happens ----

    def resolve(self, key: Key, packet: Waiting, now: float, seen: Seen | None) -> list[Effect]:
        """A packet for a next hop that the data plane did not know; `seen` is what it knows now."""
        entry = self._entries.get(key)
        if seen is not None:  # came just now
            return [*self.adopt(key, seen, now), Release(key, seen.mac, (packet,))]
        if entry is not None and entry.state is INCOMPLETE:
            entry.waiting.append(packet)
            return []
        if entry is not None:  # removed behind our back
            self._drop(key, entry)
        if self.pending >= PENDING:
            self.refused += 1
            return []
        made = self._room()
        if made is None:
            return []
        entry = Entry(INCOMPLETE, None, now, now + RETRANSMIT, tries=1)
        entry.waiting.append(packet)
        self._entries[key] = entry
        self.pending += 1
        return [*made, Solicit(key, None)]

    def heard(self, key: Key, mac: Mac | None, now: float, *, solicited: bool, override: bool = True, create: bool = False) -> list[Effect]:
        """Somebody says that it has an address (RFC 4861 7.2.5; an ARP reply says it with a MAC and override)."""
        entry = self._entries.get(key)
        if entry is None:
            return self._learn(key, mac, now) if create and mac is not None else []
        if entry.state is INCOMPLETE:
            return self._resolved(key, entry, mac, now, solicited) if mac is not None else []
        other = mac is not None and mac != entry.mac
        if other and not override:
            if entry.state is REACHABLE:
                self._stale(entry, now)
            return []
        if other:
            assert mac is not None
            entry.mac = mac
        if solicited:
            self._reachable(entry, now)
        elif other:
            self._stale(entry, now)
        return [Install(key, mac)] if other and mac is not None else []

    def adopt(self, key: Key, seen: Seen, now: float) -> list[Effect]:
        """The data plane holds it: learnt there, or left by a control plane before this one."""
        entry = self._entries.get(key)
        if entry is None:
            made = self._room()
            if made is None:
                return [Remove(key)]
            self._entries[key] = Entry(STALE, seen.mac, now, now + CHECK, used=seen.used, active=now)
            return made
        if entry.state is INCOMPLETE:
            return self._resolved(key, entry, seen.mac, now, False)
        if entry.mac != seen.mac:
            entry.mac = seen.mac
            self._stale(entry, now)
        return []

    def forget(self, key: Key) -> list[Effect]:
        """An entry is removed by hand, or its port is gone. Packets that waited for it are lost."""
        entry = self._entries.get(key)
        if entry is None:
            return []
        self._drop(key, entry)
        return [Remove(key)]

    def tick(self, now: float, look: Look) -> list[Effect]:
        """Everything that is due."""
        effects: list[Effect] = []
        for key, entry in list(self._entries.items()):
            if entry.due <= now:
                effects += self._due(key, entry, now, look(key))
        return effects

    # ---- below ----

    def _due(self, key: Key, entry: Entry, now: float, seen: Seen | None) -> list[Effect]:
        if entry.state is INCOMPLETE:
            return self._incomplete(key, entry, now) if seen is None else self.adopt(key, seen, now)
        if seen is None:  # removed behind our back
            self._drop(key, entry)
            return []
        if seen.mac != entry.mac:
            return self.adopt(key, seen, now)
        used, entry.used = seen.used != entry.used, seen.used
        if used:
            entry.active = now
        if entry.state is PROBE:
            return self._probe(key, entry, now)
        if used:
            entry.tries = 0
            entry.state = PROBE
            return self._probe(key, entry, now)
        if entry.state is REACHABLE:
            self._stale(entry, now)
        elif now - max(entry.active, entry.confirmed) >= STALE_TIME:
            return self.forget(key)
        entry.due = now + CHECK
        return []

    def _incomplete(self, key: Key, entry: Entry, now: float) -> list[Effect]:
        if entry.tries < TRIES:
            entry.tries += 1
            entry.due = now + RETRANSMIT
            return [Solicit(key, None)]
        self._drop(key, entry)
        return [Unreachable(key, tuple(entry.waiting))]

    def _probe(self, key: Key, entry: Entry, now: float) -> list[Effect]:
        if entry.tries < TRIES:
            entry.tries += 1
            entry.due = now + RETRANSMIT
            return [Solicit(key, entry.mac)]
        return self.forget(key)

    def _resolved(self, key: Key, entry: Entry, mac: Mac | None, now: float, solicited: bool) -> list[Effect]:
        assert mac is not None
        self.pending -= 1
        entry.mac = mac
        if solicited:
            self._reachable(entry, now)
        else:
            self._stale(entry, now)
        packets = tuple(entry.waiting)
        entry.waiting.clear()
        effects: list[Effect] = [Install(key, mac)]
        return [*effects, Release(key, mac, packets)] if packets else effects

    def _learn(self, key: Key, mac: Mac, now: float) -> list[Effect]:
        made = self._room()
        if made is None:
            return []
        self._entries[key] = Entry(STALE, mac, now, now + CHECK, active=now)
        return [*made, Install(key, mac)]

    def _room(self) -> list[Effect] | None:
        """Makes room for one more; None if all entries are in use."""
        if len(self._entries) < self.limit:
            return []
        idle = [(entry.active, key) for key, entry in self._entries.items() if entry.state is STALE]
        if not idle:
            self.refused += 1
            return None
        return self.forget(min(idle)[1])

    def _drop(self, key: Key, entry: Entry) -> None:
        if entry.state is INCOMPLETE:
            self.pending -= 1
        del self._entries[key]

    def _reachable(self, entry: Entry, now: float) -> None:
        entry.state, entry.confirmed, entry.tries, entry.due = REACHABLE, now, 0, now + REACHABLE_TIME

    def _stale(self, entry: Entry, now: float) -> None:
        entry.state, entry.tries, entry.due = STALE, 0, now + CHECK
