# SPDX-License-Identifier: Apache-2.0
"""router against a hand-written XDP program with the same tables and counters, by BPF_PROG_TEST_RUN in turns.

    python bench/router.py [calls] [routes]

64 bytes IPv4 and 78 bytes IPv6, to one of many routes. A test run keeps what the last run left, so the next hop has the MAC of the
in-port, and a call runs as often as the time to live allows. Programs take turns call by call (a call costs the kernel milliseconds
besides). Prints ns a packet (medians of calls) and the ratios of speeds.
"""

from __future__ import annotations

import ipaddress
import os
import statistics
import sys
from typing import Any

import yardstick

from polycube.bpf import Object, Program, sk_buff, u32, xdp_md
from polycube.compiler.function import Hook
from polycube.core.slowpath import folded_sum
from polycube.cubes.router.addresses import own_filter
from polycube.cubes.router.tables import routes_of, sizes
from polycube.testing.harness import NEXT_NETDEV, Chain, CubeUnderTest
from polycube.testing.isolation import isolate

REPEAT = 250
MAC = [bytes.fromhex("0200000000a0"), bytes.fromhex("0200000000a1")]


def ip(text: str) -> Any:
    return ipaddress.ip_address(text)


GATEWAYS = {4: ip("10.0.1.2"), 6: ip("2001:db8:1::2")}


def frames() -> dict[str, bytes]:
    """One frame of each version, with the longest life."""
    head = bytes.fromhex("4500003200004000ff110000") + ip("10.0.0.2").packed + ip("20.0.7.9").packed
    head = head[:10] + (0xFFFF - folded_sum(head)).to_bytes(2, "big") + head[12:]
    ipv6 = bytes.fromhex("60000000001811ff") + ip("2001:db8::2").packed + ip("2001:db8:100:7::9").packed
    return {
        "ipv4": MAC[0] + bytes(6) + b"\x08\x00" + head + bytes(30),
        "ipv6": MAC[0] + bytes(6) + b"\x86\xdd" + ipv6 + bytes(24),
    }


def networks(routes: int, version: int) -> list[Any]:
    """The destinations, as networks."""
    start, step, length = (int(ip("20.0.0.0")), 8, 24) if version == 4 else (int(ip("2001:db8:100::")), 64, 64)
    return [ipaddress.ip_network((start + (number << step), length)) for number in range(routes)]


def fill(cube: CubeUnderTest, routes: int) -> None:
    """Two ports and many routes, all by one next hop."""
    for number in (0, 1):
        link_local = ip(f"fe80::{number + 1}").packed
        cube.map("interfaces")[number] = {
            "mac": MAC[number], "up": 1, "mtu": 1500, "number": number, "port": number, "link_local": link_local
        }  # fmt: skip
    maps = {name: cube.map(name) for name in sizes(routes)}
    for version, gateway in GATEWAYS.items():
        table = routes_of(maps, version, routes)
        value = {"interface": 1, "kind": 0, "gateway": gateway.packed}
        table.update(dict.fromkeys(networks(routes, version), value))
        cube.map(f"neighbours{version}")[{"interface": 1, "address": gateway.packed}] = {"mac": MAC[0]}
    cube.map("filters")[0] = own_filter([ip("10.0.0.1"), ip("10.0.1.1"), ip("2001:db8::1"), ip("2001:db8:1::1")])


def fill_by_hand(opened: Object, model: CubeUnderTest, routes: int) -> None:
    """The same for the yardstick, whose tables are its own (bench/handwritten/router.bpf.c)."""
    for number in (0, 1):
        own = MAC[number] + b"\x01\x00" + u32(1500) + ip(f"fe80::{number + 1}").packed
        opened.map("interfaces").set(u32(number), own)
    for version, gateway in GATEWAYS.items():
        value = u32(1) + u32(0) + (b"" if version == 4 else u32(0)) + gateway.packed
        for network in networks(routes, version):
            opened.map(f"routes{version}").set(u32(network.prefixlen) + network.network_address.packed, value)
        opened.map(f"neighbours{version}").set(u32(1) + gateway.packed, MAC[0] + b"\x01\x00" + u32(0))
    for key, value in model.kernel_map("filters").items():
        opened.map("filters").set(key, value)


def cube(hook: Hook, routes: int) -> tuple[CubeUnderTest, Program, bytes]:
    """The cube's entry and the context to run it with. Port 1 leads to a netdev."""
    made = Chain(hook).cube("router", ports=2, sizes=sizes(routes))
    stage = made.stage
    made.write_port(1, next=NEXT_NETDEV, target=stage.far, id=made.ids[1])
    if hook == Hook.XDP:
        stage.maps["pcn_netdevs"].set(u32(made.ids[1]), u32(stage.far))
    stage.maps["pcn_entries"].set(u32(stage.near), u32(0) + u32(made.ids[0]))
    fill(made, routes)
    context = xdp_md(60, ingress_ifindex=stage.near) if hook == Hook.XDP else sk_buff(ifindex=stage.near)
    return made, made.program("entry"), context


def handwritten(model: CubeUnderTest, routes: int, *defines: str) -> Program:
    """The yardstick, with the same entries."""
    opened = yardstick.load("router", *defines)
    fill_by_hand(opened, model, routes)
    opened.map("port_of").set(u32(model.stage.near), u32(1))
    opened.map("devices").set(u32(1), u32(model.stage.far))
    return opened.program("router")


def main() -> None:
    """Runs the rounds."""
    given = [int(text) for text in sys.argv[1:]]
    calls, routes = [*given, *[300, 1000][len(given) :]]
    isolate()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    model, entry, _ = cube(Hook.XDP, routes)
    _, tc, tc_context = cube(Hook.TC, routes)
    candidates = {"handwritten": (handwritten(model, routes), 4), "cube": (entry, 4), "cube_tc": (tc, 7)}
    for version, frame in frames().items():
        times: dict[str, list[int]] = {name: [] for name in candidates}
        for _ in range(calls):
            for name, (program, expected) in candidates.items():
                ctx = tc_context if name == "cube_tc" else xdp_md(len(frame), ingress_ifindex=model.stage.near)
                result = program.test_run(frame, context=ctx, repeat=REPEAT)
                assert result.retval == expected, (version, name, result.retval)
                times[name].append(result.duration_ns)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, value in medians.items():
            print(f"{version} {name:12} {value:6.1f} ns   {min(times[name])} to {max(times[name])}")
        print(f"{version} ratio cube to handwritten: {medians['handwritten'] / medians['cube']:.3f}", flush=True)


if __name__ == "__main__":
    main()
