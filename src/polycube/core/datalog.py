# SPDX-License-Identifier: Apache-2.0
"""Log lines of data planes (log.h): records of the ring buffer that all cubes share, made into text here."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LINE = struct.Struct("<4QIHH112s")  # struct pcn_log_line
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERR", "CRITICAL")  # enum pcn_log_level
LOGS = "pcn_logs"
_VERB = re.compile(r"%(%|[0-9]*(?:l{1,2}[diuxX]|[diuxXcIMP]))")


@dataclass(frozen=True)
class DataLog:
    """A line: the number of the cube, its level, and what it says."""

    cube: int
    level: str
    text: str


def decode(record: bytes) -> DataLog:
    """One record. Raises ValueError if it has another size."""
    if len(record) != LINE.size:
        raise ValueError(f"a log record of {len(record)} bytes, {LINE.size} expected")
    *arguments, cube, level, number, text = LINE.unpack(record)
    pattern = text.partition(b"\0")[0].decode(errors="replace")
    return DataLog(cube, LEVELS[min(level, len(LEVELS) - 1)], render(pattern, arguments[:number]))


def render(pattern: str, arguments: Sequence[int]) -> str:
    """The text of a line; a verb without an argument stays as it is."""
    rest = iter(arguments)

    def fill(match: re.Match[str]) -> str:
        verb = match[1]
        if verb == "%":
            return "%"
        value = next(rest, None)
        return match[0] if value is None else _shown(verb, value)

    return _VERB.sub(fill, pattern)


def _shown(verb: str, value: int) -> str:
    letter, width = verb[-1], re.match(r"[0-9]*", verb)
    bits = 64 if "l" in verb else 32
    value &= (1 << bits) - 1 if letter != "M" else (1 << 48) - 1
    if letter in _NETWORK:
        return _NETWORK[letter](value)
    if letter in "di" and value >> (bits - 1):
        value -= 1 << bits
    assert width
    return f"%{width[0]}{letter}" % value


_NETWORK: dict[str, Callable[[int], str]] = {
    "I": lambda value: ".".join(map(str, value.to_bytes(4, "little"))),
    "P": lambda value: str(int.from_bytes((value & 0xFFFF).to_bytes(2, "little"), "big")),
    "M": lambda value: value.to_bytes(6, "little").hex(":"),
    "c": lambda value: chr(value & 0xFF),
}
