# SPDX-License-Identifier: Apache-2.0
"""Fuses in the background what has been stable for a moment.

The keeper asks `kept` at every change which fused units live on: those that the change does not concern. The others' entries get their
units of one back in the same plan, before all else, so that a change takes as long as it would without fusing. When nothing has changed
for a while, a *pass* asks the planner what to fuse, has it compiled in a process of its own with the lowest priority, loads it, and swaps
it in by a plan; only this last step holds the keeper's lock. What changed meanwhile is noticed then: a unit that no longer fits is not
used.

How long is "a while" doubles each time that a change undoes what was built just before, so that a storm of changes is no storm of builds.
A build or load that fails is remembered by the digest of what was compiled, also on disk, and the unit is tried with fewer cubes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from polycube.bpf import BpfError
from polycube.compiler.errors import CompileError
from polycube.compiler.process import Compiler
from polycube.core.fusedunits import FusedLoad
from polycube.core.fusing import Cut, Fused, View, propose, stands
from polycube.core.kernel import Kernel, KernelError
from polycube.core.operation import Key, Kind, Resources, plan, unfused
from polycube.daemon.draft import Entry
from polycube.daemon.executor import Executor
from polycube.daemon.refusals import Refusals

log = structlog.get_logger("polycubed")
QUIET = 0.1  # seconds without a change before a pass
LONGEST = 30.0
STABLE = 20.0  # times QUIET that a unit must live for the next pass not to wait longer
SWAP = 0.3  # seconds between two swaps of one pass
AGAIN = 2.0  # seconds after which what failed for a passing reason is tried again
ATTEMPTS = 3


@dataclass(frozen=True)
class Made:
    """How a unit came to be: seconds that building and loading took; `cached`: the object was on disk."""

    build: float
    load: float
    cached: bool


@dataclass(frozen=True)
class Fusing:
    """What it takes: a compiler that gives way to others, and what is known to fail. `on`: whether to begin with it."""

    compiler: Compiler
    refusals: Refusals
    on: bool = True


class Fuser:
    """The fused units of a daemon. `lock` is the keeper's: of what stands."""

    def __init__(self, kernel: Kernel, executor: Executor, lock: asyncio.Lock, fusing: Fusing, announce: Callable[..., None]) -> None:
        self.on = fusing.on
        self._announce = announce
        self.off: set[str] = set()  # uuids of cubes that are not to be fused
        self.standing: dict[str, Fused] = {}
        self.made: dict[str, Made] = {}
        self.reasons: dict[Key, str] = {}  # attachment -> why it is not the entry of a fused unit
        self._kernel = kernel
        self._executor = executor
        self._lock = lock
        self._compiler = fusing.compiler
        self._refusals = fusing.refusals
        self._attempts: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._touched = time.monotonic()
        self._swapped = 0.0
        self._busy = False
        self._quiet = QUIET
        self._task: asyncio.Task[None] | None = None

    # ---- what the keeper asks ----

    def kept(self, resources: Resources, entries: Mapping[str, Entry]) -> Resources:
        """What a change leads to, with those of the fused units that it leaves alone."""
        names = self._names()
        standing = [one for one in self.standing.values() if one.name in names]
        if not standing or not self.on:
            return resources
        view, off = View(resources), unwilling(entries)
        return overlay(resources, [one for one in standing if one.uuids.isdisjoint(off) and stands(one, view)])

    def adopt(self, resources: Resources, entries: Mapping[str, Entry]) -> Resources:
        """At the start: the same, from what an earlier daemon left."""
        names, self.off = self._names(), unwilling(entries)
        if names and self.on:
            found = [one for _, one in self._propose(resources) if isinstance(one, Fused) and one.name in names]
            self.standing = {one.name: one for one in found}
        return self.kept(resources, entries)

    def touched(self, entries: Mapping[str, Entry]) -> None:
        """Something has changed: the next pass waits, and then looks at all."""
        now, self.off = time.monotonic(), unwilling(entries)
        gone = self.standing.keys() - self._names()
        if any(name in self.made and not self.made[name].cached for name in gone):  # others cost next to nothing
            self._quiet = min(2 * self._quiet, LONGEST) if now - self._swapped < STABLE * self._quiet else QUIET
        for name in gone:
            del self.standing[name]
            self.made.pop(name, None)
            self._announce("unfused", unit=name)
        self._touched = now
        self._wake.set()

    def start(self) -> None:
        """Begins with the passes."""
        self._touched = time.monotonic()
        self._task = asyncio.create_task(self._run(), name="fuser")
        self._wake.set()

    @property
    def waiting(self) -> bool:
        """Whether there is something that no pass has looked at yet, or that one is looking at."""
        return self._wake.is_set() or self._busy

    def _names(self) -> set[str]:
        return {key.name[0] for key in self._executor.resources if key.kind is Kind.FUSED}

    async def close(self) -> None:
        """Ends them; what is fused stays so."""
        if self._task:
            self._task.cancel()
        await asyncio.to_thread(self._compiler.close)

    # ---- passes ----

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await self._expect()
            wait = self._touched + self._quiet - time.monotonic()
            while wait > 0:
                await asyncio.sleep(wait)
                wait = self._touched + self._quiet - time.monotonic()
            self._busy = True
            self._wake.clear()
            try:
                if not await self._pass():
                    asyncio.get_running_loop().call_later(AGAIN, self._wake.set)
            except Exception:
                log.exception("fusing failed")
            self._busy = False

    async def _expect(self) -> None:
        """The compiler starts while the quiet moment passes, if there will be something to compile."""
        async with self._lock:
            resources = dict(unfused(self._executor.resources))
        names = self._names()

        def ahead() -> None:
            self._compiler.expect(one.spec for _, one in self._propose(resources) if isinstance(one, Fused) and one.name not in names)

        if self.on:
            with suppress(Exception):  # the pass will say so
                await asyncio.to_thread(ahead)

    async def _pass(self) -> bool:
        """Fuses what can be; False: something is worth another try later."""
        async with self._lock:
            resources = dict(unfused(self._executor.resources))
        done, ready, swapped, complete = False, dict[str, Fused](), time.monotonic(), True
        while not done:
            proposals = await asyncio.to_thread(self._propose, resources) if self.on else []
            self.reasons = {key: one.reason for keys, one in proposals if isinstance(one, Cut) for key in keys}
            done = True
            for keys, one in proposals:
                if self._wake.is_set():
                    break
                if isinstance(one, Cut) or one.name in ready:
                    continue
                if one.name not in self.standing:
                    problem = await self._prepare(one)
                    if problem:
                        self.reasons.update(dict.fromkeys(keys, problem))
                        refused = one.digest in self._refusals
                        done, complete = done and not refused, complete and refused
                        continue
                ready[one.name] = one
                if time.monotonic() - swapped > SWAP:
                    await self._swap([*ready.values(), *self.standing.values()])
                    swapped = time.monotonic()
        await self._swap(ready.values() if not self._wake.is_set() else [*ready.values(), *self.standing.values()])
        return complete

    def _propose(self, resources: Resources) -> list[tuple[list[Key], Fused | Cut]]:
        loads = list(self._kernel.loader.loads.items())
        pieces = {key: replace(load.piece, verified=self._kernel.fused.verified(*key)) for key, load in loads if load.piece}
        return list(propose(View(resources), pieces, self.off, lambda one: one.digest in self._refusals))

    async def _prepare(self, one: Fused) -> str:
        """Builds and loads; returns why not."""
        begin, before = time.monotonic(), self._compiler.requests
        try:
            data = await self._compiler.emit_spec(one.spec)
            built = time.monotonic()
            self._kernel.fused.loads[one.name] = FusedLoad(data, one.pins)
            await asyncio.to_thread(self._kernel.fused.load, one.name)
        except (CompileError, BpfError, OSError, ValueError) as error:
            self._kernel.fused.forget(one.name)
            return self._failed(one, error)
        self.made[one.name] = Made(built - begin, time.monotonic() - built, self._compiler.requests == before)
        return ""

    def _failed(self, one: Fused, error: Exception) -> str:
        """Remembers what must fail again; a process that was killed, or a map that has just gone, may not."""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        attempts = self._attempts[one.digest] = self._attempts.get(one.digest, 0) + 1
        passing = (isinstance(error, OSError) and not isinstance(error, BpfError)) or (isinstance(error, CompileError) and error.passing)
        if not passing or attempts >= ATTEMPTS:
            self._refusals.add(one.digest, reason, lasting=not passing)
        log.info("not fused", unit=one.spec.title, entries=" ".join(one.entries), reason=reason)
        return reason

    async def _swap(self, wanted: Collection[Fused]) -> None:
        """Has just these stand, as far as they still fit."""
        async with self._lock:
            plain = unfused(self._executor.resources)
            view = View(plain)
            good = {one.name: one for one in wanted if self.on and one.uuids.isdisjoint(self.off) and stands(one, view)}
            for one in wanted:
                if one.name not in good:
                    self._kernel.fused.forget(one.name)
            steps = plan(self._executor.resources, overlay(plain, good.values()))
            try:
                await self._executor.execute(steps)
            except KernelError as error:
                log.info("not fused", reason=str(error))
                return
            await self._executor.finish(steps)
            if good.keys() - self.standing.keys():
                self._swapped = time.monotonic()
                for name in good.keys() - self.standing.keys():
                    log.debug("fused", unit=good[name].spec.title, entries=" ".join(good[name].entries))
                    self._announce("fused", unit=name, cubes=len(good[name].units), entries=list(good[name].entries))
            self.standing = good


def unwilling(entries: Mapping[str, Entry]) -> set[str]:
    """Uuids of cubes that are not to be fused."""
    return {entry.uuid for entry in entries.values() if not entry.fuse}


def overlay(resources: Resources, units: Collection[Fused]) -> Resources:
    """Resources with fused units at their entries."""
    if not units:
        return resources
    result: dict[Key, Any] = dict(resources)
    for one in units:
        result[Key(Kind.FUSED, (one.name,))] = one.entries
        for key, value in one.attached.items():
            result[key] = {**value, "fused": one.name}
    return result
