# SPDX-License-Identifier: Apache-2.0
"""Frames on their way up and down: tags, checksums, and the two ways into the data plane."""

import struct
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_service import INCLUDE
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet as Frame

from polycube.bpf import AttachType, Link, Map, Object, ensure_bpffs
from polycube.compiler.function import COMPILER
from polycube.core.cube import PortFacts
from polycube.core.paths import XDP_INJECTOR, Paths
from polycube.core.slowpath import EVENT, MAX_XDP, Injector, decode, finish_checksum, folded_sum
from polycube.net.errors import NoSuchNetdev, Refused
from polycube.testing.isolation import isolate

PORTS = {1: PortFacts("port1", 1, 101)}


def event(frame: bytes, *, flags: int = 0, caplen: int | None = None, tci: int = 0, proto: bytes = b"\0\0", port: int = 1) -> bytes:
    shown = len(frame) if caplen is None else caplen
    return EVENT.pack(len(frame), shown, port, 7, flags, tci, proto, 0, 9, 1, 2, 3) + frame[:shown]


def partial(frame: Frame) -> tuple[bytes, bytes]:
    """The frame as the kernel has it while its checksum is left to the NIC, and as it should be."""
    whole = bytes(frame)
    layer = frame[TCP] if TCP in frame else frame[UDP]
    segment = bytes(layer)
    addresses = bytes(frame[IP])[12:20] if IP in frame else bytes(frame[IPv6])[8:40]
    protocol = 6 if TCP in frame else 17
    pseudo = folded_sum(addresses + struct.pack(">II", len(segment), protocol))
    field = len(whole) - len(segment) + (16 if protocol == 6 else 6)
    return whole[:field] + struct.pack(">H", pseudo) + whole[field + 2 :], whole


IP4, IP6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
FRAMES = {
    "tcp": Ether() / IP4 / TCP(dport=80) / b"hello",
    "tcp of even length": Ether() / IP4 / TCP(dport=80) / b"hell",
    "tcp with ip options": Ether() / IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x01" * 4]) / TCP() / b"x",
    "udp": Ether() / IP4 / UDP(dport=53) / b"question",
    "tcp over ipv6": Ether() / IP6 / TCP(dport=80) / b"hello",
    "udp over ipv6 behind a header": Ether() / IP6 / IPv6ExtHdrDestOpt() / UDP() / b"abc",
    "tagged": Ether() / Dot1Q(vlan=5) / IP4 / TCP() / b"hello",
    "tagged twice": Ether(type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP6 / UDP() / b"hello",
    "large": Ether() / IP4 / TCP() / (bytes(range(256)) * 200),
}


@pytest.mark.parametrize("name", FRAMES)
def test_an_unfinished_checksum_is_finished(name: str) -> None:
    unfinished, whole = partial(FRAMES[name])
    assert unfinished != whole
    assert finish_checksum(unfinished) == whole


@pytest.mark.parametrize("name", FRAMES)
def test_a_finished_checksum_is_left_alone_right_or_wrong(name: str) -> None:
    _, whole = partial(FRAMES[name])
    assert finish_checksum(whole) == whole
    wrong = whole[:-1] + bytes([whole[-1] ^ 1])
    assert finish_checksum(wrong) == wrong


def test_padding_behind_the_datagram_is_not_summed() -> None:
    unfinished, whole = partial(FRAMES["udp"])
    assert finish_checksum(unfinished + b"padding") == whole + b"padding"


def test_a_udp_checksum_that_comes_out_as_zero_is_written_as_ones() -> None:
    unfinished, _ = partial(Ether() / IP4 / UDP(sport=1, dport=2) / b"..")
    for tail in range(65536):
        frame = unfinished[:-2] + struct.pack(">H", tail)
        start = len(frame) - 10
        if folded_sum(frame[start:]) == 0xFFFF:
            finished = finish_checksum(frame)
            assert finished[start + 6 : start + 8] == b"\xff\xff"
            return
    pytest.fail("no such datagram")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff" * 14,
        bytes(Ether() / b"\x45"),
        bytes(Ether() / IP4)[:30],
        bytes(Ether() / IP4 / TCP())[:40],
        bytes(Ether() / IP4 / ICMP()),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP() / b"x"),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2", frag=3) / UDP() / b"x"),
        bytes(Ether() / IP6)[:50],
        bytes(Ether() / Dot1Q())[:16],
    ],
)
def test_what_has_no_whole_segment_is_left_alone(frame: bytes) -> None:
    assert finish_checksum(frame) == frame


def test_a_record_becomes_a_packet() -> None:
    packet = decode(event(b"x" * 60, flags=4), PORTS)
    assert (packet.data, packet.port, packet.reason, packet.metadata) == (b"x" * 60, PORTS[1], 7, (1, 2, 3))
    assert (packet.egress, packet.truncated, packet.xdp, packet.ifindex) == (True, False, False, 9)
    assert decode(event(b"x" * 60, flags=1), PORTS).xdp


def test_a_record_has_the_layout_of_the_header() -> None:
    assert EVENT.size == 36


def test_only_what_was_captured_of_a_record_counts() -> None:
    packet = decode(event(b"x" * 100, caplen=60, flags=8) + b"room of the class", PORTS)
    assert (packet.data, packet.truncated) == (b"x" * 60, True)


def test_a_packet_by_a_port_that_is_gone_has_none() -> None:
    assert decode(event(b"x" * 60, port=9), PORTS).port is None


def test_a_tag_beside_the_bytes_is_put_back_into_them() -> None:
    unfinished, whole = partial(Ether() / IP4 / TCP() / b"hello")
    packet = decode(event(unfinished, flags=2, tci=0x2005, proto=b"\x81\x00"), PORTS)
    assert packet.data == whole[:12] + b"\x81\x00\x20\x05" + whole[12:]
    packet = decode(event(whole, flags=2, tci=6, proto=b"\x88\xa8"), PORTS)
    assert packet.data[12:16] == b"\x88\xa8\x00\x06"


@pytest.mark.parametrize("record", [b"", bytes(35), event(b"x" * 60)[:-1]])
def test_a_record_that_is_too_short_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="slow-path record"):
        decode(record, PORTS)


# ---- down, through the kernel ----

TARGET = """
#include <polycube/cube.h>

struct seen { __u32 port, flags, id, len, ifindex, vlan; };
MAP(seen, ARRAY, __u32, struct seen, 1);

#ifdef PCN_XDP
MAP(pcn_scratch, PERCPU_ARRAY, __u32, struct pcn_meta, 1);
SEC("xdp.frags") int target(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct pcn_meta *meta = bpf_map_lookup_elem(&pcn_scratch, &zero);
	struct seen now = {.len = pcn_len(ctx), .ifindex = ctx->ingress_ifindex};

	if (meta) {
		now.port = meta->port;
		now.flags = meta->flags;
		now.id = meta->id;
	}
	bpf_map_update_elem(&seen, &zero, &now, 0);
	return XDP_DROP;
}
#else
SEC("tc") int target(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct seen now = {
		.port = ctx->cb[0] & 0xffff, .flags = ctx->cb[0] >> 16, .id = ctx->mark, .len = ctx->len, .vlan = ctx->vlan_tci,
	};

	bpf_map_update_elem(&seen, &zero, &now, 0);
	return 2;
}
#endif
char _license[] SEC("license") = "GPL";
"""


def compiled(source: Path, hook: str, folder: Path) -> bytes:
    output = folder / f"{source.stem}.{hook}.o"
    flags = ["-O2", "-g", "-target", "bpfel", "-mcpu=v3", f"-DPCN_{hook.upper()}", f"-I{INCLUDE}"]
    flags.append(f"-idirafter/usr/include/{sysconfig.get_config_var('MULTIARCH')}")
    subprocess.run(["clang", *flags, "-c", str(source), "-o", str(output)], check=True)
    return output.read_bytes()


class Kernel:
    """The programs of inject.bpf.c with one target, in slot 7."""

    def __init__(self, hook: str, folder: Path) -> None:
        self.paths = Paths(Path("/sys/fs/bpf") / f"slowpath-{hook}")
        self.paths.shared.mkdir(parents=True)
        source = folder / "target.bpf.c"
        source.write_text(TARGET)
        self.inject = Object.open(compiled(COMPILER / "inject.bpf.c", hook, folder), "inject")
        self.inject.load()
        self.target = Object.open(compiled(source, hook, folder), "target")
        if hook == "xdp":
            self.target.maps["pcn_scratch"].reuse(self.inject.map("pcn_scratch"))
        self.target.load()
        self.progs = self.inject.map("pcn_progs")
        with self.target.program("target") as program:
            self.progs.set(struct.pack("<I", 7), struct.pack("<I", program.fd))
        self.seen: Map = self.target.map("seen")

    def look(self) -> tuple[int, ...]:
        """port, flags, id (TC: mark), length, ifindex, tag."""
        value = self.seen.get(bytes(4))
        assert value
        self.seen.set(bytes(4), bytes(24))
        return struct.unpack("<6I", value)


@pytest.fixture(scope="module")
def tc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    isolate()
    ensure_bpffs()
    subprocess.run(["ip", "link", "add", "pcn_tc0", "mtu", "9000", "type", "veth", "peer", "name", "pcn_tc1", "mtu", "9000"], check=True)
    for end in ("pcn_tc0", "pcn_tc1"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    kernel = Kernel("tc", tmp_path_factory.mktemp("tc"))
    index = int(Path("/sys/class/net/pcn_tc1/ifindex").read_text())
    with kernel.inject.program("pcn_lead") as program, Link.tcx(program, index, AttachType.TCX_INGRESS):
        yield kernel
    subprocess.run(["ip", "link", "del", "pcn_tc0"], check=True)


@pytest.fixture(scope="module")
def xdp(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    isolate()
    ensure_bpffs()
    kernel = Kernel("xdp", tmp_path_factory.mktemp("xdp"))
    with kernel.inject.program("pcn_inject") as program:
        program.pin(kernel.paths.shared_map(XDP_INJECTOR))
    return kernel


def test_tc_leads_a_frame_to_the_port_it_is_to_be_received_by(tc: Kernel) -> None:
    injector = Injector(tc.paths)
    assert injector.tc(7, 5, bytes(60), out=False)
    assert tc.look() == (5, 0, 0, 60, 0, 0)
    injector.close()


def test_tc_leads_a_frame_out_of_a_port_and_a_tag_back_beside_the_bytes(tc: Kernel) -> None:
    injector = Injector(tc.paths)
    frame = bytes(Ether() / Dot1Q(vlan=5) / (b"x" * 100))
    assert injector.tc(7, 300, frame, out=True)
    assert tc.look() == (300, 1, 0, len(frame) - 4, 0, 5)
    injector.close()


def test_tc_takes_frames_up_to_the_device_s_mtu_and_says_so_beyond(tc: Kernel) -> None:
    injector = Injector(tc.paths)
    assert injector.tc(7, 1, bytes(9014), out=False)
    assert tc.look()[3] == 9014
    with pytest.raises(Refused, match="send 9100 bytes out of pcn_tc0"):
        injector.tc(7, 1, bytes(9100), out=False)
    assert injector.tc(7, 1, bytes(60), out=False)
    injector.close()


def test_without_the_device_the_sentence_names_it() -> None:
    isolate()
    with pytest.raises(NoSuchNetdev, match="pcn_none"):
        Injector(Paths(), "pcn_none").tc(7, 1, bytes(60), out=False)


def test_xdp_leads_a_frame_to_a_port_with_its_id(xdp: Kernel) -> None:
    injector = Injector(xdp.paths)
    injector.xdp(7, 5, 105, bytes(60), out=False)
    assert xdp.look() == (5, 0, 105, 60, 1, 0)
    injector.xdp(7, 6, 106, bytes(600), out=True, ifindex=1)
    assert xdp.look() == (6, 1, 106, 600, 1, 0)
    injector.close()


def test_xdp_takes_frames_up_to_its_limit_exactly(xdp: Kernel) -> None:
    injector = Injector(xdp.paths)
    injector.xdp(7, 5, 105, bytes(MAX_XDP), out=False)
    assert xdp.look()[3] == MAX_XDP
    injector.close()
