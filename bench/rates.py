# SPDX-License-Identifier: Apache-2.0
"""Between namespaces: packets a second, TCP throughput and round trips of cubes, the kernel's own functions and hand-written programs.

Each subject has two hosts of its own, joined by it; all stand at the same time and take turns, so that what disturbs the machine disturbs
all alike. Packets: 64 bytes, made by one CPU as fast as it can (traffic.bpf.c), and carried by the same CPU; the sink stands where it costs
least, native XDP behind XDP, TCX ingress behind the others. TCP: iperf3 with the offloads that a namespace has by itself. Round trips: UDP
between two Python processes, which is most of the time they take; the difference is the subject's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import yardstick

from polycube.bpf import Link, Object, XdpMode, u32
from polycube.compiler.function import Hook
from polycube.net import ethtool, netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually, sh
from polycube.testing.traffic import Headers, Place, Traffic

ROUND = 0.4  # seconds
PYTHON = sys.executable
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 7)); print("ready", flush=True)
while True:
    d, a = s.recvfrom(100); s.sendto(d, a)
"""
ASK = """
import socket, sys, time, json
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((sys.argv[1], 7)); s.settimeout(2)
t = []
for _ in range(int(sys.argv[2])):
    a = time.perf_counter_ns(); s.send(b"x" * 32); s.recv(100); t.append(time.perf_counter_ns() - a)
print(json.dumps(t))
"""


@dataclass
class Subject:
    """Two hosts `<tag>a` and `<tag>b`, and what joins them: netdevs `<tag>0` and `<tag>1` are its ends."""

    name: str
    tag: str
    routed: bool
    xdp: bool
    packets: list[float] = field(default_factory=list)  # a second, by round
    tcp: list[float] = field(default_factory=list)  # Gbit/s
    round_trips: list[list[int]] = field(default_factory=list)  # ns

    @property
    def addresses(self) -> tuple[str, str]:
        return ("10.1.0.2", "10.2.0.2" if self.routed else "10.1.0.3")

    def make(self) -> None:
        for number, address in enumerate(self.addresses):
            host, near = f"{self.tag}{'ab'[number]}", f"{self.tag}{number}"
            sh(f"ip netns add {host}", f"ip link add {near} type veth peer name e0 netns {host}")
            for knob in ("/proc/sys/net/ipv6/conf/e0/disable_ipv6",):
                netns.run_in(host, lambda knob=knob: _write(knob, "1"))
            _write(f"/proc/sys/net/ipv6/conf/{near}/disable_ipv6", "1")
            sh(
                f"ip -n {host} link set lo up",
                f"ip -n {host} addr add {address}/24 dev e0",
                f"ip -n {host} link set e0 up",
                f"ip link set {near} up",
            )
            if self.routed:
                sh(f"ip -n {host} route add default via {address.rpartition('.')[0]}.1")

    def near(self, number: int) -> int:
        return socket.if_nametoindex(f"{self.tag}{number}")

    def reaches(self) -> bool:
        """Also teaches a bridge where its stations are, and a router its neighbours."""
        command = ["ip", "netns", "exec", f"{self.tag}b", "ping", "-c1", "-W1", self.addresses[0]]
        return subprocess.run(command, capture_output=True).returncode == 0


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def mac_of(namespace: str, ifname: str = "e0") -> str:
    link = json.loads(sh(f"ip -n {namespace} -j link show {ifname}"))
    return str(link[0]["address"])


# ---- what joins two hosts ----


def linux_bridge(subject: Subject) -> None:
    name = f"{subject.tag}br"
    sh(f"ip link add {name} type bridge stp_state 0 mcast_snooping 0")
    _write(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "1")
    sh(*(f"ip link set {subject.tag}{number} master {name}" for number in (0, 1)), f"ip link set {name} up")


def linux_router(subject: Subject) -> None:
    name = f"{subject.tag}r"
    sh(f"ip netns add {name}", f"ip -n {name} link set lo up")
    netns.run_in(name, lambda: _write("/proc/sys/net/ipv4/ip_forward", "1"))
    for number, address in enumerate(("10.1.0.1", "10.2.0.1")):
        near = f"{subject.tag}{number}"
        sh(f"ip link set {near} netns {name}", f"ip -n {name} addr add {address}/24 dev {near}", f"ip -n {name} link set {near} up")


def bridge_cube(subject: Subject, daemon: Daemon) -> None:
    ports = [{"name": f"p{number}", "peer": f"{subject.tag}{number}"} for number in (0, 1)]
    daemon.post(f"simplebridge/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "ports": ports})


def router_cube(subject: Subject, daemon: Daemon) -> None:
    ports = [{"name": f"p{number}", "peer": f"{subject.tag}{number}", "ip": f"10.{number + 1}.0.1/24"} for number in (0, 1)]
    daemon.post(f"router/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", "ports": ports})


def ready_for_xdp(subject: Subject) -> None:
    """The hosts' ends, as a daemon sets them for ports in XDP."""
    for end in ("a", "b"):
        netns.run_in(f"{subject.tag}{end}", lambda: ethtool.set_features("e0", {ethtool.TX_CHECKSUM: False, ethtool.GRO: True}))


def redirect(subject: Subject) -> list[Link]:
    """No function at all: each netdev's frames go to the other one."""
    ready_for_xdp(subject)
    opened, ends = yardstick.load("redirect"), [subject.near(number) for number in (0, 1)]
    for near, far in (ends, reversed(ends)):
        opened.map("devices").set(u32(near), u32(far))
    with opened.program("redirect") as program:
        return [Link.xdp(program, ifindex, XdpMode.DRV) for ifindex in ends]


def by_hand(subject: Subject) -> list[Link]:
    """The hand-written program on both netdevs, its tables as the cube's would be."""
    ready_for_xdp(subject)
    opened: Object = yardstick.load("router" if subject.routed else "simplebridge")
    members = [subject.near(number) for number in (0, 1)]
    for port, ifindex in enumerate(members):
        opened.map("port_of").set(u32(ifindex), u32(port + 1))
        opened.map("devices").set(u32(port), u32(ifindex))
        if not subject.routed:
            opened.map("broadcast").set(u32(ifindex), u32(ifindex))
    if subject.routed:
        yardstick.fill_router(
            opened, [_mac(mac_of(f"{subject.tag}{end}")) for end in "ab"], [_mac(ROUTER_MAC[number]) for number in (0, 1)]
        )
        for number, end in enumerate("ab"):
            sh(f"ip -n {subject.tag}{end} neigh replace 10.{number + 1}.0.1 lladdr {ROUTER_MAC[number]} dev e0 nud permanent")
    with opened.program("router" if subject.routed else "bridge") as program:
        return [Link.xdp(program, ifindex, XdpMode.DRV) for ifindex in members]


ROUTER_MAC = ("02:00:00:00:0a:00", "02:00:00:00:0a:01")


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@contextmanager
def subjects(daemon: Daemon) -> Iterator[list[Subject]]:
    """All of them, standing."""
    made = []
    for kind, routed, kernels, cube in (("bridge", False, linux_bridge, bridge_cube), ("router", True, linux_router, router_cube)):
        letter = kind[0]
        linux, tc, xdp, hand = (
            Subject(f"Linux {kind}", f"{letter}l", routed, False),
            Subject(f"{kind} cube, TC", f"{letter}t", routed, False),
            Subject(f"{kind} cube, XDP", f"{letter}x", routed, True),
            Subject(f"{kind} by hand, XDP", f"{letter}h", routed, True),
        )
        for subject in (linux, tc, xdp, hand):
            subject.make()
        kernels(linux)
        cube(tc, daemon)
        cube(xdp, daemon)
        links = by_hand(hand)
        made += [linux, tc, xdp, hand]
        _keep.extend(links)
    for subject in made:
        eventually(subject.reaches, f"{subject.name} to let frames pass", 15)
    settle(daemon)
    yield made


_keep: list[Link] = []


def settle(daemon: Daemon) -> None:
    """Waits until all is fused that can be: what is measured has been left alone for a while."""
    eventually(lambda: not any("waiting" in unit["fused"] for unit in daemon.get("units")), "what can be fused to be fused", 180)


# ---- measuring ----


def packet_rates(made: list[Subject], rounds: int, flows: int = 1, **fields: Any) -> None:
    """Adds to `packets` of each subject, in turns. `fields`: of the frames' headers, if others than the plain ones."""
    with ExitStack() as stack:
        rates = [stack.enter_context(rate_of(subject, flows, **fields)) for subject in made]
        for _ in range(rounds):
            for subject, rate in zip(made, rates, strict=True):
                subject.packets.append(rate())


@contextmanager
def rate_of(subject: Subject, flows: int = 1, **fields: Any) -> Iterator[Callable[[], float]]:
    """What measures the packets a second that a subject delivers."""
    plain = {"source": subject.addresses[0], "destination": subject.addresses[1], "destination_mac": next_mac(subject)}
    flow = Traffic(
        Place(f"{subject.tag}a"),
        Place(f"{subject.tag}b"),
        Headers(**{**plain, **fields}),
        flows=flows,
        hook=Hook.XDP,
        sink_hook=Hook.XDP if subject.xdp else Hook.TC,
        count_only=True,
    )
    with nullcontext() if subject.xdp else gro(subject):  # frames that come by XDP need NAPI where they arrive
        flow.prepare(64)
        try:
            yield lambda: netns.run_in(f"{subject.tag}a", lambda: one_rate(flow))
        finally:
            flow.close()


@contextmanager
def gro(subject: Subject) -> Iterator[None]:
    """GRO on the near end of the first host, as long as it is needed: it is off by itself, and changes TCP."""
    near = f"{subject.tag}0"
    where = f"{subject.tag}r" if subject.routed and subject.name.startswith("Linux") else "/proc/thread-self/ns/net"

    def switch(on: bool) -> None:
        netns.run_in(where, lambda: ethtool.set_features(near, {ethtool.GRO: on}))

    switch(True)
    try:
        yield
    finally:
        switch(False)


def next_mac(subject: Subject) -> str:
    """Who the first host sends to: the other one, or the router."""
    if not subject.routed:
        return mac_of(f"{subject.tag}b")
    found = json.loads(sh(f"ip -n {subject.tag}a -j neigh show 10.1.0.1 dev e0"))
    return str(found[0]["lladdr"])


def one_rate(flow: Traffic) -> float:
    """Delivered packets a second; in a thread of the source's namespace."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    frames = int(ROUND * 1e9 / flow.burst(20_000))
    time.sleep(0.01)
    before = flow.received()
    spent = flow.burst(frames) * frames  # of the sending alone; a test run also costs some milliseconds before and after
    time.sleep(0.01)
    return (flow.received() - before) / spent * 1e9


def tcp_rates(made: list[Subject], rounds: int) -> None:
    chosen = [subject for subject in made if "by hand" not in subject.name]
    servers = []
    for subject in chosen:
        servers.append(
            subprocess.Popen(_in(f"{subject.tag}b", ["iperf3", "-s", "-p", "5201"]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
    try:
        time.sleep(0.5)
        for _ in range(rounds):
            for subject in chosen:
                command = _in(f"{subject.tag}a", ["iperf3", "-J", "-t", "1", "-O", "0", "-c", subject.addresses[1]])
                done = subprocess.run(command, capture_output=True, text=True, timeout=20)
                with suppress(ValueError, KeyError):
                    subject.tcp.append(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9)
    finally:
        for server in servers:
            server.kill()
            server.wait()


def round_trips(made: list[Subject], rounds: int, count: int = 2000) -> None:
    servers = []
    for subject in made:
        server = subprocess.Popen(_in(f"{subject.tag}b", [PYTHON, "-c", ECHO]), stdout=subprocess.PIPE, text=True)
        assert server.stdout and server.stdout.readline()
        servers.append(server)
    try:
        for _ in range(rounds):
            for subject in made:
                command = _in(f"{subject.tag}a", [PYTHON, "-c", ASK, subject.addresses[1], str(count)])
                done = subprocess.run(command, capture_output=True, text=True, timeout=30)
                if done.returncode == 0:
                    subject.round_trips.append(json.loads(done.stdout))
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _in(namespace: str, command: list[str]) -> list[str]:
    return ["nice", "-n", "-20", "ip", "netns", "exec", namespace, *command]


__all__ = ["Subject", "packet_rates", "rate_of", "redirect", "round_trips", "settle", "subjects", "tcp_rates"]
