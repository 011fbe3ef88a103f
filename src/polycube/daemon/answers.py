# SPDX-License-Identifier: Apache-2.0
"""What workers say to a change, collected while it is under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from polycube.core.message import Recorded
from polycube.core.operation import Key, Kind, Operation
from polycube.daemon.draft import Entry
from polycube.daemon.facts import Told
from polycube.daemon.worlds import Wishes


@dataclass
class Answers:
    """`commit` or `rollback` is still to follow for each cube of `touched`."""

    touched: list[Entry] = field(default_factory=list)
    told: dict[str, Told] = field(default_factory=dict)
    writes: list[Operation] = field(default_factory=list)
    wishes: dict[str, Wishes] = field(default_factory=dict)

    def take(self, entry: Entry, told: Told, recorded: Recorded, standing: Wishes) -> None:
        """One cube's answer; `standing` is what it wished for before."""
        self.touched.append(entry)
        self.told[entry.uuid] = told
        for one in recorded.writes:
            key = Key(Kind.MAP, (entry.uuid, one.map, one.key.hex()))
            self.writes.append(Operation(key, None, None if one.value is None else one.value.hex()))
        cfg = dict(standing.cfg) | {name: value.hex() for name, value in recorded.cfg.items()}
        self.wishes[entry.uuid] = Wishes(cfg, recorded.netdevs, recorded.domains, recorded.shadow)
