# SPDX-License-Identifier: Apache-2.0
"""The neighbour table: its states one by one, and its promises under anything that may happen."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polycube.cubes.router import neighbour as engine
from polycube.cubes.router.neighbour import (
    INCOMPLETE,
    PROBE,
    REACHABLE,
    STALE,
    Install,
    Key,
    Neighbours,
    Release,
    Remove,
    Seen,
    Solicit,
    Unreachable,
    Waiting,
)
from polycube.net.addr import Mac

KEY = Key(1, ipaddress.ip_address("10.0.0.2"))
MAC, OTHER = Mac(0x020000000001), Mac(0x020000000002)


def packet(number: int) -> Waiting:
    return Waiting(bytes([number]), 0)


def nothing(_: Key) -> None:
    return None


def resolved(now: float = 0.0) -> Neighbours:
    table = Neighbours(8)
    table.resolve(KEY, packet(1), now, None)
    table.heard(KEY, MAC, now, solicited=True)
    return table


def test_first_packet_asks_and_the_answer_releases_the_last_five() -> None:
    table = Neighbours(8)
    assert table.resolve(KEY, packet(1), 0, None) == [Solicit(KEY, None)]
    for number in range(2, 8):
        assert table.resolve(KEY, packet(number), 0, None) == []
    waiting = tuple(packet(number) for number in range(3, 8))
    assert table.heard(KEY, MAC, 0.5, solicited=True) == [Install(KEY, MAC), Release(KEY, MAC, waiting)]
    assert table.pending == 0


def test_without_an_answer_it_asks_three_times_then_reports() -> None:
    table = Neighbours(8)
    table.resolve(KEY, packet(1), 0, None)
    assert table.tick(0.8, nothing) == []
    assert table.tick(1, nothing) == [Solicit(KEY, None)]
    assert table.tick(2, nothing) == [Solicit(KEY, None)]
    assert table.tick(3, nothing) == [Unreachable(KEY, (packet(1),))]
    assert len(table) == 0 and table.pending == 0


def test_entry_in_use_is_probed_in_time_and_never_leaves_the_data_plane() -> None:
    table = resolved()
    assert table.tick(29, lambda _: Seen(MAC, 7)) == []
    assert table.tick(30, lambda _: Seen(MAC, 7)) == [Solicit(KEY, MAC)]
    assert table.get(KEY).state is PROBE  # type: ignore[union-attr]
    assert table.heard(KEY, MAC, 30.1, solicited=True) == []
    assert table.get(KEY).state is REACHABLE  # type: ignore[union-attr]


def test_entry_in_use_that_does_not_answer_is_removed_after_three_probes() -> None:
    table = resolved()
    used = iter(range(1, 100))
    effects = [table.tick(now, lambda _: Seen(MAC, next(used))) for now in (30, 31, 32, 33)]
    assert effects == [[Solicit(KEY, MAC)]] * 3 + [[Remove(KEY)]]


def test_unused_entry_becomes_stale_and_goes_after_its_time() -> None:
    table = resolved()
    assert table.tick(30, lambda _: Seen(MAC, 0)) == []
    assert table.get(KEY).state is STALE  # type: ignore[union-attr]
    now, effects = 30.0, []
    while not effects:
        now += 1
        effects = table.tick(now, lambda _: Seen(MAC, 0))
    assert effects == [Remove(KEY)] and now >= engine.STALE_TIME


def test_stale_entry_that_is_used_again_is_probed() -> None:
    table = resolved()
    table.tick(30, lambda _: Seen(MAC, 0))
    assert table.tick(35, lambda _: Seen(MAC, 1)) == [Solicit(KEY, MAC)]


def test_unsolicited_news_change_known_entries_only() -> None:
    table = Neighbours(8)
    assert table.heard(KEY, MAC, 0, solicited=False) == [] and len(table) == 0
    table = resolved()
    assert table.heard(KEY, OTHER, 1, solicited=False) == [Install(KEY, OTHER)]
    assert table.get(KEY).state is STALE  # type: ignore[union-attr]


def test_news_without_override_make_a_reachable_entry_doubtful_and_change_nothing() -> None:
    table = resolved()
    assert table.heard(KEY, OTHER, 1, solicited=True, override=False) == []
    entry = table.get(KEY)
    assert entry is not None and entry.mac == MAC and entry.state is STALE


def test_advertisement_without_a_mac_does_not_complete_an_entry() -> None:
    table = Neighbours(8)
    table.resolve(KEY, packet(1), 0, None)
    assert table.heard(KEY, None, 0, solicited=True) == []
    assert table.get(KEY).state is INCOMPLETE  # type: ignore[union-attr]


def test_what_the_data_plane_learnt_is_adopted_and_frees_waiting_packets() -> None:
    table = Neighbours(8)
    table.resolve(KEY, packet(1), 0, None)
    assert table.tick(1, lambda _: Seen(MAC, 0)) == [Install(KEY, MAC), Release(KEY, MAC, (packet(1),))]
    other = Key(2, KEY.address)
    assert table.adopt(other, Seen(OTHER, 3), 1) == [] and table.get(other).state is STALE  # type: ignore[union-attr]


def test_packet_for_an_entry_that_just_came_is_sent_at_once() -> None:
    assert resolved().resolve(KEY, packet(9), 1, Seen(MAC, 0)) == [Release(KEY, MAC, (packet(9),))]


def test_packet_for_an_entry_that_vanished_from_the_data_plane_asks_again() -> None:
    assert resolved().resolve(KEY, packet(9), 1, None) == [Solicit(KEY, None)]


def test_full_table_gives_up_the_stale_entry_idle_for_longest_and_no_other() -> None:
    table = Neighbours(2)
    keys = [Key(1, ipaddress.ip_address(f"10.0.0.{n}")) for n in range(2, 6)]
    table.adopt(keys[0], Seen(MAC, 0), 0)
    table.adopt(keys[1], Seen(MAC, 0), 5)
    assert table.resolve(keys[2], packet(1), 6, None) == [Remove(keys[0]), Solicit(keys[2], None)]
    table.heard(keys[1], MAC, 7, solicited=True)
    assert table.resolve(keys[3], packet(1), 8, None) == []
    assert table.refused == 1 and len(table) == 2


def test_addresses_asked_for_at_a_time_are_limited() -> None:
    table = Neighbours(10_000)
    for number in range(engine.PENDING + 10):
        table.resolve(Key(1, ipaddress.ip_address(number + 1)), packet(1), 0, None)
    assert table.pending == engine.PENDING == len(table) and table.refused == 10


KEYS = st.sampled_from([Key(port, ipaddress.ip_address(f"10.0.{port}.{n}")) for port in (0, 1) for n in (2, 3, 4)])


class Life(RuleBasedStateMachine):
    """The table together with a data plane that does what it is told, and some things by itself."""

    @initialize()
    def begin(self) -> None:
        self.table = Neighbours(4)
        self.plane: dict[Key, Seen] = {}
        self.now = 0.0
        self.given: set[bytes] = set()
        self.done: list[bytes] = []
        self.number = 0

    def do(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Install):
                self.plane[effect.key] = Seen(effect.mac, 0)
            elif isinstance(effect, Remove):
                self.plane.pop(effect.key, None)
            elif isinstance(effect, (Release, Unreachable)):
                self.done += [waiting.frame for waiting in effect.packets]

    @rule(key=KEYS)
    def packet(self, key: Key) -> None:
        if key in self.plane:
            self.plane[key] = Seen(self.plane[key].mac, self.plane[key].used + 1)
            return
        self.number += 1
        frame = self.number.to_bytes(4, "big")
        self.given.add(frame)
        self.do(self.table.resolve(key, Waiting(frame, 0), self.now, self.plane.get(key)))

    @rule(key=KEYS, mac=st.sampled_from([MAC, OTHER, None]), solicited=st.booleans(), override=st.booleans(), create=st.booleans())
    def hear(self, key: Key, mac: Mac | None, solicited: bool, override: bool, create: bool) -> None:
        self.do(self.table.heard(key, mac, self.now, solicited=solicited, override=override, create=create))

    @rule(key=KEYS)
    def learn_below(self, key: Key) -> None:
        self.plane.setdefault(key, Seen(OTHER, 0))

    @rule(key=KEYS)
    def forget(self, key: Key) -> None:
        self.do(self.table.forget(key))

    @rule(seconds=st.sampled_from([1, 1, 5, 30, 700]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.do(self.table.tick(self.now, self.plane.get))

    @precondition(lambda self: self.plane)
    @rule()
    def look_below(self) -> None:
        for key, seen in list(self.plane.items()):
            self.do(self.table.adopt(key, seen, self.now))

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "table"):
            return
        entries = dict(self.table.items())
        assert len(entries) <= 4
        assert self.table.pending == sum(entry.state is INCOMPLETE for entry in entries.values())
        for entry in entries.values():
            assert (entry.mac is None) == (entry.state is INCOMPLETE)
            assert len(entry.waiting) <= engine.QUEUE
            assert not entry.waiting or entry.state is INCOMPLETE

    @invariant()
    def no_packet_is_sent_twice(self) -> None:
        if hasattr(self, "table"):
            assert len(self.done) == len(set(self.done)) and set(self.done) <= self.given


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
