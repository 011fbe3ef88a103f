# SPDX-License-Identifier: Apache-2.0
"""Errors of the binding."""

from __future__ import annotations

import os
import re

ENOTSUPP = 524  # the kernel's own, unknown to libc
_CODES = {
    ENOTSUPP: "Operation not supported by this kernel",
    4000: "Broken ELF file",  # enum libbpf_errno
    4001: "Not a BPF object",
    4002: "BPF object of another libbpf or kernel version",
    4003: "BPF object of the other byte order",
    4004: "Internal error of libbpf",
    4005: "Relocation failed",
    4007: "The verifier refuses it",
    4008: "Program too big",
    4009: "Incompatible kernel version",
    4010: "Kernel doesn't support this program type",
    4011: "Wrong netlink message",
}


class BpfError(Exception):
    """The kernel or libbpf refused: `what` was tried, `errno` says why."""

    def __init__(self, errno: int, what: str, detail: str = "", *, sentence: str = "") -> None:
        self.errno = errno
        self.what = what
        self.detail = detail
        super().__init__(sentence or f"{what}: {_CODES.get(errno) or os.strerror(errno)}" + (f" ({detail})" if detail else ""))


class MapFull(BpfError):
    """The map has as many entries as it can take."""

    def __init__(self, errno: int, what: str, detail: str = "") -> None:
        # E2BIG's "Argument list too long" explains nothing here.
        super().__init__(errno, what, detail, sentence=what + (f" ({detail})" if detail else ""))


class HookBusy(BpfError):
    """Somebody else's program is on the hook."""


class NotSupported(BpfError):
    """This kernel or libbpf lacks the feature."""


class VerifierError(BpfError):
    """The verifier refused a program; `log` is all it said, `summary` the end of it with the nearest line of C."""

    def __init__(self, errno: int, program: str, log: str) -> None:
        self.program = program
        self.log = log
        self.summary = summarise(log)
        what = f"the verifier refuses program {program}"
        super().__init__(errno, what, self.summary, sentence=f"{what}: {self.summary}")


# What the log says besides verdicts: instructions, states of registers, branches, the walk back for precision, functions, statistics.
_TRACE = re.compile(
    r"\d+: |from \d+ to |R\d+(_\w+)?=|fp-\d+|frame\d+:|mark_precise|last_idx |regs=|parent |caller:|callee:|returning from|to caller"
    r"|Func#|Validating |.* is safe for any args|propagating |verification time|stack depth|processed \d|-- |libbpf: "
)
_SOURCE = re.compile(r"; (?P<code>\S.*?)(?: @ (?P<where>\S+:\d+))?$")
_VERDICT = 3  # lines at most
_TAIL = 1 << 16  # characters; a log may have 16 million


def summarise(log: str) -> str:
    """The verifier's verdict and the line of C it stands at."""
    start = log.find("\n", len(log) - _TAIL) + 1 if len(log) > _TAIL else 0  # a whole line, lest its end be taken for code
    lines = [line.strip() for line in log[start:].splitlines()]
    lines = [line for line in lines if line and not line.startswith(("libbpf: ", "-- ", "processed "))]
    last = next((i for i in reversed(range(len(lines))) if not _traces(lines[i])), -1)
    if last < 0:
        return f"no verdict in {len(lines)} lines of log" if lines else "no log"
    first = last
    while first > 0 and last - first < _VERDICT - 1 and not _traces(lines[first - 1]):
        first -= 1
    verdict = "; ".join(lines[first : last + 1])
    # clang 14 marks code that belongs to no line by an empty one (";  @ x.c:0"), which isn't taken.
    code = next((found for line in reversed(lines[:first]) if (found := _SOURCE.match(line))), None)
    place = f", at: {code['code']}" + (f" ({code['where']})" if code["where"] else "") if code else ""
    omitted = len(lines) + log[:start].count("\n") - (last - first + 1) - (code is not None)
    return verdict + place + (f"; {omitted} lines omitted" if omitted > 0 else "")


def _traces(line: str) -> bool:
    return line.startswith(";") or _TRACE.match(line) is not None
