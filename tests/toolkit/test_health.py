# SPDX-License-Identifier: Apache-2.0
"""Health checks: verdicts from answers, the three kinds of questions against real sockets, and a host behind a port."""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from polycube.net import netns
from polycube.net.addr import Mac
from polycube.testing.isolation import isolate
from polycube.toolkit.health import CheckType, Failed, Health, HealthCheck, HostVantage, Monitor, Record, Target, ask
from polycube.toolkit.vantage import PortVantage

HERE = HostVantage()
LOOPBACK = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]


@pytest.fixture(autouse=True, scope="module")
def alone() -> None:
    isolate()
    netns.set_loopback_up()


def check(type: CheckType, **more: object) -> HealthCheck:
    return HealthCheck.model_validate({"type": type, "timeout": 300, "interval": 50, **more})


def test_the_first_answer_decides_and_later_ones_need_company() -> None:
    record = Record(rise=2, fall=3)
    assert record.health is Health.UNCHECKED
    assert record.take("refused", 1.0)
    assert record.health is Health.DOWN
    assert not record.take(None, 2.0)
    assert not record.take("refused", 3.0), "a failure in between starts the count again"
    assert not record.take(None, 4.0)
    assert record.take(None, 5.0)
    assert (record.health, record.since) == (Health.UP, 5.0)
    assert [record.take("slow", 6.0 + number) for number in range(3)] == [False, False, True]
    assert record.reason == "slow"


@asynccontextmanager
async def server(answer: bytes, address: str = "127.0.0.1") -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, address, 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize("address", LOOPBACK)
def test_tcp_connects(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    async def run() -> None:
        async with server(b"", str(address)) as port:
            await ask(Target(address, port, check(CheckType.TCP)), HERE)
            await ask(Target(address, 1, check(CheckType.TCP, port=port)), HERE)
        with pytest.raises(Failed, match="connection refused"):
            await ask(Target(address, port, check(CheckType.TCP)), HERE)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.0 302\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"", "the answer is not HTTP"),
    ],
)
def test_http_looks_at_the_status(answer: bytes, complaint: str | None) -> None:
    async def run() -> str | None:
        async with server(answer) as port:
            try:
                await ask(Target(LOOPBACK[0], port, check(CheckType.HTTP, path="/health")), HERE)
            except Failed as error:
                return str(error)
        return None

    assert asyncio.run(run()) == complaint


def test_silence_is_a_failure() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        target = Target(LOOPBACK[0], listening.getsockname()[1], check(CheckType.HTTP))
        with pytest.raises(Failed, match="no answer within 300 ms"):
            asyncio.run(ask(target, HERE))


@pytest.mark.parametrize("address", LOOPBACK)
def test_icmp_sends_an_echo_request(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    asyncio.run(ask(Target(address, 0, check(CheckType.ICMP)), HERE))
    with pytest.raises(Failed, match="network is unreachable"):
        nowhere = "192.0.2.1" if address.version == 4 else "2001:db8::1"
        asyncio.run(ask(Target(ipaddress.ip_address(nowhere), 0, check(CheckType.ICMP)), HERE))


def test_a_monitor_tells_of_changes_only() -> None:
    async def run() -> None:
        told: list[tuple[str, Health]] = []
        news = asyncio.Event()

        def changed(key: str, record: Record) -> None:
            told.append((key, record.health))
            news.set()

        async def hear(of: tuple[str, Health]) -> None:
            async with asyncio.timeout(10):
                while of not in told:
                    news.clear()
                    await news.wait()

        monitor: Monitor[str] = Monitor(changed, HERE)
        async with server(b"") as port:
            targets = {"a": Target(LOOPBACK[0], port, check(CheckType.TCP))}
            targets["dead"] = Target(LOOPBACK[0], 1, check(CheckType.TCP))
            monitor.watch(targets, {"dead": False})
            await hear(("a", Health.UP))
        await hear(("a", Health.DOWN))
        assert told == [("a", Health.UP), ("a", Health.DOWN)], "what was known to be down is no news"
        assert monitor.health("a") is monitor.health("dead") is Health.DOWN
        monitor.watch({}, {})
        assert monitor.health("a") is Health.UNCHECKED
        monitor.close()

    asyncio.run(run())


def test_a_host_behind_a_port_has_a_stack_of_its_own() -> None:
    """Two of them, wired to one another: what one sends out of its port the other is handed."""

    async def run() -> None:
        ends: list[PortVantage] = []
        frames: list[bytes] = []

        def wire(to: int) -> Callable[[bytes], None]:
            def carry(frame: bytes) -> None:
                frames.append(frame)
                ends[to].receive(frame)

            return carry

        addresses = [["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"]]
        for number in (0, 1):
            networks = [ipaddress.ip_interface(address) for address in addresses[number]]
            gateways = [ipaddress.ip_address(text) for text in ("10.0.0.254", "fd00::fe")]
            ends.append(PortVantage(Mac(0x020000000001 + number), networks, gateways, wire(1 - number)))
        try:
            for end in ends:
                await end.open()
            with ends[1].socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
                listening.bind(("", 80))
                listening.listen()
                await ask(Target(ipaddress.ip_address("10.0.0.2"), 80, check(CheckType.TCP, timeout=5000)), ends[0])
            for text in ("10.0.0.2", "fd00::2"):
                await ask(Target(ipaddress.ip_address(text), 0, check(CheckType.ICMP, timeout=5000)), ends[0])
            with pytest.raises(Failed, match="connection refused"):
                await ask(Target(ipaddress.ip_address("10.0.0.2"), 81, check(CheckType.TCP, timeout=5000)), ends[0])
            assert all(len(frame) >= 60 for frame in frames)
            assert any(struct.unpack(">H", frame[12:14])[0] == 0x806 for frame in frames)
        finally:
            for end in ends:
                end.close()

    asyncio.run(run())
