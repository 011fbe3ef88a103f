# SPDX-License-Identifier: Apache-2.0
import ipaddress
import pickle
from typing import Annotated

import pytest
from pydantic import Field
from sample_models import Bridge, Forwarder, Monitor, Route, Router, Verdict

from polycube.core.config import CubeType, LogLevel
from polycube.model import Keyed, ModelError, Node, Tag, leaf, load


def problems(cls, body):
    with pytest.raises(ModelError) as caught:
        load(cls, body)
    return [(str(p.tag), "/".join(p.path), p.message) for p in caught.value.problems]


def test_a_minimal_body_gets_all_defaults():
    bridge = load(Bridge, {"name": "br0"})
    assert bridge.type is CubeType.TC and bridge.loglevel is LogLevel.INFO
    assert bridge.fdb.aging_time == 300 and len(bridge.ports) == 0 and bridge.shadow is False


def test_enumerations_match_without_regard_to_case():
    bridge = load(Bridge, {"name": "br0", "type": "xdp_skb", "loglevel": "warn"})
    assert bridge.type is CubeType.XDP_SKB and bridge.loglevel is LogLevel.WARN


def test_integers_may_be_strings_but_not_booleans_or_fractions():
    assert load(Bridge, {"name": "br0", "fdb": {"aging-time": "60"}}).fdb.aging_time == 60
    for wrong in (True, 1.5, "x", None, 0, 2**32, [], {}):
        [(tag, path, message)] = problems(Bridge, {"name": "br0", "fdb": {"aging-time": wrong}})
        assert (tag, path) == ("invalid-value", "fdb/aging-time")
        assert message.endswith("expected an integer from 1 to 4294967295")


def test_bounds_hold_and_are_told_where_a_leaf_may_be_absent():
    class Weighed(Node):
        """Of a test."""

        weight: Annotated[int, Field(ge=0, le=1000)] | None = leaf("Share", default=None)

    assert load(Weighed, {}).weight is None
    assert problems(Weighed, {"weight": 1001}) == [("invalid-value", "weight", "cannot be 1001: expected an integer from 0 to 1000")]


def test_an_optional_integer_does_not_take_a_boolean_either():
    assert problems(Router, {"name": "r", "route": [{"network": "::/0", "nexthop": "::1", "pathcost": True}]})


def test_addresses_are_canonical_and_of_both_families():
    router = load(
        Router,
        {
            "name": "r1",
            "ports": [{"name": "p1", "mac": "AA:BB:CC:DD:EE:FF", "ip": "10.0.0.1/24"}],
            "route": [
                {"network": "10.1.0.7/16", "nexthop": "10.0.0.2"},
                {"network": "2001:DB8::/64", "nexthop": "fe80::1"},
            ],
        },
    )
    assert router.ports["p1"].mac == "aa:bb:cc:dd:ee:ff"
    assert router.ports["p1"].ip == ipaddress.ip_interface("10.0.0.1/24")
    assert (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_address("10.0.0.2")) in router.route
    assert (ipaddress.ip_network("2001:db8::/64"), ipaddress.ip_address("fe80::1")) in router.route


@pytest.mark.parametrize("wrong", [3, "10.0.0.256/24", "10.0.0.0/33", "fe80::1%eth0/64", "", None, True])
def test_what_is_no_prefix_is_refused(wrong):
    [(tag, _, message)] = problems(Router, {"name": "r1", "route": [{"network": wrong, "nexthop": "10.0.0.1"}]})
    assert tag == "invalid-value" and "expected an IPv4 or IPv6 prefix" in message


def test_every_problem_of_a_body_is_reported_with_keys_in_its_path():
    found = problems(
        Router,
        {
            "ports": [{"name": "p1", "mac": "zz"}, {"name": "p2", "status": "UP"}],
            "arp-table": [{"address": "10.0.0.1", "mac": "02:00:00:00:00:01"}],
            "rotue": [],
        },
    )
    assert [(tag, path) for tag, path, _ in found] == [
        ("missing-attribute", "name"),
        ("invalid-value", "ports/p1/mac"),
        ("invalid-value", "ports/p2/status"),
        ("missing-attribute", "arp-table/10.0.0.1/interface"),
        ("invalid-value", ""),
    ]
    assert found[2][2] == "is read-only"
    assert found[4][2] == "has no member rotue; did you mean route?"


def test_python_names_are_no_members_of_a_body():
    [(tag, path, message)] = problems(Bridge, {"name": "br0", "fdb": {"aging_time": 3}})
    assert (tag, path) == ("invalid-value", "fdb") and "did you mean aging-time?" in message


def test_a_key_twice_in_one_array_is_refused_even_when_spelled_differently():
    twice = [{"network": "10.0.0.0/24", "nexthop": "1.1.1.1"}, {"network": "10.0.0.9/24", "nexthop": "1.1.1.1"}]
    assert problems(Router, {"name": "r1", "route": twice}) == [("bad-element", "route", "holds 10.0.0.0/24 1.1.1.1 twice")]


@pytest.mark.parametrize("body", [None, [], "x", 3])
def test_a_body_that_is_no_object_is_refused(body):
    assert problems(Bridge, body)[0][2].endswith("expected an object")


def test_read_only_containers_and_lists_are_refused_in_bodies():
    assert problems(Monitor, {"name": "m", "stats": {}}) == [("invalid-value", "stats", "is read-only")]
    assert problems(Monitor, {"name": "m", "sessions": []}) == [("invalid-value", "sessions", "is read-only")]


def test_a_validator_of_the_author_speaks_with_the_path_of_its_node():
    found = problems(Forwarder, {"name": "f", "actions": [{"inport": "p1", "action": "forward"}]})
    assert found == [("invalid-value", "actions/p1", "needs an outport, as its action is FORWARD")]


def test_the_empty_string_is_no_peer():
    assert load(Bridge, {"name": "b", "ports": [{"name": "p", "peer": ""}]}).ports["p"].peer is None
    assert load(Bridge, {"name": "b", "ports": [{"name": "p", "peer": ":host"}]}).ports["p"].peer == ":host"
    assert problems(Bridge, {"name": "b", "ports": [{"name": "p", "peer": "a:b:c"}]})


def test_an_alias_with_underscore_is_kept():
    assert load(Monitor, {"name": "m", "port_mode": "forward"}).port_mode is Verdict.FORWARD


def test_leaf_lists_are_arrays():
    assert load(Monitor, {"name": "m", "words": ["a", "b"]}).words == ("a", "b")
    assert "expected an array" in problems(Monitor, {"name": "m", "words": "a"})[0][2]


def test_several_problems_inside_one_leaf_list_are_one():
    assert len(problems(Monitor, {"name": "m", "words": ["a b", "c d"]})) == 1


def test_status_follows_from_the_tag():
    assert {tag: tag.status for tag in Tag}[Tag.DATA_EXISTS] == 409
    assert Tag.OPERATION_NOT_SUPPORTED.status == 405 and Tag.BAD_ATTRIBUTE.status == 400


def test_errors_and_configurations_survive_pickling():
    with pytest.raises(ModelError) as caught:
        load(Bridge, {})
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems and str(again) == str(caught.value) and again.status == 400
    bridge = load(Bridge, {"name": "b", "fdb": {"entry": [{"address": "02:00:00:00:00:01", "port": "p"}]}})
    assert pickle.loads(pickle.dumps(bridge)) == bridge


def test_nodes_are_made_in_python_by_attribute_name():
    route = Route(network="10.0.0.0/8", nexthop="10.0.0.1", pathcost=3)
    assert route.pathcost == 3 and list(Keyed([route])) == [(route.network, route.nexthop)]


def test_a_member_without_description_or_helper_is_a_mistake_of_the_author():
    with pytest.raises(TypeError, match="has no description"):

        class NoText(Node):
            x: int = leaf("")

    with pytest.raises(TypeError, match="declare it by"):

        class Bare(Node):
            x: int = 3
