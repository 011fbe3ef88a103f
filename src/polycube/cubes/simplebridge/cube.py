# SPDX-License-Identifier: Apache-2.0
"""A learning bridge. The data plane learns, forwards and ages; the control plane keeps configured stations in the table, removes what has
aged so that room comes free, and forgets the stations of a port that went down, so that they are looked for elsewhere at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polycube.core.cube import Cube, every
from polycube.core.cube import action as carries_out
from polycube.cubes.simplebridge.model import FdbEntry, Flushed, SimplebridgeConfig
from polycube.model import Diff, PolycubeError, suggest
from polycube.net.addr import Mac
from polycube.toolkit.fdb import Fdb, now


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
    learned = ("fdb",)

    @property
    def fdb(self) -> Fdb:
        """The stations."""
        return Fdb(self.maps["fdb"])

    def apply(self, change: Diff[SimplebridgeConfig]) -> None:
        for _, seconds in change.changed("fdb.aging_time"):
            self.cfg["aging_time"] = seconds
        for port in change.removed("ports"):
            self._forget_port(self.former_ports[port.name].number)
        for entry in change.node.fdb.entry.values():  # also unchanged ones: their port may be gone
            if entry.port not in self.ports:
                raise NoSuchPort(self.name, entry, list(self.ports))
        for entry in change.removed("fdb.entry"):
            self.fdb.remove(entry.address)
        for entry in [*change.added("fdb.entry"), *(new for _, new in change.changed("fdb.entry"))]:
            if Mac.parse(entry.address).is_multicast:
                raise GroupAddress(self.name, entry.address)
            self.fdb.fix(entry.address, self.ports[entry.port].number)

    def facts(self, changed: Sequence[str]) -> None:
        for name in changed:
            if not self.ports[name].up:
                self._forget_port(self.ports[name].number)

    def _forget_port(self, number: int) -> None:
        self.fdb.forget_all(lambda station: station.port == number)

    def state(self) -> dict[str, Any]:
        assert self.current
        names = {port.number: port.name for port in self.ports.values()}
        limit = self.current.fdb.aging_time
        entries = []
        for station in self.fdb.learned():
            age = max(now() - station.seen, 0)
            if age <= limit and station.port in names:
                entries.append({"address": str(station.address), "port": names[station.port], "age": age})
        return {"fdb": {"entry": entries}}

    def forget(self, path: str, key: str | tuple[Any, ...] | None) -> bool:
        if path != "fdb/entry" or isinstance(key, tuple):
            return False
        if key is None:
            self.fdb.forget_all()
            return True
        return self.fdb.forget(key)

    @carries_out("fdb/flush")
    def flush(self) -> Flushed:
        self.fdb.forget_all()
        return Flushed(flushed=True)

    @every(10)
    async def remove_aged(self) -> None:
        assert self.current
        oldest = now() - self.current.fdb.aging_time
        await self.fdb.sweep(lambda station: station.seen < oldest)
