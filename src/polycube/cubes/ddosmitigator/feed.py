# SPDX-License-Identifier: Apache-2.0
"""Lists of prefixes as text, and the form that they have in the tables. Pure, and fast: lists have a million entries.

A word is an address or a prefix; bits beyond the length are ignored, as with `ip route`. A prefix of length 0 is refused: it would block
everything, and is more likely a mistake in the list.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping, Sequence

from polycube.cubes.ddosmitigator.errors import BadEntry

_COMMENT = re.compile(r"#[^\n]*")
_KEY4, _KEY6 = struct.Struct("<I4s"), struct.Struct("<I16s")
_HOST4 = (32).to_bytes(4, "little")
_MASKS4 = [(0xFFFFFFFF << 32 - length) & 0xFFFFFFFF for length in range(33)]


def words(text: str) -> list[str]:
    """Of a list, without comments."""
    return _COMMENT.sub("", text).replace(",", " ").split()


def packed(word: str) -> tuple[int, bytes]:
    """IP version, and the key of the prefix (`struct pcn_lpm4_prefix`, `pcn_lpm6_prefix`). Raises ValueError."""
    if "/" not in word and ":" not in word:
        return 4, _HOST4 + _binary(socket.AF_INET, word)
    address, slash, text = word.partition("/")
    if slash and not (text.isascii() and text.isdigit()):
        raise ValueError("a length that is no number")
    if ":" in address:
        length = int(text) if slash else 128
        if not 0 < length <= 128:
            raise ValueError("a length beyond 1 to 128")
        number = int.from_bytes(_binary(socket.AF_INET6, address), "big")
        return 6, _KEY6.pack(length, (number >> 128 - length << 128 - length).to_bytes(16, "big"))
    length = int(text)
    if not 0 < length <= 32:
        raise ValueError("a length beyond 1 to 32")
    number = int.from_bytes(_binary(socket.AF_INET, address), "big") & _MASKS4[length]
    return 4, _KEY4.pack(length, number.to_bytes(4, "big"))


def _binary(family: int, text: str) -> bytes:
    try:
        return socket.inet_pton(family, text)
    except OSError as error:
        raise ValueError(str(error)) from None


def parse(cube: str, part: Sequence[str], first: int, into: Mapping[int, set[bytes]]) -> None:
    """Adds the keys of words, of which the first is number `first` of the list, by IP version. Raises BadEntry."""
    for number, word in enumerate(part, first):
        try:
            version, key = packed(word)
        except ValueError:
            raise BadEntry(cube, number, word) from None
        into[version].add(key)
