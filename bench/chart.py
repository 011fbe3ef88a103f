# SPDX-License-Identifier: Apache-2.0
"""A bar chart of ratios as SVG, without a library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LABEL, HEIGHT, MARGIN = 900, 430, 26, 30


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Bars of (name, value, aim); a line stands at 1, a tick at the aim."""
    scale = (WIDTH - LABEL - 80) / max([value for _, value, _ in rows] + [2.0])
    height = MARGIN + HEIGHT * len(rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LABEL}" y="18" fill="#555">ratio; thin line: 1, red tick: aim</text>',
    ]
    for number, (name, value, aim) in enumerate(rows):
        top = MARGIN + number * HEIGHT
        parts.append(f'<text x="{LABEL - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{LABEL}" y="{top + 3}" width="{value * scale:.1f}" height="{HEIGHT - 8}" fill="#4a7ebb"/>')
        parts.append(f'<text x="{LABEL + value * scale + 5:.1f}" y="{top + 15}">{value:.2f}</text>')
        goal = aim.removeprefix("≥ ")
        if goal.replace(".", "", 1).isdigit():
            at = LABEL + float(goal) * scale
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + HEIGHT - 2}" stroke="#c00" stroke-width="2"/>')
    one = LABEL + scale
    parts.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{MARGIN - 4}" y2="{height - 8}" stroke="#999"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
