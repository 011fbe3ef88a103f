# SPDX-License-Identifier: Apache-2.0
"""What many end-to-end tests begin with."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host

BROADCAST = "ff:ff:ff:ff:ff:ff"


def bridge(daemon: Daemon, name: str, hosts: Iterable[Host], type: str = "TC") -> str:
    """A bridge whose ports p1, p2 … lead to the hosts."""
    ports = [{"name": f"p{number}", "peer": host.netdev} for number, host in enumerate(hosts, 1)]
    daemon.post(f"simplebridge/{name}", {"type": type, "ports": ports})
    return name


def chain(daemon: Daemon, left: Iterable[Host], right: Iterable[Host], type: str = "TC") -> None:
    """Bridges br1 and br2 with these hosts, linked by their ports `link`."""
    for name, hosts in (("br1", left), ("br2", right)):
        bridge(daemon, name, hosts, type)
        daemon.post(f"simplebridge/{name}/ports/link", {})
    daemon.post("connect", {"peer1": "br1:link", "peer2": "br2:link"})


def clear(daemon: Daemon) -> None:
    """Deletes all cubes, transparent ones last."""
    for service, cubes in sorted(daemon.get("cubes").items(), key=lambda one: one[0].startswith("transparent")):
        for cube in cubes:
            daemon.delete(f"{service}/{cube['name']}")


def transparent(daemon: Daemon, name: str, type: str = "TC", **config: str) -> str:
    """A transparenthelloworld; `ingress_action="DROP"`."""
    body = {key.replace("_", "-"): value for key, value in config.items()}
    daemon.post(f"transparenthelloworld/{name}", {"type": type, **body})
    return name


def everything(daemon: Daemon) -> dict[str, object]:
    """All that the daemon shows, but for what changes by itself: stations that were learned, and ages."""
    found: dict[str, object] = {"topology": daemon.get("topology")}
    for service, cubes in daemon.get("cubes").items():
        for cube in cubes:
            found[cube["name"]] = _ageless(daemon.get(f"{service}/{cube['name']}"))
    for netdev in daemon.get("netdevs"):
        found[netdev["name"]] = daemon.get(f"topology/{netdev['name']}")
    return found


def _ageless(data: object) -> object:
    if isinstance(data, dict):
        shown = {key: _ageless(value) for key, value in data.items()}
        return {key: value for key, value in shown.items() if value != []}  # a list is shown once there is something in it
    if isinstance(data, list):
        return sorted((_ageless(value) for value in data if not isinstance(value, dict) or "age" not in value), key=str)
    return data


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(source: Host | str, destination: Host | str, payload: bytes, *, vlan: int | None = None, size: int = 64) -> bytes:
    """A frame of the ethertype for experiments, which no stack answers."""
    ends = [mac(one if isinstance(one, str) else one.mac) for one in (destination, source)]
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return (b"".join(ends) + tag + b"\x88\xb5" + payload).ljust(size, b"\0")


# ---- TCP that is looked at now and then ----


@contextmanager
def serving(host: Host, address: str, port: int = 5001) -> Iterator[list[tuple[str, bytes]]]:
    """A TCP server on a host that answers each line with itself; a list of (peer's address, line)."""
    seen: list[tuple[str, bytes]] = []
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        return socket.create_server((address, port), family=family)

    def serve(listening: socket.socket) -> None:
        threads = []
        while True:
            try:
                connection, peer = listening.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=echo, args=(connection, peer[0]), daemon=True))
            threads[-1].start()
        for one in threads:  # a segment that comes after the caller's flush would open a session again
            one.join(5)

    def echo(connection: socket.socket, peer: str) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                seen.append((peer, line))
                connection.sendall(line)

    listening = host.call(listen)
    thread = threading.Thread(target=serve, args=(listening,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


class Talk:
    """A connection that is asked now and then."""

    def __init__(self, host: Host, address: str, port: int = 5001, wait: float = 20) -> None:
        self.sock = host.call(lambda: socket.create_connection((address, port), timeout=wait))
        self.lines = self.sock.makefile("rb")

    def ask(self, text: bytes) -> bytes:
        self.sock.sendall(text + b"\n")
        return self.lines.readline().strip()

    def close(self) -> None:
        self.lines.close()
        self.sock.close()


# ---- other versions ----
