# SPDX-License-Identifier: Apache-2.0
"""The firewall beside iptables and nftables, each in front of a router: packets a second by number of rules, new sessions, insertions.

Rules accept UDP from one address by source port, and the default drops. "last" is one flow, of the last rule; "uniform" has a flow for
each rule. nftables comes in two forms: a rule each, and its best, one rule with a verdict map. All stand at the same time and take turns.
What a router takes is in all of these; the firewall also stands between ports of a bridge, beside nftables' bridge family.

Single rules: iptables and nft by their commands, which begin with the start of a process (some milliseconds), and store nothing; the
firewall by REST on a connection of its own, what is stored is in memory as well.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rates
from figures import Found, Row, compared

from polycube.compiler.function import Hook
from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually
from polycube.testing.traffic import Headers, Place, Traffic

FIRST_PORT, SOURCE = 10_000, "10.1.0.2"
COUNTS, QUICK = (0, 10, 100, 1000, 10_000), (10, 10_000)
SESSIONS = 20_000  # flows that are new at once


@dataclass
class Peer:
    """One kind of firewall before a router of its own."""

    name: str
    subject: rates.Subject
    install: Callable[[int], None]
    insert: Callable[[int], None]
    forget: Callable[[], None]
    packets: dict[str, list[float]] = field(default_factory=dict)
    inserts: list[float] = field(default_factory=list)


def inside(tag: str, command: str, text: str = "", routed: bool = True) -> None:
    """Runs a command where the kernel's packets are filtered: in the router's namespace, or where the bridge is."""
    where = f"ip netns exec {tag}r " if routed else ""
    subprocess.run(where + command, shell=True, check=True, input=text, text=True, capture_output=True)


def iptables(tag: str) -> Peer:
    def install(count: int) -> None:
        rules = "".join(f"-A FORWARD -s {SOURCE} -p udp --sport {FIRST_PORT + at} -j ACCEPT\n" for at in range(count))
        policy = "DROP" if count else "ACCEPT"
        inside(tag, "iptables-legacy-restore", f"*filter\n:FORWARD {policy} [0:0]\n{rules}COMMIT\n")

    def insert(number: int) -> None:
        inside(tag, f"iptables-legacy -I FORWARD -s 10.9.0.1 -p udp --sport {number} -j ACCEPT")

    return Peer("iptables", linux(tag), install, insert, lambda: inside(tag, "conntrack -F"))


def nft_rules(tag: str) -> Peer:
    def install(count: int) -> None:
        rules = "".join(f"ip saddr {SOURCE} udp sport {FIRST_PORT + at} accept\n" for at in range(count))
        inside(tag, "nft -f -", nft(count, rules))

    def insert(number: int) -> None:
        inside(tag, f"nft insert rule ip f c ip saddr 10.9.0.1 udp sport {number} accept")

    return Peer("nft, a rule each", linux(tag), install, insert, lambda: inside(tag, "conntrack -F"))


def nft_map(tag: str, routed: bool = True) -> Peer:
    family = "ip" if routed else "bridge"

    def install(count: int) -> None:
        elements = ",".join(f"{SOURCE} . {FIRST_PORT + at} : accept" for at in range(count))
        table = f"map m {{ type ipv4_addr . inet_service : verdict; elements = {{ {elements} }}; }}" if count else ""
        inside(tag, "nft -f -", nft(count, "ip saddr . udp sport vmap @m\n" if count else "", table, family), routed)

    def insert(number: int) -> None:
        inside(tag, f"nft add element {family} f m '{{ 10.9.0.1 . {number} : accept }}'", routed=routed)

    name = "nft, verdict map" if routed else "nft on a bridge"
    return Peer(name, linux(tag, routed), install, insert, lambda: inside(tag, "conntrack -F", routed=routed))


def nft(count: int, rules: str, table: str = "", family: str = "ip") -> str:
    policy = "drop" if count else "accept"
    chain = f"chain c {{\ntype filter hook forward priority 0; policy {policy};\n{rules}}}"
    return f"table {family} f {{}}\ndelete table {family} f\ntable {family} f {{\n{table}\n{chain}\n}}\n"


def linux(tag: str, routed: bool = True) -> rates.Subject:
    subject = rates.Subject("Linux router" if routed else "Linux bridge", tag, routed, False)
    subject.make()
    (rates.linux_router if routed else rates.linux_bridge)(subject)
    return subject


def cube(tag: str, daemon: Daemon, xdp: bool, routed: bool = True) -> Peer:
    subject = rates.Subject("router cube" if routed else "bridge cube", tag, routed, xdp)
    subject.make()
    (rates.router_cube if routed else rates.bridge_cube)(subject, daemon)
    name = f"f{tag}"
    sizes = {"max-sessions": 4 * SESSIONS, "max-rules": 11_000}
    daemon.post(f"firewall/{name}", {"type": "XDP_DRV" if xdp else "TC", "conntrack": "OFF", **sizes})
    daemon.post("attach", {"cube": name, "port": f"{tag}:p0"})

    def install(count: int) -> None:
        rules = [rule(at, SOURCE, FIRST_PORT + at) for at in range(count)]
        body = {"name": "INGRESS", "default": "DROP" if count else "ACCEPT", "rule": rules}
        daemon.rest("PUT", f"firewall/{name}/chain/INGRESS", body)

    def insert(number: int) -> None:
        daemon.post(f"firewall/{name}/chain/INGRESS/insert", {"src": "10.9.0.1", "l4proto": "UDP", "sport": number, "action": "ACCEPT"})

    def forget() -> None:
        daemon.post(f"firewall/{name}/flush", {})

    return Peer(f"firewall, {'XDP' if xdp else 'TC'}" if routed else "firewall on a bridge", subject, install, insert, forget)


def rule(at: int, source: str, port: int) -> dict[str, Any]:
    return {"id": at, "src": source, "l4proto": "UDP", "sport": port, "action": "ACCEPT"}


def peers(daemon: Daemon) -> tuple[list[Peer], list[Peer]]:
    """What stands before routers, and between ports of bridges."""
    routed = [cube("fx", daemon, True), cube("ft", daemon, False), iptables("fi"), nft_rules("fn"), nft_map("fm")]
    bridged = [cube("gx", daemon, True, False), nft_map("gm", False)]
    for peer in routed + bridged:
        eventually(peer.subject.reaches, f"{peer.name} to let frames pass", 15)
    rates.settle(daemon)
    return routed, bridged


def traffic(peer: Peer, port: int, flows: int) -> Traffic:
    subject = peer.subject
    headers = Headers(
        source=subject.addresses[0], destination=subject.addresses[1], destination_mac=rates.next_mac(subject), source_port=port
    )
    ends = Place(f"{subject.tag}a"), Place(f"{subject.tag}b")
    sink = Hook.XDP if subject.xdp else Hook.TC
    flow = Traffic(*ends, headers, flows=flows, hook=Hook.XDP, sink_hook=sink, count_only=True)
    flow.prepare(64)
    return flow


@contextmanager
def generators(made: list[Peer], port: int, flows: int) -> Iterator[dict[str, Traffic]]:
    with ExitStack() as stack:
        found = {}
        for peer in made:
            if not peer.subject.xdp:
                stack.enter_context(rates.gro(peer.subject))
            found[peer.name] = traffic(peer, port, flows)
            stack.callback(found[peer.name].close)
        yield found


def rounds(made: list[Peer], what: str, port: int, flows: int, count: int) -> None:
    """So many rounds in which all take a turn."""
    with generators(made, port, flows) as flow:
        for _ in range(count):
            for peer in made:
                rate = netns.run_in(f"{peer.subject.tag}a", lambda peer=peer: rates.one_rate(flow[peer.name]))
                peer.packets.setdefault(what, []).append(rate)


def sessions(made: list[Peer], daemon: Daemon, count: int) -> None:
    """Stateful: the first packet of many flows, each of which is to be remembered; then more of the same flows."""
    for peer in made:
        peer.install(0)
    for name in ("ffx", "fft"):
        daemon.patch(f"firewall/{name}", {"conntrack": "ON"})
    rates.settle(daemon)
    stateful = "table ip f {}\ndelete table ip f\ntable ip f {\nchain c {\ntype filter hook forward priority 0; policy drop;\n"
    for tag in ("fn", "fm"):
        inside(tag, "nft -f -", stateful + "ct state vmap { new : accept, established : accept, related : accept }\n}\n}\n")
    inside(
        "fi",
        "iptables-legacy-restore",
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\nCOMMIT\n",
    )
    with generators(made, FIRST_PORT, SESSIONS) as flow:
        for _ in range(count):
            for peer in made:
                peer.forget()
                for what in ("new sessions", "known sessions"):
                    rate = netns.run_in(f"{peer.subject.tag}a", lambda peer=peer: one_burst(flow[peer.name]))
                    peer.packets.setdefault(what, []).append(rate)


def one_burst(flow: Traffic) -> float:
    """Each flow once."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    before = flow.received()
    spent = flow.burst(SESSIONS) * SESSIONS
    time.sleep(0.01)
    return (flow.received() - before) / spent * 1e9


def insertions(made: list[Peer], count: int) -> None:
    """One rule in front of 10,000, the time of the whole command or request."""
    for number in range(count):
        for peer in made:
            began = time.perf_counter()
            peer.insert(1000 + number)
            peer.inserts.append((time.perf_counter() - began) * 1000)


def rows_of(made: list[Peer], counts: tuple[int, ...]) -> list[Row]:
    by = {peer.name: peer for peer in made}
    rows = []
    for number in counts:
        for how in ("last", "uniform") if number else ("last",):
            what = f"{number} rules, {how}"
            best = by["nft, verdict map"].packets[what]
            for hook, aim in (("XDP", 3.0), ("TC", 1.0)):
                ours = by[f"firewall, {hook}"].packets[what]
                rows.append(compared(f"firewall, {hook}, {what}: to nft's best form", ours, best, aim))
            ours = by["firewall, XDP"].packets[what]
            rows.append(compared(f"firewall, XDP, {what}: to iptables", ours, by["iptables"].packets[what], 12 if number == 1000 else None))
            rows.append(compared(f"firewall, XDP, {what}: to nft rules", ours, by["nft, a rule each"].packets[what]))
        for how in ("last", "uniform") if number in QUICK else ():
            ours, theirs = (by[f"{name} on a bridge"].packets[f"{number} rules, {how}"] for name in ("firewall", "nft"))
            rows.append(compared(f"firewall between bridge ports, XDP, {number} rules, {how}: to nft's best form", ours, theirs, 3.0))
    if {10, 10_000} <= set(counts):
        for how in ("last", "uniform"):
            few, many = (by["firewall, XDP"].packets[f"{number} rules, {how}"] for number in (10, 10_000))
            ratio = statistics.median(few) / statistics.median(many)
            rows.append(
                Row(f"firewall, XDP, {how}: cost of a packet at 10,000 rules to that at 10", ratio, "", "times", "≤ 1.3", ratio <= 1.3)
            )
    for what in ("new sessions", "known sessions"):
        for hook in ("XDP", "TC"):
            ours = by[f"firewall, {hook}"].packets[what]
            for peer in ("iptables", "nft, verdict map"):
                rows.append(compared(f"firewall, {hook}, packets of {what}: to {peer}", ours, by[peer].packets[what]))
    middle = statistics.median(by["firewall, XDP"].inserts)
    for name in ("iptables", "nft, a rule each", "nft, verdict map"):
        theirs = statistics.median(by[name].inserts)
        aim = 10.0 if name != "nft, verdict map" else None
        text = f"{middle:.1f} and {theirs:.1f} ms"
        row = Row(f"a rule before 10,000: {name} to firewall, by REST", theirs / middle, text, "times", f"≥ {aim:g}" if aim else "")
        rows.append(Row(row.what, row.figure, row.spread, row.unit, row.aim, theirs / middle >= aim if aim else None))
    return rows


def measure(folder: Path, quick: bool) -> Found:
    """In some minutes; `quick`: fewer rules and rounds."""
    counts, many = (QUICK, 3) if quick else (COUNTS, 4)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polycube-bench"
    with Daemon(folder, cache=cache) as daemon:
        made, bridged = peers(daemon)
        for number in counts:
            present = made + bridged if number in QUICK else made
            for peer in present:
                peer.install(number)
            rounds(present, f"{number} rules, last", FIRST_PORT + max(number - 1, 0), 1, many)
            if number:
                rounds(present, f"{number} rules, uniform", FIRST_PORT, number, many)
        insertions(made, 3 if quick else 10)
        sessions(made, daemon, many)
    raw = {peer.name: {"packets": peer.packets, "inserts": peer.inserts} for peer in made + bridged}
    return rows_of(made + bridged, counts), {"firewall": json.loads(json.dumps(raw))}
