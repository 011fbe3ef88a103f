# SPDX-License-Identifier: Apache-2.0
"""Two links between the bridge and Open vSwitch, which speaks RSTP (its datapath in user space, so that it needs no kernel module)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh

pytestmark = pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed: apt install openvswitch-switch")


class Vswitch:
    """Open vSwitch with a bridge `ovs`, in this process's namespaces."""

    def __init__(self, folder: Path, *ports: str) -> None:
        self._folder = folder
        folders = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        self._environment = os.environ | dict.fromkeys(folders, str(folder))
        self._run("ovsdb-tool", "create", "conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        self._start("ovsdb-server", "conf.db", "--remote=punix:db.sock")
        self._start("ovs-vswitchd", f"unix:{folder}/db.sock", "--disable-system")
        self.set("add-br", "ovs", "--", "set", "bridge", "ovs", "datapath_type=netdev", "rstp_enable=true")
        for port in ports:
            self.set("add-port", "ovs", port)

    def set(self, *command: str) -> None:
        self._run("ovs-vsctl", f"--db=unix:{self._folder}/db.sock", "--timeout=60", *command)

    def role(self, port: str) -> str:
        """What the port is in the tree, as Open vSwitch sees it."""
        pid = (self._folder / "ovs-vswitchd.pid").read_text().strip()
        shown = self._run("ovs-appctl", f"--target={self._folder}/ovs-vswitchd.{pid}.ctl", "rstp/show", "ovs")
        rows = [line.split() for line in shown.splitlines()]
        return next((row[1] for row in rows if len(row) == 5 and row[0] == port), "")

    def close(self) -> None:
        for name in ("ovs-vswitchd", "ovsdb-server"):
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((self._folder / f"{name}.pid").read_text()), signal.SIGKILL)

    def _start(self, name: str, *arguments: str) -> None:
        self._run(name, *arguments, "--detach", f"--pidfile={self._folder}/{name}.pid", f"--log-file={self._folder}/{name}.log")

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self._folder, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[list[Host]]:
    """One behind the cube, one behind the vswitch, which are joined by two veths."""
    for name in ("a", "b"):
        sh(f"ip link add to-{name} type veth peer name ovs-{name}", f"ip link set to-{name} up", f"ip link set ovs-{name} up")
    yield lab.some(2, ipv6=False)
    sh("ip link del to-a", "ip link del to-b")


@pytest.fixture
def vswitch(hosts: list[Host], tmp_path: Path) -> Iterator[Vswitch]:
    made = Vswitch(tmp_path, "ovs-a", "ovs-b", hosts[1].netdev)
    yield made
    made.close()


def roles(daemon: Daemon) -> list[tuple[str, str]]:
    ports = {port["name"]: port.get("stp", [{"role": "", "state": ""}])[0] for port in daemon.get("bridge/br/ports")}
    return [(ports[name]["role"], ports[name]["state"]) for name in ("a", "b")]


def test_two_links_to_a_vswitch_that_speaks_rstp(daemon: Daemon, hosts: list[Host], vswitch: Vswitch) -> None:
    ports = [{"name": "h", "peer": hosts[0].netdev, "edge": True}, {"name": "a", "peer": "to-a"}, {"name": "b", "peer": "to-b"}]
    daemon.post("bridge/br", {"stp-enabled": True, "stp": [{"vlan": 1, "priority": 4096}], "ports": ports})
    try:
        eventually(lambda: roles(daemon) == [("designated", "forwarding")] * 2, "a tree with the cube as root")
        eventually(lambda: [vswitch.role(port) for port in ("ovs-a", "ovs-b")] == ["Root", "Alternate"], "the vswitch to see it so")
        eventually(lambda: hosts[0].reaches(hosts[1]), "a way")
        daemon.patch("bridge/br/stp/1", {"priority": 61440})
        eventually(lambda: roles(daemon) == [("root", "forwarding"), ("alternate", "blocking")], "a tree with the vswitch as root")
        eventually(lambda: hosts[0].reaches(hosts[1]), "a way")
        sh("ip link set ovs-a down")
        eventually(lambda: roles(daemon) == [("disabled", "disabled"), ("root", "forwarding")], "the other link")
        eventually(lambda: hosts[0].reaches(hosts[1]), "a way")
    finally:
        daemon.delete("bridge/br")
