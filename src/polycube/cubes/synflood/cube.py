# SPDX-License-Identifier: Apache-2.0
"""A monitor of TCP handshakes. The data plane counts; the control plane reads once a second, computes rates, and raises alarms: in the
state, in the log, and as an event.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from polycube.core.cube import Cube, every
from polycube.cubes.synflood.model import Address, SynfloodConfig
from polycube.cubes.synflood.watch import Watched, ratio, summed, totals
from polycube.model import Diff
from polycube.toolkit.address import mapped

EVERYTHING = "all traffic"


class Synflood(Cube[SynfloodConfig]):
    """TCP SYN Flood Monitor Service"""

    config = SynfloodConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._all = Watched()
        self._addresses: dict[Any, Watched] = {}
        self._totals: dict[str, int] = {}
        self._updated = 0

    def apply(self, change: Diff[SynfloodConfig]) -> None:
        if change.old is None:
            self.cfg["seed"] = uuid.UUID(self.uuid).int >> 96  # not to be guessed from outside, and the same after a restart
        for _, seconds in change.changed("timeout"):
            self.cfg["timeout"] = seconds
        self.cfg["any_address"] = int(bool(change.node.address))
        for address in change.removed("address"):
            del self.maps["addresses"][mapped(address.ip)]
        for address in change.added("address"):
            self.maps["addresses"][mapped(address.ip)] = {}

    async def start(self) -> None:
        self.read()

    @every(1)
    def read(self) -> None:
        """Reads the counters and judges them."""
        assert self.current
        now, config = time.clock_gettime(time.CLOCK_MONOTONIC), self.current
        self._totals = totals(self.maps["totals"].percpu(0))
        self._watch(self._all, EVERYTHING, self.maps["traffic"].percpu(0), now, None)
        there = {key["in6_u"]["u6_addr8"]: cpus for key, cpus in self.maps["addresses"].percpu_items()}
        self._addresses = {ip: self._addresses.get(ip, Watched()) for ip in config.address if mapped(ip) in there}
        for ip, watched in self._addresses.items():
            self._watch(watched, str(ip), there[mapped(ip)], now, config.address[ip])
        self._updated = int(time.time() * 1000)

    def _watch(self, watched: Watched, what: str, cpus: list[Any], now: float, address: Address | None) -> None:
        assert self.current
        watched.hold = self.current.hold
        watched.read(summed(cpus), now, self.current.timeout)
        happened = watched.judge(self._limits(address), now)
        if happened is None:
            return
        figures = {"syn_rate": watched.rates.get("syn", 0), "rst_rate": watched.rates.get("rst", 0), "half_open": watched.half_open}
        reason = ", ".join(watched.reasons)
        if happened == "raised":
            self.log.warning("alarm raised", address=what, reason=reason, **figures)
        else:
            self.log.info("alarm ended", address=what, **figures)
        self.alarm(f"syn-flood-{happened}", address=what, reason=reason, **figures)

    def _limits(self, address: Address | None) -> dict[str, int]:
        assert self.current
        common = self.current.thresholds
        limits = {"syn-rate": common.syn_rate, "rst-rate": common.rst_rate, "half-open": common.half_open}
        if address:
            own = address.thresholds
            named = {"syn-rate": own.syn_rate, "rst-rate": own.rst_rate, "half-open": own.half_open}
            limits |= {name: limit for name, limit in named.items() if limit is not None}
        return limits

    def state(self) -> Mapping[str, Any]:
        if not self._totals:
            return {}
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        return {
            "stats": {
                "tcpattemptfails": str(self._all.failed),
                "tcpoutrsts": str(self._all.counts["rst_sent"]),
                "deliverratio": ratio(self._totals["delivered"], self._totals["received"]),
                "responseratio": ratio(self._totals["sent"], self._totals["received"]),
                "lastupdate": self._updated,
            },
            "handshakes": self._all.handshakes(),
            "alarm": self._all.alarm(now),
            "unseen": {"malformed": self._totals["malformed"], "untracked": self._totals["untracked"]},
            "address": [{"ip": str(ip), "handshakes": one.handshakes(), "alarm": one.alarm(now)} for ip, one in self._addresses.items()],
        }
