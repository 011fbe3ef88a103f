# SPDX-License-Identifier: Apache-2.0
"""All or nothing: what fails, or is nonsense, is said in a sentence and leaves configuration, kernel and store as they were."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from scenes import bridge, clear, everything, transparent

from polycube.bpf import Link, Program, XdpMode
from polycube.net import ethtool
from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab

State = tuple[dict[str, object], set[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(3)


@pytest.fixture(scope="module", autouse=True)
def scene(daemon: Daemon, hosts: list[Host]) -> Iterator[None]:
    """What all refusals must leave alone."""
    bridge(daemon, "br1", hosts[:2])
    daemon.post("simplebridge/br1/ports/free")
    daemon.post("simplebridge/br1/fdb/entry/02:00:00:00:00:99", {"port": "p2"})
    transparent(daemon, "th1")
    transparent(daemon, "th2")
    daemon.post("attach", {"cube": "th1", "port": "br1:p1"})
    daemon.post("helloworld/hw", {"action": "FORWARD", "ports": [{"name": "a"}, {"name": "b"}]})
    daemon.post("simplebridge/xdp", {"type": "XDP_DRV", "ports": [{"name": "p"}]})
    yield
    clear(daemon)


def state(daemon: Daemon) -> State:
    with sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        rows = [(table, *row) for table in tables for row in sorted(database.execute(f"SELECT * FROM {table}"), key=str)]
    database.close()
    return everything(daemon), daemon.pins(), rows


@pytest.fixture(autouse=True)
def unchanged(daemon: Daemon, scene: None, hosts: list[Host]) -> Iterator[None]:
    before = state(daemon)
    yield
    for now, then in zip(state(daemon), before, strict=True):
        assert now == then
    assert hosts[0].ping(hosts[1]).received == 2
    assert "Traceback" not in daemon.log()


NONSENSE: dict[str, tuple[str, str, Any, int, str]] = {
    "unknown service": ("POST", "bridgee/b", {}, 404, "bridgee"),
    "unknown cube": ("GET", "simplebridge/none", None, 404, "none"),
    "existing cube": ("POST", "simplebridge/br1", {}, 409, "br1"),
    "existing cube of another service": ("POST", "helloworld/br1", {}, 409, "br1"),
    "bad cube name": ("POST", "simplebridge/a%2Fb", {}, 400, "name"),
    "reserved name": ("POST", "simplebridge/connect", {}, 400, "connect"),
    "bad type": ("POST", "simplebridge/b", {"type": "XDP"}, 400, "XDP_SKB"),
    "unknown field": ("POST", "simplebridge/b", {"typ": "TC"}, 400, "typ"),
    "read-only field": ("POST", "simplebridge/b", {"uuid": "1"}, 400, "uuid"),
    "other name in the body": ("POST", "simplebridge/b", {"name": "c"}, 400, "name"),
    "array for a cube": ("POST", "simplebridge/b", [], 400, "b"),
    "text for a list": ("POST", "simplebridge/b", {"ports": "p1"}, 400, "ports"),
    "port twice": ("POST", "simplebridge/b", {"ports": [{"name": "p"}, {"name": "p"}]}, 400, "p"),
    "absent netdev": ("POST", "simplebridge/b", {"ports": [{"name": "p", "peer": "v9"}]}, 400, "v9"),
    "netdev in use": ("POST", "simplebridge/b", {"ports": [{"name": "p", "peer": "v1"}]}, 400, "br1:p1"),
    "number out of range": ("PATCH", "simplebridge/br1/fdb/aging-time", 0, 400, "aging-time"),
    "text for a number": ("PATCH", "simplebridge/br1/fdb/aging-time", "soon", 400, "aging-time"),
    "init-only field": ("PATCH", "simplebridge/br1", {"type": "XDP_SKB"}, 400, "type"),
    "existing port": ("POST", "simplebridge/br1/ports/p1", {}, 409, "p1"),
    "unknown port": ("PATCH", "simplebridge/br1/ports/p9/peer", "v3", 409, "p9"),
    "station behind an unknown port": ("POST", "simplebridge/br1/fdb/entry/02:00:00:00:00:11", {"port": "p9"}, 400, "p9"),
    "group address": ("POST", "simplebridge/br1/fdb/entry/01:00:5e:00:00:01", {"port": "p1"}, 400, "group"),
    "bad address": ("POST", "simplebridge/br1/fdb/entry/02:00", {"port": "p1"}, 400, "02:00"),
    "station without port": ("POST", "simplebridge/br1/fdb/entry/02:00:00:00:00:11", {}, 400, "port"),
    "third port": ("POST", "helloworld/hw/ports/c", {}, 400, "maximum number of ports"),
    "bad action": ("PATCH", "helloworld/hw/action", "PUNT", 400, "SLOWPATH"),
    "own peer": ("PATCH", "simplebridge/br1/ports/free/peer", "br1:free", 400, "own peer"),
    "connect an occupied port": ("POST", "connect", {"peer1": "br1:p1", "peer2": "hw:a"}, 400, "already has a peer v1"),
    "connect netdevs": ("POST", "connect", {"peer1": "v1", "peer2": "v2"}, 400, "Error setting peer"),
    "connect unknown cube": ("POST", "connect", {"peer1": "br9:p1", "peer2": "v3"}, 400, "Cube br9 does not exist"),
    "connect unknown port": ("POST", "connect", {"peer1": "br1:p9", "peer2": "v3"}, 400, "Port p9 does not exist"),
    "connect without second end": ("POST", "connect", {"peer1": "br1:free"}, 400, "peer2"),
    "disconnect what is not": ("POST", "disconnect", {"peer1": "br1:p1", "peer2": "v2"}, 400, "br1:p1 is not connected to v2"),
    "attach unknown": ("POST", "attach", {"cube": "th9", "port": "br1:p1"}, 400, "Cube th9 does not exist"),
    "attach standard": ("POST", "attach", {"cube": "hw", "port": "br1:p1"}, 400, "Cube hw is not transparent"),
    "attach twice": ("POST", "attach", {"cube": "th1", "port": "br1:p2"}, 400, "already attached"),
    "attach to unknown port": ("POST", "attach", {"cube": "th2", "port": "br1:p9"}, 400, "Port p9 does not exist"),
    "attach to transparent": ("POST", "attach", {"cube": "th2", "port": "th1:p1"}, 400, "transparent"),
    "attach to unknown netdev": ("POST", "attach", {"cube": "th2", "port": "v9"}, 400, "v9"),
    "attach across hooks": ("POST", "attach", {"cube": "th2", "port": "xdp:p"}, 400, "incompatible types"),
    "attach at two places": ("POST", "attach", {"cube": "th2", "port": "br1:p1", "position": "first", "after": "th1"}, 400, "together"),
    "attach after a stranger": ("POST", "attach", {"cube": "th2", "port": "br1:p1", "after": "hw"}, 400, "hw"),
    "detach elsewhere": ("POST", "detach", {"cube": "th1", "port": "br1:p2"}, 400, "br1:p1"),
    "no JSON": ("POST", "simplebridge/b", "{", 400, ""),
    "TC to XDP": ("POST", "connect", {"peer1": "br1:free", "peer2": "xdp:p"}, 400, "not possible to connect TC and XDP ports"),
    "wrong verb": ("POST", "simplebridge/br1/fdb/aging-time", 5, 405, "POST"),
    "no such path": ("GET", "simplebridge/br1/nothing", None, 400, "nothing"),
    "dry run of nonsense": ("POST", "simplebridge/b?dry-run=true", {"typ": "TC"}, 400, "typ"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_in_a_sentence(daemon: Daemon, case: str) -> None:
    method, path, body, status, words = NONSENSE[case]
    answer = daemon.rest(method, path, body)
    assert answer.status == status, answer.text
    assert words in answer.text and len(answer.text) > 10 and "Error:" not in answer.text, answer.text


def test_one_bad_cube_of_many_leaves_none(daemon: Daemon) -> None:
    cubes = [{"name": f"b{number}", "service-name": "simplebridge", "ports": [{"name": "p"}]} for number in range(5)]
    cubes.append({"name": "bad", "service-name": "simplebridge", "ports": [{"name": "p", "peer": "v9"}]})
    answer = daemon.rest("POST", "cubes", cubes)
    assert answer.status == 400 and "v9" in answer.text


def test_a_hook_taken_by_a_foreign_program_is_refused(daemon: Daemon, hosts: list[Host]) -> None:
    """The last step of a request that made a cube, wrote tables and prepared the other end."""
    netdev, index = hosts[2].netdev, socket.if_nametoindex(hosts[2].netdev)
    offloads = hosts[2].call(lambda: ethtool.features("e0")[ethtool.TX_CHECKSUM].active)
    with Program.open(daemon.bpffs / "shared" / "lead_xdp") as program, Link.xdp(program, index, XdpMode.DRV):
        body = {
            "type": "XDP_DRV",
            "ports": [{"name": "p", "peer": netdev}],
            "fdb": {"entry": [{"address": "02:00:00:00:00:42", "port": "p"}]},
        }
        answer = daemon.rest("POST", "simplebridge/b", body)
    assert answer.status == 409 and netdev in answer.text and "Nothing was changed" in answer.text, answer.text
    assert hosts[2].call(lambda: ethtool.features("e0")[ethtool.TX_CHECKSUM].active) == offloads


def test_more_ports_than_a_cube_can_have_are_refused(daemon: Daemon) -> None:
    ports = [{"name": f"p{number}"} for number in range(1500)]
    answer = daemon.rest("POST", "simplebridge/b", {"ports": ports})
    assert answer.status == 507 and "No room for another port" in answer.text


def test_a_store_that_cannot_be_written_refuses_and_undoes(daemon: Daemon, hosts: list[Host]) -> None:
    with sqlite3.connect(daemon.store, isolation_level=None) as database:
        database.execute("BEGIN IMMEDIATE")  # somebody else holds the file
        answer = daemon.rest("POST", "simplebridge/b", {"ports": [{"name": "p", "peer": hosts[2].netdev}]})
        database.execute("ROLLBACK")
    database.close()
    assert answer.status == 507 and "store" in answer.text


def test_a_dry_run_changes_nothing_and_lists_the_operations(daemon: Daemon, hosts: list[Host]) -> None:
    netdev = hosts[2].netdev
    for method, path, body, kinds in (
        (
            "POST",
            "simplebridge/b?dry-run=true",
            {"ports": [{"name": "p", "peer": netdev}]},
            {"state", "unit", "cfg", "slot", "port", "attach"},
        ),
        ("POST", "attach?dry-run=true", {"cube": "th2", "port": "br1:p2"}, {"port", "attach"}),
        ("POST", "connect?dry-run=true", {"peer1": "br1:free", "peer2": netdev}, {"port", "attach", "entry"}),
        ("POST", "simplebridge/br1/fdb/entry/02:00:00:00:00:42?dry-run=true", {"port": "p1"}, {"map"}),
        ("DELETE", "simplebridge/br1?dry-run=true", None, {"state", "unit", "slot", "attach"}),
    ):
        operations = daemon.do(method, path, body)["operations"]
        assert kinds <= {operation["kind"] for operation in operations}, path
        assert all(operation["operation"] in ("add", "change", "remove") for operation in operations)


def test_polycubectl_says_the_same_sentence_and_fails(daemon: Daemon) -> None:
    output = daemon.ctl("br1 ports add p9 peer=v9", check=False)
    assert output.status != 0 and "v9" in output.err and "does not exist" in output.err and "Traceback" not in output.err
