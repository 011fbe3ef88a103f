# SPDX-License-Identifier: Apache-2.0
"""Chains are fused in the background, give way to every change, and survive the daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scenes import chain

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually


@pytest.fixture
def hosts(isolated: None) -> Iterator[list[Host]]:
    with Lab() as lab:
        yield lab.some(3)


@pytest.fixture(params=["TC", "XDP_DRV"])
def type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fused(daemon: Daemon) -> set[str]:
    """Pinned fused units."""
    return {pin for pin in daemon.pins() if pin.startswith("fused/") and pin.endswith("/fused")}


def test_a_chain_is_fused_and_gives_way(daemons, hosts, type):
    one, two, three = hosts
    with daemons() as daemon:
        chain(daemon, [one], [two], type)
        eventually(lambda: len(fused(daemon)) == 2, "one unit for each way")
        before = fused(daemon)
        eventually(lambda: one.reaches(two), "a path")
        received = daemon.counter("br2", "link", "rx_packets")
        assert one.reaches(two)
        assert daemon.counter("br2", "link", "rx_packets") > received
        daemon.post("simplebridge/br2/ports/p2", {"peer": three.netdev})
        assert one.reaches(three) and one.reaches(two)
        eventually(lambda: len(fused(daemon)) == 2 and not fused(daemon) & before, "other units")
        assert one.reaches(three) and three.reaches(two)
        daemon.delete("simplebridge/br2")
        assert not one.reaches(two)
        eventually(lambda: len(fused(daemon)) == 1, "a unit of what is left")
