# SPDX-License-Identifier: Apache-2.0
"""What the documentation says to type works, and prints what it says."""

import re
from pathlib import Path

import pages
import pytest

PAGES = [page for page in [pages.ROOT / "README.md", *sorted((pages.ROOT / "docs").rglob("*.md"))] if "```console\n" in page.read_text()]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


@pytest.mark.e2e
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_commands_of_the_page_work(page: Path, tmp_path: Path) -> None:
    pages.run(page, tmp_path)


def test_links_lead_somewhere() -> None:
    broken = []
    for page in [*pages.ROOT.glob("*.md"), *(pages.ROOT / "docs").rglob("*.md"), *(pages.ROOT / "examples").rglob("*.md")]:
        for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(pages.ROOT)}: {target}")
    assert not broken


def test_every_page_is_reachable_from_the_index() -> None:
    index = pages.ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    assert {page.resolve() for page in (pages.ROOT / "docs").rglob("*.md")} - linked - {index.resolve()} == set()
