# SPDX-License-Identifier: Apache-2.0
"""Frames as nobody should send them: good ones with bytes changed, cut off and grown by chance, the same in every run; and what a reader
of its own says about them, so that a data plane can be asked whether it has read the same.

    for frame in malformed.frames(seed=1, count=2000):
        ...
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache

from polycube.toolkit import frame as frames_of
from polycube.toolkit.frame import Packet

MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
HOSTS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}  # source and destination of the good ones
_TAGS = (b"\x81\x00", b"\x88\xa8")
_PORTS = {6, 17, 33, 132, 136}  # TCP, UDP, DCCP, SCTP, UDP-Lite
_TELLING = (0, 1, 4, 5, 6, 17, 44, 58, 59, 60, 0x45, 0x60, 0xFF)  # protocols, versions, lengths: what turns a parser's head


@cache
def good() -> tuple[bytes, ...]:
    """Frames of all kinds that parsers know, between HOSTS: TCP to port 80, UDP from and to port 53, ICMP, fragments, tags, ARP."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
    from scapy.layers.l2 import ARP, Dot1Q, Ether
    from scapy.packet import Raw

    link = Ether(src=MACS[0], dst=MACS[1])
    four, back, six = IP(src=HOSTS[4][0], dst=HOSTS[4][1]), IP(src=HOSTS[4][1], dst=HOSTS[4][0]), IPv6(src=HOSTS[6][0], dst=HOSTS[6][1])
    dns, web = UDP(sport=53, dport=53), TCP(sport=1000, dport=80)
    return tuple(
        bytes(packet)
        for packet in (
            link / four / TCP(sport=1000, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7)]),
            link / IP(src=four.src, dst=four.dst, options=[b"\x07\x07\x04\x00\x00\x00\x00\x00"]) / dns / Raw(bytes(30)),
            link / IP(src=four.src, dst=four.dst, flags="MF") / dns / Raw(bytes(24)),
            link / IP(src=four.src, dst=four.dst, frag=9, proto=17) / Raw(bytes(40)),
            link / four / ICMP(type=3, code=3) / back / dns,
            link / six / TCP(sport=1000, dport=80, flags="A"),
            link / six / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / dns,
            link / six / IPv6ExtHdrFragment(m=1) / dns / Raw(bytes(32)),
            link / six / ICMPv6EchoRequest(),
            link / Dot1Q(vlan=7) / four / web,
            link / Dot1Q(vlan=7) / Dot1Q(vlan=8) / six / dns,
            link / ARP(),
        )
    )


def frames(seed: int, count: int, *, least: int = 0, of: Sequence[bytes] = ()) -> Iterator[bytes]:
    """So many, made of `good` or of others; none shorter than `least` bytes (a test run in TC takes none below 54)."""
    chance, seeds = random.Random(seed), of or good()
    for _ in range(count):
        frame = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([1, 1, 2, 4])):
            frame[chance.randrange(12, len(frame))] = chance.choice([*_TELLING, chance.randrange(256)])
        kind = chance.random()
        if kind < 0.25:
            frame = frame[: chance.randrange(14, len(frame))]
        elif kind < 0.4:
            frame += bytes(chance.randrange(40))
        yield bytes(frame).ljust(least, b"\0")


def untagged(frame: bytes) -> bytes:
    """Without its tags, of which two are looked behind."""
    plain = frame
    while plain[12:14] in _TAGS and len(frame) - len(plain) < 8 and len(plain) >= 18:
        plain = plain[:12] + plain[16:]
    return plain


def packet_in(frame: bytes) -> Packet | None:
    """The IP packet in a frame; None if there is none, or no header that can be one."""
    return frames_of.read_ip(untagged(frame))


def sound(frame: bytes) -> bool:
    """Whether all its headers are whole, up to that of the transport; of what is neither IP nor ARP nothing is asked."""
    plain = untagged(frame)
    kind, packet = frames_of.ethertype(plain), frames_of.read_ip(plain)
    if packet is None:
        if plain[12:14] in _TAGS and len(frame) - len(plain) < 8:  # a tag that is cut off
            return False
        return kind not in (frames_of.IPV4, frames_of.IPV6) and (kind != frames_of.ARP or len(plain) >= 14 + 28)
    if packet.version == 4 and plain[16:18] == b"\0\0":  # a length of 0 is for what is yet to be cut into segments
        return False
    if not packet.first or packet.protocol == frames_of.NONE:
        return True
    head = packet.payload
    if packet.protocol == frames_of.TCP:
        return len(head) >= 20 and head[12] >> 4 >= 5 and (head[12] >> 4) * 4 <= len(head)
    if packet.protocol in (frames_of.ICMP, frames_of.UDP, frames_of.ICMP6):
        return len(head) >= 8
    return packet.protocol not in _PORTS or len(head) >= 4
