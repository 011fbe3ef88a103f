# SPDX-License-Identifier: Apache-2.0
"""Rates for `include/polycube/tokenbucket.h`: from tokens a second and a burst to a `struct pcn_rate`.

A token is a packet or a byte. The figures are those of the header, which says how precisely a rate is kept: a price in 2^-12 ns, a burst in
ticks of 1/16 ns.
"""

from __future__ import annotations

TICKS = 16  # a nanosecond: 1 << PCN_TICK_SHIFT
PRICE = 256  # a tick: 1 << PCN_PRICE_SHIFT
SECOND = 10**9 * TICKS  # ticks
MAX_RATE = 12_500_000_000  # tokens a second: 100 Gbit/s of bytes
MAX_BURST_SECONDS = 10**8  # what fills longer is as good as unlimited; keeps differences of moments within 63 bits


def rate(tokens: int, burst: int) -> dict[str, int]:
    """A `struct pcn_rate` for so many tokens a second and a bucket that holds `burst` of them; 0 tokens: no limit.

    Raises ValueError for what the data plane can't count: a rate over `MAX_RATE`, a burst of no token.
    """
    if tokens == 0:
        return {"price": 0, "burst": 0}
    if not 0 < tokens <= MAX_RATE:
        raise ValueError(f"a rate of {tokens} a second: expected 1 to {MAX_RATE}")
    if burst < 1:
        raise ValueError(f"a burst of {burst}: expected at least 1, or nothing ever passes")
    price = (SECOND * PRICE + tokens // 2) // tokens
    return {"price": price, "burst": min((price * burst + PRICE // 2) // PRICE, MAX_BURST_SECONDS * SECOND)}


def is_full(bucket: int, now: int) -> bool:
    """Whether the bucket (its word `full`) is full at `now` (ns, CLOCK_MONOTONIC): then its entry says nothing and may go."""
    return bucket <= now * TICKS
