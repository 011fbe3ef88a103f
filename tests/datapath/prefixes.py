# SPDX-License-Identifier: Apache-2.0
"""Prefixes to try tables with, and the plain model of longest-prefix match."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

BITS = {4: 32, 6: 128}


def network(version: int, address: int, length: int) -> Any:
    shift = BITS[version] - length
    return ipaddress.ip_network(((address >> shift << shift).to_bytes(BITS[version] // 8, "big"), length))


def longest(model: dict[Any, int], address: Any, counts: Callable[[int], bool] = lambda value: True) -> tuple[Any, int] | None:
    """The plain model: look at all of them."""
    matching = [(one.prefixlen, one) for one in model if address in one and counts(model[one])]
    return (max(matching)[1], model[max(matching)[1]]) if matching else None


def around(rnd: random.Random, version: int, count: int) -> tuple[list[Any], list[Any]]:
    """Prefixes that lie in one another, and addresses in and beside them."""
    bits = BITS[version]
    centres = [rnd.getrandbits(bits) for _ in range(4)]

    def near() -> int:
        return rnd.choice(centres) ^ rnd.getrandbits(rnd.randrange(bits + 1))

    prefixes = sorted({network(version, near(), rnd.randrange(bits + 1)) for _ in range(count)}, key=str)
    flips = [near() for _ in range(count)]
    inside = [int(one.network_address) | rnd.getrandbits(bits) >> one.prefixlen for one in prefixes[:10]]
    return prefixes, [ipaddress.ip_address(one.to_bytes(bits // 8, "big")) for one in (*flips, *inside)]


def packet(address: Any) -> Any:
    return Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / (IP if address.version == 4 else IPv6)(dst=str(address))


def agrees(made: Any, model: dict[Any, int], addresses: list[Any], counts: Callable[[int], bool] = lambda value: True) -> None:
    """Whether the data plane forwards by the port that the model says."""
    for address in addresses:
        expected, result = longest(model, address, counts), made.send(packet(address))
        if expected is None:
            result.dropped("no_prefix")
        else:
            result.forwarded(expected[1])
