# SPDX-License-Identifier: Apache-2.0
"""The wheel holds all that running needs: bitcode of every data plane, the binding, headers, licences."""

import subprocess
import sys
import zipfile
from pathlib import Path

from polycube.compiler.build import targets

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_needs_no_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    bitcode = {str(target.output.relative_to(ROOT / "src")) for target in targets(ROOT / "src" / "polycube")}
    needed = bitcode | {"polycube/bpf/_libbpf.py", "polycube/include/polycube/cube.h", "polycube/py.typed"}
    assert needed - names == set()
    assert {name.rpartition("/")[2] for name in names if "/licenses/" in name} == {"LICENSE", "Apache-2.0.txt", "GPL-2.0-only.txt"}
