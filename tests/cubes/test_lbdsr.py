# SPDX-License-Identifier: Apache-2.0
"""Packets through lbdsr, with its control plane: choice of servers, encapsulation byte for byte, answers for VIPs, changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from balancer_lab import Lab, decided, nonsense
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from polycube.cubes.lbdsr import Lbdsr
from polycube.model import Edit, ModelError, Op
from polycube.testing.harness import Chain, Hook

CLIENT, VIPS, GATEWAY, OWN = "02:00:00:00:00:0a", "02:00:00:00:00:99", "02:00:00:00:00:fe", "02:00:00:00:00:c1"
SERVER = [f"02:00:00:00:01:{number:02x}" for number in range(100)]
VIP4, VIP6, ONE4, ONE6 = "10.0.0.100", "fd00::100", "10.0.0.101", "fd00::101"
IN = Ether(src=CLIENT, dst=VIPS)
PORTS = [{"name": "p0", "type": "FRONTEND"}, {"name": "p1", "type": "BACKEND"}]
TCP_SERVICES = ("service", ONE4, "80", "TCP")


def servers(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "mac": SERVER[number], **more} for number in range(count)]


def reals(version: int, count: int = 1) -> list[dict[str, Any]]:
    return [{"id": number, "ip": f"192.0.2.{number + 1}" if version == 4 else f"2001:db8::{number + 1:x}"} for number in range(count)]


def config(**more: Any) -> dict[str, Any]:
    return {
        "ports": PORTS,
        "frontend": {"vip": VIP4, "mac": VIPS},
        "backend": {"pool": servers(4)},
        "service": [
            {"vip": VIP6, "vport": 0, "proto": "ALL", "backend": servers(4)},
            {"vip": ONE4, "vport": 80, "proto": "TCP", "backend": servers(2)},
        ],
        "outer": {"gateway": GATEWAY},
        **more,
    }


@pytest.fixture(scope="module", params=list(Hook), ids=str)
def standing(isolated: None, request: pytest.FixtureRequest) -> Iterator[Lab[Lbdsr]]:
    with Chain(request.param) as chain:
        yield Lab(chain.cube("lbdsr"), Lbdsr, config())


@pytest.fixture
def lab(standing: Lab[Lbdsr]) -> Lab[Lbdsr]:
    standing.reset(config(), forget=["flows"])
    return standing


def encapsulate(lab: Lab[Lbdsr], kind: str, outer: int, **more: Any) -> None:
    services = [{"vip": vip, "vport": 80, "proto": "TCP", "encapsulation": kind, "backend": reals(outer)} for vip in (ONE4, ONE6)]
    lab.reset(config(service=services), **more)


def test_the_server_s_mac_takes_the_place_of_the_vip_s(lab: Lab[Lbdsr]) -> None:
    for packet in (IP(src="10.1.1.1", dst=VIP4) / UDP(sport=7, dport=53) / b"x", IPv6(src="fd01::1", dst=VIP6) / TCP(sport=7, dport=443)):
        result = lab.send(IN / packet).forwarded(1)
        assert Ether(result.packet).dst in SERVER[:4]
        result.forwarded(1, Ether(src=OWN, dst=Ether(result.packet).dst) / packet)


def macs(lab: Lab[Lbdsr], flows: range = range(120)) -> dict[int, str]:
    """The server of each of some flows."""

    def one(flow: int) -> str:
        packet = IP(src="10.1.1.1", dst=VIP4) / UDP(sport=1000 + flow, dport=53) if flow % 2 else None
        return str(Ether(lab.send(IN / (packet or IPv6(src="fd01::1", dst=VIP6) / UDP(sport=1000 + flow))).forwarded(1).packet).dst)

    return {flow: one(flow) for flow in flows}


def flows_of(lab: Lab[Lbdsr]) -> list[int]:
    """How often each server of the two VIPs was chosen."""
    shown = lab.service.state()
    return [server["flows"] for servers in (shown["backend"]["pool"], shown["service"][0]["backend"]) for server in servers]


def test_flows_are_spread_and_keep_their_server(lab: Lab[Lbdsr]) -> None:
    before = flows_of(lab)
    first = macs(lab)
    assert set(first.values()) == set(SERVER[:4])
    assert all(10 < count < 60 for count in Counter(first.values()).values())
    assert macs(lab) == first
    chosen = [after - earlier for earlier, after in zip(before, flows_of(lab), strict=True)]
    assert sum(chosen) == 120 and all(chosen), "each flow is counted once"


@pytest.mark.parametrize("change", ["add", "remove", "drain", "weight 0"])
def test_a_change_moves_no_flow_that_can_stay(lab: Lab[Lbdsr], change: str) -> None:
    before = macs(lab, range(60))
    if change == "add":
        lab.edit(Edit(Op.CREATE, ("backend", "pool", "9"), {"mac": SERVER[9]}))
    elif change == "remove":
        lab.edit(Edit(Op.DELETE, ("backend", "pool", "1")))
    else:
        leaf, value = ("state", "DRAIN") if change == "drain" else ("weight", 0)
        lab.edit(Edit(Op.MERGE, ("backend", "pool", "1", leaf), value))
    after = macs(lab, range(60))
    for flow, mac in before.items():
        assert after[flow] == mac or (change == "remove" and mac == SERVER[1] and after[flow] in SERVER), (flow, mac)
    fresh = {mac for flow, mac in macs(lab, range(1000, 1080)).items() if flow % 2}
    assert (SERVER[1] in fresh) is (change == "add")
    assert (SERVER[9] in fresh) is (change == "add")


def test_without_a_flow_table_the_maglev_table_decides(lab: Lab[Lbdsr]) -> None:
    lab.reset(config(**{"flow-table-size": 0, "backend": {"pool": servers(100)}}))
    before = macs(lab, range(1, 200, 2))
    lab.edit(Edit(Op.DELETE, ("backend", "pool", "17")))
    after = macs(lab, range(1, 200, 2))
    moved = [flow for flow, mac in before.items() if mac != SERVER[17] and after[flow] != mac]
    assert len(moved) <= 8, "of 100 flows, 1.4 % are expected"
    assert len(lab.cube.map("flows")) == 0


def last_bytes(client: str, port: int) -> str:
    """The end of the outer IPv4 source, as Katran makes it."""
    end = [int(part) for part in client.split(".")[2:]] if "." in client else list(bytes.fromhex("0001"))
    return f"172.16.{end[0] ^ port & 0xFF}.{end[1] ^ port >> 8}"


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("tos", [0, 0xB9])
def test_ip_in_ip(lab: Lab[Lbdsr], outer: int, tos: int) -> None:
    encapsulate(lab, "IPIP", outer)
    for inner in (
        IP(src="10.1.2.3", dst=ONE4, tos=tos) / TCP(sport=0x1234, dport=80) / b"hello",
        IPv6(src="fd01::1", dst=ONE6, tc=tos) / TCP(sport=0x1234, dport=80) / b"hello",
    ):
        if outer == 4:
            header = IP(src=last_bytes(inner.src, 0x1234), dst="192.0.2.1", ttl=64, id=0, tos=tos, proto=4 if inner.version == 4 else 41)
        else:
            end = 0x0A010203 if inner.version == 4 else 1
            header = IPv6(src=f"100::{(end ^ 0x12340000) >> 16:x}:{end & 0xFFFF:x}", dst="2001:db8::1", hlim=64, tc=tos)
            header.nh = 4 if inner.version == 4 else 41
        lab.send(IN / inner).forwarded(1, Ether(src=OWN, dst=GATEWAY) / header / Raw(bytes(inner)))


@pytest.mark.parametrize("outer", [4, 6])
def test_gue(lab: Lab[Lbdsr], outer: int) -> None:
    encapsulate(lab, "GUE", outer)
    for inner in (
        IP(src="10.1.2.3", dst=ONE4) / TCP(sport=0x1234, dport=80) / b"hello",
        IPv6(src="fd01::1", dst=ONE6) / TCP(sport=0x1234, dport=80) / b"hello",
    ):
        raw = bytes(inner)
        source = raw[12:16] if inner.version == 4 else raw[8:24]
        if outer == 4:
            header = IP(src="172.16.0.0", dst="192.0.2.1", ttl=64, id=0)
            sport = bytes([source[-2] ^ 0x34, source[-1] ^ 0x12])
        else:
            header = IPv6(src="100::", dst="2001:db8::1", hlim=64)
            high, low = source[-2:] if inner.version == 4 else source[-4:-2]
            sport = bytes([high ^ 0x12, low ^ 0x34])
        udp = UDP(sport=int.from_bytes(sport, "big"), dport=6080, chksum=0)
        lab.send(IN / inner).forwarded(1, Ether(src=OWN, dst=GATEWAY) / header / udp / Raw(raw))


def test_a_server_s_own_mac_comes_before_the_gateway_s(lab: Lab[Lbdsr]) -> None:
    lab.reset(config(backend={"pool": [{"id": 1, "ip": "192.0.2.1", "mac": SERVER[7]}], "encapsulation": "IPIP"}))
    result = lab.send(IN / IP(src="10.1.1.1", dst=VIP4) / UDP()).forwarded(1)
    assert Ether(result.packet).dst == SERVER[7]


def test_tagged_packets_are_switched_but_not_encapsulated(lab: Lab[Lbdsr]) -> None:
    tagged = Ether(src=CLIENT, dst=VIPS) / Dot1Q(vlan=5) / Dot1Q(vlan=6)
    encapsulate(lab, "IPIP", 4)
    assert Ether(lab.send(tagged / IP(dst=VIP4) / UDP()).forwarded(1).packet)[Dot1Q].vlan == 5
    lab.send(tagged / IP(dst=ONE4) / TCP(dport=80)).dropped("tagged")


@pytest.mark.parametrize(("kind", "outer", "more"), [("IPIP", 4, 20), ("IPIP", 6, 40), ("GUE", 4, 28), ("GUE", 6, 48)])
def test_what_is_too_big_once_encapsulated_is_answered(lab: Lab[Lbdsr], kind: str, outer: int, more: int) -> None:
    encapsulate(lab, kind, outer, mtu=1400)
    fits = IP(src="10.1.2.3", dst=ONE4) / TCP(dport=80) / bytes(1400 - more - 40)
    lab.send(IN / fits).forwarded(1)
    large = IP(src="10.1.2.3", dst=ONE4, flags="DF") / TCP(dport=80) / bytes(1400 - more - 39)
    lab.send(IN / large).slowpath(reason=2)
    large6 = IPv6(src="fd01::1", dst=ONE6) / TCP(dport=80) / bytes(1400 - more - 59)
    lab.send(IN / large6).slowpath(reason=2)
    (port, data), (port6, data6) = lab.sent
    answer, answer6 = Ether(data), Ether(data6)
    assert (port, port6) == (0, 0)
    assert (answer.src, answer.dst, answer[IP].src, answer[IP].dst) == (VIPS, CLIENT, ONE4, "10.1.2.3")
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, 1400 - more)
    assert (answer6.src, answer6.dst, answer6[IPv6].src, answer6[IPv6].dst) == (VIPS, CLIENT, ONE6, "fd01::1")
    assert answer6[ICMPv6PacketTooBig].mtu == 1400 - more
    lab.send(IN / IP(src="10.1.2.3", dst=VIP4) / UDP() / bytes(1400)).forwarded(1)


def test_a_flood_of_what_is_too_big_is_cut_and_flows_go_on(lab: Lab[Lbdsr]) -> None:
    encapsulate(lab, "IPIP", 4, mtu=1400)
    with lab.limited(5):
        large = IN / IP(src="10.1.2.3", dst=ONE4, flags="DF") / TCP(dport=80) / bytes(1400)
        assert 5 <= lab.flooded(large, 0, 40, "too_big") < 40
        lab.send(IN / IP(src="10.1.2.3", dst=ONE4) / TCP(dport=80)).forwarded(1)


def test_an_icmp_error_goes_to_the_server_that_it_is_for(lab: Lab[Lbdsr]) -> None:
    mine = macs(lab, range(1, 40, 2))
    for flow, mac in mine.items():
        sent = IP(src=VIP4, dst="10.1.1.1") / UDP(sport=53, dport=1000 + flow) / bytes(20)
        error = IP(src="10.7.7.7", dst=VIP4) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(bytes(sent)[:28])
        assert Ether(lab.send(IN / error).forwarded(1).packet).dst == mac
    mine6 = macs(lab, range(0, 40, 2))
    for flow, mac in mine6.items():
        sent6 = IPv6(src=VIP6, dst="fd01::1") / UDP(sport=53, dport=1000 + flow) / bytes(20)
        error6 = IPv6(src="fd07::7", dst=VIP6) / ICMPv6DestUnreach(code=1) / Raw(bytes(sent6))
        assert Ether(lab.send(IN / error6).forwarded(1).packet).dst == mac


def test_all_fragments_go_to_one_server(lab: Lab[Lbdsr]) -> None:
    for id in range(20):
        first = IP(src="10.1.1.1", dst=ONE4, id=id, flags="MF") / TCP(sport=2000 + id, dport=80) / bytes(12)
        later = IP(src="10.1.1.1", dst=ONE4, id=id, frag=4, proto=6) / bytes(40)
        assert Ether(lab.send(IN / first).forwarded(1).packet).dst == Ether(lab.send(IN / later).forwarded(1).packet).dst
    lab.send(IN / IP(src="10.1.1.1", dst=ONE4, id=999, frag=4, proto=6) / bytes(40)).dropped("untrackable")


def test_vips_are_answered_for(lab: Lab[Lbdsr]) -> None:
    for vip in (VIP4, ONE4):
        request = Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=CLIENT, psrc="10.0.0.1", pdst=vip)
        answer = Ether(src=VIPS, dst=CLIENT) / ARP(op=2, hwsrc=VIPS, psrc=vip, hwdst=CLIENT, pdst="10.0.0.1")
        lab.send(request).forwarded(0, answer)
    solicit = Ether(src=CLIENT, dst="33:33:ff:00:01:00") / IPv6(src="fd00::1", dst="ff02::1:ff00:100", hlim=255)
    solicit /= ICMPv6ND_NS(tgt=VIP6) / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT)
    advert = Ether(src=VIPS, dst=CLIENT) / IPv6(src=VIP6, dst="fd00::1", hlim=255)
    advert /= ICMPv6ND_NA(tgt=VIP6, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=VIPS)
    lab.send(solicit).forwarded(0, advert)


def test_others_are_not_answered_for(lab: Lab[Lbdsr]) -> None:
    lab.send(Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst="10.0.0.7")).dropped("arp_ignored")
    lab.send(Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff") / ARP(op=2, pdst=VIP4)).dropped("arp_ignored")
    solicit = Ether(src=CLIENT, dst="33:33:ff:00:01:00") / IPv6(src="fd00::1", dst="ff02::1:ff00:100", hlim=255)
    lab.send(solicit / ICMPv6ND_NS(tgt="fd00::200") / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT)).dropped("arp_ignored")
    lab.send(Ether(src=CLIENT, dst=VIPS) / IPv6(src="::", dst=VIP6, hlim=255) / ICMPv6ND_NS(tgt=VIP6)).dropped("arp_ignored")
    far = Ether(src=CLIENT, dst=VIPS) / IPv6(src="fd00::1", dst=VIP6, hlim=64) / ICMPv6ND_NS(tgt=VIP6)
    lab.send(far / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT)).dropped("arp_ignored")


@pytest.mark.parametrize("layer", [{"proto": 47}, {"proto": 1}], ids=["gre", "ping"])
def test_what_has_no_port_is_for_the_pool_too(lab: Lab[Lbdsr], layer: dict[str, int]) -> None:
    payload = ICMP(id=0) if layer["proto"] == 1 else Raw(bytes(20))
    lab.send(IN / IP(src="10.1.1.1", dst=VIP4, **layer) / payload).forwarded(1)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Ether(src=CLIENT, dst=SERVER[0]) / IP(dst=VIP4) / UDP(), "other_mac"),
        (IN / IP(dst="10.0.0.7") / UDP(), "no_service"),
        (IN / IP(dst=ONE4) / TCP(dport=81), "no_service"),
        (IN / IP(dst=ONE4) / UDP(dport=80), "no_service"),
        (IN / IP(dst=ONE4) / TCP(dport=80, flags="SF"), "untrackable"),
        (IN / IP(dst=ONE4) / ICMP(type=13), "untrackable"),
        (Ether(src=CLIENT, dst=VIPS, type=0x88B5) / bytes(46), "not_ip"),
        (Ether(bytes(IN / IP(dst=VIP4) / TCP())[:40]), "malformed"),
        (IN / IP(dst=VIP4, len=2000) / UDP(), "malformed"),
        (IN / IP(dst=VIP4, ihl=4) / UDP(), "malformed"),
        (Ether(bytes(IN / IPv6(dst=VIP6) / UDP())[:50]), "malformed"),
        (IN / IP(src="10.1.1.1", dst=VIP4) / ICMP(type=3) / Raw(bytes(IP() / UDP())[:24]), "malformed"),
    ],
)
def test_what_is_dropped(lab: Lab[Lbdsr], packet: Any, reason: str) -> None:
    lab.send(packet).dropped(reason)


@pytest.mark.parametrize("kind", ["IPIP", "GUE"])
def test_no_frame_is_without_a_verdict(lab: Lab[Lbdsr], kind: str) -> None:
    encapsulate(lab, kind, 6)
    good = [IN / IP(dst=ONE4) / TCP(dport=80), IN / IPv6(dst=ONE6) / TCP(dport=80), IN / IP(dst=VIP4) / UDP(), IN / ARP(pdst=VIP4)]
    good += [IN / IP(dst=VIP4) / ICMP(type=3) / Raw(bytes(IP(src=VIP4) / UDP())), IN / IPv6(dst=VIP6) / ICMPv6ND_NS(tgt=VIP6)]
    for frame in nonsense(good, 300):
        assert decided(lab.cube.send(frame)), frame.hex()


def test_nothing_comes_from_the_backends(lab: Lab[Lbdsr]) -> None:
    lab.send(IN / IP(src=VIP4) / UDP(), port=1).dropped("backend_side")


def test_a_service_without_servers(lab: Lab[Lbdsr]) -> None:
    lab.edit(Edit(Op.DELETE, (*TCP_SERVICES, "backend")))
    lab.send(IN / IP(dst=ONE4) / TCP(dport=80)).dropped("no_backend")


def test_services_come_and_go(lab: Lab[Lbdsr]) -> None:
    lab.edit(Edit(Op.CREATE, ("service", "10.0.0.102", "53", "UDP"), {"backend": servers(3)}))
    lab.send(IN / IP(dst="10.0.0.102") / UDP(dport=53)).forwarded(1)
    lab.edit(Edit(Op.DELETE, ("service", "10.0.0.102", "53", "UDP")))
    lab.send(IN / IP(dst="10.0.0.102") / UDP(dport=53)).dropped("no_service")
    lab.edit(Edit(Op.DELETE, TCP_SERVICES), Edit(Op.DELETE, ("service", VIP6, "0", "ALL")), Edit(Op.DELETE, ("frontend", "vip")))
    assert [len(lab.cube.map(name)) for name in ("services", "backends", "members", "maglev_rows", "vips")] == [0] * 5


def test_what_can_t_be_configured(lab: Lab[Lbdsr]) -> None:
    def refused(text: str, *path: str, **body: Any) -> None:
        with pytest.raises(ModelError, match=text):
            lab.edit(Edit(Op.CREATE, path, body))

    refused("is a second BACKEND port, beside p1", "ports", "p9", type="BACKEND")
    refused("needs a mac", "backend", "pool", "77", ip="10.0.0.1")
    refused("is a group address", "backend", "pool", "77", mac="01:00:5e:00:00:01")
    refused("goes with port 0 only", "service", "10.0.0.7", "80", "ALL")
    refused("is the VIP of the frontend", "service", VIP4, "0", "ALL")
    refused("needs an ip: packets reach it by GUE", "service", "10.0.0.7", "80", "TCP", encapsulation="GUE", backend=servers(1))
    check = {"type": "TCP"}
    refused("needs an ip to be checked at", "service", "10.0.0.7", "80", "TCP", **{"health-check": check, "backend": servers(1)})
    unknown = {"health-check": check, "backend": servers(1, ip="10.0.0.9")}
    refused("health-check needs a port", "service", "10.0.0.7", "0", "ALL", **unknown)
    macs(lab, range(20))
