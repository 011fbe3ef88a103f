# SPDX-License-Identifier: Apache-2.0
"""Tables that are generated are current."""

import subprocess
import sys

import pages


def test_tables_of_models_and_options_are_current() -> None:
    done = subprocess.run([sys.executable, pages.ROOT / "tools" / "generated.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
