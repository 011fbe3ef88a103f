# SPDX-License-Identifier: Apache-2.0
import pytest
from sample_models import Bridge, Forwarder, Monitor, Router, Verdict

from polycube.model import Edit, Keyed, ModelError, Node, Op, Uint32, edit, key, leaf, listing, load

ROUTER = {
    "name": "r1",
    "type": "XDP_SKB",
    "ports": [{"name": "p1", "ip": "10.0.0.1/24", "secondaryip": [{"ip": "10.0.9.1/24"}]}, {"name": "p2"}],
    "route": [{"network": "0.0.0.0/0", "nexthop": "10.0.0.254", "interface": "p1"}],
}
DEFAULT = ("route", "0.0.0.0/0", "10.0.0.254")


@pytest.fixture
def router():
    return load(Router, ROUTER)


@pytest.fixture
def monitor():
    return load(Monitor, {"name": "m", "rule": [{"id": 1, "src": "10.0.0.0/8", "action": "DROP"}]})


def refused(config, op, path, value=None):
    with pytest.raises(ModelError) as caught:
        edit(config, [Edit(op, path, value)])
    [problem] = caught.value.problems
    return str(problem.tag), str(problem)


def test_a_leaf_is_set_and_everything_else_keeps_its_identity(router):
    new = edit(router, [Edit(Op.MERGE, ("ports", "p2", "peer"), "veth1")])
    assert new.ports["p2"].peer == "veth1" and router.ports["p2"].peer is None
    assert new.ports["p1"] is router.ports["p1"] and new.route is router.route


def test_an_edit_that_changes_nothing_returns_the_same_object(router):
    assert edit(router, [Edit(Op.MERGE, ("loglevel",), "info")]) is router
    assert edit(router, [Edit(Op.REPLACE, (), ROUTER)]) is router
    assert edit(router, [Edit(Op.REPLACE, ("ports",), ROUTER["ports"])]) is router
    assert edit(router, [Edit(Op.MERGE, (), ROUTER)]) is router
    assert edit(router, [Edit(Op.REPLACE, DEFAULT, {"interface": "p1"})]) is router


def test_an_element_is_created_with_the_keys_of_its_path(router):
    new = edit(router, [Edit(Op.CREATE, ("route", "10.1.0.3/16", "10.0.0.2"), {"pathcost": 5})])
    assert [route.pathcost for route in new.route.values()] == [1, 5]


def test_a_key_in_the_body_may_repeat_the_path_but_not_contradict_it(router):
    edit(router, [Edit(Op.CREATE, ("ports", "p3"), {"name": "p3"})])
    assert "the path says" in refused(router, Op.CREATE, ("ports", "p3"), {"name": "p4"})[1]


def test_creating_what_exists_is_data_exists(router):
    assert refused(router, Op.CREATE, ("ports", "p1"), {}) == ("data-exists", "ports/p1 exists already")
    assert refused(router, Op.CREATE, ("ports",), [{"name": "p1"}])[0] == "data-exists"


def test_an_object_or_an_array_adds_to_a_list(router):
    for value in ({"name": "p3"}, [{"name": "p3"}]):
        assert list(edit(router, [Edit(Op.CREATE, ("ports",), value)]).ports) == ["p1", "p2", "p3"]


def test_what_is_not_there_is_data_missing_with_a_near_name(router):
    assert refused(router, Op.MERGE, ("ports", "port1", "peer"), "x") == (
        "data-missing",
        "ports has no port1; there are p1, p2",
    )
    assert refused(router, Op.DELETE, ("ports", "p12")) == ("data-missing", "ports has no p12; did you mean p2?")
    assert refused(router, Op.MERGE, ("route", "0.0.0.0/0", "10.0.0.253"), {})[0] == "data-missing"


def test_merge_changes_what_is_given_and_adds_what_is_new(router):
    body = {"ports": [{"name": "p1", "mac": "02:00:00:00:00:01"}, {"name": "p9", "ip": "::1/64"}], "span": True}
    new = edit(router, [Edit(Op.MERGE, (), body)])
    assert new.ports["p1"].mac and str(new.ports["p1"].ip) == "10.0.0.1/24" and len(new.ports["p1"].secondaryip) == 1
    assert list(new.ports) == ["p1", "p2", "p9"] and new.span


def test_merge_of_a_new_element_needs_its_mandatory_leaves(router):
    tag, sentence = refused(router, Op.MERGE, (), {"arp-table": [{"address": "10.0.0.9", "interface": "p1"}]})
    assert tag == "missing-attribute" and sentence.startswith("arp-table/10.0.0.9/mac is missing")


def test_replace_resets_what_is_left_out_but_keeps_what_is_settable_at_creation_only(router):
    new = edit(router, [Edit(Op.REPLACE, (), {"loglevel": "debug"})])
    assert not new.ports and not new.route and new.name == "r1" and new.type.value == "XDP_SKB"


def test_creation_only_leaves_of_a_cube_cannot_be_changed(router):
    for op, path, value in (
        (Op.MERGE, (), {"type": "TC"}),
        (Op.REPLACE, (), {"type": "TC"}),
        (Op.MERGE, ("type",), "TC"),
        (Op.DELETE, ("type",), None),
    ):
        assert refused(router, op, path, value) == ("invalid-value", 'type is "XDP_SKB" and can only be set at creation')


def test_an_element_is_made_anew_by_replace_and_only_by_replace(router):
    new = edit(router, [Edit(Op.REPLACE, DEFAULT, {"interface": "p2"})])
    assert next(iter(new.route.values())).interface == "p2"
    assert "only be set at creation" in refused(router, Op.MERGE, DEFAULT, {"interface": "p2"})[1]
    assert "only be set at creation" in refused(router, Op.MERGE, (*DEFAULT, "interface"), "p2")[1]


def test_keys_cannot_be_changed(router):
    assert refused(router, Op.MERGE, ("ports", "p1", "name"), "p7")[0] == "invalid-value"
    assert refused(router, Op.MERGE, (), {"name": "r2"})[0] == "invalid-value"


def test_read_only_members_cannot_be_edited(router, monitor):
    assert refused(router, Op.MERGE, ("ports", "p1", "status"), "UP")[0] == "operation-not-supported"
    assert refused(router, Op.MERGE, ("ports", "p1"), {"status": "UP"}) == (
        "invalid-value",
        "ports/p1/status is read-only",
    )
    assert refused(monitor, Op.DELETE, ("sessions",))[0] == "operation-not-supported"
    assert refused(monitor, Op.REPLACE, ("stats",), {})[0] == "operation-not-supported"


def test_deleting_a_leaf_a_container_a_list_and_an_element(router):
    new = edit(
        router,
        [
            Edit(Op.DELETE, ("ports", "p1", "ip")),
            Edit(Op.DELETE, ("ports", "p1", "secondaryip", "10.0.9.1/24")),
            Edit(Op.DELETE, ("route",)),
            Edit(Op.DELETE, ("ports", "p2")),
        ],
    )
    assert new.ports["p1"].ip is None and not new.ports["p1"].secondaryip and not new.route and list(new.ports) == ["p1"]
    bridge = load(Bridge, {"name": "b", "fdb": {"aging-time": 7}})
    assert edit(bridge, [Edit(Op.DELETE, ("fdb",))]).fdb.aging_time == 300
    assert edit(bridge, [Edit(Op.DELETE, ("fdb", "aging-time"))]).fdb.aging_time == 300


def test_a_mandatory_leaf_cannot_be_deleted():
    forwarder = load(Forwarder, {"name": "f", "actions": [{"inport": "p1", "action": "DROP"}]})
    assert "mandatory" in refused(forwarder, Op.DELETE, ("actions", "p1", "action"))[1]


def test_a_check_of_the_author_sees_the_merged_element():
    forwarder = load(Forwarder, {"name": "f", "actions": [{"inport": "p1", "action": "DROP"}]})
    assert "needs an outport" in refused(forwarder, Op.MERGE, ("actions", "p1", "action"), "forward")[1]
    new = edit(forwarder, [Edit(Op.MERGE, ("actions", "p1"), {"action": "FORWARD", "outport": "p2"})])
    assert new.actions["p1"].action is Verdict.FORWARD


def test_presence_containers_come_and_go(monitor):
    assert refused(monitor, Op.DELETE, ("ingress",))[0] == "data-missing"
    assert refused(monitor, Op.MERGE, ("ingress", "code"), "x")[0] == "data-missing"
    new = edit(monitor, [Edit(Op.CREATE, ("ingress",), {"code": "int x;"})])
    assert new.ingress.code == "int x;"
    assert refused(new, Op.CREATE, ("ingress",), {"code": "y"})[0] == "data-exists"
    assert edit(new, [Edit(Op.DELETE, ("ingress",))]).ingress is None


def test_an_untouched_container_may_be_created():
    bridge = load(Bridge, {"name": "b"})
    new = edit(bridge, [Edit(Op.CREATE, ("fdb",), {"aging-time": 5})])
    assert new.fdb.aging_time == 5
    assert refused(new, Op.CREATE, ("fdb",), {})[0] == "data-exists"


def test_actions_and_cubes_are_not_edited_as_such(monitor):
    assert refused(monitor, Op.MERGE, ("append",), {})[0] == "operation-not-supported"
    assert refused(monitor, Op.DELETE, ())[0] == "operation-not-supported"
    assert refused(monitor, Op.CREATE, ("words",), ["a"])[0] == "operation-not-supported"


def test_wrong_shapes_are_said(router):
    assert "expected an array" in refused(router, Op.REPLACE, ("ports",), {})[1]
    assert "expected an object" in refused(router, Op.CREATE, ("ports", "x"), 3)[1]
    assert "expected an object" in refused(router, Op.MERGE, (), [])[1]
    assert refused(router, Op.MERGE, ("ports",), [3])[1].startswith("ports/[0] cannot be 3")
    assert refused(router, Op.REPLACE, ("ports",), [{"peer": "x"}])[1].startswith("ports/[0]/name is missing")
    assert refused(router, Op.REPLACE, ("ports",), [{"name": "a"}] * 2)[0] == "bad-element"


def test_unknown_members_are_said_with_a_suggestion(router):
    assert refused(router, Op.MERGE, (), {"rout": []})[1].endswith("did you mean route?")
    assert refused(router, Op.MERGE, ("ports", "p1", "pear"), "x") == (
        "invalid-value",
        "ports/p1 has no pear; did you mean peer?",
    )


def test_a_list_that_is_settable_at_creation_only_stays_as_it_was():
    monitor = load(Monitor, {"name": "m", "labels": [{"name": "a", "value": "x"}]})
    assert edit(monitor, [Edit(Op.REPLACE, (), {})]).labels == monitor.labels
    assert edit(monitor, [Edit(Op.MERGE, (), {"labels": [{"name": "a"}]})]) is monitor
    for op, path, value in (
        (Op.CREATE, ("labels", "b"), {}),
        (Op.DELETE, ("labels", "a"), None),
        (Op.MERGE, ("labels", "a", "value"), "y"),
        (Op.MERGE, (), {"labels": [{"name": "b"}]}),
        (Op.REPLACE, (), {"labels": []}),
    ):
        assert refused(monitor, op, path, value) == ("invalid-value", "labels can only be set at creation")


class Tree(Node):
    """Something that is there of itself."""

    vlan: Uint32 = key("Which one")
    priority: Uint32 = leaf("How much it counts", default=32768)
    delay: Uint32 = leaf("How slow it is", default=10)


class Forest(Node):
    """All of them."""

    tree: Keyed[Tree] = listing("Trees", implied=True)


def test_an_element_that_is_there_of_itself_is_configured_by_changing_it():
    bare = load(Forest, {})
    for one in (Edit(Op.MERGE, ("tree", "7", "priority"), 1), Edit(Op.MERGE, ("tree", "7"), {"priority": 1})):
        assert edit(bare, [one]).tree[7] == Tree(vlan=7, priority=1)
    assert edit(bare, [Edit(Op.MERGE, ("tree", "7", "delay"), 10)]) is bare
    assert refused(bare, Op.DELETE, ("tree", "7"))[0] == "data-missing"
    assert refused(bare, Op.MERGE, ("tree", "x", "delay"), 1)[0] == "invalid-value"
