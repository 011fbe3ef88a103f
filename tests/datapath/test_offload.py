# SPDX-License-Identifier: Apache-2.0
"""TC: frames whose checksum the sender left to the NIC, and frames that stand for many segments, as hosts send them over a veth."""

import socket
import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from polycube.bpf import AttachType, Link, features, tcfilter, u32
from polycube.compiler.function import Hook

FOLDER = Path(__file__).parent / "rewriter"
E = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
SOL_PACKET, PACKET_VNET_HDR = 263, 15
VNET = struct.Struct("<BBHHHH")
NEEDS_CSUM, GSO_TCPV4 = 1, 1


@pytest.fixture
def hook():
    return Hook.TC


@pytest.fixture
def rewriter(cube):
    """The unit on a netdev, its other port leading to a second one; both observed and driven from their far ends."""
    made = cube(FOLDER)
    stage = made.stage
    made.near = made.netdev(0)
    made.netdev(1)
    stage.maps["pcn_entries"].set(u32(made.netdevs[0]), u32(0) + u32(made.ids[0]))
    ends = dict(stage._devices)
    program, ifindex = made.program("entry"), made.netdevs[0]
    if features().tcx:
        link = Link.tcx(program, ifindex, AttachType.TCX_INGRESS)
    else:
        tcfilter.attach(program, ifindex, AttachType.TCX_INGRESS)
    sockets = []
    for port in (0, 1):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.bind((socket.if_indextoname(ends[made.netdevs[port]]), 3))
        sock.settimeout(10)
        sockets.append(sock)
    made.sender, made.receiver = sockets
    yield made
    for sock in sockets:
        sock.close()
    if features().tcx:
        link.detach()
    else:
        tcfilter.detach(ifindex, AttachType.TCX_INGRESS)


def ones_sum(data):
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def unfinished(packet, offset):
    """The frame as a host hands it to its NIC: the pseudo header's sum stands where the checksum goes."""
    frame = bytearray(bytes(packet))
    start = 14 + (20 if IP in packet else 40)
    transport = frame[start:]
    transport[offset : offset + 2] = b"\0\0"
    finished = int.from_bytes(frame[start + offset : start + offset + 2], "big")
    pseudo = (0xFFFF - finished) + 0xFFFF - ones_sum(bytes(transport))
    frame[start + offset : start + offset + 2] = (pseudo % 0xFFFF).to_bytes(2, "big")
    return bytes(frame), start


def finish(header, frame):
    """What the NIC would send."""
    flags, _, _, _, start, offset = header
    if not flags & NEEDS_CSUM:
        return frame
    data = bytearray(frame)
    value = 0xFFFF - ones_sum(bytes(data[start:]))
    data[start + offset : start + offset + 2] = (value or 0xFFFF).to_bytes(2, "big")
    return bytes(data)


def through(rewriter, packet, offset, gso=(0, 0, 0)):
    frame, start = unfinished(packet, offset)
    kind, header_len, size = gso
    rewriter.sender.send(VNET.pack(NEEDS_CSUM, kind, header_len, size, start, offset) + frame)
    data = rewriter.receiver.recv(70000)
    header = VNET.unpack_from(data)
    assert header[0] & NEEDS_CSUM, "still left to the NIC"
    return header, finish(header, data[VNET.size :])


@pytest.mark.parametrize(("transport", "offset"), [(UDP(sport=7, dport=9) / b"some data", 6), (TCP(sport=7, dport=9) / b"some data!", 16)])
def test_unfinished_sums_stay_right(rewriter, transport, offset):
    packet = E / IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / transport
    rewriter.cfg(op="NOTHING")
    assert through(rewriter, packet, offset)[1] == bytes(packet)
    rewriter.cfg(op="ADDRESS4", value=int.from_bytes(bytes([192, 0, 2, 77]), "little"))
    assert through(rewriter, packet, offset)[1] == bytes(E / IP(src="10.0.0.1", dst="192.0.2.77", ttl=9) / transport)
    rewriter.cfg(op="DECREMENT")
    assert through(rewriter, packet, offset)[1] == bytes(E / IP(src="10.0.0.1", dst="10.0.0.2", ttl=8) / transport)
    rewriter.cfg(op="PORT", value=8080)
    changed = transport.copy()
    changed.dport = 8080
    assert through(rewriter, packet, offset)[1] == bytes(E / IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / changed)


def test_unfinished_sums_stay_right_in_ipv6(rewriter):
    packet = E / IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=9) / UDP() / b"some data"
    rewriter.cfg(op="ADDRESS6", address=bytes.fromhex("20010db8" + "00" * 11 + "77"))
    assert through(rewriter, packet, 6)[1] == bytes(E / IPv6(src="2001:db8::77", dst="2001:db8::2", hlim=9) / UDP() / b"some data")
    rewriter.cfg(op="DECREMENT")
    assert through(rewriter, packet, 6)[1] == bytes(E / IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=8) / UDP() / b"some data")


def test_segments_count_not_the_whole(rewriter):
    """4,000 bytes of TCP in segments of 1,000: 1,040 bytes behind Ethernet each."""
    packet = E / IP() / TCP() / bytes(4000)
    gso = (GSO_TCPV4, 54, 1000)
    rewriter.cfg(op="FITS", value=1040)
    header, frame = through(rewriter, packet, 16, gso)
    assert (header[3], len(frame)) == (1000, len(packet))
    rewriter.cfg(value=1039)
    rewriter.receiver.settimeout(0.05)
    with pytest.raises(TimeoutError):
        through(rewriter, packet, 16, gso)
    assert rewriter.drops() == {"too_big": 1}
