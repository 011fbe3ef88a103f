# SPDX-License-Identifier: Apache-2.0
"""The worker process of one service: its control-plane code, and nothing else of the system.

It is forked by the fork server (zygote.py) with one socket to the daemon and ends when that closes. The daemon asks it to turn changes of
configuration into map writes, which it computes and never carries out, and for operational state. By itself it handles slow-path packets
and timers. What an author's code raises fails the one request, packet or timer it was raised in. A loop that hangs is found out by the
daemon, which misses the heartbeat and kills the process; the next one adopts the cubes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from polycube.bpf import BpfError
from polycube.core.cube import Cube, PortFacts
from polycube.core.message import Instance, NoSuchInstance, ServiceFailed, edit_data, edit_from
from polycube.core.mirror import fact_from
from polycube.core.paths import Paths
from polycube.core.resident import Resident
from polycube.core.slowpath import MAX_XDP, Injector, NotSent
from polycube.core.wire import Connection, PeerGone
from polycube.model import Edit, PolycubeError
from polycube.net.errors import NetError

LEVELS = {"TRACE": 0, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERR": 40, "CRITICAL": 50}
_PR_SET_NAME = 15
GENERIC_UPWARDS = "generic XDP has no way from user space to the host's stack: use TC or XDP_DRV"
_SPARE = 256 << 20  # over the limit of resident memory: what an allocation may fail beyond at once


@dataclass(frozen=True)
class WorkerSettings:
    """What the daemon tells a worker at its start."""

    service: str
    target: str  # "module:Class"
    bpffs: str
    device: str
    heartbeat: float
    memory: int  # bytes; 0: no limit
    path: str = ""  # where else the module may be found


class Worker:
    """Answers the daemon and hosts the cubes of a service."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.service = settings.service
        self._residents: dict[str, Resident] = {}
        self._injector = Injector(Paths(Path(settings.bpffs)), settings.device)
        names = (
            "hello",
            "ping",
            "create",
            "adopt",
            "change",
            "commit",
            "rollback",
            "state",
            "action",
            "forget",
            "follow",
            "remove",
            "stats",
            "stream",
        )
        self._daemon = Connection("the daemon", calls={name: getattr(self, name) for name in (*names, "stats")}, failure=self._failed)
        self._class: type[Cube[Any]] | None = None

    async def run(self, sock: socket.socket) -> None:
        """Until the daemon closes its end."""
        await self._daemon.open(sock)
        beat = asyncio.create_task(self._beat())
        try:
            await self._daemon.wait_closed()
        finally:
            signal.alarm(5)  # whatever the authors' code does now, the process ends
            beat.cancel()
            for resident in self._residents.values():
                await resident.close()
            self._injector.close()

    async def _beat(self) -> None:
        while True:
            self._daemon.notify("alive", self._totals())
            await asyncio.sleep(self.settings.heartbeat)

    # ---- calls of the daemon ----

    def hello(self) -> dict[str, Any]:
        """Loads the service."""
        module, _, name = self.settings.target.partition(":")
        if self.settings.path and self.settings.path not in sys.path:
            sys.path.insert(0, self.settings.path)
        cls = getattr(importlib.import_module(module), name)
        if not (isinstance(cls, type) and issubclass(cls, Cube)):
            raise TypeError(f"{self.settings.target} is no Cube")
        self._class = cls
        return {"service": self.service, "version": cls.version}

    def ping(self) -> bool:
        return True

    def create(self, **data: Any) -> dict[str, Any]:
        resident = self._resident(Instance.from_data(data))
        recorded = resident.create()
        self._residents[resident.uuid] = resident
        return recorded.as_data()

    async def adopt(self, **data: Any) -> None:
        """The maps are there and hold what the configuration says."""
        resident = self._resident(Instance.from_data(data))
        present = self._residents.pop(resident.uuid, None)
        if present is not None:
            await present.close()
        self._residents[resident.uuid] = resident
        resident.commit()

    def change(
        self, uuid: str, edits: Sequence[Any], ports: Sequence[Mapping[str, Any]], parent: str, objects: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        facts = [PortFacts.from_data(port) for port in ports]
        paths = {hook: Path(path) for hook, path in (objects or {}).items()}
        return self._find(uuid).change([edit_from(edit) for edit in edits], facts, parent, paths).as_data()

    def commit(self, uuid: str) -> None:
        self._find(uuid).commit()

    async def rollback(self, uuid: str) -> None:
        """Also right if there is nothing to forget: the process may be younger than the change."""
        resident = self._residents.get(uuid)
        if resident is not None and not resident.rollback():
            await self.remove(uuid)

    async def state(self, uuid: str, path: Sequence[str] | None = None) -> Mapping[str, Any]:
        return await self._find(uuid).state(path)

    async def action(self, uuid: str, path: Sequence[str], input: Any) -> Any:
        return await self._find(uuid).action(path, input)

    def stream(self, uuid: str, path: Sequence[str], address: str) -> None:
        """Has a cube write a stream to the socket that listens at an abstract address."""
        resident = self._find(uuid)
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect("\0" + address)
            resident.stream(path, connected)
        except BaseException:
            connected.close()
            raise

    def forget(self, uuid: str, path: str, key: Any) -> bool:
        return self._find(uuid).forget(path, key)

    def follow(self, uuid: str, gone: Sequence[Any], come: Sequence[Any]) -> list[Any]:
        edits = self._find(uuid).follow({fact_from(one) for one in gone}, {fact_from(one) for one in come})
        return [edit_data(edit) for edit in edits]

    async def remove(self, uuid: str) -> None:
        resident = self._residents.pop(uuid, None)
        if resident is not None:
            await resident.close()

    def stats(self) -> dict[str, Any]:
        cubes = {uuid: {**one.counts.as_data(), "waiting": one.intake.waiting} for uuid, one in self._residents.items()}
        return {**self._totals(), "cubes": cubes}

    # ---- for the cubes: Host ----

    def transmit(self, cube: Cube[Any], port: int, frame: bytes, *, out: bool, ifindex: int = 0, xdp: bool | None = None) -> None:
        """Sends a frame through the data plane of a cube. A full queue loses it, as it would on any link; `NotSent` is for the rest."""
        resident = self._find(cube.uuid)
        name = next((one.name for one in cube.ports.values() if one.number == port), str(port))
        if xdp is None:
            assert cube.current
            wanted = "tc" if str(cube.current.type) == "TC" else "xdp"
            xdp = wanted == "xdp" if wanted in resident.hooks else "xdp" in resident.hooks
            # On a netdev's way out a transparent cube stands on TC, whatever its type
            xdp = xdp and not (resident.transparent and port == 1 and cube.parent and ":" not in cube.parent)
        slot = resident.number * 2 + (port if resident.transparent else 0)
        try:
            # What goes up the stack must show its netdev, which live frames do; what is redirected must stay in generic mode
            upwards = resident.transparent and port == 0 and not cube.ports["ingress"].peer_facts
            id = next((one.id for one in cube.ports.values() if one.number == port), 0)
            if xdp and cube.current and str(cube.current.type) == "XDP_SKB" and not upwards:
                if not self._injector.generic(slot, port, id, frame, out=out):
                    resident.counts.unsent += 1
                    return
            elif xdp:
                if upwards and cube.current and str(cube.current.type) == "XDP_SKB":  # it would meet the generic program again, and so on
                    raise NotSent(cube.name, name, len(frame), GENERIC_UPWARDS)
                if len(frame) > MAX_XDP:
                    raise NotSent(cube.name, name, len(frame), f"XDP takes up to {MAX_XDP} bytes from user space")
                self._injector.xdp(slot, port, id, frame, out=out, ifindex=ifindex)
            elif not self._injector.tc(slot, port, frame, out=out):
                resident.counts.unsent += 1
                return
        except (NetError, BpfError) as error:
            resident.counts.unsent += 1
            raise NotSent(cube.name, name, len(frame), str(error)) from error
        except NotSent:
            resident.counts.unsent += 1
            raise
        resident.counts.sent += 1

    def hand_over(self, cube: Cube[Any], port: int, frame: bytes) -> None:
        """Puts a frame into a cube's namespace. Raises `NotSent`."""
        one = next((one for one in cube.ports.values() if one.number == port), None)
        try:
            if one is not None:
                self._injector.shadows.send(one.id, frame)
        except NetError as error:
            raise NotSent(cube.name, one.name if one else str(port), len(frame), str(error)) from error

    async def edit(self, cube: Cube[Any], edits: Sequence[Edit]) -> None:
        await self._daemon.call("edit", {"uuid": cube.uuid, "edits": [edit_data(edit) for edit in edits]})

    def alarm(self, cube: Cube[Any], alarm: str, fields: Mapping[str, Any]) -> None:
        self._daemon.notify("alarm", {"cube": cube.name, "alarm": alarm, "fields": dict(fields)})

    # ---- below ----

    def _resident(self, instance: Instance) -> Resident:
        if self._class is None:
            self.hello()
        assert self._class
        return Resident(self._class, instance, self, self._log_of)

    def _find(self, uuid: str) -> Resident:
        resident = self._residents.get(uuid)
        if resident is None:
            raise NoSuchInstance(self.service, uuid)
        return resident

    def _totals(self) -> dict[str, Any]:
        residents = self._residents.values()
        return {
            "cubes_held": len(residents),
            "packets": sum(one.counts.packets for one in residents),
            "failed": sum(one.counts.failed for one in residents),
            "waiting": sum(one.intake.waiting for one in residents),
            "notices_dropped": self._daemon.dropped,
        }

    def _failed(self, method: str, args: Mapping[str, Any], error: Exception) -> PolycubeError:
        doing = self._doing(method, args)
        log = structlog.wrap_logger(None, processors=[self._emit])
        log.error(f"failed while {doing}", cube=self._name(args), exc_info=error)
        kind = type(error).__name__
        return ServiceFailed(self.service, doing, f"{kind}: {error}" if str(error) else kind)

    def _name(self, args: Mapping[str, Any]) -> str:
        resident = self._residents.get(args.get("uuid", ""))
        return resident.name if resident else str(args.get("name", args.get("uuid", "")))

    def _doing(self, method: str, args: Mapping[str, Any]) -> str:
        cube = self._name(args)
        if method == "action":
            return f"carrying out {'/'.join(args.get('path', ()))} of {cube}"
        words = {
            "hello": "being loaded",
            "create": f"creating {cube}",
            "adopt": f"taking over {cube}",
            "change": f"changing {cube}",
            "commit": f"putting a change of {cube} into effect",
            "state": f"reading the state of {cube}",
            "follow": f"taking over what was changed in the namespace of {cube}",
            "forget": f"removing {args.get('path')} of {cube}",
            "remove": f"removing {cube}",
        }
        return words.get(method, f"answering {method}")

    def _log_of(self, cube: str, uuid: str, level: str) -> Any:
        if level == "OFF":
            return structlog.wrap_logger(None, processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger(50))
        wrapper = structlog.make_filtering_bound_logger(LEVELS.get(level, 20))
        return structlog.wrap_logger(None, processors=[self._emit], wrapper_class=wrapper).bind(cube=cube)

    def _emit(self, _logger: Any, level: str, event: Any) -> Any:
        """The last processor of every logger here: hands the event to the daemon."""
        error = event.pop("exc_info", None)
        if error is True:
            error = sys.exc_info()[1]
        text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else None
        line = {
            "time": time.time(),
            "level": level,
            "event": str(event.pop("event", "")),
            "cube": str(event.pop("cube", "")),
            "fields": {key: value if isinstance(value, (int, float, str, bool)) else str(value) for key, value in event.items()},
            "exception": text,
        }
        if not self._daemon.notify("log", line) and self._daemon.closed:
            print(line, file=sys.stderr)
        raise structlog.DropEvent


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


def resident_memory(pid: int) -> int:
    """Bytes of resident memory; 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has taken; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def main(sock: socket.socket, settings: WorkerSettings) -> None:
    """The life of a forked child."""
    # Signals to a process group or a service's control group are the daemon's business
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # asked for before a hanging worker is killed
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"pcn-{settings.service}".encode()[:15], 0, 0, 0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if settings.memory:
        limit = settings.memory + _SPARE
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with contextlib.suppress(PeerGone):
        asyncio.run(Worker(settings).run(sock))
