# SPDX-License-Identifier: Apache-2.0
"""One cube in its worker: configuration that stands, a change under way, and what runs once it is there (slow path, timers).

Invariants: a change is computed against copies and shown to the cube only while its `apply` and `facts` run, in one piece without
`await`; the slow path sees the configuration that stands. A change is decided by `commit` or `rollback` before the next one begins. A
cube that raises keeps what it had.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from polycube.bpf import Map
from polycube.core.complaint import Complaints
from polycube.core.config import CubeConfig, TransparentCube
from polycube.core.cube import Cube, Host, PortFacts
from polycube.core.intake import Counts, Intake
from polycube.core.maps import CfgView, MapViews, Shapes
from polycube.core.message import ChangePending, Instance, NotPending, Recorded
from polycube.core.mirror import Fact
from polycube.core.paths import SLOWPATH
from polycube.model import Diff, Edit, ModelError, Node, Tag, dump, edit, load, problem, resolve

JITTER = 0.1


class LogOf(Protocol):
    """Makes the logger of a cube for a level of its model."""

    def __call__(self, cube: str, uuid: str, level: str) -> Any: ...


class Views:
    """A cube's maps and constants, as the objects that it runs describe them."""

    def __init__(self, objects: Mapping[str, Path], pins: Path) -> None:
        self.objects = dict(objects)
        shapes = Shapes.read(*objects.values())
        self.maps = MapViews(shapes, lambda name: Map.find(pins / name))
        self.cfg = CfgView(shapes.cfg)


@dataclass(frozen=True)
class Standing:
    """What a cube knows of itself."""

    config: CubeConfig
    ports: Mapping[str, PortFacts]
    parent: str
    views: Views


class Resident:
    """A cube and its life in the worker."""

    def __init__(self, cls: type[Cube[Any]], instance: Instance, host: Host, log_of: LogOf) -> None:
        views = Views(instance.objects, instance.pins)
        self.uuid = instance.uuid
        self.number = instance.number
        self.hooks = frozenset(instance.objects)
        self.pins = instance.pins
        self.transparent = issubclass(cls.config, TransparentCube)
        self.counts = Counts()
        config = cls.config.model_validate(dict(instance.config), by_alias=True, by_name=False)
        self.standing: Standing | None = None
        self._pending: Standing | None = Standing(config, _by_name(instance.ports), instance.parent, views)
        self._log_of = log_of
        log = log_of(instance.name, instance.uuid, str(config.loglevel))
        self.cube = cls(instance.name, instance.uuid, views.maps, views.cfg, host, log)
        self.complaints = Complaints(log)
        self._numbers: Mapping[int, PortFacts] = {}
        self.intake = Intake(self.cube, self.counts, self.complaints, lambda: self._numbers)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        return self.cube.name

    # ---- changes ----

    def create(self) -> Recorded:
        """What the cube wants in its maps."""
        assert self._pending
        return self._record(None, self._pending)

    def change(self, edits: Sequence[Edit], ports: Sequence[PortFacts], parent: str, objects: Mapping[str, Path]) -> Recorded:
        """What the edits, or other facts, mean for the maps. `objects`: those that the cube will run; none: as before. To be followed by
        `commit` or `rollback`."""
        if self._pending is not None or self.standing is None:
            raise ChangePending(self.name)
        config = edit(self.standing.config, edits)
        views = self.standing.views
        if objects and dict(objects) != views.objects:
            views = Views(objects, self.pins)
        after = Standing(config, _by_name(ports), parent, views)
        recorded = self._record(self.standing, after)
        self._pending = after
        self.cube.decided.clear()
        return recorded

    def commit(self) -> None:
        """The change stands. A new cube begins to live."""
        if self._pending is None:
            raise NotPending(self.name)
        self.cube.decided.set()
        before, new = self.standing, self.standing is None
        self.standing, self._pending = self._pending, None
        if before and before.views is not self.standing.views:
            before.views.maps.close()
        self._show(self.standing)
        self._numbers = {port.number: port for port in self.standing.ports.values()}
        self.cube.log = self.complaints.log = self._log_of(self.name, self.uuid, str(self.standing.config.loglevel))
        try:
            self.cube.settled()
        except Exception as error:
            self.complaints.error("putting a change into effect failed", error)
        if new:
            self._tasks.append(asyncio.create_task(self._live(), name=f"start {self.name}"))

    def rollback(self) -> bool:
        """Forgets the change; False if the cube itself was it."""
        self._pending = None
        self.cube.decided.set()
        return self.standing is not None

    def _record(self, before: Standing | None, after: Standing) -> Recorded:
        old = before.config if before else None
        change = Diff(old, after.config)
        names = [name for name, port in after.ports.items() if before is None or before.ports.get(name) != port]
        moved = before is not None and before.parent != after.parent
        after.views.cfg.take()
        self.cube.former_ports = before.ports if before else {}
        with self._shown(after), after.views.maps.recording() as writes:
            if change or before is None:
                self._apply(change)
            if names or moved or before is None:
                self.cube.facts(names)
            netdevs = self.cube.netdev()
            domains = {number: list(ports) for number, ports in self.cube.domains().items()}
            shadow = self.cube.shadow() if getattr(after.config, "shadow", False) else None
        return Recorded(writes, after.views.cfg.take(), netdevs, domains, None if shadow is None else frozenset(shadow))

    def _apply(self, change: Diff[Any]) -> None:
        try:
            self.cube.apply(change)
        except ModelError as error:
            raise error.within(self.name) from None

    @contextmanager
    def _shown(self, after: Standing) -> Iterator[None]:
        try:
            self._show(after)
            yield
        finally:
            if self.standing is not None:
                self._show(self.standing)

    def _show(self, standing: Standing) -> None:
        self.cube.current, self.cube.ports, self.cube.parent = standing.config, standing.ports, standing.parent
        self.cube.maps, self.cube.cfg = standing.views.maps, standing.views.cfg

    # ---- questions ----

    async def state(self, path: Sequence[str] | None) -> Mapping[str, Any]:
        """Operational data; `path` is what a client asks for, None: nobody does."""
        return self.cube.state() if path is None else await self.cube.state_at(tuple(path))

    async def action(self, path: Sequence[str], body: Any) -> Any:
        """Carries out an action: its method gets the keys on the way, then the input if the action has one."""
        assert self.standing
        target = resolve(type(self.standing.config), path)
        if target.action is None:
            raise problem(Tag.OPERATION_NOT_SUPPORTED, target.path, "is no action")
        words = [*(step.member.name for step in target.steps), target.action.name]
        method = self.cube.actions().get("/".join(words))
        if method is None:
            raise problem(Tag.OPERATION_NOT_SUPPORTED, target.path, "is not carried out by this version of the service")
        arguments = [step.key for step in target.steps if step.has_key]
        if target.action.input is not None:
            arguments.append(load(target.action.input, body or {}, target.path))
        result = getattr(self.cube, method)(*arguments)
        if inspect.isawaitable(result):
            result = await result
        return dump(result) if isinstance(result, Node) else result

    def stream(self, path: Sequence[str], connected: socket.socket) -> None:
        """Hands a socket to the method that feeds a stream."""
        assert self.standing
        target = resolve(type(self.standing.config), path)
        words = [*(step.member.name for step in target.steps), target.path[-1]]
        method = self.cube.streams().get("/".join(words))
        if method is None:
            raise problem(Tag.OPERATION_NOT_SUPPORTED, target.path, "is no stream of this version of the service")
        getattr(self.cube, method)(*[step.key for step in target.steps if step.has_key], connected)

    def follow(self, gone: AbstractSet[Fact], come: AbstractSet[Fact]) -> Sequence[Edit]:
        """What changes in the namespace mean for the configuration."""
        return self.cube.shadowed(gone, come)

    def forget(self, path: str, key: Any) -> bool:
        return bool(self.cube.forget(path, tuple(key) if isinstance(key, list) else key))

    # ---- life ----

    async def _live(self) -> None:
        try:
            await self.cube.start()
        except Exception as error:
            self.complaints.error("start failed", error)
        try:
            self.intake.open(self.pins / SLOWPATH)
        except Exception as error:
            self.complaints.error("no slow path", error)
        for name, period in self.cube.timers().items():
            self._tasks.append(asyncio.create_task(self._tick(name, period), name=f"{name} of {self.name}"))

    async def _tick(self, name: str, period: float) -> None:
        method: Callable[[], Any] = getattr(self.cube, name)
        await asyncio.sleep(period * random.random())  # cubes made at the same time do not tick at the same time
        while True:
            try:
                result = method()
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                self.counts.timer_failures += 1
                self.complaints.error(f"timer {name} failed", error)
            await asyncio.sleep(period * random.uniform(1 - JITTER, 1 + JITTER))

    async def close(self) -> None:
        """The cube leaves the worker."""
        await self.intake.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            self.cube.close()
        except Exception as error:
            self.complaints.error("close failed", error)
        self.cube.maps.close()


def _by_name(ports: Sequence[PortFacts]) -> dict[str, PortFacts]:
    return {port.name: port for port in ports}
