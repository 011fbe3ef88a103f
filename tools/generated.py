# SPDX-License-Identifier: Apache-2.0
"""Writes what is generated into the documentation: between `<!-- model -->` and `<!-- /model -->` the table of a data model, between
`<!-- polycubed -h -->` and its end the options of the daemon.

python tools/generated.py            write
python tools/generated.py --check    exit with status 1 if a page is not current
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polycube.core.config import StandardCube, TransparentCube
from polycube.core.registry import installed
from polycube.daemon.config import help_text
from polycube.model import describe

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"<!-- (model|polycubed -h) -->\n.*?<!-- /\1 -->", re.DOTALL)
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


def model(page: Path) -> str:
    """The table of a service's page, or of the page on what all have."""
    if page.stem == "index":
        standard, transparent = describe(StandardCube), describe(TransparentCube)
        own = table(transparent, standard)
        return f"Standard cubes:\n\n{table(standard)}\nTransparent cubes have, instead of `ports`, `shadow` and `span`:\n\n{own}"
    services, _ = installed()
    service = services[page.stem]
    return table(describe(service.config), describe(TransparentCube if service.transparent else StandardCube))


def block(page: Path, kind: str) -> str:
    """What stands between the marks."""
    return model(page) if kind == "model" else f"```\n{help_text()}\n```\n"


def current(page: Path, text: str) -> str:
    """The page as it should be."""
    return BLOCK.sub(lambda found: f"<!-- {found[1]} -->\n{block(page, found[1])}<!-- /{found[1]} -->", text)


def main() -> int:
    check, stale = "--check" in sys.argv, False
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        wanted = current(page, text)
        if wanted != text:
            stale = True
            print(f"{page.name}: {'not current; run tools/generated.py' if check else 'written'}")
            if not check:
                page.write_text(wanted)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
