# SPDX-License-Identifier: Apache-2.0
"""A firewall under test: its data plane in the kernel, configured by its control plane's own code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from polycube.bpf import Link, Program, XdpMode
from polycube.cubes.firewall.chains import BY_DEFAULT, BY_SESSION, CHAINS, FIRST_COUNTER, Chains
from polycube.cubes.firewall.model import ChainName, FirewallConfig
from polycube.model import load
from polycube.testing.cube import CubeUnderTest
from polycube.testing.harness import Chain, Hook
from polycube.testing.hosts import sh
from polycube.testing.stage import veth
from polycube.toolkit import tokenbucket

ARRAYS = (2, 6)


@pytest.fixture(scope="module", params=list(Hook))
def firewall(isolated: None, request: pytest.FixtureRequest) -> Iterator[CubeUnderTest]:
    """One for all tests of a module: loading it takes longer than most of them."""
    with Chain(request.param) as chain:
        yield chain.cube("firewall", transparent=True)


class KernelView:
    """A map, written at once."""

    def __init__(self, view: Any) -> None:
        self._view = view
        self.kernel = view.kernel

    def get(self, key: Any, default: Any = None) -> Any:
        return self._view.get(key, default)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._view[key] = value

    def pack(self, value: Any) -> bytes:
        return bytes(self._view._value.pack(value))

    def packed_items(self) -> Iterable[tuple[bytes, bytes]]:
        return list(self.kernel.items())

    def load(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        gone = bytes(self.kernel.info.value_size) if self.kernel.info.type in ARRAYS else None
        written = [(key, gone if value is None else value) for key, value in entries]
        for key, value in written:
            if value is None:
                self.kernel.delete(key)
        self.kernel.set_many((key, value) for key, value in written if value is not None)


class KernelViews:
    """The maps of a cube under test, as the control plane wants them."""

    def __init__(self, cube: CubeUnderTest) -> None:
        self._cube = cube
        self._views: dict[str, KernelView] = {}

    def __getitem__(self, name: str) -> KernelView:
        if name not in self._views:
            self._views[name] = KernelView(self._cube.map(name))
        return self._views[name]


class Wall:
    """A firewall and its configuration, as REST has it."""

    def __init__(self, cube: CubeUnderTest, **config: Any) -> None:
        self.cube = cube
        self.maps = KernelViews(cube)
        self.chains = Chains(self.maps, 10_000)  # type: ignore[arg-type]
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


@contextmanager
def kept(hook: Hook, program: Program) -> Iterator[None]:
    """Within, an XDP program stands in the kernel's dispatcher; else each test run would enter it there and take it out again."""
    if hook != Hook.XDP:
        yield
        return
    name = f"keep{next(_NUMBERS)}"
    with Link.xdp(program, veth(name)[0], XdpMode.SKB):
        yield
    sh(f"ip link del {name}")


_NUMBERS = count()
