# SPDX-License-Identifier: Apache-2.0
"""Keys of tables of rules (lpm_rules.h): what LPM_RULES declares. A map has any number of tables; each write is one entry.

A table of both IP versions has IPv4 networks as mapped ones, ::ffff:a.b.c.d (`rule_key`); one of one version may have them as they are.
"""

from __future__ import annotations

import struct
from typing import Any

from polycube.net.addr import Network
from polycube.toolkit.address import mapped

_HEAD = struct.Struct("<II")
_TABLE_BITS, _MAPPED_BITS = 32, 96


def rule_key(network: Network, table: int = 0) -> dict[str, Any]:
    """The key of a network, as the view of the map takes it."""
    bits = network.prefixlen + (_MAPPED_BITS if network.version == 4 else 0)
    return {"length": _TABLE_BITS + bits, "table": table, "address": mapped(network.network_address)}


def packed_rule(table: int, bits: int, address: bytes) -> bytes:
    """The same as the kernel has it, of an address as it is."""
    return _HEAD.pack(_TABLE_BITS + bits, table) + address.ljust(16, b"\0")
