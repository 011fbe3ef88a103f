# SPDX-License-Identifier: Apache-2.0
"""Requests that are being answered, and what each of them waits for at the moment: for whoever has to wait.

Whatever takes time says so with `step`, wherever it is called from; what is no request's work says it to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(eq=False)
class Underway:
    """One request."""

    method: str
    path: str  # as it came, below the base
    step: str = ""
    since: float = field(default_factory=time.monotonic)

    def as_data(self) -> dict[str, str | float]:
        return {"method": self.method, "path": self.path, "seconds": round(time.monotonic() - self.since, 1), "step": self.step}


_all: dict[Underway, None] = {}
_own: ContextVar[Underway | None] = ContextVar("underway", default=None)


@contextmanager
def answering(method: str, path: str) -> Iterator[None]:
    """Within, a request is answered."""
    one = Underway(method, path)
    token = _own.set(one)
    _all[one] = None
    try:
        yield
    finally:
        del _all[one]
        _own.reset(token)


def step(words: str) -> None:
    """What this request waits for from now on."""
    one = _own.get()
    if one is not None:
        one.step = words


def underway() -> list[Underway]:
    """All that are being answered but the one that asks, the oldest first."""
    return [one for one in _all if one is not _own.get()]
