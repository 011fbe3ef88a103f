# SPDX-License-Identifier: Apache-2.0
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from netlab import sh

from polycube.net import netns
from polycube.net.errors import NamespaceExists, NoSuchNamespace, Refused
from polycube.net.rtnl import Rtnl

Make = Callable[[], netns.Namespace]


def peer_number(name: str) -> int:
    with Rtnl() as rtnl:
        number = next(dev for dev in rtnl.links() if dev.name == name).peer_netnsid
    assert number is not None
    return number


def test_a_function_runs_there_and_the_caller_stays_here(namespace: Make) -> None:
    here, there = netns.current(), namespace()
    assert netns.run_in(there, netns.current) == there.inode != here
    assert netns.run_in(there.fd, netns.current) == there.inode
    assert netns.run_in(there.path, netns.current) == there.inode
    assert netns.run_in(os.path.basename(there.path), netns.current) == there.inode
    assert netns.current() == here


def test_what_fails_there_is_raised_here(namespace: Make) -> None:
    here = netns.current()
    with pytest.raises(ZeroDivisionError):
        netns.run_in(namespace(), lambda: 1 // 0)
    assert netns.current() == here


def test_a_socket_made_there_stays_there(namespace: Make) -> None:
    there = namespace()
    sock = netns.run_in(there, lambda: socket.create_server(("127.0.0.1", 0)))
    with sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection(sock.getsockname(), timeout=1)
    with pytest.raises(NoSuchNamespace, match="there is no network namespace /run/netns/nowhere"):
        netns.run_in("nowhere", netns.current)


@pytest.mark.anyio
async def test_coroutines_can_run_functions_there(namespace: Make) -> None:
    there = namespace()
    assert await netns.call_in(there, netns.current) == there.inode


def test_a_named_namespace_is_one_of_iproute2_and_its_loopback_is_up() -> None:
    with netns.create("tnamed") as made:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert "tnamed" in listed and "tnamed" in netns.names()
        sh("ip netns exec tnamed ping -c 1 -W 1 127.0.0.1")
        with netns.Namespace.named("tnamed") as again:
            assert again.inode == made.inode
        with pytest.raises(NamespaceExists, match="tnamed exists already"):
            netns.create("tnamed")
    netns.delete("tnamed")
    assert "tnamed" not in netns.names()
    with pytest.raises(NoSuchNamespace):
        netns.delete("tnamed")


def test_what_is_no_namespace_cannot_be_entered() -> None:
    with pytest.raises(Refused, match="cannot enter the network namespace /proc/self/ns/mnt"):
        netns.run_in("/proc/self/ns/mnt", netns.current)


def test_the_namespace_of_a_veths_other_end_is_found_by_a_process_in_it(veth: tuple[str, str]) -> None:
    code = "import ctypes, sys; ctypes.CDLL(None).unshare(0x40000000); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sh(f"ip link set tvb netns {process.pid}")
        found = netns.peer_namespace(peer_number("tva"))
        assert found is not None
        assert (found.path, found.inode) == (
            f"/proc/{process.pid}/ns/net",
            os.stat(f"/proc/{process.pid}/ns/net").st_ino,
        )
        found.close()
        process.communicate()


def test_a_namespace_that_only_a_socket_keeps_is_not_found(veth: tuple[str, str]) -> None:
    with netns.create("tlost") as lost:
        sh("ip link set tvb netns tlost")
        keeper = netns.run_in(lost, socket.socket)
        with netns.Namespace.named("tlost") as again:
            found = netns.by_inode(lost.inode)
            assert found is not None and found.inode == again.inode
            found.close()
        netns.delete("tlost")
        with keeper:
            assert netns.peer_namespace(peer_number("tva")) is None
            assert netns.by_inode(lost.inode) is None
