# SPDX-License-Identifier: Apache-2.0
"""The firewall beside iptables and nftables: the same rules, the same packets, the same counts, rule by rule."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from firewall_lab import Wall
from firewall_model import Maker, Packet

from polycube.testing.harness import Chain, Hook
from polycube.testing.hosts import Host, Lab, await_carrier, eventually
from polycube.testing.quick import quick


@pytest.fixture
def netfilter(lab: Lab) -> Host:
    """A host with one more netdev, whose frames meet rules at `input`, and which says nothing by itself."""
    host = lab.host("nf")
    host.call(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
    for command in ("link add f0 type veth peer name f1", "link set f0 up", "link set f1 up", "addr add 192.0.2.1/32 dev f1"):
        host.run(f"ip {command}")
    await_carrier("f0", "f1", namespace="nf")
    return host


PORTS = {"sport": "--sport", "dport": "--dport"}


def iptables_rule(rule: dict[str, Any]) -> str:
    words = ["-A PREROUTING"]
    for name, option in (("src", "-s"), ("dst", "-d")):
        if name in rule:
            words.append(f"{'! ' * rule[name].startswith('!')}{option} {rule[name].removeprefix('!')}")
    if "l4proto" in rule:
        words.append(f"-p {rule['l4proto'].lower()}")
    words += [f"{PORTS[name]} {str(rule[name]).replace('-', ':')}" for name in PORTS if name in rule]
    return " ".join([*words, "-j", {"ACCEPT": "ACCEPT", "DROP": "DROP"}[rule["action"]]])


def nft_rule(rule: dict[str, Any], at: int) -> str:
    words = []
    for name, option in (("src", "ip saddr"), ("dst", "ip daddr")):
        if name in rule:
            words.append(f"{option} {'!= ' * rule[name].startswith('!')}{rule[name].removeprefix('!')}")
    if "l4proto" in rule:
        words.append(f"ip protocol {rule['l4proto'].lower()}")
    words += [f"{rule['l4proto'].lower()} {name} {rule[name]}" for name in PORTS if name in rule]
    return " ".join([*words, "counter", rule["action"].lower()])


def simple(maker: Maker) -> dict[str, Any]:
    """A rule all three know to say."""
    rule: dict[str, Any] = {"action": maker.chance.choice(["ACCEPT", "DROP"])}
    for name in ("src", "dst"):
        if maker.chance.random() < 0.5:
            rule[name] = maker.chance.choice(["", "!"]) + maker._network()
    if maker.chance.random() < 0.6:
        rule["l4proto"] = maker.chance.choice(["TCP", "UDP"])
        for name in PORTS:
            if maker.chance.random() < 0.5:
                rule[name] = maker._range()
    return rule


def counted(rules: str) -> list[int]:
    return [int(line.split("[")[1].split(":")[0]) for line in rules.splitlines() if line.startswith("[") and "-A" in line]


def test_netfilter_counts_what_the_firewall_counts(netfilter: Host) -> None:
    """iptables, nftables and the firewall, rule by rule, over the same packets, in hooks before which nothing is dropped."""
    with Chain(Hook.TC) as chain:
        wall = Wall(chain.cube("firewall", transparent=True), conntrack="OFF")
        for seed in range(4):
            maker = Maker(7000 + seed, 4)
            rules = [simple(maker) for _ in range(25)]
            packets = [packet for packet in (maker.packet() for _ in range(150)) if packet.proto in (6, 17)]
            wall.configure(ingress=rules, conntrack="OFF")
            wall.chains.reset(range(1000))
            with quick(wall.cube) as run:
                for packet in packets:
                    run(packet.frame())
            ours = wall.counted()[:-1]
            assert by_netfilter(netfilter, rules, packets, "iptables") == ours, seed
            assert by_netfilter(netfilter, rules, packets, "nft") == ours, seed


def by_netfilter(host: Host, rules: list[dict[str, Any]], packets: list[Packet], kind: str) -> list[int]:
    """Packets of each rule."""

    def run(command: str, text: str = "") -> str:
        done = subprocess.run(host.command(command), input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    if kind == "iptables":
        run("iptables-legacy-restore", "*raw\n" + "\n".join([*map(iptables_rule, rules), "-A PREROUTING -j ACCEPT"]) + "\nCOMMIT\n")
    else:
        body = "\n".join([*(nft_rule(rule, at) for at, rule in enumerate(rules)), "counter accept"])
        run("nft -f -", f"table netdev t {{\nchain c {{\ntype filter hook ingress device f1 priority 0;\n{body}\n}}\n}}\n")
    host.call(lambda: send_all([valid(packet) for packet in packets]))

    def count() -> list[int]:
        """Of all rules; the last number is of what met none of them."""
        if kind == "iptables":
            found = counted(run("iptables-legacy-save -c -t raw"))
        else:
            table = json.loads(run("nft -j list table netdev t"))["nftables"]
            expressions = [one["rule"]["expr"] for one in table if "rule" in one]
            found = [next(part["counter"]["packets"] for part in expression if "counter" in part) for expression in expressions]
        return found if sum(found) >= len(packets) else []

    found = eventually(count, "all packets to be counted")
    run("iptables-legacy -t raw -F" if kind == "iptables" else "nft delete table netdev t")
    return found[:-1]


def valid(packet: Packet) -> bytes:
    """A frame that the stack takes: with the checksum of the IPv4 header."""
    frame = bytearray(packet.frame())
    frame[0:6] = b"\xff" * 6
    total = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(14, 34, 2))
    total = (total & 0xFFFF) + (total >> 16)
    frame[24:26] = (0xFFFF - ((total & 0xFFFF) + (total >> 16))).to_bytes(2, "big")
    return bytes(frame).ljust(60, b"\0")


def send_all(frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("f0", 0))
        for frame in frames:
            sender.send(frame)
