# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of the fork server (core/zygote.py): processes for workers, with what is needed to talk to and to kill them.

The fork server is started with the first worker and again if it is lost; workers outlive it. Its death costs the exit statuses of the
workers it forked, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from polycube.core.wire import PeerGone
from polycube.core.worker import WorkerSettings

_MESSAGE = 1 << 16


@dataclass
class Process:
    """A forked worker. Whoever spawned it closes it."""

    pid: int
    pidfd: int
    channel: socket.socket
    errors: int  # read end of the pipe that is its stdout and stderr
    status: asyncio.Future[int | None] = field(repr=False)  # exit code, or minus the signal; None: nobody knows

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to this very process, whoever may have its pid by now."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class ForkServer:
    """Forks workers."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()
        self._number = 0  # of the last request: whoever gave one up gets no answer in the place of another
        self._answer: asyncio.Future[tuple[int, int]] | None = None
        self._children: dict[int, asyncio.Future[int | None]] = {}

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def start(self) -> None:
        """Starts the fork server if it isn't running; it is warm a moment later."""
        if self._control is not None:
            return
        if self._server is not None:  # lost: there is nothing to wait for but its exit status
            self._server.kill()
            self._server.wait()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "polycube.core.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    async def spawn(self, settings: WorkerSettings) -> Process:
        """A new worker. Raises `PeerGone` if the fork server does not stay alive."""
        async with self._lock:
            self.start()
            assert self._control
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            reading, writing = os.pipe()
            self._answer = loop.create_future()
            try:
                self._number += 1
                message = json.dumps({"number": self._number, "settings": asdict(settings)}).encode()
                socket.send_fds(self._control, [message], [theirs.fileno(), writing])
                pid, pidfd = await self._answer
            except BaseException as error:
                ours.close()
                os.close(reading)
                if isinstance(error, OSError):
                    await self._lost()
                    raise PeerGone("the fork server", str(error)) from error
                raise
            finally:
                self._answer = None
                theirs.close()
                os.close(writing)
            return Process(pid, pidfd, ours, reading, self._children[pid])

    async def close(self) -> None:
        """Ends the fork server."""
        await self._lost()

    def _readable(self) -> None:
        assert self._control
        try:
            message, fds, _, _ = socket.recv_fds(self._control, _MESSAGE, 8)
        except BlockingIOError:
            return
        except OSError:
            message, fds = b"", []
        if not message:
            self._disconnect()
            return
        self._received(json.loads(message), fds)

    def _received(self, message: Mapping[str, Any], fds: list[int]) -> None:
        if "ended" in message:
            ended = self._children.pop(message["ended"], None)
            if ended is not None and not ended.done():
                ended.set_result(message["status"])
            return
        self._children[message["pid"]] = asyncio.get_running_loop().create_future()
        if self._answer is not None and not self._answer.done() and message["number"] == self._number:
            self._answer.set_result((message["pid"], fds[0]))
        else:  # whoever wanted it is gone: its socket is closed, hence it ends by itself
            os.close(fds[0])

    def _disconnect(self) -> None:
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._control = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(PeerGone("the fork server"))
        for ended in self._children.values():
            if not ended.done():
                ended.set_result(None)
        self._children.clear()

    async def _lost(self) -> None:
        self._disconnect()
        if self._server is not None:
            server, self._server = self._server, None
            try:
                await asyncio.to_thread(server.wait, 5)
            except subprocess.TimeoutExpired:
                server.kill()
                await asyncio.to_thread(server.wait)
