# SPDX-License-Identifier: Apache-2.0
"""Builds the documentation as a site, `make docs`: build/site/index.html. Ends with status 1 if a page or a link is not right.

Pages are taken as they are; those of the examples, which pages link to, come beside them, and what lies outside becomes plain text.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"


def collect() -> None:
    """All pages in one folder, with links that hold there."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for readme in (ROOT / "examples").glob("*/README.md"):
        target = PAGES / "examples" / readme.parent.name / "README.md"
        target.parent.mkdir(parents=True)
        target.write_text(readme.read_text())
    for page in PAGES.rglob("*.md"):
        text, depth = page.read_text(), len(page.relative_to(PAGES).parents) - 1
        text = re.sub(r"\((?:\.\./)+examples/", f"({'../' * depth}examples/", text)
        text = re.sub(r"\((?:\.\./)+docs/", f"({'../' * depth}", text)
        outside = rf"\[([^\]]*)\]\((?:\.\./){{{depth + 1},}}[^)\s]*\)"
        page.write_text(re.sub(outside, r"\1", text))


def main() -> int:
    collect()
    config = PAGES.with_name("mkdocs.yml")
    config.write_text((ROOT / "mkdocs.yml").read_text())
    done = subprocess.run([Path(sys.executable).with_name("zensical"), "build", "--clean", "-f", config], capture_output=True, text=True)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    wrong = done.returncode or re.search(r"^\d+ issues? found", said, re.M)
    print(said if wrong else f"{PAGES.with_name('site')}/index.html")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
