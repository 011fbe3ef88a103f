# SPDX-License-Identifier: Apache-2.0
"""Namespaces and tiny XDP and TC programs for the tests of `polycube.net`; each test takes away what it made."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netlab import sh

from polycube.net import netns
from polycube.testing.hosts import await_carrier
from polycube.testing.isolation import isolate

SOURCE = """
#define SEC(name) __attribute__((section(name), used))
static long (*bpf_redirect)(unsigned ifindex, unsigned long long flags) = (void *)23;
struct skb { unsigned len, pkt_type, mark; };
SEC("xdp") int forward(void *ctx) { return bpf_redirect(OUT, 0); }
SEC("xdp_pass") int pass(void *ctx) { return 2; }
SEC("tc_marked") int marked(struct skb *skb) { return skb->mark == 0x42 ? 0 : 2; }
SEC("tc_move") int move(struct skb *skb) { return skb->mark == 0x42 ? bpf_redirect(OUT, 0) : 2; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="session", autouse=True)
def private_namespace() -> None:
    isolate()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[Callable[[], netns.Namespace]]:
    """Make named namespaces, which go with the test."""
    made: list[tuple[str, netns.Namespace]] = []

    def make() -> netns.Namespace:
        name = f"t{abs(hash(request.node.nodeid)) % 10**8}-{len(made)}"
        made.append((name, netns.create(name)))
        return made[-1][1]

    yield make
    for name, opened in made:
        opened.close()
        netns.delete(name)


@pytest.fixture(autouse=True)
def nothing_left_behind(private_namespace: None) -> Iterator[None]:
    """Fail a test that leaves a netdev in the common namespace or a name in /run/netns."""
    before = ({name for _, name in socket.if_nameindex()}, netns.names())
    yield
    assert ({name for _, name in socket.if_nameindex()}, netns.names()) == before


@pytest.fixture
def program(tmp_path: Path) -> Callable[[int], Path]:
    """Compile the programs above, redirecting to one ifindex."""

    def compiled(out: int = 0) -> Path:
        source, target = tmp_path / "p.c", tmp_path / f"p{out}.o"
        source.write_text(SOURCE)
        sh(f"clang -O2 -g -target bpf -DOUT={out} -c {source} -o {target}")
        return target

    return compiled


@pytest.fixture
def veth() -> Iterator[tuple[str, str]]:
    """A veth pair, up, both ends in the common namespace."""
    sh("ip link add tva type veth peer tvb", "ip link set tva up", "ip link set tvb up")
    await_carrier("tva", "tvb")
    yield "tva", "tvb"
    subprocess.run(["ip", "link", "del", "tva"], capture_output=True, check=False)


@pytest.fixture
def sniffer() -> Iterator[Callable[[str], socket.socket]]:
    """Open sockets that receive what arrives at a netdev."""
    opened: list[socket.socket] = []

    def open_on(netdev: str) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((netdev, 3))
        opened.append(sock)
        return sock

    yield open_on
    for sock in opened:
        sock.close()
