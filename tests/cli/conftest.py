# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a fake daemon, and polycubectl as a process that talks to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import COMMAND, SOURCE, Ctl, FakeDaemon, serve


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    found = FakeDaemon(tmp_path / "d.sock")
    server, thread = serve(found)
    yield found
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "TERM": "xterm"}


@pytest.fixture
def ctl(daemon: FakeDaemon, environment: dict[str, str]) -> Ctl:
    """Run polycubectl against the fake daemon; standard input is /dev/null unless given."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        env = {**environment, "POLYCUBECTL_URL": daemon.url, **options.pop("env", {})}
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([*COMMAND, *arguments], env=env, capture_output=True, text=True, timeout=30, check=False, **options)

    return run


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str], daemon: FakeDaemon) -> dict[str, str]:
    """An environment in which a shell finds `polycubectl`, pointed at the fake daemon."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "polycubectl"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m polycube.cli.main "$@"\n')
    script.chmod(0o755)
    return {**environment, "PATH": f"{folder}:{environment['PATH']}", "POLYCUBECTL_URL": daemon.url}
