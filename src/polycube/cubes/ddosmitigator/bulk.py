# SPDX-License-Identifier: Apache-2.0
"""Lists that are loaded, and everything else that goes through tables of a million entries: in steps, between which the worker does its
other work, one such job at a time, and never while a change of the configuration is under way (both write the same filters).

Loaded entries are in the tables of the configured ones, marked with the number of their load, and are no configuration: they outlive the
daemon and not the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from polycube.bpf import MapFull
from polycube.cubes.ddosmitigator import feed
from polycube.cubes.ddosmitigator.errors import NoRoom
from polycube.cubes.ddosmitigator.model import Load, Loaded, Side, Unload
from polycube.cubes.ddosmitigator.tables import EXPIRES, LOAD, PREFIX, TABLES, Entry, Tables, now

STEP = 20_000  # words or keys
T = TypeVar("T")


class Bulk:
    """Jobs over whole tables of one cube. `decided` is not set while its configuration is about to change."""

    def __init__(self, cube: str, tables: Tables, decided: asyncio.Event) -> None:
        self.loaded = dict.fromkeys(TABLES, 0)  # entries
        self.counted = False  # whether `loaded` is known yet
        self._cube = cube
        self._tables = tables
        self._decided = decided
        self._lock = asyncio.Lock()
        self._next_expiry: int | None = None  # of loaded entries; None: none expires
        self._stale = False  # filters have bits of what is gone
        self._touched = 0
        self._last = 0

    def touched(self, removed: bool) -> None:
        """The configured entries changed."""
        self._touched += 1
        self._stale |= removed

    # ---- actions ----

    async def load(self, order: Load) -> Loaded:
        """Raises BadEntry or NoRoom, and then has changed nothing."""
        async with self._job():
            side, wanted = order.list, await self._parsed(order.entries)
            loaded = {version: await self._standing(side, version, keys) for version, keys in wanted.items()}
            for version, keys in wanted.items():
                await self._room(side, version, len(keys) - len(loaded[version]))
            entry = Entry(expires=now() + order.timeout if order.timeout else 0, load=self._mark())
            result = dict.fromkeys(Loaded.model_fields, 0)
            for version, known in loaded.items():
                kept = [key for key, is_loaded in known.items() if is_loaded]
                new = [key for key in wanted.pop(version) if key not in known]
                await self._fill(side, version, new, entry.packed())
                await self._renew(side, version, kept, entry)
                for name, number in (("added", len(new)), ("kept", len(kept)), ("configured", len(known) - len(kept))):
                    result[name] += number
            if entry.expires:
                self._next_expiry = min(self._next_expiry or entry.expires, entry.expires)
            if order.replace:
                marks = {bytes(4), entry.packed()[LOAD]}
                result["removed"] = await self._drop_where(lambda value: value[LOAD] not in marks, side)
            return Loaded(**result)

    async def unload(self, order: Unload) -> int:
        """Removes these, or all that were loaded; how many there were."""
        async with self._job():
            if order.entries is None:
                return await self._drop_where(_is_loaded, order.list)
            wanted = await self._parsed(order.entries)
            removed = 0
            for version, keys in wanted.items():
                known = await self._standing(order.list, version, keys)
                removed += await self._drop(order.list, version, [key for key, is_loaded in known.items() if is_loaded])
            return removed

    # ---- by and by ----

    async def recount(self) -> None:
        """What is loaded, and when the first of it expires: known after a restart again."""
        async with self._job():
            self._next_expiry = None
            for side, version in TABLES:
                number = 0
                for batch in self._tables.view(side, version).batches():
                    values = [value for _, value in batch if _is_loaded(value)]
                    number += len(values)
                    self._expires(values)
                    await self._breath()
                self.loaded[side, version] = number
            self.counted = True

    async def expire(self) -> int:
        """Removes loaded entries that have expired, if there can be some."""
        if self._next_expiry is None or now() < self._next_expiry or self._lock.locked():
            return 0
        async with self._job():
            self._next_expiry, moment = None, now()
            return sum([await self._drop_where(lambda value: _is_loaded(value) and _is_over(value, moment), side) for side in Side])

    async def refilter(self) -> None:
        """Renews the filters, if that is of use. Given up when the configuration changes meanwhile: there is a next time."""
        if not self._stale or self._lock.locked():
            return
        async with self._job():
            before = self._touched
            for table in TABLES:
                for _ in self._tables[table].refilter():
                    await self._breath()
                    if self._touched != before:
                        return
            self._stale = False

    # ---- steps ----

    @asynccontextmanager
    async def _job(self) -> AsyncIterator[None]:
        async with self._lock:
            await self._breath()
            yield

    async def _breath(self) -> None:
        """Lets others work, and waits for a change that is not decided."""
        await asyncio.sleep(0)
        while not self._decided.is_set():
            await self._decided.wait()

    def _mark(self) -> int:
        """A number that no load had before; milliseconds, so that it need not be remembered."""
        self._last = max(self._last + 1, int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1000)) & 0xFFFFFFFF or 1
        return self._last

    async def _parsed(self, text: str) -> dict[int, set[bytes]]:
        found: dict[int, set[bytes]] = {4: set(), 6: set()}
        words = feed.words(text)
        for number, step in enumerate(_steps(words)):
            feed.parse(self._cube, step, number * STEP + 1, found)
            await asyncio.sleep(0)
        return found

    async def _standing(self, side: Side, version: int, keys: set[bytes]) -> dict[bytes, bool]:
        """Which are there already, and whether they were loaded."""
        view, found = self._tables.view(side, version), {}
        if not next(view.batches(), None):
            return {}
        for step in _steps([*keys]):
            for key in step:
                value = view.packed(key)
                if value is not None:
                    found[key] = _is_loaded(value)
            await self._breath()
        return found

    async def _room(self, side: Side, version: int, new: int) -> None:
        if new <= 0:
            return
        taken = 0
        for batch in self._tables.view(side, version).batches():
            taken += len(batch)
            await self._breath()
        if new > self._tables.size - taken:
            raise NoRoom(self._cube, f"{PREFIX[side]} (IPv{version})", new, self._tables.size - taken, self._tables.size)

    async def _fill(self, side: Side, version: int, keys: list[bytes], value: bytes) -> None:
        done, table = 0, self._tables[side, version]
        lines: dict[int, int] = {}
        for step in _steps(keys):
            table.gather(step, lines)
            await asyncio.sleep(0)
        await self._breath()
        table.admit(lines)
        try:
            for step in _steps(keys):
                table.fill(step, value)
                done += len(step)
                self.loaded[side, version] += len(step)
                await self._breath()
        except MapFull:  # the configuration took the room meanwhile, or memory is short
            self.loaded[side, version] += len(keys[done : done + STEP])
            await self._drop(side, version, keys[: done + STEP])
            raise NoRoom(self._cube, f"{PREFIX[side]} (IPv{version})", len(keys), done, self._tables.size) from None

    async def _renew(self, side: Side, version: int, keys: list[bytes], entry: Entry) -> None:
        """Gives loaded entries another time-out and load; their counters go on."""
        view = self._tables.view(side, version)
        for step in _steps(keys):
            standing = ((key, view.packed(key)) for key in step)
            view.set_many((key, entry._replace(dropped=Entry.of(value).dropped).packed()) for key, value in standing if value)
            await self._breath()

    async def _drop(self, side: Side, version: int, keys: list[bytes]) -> int:
        for step in _steps(keys):
            self._tables[side, version].drop(step)
            self.loaded[side, version] -= len(step)
            await self._breath()
        self._stale |= bool(keys)
        return len(keys)

    async def _drop_where(self, condition: Callable[[bytes], bool], side: Side) -> int:
        """Removes entries of a side by their values; also finds out when the next one expires."""
        removed = 0
        for version in (4, 6):
            gone: list[bytes] = []
            for batch in self._tables.view(side, version).batches():
                gone += [key for key, value in batch if condition(value)]
                self._expires(value for _, value in batch if _is_loaded(value) and not condition(value))
                await self._breath()
            removed += await self._drop(side, version, gone)
        return removed

    def _expires(self, values: Iterable[bytes]) -> None:
        """When the first of these loaded entries expires."""
        first = min((moment for value in values if (moment := int.from_bytes(value[EXPIRES], "little"))), default=None)
        if first is not None:
            self._next_expiry = min(self._next_expiry or first, first)


def _is_loaded(value: bytes) -> bool:
    return value[LOAD] != bytes(4)


def _is_over(value: bytes, moment: int) -> bool:
    expires = int.from_bytes(value[EXPIRES], "little")
    return 0 < expires <= moment


def _steps(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), STEP):
        yield items[start : start + STEP]
