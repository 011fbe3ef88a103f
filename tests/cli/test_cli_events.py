# SPDX-License-Identifier: Apache-2.0
"""The stream of events, as lines."""

from __future__ import annotations

import pytest
from fake_daemon import Ctl, FakeDaemon
from starlette.responses import StreamingResponse

STREAM = """: polycube

id: 1
event: port-down
data: {"time": "2026-11-26T06:00:00.000Z", "cube": "br1", "port": "p1", "reason": "veth1 is down"}

: still here

id: 2
event: drops
data: {"time": "2026-11-26T06:00:01.000Z", "cube": "br1", "rate": 12.5}

"""


@pytest.fixture
def talking(daemon: FakeDaemon) -> FakeDaemon:
    middle = len(STREAM) // 2  # a part may end anywhere
    daemon.answers["GET events"] = StreamingResponse(iter([STREAM[:middle], STREAM[middle:]]), media_type="text/event-stream")
    return daemon


def test_an_event_is_a_line(talking: FakeDaemon, ctl: Ctl) -> None:
    done = ctl("events", "kinds=port-down,drops", "drops=10")
    assert done.stdout.splitlines() == [
        '2026-11-26T06:00:00.000Z port-down cube=br1 port=p1 reason="veth1 is down"',
        "2026-11-26T06:00:01.000Z drops cube=br1 rate=12.5",
    ]
    assert talking.last.query == "kinds=port-down%2Cdrops&drops=10"
    assert done.returncode == 0 and "ended the stream" in done.stderr


def test_objects_come_with_their_kind(talking: FakeDaemon, ctl: Ctl) -> None:
    first, _ = ctl("events", "-json").stdout.splitlines()
    assert first.startswith('{"kind": "port-down", "time"')


def test_what_the_daemon_refuses_is_said(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET events"] = (400, "no such kind")
    done = ctl("events", "kinds=x")
    assert done.returncode != 0 and "no such kind" in done.stderr


def test_bad_arguments_are_refused(daemon: FakeDaemon, ctl: Ctl) -> None:
    done = ctl("events", "rate=3")
    assert done.returncode == 2 and "usage: events" in done.stderr and not daemon.seen
