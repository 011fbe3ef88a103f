# SPDX-License-Identifier: Apache-2.0
"""What the counters of the data plane mean: rates, an estimate of half-open connections, alarms. Pure: time is an argument.

An alarm is raised as soon as a value is above its threshold and ends when all of them have been at or below theirs for the whole of
`hold` seconds, so that a flood that comes in waves is one alarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COUNTED = ("syn", "syn_ack", "ack", "rst", "rst_sent", "opened", "established", "reset")
RATES = ("syn", "syn_ack", "ack", "rst")
PERIOD_SHIFT = 3  # SYNFLOOD_PERIOD_SHIFT


def summed(cpus: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One `struct synflood_counts` of those of all CPUs; `half_open` becomes a list of (period, number)."""
    total: dict[str, Any] = dict.fromkeys(COUNTED, 0) | {"half_open": []}
    for one in cpus:
        for name in COUNTED:
            total[name] += one[name]
        total["half_open"] += [(word >> 32, _signed(word & 0xFFFFFFFF)) for word in one["half_open"] if word]
    return total


def half_open(periods: Iterable[tuple[int, int]], now: int, timeout: int) -> int:
    """Connections half open at the second `now`: of all periods that are not over for longer than `timeout`."""
    last = now >> PERIOD_SHIFT
    first = max(now - timeout, 0) >> PERIOD_SHIFT
    return max(sum(number for period, number in periods if first <= period <= last), 0)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


@dataclass
class Watched:
    """One address, or all traffic."""

    hold: int = 10
    counts: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)
    half_open: int = 0
    reasons: tuple[str, ...] = ()  # of the alarm; empty: none
    changed: float | None = None  # when the alarm began, or ended
    raised: int = 0
    _read: float | None = None  # when
    _quiet: float | None = None  # since when nothing is exceeded

    def read(self, counts: Mapping[str, Any], now: float, timeout: int) -> None:
        """Takes new counters, `summed`. The first time there are no rates; nor when time stood still, or counters began again."""
        if self._read is not None and now > self._read:
            grown = {name: counts[name] - self.counts[name] for name in RATES}
            self.rates = {name: max(round(number / (now - self._read)), 0) for name, number in grown.items()}
        self.counts, self._read = dict(counts), now
        self.half_open = half_open(counts["half_open"], int(now), timeout)

    def judge(self, limits: Mapping[str, int], now: float) -> str | None:
        """Compares with thresholds (0: none). Returns "raised", "ended" or None."""
        values = {"syn-rate": self.rates.get("syn", 0), "rst-rate": self.rates.get("rst", 0), "half-open": self.half_open}
        exceeded = tuple(name for name, value in values.items() if 0 < limits[name] < value)
        if exceeded:
            self._quiet = None
            before, self.reasons = self.reasons, tuple(dict.fromkeys(self.reasons + exceeded))
            if not before:
                self.changed, self.raised = now, self.raised + 1
                return "raised"
            return None
        if not self.reasons:
            return None
        if self._quiet is None:
            self._quiet = now
        if now - self._quiet < self.hold:
            return None
        self.reasons, self.changed, self._quiet = (), now, None
        return "ended"

    @property
    def failed(self) -> int:
        """Connections that are neither complete nor half open any more."""
        ended: int = self.counts["opened"] - self.counts["established"] - self.half_open
        return max(ended, 0)

    def handshakes(self) -> dict[str, int]:
        """As the model has it."""
        if not self.counts:
            return {}
        shown = {name: self.counts[name] for name in COUNTED if name != "reset"}
        shown |= {f"{name}_rate": rate for name, rate in self.rates.items()}
        shown |= {"half_open": self.half_open, "failed": self.failed}
        return {name.replace("_", "-"): value for name, value in shown.items()}

    def alarm(self, now: float) -> dict[str, Any]:
        """As the model has it."""
        shown: dict[str, Any] = {"active": bool(self.reasons), "raised": self.raised}
        if self.reasons:
            shown["reason"] = ", ".join(self.reasons)
        if self.changed is not None:
            shown["seconds"] = int(now - self.changed)
        return shown


def ratio(part: int, whole: int) -> str:
    """As upstream writes it."""
    return f"{part / (whole + 1):.6f}"


def totals(cpus: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """One `struct synflood_totals` of those of all CPUs."""
    return {name: sum(one[name] for one in cpus) for name in ("received", "delivered", "sent", "malformed", "untracked")}
