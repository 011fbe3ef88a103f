# SPDX-License-Identifier: Apache-2.0
"""What can end a command early. Each error is one sentence for the user and carries its exit code."""

from __future__ import annotations

EXIT_OK = 0  # the daemon answered 2xx
EXIT_NO_ANSWER = 1  # no answer, or a configuration that cannot be used
EXIT_REFUSED = 2  # any other status, or arguments that polycubectl itself refuses


class CliError(Exception):
    """Base of all errors that are printed as one sentence."""

    code = EXIT_REFUSED


class SyntaxProblem(CliError):
    """The arguments, or the body on standard input, do not follow the grammar."""


class ConfigProblem(CliError):
    """The configuration file or the environment cannot be used."""

    code = EXIT_NO_ANSWER


class Unreachable(CliError):
    """Nobody answered."""

    code = EXIT_NO_ANSWER


def near(word: str, candidates: tuple[str, ...] | list[str]) -> str | None:
    """The candidate that `word` was probably meant to be."""
    from difflib import get_close_matches  # 6 ms, wanted only when something has gone wrong

    found = get_close_matches(word.lower(), candidates, n=1, cutoff=0.7)
    return found[0] if found and found[0] != word else None
