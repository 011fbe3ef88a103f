# SPDX-License-Identifier: Apache-2.0
"""What a request may do to the daemon's cubes, and how it is stored: without kernel, workers or processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polycube.core.registry import Installed
from polycube.cubes.simplebridge.model import SimplebridgeConfig
from polycube.cubes.transparenthelloworld.model import TransparenthelloworldConfig
from polycube.daemon.controller import Placement
from polycube.daemon.draft import Absent, Draft, OutOfRoom, Refused
from polycube.daemon.records import Kept, changes, restored
from polycube.daemon.store import Store
from polycube.model import Edit, Op, edit, load

SERVICES = {
    "simplebridge": Installed("simplebridge", "polycube.cubes.simplebridge:Simplebridge"),
    "transparenthelloworld": Installed("transparenthelloworld", "polycube.cubes.transparenthelloworld:Transparenthelloworld"),
}


def bridge(draft: Draft, name: str, *ports: Any, type: str = "TC") -> None:
    body = {"name": name, "type": type, "ports": [port if isinstance(port, dict) else {"name": port} for port in ports]}
    draft.create(name, "simplebridge", False, load(SimplebridgeConfig, body))


def stacked(draft: Draft, *names: str, type: str = "TC") -> None:
    for name in names:
        draft.create(name, "transparenthelloworld", True, load(TransparenthelloworldConfig, {"name": name, "type": type}))


@pytest.fixture
def draft() -> Draft:
    made = Draft({}, {})
    bridge(made, "br1", "a", "b")
    bridge(made, "br2", "a")
    stacked(made, "t1", "t2", "t3")
    return made


def peers(draft: Draft) -> dict[str, str | None]:
    return {f"{entry.name}:{port.name}": port.peer for entry, port in draft.ports()}


def test_numbers_are_the_lowest_free_and_belong_to_nobody_else(draft: Draft) -> None:
    assert [entry.number for entry in draft.cubes.values()] == [1, 2, 3, 4, 5]
    ids = [id for entry in draft.cubes.values() for id in [*entry.ids, *(id for _, id in entry.ports.values())] if id]
    assert len(ids) == len(set(ids)) == 3 + 6
    draft.delete("br2")
    bridge(draft, "br3", "x", "y")
    assert draft.cubes["br3"].number == 2
    assert draft.cubes["br3"].ports["x"] == (0, 3)  # br2:a's id, now free


def test_a_port_keeps_its_number_when_others_come_and_go(draft: Draft) -> None:
    config = draft.cubes["br1"].config
    edits = [Edit(Op.DELETE, ("ports", "a")), Edit(Op.CREATE, ("ports", "c"), {"name": "c"})]
    draft.reconfigure("br1", edit(config, edits), edits)
    assert {name: number for name, (number, _) in draft.cubes["br1"].ports.items()} == {"b": 1, "c": 2}  # not yet that of `a`


def test_connecting_sets_both_ends_and_disconnecting_clears_them(draft: Draft) -> None:
    draft.connect("br1:a", "br2:a")
    assert peers(draft) == {"br1:a": "br2:a", "br1:b": None, "br2:a": "br1:a"}
    with pytest.raises(Refused, match="br1:a already has a peer br2:a"):
        draft.connect("br1:a", "eth0")
    draft.disconnect("br2:a", "br1:a")
    assert set(peers(draft).values()) == {None}
    with pytest.raises(Refused, match="br1:a is not connected to br2:a"):
        draft.disconnect("br1:a", "br2:a")


def test_deleting_a_cube_clears_its_peers_and_attachments(draft: Draft) -> None:
    draft.connect("br1:a", "br2:a")
    draft.attach("t1", "br1:b", Placement(), {})
    draft.delete("br1")
    assert peers(draft) == {"br2:a": None}
    assert draft.parent("t1") == ""
    draft.attach("t1", "eth0", Placement(), {})
    draft.delete("t1")
    assert draft.attached == {}


@pytest.mark.parametrize("target", ["br1:a", "eth0"])
def test_a_transparent_cube_goes_where_it_is_told(draft: Draft, target: str) -> None:
    draft.attach("t1", target, Placement(), {})
    draft.attach("t2", target, Placement("first"), {})
    assert draft.stack(target) == ("t2", "t1")
    draft.attach("t3", target, Placement("after", "t2"), {})
    assert draft.stack(target) == ("t2", "t3", "t1")
    draft.detach("t3", target)
    draft.attach("t3", target, Placement("before", "t2"), {})
    assert draft.stack(target) == ("t3", "t2", "t1")
    draft.detach("t3", target)
    draft.attach("t3", target, Placement("last"), {})
    assert draft.stack(target) == ("t2", "t1", "t3")


def test_auto_puts_a_service_of_a_lower_layer_nearer_to_the_cube(draft: Draft) -> None:
    draft.attach("t1", "br1:a", Placement(), {"transparenthelloworld": 5})
    draft.cubes["t2"] = draft.cubes["t2"].__class__(**{**draft.cubes["t2"].__dict__, "service": "inner"})
    draft.attach("t2", "br1:a", Placement(), {"transparenthelloworld": 5, "inner": 1})
    assert draft.stack("br1:a") == ("t2", "t1")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda d: d.connect("v1", "v2"), "must be cube:port"),
        (lambda d: d.connect("br1:x", "v1"), "Port x does not exist in br1"),
        (lambda d: d.connect("br9:a", "v1"), "Cube br9 does not exist"),
        (lambda d: d.connect("t1:a", "v1"), "Cube t1 is transparent"),
        (lambda d: d.attach("br1", "br2:a", Placement(), {}), "Cube br1 is not transparent"),
        (lambda d: d.attach("t9", "br2:a", Placement(), {}), "Cube t9 does not exist; there are br1, br2, t1"),
        (lambda d: d.attach("t1", "br2:a", Placement("before", "t2"), {}), "t2 is not attached there: nothing is"),
        (lambda d: d.detach("t1", "br2:a"), "t1 is not attached to br2:a"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(draft: Draft, act: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        act(draft)


def test_a_transparent_cube_has_one_place(draft: Draft) -> None:
    draft.attach("t1", "br1:a", Placement(), {})
    with pytest.raises(Refused, match="t1 is already attached to br1:a"):
        draft.attach("t1", "eth0", Placement(), {})


def test_hooks_that_differ_are_not_joined(draft: Draft) -> None:
    bridge(draft, "fast", "x", type="XDP_DRV")
    stacked(draft, "quick", type="XDP_SKB")
    draft.connect("fast:x", "br1:a")
    with pytest.raises(Refused, match="It is not possible to connect TC and XDP ports"):
        draft.check({})
    with pytest.raises(Refused, match="quick and br1:b have incompatible types: XDP_SKB and TC"):
        draft.attach("quick", "br1:b", Placement(), {})


@pytest.mark.parametrize(
    ("netdevs", "words"), [({}, "Interface v1, wanted as peer of br1:a, does not exist"), ({"v1": False}, "Interface v1.* is down")]
)
def test_a_new_peer_must_be_there_and_up(draft: Draft, netdevs: dict[str, bool], words: str) -> None:
    draft.connect("br1:a", "v1")
    with pytest.raises(Refused, match=words):
        draft.check(netdevs)


def test_a_netdev_runs_xdp_in_one_mode(draft: Draft) -> None:
    bridge(draft, "fast", {"name": "x", "peer": "v1"}, type="XDP_DRV")
    stacked(draft, "slow", type="XDP_SKB")
    draft.attach("slow", "v1", Placement(), {})
    with pytest.raises(Refused, match="slow and fast on v1 have incompatible types: XDP_SKB and XDP_DRV"):
        draft.check({"v1": True})


def test_stacks_given_at_creation_are_checked_like_attachments(draft: Draft) -> None:
    stacked(draft, "quick", type="XDP_DRV")
    bridge(draft, "br3", {"name": "a", "tcubes": ["quick"]})
    with pytest.raises(Refused, match="quick and br3:a have incompatible types: XDP_DRV and TC"):
        draft.check({})


def test_span_needs_a_shadow_cube(draft: Draft) -> None:
    draft.create("s", "simplebridge", False, load(SimplebridgeConfig, {"name": "s", "span": True}))
    with pytest.raises(Refused, match="Span mode is not present in no-shadow services: create s with shadow=true, or leave out span"):
        draft.check({})


@pytest.mark.parametrize("name", ["lo", "a-rather-long-one"])
def test_ports_of_a_shadow_cube_can_be_netdevs(draft: Draft, name: str) -> None:
    draft.create("s", "simplebridge", False, load(SimplebridgeConfig, {"name": "s", "shadow": True, "ports": [{"name": name}]}))
    with pytest.raises(Refused, match=f"s:{name} can't be the netdev {name} of the namespace of a shadow cube: a name of at most 15"):
        draft.check({})


def test_a_netdev_is_the_peer_of_one_port(draft: Draft) -> None:
    draft.set_peer("br1", "a", "v1")
    draft.set_peer("br2", "a", "v1")
    with pytest.raises(Refused, match="netdev v1 can't be the peer of br2:a: it is that of br1:a"):
        draft.check({"v1": True})


def test_auto_takes_the_hook_that_suits_what_it_is_joined_with_first(draft: Draft) -> None:
    for name, peer in (("veth", "v1"), ("nic", "eth0"), ("cube", "fast:x")):
        bridge(draft, name, {"name": "p", "peer": peer}, type="AUTO")
    bridge(draft, "fast", "x", type="XDP_SKB")
    draft.settle({"v1": "veth", "eth0": ""})
    assert [(draft.cubes[name].hook, draft.cubes[name].mode) for name in ("veth", "nic", "cube")] == [
        ("tc", ""),
        ("xdp", "drv"),
        ("xdp", "skb"),
    ]


def test_a_cube_has_room_for_1022_ports() -> None:
    full = Draft({}, {})
    bridge(full, "br", *(f"p{number}" for number in range(1022)))
    config = full.cubes["br"].config
    edits = [Edit(Op.CREATE, ("ports", "more"), {"name": "more"})]
    with pytest.raises(OutOfRoom, match="No room for another port in br: 1022 is the limit"):
        full.reconfigure("br", edit(config, edits), edits)


def test_what_is_stored_comes_back_and_an_unknown_service_is_named(draft: Draft, tmp_path: Path) -> None:
    draft.connect("br1:a", "br2:a")
    draft.attach("t1", "br1:b", Placement(), {})
    draft.attach("t2", "eth0", Placement(), {})
    nothing = Kept({}, {}, {}, Absent())
    with Store(tmp_path / "db") as store:
        store.commit(changes(nothing, draft.cubes, draft.attached, {}))
        kept = restored(store.load(), SERVICES)
        assert (kept.entries, kept.attached, kept.absent) == (draft.cubes, draft.attached, Absent())
        # a later change writes what differs only
        later = Draft(draft.cubes, draft.attached)
        later.disconnect("br1:a", "br2:a")
        later.detach("t2", "eth0")
        change = changes(kept, later.cubes, later.attached, {})
        assert set(change.rows) == {draft.cubes["br1"].uuid, draft.cubes["br2"].uuid} and not change.cubes and not change.ports
        store.commit(change)
        kept = restored(store.load(), SERVICES)
        assert (kept.entries, kept.attached) == (later.cubes, {})
        left = restored(store.load(), {"simplebridge": SERVICES["simplebridge"]})
        assert len(left.absent.services) == 3 and set(left.entries) == {"br1", "br2"}
        kept_back = Draft(left.entries, left.attached, left.absent)
        name, service = next(iter(left.absent.services.items()))
        with pytest.raises(Refused, match=f"its service {service} is not installed"):
            kept_back.create(name, "simplebridge", False, SimplebridgeConfig(name=name))
        made = kept_back.create("new", "simplebridge", False, SimplebridgeConfig(name="new"))
        assert made.number not in left.absent.numbers
