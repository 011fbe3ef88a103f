# SPDX-License-Identifier: Apache-2.0
"""Logging of what may go wrong a million times a second: each kind of complaint at most `LIMIT` times in `WINDOW` seconds.

What was suppressed is said with the first complaint of the next window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

LIMIT = 5
WINDOW = 10.0


@dataclass
class _Window:
    start: float
    count: int = 0


class Complaints:
    """The complaints about one cube; `log` is a structlog logger and may be exchanged."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self._windows: dict[str, _Window] = {}

    def error(self, event: str, error: BaseException) -> None:
        """Logs an exception with its traceback, unless this event was logged too often just now."""
        now = time.monotonic()
        window = self._windows.setdefault(event, _Window(now))
        suppressed = 0
        if now - window.start >= WINDOW:
            suppressed = max(window.count - LIMIT, 0)
            window.start, window.count = now, 0
        window.count += 1
        if window.count > LIMIT:
            return
        more = {"suppressed": suppressed} if suppressed else {}
        reason = str(error) or type(error).__name__
        self.log.error(event, reason=reason, exc_info=error, **more)
