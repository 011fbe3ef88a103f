# SPDX-License-Identifier: Apache-2.0
"""The health checks of one cube: who is asked (health.py), and from where (vantage.py)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from polycube.net.errors import NetError
from polycube.toolkit.health import HostVantage, Monitor, Record, Target, Vantage
from polycube.toolkit.vantage import Placed, PortVantage

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

K = TypeVar("K", bound=Hashable)


class Checker(Generic[K]):
    """Follows what is configured, whenever `follow` is called."""

    def __init__(self, changed: Callable[[K, Record], None], send: Callable[[bytes], None], log: FilteringBoundLogger) -> None:
        self.monitor: Monitor[K] = Monitor(changed, self)
        self._send = send
        self._log = log
        self._placed: Placed | None = None
        self._vantage: Vantage = HostVantage()

    def socket(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """Where the checks go out from at the moment."""
        return self._vantage.socket(family, type, proto)

    async def follow(self, placed: Placed | None, targets: Mapping[K, Target], known: Mapping[K, bool]) -> None:
        """Asks these, from there; again: only what is different. `known` is used for those that were not asked before."""
        if placed != self._placed:
            self._leave()
            if placed is not None:
                vantage = PortVantage(placed.mac, placed.addresses, placed.gateways, self._send)
                self._placed, self._vantage = placed, vantage
                try:
                    await vantage.open()
                except (NetError, OSError) as error:
                    self._log.warning(f"no host of its own to check backends from: {error}")
        self.monitor.watch(targets, known)

    def receive(self, frame: bytes) -> None:
        """A frame for the cube's own host."""
        if isinstance(self._vantage, PortVantage):
            self._vantage.receive(frame)

    def close(self) -> None:
        self.monitor.close()
        self._leave()

    def _leave(self) -> None:
        if isinstance(self._vantage, PortVantage):
            self._vantage.close()
        self._placed, self._vantage = None, HostVantage()
