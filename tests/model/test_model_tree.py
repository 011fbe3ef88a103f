# SPDX-License-Identifier: Apache-2.0
"""Paths, dumps with operational data, rows, help, descriptions."""

import sys

import pytest
from sample_models import Bridge, Monitor, Router

from polycube.model import (
    Command,
    Diff,
    Edit,
    Kind,
    ModelError,
    Op,
    complete_at,
    describe,
    dump,
    dump_at,
    edit,
    from_rows,
    help_at,
    load,
    members,
    resolve,
    row_changes,
    rows,
)

BRIDGE = {"name": "br0", "fdb": {"entry": [{"address": "02:00:00:00:00:01", "port": "p1"}]}, "ports": [{"name": "p1"}]}
OVERLAY = {
    "uuid": "u",
    "ports": [{"name": "p1", "status": "UP"}],
    "fdb": {
        "entry": [
            {"address": "02:00:00:00:00:09", "port": "p2", "age": 3},
            {"address": "02:00:00:00:00:01", "port": "p7", "age": 9},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ((), Kind.CONTAINER),
        (("fdb",), Kind.CONTAINER),
        (("fdb", "entry"), Kind.LIST),
        (("fdb", "entry", "02:00:00:00:00:0A"), Kind.ELEMENT),
        (("fdb", "entry", "02:00:00:00:00:0a", "port"), Kind.LEAF),
        (("fdb", "flush"), Kind.ACTION),
    ],
)
def test_a_path_leads_to_a_place_of_some_kind(path, kind):
    target = resolve(Bridge, path)
    assert target.kind is kind and [segment.lower() for segment in path] == list(target.path)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (("fbd",), "the request has no fbd; did you mean fdb?"),
        (("fdb", "entry", "x"), "fdb/entry/address cannot be 'x': expected a MAC address such as 02:00:00:00:00:01"),
        (("name", "x"), "name is a single value and has no x"),
        (("fdb", "flush", "x"), "fdb/flush is an action and has no x"),
    ],
)
def test_a_wrong_path_is_said_with_what_there_is(path, sentence):
    with pytest.raises(ModelError) as caught:
        resolve(Bridge, path)
    assert str(caught.value) == sentence


def test_all_keys_of_a_list_are_needed_unless_for_completion():
    with pytest.raises(ModelError, match="identified by network nexthop; nexthop is missing"):
        resolve(Router, ("route", "10.0.0.0/8"))
    target = resolve(Router, ("route", "10.0.0.0/8"), partial=True)
    assert target.kind is Kind.LIST and len(target.partial) == 1


def test_learned_entries_stand_beside_configured_ones():
    dumped = dump(load(Bridge, BRIDGE), OVERLAY)
    assert dumped["uuid"] == "u" and dumped["ports"] == [{"name": "p1", "status": "UP"}]
    assert dumped["fdb"] == {
        "aging-time": 300,
        "entry": [
            {"address": "02:00:00:00:00:01", "port": "p1", "age": 9},
            {"address": "02:00:00:00:00:09", "port": "p2", "age": 3},
        ],
    }


def test_a_dump_without_overlay_leaves_out_what_is_unset_or_empty():
    assert dump(load(Router, {"name": "r", "ports": [{"name": "p", "ip": "::1/64"}]})) == {
        "name": "r",
        "type": "TC",
        "loglevel": "INFO",
        "timing": False,
        "ports": [{"name": "p", "ip": "::1/64"}],
        "shadow": False,
        "span": False,
    }


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (("fdb", "aging-time"), 300),
        (("uuid",), "u"),
        (("ports", "p1", "status"), "UP"),
        (("ports", "p1", "peer"), None),
        (("ports",), [{"name": "p1", "status": "UP"}]),
        (("fdb", "entry", "02:00:00:00:00:09", "age"), 3),
        (("fdb", "entry", "02:00:00:00:00:09"), {"address": "02:00:00:00:00:09", "port": "p2", "age": 3}),
    ],
)
def test_any_place_can_be_read(path, data):
    assert dump_at(load(Bridge, BRIDGE), resolve(Bridge, path), OVERLAY) == data


def test_reading_what_is_not_there_names_what_is():
    with pytest.raises(ModelError, match="ports has no p2; there is p1"):
        dump_at(load(Bridge, BRIDGE), resolve(Bridge, ("ports", "p2")), OVERLAY)


def test_an_overlay_that_does_not_fit_is_a_mistake_of_the_service():
    with pytest.raises(TypeError, match="'bogus'"):
        dump(load(Bridge, BRIDGE), {"fdb": {"bogus": 1}})


def test_state_of_read_only_containers_and_lists_is_shown():
    monitor = load(Monitor, {"name": "m"})
    overlay = {"stats": {"packets": 2**63}, "sessions": [{"src": "10.0.0.1", "sport": 5, "state": "NEW"}]}
    dumped = dump(monitor, overlay)
    assert dumped["stats"] == {"packets": 2**63} and dumped["sessions"][0]["state"] == "NEW"
    target = resolve(Monitor, ("sessions", "10.0.0.1", "5"))
    assert dump_at(monitor, target, overlay)["sport"] == 5 and target.state


def test_a_row_holds_an_entry_and_nested_lists_have_rows_of_their_own():
    router = load(
        Router,
        {
            "name": "r",
            "ports": [{"name": "p", "secondaryip": [{"ip": "10.0.0.1/24"}]}],
            "route": [{"network": "10.0.0.0/8", "nexthop": "::1"}],
        },
    )
    assert rows(router) == {
        "": '{"name":"r","type":"TC","loglevel":"INFO","timing":false,"shadow":false,"span":false}',
        "ports/p": '{"name":"p","tcubes":[]}',
        "ports/p/secondaryip/10.0.0.1%2F24": '{"ip":"10.0.0.1/24"}',
        "route/10.0.0.0%2F8/::1": '{"network":"10.0.0.0/8","nexthop":"::1","pathcost":1}',
    }


def test_presence_survives_rows():
    with_program = edit(load(Monitor, {"name": "m"}), [Edit(Op.CREATE, ("ingress",), {"code": "x"})])
    assert from_rows(Monitor, rows(with_program)) == with_program
    assert from_rows(Monitor, rows(load(Monitor, {"name": "m"}))).ingress is None


def test_one_change_among_ten_thousand_routes_is_cheap():
    routes = [{"network": f"10.{i // 250}.{i % 250}.0/24", "nexthop": "10.0.0.1"} for i in range(10_000)]
    old = load(Router, {"name": "r", "route": routes})
    whole = _calls(lambda: load(Router, dump(old)))
    change = [Edit(Op.MERGE, ("route", "10.7.7.0/24", "10.0.0.1", "pathcost"), 9)]
    edit(old, change)
    new = edit(old, change)
    assert _calls(lambda: edit(old, change)) < whole / 500
    assert len(Diff(old, new).changed("route")) == 1
    assert _calls(lambda: Diff(old, new).changed("route")) < whole / 500
    assert list(row_changes(old, new)[0]) == ["route/10.7.7.0%2F24/10.0.0.1"]
    untouched = sum(new.route[key] is route for key, route in old.route.items())
    assert untouched == 9_999


def _calls(work):
    """How many functions it calls: what it costs, whatever else the machine does."""
    count = 0

    def seen(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_help_offers_what_the_command_accepts():
    router = load(Router, {"name": "r", "ports": [{"name": "p1"}]})
    port = resolve(Router, ("ports", "p1"))
    assert set(help_at(port, Command.SET)["params"]) == {"peer", "ip", "mac"}
    assert set(help_at(port, Command.ADD)["optional-params"]) == {"peer", "tcubes", "ip", "mac"}
    assert help_at(resolve(Router, ("ports",)), Command.SHOW, router)["elements"] == [{"name": "p1"}]
    assert help_at(port, Command.NONE)["commands"] == ["set", "show", "add", "del"]
    assert help_at(resolve(Router, ("arp-table", "10.0.0.1")), Command.ADD)["params"]["mac"] == {
        "name": "mac",
        "type": "leaf",
        "simpletype": "mac-address",
        "description": "MAC address",
        "example": "02:00:00:00:00:01",
    }
    assert help_at(resolve(Monitor, ("append",)), Command.NONE)["params"].keys() == {"action"}
    assert help_at(resolve(Monitor, ("sessions",)), Command.NONE)["commands"] == ["show"]
    for command in Command:
        for path in ((), ("ports",), ("ports", "p1"), ("ports", "p1", "peer")):
            assert help_at(resolve(Router, path), command, router)
            assert isinstance(complete_at(resolve(Router, path), command, router), list)


def test_completion_offers_the_next_word():
    router = load(
        Router,
        {
            "name": "r",
            "ports": [{"name": "p1"}],
            "route": [{"network": "10.0.0.0/8", "nexthop": hop} for hop in ("10.0.0.1", "10.0.0.2")],
        },
    )

    def words(command, *path):
        return complete_at(resolve(Router, path, partial=True), command, router)

    assert words(Command.ADD, "route") == ["<network>"]
    assert words(Command.ADD, "route", "10.0.0.0/8") == ["<nexthop>"]
    assert words(Command.SHOW, "route") == ["10.0.0.0/8"]
    assert words(Command.DEL, "route", "10.0.0.0/8") == ["10.0.0.1", "10.0.0.2"]
    assert words(Command.NONE, "ports") == ["add", "del", "show", "p1"]
    assert words(Command.SET, "ports", "p1") == ["peer=", "ip=", "mac=", "secondaryip"]
    assert "DEBUG" in words(Command.SET, "loglevel")
    assert "type=" in words(Command.ADD) and "type=" not in words(Command.SET)
    assert complete_at(resolve(Monitor, ("append",)), Command.NONE) == ["src=", "action="]


def test_a_description_holds_types_flags_and_actions():
    described = describe(Bridge)
    fdb = next(member for member in described["members"] if member["name"] == "fdb")
    assert fdb["actions"][0]["name"] == "flush" and fdb["actions"][0]["output"]["members"][0]["mandatory"]
    aging, entry = fdb["members"]
    assert aging["type"] == {
        "name": "uint32",
        "expected": "an integer from 1 to 4294967295",
        "minimum": 1,
        "maximum": 4294967295,
    }
    assert entry["keys"] == ["address"] and aging["default"] == 300


def test_a_model_exports_json_schema():
    schema = Router.model_json_schema(by_alias=True)
    assert "arp-table" in schema["properties"]


def test_members_are_in_the_order_of_declaration_with_common_ones_first():
    assert list(members(Router)) == [
        "name", "uuid", "type", "service-name", "loglevel", "timing", "ports", "shadow", "span", "route", "arp-table",
    ]  # fmt: skip
