# SPDX-License-Identifier: Apache-2.0
"""A service that crashes, hangs or leaks is its own problem; and a machine needs neither clang nor kernel headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import services
from scenes import BROADCAST, bridge, clear, frame

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def daemon(isolated: None, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("services")
    environment = {"POLYCUBE_SERVICES": services.write(folder), "PYTHONPATH": str(folder)}
    arguments = ["--worker-cpu=watch=20%"]
    with Daemon(tmp_path_factory.mktemp("daemon"), cache=cache, environment=environment, arguments=arguments) as running:
        running.tracebacks_allowed = True  # of the service
        yield running
        lines = running.log().splitlines()
        starts = [lines[number - 1] for number, line in enumerate(lines) if "Traceback" in line]
        assert all("[Probe]" in line or "[probe]" in line for line in starts), starts


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(3)


@pytest.fixture(autouse=True)
def scene(daemon: Daemon, hosts: list[Host]) -> Iterator[None]:
    """A bridge that must not notice, and a probe. A new daemon has no patience to lose with workers that ended in other tests."""
    daemon.restart()
    bridge(daemon, "br1", hosts[:2])
    daemon.post("probe/pr", {"mood": "log", "ports": [{"name": "p1", "peer": hosts[2].netdev}]})
    yield
    clear(daemon)


def others_are_well(daemon: Daemon, hosts: list[Host]) -> None:
    for method, path, body in (
        ("GET", "simplebridge/br1", None),
        ("GET", "cubes", None),
        ("PATCH", "simplebridge/br1/fdb/aging-time", 200),
    ):
        assert daemon.rest(method, path, body, timeout=4).ok, "before what hangs is replaced"
    assert daemon.rest("POST", "helloworld/hw", {}).ok
    assert daemon.rest("DELETE", "helloworld/hw").ok
    assert hosts[0].ping(hosts[1]).received == 2


def punt(daemon: Daemon, host: Host, marked: bytes) -> None:
    host.send(frame(host, BROADCAST, b"probe " + marked))


def restarts(daemon: Daemon) -> float:
    return daemon.metrics().get('polycube_worker_restarts_total{service="probe"}', 0)


def works_again(daemon: Daemon, host: Host) -> None:
    """The next process has adopted the cube: its slow path answers."""
    since = len(daemon.log())

    def handled() -> bool:
        punt(daemon, host, b"%08d" % since)
        return f"marked={since:08d}" in daemon.log()[since:]

    eventually(handled, "the slow path of the next worker", 30)


@pytest.mark.parametrize("how", ["crash", "timer-crash"])
def test_what_a_service_raises_costs_one_packet_or_one_tick(daemon: Daemon, hosts: list[Host], how: str) -> None:
    before, since = restarts(daemon), len(daemon.log())
    daemon.patch("pr/mood", how)
    punt(daemon, hosts[2], b"first")
    daemon.logged("as it was told", since)
    others_are_well(daemon, hosts)
    daemon.patch("pr/mood", "log")
    works_again(daemon, hosts[2])
    assert restarts(daemon) == before


@pytest.mark.parametrize("how", ["exit", "hang", "timer-exit", "timer-hang"])
def test_a_worker_that_ends_or_hangs_is_replaced(daemon: Daemon, hosts: list[Host], how: str) -> None:
    before = restarts(daemon)
    daemon.patch("pr/mood", how)
    if not how.startswith("timer"):
        punt(daemon, hosts[2], b"first")
    others_are_well(daemon, hosts)
    eventually(lambda: restarts(daemon) > before, "a restart", 30)
    others_are_well(daemon, hosts)
    eventually(lambda: daemon.rest("PATCH", "probe/pr/mood", "log").ok, "a worker that lives long enough", 30)
    works_again(daemon, hosts[2])
    assert daemon.get("probe/pr")["mood"] == "log"


@pytest.mark.parametrize("how", ["crash", "exit", "hang"])
def test_a_failing_apply_fails_that_request_alone(daemon: Daemon, hosts: list[Host], how: str) -> None:
    answer = daemon.rest("PATCH", "probe/pr/mood", f"apply-{how}")
    assert answer.status in (500, 503) and "probe" in answer.text, answer.text
    assert len(answer.text) < 300 and "Traceback" not in answer.text
    others_are_well(daemon, hosts)
    assert daemon.get("probe/pr")["mood"] == "log"
    works_again(daemon, hosts[2])


def test_a_worker_that_leaks_is_replaced(daemon: Daemon, hosts: list[Host]) -> None:
    before = restarts(daemon)
    daemon.patch("pr/mood", "timer-leak")
    eventually(lambda: restarts(daemon) > before, "a restart", 30)
    others_are_well(daemon, hosts)
    eventually(lambda: daemon.rest("PATCH", "probe/pr/mood", "log").ok, "a worker that lives long enough", 30)
    works_again(daemon, hosts[2])


def test_a_worker_that_burns_more_than_its_share_leaves_the_rest_alone(daemon: Daemon, hosts: list[Host]) -> None:
    """Here, where no control group is the daemon's, it gives way to all others, and the log says so."""
    assert "processor time can't be limited" in daemon.logged("give way to all others")
    daemon.post("watch/burning", {"mood": "timer-burn"})
    spent = 'polycube_worker_cpu_seconds_total{service="watch"}'
    before = daemon.metrics()[spent]
    eventually(lambda: daemon.metrics()[spent] > before + 0.5, "a worker that burns", 30)
    assert [os.getpriority(os.PRIO_PROCESS, daemon.processes()[name]) for name in ("watch", "probe")] == [10, 0]
    others_are_well(daemon, hosts)


def test_a_restart_goes_well_although_a_service_fails(daemon: Daemon, hosts: list[Host]) -> None:
    """Its cube can't be taken over; traffic, other services and its own configuration are as before."""
    before = daemon.get("probe/pr")
    folder = Path(daemon.environment["PYTHONPATH"]) / "probe" / "cube.py"
    good = folder.read_text()
    folder.write_text(good.replace("def apply(self, change):", "def apply(self, change):\n        raise RuntimeError('as it was told')\n"))
    try:
        daemon.crash()
        others_are_well(daemon, hosts)
        folder.write_text(good.replace("class Probe", "raise ImportError('as it was told')\nclass Probe"))
        daemon.crash()
        assert "as it was told" in daemon.log()
        others_are_well(daemon, hosts)
        answer = daemon.rest("POST", "helloworld/pr", {})
        assert answer.status == 400 and "service probe is not installed" in answer.text
    finally:
        folder.write_text(good)
        daemon.crash()
    assert daemon.get("probe/pr") == before
    works_again(daemon, hosts[2])


def test_neither_clang_nor_headers_nor_llvm_tools_are_needed(
    daemons: Callable[..., Daemon], daemon: Daemon, hosts: list[Host], tmp_path: Path
) -> None:
    """A daemon from the wheel, as pip installs it, on a machine with nothing but its libraries."""
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    [wheel] = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    daemon.stop()  # there is one at a time
    try:
        tools = tmp_path / "bin"
        tools.mkdir()
        for name in ("ip", "ping"):
            (tools / name).symlink_to(str(shutil.which(name)))
        environment = {"PATH": str(tools), "CLANG": str(tmp_path / "none"), "PYTHONPATH": str(site)}
        which = [sys.executable, "-c", "import polycube.cubes.router as one; print(one.__file__)"]
        assert subprocess.check_output(which, env=environment, text=True).startswith(str(site))
        bare = daemons(cache=tmp_path / "cache", environment=environment)
        bare.bpffs = daemon.bpffs.with_name("polycube_bare")
        bare.wipe()
        with bare:
            for service in ("simplebridge", "helloworld", "simpleforwarder", "transparenthelloworld", "router"):
                for type in ("TC", "XDP_SKB"):
                    bare.post(f"{service}/{service}-{type}", {"type": type})
            assert "compiler" in bare.processes()
            bridge(bare, "br", hosts[:2])
            assert hosts[0].ping(hosts[1]).received == 2
    finally:
        daemon.wipe()
        daemon.start()
