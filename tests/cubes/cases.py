# SPDX-License-Identifier: Apache-2.0
"""Many packets through one cube: loading it again for each of them would take far longer than all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


def each(cases: Mapping[str, T]) -> Iterator[T]:
    """One after the other; a failure is called by the name of its case."""
    for name, case in cases.items():
        try:
            yield case
        except GeneratorExit:  # the loop was left by what went wrong in it
            print(f"failed: {name}")
            raise
