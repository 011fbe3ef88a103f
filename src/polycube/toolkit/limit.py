# SPDX-License-Identifier: Apache-2.0
"""Limits of what the router sends on its own account (RFC 1812 4.3.2.8, RFC 4443 2.4 (f)): a token bucket for each port. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

RATE = 100.0  # ICMP errors a second and port
BURST = 50.0


@dataclass
class Bucket:
    """Tokens that come back with time, up to a burst."""

    rate: float = RATE
    burst: float = BURST
    _tokens: float = field(default=-1.0, init=False)
    _at: float = field(default=0.0, init=False)

    def take(self, now: float) -> bool:
        """Takes one token, if there is one."""
        if self._tokens < 0:
            self._tokens, self._at = self.burst, now
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
