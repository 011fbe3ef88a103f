# SPDX-License-Identifier: Apache-2.0
"""Chains of functions: fused, as units of one, written by hand as one program, and as Linux bridges and routers over veths.

Trivial functions (helloworld, which counts and forwards) show what the framework costs, a mixture (bridges, a filter, a forwarder) what
real ones do. Test runs compare the ways of joining them in the processor alone; between namespaces all counts that belongs to a packet.
Linux has no trivial functions: its chains are bridges and routers in turn, each in a namespace or device of its own.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import paired
import rates
import yardstick
from figures import Found, Row, compared

from polycube.bpf import Link, Program, XdpMode, u32, xdp_md
from polycube.compiler.function import Hook, UnitSpec
from polycube.compiler.process import Compiler
from polycube.daemon.main import BACKGROUND
from polycube.net import ethtool, netns
from polycube.testing.cube import CubeUnderTest
from polycube.testing.daemon import Daemon
from polycube.testing.harness import NEXT_NETDEV, Chain, find_function
from polycube.testing.hosts import eventually, sh
from services import specialising
from services.specialising import FRAME, REDIRECT, B

LENGTHS = (1, 2, 4, 8, 16, 24)
BETWEEN_HOSTS = {Hook.XDP: (1, 2, 3, 4, 8, 12, 16, 24), Hook.TC: (1, 3, 12)}
QUICK = (1, 3, 12)
LINUX = {3: 6.0, 12: 25.0}  # functions -> how many times the rate of Linux is aimed at, in XDP
TYPES = {Hook.XDP: "XDP_DRV", Hook.TC: "TC"}
_keep: list[Any] = []


def measure(folder: Path, quick: bool) -> Found:
    """All of it."""
    rows, raw = in_the_processor(quick)
    for name, part in (("rates", between_hosts), ("effect", while_compiling), ("builds", building)):
        more, data = part(folder / name, quick)
        rows, raw = rows + more, raw | data
    return rows, raw


# ---- test runs ----


def in_the_processor(quick: bool) -> Found:
    """ns a packet, in turns."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    runs, repeat = (15, 100_000) if quick else (40, 300_000)
    rows: list[Row] = []
    try:
        for length in LENGTHS:
            fused, units = (run_of(trivial(length, fused), repeat, fused) for fused in (True, False))
            what = f"{length} trivial, XDP, test run: speed fused to"
            one = paired.turns(what, runs, by_hand(length, repeat), fused)
            rows.append(row_of(f"{what} by hand", one, 0.95))
            rows.append(row_of(f"{what} units of one", paired.turns(what, runs, units, fused)))
        what = "bridge, filter, bridge, forwarder, XDP, test run: speed fused to"
        fused, units = (run_of(mixture(fused), repeat, fused) for fused in (True, False))
        rows.append(row_of(f"{what} by hand", paired.turns(what, runs, specialising.mixture(repeat), fused), 0.95))
        rows.append(row_of(f"{what} units of one", paired.turns(what, runs, units, fused)))
    finally:
        os.sched_setaffinity(0, before)
    return rows, {"chains, test runs": [row.what + " " + row.spread for row in rows]}


def row_of(what: str, one: paired.Paired, aim: float | None = None) -> Row:
    spread = f"95 %: {one.low:.2f} to {one.high:.2f}; {one.cube:.0f} and {one.by_hand:.0f} ns"
    return Row(what, one.ratio, spread, aim=f"≥ {aim:g}" if aim else "", met=one.ratio >= aim if aim else None)


def trivial(length: int, fused: bool) -> tuple[Chain, CubeUnderTest, CubeUnderTest]:
    """helloworlds in a row."""
    chain = Chain(Hook.XDP, fused=fused)
    cubes = [chain.cube("helloworld", name=f"h{number}") for number in range(length)]
    for cube in cubes:
        cube.cfg(action="FORWARD")
    for one, two in itertools.pairwise(cubes):
        chain.link(one, 1, two, 0)
    return chain, cubes[0], cubes[-1]


def mixture(fused: bool) -> tuple[Chain, CubeUnderTest, CubeUnderTest]:
    """A bridge, whose link has a filter on it, another one, and a forwarder by table."""
    chain = Chain(Hook.XDP, fused=fused)
    one, two = (chain.cube("simplebridge", ports=2) for _ in range(2))
    filter, forwarder = chain.cube("transparenthelloworld", transparent=True), chain.cube("simpleforwarder", ports=2)
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    for bridge in (one, two):
        bridge.cfg(aging_time=300)
        bridge.map("fdb")[{"address": B}] = {"port": 1, "seen": now}
    for port in (0, 1):
        forwarder.map("actions")[port] = {"verb": forwarder.enum("simpleforwarder_verb")["FORWARD"], "port": 1 - port}
    chain.link(one, 1, two, 0)
    chain.link(two, 1, forwarder, 0)
    chain.stack(filter, one, 1)
    return chain, one, forwarder


def run_of(made: tuple[Chain, CubeUnderTest, CubeUnderTest], repeat: int, fused: bool) -> Callable[[], int]:
    """Runs a chain from the near netdev to the far one."""
    chain, first, last = made
    stage = chain.stage
    last.write_port(1, next=NEXT_NETDEV, target=stage.far, id=last.ids[1])
    stage.maps["pcn_netdevs"].set(u32(last.ids[1]), u32(stage.far))
    program = chain.fused.get(first, "entry", 0, stage.near) if chain.fused else first.program("entry")
    _keep.append(chain)
    run = paired.timed(program, FRAME, xdp_md(len(FRAME), ingress_ifindex=stage.near), repeat, REDIRECT)

    def timed() -> int:
        stage.maps["pcn_entries"].set(u32(stage.near), u32(0) + u32(first.ids[0]))  # all chains begin at the same netdev
        return run()

    return timed


def by_hand(length: int, repeat: int) -> Callable[[], int]:
    """The hand-written program, from the near netdev to the far one."""
    stage = Chain(Hook.XDP, fused=False).stage
    program = loaded(length, [stage.near, stage.far])
    return paired.timed(program, FRAME, xdp_md(len(FRAME), ingress_ifindex=stage.near), repeat, REDIRECT)


def loaded(length: int, netdevs: Sequence[int]) -> Program:
    """The hand-written program between two netdevs."""
    opened = yardstick.load("chain", f"FUNCTIONS={length}")
    for side, ifindex in enumerate(netdevs):
        opened.map("side_of").set(u32(ifindex), u32(side + 1))
        opened.map("devices").set(u32(side), u32(ifindex))
    return opened.program("chain")


# ---- between namespaces ----


def between_hosts(folder: Path, quick: bool) -> Found:
    """Delivered packets of 64 bytes: for each length a Linux chain, cubes fused and not, and in XDP the hand-written program."""
    rows: list[Row] = []
    medians = {}
    for hook, lengths in BETWEEN_HOSTS.items():
        for length in QUICK if quick else lengths:
            with Daemon(folder / f"{hook}{length}", cache=folder / "cache") as daemon:
                linux, fused, *others = made = chains(daemon, hook, length)
                rates.packet_rates(made, 3 if quick else 5)
            what = f"{length} functions, {hook.upper()}, 64 B packets: fused to"
            aim = LINUX.get(length) if hook == Hook.XDP else None
            rows.append(compared(f"{what} Linux bridges and routers", fused.packets, linux.packets, aim))
            rows += [compared(f"{what} {other.name}", fused.packets, other.packets) for other in others]
            medians |= {f"{one.name}, {hook}, {length}": statistics.median(one.packets) for one in made}
    return rows, {"chains, packets a second": medians}


def chains(daemon: Daemon, hook: Hook, length: int) -> list[rates.Subject]:
    """All of one length, standing."""
    xdp, mark = hook == Hook.XDP, f"{hook[0]}{length}"
    linux = rates.Subject("kernel", f"l{mark}", length > 1, False)
    fused, units, hand = (rates.Subject(name, f"{name[0]}{mark}", False, xdp) for name in ("fused", "units of one", "by hand"))
    made = [linux, fused, units, *([hand] if xdp else [])]
    for subject in made:
        subject.make()
    linux_chain(linux, length)
    cube_chain(daemon, fused, length, hook)
    cube_chain(daemon, units, length, hook, fuse=False)
    if xdp:
        _keep.append(attached(hand, length))
    for subject in made:
        eventually(subject.reaches, f"{subject.name} to let frames pass", 20)
    eventually(lambda: {len(unit["cubes"]) for unit in fused_units(daemon)} == {length}, "the chain to be fused", 60)
    return made


def while_compiling(folder: Path, quick: bool) -> Found:
    """Packets through a fused chain while the compiler is at work beside it, to those while it is not, in turns."""
    subject, quiet, busy = rates.Subject("fused", "w", False, True), list[float](), list[float]()
    work = UnitSpec(find_function("router"), Hook.XDP)
    with Daemon(folder, cache=folder / "cache") as daemon, Compiler(nice=BACKGROUND) as compiler, ThreadPoolExecutor(1) as pool:
        subject.make()
        cube_chain(daemon, subject, 3, Hook.XDP)
        eventually(subject.reaches, "frames to pass", 20)
        eventually(lambda: len(fused_units(daemon)) == 2, "the chain to be fused", 60)
        compiler.emit_spec_sync(work)
        with rates.rate_of(subject) as rate:
            while len(busy) < (3 if quick else 9):
                before = rate()
                building = pool.submit(compiler.emit_spec_sync, work)
                during = rate()
                if not building.done():
                    quiet.append(before)
                    busy.append(during)
                building.result()
    row = compared("3 functions, XDP, 64 B packets: while the compiler is at work, to without", busy, quiet)
    return [row], {"chains, while the compiler is at work": [quiet, busy]}


def linux_chain(subject: rates.Subject, length: int) -> None:
    """Bridges and routers in turn, a bridge first, joined by veths. The routers' networks are 10.1, 10.101, 10.102 … 10.2 (all .0.0/24)."""
    if length == 1:
        rates.linux_bridge(subject)
        return
    ends = [f"{subject.tag}0"]
    for number in range(length - 1):
        sh(f"ip link add {subject.tag}x{number} type veth peer name {subject.tag}y{number}")
        ends += [f"{subject.tag}x{number}", f"{subject.tag}y{number}"]
    ends.append(f"{subject.tag}1")
    routers = length // 2
    for number in range(length):
        name, near, far = f"{subject.tag}n{number}", ends[2 * number], ends[2 * number + 1]
        if number % 2 == 0:
            sh(f"ip link add {name} type bridge stp_state 0 mcast_snooping 0")
            sh(*(f"ip link set {end} up master {name}" for end in (near, far)), f"ip link set {name} up")
            continue
        which = number // 2
        networks = ["10.1.0"] + [f"10.{100 + one}.0" for one in range(1, routers)] + ["10.2.0"]
        sh(f"ip netns add {name}", f"ip -n {name} link set lo up")
        netns.run_in(name, lambda: rates._write("/proc/sys/net/ipv4/ip_forward", "1"))
        # A router has .1 in the network before it and .254 in the one behind, but the last one, who is the second host's gateway.
        last = which == routers - 1
        for end, address in ((near, f"{networks[which]}.1"), (far, f"{networks[which + 1]}.{'1' if last else '254'}")):
            sh(f"ip link set {end} netns {name}", f"ip -n {name} addr add {address}/24 dev {end}", f"ip -n {name} link set {end} up")
        if not last:
            sh(f"ip -n {name} route add default via {networks[which + 1]}.1")
        if which:
            sh(f"ip -n {name} route add 10.1.0.0/24 via {networks[which]}.254")


def cube_chain(daemon: Daemon, subject: rates.Subject, length: int, hook: Hook, fuse: bool = True) -> None:
    """helloworlds in a row."""
    names = [f"{subject.tag}c{number}" for number in range(length)]
    for name in names:
        daemon.post(f"helloworld/{name}", {"type": TYPES[hook], "action": "FORWARD", "ports": [{"name": "a"}, {"name": "b"}]})
        if not fuse:
            daemon.patch(f"fusing/{name}", {"enabled": False})
    for one, two in itertools.pairwise(names):
        daemon.post("connect", {"peer1": f"{one}:b", "peer2": f"{two}:a"})
    daemon.post("connect", {"peer1": f"{names[0]}:a", "peer2": f"{subject.tag}0"})
    daemon.post("connect", {"peer1": f"{names[-1]}:b", "peer2": f"{subject.tag}1"})


def attached(subject: rates.Subject, length: int) -> list[Link]:
    """The hand-written program on both netdevs."""
    for end in ("a", "b"):
        netns.run_in(f"{subject.tag}{end}", lambda: ethtool.set_features("e0", {ethtool.TX_CHECKSUM: False, ethtool.GRO: True}))
    netdevs = [subject.near(number) for number in (0, 1)]
    with loaded(length, netdevs) as program:
        return [Link.xdp(program, ifindex, XdpMode.DRV) for ifindex in netdevs]


def fused_units(daemon: Daemon) -> list[dict[str, Any]]:
    """Those that stand."""
    return [unit for unit in daemon.get("units") if unit["kind"] == "fused"]


# ---- building ----


def building(folder: Path, quick: bool) -> Found:
    """From the last change to fused, with nothing in the cache, and the processor time that the compiler takes for it.

    In the real-time class, so that the figure is that of a machine with nothing else to do: the compiler gives way to all others.
    """
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    for service, length, aim in (("helloworld", 8, 0.5), ("simpleforwarder", 24, 5.0), ("router", 2, None)):
        seconds, spent, sizes = [], [], ""
        for number in range(1 if quick else 3):
            with Daemon(folder / f"{service}{number}", cache=folder / f"cache-{service}{number}") as daemon:
                once, cpu, sizes = fused_once(daemon, service, length)
                seconds.append(once)
                spent.append(cpu)
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f} s; compiler {statistics.median(spent):.2f} s of CPU; {sizes}"
        what, wanted = f"{length} {service}: last change to fused, both ways", f"≤ {aim:g} s" if aim else ""
        rows.append(Row(what, middle, spread, "s", wanted, middle <= aim if aim else None))
        raw[f"{service} {length}"] = seconds
    return rows, {"chains, seconds to fused": raw}


def fused_once(daemon: Daemon, service: str, length: int) -> tuple[float, float, str]:
    """Seconds to fused, CPU seconds of the compiler, sizes."""
    sh(*(f"ip link add q{end} type veth peer name q{end}p" for end in "ab"), *(f"ip link set q{end} up" for end in "ab"))
    sh(*(f"ip link set q{end}p up" for end in "ab"))
    try:
        at_once(daemon)
        names = [f"c{number}" for number in range(length)]
        action = {"action": "FORWARD"} if service == "helloworld" else {}
        for name in names:
            daemon.post(f"{service}/{name}", {"type": "XDP_DRV", "ports": [{"name": "a"}, {"name": "b"}], **action})
        for one, two in itertools.pairwise(names):
            daemon.post("connect", {"peer1": f"{one}:b", "peer2": f"{two}:a"})
        for name, port, end in ((names[0], "a", "qa"), (names[-1], "b", "qb")):
            daemon.post("connect", {"peer1": f"{name}:{port}", "peer2": end})
        begin = time.monotonic()
        eventually(lambda: len(found := fused_units(daemon)) == 2 and all(len(unit["cubes"]) == length for unit in found), "fused", 60)
        seconds = time.monotonic() - begin
        sizes = f"{fused_units(daemon)[0]['instructions']} instructions a way"
        return seconds, compiler_time(daemon), sizes
    finally:
        sh("ip link del qa", "ip link del qb")


def at_once(daemon: Daemon) -> None:
    """Has the daemon and all that it starts run before what else is on the machine, and the caller with it."""
    for pid in (os.getpid(), daemon.pid, *daemon.descendants()):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(1))


def compiler_time(daemon: Daemon) -> float:
    """User and system time of the background compiler so far."""
    for pid in daemon.descendants():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if b"polycube.compiler.process" in Path(f"/proc/{pid}/cmdline").read_bytes() and int(fields[16]) == 19:
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
