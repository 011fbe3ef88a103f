# SPDX-License-Identifier: Apache-2.0
"""Addresses replaced by pseudonyms, the same for the same address. Pure but for the key.

Two addresses share just as many leading bits as their pseudonyms do, so networks stay networks (Xu, Fan, Ammar and Moon, *Prefix-Preserving
IP Address Anonymization*, ICNP 2002): each bit is turned over or not by a keyed hash of the bits before it. Group addresses stay.

Replaced are the addresses of Ethernet, ARP, IPv4 and IPv6 headers, behind up to two tags. Checksums are not made right, and payloads are
not looked into: a snap length cuts them off.
"""

from __future__ import annotations

import hashlib
import os

REMEMBERED = 65536
_TAGS = (b"\x81\x00", b"\x88\xa8")
_FIELDS = {  # EtherType -> offset and size of the addresses behind it
    b"\x08\x00": ((12, 4), (16, 4)),
    b"\x86\xdd": ((8, 16), (24, 16)),
    b"\x08\x06": ((8, 6), (14, 4), (18, 6), (24, 4)),
}


class Pseudonyms:
    """Pseudonyms under one key; without one, of this process's own."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(32)
        self._known: dict[bytes, bytes] = {}

    def of(self, address: bytes) -> bytes:
        """The pseudonym of an address of 4, 6 or 16 bytes."""
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[address] = address if _is_group(address) else self._made(address)
        return found

    def _made(self, address: bytes) -> bytes:
        bits, number, made = len(address) * 8, int.from_bytes(address, "big"), 0
        for position in range(bits):
            before = (number >> bits - position).to_bytes(len(address), "big")
            turned = hashlib.blake2s(bytes((len(address), position)) + before, key=self._key, digest_size=1).digest()[0] & 1
            made = made << 1 | (number >> bits - 1 - position & 1) ^ turned
        result = made.to_bytes(len(address), "big")
        if len(address) == 6:  # whether it is locally administered, and one station's, stays
            return bytes((result[0] & 0xFC | address[0] & 3,)) + result[1:]
        return address if _is_group(result) else result

    def frame(self, frame: bytes) -> bytes:
        """A frame, or the beginning of one."""
        made = bytearray(frame)
        self._replace(made, 0, 6)
        self._replace(made, 6, 6)
        at = 12
        while frame[at : at + 2] in _TAGS and at < 20:
            at += 4
        for offset, size in _FIELDS.get(frame[at : at + 2], ()):
            self._replace(made, at + 2 + offset, size)
        return bytes(made)

    def _replace(self, frame: bytearray, at: int, size: int) -> None:
        """What is cut off in the middle of an address shows nothing of it."""
        address = bytes(frame[at : at + size])
        frame[at : at + size] = self.of(address) if len(address) == size else bytes(len(address))


def _is_group(address: bytes) -> bool:
    """No station's: multicast, broadcast, and the unspecified address."""
    if not any(address):
        return True
    return bool(address[0] & 1) if len(address) == 6 else address[0] == 0xFF if len(address) == 16 else address[0] >= 224
