# SPDX-License-Identifier: Apache-2.0
"""IPv4 packets in pieces, against the reassembly of RFC 791."""

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP, IPOption_RR, IPOption_Security
from scapy.packet import Raw

from polycube.toolkit.frame import checksum, fragments


def packet(size: int, **fields: object) -> bytes:
    return bytes(IP(src="10.0.0.2", dst="10.0.1.2", id=77, **fields) / UDP(sport=1, dport=2) / Raw(bytes(range(256)) * (size // 256 + 1)))[
        :size
    ]


def whole(size: int, **fields: object) -> bytes:
    return packet(size, len=size, **fields)


@given(st.integers(100, 5000), st.integers(68, 1500), st.integers(0, 500), st.booleans())
def test_pieces_fit_and_make_the_packet_again(size: int, mtu: int, offset: int, more: bool) -> None:
    data = whole(size, flags="MF" if more else 0, frag=offset)
    pieces = fragments(data, mtu)
    payload, at = b"", offset
    for number, piece in enumerate(pieces):
        read = IP(piece)
        assert len(piece) <= mtu and read.len == len(piece) and not checksum(piece[:20])
        assert (read.id, read.frag, bool(read.flags.MF)) == (77, at, more or number < len(pieces) - 1)
        payload += piece[20:]
        at += len(piece[20:]) // 8
    assert payload == data[20:]


def test_only_options_marked_so_are_in_later_pieces() -> None:
    data = whole(400, options=[IPOption_RR(routers=["0.0.0.0"] * 2), IPOption_NOP(), IPOption_Security()])
    first, second, *_ = (IP(piece) for piece in fragments(data, 200))
    assert [type(one) for one in first.options][:3] == [IPOption_RR, IPOption_NOP, IPOption_Security]
    assert IPOption_Security in [type(one) for one in second.options] and IPOption_RR not in [type(one) for one in second.options]
    assert second.frag * 8 == first.len - first.ihl * 4


def test_what_must_not_be_cut_is_not() -> None:
    assert fragments(whole(400, flags="DF"), 200) == []
    assert fragments(whole(400), 24) == []
