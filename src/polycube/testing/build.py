# SPDX-License-Identifier: Apache-2.0
"""Other builds of the package, for tests of upgrades: a copy whose data planes are changed and compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polycube
from polycube.compiler import build


class OtherBuild:
    """A copy of the package in a folder. `path` is for PYTHONPATH: a daemon that starts with it runs the copy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.package = path / "polycube"
        shutil.copytree(Path(polycube.__file__).parent, self.package, ignore=shutil.ignore_patterns("__pycache__"))

    @staticmethod
    def available() -> bool:
        """Whether there is a clang."""
        return build.available()

    def change(self, file: str, old: str, new: str) -> OtherBuild:
        """Replaces what a file has just once. `file` is relative to the package."""
        source = self.package / file
        text = source.read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        source.write_text(text.replace(old, new))
        return self

    def compile(self, *services: str) -> OtherBuild:
        """The data planes of services, for both hooks; without any, the framework's part of all. Needs clang."""
        folders = [self.package / "cubes" / service for service in services] or [self.package / "compiler"]
        command = [sys.executable, "-m", "polycube.compiler.build", *map(str, folders)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(self.path)}, capture_output=True)
        return self
