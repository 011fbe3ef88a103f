# SPDX-License-Identifier: Apache-2.0
"""Packets through lbrp, with its control plane: translation both ways, choice of backends, what passes, what is dropped."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from balancer_lab import Lab, decided, nonsense
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from polycube.cubes.lbrp import Lbrp
from polycube.model import Edit, ModelError, Op
from polycube.testing.harness import Chain, Hook

HOST, ROUTER = "02:00:00:00:00:0a", "02:00:00:00:00:fe"
IN, BACK = Ether(src=HOST, dst=ROUTER), Ether(src=ROUTER, dst=HOST)
FRONT, BEHIND = 0, 1
VIP = {4: "10.96.0.1", 6: "fd96::1"}
CLIENT = {4: "10.0.0.1", 6: "fd00::1"}
NET = {4: IP, 6: IPv6}
VERSIONS = pytest.mark.parametrize("version", [4, 6])
LEARNT = ["affinities", "clients"]


class LbrpLab(Lab[Lbrp]):
    """A reset also forgets sessions, and the shortcuts to them."""

    def reset(self, config: Mapping[str, Any], *, mtu: int = 1500, forget: Sequence[str] = ()) -> None:
        asyncio.run(self.service.flush())
        super().reset(config, mtu=mtu, forget=forget)


def backend(version: int, number: int) -> str:
    return f"10.9.0.{number}" if version == 4 else f"fd09::{number:x}"


def service(version: int, count: int = 4, proto: str = "TCP", vport: int = 80, **more: Any) -> dict[str, Any]:
    backends = [{"ip": backend(version, number), "port": 8080} for number in range(1, count + 1)]
    return {"vip": VIP[version], "vport": vport, "proto": proto, "backend": backends, **more}


def config(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    ports = [{"name": "p0", "type": "FRONTEND"}, {"name": "p1", "type": "BACKEND"}]
    usual = [service(4), service(6), service(4, 1, "UDP", 53), service(6, 1, "UDP", 53), service(4, 1, "ICMP", 0), service(6, 1, "ICMP", 0)]
    return {"ports": ports, "service": list(services) or usual, **more}


@pytest.fixture(scope="module", params=list(Hook), ids=str)
def standing(isolated: None, request: pytest.FixtureRequest) -> Iterator[Lab[Lbrp]]:
    with Chain(request.param) as chain:
        cpus = {f"shortcuts{version}": os.cpu_count() or 1 for version in (4, 6)}
        yield LbrpLab(chain.cube("lbrp", ports=4, sizes=cpus), Lbrp, config())


@pytest.fixture
def lab(standing: Lab[Lbrp]) -> Lab[Lbrp]:
    standing.reset(config(), forget=LEARNT)
    return standing


def asked(version: int, port: int = 1000, flags: str = "S", source: str = "", **more: Any) -> Any:
    return NET[version](src=source or CLIENT[version], dst=VIP[version]) / TCP(sport=port, dport=80, flags=flags, **more)


def chosen(lab: Lab[Lbrp], version: int, port: int, **more: Any) -> str:
    """The backend that a client's packet goes to."""
    return str(Ether(lab.send(IN / asked(version, port, **more)).forwarded(BEHIND).packet)[NET[version]].dst)


@VERSIONS
def test_tcp_both_ways(lab: Lab[Lbrp], version: int) -> None:
    ip = NET[version]
    to = chosen(lab, version, 1000)
    for flags, payload in (("S", b""), ("A", b""), ("PA", b"GET / HTTP/1.0")):
        there = ip(src=CLIENT[version], dst=to) / TCP(sport=1000, dport=8080, flags=flags) / payload
        lab.send(IN / asked(version, flags=flags) / payload).forwarded(BEHIND, IN / there)
        answer = ip(src=to, dst=CLIENT[version]) / TCP(sport=8080, dport=1000, flags="SA") / payload
        back = ip(src=VIP[version], dst=CLIENT[version]) / TCP(sport=80, dport=1000, flags="SA") / payload
        lab.send(BACK / answer, BEHIND).forwarded(FRONT, BACK / back)


@pytest.mark.parametrize(("version", "checksum"), [(4, None), (4, 0), (6, None)])
def test_udp_both_ways(lab: Lab[Lbrp], version: int, checksum: int | None) -> None:
    ip, to = NET[version], backend(version, 1)
    there = UDP(sport=1000, dport=8080, chksum=checksum) / b"question"
    lab.send(IN / ip(src=CLIENT[version], dst=VIP[version]) / UDP(sport=1000, dport=53, chksum=checksum) / b"question").forwarded(
        BEHIND, IN / ip(src=CLIENT[version], dst=to) / there
    )
    answer = UDP(sport=8080, dport=1000, chksum=checksum) / b"answer"
    expected = UDP(sport=53, dport=1000, chksum=checksum) / b"answer"
    lab.send(BACK / ip(src=to, dst=CLIENT[version]) / answer, BEHIND).forwarded(
        FRONT, BACK / ip(src=VIP[version], dst=CLIENT[version]) / expected
    )


def test_pings_both_ways(lab: Lab[Lbrp]) -> None:
    lab.send(IN / IP(src=CLIENT[4], dst=VIP[4]) / ICMP(id=7) / b"x").forwarded(
        BEHIND, IN / IP(src=CLIENT[4], dst=backend(4, 1)) / ICMP(id=7) / b"x"
    )
    lab.send(BACK / IP(src=backend(4, 1), dst=CLIENT[4]) / ICMP(type=0, id=7) / b"x", BEHIND).forwarded(
        FRONT, BACK / IP(src=VIP[4], dst=CLIENT[4]) / ICMP(type=0, id=7) / b"x"
    )
    lab.send(IN / IPv6(src=CLIENT[6], dst=VIP[6]) / ICMPv6EchoRequest(id=7, data=b"x")).forwarded(
        BEHIND, IN / IPv6(src=CLIENT[6], dst=backend(6, 1)) / ICMPv6EchoRequest(id=7, data=b"x")
    )
    lab.send(BACK / IPv6(src=backend(6, 1), dst=CLIENT[6]) / ICMPv6EchoReply(id=7, data=b"x"), BEHIND).forwarded(
        FRONT, BACK / IPv6(src=VIP[6], dst=CLIENT[6]) / ICMPv6EchoReply(id=7, data=b"x")
    )


@pytest.mark.parametrize("tags", [Dot1Q(vlan=5), Dot1Q(vlan=5) / Dot1Q(vlan=6)])
def test_tags_travel_along(lab: Lab[Lbrp], tags: Any) -> None:
    link = Ether(src=HOST, dst=ROUTER) / tags
    to = Ether(lab.send(link / asked(4)).forwarded(BEHIND).packet)[IP].dst
    expected = link / IP(src=CLIENT[4], dst=to) / TCP(sport=1000, dport=8080, flags="S")
    lab.send(link / asked(4)).forwarded(BEHIND, expected)


def test_a_service_of_all_protocols_is_three(lab: Lab[Lbrp]) -> None:
    lab.reset(config(service(4, 2, "ALL")))
    for transport, port in ((TCP(dport=80, flags="S"), 8080), (UDP(dport=80), 8080), (ICMP(), None)):
        found = Ether(lab.send(IN / IP(src=CLIENT[4], dst=VIP[4]) / transport).forwarded(BEHIND).packet)
        assert found[IP].dst in (backend(4, 1), backend(4, 2))
        assert port is None or found[2].dport == port
    passed = IN / IP(src=CLIENT[4], dst=VIP[4]) / TCP(dport=81, flags="S")
    lab.send(passed).forwarded(BEHIND, passed)
    lab.edit(Edit(Op.DELETE, ("service", VIP[4], "80", "UDP")), Edit(Op.CREATE, ("service", VIP[4], "81", "ALL"), {}))
    assert [(one.vport, str(one.proto), len(one.backend)) for one in lab.service.current.service.values()] == [
        (80, "TCP", 2),
        (0, "ICMP", 2),
        (81, "TCP", 0),
        (81, "UDP", 0),
    ]


@VERSIONS
def test_what_is_for_no_service_passes_as_it_is(lab: Lab[Lbrp], version: int) -> None:
    ip = NET[version]
    for packet in (
        ip(src=CLIENT[version], dst=backend(version, 99)) / TCP(dport=80, flags="S"),
        ip(src=CLIENT[version], dst=VIP[version]) / TCP(dport=443, flags="S"),
        ip(src=CLIENT[version], dst=backend(version, 99)) / TCP(dport=80, flags="SF"),
        ip(src=CLIENT[version], dst=backend(version, 99), **({"proto": 47} if version == 4 else {"nh": 47})) / Raw(bytes(8)),
    ):
        lab.send(IN / packet).forwarded(BEHIND, IN / packet)
        lab.send(BACK / packet, BEHIND).forwarded(FRONT, BACK / packet)
    for frame in (IN / ARP(pdst="10.0.0.254"), Ether(src=HOST, dst=ROUTER, type=0x88B5) / bytes(46)):
        lab.send(frame).forwarded(BEHIND, frame)
        lab.send(frame, BEHIND).forwarded(FRONT, frame)
    assert len(lab.cube.map("sessions")) == 0


# ---- choice ----


@VERSIONS
def test_flows_are_spread_by_weight(lab: Lab[Lbrp], version: int) -> None:
    lab.reset(config(service(version, 4)))
    lab.edit(Edit(Op.MERGE, ("service", VIP[version], "80", "TCP", "backend", backend(version, 1), "weight"), 3))
    counts = Counter(chosen(lab, version, port) for port in range(2000, 2240))
    assert 90 < counts[backend(version, 1)] < 150, "3 of 6 parts of 240"
    assert all(20 < counts[backend(version, number)] < 65 for number in (2, 3, 4)), "one part each"


CHANGES = {
    "add": Edit(Op.CREATE, ("service", VIP[4], "80", "TCP", "backend", backend(4, 9)), {"port": 8080}),
    "remove": Edit(Op.DELETE, ("service", VIP[4], "80", "TCP", "backend", backend(4, 1))),
    "drain": Edit(Op.MERGE, ("service", VIP[4], "80", "TCP", "backend", backend(4, 1), "state"), "DRAIN"),
    "weight": Edit(Op.MERGE, ("service", VIP[4], "80", "TCP", "backend", backend(4, 1), "weight"), 0),
    "all": Edit(Op.DELETE, ("service", VIP[4], "80", "TCP", "backend")),
    "service": Edit(Op.DELETE, ("service", VIP[4], "80", "TCP")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_live_flows_keep_their_backend(lab: Lab[Lbrp], change: str) -> None:
    before = {port: chosen(lab, 4, port) for port in range(3000, 3040)}
    lab.edit(CHANGES[change])
    for port, to in before.items():
        assert chosen(lab, 4, port, flags="A") == to
        answer = IP(src=to, dst=CLIENT[4]) / TCP(sport=8080, dport=port, flags="A")
        back = BACK / IP(src=VIP[4], dst=CLIENT[4]) / TCP(sport=80, dport=port, flags="A")
        lab.send(BACK / answer, BEHIND).forwarded(FRONT, back)
    if change in ("all", "service"):
        fresh = lab.send(IN / asked(4, 4000))
        assert fresh.dropped("no_backend") if change == "all" else fresh.forwarded(BEHIND, IN / asked(4, 4000))
        return
    new = {chosen(lab, 4, port) for port in range(4000, 4060)}
    assert (backend(4, 1) in new, backend(4, 9) in new) == (change == "add", change == "add")


def test_one_of_a_hundred_leaving_moves_few_new_flows_of_the_others(lab: Lab[Lbrp]) -> None:
    lab.reset(config(service(4, 100)), forget=LEARNT)
    before = {port: chosen(lab, 4, port) for port in range(5000, 5200)}
    lab.cube.map("sessions").clear()
    lab.cube.map("returns").clear()
    lab.edit(CHANGES["remove"])
    after = {port: chosen(lab, 4, port) for port in before}
    moved = [port for port, to in before.items() if to != backend(4, 1) and after[port] != to]
    assert len(moved) <= 12, "1.4 % of 200 are expected"


@VERSIONS
def test_a_flow_of_udp_has_a_shortcut_until_sessions_are_removed(lab: Lab[Lbrp], version: int) -> None:
    """Its session is looked for once a second; what is removed is gone at once all the same."""
    ip, client = NET[version], CLIENT[version]
    lab.reset(config(service(version, 8, "UDP", 53)), forget=LEARNT)
    question = IN / ip(src=client, dst=VIP[version]) / UDP(sport=1000, dport=53) / b"?"
    to = Ether(lab.send(question).forwarded(BEHIND).packet)[ip].dst
    lab.edit(Edit(Op.DELETE, ("service", VIP[version], "53", "UDP", "backend", to)))
    answer = BACK / ip(src=to, dst=client) / UDP(sport=8080, dport=1000) / b"!"
    for _ in range(3):
        lab.send(question).forwarded(BEHIND, IN / ip(src=client, dst=to) / UDP(sport=1000, dport=8080) / b"?")
        lab.send(answer, BEHIND).forwarded(FRONT, BACK / ip(src=VIP[version], dst=client) / UDP(sport=53, dport=1000) / b"!")
    for packet in (question, answer):
        raw = bytes(packet[ip])
        assert addresses_in(lab, version, raw[12:20] if version == 4 else raw[8:40])
    assert asyncio.run(lab.service.flush()).removed == 1
    lab.send(answer, BEHIND).forwarded(FRONT, answer)
    assert Ether(lab.send(question).forwarded(BEHIND).packet)[ip].dst != to


def addresses_in(lab: Lab[Lbrp], version: int, addresses: bytes) -> bool:
    """Whether there is a shortcut for packets with these."""
    shortcuts = lab.cube.map(f"shortcuts{version}").kernel
    return any(addresses in places for _, places in shortcuts.items())


def test_connections_that_another_balancer_had_are_taken_up(lab: Lab[Lbrp]) -> None:
    to = chosen(lab, 4, 1000)
    for name in ("sessions", "returns"):
        lab.cube.map(name).clear()
    assert chosen(lab, 4, 1000, flags="A") == to


def test_a_closed_connection_s_ports_may_be_used_again(lab: Lab[Lbrp]) -> None:
    to = chosen(lab, 4, 1000)
    answer = IP(src=to, dst=CLIENT[4])
    lab.send(BACK / answer / TCP(sport=8080, dport=1000, flags="RA", ack=1), BEHIND).forwarded(FRONT)
    lab.edit(Edit(Op.DELETE, ("service", VIP[4], "80", "TCP", "backend", to)))
    again = chosen(lab, 4, 1000, seq=70000)
    assert again != to
    assert len(lab.cube.map("sessions")) == len(lab.cube.map("returns")) == 1, "nothing is left of the first"


@VERSIONS
def test_affinity(lab: Lab[Lbrp], version: int) -> None:
    lab.reset(config(service(version, 8, affinity=60)), forget=LEARNT)
    others = [f"10.0.1.{n}" if version == 4 else f"fd01::{n}" for n in range(1, 20)]
    homes = {other: chosen(lab, version, 1000, source=other) for other in others}
    assert len(set(homes.values())) > 3
    lab.edit(Edit(Op.CREATE, ("service", VIP[version], "80", "TCP", "backend", backend(version, 77)), {"port": 8080}))
    assert all(chosen(lab, version, port, source=other) == home for other, home in homes.items() for port in (2000, 3000))
    leaving = homes[others[0]]
    lab.edit(Edit(Op.MERGE, ("service", VIP[version], "80", "TCP", "backend", leaving, "state"), "DRAIN"))
    for other, home in homes.items():
        assert (chosen(lab, version, 4000, source=other) == home) is (home != leaving)
    for key, value in lab.cube.map("affinities").items():
        lab.cube.map("affinities")[key] = value | {"expires": 1}
    asyncio.run(lab.service.sweep())
    assert len(lab.cube.map("affinities")) == 0
    lab.edit(Edit(Op.MERGE, ("service", VIP[version], "80", "TCP", "backend", leaving, "state"), "ACTIVE"))
    now = {other: chosen(lab, version, 5000, source=other) for other in others}
    assert sum(now[other] == home for other, home in homes.items()) > 10, "by the client's address: the same but for what the new one took"


# ---- beyond plain packets ----


def test_icmp_errors_from_the_backend_s_side(lab: Lab[Lbrp]) -> None:
    to = chosen(lab, 4, 1000)
    quoted = bytes(IP(src=CLIENT[4], dst=to) / TCP(sport=1000, dport=8080, flags="S"))
    shown = bytes(IP(src=CLIENT[4], dst=VIP[4]) / TCP(sport=1000, dport=80, flags="S"))
    for reporter, seen, length in ((to, VIP[4], None), ("10.8.8.8", "10.8.8.8", None), (to, VIP[4], 28)):
        inner, outer = Raw(quoted[:length]), Raw(shown[:length])
        lab.send(BACK / IP(src=reporter, dst=CLIENT[4]) / ICMP(type=3, code=4, nexthopmtu=1400) / inner, BEHIND).forwarded(
            FRONT, BACK / IP(src=seen, dst=CLIENT[4]) / ICMP(type=3, code=4, nexthopmtu=1400) / outer
        )


def test_icmp_errors_from_the_client_s_side(lab: Lab[Lbrp]) -> None:
    lab.send(IN / IP(src=CLIENT[4], dst=VIP[4]) / UDP(sport=1000, dport=53)).forwarded(BEHIND)
    seen = bytes(IP(src=VIP[4], dst=CLIENT[4]) / UDP(sport=53, dport=1000) / b"gone")
    sent = bytes(IP(src=backend(4, 1), dst=CLIENT[4]) / UDP(sport=8080, dport=1000) / b"gone")
    lab.send(IN / IP(src=CLIENT[4], dst=VIP[4]) / ICMP(type=3, code=3) / Raw(seen)).forwarded(
        BEHIND, IN / IP(src=CLIENT[4], dst=backend(4, 1)) / ICMP(type=3, code=3) / Raw(sent)
    )


def test_icmpv6_errors_both_ways(lab: Lab[Lbrp]) -> None:
    to = chosen(lab, 6, 1000)
    quoted = bytes(IPv6(src=CLIENT[6], dst=to) / TCP(sport=1000, dport=8080, flags="S"))
    shown = bytes(IPv6(src=CLIENT[6], dst=VIP[6]) / TCP(sport=1000, dport=80, flags="S"))
    lab.send(BACK / IPv6(src="fd08::8", dst=CLIENT[6]) / ICMPv6PacketTooBig(mtu=1400) / Raw(quoted), BEHIND).forwarded(
        FRONT, BACK / IPv6(src="fd08::8", dst=CLIENT[6]) / ICMPv6PacketTooBig(mtu=1400) / Raw(shown)
    )
    seen = bytes(IPv6(src=VIP[6], dst=CLIENT[6]) / TCP(sport=80, dport=1000, flags="SA"))
    sent = bytes(IPv6(src=to, dst=CLIENT[6]) / TCP(sport=8080, dport=1000, flags="SA"))
    lab.send(IN / IPv6(src=CLIENT[6], dst=VIP[6]) / ICMPv6DestUnreach(code=4) / Raw(seen)).forwarded(
        BEHIND, IN / IPv6(src=CLIENT[6], dst=to) / ICMPv6DestUnreach(code=4) / Raw(sent)
    )


def test_fragments_follow_their_first(lab: Lab[Lbrp]) -> None:
    whole = bytes(UDP(sport=1000, dport=53, len=48) / bytes(40))
    sent = bytes(IP(src=CLIENT[4], dst=VIP[4]) / UDP(sport=1000, dport=53) / bytes(40))[20:]
    expected = bytes(IP(src=CLIENT[4], dst=backend(4, 1)) / UDP(sport=1000, dport=8080) / bytes(40))[20:]
    assert len(whole) == len(sent)
    parts = [dict(flags="MF", frag=0), dict(flags=0, frag=3)]
    for part, data, after in zip(parts, (sent[:24], sent[24:]), (expected[:24], expected[24:]), strict=True):
        lab.send(IN / IP(src=CLIENT[4], dst=VIP[4], id=5, proto=17, **part) / Raw(data)).forwarded(
            BEHIND, IN / IP(src=CLIENT[4], dst=backend(4, 1), id=5, proto=17, **part) / Raw(after)
        )
    lost = IN / IP(src=CLIENT[4], dst=VIP[4], id=6, proto=17, frag=3) / Raw(sent[24:])
    lab.send(lost).dropped("untrackable")


@VERSIONS
def test_a_backend_that_is_its_own_client_is_shown_the_vip(lab: Lab[Lbrp], version: int) -> None:
    """Hairpin: what it gets must not come from itself, and its answer must come back here."""
    ip, pod = NET[version], backend(version, 1)
    there = ip(src=VIP[version], dst=pod) / UDP(sport=1000, dport=8080) / b"me"
    lab.send(IN / ip(src=pod, dst=VIP[version]) / UDP(sport=1000, dport=53) / b"me").forwarded(BEHIND, IN / there)
    lab.send(BACK / there, BEHIND).forwarded(FRONT, BACK / there)
    back = ip(src=VIP[version], dst=pod) / UDP(sport=53, dport=1000) / b"you"
    lab.send(IN / ip(src=pod, dst=VIP[version]) / UDP(sport=8080, dport=1000) / b"you").forwarded(BEHIND, IN / back)
    lab.send(BACK / back, BEHIND).forwarded(FRONT, BACK / back)


def test_two_services_of_one_client_at_one_backend(lab: Lab[Lbrp]) -> None:
    """The second flow gets another port, or the answers of the two could not be told apart."""
    lab.reset(config(service(4, 1), service(4, 1, vport=81)), forget=LEARNT)
    lab.send(IN / asked(4)).forwarded(BEHIND)
    second = IP(src=CLIENT[4], dst=VIP[4]) / TCP(sport=1000, dport=81, flags="S")
    port = Ether(lab.send(IN / second).forwarded(BEHIND).packet)[TCP].sport
    assert port != 1000
    for sport, vport in ((1000, 80), (port, 81)):
        answer = IP(src=backend(4, 1), dst=CLIENT[4]) / TCP(sport=8080, dport=sport, flags="SA")
        expected = IP(src=VIP[4], dst=CLIENT[4]) / TCP(sport=vport, dport=1000, flags="SA")
        lab.send(BACK / answer, BEHIND).forwarded(FRONT, BACK / expected)


@VERSIONS
def test_sources_are_rewritten(lab: Lab[Lbrp], version: int) -> None:
    old, new = ("10.0.0.0/24", "10.0.7.0/24") if version == 4 else ("fd00::/64", "fd07::/64")
    ip, client, seen = NET[version], CLIENT[version], "10.0.7.1" if version == 4 else "fd07::1"
    lab.reset(config(service(version, 1), **{"src-ip-rewrite": {"ip-range": old, "new_ip_range": new}}), forget=LEARNT)
    there = ip(src=seen, dst=backend(version, 1)) / TCP(sport=1000, dport=8080, flags="S")
    lab.send(IN / asked(version)).forwarded(BEHIND, IN / there)
    answer = ip(src=backend(version, 1), dst=seen) / TCP(sport=8080, dport=1000, flags="SA")
    back = ip(src=VIP[version], dst=client) / TCP(sport=80, dport=1000, flags="SA")
    lab.send(BACK / answer, BEHIND).forwarded(FRONT, BACK / back)
    outside = "10.0.1.1" if version == 4 else "fd01::1"
    assert Ether(lab.send(IN / asked(version, source=outside)).forwarded(BEHIND).packet)[ip].src == outside


def test_backends_ask_for_rewritten_clients(lab: Lab[Lbrp]) -> None:
    lab.reset(config(service(4, 1), **{"src-ip-rewrite": {"ip-range": "10.0.0.0/24", "new_ip_range": "10.0.7.0/24"}}), forget=LEARNT)
    request = Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=ROUTER, psrc="10.0.0.9", pdst="10.0.7.1")
    lab.send(request, BEHIND).dropped("unknown_client")
    lab.send(IN / asked(4)).forwarded(BEHIND)
    answer = Ether(src=HOST, dst=ROUTER) / ARP(op=2, hwsrc=HOST, psrc="10.0.7.1", hwdst=ROUTER, pdst="10.0.0.9")
    lab.send(request, BEHIND).forwarded(BEHIND, answer)
    plain = Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=ROUTER, psrc="10.0.0.9", pdst="10.0.0.1")
    lab.send(plain, BEHIND).forwarded(FRONT, plain)


# ---- MULTI ----

PODS = {0: ("10.0.0.1", "fd00::1"), 2: ("10.0.0.2", "fd00::2"), 3: ("10.0.0.3", "fd00::3")}


@pytest.fixture
def pods(lab: Lab[Lbrp]) -> Lab[Lbrp]:
    ports = [{"name": f"p{n}", "type": "FRONTEND", "ip": v4, "secondaryip": [v6]} for n, (v4, v6) in PODS.items()]
    lab.reset(config(ports=[*ports, {"name": "p1", "type": "BACKEND"}], port_mode="MULTI"), forget=LEARNT)
    return lab


@pytest.mark.parametrize("pod", PODS)
def test_answers_find_their_frontend(pods: Lab[Lbrp], pod: int) -> None:
    for ip, client, vip, to in ((IP, PODS[pod][0], VIP[4], backend(4, 1)), (IPv6, PODS[pod][1], VIP[6], backend(6, 1))):
        there = IN / ip(src=client, dst=to) / UDP(sport=7, dport=8080)
        pods.send(IN / ip(src=client, dst=vip) / UDP(sport=7, dport=53), pod).forwarded(BEHIND, there)
        answer = BACK / ip(src=to, dst=client) / UDP(sport=8080, dport=7)
        pods.send(answer, BEHIND).forwarded(pod, BACK / ip(src=vip, dst=client) / UDP(sport=53, dport=7))
        plain = BACK / ip(src=to, dst=client) / UDP(sport=9, dport=9)
        pods.send(plain, BEHIND).forwarded(pod, plain)


def test_a_pod_that_serves_another_of_the_same_node(pods: Lab[Lbrp]) -> None:
    """The translated packet comes back from the router, and the answer passes here twice, too."""
    lab = pods
    lab.edit(Edit(Op.CREATE, ("service", VIP[4], "5353", "UDP"), {"backend": [{"ip": "10.0.0.2", "port": 53}]}))
    there = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=53)
    lab.send(IN / IP(src="10.0.0.1", dst=VIP[4]) / UDP(sport=7, dport=5353), 0).forwarded(BEHIND, IN / there)
    lab.send(BACK / there, BEHIND).forwarded(2, BACK / there)
    back = IP(src=VIP[4], dst="10.0.0.1") / UDP(sport=5353, dport=7)
    lab.send(IN / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=53, dport=7), 2).forwarded(BEHIND, IN / back)
    lab.send(BACK / back, BEHIND).forwarded(0, BACK / back)


def test_who_is_asked_for_is_asked(pods: Lab[Lbrp]) -> None:
    for pod, (v4, v6) in PODS.items():
        request = Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=ROUTER, psrc="10.0.0.254", pdst=v4)
        pods.send(request, BEHIND).forwarded(pod, request)
        solicit = Ether(src=ROUTER, dst="33:33:ff:00:00:01") / IPv6(src="fd00::fe", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=v6)
        solicit /= ICMPv6NDOptSrcLLAddr(lladdr=ROUTER)
        pods.send(solicit, BEHIND).forwarded(pod, solicit)
        reply = Ether(src=HOST, dst=ROUTER) / ARP(op=2, hwsrc=HOST, psrc=v4, hwdst=ROUTER, pdst="10.0.0.254")
        pods.send(reply, pod).forwarded(BEHIND, reply)


def test_groups_are_for_all_frontends_and_strangers_for_none(pods: Lab[Lbrp]) -> None:
    for frame in (
        Ether(src=ROUTER, dst="01:80:c2:00:00:00", type=0x88CC) / bytes(46),
        Ether(src=ROUTER, dst="33:33:00:00:00:01") / IPv6(src="fe80::1", dst="ff02::1") / UDP(),
        Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.254", dst="10.0.0.255") / UDP(),
    ):
        pods.send(frame, BEHIND).flooded([0, 2, 3], frame)
    pods.send(BACK / IP(src="10.9.0.1", dst="10.0.0.9") / UDP(), BEHIND).dropped("no_frontend")
    pods.send(Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst="10.0.0.9"), BEHIND).flooded([0, 2, 3])


# ---- pressure and nonsense ----


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (IN / IP(dst=VIP[4]) / TCP(dport=80, flags="SF"), "untrackable"),
        (IN / IP(dst=VIP[4]) / TCP(dport=80, flags="R"), "untrackable"),
        (IN / IP(dst=VIP[4]) / ICMP(type=13), "untrackable"),
        (IN / IP(src=CLIENT[4], dst=VIP[4]) / ICMP(type=3) / Raw(bytes(IP(src=VIP[4], dst=CLIENT[4]) / UDP(sport=53))), "untrackable"),
        (Ether(bytes(IN / asked(4))[:40]), "malformed"),
        (Ether(bytes(IN / asked(6))[:60]), "malformed"),
        (IN / IP(src=CLIENT[4], dst=VIP[4], len=2000) / UDP(dport=53), "malformed"),
        (IN / IP(src=CLIENT[4], dst=VIP[4]) / TCP(dport=80, dataofs=4), "malformed"),
        (IN / IP(src=CLIENT[4], dst=VIP[4]) / ICMP(type=3) / Raw(bytes(IP() / UDP())[:24]), "malformed"),
        (IN / IPv6(src=CLIENT[6], dst=VIP[6]) / ICMPv6DestUnreach() / Raw(bytes(40)), "malformed"),
    ],
)
def test_what_is_dropped(lab: Lab[Lbrp], packet: Any, reason: str) -> None:
    lab.send(packet).dropped(reason)
    assert len(lab.cube.map("sessions")) == len(lab.cube.map("returns")) == 0


def test_no_frame_is_without_a_verdict(lab: Lab[Lbrp]) -> None:
    quoted = Raw(bytes(IP(src=VIP[4], dst=CLIENT[4]) / UDP(sport=53, dport=1000)))
    good = [IN / asked(4), IN / asked(6), IN / IP(src=CLIENT[4], dst=VIP[4]) / UDP(dport=53) / bytes(20), IN / ARP()]
    good += [IN / IP(src=CLIENT[4], dst=VIP[4]) / ICMP(type=3) / quoted, IN / IPv6(dst=VIP[6]) / IPv6ExtHdrFragment(m=1) / UDP(dport=53)]
    for frame in nonsense(good, 400):
        assert decided(lab.cube.send(frame, FRONT)), frame.hex()
        assert decided(lab.cube.send(frame, BEHIND)), frame.hex()


def test_a_full_table_stops_no_flow_that_it_holds(cube: Any) -> None:
    lab = Lab(cube("lbrp", sizes={"sessions": 8, "returns": 8}), Lbrp, config())
    held = {port: chosen(lab, 4, port) for port in range(1000, 1008)}
    lab.send(IN / asked(4, 2000)).dropped("sessions_full")
    lab.send(IN / asked(6, 2000)).dropped("sessions_full")
    for port, to in held.items():
        assert chosen(lab, 4, port, flags="A") == to
    assert lab.service.state()["session"]["failures"] == 2
    assert len(lab.cube.map("sessions")) == len(lab.cube.map("returns")) == 8
    for key, value in lab.cube.map("sessions").items():
        lab.cube.map("sessions")[key] = value | {"ct": value["ct"] | {"expires": 1}}
    assert asyncio.run(lab.service.sessions.sweep()) == 8
    assert len(lab.cube.map("sessions")) == len(lab.cube.map("returns")) == 0, "twins go with their sessions"
    chosen(lab, 4, 2000)


def test_sessions_are_shown_and_flushed(lab: Lab[Lbrp]) -> None:
    to = chosen(lab, 4, 1000)
    shown = lab.service.state()["session"]["entry"]
    eta = shown[0].pop("eta")
    assert 100 < eta <= 120
    assert shown == [
        {"client": CLIENT[4], "cport": 1000, "vip": VIP[4], "vport": 80, "proto": "tcp", "backend": to, "port": 8080, "state": "SYN_SENT"}
    ]
    assert asyncio.run(lab.service.flush()).removed == 1
    assert lab.service.state()["session"]["entry"] == []


def test_frames_for_the_cube_s_own_host_go_up(lab: Lab[Lbrp]) -> None:
    lab.reset(config(probe={"ip": "10.9.0.250/24", "ipv6": "fd09::250/64", "mac": "02:00:00:00:00:77"}))
    for frame in (
        Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst="10.9.0.250"),
        Ether(src=ROUTER, dst="02:00:00:00:00:77") / IP(dst="10.9.0.250") / TCP(flags="SA"),
        Ether(src=ROUTER, dst="33:33:ff:00:02:50") / IPv6(src="fd09::1", dst="ff02::1:ff00:250", hlim=255) / ICMPv6ND_NS(tgt="fd09::250"),
    ):
        lab.send(frame, BEHIND).slowpath(reason=1, packet=frame)
    other = Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst="10.9.0.251")
    lab.send(other, BEHIND).forwarded(FRONT, other)


def test_a_flood_for_the_cube_s_own_host_is_cut_and_flows_go_on(lab: Lab[Lbrp]) -> None:
    lab.reset(config(probe={"ip": "10.9.0.250/24", "mac": "02:00:00:00:00:77"}))
    with lab.limited(5):
        frame = Ether(src=ROUTER, dst="02:00:00:00:00:77") / IP(dst="10.9.0.250") / TCP(flags="SA")
        assert 5 <= lab.flooded(frame, BEHIND, 40, "control_limit") < 40
        chosen(lab, 4, 1000)


def test_services_come_and_go_without_a_trace(lab: Lab[Lbrp]) -> None:
    lab.edit(*(Edit(Op.DELETE, ("service", str(one.vip), str(one.vport), str(one.proto))) for one in lab.service.current.service.values()))
    maps = ("services", "targets", "members", "maglev_rows", "vips")
    assert {name: len(lab.cube.map(name)) for name in maps} == dict.fromkeys(maps, 0)


def test_another_port_of_a_backend_leaves_pings_alone(lab: Lab[Lbrp]) -> None:
    lab.reset(config(service(4, 2, "ALL")))
    for proto in ("TCP", "UDP"):
        lab.edit(Edit(Op.REPLACE, ("service", VIP[4], "80", proto, "backend", backend(4, 1), "port"), 9090))
    ports = [int.from_bytes(key["backend"]["port"].to_bytes(2, "little")) for key, _ in lab.cube.map("targets").items()]
    assert sorted(ports) == [0, 0, 8080, 8080, 9090, 9090]


@pytest.mark.parametrize(
    ("text", "path", "body"),
    [
        ("is a second FRONTEND port, beside p0: port_mode is SINGLE", ("ports", "p2"), {"type": "FRONTEND"}),
        ("is a second BACKEND port, beside p1", ("ports", "p2"), {"type": "BACKEND"}),
        ("is for frontends in port_mode MULTI", ("ports", "p2"), {"type": "FRONTEND", "ip": "10.0.0.1"}),
        ("ICMP has vport 0, and nothing else has", ("service", "10.96.0.9", "80", "ICMP"), {}),
        ("ICMP has vport 0, and nothing else has", ("service", "10.96.0.9", "0", "TCP"), {}),
        ("is not of the IP version of 10.96.0.9", ("service", "10.96.0.9", "80", "TCP"), {"backend": [{"ip": "fd00::1", "port": 1}]}),
        ("0 is no port to send to", ("service", "10.96.0.9", "80", "TCP"), {"backend": [{"ip": "10.0.0.1", "port": 0}]}),
        ("is no host's address", ("service", "10.96.0.9", "80", "TCP"), {"backend": [{"ip": "224.0.0.1", "port": 1}]}),
    ],
)
def test_what_can_t_be_configured(lab: Lab[Lbrp], text: str, path: tuple[str, ...], body: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=text):
        lab.edit(Edit(Op.CREATE, path, body))
    chosen(lab, 4, 1000)


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ({"ip-range": "10.0.0.0/24"}, "needs both"),
        ({"ip-range": "10.0.0.0/24", "new_ip_range": "10.1.0.0/16"}, "10.1.0.0/16 is not of the size of 10.0.0.0/24"),
        ({"ip-range": "10.0.0.0/24", "new_ip_range": "10.0.0.0/24"}, "is what it was"),
    ],
)
def test_ranges_that_can_t_be(lab: Lab[Lbrp], ranges: dict[str, str], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        lab.reset(config(**{"src-ip-rewrite": ranges}))
