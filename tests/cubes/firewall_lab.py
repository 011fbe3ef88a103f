# SPDX-License-Identifier: Apache-2.0
"""A firewall under test: its data plane in the kernel, configured by its control plane's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from polycube.cubes.firewall.chains import BY_DEFAULT, BY_SESSION, CHAINS, FIRST_COUNTER, Chains
from polycube.cubes.firewall.model import ChainName, FirewallConfig
from polycube.model import load
from polycube.testing.harness import Chain, CubeUnderTest, Hook
from polycube.testing.quick import Passage, quick
from polycube.toolkit import tokenbucket


@pytest.fixture(scope="module", params=list(Hook))
def firewall(isolated: None, request: pytest.FixtureRequest) -> Iterator[CubeUnderTest]:
    """One for all tests of a module: loading it takes longer than most of them."""
    with Chain(request.param) as chain:
        yield chain.cube("firewall", transparent=True)


@contextmanager
def quick_wall(hook: Hook) -> Iterator[tuple[Wall, Callable[[bytes], Passage]]]:
    """One for thousands of packets on their way in, and what has them pass."""
    with Chain(hook) as chain:
        firewall = chain.cube("firewall", transparent=True)
        with quick(firewall) as run:
            yield Wall(firewall, conntrack="OFF"), run


class Wall:
    """A firewall and its configuration, as REST has it."""

    def __init__(self, cube: CubeUnderTest, **config: Any) -> None:
        self.cube = cube
        self.maps = cube.maps
        self.chains = Chains(self.maps, 10_000)
        cube.map("sessions").clear()
        self.chains.reset(range(FIRST_COUNTER))
        cube.map("rejects")[0] = {"rate": tokenbucket.rate(1000, 1000)}
        self.configure(**config)

    def configure(self, *, ingress: Iterable[dict[str, Any]] = (), egress: Iterable[dict[str, Any]] = (), **more: Any) -> None:
        """Rules in order, and other leaves of the configuration by their names on the wire."""
        rules = {ChainName.INGRESS: ingress, ChainName.EGRESS: egress}
        chains = [{"name": str(name), "rule": [{"id": at, **rule} for at, rule in enumerate(of)]} for name, of in rules.items()]
        for name, default in more.pop("defaults", {}).items():
            next(chain for chain in chains if chain["name"] == name)["default"] = default
        for name, default in more.pop("others", {}).items():
            next(chain for chain in chains if chain["name"] == name)["default-non-ip"] = default
        self.config = load(FirewallConfig, {"name": "fw", "chain": chains, **more}, ())
        self.cube.cfg(
            conntrack=int(self.config.conntrack == "ON"),
            accept_established=int(self.config.accept_established == "ON"),
            ct_timeouts=self.config.timeouts.cfg(),
        )
        self.chains.write(self.config)

    def counted(self, chain: str = "INGRESS") -> list[int]:
        """Packets of each rule, the default's last."""
        name = ChainName(chain)
        counts = self.chains.counts()
        numbers = [*(entry.counter for entry in self.chains.table(name).entries), BY_DEFAULT + CHAINS.index(name)]
        return [counts.get(number, (0, 0))[0] for number in numbers]

    def established(self, chain: str = "INGRESS") -> int:
        """Packets accepted because of their session."""
        return self.chains.counts().get(BY_SESSION + CHAINS.index(ChainName(chain)), (0, 0))[0]
