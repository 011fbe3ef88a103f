# SPDX-License-Identifier: Apache-2.0
"""What requests wait for is known while they do."""

from __future__ import annotations

import asyncio

import pytest

from polycube.daemon.underway import answering, step, underway

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_request_has_its_own_step_wherever_it_is_said() -> None:
    go, steps = asyncio.Event(), asyncio.Barrier(3)

    async def ask(name: str) -> None:
        with answering("GET", name):
            assert all(one.path != name for one in underway())
            await asyncio.gather(asyncio.to_thread(step, f"step of {name}"))
            await steps.wait()
            await go.wait()

    asking = [asyncio.create_task(ask(name)) for name in ("a", "b")]
    await steps.wait()
    step("nobody's")
    assert [(one["method"], one["path"], one["step"]) for one in (other.as_data() for other in underway())] == [
        ("GET", "a", "step of a"),
        ("GET", "b", "step of b"),
    ]
    go.set()
    await asyncio.gather(*asking)
    assert underway() == []


async def test_a_request_that_fails_is_not_underway_any_more() -> None:
    with pytest.raises(ZeroDivisionError), answering("GET", "a"):
        raise ZeroDivisionError
    assert underway() == []
