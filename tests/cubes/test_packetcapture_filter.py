# SPDX-License-Identifier: Apache-2.0
"""Filters: classic BPF in three ways (this project's interpreter, its translation in the kernel, libpcap's own interpreter), over random
programs and frames, and over the expressions that people write."""

import ctypes
from dataclasses import replace
from random import Random

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Raw

from polycube.cubes.packetcapture import Packetcapture
from polycube.cubes.packetcapture.cbpf import (
    ABS,
    ALU,
    BYTE,
    DIV,
    HALF,
    IMM,
    IND,
    JA,
    JEQ,
    JGE,
    JGT,
    JMP,
    JSET,
    LD,
    LDX,
    LEN,
    LSH,
    MEM,
    MISC,
    MSH,
    NEG,
    RET,
    RSH,
    ST,
    STX,
    WORD,
    WORDS,
    X_SOURCE,
    XOR,
    Instruction,
    Invalid,
    check,
    pack,
    parse,
    run,
    translate,
)
from polycube.cubes.packetcapture.filter import FUNCTION, code
from polycube.cubes.packetcapture.libpcap import FilterError, _Program, compile_filter, library
from polycube.testing.harness import Code, CodeError, Language

PCAP = library()

# ---- programs ----


LOADS = [LD | mode | size for mode in (ABS, IND) for size in (WORD, HALF, BYTE)]
OPERATIONS = [operation for operation in range(0, XOR + 1, 0x10) if operation != NEG]
TESTS = [JMP | test | source for test in (JEQ, JGT, JGE, JSET) for source in (0, X_SOURCE)]


def instruction(random: Random, left: int) -> Instruction:
    """Any instruction that is valid in a place with so many instructions behind it."""
    number = random.choice((random.randrange(1 << 32), random.randrange(80), random.randrange(5)))
    by_constant = random.choice(OPERATIONS)
    shift = by_constant in (LSH, RSH)  # by 32 and more there is no answer that all agree on
    offset, reach = random.randrange(80), [random.randint(0, left - 1) for _ in range(2)]
    choices = [
        Instruction(random.choice(LOADS), 0, 0, offset),
        Instruction(random.choice(LOADS), 0, 0, offset),
        Instruction(random.choice((LD | IMM, LD | LEN, LDX | IMM, LDX | LEN)), 0, 0, number),
        Instruction(LDX | MSH | BYTE, 0, 0, offset),
        Instruction(random.choice((LD | MEM, LDX | MEM, ST, STX)), 0, 0, random.randrange(WORDS)),
        Instruction(ALU | by_constant, 0, 0, number % 32 if shift else number or 1),
        Instruction(ALU | random.choice(OPERATIONS) | X_SOURCE, 0, 0, 0),
        Instruction(ALU | NEG, 0, 0, 0),
        Instruction(random.choice(TESTS), *reach, number),
        Instruction(JMP | JA, 0, 0, reach[0]),
        Instruction(random.choice((MISC, MISC | 0x80)), 0, 0, 0),
        Instruction(random.choice((RET, RET | 0x10)), 0, 0, number),
    ]
    return random.choices(choices, weights=[8] * 10 + [4, 1])[0]


def program_of(random: Random) -> list[Instruction]:
    """A program whose words are all written first, since libpcap's have any value at the start; the last instruction returns A."""
    start = [one for word in range(WORDS) for one in (Instruction(LD | IMM, 0, 0, word * 3), Instruction(ST, 0, 0, word))]
    length = random.randint(1, 25)
    return [*start, *(instruction(random, length - here) for here in range(length)), Instruction(RET | 0x10, 0, 0, 0)]


def frame_of(random: Random) -> bytes:
    return random.randbytes(random.randint(14, 90))


class _Header(ctypes.Structure):
    """struct pcap_pkthdr."""

    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long), ("caplen", ctypes.c_uint32), ("len", ctypes.c_uint32))


def by_libpcap(program: list[Instruction], frame: bytes) -> int:
    """What libpcap's own interpreter says."""
    raw = ctypes.create_string_buffer(pack(program))
    compiled = _Program(len(program), ctypes.cast(raw, ctypes.c_void_p))
    header = _Header(0, 0, len(frame), len(frame))
    found: int = PCAP.pcap_offline_filter(ctypes.byref(compiled), ctypes.byref(header), frame)
    return found & 0xFFFFFFFF


def test_the_interpreter_agrees_with_libpcaps_on_random_programs():
    results = set()
    for seed in range(3000):
        random = Random(seed)
        program = program_of(random)
        check(program)
        for frame in (frame_of(random), frame_of(random)):
            results.add(run(program, frame))
            assert run(program, frame) == by_libpcap(program, frame), (seed, program[2 * WORDS :], frame.hex())
    assert len(results) > 500


def test_packing_is_undone():
    program = list(compile_filter("tcp port 80 or vlan 7"))
    assert parse(pack(program)) == program


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ([], "0 instructions"),
        ([Instruction(LD | IMM, 0, 0, 0)], "no return"),
        ([Instruction(JMP | JA, 0, 0, 1), Instruction(RET, 0, 0, 0)], r"instruction 0 .* out of the program"),
        ([Instruction(JMP | JEQ, 3, 0, 1), Instruction(RET, 0, 0, 0)], "out of the program"),
        ([Instruction(ST, 0, 0, 16), Instruction(RET, 0, 0, 0)], "no word 16"),
        ([Instruction(ALU | DIV, 0, 0, 0), Instruction(RET, 0, 0, 0)], "division by zero"),
        ([Instruction(LDX | ABS, 0, 0, 0), Instruction(RET, 0, 0, 0)], "unknown load"),
        ([Instruction(ALU | 0xF0, 0, 0, 0), Instruction(RET, 0, 0, 0)], "unknown operation"),
        ([Instruction(MISC | 0x18, 0, 0, 0), Instruction(RET, 0, 0, 0)], "unknown instruction"),
    ],
)
def test_programs_that_are_none_are_refused(program, said):
    with pytest.raises(Invalid, match=said):
        translate(program, "f")


# ---- in the kernel ----


@pytest.fixture
def captured(cube):
    """Makes a function: whether a program, or an expression, takes a frame, in the real data plane."""

    def make(program_or_expression):
        piece = code(program_or_expression) if isinstance(program_or_expression, str) else literal(program_or_expression)
        made = cube(replace(Packetcapture.function(), code=(piece,)))
        made.cfg(directions=3, snaplen=65535)

        def taken(frame, direction="ingress"):
            before = made.map("counts").percpu(0), made.map("counts").percpu(1)
            made.send(frame, direction=direction).forwarded(packet=frame)
            after = made.map("counts").percpu(0), made.map("counts").percpu(1)
            return after != before

        return taken

    return make


def literal(program):
    """A program as code of an instance."""
    return Code("filter", Language.IR, translate(program, FUNCTION), exports=((FUNCTION, FUNCTION),), path=("filter",))


def test_random_programs_say_the_same_in_the_kernel(captured):
    for seed in range(12):
        random = Random(seed)
        program = program_of(random)
        taken = captured(program)
        for frame in [frame_of(random) for _ in range(4)]:
            assert taken(frame) == bool(run(program, frame)), (seed, program, frame.hex())


ETHER = {"src": "02:00:00:00:00:0a", "dst": "02:00:00:00:00:0b"}
V4, V6 = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"src": "2001:db8::1", "dst": "2001:db8::2"}


def traffic() -> list[bytes]:
    ether = Ether(**ETHER)
    inner = [
        IP(**V4) / TCP(sport=1000, dport=80, flags="S"),
        IP(**V4, options=IPOption_NOP()) / TCP(sport=80, dport=1000, flags="A") / Raw(b"GET / HTTP/1.1"),
        IP(**V4) / UDP(sport=53, dport=1000) / Raw(bytes(200)),
        IP(**V4, frag=100) / Raw(bytes(40)),
        IP(**V4) / ICMP(),
        IPv6(**V6) / TCP(sport=1000, dport=80, flags="SF"),
        IPv6(**V6) / UDP(sport=53, dport=1000),
        IPv6(**V6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(dport=80),
        IPv6(**V6) / IPv6ExtHdrFragment(offset=10) / Raw(bytes(20)),
        IPv6(**V6) / ICMPv6EchoRequest(),
        ARP(psrc="10.0.0.1", pdst="10.0.0.2"),
    ]
    frames = [ether / one for one in inner]
    frames += [ether / Dot1Q(vlan=7, prio=3) / one for one in inner]
    frames += [Ether(**ETHER, type=0x88A8) / Dot1Q(vlan=9) / Dot1Q(vlan=7) / one for one in inner[:3]]
    labels = MPLS(label=100, s=0) / MPLS(label=16, s=1)
    frames += [ether / labels / inner[0], ether / Dot1Q(vlan=7) / labels / inner[5], ether / PPPoE() / PPP() / inner[0]]
    frames += [ether / LLC() / Raw(b"x" * 40), Ether(**{**ETHER, "dst": "ff:ff:ff:ff:ff:ff"}) / ARP(), Ether(**ETHER) / Raw(b"\x45")]
    return [bytes(frame) for frame in frames]


TRAFFIC = traffic()
EXPRESSIONS = [
    "all",
    "tcp port 80",
    "src host 10.0.0.1 and not icmp",
    "ip6 and (udp port 53 or icmp6)",
    "vlan",
    "vlan 7 and tcp",
    "vlan 9 and vlan 7 and ip",
    "not vlan and ether host 02:00:00:00:00:0a",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "ip[6:2] & 0x1fff != 0",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
    "len > 150 or greater 240 or less 20",
    "ether broadcast or arp",
    "net 10.0.0.0/31 or ip6 net 2001:db8::2/128",
    "portrange 50-60 or udp[4:2] % 7 = 5",
    "ip6 protochain 6",
    "ip protochain 17 or llc",
    "mpls 100 and mpls 16 and host 10.0.0.1",
    "vlan 7 and mpls 100",
    "pppoes and tcp port 80",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_take_what_libpcap_takes(captured, expression):
    program = list(compile_filter(expression))
    taken, said = captured(expression), []
    for frame in TRAFFIC:
        wanted = bool(by_libpcap(program, frame))
        assert bool(run(program, frame)) == wanted
        assert taken(frame) == wanted, (expression, Ether(frame).summary())
        said.append(wanted)
    assert any(said)
    assert expression == "all" or not all(said)


def test_a_filter_sees_both_directions(captured):
    taken = captured("icmp")
    frame = Ether(**ETHER) / IP(**V4) / ICMP()
    assert taken(frame)
    assert taken(frame, "egress")
    assert not taken(Ether(**ETHER) / IP(**V4) / UDP(), "egress")


def test_loads_far_behind_in_long_frames(captured):
    expression = "ether[1400:4] = 0x01020304 and ether[511:2] = 0x0506 and ether[1403:4] != 0"
    frame = bytearray(bytes(Ether(**ETHER) / IP(**V4) / UDP()) + bytes(1400))
    frame[1400:1404], frame[511:513], frame[1404:1408] = b"\1\2\3\4", b"\5\6", b"\7\7\7\7"
    taken = captured(expression)
    assert taken(bytes(frame))
    assert not taken(bytes(frame[:1403]))


@pytest.mark.parametrize("expression", ["tcp porrt 80", "((", "ip[1:3] = 0", "host 10.0.0.300"])
def test_bad_expressions_are_refused_with_libpcaps_words(cube, expression):
    with pytest.raises(FilterError):
        compile_filter(expression)
    with pytest.raises(CodeError) as caught:
        cube(replace(Packetcapture.function(), code=(code(expression),)))
    assert caught.value.code.path == ("filter",)
