# SPDX-License-Identifier: Apache-2.0
"""libpcap's compiler of filter expressions: text in, classic BPF out. Called in the compiler process, where odd input harms nobody else."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from polycube.cubes.packetcapture.cbpf import Instruction, parse

LIBRARY = "libpcap.so.0.8"  # Debian's name of the ABI that others call libpcap.so.1
OTHER = "libpcap.so.1"
ETHERNET = 1  # DLT_EN10MB
SNAPLEN = 262144
ANY_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN
EVERYTHING = "all"


class FilterError(ValueError):
    """Not a filter expression."""


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def library() -> ctypes.CDLL:
    """libpcap. Raises FilterError if it is not on this machine."""
    for name in (LIBRARY, OTHER):
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        found.pcap_open_dead.restype = ctypes.c_void_p
        found.pcap_geterr.restype = ctypes.c_char_p
        return found
    raise FilterError(f"filter expressions need {LIBRARY}, which is not on this machine: install the package libpcap0.8")


def compile_filter(expression: str) -> Sequence[Instruction]:
    """The program of an expression for Ethernet frames; `all` takes everything. Raises FilterError with libpcap's sentence."""
    pcap = library()
    handle = ctypes.c_void_p(pcap.pcap_open_dead(ETHERNET, SNAPLEN))
    program = _Program()
    text = "" if expression.strip().lower() == EVERYTHING else expression
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), text.encode(), 1, ctypes.c_uint(ANY_NETMASK)):
            raise FilterError(pcap.pcap_geterr(handle).decode(errors="replace"))
        found = parse(ctypes.string_at(program.instructions, program.length * 8))
        pcap.pcap_freecode(ctypes.byref(program))
        return found
    finally:
        pcap.pcap_close(handle)
