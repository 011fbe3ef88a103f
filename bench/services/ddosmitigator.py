# SPDX-License-Identifier: Apache-2.0
"""Drops by ddosmitigator beside those by nftables and iptables, with lists of 1, 10,000 and a million addresses; and beside a hand-written
XDP program with the same look-up, by test runs in turns.

Packets: UDP, 64 bytes, all from one blacklisted source, as fast as one CPU makes and drops them; what counts is what was dropped, by the
counters of whoever drops (nft: what came in by the netdev). nftables: a set, before routing at priority raw. iptables: a rule for each
address in the table raw, ours last; a million of them it does not take. Lists are loaded in one request, or by `nft -f` and
`iptables-restore`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import paired
import rates
import yardstick
from figures import Found, Row, compared

from polycube.bpf import Map, u32, xdp_md
from polycube.compiler.function import Hook
from polycube.cubes.ddosmitigator.model import DdosmitigatorConfig
from polycube.cubes.ddosmitigator.tables import table_sizes
from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.harness import Chain
from polycube.testing.hosts import sh
from polycube.testing.traffic import Headers, Place, Traffic
from polycube.toolkit.lpm import EntryTable

SOURCE = {4: "198.51.100.7", 6: "2001:db8:ff::7"}
SIZES = {"one": 1, "10,000": 10_000, "a million": 1_000_000}


def addresses(number: int) -> list[str]:
    """So many, ours the last."""
    return [f"{10 + (n >> 20)}.{n >> 12 & 255}.{n >> 4 & 255}.{(n & 15) << 4 | 1}" for n in range(number - 1)] + [SOURCE[4]]


@dataclass
class Dropper(rates.Subject):
    """Two hosts, and who drops what comes from the first one; the second one only has the sink that never sees anything."""

    load: Callable[[Dropper, list[str]], None] = lambda subject, these: None
    dropped: Callable[[Dropper], int] = lambda subject: 0
    most: int = 1_000_000
    loads: dict[str, float] = field(default_factory=dict)  # seconds
    drops: dict[str, list[float]] = field(default_factory=dict)  # a second
    flow: Any = None

    @property
    def space(self) -> str:
        return f"{self.tag}r"


def in_space(subject: Dropper, command: list[str], text: str = "") -> str:
    done = subprocess.run(["ip", "netns", "exec", subject.space, *command], input=text, text=True, check=True, capture_output=True)
    return done.stdout


def nft_load(subject: Dropper, these: list[str]) -> None:
    with suppress(subprocess.CalledProcessError):
        in_space(subject, ["nft", "flush", "ruleset"])
    rule = "chain c {\ntype filter hook prerouting priority raw;\nip saddr @s counter drop\n}"
    in_space(subject, ["nft", "-f", "-"], f"table ip t {{\nset s {{\ntype ipv4_addr\nelements = {{ {', '.join(these)} }}\n}}\n{rule}\n}}\n")


def nft_dropped(subject: Dropper) -> int:
    """What has come in by the netdev, all of which its rule drops: to show its counter nft would read the whole set, for half a minute."""
    (link,) = json.loads(sh(f"ip -n {subject.space} -s -j link show {subject.tag}0"))
    return int(link["stats64"]["rx"]["packets"])


def iptables_load(subject: Dropper, these: list[str]) -> None:
    rules = "".join(f"-A PREROUTING -s {one} -j DROP\n" for one in these)
    in_space(subject, ["iptables-restore"], f"*raw\n{rules}COMMIT\n")


def iptables_dropped(subject: Dropper) -> int:
    lines = in_space(subject, ["iptables", "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n"]).splitlines()
    return int(lines[-1].split()[0])


def cube_load(daemon: Daemon) -> Callable[[Dropper, list[str]], None]:
    def load(subject: Dropper, these: list[str]) -> None:
        daemon.post(f"ddosmitigator/{subject.tag}/feed/load", {"entries": " ".join(these), "replace": True})

    return load


def cube_dropped(daemon: Daemon) -> Callable[[Dropper], int]:
    return lambda subject: int(daemon.get(f"ddosmitigator/{subject.tag}/stats/pkts"))


def stand(subject: Dropper, daemon: Daemon, stack: ExitStack) -> None:
    """Makes it, and the flow of packets."""
    subject.make()
    near = f"{subject.tag}0"
    if "cube" in subject.name:
        daemon.post(f"ddosmitigator/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "blacklist-size": 1 << 20})
        daemon.post("attach", {"cube": subject.tag, "port": near})
        mac = json.loads(sh(f"ip -j link show {near}"))[0]["address"]
        where = "/proc/thread-self/ns/net"
    else:
        sh(f"ip netns add {subject.space}", f"ip link set {near} netns {subject.space}", f"ip -n {subject.space} link set {near} up")
        mac, where = rates.mac_of(subject.space, near), f"/run/netns/{subject.space}"
    if not subject.xdp:
        netns.run_in(where, lambda: rates.ethtool.set_features(near, {rates.ethtool.GRO: True}))
    headers = Headers(source=SOURCE[4], destination="10.1.0.3", destination_mac=mac)
    subject.flow = Traffic(Place(f"{subject.tag}a"), Place(f"{subject.tag}b"), headers, hook=Hook.XDP, sink_hook=Hook.TC, count_only=True)
    subject.flow.prepare(64)
    stack.callback(subject.flow.close)


def rate(subject: Dropper) -> float:
    """Dropped packets a second."""

    def send() -> float:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        each = subject.flow.burst(5000)
        frames = max(int(rates.ROUND * 1e9 / each), 1000)
        time.sleep(0.02)
        before[0] = subject.dropped(subject)
        return float(subject.flow.burst(frames) * frames)

    before = [0]
    spent = netns.run_in(f"{subject.tag}a", send)
    time.sleep(0.02)
    return (subject.dropped(subject) - before[0]) / spent * 1e9


def packets(folder: Path, quick: bool) -> Found:
    """Rates of drops and times to load."""
    rows, rounds = [], 3 if quick else 5
    with Daemon(folder / "daemon", cache=folder / "cache") as daemon, ExitStack() as stack:
        cube = {"load": cube_load(daemon), "dropped": cube_dropped(daemon)}
        made = [
            Dropper("cube, XDP", "dx", False, True, **cube),
            Dropper("cube, TC", "dt", False, False, **cube),
            Dropper("nft", "dn", False, False, load=nft_load, dropped=nft_dropped),
            Dropper("iptables", "di", False, False, load=iptables_load, dropped=iptables_dropped, most=10_000),
        ]
        for subject in made:
            stand(subject, daemon, stack)
        for name, number in SIZES.items():
            if quick and number > 10_000:
                continue
            for subject in made:
                if number <= subject.most:
                    begin = time.monotonic()
                    subject.load(subject, addresses(number))
                    subject.loads[name] = time.monotonic() - begin
            for _ in range(rounds):
                for subject in made:
                    if number <= subject.most:
                        subject.drops.setdefault(name, []).append(rate(subject))
            rows += rows_of(name, made)
            if number == max(SIZES.values()):
                rows.append(Row(f"kernel memory of a cube with {name}", memory(daemon, "dx") / 2**20, unit="MiB"))
    return rows, {"ddosmitigator": [{"name": one.name, "drops": one.drops, "loads": one.loads} for one in made]}


def memory(daemon: Daemon, cube: str) -> int:
    """Bytes that the kernel holds for the cube's maps."""
    total = 0
    for path in (daemon.bpffs / "cubes" / daemon.get(f"ddosmitigator/{cube}/uuid")).iterdir():
        with Map.open(path) as standing:
            found = re.search(r"memlock:\s+(\d+)", Path(f"/proc/self/fdinfo/{standing.fd}").read_text())
            total += int(found[1]) if found else 0
    return total


def rows_of(name: str, made: list[Dropper]) -> list[Row]:
    by = {subject.name: subject for subject in made}
    rows = []
    for hook in ("XDP", "TC"):
        ours = by[f"cube, {hook}"]
        for peer in ("nft", "iptables"):
            if name in by[peer].drops:
                rows.append(compared(f"drops, list of {name}, {hook}: cube to {peer}", ours.drops[name], by[peer].drops[name]))
    for subject in made:
        if name in subject.loads and subject.loads[name] > 0.5:
            rows.append(Row(f"time to load a list of {name}: {subject.name}", subject.loads[name], "", "s"))
    return rows


def test_runs(runs: int) -> Found:
    """A drop in the processor."""
    config = DdosmitigatorConfig.model_validate({"name": "d1", "blacklist-size": 65536}, by_alias=True)
    model = Chain(Hook.XDP).cube("ddosmitigator", transparent=True, sizes=table_sizes(config))
    hand = yardstick.load("ddosmitigator", sizes={name: size for name, size in table_sizes(config).items() if "sources" in name})
    for version in (4, 6):
        table = EntryTable({n: model.map(n) for n in table_sizes(config)}, f"sources{version}", version, 65536)
        keys = [(32).to_bytes(4, "little") + bytes((10, n >> 8, n & 255, 1)) for n in range(10_000)] if version == 4 else []
        keys.append(paired_key(version))
        lines: dict[int, int] = {}
        table.gather(keys, lines)
        table.admit(lines)
        table.fill(keys, bytes(24))
        for name in (f"sources{version}", f"sources{version}_filter"):
            hand.map(name).set_many(model.kernel_map(name).items())
    hand.map("port_of").set(u32(model.stage.near), u32(1))
    sides = [hand.program("ddosmitigator"), model.program("ingress")]
    links = paired.kept(sides)
    rows, found = [], []
    for version in (4, 6):
        frame = frame_of(version)
        context = xdp_md(len(frame), ingress_ifindex=model.stage.near)
        one = paired.turns(f"IPv{version}", runs, *(paired.timed(side, frame, context, 1_000_000, 1) for side in sides))
        spread = f"95 %: {one.low:.3f} to {one.high:.3f}; {one.cube:.0f} and {one.by_hand:.0f} ns"
        rows.append(
            Row(
                f"a drop, {one.name}, XDP, test run: speed of the cube to hand-written",
                one.ratio,
                spread,
                aim="≥ 0.9",
                met=one.ratio >= 0.9,
            )
        )
        found.append(asdict(one))
    for link in links:
        link.close()
    return rows, {"ddosmitigator paired": found}


def paired_key(version: int) -> bytes:
    address = ipaddress.ip_address(SOURCE[version])
    return address.max_prefixlen.to_bytes(4, "little") + address.packed


def frame_of(version: int) -> bytes:
    source = ipaddress.ip_address(SOURCE[version]).packed
    if version == 4:
        return bytes(12) + b"\x08\x00\x45\x00\x00\x32" + bytes(5) + b"\x11" + bytes(2) + source + bytes((10, 0, 0, 1)) + bytes(30)
    return bytes(12) + b"\x86\xdd\x60\x00\x00\x00\x00\x18\x11\x40" + source + bytes(15) + b"\x01" + bytes(24)


def measure(folder: Path, quick: bool) -> Found:
    """All of it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        rows, raw = test_runs(10 if quick else 40)
    finally:
        os.sched_setaffinity(0, before)
    more, other = packets(folder, quick)
    return rows + more, raw | other
