# SPDX-License-Identifier: Apache-2.0
"""The control plane's side of connection tracking, on the table of a real data plane."""

import asyncio
import ipaddress
import json
import random
import socket
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from polycube.toolkit.conntrack import GRACE, SessionTable, State, Timeouts, failures, monotonic, tuple_key, unpacked

FOLDER = Path(__file__).parents[1] / "datapath" / "tracker"


@pytest.fixture
def tracker(cube):
    made = cube(FOLDER)
    made.cfg(ct_timeouts=Timeouts(udp=50).cfg())
    return made


@pytest.fixture
def table(tracker):
    return SessionTable(tracker.map("sessions"))


def udp(number, kind=IP):
    a, b = ("10.9.0.9", "10.0.0.1") if kind == IP else ("2001:db8:9::9", "2001:db8::1")
    return Ether() / kind(src=a, dst=b) / UDP(sport=1000 + number, dport=53)


def expire(tracker, sessions, by=GRACE + 1):
    for session in sessions:
        value = unpacked(tracker.map("sessions"), session)
        value["ct"]["expires"] = monotonic() - by
        tracker.map("sessions").set_many([(session.key, tracker.map("sessions").pack(value))])


@pytest.mark.parametrize(("kind", "ends"), [(IP, ("10.9.0.9", "10.0.0.1")), (IPv6, ("2001:db8:9::9", "2001:db8::1"))])
def test_a_session_is_read_from_its_openers_point_of_view(tracker, table, kind, ends):
    tracker.send(udp(7, kind))
    (session,) = table
    assert (str(session.source), str(session.destination), session.sport, session.dport) == (*ends, 1007, 53)
    assert (session.protocol, session.state, session.answered) == (17, State.UDP_NEW, False)
    assert 48 <= session.eta <= 50
    assert unpacked(tracker.map("sessions"), session)["packets"] == 1
    assert session.key == tuple_key(session.source, 1007, session.destination, 53, 17)
    assert session.key == tuple_key(session.destination, 53, session.source, 1007, 17)


def test_keys_are_those_of_the_data_plane(tracker, table):
    rng = random.Random(3)
    wanted = set()
    for _ in range(60):
        kind, width = rng.choice([(IP, 4), (IPv6, 16)])
        a, b = (ipaddress.ip_address(rng.randbytes(width)) for _ in range(2))
        sport, dport = rng.getrandbits(16), rng.getrandbits(16)
        tracker.send(Ether() / kind(src=str(a), dst=str(b)) / UDP(sport=sport, dport=dport))
        wanted.add(tuple_key(a, sport, b, dport, 17))
    assert {session.key for session in table} == wanted


def test_a_sweep_removes_what_has_expired_and_counts_the_rest(tracker, table):
    for number in range(10):
        tracker.send(udp(number))
    tracker.send(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="S"))
    sessions = [one for one in table if one.protocol == 17]
    expire(tracker, sessions[:4])
    expire(tracker, sessions[4:5], by=0)  # a moment ago: may be in a program's hands
    assert len(list(table)) == 6
    assert asyncio.run(table.sweep()) == 4
    assert len(tracker.map("sessions")) == 7
    assert (table.live, table.counts) == (7, {State.UDP_NEW: 6, State.SYN_SENT: 1})
    assert asyncio.run(table.sweep()) == 0


def test_sessions_are_removed_by_choice(tracker, table):
    for number in range(6):
        tracker.send(udp(number))
    assert asyncio.run(table.flush(lambda one: one.sport >= 1004)) == 2
    assert sorted(one.sport for one in table) == [1000, 1001, 1002, 1003]
    table.remove([one for one in table if one.sport == 1000])
    assert asyncio.run(table.flush()) == 3
    assert not len(tracker.map("sessions"))


def test_all_sessions_that_live_are_written_to_a_stream(tracker, table):
    for number in range(40):
        tracker.send(udp(number))
    expire(tracker, [one for one in table if one.sport < 1010])

    async def read():
        ours, theirs = socket.socketpair()
        table.pour(theirs, lambda one: {"sport": one.sport})
        with ours, ours.makefile("rb") as stream:
            return [json.loads(line)["sport"] for line in await asyncio.to_thread(stream.readlines)]

    assert sorted(asyncio.run(read())) == list(range(1010, 1040))


def test_a_stream_that_nobody_reads_any_more_ends(tracker, table):
    tracker.send(udp(1))

    async def leave():
        ours, theirs = socket.socketpair()
        ours.close()
        table.pour(theirs, lambda one: {"sport": one.sport})
        (writing,) = asyncio.all_tasks() - {asyncio.current_task()}
        await writing
        return theirs.fileno()

    assert asyncio.run(leave()) < 0


def test_twins_go_with_their_sessions(tracker):
    class Removed(list):
        def delete_many(self, keys):
            self.extend(keys)

    removed = Removed()
    table = SessionTable(
        tracker.map("sessions"), removed, lambda session: session.sport.to_bytes(2, "big") if session.sport != 1001 else None
    )
    for number in range(3):
        tracker.send(udp(number))
    expire(tracker, list(table)[:1])
    asyncio.run(table.sweep())
    asyncio.run(table.flush())
    assert sorted(removed) == [(1000).to_bytes(2, "big"), (1002).to_bytes(2, "big")]


def test_what_found_no_room_is_counted(cube):
    tracker = cube(FOLDER, sizes={"sessions": 2})
    tracker.cfg(ct_timeouts=Timeouts().cfg())
    for number in range(9):
        tracker.send(udp(number))
    assert failures(tracker.map("ct_failures")) == 9 - len(tracker.map("sessions")) > 0


def test_each_state_has_a_timeout():
    timeouts = Timeouts(**{name: number for number, name in enumerate(Timeouts.model_fields, 1000)})
    seconds = timeouts.cfg()["seconds"]
    assert len(seconds) == len(State)
    assert set(seconds) == set(range(1000, 1000 + len(Timeouts.model_fields)))
