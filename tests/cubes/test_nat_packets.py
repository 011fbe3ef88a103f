# SPDX-License-Identifier: Apache-2.0
"""nat's data plane: packets in, packets out, both hooks, both IP versions."""

import pytest
from nat_lab import EXTERNAL, INSIDE, OTHER, REMOTE, E, back, clear, configure, echo, ends, out, packet, sums_are_right, table, tcp, udp
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NS, ICMPv6PacketTooBig, IPerror6, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether

from polycube.testing.harness import Chain, Hook

versions = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module", params=list(Hook))
def shared(isolated, request):
    """One cube for all tests of a hook: the verifier takes its time."""
    with Chain(request.param) as chain:
        yield chain.cube("nat", transparent=True)


@pytest.fixture
def nat(shared):
    clear(shared)
    configure(shared)
    return shared


def masquerading(nat, **more):
    configure(nat, masquerade=EXTERNAL.values(), **more)


@versions
@pytest.mark.parametrize("transport", [tcp(4000, 80), udp(4000, 80)], ids=["tcp", "udp"])
def test_masquerading(nat, version, transport):
    masquerading(nat)
    sent = packet(INSIDE[version], REMOTE[version], transport)
    seen = out(nat, sent)
    assert seen == Ether(bytes(packet(EXTERNAL[version], REMOTE[version], transport))), "a port that is free stays"
    flags = {"flags": "SA", "ack": 1} if TCP in sent else {}
    answer = (tcp if TCP in sent else udp)(80, 4000, **flags)
    assert back(nat, packet(REMOTE[version], EXTERNAL[version], answer)) == Ether(bytes(packet(REMOTE[version], INSIDE[version], answer)))
    assert table(nat) == [((INSIDE[version], 4000), (REMOTE[version], 80), (EXTERNAL[version], 4000))]
    assert len(nat.map("twins")) == 1


@versions
def test_echo(nat, version):
    masquerading(nat)
    assert ends(out(nat, packet(INSIDE[version], REMOTE[version], echo(version, 7))))[0] == (EXTERNAL[version], 7)
    second = out(nat, packet(OTHER[version], REMOTE[version], echo(version, 7)))
    id = ends(second)[0][1]
    assert id != 7
    assert sums_are_right(second)
    for host, number, sent in ((INSIDE, 7, 7), (OTHER, 7, id)):
        answer = back(nat, packet(REMOTE[version], EXTERNAL[version], echo(version, sent, reply=True)))
        assert answer == Ether(bytes(packet(REMOTE[version], host[version], echo(version, number, reply=True))))


@versions
def test_hosts_with_the_same_port_get_different_ones_towards_one_destination(nat, version):
    masquerading(nat)
    ports = []
    for number in range(1, 20):
        source = f"10.0.0.{number}" if version == 4 else f"fd00::{number:x}"
        seen = out(nat, packet(source, REMOTE[version], udp(4000, 53)))
        assert sums_are_right(seen)
        ports.append(ends(seen)[0][1])
    assert ports[0] == 4000
    assert len(set(ports)) == 19
    assert all(port >= 1024 for port in ports)
    for number, port in enumerate(ports, 1):
        answer = back(nat, packet(REMOTE[version], EXTERNAL[version], udp(53, port)))
        assert ends(answer)[1] == (f"10.0.0.{number}" if version == 4 else f"fd00::{number:x}", 4000)


def test_towards_different_destinations_a_port_is_used_again(nat):
    masquerading(nat)
    for remote in ("198.51.100.1", "198.51.100.2"):
        for host in ("10.0.0.1", "10.0.0.2"):
            out(nat, packet(host, remote, udp(4000, 53)))
    assert [external[1] for _, _, external in table(nat)].count(4000) == 2


def test_ports_come_from_the_range(nat):
    masquerading(nat, first_port=5000, last_port=5003)
    ports = {ends(out(nat, packet(f"10.0.0.{number}", REMOTE[4], udp(80, 53))))[0][1] for number in range(1, 4)}
    assert ports < {5000, 5001, 5002, 5003}


def test_exhaustion_is_counted_and_known_sessions_go_on(nat):
    masquerading(nat, first_port=5000, last_port=5001)
    seen = [out(nat, packet(f"10.0.0.{number}", REMOTE[4], udp(80, 53))) for number in range(1, 5)]
    assert seen[2:] == ["ports_exhausted"] * 2
    assert len(table(nat)) == len(nat.map("twins")) == 2
    for number, first in enumerate(seen[:2], 1):
        assert bytes(out(nat, packet(f"10.0.0.{number}", REMOTE[4], udp(80, 53)))) == bytes(first)
    assert ends(out(nat, packet("10.0.0.3", "198.51.100.77", udp(80, 53))))[0][1] in (5000, 5001), "towards another one there are"


def test_a_full_table_is_counted_and_known_sessions_go_on(cube):
    nat = cube("nat", transparent=True, sizes={"sessions": 4})
    masquerading(nat)
    results = [out(nat, packet("10.0.0.1", REMOTE[4], udp(number, 53))) for number in range(2000, 2020)]
    kept = len(nat.map("sessions"))
    assert results.count("table_full") == 20 - kept > 0
    assert sum(nat.map("ct_failures").percpu(0)) == 20 - kept
    assert len(nat.map("twins")) == kept, "what found no room leaves nothing behind"
    for (host, port), _, _ in table(nat):
        assert ends(out(nat, packet(host, REMOTE[4], udp(port, 53))))[0] == (EXTERNAL[4], port)


def test_the_longest_prefix_wins_and_masquerading_is_the_shortest(nat):
    masquerading(
        nat,
        snat=[
            {"internal-net": "10.0.0.0/8", "external-ip": "192.0.2.8"},
            {"internal-net": "10.0.1.0/24", "external-ip": "192.0.2.24"},
            {"internal-net": "fd00:1::/32", "external-ip": "2001:db8:1::32"},
        ],
    )
    for source, external in [
        ("10.7.0.1", "192.0.2.8"),
        ("10.0.1.1", "192.0.2.24"),
        ("172.16.0.1", EXTERNAL[4]),
        ("fd00:1::1", "2001:db8:1::32"),
        ("fd00:2::1", EXTERNAL[6]),
    ]:
        version = 6 if ":" in source else 4
        assert ends(out(nat, packet(source, REMOTE[version], udp(9, 9))))[0] == (
            external,
            ends(out(nat, packet(source, REMOTE[version], udp(9, 9))))[0][1],
        )


@versions
def test_what_no_rule_translates_passes(nat, version):
    for transport in (tcp(4000, 80), udp(4000, 80), echo(version, 7), tcp(4000, 80, "A")):
        sent = packet(INSIDE[version], REMOTE[version], transport)
        nat.send(sent, direction="egress").forwarded(packet=sent)
        nat.send(sent, direction="ingress").forwarded(packet=sent)
    assert not table(nat)


@versions
def test_destination_rules_from_the_most_specific(nat, version):
    inside = {number: (f"10.0.0.{number}" if version == 4 else f"fd00::{number}") for number in (1, 2, 3)}
    forwarding = {"external-ip": EXTERNAL[version], "external-port": 8080}
    configure(
        nat,
        dnat=[{"external-ip": EXTERNAL[version], "internal-ip": inside[1]}],
        port_forwarding=[
            {**forwarding, "proto": "all", "internal-ip": inside[2], "internal-port": 80},
            {**forwarding, "proto": "tcp", "internal-ip": inside[3], "internal-port": 81},
        ],
    )
    for transport, to in [
        (tcp(5000, 8080), (inside[3], 81)),
        (udp(5000, 8080), (inside[2], 80)),
        (tcp(5000, 22), (inside[1], 22)),
        (echo(version, 9), (inside[1], 9)),
    ]:
        seen = back(nat, packet(REMOTE[version], EXTERNAL[version], transport))
        assert ends(seen)[1] == to
        assert sums_are_right(seen)
    answer = out(nat, packet(inside[3], REMOTE[version], tcp(81, 5000, "SA", ack=1)))
    assert ends(answer) == ((EXTERNAL[version], 8080), (REMOTE[version], 5000))
    assert sums_are_right(answer)
    assert ends(out(nat, packet(inside[1], REMOTE[version], echo(version, 9, reply=True))))[0] == (EXTERNAL[version], 9)


def test_a_forwarded_host_is_not_translated_when_it_opens_a_session_itself(nat):
    configure(nat, dnat=[{"external-ip": EXTERNAL[4], "internal-ip": INSIDE[4]}])
    sent = packet(INSIDE[4], REMOTE[4], udp(1, 2))
    nat.send(sent, direction="egress").forwarded(packet=sent)


@versions
def test_unsolicited_packets_pass_unchanged_to_whom_they_are_for(nat, version):
    masquerading(nat)
    out(nat, packet(INSIDE[version], REMOTE[version], udp(4000, 53)))
    for sent in (packet(REMOTE[version], EXTERNAL[version], udp(54, 4000)), packet(OTHER[version], EXTERNAL[version], udp(53, 4000))):
        nat.send(sent, direction="ingress").forwarded(packet=sent)


def test_the_own_traffic_of_the_masquerading_address_keeps_its_ports_from_others(nat):
    masquerading(nat)
    own = packet(EXTERNAL[4], REMOTE[4], udp(4000, 53))
    nat.send(own, direction="egress").forwarded(packet=own)
    assert ends(out(nat, packet(INSIDE[4], REMOTE[4], udp(4000, 53))))[0][1] != 4000
    nat.send(packet(EXTERNAL[4], REMOTE[4], tcp(22, 9, "SA")), direction="egress").forwarded(
        packet=packet(EXTERNAL[4], REMOTE[4], tcp(22, 9, "SA"))
    )
    nat.send(packet(EXTERNAL[4], REMOTE[4], echo(4, 1, True)), direction="egress").forwarded()


def test_a_connection_that_stands_is_translated_from_its_middle_but_a_reset_is_not(nat):
    masquerading(nat)
    assert out(nat, packet(INSIDE[4], REMOTE[4], tcp(4000, 80, "R"))) == "no_session"
    assert out(nat, packet(INSIDE[4], REMOTE[4], echo(4, 3, reply=True))) == "no_session"
    assert ends(out(nat, packet(INSIDE[4], REMOTE[4], tcp(4000, 80, "A", seq=9, ack=10))))[0] == (EXTERNAL[4], 4000)


def test_group_and_link_traffic_keeps_its_addresses(nat):
    masquerading(nat)
    for sent in (
        packet("0.0.0.0", "255.255.255.255", udp(68, 67)),
        packet(INSIDE[4], "224.0.0.251", udp(5353, 5353)),
        packet("fe80::1", "ff02::1:2", udp(546, 547)),
        packet("fe80::1", REMOTE[6], udp(546, 547)),
        E / IPv6(src=INSIDE[6], dst="ff02::1") / ICMPv6ND_NS(),
        E / ARP(psrc=INSIDE[4], pdst=EXTERNAL[4]),
        Ether(src=E.src, dst=E.dst, type=0x88CC) / bytes(46),
    ):
        for direction in ("egress", "ingress"):
            nat.send(sent, direction=direction).forwarded(packet=sent)
    assert not table(nat)


@pytest.mark.parametrize("tag", [Dot1Q(vlan=5), Dot1Q(vlan=5) / Dot1Q(vlan=6)])
def test_tags_stay(nat, tag):
    masquerading(nat)
    sent, expected = (packet(source, REMOTE[4], udp(4000, 53)) for source in (INSIDE[4], EXTERNAL[4]))
    nat.send(E / tag / sent.payload, direction="egress").forwarded(packet=E / tag / expected.payload)


def test_options_of_the_header_stay(nat):
    masquerading(nat)
    options = b"\x94\x04\x00\x00"
    assert out(nat, packet(INSIDE[4], REMOTE[4], tcp(4000, 80), options=[])) is not None
    raw = E / IP(src=INSIDE[4], dst=REMOTE[4], options=[options]) / udp(4001, 53)
    nat.send(raw, direction="egress").forwarded(packet=E / IP(src=EXTERNAL[4], dst=REMOTE[4], options=[options]) / udp(4001, 53))


@versions
def test_other_protocols_by_their_addresses(nat, version):
    masquerading(nat)
    assert out(nat, packet(INSIDE[version], REMOTE[version], GRE())) == Ether(bytes(packet(EXTERNAL[version], REMOTE[version], GRE())))
    assert back(nat, packet(REMOTE[version], EXTERNAL[version], GRE())) == Ether(bytes(packet(REMOTE[version], INSIDE[version], GRE())))
    assert out(nat, packet(OTHER[version], REMOTE[version], GRE())) == "ports_exhausted", "answers could not be told apart"


def test_no_udp_checksum_stays_none(nat):
    masquerading(nat)
    sent = E / IP(src=INSIDE[4], dst=REMOTE[4]) / UDP(sport=1, dport=2, chksum=0) / b"data"
    assert out(nat, sent)[UDP].chksum == 0


@versions
def test_fragments(nat, version):
    masquerading(nat)
    out(nat, packet(OTHER[version], REMOTE[version], udp(4000, 53)))  # so that the port must change
    whole = bytes(packet(INSIDE[version], REMOTE[version], udp(4000, 53), bytes(992))[UDP])

    def piece(source, at, more, payload):
        if version == 4:
            return E / IP(src=source, dst=REMOTE[4], id=77, proto=17, frag=at // 8, flags="MF" if more else 0) / payload
        return E / IPv6(src=source, dst=REMOTE[6]) / IPv6ExtHdrFragment(id=77, nh=17, offset=at // 8, m=int(more)) / payload

    assert out(nat, piece(INSIDE[version], 504, False, whole[504:])) == "no_session", "before the first"
    first = out(nat, piece(INSIDE[version], 0, True, whole[:504]))
    later = out(nat, piece(INSIDE[version], 504, False, whole[504:]))
    assert later == Ether(bytes(piece(EXTERNAL[version], 504, False, whole[504:])))
    payload = bytes(first[UDP]) if UDP in first else bytes(first.lastlayer())
    port = int.from_bytes(payload[:2], "big")
    assert port != 4000
    joined = packet(EXTERNAL[version], REMOTE[version], udp(port, 53), bytes(992))
    assert payload + whole[504:] == bytes(joined[UDP]), "the checksum is that of the whole"


def error_in(version, quoted, kind="unreachable"):
    """An ICMP error by a router outside to the external address."""
    if version == 4:
        return E / IP(src="198.51.100.1", dst=EXTERNAL[4]) / ICMP(type=3, code=4, nexthopmtu=1400) / quoted
    return (
        E / IPv6(src="2001:db8:5::1", dst=EXTERNAL[6]) / (ICMPv6PacketTooBig(mtu=1400) if kind == "big" else ICMPv6DestUnreach()) / quoted
    )


@versions
@pytest.mark.parametrize("whole", [False, True], ids=["8 bytes", "all"])
@pytest.mark.parametrize("transport", ["tcp", "udp", "echo"])
def test_errors_from_outside_find_the_inside_host(nat, version, transport, whole):
    masquerading(nat)
    made = {"tcp": tcp(4000, 80), "udp": udp(4000, 80), "echo": echo(version, 4000)}[transport]
    out(nat, packet(OTHER[version], REMOTE[version], made))
    sent = packet(INSIDE[version], REMOTE[version], made)
    seen = out(nat, sent)
    header = 20 if version == 4 else 40
    cut = None if whole else header + 8
    got = back(nat, error_in(version, bytes(seen.payload)[:cut]))
    assert sums_are_right(got)
    layer = got[IP] if version == 4 else got[IPv6]
    assert layer.dst == INSIDE[version]
    assert bytes(layer.payload)[8 : 8 + len(bytes(sent.payload)[:cut])] == bytes(sent.payload)[:cut], "it quotes what the host has sent"


@versions
@pytest.mark.parametrize("reporter", [INSIDE, OTHER], ids=["the host", "a router"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_errors_from_inside_quote_what_was_sent_outside(nat, version, transport, reporter):
    configure(
        nat,
        port_forwarding=[{"external-ip": EXTERNAL[version], "external-port": 8080, "internal-ip": INSIDE[version], "internal-port": 80}],
    )
    made = {"tcp": tcp(5000, 8080), "udp": udp(5000, 8080)}[transport]
    sent = packet(REMOTE[version], EXTERNAL[version], made)
    seen = back(nat, sent)
    if version == 4:
        error = E / IP(src=reporter[4], dst=REMOTE[4]) / ICMP(type=3, code=3) / bytes(seen.payload)
    else:
        error = E / IPv6(src=reporter[6], dst=REMOTE[6]) / ICMPv6DestUnreach(code=4) / bytes(seen.payload)
    got = out(nat, error)
    assert sums_are_right(got)
    layer = got[IP] if version == 4 else got[IPv6]
    assert (layer.src, layer.dst) == (EXTERNAL[version], REMOTE[version])
    assert bytes(layer.payload)[8:] == bytes(sent.payload)


def test_errors_about_nothing_known(nat):
    masquerading(nat)
    quoted = IPerror(src=EXTERNAL[4], dst=REMOTE[4]) / UDPerror(sport=1, dport=2)
    stray = error_in(4, quoted)
    nat.send(stray, direction="ingress").forwarded(packet=stray)
    hidden = E / IP(src=INSIDE[4], dst=REMOTE[4]) / ICMP(type=3) / IPerror(src=REMOTE[4], dst=INSIDE[4]) / TCPerror()
    assert out(nat, hidden) == "no_session"
    own = E / IP(src=EXTERNAL[4], dst=REMOTE[4]) / ICMP(type=3) / IPerror(src=REMOTE[4], dst=EXTERNAL[4]) / TCPerror()
    nat.send(own, direction="egress").forwarded(packet=own)
    six = E / IPv6(src=INSIDE[6], dst=REMOTE[6]) / ICMPv6DestUnreach() / IPerror6(src=REMOTE[6], dst=INSIDE[6]) / UDPerror()
    assert out(nat, six) == "no_session"


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize(
    "frame",
    [
        bytes(packet(INSIDE[4], REMOTE[4], tcp(1, 2)))[:30],
        bytes(packet(INSIDE[4], REMOTE[4], tcp(1, 2)))[:40],
        bytes(packet(INSIDE[6], REMOTE[6], tcp(1, 2)))[:50],
        bytes(packet(INSIDE[4], REMOTE[4], tcp(1, 2), len=2000)),
        bytes(packet(INSIDE[4], REMOTE[4], udp(1, 2), b"", len=24)),
        bytes(packet(INSIDE[4], REMOTE[4], tcp(1, 2, dataofs=4))),
        bytes(E / IP(src=INSIDE[4], dst=EXTERNAL[4]) / ICMP(type=3) / bytes(10)),
    ],
)
def test_malformed_packets_are_dropped(nat, frame, direction):
    masquerading(nat)
    nat.send(frame, direction=direction).dropped("malformed")


# ---- rules that change, sessions that end ----


def test_changed_rules_leave_sessions_alone(nat):
    configure(nat, snat=[{"internal-net": "10.0.0.0/24", "external-ip": "192.0.2.1"}])
    sent = packet(INSIDE[4], REMOTE[4], udp(4000, 53))
    out(nat, sent)
    for rules in ({"snat": [{"internal-net": "10.0.0.0/24", "external-ip": "192.0.2.2"}]}, {}):
        configure(nat, **rules)
        assert ends(out(nat, sent))[0] == ("192.0.2.1", 4000)
    nat.map("sessions").clear()
    nat.map("twins").clear()
    nat.send(sent, direction="egress").forwarded(packet=sent)


def expire(nat):
    for key, value in nat.map("sessions").items():
        value["ct"]["expires"] = 1
        nat.map("sessions")[key] = value


def test_an_expired_session_makes_room_for_a_new_one_both_ways(nat):
    masquerading(nat)
    out(nat, packet(INSIDE[4], REMOTE[4], udp(4000, 53)))
    expire(nat)
    answer = packet(REMOTE[4], EXTERNAL[4], udp(53, 4000))
    nat.send(answer, direction="ingress").forwarded(packet=answer)
    assert not table(nat)
    assert not len(nat.map("twins"))
    out(nat, packet(INSIDE[4], REMOTE[4], udp(4000, 53)))
    expire(nat)
    configure(nat, masquerade=["192.0.2.99"])
    assert ends(out(nat, packet(INSIDE[4], REMOTE[4], udp(4000, 53))))[0] == ("192.0.2.99", 4000)
    assert len(nat.map("twins")) == len(table(nat)) == 1


def test_a_forwarded_port_takes_the_place_of_an_expired_session(nat):
    masquerading(nat, port_forwarding=[{"external-ip": EXTERNAL[4], "external-port": 4000, "internal-ip": OTHER[4], "internal-port": 80}])
    out(nat, packet(INSIDE[4], REMOTE[4], udp(4000, 53)))
    expire(nat)
    assert ends(back(nat, packet(REMOTE[4], EXTERNAL[4], udp(53, 4000))))[1] == (OTHER[4], 80)
    assert len(nat.map("twins")) == len(table(nat)) == 1


def test_two_external_addresses_for_one_server_and_one_client_port_conflict(nat):
    configure(nat, dnat=[{"external-ip": f"192.0.2.{number}", "internal-ip": INSIDE[4]} for number in (1, 2)])
    back(nat, packet(REMOTE[4], "192.0.2.1", udp(5, 80)))
    assert back(nat, packet(REMOTE[4], "192.0.2.2", udp(5, 80))) == "conflict"
    assert len(nat.map("twins")) == len(table(nat)) == 1


# ---- endpoint-independent behaviour ----


@versions
def test_endpoint_independent_mapping(nat, version):
    masquerading(nat, any_mapping=1)
    seen = {ends(out(nat, packet(INSIDE[version], REMOTE[version], udp(4000, port))))[0] for port in (53, 54, 55)}
    assert seen == {(EXTERNAL[version], 4000)}
    assert ends(out(nat, packet(OTHER[version], REMOTE[version], udp(4000, 99))))[0][1] != 4000, "the port is taken, whoever it talks to"
    stranger = packet(REMOTE[version], EXTERNAL[version], udp(77, 4000))
    nat.send(stranger, direction="ingress").forwarded(packet=stranger)


@versions
def test_endpoint_independent_filtering(nat, version):
    masquerading(nat, any_mapping=1, any_filter=1)
    out(nat, packet(INSIDE[version], REMOTE[version], udp(4000, 53)))
    assert ends(back(nat, packet(REMOTE[version], EXTERNAL[version], udp(77, 4000))))[1] == (INSIDE[version], 4000)
    assert ends(out(nat, packet(INSIDE[version], REMOTE[version], udp(4000, 77))))[0] == (EXTERNAL[version], 4000)
    stranger = packet(REMOTE[version], EXTERNAL[version], udp(77, 4001))
    nat.send(stranger, direction="ingress").forwarded(packet=stranger)
    stranger = packet(REMOTE[version], EXTERNAL[version], tcp(77, 4000))
    nat.send(stranger, direction="ingress").forwarded(packet=stranger)


# ---- from inside to inside ----


@versions
def test_hairpin(nat, version):
    masquerading(
        nat,
        port_forwarding=[{"external-ip": EXTERNAL[version], "external-port": 8080, "internal-ip": OTHER[version], "internal-port": 80}],
    )

    def turned(sent):
        (event,) = nat.send(sent, direction="egress").events
        assert event.reason == 1
        return event.packet

    call = turned(packet(INSIDE[version], EXTERNAL[version], tcp(4000, 8080)))
    arrived = back(nat, call)
    assert ends(arrived) == ((EXTERNAL[version], 4000), (OTHER[version], 80))
    assert sums_are_right(arrived)
    answer = turned(packet(OTHER[version], EXTERNAL[version], tcp(80, 4000, "SA", ack=1)))
    arrived = back(nat, answer)
    assert ends(arrived) == ((EXTERNAL[version], 8080), (INSIDE[version], 4000))
    assert sums_are_right(arrived)
    assert len(nat.map("twins")) == len(table(nat)) == 2


# ---- prefix translation ----

NPT = {"internal-prefix": "fd01:203:405::/48", "external-prefix": "2001:db8:1::/48"}


def test_prefix_translation_as_in_the_rfcs_example(nat):
    """RFC 6296, 2.6... 3.1: FD01:0203:0405:0001::1234 becomes 2001:0DB8:0001:D550::1234."""
    configure(nat, prefix_translation=[NPT])
    seen = out(nat, packet("fd01:203:405:1::1234", REMOTE[6], udp(1, 2)))
    assert ends(seen)[0] == ("2001:db8:1:d550::1234", 1)
    assert sums_are_right(seen)
    answer = back(nat, packet(REMOTE[6], "2001:db8:1:d550::1234", udp(2, 1)))
    assert ends(answer)[1] == ("fd01:203:405:1::1234", 1)
    assert sums_are_right(answer)
    assert not table(nat)


@pytest.mark.parametrize("length", [32, 40, 48, 56, 60, 64])
@pytest.mark.parametrize("host", ["::1", "1:2:3:4", "ffff:1:2:3", "ffff:ffff:0:9"])
def test_prefix_translation_is_one_to_one(nat, length, host):
    rule = {"internal-prefix": f"fd01:203:405:6700::/{length}", "external-prefix": f"2001:db8:aaaa:bb00::/{length}"}
    configure(nat, prefix_translation=[rule])
    inside = "fd01:203:405:6700:" + (host if host != "::1" else ":1")
    seen = out(nat, packet(inside, REMOTE[6], udp(1, 2)))
    assert sums_are_right(seen)
    outside = ends(seen)[0][0]
    assert outside.startswith("2001:db8:")
    answer = back(nat, packet(REMOTE[6], outside, udp(2, 1)))
    assert IPv6(src=inside).src == ends(answer)[1][0]


def test_prefix_translation_of_errors(nat):
    configure(nat, prefix_translation=[NPT])
    sent = packet("fd01:203:405:1::1234", REMOTE[6], udp(1, 2))
    seen = out(nat, sent)
    error = E / IPv6(src="2001:db8:5::1", dst="2001:db8:1:d550::1234") / ICMPv6PacketTooBig() / bytes(seen.payload)
    got = back(nat, error)
    assert sums_are_right(got)
    assert bytes(got[IPv6].payload)[8:] == bytes(sent.payload)


def test_an_address_without_counterpart_is_dropped(nat):
    configure(nat, prefix_translation=[NPT])
    assert out(nat, packet("fd01:203:405:ffff::1", REMOTE[6], udp(1, 2))) == "untranslatable"


def test_other_networks_are_not_touched_by_prefix_translation(nat):
    masquerading(nat, prefix_translation=[NPT])
    assert ends(out(nat, packet(INSIDE[6], REMOTE[6], udp(1, 2))))[0] == (
        EXTERNAL[6],
        ends(out(nat, packet(INSIDE[6], REMOTE[6], udp(1, 2))))[0][1],
    )
