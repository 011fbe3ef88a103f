# SPDX-License-Identifier: Apache-2.0
"""What a worker may take at most, of all services or by service, as an option says it: `512M`, `512M,router=2G`, `dynmon=50%`.

Sizes and shares are written as systemd has them (systemd.resource-control(5)): bytes with K, M or G to the base of 1024; per cent of one
processor, so that 200% are two; `infinity` is no limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

UNLIMITED = "infinity"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEAST_MEMORY = 64 << 20  # Python and what every worker has imported


@dataclass(frozen=True)
class Quota:
    """A limit for each service; 0 is none."""

    text: str = UNLIMITED
    otherwise: int = 0
    services: Mapping[str, int] = field(default_factory=dict)

    def of(self, service: str) -> int:
        """The limit of a service's worker."""
        return self.services.get(service, self.otherwise)

    def __bool__(self) -> bool:
        return bool(self.otherwise or any(self.services.values()))

    def __str__(self) -> str:
        return self.text


def memory(text: str) -> Quota:
    """Bytes. Raises ValueError with what is wrong."""
    return _quota(text, _bytes)


def processor(text: str) -> Quota:
    """Per cent of one processor. Raises ValueError with what is wrong."""
    return _quota(text, _per_cent)


def _quota(text: str, parse: Callable[[str], int]) -> Quota:
    otherwise, services = None, dict[str, int]()
    for part in text.split(","):
        service, equals, value = part.rpartition("=")
        limit = 0 if value == UNLIMITED else parse(value)
        if equals and service and service not in services:
            services[service] = limit
        elif not equals and otherwise is None:
            otherwise = limit
        else:
            raise ValueError(f"is {text!r}: {part!r} stands there twice or has no service")
    return Quota(text, otherwise or 0, services)


def _bytes(value: str) -> int:
    found = re.fullmatch(r"(\d{1,15})([KMG]?)", value, re.ASCII)
    if not found or int(found[1]) * _UNITS[found[2]] < LEAST_MEMORY:
        raise ValueError(f"has {value!r}, expected {UNLIMITED} or at least {LEAST_MEMORY >> 20}M, such as 512M or 2G")
    return int(found[1]) * _UNITS[found[2]]


def _per_cent(value: str) -> int:
    found = re.fullmatch(r"(\d{1,6})%", value, re.ASCII)
    if not found or not int(found[1]):
        raise ValueError(f"has {value!r}, expected {UNLIMITED} or per cent of one processor, such as 50% or 200%")
    return int(found[1])
