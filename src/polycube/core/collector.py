# SPDX-License-Identifier: Apache-2.0
"""How often Python looks for garbage in cycles, in the daemon and its workers.

A configuration is a tree, without any, and grows by objects that stay. With the interpreter's own thresholds half of the time that a body
of 100,000 routes takes would go into walking over those that are there already.
"""

from __future__ import annotations

import gc


def relax() -> None:
    """To be called once a process; children inherit it."""
    gc.set_threshold(10_000, 20, 20)
