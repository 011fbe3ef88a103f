# SPDX-License-Identifier: Apache-2.0
"""Load balancing over 100 backends: lbrp (alone in a link; and before a router, since netfilter's balancers route, too) and lbdsr, against
destination NAT by iptables (statistic) and nftables (numgen, jhash) on the Linux router.

Packets: UDP, 64 bytes, of 10,000 flows that have a backend; and of flows that are new, each packet another. Requests: a TCP connection to
the virtual address, a byte there, a byte back, closed, one after another, between two Python processes. All backends are addresses of one
host, so that the sink sees everything. Flows are forgotten before each round, so that their entries lie anywhere in memory.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import rates
from figures import Found, Row, compared

from polycube.compiler.function import Hook
from polycube.net import netns
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import eventually, sh
from polycube.testing.traffic import Headers, Place, Traffic

VIP, VPORT, PORT = "10.96.0.1", 9, 9
BACKENDS = [f"10.2.0.{number}" for number in range(2, 102)]
FLOWS = 10_000
SERVE = """
import socket
s = socket.create_server(("", 80), backlog=1024); print("ready", flush=True)
while True:
    c, _ = s.accept(); c.recv(1); c.send(b"x"); c.close()
"""
REQUEST = """
import socket, sys, time, json
t = []
for _ in range(int(sys.argv[2])):
    a = time.perf_counter_ns(); s = socket.create_connection((sys.argv[1], 80), 5); s.send(b"x"); s.recv(1); s.close()
    t.append(time.perf_counter_ns() - a)
print(json.dumps(t))
"""


@dataclass
class Balancer(rates.Subject):
    """Two hosts and a balancer; the second host has all backends."""

    make_up: Callable[[Balancer, Daemon], None] = lambda subject, daemon: None
    linked: bool = False  # no router: frames go to the second host's MAC
    direct: bool = False  # the second host has the virtual address itself; it has no other way back
    new: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)  # median, µs

    @property
    def far(self) -> str:
        return f"{self.tag}b"

    def stand(self, daemon: Daemon) -> None:
        self.make()
        for address in BACKENDS[1:]:
            sh(f"ip -n {self.far} addr add {address}/24 dev e0")
        if self.direct:
            sh(f"ip -n {self.far} addr add {VIP}/32 dev lo")
        self.make_up(self, daemon)
        if self.linked:
            near = f"{self.tag}a"
            sh(f"ip -n {near} route add {VIP} dev e0", f"ip -n {near} neigh replace {VIP} lladdr {self.target_mac()} dev e0")
            sh(f"ip -n {self.far} route replace 10.1.0.0/24 dev e0", f"ip -n {near} route add 10.2.0.0/24 dev e0")
            sh(f"ip -n {self.far} neigh replace 10.1.0.2 lladdr {rates.mac_of(near)} dev e0")

    def target_mac(self) -> str:
        if self.direct:
            return "02:00:00:00:00:64"
        return rates.mac_of(self.far) if self.linked else rates.next_mac(self)


def iptables(subject: Balancer, daemon: Daemon) -> None:
    rates.linux_router(subject)
    rules = ["*nat"]
    for proto, vport in (("udp", VPORT), ("tcp", 80)):
        for left, address in zip(range(len(BACKENDS), 0, -1), BACKENDS, strict=True):
            match = f"-m statistic --mode nth --every {left} --packet 0" if left > 1 else ""
            rules.append(f"-A PREROUTING -d {VIP} -p {proto} --dport {vport} {match} -j DNAT --to-destination {address}")
    command = ["ip", "netns", "exec", f"{subject.tag}r", "iptables-restore"]
    subprocess.run(command, input="\n".join([*rules, "COMMIT", ""]), text=True, check=True, capture_output=True)


def nft(choice: str) -> Callable[[Balancer, Daemon], None]:
    def make(subject: Balancer, daemon: Daemon) -> None:
        rates.linux_router(subject)
        mapped = ", ".join(f"{number} : {address}" for number, address in enumerate(BACKENDS))
        rules = "\n".join(
            f"ip daddr {VIP} {proto} dport {vport} dnat to {choice.format(proto=proto)} mod {len(BACKENDS)} map {{ {mapped} }}"
            for proto, vport in (("udp", VPORT), ("tcp", 80))
        )
        text = f"table ip t {{ chain c {{ type nat hook prerouting priority dstnat;\n{rules}\n}}\n}}\n"
        subprocess.run(["ip", "netns", "exec", f"{subject.tag}r", "nft", "-f", "-"], input=text, text=True, check=True, capture_output=True)

    return make


def lbrp(subject: Balancer, daemon: Daemon) -> None:
    type = "XDP_DRV" if subject.xdp else "TC"
    services = [
        {"vip": VIP, "vport": vport, "proto": proto, "backend": [{"ip": address, "port": vport} for address in BACKENDS]}
        for proto, vport in (("UDP", VPORT), ("TCP", 80))
    ]
    back: dict[str, str] = {"name": "back", "type": "BACKEND"}
    if subject.linked:
        back["peer"] = f"{subject.tag}1"
    ports = [{"name": "front", "type": "FRONTEND", "peer": f"{subject.tag}0"}, back]
    daemon.post(f"lbrp/{subject.tag}", {"type": type, "ports": ports, "service": services})
    if not subject.linked:
        lan, net = {"name": "lan", "ip": "10.1.0.1/24"}, {"name": "net", "ip": "10.2.0.1/24", "peer": f"{subject.tag}1"}
        daemon.post(f"router/{subject.tag}r", {"type": type, "ports": [lan, net]})
        daemon.post("connect", {"peer1": f"{subject.tag}:back", "peer2": f"{subject.tag}r:lan"})


def lbdsr(subject: Balancer, daemon: Daemon) -> None:
    sides = enumerate(("FRONTEND", "BACKEND"))
    ports = [{"name": f"p{number}", "type": side, "peer": f"{subject.tag}{number}"} for number, side in sides]
    pool = [{"id": number, "mac": rates.mac_of(subject.far)} for number in range(100)]
    body = {"ports": ports, "frontend": {"vip": VIP, "mac": subject.target_mac()}, "backend": {"pool": pool}}
    daemon.post(f"lbdsr/{subject.tag}", {"type": "XDP_DRV" if subject.xdp else "TC", **body})


def forwarder(subject: Balancer, daemon: Daemon) -> None:
    """The way in and out, and nothing between."""
    actions = [{"inport": "p0", "action": "FORWARD", "outport": "p1"}, {"inport": "p1", "action": "FORWARD", "outport": "p0"}]
    ports = [{"name": f"p{number}", "peer": f"{subject.tag}{number}"} for number in (0, 1)]
    type = "XDP_DRV" if subject.xdp else "TC"
    daemon.post(f"simpleforwarder/{subject.tag}", {"type": type, "ports": ports, "actions": actions})


def subjects() -> list[Balancer]:
    """All that is compared."""
    return [
        Balancer("Linux, iptables statistic", "li", True, False, make_up=iptables),
        Balancer("Linux, nft numgen", "ln", True, False, make_up=nft("numgen inc")),
        Balancer("Linux, nft jhash", "lj", True, False, make_up=nft("jhash ip saddr . {proto} sport")),
        Balancer("lbrp, XDP", "lx", True, True, make_up=lbrp, linked=True),
        Balancer("lbrp and router, XDP", "ly", True, True, make_up=lbrp),
        Balancer("lbrp, TC", "lt", True, False, make_up=lbrp, linked=True),
        Balancer("lbrp and router, TC", "lu", True, False, make_up=lbrp),
        Balancer("lbdsr, XDP", "ld", True, True, make_up=lbdsr, linked=True, direct=True),
        Balancer("lbdsr, TC", "le", True, False, make_up=lbdsr, linked=True, direct=True),
        Balancer("forwarding only, XDP", "lf", True, True, make_up=forwarder, linked=True, direct=True),
    ]


@contextmanager
def flow(subject: Balancer) -> Iterator[Traffic]:
    headers = Headers(source="10.1.0.2", destination=VIP, destination_mac=subject.target_mac(), destination_port=VPORT)
    places = Place(f"{subject.tag}a"), Place(subject.far)
    sink = Hook.XDP if subject.xdp else Hook.TC
    with Traffic(*places, headers, flows=FLOWS, hook=Hook.XDP, sink_hook=sink, count_only=True) as made:
        made.prepare(64)
        yield made


def fresh_rate(traffic: Traffic) -> float:
    """Delivered packets a second, each of a flow of its own; in a thread of the source's namespace."""
    before = traffic.received()
    spent = traffic.burst(FLOWS) * FLOWS
    time.sleep(0.01)
    return (traffic.received() - before) / spent * 1e9


def packets(made: list[Balancer], rounds: int) -> None:
    with ExitStack() as stack:
        flows = {}
        for subject in made:
            if not subject.xdp:
                stack.enter_context(rates.gro(subject))
            flows[subject.tag] = stack.enter_context(flow(subject))
        for number in range(rounds):
            for subject in made:
                forget(subject)
                traffic = flows[subject.tag]
                new, known = netns.run_in(f"{subject.tag}a", lambda traffic=traffic: (fresh_rate(traffic), rates.one_rate(traffic)))
                if number:  # the first fills caches
                    subject.new.append(new)
                    subject.packets.append(known)


def forget(subject: Balancer) -> None:
    """Flows of the round before are new ones again."""
    if subject.make_up is lbrp:
        _daemon[0].post(f"lbrp/{subject.tag}/session/flush", {})
    elif subject.make_up not in (lbdsr, forwarder):
        subprocess.run(["ip", "netns", "exec", f"{subject.tag}r", "conntrack", "-F"], capture_output=True)


_daemon: list[Daemon] = []


def requests(made: list[Balancer], rounds: int, count: int) -> None:
    servers = []
    chosen = [subject for subject in made if not (subject.xdp or subject.direct)]  # XDP has no offloads: packets are its trade
    for subject in chosen:
        command = ["ip", "netns", "exec", subject.far, rates.PYTHON, "-c", SERVE]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout and server.stdout.readline()
        servers.append(server)
    try:
        for _ in range(rounds):
            for subject in chosen:
                command = ["ip", "netns", "exec", f"{subject.tag}a", rates.PYTHON, "-c", REQUEST, VIP, str(count)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
                if done.returncode == 0:
                    subject.requests.append(statistics.median(json.loads(done.stdout)) / 1000)
    finally:
        for server in servers:
            server.kill()
            server.wait()


def answers(subject: Balancer) -> bool:
    """Whether the virtual address leads to a backend: also teaches bridges and routers who is where."""

    def ask() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(1)
            return sock.connect_ex((VIP, 80)) in (0, 111)  # refused: it was asked

    return netns.run_in(f"{subject.tag}a", ask)


def measure(folder: Path, quick: bool) -> Found:
    made = subjects()
    rows: list[Row] = []
    with Daemon(folder) as daemon:
        _daemon.append(daemon)
        for subject in made:
            subject.stand(daemon)
        for subject in (one for one in made if not one.direct):
            eventually(lambda subject=subject: answers(subject), f"{subject.name} to balance", 20)
        packets(made, 3 if quick else 8)
        requests(made, 2 if quick else 5, 300)
    by = {subject.name: subject for subject in made}
    peers = [by[name] for name in ("Linux, iptables statistic", "Linux, nft numgen", "Linux, nft jhash")]
    for name, aim in (("lbrp, XDP", 5.0), ("lbrp and router, XDP", None), ("lbrp, TC", None), ("lbrp and router, TC", None)):
        for peer in peers:
            rows.append(compared(f"{name}, 100 backends, 10,000 flows, packets: to {peer.name}", by[name].packets, peer.packets, aim))
        rows.append(compared(f"{name}, new flows a second: to {peers[0].name}", by[name].new, peers[0].new))
        rows.append(compared(f"{name}, new flows a second: to {peers[2].name}", by[name].new, peers[2].new))
    for name in ("lbdsr, XDP", "lbdsr, TC", "forwarding only, XDP"):
        rows.append(compared(f"{name}, packets: to {peers[0].name}", by[name].packets, peers[0].packets))
    for subject in made:
        if subject.packets and subject.new:
            rows.append(Row(f"{subject.name}: packets", statistics.median(subject.packets) / 1000, unit="kpps"))
            rows.append(Row(f"{subject.name}: new flows", statistics.median(subject.new) / 1000, unit="thousand a second"))
    for subject in made:
        if subject.requests:
            middle = statistics.median(subject.requests)
            rows.append(Row(f"{subject.name}: TCP request, latency", middle, f"{1e6 / middle:.0f} connections a second", "µs"))
    return rows, {"lbrp": {one.name: {"packets": one.packets, "new": one.new, "requests": one.requests} for one in made}}
