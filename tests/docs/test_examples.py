# SPDX-License-Identifier: Apache-2.0
"""The examples and the demonstration run to their end; what they claim they check themselves."""

import os
import subprocess
from pathlib import Path

import pages
import pytest

EXAMPLES = sorted((pages.ROOT / "examples").glob("*/run.sh"))


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_example_runs(example: Path) -> None:
    run(example)


@pytest.mark.e2e
def test_demo_loses_nothing() -> None:
    output = run(pages.ROOT / "tools" / "lab", pages.ROOT / ".venv/bin/python", pages.ROOT / "tools" / "demo.py", PACE="0")
    assert ": 0 packets lost" in output
    assert "topology before and after: the same" in output
