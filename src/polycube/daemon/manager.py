# SPDX-License-Identifier: Apache-2.0
"""The daemon's core: turns requests into plans and keeps configuration, kernel and store in step.

Every change, whoever wants it (a client, a cube, a netdev event, a start), goes the same way: copy what the daemon holds (`Draft`),
change the copy, ask the workers concerned what it means for their maps, let the topology say what the kernel must hold, carry out the
difference, store, and only then let the copy be the truth. Whoever reads sees what stood before. A service that hangs holds up changes
of its own cubes only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import structlog

from polycube import __version__
from polycube.compiler.errors import CompileError
from polycube.core.adopt import Reader
from polycube.core.kernel import INJECT_INNER, INTERNAL, Kernel, KernelError, Load
from polycube.core.message import Instance, Recorded
from polycube.core.operation import Key, Kind, Operation, Plan, plan
from polycube.core.registry import Installed
from polycube.core.topology import CubeSpec, NetdevSpec, PortState, World, build, endless_loop, hooks
from polycube.daemon.controller import Change, CubeView, DeleteCube, EditCube, Placement, Planned, Result, Service, applied
from polycube.daemon.draft import Absent, Draft, Entry, Refused
from polycube.daemon.executor import Executor
from polycube.daemon.facts import Facts, Told
from polycube.daemon.metrics import render
from polycube.daemon.objects import Objects
from polycube.daemon.records import Kept, restored
from polycube.daemon.records import changes as store_change
from polycube.daemon.store import Change as StoreChange
from polycube.daemon.store import Store
from polycube.daemon.workers import Workers
from polycube.model import Edit, ModelError, Node, Op, Path, PolycubeError, Tag, dump, key_segments, resolve
from polycube.model import Kind as NodeKind
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


@dataclass(frozen=True)
class Wishes:
    """What a cube wants beside map writes: constants for its programs, MAC and addresses for its netdevs."""

    cfg: Mapping[str, str] = field(default_factory=dict)
    netdevs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NO_WISHES = Wishes()


@dataclass
class Answers:
    """What workers said to a change; `commit` or `rollback` is still to follow for each cube of `touched`."""

    touched: list[Entry] = field(default_factory=list)
    told: dict[str, Told] = field(default_factory=dict)
    writes: list[Operation] = field(default_factory=list)
    wishes: dict[str, Wishes] = field(default_factory=dict)


class Manager:
    """Implements `Controller`."""

    def __init__(
        self, *, services: Mapping[str, Installed], kernel: Kernel, store: Store, workers: Callable[[Manager], Workers], objects: Objects
    ) -> None:
        self.installed = services
        self.kernel = kernel
        self.store = store
        self.objects = objects
        self.executor = Executor(kernel)
        self.workers = workers(self)
        self.entries: dict[str, Entry] = {}
        self.attached: dict[str, tuple[str, ...]] = {}
        self.present: dict[str, Netdev] = {}  # netdevs of this namespace, by name
        self.states: dict[tuple[str, str], PortState] = {}
        self.problems: dict[int, str] = {}  # ifindex -> why an attachment failed at an event
        self._wishes: dict[str, Wishes] = {}  # uuid -> what the cube wants beside map writes
        self._xdp_problems: dict[int, tuple[Netdev, str]] = {}
        self._told: dict[str, Told] = {}  # uuid -> facts its worker knows
        self._kept = Kept({}, {}, {}, Absent())
        self._lock = asyncio.Lock()  # of what stands: kernel, store and the tables above
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # service -> held from question to commit
        self._version = 0  # of what stands
        self._specs: dict[str, tuple[Entry, Any, CubeSpec]] = {}  # uuid -> what its spec was made from, and the spec
        self._services = {
            name: Service(name, one.description, one.cls.version, "transparent" if one.transparent else "standard", one.config)
            for name, one in services.items()
        }

    # ---- reading: Controller ----

    def services(self) -> Mapping[str, Service]:
        return self._services

    def cubes(self) -> Mapping[str, CubeView]:
        return {name: CubeView(name, e.service, e.uuid, e.config, self._common(e)) for name, e in self.entries.items()}

    def netdevs(self) -> Sequence[Mapping[str, Any]]:
        return [
            {"name": one.name, "addresses": [str(address) for address in one.addresses]}
            for one in self.present.values()
            if one.up and not one.loopback and one.ifindex < INTERNAL
        ]

    def version(self) -> str:
        return __version__

    async def overlay(self, name: str, path: Path = ()) -> Mapping[str, Any]:
        entry = self.entries[name]
        common = self._common(entry)
        if path and path[0] in ("uuid", "type", "service-name", "loglevel", "parent", "name"):
            return common
        state = dict(await self.workers.state(entry.service, entry.uuid))
        ports = {port["name"]: port for port in state.pop("ports", ())}
        if "ports" in common:
            common["ports"] = [{**ports.get(port["name"], {}), **port} for port in common["ports"]]
        return {**state, **common}

    def _common(self, entry: Entry) -> dict[str, Any]:
        common: dict[str, Any] = {"uuid": entry.uuid}
        if entry.transparent:
            parent = Draft(self.entries, self.attached).parent(entry.name)
            return common | ({"parent": parent} if parent else {})
        common["ports"] = []
        for port in entry.standard.ports.values():
            state = self._state_of(entry, port.name)
            line = {"name": port.name, "uuid": f"{entry.uuid[:-4]}{entry.ports[port.name][0]:04x}", "status": "UP" if state.up else "DOWN"}
            common["ports"].append(line if state.up else line | {"reason": state.reason})
        return common

    def _state_of(self, entry: Entry, port: str) -> PortState:
        state = self.states.get((entry.name, port), PortState(False, "not set up"))
        problem = self.problems.get(self.present[state.netdev].ifindex, "") if state.netdev in self.present else ""
        return PortState(False, problem, state.netdev) if problem else state

    def topology_of(self, ifname: str) -> Mapping[str, Any]:
        if ifname not in self.present:
            return {"name": ifname}
        stack = [name for name in self.attached.get(ifname, ()) if name in self.entries]
        owner = next((f"{e.name}:{p.name}" for e, p in Draft(self.entries, self.attached).ports() if p.peer == ifname), "stack")
        lines = [f"{name},\t{self.entries[name].number * 2},\t{self.entries[name].number * 2 + 1}" for name in stack]
        return {
            "name": ifname,
            "cubes, ingress_index, egress_index": lines,
            "ingress service chain": " ---> ".join([*stack, owner]),
            "egress service chain": " ---> ".join([*stack[::-1], ifname]),
        }

    async def metrics(self) -> str:
        return await asyncio.to_thread(render, self)

    def reasons(self, entry: Entry) -> dict[int, str]:
        """Names of the drop reasons of a cube."""
        return self.objects.reasons(entry.service, entry.hook)

    # ---- changing: Controller ----

    async def change(self, changes: Sequence[Change], *, dry_run: bool) -> Result:
        def act(draft: Draft) -> None:
            planned = applied(changes, self.services(), self.cubes())
            deleted = {one.name for one in changes if isinstance(one, DeleteCube)}
            for name in [name for name, one in planned.items() if one.old is not None and (one.new is None or name in deleted)]:
                draft.delete(name)
            for name, one in planned.items():
                self._take(draft, name, one, changes)

        try:
            result = await self._change(act, dry_run)
        except ModelError as error:
            return await self._forget_learned(changes, error, dry_run)
        for change in changes if not dry_run else ():
            if isinstance(change, EditCube):
                await _quietly(self._forget(change), f"forget what {change.name} learned")
        return result

    def _take(self, draft: Draft, name: str, one: Planned, changes: Sequence[Change]) -> None:
        if one.new is None:
            return
        if name not in draft.cubes:
            draft.create(name, one.service, self.installed[one.service].transparent, one.new)
            return
        edits = [edit for change in changes if isinstance(change, EditCube) and change.name == name for edit in change.edits]
        draft.reconfigure(name, one.new, edits)

    async def _forget_learned(self, changes: Sequence[Change], error: ModelError, dry_run: bool) -> Result:
        """A DELETE of what is not configured may mean something the cube has learned."""
        change = changes[0]
        if len(changes) > 1 or not isinstance(change, EditCube) or any(one.tag is not Tag.DATA_MISSING for one in error.problems):
            raise error
        if dry_run or not await self._forget(change):
            raise error
        return Result()

    async def _forget(self, change: EditCube) -> bool:
        """Has a cube forget what the deletions of a request mean: one learned element, or all of a list."""
        entry, forgotten = self.entries.get(change.name), False
        for edit in change.edits if entry else ():
            assert entry
            target = resolve(type(entry.config), edit.path)
            if edit.op is Op.DELETE and target.member and target.kind in (NodeKind.ELEMENT, NodeKind.LIST):
                step = target.steps[-1]
                key = key_segments(step.member.child, step.key) if target.kind is NodeKind.ELEMENT else None
                names = "/".join(step.member.name for step in target.steps)
                forgotten |= await self.workers.forget(entry.service, entry.uuid, names, key[0] if key and len(key) == 1 else key)
        return forgotten

    async def action(self, name: str, path: Path, input: Node | None, *, dry_run: bool) -> Result:
        if dry_run:
            raise Refused(f"{'/'.join(path)} of {name} is an action: what it would do can't be shown")
        entry = self.entries[name]
        body = dump(input) if input is not None else None
        return Result(output=await self.workers.action(entry.service, entry.uuid, path, body))

    async def connect(self, peer1: str, peer2: str, *, dry_run: bool) -> Result:
        return await self._change(lambda draft: draft.connect(peer1, peer2), dry_run)

    async def disconnect(self, peer1: str, peer2: str, *, dry_run: bool) -> Result:
        return await self._change(lambda draft: draft.disconnect(peer1, peer2), dry_run)

    async def attach(self, cube: str, port: str, placement: Placement, *, dry_run: bool) -> Result:
        def act(draft: Draft) -> None:
            if ":" not in port and port not in self.present:
                raise Refused(f"netdev {port} not found")
            draft.attach(cube, port, placement, {name: one.cls.layer for name, one in self.installed.items()})

        return await self._change(act, dry_run)

    async def detach(self, cube: str, port: str, *, dry_run: bool) -> Result:
        def act(draft: Draft) -> None:
            if ":" not in port and port not in self.present and port not in self.attached:
                raise Refused(f"netdev {port} not found")
            draft.detach(cube, port)

        return await self._change(act, dry_run)

    # ---- workers' wishes ----

    async def edited(self, uuid: str, edits: list[Edit]) -> None:
        """A cube wants its own configuration changed."""
        entry = next((one for one in self.entries.values() if one.uuid == uuid), None)
        if entry:
            await self.change([EditCube(entry.name, tuple(edits))], dry_run=False)

    async def standing(self, service: str) -> list[Instance]:
        """The cubes of a service, for a worker that takes them over."""
        return [await self._instance(e) for e in self.entries.values() if e.service == service and e.uuid in self._told]

    # ---- the way of every change ----

    async def _change(self, act: Callable[[Draft], None], dry_run: bool = False) -> Result:
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
        change is begun again, and after a few times with the lock held."""
        for attempt in count():
            async with AsyncExitStack() as held:
                await held.enter_async_context(self._lock)
                version = self._version
                draft = Draft(self.entries, self.attached, self._kept.absent)
                act(draft)
                draft.settle({name: one.kind for name, one in self.present.items()})
                draft.check({name: one.up for name, one in self.present.items() if one.ifindex < INTERNAL and not one.loopback})
                world = await self._world(draft)
                loop = endless_loop(world)
                if loop:
                    raise Refused(f"Joining {loop} would close a loop of cubes that flood; on generic XDP frames would go round for ever")
                built = build(world)
                questions = self._questions(draft, built[1])
                if attempt < PATIENCE:
                    await held.aclose()
                for service in sorted({entry.service for entry, _ in questions}):
                    await held.enter_async_context(self._asking[service])
                if self._version != version:
                    continue
                answers = await self._ask(draft, questions)
                if attempt < PATIENCE:
                    await held.enter_async_context(self._lock)
                if self._version == version:
                    return await self._settle(draft, world, built, answers, dry_run)
                await self._rollback(answers)
        raise AssertionError

    async def _settle(
        self, draft: Draft, world: World, built: tuple[dict[Key, Any], dict[tuple[str, str], PortState]], answers: Answers, dry_run: bool
    ) -> Result:
        """Kernel and store follow the draft, or all stays as it was. `built`: what the world needs, before the cubes' wishes."""
        try:
            granted = _granted(world, answers.wishes)
            resources, states = built if granted is world else build(granted)
            steps = plan(self.executor.resources, resources, answers.writes)
            if dry_run:
                await self._rollback(answers)
                return Result([operation.as_data() for operation in steps])
            self._reset_counters(draft)
            await self._note_readiness(steps)
            done = await self._execute(steps)
        except BaseException:
            if not dry_run:
                await self._rollback(answers)
                await _quietly(self._take_back_readiness(), "take back what was noted for XDP")
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
        await self._conclude(steps, answers, gone)
        return Result([operation.as_data() for operation in steps])

    async def _conclude(self, steps: Plan, answers: Answers, gone: Sequence[Entry]) -> None:
        """What follows a stored change; failures here are of the worker or of clean-up, and the change stands."""
        self._wishes.update(answers.wishes)
        self._told.update(answers.told)
        for entry in answers.touched:
            await _quietly(self.workers.commit(entry.service, entry.uuid), f"commit {entry.name}")
        for entry in gone:
            self._told.pop(entry.uuid, None)
            self._wishes.pop(entry.uuid, None)
            self._specs.pop(entry.uuid, None)
            await _quietly(self.workers.remove(entry.service, entry.uuid), f"remove {entry.name}")
        await self.executor.finish(steps)
        for sentence in self.kernel.lost:
            log.warning(sentence)
        self.kernel.lost.clear()
        self.kernel.fresh.clear()

    def _reset_counters(self, draft: Draft) -> None:
        """What is new begins at zero, also under a number that somebody had before."""
        known = {id for entry in self.entries.values() for id in [*entry.ids, *(id for _, id in entry.ports.values())]}
        numbers = {entry.number for entry in self.entries.values()}
        for entry in draft.cubes.values():
            for id in {*entry.ids, *(id for _, id in entry.ports.values())} - known - {0}:
                self.kernel.reset_port(id)
            if entry.number not in numbers:
                self.kernel.reset_drops(entry.number)

    async def _execute(self, steps: Plan) -> list[Operation]:
        try:
            return await self.executor.execute(steps)
        except KernelError as error:
            raise Failed(error) from error

    async def _world(self, draft: Draft) -> World:
        """The draft as the topology sees it, with the objects its cubes need."""
        bare = World({name: entry.bare for name, entry in draft.cubes.items()}, {}, draft.attached)
        specs = {}
        for name, entry in draft.cubes.items():
            installed = self.installed[entry.service]
            try:
                built = {hook: await self.objects.get(installed, hook) for hook in hooks(entry.bare, bare)}
            except CompileError as error:
                raise Refused(str(error)) from error
            own, wishes = built[entry.hook], self._wishes.get(entry.uuid, NO_WISHES)
            more = ({hook: one.unit for hook, one in built.items()}, own.floods, own.egress, wishes)
            known = self._specs.get(entry.uuid)
            if known is None or known[0] is not entry or known[1] != more:
                sizes = installed.cls.sizes(entry.config)
                for one in built.values():
                    self.kernel.loads.setdefault((entry.uuid, one.unit), Load(entry.service, one.data, sizes))
                units, floods, egress, _ = more
                spec = replace(entry.bare, units=units, floods=floods, egress=egress, cfg=wishes.cfg, netdevs=wishes.netdevs)
                self._specs[entry.uuid] = known = (entry, more, spec)
            specs[name] = known[2]
        if len(self._specs) > 2 * len(specs) + 16:  # of drafts that came to nothing
            uuids = {spec.uuid for spec in specs.values()}
            self._specs = {uuid: known for uuid, known in self._specs.items() if uuid in uuids}
        return World(specs, await self._netdev_specs(draft), draft.attached, INJECT_INNER)

    async def _netdev_specs(self, draft: Draft) -> dict[str, NetdevSpec]:
        users = {port.peer for entry, port in draft.ports() if entry.hook == "xdp"}
        specs = {}
        for name, one in self.present.items():
            problem = await self._xdp_problem(one) if name in users else ""
            specs[name] = NetdevSpec(name, one.ifindex, one.up, one.kind == "veth" and one.peer_netnsid is not None, problem)
        return specs

    async def _xdp_problem(self, netdev: Netdev) -> str:
        known = self._xdp_problems.get(netdev.ifindex)
        if known and known[0] == netdev:
            return known[1]
        result = await netns.call_in(None, lambda: readiness.plan(netdev))
        reason = result.reason if isinstance(result, readiness.NotReady) else ""
        self._xdp_problems[netdev.ifindex] = (netdev, reason)
        return reason

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
        if entry.uuid in self._told:
            recorded = await self.workers.change(entry.service, entry.uuid, edits, *told)
        else:
            recorded = await self.workers.create(entry.service, await self._instance(entry, told))
        answers.touched.append(entry)
        answers.told[entry.uuid] = told
        answers.writes += _writes(entry.uuid, recorded)
        cfg = dict(self._wishes.get(entry.uuid, Wishes()).cfg) | {name: value.hex() for name, value in recorded.cfg.items()}
        answers.wishes[entry.uuid] = Wishes(cfg, recorded.netdevs)

    async def _rollback(self, answers: Answers) -> None:
        for entry in answers.touched:
            await _quietly(self.workers.rollback(entry.service, entry.uuid), f"roll back {entry.name}")

    async def _instance(self, entry: Entry, told: Told | None = None) -> Instance:
        ports, parent = told or self._told[entry.uuid]
        installed = self.installed[entry.service]
        objects = {entry.hook: (await self.objects.get(installed, entry.hook)).path}
        return Instance(
            entry.uuid, entry.name, entry.number, dump(entry.config), ports, objects, self.kernel.paths.cube(entry.uuid), parent
        )

    # ---- store ----

    async def _note_readiness(self, steps: Plan) -> None:
        """Stores what netdevs have set before it is changed, so that it can be put back whatever happens to this process."""
        by_index = {one.ifindex: one for one in self.present.values()}
        noted: dict[str, Any] = {}
        for operation in steps.ahead:
            netdev = by_index.get(operation.key.name[0]) if operation.key.kind is Kind.READY else None
            if netdev and netdev.ifindex not in self.kernel.preparations:
                found = await netns.call_in(None, lambda one=netdev: readiness.plan(one))  # type: ignore[misc]
                if isinstance(found, readiness.Preparation):
                    self.kernel.preparations[netdev.ifindex] = found
                    noted[str(netdev.ifindex)] = found.to_json()
        if noted:
            await self.store.save(StoreChange(ready=noted))
            self._kept = replace(self._kept, preparations=dict(self.kernel.preparations))

    async def _take_back_readiness(self) -> None:
        """After a failure: what was noted and not made, or undone."""
        made = {key.name[0] for key in self.executor.resources if key.kind is Kind.READY}
        self.kernel.preparations = {ifindex: one for ifindex, one in self.kernel.preparations.items() if ifindex in made}
        await self._save(Draft(self.entries, self.attached))

    async def _save(self, draft: Draft) -> None:
        change = store_change(self._kept, draft.cubes, draft.attached, self.kernel.preparations)
        if change:
            await self.store.save(change)
        self._kept = Kept(draft.cubes, draft.attached, dict(self.kernel.preparations), self._kept.absent)

    # ---- start and events ----

    async def start(self, netdevs: Sequence[Netdev]) -> None:
        """Takes over what the store and the kernel hold, and mends the difference."""
        self.present = {one.name: one for one in netdevs}
        self._kept = restored(await self.store.read(), self.installed)
        for name, service in self._kept.absent.services.items():
            log.error("service is not installed; the cube is left out", cube=name, service=service)
        self.entries, self.attached = dict(self._kept.entries), dict(self._kept.attached)
        self.kernel.preparations = dict(self._kept.preparations)
        draft = Draft(self.entries, self.attached)
        world = await self._world(draft)
        self.executor.resources = await asyncio.to_thread(Reader(self.kernel).read)
        answers = await self._ask_all(draft, build(world)[1])
        resources, self.states = build(_granted(world, answers.wishes))
        await self._mend(_loading(plan(self.executor.resources, resources)))
        # maps that lived on hold what they held; only new ones are filled
        writes = [one for one in answers.writes if one.key.name[1] in self.kernel.fresh.get(one.key.name[0], ())]
        steps = plan(self.executor.resources, resources, writes)
        await self._mend(steps)
        await self._save(draft)
        await self._conclude(Plan(), answers, ())
        self._late = asyncio.create_task(self._take_over_late(), name="take over late")

    async def _take_over_late(self) -> None:
        """Asks again, now and then, for cubes that their service did not take over at the start."""
        while waiting := [name for name, entry in self.entries.items() if entry.uuid not in self._told]:
            await asyncio.sleep(LATER)
            for name in waiting:
                if name in self.entries:
                    await _quietly(self._change(lambda draft, name=name: draft.ask(name)), f"take over {name}")  # type: ignore[misc]

    async def _ask_all(self, draft: Draft, states: Mapping[tuple[str, str], PortState]) -> Answers:
        """Every cube, at the start. One whose worker fails keeps the constants it has in the kernel, and is asked at the next change."""
        answers = Answers()
        for name in draft.cubes:
            draft.ask(name)
        for entry, told in self._questions(draft, states):
            try:
                await self._ask_one(entry, told, [], answers)
            except PolycubeError as error:
                log.error("not taken over by its service", cube=entry.name, reason=str(error))
                standing = [value for key, value in self.executor.resources.items() if key[0] is Kind.CFG and key[1][0] == entry.uuid]
                answers.wishes[entry.uuid] = Wishes(standing[0] if standing else {})
        return answers

    async def netdevs_changed(self, netdevs: Mapping[str, Netdev], gone: Collection[int] = ()) -> None:
        """Netdevs came, went or changed: the kernel follows at once, then the cubes are told. `gone`: ifindexes of those that went, even if
        another netdev, or the same one again, has taken the index since: what hung on it went with it."""
        async with self._lock:
            before, self.present = self.present, dict(netdevs)
            used = {port.peer for _, port in Draft(self.entries, self.attached).ports()} | set(self.attached)
            lost = {name for name in used if name in before and before[name].ifindex in gone}
            if not lost and {name: before.get(name) for name in used} == {name: self.present.get(name) for name in used}:
                return
            self._version += 1
            self.problems.clear()
            draft = Draft(self.entries, self.attached)
            if lost & self.present.keys():
                self.present = {name: one for name, one in netdevs.items() if name not in lost}
                await self._mend(plan(self.executor.resources, build(await self._world(draft))[0]))
                self.present = dict(netdevs)
            resources, states = build(await self._world(draft))
            steps = plan(self.executor.resources, resources)
            await self._note_readiness(steps)
            await self._mend(steps)
            self.states = states
            await self.kernel.renew_readiness()
            await self._save(draft)
        await _quietly(self._change(lambda draft: None), "tell cubes of their netdevs")

    async def _mend(self, steps: Plan) -> None:
        """Does what can be done of a plan, and says what can't."""
        for failure in await self.executor.mend(steps):
            log.error("could not be set up", reason=str(failure))
            if failure.operation.key.kind in (Kind.ATTACH, Kind.READY):
                self.problems[failure.operation.key.name[0]] = str(failure.cause)

    async def close(self) -> None:
        """Ends the workers; the kernel keeps forwarding."""
        if self._late:
            self._late.cancel()
        await self.workers.close()
        self.kernel.close()


def _standing(netdevs: Mapping[str, Netdev]) -> dict[str, tuple[int, bool]]:
    """What it takes to be a peer."""
    return {name: (one.ifindex, one.up) for name, one in netdevs.items()}


def _loading(steps: Plan) -> Plan:
    """The part of a plan that creates maps, so that it is known which are new."""
    return Plan(tuple(one for one in steps.ahead if one.key.kind in (Kind.STATE, Kind.UNIT)))


def _writes(uuid: str, recorded: Recorded) -> list[Operation]:
    return [
        Operation(Key(Kind.MAP, (uuid, one.map, one.key.hex())), None, None if one.value is None else one.value.hex())
        for one in recorded.writes
    ]


def _granted(world: World, wishes: Mapping[str, Wishes]) -> World:
    """The world with the cubes' wishes; the same one if these are none of them new."""
    changed = {}
    for name, spec in world.cubes.items():
        wish = wishes.get(spec.uuid)
        if wish and (wish.cfg != spec.cfg or wish.netdevs != spec.netdevs):
            changed[name] = replace(spec, cfg=wish.cfg, netdevs=wish.netdevs)
    return replace(world, cubes=dict(world.cubes) | changed) if changed else world


async def _quietly(call: Awaitable[Any], what: str) -> None:
    try:
        await call
    except PolycubeError as error:
        log.error("after a change", step=what, reason=str(error))


