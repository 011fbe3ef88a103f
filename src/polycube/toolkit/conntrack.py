# SPDX-License-Identifier: Apache-2.0
"""The control plane's side of connection tracking (include/polycube/conntrack.h): time-outs, the readable table, deletion, expiry.

Each entry says when it expires, and the data plane takes an expired one for none; so removing it is no matter of correctness, only of
room. `SessionTable.sweep`, called every few seconds, does that: it reads the table by batches, looks at one word of each entry, and
deletes by batches what has expired, a few milliseconds at a time. A million sessions take it about half a second of one CPU.

An entry that a cube reaches by a second key (NAT: the translated addresses) has a *twin* in another table, whose value is the key of
the session. The cube says what that key is, and twins go with their sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

from pydantic import Field

from polycube.core.maps import MapView
from polycube.model import Node, leaf
from polycube.net.addr import Address
from polycube.toolkit.address import mapped, unmapped

ICMP = (1, 58)  # protocols whose echoes have one identifier for both ends
SWAPPED, REPLIED = 1, 2
GRACE = 2  # seconds: an entry that expired so long ago is in no program's hands any more
_TUPLE = struct.Struct(">16s16sHHBxH")
_WORD = 4


class State(IntEnum):
    """enum pcn_ct_state."""

    SYN_SENT = 0
    SYN_SENT2 = 1
    SYN_RECV = 2
    TCP_ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    UDP_NEW = 9
    UDP_ESTABLISHED = 10
    ICMP_NEW = 11
    ICMP_ESTABLISHED = 12
    OTHER_NEW = 13
    OTHER_ESTABLISHED = 14

    @property
    def word(self) -> str:
        """How users know it: TCP's states, else NEW or ESTABLISHED."""
        return self.name if self < State.UDP_NEW and self != State.TCP_ESTABLISHED else self.name.partition("_")[2]


Seconds = Annotated[int, Field(ge=1, le=10_000_000)]


class Timeouts(Node):
    """Seconds without a packet after which a session is forgotten, by its state.

    Defaults are upstream's; those of states that it does not have are the kernel's.
    """

    syn_sent: Seconds = leaf("TCP: SYN sent, nothing heard", default=120)
    syn_recv: Seconds = leaf("TCP: SYN answered, the answer not acknowledged", default=60)
    established: Seconds = leaf("TCP: connected", default=432_000)
    fin_wait: Seconds = leaf("TCP: one end has finished", default=120)
    close_wait: Seconds = leaf("TCP: half closed, the other end may go on", default=120)
    last_ack: Seconds = leaf("TCP: both ends have finished, not all acknowledged", default=30)
    time_wait: Seconds = leaf("TCP: closed by both ends", default=120)
    close: Seconds = leaf("TCP: reset", default=10)
    udp: Seconds = leaf("UDP, unanswered", default=30)
    udp_established: Seconds = leaf("UDP, answered", default=180)
    icmp: Seconds = leaf("ICMP and ICMPv6 echo", default=30)
    other: Seconds = leaf("Other protocols", default=600)

    def cfg(self) -> dict[str, list[int]]:
        """For CFG(ct_timeouts): `self.cfg["ct_timeouts"] = timeouts.cfg()`."""
        by_state = {
            State.SYN_SENT: self.syn_sent,
            State.SYN_SENT2: self.syn_sent,
            State.SYN_RECV: self.syn_recv,
            State.TCP_ESTABLISHED: self.established,
            State.FIN_WAIT: self.fin_wait,
            State.CLOSE_WAIT: self.close_wait,
            State.LAST_ACK: self.last_ack,
            State.TIME_WAIT: self.time_wait,
            State.CLOSE: self.close,
            State.UDP_NEW: self.udp,
            State.UDP_ESTABLISHED: self.udp_established,
            State.ICMP_NEW: self.icmp,
            State.ICMP_ESTABLISHED: self.icmp,
            State.OTHER_NEW: self.other,
            State.OTHER_ESTABLISHED: self.other,
        }
        return {"seconds": [by_state[state] for state in State]}


@dataclass(frozen=True)
class Session:
    """One session, from its opener's point of view."""

    source: Address
    destination: Address
    sport: int  # ICMP echo: the identifier, in both
    dport: int
    protocol: int
    state: State
    answered: bool
    eta: int  # seconds until it expires; 0 or less: it has
    zone: int
    swapped: bool  # whether its source is the second endpoint of the key
    key: bytes  # as the table has it
    value: bytes  # whole: the cube's part is behind `SessionTable.payload`


def tuple_key(one: Address, one_port: int, other: Address, other_port: int, protocol: int, zone: int = 0) -> bytes:
    """The key under which the data plane looks for a session between two endpoints, whichever comes first."""
    ends = sorted(((mapped(one), one_port), (mapped(other), other_port)), key=_rank)
    return _TUPLE.pack(ends[0][0], ends[1][0], ends[0][1], ends[1][1], protocol, socket.htons(zone))


def protocol_name(number: int) -> str:
    """How users know a protocol: tcp, udp, icmp, icmpv6, else its number."""
    return {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}.get(number, str(number))


def _rank(end: tuple[bytes, int]) -> tuple[int, ...]:
    """The data plane's order of endpoints: words as the machine reads them, the last one first."""
    words = struct.unpack("=4I", end[0])
    return (*reversed(words), socket.htons(end[1]))


class SessionTable:
    """A table of sessions, `PCN_SESSIONS(name, …)` in the data plane."""

    def __init__(self, view: MapView, twins: MapView | None = None, twin_of: Callable[[Session], bytes | None] | None = None) -> None:
        fields = {field.name: field for field in view.shape.value.fields}
        ct = fields["ct"]
        inner = {field.name: ct.offset + field.offset for field in ct.layout.fields}
        self.payload = ct.offset + ct.layout.size  # offset of what the cube keeps beside
        self.counts: Counter[State] = Counter()  # live sessions by state, as of the last sweep
        self._readers: set[asyncio.Task[None]] = set()
        self._view = view
        self._twins = twins
        self._twin_of = twin_of
        self._expires, self._flags, self._state = inner["expires"], inner["flags"], inner["state"]
        self._key, self._step = view.shape.key.size, view.shape.value.size

    @property
    def live(self) -> int:
        """Sessions that had not expired at the last sweep."""
        return self.counts.total()

    def __iter__(self) -> Iterator[Session]:
        """The sessions that have not expired."""
        for batch in self.batches():
            yield from (session for session in batch if session.eta > 0)

    def batches(self) -> Iterator[list[Session]]:
        """All entries, also expired ones, some thousands at a time."""
        now = monotonic()
        for keys, values in self._view.raw_batches():
            yield [self._decode(keys, values, i, now) for i in range(len(keys) // self._key)]

    def pour(self, reader: socket.socket, row: Callable[[Session], Mapping[str, Any]]) -> None:
        """Has all sessions written to a stream of the cube, a row as JSON on each line."""
        task = asyncio.get_running_loop().create_task(self._pour(reader, row))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def _pour(self, reader: socket.socket, row: Callable[[Session], Mapping[str, Any]]) -> None:
        """No faster than they are read: some thousands are in memory at a time."""
        reader.setblocking(False)
        with reader, contextlib.suppress(OSError):  # it has had enough
            for batch in self.batches():
                rows = "".join(json.dumps(row(one)) + "\n" for one in batch if one.eta > 0)
                await asyncio.get_running_loop().sock_sendall(reader, rows.encode())

    def get(self, key: bytes) -> Session | None:
        """The entry of a key."""
        kernel = self._view.kernel
        value = kernel.get(key) if kernel else None
        return None if value is None else self._decode(key, value, 0, monotonic())

    def remove(self, sessions: list[Session]) -> None:
        """Deletes sessions, then their twins, at once.

        In this order: what comes in between opens a new session beside the old twin, instead of using an old one without a twin.
        """
        self._view.delete_many([one.key for one in sessions])
        if self._twins is not None and self._twin_of is not None:
            self._twins.delete_many([twin for one in sessions if (twin := self._twin_of(one)) is not None])

    async def flush(self, which: Callable[[Session], bool] = lambda _: True) -> int:
        """Deletes the sessions that `which` says yes to; returns their number."""
        removed = 0
        for batch in self.batches():
            chosen = [one for one in batch if which(one)]
            self.remove(chosen)
            removed += len(chosen)
            await asyncio.sleep(0)
        return removed

    async def sweep(self) -> int:
        """Deletes what has expired and counts what has not; returns the number of the former. Lets others run between batches."""
        removed, counts = 0, Counter[int]()
        for keys, values in self._view.raw_batches():
            now = monotonic()
            expired = expired_entries(values, self._step, self._expires, now)
            counts.update(values[self._state :: self._step])
            if expired:
                counts.subtract(values[i * self._step + self._state] for i in expired)
                if self._twins is None:
                    self._view.delete_many([keys[i * self._key : (i + 1) * self._key] for i in expired])
                else:
                    self.remove([self._decode(keys, values, i, now) for i in expired])
                removed += len(expired)
            await asyncio.sleep(0)
        self.counts = Counter({State(state): count for state, count in counts.items() if count})
        return removed

    def _decode(self, keys: bytes, values: bytes, i: int, now: int) -> Session:
        key, value = keys[i * self._key : (i + 1) * self._key], values[i * self._step : (i + 1) * self._step]
        first, second, first_port, second_port, protocol, zone = _TUPLE.unpack(key)
        expires = int.from_bytes(value[self._expires : self._expires + 4], "little")
        flags = int.from_bytes(value[self._flags : self._flags + 2], "little")
        swapped = bool(flags & SWAPPED)
        if swapped:
            first, second, first_port, second_port = second, first, second_port, first_port
        return Session(
            source=unmapped(first),
            destination=unmapped(second),
            sport=first_port,
            dport=second_port,
            protocol=protocol,
            state=State(value[self._state]),
            answered=bool(flags & REPLIED),
            eta=expires - now,
            zone=socket.ntohs(zone),
            swapped=swapped,
            key=key,
            value=value,
        )


def expired_entries(values: bytes, step: int, offset: int, now: int) -> list[int]:
    """Which of some values in a row, `step` bytes each, have expired for good: their word at `offset` is a second in the past."""
    limit = now - GRACE
    return [i for i, at in enumerate(memoryview(values).cast("I")[offset // _WORD :: step // _WORD].tolist()) if at < limit]


def failures(view: MapView) -> int:
    """Sessions that found no room since the cube was made: the view of `ct_failures`."""
    return sum(view.percpu(0))


def monotonic() -> int:
    """The data plane's clock, pcn_now()."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


def unpacked(view: MapView, session: Session) -> dict[str, Any]:
    """The whole value of a session, by the names of the C struct."""
    value = view.shape.value.unpack(session.value)
    assert isinstance(value, dict)
    return value
