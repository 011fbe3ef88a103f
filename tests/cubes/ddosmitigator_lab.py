# SPDX-License-Identifier: Apache-2.0
"""A ddosmitigator for many tests: loading its program takes long, so that it is made once for each hook, and emptied in between."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from polycube.cubes.ddosmitigator.model import DdosmitigatorConfig, Detection
from polycube.cubes.ddosmitigator.rules import Rules
from polycube.cubes.ddosmitigator.tables import Tables, summed, table_sizes
from polycube.model import Diff
from polycube.testing.harness import Chain, Hook
from polycube.toolkit.address import mapped

E = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
LAYER = {4: IP, 6: IPv6}
SOURCE = {4: "198.51.100.7", 6: "2001:db8:ff::7"}
TARGET = {4: "10.0.0.1", 6: "2001:db8::1"}
SIZE = 1024


SLOWLY = 1000


@dataclass
class Slowly:
    """The map of rates, each a thousandth of what is configured: no token comes back while a test runs, however long that takes."""

    limits: Any

    def __setitem__(self, slot: int, value: dict[str, dict[str, int]]) -> None:
        self.limits[slot] = {what: {name: number * SLOWLY for name, number in rate.items()} for what, rate in value.items()}


class Mitigator:
    """The cube under test, configured as its control plane would do it."""

    def __init__(self, hook: Hook) -> None:
        self.chain = Chain(hook)
        config = DdosmitigatorConfig.model_validate({"name": "d1", "blacklist-size": SIZE, "ratelimit-size": SIZE}, by_alias=True)
        self.cube = self.chain.cube("ddosmitigator", transparent=True, sizes=table_sizes(config))
        self.maps = self.cube.maps
        self.tables = Tables(self.maps, SIZE)
        self.config = config

    def configure(self, **lists: Any) -> None:
        """Puts lists in the place of those that were there: `blacklist_src=[{"ip": "10.0.0.1"}]`, or texts of prefixes alone."""
        data = {name.replace("_", "-"): [{"ip": one} if isinstance(one, str) else one for one in these] for name, these in lists.items()}
        after = DdosmitigatorConfig.model_validate({"name": "d1", "blacklist-size": SIZE, **data}, by_alias=True)
        Rules(self.tables, Slowly(self.maps["limits"])).write(Diff(self.config, after))
        self.config = after

    def detect(self, **detection: Any) -> None:
        made = Detection(**detection)
        masks = (ipaddress.IPv4Network((0, made.prefix_length_ipv4)), ipaddress.IPv6Network((0, made.prefix_length_ipv6)))
        self.cube.cfg(
            threshold=made.threshold,
            count_bytes=int(made.unit == "BYTES"),
            block_time=made.block_time,
            mask4=mapped(masks[0].netmask),
            mask6=masks[1].netmask.packed,
            seed=7,
        )

    def reset(self) -> None:
        self.configure()
        for name in ("buckets", "hitters"):
            self.maps[name].clear()
        self.forget_counts()
        for side_version in ((side, version) for side in ("sources", "targets") for version in (4, 6)):
            self.maps["{}{}".format(*side_version)].clear()
        self.detect()

    def forget_counts(self) -> None:
        """As if a second had passed."""
        self.maps["sketch"].clear()

    def stats(self) -> dict[str, int]:
        return summed(self.maps["stats"].percpu(0))

    def send(self, packet: Any, **options: Any) -> Any:
        return self.cube.send(packet, **options)

    def close(self) -> None:
        self.chain.close()


def packet(source: str, target: str = "", size: int = 0, link: Any = E) -> Any:
    version = 6 if ":" in source + target else 4
    made = link / LAYER[version](src=source, dst=target or TARGET[version]) / UDP(sport=1, dport=2)
    return made / bytes(max(size - len(made), 0))
