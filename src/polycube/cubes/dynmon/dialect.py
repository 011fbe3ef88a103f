# SPDX-License-Identifier: Apache-2.0
"""Upstream's dialect of C, recognised so that the error says what to write instead. BCC rewrote such code before clang saw it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from polycube.compiler.code import Diagnostic

_RULES = (
    (r"\bBPF_(?:TABLE|HASH|ARRAY|PERCPU_HASH|PERCPU_ARRAY|LRU_HASH|QUEUE|STACK|QUEUESTACK|HISTOGRAM|F_TABLE\w*)\s*\(", "{} is BCC's: "
     "write MAP(name, HASH, key type, value type, entries), MAP_KEYLESS(name, QUEUE, value type, entries)"),
    (r"\bhandle_rx\s*\(", "{} is upstream's: write HANDLER(monitor) {{ ... }}"),
    (r"\bstruct\s+CTXTYPE\b", "{} is upstream's: the handler has ctx, a struct pcn_ctx *"),
    (r"\bstruct\s+pkt_metadata\b", "{} is upstream's: the handler has pkt, a struct pcn_packet *"),
    (r"\bRX_(?:OK|DROP|REDIRECT|CONTROLLER|RECIRCULATE|ERROR)\b", "{} is upstream's: return pcn_pass(pkt) or pcn_drop(pkt, 0)"),
    (r"[.](?:lookup|lookup_or_init|lookup_or_try_init|update|insert|delete|increment|push|pop|peek)\s*\(", "{} is BCC's: "
     "write bpf_map_lookup_elem(&map, &key), bpf_map_update_elem(&map, &key, &value, BPF_ANY), bpf_map_push_elem(&map, &value, 0)"),
)  # fmt: skip
_PATTERN = re.compile("|".join(f"(?P<r{number}>{pattern})" for number, (pattern, _) in enumerate(_RULES)))
_SKIPPED = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)


@lru_cache(64)
def foreign(text: str) -> tuple[Diagnostic, ...]:
    """What is not the C of this project, by line; comments and strings may say anything."""
    return tuple(_found(text, _SKIPPED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)))


def _found(text: str, code: str) -> Iterator[Diagnostic]:
    lines = text.splitlines()
    for match in _PATTERN.finditer(code):
        _, message = _RULES[int(str(match.lastgroup)[1:])]
        line = code.count("\n", 0, match.start()) + 1
        column = match.start() - (code.rfind("\n", 0, match.start()) + 1) + 1
        yield Diagnostic(message.format(match[0].rstrip("( \t").lstrip(".")), line, column, lines[line - 1])
