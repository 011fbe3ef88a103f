# SPDX-License-Identifier: Apache-2.0
"""Where two lists of objects differ: what an edit costs is then that of the edit, not that of a list of ten thousand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count
from operator import is_not
from typing import Any


def ends(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int]:
    """How many elements are the same objects at the beginning, and how many of the others at the end."""
    most = min(len(old), len(new))
    first = next(compress(count(), map(is_not, old, new)), most)
    last = next(compress(count(), map(is_not, reversed(old), reversed(new))), most)
    return first, min(last, most - first)
