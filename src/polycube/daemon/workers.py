# SPDX-License-Identifier: Apache-2.0
"""The supervisor: one worker process for each service in use, and calls to the cubes in them.

Mechanism: a service gets its process with the first call and loses it when its last cube is gone. A process that ended, was silent for
too long or grew too large is replaced, with growing pauses if that happens again and again; the new one adopts the service's cubes, as
the daemon lists them at that moment, before it serves anything else.

Invariants: a call ends, whatever the worker does: calls that were under way when a process ended fail with `WorkerDied`; calls made while
there is none wait for the next, but not forever. What a request computed in a process that died is lost with it: `commit` then has the
next process adopt the cube as it is stored, which is what was to be committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polycube.core.cube import PortFacts
from polycube.core.message import Instance, NoSuchInstance, NotPending, Recorded, edit_data, edit_from
from polycube.core.mirror import Fact, fact_data
from polycube.core.paths import INJECTION_DEVICE, Paths
from polycube.core.wire import PeerGone
from polycube.daemon.cgroups import Cgroups
from polycube.daemon.forkserver import ForkServer
from polycube.daemon.workerslot import Limits, Slot, SlotContext, WorkerDied, WorkerUnavailable
from polycube.model import Edit

__all__ = ["Limits", "WorkerDied", "WorkerStatus", "WorkerUnavailable", "Workers"]


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as metrics show it."""

    service: str
    state: str  # starting, running, waiting (before a restart), stopped
    pid: int  # 0: there is no process
    cubes: int
    restarts: int  # ends that nobody wanted
    memory: int  # bytes resident
    processor: float  # seconds, of this process
    throttled: float  # seconds for which the service had to wait for its limit
    packets: int  # of the slow path, by this process
    failed: int  # of them
    waiting: int
    last_end: str  # why the process before this one ended


class Workers:
    """All workers of a daemon.

    - `target(service)` names the class, "module:Class"; it may raise a `PolycubeError`. `path(service)`: where else its module may be.
    - `cubes(service)` lists the cubes that stand, for adoption. It is asked while requests are under way: it must not wait for them.
    - `edited(uuid, edits)` carries out what a cube wants changed in its own configuration.
    - `logged(service, line)` gets log lines: time, level, event, cube, fields, exception (text or None).
    - `announced(kind, data)` gets events: the unasked end of a worker, alarms of cubes.
    - `cgroups`: where limits of processor time are enforced; None: workers with such a limit give way to all others instead.
    """

    def __init__(
        self,
        *,
        target: Callable[[str], str],
        cubes: Callable[[str], Awaitable[Sequence[Instance]]],
        edited: Callable[[str, list[Edit]], Awaitable[None]],
        logged: Callable[[str, Mapping[str, Any]], None],
        announced: Callable[[str, Mapping[str, Any]], None] = lambda kind, data: None,
        path: Callable[[str], str] = lambda service: "",
        paths: Paths | None = None,
        device: str = INJECTION_DEVICE,
        limits: Limits | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._server = ForkServer()
        self._limits = limits or Limits()
        self._target = target
        self._path = path
        self._context = SlotContext(self._server, cubes, edited, logged, announced, paths or Paths(), device, self._limits, cgroups)
        self._slots: dict[str, Slot] = {}
        self._streams: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._stopping: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self) -> None:
        """Warms the fork server up. Without it the first call does."""
        self._server.start()

    async def close(self) -> None:
        """Ends all workers; cubes stay as they are in the kernel."""
        self._closed = True
        slots, self._slots = list(self._slots.values()), {}
        await asyncio.gather(*(slot.stop() for slot in slots), *self._stopping)
        await self._server.close()

    # ---- calls ----

    async def ensure(self, service: str) -> None:
        """Has the service's worker running and its cubes adopted, as after the start of the daemon."""
        await self._slot(service).ready()

    async def create(self, service: str, instance: Instance) -> Recorded:
        """What a new cube wants written. Follow up with `commit` or `rollback`."""
        slot = self._slot(service)
        try:
            recorded = Recorded.from_data(await slot.call("create", instance.as_data(), f"creating {instance.name}"))
            slot.hold(instance.uuid, fresh=True)
            return recorded
        finally:
            self._settle(service)

    async def change(
        self,
        service: str,
        uuid: str,
        edits: Sequence[Edit],
        ports: Sequence[PortFacts],
        parent: str = "",
        objects: Mapping[str, Path] | None = None,
    ) -> Recorded:
        """What edits or changed facts want written. `ports` are all ports as they will be, `objects` those that the cube will run, if
        they change. Follow up with `commit` or `rollback`."""
        args = {
            "uuid": uuid,
            "edits": [edit_data(edit) for edit in edits],
            "ports": [port.as_data() for port in ports],
            "parent": parent,
            "objects": {hook: str(path) for hook, path in (objects or {}).items()},
        }
        return Recorded.from_data(await self._of_cube(service, "change", args, "changing a cube"))

    async def commit(self, service: str, uuid: str) -> None:
        """The change stands: to be called once it is stored."""
        slot = self._slot(service)
        try:
            await slot.call("commit", {"uuid": uuid}, "putting a change into effect")
        except (NoSuchInstance, NotPending):
            await slot.adopt(uuid)
        except WorkerDied:
            return  # the next process adopts what is stored
        slot.hold(uuid)

    async def rollback(self, service: str, uuid: str) -> None:
        """The change is forgotten; never fails for want of a process."""
        slot = self._slots.get(service)
        if slot is None:
            return
        try:
            if slot.running:
                await slot.call("rollback", {"uuid": uuid}, "undoing a change")
        except (WorkerDied, WorkerUnavailable):
            pass
        finally:
            slot.forget(uuid, only_fresh=True)
            self._settle(service)

    async def state(self, service: str, uuid: str, path: Sequence[str] | None = None) -> Mapping[str, Any]:
        """Operational data, in wire names. `path`: what a client asks for."""
        args = {"uuid": uuid, "path": None if path is None else list(path)}
        result: Mapping[str, Any] = await self._of_cube(service, "state", args, "reading its state")
        return result

    async def action(self, service: str, uuid: str, path: Sequence[str], input: Any = None) -> Any:
        """Carries out an action; `path` as for `model.resolve`."""
        args = {"uuid": uuid, "path": list(path), "input": input}
        return await self._of_cube(service, "action", args, f"carrying out {'/'.join(path)}")

    async def stream(self, service: str, uuid: str, path: Sequence[str]) -> socket.socket:
        """A connected socket from which a stream of a cube is read; closing it ends the stream."""
        address = f"polycube-{secrets.token_hex(16)}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("\0" + address)
            listener.listen(1)
            listener.setblocking(False)
            await self._of_cube(service, "stream", {"uuid": uuid, "path": list(path), "address": address}, f"opening {'/'.join(path)}")
            connected, _ = await asyncio.get_running_loop().sock_accept(listener)  # it is there: the call has been answered
            self._streams.add(connected)
            return connected

    def end_streams(self) -> None:
        """Whoever reads one finds its end."""
        for connected in self._streams:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    async def follow(self, service: str, uuid: str, gone: Iterable[Fact], come: Iterable[Fact]) -> list[Edit]:
        """What changes in a cube's namespace mean for its configuration."""
        args = {"uuid": uuid, "gone": [fact_data(one) for one in gone], "come": [fact_data(one) for one in come]}
        return [edit_from(one) for one in await self._of_cube(service, "follow", args, "asking what a namespace's changes mean")]

    async def forget(self, service: str, uuid: str, path: str, key: Any = None) -> bool:
        """Removes a learned element, or all of them."""
        args = {"uuid": uuid, "path": path, "key": key}
        return bool(await self._of_cube(service, "forget", args, f"removing {path}"))

    async def remove(self, service: str, uuid: str) -> None:
        """The cube is gone. Never fails for want of a process."""
        slot = self._slots.get(service)
        if slot is None:
            return
        slot.forget(uuid)
        try:
            if slot.running:
                await slot.call("remove", {"uuid": uuid}, "removing a cube")
        except (WorkerDied, WorkerUnavailable):
            pass
        finally:
            self._settle(service)

    async def stats(self, service: str) -> dict[str, Any]:
        """Totals and, under "cubes", the counts of each cube by uuid; empty if there is no process."""
        slot = self._slots.get(service)
        if slot is None or not slot.running:
            return {}
        result: dict[str, Any] = await slot.call("stats", {}, "reading statistics")
        return result

    def status(self) -> list[WorkerStatus]:
        """All workers."""
        return [
            WorkerStatus(
                service=slot.service,
                state=slot.state,
                pid=slot.pid,
                cubes=len(slot.held),
                restarts=slot.restarts,
                memory=slot.memory,
                processor=slot.processor,
                throttled=slot.throttled,
                packets=slot.totals.get("packets", 0),
                failed=slot.totals.get("failed", 0),
                waiting=slot.totals.get("waiting", 0),
                last_end=slot.last_end,
            )
            for slot in list(self._slots.values())  # metrics ask from a thread
        ]

    # ---- services that change ----

    @asynccontextmanager
    async def replacing(self, service: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Within, calls go to a new process of the service. What it yields, once called, ends the one before for good; if it was not
        called, that one has its place back afterwards."""
        before = self._slots.get(service)
        if before is None:
            yield _nothing
            return
        made, stands = self._made(service), False

        async def stand() -> None:
            nonlocal stands
            stands = True
            await before.stop()

        self._slots[service] = made
        try:
            yield stand
        finally:
            if not stands:
                self._slots[service] = before
                await made.stop()

    async def retire(self, service: str) -> None:
        """The service is gone."""
        slot = self._slots.pop(service, None)
        if slot:
            await slot.stop()

    # ---- below ----

    async def _of_cube(self, service: str, method: str, args: Mapping[str, Any], doing: str) -> Any:
        slot = self._slot(service)
        try:
            return await slot.call(method, args, doing)
        except NoSuchInstance:  # its adoption failed: once more, so that the reason becomes known
            await slot.adopt(str(args["uuid"]))
            return await slot.call(method, args, doing)

    def _slot(self, service: str) -> Slot:
        if self._closed:
            raise PeerGone(f"the worker of {service}", "the daemon is shutting down")
        slot = self._slots.get(service)
        if slot is None:
            slot = self._slots[service] = self._made(service)
        return slot

    def _made(self, service: str) -> Slot:
        slot = Slot(service, self._target(service), self._context, self._path(service))
        slot.start()
        return slot

    def _settle(self, service: str) -> None:
        """Ends a worker that has held no cube for a while."""
        slot = self._slots.get(service)
        if slot is None or slot.held:
            return
        grace = 0.0 if slot.broken else self._limits.grace
        asyncio.get_running_loop().call_later(grace, self._end_idle, service, slot, time.monotonic())

    def _end_idle(self, service: str, slot: Slot, since: float) -> None:
        if self._slots.get(service) is not slot or slot.held or slot.calls or slot.used > since:
            return
        del self._slots[service]
        task = asyncio.create_task(slot.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)


async def _nothing() -> None:
    pass
