# SPDX-License-Identifier: Apache-2.0
"""Errors of the binding."""

from __future__ import annotations

import os
import re


class BpfError(Exception):
    """The kernel or libbpf refused: `what` was tried, `errno` says why."""

    def __init__(self, errno: int, what: str, detail: str = "") -> None:
        self.errno = errno
        self.what = what
        self.detail = detail
        super().__init__(f"{what}: {os.strerror(errno)}" + (f" ({detail})" if detail else ""))


class MapFull(BpfError):
    """The map has as many entries as it can take."""


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
        super().__init__(errno, f"the verifier refuses program {program}", self.summary)


def summarise(log: str) -> str:
    """The verifier's verdict and the line of C it stands at."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith("libbpf:")]
    lines = [line for line in lines if not line.startswith(("processed ", "-- "))]
    if not lines:
        return "no log"
    source = next((line[2:] for line in reversed(lines) if line.startswith("; ")), "")
    verdict = next((line for line in reversed(lines) if not re.match(r"(\d+: |; |from \d+|R\d+_?w?=)", line)), lines[-1])
    omitted = len(lines) - 1 - bool(source)
    return verdict + (f", at: {source}" if source else "") + (f"; {omitted} lines omitted" if omitted > 0 else "")
