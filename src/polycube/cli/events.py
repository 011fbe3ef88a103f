# SPDX-License-Identifier: Apache-2.0
"""`polycubectl events`: what happens, a line an event: `TIME KIND name=value ...`, or the object as it came with `-json`."""

from __future__ import annotations

import json
import sys

from polycube.cli.client import Client
from polycube.cli.errors import EXIT_OK, SyntaxProblem
from polycube.cli.grammar import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from polycube.cli.config import Config

USAGE = "Bad syntax, usage: events [show] [kinds=KIND,...] [drops=RATE] [-json]"
SILENCE = 60.0  # seconds; the daemon writes something every 15


def parse(arguments: list[str]) -> tuple[str, bool]:
    """The query of the request, and whether objects are printed as they come."""
    query, plain = [], False
    for word in arguments:
        name, equals, value = word.partition("=")
        if equals and name in ("kinds", "drops") and value:
            query.append(f"{name}={quote(value)}")
        elif word == "-json":
            plain = True
        elif word != "show":
            raise SyntaxProblem(USAGE)
    return ("?" if query else "") + "&".join(query), plain


def run(config: Config, arguments: list[str]) -> int:
    """Until interrupted, or the daemon ends."""
    query, plain = parse(arguments)
    kind = ""
    for line in Client(config, SILENCE).lines(f"events{query}"):
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            print(text(kind, value, plain), flush=True)
    print("polycubed ended the stream", file=sys.stderr)
    return EXIT_OK


def text(kind: str, data: str, plain: bool) -> str:
    """One event in a line."""
    found = json.loads(data)
    if plain:
        return json.dumps({"kind": kind, **found})
    when = found.pop("time", "")
    return " ".join([when, kind, *(f"{name}={word(value)}" for name, value in found.items())])


def word(value: object) -> str:
    if isinstance(value, str) and value and " " not in value:
        return value
    return json.dumps(value)
