# SPDX-License-Identifier: Apache-2.0
"""Calls between two ends of a socket pair, as between the daemon and a worker."""

# ruff: noqa: ASYNC110 (polling is what a test of other processes does)

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from polycube.core import wire
from polycube.core.wire import Busy, CallTimeout, Connection, PeerGone, RemoteError, decode_error, encode_error
from polycube.model import ModelError, PolycubeError, Problem, Tag

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def joined(**options: Any) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two ends; the options are those of the second."""
    left, right = socket.socketpair()
    near, far = Connection("the far end"), Connection("the near end", **options)
    await near.open(left)
    await far.open(right)
    try:
        yield near, far
    finally:
        await near.close()
        await far.close()


async def test_a_call_brings_back_the_result_of_a_function_or_a_coroutine() -> None:
    async def slow(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    async with joined(calls={"double": lambda number: number * 2, "slow": slow}) as (near, _):
        assert await near.call("double", {"number": 4}) == 8
        assert await near.call("slow", {"number": 4}) == 5


async def test_both_ends_call_each_other_at_the_same_time() -> None:
    left, right = socket.socketpair()
    near = Connection("far", calls={"ask": lambda: "near"})
    far = Connection("near", calls={"relay": lambda: far.call("ask")})
    await near.open(left)
    await far.open(right)
    assert await near.call("relay") == "near"
    await near.close()
    await far.close()


async def test_answers_find_their_calls_whatever_their_order() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def wait(number: int) -> int:
        await gates[number].wait()
        return number

    async with joined(calls={"wait": wait}) as (near, _):
        calls = [asyncio.create_task(near.call("wait", {"number": number})) for number in range(3)]
        for number in (2, 0, 1):
            gates[number].set()
            assert await calls[number] == number


async def test_bytes_travel_in_hexadecimal() -> None:
    async with joined(calls={"raw": lambda: {"key": b"\x01\xff"}}) as (near, _):
        assert await near.call("raw") == {"key": "01ff"}


async def test_a_message_of_many_megabytes_arrives_whole() -> None:
    text = "x" * (20 << 20)
    async with joined(calls={"echo": lambda text: text}) as (near, _):
        assert await near.call("echo", {"text": text}) == text


async def test_an_error_of_the_family_arrives_as_what_it_was() -> None:
    def refuse() -> None:
        raise ModelError(Problem(Tag.DATA_MISSING, ("ports", "p1"), "is not there"))

    async with joined(calls={"refuse": refuse}) as (near, _):
        with pytest.raises(ModelError) as caught:
            await near.call("refuse")
        assert caught.value.problems == (Problem(Tag.DATA_MISSING, ("ports", "p1"), "is not there"),)
        assert caught.value.status == 409
        assert str(caught.value) == "ports/p1 is not there"


async def test_the_fields_of_a_typed_error_survive_the_way() -> None:
    error = decode_error(json.loads(json.dumps(encode_error(CallTimeout("the worker", "create", 5)))))
    assert isinstance(error, CallTimeout)
    assert (error.peer, error.method, error.seconds, error.status) == ("the worker", "create", 5, 504)


async def test_an_error_of_a_class_that_is_unknown_here_keeps_sentence_status_and_fields() -> None:
    data = {"class": "elsewhere:Odd", "status": 418, "sentence": "is a teapot", "fields": {"pot": 1}}
    error = decode_error(data)
    assert isinstance(error, RemoteError)
    assert (error.status, str(error), error.fields) == (418, "is a teapot", {"pot": 1})


async def test_any_other_exception_becomes_what_the_called_end_makes_of_it() -> None:
    def failure(method: str, args: Any, error: Exception) -> PolycubeError:
        return RemoteError("bug", 500, f"{method} {args['number']}: {error}")

    async with joined(calls={"divide": lambda number: 1 // number}, failure=failure) as (near, _):
        with pytest.raises(RemoteError, match="divide 0: integer"):
            await near.call("divide", {"number": 0})


async def test_a_call_that_does_not_exist_is_an_error_not_silence() -> None:
    async with joined() as (near, _):
        with pytest.raises(RemoteError, match="there is no call nothing"):
            await near.call("nothing")


async def test_a_result_that_cannot_travel_is_an_error_not_silence() -> None:
    async with joined(calls={"odd": lambda: object()}) as (near, _):
        with pytest.raises(RemoteError, match="object does not travel"):
            await near.call("odd")


async def test_an_error_that_cannot_be_described_is_an_error_not_silence() -> None:
    def refuse() -> None:
        raise ModelError()

    async with joined(calls={"refuse": refuse}) as (near, _):
        with pytest.raises(RemoteError, match="answering failed"):
            await near.call("refuse")


async def test_a_dead_peer_fails_all_calls_under_way_and_all_later_ones() -> None:
    async with joined(calls={"wait": lambda: asyncio.sleep(600)}) as (near, far):
        calls = [asyncio.create_task(near.call("wait")) for _ in range(3)]
        while near.pending < 3:
            await asyncio.sleep(0)
        await far.close()
        for call in calls:
            with pytest.raises(PeerGone, match="the far end is gone"):
                await call
        with pytest.raises(PeerGone):
            await near.call("wait")
        assert near.pending == 0


async def test_a_call_without_answer_ends_with_its_time_and_a_late_answer_is_dropped() -> None:
    gate = asyncio.Event()
    async with joined(calls={"wait": gate.wait, "ping": lambda: 1}) as (near, _):
        with pytest.raises(CallTimeout, match=r"did not answer wait within 0\.01 s"):
            await near.call("wait", seconds=0.01)
        gate.set()
        assert await near.call("ping") == 1


async def test_more_calls_than_the_limit_are_refused_and_the_connection_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_CALLS", 2)
    gate = asyncio.Event()
    async with joined(calls={"wait": gate.wait}) as (near, _):
        calls = [asyncio.create_task(near.call("wait")) for _ in range(2)]
        while near.pending < 2:
            await asyncio.sleep(0)
        with pytest.raises(Busy):
            await near.call("wait")
        gate.set()
        assert await asyncio.gather(*calls) == [True, True]


async def test_notices_are_dropped_and_counted_when_nobody_reads_them() -> None:
    left, right = socket.socketpair()
    near = Connection("a peer that does not read")
    await near.open(left)
    while near.notify("log", {"text": "x" * (1 << 20)}):
        pass
    assert near.dropped == 1
    right.close()
    await near.wait_closed()
    assert not near.notify("log")
    await near.close()


@pytest.mark.parametrize(
    "junk",
    [b"\xff\xff\xff\xff", struct.pack(">I", 3) + b"{x}", struct.pack(">I", 2) + b"[]", struct.pack(">I", 2) + b"{}"],
)
async def test_junk_ends_the_connection_with_a_reason(junk: bytes) -> None:
    left, right = socket.socketpair()
    near = Connection("an odd peer")
    await near.open(left)
    right.sendall(junk)
    await near.wait_closed()
    with pytest.raises(PeerGone, match="it sent what is no message"):
        await near.call("anything")
    right.close()
    await near.close()
