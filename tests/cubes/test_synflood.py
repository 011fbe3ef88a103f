# SPDX-License-Identifier: Apache-2.0
"""Packets through synflood: what is counted, which handshakes are half open, and that everything passes unchanged."""

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether

from polycube.cubes.synflood.watch import Watched, half_open, summed, totals
from polycube.toolkit.address import mapped

E = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
CLIENT = {4: "198.51.100.7", 6: "2001:db8:ff::7"}
SERVER = {4: "10.0.0.1", 6: "2001:db8::1"}
LAYER = {4: IP, 6: IPv6}


@pytest.fixture(params=[4, 6])
def version(request):
    return request.param


@pytest.fixture
def watch(cube, version):
    made = cube("synflood", transparent=True)
    made.cfg(timeout=63, any_address=1, seed=0x5EED)
    made.map("addresses")[mapped_text(SERVER[version])] = {}
    return made


def mapped_text(text):
    import ipaddress

    return mapped(ipaddress.ip_address(text))


def now():
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


def counted(watch, version=None):
    """Of the protected address, or of all traffic."""
    cpus = watch.map("addresses").percpu(mapped_text(SERVER[version])) if version else watch.map("traffic").percpu(0)
    return summed(cpus)


def standing(watch, version=None, timeout=63):
    return half_open(counted(watch, version)["half_open"], now(), timeout)


def towards(version, flags, sport=1024, dport=80, source=None, link=E, **fields):
    return link / LAYER[version](src=source or CLIENT[version], dst=SERVER[version]) / TCP(sport=sport, dport=dport, flags=flags, **fields)


def back(version, flags, sport=1024, dport=80):
    return E / LAYER[version](src=SERVER[version], dst=CLIENT[version]) / TCP(sport=dport, dport=sport, flags=flags)


def out(watch, packet):
    watch.send(packet, direction="egress").forwarded(packet=packet)


def into(watch, packet):
    watch.send(packet).forwarded(packet=packet)


def test_a_handshake_is_half_open_until_the_client_acknowledges(watch, version):
    into(watch, towards(version, "S"))
    assert standing(watch) == standing(watch, version) == 1
    out(watch, back(version, "SA"))
    assert standing(watch) == standing(watch, version) == 1
    into(watch, towards(version, "A"))
    assert standing(watch) == standing(watch, version) == 0
    for counts in (counted(watch), counted(watch, version)):
        assert {name: counts[name] for name in ("syn", "syn_ack", "ack", "opened", "established", "reset")} == {
            "syn": 1,
            "syn_ack": 1,
            "ack": 1,
            "opened": 1,
            "established": 1,
            "reset": 0,
        }


def test_retransmissions_and_data_count_no_connection_twice(watch, version):
    for _ in range(3):
        into(watch, towards(version, "S"))
    for flags in ("A", "PA", "A", "FA"):
        into(watch, towards(version, flags))
    out(watch, back(version, "A"))
    counts = counted(watch, version)
    assert (counts["syn"], counts["opened"], counts["established"], counts["ack"]) == (3, 1, 1, 4)
    assert counted(watch)["ack"] == 5
    assert standing(watch, version) == 0


def test_a_reset_of_either_side_closes(watch, version):
    into(watch, towards(version, "S", sport=1))
    out(watch, back(version, "RA", sport=1))
    into(watch, towards(version, "S", sport=2))
    into(watch, towards(version, "R", sport=2))
    counts = counted(watch, version)
    assert (counts["opened"], counts["reset"], counts["rst"], counts["rst_sent"], counts["established"]) == (2, 2, 1, 1, 0)
    assert standing(watch, version) == standing(watch) == 0


@pytest.mark.parametrize("way", ["port", "address", "server port"])
def test_another_connection_closes_nothing(watch, version, way):
    into(watch, towards(version, "S"))
    other = {
        "port": {"sport": 1025},
        "address": {"source": {4: "198.51.100.8", 6: "2001:db8:ff::8"}[version]},
        "server port": {"dport": 81},
    }
    into(watch, towards(version, "A", **other[way]))
    assert standing(watch, version) == 1


def test_servers_may_be_at_either_end(watch, version):
    out(watch, towards(version, "S"))
    into(watch, back(version, "SA"))
    assert standing(watch, version) == 1
    out(watch, towards(version, "A"))
    counts = counted(watch, version)
    assert (counts["syn"], counts["syn_ack"], counts["ack"], counts["established"]) == (1, 1, 1, 1)


def test_others_count_among_all_traffic_only(watch, version):
    packet = E / LAYER[version](src=CLIENT[version], dst={4: "10.0.0.2", 6: "2001:db8::2"}[version]) / TCP(flags="S")
    into(watch, packet)
    assert counted(watch)["syn"] == 1 and standing(watch) == 1
    assert counted(watch, version)["syn"] == 0 and standing(watch, version) == 0


def test_time_closes_too(watch, version):
    """By what the marks and periods say: tests can't wait for a minute."""
    into(watch, towards(version, "S"))
    assert half_open(counted(watch)["half_open"], now() + 60, 63) == 1
    assert half_open(counted(watch)["half_open"], now() + 75, 63) == 0
    age_marks(watch, 64)
    into(watch, towards(version, "A"))
    assert counted(watch)["established"] == 0, "the acknowledgement came too late"
    into(watch, towards(version, "S"))
    assert counted(watch)["opened"] == 2, "a mark that is too old is as good as none"


def age_marks(watch, seconds):
    """As if all SYNs had come so much earlier."""
    table = watch.map("half_open")
    for index, value in table.items():
        if any(value["way"]):
            table[index] = {"way": [(w & ~0xFFFFFF) | ((w - seconds) & 0xFFFFFF) if w else 0 for w in value["way"]]}


def test_a_full_set_is_counted_and_frees_itself(watch, version):
    busy = 0x7FFF << 40 | 1 << 24 | now() & 0xFFFFFF
    table = watch.map("half_open")
    for index in range(16384):
        table[index] = {"way": [busy] * 4}
    into(watch, towards(version, "S"))
    assert totals(watch.map("totals").percpu(0))["untracked"] == 1
    assert counted(watch)["syn"] == 1 and counted(watch)["opened"] == 0
    age_marks(watch, 64)
    into(watch, towards(version, "S"))
    assert counted(watch)["opened"] == 1


@pytest.mark.parametrize("tag", [Dot1Q(vlan=5), Dot1Q(vlan=5) / Dot1Q(vlan=6)])
def test_tags_are_looked_behind(watch, version, tag):
    into(watch, towards(version, "S", link=E / tag))
    assert counted(watch, version)["syn"] == 1


def test_options_and_first_fragments_are_looked_into(watch, version):
    first = {
        4: E / IP(src=CLIENT[4], dst=SERVER[4], flags="MF", options=b"\x01" * 4) / TCP(flags="S"),
        6: E / IPv6(src=CLIENT[6], dst=SERVER[6]) / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1) / TCP(flags="S"),
    }[version]
    later = {
        4: E / IP(src=CLIENT[4], dst=SERVER[4], frag=7, proto=6) / bytes(TCP(flags="S")),
        6: E / IPv6(src=CLIENT[6], dst=SERVER[6]) / IPv6ExtHdrFragment(offset=7, nh=6) / bytes(TCP(flags="S")),
    }[version]
    into(watch, first)
    into(watch, later)
    assert counted(watch, version)["syn"] == 1


def malformed(version):
    whole = bytes(towards(version, "S"))
    length = {4: 20, 6: 40}[version]
    yield "cut off in IP", whole[: 14 + length - 1]
    yield "cut off in TCP", whole[: 14 + length + 19]
    yield "short TCP offset", whole[: 14 + length + 12] + b"\x40" + whole[14 + length + 13 :]
    yield "long TCP offset", whole[: 14 + length + 12] + b"\xf0" + whole[14 + length + 13 :]
    yield "wrong version", whole[:14] + b"\x95" + whole[15:]


@pytest.mark.parametrize("what", ["cut off in IP", "cut off in TCP", "short TCP offset", "long TCP offset", "wrong version"])
def test_malformed_packets_pass_and_are_counted(watch, version, what):
    frame = dict(malformed(version))[what]
    watch.send(frame).forwarded(packet=frame)
    watch.send(frame, direction="egress").forwarded(packet=frame)
    found = totals(watch.map("totals").percpu(0))
    assert found == {"received": 1, "delivered": 0, "sent": 1, "malformed": 2, "untracked": 0}
    assert counted(watch)["syn"] == 0


@pytest.mark.parametrize("packet", [E / ARP(), Ether(type=0x88B5) / b"x", E / bytes(46)], ids=["arp", "experimental", "802.3"])
def test_what_is_not_ip_passes_uncounted(watch, packet):
    into(watch, packet)
    assert not any(totals(watch.map("totals").percpu(0)).values())


def test_other_protocols_count_as_packets_only(watch, version):
    for layer in (UDP(), ICMP()):
        into(watch, E / LAYER[version](src=CLIENT[version], dst=SERVER[version]) / layer)
    assert totals(watch.map("totals").percpu(0))["delivered"] == 2
    assert not any(counted(watch)[name] for name in ("syn", "ack", "rst"))


def test_random_bytes_pass(watch):
    chance = random.Random(7)
    frames = [bytes(E)[:12] + chance.choice([b"\x08\x00", b"\x86\xdd"]) + chance.randbytes(chance.randint(0, 80)) for _ in range(200)]
    for frame in frames:
        watch.send(frame).forwarded(packet=frame)
    found = totals(watch.map("totals").percpu(0))
    assert found["received"] == 200 and found["delivered"] + found["malformed"] == 200


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["S", "A", "R", "out R", "SA"])), max_size=30))
def test_it_counts_as_a_set_of_connections_does(watch, version, steps):
    """Against the plain model: the set of ports whose SYN came and whose ACK or RST did not."""
    before, held, opened, established, reset = counted(watch), set(), 0, 0, 0
    for port, what in steps:
        if what == "SA":
            out(watch, back(version, "SA", sport=port))
        elif what == "out R":
            out(watch, back(version, "R", sport=port))
        else:
            into(watch, towards(version, what, sport=port))
        if what == "S":
            opened += port not in held
            held.add(port)
        elif what == "A":
            established += port in held
            held.discard(port)
        elif what != "SA":
            reset += port in held
            held.discard(port)
    after = counted(watch)
    assert [after[name] - before[name] for name in ("opened", "established", "reset")] == [opened, established, reset]
    assert standing(watch) == standing(watch, version) == len(held)
    for port in held:
        into(watch, towards(version, "R", sport=port))


# ---- what the counters mean ----


def counts(syn=0, rst=0, half=(), opened=0, established=0):
    return {"syn": syn, "syn_ack": 0, "ack": 0, "rst": rst, "rst_sent": 0, "opened": opened, "established": established, "reset": 0} | {
        "half_open": list(half)
    }


LIMITS = {"syn-rate": 100, "rst-rate": 0, "half-open": 10}


def test_rates_are_differences():
    watched = Watched()
    watched.read(counts(syn=1000), 10.0, 63)
    assert watched.rates == {}
    watched.read(counts(syn=1300), 12.0, 63)
    assert watched.rates["syn"] == 150
    watched.read(counts(syn=5), 13.0, 63)
    assert watched.rates["syn"] == 0, "tables that began again give no negative rate"


def test_an_alarm_begins_at_once_and_ends_after_a_quiet_time():
    watched, happened, syn = Watched(hold=3), [], 0
    for second, rate in enumerate([0, 50, 100, 101, 300, 0, 0, 200, 0, 0, 0, 0, 0]):
        syn += rate
        watched.read(counts(syn=syn), float(second), 63)
        happened.append(watched.judge(LIMITS, float(second)))
    assert happened == [None, None, None, "raised", *[None] * 7, "ended", None]
    assert watched.raised == 1 and watched.alarm(12.0) == {"active": False, "raised": 1, "seconds": 1}


def test_an_alarm_says_all_that_was_exceeded():
    watched = Watched()
    watched.read(counts(half=[(0, 11)]), 1.0, 63)
    assert watched.judge(LIMITS, 1.0) == "raised"
    watched.read(counts(syn=500, half=[(0, 11)]), 2.0, 63)
    assert watched.judge(LIMITS, 2.0) is None
    assert watched.alarm(2.0)["reason"] == "half-open, syn-rate"


def test_no_threshold_no_alarm():
    watched = Watched()
    watched.read(counts(), 0.0, 63)
    watched.read(counts(rst=10**6), 1.0, 63)
    assert watched.judge(LIMITS, 1.0) is None


def test_failed_are_those_that_are_neither_complete_nor_half_open():
    watched = Watched()
    watched.read(counts(opened=10, established=4, half=[(0, 3)]), 1.0, 63)
    assert watched.failed == 3 and watched.handshakes()["failed"] == 3


def test_numbers_of_cpus_add_up_below_zero():
    """One CPU opens, another closes."""
    one = counts() | {"half_open": [5 << 32 | 7, 0]}
    other = counts() | {"half_open": [5 << 32 | (-7 & 0xFFFFFFFF), 6 << 32 | 1]}
    assert half_open(summed([one, other])["half_open"], 50, 63) == 1
