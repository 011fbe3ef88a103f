# SPDX-License-Identifier: Apache-2.0
"""Multicast snooping: what messages say, who gets copies, and what is passed on."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from bridge_lab import BROADCAST, A, access, beat, frame, set_up, trunk
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import checksum

from polycube.cubes.bridge.groups import Message, Said, messages
from polycube.cubes.bridge.snooping import tagged
from polycube.toolkit.fdb import now

GROUP, OTHER = "239.1.2.3", "239.1.2.4"
GROUP6, OTHER6 = "ff05::1:3", "ff05::1:4"
FROM = IPv4Address("10.0.0.1")
FROM6 = IPv6Address("fe80::1")
OPTIONS = [b"\x94\x04\x00\x00"]


def plain(kind, group="0.0.0.0", code=0, more=b""):
    """An IGMP message; versions differ by kind, code and length."""
    data = struct.pack("!BBH", kind, code, 0) + IPv4Address(group).packed + more
    return data[:2] + checksum(data).to_bytes(2, "big") + data[4:]


def igmp(payload, target=GROUP):
    return Ether(src=A, dst="01:00:5e:00:00:01") / IP(src=str(FROM), dst=target, ttl=1, proto=2, options=OPTIONS) / payload


def mld(payload, target=GROUP6):
    alert = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return Ether(src=A, dst="33:33:00:00:00:01") / IPv6(src=str(FROM6), dst=target, hlim=1) / alert / payload


def report3(*records):
    parts = [
        struct.pack("!BBH", kind, 0, len(sources)) + b"".join(IPv4Address(one).packed for one in (group, *sources))
        for kind, group, sources in records
    ]
    return igmp(plain(0x22, f"0.0.0.{len(records)}", more=b"".join(parts)), "224.0.0.22")


def report2(*records):
    made = [ICMPv6MLDMultAddrRec(rtype=kind, dst=group, sources=list(sources)) for kind, group, sources in records]
    return mld(ICMPv6MLReport2(records=made, records_number=len(made)), "ff02::16")


def join(group):
    return Message(Said.JOIN, (IPv6Address if ":" in group else IPv4Address)(group))


def leave(group):
    return Message(Said.LEAVE, (IPv6Address if ":" in group else IPv4Address)(group))


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (igmp(plain(0x12, GROUP)), [join(GROUP)]),
        (igmp(plain(0x16, GROUP)), [join(GROUP)]),
        (igmp(plain(0x17, GROUP), "224.0.0.2"), [leave(GROUP)]),
        (igmp(plain(0x11), "224.0.0.1"), [Message(Said.QUERY, None, 10, FROM)]),
        (igmp(plain(0x11, code=50), "224.0.0.1"), [Message(Said.QUERY, None, 5, FROM)]),
        (igmp(plain(0x11, GROUP, 10)), [Message(Said.QUERY, IPv4Address(GROUP), 1, FROM)]),
        (igmp(plain(0x11, code=100, more=bytes(4)), "224.0.0.1"), [Message(Said.QUERY, None, 10, FROM)]),
        (report3((4, GROUP, ())), [join(GROUP)]),
        (report3((2, GROUP, ()), (4, OTHER, ("10.0.0.9",))), [join(GROUP), join(OTHER)]),
        (report3((3, GROUP, ())), [leave(GROUP)]),
        (report3((1, GROUP, ("10.0.0.9",))), [join(GROUP)]),
        (report3((6, GROUP, ("10.0.0.9",))), []),
        (report3((4, "10.0.0.1", ())), []),
        (mld(ICMPv6MLReport(mladdr=GROUP6)), [join(GROUP6)]),
        (mld(ICMPv6MLDone(mladdr=GROUP6), "ff02::2"), [leave(GROUP6)]),
        (mld(ICMPv6MLQuery(mrd=5000), "ff02::1"), [Message(Said.QUERY, None, 5, FROM6)]),
        (mld(ICMPv6MLQuery2(mrd=10000), "ff02::1"), [Message(Said.QUERY, None, 10, FROM6)]),
        (report2((4, GROUP6, ())), [join(GROUP6)]),
        (report2((4, GROUP6, ()), (3, OTHER6, ())), [join(GROUP6), leave(OTHER6)]),
        (frame(A, BROADCAST), []),
    ],
)
def test_what_messages_say(packet, expected):
    assert messages(bytes(packet)) == expected
    assert messages(tagged(bytes(packet), 10)) == expected


@pytest.mark.parametrize("packet", [report3((4, GROUP, ())), report2((4, GROUP6, ())), mld(ICMPv6MLReport(mladdr=GROUP6))])
def test_damaged_messages_say_nothing(packet):
    data = bytes(packet)
    assert all(messages(data[:size]) == [] for size in range(len(data)))
    assert messages(data[:-1] + bytes([data[-1] ^ 1])) == []


@given(st.binary(max_size=60), st.sampled_from([b"\x08\x00\x46\xc0", b"\x86\xdd\x60\x00", b"\x81\x00\x00\x05\x08\x00"]))
def test_any_bytes_are_read_without_harm(data, head):
    assert isinstance(messages(bytes(12) + head + data), list)


# ---- the data plane ----


def stream(group, source=A):
    if ":" in group:
        return Ether(src=source, dst="33:33:00:01:00:03") / IPv6(src="fd00::9", dst=group) / UDP() / b"stream"
    return Ether(src=source, dst="01:00:5e:01:02:03") / IP(src="10.0.0.9", dst=group) / UDP() / b"stream"


def listens(bridge, port, group, *, seconds=60, vlan=10):
    address = (
        bytes(16) if group is None else IPv6Address(group).packed if ":" in group else bytes(10) + b"\xff\xff" + IPv4Address(group).packed
    )
    bridge.map("bridge_groups")[{"vlan": vlan, "port": port, "address": address}] = now() + seconds


@pytest.fixture
def bridge(cube):
    """Ports 0 to 2: access to VLAN 10, 3: trunk of it; there is a querier."""
    made = cube("bridge", ports=4)
    set_up(made, access(10), access(10), access(10), trunk(10))
    made.cfg(snooping=1)
    beat(made, limit=10)
    made.map("bridge_queriers")[10] = now() + 60
    return made


@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_only_listeners_and_routers_get_a_group(bridge, group):
    bridge.send(stream(group), port=0).dropped("no_listener")
    listens(bridge, 1, group)
    bridge.send(stream(group), port=0).forwarded(port=1)
    listens(bridge, 3, None)
    result = bridge.send(stream(group), port=0).flooded(ports=[1, 3])
    assert result.copies[3] == tagged(bytes(stream(group)), 10)
    bridge.send(Ether(src=A, dst="01:00:5e:01:02:03") / Dot1Q(vlan=10) / stream(group).payload, port=3).forwarded(port=1)


@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_a_listener_counts_as_long_as_it_was_said(bridge, group):
    listens(bridge, 1, group, seconds=-1)
    bridge.send(stream(group), port=0).dropped("no_listener")


@pytest.mark.parametrize("group", ["224.0.0.251", "ff02::fb", "ff01::1"])
def test_groups_of_the_link_go_to_everybody(bridge, group):
    bridge.send(stream(group), port=0).flooded(ports=[1, 2, 3])


def test_broadcasts_and_unknown_stations_are_no_groups(bridge):
    bridge.send(frame(A, BROADCAST), port=0).flooded(ports=[1, 2, 3])
    bridge.send(frame(A, "02:00:00:00:00:77"), port=0).flooded(ports=[1, 2, 3])
    bridge.send(Ether(src=A, dst="01:00:5e:01:02:03", type=0x9000) / bytes(46), port=0).flooded(ports=[1, 2, 3])


def test_without_a_querier_everybody_gets_everything(bridge):
    bridge.map("bridge_queriers")[10] = now() - 1
    bridge.send(stream(GROUP), port=0).flooded(ports=[1, 2, 3])


def test_with_a_dead_control_plane_everybody_gets_everything(bridge):
    beat(bridge, ago=12, limit=10)
    bridge.send(stream(GROUP), port=0).flooded(ports=[1, 2, 3])
    bridge.send(report3((4, GROUP, ())), port=0).flooded(ports=[1, 2, 3])


@pytest.mark.parametrize(
    "packet", [report3((4, GROUP, ())), igmp(plain(0x11), "224.0.0.1"), report2((4, GROUP6, ())), mld(ICMPv6MLQuery())]
)
def test_messages_go_to_the_control_plane(bridge, packet):
    bridge.send(packet, port=0).slowpath(reason=1, port=0, metadata=(10, 0, 0), packet=packet)


def test_without_snooping_messages_are_frames_like_others(bridge):
    bridge.cfg(snooping=0)
    bridge.send(report3((4, GROUP, ())), port=0).flooded(ports=[1, 2, 3])
    bridge.send(stream(GROUP), port=0).flooded(ports=[1, 2, 3])


def test_what_the_control_plane_passes_on_meets_no_filter(bridge):
    bridge.inject(tagged(bytes(report3((4, GROUP, ()))), 10), 1).forwarded(port=1, packet=report3((4, GROUP, ())))
    query = mld(ICMPv6MLQuery(mladdr=GROUP6), GROUP6)
    bridge.inject(tagged(bytes(query), 10), 1).forwarded(port=1, packet=query)
