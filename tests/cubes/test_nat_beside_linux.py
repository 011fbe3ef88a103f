# SPDX-License-Identifier: Apache-2.0
"""The same packets through nat and through masquerading by nftables in a namespace: the same hosts must get the same answers.

What is compared is who a packet comes from and who it is for, and whether a port that is free stays; which port another host gets instead
is either one's own affair. nftables gives a host's port the one that it has towards other destinations already, if it can, nat the host's
own: so that is looked at for a host's first session by a port. Packets that belong to no connection (a reset, an echo reply) are left out:
nftables lets them leave untranslated, nat drops them (`no-session`).
"""

from __future__ import annotations

import random
import shutil
import socket

import pytest
from nat_lab import back, clear, configure, echo, ends, out, packet, tcp, udp
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from polycube.testing.harness import Chain, Hook
from polycube.testing.hosts import await_carrier, eventually, sh

OWN, REMOTES, HOSTS = "192.0.2.1", ["198.51.100.1", "198.51.100.2"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
RULES = "table ip nat { chain out { type nat hook postrouting priority 100; oifname outer masquerade; }; }"
SECOND = "02:00:00:00:00:ff"

pytestmark = pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")


class Linux:
    """A router with a masquerading rule between two netdevs."""

    def __init__(self) -> None:
        sh(
            "ip netns add natk",
            "ip link add natin type veth peer name inner netns natk",
            "ip link add natout type veth peer name outer netns natk",
            *(f"ip link set {name} up" for name in ("natin", "natout")),
            *(f"ip -n natk link set {name} up" for name in ("lo", "inner", "outer")),
            "ip -n natk addr add 10.0.0.254/24 dev inner",
            f"ip -n natk addr add {OWN}/24 dev outer",
            "ip -n natk route add default via 192.0.2.254",
            f"ip -n natk neigh add 192.0.2.254 lladdr {SECOND} dev outer",
            *(f"ip -n natk neigh add {host} lladdr {SECOND} dev inner" for host in HOSTS),
            "ip netns exec natk sysctl -q net.ipv4.ip_forward=1",
            f"ip netns exec natk nft '{RULES}'",
        )
        await_carrier("natin", "natout")
        await_carrier("inner", "outer", namespace="natk")
        self._mac = {name: sh(f"ip netns exec natk cat /sys/class/net/{name}/address").strip() for name in ("inner", "outer")}
        self._sockets = {}
        for name in ("natin", "natout"):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            sock.bind((name, 3))
            sock.setblocking(False)
            self._sockets[name] = sock

    def out(self, sent):
        return self._through("natin", "inner", "natout", sent)[-1]

    def back(self, *sent):
        """What comes of each, None for nothing; of the last one something does."""
        return self._through("natout", "outer", "natin", *sent)

    def _through(self, near, far, other, *sent):
        self._drain(other)
        for one in sent:
            frame = one.copy()
            frame.dst, frame.src = self._mac[far], SECOND
            self._sockets[near].send(bytes(frame))
        found = []

        def came(one):
            same = (seen for seen in found if IP in seen and seen[IP].id == one[IP].id)
            return next((seen for seen in same if type(seen[IP].payload) is type(one[IP].payload)), None)

        def last():
            found.extend(self._drain(other))
            return came(sent[-1])

        eventually(last, "the last packet to pass")
        return [came(one) for one in sent]

    def _drain(self, name):
        found = []
        while True:
            try:
                data, address = self._sockets[name].recvfrom(2000)
            except BlockingIOError:
                return found
            if address[2] != socket.PACKET_OUTGOING:
                found.append(Ether(data))

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        sh("ip link del natin", "ip link del natout", "ip netns del natk")


@pytest.fixture(scope="module")
def linux(isolated):
    made = Linux()
    yield made
    made.close()


@pytest.mark.parametrize("hook", list(Hook))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_traffic_is_translated_as_by_nftables(linux, hook, seed):
    rng = random.Random(seed)
    sh("ip netns exec natk nft flush ruleset", f"ip netns exec natk nft '{RULES}'")
    with Chain(hook) as chain:
        nat = chain.cube("nat", transparent=True)
        clear(nat)
        configure(nat, masquerade=[OWN])
        base = 20_000 + 1000 * seed + (500 if hook == Hook.TC else 0)  # the kernel remembers the sessions of the other runs
        opened: dict[tuple, tuple[int, int]] = {}  # session -> its port by nftables, and by nat
        for number in range(60):
            kind = rng.choice(["udp", "tcp", "echo"])
            host, remote, port = rng.choice(HOSTS), rng.choice(REMOTES), base + rng.randrange(2)
            session = (kind, host, port, remote)
            if rng.random() < 0.6 or not opened:
                made = {"udp": udp(port, 53), "tcp": tcp(port, 53), "echo": echo(4, port)}[kind]
                sent = packet(host, remote, made, id=number + 1)
                seen, ours = linux.out(sent), out(nat, sent)
                theirs, own = ends(seen), ends(ours)
                assert (theirs[0][0], theirs[1][0]) == (own[0][0], own[1][0]) == (OWN, remote)
                if not any(known[:3] == session[:3] for known in opened):
                    assert (theirs[0][1] == port) == (own[0][1] == port), session
                if session in opened:
                    assert opened[session] == (theirs[0][1], own[0][1])
                opened[session] = (theirs[0][1], own[0][1])
            else:
                kind, host, port, remote = session = rng.choice(sorted(opened))
                answers = [_answer(kind, remote, external, number) for external in opened[session]]
                (theirs,), own = linux.back(answers[0]), back(nat, answers[1])
                assert ends(theirs)[1] == ends(own)[1] == (host, port), session
        stranger = packet(REMOTES[0], OWN, udp(9, 9), id=999)
        known = next(session for session in opened if session[0] == "udp")
        answer = _answer("udp", known[3], opened[known][0], 1000)
        assert linux.back(stranger, answer)[0] is None, "for the router itself"
        nat.send(stranger, direction="ingress").forwarded(packet=stranger)


def _answer(kind, remote, port, number):
    made = {"udp": udp(53, port), "tcp": tcp(53, port, "SA", ack=1), "echo": echo(4, port, reply=True)}[kind]
    return packet(remote, OWN, made, id=number + 1)


def test_errors_are_translated_as_by_nftables(linux):
    with Chain(Hook.TC) as chain:
        nat = chain.cube("nat", transparent=True)
        configure(nat, masquerade=[OWN])
        for layer in (UDP(sport=30_001, dport=53), TCP(sport=30_001, dport=53, flags="S")):
            sent = packet(HOSTS[0], REMOTES[0], layer, id=5)
            linux.out(sent)
            seen = out(nat, sent)
            error = Ether() / IP(src="198.51.100.77", dst=OWN, id=6) / ICMP(type=3, code=1) / bytes(seen.payload)[:28]
            (theirs,), ours = linux.back(error), back(nat, error)
            assert theirs[IP].dst == ours[IP].dst == HOSTS[0]
            assert bytes(theirs[ICMP].payload)[12:28] == bytes(ours[ICMP].payload)[12:28], "addresses, ports and what follows"
