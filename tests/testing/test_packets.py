# SPDX-License-Identifier: Apache-2.0
"""How differences of packets are shown."""

import subprocess
import sys

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from polycube.testing.packets import difference, to_bytes

E = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def diff(actual, expected):
    return difference(to_bytes(actual), to_bytes(expected))


def test_equal_packets_do_not_differ():
    assert diff(E / IP(), E / IP()) is None


def test_fields_that_differ_are_marked():
    lines = diff(E / IP(ttl=63) / UDP(), E / IP(ttl=64) / UDP()).splitlines()
    assert lines[0] == "frames differ: 42 bytes instead of 42"
    assert "  Ethernet" in lines
    assert next(line.strip() for line in lines if line.strip().startswith("!")) == "! ttl = 63, expected 64"
    assert "  UDP" in lines
    assert "first difference at byte 22" in lines


def test_a_layer_too_much():
    shown = diff(E / Dot1Q(vlan=1) / IP(), E / IP())
    assert "! 802.1Q instead of IP" in shown
    assert "! IP instead of nothing" in shown


def test_lengths():
    shown = diff(E / IP() / TCP() / b"abc", E / IP() / TCP() / b"abcd")
    assert shown.startswith("frames differ: 57 bytes instead of 58")


def test_scapy_is_not_imported_for_bytes():
    code = (
        "import sys; from polycube.testing import harness, packets, plugin; packets.assert_equal(b'a', bytearray(b'a'));"
        "print('scapy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
