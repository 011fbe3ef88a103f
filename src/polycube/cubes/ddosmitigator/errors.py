# SPDX-License-Identifier: Apache-2.0
"""What ddosmitigator refuses."""

from __future__ import annotations

from polycube.model import PolycubeError


class TwiceConfigured(PolycubeError):
    """A prefix is in two lists of one side."""

    def __init__(self, cube: str, prefix: str, first: str, second: str) -> None:
        super().__init__(f"{prefix} of {cube} can't be in {second}: it is in {first}")


class NoLimit(PolycubeError):
    """A rate limit that limits nothing."""

    def __init__(self, cube: str, prefix: str) -> None:
        super().__init__(f"Rate limit {prefix} of {cube} has neither packets nor bytes a second")


class TooManyLimits(PolycubeError):
    """All slots are taken."""

    def __init__(self, cube: str, most: int) -> None:
        super().__init__(f"{cube} has {most} rate limits, and room for no more")


class BadEntry(PolycubeError):
    """A word of a list is no prefix."""

    def __init__(self, cube: str, number: int, word: str) -> None:
        super().__init__(f"Entry {number} for {cube} is {word[:60]!r}: expected an IPv4 or IPv6 address or prefix such as 10.0.0.0/24")


class NoRoom(PolycubeError):
    """A list has more prefixes than the table takes."""

    status = 409

    def __init__(self, cube: str, table: str, wanted: int, room: int, size: int) -> None:
        super().__init__(f"{wanted} new prefixes do not fit into {table} of {cube}: it has room for {room} more of {size} (blacklist-size)")
