# SPDX-License-Identifier: Apache-2.0
"""What happens, as it happens: a stream of events for whoever listens.

Most events are the difference of two pictures of what stands, taken before and after a change (`differences`); the others are announced by
whoever sees them. Each listener has a bounded queue of its own: one that reads too slowly loses the oldest and is told how many. Nobody who
announces ever waits.

Format of the stream: server-sent events (WHATWG HTML, 9.2): `event` is the kind, `id` a number that grows by one, `data` a JSON object with
the time (RFC 3339) and what the kind brings along.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

KINDS = {
    "cube-added": "a cube was created: cube, service",
    "cube-changed": "its configuration changed: cube, service",
    "cube-removed": "it was deleted: cube, service",
    "port-added": "a cube has a new port: cube, port",
    "port-removed": "a port was deleted: cube, port",
    "port-up": "frames can pass: cube, port",
    "port-down": "frames can't pass: cube, port, reason",
    "attached": "a transparent cube was put on a port or netdev: cube, parent",
    "detached": "it was taken away: cube, parent",
    "netdev-added": "a netdev appeared: netdev, ifindex, up",
    "netdev-changed": "it went up or down, or became another: netdev, ifindex, up",
    "netdev-removed": "it went: netdev, ifindex",
    "fused": "cubes became one program: unit, cubes, entries",
    "unfused": "they are programs of their own again: unit",
    "service-added": "a service was loaded: service",
    "service-changed": "its code was replaced: service",
    "service-failed": "its files were saved and can't be used: service, reason",
    "service-removed": "it was unloaded: service",
    "worker-ended": "the control plane of a service ended unasked: service, reason",
    "drops": "a cube drops more frames a second than the listener asked for: cube, reason, rate",
    "alarm": "a cube reports something: cube, service, alarm, and what the service adds",
    "lost": "this listener was too slow: number",
}
QUEUE = 1000  # events that wait for a listener
PERIOD = 1.0  # seconds between two looks at the drop counters
QUIET = 15.0  # seconds after which a comment shows that the stream lives


@dataclass(frozen=True)
class Event:
    """One event."""

    kind: str
    data: Mapping[str, Any]
    number: int = 0
    time: float = field(default_factory=time.time)

    def as_text(self) -> str:
        """As it stands in the stream."""
        stamp = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"id: {self.number}\nevent: {self.kind}\ndata: {json.dumps({'time': stamp, **self.data})}\n\n"


@dataclass(frozen=True)
class Picture:
    """What stands at a moment, as far as events tell of it."""

    cubes: Mapping[str, tuple[str, Any]] = field(default_factory=dict)  # name -> uuid, configuration
    services: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[tuple[str, str], tuple[bool, str]] = field(default_factory=dict)  # up, reason
    parents: Mapping[str, str] = field(default_factory=dict)
    netdevs: Mapping[str, tuple[int, bool]] = field(default_factory=dict)  # ifindex, up


def differences(old: Picture, new: Picture) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds and data of the events that lead from one picture to the other; what was there is said before what depends on it."""
    for name in old.netdevs.keys() - new.netdevs.keys():
        yield "netdev-removed", {"netdev": name, "ifindex": old.netdevs[name][0]}
    for name, (ifindex, up) in new.netdevs.items():
        if old.netdevs.get(name) != (ifindex, up):
            kind = "netdev-changed" if name in old.netdevs else "netdev-added"
            yield kind, {"netdev": name, "ifindex": ifindex, "up": up}
    for name, parent in old.parents.items():
        if new.parents.get(name) != parent:
            yield "detached", {"cube": name, "parent": parent}
    for cube, port in old.ports.keys() - new.ports.keys():
        yield "port-removed", {"cube": cube, "port": port}
    for name, (identity, _) in old.cubes.items():
        if new.cubes.get(name, ("",))[0] != identity:
            yield "cube-removed", {"cube": name, "service": old.services[name]}
    for name, (identity, config) in new.cubes.items():
        before = old.cubes.get(name)
        said = {"cube": name, "service": new.services[name]}
        if before is None or before[0] != identity:
            yield "cube-added", said
        elif before[1] is not config and before[1] != config:
            yield "cube-changed", said
    for (cube, port), (up, reason) in new.ports.items():
        was = old.ports.get((cube, port))
        if was is None:
            yield "port-added", {"cube": cube, "port": port}
        if up != (was is not None and was[0]):
            yield ("port-up", {"cube": cube, "port": port}) if up else ("port-down", {"cube": cube, "port": port, "reason": reason})
    for name, parent in new.parents.items():
        if old.parents.get(name) != parent:
            yield "attached", {"cube": name, "parent": parent}


class Listener:
    """One who listens."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = frozenset(kinds)
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._more = asyncio.Event()
        self._over = False

    def offer(self, event: Event) -> None:
        """Puts an event into the queue, if it is wanted."""
        if self._kinds and event.kind not in self._kinds:
            return
        if len(self._waiting) >= QUEUE:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._more.set()

    def end(self) -> None:
        """No more events come."""
        self._over = True
        self._more.set()

    async def events(self) -> AsyncIterator[Event | None]:
        """Events as they come; None after a while without any."""
        while not self._over:
            try:
                await asyncio.wait_for(self._more.wait(), QUIET)
            except TimeoutError:
                yield None
                continue
            self._more.clear()
            while self._waiting:
                if self._lost:
                    lost, self._lost = self._lost, 0
                    yield Event("lost", {"number": lost}, self._waiting[0].number - 1)
                yield self._waiting.popleft()


class Events:
    """The hub: takes what is announced, gives it to all who listen."""

    def __init__(self) -> None:
        self._number = 0
        self._listeners: set[Listener] = set()
        self._picture = Picture()

    def announce(self, kind: str, **data: Any) -> None:
        """Something happened."""
        assert kind in KINDS, kind
        self._number += 1
        event = Event(kind, data, self._number)
        for listener in self._listeners:
            listener.offer(event)

    def end(self) -> None:
        """Ends all listening."""
        for listener in self._listeners:
            listener.end()

    def stands(self, picture: Picture) -> None:
        """What stands now; announces what is new in it."""
        old, self._picture = self._picture, picture
        for kind, data in differences(old, picture):
            self.announce(kind, **data)

    @contextmanager
    def listening(self, kinds: Collection[str] = ()) -> Iterator[Listener]:
        """Listens until left; `kinds`: only these."""
        listener = Listener(kinds)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)


async def watch_drops(listener: Listener, counts: Callable[[], Mapping[tuple[str, str], int]], above: float) -> None:
    """Offers an event for each cube and reason that exceeds so many frames a second, once until it falls below again."""
    before, since = await asyncio.to_thread(counts), time.monotonic()
    over: set[tuple[str, str]] = set()
    while True:
        await asyncio.sleep(PERIOD)
        now, at = await asyncio.to_thread(counts), time.monotonic()
        rates = {key: (count - before.get(key, 0)) / (at - since) for key, count in now.items()}
        for (cube, reason), rate in rates.items():
            if rate > above and (cube, reason) not in over:
                listener.offer(Event("drops", {"cube": cube, "reason": reason, "rate": round(rate, 1)}))
        over = {key for key, rate in rates.items() if rate > above}
        before, since = now, at
