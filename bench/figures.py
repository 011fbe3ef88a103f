# SPDX-License-Identifier: Apache-2.0
"""What a benchmark finds: lines of the table that `make bench` prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A line of the table: what, the figure with its spread, and what was aimed at."""

    what: str
    figure: float
    spread: str = ""
    unit: str = "times"
    aim: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        mark = {None: "", True: "yes", False: "**no**"}[self.met]
        number = f"{self.figure:.2f}" if self.figure < 100 else f"{self.figure:.0f}"
        return f"| {self.what} | {number} {self.unit} | {self.spread} | {self.aim} | {mark} |"


Found = tuple[list[Row], dict[str, Any]]  # the lines, and the raw numbers for bench.json


def compared(what: str, ours: Sequence[float], theirs: Sequence[float], aim: float | None = None, unit: str = "times") -> Row:
    """The ratio round by round: median, and the middle half."""
    ratios = sorted(own / other for own, other in zip(ours, theirs, strict=False) if other)
    middle = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (middle, middle, middle)
    return Row(what, middle, f"{low:.2f} to {high:.2f}", unit, f"≥ {aim:g}" if aim else "", middle >= aim if aim else None)
