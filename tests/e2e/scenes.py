# SPDX-License-Identifier: Apache-2.0
"""What many end-to-end tests begin with."""

from __future__ import annotations

import struct
from collections.abc import Iterable

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
        return {key: _ageless(value) for key, value in data.items()}
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
