# SPDX-License-Identifier: Apache-2.0
"""Log lines of data planes: numbers in network and host order, and what does not fit."""

import pytest

from polycube.core.datalog import LINE, decode, render


@pytest.mark.parametrize(
    ("pattern", "arguments", "text"),
    [
        ("to %I port %P", [0x0100000A, 0x5000], "to 10.0.0.1 port 80"),
        ("%M", [0xFFFF_0605_0403_0201], "01:02:03:04:05:06"),
        ("%d %u %x", [0xFFFFFFFF, 0xFFFFFFFF, 255], "-1 4294967295 ff"),
        ("%lld %lu", [2**64 - 1, 2**64 - 1], "-1 18446744073709551615"),
        ("%04x|%c|%%", [10, 65], "000a|A|%"),
        ("%d of %d", [1], "1 of %d"),
        ("%s %f 100%", [1], "%s %f 100%"),
    ],
)
def test_a_line_is_filled_in(pattern, arguments, text):
    assert render(pattern, arguments) == text


def test_a_record_becomes_a_line():
    line = decode(LINE.pack(7, 0, 0, 0, 42, 3, 1, b"seven is %u"))
    assert (line.cube, line.level, line.text) == (42, "WARN", "seven is 7")


def test_a_record_of_another_size_is_refused():
    with pytest.raises(ValueError, match="a log record of 3 bytes"):
        decode(b"abc")
