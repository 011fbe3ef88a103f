# SPDX-License-Identifier: Apache-2.0
"""The whole configuration as a document: out, changed, and in again under traffic; upstream's file at a start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from scenes import chain, clear, everything, transparent

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(3)


def test_a_document_restores_everything_and_an_equal_one_changes_nothing(daemon: Daemon, hosts: list[Host]) -> None:
    chain(daemon, hosts[:2], hosts[2:])
    for name, place in (("th1", "br1:p1"), ("th2", hosts[2].netdev)):
        transparent(daemon, name)
        daemon.post("attach", {"cube": name, "port": place})
    daemon.post("simplebridge/br1/fdb/entry/02:00:00:00:00:99", {"port": "p2"})
    document, before = daemon.get("config"), everything(daemon)
    with hosts[0].pinging(hosts[2]) as pinging:
        pinging.answers()
        assert daemon.post("config/apply?dry-run=true", document)["operations"] == []
        daemon.post("config/apply", document)
        pinging.answers()
    assert not pinging.result.lost and everything(daemon) == before
    changed = yaml.safe_load(yaml.safe_dump(document))
    changed["attached"] = {}
    changed["cubes"] = [cube for cube in changed["cubes"] if cube["name"] != "th2"] + [{"name": "hw", "service-name": "helloworld"}]
    broken = {**changed, "cubes": [*changed["cubes"], {"name": "bad", "service-name": "helloworld", "action": "EXPLODE"}]}
    assert daemon.rest("POST", "config/apply", broken).status == 400
    assert daemon.get("config") == document
    daemon.post("config/apply", changed)
    assert {cube["name"] for cubes in daemon.get("cubes").values() for cube in cubes} == {"br1", "br2", "th1", "hw"}
    assert hosts[0].ping(hosts[2], count=3).received == 3
    clear(daemon)
    daemon.post("config/apply", document)
    assert daemon.get("config") == document
    assert hosts[0].ping(hosts[2], count=3).received == 3
    clear(daemon)


def test_upstream_s_file_is_taken_when_there_are_no_cubes(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    file = tmp_path / "cubes.yaml"
    file.write_text('[{"name": "br1", "service-name": "simplebridge", "ports": [{"name": "p1"}], "fdb": {"aging-time": 60}}]')
    options = ["--cubes-dump-enable", f"--cubes-dump-file={file}"]
    taking = daemons(arguments=options)
    with taking:
        assert taking.get("simplebridge/br1/fdb/aging-time") == 60
        taking.patch("simplebridge/br1/fdb/aging-time", 70)
        taking.crash()
        assert taking.get("simplebridge/br1/fdb/aging-time") == 70  # there are cubes: the file is not read
        taking.kill()
        file.write_text("[{name: br1")
        taking.arguments = [*options, "--cubes-dump-clean-init"]
        taking.start()
        assert taking.get("cubes") == {}
        taking.arguments = options
        taking.restart()
        assert "cubes are not taken from the file" in taking.log() and taking.get("cubes") == {}
