# SPDX-License-Identifier: Apache-2.0
"""packetcapture: what is copied, in both hooks; losses; files, queue and streams and their bounds."""

import ipaddress
import socket
import struct
import subprocess
from dataclasses import replace
from functools import partial

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.utils import PcapNgReader

from polycube.cubes.packetcapture import Packetcapture, output, pcapng
from polycube.cubes.packetcapture.drain import LENGTH_AT
from polycube.cubes.packetcapture.filter import code
from polycube.cubes.packetcapture.model import PacketcaptureConfig
from polycube.cubes.packetcapture.output import Files, Queue, Stream
from polycube.cubes.packetcapture.pcapng import Source, head
from polycube.cubes.packetcapture.pseudonym import Pseudonyms
from polycube.model import ModelError, load

ETHER = {"src": "02:00:00:00:00:0a", "dst": "02:00:00:00:00:0b"}
V4 = Ether(**ETHER) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / b"odd"
V6 = Ether(**ETHER) / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1000, dport=80) / bytes(300)
TAGGED = Ether(**ETHER) / Dot1Q(vlan=7, prio=5) / V4[IP]
SOURCE = Source("veth1", "cap1 (bidirectional)", "all", 262144, "polycube test")


class Captured:
    """A packetcapture whose ring buffer is read by the test."""

    def __init__(self, cube, expression="all", directions=3, snaplen=262144, **options):
        self.cube = cube(replace(Packetcapture.function(), code=(code(expression),)), **options)
        self.cube.cfg(directions=directions, snaplen=snaplen)
        self.cube.map("clocks")[0] = 1_000_000_000_000_000_000

    def send(self, frame, direction="ingress"):
        """The frame must go on, whatever becomes of its copy."""
        self.cube.send(frame, direction=direction).forwarded(packet=frame)

    def blocks(self):
        return [record[: struct.unpack_from("<I", record, LENGTH_AT)[0]] for record in self.cube.records("frames")]

    def counts(self):
        values = [one for direction in (0, 1) for one in self.cube.map("counts").percpu(direction)]
        return sum(one["taken"] for one in values), sum(one["lost"] for one in values)


@pytest.fixture
def captured(cube):
    return partial(Captured, cube)


def options(block):
    """Options of a packet block: code -> value."""
    caplen = struct.unpack_from("<I", block, 20)[0]
    found, at = {}, 28 + (caplen + 3 & ~3)
    while True:
        kind, size = struct.unpack_from("<HH", block, at)
        if not kind:
            assert struct.unpack_from("<I", block, at + 4)[0] == len(block) == struct.unpack_from("<I", block, 4)[0]
            return found
        found[kind] = block[at + 4 : at + 4 + size]
        at += 4 + (size + 3 & ~3)


@pytest.mark.parametrize("frame", [V4, V6, TAGGED, Ether(**ETHER) / bytes(50), V4 / bytes(2500)], ids=["v4", "v6", "vlan", "raw", "long"])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_copy_is_the_frame_as_it_was_on_the_wire(captured, frame, direction):
    capture = captured()
    capture.send(frame, direction)
    (block,) = capture.blocks()
    found = pcapng.packet(block)
    assert found["data"] == bytes(frame)
    assert found["length"] == len(frame)
    assert 1_000_000_000_000_000_000 < found["time"] < 2_000_000_000_000_000_000
    assert options(block) == {2: struct.pack("<I", 1 if direction == "ingress" else 2)}
    assert capture.counts() == (1, 0)


@pytest.mark.parametrize("frame", [V6, TAGGED], ids=["v6", "vlan"])
@pytest.mark.parametrize("snaplen", [16, 17, 59])
def test_no_more_than_the_snap_length_is_kept(captured, frame, snaplen):
    capture = captured(snaplen=snaplen)
    capture.send(frame)
    (block,) = capture.blocks()
    found = pcapng.packet(block)
    assert (found["data"], found["length"]) == (bytes(frame)[:snaplen], len(frame))
    options(block)


def test_only_what_is_wanted_is_copied(captured):
    capture = captured("vlan and udp", directions=2)
    capture.send(TAGGED)
    capture.send(V4, "egress")
    capture.send(TAGGED, "egress")
    assert [pcapng.packet(block)["data"] for block in capture.blocks()] == [bytes(TAGGED)]
    assert capture.counts() == (1, 0)


def test_without_a_filter_nothing_is_captured(cube):
    made = cube("packetcapture", transparent=True)
    made.cfg(directions=3, snaplen=65535)
    made.send(V4).forwarded(packet=V4)
    assert all(one["taken"] == 0 for one in made.map("counts").percpu(0))


def test_frames_that_parsers_refuse_say_why(captured):
    capture = captured()
    capture.send(Ether(**ETHER, type=0x0800) / b"\x45\x00\x00")
    many = IPv6(src="2001:db8::1", dst="2001:db8::2")
    for _ in range(10):
        many /= IPv6ExtHdrDestOpt()
    capture.send(Ether(**ETHER) / many / TCP())
    assert [options(block)[1] for block in capture.blocks()] == [b"malformed", b"extensions"]


def test_a_full_buffer_loses_copies_never_frames(captured):
    capture = captured(sizes={"frames": 4096})
    for _ in range(20):
        capture.send(V6)
    taken, lost = capture.counts()
    kept = capture.blocks()
    assert taken == 20
    assert len(kept) + lost == 20
    assert 0 < lost < 20
    capture.send(V4)
    assert [pcapng.packet(block)["data"] for block in capture.blocks()] == [bytes(V4)]


def test_a_reader_goes_round_the_ring_many_times(captured):
    capture = captured(sizes={"frames": 8192})
    program = capture.cube.program("ingress")
    for turn in range(60):
        frame = bytes(V4) + bytes([turn] * turn)
        program.test_run(frame, repeat=3)
        blocks = capture.blocks()
        assert [pcapng.packet(block)["data"] for block in blocks] == [frame] * 3
    assert capture.counts() == (180, 0)


# ---- files ----


def block(size=60, fill=1):
    """A packet block as the data plane makes it."""
    data = bytes([fill]) * size
    body = struct.pack("<IIIII", 0, 0, 1, len(data), len(data)) + data + bytes(-size % 4)
    return pcapng.block(pcapng.PACKET, body)


def none():
    return 0, 0


def read(path):
    """Packets of a file, by somebody else's reader."""
    with PcapNgReader(str(path)) as reader:
        return [bytes(one) for one in reader]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_are_rotated_by_size_and_the_oldest_go(tmp_path):
    made = Files(tmp_path / "trace", 500, 0, 3)
    for number in range(20):
        made.write([block(fill=number)], SOURCE, none)
    made.finish(none)
    numbers = [int(name[6:11]) for name in files(tmp_path)]
    assert numbers == list(range(numbers[-1] - 2, numbers[-1] + 1))
    assert numbers[-1] > 3
    kept = [packet[0] for name in files(tmp_path) for packet in read(tmp_path / name)]
    assert kept == list(range(20 - len(kept), 20))
    assert made.written == 20


def test_files_are_rotated_by_time(tmp_path):
    made = Files(tmp_path / "trace", 1 << 20, 0.01, 3)
    made.write([block()], SOURCE, none)
    while made.path:
        made.tick(none)
    made.write([block()], SOURCE, none)
    assert files(tmp_path) == ["trace-00001.pcapng", "trace-00002.pcapng"]


def test_a_file_that_is_there_is_never_written_to(tmp_path):
    (tmp_path / "trace-00007.pcapng").write_bytes(b"precious")
    made = Files(tmp_path / "trace", 1 << 20, 0, 10)
    made.write([block()], SOURCE, none)
    assert made.path == tmp_path / "trace-00008.pcapng"
    assert (tmp_path / "trace-00007.pcapng").read_bytes() == b"precious"
    assert made.path.stat().st_mode & 0o777 == 0o600


def test_another_source_begins_another_file(tmp_path):
    made = Files(tmp_path / "trace", 1 << 20, 0, 10)
    made.write([block()], SOURCE, none)
    made.write([block()], replace(SOURCE, filter="tcp"), none)
    assert len(files(tmp_path)) == 2


def test_a_full_disk_loses_packets_and_leaves_whole_files(isolated, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        made = Files(tmp_path / "trace", 1 << 20, 0, 10)
        for _ in range(10):
            made.write([block(1000)] * 20, SOURCE, none)
        assert made.unwritten > 0
        assert made.written + made.unwritten == 200
        assert "No space left on device" in made.failure
        made.finish(none)
        assert len(read(tmp_path / "trace-00001.pcapng")) == made.written
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    made = Files(tmp_path / "nowhere" / "trace", 1 << 20, 0, 10)
    made.write([block()], SOURCE, none)
    assert (made.unwritten, made.failure) == (1, f"{tmp_path}/nowhere/trace: No such file or directory")


# ---- queue and streams ----


def test_a_queue_is_bounded_and_keeps_order(monkeypatch):
    monkeypatch.setattr(output, "QUEUE", 3)
    queue = Queue()
    queue.write([block(fill=number) for number in range(5)])
    assert (len(queue), queue.unqueued) == (3, 2)
    assert [pcapng.packet(queue.take())["data"][0] for _ in range(3)] == [0, 1, 2]
    assert queue.take() is None


def test_a_slow_reader_of_a_stream_loses_whole_packets(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "STREAM_BYTES", 8192)
    ours, theirs = socket.socketpair()
    with theirs:
        stream, got, sent = Stream(ours), b"", 0
        theirs.settimeout(0)
        for turn in range(60):
            stream.write([block(1000, turn), block(100, turn)], SOURCE)
            sent += 2
            if turn % 10 == 9:
                got += theirs.recv(1 << 20)
        stream.write([], SOURCE)
        try:
            while chunk := theirs.recv(1 << 20):
                got += chunk
                stream.write([], SOURCE)
        except BlockingIOError:
            pass
        stream.close()
    (tmp_path / "got").write_bytes(got)
    assert stream.lost > 0
    assert len(read(tmp_path / "got")) == sent - stream.lost


def test_a_stream_whose_reader_has_gone_is_closed():
    ours, theirs = socket.socketpair()
    stream = Stream(ours)
    stream.poll(SOURCE)
    assert theirs.recv(1 << 16) == head(SOURCE)
    theirs.close()
    stream.poll(SOURCE)
    assert stream.closed
    stream.write([block()], SOURCE)
    assert stream.lost == 1


# ---- configuration ----


@pytest.mark.parametrize(
    ("leaf", "value", "said"),
    [
        ("buffer", 3, "a power of two"),
        ("snaplen", 8, "16 to 262144"),
        ("dump", "relative", "absolute path"),
        ("capture", "both", "INGRESS"),
    ],
)
def test_what_makes_no_sense_is_refused(leaf, value, said):
    with pytest.raises(ModelError, match=said):
        load(PacketcaptureConfig, {"name": "cap1", leaf: value})


def test_code_follows_the_filter():
    assert Packetcapture.code(load(PacketcaptureConfig, {"name": "cap1"})) == ()
    assert Packetcapture.code(load(PacketcaptureConfig, {"name": "cap1", "filter": "arp"}))[0].arguments == ("arp",)


# ---- pseudonyms ----


def test_pseudonyms_keep_prefixes_and_groups():
    made = Pseudonyms(b"key")

    def common(one, other):
        """Leading bits that two addresses share."""
        return len(one) * 8 - (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_length()

    addresses = [ipaddress.ip_address(text).packed for text in ("10.0.0.1", "10.0.0.2", "10.0.9.1", "192.168.7.7")]
    addresses6 = [ipaddress.ip_address(text).packed for text in ("2001:db8::1", "2001:db8::2", "2001:db8:7::1", "fe80::1")]
    for group in (addresses, addresses6):
        pseudonyms = [made.of(one) for one in group]
        assert all(before != after for before, after in zip(group, pseudonyms, strict=True))
        assert [common(group[0], one) for one in group[1:]] == [common(pseudonyms[0], one) for one in pseudonyms[1:]]
    for address in (b"\xe0\0\0\x01", b"\xff" * 4, b"\xff" * 6, b"\x01\0\x5e\0\0\1", ipaddress.ip_address("ff02::1").packed, bytes(16)):
        assert made.of(address) == address
    assert made.of(bytes.fromhex("02000000000a"))[0] & 3 == 2
    assert made.of(addresses[0]) == Pseudonyms(b"key").of(addresses[0]) != Pseudonyms(b"other").of(addresses[0])


@pytest.mark.parametrize("frame", [V4, V6, TAGGED, Ether(**ETHER) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")], ids=["v4", "v6", "vlan", "arp"])
def test_no_address_is_left_in_headers(frame):
    made = Pseudonyms(b"key")
    raw = bytes(frame)
    changed = made.frame(raw)
    assert len(changed) == len(raw)
    before, after = Ether(raw), Ether(changed)
    assert [type(layer) for layer in layers(before)] == [type(layer) for layer in layers(after)]
    for old, new in zip(layers(before), layers(after), strict=True):
        for field in ("src", "dst", "psrc", "pdst", "hwsrc"):
            if field in old.fields:
                assert old.fields[field] != new.fields[field]
    assert changed[-3:] == raw[-3:] or ARP in before
    for cut in range(len(raw)):
        assert len(made.frame(raw[:cut])) == cut


def layers(packet):
    while packet:
        yield packet
        packet = packet.payload


def test_a_block_with_pseudonyms_is_a_block_still(tmp_path):
    raw = bytes(V4)
    data = struct.pack("<IIIII", 0, 0, 1, len(raw), len(raw)) + raw + bytes(-len(raw) % 4)
    made = pcapng.rewritten(memoryview(pcapng.block(pcapng.PACKET, data)), Pseudonyms(b"key").frame)
    (tmp_path / "made").write_bytes(head(SOURCE) + made)
    assert read(tmp_path / "made") == [Pseudonyms(b"key").frame(raw)]
