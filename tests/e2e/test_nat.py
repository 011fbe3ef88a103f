# SPDX-License-Identifier: Apache-2.0
"""nat in a running daemon, between hosts with the kernel's own stack: on a router's port and on a netdev, through changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenes import Talk, serving

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually, sh

FAR = "e0"
OUTSIDE = {4: "10.7.1.1", 6: "fd07:1::1"}  # of the router
POOL = ("10.99.0.1", "10.99.0.2")


@dataclass
class Scene:
    """A host inside, one outside that knows no way to the inside, and what is between them."""

    daemon: Daemon
    lab: Lab
    inside: Host
    outside: Host
    type: str


def addresses(host: Host, number: int, *, route: bool) -> None:
    host.ipv4, host.ipv6 = f"10.7.{number}.2", f"fd07:{number}::2"
    host.run(f"ip addr flush dev {FAR} scope global")
    host.run(f"ip addr add {host.ipv4}/24 dev {FAR}")
    host.run(f"ip addr add {host.ipv6}/64 dev {FAR} nodad")
    if route:
        host.run(f"ip route add default via 10.7.{number}.1")
        host.run(f"ip -6 route add default via fd07:{number}::1")


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    made = lab.some(2)
    for number, host in enumerate(made):
        addresses(host, number, route=host is made[0])
    return made


@pytest.fixture(scope="module", params=["TC", "XDP_DRV"])
def scene(request: pytest.FixtureRequest, daemon: Daemon, lab: Lab, hosts: list[Host]) -> Iterator[Scene]:
    ports = [
        {"name": f"p{number}", "ip": f"10.7.{number}.1/24", "secondaryip": [{"ip": f"fd07:{number}::1/64"}], "peer": host.netdev}
        for number, host in enumerate(hosts)
    ]
    daemon.post("router/r1", {"type": request.param, "ports": ports, "route": [{"network": "0.0.0.0/0", "nexthop": "10.7.1.2"}]})
    daemon.post("nat/nat1", {"type": request.param, "rule": {"masquerade": {"enabled": True}}})
    daemon.post("attach", {"cube": "nat1", "port": "r1:p1"})
    yield Scene(daemon, lab, *hosts, request.param)
    for cube in ("nat/nat1", "router/r1"):
        daemon.delete(cube)


def table(scene: Scene, cube: str = "nat1") -> list[dict[str, object]]:
    found = scene.daemon.get(f"nat/{cube}/natting-table")
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("version", [4, 6])
def test_inside_hosts_reach_outside_under_the_routers_address(scene: Scene, version: int) -> None:
    to = scene.outside.ipv4 if version == 4 else scene.outside.ipv6
    assert scene.inside.ping(to, count=10).received == 10
    with serving(scene.outside, to) as seen, closing(Talk(scene.inside, to)) as talk:
        assert talk.ask(b"hello") == b"hello"
        assert seen == [(OUTSIDE[version], b"hello\n")]
        (row,) = [one for one in table(scene) if one["proto"] == "tcp"]
        assert row["internal-dport"] == 5001 and row["state"] == "ESTABLISHED"
        assert (row["originating-rule"], row["external-ip"], row["external-port"]) == (
            "masquerade",
            OUTSIDE[version],
            row["internal-sport"],
        )
    scene.daemon.post("nat/nat1/flush", {})
    assert not table(scene)


@pytest.mark.parametrize("version", [4, 6])
def test_large_transfers_with_all_offloads_on(scene: Scene, version: int) -> None:
    to = scene.outside.ipv4 if version == 4 else scene.outside.ipv6
    block = b"x" * 100_000
    with serving(scene.outside, to) as seen, closing(Talk(scene.inside, to)) as talk:
        for _ in range(20):
            assert talk.ask(block) == block
        assert len(seen) == 20


def test_large_echoes_in_fragments(scene: Scene) -> None:
    assert scene.inside.ping(scene.outside, count=5, size=4000).received == 5
    assert scene.inside.ping(scene.outside.ipv6, count=5, size=4000).received == 5


def test_the_router_itself_can_be_reached_from_outside(scene: Scene) -> None:
    assert scene.outside.ping(OUTSIDE[4]).received == 2
    assert scene.outside.ping(OUTSIDE[6]).received == 2
    assert scene.outside.ping("10.7.0.2", wait=0.2).received == 0


@pytest.mark.parametrize("version", [4, 6])
def test_forwarded_ports(scene: Scene, version: int) -> None:
    inner = scene.inside.ipv4 if version == 4 else scene.inside.ipv6
    rule = {"external-ip": OUTSIDE[version], "external-port": 8080, "proto": "tcp", "internal-ip": inner, "internal-port": 5001}
    number = scene.daemon.post("nat/nat1/rule/port-forwarding/append", rule)["id"]
    try:
        with serving(scene.inside, inner) as seen, closing(Talk(scene.outside, OUTSIDE[version], 8080)) as talk:
            assert talk.ask(b"hello") == b"hello"
            assert seen[0][0] == (scene.outside.ipv4 if version == 4 else scene.outside.ipv6)
            scene.daemon.delete(f"nat/nat1/rule/port-forwarding/entry/{number}")
            assert talk.ask(b"again") == b"again", "a rule that goes leaves its sessions"
            with pytest.raises(OSError):
                Talk(scene.outside, OUTSIDE[version], 8080)
    finally:
        scene.daemon.rest("DELETE", f"nat/nat1/rule/port-forwarding/entry/{number}")


def test_established_connections_outlive_their_rule(scene: Scene) -> None:
    to = scene.outside.ipv4
    scene.daemon.post("nat/nat1/flush", {})
    with serving(scene.outside, to), closing(Talk(scene.inside, to)) as talk:
        assert talk.ask(b"1") == b"1"
        (row,) = [one for one in table(scene) if one["proto"] == "tcp" and one["state"] == "ESTABLISHED"]
        scene.daemon.patch("nat/nat1", {"rule": {"masquerade": {"enabled": False}}})
        assert talk.ask(b"2") == b"2"
        assert not scene.inside.reaches(scene.outside), "new sessions are not translated any more"
        scene.daemon.post("nat/nat1/rule/masquerade/enable", {})
        assert scene.inside.ping(scene.outside).received == 2
        (same,) = [one for one in table(scene) if one["proto"] == "tcp" and one["state"] == "ESTABLISHED"]
        assert same["external-port"] == row["external-port"]


def test_sessions_are_swept_and_counted(scene: Scene) -> None:
    scene.daemon.post("nat/nat1/flush", {})
    scene.daemon.patch("nat/nat1", {"timeouts": {"icmp": 1}})
    try:
        assert scene.inside.ping(scene.outside).received == 2
        assert eventually(lambda: table(scene) == [] and not scene.daemon.get("nat/nat1/statistics/sessions"), deadline=20) is not False
    finally:
        scene.daemon.patch("nat/nat1", {"timeouts": {"icmp": 30}})


def test_a_row_of_the_table_can_be_deleted(scene: Scene) -> None:
    scene.daemon.post("nat/nat1/flush", {})
    scene.inside.ping(scene.outside, count=1)
    (row,) = table(scene)
    assert json.loads(scene.daemon.ctl("nat1 show sessions").out) | {"eta": row["eta"]} == row
    key = "/".join(str(row[name]) for name in ("internal-src", "internal-dst", "internal-sport", "internal-dport", "proto"))
    scene.daemon.delete(f"nat/nat1/natting-table/{key}")
    assert not table(scene)
    assert scene.daemon.rest("DELETE", f"nat/nat1/natting-table/{key}").status == 409
    scene.inside.ping(scene.outside, count=1)
    scene.daemon.delete("nat/nat1/natting-table")
    assert not table(scene)
    answer = scene.daemon.rest("POST", f"nat/nat1/natting-table/{key}", {})
    assert answer.status >= 400 and "can't be added" in answer.text


def test_inside_hosts_reach_each_other_by_an_external_address(scene: Scene) -> None:
    """By one that is routed out of the port, under another one that is; the router keeps what is for its own."""
    scene.daemon.post("nat/nat1/rule/snat/entry/3", {"internal-net": "10.7.0.0/24", "external-ip": POOL[1]})
    rule = {"external-ip": POOL[0], "external-port": 8080, "proto": "tcp", "internal-ip": scene.inside.ipv4, "internal-port": 5001}
    number = scene.daemon.post("nat/nat1/rule/port-forwarding/append", rule)["id"]
    try:
        with serving(scene.inside, scene.inside.ipv4) as seen, closing(Talk(scene.inside, POOL[0], 8080)) as talk:
            assert talk.ask(b"hello") == b"hello"
            assert seen == [(POOL[1], b"hello\n")]
        assert scene.daemon.get("nat/nat1/statistics/hairpins") > 2
    finally:
        scene.daemon.delete(f"nat/nat1/rule/port-forwarding/entry/{number}")
        scene.daemon.delete("nat/nat1/rule/snat/entry/3")


def test_masquerading_follows_the_address_of_the_port(scene: Scene) -> None:
    assert scene.daemon.get("nat/nat1/rule/masquerade/address") == OUTSIDE[4]
    scene.outside.run(f"ip addr add 10.8.1.2/24 dev {FAR}")
    scene.daemon.patch("router/r1/ports/p1", {"ip": "10.8.1.1/24"})
    try:
        with serving(scene.outside, "10.8.1.2") as seen, closing(Talk(scene.inside, "10.8.1.2")) as talk:
            assert talk.ask(b"hello") == b"hello"
            assert seen == [("10.8.1.1", b"hello\n")]
        eventually(lambda: OUTSIDE[4] not in {one["external-ip"] for one in table(scene)}, deadline=20)
    finally:
        scene.daemon.patch("router/r1/ports/p1", {"ip": "10.7.1.1/24"})
        scene.outside.run(f"ip addr del 10.8.1.2/24 dev {FAR}")


def test_on_a_network_interface(scene: Scene) -> None:
    """Between hosts that the kernel's own router joins."""
    inside, outside = scene.lab.some(2)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for number, host in ((3, inside), (4, outside)):
        addresses(host, number, route=False)
        sh(f"ip addr add 10.7.{number}.1/24 dev {host.netdev}")
    inside.run("ip route add default via 10.7.3.1")
    assert inside.ping(outside.ipv4, count=1, wait=0.2).received == 0
    scene.daemon.post("nat/nat2", {"type": scene.type, "rule": {"masquerade": {"enabled": True}}})
    try:
        scene.daemon.post("attach", {"cube": "nat2", "port": outside.netdev})
        assert inside.ping(outside.ipv4, count=5).received == 5
        with serving(outside, outside.ipv4) as seen, closing(Talk(inside, outside.ipv4)) as talk:
            block = b"x" * 100_000
            assert talk.ask(block) == block
            assert seen[0][0] == "10.7.4.1"
        assert outside.ping("10.7.4.1").received == 2, "the host itself"
    finally:
        scene.daemon.delete("nat/nat2")
        inside.delete()
        outside.delete()


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("rule/snat/append", {"internal-net": "10.0.0.0/8", "external-ip": "2001:db8::1"}, "10.0.0.0/8 is IPv4 and 2001:db8::1 is IPv6"),
        ("rule/snat/entry/7", {"internal-net": "10.0.0.0/33", "external-ip": "10.0.0.1"}, "10.0.0.0/33"),
        ("rule/port-forwarding/entry/7", {"external-ip": "10.0.0.1", "external-port": 1, "proto": "icmp"}, "proto"),
        ("rule/prefix-translation/entry/7", {"internal-prefix": "fd00::/48", "external-prefix": "fd01::/56"}, "differ in length"),
        ("rule/prefix-translation/entry/7", {"internal-prefix": "fd00::/80", "external-prefix": "fd01::/80"}, "64 bits"),
    ],
)
def test_rules_that_make_no_sense_are_refused(scene: Scene, path: str, body: dict[str, object], words: str) -> None:
    answer = scene.daemon.rest("POST", f"nat/nat1/{path}", body)
    assert answer.status >= 400 and words in answer.text


def test_settings_that_make_no_sense_are_refused(scene: Scene) -> None:
    for body, words in (
        ({"filtering": "endpoint-independent"}, "needs endpoint-independent mapping"),
        ({"first-port": 2000, "last-port": 1000}, "above last-port"),
    ):
        answer = scene.daemon.rest("PATCH", "nat/nat1", body)
        assert answer.status >= 400 and words in answer.text
    rule = {"internal-net": "10.5.0.0/16", "external-ip": "10.7.1.9"}
    scene.daemon.post("nat/nat1/rule/snat/append", rule)
    answer = scene.daemon.rest("POST", "nat/nat1/rule/snat/append", rule)
    assert answer.status >= 400 and "Cannot insert duplicate mapping" in answer.text
    scene.daemon.delete("nat/nat1/rule/snat/entry/0")
