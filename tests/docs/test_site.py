# SPDX-License-Identifier: Apache-2.0
"""The documentation builds as a site, without a complaint."""

import subprocess
import sys

import pages


def test_the_site_builds() -> None:
    done = subprocess.run([sys.executable, pages.ROOT / "tools" / "site.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    site = pages.ROOT / "build" / "site"
    assert (site / "index.html").is_file() and (site / "cubes" / "router.html").is_file()
