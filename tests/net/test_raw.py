# SPDX-License-Identifier: Apache-2.0
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netlab import received, sh

from polycube.net import ethtool
from polycube.net.errors import NoSuchNetdev, Refused
from polycube.net.raw import Checksum, PacketSocket
from polycube.testing.hosts import await_carrier

Sniff = Callable[[str], socket.socket]
ETHERNET = bytes.fromhex("02000000000202000000000188b5")


@pytest.fixture
def second() -> Iterator[tuple[str, str]]:
    sh("ip link add tvc type veth peer tvd", "ip link set tvc up", "ip link set tvd up")
    await_carrier("tvc", "tvd")
    yield "tvc", "tvd"
    subprocess.run(["ip", "link", "del", "tvc"], capture_output=True, check=False)


def test_a_frame_arrives_at_the_other_end(veth: tuple[str, str], sniffer: Sniff) -> None:
    sniff = sniffer("tvb")
    with PacketSocket("tva") as out, PacketSocket(socket.if_nametoindex("tva")) as by_index:
        assert out.send(ETHERNET + b"polycube-one") and by_index.send(ETHERNET + b"polycube-two")
    assert received(sniff, b"polycube", 2) == [ETHERNET + b"polycube-one", ETHERNET + b"polycube-two"]


def test_each_frame_carries_its_own_mark_to_tc_egress(veth: tuple[str, str], sniffer: Sniff, program: Callable[..., Path]) -> None:
    sh("tc qdisc add dev tva clsact", f"tc filter add dev tva egress bpf da obj {program()} sec tc_marked")
    sniff = sniffer("tvb")
    with PacketSocket("tva") as out:
        for number, mark in enumerate((0x42, 0, 0x43, 0x42)):
            out.send(ETHERNET + b"polycube" + bytes([number]), mark)
    assert [frame[-1] for frame in received(sniff, b"polycube", 2)] == [0, 3]


def test_a_mark_crosses_a_veth_within_a_namespace(
    veth: tuple[str, str], second: tuple[str, str], sniffer: Sniff, program: Callable[..., Path]
) -> None:
    there = socket.if_nametoindex("tvc")
    sh("tc qdisc add dev tvb clsact", f"tc filter add dev tvb ingress bpf da obj {program(there)} sec tc_move")
    sniff = sniffer("tvd")
    with PacketSocket("tva") as out:
        out.send(ETHERNET + b"polycube-marked", 0x42)
        out.send(ETHERNET + b"polycube-plain")
    assert received(sniff, b"polycube", 1) == [ETHERNET + b"polycube-marked"]


def test_the_kernel_finishes_a_checksum_on_request(veth: tuple[str, str], sniffer: Sniff) -> None:
    ethtool.set("tva", tx_checksum=False)
    payload = b"polycube-checksum"
    addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    length = 8 + len(payload)
    pseudo = ones(addresses + struct.pack("!HH", 17, length))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + addresses
    udp = struct.pack("!HHHH", 1000, 2000, length, pseudo)
    sniff = sniffer("tvb")
    frame = ETHERNET[:12] + b"\x08\x00" + ip + udp + payload
    with PacketSocket("tva", vnet_hdr=True) as out:
        out.send(frame, checksum=Checksum(34, 6))
        out.send(frame)
    finished, plain = received(sniff, payload, 2)
    assert ones(addresses + struct.pack("!HH", 17, length) + finished[34:]) == 0xFFFF
    assert plain == frame
    with PacketSocket("tva") as out, pytest.raises(ValueError, match="vnet_hdr=True"):
        out.send(frame, checksum=Checksum(34, 6))


def ones(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_what_cannot_be_sent_is_refused_with_a_sentence(veth: tuple[str, str]) -> None:
    with pytest.raises(NoSuchNetdev, match="there is no netdev nothere"):
        PacketSocket("nothere")
    with pytest.raises(NoSuchNetdev, match="with ifindex 99999"):
        PacketSocket(99999)
    with PacketSocket("tva") as out:
        with pytest.raises(Refused, match="cannot send 3000 bytes out of tva: Message too long"):
            out.send(ETHERNET.ljust(3000))
        sh("ip link set tva down")
        with pytest.raises(Refused, match="cannot send 60 bytes out of tva: Network is down"):
            out.send(ETHERNET.ljust(60))
        sh("ip link del tva")
        with pytest.raises(NoSuchNetdev):
            out.send(ETHERNET.ljust(60))


def test_a_full_queue_is_no_error(veth: tuple[str, str]) -> None:
    sh("tc qdisc add dev tva root tbf rate 8kbit burst 1600 limit 3000")
    with PacketSocket("tva") as out:
        results = [out.send(ETHERNET.ljust(1000)) for _ in range(20)]
    assert results[0] and not results[-1]
