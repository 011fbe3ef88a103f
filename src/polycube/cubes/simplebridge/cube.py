# SPDX-License-Identifier: Apache-2.0
"""A learning bridge. The data plane learns, forwards and ages; the control plane keeps configured stations in the table, removes what has
aged so that room comes free, and forgets the stations of a port that went down, so that they are looked for elsewhere at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from polycube.core.cube import Cube, every
from polycube.core.cube import action as carries_out
from polycube.cubes.simplebridge.model import FdbEntry, Flushed, SimplebridgeConfig
from polycube.model import Diff, PolycubeError, suggest
from polycube.net.addr import Mac

STATIC = 1


class NoSuchPort(PolycubeError):
    """A station is configured behind a port that the bridge does not have."""

    def __init__(self, cube: str, entry: FdbEntry, known: list[str]) -> None:
        super().__init__(f"Port {entry.port} of station {entry.address} does not exist in {cube}{suggest(entry.port, known)}")


class GroupAddress(PolycubeError):
    """Stations have individual addresses."""

    def __init__(self, cube: str, address: str) -> None:
        super().__init__(f"{address} can't be a station of {cube}: it is a group address")


class Simplebridge(Cube[SimplebridgeConfig]):
    """Simple L2 Bridge Service"""

    config = SimplebridgeConfig

    def apply(self, change: Diff[SimplebridgeConfig]) -> None:
        for _, seconds in change.changed("fdb.aging_time"):
            self.cfg["aging_time"] = seconds
        for port in change.removed("ports"):
            self._forget_port(self.former_ports[port.name].number)
        for entry in change.node.fdb.entry.values():  # also unchanged ones: their port may be gone
            if entry.port not in self.ports:
                raise NoSuchPort(self.name, entry, list(self.ports))
        for entry in change.removed("fdb.entry"):
            del self.maps["fdb"][_key(entry.address)]
        for entry in change.added("fdb.entry"):
            self._write(entry)
        for _, entry in change.changed("fdb.entry"):
            self._write(entry)

    def facts(self, changed: Sequence[str]) -> None:
        for name in changed:
            if not self.ports[name].up:
                self._forget_port(self.ports[name].number)

    def _write(self, entry: FdbEntry) -> None:
        if Mac.parse(entry.address).is_multicast:
            raise GroupAddress(self.name, entry.address)
        value = {"seen": _now(), "port": self.ports[entry.port].number, "flags": STATIC}
        self.maps["fdb"][_key(entry.address)] = value

    def _forget_port(self, number: int) -> None:
        for key, _ in [one for one in self._learned() if one[1]["port"] == number]:
            del self.maps["fdb"][key]

    def _learned(self) -> Iterator[tuple[Any, Any]]:
        return ((key, station) for key, station in self.maps["fdb"].items() if not station["flags"] & STATIC)

    def state(self) -> dict[str, Any]:
        assert self.current
        names = {port.number: port.name for port in self.ports.values()}
        now, limit = _now(), self.current.fdb.aging_time
        entries = []
        for key, station in self._learned():
            age = max(now - station["seen"], 0)
            if age <= limit and station["port"] in names:
                entries.append({"address": str(Mac.from_bytes(key["address"])), "port": names[station["port"]], "age": age})
        return {"fdb": {"entry": entries}}

    def forget(self, path: str, key: str | tuple[Any, ...] | None) -> bool:
        if path != "fdb/entry" or isinstance(key, tuple):
            return False
        if key is None:
            self.flush()
            return True
        packed = _key(key)
        station = self.maps["fdb"].get(packed)
        if station is None or station["flags"] & STATIC:
            return False
        del self.maps["fdb"][packed]
        return True

    @carries_out("fdb/flush")
    def flush(self) -> Flushed:
        for key, _ in list(self._learned()):
            del self.maps["fdb"][key]
        return Flushed(flushed=True)

    @every(10)
    def remove_aged(self) -> None:
        assert self.current
        oldest = _now() - self.current.fdb.aging_time
        for key, station in list(self._learned()):
            if station["seen"] < oldest:
                del self.maps["fdb"][key]


def _key(address: str) -> dict[str, bytes]:
    return {"address": bytes(Mac.parse(address))}


def _now() -> int:
    """The data plane's clock, pcn_now()."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))
