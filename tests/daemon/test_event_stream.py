# SPDX-License-Identifier: Apache-2.0
"""Events: differences of pictures, listeners that are slow, drops over a rate."""

import asyncio
from dataclasses import replace

from polycube.daemon import events
from polycube.daemon.events import Event, Events, Listener, Picture, differences, watch_drops

STANDS = Picture(
    cubes={"br1": ("u1", "config"), "th1": ("u2", "config")},
    services={"br1": "bridge", "th1": "filter"},
    ports={("br1", "p1"): (True, ""), ("br1", "p2"): (False, "no peer")},
    parents={"th1": "br1:p1"},
    netdevs={"veth1": (7, True)},
)


def said(old, new):
    return [(kind, *data.values()) for kind, data in differences(old, new)]


def test_what_appears_is_told_before_what_depends_on_it():
    assert said(Picture(), STANDS) == [
        ("netdev-added", "veth1", 7, True),
        ("cube-added", "br1", "bridge"),
        ("cube-added", "th1", "filter"),
        ("port-added", "br1", "p1"),
        ("port-up", "br1", "p1"),
        ("port-added", "br1", "p2"),
        ("attached", "th1", "br1:p1"),
    ]


def test_what_goes_is_told_the_other_way_round():
    assert [one[0] for one in said(STANDS, Picture())] == [
        "netdev-removed", "detached", *["port-removed"] * 2, *["cube-removed"] * 2,
    ]  # fmt: skip


def test_nothing_new_is_no_event():
    assert said(STANDS, STANDS) == []
    assert said(STANDS, replace(STANDS, ports={**STANDS.ports, ("br1", "p2"): (False, "another reason")})) == []


def test_changes_are_told_with_what_they_are_about():
    new = replace(
        STANDS,
        cubes={"br1": ("u1", "other"), "th1": ("u3", "config")},
        ports={("br1", "p1"): (False, "veth1 is down"), ("br1", "p2"): (True, "")},
        netdevs={"veth1": (7, False)},
    )
    assert said(STANDS, new) == [
        ("netdev-changed", "veth1", 7, False),
        ("cube-removed", "th1", "filter"),
        ("cube-changed", "br1", "bridge"),
        ("cube-added", "th1", "filter"),
        ("port-down", "br1", "p1", "veth1 is down"),
        ("port-up", "br1", "p2"),
    ]


async def take(listener, number):
    found = []
    async for event in listener.events():
        found.append(event)
        if len(found) == number:
            return found


def test_listeners_get_what_they_asked_for_in_order():
    async def scene():
        hub = Events()
        with hub.listening() as everything, hub.listening(["alarm"]) as alarms:
            hub.stands(STANDS)
            hub.announce("alarm", cube="th1", alarm="flood")
            assert [event.kind for event in await take(everything, 8)][-1] == "alarm"
            (alarm,) = await take(alarms, 1)
            assert alarm.number == 8 and alarm.data["alarm"] == "flood"
        hub.announce("alarm", cube="th1", alarm="flood")  # nobody listens any more

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_a_slow_listener_loses_the_oldest_and_learns_how_many():
    async def scene():
        hub = Events()
        with hub.listening() as listener:
            for number in range(events.QUEUE + 5):
                hub.announce("alarm", cube="c", alarm=str(number))
            first, second = await take(listener, 2)
            assert (first.kind, first.data["number"]) == ("lost", 5)
            assert second.data["alarm"] == "5"

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_drops_above_a_rate_are_told_once_until_they_cease(monkeypatch):
    monkeypatch.setattr(events, "PERIOD", 0.01)
    totals = iter([0, 0, 1000, 2000, 2000, 3000, 3000])
    last = 0

    def counts():
        nonlocal last
        last = next(totals, last)
        return {("fw1", "policy"): last}

    async def scene():
        listener = Listener([])
        task = asyncio.create_task(watch_drops(listener, counts, 10))
        found = await take(listener, 2)
        await asyncio.sleep(0.05)
        task.cancel()
        assert [(event.kind, event.data["cube"], event.data["reason"]) for event in found] == [("drops", "fw1", "policy")] * 2
        assert not listener._waiting

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_an_event_is_a_server_sent_one():
    text = Event("port-up", {"cube": "br1", "port": "p1"}, 3, 0.25).as_text()
    assert text == 'id: 3\nevent: port-up\ndata: {"time": "1970-01-01T00:00:00.250Z", "cube": "br1", "port": "p1"}\n\n'
