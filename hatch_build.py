# SPDX-License-Identifier: Apache-2.0
"""Build hook: makes the libbpf binding and compiles every data plane to bitcode, so that a wheel needs neither clang nor headers."""

import runpy
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root, "src")
        sys.path.insert(0, str(source))
        try:
            runpy.run_path(str(source / "polycube" / "bpf" / "build.py"))["build"]()
            from polycube.compiler.build import build

            build()
        finally:
            sys.path.remove(str(source))
        build_data["artifacts"] += ["src/polycube/**/*.bc", "src/polycube/bpf/_libbpf.py"]
