# SPDX-License-Identifier: Apache-2.0
"""The place of one service's worker: the process in it now, and the next one when that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polycube.core.message import Instance, edit_from
from polycube.core.paths import Paths
from polycube.core.wire import Connection, PeerGone
from polycube.core.worker import WorkerSettings, processor_time, resident_memory
from polycube.daemon import quota
from polycube.daemon.cgroups import Cgroups
from polycube.daemon.forkserver import ForkServer, Process
from polycube.daemon.quota import Quota
from polycube.daemon.underway import step
from polycube.model import Edit, PolycubeError

MEMORY, CPU = quota.memory("512M"), Quota()
GIVING_WAY = 10  # niceness of a worker whose limit of processor time can't be enforced


@dataclass(frozen=True)
class Limits:
    """How long and how much; seconds and bytes."""

    heartbeat: float = 1.0
    silence: float = 5.0  # without heartbeat, then the process is killed
    pace: float = 200_000.0  # bytes a second: a call of a hundred thousand routes may keep it silent for that much longer
    memory: Quota = MEMORY
    cpu: Quota = CPU  # per cent of one processor
    load: float = 30.0  # until the service is imported
    call: float = 60.0  # one call
    patience: float = 15.0  # of a call for a process
    grace: float = 10.0  # of a process without cubes
    pause: float = 0.2  # before a restart; doubled each time
    longest_pause: float = 30.0
    stable: float = 60.0  # a process that lived that long starts the pauses anew
    log_lines: int = 500  # a second


@dataclass(frozen=True)
class SlotContext:
    """What all slots share."""

    server: ForkServer
    cubes: Callable[[str], Awaitable[Sequence[Instance]]]
    edited: Callable[[str, list[Edit]], Awaitable[None]]
    logged: Callable[[str, Mapping[str, Any]], None]
    announced: Callable[[str, Mapping[str, Any]], None]
    paths: Paths
    device: str
    limits: Limits
    cgroups: Cgroups | None  # None: processor time can't be limited


class WorkerDied(PolycubeError):
    """The process ended in the middle of a call."""

    status = 503

    def __init__(self, service: str, doing: str, how: str) -> None:
        self.service, self.doing, self.how = service, doing, how
        super().__init__(f"the worker of service {service} ended while {doing} ({how}); it is being restarted")


class WorkerUnavailable(PolycubeError):
    """There was no process to call for as long as a call waits."""

    status = 503

    def __init__(self, service: str, seconds: float, how: str) -> None:
        self.service, self.seconds, self.how = service, seconds, how
        last = f"; the last one ended: {how}" if how else ""
        super().__init__(f"service {service} has had no running worker for {seconds:g} s{last}")


class Slot:
    """Keeps a process running between `start` and `stop`."""

    def __init__(self, service: str, target: str, context: SlotContext, path: str = "") -> None:
        self.service = service
        self.target = target
        self.path = path
        self.state = "starting"
        self.restarts = 0
        self.last_end = ""
        self.totals: dict[str, Any] = {}
        self.held: set[str] = set()
        self.calls = 0
        self.used = time.monotonic()
        self.broken: PolycubeError | None = None  # why the service cannot be loaded
        self._fresh: set[str] = set()  # created, not committed
        self._context = context
        self._limits = context.limits
        self._process: Process | None = None
        self._connection: Connection | None = None
        self._settled = asyncio.Event()  # running or broken
        self._verdict = ""  # why the process is being killed
        self._heard = 0.0
        self._task: asyncio.Task[None] | None = None
        self._lines = 0  # logged in this second

    # ---- for calls ----

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def memory(self) -> int:
        return resident_memory(self.pid) if self._process else 0

    @property
    def processor(self) -> float:
        """Seconds of processor time that the process has taken."""
        return processor_time(self.pid) if self._process else 0.0

    @property
    def throttled(self) -> float:
        """Seconds for which the service was kept waiting, because of its limit."""
        return self._context.cgroups.throttled(self.service) if self._context.cgroups else 0.0

    def hold(self, uuid: str, *, fresh: bool = False) -> None:
        """The worker has this cube."""
        self.held.add(uuid)
        (self._fresh.add if fresh else self._fresh.discard)(uuid)

    def forget(self, uuid: str, *, only_fresh: bool = False) -> None:
        if not only_fresh or uuid in self._fresh:
            self.held.discard(uuid)
        self._fresh.discard(uuid)

    async def ready(self) -> Connection:
        """The connection to a process that has adopted its cubes."""
        try:
            async with asyncio.timeout(self._limits.patience):
                while True:
                    if self.broken is None:
                        await self._settled.wait()
                    if self.broken is not None:
                        raise self.broken.with_traceback(None)
                    if self._connection is not None and not self._connection.closed:
                        return self._connection
                    await asyncio.sleep(0)  # it ended in this moment; `_keep` is about to clear `_settled`
        except TimeoutError:
            raise WorkerUnavailable(self.service, self._limits.patience, self.last_end) from None

    async def call(self, method: str, args: Mapping[str, Any], doing: str) -> Any:
        """Calls the worker, now or when there is one again."""
        self.calls += 1
        try:
            step(f"starting the control plane of {self.service}")
            connection = await self.ready()
            step(f"service {self.service} is {doing}")
            return await self._call(connection, method, args, doing)
        finally:
            self.calls -= 1
            self.used = time.monotonic()

    async def adopt(self, uuid: str) -> None:
        """Has the worker take a cube over as it is stored."""
        for instance in await self._context.cubes(self.service):
            if instance.uuid == uuid:
                await self.call("adopt", instance.as_data(), f"taking over {instance.name}")
                self.hold(uuid)

    async def _call(self, connection: Connection, method: str, args: Mapping[str, Any], doing: str) -> Any:
        process = self._process
        try:
            return await connection.call(method, args, seconds=self._limits.call)
        except PeerGone:
            how = await self._how(process) if process else "it is gone"
            raise WorkerDied(self.service, doing, how) from None

    # ---- the process ----

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.service}")

    async def stop(self) -> None:
        """Ends the process and starts no other."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.state = "stopped"
        if self._context.cgroups:
            self._context.cgroups.remove(self.service)

    async def _keep(self) -> None:
        pause = self._limits.pause
        while True:
            self.state = "starting"
            begun = time.monotonic()
            try:
                await self._live()
            except Exception as error:  # also of the system, such as no more file descriptors: it passes
                self._say("error", f"worker does not start: {error}")
                self.last_end = str(error)
            self.restarts += 1
            self.state = "waiting"
            if time.monotonic() - begun >= self._limits.stable:
                pause = self._limits.pause
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._limits.longest_pause)

    async def _live(self) -> None:
        """One process, from its fork to its end."""
        limits = self._limits
        root, most = str(self._context.paths.root), limits.memory.of(self.service)
        settings = WorkerSettings(self.service, self.target, root, self._context.device, limits.heartbeat, most, self.path)
        self._verdict = ""
        process = await self._context.server.spawn(settings)
        connection = Connection(
            f"the worker of {self.service}",
            calls={"edit": self._edited},
            notices={"alive": self._alive, "log": self._logged, "alarm": self._alarmed},
        )
        errors = asyncio.create_task(self._read_errors(process.errors))
        watch: asyncio.Task[None] | None = None
        self._process, self._connection = process, connection
        try:
            await connection.open(process.channel)
            self._restrict(process)
            await self._load(connection)
            self._heard = time.monotonic()
            watch = asyncio.create_task(self._watch(process), name=f"watch {self.service}")
            await self._adopt_all(connection)
            self.state = "running"
            self._settled.set()
            self._say("info", f"worker runs with {len(self.held)} cubes", pid=process.pid)
            await connection.wait_closed()
        except PeerGone:
            pass
        finally:
            self._settled.clear()
            self._connection = None
            self.totals = {}
            if watch:
                watch.cancel()
            await connection.close()
            await self._bury(process)
            self._process = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await errors
        self.last_end = await self._how(process)
        self._say("error", f"worker ended: {self.last_end}", pid=process.pid)
        self._context.announced("worker-ended", {"service": self.service, "reason": self.last_end})

    def _restrict(self, process: Process) -> None:
        """Sees to the limit of processor time, before anything of the service is run."""
        share, cgroups = self._limits.cpu.of(self.service), self._context.cgroups
        with contextlib.suppress(ProcessLookupError):  # it has ended, which is seen elsewhere
            if share and cgroups:
                cgroups.limit(self.service, share)
                cgroups.enter(self.service, process.pid)
            elif share:
                os.setpriority(os.PRIO_PROCESS, process.pid, GIVING_WAY)

    async def _load(self, connection: Connection) -> None:
        try:
            await connection.call("hello", seconds=self._limits.load)
        except PeerGone:
            raise
        except PolycubeError as error:
            self.broken = error
            self._settled.set()
            await asyncio.sleep(0)  # whoever waits learns it before the process is given up
            raise
        self.broken = None

    async def _adopt_all(self, connection: Connection) -> None:
        self._fresh.clear()
        instances = await self._context.cubes(self.service)
        self.held = {instance.uuid for instance in instances}
        for instance in instances:
            try:
                await connection.call("adopt", instance.as_data(), seconds=self._limits.call)
            except PeerGone:
                raise
            except PolycubeError as error:
                self._say("error", f"cube is not taken over: {error}", cube=instance.name)

    async def _bury(self, process: Process) -> None:
        """Waits for the end of a process whose connection is closed, and hastens it if need be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.shield(process.status)
        if not process.status.done() or process.status.result() is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await asyncio.shield(process.status)
        process.close()

    async def _how(self, process: Process) -> str:
        """Why a process ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.shield(process.status)
        if self._verdict:
            return self._verdict
        status = process.status.result() if process.status.done() else None
        if status is None:
            return "for a reason unknown"
        return f"by signal {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"

    async def _watch(self, process: Process) -> None:
        """Kills the process when it hangs or grows too large."""
        interval = min(self._limits.heartbeat, self._limits.silence / 4)
        most = self._limits.memory.of(self.service)
        before = time.monotonic()
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            late, before = now - before - interval, now
            if late > interval:
                self._heard += late  # this loop was the one that hung: heartbeats may lie unread
            memory = resident_memory(process.pid)
            allowed = self._limits.silence + (self._connection.load / self._limits.pace if self._connection else 0)
            if now - self._heard > allowed:
                self._verdict = f"killed: its loop was silent for {round(allowed, 1):g} s"
                process.kill(signal.SIGUSR1)  # has it write where it stands
                await asyncio.sleep(0.1)
            elif most and memory > most:
                self._verdict = f"killed: it used {memory >> 20} MB, {most >> 20} MB are allowed"
            else:
                continue
            process.kill()
            return

    # ---- what the worker says ----

    async def _edited(self, uuid: str, edits: Sequence[Any]) -> None:
        await self._context.edited(uuid, [edit_from(edit) for edit in edits])

    def _alive(self, **totals: Any) -> None:
        self._heard = time.monotonic()
        self.totals = totals

    def _logged(self, **line: Any) -> None:
        if self._within_limit():
            self._context.logged(self.service, line)

    def _alarmed(self, cube: str, alarm: str, fields: Mapping[str, Any]) -> None:
        if self._within_limit():
            self._context.announced("alarm", {**fields, "cube": cube, "service": self.service, "alarm": alarm})

    def _within_limit(self) -> bool:
        """Of lines and alarms a second: a worker that has too much to say does not keep the daemon busy."""
        if not self._lines:
            asyncio.get_running_loop().call_later(1, self._end_second)
        self._lines += 1
        return self._lines <= self._limits.log_lines

    def _end_second(self) -> None:
        suppressed, self._lines = self._lines - self._limits.log_lines, 0
        if suppressed > 0:
            self._say("warning", f"{suppressed} log lines of the worker were left out")

    def _say(self, level: str, event: str, **fields: Any) -> None:
        cube = str(fields.pop("cube", ""))
        line = {"time": time.time(), "level": level, "event": event, "cube": cube, "fields": fields, "exception": None}
        self._context.logged(self.service, line)

    async def _read_errors(self, fd: int) -> None:
        """Lines of the worker's stdout and stderr, until it ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 16)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0))
        rest = b""
        try:
            while chunk := await reader.read(1 << 16):
                text, newline, rest = (rest + chunk).rpartition(b"\n")
                if len(rest) > 1 << 16:
                    text, rest = text + newline + rest, b""
                self._stderr(text)
            self._stderr(rest)
        finally:
            transport.close()

    def _stderr(self, text: bytes) -> None:
        """One event for what was written at once: a traceback stays whole."""
        if text.strip():
            event, _, more = text.decode(errors="replace").strip().partition("\n")
            fields = {"source": "stderr"}
            self._logged(time=time.time(), level="warning", event=event, cube="", fields=fields, exception=more or None)
