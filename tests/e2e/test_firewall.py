# SPDX-License-Identifier: Apache-2.0
"""The firewall with real traffic: connections that outlive the daemon, answers to what is rejected, actions."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from scenes import bridge

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually
from polycube.testing.traffic import Traffic

TYPES = ["TC", "XDP_DRV"]


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(2)


@pytest.fixture(params=TYPES)
def wall(request: pytest.FixtureRequest, daemon: Daemon, hosts: list[Host]) -> Iterator[Daemon]:
    """A firewall before the first host: EGRESS is towards it."""
    bridge(daemon, "br1", hosts, request.param)
    daemon.post("firewall/fw", {"type": request.param, "max-rules": 500})
    daemon.post("attach", {"cube": "fw", "port": "br1:p1"})
    yield daemon
    daemon.delete("firewall/fw")
    daemon.delete("simplebridge/br1")


class Server:
    """Echoes what it is sent over TCP, in a host."""

    def __init__(self, host: Host, port: int, family: int = socket.AF_INET) -> None:
        self.listener = host.call(lambda: socket.create_server(("", port), family=family))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the test cuts some off
            while data := connection.recv(1000):
                connection.sendall(data)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def connect(host: Host, to: str, port: int, wait: float = 10.0) -> socket.socket:
    return host.call(lambda: socket.create_connection((to, port), timeout=wait))


def says(connection: socket.socket, text: bytes) -> bool:
    connection.sendall(text)
    return connection.recv(1000) == text


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_outlives_the_daemon_and_rules_stay(wall: Daemon, hosts: list[Host], version: int) -> None:
    protected, client = hosts
    address = str(protected.ipv4 if version == 4 else protected.ipv6)
    icmp = {"l4proto": "ICMPV6", "action": "ACCEPT"}
    rules = [{"id": 0, "l4proto": "TCP", "dport": 7000, "conntrack": "NEW", "action": "ACCEPT"}, {"id": 1, **icmp}]
    wall.rest("PUT", "firewall/fw/chain/EGRESS", {"name": "EGRESS", "default": "DROP", "rule": rules})
    server = Server(protected, 7000, socket.AF_INET if version == 4 else socket.AF_INET6)
    try:
        with connect(client, address, 7000) as connection:
            assert says(connection, b"before")
            opened = wall.get("firewall/fw/session-table")
            (row,) = [one for one in opened if one["l4proto"] == "tcp"]
            assert (row["dport"], row["state"]) == (7000, "ESTABLISHED")
            streamed = [json.loads(line) for line in wall.ctl("fw show all-sessions").out.splitlines()]
            assert row in [one | {"eta": row["eta"]} for one in streamed]
            wall.kill()
            assert says(connection, b"without a daemon")
            wall.start()
            assert says(connection, b"after")
            counted = wall.get("firewall/fw/chain/EGRESS/stats")
            assert counted[0]["pkts"] == 1  # the SYN, from before the death
            wall.post("firewall/fw/chain/EGRESS/delete", {"l4proto": "TCP", "dport": 7000, "conntrack": "NEW"})
            assert says(connection, b"known sessions go on")
            with pytest.raises(TimeoutError):
                connect(client, address, 7000, 0.5)
            assert wall.post("firewall/fw/flush", {"l4proto": "TCP", "dport": 7000}) == {"flushed": 1}
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                says(connection, b"and end when they are deleted")
    finally:
        server.close()


@pytest.mark.parametrize("wall", ["TC"], indirect=True)
def test_rules_keep_their_order_whatever_happens(wall: Daemon) -> None:
    """Inserted, removed and moved on ones, over a death of the daemon, an applied document and a dry run."""
    chain = "firewall/fw/chain/EGRESS"
    ports = list(range(1000, 1010))
    rules = [{"id": at, "l4proto": "UDP", "dport": port, "action": "ACCEPT"} for at, port in enumerate(ports)]
    wall.rest("PUT", chain, {"name": "EGRESS", "rule": rules})

    def stands() -> bool:
        found = wall.get(f"{chain}/rule")
        counted = wall.get(f"{chain}/stats")[:-1]
        return all([(one["id"], int(one["dport"])) for one in shown] == list(enumerate(ports)) for shown in (found, counted))

    for port, at in ((1, 0), (2, 0), (3, 5), (4, 5), (5, 14)):
        wall.post(f"{chain}/insert", {"l4proto": "UDP", "dport": port, "action": "DROP", "id": at})
        ports.insert(at, port)
    for at in (0, 7):
        wall.rest("DELETE", f"{chain}/rule/{at}")
        del ports[at]
    assert stands()
    wall.kill()
    wall.start()
    assert stands()
    assert wall.rest("DELETE", f"{chain}/rule/0?dry-run=true").status == 200
    assert stands()
    saved = wall.get("config")
    wall.post(f"{chain}/insert", {"l4proto": "UDP", "dport": 7, "action": "DROP", "id": 3})
    wall.post("config/apply", saved)
    assert stands()
    wall.kill()
    wall.start()
    assert stands()


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_rejected_is_told_so(wall: Daemon, hosts: list[Host], version: int) -> None:
    protected, client = hosts
    address = str(protected.ipv4 if version == 4 else protected.ipv6)
    rules = [{"id": 0, "l4proto": "TCP,UDP", "action": "REJECT"}]
    wall.rest("PUT", "firewall/fw/chain/EGRESS", {"name": "EGRESS", "rule": rules})
    assert client.ping(address, count=1).received == 1
    with pytest.raises(ConnectionRefusedError):
        connect(client, address, 7001)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with client.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as talker:
        talker.settimeout(10)
        talker.connect((address, 7001))
        talker.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            talker.recv(100)
    wall.patch("firewall/fw/chain/EGRESS/rule/0", {"reject-with": "PROHIBITED"})
    with client.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as talker:
        talker.settimeout(10)
        talker.connect((address, 7001))
        talker.send(b"?")
        with pytest.raises((PermissionError, OSError)) as refused:
            talker.recv(100)
        assert not isinstance(refused.value, TimeoutError)


@pytest.mark.parametrize("wall", ["TC"], indirect=True)
def test_actions(wall: Daemon, hosts: list[Host]) -> None:
    chain = "firewall/fw/chain/INGRESS"
    assert wall.post(f"{chain}/append", {"src": "10.7.0.0/16", "action": "DROP"}) == {"id": 0}
    assert wall.post(f"{chain}/append", {"dport": 80, "action": "ACCEPT"}) == {"id": 1}
    assert wall.post(f"{chain}/insert", {"dport": 81, "action": "ACCEPT"}) == {"id": 0}
    assert wall.post(f"{chain}/insert", {"id": 2, "dport": 82, "action": "ACCEPT"}) == {"id": 2}
    assert [rule.get("dport") for rule in wall.get(f"{chain}/rule")] == [81, None, 82, 80]
    assert wall.rest("POST", f"{chain}/insert", {"id": 9, "action": "DROP"}).status == 400
    assert wall.rest("POST", f"{chain}/append", {"dport": 1}).status == 400  # no action
    assert wall.rest("POST", f"{chain}/append", {"src": "@none", "action": "DROP"}).status == 400
    assert wall.rest("POST", f"{chain}/append", {"dport": 1, "icmptype": "8", "action": "DROP"}).status == 400
    lines = [{"operation": "delete", "dport": 82}, {"operation": "insert", "id": 0, "dport": 83, "action": "DROP"}]
    wall.post(f"{chain}/batch", {"rules": [*lines, {"operation": "update", "id": 1, "dport": 84, "action": "DROP"}]})
    assert [rule.get("dport") for rule in wall.get(f"{chain}/rule")] == [83, 84, None, 80]
    answer = wall.rest("POST", f"{chain}/batch", {"rules": [{"operation": "delete", "id": 0}, {"operation": "delete", "dport": 99}]})
    assert answer.status == 400 and "line 2" in answer.text
    assert len(wall.get(f"{chain}/rule")) == 4  # nothing of a batch with a wrong line
    wall.delete(f"{chain}/rule/1")
    assert [(rule["id"], rule.get("dport")) for rule in wall.get(f"{chain}/rule")] == [(0, 83), (1, None), (2, 80)]
    assert wall.post(f"{chain}/reset-counters") == {"result": True}
    assert wall.post(f"{chain}/append", {"dport": 90, "action": "DROP", "timeout": 1}) == {"id": 3}
    eventually(lambda: len(wall.get(f"{chain}/rule")) == 3, "the rule to go")
    wall.patch("firewall/fw", {"conntrack": "OFF"})
    wall.patch("firewall/fw", {"accept-established": "OFF"})
    assert "enable conntrack first" in wall.rest("PATCH", "firewall/fw", {"accept-established": "ON"}).text


def test_log_rules_write_lines(wall: Daemon, hosts: list[Host]) -> None:
    wall.rest("PUT", "firewall/fw/chain/EGRESS", {"name": "EGRESS", "rule": [{"id": 0, "l4proto": "ICMP", "action": "LOG"}]})
    assert hosts[1].ping(hosts[0], count=1).received == 1
    wall.logged("packet of a LOG rule", 0)


def test_floods_to_the_control_plane_hurt_nobody_else(wall: Daemon, hosts: list[Host]) -> None:
    """Of what is logged and rejected at the rate of the packets a part comes up, the rest is counted."""
    protected, client = hosts
    chain = "firewall/fw/chain/EGRESS"
    both = {"src": str(client.ipv4), "l4proto": "UDP"}
    rules = [{"id": 0, **both, "action": "LOG"}, {"id": 1, **both, "action": "REJECT"}]
    wall.rest("PUT", chain, {"name": "EGRESS", "rule": rules})
    with Traffic(client, protected) as flood:
        flood.start(20_000, count=30_000)
        assert client.ping(protected, count=5, interval=0.1).lost == 0
        wall.post("simplebridge/br2")
        wall.delete("simplebridge/br2")
        report = flood.wait()
    assert report.received == 0
    counted = wall.get(f"{chain}/stats")
    assert counted[0]["pkts"] == counted[1]["pkts"] == report.sent
    assert wall.get("firewall/fw/log-missed") > 0
    assert 0 < drops(wall, "reject-rate") < report.sent


def drops(daemon: Daemon, reason: str) -> int:
    found = daemon.metrics().items()
    return int(sum(value for name, value in found if name.startswith("polycube_cube_drops") and f'reason="{reason}"' in name))


def test_a_batch_is_seen_whole(wall: Daemon, hosts: list[Host]) -> None:
    """Line by line, each batch would leave moments in which everything is dropped."""
    protected, client = hosts
    chain, pass_, stop = "firewall/fw/chain/EGRESS", {"l4proto": "UDP", "action": "ACCEPT"}, {"l4proto": "UDP", "action": "DROP"}
    wall.patch("firewall/fw", {"conntrack": "OFF"})
    wall.rest("PUT", chain, {"name": "EGRESS", "rule": [{"id": 0, **pass_}, {"id": 1, **stop}]})
    first = {"operation": "delete", "id": 0}
    lines = [first, {"operation": "append", **pass_}, first, {"operation": "append", **stop}]
    with Traffic(client, protected) as flow:
        flow.start(20_000, count=30_000)
        for _ in range(10):
            wall.post(f"{chain}/batch", {"rules": lines})
        report = flow.wait()
    assert report.clean, report
    assert wall.get(f"{chain}/stats")[0]["pkts"] == report.sent  # the rule that stays has counted all


@pytest.mark.parametrize("wall", ["TC"], indirect=True)
def test_explain_says_what_happens(wall: Daemon, hosts: list[Host]) -> None:
    rules = [
        {"src": "10.0.0.0/8", "l4proto": "TCP", "dport": "1-100", "action": "DROP"},
        {"l4proto": "TCP", "dport": 22, "action": "ACCEPT"},
    ]
    body = {"name": "INGRESS", "rule": [{"id": at, **rule} for at, rule in enumerate(rules)]}
    wall.rest("PUT", "firewall/fw/chain/INGRESS", body)

    def explained(**probe: Any) -> Any:
        return wall.post("firewall/fw/chain/INGRESS/explain", probe)

    said = explained(src="10.0.0.1", dst="10.0.0.2", l4proto="TCP", dport=22)
    assert (said["action"], said["id"]) == ("DROP", 0)
    said = explained(src="fd00::1", dst="fd00::2", l4proto="TCP", dport=22)
    assert (said["action"], said["id"]) == ("ACCEPT", 1)
    assert any("rule 0: source fd00::1" in line for line in said["before"])
    assert explained(src="10.0.0.1", dst="10.0.0.2", l4proto="UDP", dport=22)["by"] == "the default"
    assert wall.rest("POST", "firewall/fw/chain/INGRESS/explain", {"src": "nonsense"}).status == 400
