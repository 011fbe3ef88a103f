# SPDX-License-Identifier: Apache-2.0
"""Answers as text: leaves first, then containers, then lists as tables; or JSON, or YAML.

In a pipe the text is plain and laid out as upstream's, so that scripts may cut it at columns. On a terminal headers are
bold, states coloured and numbers set right. `_links` (the daemon's HATEOAS members) are for programs and never shown.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    Row = dict[str, str]

DEPTHS = {"brief": 1, "normal": 2, "verbose": 3}
STATES = {"UP": "32", "DOWN": "31"}
MOST_INLINE = 8  # plain values of a list that are shown in a cell of a table


class Paint:
    """Marks on text; none at all unless it goes to a terminal."""

    def __init__(self, colour: bool = False) -> None:
        self.colour = colour

    def bold(self, text: str) -> str:
        return self.mark(text, "1")

    def state(self, text: str) -> str:
        code = STATES.get(text.strip())
        return self.mark(text, code) if code else text

    def mark(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour and text else text


def paint_for(stream: TextIO) -> Paint:
    """Colour on a terminal that can show it, unless NO_COLOR says otherwise."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")
    return Paint(wanted and stream.isatty())


def render(data: object, form: str, hide: frozenset[str] = frozenset(), paint: Paint | None = None) -> str:
    """Text of an answer in the form asked for; ends in a newline unless empty."""
    data = without_links(data)
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if form == "yaml":
        import yaml

        text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=False, allow_unicode=True)
        return text.removesuffix("...\n")
    lines: list[str] = []
    emit(lines, without(data, hide) if hide else data, 0, DEPTHS[form or "normal"], paint or Paint())
    return "\n".join(lines) + "\n" if lines else ""


def without_links(data: object) -> object:
    """Drop `_links` members, and the ["_links", ...] that upstream adds to the end of arrays."""
    if isinstance(data, dict):
        return {key: without_links(value) for key, value in data.items() if key != "_links"}
    if isinstance(data, list):
        return [without_links(item) for item in data if not (isinstance(item, list) and item[:1] == ["_links"])]
    return data


def without(data: object, hide: frozenset[str], prefix: str = "") -> object:
    """Drop the members named by dotted paths; the items of a list have the path of the list."""
    if isinstance(data, dict):
        return {key: without(value, hide, f"{prefix}{key}.") for key, value in data.items() if f"{prefix}{key}" not in hide}
    if isinstance(data, list):
        return [without(item, hide, prefix) for item in data]
    return data


def emit(lines: list[str], data: object, indent: int, depth: int, paint: Paint) -> None:
    pad = " " * indent
    if isinstance(data, list):
        lines += table(*columns_and_rows(data, depth), indent, paint)
    elif isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(value, dict | list):
                lines.append(f"{pad}{paint.bold(f'{key}:')} {paint.state(plain(value))}".rstrip())
        for key, value in data.items():
            if isinstance(value, dict):
                lines.append(f"{pad}{paint.bold(f'{key}:')}")
                emit(lines, value, indent + 1, depth, paint)
        for key, value in data.items():
            if isinstance(value, list) and value and depth > 1:
                lines += ["", f"{pad}{paint.bold(f'{key}:')}"]
                emit(lines, value, indent + 1, depth, paint)
            elif isinstance(value, list):
                lines.append(f"{pad}{paint.bold(f'{key}:')} {count(value)}")
    else:
        lines.append(pad + paint.state(plain(data)))


def columns_and_rows(items: list[object], depth: int) -> tuple[list[str], list[Row]]:
    """A list as a table. An item takes several rows when lists within it are shown, too."""
    rows: list[Row] = []
    for item in items:
        rows += item_rows(item, depth - 1) if isinstance(item, dict) else [{"": plain_item(item)}]
    return list(dict.fromkeys(column for row in rows for column in row)), rows


def item_rows(item: dict[str, object], depth: int) -> list[Row]:
    first: Row = {}
    nested: list[list[Row]] = []
    flatten(first, item, "")
    for key, value in item.items():
        if isinstance(value, list):
            if depth > 1 and value:
                _, rows = columns_and_rows(value, depth)
                nested.append([{f"{name} ({key})" if name else key: text for name, text in row.items()} for row in rows])
            elif depth > 0:
                first[key] = inline(value)
    rows = [first, *({} for _ in range(max((len(part) for part in nested), default=1) - 1))]
    for part in nested:
        for row, more in zip(rows, part, strict=False):
            row.update(more)
    return rows


def flatten(row: Row, item: dict[str, object], prefix: str) -> None:
    """The leaves of an item, those in its containers by dotted name."""
    for key, value in item.items():
        if isinstance(value, dict):
            flatten(row, value, f"{prefix}{key}.")
        elif isinstance(value, list):
            if prefix:
                row[prefix + key] = inline(value)
        else:
            row[prefix + key] = cell(value)


def table(columns: list[str], rows: Iterable[Row], indent: int = 0, paint: Paint | None = None) -> list[str]:
    """Lines of a table: a header, two spaces between columns, nothing behind the last."""
    paint = paint or Paint()
    cells = [[row.get(column, "") for column in columns] for row in rows]
    if any(columns):
        cells.insert(0, columns)
    if not columns or not cells:
        return []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [paint.colour and all(is_figure(text) for text in column[1:]) and any(column[1:]) for column in zip(*cells, strict=True)]
    lines = []
    for number, texts in enumerate(cells):
        padded = [text.rjust(width) if at else text.ljust(width) for text, width, at in zip(texts, widths, right)]  # noqa: B905
        padded[-1] = padded[-1].rstrip()
        if paint.colour:
            padded = [paint.bold(text) if number == 0 and any(columns) else paint.state(text) for text in padded]
        lines.append((" " * indent + "  ".join(padded)).rstrip())
    return lines


def is_figure(text: str) -> bool:
    return not text or text.removeprefix("-").replace(".", "", 1).isdigit()


def count(items: list[object]) -> str:
    return f"[{len(items)} items]"


def inline(items: list[object]) -> str:
    """A list in one cell: a few plain values themselves, else their number."""
    if 0 < len(items) <= MOST_INLINE and not any(isinstance(item, dict | list) for item in items):
        return ",".join(map(cell, items))
    return count(items)


def plain(value: object) -> str:
    """A leaf's bare value. Control characters, which could play tricks on a terminal, are spelled out."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:f}"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else escape(letter) for letter in text)


def cell(value: object) -> str:
    """The same for one line of a table."""
    text = plain(value).replace("\t", " ")
    return text if text.isprintable() else "".join(each if each.isprintable() else escape(each) for each in text)


def plain_item(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else cell(value)


def escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
