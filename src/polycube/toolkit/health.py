# SPDX-License-Identifier: Apache-2.0
"""Health checks: whether backends answer, asked again and again.

A check connects (TCP), asks for a page (HTTP) or sends an echo request (ICMP). A backend changes sides after `rise` good or `fall` bad
answers in a row; its first answer ever decides at once. What was known before (`known` of `Monitor.watch`) counts as known, so that a
new worker does not take a dead backend for a living one.

Sockets come from a *vantage*: the daemon's own network namespace, or one behind the cube's port (vantage.py).
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Generic, Protocol, TypeVar

from pydantic import Field, StringConstraints

from polycube.core.slowpath import folded_sum
from polycube.model import Choice, Node, PortNumber, leaf
from polycube.net.addr import Address

K = TypeVar("K", bound=Hashable)

_ECHO = {4: (8, 0), 6: (128, 129)}  # request, reply


class CheckType(Choice):
    """How a backend is asked."""

    NONE = "NONE"
    TCP = "TCP"
    HTTP = "HTTP"
    ICMP = "ICMP"


class HealthCheck(Node):
    """How backends are asked whether they are well."""

    type: CheckType = leaf("NONE: all backends are taken to be well; TCP: connect; HTTP: GET; ICMP: echo request", default=CheckType.NONE)
    interval: Annotated[int, Field(ge=50, le=3_600_000)] = leaf("Milliseconds from one question to the next", default=2000)
    timeout: Annotated[int, Field(ge=10, le=60_000)] = leaf("Milliseconds to wait for an answer", default=1000)
    rise: Annotated[int, Field(ge=1, le=100)] = leaf("Good answers in a row after which a backend that was down is up", default=2)
    fall: Annotated[int, Field(ge=1, le=100)] = leaf("Failures in a row after which a backend that was up is down", default=3)
    port: PortNumber = leaf("Port to ask at; 0: the one that traffic goes to", default=0)
    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]*$", max_length=1024)] = leaf("Page that HTTP asks for", default="/")


class Health(Choice):
    """What is known of a backend."""

    UNCHECKED = "UNCHECKED"
    UP = "UP"
    DOWN = "DOWN"


class Vantage(Protocol):
    """Where checks go out from."""

    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket: ...


class HostVantage:
    """The namespace of the process."""

    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket:
        return socket.socket(family, type | socket.SOCK_CLOEXEC, proto)


class Failed(Exception):
    """A backend did not answer as it should; the text says how."""


@dataclass(frozen=True)
class Target:
    """Who is asked, and how."""

    address: Address
    port: int
    check: HealthCheck


@dataclass
class Record:
    """What the answers of one backend amount to."""

    rise: int
    fall: int
    up: bool | None = None
    since: float = 0.0  # of `up`, time.monotonic()
    reason: str = ""  # of the last failure
    _against: int = field(default=0, init=False)  # answers in a row that contradict `up`

    def take(self, failure: str | None, now: float) -> bool:
        """One more answer; True if the backend changed sides."""
        good = failure is None
        if failure is not None:
            self.reason = failure
        if good == self.up:
            self._against = 0
            return False
        self._against += 1
        if self.up is not None and self._against < (self.rise if good else self.fall):
            return False
        self.up, self.since, self._against = good, now, 0
        return True

    @property
    def health(self) -> Health:
        return Health.UNCHECKED if self.up is None else Health.UP if self.up else Health.DOWN


class Monitor(Generic[K]):
    """Asks a set of backends and tells of changes."""

    def __init__(self, changed: Callable[[K, Record], None], vantage: Vantage) -> None:
        self._changed = changed
        self._vantage = vantage
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._targets: dict[K, Target] = {}
        self.records: dict[K, Record] = {}

    def watch(self, targets: Mapping[K, Target], known: Mapping[K, bool]) -> None:
        """Asks these from now on, and no others; what is known of one that is watched already stays."""
        for key in self._targets.keys() - targets.keys():
            self._tasks.pop(key).cancel()
            del self._targets[key], self.records[key]
        for key, target in targets.items():
            if self._targets.get(key) == target:
                continue
            if key in self._tasks:
                self._tasks[key].cancel()
            before = self.records.get(key)
            record = Record(target.check.rise, target.check.fall, before.up if before is not None else known.get(key))
            self._targets[key], self.records[key] = target, record
            self._tasks[key] = asyncio.create_task(self._ask(key, target, record), name=f"health of {target.address}")

    def health(self, key: K) -> Health:
        record = self.records.get(key)
        return record.health if record is not None else Health.UNCHECKED

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._targets.clear()
        self.records.clear()

    async def _ask(self, key: K, target: Target, record: Record) -> None:
        interval = target.check.interval / 1000
        await asyncio.sleep(random.random() * min(interval, 1.0))  # not all at once
        while True:
            began = time.monotonic()
            try:
                await ask(target, self._vantage)
                failure = None
            except Failed as error:
                failure = str(error)
            if record.take(failure, time.monotonic()):
                self._changed(key, record)
            await asyncio.sleep(max(0.0, began + interval - time.monotonic()))


async def ask(target: Target, vantage: Vantage) -> None:
    """One question. Raises Failed."""
    how = {CheckType.TCP: _connect, CheckType.HTTP: _get, CheckType.ICMP: _echo}[target.check.type]
    seconds = target.check.timeout / 1000
    family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
    try:
        async with asyncio.timeout(seconds):
            await how(target, family, vantage)
    except TimeoutError:
        raise Failed(f"no answer within {target.check.timeout} ms") from None
    except OSError as error:
        raise Failed(os.strerror(error.errno).lower() if error.errno else str(error)) from None


def _where(target: Target) -> tuple[str, int]:
    return str(target.address), target.check.port or target.port


async def _connect(target: Target, family: int, vantage: Vantage) -> None:
    with vantage.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, _where(target))


async def _get(target: Target, family: int, vantage: Vantage) -> None:
    """HTTP/1.0 (RFC 1945): any server answers, and closes. A status of 200 to 399 is good."""
    loop = asyncio.get_running_loop()
    host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
    with vantage.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, _where(target))
        await loop.sock_sendall(sock, f"GET {target.check.path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: polycube\r\n\r\n".encode())
        line = b""
        while b"\n" not in line and len(line) < 4096:
            more = await loop.sock_recv(sock, 4096)
            if not more:
                break
            line += more
    words = line.split(b"\n")[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise Failed("the answer is not HTTP")
    if not 200 <= int(words[1]) < 400:
        raise Failed(f"status {int(words[1])}")


async def _echo(target: Target, family: int, vantage: Vantage) -> None:
    """RFC 792, RFC 4443 4.1; the kernel computes the checksum of ICMPv6, not that of ICMP."""
    request, reply = _ECHO[target.address.version]
    proto = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    body = struct.pack(">HH", random.getrandbits(16), random.getrandbits(16)) + random.randbytes(16)
    message = struct.pack(">BBH", request, 0, 0) + body
    if family == socket.AF_INET:
        message = struct.pack(">BBH", request, 0, 0xFFFF - folded_sum(message)) + body
    loop = asyncio.get_running_loop()
    with vantage.socket(family, socket.SOCK_RAW, proto) as sock:
        sock.setblocking(False)
        sock.connect((str(target.address), 0))  # sends nothing, and does not wait
        await loop.sock_sendall(sock, message)
        while True:
            answer = await loop.sock_recv(sock, 2048)
            if family == socket.AF_INET:
                answer = answer[(answer[0] & 15) * 4 :]
            if answer[:1] == bytes([reply]) and answer[4:] == body:
                return
            if not answer:
                raise OSError(errno.ECONNRESET, "")
