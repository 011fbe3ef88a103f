# SPDX-License-Identifier: Apache-2.0
"""The sockets of the daemon and what answers there: the unix socket everything, TCP what `auth` allows.

Told to systemd, if it asks (NOTIFY_SOCKET, sd_notify(3)): when requests are answered, that the loop is alive, and that it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from polycube.daemon.auth import Access, Role, protocol, server_context
from polycube.daemon.config import Options
from polycube.daemon.http import LOCAL_NAMES, Guard
from polycube.model import PolycubeError

log = structlog.get_logger("polycubed")
GROUP = "polycube"


class CannotListen(PolycubeError):
    """An address that is not to be had."""

    def __init__(self, address: str, error: OSError) -> None:
        self.address = address
        super().__init__(f"cannot listen at {address}: {error.strerror} (options addr and port)")


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, since the daemon has its own, and without its ten looks a second at whether to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._asked = asyncio.Event()

    def end(self) -> None:
        """Has `serve` finish what is being answered, and return."""
        self.should_exit = True
        self._asked.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # which sets the header Date
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), 1)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class Door:
    """How TCP is guarded."""

    access: Access
    context: Callable[..., Any] | None = None  # makes the TLS context

    @classmethod
    def of(cls, options: Options) -> Door:
        """By the options. Raises `BadSecret` for files that can't be used."""
        access = Access(
            anonymous=Role.READER if is_loopback(options.addr) else Role.NOBODY,
            token_file=options.tokens,
            denied=options.cert_blacklist,
            allowed=options.cert_whitelist,
            readers=options.cert_readonly,
        )
        if options.cert and options.key:
            context = server_context(options.cert, options.key, options.cacert, options.cert_whitelist, required=options.tokens is None)
            context()
            return cls(access, context)
        if options.tokens and not is_loopback(options.addr):
            log.warning("tokens pass the network in clear text: give a certificate (--cert, --key)", addr=options.addr)
        return cls(access)


async def serve(options: Options, door: Door, app: ASGIApp, until: Callable[[], Awaitable[None]]) -> None:
    """Answers requests until `until` returns."""
    servers = [(Server(_config(app)), unix_socket(options))]
    if options.port:
        servers.append((tcp_server(options, door, app), tcp_socket(options)))
    serving = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in servers]
    where = ", ".join([str(options.socket), *([f"{options.addr}:{options.port}"] if options.port else [])])
    log.info("polycubed is ready", listening=where, tls=bool(options.cert))
    notify("READY=1")
    alive = asyncio.create_task(watchdog())
    asked = asyncio.ensure_future(until())
    try:
        await asyncio.wait([asked, *serving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        notify("STOPPING=1")
        alive.cancel()
        asked.cancel()
        for server, _ in servers:
            server.end()
        await asyncio.gather(*serving)
        options.socket.unlink(missing_ok=True)


def tcp_server(options: Options, door: Door, app: ASGIApp) -> Server:
    hosts = {*LOCAL_NAMES, options.addr, socket.gethostname(), socket.getfqdn(), *options.hostnames}
    more: dict[str, Any] = {"ssl_context_factory": door.context} if door.context else {}
    return Server(_config(Guard(app, door.access, hosts), http=protocol(door.access), **more))


def _config(app: ASGIApp, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=2, **more)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"


def unix_socket(options: Options) -> socket.socket:
    """For root and a group."""
    options.socket.parent.mkdir(parents=True, exist_ok=True)
    options.socket.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(options.socket))
    os.chmod(options.socket, 0o660)
    with contextlib.suppress(KeyError):
        os.chown(options.socket, 0, grp.getgrnam(GROUP).gr_gid)
    unix.listen(128)
    return unix


def tcp_socket(options: Options) -> socket.socket:
    """`localhost` is 127.0.0.1, as upstream has it, also where nobody knows the name."""
    name = "127.0.0.1" if options.addr == "localhost" else options.addr
    try:
        family, _, _, _, address = socket.getaddrinfo(name, options.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=128, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise CannotListen(f"{options.addr}:{options.port}", error) from None


# ---- systemd ----


def notify(state: str) -> None:
    """A word to the service manager, if there is one that listens."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto(state.encode(), f"\0{place[1:]}" if place.startswith("@") else place)


async def watchdog() -> None:
    """Says twice in each interval that the loop is alive."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    while interval > 0:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)
