# SPDX-License-Identifier: Apache-2.0
"""Hosts for end-to-end tests: network namespaces, each joined to the test's own by a veth.

A `Lab` makes them and takes them down again, whatever happens in between. A host's near end (`host.netdev`, in the test's namespace) is
what a cube's port is connected with; its far end, with fixed MAC and addresses, is the host's only interface. Commands run in the host by
`run`, Python by `call`; frames are sent and seen as they are on the wire, tags included. iproute2 and nsenter are needed.
"""

from __future__ import annotations

import os
import select
import shlex
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from polycube.core.shadownetdevs import PREFIX
from polycube.core.slowpath import folded_sum
from polycube.core.waysin import INTERNAL
from polycube.net import netns

T = TypeVar("T")
FAR = "e0"  # a host's interface
LATEST = 3.0  # seconds after which what a flow of packets still lacks is lost
DEADLINE = 30.0  # seconds until something that is waited for has failed
_AUXDATA = struct.Struct("@IIIHHHH")  # struct tpacket_auxdata
_PACKET_AUXDATA, _TP_STATUS_VLAN_VALID, _TP_STATUS_VLAN_TPID_VALID = 8, 1 << 4, 1 << 6
_ETH_P_ALL = 3


class CommandFailed(AssertionError):
    """A command of a test ended with another status than 0."""


def sh(*commands: str) -> str:
    """Runs commands one by one, without a shell, and returns what they print."""
    text = ""
    for command in commands:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True)
        if done.returncode:
            raise CommandFailed(f"{command}: {(done.stderr or done.stdout).strip()}")
        text += done.stdout
    return text


def eventually(condition: Callable[[], T], what: str = "", deadline: float = DEADLINE) -> T:
    """What `condition` returns as soon as it is true; AssertionError with its last value when that takes too long."""
    end = time.monotonic() + deadline
    pause = 0.002
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"{what or 'the condition'} did not come true in {deadline:g} s; it is {result!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def await_carrier(*netdevs: str, namespace: str = "") -> None:
    """Waits until netdevs that were set up take frames: what is sent before the kernel has looked at their carrier is dropped, silently."""
    for netdev in netdevs:
        show = f"ip {f'-n {namespace}' if namespace else ''} -br link show dev {netdev}"
        eventually(lambda show=show: " UP " in sh(show), f"{netdev} to be up")  # type: ignore[misc]


@dataclass(frozen=True)
class Ping:
    """How many echo requests were sent, and which of them, counted from 1, were answered."""

    sent: int
    answered: frozenset[int]

    @property
    def received(self) -> int:
        return len(self.answered)

    @property
    def lost(self) -> int:
        return self.sent - self.received


class Echo:
    """Sends ICMP echo requests to an address and sees their answers, by a socket of the host that it is made in.

    ping(8) would give up an interval after its last request, which under load is sooner than the answer comes.
    """

    def __init__(self, address: str, size: int) -> None:
        self._six = ":" in address
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self._six else (socket.AF_INET, socket.IPPROTO_ICMP)
        self._request, self._reply = (128, 129) if self._six else (8, 0)
        self._address, self._payload, self._mark = address, bytes(size), os.urandom(2)
        self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
        self._sent = 0
        self._answered = set[int]()

    def send(self) -> None:
        """Another request; none where there is no route."""
        self._sent += 1
        message = self._mark + struct.pack(">H", self._sent & 0xFFFF) + self._payload
        head = struct.pack(">BBH", self._request, 0, 0xFFFF ^ folded_sum(bytes([self._request, 0]) + message))
        with suppress(OSError):
            self._socket.sendto(head + message, (self._address, 0))

    def listen(self, seconds: float, *, whole: bool = False) -> Ping:
        """What has been answered when all is, or so many seconds are over; not before, if they are `whole`."""
        end = time.monotonic() + seconds
        while (whole or len(self._answered) < self._sent) and (left := end - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                packet = self._socket.recv(1 << 16)
                found = packet if self._six else packet[(packet[0] & 15) * 4 :]
                if found[0] == self._reply and found[4:6] == self._mark:
                    number = int.from_bytes(found[6:8], "big")
                    self._answered.add(self._sent - ((self._sent - number) & 0xFFFF))
        return Ping(self._sent, frozenset(self._answered))

    @property
    def received(self) -> int:
        return len(self._answered)

    def close(self) -> None:
        self._socket.close()


class Pinging:
    """Echo requests that go on until its `with` ends; then `result` tells how it went."""

    def __init__(self, echo: Echo, interval: float) -> None:
        self.result = Ping(0, frozenset())
        self._echo = echo
        self._interval = interval
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._echo.send()
            self._echo.listen(self._interval, whole=True)
        self.result = self._echo.listen(LATEST)

    def answers(self, more: int = 50) -> None:
        """Waits for so many more answers."""
        goal = self._echo.received + more
        eventually(lambda: self._echo.received >= goal, f"{more} more answers")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._echo.close()


class Sniffer:
    """Frames that arrive at a host, tags in the bytes, from the moment it was made."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.frames: list[bytes] = []

    def matching(self, wanted: bytes | Callable[[bytes], bool]) -> list[bytes]:
        """What has arrived so far and holds these bytes, or satisfies the condition."""
        self._read()
        return [frame for frame in self.frames if (wanted(frame) if callable(wanted) else wanted in frame)]

    def expect(self, wanted: bytes | Callable[[bytes], bool], count: int = 1) -> list[bytes]:
        """Waits for so many of them."""
        eventually(lambda: len(self.matching(wanted)) >= count, f"arrival of {count} frames", DEADLINE)
        return self.matching(wanted)

    def _read(self) -> None:
        while True:
            try:
                frame, control, _, address = self._socket.recvmsg(1 << 16, 256)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                self.frames.append(_with_tag(frame, control))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_tag(frame: bytes, control: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The kernel keeps the outer tag beside the bytes."""
    for _, kind, data in control:
        if kind == _PACKET_AUXDATA:
            status, *_, tci, tpid = _AUXDATA.unpack(data[: _AUXDATA.size])
            if status & _TP_STATUS_VLAN_VALID:
                protocol = tpid if status & _TP_STATUS_VLAN_TPID_VALID else 0x8100
                return frame[:12] + struct.pack("!HH", protocol, tci) + frame[12:]
    return frame


def sniff(namespace: str, netdev: str) -> Sniffer:
    """Collects what arrives at a netdev of a namespace from now on."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        sock.setsockopt(263, _PACKET_AUXDATA, 1)  # SOL_PACKET
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((netdev, _ETH_P_ALL))
        return sock

    return Sniffer(netns.run_in(namespace, make))


class Host:
    """A namespace with one interface. Made by `Lab.host`."""

    def __init__(self, name: str, number: int, netdev: str, *, ipv6: bool = True, mtu: int = 1500) -> None:
        self.name = name
        self.netdev = netdev
        self.mac = f"02:00:00:00:01:{number:02x}"
        self.ipv4 = f"10.0.0.{number}"
        self.ipv6 = f"fd00::{number:x}" if ipv6 else ""
        self.mtu = mtu

    def make(self) -> None:
        """The namespace, the veth, its addresses."""
        netns.create(self.name).close()
        netns.run_in(self.name, lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
        self.wire()

    def wire(self) -> None:
        """The veth and its addresses: again, when a test has deleted them."""
        sh(f"ip link add {self.netdev} mtu {self.mtu} type veth peer name {FAR} address {self.mac} mtu {self.mtu} netns {self.name}")
        Path(f"/proc/sys/net/ipv6/conf/{self.netdev}/disable_ipv6").write_text("1")  # no frames but those of the test
        if self.ipv6:
            netns.run_in(self.name, lambda: Path(f"/proc/sys/net/ipv6/conf/{FAR}/disable_ipv6").write_text("0"))
            sh(f"ip -n {self.name} addr add {self.ipv6}/64 dev {FAR} nodad")
        sh(f"ip -n {self.name} addr add {self.ipv4}/24 dev {FAR}", f"ip -n {self.name} link set {FAR} up", f"ip link set {self.netdev} up")
        await_carrier(self.netdev)
        await_carrier(FAR, namespace=self.name)

    def command(self, command: str) -> list[str]:
        """A command line that runs in the host."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *shlex.split(command)]

    def run(self, command: str, check: bool = True) -> str:
        """What a command prints in the host; CommandFailed unless it ends well or `check` is off."""
        done = subprocess.run(self.command(command), capture_output=True, text=True)
        if check and done.returncode:
            raise CommandFailed(f"{command} in {self.name}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def call(self, function: Callable[[], T]) -> T:
        """Runs Python in the host; sockets that it makes stay there and may be returned."""
        return netns.run_in(self.name, function)

    def forget_neighbours(self) -> None:
        """Empties the neighbour tables: the next frame needs ARP or ND again."""
        self.run("ip neigh flush all", check=False)

    # ---- traffic ----

    def ping(self, to: Host | str, count: int = 2, interval: float = 0.01, size: int = 56, wait: float = DEADLINE) -> Ping:
        """Sends echo requests and counts the answers, for which it waits so long after the last one.

        A host is pinged by IPv4; give `other.ipv6` for IPv6.
        """
        with closing(self._echo(to, size)) as echo:
            for _ in range(count - 1):
                echo.send()
                echo.listen(interval, whole=True)
            echo.send()
            return echo.listen(wait)

    def _echo(self, to: Host | str, size: int) -> Echo:
        return self.call(lambda: Echo(to.ipv4 if isinstance(to, Host) else to, size))

    def reaches(self, to: Host | str) -> bool:
        """Whether one ping is answered soon, for `eventually`."""
        return self.ping(to, count=1, wait=0.2).received == 1

    def pinging(self, to: Host | str, interval: float = 0.002) -> Pinging:
        """Pings until the end of its `with`."""
        return Pinging(self._echo(to, 56), interval)

    def send(self, *frames: bytes) -> None:
        """Puts frames on the wire as they are."""
        with self.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sock:
            sock.bind((FAR, 0))
            for frame in frames:
                sock.send(frame)

    def sniff(self) -> Sniffer:
        """Collects what arrives from now on."""
        return sniff(self.name, FAR)

    # ---- what netdev events are made of ----

    def delete(self) -> None:
        """Deletes the veth; `wire` makes it anew."""
        sh(f"ip link del {self.netdev}")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Host({self.name!r}, netdev={self.netdev!r}, ipv4={self.ipv4!r})"


def reboot() -> None:
    """What a reboot does to a daemon's internal netdevs and to cubes' namespaces."""
    for index, name in socket.if_nameindex():
        if index >= INTERNAL:  # fails for the second end of a pair
            subprocess.run(["ip", "link", "del", name], capture_output=True)
    for name in netns.names():
        if name.startswith(PREFIX):
            netns.delete(name)


class Lab:
    """Makes hosts; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []

    def host(self, name: str = "", *, netdev: str = "", ipv6: bool = True, mtu: int = 1500) -> Host:
        """Another host: h1 with v1, 10.0.0.1 and fd00::1, then h2 …"""
        number = len(self.hosts) + 1
        host = Host(name or f"h{number}", number, netdev or f"v{number}", ipv6=ipv6, mtu=mtu)
        self.hosts.append(host)
        host.make()
        return host

    def some(self, count: int, *, ipv6: bool = True) -> list[Host]:
        """Several hosts."""
        return [self.host(ipv6=ipv6) for _ in range(count)]

    def close(self) -> None:
        """Deletes the hosts: all of them, even if one makes trouble."""
        hosts, self.hosts = self.hosts, []
        for host in hosts:
            subprocess.run(["ip", "link", "del", host.netdev], capture_output=True)
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
