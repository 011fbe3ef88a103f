# SPDX-License-Identifier: Apache-2.0
"""What tests of connection tracking begin with: packets between two ends, and TCP exchanges with what becomes of each segment."""

from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from polycube.testing.conntrack import Segment

FOLDER = Path(__file__).parent / "tracker"
E = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
LABELS = ["UNTRACKED", "NEW", "ESTABLISHED", "RELATED", "INVALID"]
A4, B4, A6, B6 = "10.0.0.1", "10.9.0.2", "2001:db8::1", "2001:db8:9::2"


def ip(version, back=False, **more):
    a, b = (A4, B4) if version == 4 else (A6, B6)
    kind = IP if version == 4 else IPv6
    return E / (kind(src=b, dst=a, **more) if back else kind(src=a, dst=b, **more))


def tcp(segment, version=4, port=40000, **more):
    """A segment between port `port` of a and port 80 of b."""
    ends = {"a": (port, 80), "b": (80, port)}[segment.sender]
    options = [("MSS", 1460), ("NOP", None), ("WScale", segment.scale)] if segment.scale is not None else []
    header = TCP(
        sport=ends[0], dport=ends[1], flags=segment.flags, seq=segment.seq, ack=segment.ack, window=segment.window, options=options
    )
    return ip(version, segment.sender == "b", **more) / header / bytes(segment.length)


OPEN = [
    (Segment("a", "S", 1000, scale=7), "NEW", "SYN_SENT"),
    (Segment("b", "SA", 5000, 1001, scale=7), "ESTABLISHED", "SYN_RECV"),
    (Segment("a", "A", 1001, 5001), "ESTABLISHED", "TCP_ESTABLISHED"),
]
EXCHANGES = {
    "opened, used and closed by the opener": [
        *OPEN,
        (Segment("a", "A", 1001, 5001, 100), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("b", "A", 5001, 1101, 200), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "FA", 1101, 5201), "ESTABLISHED", "FIN_WAIT"),
        (Segment("b", "A", 5201, 1102), "ESTABLISHED", "CLOSE_WAIT"),
        (Segment("b", "A", 5201, 1102, 300), "ESTABLISHED", "CLOSE_WAIT"),  # half closed: the other end goes on
        (Segment("a", "A", 1102, 5501), "ESTABLISHED", "CLOSE_WAIT"),
        (Segment("b", "FA", 5501, 1102), "ESTABLISHED", "LAST_ACK"),
        (Segment("a", "A", 1102, 5502), "ESTABLISHED", "TIME_WAIT"),
        (Segment("b", "FA", 5501, 1102), "ESTABLISHED", "TIME_WAIT"),  # it did not hear the last one
    ],
    "closed by the other end": [
        *OPEN,
        (Segment("b", "FA", 5001, 1001), "ESTABLISHED", "FIN_WAIT"),
        (Segment("a", "FA", 1001, 5002), "ESTABLISHED", "LAST_ACK"),
        (Segment("b", "A", 5002, 1002), "ESTABLISHED", "TIME_WAIT"),
    ],
    "closed by both at once": [
        *OPEN,
        (Segment("b", "FA", 5001, 1001), "ESTABLISHED", "FIN_WAIT"),
        (Segment("a", "FA", 1001, 5001), "ESTABLISHED", "LAST_ACK"),
        (Segment("b", "A", 5002, 1002), "ESTABLISHED", "LAST_ACK"),
        (Segment("a", "A", 1002, 5002), "ESTABLISHED", "TIME_WAIT"),
    ],
    "simultaneous open": [
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("b", "S", 5000), "ESTABLISHED", "SYN_SENT2"),
        (Segment("a", "SA", 1000, 5001), "ESTABLISHED", "SYN_RECV"),
        (Segment("b", "SA", 5000, 1001), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "A", 1001, 5001, 10), "ESTABLISHED", "TCP_ESTABLISHED"),
    ],
    "retransmissions": [
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("b", "SA", 5000, 1001), "ESTABLISHED", "SYN_RECV"),
        (Segment("a", "S", 1000), "ESTABLISHED", "SYN_RECV"),
        (Segment("b", "SA", 5000, 1001), "ESTABLISHED", "SYN_RECV"),
        (Segment("a", "A", 1001, 5001), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "A", 1001, 5001, 100), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "A", 1001, 5001, 100), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("b", "SA", 5000, 1001), "ESTABLISHED", "TCP_ESTABLISHED"),
    ],
    "another attempt by the same port": [
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("a", "S", 777000), "NEW", "SYN_SENT"),
        (Segment("b", "SA", 5000, 1001), "INVALID", "SYN_SENT"),
        (Segment("b", "SA", 5000, 777001), "ESTABLISHED", "SYN_RECV"),
    ],
    "refused": [
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("b", "R", 1001), "INVALID", "SYN_SENT"),
        (Segment("b", "RA", 0, 1002), "INVALID", "SYN_SENT"),
        (Segment("b", "RA", 0, 1001), "ESTABLISHED", "CLOSE"),
        (Segment("a", "S", 9000), "NEW", "SYN_SENT"),
    ],
    "numbers of the handshake are checked": [
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("b", "SA", 5000, 1000), "INVALID", "SYN_SENT"),
        (Segment("b", "SA", 5000, 1002), "INVALID", "SYN_SENT"),
        (Segment("a", "SA", 1000, 1), "INVALID", "SYN_SENT"),
        (Segment("b", "SA", 5000, 1001), "ESTABLISHED", "SYN_RECV"),
        (Segment("a", "A", 1001, 5000), "INVALID", "SYN_RECV"),
        (Segment("a", "A", 1001, 5002), "INVALID", "SYN_RECV"),
        (Segment("a", "A", 1001, 5001), "ESTABLISHED", "TCP_ESTABLISHED"),
    ],
    "reset": [
        *OPEN,
        (Segment("a", "A", 1001, 5001, 100), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "R", 1102), "INVALID", "TCP_ESTABLISHED"),
        (Segment("a", "R", 1000), "INVALID", "TCP_ESTABLISHED"),
        (Segment("b", "RA", 5000, 1101), "INVALID", "TCP_ESTABLISHED"),
        (Segment("a", "R", 1101), "ESTABLISHED", "CLOSE"),
        (Segment("b", "A", 5001, 1101, 10), "ESTABLISHED", "CLOSE"),
    ],
    "an end that has forgotten the connection": [
        *OPEN,
        (Segment("a", "S", 70000), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("b", "A", 5001, 1001), "ESTABLISHED", "TCP_ESTABLISHED"),  # the other one has not
        (Segment("a", "R", 1001), "ESTABLISHED", "CLOSE"),
        (Segment("a", "S", 70000), "NEW", "SYN_SENT"),
    ],
    "an end that knows of an older connection": [
        (Segment("a", "S", 1000), "NEW", "SYN_SENT"),
        (Segment("b", "FA", 80000, 70000), "INVALID", "SYN_SENT"),
        (Segment("b", "A", 80000, 70000), "ESTABLISHED", "SYN_SENT"),
        (Segment("a", "R", 70000), "ESTABLISHED", "CLOSE"),
    ],
    "both ends have forgotten the connection": [
        *OPEN,
        (Segment("a", "S", 70000), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("b", "SA", 90000, 70001), "ESTABLISHED", "SYN_RECV"),
        (Segment("a", "A", 70001, 90001), "ESTABLISHED", "TCP_ESTABLISHED"),
    ],
    "segments beyond the window": [
        *OPEN,
        (Segment("b", "A", 5001 + 8192 * 128 + 1, 1001, 10), "INVALID", "TCP_ESTABLISHED"),
        (Segment("b", "A", 5001 + 8192 * 128, 1001, 10), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "A", 1001, 5001 + 8192 * 128 + 11), "INVALID", "TCP_ESTABLISHED"),
        (Segment("a", "A", 1001, 5001 + 8192 * 128 + 10), "ESTABLISHED", "TCP_ESTABLISHED"),
    ],
    "numbers wrap": [
        (Segment("a", "S", 0xFFFFFFFF), "NEW", "SYN_SENT"),
        (Segment("b", "SA", 0xFFFFFFF0, 0), "ESTABLISHED", "SYN_RECV"),
        (Segment("a", "A", 0, 0xFFFFFFF1), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("b", "A", 0xFFFFFFF1, 0, 100), "ESTABLISHED", "TCP_ESTABLISHED"),
        (Segment("a", "FA", 0, 85), "ESTABLISHED", "FIN_WAIT"),
    ],
}
