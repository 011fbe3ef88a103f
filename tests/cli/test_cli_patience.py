# SPDX-License-Identifier: Apache-2.0
"""Whoever waits at a terminal learns for what."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from fake_daemon import COMMAND, FakeDaemon, Seen

from polycube.cli.patience import wait

ERASE = "\r\x1b[K"


@pytest.fixture
def slow(daemon: FakeDaemon) -> Callable[[], None]:
    """GET svc/c1/ waits until what this returns is called."""
    go = threading.Event()

    async def answer(seen: Seen) -> object:
        await asyncio.to_thread(go.wait)
        return (200, {"name": "c1"})

    daemon.answers["GET svc/c1/"] = answer
    return go.set


@pytest.mark.parametrize(
    ("requests", "line"),
    [
        (
            [{"method": "POST", "path": "svc/c1/", "step": "no"}, {"method": "GET", "path": "svc/c1/", "step": "compiling svc"}],
            "compiling svc (",
        ),
        ((404, "No such thing"), "waiting for polycubed ("),
    ],
)
def test_a_terminal_shows_what_the_daemon_is_doing_until_it_is_done(
    daemon: FakeDaemon, environment: dict[str, str], slow: Callable[[], None], requests: object, line: str
) -> None:
    daemon.answers["GET requests/"] = requests
    near, far = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "svc", "c1", "show"],
        env={**environment, "POLYCUBECTL_URL": daemon.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=far,
        text=True,
    ) as done:
        os.close(far)
        seen = ""
        while line not in seen:
            seen += os.read(near, 4096).decode()
        slow()
        assert done.stdout and done.stdout.read() == "name: c1\n"
    while not seen.endswith(ERASE):
        seen += os.read(near, 4096).decode()
    os.close(near)
    assert seen.startswith(ERASE) and done.returncode == 0


def test_a_pipe_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    near, far = socket.socketpair()
    with near, far:
        wait(None, near, "GET", "")  # type: ignore[arg-type]  # neither waits nor asks
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
