# SPDX-License-Identifier: Apache-2.0
"""TCP servers that say their name and then what they are told, and connections to them by whatever leads there."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import ClassVar

from polycube.testing.hosts import Host


class Server:
    """Says its name to whoever connects, and then what it is told. The sockets stand in the host, the threads here."""

    def __init__(self, host: Host, name: str, port: int = 8080) -> None:
        self.name = name
        self._host = host
        self._port = port
        self.start()

    def start(self) -> None:
        self._connections: list[socket.socket] = []
        self._listening = self._host.call(lambda: socket.create_server(("::", self._port), family=socket.AF_INET6, dualstack_ipv6=True))
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """As a process that dies: nobody listens any more, and what is connected is closed."""
        for one in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(self.name.encode() + b"\n")
            while data := connection.recv(65536):
                connection.sendall(data)


class Connection:
    """One connection of a client; `server` is who answered."""

    made: ClassVar[list[Connection]] = []

    def __init__(self, client: Host, vip: str, port: int = 80) -> None:
        self._socket = client.call(lambda: socket.create_connection((vip, port), timeout=10))
        self.made.append(self)
        self.server = self._read(2).decode().strip()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionResetError("closed")
            data += more
        return data

    def says(self, text: bytes) -> bool:
        """Whether it comes back."""
        self._socket.sendall(text)
        return self._read(len(text)) == text

    def close(self) -> None:
        """By a reset: nothing of it is sent again later, when the next test's balancer would take it up."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
