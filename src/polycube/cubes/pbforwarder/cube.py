# SPDX-License-Identifier: Apache-2.0
"""The policy-based forwarder's control plane: rules to the classifier's table.

`apply` hands all rules to the classifier, which finds out what changed and puts it into effect from one packet to the next. A rule keeps
its counter as long as it asks for the same.
"""

from __future__ import annotations

from typing import Any

from polycube.core.cube import Cube, Packet
from polycube.cubes.pbforwarder.matching import objections, rules_of
from polycube.cubes.pbforwarder.model import MAX_RULES, PbforwarderConfig
from polycube.model import Diff, ModelError, Problem, Tag
from polycube.toolkit.classify import Sides, Table

FLOWS = 4096  # remembered by each CPU


class Pbforwarder(Cube[PbforwarderConfig]):
    """Policy-based forwarder"""

    config = PbforwarderConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._made: Sides | None = None

    def apply(self, change: Diff[PbforwarderConfig]) -> None:
        new, old = change.new, change.old
        if new is None:
            return
        asked = [*change.added("rules"), *(after for _, after in change.changed("rules"))]
        if old is not None and old.ports is not new.ports:  # a port that rules name may be gone
            asked = list(new.rules.values())
        found = [problem for rule in asked for problem in objections(rule, new)]
        if len(new.rules) > MAX_RULES:
            found.append(Problem(Tag.INVALID_VALUE, ("rules",), f"holds {len(new.rules)} rules: up to {MAX_RULES} are allowed"))
        if found:
            raise ModelError(*found[:20])
        self._sides(old or new).update(list(rules_of(new, self._numbers)), flows=FLOWS)

    @property
    def _numbers(self) -> dict[str, int]:
        return {name: port.number for name, port in self.ports.items()}

    def _sides(self, standing: PbforwarderConfig) -> Sides:
        """The table. After a restart rules have the counters that they have in the kernel."""
        if self._made is None:
            self._made = Sides(self.maps, 0, Table(), "counters")
            places = self._made.places()
            self._made.table.counters.reserve({counter for _, counter in places})
            self._made.table.restore(list(rules_of(standing, self._numbers)), places)
        return self._made

    def state(self) -> dict[str, Any]:
        if self.current is None:
            return {}
        shown = []
        for entry in self._sides(self.current).table.entries:
            counts = self.maps["counters"].percpu(entry.counter)
            total = {name: sum(one[name] for one in counts) for name in ("packets", "bytes")}
            assert isinstance(entry.rule.key, tuple)
            shown.append({"id": entry.rule.key[0]} | total)
        return {"rules": shown}

    async def packet(self, packet: Packet) -> None:
        self.log.info("packet from the data plane", length=len(packet.data), port=packet.port and packet.port.name)
