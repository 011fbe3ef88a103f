# SPDX-License-Identifier: Apache-2.0
from ipaddress import IPv4Address, IPv6Address

import pytest

from polycube.net import addr
from polycube.net.addr import Mac
from polycube.net.errors import InvalidAddress


def test_a_mac_is_read_in_either_case_and_written_in_lower_case() -> None:
    assert str(Mac.parse("02:Aa:BB:00:00:0f")) == "02:aa:bb:00:00:0f"


def test_a_mac_survives_the_way_through_bytes() -> None:
    mac = Mac.parse("02:aa:bb:cc:dd:ee")
    assert Mac.from_bytes(bytes(mac)) == mac
    assert bytes(mac) == b"\x02\xaa\xbb\xcc\xdd\xee"


@pytest.mark.parametrize("text", ["", "02:aa:bb:cc:dd", "02-aa-bb-cc-dd-ee", "02:aa:bb:cc:dd:eg", "02:aa:bb:cc:dd:ee\n"])
def test_what_is_no_mac_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidAddress, match="is not a MAC address; expected six bytes like") as refused:
        Mac.parse(text)
    assert refused.value.status == 400


def test_five_bytes_are_no_mac() -> None:
    with pytest.raises(InvalidAddress, match="expected six bytes"):
        Mac.from_bytes(b"12345")


def test_broadcast_is_multicast_and_zero_is_false() -> None:
    assert Mac.BROADCAST.is_multicast
    assert Mac.parse("01:00:5e:00:00:01").is_multicast
    assert not Mac.ZERO and Mac.BROADCAST


def test_the_link_local_address_is_the_modified_eui_64() -> None:
    assert addr.link_local(Mac.parse("52:54:00:12:34:56")) == IPv6Address("fe80::5054:ff:fe12:3456")
    assert addr.link_local(Mac.parse("02:00:00:00:00:01")) == IPv6Address("fe80::ff:fe00:1")


def test_neighbours_are_asked_for_in_their_solicited_node_group() -> None:
    address = IPv6Address("2001:db8::aa:bbcc")
    assert addr.solicited_node(address) == IPv6Address("ff02::1:ffaa:bbcc")
    assert str(addr.multicast_mac(addr.solicited_node(address))) == "33:33:ff:aa:bb:cc"


def test_multicast_groups_have_their_macs() -> None:
    assert str(addr.multicast_mac(IPv4Address("224.129.2.3"))) == "01:00:5e:01:02:03"
    with pytest.raises(InvalidAddress, match="not a multicast group"):
        addr.multicast_mac(IPv4Address("10.0.0.1"))


@pytest.mark.parametrize("read", [addr.parse_interface, addr.parse_address])
def test_what_is_no_address_is_refused(read: object) -> None:
    with pytest.raises(InvalidAddress, match=r"'10\.0\.0\.256' is not a"):
        read("10.0.0.256")  # type: ignore[operator]
