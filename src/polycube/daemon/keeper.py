# SPDX-License-Identifier: Apache-2.0
"""Keeps configuration, kernel and store in step.

Every change, whoever wants it (a client, a cube, a netdev event, a start), goes the same way: copy what the daemon holds (`Draft`),
change the copy, ask the workers concerned what it means for their maps, let the topology say what the kernel must hold, carry out the
difference, store, and only then let the copy be the truth. Whoever reads sees what stood before. A service that hangs holds up changes
of its own cubes only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from typing import Any

import structlog

from polycube.core.adopt import Reader
from polycube.core.kernel import Kernel, KernelError
from polycube.core.loops import endless_loop
from polycube.core.message import Instance
from polycube.core.mirror import Fact
from polycube.core.operation import Key, Kind, Operation, Plan, plan
from polycube.core.registry import Installed
from polycube.core.topology import PortState, World, build
from polycube.core.waysin import INTERNAL
from polycube.core.wire import CallTimeout
from polycube.daemon.answers import Answers
from polycube.daemon.controller import Result
from polycube.daemon.draft import Absent, Draft, Entry, Refused
from polycube.daemon.events import Events
from polycube.daemon.executor import Executor
from polycube.daemon.facts import Facts, Told
from polycube.daemon.fuser import Fuser, Fusing
from polycube.daemon.log import quietly
from polycube.daemon.objects import Objects
from polycube.daemon.records import Kept, restored
from polycube.daemon.records import changes as store_change
from polycube.daemon.store import Change as StoreChange
from polycube.daemon.store import Store
from polycube.daemon.underway import step
from polycube.daemon.workers import WorkerDied, Workers, WorkerUnavailable
from polycube.daemon.worlds import NO_WISHES, Wishes, Worlds, granted, picture
from polycube.model import Edit, PolycubeError, dump
from polycube.net import netns, readiness
from polycube.net.netdev import Netdev

log = structlog.get_logger("polycubed")
LATER = 10.0  # seconds
CATCH_UP = 100  # hundredths of a second in which events of netdevs must have come
PATIENCE = 3  # times that a change gives way to others


class Failed(PolycubeError):
    """The kernel refused a change; nothing has changed."""

    status = 409

    def __init__(self, error: KernelError) -> None:
        self.error = error
        super().__init__(f"Nothing was changed: {error}")


class Keeper:
    """Holds all cubes, and changes them."""

    def __init__(
        self, *, services: Mapping[str, Installed], kernel: Kernel, store: Store, workers: Workers, objects: Objects, fusing: Fusing
    ) -> None:
        self.concluded: list[Callable[[], None]] = []  # called when what stands has changed
        self.installed = services
        self.kernel = kernel
        self.store = store
        self._worlds = Worlds(services, objects, kernel.loader.loads)
        self.executor = Executor(kernel)
        self.workers = workers
        self.entries: dict[str, Entry] = {}
        self.attached: dict[str, tuple[str, ...]] = {}
        self.present: dict[str, Netdev] = {}  # netdevs of this namespace, by name
        self.states: dict[tuple[str, str], PortState] = {}
        self._wishes: dict[str, Wishes] = {}  # uuid -> what the cube wants beside map writes
        self._told: dict[str, Told] = {}  # uuid -> facts its worker knows
        self._kept = Kept({}, {}, {}, Absent())
        self.lost_copies = 0  # of XDP cubes' traffic, that a namespace did not take
        self.events = Events()
        self._lock = asyncio.Lock()  # of what stands: kernel, store and the tables above
        self.fuser = Fuser(kernel, self.executor, self._lock, fusing, self.events.announce)
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # service -> held from question to commit
        self._version = 0  # of what stands

    def state_of(self, cube: str, port: str) -> PortState:
        """Whether frames can pass a port, also in view of what could not be set up at its netdev."""
        state = self.states.get((cube, port), PortState(False, "not set up"))
        netdev = self.present.get(state.netdev)
        for key, error in list(self.executor.failed.items()) if netdev else ():
            assert netdev
            if key.kind in (Kind.ATTACH, Kind.READY) and key.name[0] == netdev.ifindex:
                return PortState(False, str(error.cause), state.netdev)
        return state

    def _announce(self) -> None:
        self.events.stands(picture(self.entries, self.attached, self.present, self.state_of))

    # ---- the way of every change ----

    async def change(self, act: Callable[[Draft], None], dry_run: bool = False) -> Result:
        """A change that is refused gets a second chance if netdevs have changed a moment ago: their events come behind the kernel."""
        seen = _standing(self.present)
        try:
            return await self._try(act, dry_run)
        except Refused:
            now = _standing({one.name: one for one in await self.kernel.links.list()})
            if now == seen:
                raise
        for _ in range(CATCH_UP):
            if _standing(self.present) == now:
                break
            await asyncio.sleep(0.01)
        return await self._try(act, dry_run)

    async def _try(self, act: Callable[[Draft], None], dry_run: bool) -> Result:
        """Workers are asked without the lock, since their answer may be long in coming; if something else was changed meanwhile, the
        change is begun again, and after a few times with the lock held. Locks of services are always taken before it."""
        asked: set[str] = set()  # services, by this attempt or an earlier one
        for attempt in count():
            patient = attempt < PATIENCE
            draft, begun = Draft(self.entries, self.attached, self._kept.absent), self._version
            try:
                act(draft)
                self._check(draft)  # what can't be is not worth compiling anything for
                await self._worlds.prepare(draft, self.entries)
                async with AsyncExitStack() as held:
                    step("waiting for other changes")
                    await self._hold(held, () if patient else asked)
                    await held.enter_async_context(self._lock)
                    version = self._version
                    if version != begun:
                        draft = Draft(self.entries, self.attached, self._kept.absent)
                        act(draft)
                    world = await self._drawn(draft)
                    built = build(world)
                    questions = self._questions(draft, built[1])
                    services = {entry.service for entry, _ in questions}
                    unheld, asked = services - asked, asked | services
                    if patient:
                        await held.aclose()
                        await self._hold(held, services)
                    if self._version != version or (unheld and not patient):
                        continue
                    answers = await self._ask(draft, questions)
                    if patient:
                        await held.enter_async_context(self._lock)
                    if self._version == version:
                        return await self._settle(draft, world, built, answers, dry_run)
                    await self._rollback(answers)
            finally:
                standing = {entry.uuid for entry in self.entries.values()}
                self._worlds.forget(entry.uuid for entry in draft.cubes.values() if entry.uuid not in standing)
        raise AssertionError

    async def _hold(self, held: AsyncExitStack, services: Collection[str]) -> None:
        for service in sorted(services):
            await held.enter_async_context(self._asking[service])

    def _check(self, draft: Draft) -> None:
        """Refuses what can't be, as far as the netdevs say."""
        draft.settle({name: one.kind for name, one in self.present.items()})
        draft.check({name: one.up for name, one in self.present.items() if one.ifindex < INTERNAL and not one.loopback})

    async def _drawn(self, draft: Draft) -> World:
        """The draft as the topology sees it; refuses what can't be."""
        self._check(draft)
        world = await self._worlds.of(draft, self.present, self._wishes)
        loop = endless_loop(world)
        if loop:
            raise Refused(f"Joining {loop} would close a loop of cubes that flood; on generic XDP frames would go round for ever")
        return world

    async def _settle(
        self, draft: Draft, world: World, built: tuple[dict[Key, Any], dict[tuple[str, str], PortState]], answers: Answers, dry_run: bool
    ) -> Result:
        """Kernel and store follow the draft, or all stays as it was. `built`: what the world needs, before the cubes' wishes."""
        try:
            wanted = granted(world, answers.wishes)
            resources, states = built if wanted is world else build(wanted)
            steps = plan(self.executor.resources, self.fuser.kept(resources, draft.cubes), answers.writes)
            if dry_run:
                await self._rollback(answers)
                return Result([operation.as_data() for operation in steps])
            self._reset_counters(draft)
            await self._note_readiness(steps)
            done = await self._execute(steps, draft)
        except BaseException:
            if not dry_run:
                await self._rollback(answers)
                await quietly(self._take_back_readiness(), "take back what was noted for XDP")
            raise
        try:
            await self._save(draft)
        except BaseException:
            await self.executor.undo(done)
            await self._rollback(answers)
            raise
        gone = [entry for name, entry in self.entries.items() if name not in draft.cubes or draft.cubes[name].uuid != entry.uuid]
        self._version += 1
        self.entries, self.attached, self.states = draft.cubes, draft.attached, states
        self._announce()
        await self._conclude(steps, answers, gone)
        return Result()

    async def _conclude(self, steps: Plan, answers: Answers, gone: Sequence[Entry]) -> None:
        """What follows a stored change; failures here are of the worker or of clean-up, and the change stands."""
        self._wishes.update(answers.wishes)
        self._told.update(answers.told)
        for entry in answers.touched:
            await quietly(self.workers.commit(entry.service, entry.uuid), f"commit {entry.name}")
        for entry in gone:
            self._told.pop(entry.uuid, None)
            self._wishes.pop(entry.uuid, None)
            await quietly(self.workers.remove(entry.service, entry.uuid), f"remove {entry.name}")
        await self.executor.finish(steps)
        self._worlds.forget(entry.uuid for entry in gone)
        for sentence in self.kernel.loader.lost:
            log.warning(sentence)
        self.kernel.loader.lost.clear()
        self.kernel.loader.fresh.clear()
        self._worlds.shut &= {id for entry in self.entries.values() for _, id in entry.ports.values()}
        self.fuser.touched(self.entries)
        for told in self.concluded:
            told()

    def shadow_of(self, uuid: str) -> AbstractSet[Fact] | None:
        """What the namespace of a cube is to show; None: nobody knows."""
        return self._wishes.get(uuid, NO_WISHES).shadow

    async def shut(self, ports: AbstractSet[int], down: AbstractSet[int]) -> None:
        """Of these ports, by their ids, just those `down` are set down in the namespace of their cube."""
        now = (self._worlds.shut - ports) | down
        if now != self._worlds.shut:
            self._worlds.shut = now
            self._version += 1
            await self.change(lambda draft: None)

    def _reset_counters(self, draft: Draft) -> None:
        """What is new begins at zero, also under a number that somebody had before."""
        known = {id for entry in self.entries.values() for id in [*entry.ids, *(id for _, id in entry.ports.values())]}
        numbers = {entry.number for entry in self.entries.values()}
        for entry in draft.cubes.values():
            for id in {*entry.ids, *(id for _, id in entry.ports.values())} - known - {0}:
                self.kernel.reset_port(id)
            if entry.number not in numbers:
                self.kernel.reset_cube(entry.number)

    async def _execute(self, steps: Plan, draft: Draft) -> list[Operation]:
        try:
            return await self.executor.execute(steps)
        except KernelError as error:
            raise self._worlds.unloadable(draft, error) or Failed(error) from error

    # ---- workers ----

    def _questions(self, draft: Draft, states: Mapping[tuple[str, str], PortState]) -> list[tuple[Entry, Told]]:
        """Cubes that a change concerns, with what they are to be told. One that its service has not taken over does not hold up others."""
        facts = Facts(draft, states, self.present)
        waiting = {name for name, entry in self.entries.items() if entry.uuid not in self._told}
        told = [(entry, facts.of(entry)) for name, entry in draft.cubes.items() if name in draft.edits or name not in waiting]
        return [(entry, one) for entry, one in told if draft.edits.get(entry.name) or self._told.get(entry.uuid) != one]

    async def _ask(self, draft: Draft, questions: Sequence[tuple[Entry, Told]]) -> Answers:
        """What the change means for the cubes' maps. If one refuses, those asked before are told to forget it."""
        answers = Answers()
        try:
            for entry, told in questions:
                await self._ask_one(entry, told, draft.edits.get(entry.name, []), answers)
        except BaseException:
            await self._rollback(answers)
            raise
        return answers

    async def _ask_one(self, entry: Entry, told: Told, edits: list[Edit], answers: Answers) -> None:
        try:
            if entry.uuid in self._told:
                recorded = await self.workers.change(entry.service, entry.uuid, edits, *told, await self._worlds.paths(entry))
            else:
                recorded = await self.workers.create(entry.service, await self._instance(entry, told))
        except CallTimeout:  # the worker may still be at it
            await quietly(self.workers.rollback(entry.service, entry.uuid), f"roll back {entry.name}")
            raise
        answers.take(entry, told, recorded, self._wishes.get(entry.uuid, NO_WISHES))

    async def _rollback(self, answers: Answers) -> None:
        for entry in answers.touched:
            await quietly(self.workers.rollback(entry.service, entry.uuid), f"roll back {entry.name}")

    async def _instance(self, entry: Entry, told: Told | None = None) -> Instance:
        ports, parent = told or self._told[entry.uuid]
        objects, pins = await self._worlds.paths(entry), self.kernel.paths.cube(entry.uuid)
        return Instance(entry.uuid, entry.name, entry.number, dump(entry.config), ports, objects, pins, parent)

    async def standing(self, service: str) -> list[Instance]:
        """The cubes of a service, for a worker that takes them over."""
        return [await self._instance(e) for e in self.entries.values() if e.service == service and e.uuid in self._told]

    # ---- store ----

    async def _note_readiness(self, steps: Plan) -> None:
        """Stores what netdevs have set before it is changed, so that it can be put back whatever happens to this process."""
        by_index = {one.ifindex: one for one in self.present.values()}
        noted: dict[str, Any] = {}
        for operation in steps.ahead:
            netdev = by_index.get(operation.key.name[0]) if operation.key.kind is Kind.READY else None
            if netdev and netdev.ifindex not in self.kernel.netdevs.preparations:
                found = await netns.call_in(None, lambda one=netdev: readiness.plan(one))  # type: ignore[misc]
                if isinstance(found, readiness.Preparation):
                    self.kernel.netdevs.preparations[netdev.ifindex] = found
                    noted[str(netdev.ifindex)] = found.to_json()
        if noted:
            await self.store.save(StoreChange(ready=noted))
            self._kept = replace(self._kept, preparations=dict(self.kernel.netdevs.preparations))

    async def _take_back_readiness(self) -> None:
        """After a failure: what was noted and not made, or undone."""
        made = {key.name[0] for key in self.executor.resources if key.kind is Kind.READY}
        self.kernel.netdevs.preparations = {ifindex: one for ifindex, one in self.kernel.netdevs.preparations.items() if ifindex in made}
        await self._save(Draft(self.entries, self.attached))

    async def _save(self, draft: Draft) -> None:
        change = store_change(self._kept, draft.cubes, draft.attached, self.kernel.netdevs.preparations)
        if change:
            step("storing the change")
            await self.store.save(change)
        self._kept = Kept(draft.cubes, draft.attached, dict(self.kernel.netdevs.preparations), self._kept.absent)

    # ---- services that change ----

    async def renew(self, service: str, entries: Mapping[str, Entry], stand: Callable[[], Awaitable[None]]) -> None:
        """A service's code and model are others: its cubes, `entries`, get its programs; tables are kept, and new ones filled. `stand` is
        called when it is done, before the cubes' new control plane begins with its work."""
        async with self._asking[service], self._lock:
            draft = Draft({**self.entries, **entries}, self.attached, self._kept.absent)
            world = await self._drawn(draft)
            facts = Facts(draft, self.states, self.present)
            told = {entry.uuid: self._told.pop(entry.uuid) for entry in entries.values() if entry.uuid in self._told}
            answers, done = Answers(), list[Operation]()
            try:
                answers = await self._ask(draft, [(entry, facts.of(entry)) for entry in entries.values()])
                built, states = build(granted(world, answers.wishes))
                resources = self.fuser.kept(built, draft.cubes)
                done += await self._execute(plan(self.executor.resources, resources).loading, draft)
                writes = [one for one in answers.writes if one.key.name[1] in self.kernel.loader.fresh.get(one.key.name[0], ())]
                steps = plan(self.executor.resources, resources, writes)
                done += await self._execute(steps, draft)
            except BaseException:
                await self.executor.undo(done)
                await self._rollback(answers)
                self._told.update(told)
                raise
            self.entries, self.states = draft.cubes, states
            self._version += 1
            await self._save(draft)
            await stand()
            await self._conclude(steps, answers, ())

    # ---- start and events ----

    async def start(self, netdevs: Sequence[Netdev]) -> None:
        """Takes over what the store and the kernel hold, and mends the difference."""
        self.present = {one.name: one for one in netdevs}
        stored = await self.store.read()
        self._kept = restored(
            stored, await self._worlds.usable({(one.record.service, one.record.extra["hook"]) for one in stored.cubes.values()})
        )
        for name, service in self._kept.absent.services.items():
            log.error("service is not there; the cube is left out", cube=name, service=service)
        self.entries, self.attached = dict(self._kept.entries), dict(self._kept.attached)
        self.kernel.netdevs.preparations = dict(self._kept.preparations)
        self._worlds.shut = await asyncio.to_thread(self.kernel.shadows.shut)
        draft = Draft(self.entries, self.attached)
        await self._worlds.excuse(self.entries.values())
        world = await self._worlds.of(draft, self.present, self._wishes)
        self.executor.resources = await asyncio.to_thread(Reader(self.kernel).read)
        answers = await self._ask_all(draft, build(world)[1])
        built, self.states = build(granted(world, answers.wishes))
        resources = self.fuser.adopt(built, self.entries)
        await self._mend(plan(self.executor.resources, resources).loading)
        # maps that lived on hold what they held; only new ones are filled
        writes = [one for one in answers.writes if one.key.name[1] in self.kernel.loader.fresh.get(one.key.name[0], ())]
        await self._mend(plan(self.executor.resources, resources, writes))
        await self._save(draft)
        self._announce()
        await self._conclude(Plan(), answers, ())
        self._late = asyncio.create_task(self._take_over_late(), name="take over late")
        self.fuser.start()

    async def _take_over_late(self) -> None:
        """Asks again, now and then, for cubes that their service did not take over at the start."""
        while waiting := [name for name, entry in self.entries.items() if entry.uuid not in self._told]:
            await asyncio.sleep(LATER)
            for name in waiting:
                if name in self.entries:
                    await quietly(self.change(lambda draft, name=name: draft.ask(name)), f"take over {name}")  # type: ignore[misc]

    async def _ask_all(self, draft: Draft, states: Mapping[tuple[str, str], PortState]) -> Answers:
        """Every cube, at the start. One whose worker fails keeps the constants it has in the kernel, and is asked at the next change."""
        answers = Answers()
        for name in draft.cubes:
            draft.ask(name)
        dead: dict[str, PolycubeError] = {}  # services whose worker does not answer: asking for each cube would take long
        for entry, told in self._questions(draft, states):
            try:
                if entry.service in dead:
                    raise dead[entry.service]
                await self._ask_one(entry, told, [], answers)
            except PolycubeError as error:
                if isinstance(error, WorkerDied | WorkerUnavailable | CallTimeout):
                    dead[entry.service] = error
                log.error("not taken over by its service", cube=entry.name, reason=str(error))
                own = {key: value for key, value in self.executor.resources.items() if key.name[0] == entry.uuid}
                cfg: dict[str, str] = next((value for key, value in own.items() if key.kind is Kind.CFG), {})
                domains = {key.name[2]: value for key, value in own.items() if key.kind is Kind.DOMAIN and key.name[2]}
                answers.wishes[entry.uuid] = Wishes(cfg, domains=domains)
        return answers

    async def netdevs_changed(self, netdevs: Mapping[str, Netdev], gone: Collection[int] = ()) -> None:
        """Netdevs came, went or changed: the kernel follows at once, then the cubes are told. `gone`: ifindexes of those that went, even if
        another netdev, or the same one again, has taken the index since: what hung on it went with it."""
        async with self._lock:
            before, self.present = self.present, dict(netdevs)
            used = {port.peer for _, port in Draft(self.entries, self.attached).ports()} | set(self.attached)
            lost = {name for name in used if name in before and before[name].ifindex in gone}
            if not lost and {name: before.get(name) for name in used} == {name: self.present.get(name) for name in used}:
                self._announce()
                return
            self._version += 1
            try:
                await self._follow(lost)
            except BaseException:
                self.present = before  # the next time, these are changes again
                raise
        await quietly(self.change(lambda draft: None), "tell cubes of their netdevs")

    async def _follow(self, lost: set[str]) -> None:
        """Has the kernel follow the netdevs that are there; what hung on the lost ones, of which some may be back, is taken away first."""
        draft, present = Draft(self.entries, self.attached), self.present
        if lost & present.keys():
            self.present = {name: one for name, one in present.items() if name not in lost}
            without = build(await self._worlds.of(draft, self.present, self._wishes))[0]
            await self._mend(plan(self.executor.resources, self.fuser.kept(without, self.entries)))
            self.present = present
        resources, states = build(await self._worlds.of(draft, present, self._wishes))
        steps = plan(self.executor.resources, self.fuser.kept(resources, self.entries))
        await self._note_readiness(steps)
        await self._mend(steps)
        self.fuser.touched(self.entries)
        self.states = states
        self._announce()
        await self.kernel.netdevs.renew_readiness()
        await self._save(draft)

    async def _mend(self, steps: Plan) -> None:
        """Does what can be done of a plan, and says what can't."""
        for failure in await self.executor.mend(steps):
            log.error("could not be set up", reason=str(failure))

    async def close(self) -> None:
        """Ends the workers; the kernel keeps forwarding."""
        if self._late:
            self._late.cancel()
        await self.fuser.close()
        await self.workers.close()
        self.kernel.close()


def _standing(netdevs: Mapping[str, Netdev]) -> dict[str, tuple[int, bool]]:
    """What it takes to be a peer."""
    return {name: (one.ifindex, one.up) for name, one in netdevs.items()}
