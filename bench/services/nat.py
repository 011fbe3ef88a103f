# SPDX-License-Identifier: Apache-2.0
"""nat beside nftables and iptables: masquerading behind a router, packets of one flow and of 10,000, TCP, and new sessions a second.

Each subject routes between two hosts of its own and translates what leaves on the far side: the kernel's router with a masquerading rule of
nftables or of iptables (legacy), and the router cube with a nat cube on its port, on TC and on XDP. Beside them, what there is to win: a
redirect in XDP without any function.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import rates
from figures import Found, compared

from polycube.compiler.function import Hook
from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually
from polycube.testing.traffic import Headers, Place, Traffic

FLOWS = 10_000
NEW = 30_000  # sessions that are opened in one go


def nftables(subject: rates.Subject) -> None:
    """The kernel's router and a rule of nftables."""
    rates.linux_router(subject)
    rules = f"table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname {subject.tag}1 masquerade; }}; }}"
    _in(subject, ["nft", rules])


def iptables(subject: rates.Subject) -> None:
    """The kernel's router and a rule of iptables."""
    rates.linux_router(subject)
    _in(subject, ["iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-o", f"{subject.tag}1", "-j", "MASQUERADE"])


def _in(subject: rates.Subject, command: list[str]) -> None:
    subprocess.run(["ip", "netns", "exec", f"{subject.tag}r", *command], check=True, capture_output=True)


def cubes(subject: rates.Subject, daemon: Daemon) -> None:
    """The router cube and a nat on its far port."""
    rates.router_cube(subject, daemon)
    daemon.post(f"nat/n{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "rule": {"masquerade": {"enabled": True}}})
    daemon.post("attach", {"cube": f"n{subject.tag}", "port": f"{subject.tag}:p1"})


def reaches(subject: rates.Subject) -> bool:
    """Whether the near host gets an answer; the far one has no way in."""
    return (
        subprocess.run(
            ["ip", "netns", "exec", f"{subject.tag}a", "ping", "-c1", "-W1", subject.addresses[1]], capture_output=True
        ).returncode
        == 0
    )


def measure(folder: Path, quick: bool) -> Found:
    """All of it, in rounds."""
    rounds = 3 if quick else 7
    nft, ipt, tc, xdp, bare = made = [
        rates.Subject("Linux and nftables", "nn", True, False),
        rates.Subject("Linux and iptables", "ni", True, False),
        rates.Subject("nat cube, TC", "nt", True, False),
        rates.Subject("nat cube, XDP", "nx", True, True),
        rates.Subject("redirect alone, XDP", "nr", False, True),
    ]
    rows = []
    raw: dict[str, Any] = {}
    with Daemon(folder, cache=folder / "cache") as daemon:
        for subject in made:
            subject.make()
        nftables(nft)
        iptables(ipt)
        cubes(tc, daemon)
        cubes(xdp, daemon)
        links = rates.redirect(bare)
        for subject in made:
            eventually(lambda subject=subject: reaches(subject), f"{subject.name} to let frames pass", 15)
        rates.settle(daemon)
        for size, count in product((64, 1500), (1, FLOWS)):
            rates.packet_rates(made, rounds, count, size=size)
            what = f"{size} B packets, {'1 flow' if count == 1 else f'{count:,} sessions'}"
            raw[what] = {subject.name: list(subject.packets) for subject in made}
            for peer in (nft, ipt):
                rows.append(compared(f"nat, XDP, {what}: cube to {peer.name}", xdp.packets, peer.packets, 5.0))
                rows.append(compared(f"nat, TC, {what}: cube to {peer.name}", tc.packets, peer.packets, 1.4))
                rows.append(compared(f"nat, {what}: a redirect without any function to {peer.name}", bare.packets, peer.packets))
            for subject in made:
                subject.packets.clear()
        rates.tcp_rates([nft, ipt, tc], 3 * rounds)  # a second each, and far apart
        raw["TCP, Gbit/s"] = {subject.name: subject.tcp for subject in (nft, ipt, tc)}
        for peer in (nft, ipt):
            rows.append(compared(f"nat, TC, TCP: cube to {peer.name}", tc.tcp, peer.tcp, 1.0))
        flushes: dict[str, Callable[[], Any]] = {
            "nn": lambda: _in(nft, ["conntrack", "-F"]),
            "ni": lambda: _in(ipt, ["conntrack", "-F"]),
            "nt": lambda: daemon.post("nat/nnt/flush", {}),
            "nx": lambda: daemon.post("nat/nnx/flush", {}),
        }
        opened = new_sessions([nft, ipt, tc, xdp], flushes, rounds)
        raw["new sessions a second"] = opened
        for peer in (nft, ipt):
            rows.append(compared(f"nat, XDP, new sessions a second: cube to {peer.name}", opened[xdp.name], opened[peer.name]))
            rows.append(compared(f"nat, TC, new sessions a second: cube to {peer.name}", opened[tc.name], opened[peer.name]))
        for link in links:
            link.close()
    for what, figures in raw.items():
        for name, values in figures.items():
            print(f"{what}, {name}: {statistics.median(values):,.1f}", file=sys.stderr)
    return rows, raw


def new_sessions(made: list[rates.Subject], flushes: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Packets a second of which each opens a session."""
    found: dict[str, list[float]] = {subject.name: [] for subject in made}
    with ExitStack() as stack:
        flows = {}
        for subject in made:
            if not subject.xdp:
                stack.enter_context(rates.gro(subject))
            source, destination = subject.addresses
            headers = Headers(source=source, destination=destination, destination_mac=rates.next_mac(subject), source_port=2000)
            flow = Traffic(
                Place(f"{subject.tag}a"),
                Place(f"{subject.tag}b"),
                headers,
                hook=Hook.XDP,
                sink_hook=Hook.XDP if subject.xdp else Hook.TC,
                count_only=True,
                flows=NEW,
            )
            flow.prepare(64)
            stack.callback(flow.close)
            flows[subject.tag] = flow
        for _ in range(rounds):
            for subject in made:
                flushes[subject.tag]()
                flow = flows[subject.tag]

                def once(flow: Traffic = flow) -> float:
                    before = flow.received()
                    spent = flow.burst(NEW) * NEW
                    time.sleep(0.01)
                    return (flow.received() - before) / spent * 1e9

                found[subject.name].append(netns.run_in(f"{subject.tag}a", once))
    return found
