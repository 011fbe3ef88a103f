# SPDX-License-Identifier: Apache-2.0
"""Metrics on request and events of fusing, with real traffic."""

from __future__ import annotations

import re
import socket

import pytest
from scenes import chain, clear

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(2)


def values(daemon: Daemon, query: str, name: str) -> dict[str, float]:
    text = daemon.rest("GET", f"metrics?{query}").text
    return {labels: float(value) for labels, value in re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.M)}


def test_tables_and_the_cost_of_packets_are_measured_on_request(daemon: Daemon, hosts: list[Host]) -> None:
    chain(daemon, hosts[:1], hosts[1:])
    with hosts[0].pinging(hosts[1]) as pinging:
        pinging.answers()
        fill = values(daemon, "maps=true", "polycube_map_entries")
        assert fill['cube="br1",map="fdb",service="simplebridge"'] == 2
        assert values(daemon, "", "polycube_map_entries") == {}
        costs = values(daemon, "cost=true", "polycube_entry_nanoseconds")
        rates = values(daemon, "cost=true", "polycube_entry_packets_per_second")
    assert all(0 < cost < 1e7 for cost in costs.values())
    for host in hosts:
        assert any(f'netdev="{host.netdev}"' in labels for labels in costs)
        assert any(f'netdev="{host.netdev}"' in labels and rate > 10 for labels, rate in rates.items())
    clear(daemon)


@pytest.mark.parametrize("type", ["TC", "XDP_SKB"])
def test_what_packets_take_in_a_cube_is_counted_while_that_is_asked_for(daemon: Daemon, hosts: list[Host], type: str) -> None:
    def times(what: str) -> dict[str, float]:
        return values(daemon, "", f"polycube_cube_handler_{what}_total")

    key = 'cube="br1",handler="ingress",service="simplebridge"'
    chain(daemon, hosts[:1], hosts[1:], type)
    with hosts[0].pinging(hosts[1]) as pinging:
        pinging.answers()
        assert times("packets") == {}
        daemon.patch("simplebridge/br1", {"timing": True})
        eventually(lambda: times("packets")[key] > 2)
        eventually(lambda: any(one["kind"] == "fused" and "br1" in one["cubes"] for one in daemon.get("units")))
        fused = times("packets")[key]
        eventually(lambda: times("packets")[key] > fused + 2)
        assert set(times("packets")) == {key, key.replace("ingress", "egress")}
        assert times("seconds")[key] > 0
        daemon.patch("simplebridge/br1", {"timing": False})
        assert times("packets") == {}
        pinging.answers()
    clear(daemon)


def test_fusing_is_told_as_it_happens(daemon: Daemon, hosts: list[Host]) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(str(daemon.socket))
        stream.sendall(b"GET /polycube/v1/events?kinds=fused,unfused HTTP/1.1\r\nHost: localhost\r\n\r\n")
        lines = stream.makefile()
        next(line for line in lines if line == ": polycube\n")
        chain(daemon, hosts[:1], hosts[1:])
        assert next(line for line in lines if line.startswith("event:")) == "event: fused\n"
        clear(daemon)
        next(line for line in lines if line == "event: unfused\n")
