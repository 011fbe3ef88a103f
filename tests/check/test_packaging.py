# SPDX-License-Identifier: Apache-2.0
"""What is shipped beside the wheel: the Debian package works without a compiler, the Grafana board asks for metrics there are."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
METRICS = (ROOT / "src" / "polycube" / "daemon" / "metrics.py").read_text()
SCENE = """
set -e
mount -t tmpfs tmpfs /mnt
dpkg-deb -x "$1" /mnt/tree
mount -t overlay overlay -o lowerdir=/mnt/tree/usr:/usr /usr
export PATH=/mnt/no:/usr/bin:/bin:/usr/sbin:/sbin CLANG=/nonexistent
/usr/bin/polycubed --configfile /dev/null --store /mnt/s.db --cache /mnt/c --pidfile /mnt/pid --logfile /mnt/log -d
for i in $(seq 300); do /usr/bin/polycubectl version >/dev/null 2>&1 && break; sleep 0.1; done
/usr/bin/polycubectl helloworld add h1
/usr/bin/polycubectl helloworld show
kill "$(cat /mnt/pid)"
"""


@pytest.mark.soak
def test_the_debian_package_works(tmp_path: Path) -> None:
    built = subprocess.run([ROOT / "tools" / "deb"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    package = ROOT / built.stdout.split()[-1]
    control = subprocess.run(["dpkg-deb", "--info", package], capture_output=True, text=True, check=True).stdout
    assert "Package: polycube" in control and "libbpf1" in control
    lab = [ROOT / "tools" / "lab", "sh", "-c", SCENE, "sh", package]
    done = subprocess.run(lab, env={"LAB_DAEMON": "no", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0 and "h1" in done.stdout, done.stdout + done.stderr


def test_the_board_asks_for_metrics_there_are() -> None:
    board = json.loads((ROOT / "packaging" / "grafana.json").read_text())
    asked = {name for panel in board["panels"] for one in panel["targets"] for name in re.findall(r"polycube_\w+", one["expr"])}
    assert len(asked) >= 8
    for name in asked:
        stem = name.removesuffix("_total")
        made = re.sub(r"_(rx|tx)_(packets|bytes)$", "_{name}", stem)
        assert f'"{stem}"' in METRICS or f'"{made}"' in METRICS, name
