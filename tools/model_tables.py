# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of data models into docs/cubes/*.md, between the marks `<!-- model -->` and `<!-- /model -->`.

python tools/model_tables.py            write
python tools/model_tables.py --check    exit with status 1 if a page is not current
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polycube.core.config import StandardCube, TransparentCube
from polycube.core.registry import installed
from polycube.model import describe

PAGES = Path(__file__).resolve().parents[1] / "docs" / "cubes"
BLOCK = re.compile(r"<!-- model -->\n.*?<!-- /model -->", re.DOTALL)
HEAD = "| Path | Type | Default | |\n|---|---|---|---|\n"


def flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All members, with their paths; keys are in the path of their list."""
    for member in node["members"]:
        path = prefix + member["name"]
        if member["kind"] == "list":
            path += "".join(f" <{key}>" for key in member["keys"])
        yield path, member
        if member["kind"] != "leaf":
            yield from flat(member, path + " ")
    for action in node.get("actions", ()):
        yield prefix + action["name"], action | {"kind": "action"}


def row(path: str, member: dict[str, Any]) -> str:
    words = {"key": "key", "mandatory": "mandatory", "init-only": "at creation only", "state": "read-only"}
    marks = [word for flag, word in words.items() if member.get(flag) and not (flag == "mandatory" and member.get("key"))]
    type = member["kind"]
    if type == "leaf":
        type = ", ".join(member["type"]["choices"]) if member["type"]["name"] == "enumeration" else member["type"]["name"]
        if "minimum" in member["type"] and "maximum" in member["type"] and not type.startswith(("uint", "int")):
            type += f" {member['type']['minimum']}..{member['type']['maximum']}"
    default = member.get("default", "")
    shown = "" if default in ("", [], None) else str(default).lower() if isinstance(default, bool) else str(default)
    text = member["description"] + (f" ({', '.join(marks)})" if marks else "")
    return f"| `{path}` | {type} | {shown} | {text} |\n"


def table(node: dict[str, Any], without: dict[str, Any] | None = None) -> str:
    """The table of a model, but for what is in another."""
    known = {path for path, _ in flat(without)} if without else set()
    rows = [row(path, member) for path, member in flat(node) if path not in known]
    return HEAD + "".join(rows) if rows else "None but those that all cubes have.\n"


def contents(page: Path) -> str:
    """What belongs between the marks of a page."""
    if page.stem == "index":
        standard, transparent = describe(StandardCube), describe(TransparentCube)
        own = table(transparent, standard)
        return f"Standard cubes:\n\n{table(standard)}\nTransparent cubes have, instead of `ports`, `shadow` and `span`:\n\n{own}"
    services, _ = installed()
    service = services[page.stem]
    return table(describe(service.config), describe(TransparentCube if service.transparent else StandardCube))


def main() -> int:
    stale = []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text()
        if not BLOCK.search(text):
            continue
        body = f"<!-- model -->\n{contents(page)}<!-- /model -->"
        current = BLOCK.sub(lambda _, body=body: body, text)
        if current != text:
            stale.append(page)
            if "--check" not in sys.argv:
                page.write_text(current)
    for page in stale:
        print(f"{page.name}: {'not current; run tools/model_tables.py' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
