# SPDX-License-Identifier: Apache-2.0
"""`polycube-scaffold NAME`: the folder of a new service, which works from the start: model, handlers, test, page, wheel.

Templates are ordinary files with `$name`, `$Name` and `$NAME` in them (string.Template) and `package` and `name` in their paths.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from polycube.core.registry import installed

NAME = re.compile(r"[a-z][a-z0-9]{1,14}")


class Unsuitable(Exception):
    """A name or a place that can't be used; says why."""


def scaffold(name: str, folder: Path) -> list[Path]:
    """Makes `folder`/`name`; returns the files in it. Raises `Unsuitable`, and has then made nothing."""
    if not NAME.fullmatch(name):
        raise Unsuitable(f"{name!r} can't be the name of a service: expected 2 to 15 lower-case letters and digits, a letter first")
    if name in installed()[0]:
        raise Unsuitable(f"there is a service {name} already")
    root = folder / name
    if root.exists():
        raise Unsuitable(f"{root} exists already")
    made = []
    words = {"name": name, "Name": name.capitalize(), "NAME": name.upper()}
    for path, source in _templates(files(__name__) / "template"):
        target = root / path.replace("package", name).replace("name", name).removesuffix(".in")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(source.read_text()).substitute(words))
        made.append(target)
    return sorted(made)


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".in"):
            yield f"{prefix}{entry.name}", entry


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="polycube-scaffold", description="Make the folder of a new service.")
    parser.add_argument("name", help="what its users will type")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to make it (default: here)")
    arguments = parser.parse_args()
    try:
        for path in scaffold(arguments.name, arguments.folder):
            print(path)
    except (Unsuitable, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
