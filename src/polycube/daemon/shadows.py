# SPDX-License-Identifier: Apache-2.0
"""Keeps cubes and their namespaces alike, in both directions.

A port whose netdev is set down there is down. If the cube's service has something to show there, what stands in the namespace is compared
with what both sides agreed on last (the *base*). What came or went since was done there: the service says what it means for the
configuration, which is changed as by a request. Then the namespace is made to show the configuration. So a change of the configuration
appears in the namespace, and one in the namespace that the cube refuses disappears again.

Netlink events only say that it is time to look: everything is read each time, so that lost ones do no harm. After a start nothing is known
of a base: what the daemon has not added itself was done meanwhile; what is missing is put back, since the store is the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet

import structlog

from polycube.core.mirror import AddressOf, Fact, MacOf, Mirror, NeighbourOf, RouteTo, Seen
from polycube.daemon.draft import Entry
from polycube.daemon.keeper import Keeper
from polycube.model import Edit, PolycubeError
from polycube.net.errors import NetError
from polycube.net.watch import Watcher

log = structlog.get_logger("polycubed")
SETTLE = 0.02  # seconds for what comes at once
AGAIN = 2.0  # seconds after a failure
Follow = Callable[[str, str, Iterable[Fact], Iterable[Fact]], Awaitable[list[Edit]]]
_ORDER = (MacOf, AddressOf, NeighbourOf, RouteTo)  # routes need addresses


class Shadows:
    """All namespaces of a daemon. `follow` asks a cube's service, `edit` changes a cube's configuration."""

    def __init__(self, keeper: Keeper, follow: Follow, edit: Callable[[str, list[Edit]], Awaitable[None]]) -> None:
        self._keeper = keeper
        self._follow = follow
        self._edit = edit
        self._shadows: dict[str, Shadow] = {}

    def touched(self) -> None:
        """What stands has changed."""
        wanted = {entry.uuid: entry for entry in self._keeper.entries.values() if not entry.transparent and entry.standard.shadow}
        for uuid in self._shadows.keys() - wanted.keys():
            self._shadows.pop(uuid).cancel()
        for uuid, entry in wanted.items():
            if uuid not in self._shadows:
                self._shadows[uuid] = Shadow(entry, self._keeper, self._follow, self._edit)
            self._shadows[uuid].dirty.set()

    async def close(self) -> None:
        """Lets go of all; they stay as they are."""
        shadows, self._shadows = list(self._shadows.values()), {}
        await asyncio.gather(*(one.cancel() for one in shadows), return_exceptions=True)


class Shadow:
    """One cube and its namespace."""

    def __init__(self, entry: Entry, keeper: Keeper, follow: Follow, edit: Callable[[str, list[Edit]], Awaitable[None]]) -> None:
        self._name, self._uuid, self._service, self._namespace = entry.name, entry.uuid, entry.service, entry.bare.namespace
        self._keeper = keeper
        self._follow = follow
        self._edit = edit
        self._base: AbstractSet[Fact] | None = None
        self._stuck: tuple[AbstractSet[Fact], AbstractSet[Fact]] = (set(), set())  # missing and surplus ones that stayed so
        self._refused: dict[Fact, str] = {}  # what the namespace does not take, and why
        self.dirty = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"namespace of {self._name}")

    def cancel(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        said = ""
        while True:
            try:
                await self._live()
            except (NetError, OSError, PolycubeError) as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("cube and namespace can't be kept alike for now", cube=self._name, reason=said)
            except Exception:
                log.exception("cube and namespace can't be kept alike", cube=self._name)
            await asyncio.sleep(AGAIN)
            self.dirty.set()

    async def _live(self) -> None:
        async with Watcher(self._namespace) as watcher:
            mirror = await asyncio.to_thread(Mirror, self._namespace)
            watching = asyncio.create_task(self._watch(watcher))
            try:
                while not watching.done():
                    await self.dirty.wait()
                    await asyncio.sleep(SETTLE)
                    self.dirty.clear()
                    await self._compare(mirror)
                watching.result()
            finally:
                watching.cancel()
                mirror.close()

    async def _watch(self, watcher: Watcher) -> None:
        try:
            async for _ in watcher:
                self.dirty.set()
        finally:
            self.dirty.set()

    async def _compare(self, mirror: Mirror) -> None:
        seen = await asyncio.to_thread(mirror.read)
        entry = self._keeper.entries.get(self._name)
        if entry is None or entry.uuid != self._uuid:
            return
        ids = {name: id for name, (_, id) in entry.ports.items() if name in seen.ports}
        await self._keeper.shut(set(ids.values()), {id for name, id in ids.items() if name in seen.down})
        wanted = self._keeper.shadow_of(self._uuid)
        if wanted is None:  # the service leaves it alone, or has not taken the cube over yet
            return
        base = seen.own | (seen.facts & wanted) if self._base is None else self._base
        come = {fact for fact in seen.facts - base if not (isinstance(fact, MacOf) and fact.port in seen.fresh)}
        gone = {fact for fact in base - seen.facts if _was_taken_away(fact, seen)}
        if come or gone:
            await self._take_over(gone, come)
            wanted = self._keeper.shadow_of(self._uuid)
            if wanted is None:
                return
        self._base = await asyncio.to_thread(self._show, mirror, seen, wanted)

    async def _take_over(self, gone: AbstractSet[Fact], come: AbstractSet[Fact]) -> None:
        edits = await self._follow(self._service, self._uuid, gone, come)
        if not edits:
            return
        try:
            await self._edit(self._uuid, edits)
        except PolycubeError as error:
            log.warning("what was changed in the namespace is taken back", cube=self._name, namespace=self._namespace, reason=str(error))

    def _show(self, mirror: Mirror, seen: Seen, wanted: AbstractSet[Fact]) -> AbstractSet[Fact]:
        """Has the namespace show the configuration; returns what it shows now. In a thread."""
        mirror.align()
        missing = wanted - seen.facts
        surplus = {fact for fact in seen.facts - wanted if not isinstance(fact, MacOf)}
        if (missing, surplus) == self._stuck and not seen.fresh:  # it has been tried
            return wanted & seen.facts
        refused = self._add(mirror, (fact for fact in missing if isinstance(fact, MacOf | AddressOf)))
        mirror.align()
        for fact in _sorted(surplus)[::-1]:
            reason = mirror.remove(fact)
            if reason:
                log.warning("can't be removed from the namespace", cube=self._name, what=str(fact), reason=reason)
        if surplus:  # the last address takes the routes of its port along
            missing |= (wanted & seen.facts) - mirror.read().facts
        refused |= self._add(mirror, (fact for fact in missing if not isinstance(fact, MacOf | AddressOf)))
        for port in seen.fresh:
            mirror.keep(port)
        shown = mirror.read().facts if missing or surplus else seen.facts
        for fact, reason in refused.items():
            if fact not in self._refused:
                log.info("the namespace does not take it", cube=self._name, what=str(fact), reason=reason)
        self._refused = refused
        self._stuck = missing - shown, surplus & shown
        return wanted & shown

    def _add(self, mirror: Mirror, facts: Iterable[Fact]) -> dict[Fact, str]:
        return {fact: reason for fact in _sorted(facts) if (reason := mirror.add(fact))}


def _was_taken_away(fact: Fact, seen: Seen) -> bool:
    """By somebody: not with its port, nor by the kernel since the port is down; nor a MAC, of which another one has come."""
    if isinstance(fact, MacOf):
        return False
    return not fact.port or (fact.port in seen.ports and fact.port not in seen.fresh | seen.down)


def _sorted(facts: Iterable[Fact]) -> list[Fact]:
    return sorted(facts, key=lambda fact: (_ORDER.index(type(fact)), fact))
