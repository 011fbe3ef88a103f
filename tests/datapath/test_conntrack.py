# SPDX-License-Identifier: Apache-2.0
"""Connection tracking in the data plane: conntrack.h, by a cube that writes down what it finds."""

import random
import re
from pathlib import Path

import pytest
from conntrack_lab import A4, A6, B4, B6, EXCHANGES, FOLDER, LABELS, E, ip, tcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether

from polycube.testing.conntrack import Segment, Tracker
from polycube.testing.harness import Chain, Hook
from polycube.toolkit.conntrack import State, Timeouts, monotonic

TIMEOUTS = Timeouts()


@pytest.fixture(scope="module", params=list(Hook))
def shared(isolated, request):
    """One cube for all tests of a hook: the verifier takes its time."""
    with Chain(request.param) as chain:
        yield chain.cube(FOLDER)


@pytest.fixture
def tracker(shared):
    shared.cfg(ct_timeouts=TIMEOUTS.cfg(), loose=0)
    for name in ("sessions", "ct_fragments"):
        shared.map(name).clear()
    return shared


def see(tracker, packet):
    """The label; each packet is passed on unchanged."""
    tracker.send(packet).forwarded(1, packet)
    return LABELS[tracker.map("results")[0]["label"]]


def state(tracker):
    """State and seconds to live of the only session."""
    (session,) = [value["ct"] for _, value in tracker.map("sessions").items()]
    return State(session["state"]).name, session["expires"] - monotonic()


def close_to(seconds):
    return pytest.approx(seconds, abs=2)


versions = pytest.mark.parametrize("version", [4, 6])


@versions
@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES)
def test_exchanges(tracker, exchange, version):
    model = Tracker()
    for number, (segment, label, expected) in enumerate(exchange):
        found = see(tracker, tcp(segment, version))
        assert (number, segment, found, state(tracker)[0]) == (number, segment, label, expected)
        assert (model.see(segment), model.connection.state) == (label, expected), "the model"


@versions
@pytest.mark.parametrize("flags", ["", "SF", "SR", "F", "FR", "SAF", "P", "FPU", "SAR"])
def test_flags_that_no_tcp_sends(tracker, flags, version):
    assert see(tracker, ip(version) / TCP(flags=flags)) == "INVALID"
    assert not len(tracker.map("sessions"))


def test_a_segment_from_the_middle_opens_nothing_unless_tracking_is_loose(tracker):
    assert see(tracker, tcp(Segment("a", "A", 1000, 5000, 10))) == "INVALID"
    tracker.cfg(loose=1)
    assert see(tracker, tcp(Segment("a", "R", 1000))) == "INVALID"
    assert see(tracker, tcp(Segment("a", "A", 1000, 5000, 10))) == "NEW"
    assert state(tracker)[0] == "TCP_ESTABLISHED"
    assert see(tracker, tcp(Segment("b", "A", 5000, 1010, 10))) == "ESTABLISHED"
    assert see(tracker, tcp(Segment("b", "FA", 5010, 1010))) == "ESTABLISHED"
    assert see(tracker, tcp(Segment("a", "FA", 1010, 5011))) == "ESTABLISHED"
    assert see(tracker, tcp(Segment("b", "A", 5011, 1011))) == "ESTABLISHED"
    assert state(tracker)[0] == "TIME_WAIT"


NUMBERS = st.sampled_from([0, 1, 2, 50, 100, 101, 150, 5000, 5001, 5002, 5051, 5101, 70000, 70001, 0x7FFFFFFF, 0xFFFFFFFF])
SEGMENTS = st.builds(
    Segment,
    sender=st.sampled_from("ab"),
    flags=st.sampled_from(["S", "SA", "A", "FA", "R", "RA"]),
    seq=NUMBERS,
    ack=NUMBERS,
    length=st.sampled_from([0, 0, 1, 50]),
    window=st.sampled_from([0, 100, 8192]),
)
CONVERSATIONS = st.tuples(st.integers(0, 5), st.lists(SEGMENTS, max_size=12))
START = [
    Segment("a", "S", 0),
    Segment("b", "SA", 5000, 1),
    Segment("a", "A", 1, 5001),
    Segment("a", "A", 1, 5001, 50),
    Segment("b", "FA", 5001, 51),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=CONVERSATIONS)
def test_any_conversation_is_tracked_as_the_model_says(tracker, conversation):
    known, rest = conversation
    model = Tracker()
    see(tracker, E / ARP())  # from now on the stage leads frames to this cube
    tracker.map("sessions").clear()
    for segment in [*START[:known], *(s if "S" not in s.flags or not s.length else Segment(s.sender, s.flags, s.seq, s.ack) for s in rest)]:
        label = model.see(segment)
        tracker.stage.run(tracker.program("entry"), bytes(tcp(segment)), ifindex=tracker.stage.near)
        assert (segment, LABELS[tracker.map("results")[0]["label"]]) == (segment, label)
        entries = [value["ct"] for _, value in tracker.map("sessions").items()]
        assert len(entries) == (model.connection is not None)
        if model.connection:
            (entry,) = entries
            ends = [model.connection.ends[end] for end in ("ab" if model.connection.opener == "a" else "ba")]
            assert State(entry["state"]).name == model.connection.state
            sides = [(side["una"], side["next"], side["window"]) for side, end in zip(entry["side"], ends, strict=True) if end.syn]
            assert sides == [(end.una, end.next, end.window) for end in ends if end.syn]


@versions
def test_udp(tracker, version):
    there, back = ip(version) / UDP(sport=5353, dport=53) / b"query", ip(version, True) / UDP(sport=53, dport=5353) / b"answer"
    assert see(tracker, there) == "NEW"
    assert state(tracker) == ("UDP_NEW", close_to(30))
    assert see(tracker, there) == "NEW"
    assert see(tracker, back) == "ESTABLISHED"
    assert state(tracker) == ("UDP_ESTABLISHED", close_to(180))
    assert see(tracker, there) == "ESTABLISHED"
    assert tracker.map("results")[0]["way"] == 0
    assert see(tracker, back) == "ESTABLISHED"
    assert tracker.map("results")[0]["way"] == 1
    assert [value["packets"] for _, value in tracker.map("sessions").items()] == [5], "the cube's own part"


@versions
def test_echo(tracker, version):
    request, reply = (ICMP(type=8, id=7), ICMP(type=0, id=7)) if version == 4 else (ICMPv6EchoRequest(id=7), ICMPv6EchoReply(id=7))
    assert see(tracker, ip(version, True) / reply) == "INVALID"
    assert see(tracker, ip(version) / request) == "NEW"
    assert see(tracker, ip(version, True) / reply) == "ESTABLISHED"
    assert see(tracker, ip(version) / request) == "ESTABLISHED"
    assert state(tracker) == ("ICMP_ESTABLISHED", close_to(30))


@versions
def test_other_protocols(tracker, version):
    assert see(tracker, ip(version) / GRE()) == "NEW"
    assert see(tracker, ip(version, True) / GRE()) == "ESTABLISHED"
    assert state(tracker) == ("OTHER_ESTABLISHED", close_to(600))


def test_what_is_not_tracked(tracker):
    for packet in (E / ARP(), E / ip(6).payload / ICMPv6ND_NS(), Ether(type=0x88CC) / bytes(50)):
        assert see(tracker, packet) == "UNTRACKED"
    assert see(tracker, ip(4) / ICMP(type=13)) == "INVALID"
    assert see(tracker, ip(4, proto=58) / bytes(ICMPv6EchoRequest())) == "INVALID"
    assert not len(tracker.map("sessions"))


def test_tags_do_not_matter(tracker):
    assert see(tracker, ip(4) / UDP(sport=1, dport=2)) == "NEW"
    assert see(tracker, E / Dot1Q(vlan=5) / ip(4, True).payload / UDP(sport=2, dport=1)) == "ESTABLISHED"


def error(version, about, to=None, router="10.5.0.1"):
    """An ICMP error by a router on the way, about a packet that came from A."""
    quoted = bytes(about.payload)[: (28 if version == 4 else 48)]
    if version == 4:
        return E / IP(src=router, dst=to or A4) / ICMP(type=3, code=4) / quoted
    return E / IPv6(src="2001:db8:5::1", dst=to or A6) / ICMPv6PacketTooBig() / quoted


@versions
@pytest.mark.parametrize("transport", [TCP(sport=9, dport=80, flags="S"), UDP(sport=9, dport=80), "echo"], ids=["tcp", "udp", "echo"])
def test_errors_are_related(tracker, version, transport):
    if transport == "echo":
        transport = ICMP(id=9) if version == 4 else ICMPv6EchoRequest(id=9)
    about = ip(version) / transport
    assert see(tracker, error(version, about)) == "INVALID", "about nothing that is known"
    assert see(tracker, about) == "NEW"
    before = [value["ct"] for _, value in tracker.map("sessions").items()]
    assert see(tracker, error(version, about)) == "RELATED"
    assert tracker.map("results")[0]["way"] == 1
    assert [value["ct"] for _, value in tracker.map("sessions").items()] == before, "an error changes nothing"
    assert see(tracker, error(version, about, to="10.77.0.1" if version == 4 else "2001:db8:77::1")) == "INVALID", "sent to somebody else"


def test_errors_about_what_cannot_be_told(tracker):
    assert see(tracker, ip(4) / UDP(sport=1, dport=2)) == "NEW"
    inner = IP(src=A4, dst=B4, frag=10) / UDP(sport=1, dport=2)
    assert see(tracker, E / IP(src="10.5.0.1", dst=A4) / ICMP(type=11) / bytes(inner)[:28]) == "INVALID"
    assert see(tracker, E / IP(src="10.5.0.1", dst=A4) / ICMP(type=11) / IPerror(src=A4, dst=B4) / ICMP(type=13)) == "INVALID"
    assert (
        see(tracker, E / IPv6(src="2001:db8:5::1", dst=A6) / ICMPv6DestUnreach() / IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment() / UDP())
        == "INVALID"
    )


@pytest.mark.parametrize(
    "packet",
    [
        E / IP(src="10.5.0.1", dst=A4) / ICMP(type=11) / bytes(IP(src=A4, dst=B4) / UDP())[:20],
        E / IP(src="10.5.0.1", dst=A4) / ICMP(type=11) / bytes(IP(src=A4, dst=B4) / TCPerror())[:27],
        E / IP(src="10.5.0.1", dst=A4) / ICMP(type=11) / (b"\x60" + bytes(27)),
        E / IPv6(src="2001:db8:5::1", dst=A6) / ICMPv6DestUnreach() / bytes(IPv6(src=A6, dst=B6) / UDP())[:40],
    ],
)
def test_malformed_errors_are_dropped(tracker, packet):
    tracker.send(packet).dropped("malformed")


@versions
def test_fragments_follow_the_first(tracker, version):
    def piece(offset, more, payload):
        if version == 4:
            return E / IP(src=A4, dst=B4, id=77, proto=17, frag=offset // 8, flags="MF" if more else 0) / payload
        return E / IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(id=77, nh=17, offset=offset // 8, m=int(more)) / payload

    whole = bytes(UDP(sport=9, dport=53, len=1008, chksum=0x1234) / bytes(1000))
    assert see(tracker, piece(504, False, whole[504:])) == "INVALID", "before the first one"
    assert see(tracker, piece(0, True, whole[:504])) == "NEW"
    assert see(tracker, piece(504, False, whole[504:])) == "NEW"
    assert see(tracker, ip(version, True) / UDP(sport=53, dport=9)) == "ESTABLISHED"
    assert see(tracker, piece(504, False, whole[504:])) == "ESTABLISHED"
    assert len(tracker.map("sessions")) == 1


def test_an_expired_session_is_as_good_as_none(tracker):
    assert see(tracker, ip(4) / UDP(sport=1, dport=2)) == "NEW"
    assert see(tracker, ip(4, True) / UDP(sport=2, dport=1)) == "ESTABLISHED"
    ((key, value),) = tracker.map("sessions").items()
    value["ct"]["expires"] = monotonic()
    tracker.map("sessions")[key] = value
    assert see(tracker, ip(4, True) / UDP(sport=2, dport=1)) == "NEW", "the other way round"
    assert state(tracker) == ("UDP_NEW", close_to(30))
    assert see(tracker, ip(4) / UDP(sport=1, dport=2)) == "ESTABLISHED"


def test_a_full_table_counts_and_known_traffic_goes_on(cube):
    tracker = cube(FOLDER, sizes={"sessions": 4})
    tracker.cfg(ct_timeouts=TIMEOUTS.cfg())
    for port in range(20):
        assert see(tracker, ip(4) / UDP(sport=port, dport=2)) == "NEW"
    kept = len(tracker.map("sessions"))
    assert kept < 20
    assert sum(tracker.map("ct_failures").percpu(0)) == 20 - kept
    ports = [max(int.from_bytes(port.to_bytes(2, "little"), "big") for port in key["port"]) for key, _ in tracker.map("sessions").items()]
    assert [see(tracker, ip(4, True) / UDP(sport=2, dport=port)) for port in ports if port > 2] == ["ESTABLISHED"] * len(
        [p for p in ports if p > 2]
    )


def test_both_ways_find_the_same_session_whatever_the_addresses(tracker):
    rng = random.Random(7)
    for _ in range(40):
        for kind, bits in ((IP, 32), (IPv6, 128)):
            address = [rng.getrandbits(bits).to_bytes(bits // 8, "big") for _ in range(2)]
            if rng.random() < 0.3:  # hosts of one network
                address[1] = address[0][:-1] + bytes([rng.getrandbits(8)])
            a, b = (str(kind(bytes(12) + one + bytes(4)).src) if bits == 32 else _text(one) for one in address)
            sport, dport = rng.getrandbits(16), rng.getrandbits(16)
            there, back = E / kind(src=a, dst=b) / UDP(sport=sport, dport=dport), E / kind(src=b, dst=a) / UDP(sport=dport, dport=sport)
            assert [see(tracker, there), see(tracker, back), see(tracker, there)] == ["NEW", "ESTABLISHED", "ESTABLISHED"]


def _text(address):
    return ":".join(address.hex()[i : i + 4] for i in range(0, 32, 4))


def test_states_are_those_of_the_header():
    header = (Path(__file__).parents[2] / "src/polycube/include/polycube/conntrack.h").read_text()
    body = re.search(r"enum pcn_ct_state \{(.*?)\}", header, re.S).group(1)
    names = re.findall(r"^\tPCN_CT_(\w+)", body, re.M)
    assert names == [*(state.name for state in State), "STATES"]
