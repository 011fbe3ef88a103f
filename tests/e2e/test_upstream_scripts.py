# SPDX-License-Identifier: Apache-2.0
"""Upstream's commands against a running daemon: what its scripts do, they do here."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Iterator

import pytest
import upstream_scripts
from scenes import clear

from polycube.cli.main import main
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Lab


@pytest.fixture(scope="module", autouse=True)
def netdevs(lab: Lab) -> None:
    lab.some(4, ipv6=False)


@pytest.fixture(autouse=True)
def ends(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POLYCUBECTL_URL", f"unix://{daemon.socket}")
    yield
    clear(daemon)


def ctl(line: str) -> tuple[int, str, str]:
    """polycubectl in this process: its exit code and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(shlex.split(line))
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("service", upstream_scripts.SCRIPTS)
def test_the_commands_of_upstream_s_scripts_do_what_they_did(service: str) -> None:
    said, wrong = "", []
    command = ""
    for line in filter(None, upstream_scripts.SCRIPTS[service].splitlines()):
        if line.startswith("> "):
            before, found, said = said.partition(line[2:])
            if not found:
                wrong.append(f"{command}: no {line[2:]!r} in {before!r}")
            continue
        refused, command = line.startswith("! "), line.removeprefix("! ")
        status, out, err = ctl(command)
        said = err if refused else out
        if status != (2 if refused else 0) or (refused and out) or (not refused and err):
            wrong.append(f"{command}: {status} {out!r} {err!r}")
    assert not wrong, "\n".join(wrong)
