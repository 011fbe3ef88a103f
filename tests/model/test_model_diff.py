# SPDX-License-Identifier: Apache-2.0
import pytest
from sample_models import Bridge, Monitor, Router

from polycube.model import Diff, Edit, Op, edit, load


@pytest.fixture
def router():
    return load(
        Router,
        {
            "name": "r1",
            "ports": [{"name": "p1", "ip": "10.0.0.1/24"}, {"name": "p2"}],
            "route": [{"network": "0.0.0.0/0", "nexthop": "10.0.0.254", "interface": "p1"}],
        },
    )


def test_the_same_configuration_is_no_change(router):
    change = Diff(router, router)
    assert not change and not change.changed("ports") and not change.added("ports") and not change.changed("loglevel")
    assert not Diff(router, load(Router, {"name": "r1", "route": []}).model_copy(update=dict(router)))


def test_everything_is_new_at_creation(router):
    change = Diff(None, router)
    assert change and change.created and not change.deleted
    assert [port.name for port in change.added("ports")] == ["p1", "p2"]
    assert change.changed("loglevel") == [(None, router.loglevel)]
    assert not change.removed("ports") and not change.changed("ports")


def test_everything_leaves_at_deletion(router):
    change = Diff(router, None)
    assert change.deleted and [port.name for port in change.removed("ports")] == ["p1", "p2"]


def test_lists_tell_added_removed_and_changed(router):
    new = edit(
        router,
        [
            Edit(Op.DELETE, ("ports", "p2")),
            Edit(Op.CREATE, ("ports", "p3"), {}),
            Edit(Op.MERGE, ("ports", "p1", "mac"), "02:00:00:00:00:01"),
        ],
    )
    change = Diff(router, new)
    assert [port.name for port in change.added("ports")] == ["p3"]
    assert [port.name for port in change.removed("ports")] == ["p2"]
    assert change.changed("ports") == [(router.ports["p1"], new.ports["p1"])]
    assert [one.node.name for one in change.each("ports")] == ["p2", "p3", "p1"]
    assert not change.changed("route")


def test_nested_lists_are_reached_through_each_and_at(router):
    new = edit(router, [Edit(Op.CREATE, ("ports", "p1", "secondaryip", "10.9.0.1/16"), {})])
    [port] = Diff(router, new).each("ports")
    assert [str(one.ip) for one in port.added("secondaryip")] == ["10.9.0.1/16"]
    assert Diff(router, new).at("ports", "p1").added("secondaryip")
    assert not Diff(router, new).at("ports", "p2")


def test_dotted_names_reach_into_containers():
    old = load(Bridge, {"name": "b"})
    new = edit(old, [Edit(Op.MERGE, ("fdb", "aging-time"), 5)])
    change = Diff(old, new)
    assert change.changed("fdb.aging_time") == [(300, 5)] == change.at("fdb").changed("aging_time")
    assert change.changed("fdb") == [(old.fdb, new.fdb)] and not change.added("fdb.entry")
    assert Diff(None, new).changed("fdb.aging_time") == [(None, 5)]


def test_an_element_with_another_creation_only_leaf_was_made_anew(router):
    new = edit(router, [Edit(Op.REPLACE, ("route", "0.0.0.0/0", "10.0.0.254"), {"interface": "p2"})])
    change = Diff(router, new)
    assert len(change.removed("route")) == 1 == len(change.added("route")) and not change.changed("route")


def test_a_mistyped_name_is_a_mistake_of_the_author(router):
    with pytest.raises(AttributeError, match="did you mean ports"):
        Diff(None, router).added("prots")
    with pytest.raises(TypeError, match="not a list"):
        Diff(None, router).added("loglevel")
    with pytest.raises(AttributeError, match="use at"):
        Diff(None, router).changed("ports.name")
    with pytest.raises(KeyError):
        Diff(None, router).at("ports", "none")
    with pytest.raises(ValueError):
        Diff(None, None)


def test_a_container_that_comes_and_goes():
    old = load(Monitor, {"name": "m"})
    new = edit(old, [Edit(Op.CREATE, ("ingress",), {"code": "x"})])
    assert Diff(old, new).at("ingress").created and Diff(new, old).at("ingress").deleted
    assert Diff(old, new).changed("ingress.code") == [(None, "x")]
    assert not Diff(old, old).changed("ingress")
