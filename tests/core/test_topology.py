# SPDX-License-Identifier: Apache-2.0
"""Topology to resources: pure, without a kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polycube.core.loops import endless_loop
from polycube.core.operation import Key, Kind, Operation, plan, rank
from polycube.core.topology import (
    ANY_PORT,
    HOST_BASE,
    SHADOW_BASE,
    VETH_BASE,
    CubeSpec,
    NetdevSpec,
    PortSpec,
    World,
    build,
    hooks,
)

NETDEVS = {name: NetdevSpec(name, index) for index, name in enumerate(("v1", "v2", "v3"), 10)}


def standard(name: str, number: int, *ports: PortSpec, hook: str = "tc", mode: str = "", **more: Any) -> CubeSpec:
    return CubeSpec(name, f"uuid-{name}", number, False, hook, mode, ports, units={hook: f"{hook}-{name}"}, **more)


def transparent(name: str, number: int, ids: tuple[int, int], hook: str = "tc", *also: str) -> CubeSpec:
    units = {one: f"{one}-{name}" for one in (hook, *also)}
    return CubeSpec(name, f"uuid-{name}", number, True, hook, "drv" if hook == "xdp" else "", (), ids, units=units)


def world(*cubes: CubeSpec, attached: dict[str, tuple[str, ...]] | None = None, **netdevs: NetdevSpec) -> World:
    return World({cube.name: cube for cube in cubes}, NETDEVS | netdevs, attached or {}, inject=99)


def port_of(resources: dict[Key, Any], cube: str, number: int, hook: str = "tc") -> dict[str, Any]:
    found: dict[str, Any] = resources[Key(Kind.PORT, (f"uuid-{cube}", f"{hook}-{cube}", number))]
    return found


def test_a_port_with_a_netdev_leads_there_and_the_netdev_leads_to_the_port() -> None:
    resources, states = build(world(standard("br", 1, PortSpec("a", 0, 5, "v1"))))
    assert port_of(resources, "br", 0) == {"next": "netdev", "flags": [], "target": 10, "peer_port": 0, "id": 5, "peer_id": 0}
    assert resources[Key(Kind.ENTRY, (10,))] == {"port": 0, "id": 5}
    assert resources[Key(Kind.ATTACH, (10, "tc-ingress"))] == {"uuid": "uuid-br", "unit": "tc-br", "program": "entry"}
    assert states["br", "a"].up


def test_cubes_that_name_each_other_are_joined_and_one_sided_names_are_not() -> None:
    one, other = standard("r", 1, PortSpec("x", 3, 5, "br:y")), standard("br", 2, PortSpec("y", 4, 6, "r:x"))
    resources, states = build(world(one, other))
    assert port_of(resources, "r", 3) == {"next": "cube", "flags": ["indirect"], "target": 4, "peer_port": 4, "id": 5, "peer_id": 6}
    assert states["r", "x"].up
    resources, states = build(world(one, replace(other, ports=(PortSpec("y", 4, 6),))))
    assert port_of(resources, "r", 3)["next"] == "none"
    assert states["r", "x"].reason == "peer br:y does not name this port"


@pytest.mark.parametrize(
    ("netdev", "reason"),
    [
        (None, "netdev v9 is not there"),
        (NetdevSpec("v9", 19, up=False), "netdev v9 is down"),
        (NetdevSpec("v9", 19, xdp_problem="far"), "far"),
    ],
)
def test_a_port_is_down_with_the_reason(netdev: NetdevSpec | None, reason: str) -> None:
    cube = standard("br", 1, PortSpec("a", 0, 5, "v9"), hook="xdp", mode="drv")
    resources, states = build(world(cube, **({"v9": netdev} if netdev else {})))
    assert not states["br", "a"].up and states["br", "a"].reason == reason
    assert port_of(resources, "br", 0, "xdp")["next"] == "none"


def test_a_stack_on_a_port_is_met_from_outside_on_the_way_in_and_from_inside_on_the_way_out() -> None:
    stack = (transparent("t0", 2, (20, 21)), transparent("t1", 3, (30, 31)))
    resources, _ = build(world(standard("br", 1, PortSpec("a", 0, 5, "v1", ("t0", "t1"))), *stack))
    assert resources[Key(Kind.ATTACH, (10, "tc-ingress"))]["program"] == "ingress"
    assert resources[Key(Kind.ATTACH, (10, "tc-ingress"))]["uuid"] == "uuid-t1"
    assert port_of(resources, "t1", 0)["target"] == 4  # t0's slot
    assert port_of(resources, "t0", 0) | {"target": 2, "peer_port": 0, "peer_id": 5} == port_of(resources, "t0", 0)
    assert port_of(resources, "br", 0)["target"] == 5  # t0's egress slot
    assert port_of(resources, "t0", 1)["target"] == 7
    assert port_of(resources, "t1", 1)["next"] == "netdev"


def test_a_stack_on_a_netdev_is_met_nearest_the_wire_first_and_ends_at_the_stack() -> None:
    stack = (transparent("t0", 2, (20, 21)), transparent("t1", 3, (30, 31)))
    resources, _ = build(world(*stack, attached={"v1": ("t0", "t1")}))
    assert resources[Key(Kind.ATTACH, (10, "tc-ingress"))]["uuid"] == "uuid-t0"
    assert port_of(resources, "t1", 0) | {"next": "stack", "flags": ["hook"], "target": 10} == port_of(resources, "t1", 0)
    assert resources[Key(Kind.ATTACH, (10, "tc-egress"))] == {"uuid": "uuid-t1", "unit": "tc-t1", "program": "egress"}
    assert port_of(resources, "t0", 1) | {"next": "netdev", "flags": ["hook"], "target": 10} == port_of(resources, "t0", 1)


def test_in_xdp_a_netdevs_own_cubes_come_before_the_redirect_and_stand_on_tc_egress_too() -> None:
    cube, own = standard("br", 1, PortSpec("a", 0, 5, "v1"), hook="xdp", mode="drv"), transparent("t", 2, (20, 21), "xdp", "tc")
    described = world(cube, own, attached={"v1": ("t",)})
    assert list(hooks(own, described)) == ["xdp", "tc"]
    resources, _ = build(described)
    assert port_of(resources, "br", 0, "xdp")["target"] == 5  # t's egress slot
    assert port_of(resources, "t", 1, "xdp")["next"] == "netdev" and resources[Key(Kind.DEVICE, (21,))] == 10
    assert port_of(resources, "t", 1, "tc")["flags"] == ["hook"]
    assert resources[Key(Kind.ATTACH, (10, "xdp"))] == {"uuid": "uuid-t", "unit": "xdp-t", "program": "ingress", "mode": "drv"}
    assert port_of(resources, "t", 0, "xdp")["peer_id"] == 5


def test_redirect_peer_is_used_towards_other_namespaces_unless_a_cube_stands_on_egress() -> None:
    away = NetdevSpec("v1", 10, peer_away=True)
    cube, own = standard("br", 1, PortSpec("a", 0, 5, "v1")), transparent("t", 2, (20, 21))
    assert port_of(build(world(cube, v1=away))[0], "br", 0)["flags"] == ["peer"]
    assert port_of(build(world(cube, own, attached={"v1": ("t",)}, v1=away))[0], "br", 0)["flags"] == []


def test_a_loop_of_flooding_cubes_is_found_where_nothing_else_ends_it() -> None:
    def ring(mode: str, *names: str) -> World:
        ahead = zip(names, [*names[1:], names[0]], strict=True)
        behind = dict(zip([*names[1:], names[0]], names, strict=True))
        cubes = [
            standard(
                name,
                n,
                PortSpec("in", 0, 2 * n, f"{behind[name]}:out"),
                PortSpec("out", 1, 2 * n + 1, f"{after}:in"),
                mode=mode,
                floods=True,
            )
            for n, (name, after) in enumerate(ahead, 1)
        ]
        return world(*cubes)

    assert endless_loop(ring("skb", "a", "b", "c"))
    assert endless_loop(ring("skb", "a", "b"))
    assert endless_loop(ring("drv", "a", "b", "c")) == ""
    line = ring("skb", "a", "b", "c").cubes
    assert endless_loop(world(line["a"], line["b"])) == ""
    assert endless_loop(world(*(replace(cube, floods=False) for cube in line.values()))) == ""


def test_a_port_to_the_host_gets_a_veth_pair_of_its_own() -> None:
    resources, states = build(world(standard("br", 1, PortSpec("a", 0, 5, ":host"))))
    index = HOST_BASE + 10
    assert resources[Key(Kind.HOST, (index,))] == {"name": "br-a", "port": "pcn5h"}
    assert resources[Key(Kind.ATTACH, (index + 1, "tc-ingress"))]["program"] == "entry"
    assert port_of(resources, "br", 0)["target"] == index + 1 and states["br", "a"].up
    long = build(world(standard("bridge-of-office", 1, PortSpec("a", 0, 5, ":host"))))[0]
    assert long[Key(Kind.HOST, (index,))]["name"] == "pcn-5"


@pytest.mark.parametrize(("hook", "mode"), [("tc", ""), ("xdp", "drv")])
def test_a_shadow_cube_gets_a_namespace_and_a_veth_into_it_for_each_port(hook: str, mode: str) -> None:
    cube = standard("r", 1, PortSpec("a", 0, 5, "v1"), PortSpec("b", 1, 6), hook=hook, mode=mode)
    jumbo = NetdevSpec("v1", 10, mtu=9000)
    plain, shadow = build(world(cube, v1=jumbo))[0], build(world(replace(cube, shadow=True), v1=jumbo))[0]
    more = {key: value for key, value in shadow.items() if plain.get(key) != value}
    assert more.pop(Key(Kind.CFG, ("uuid-r", f"{hook}-r")))["pcn_shadow_base"] == SHADOW_BASE.to_bytes(4, "little").hex()
    assert more == {
        Key(Kind.NAMESPACE, ("pcn-r",)): {"uuid": "uuid-r"},
        Key(Kind.SHADOW, (SHADOW_BASE + 5,)): {"namespace": "pcn-r", "name": "a", "mode": mode, "mtu": 9000, "up": True},
        Key(Kind.SHADOW, (SHADOW_BASE + 6,)): {"namespace": "pcn-r", "name": "b", "mode": mode, "mtu": 1500, "up": False},
        Key(Kind.LEAD, (SHADOW_BASE + 5,)): {"slot": 2, "port": 0},
        Key(Kind.LEAD, (SHADOW_BASE + 6,)): {"slot": 2, "port": 1},
    }
    assert [operation.key.kind for operation in plan(shadow, plain).last] == [Kind.NAMESPACE]


def test_nothing_passes_a_port_that_is_set_down_in_its_namespace() -> None:
    filter, other = transparent("t", 3, (8, 9)), standard("o", 2, PortSpec("y", 0, 7, "r:b"))
    cube = standard("r", 1, PortSpec("a", 0, 5, "v1", ("t",)), PortSpec("b", 1, 6, "o:y"), PortSpec("c", 2, 10, "v2"), shadow=True)
    resources, states = build(replace(world(cube, other, filter), shut=frozenset({5, 6, 10})))
    assert states["r", "a"].reason == "a is set down in the namespace pcn-r"
    assert states["o", "y"].reason == "peer r:b is set down in the namespace pcn-r"
    assert {port_of(resources, "r", number)["next"] for number in (1, 2)} == {port_of(resources, "o", 0)["next"]} == {"none"}
    assert [port_of(resources, "t", direction)["next"] for direction in (0, 1)] == ["none", "none"]
    assert not [key for key in resources if key.kind is Kind.ENTRY]


def test_a_cube_may_have_more_flood_domains() -> None:
    ports = PortSpec("a", 0, 5, "v1"), PortSpec("b", 1, 6, "v2"), PortSpec("c", 2, 7, "v3"), PortSpec("off", 3, 8)
    domains = {10: [0, 2, 3], 20: [3]}
    netdevs = {"v1": NetdevSpec("v1", 10), "v2": NetdevSpec("v2", 11), "v3": NetdevSpec("v3", 12)}
    cube = standard("br", 1, *ports, hook="xdp", mode="skb", floods=True, domains=domains)
    resources, _ = build(world(cube, **netdevs))
    found = {key.name[2]: value for key, value in resources.items() if key.kind is Kind.DOMAIN}
    assert found == {0: [0, 1, 2], 10: [0, 2]}
    assert resources[Key(Kind.FLOOD, ("uuid-br", "xdp-br", 10, ANY_PORT))] == [10, 12]
    assert resources[Key(Kind.FLOOD, ("uuid-br", "xdp-br", 10, 2))] == [10]
    assert Key(Kind.FLOOD, ("uuid-br", "xdp-br", 10, 1)) not in resources


def test_flooding_in_xdp_goes_to_netdevs_directly_and_to_cubes_by_an_internal_veth() -> None:
    ports = PortSpec("a", 0, 5, "v1"), PortSpec("b", 1, 6, "v2"), PortSpec("c", 2, 7, "r:x"), PortSpec("off", 3, 8)
    bridge = standard("br", 1, *ports, hook="xdp", mode="drv", floods=True)
    router = standard("r", 2, PortSpec("x", 0, 9, "br:c"), hook="xdp", mode="drv")
    resources, _ = build(world(bridge, router))
    veth = VETH_BASE + 14
    assert resources[Key(Kind.DOMAIN, ("uuid-br", "xdp-br", 0))] == [0, 1, 2]
    assert resources[Key(Kind.FLOOD, ("uuid-br", "xdp-br", 0, ANY_PORT))] == [10, 11, veth]
    assert resources[Key(Kind.FLOOD, ("uuid-br", "xdp-br", 0, 2))] == [10, 11]  # never back where it came from
    assert Key(Kind.FLOOD, ("uuid-br", "xdp-br", 0, 0)) not in resources  # there the kernel leaves out the netdev
    assert resources[Key(Kind.LEAD, (veth + 1,))] == {"slot": 2, "port": 2}
    assert set(port_of(resources, "br", 2, "xdp")["flags"]) == {"indirect", "own_flood"}


def test_what_a_frame_reaches_is_set_up_before_what_leads_it_there_and_removed_after_it() -> None:
    cube = standard("br", 1, PortSpec("a", 0, 5, "v1"), PortSpec("b", 1, 6, "v2"))
    own = transparent("t", 2, (20, 21))
    before = build(world(cube, own))[0]
    after = build(world(replace(cube, ports=(replace(cube.ports[0], tcubes=("t",)), cube.ports[1])), own))[0]
    ahead = [operation.key for operation in plan(before, after).ahead]
    assert ahead.index(Key(Kind.PORT, ("uuid-t", "tc-t", 0))) < ahead.index(Key(Kind.ATTACH, (10, "tc-ingress")))
    back = plan(after, before)
    assert Key(Kind.ATTACH, (10, "tc-ingress")) in [operation.key for operation in back.ahead]
    # the detached cube's next hops go last: frames may be under way in it
    assert {operation.key for operation in back.behind} == {Key(Kind.PORT, ("uuid-t", "tc-t", direction)) for direction in (0, 1)}


def test_a_netdev_is_led_to_only_after_its_own_program_stands() -> None:
    steps = plan({}, build(world(standard("br", 1, PortSpec("a", 0, 5, "v1"))))[0])
    kinds = [operation.key.kind for operation in steps.ahead]
    assert kinds == [Kind.STATE, Kind.UNIT, Kind.CFG, Kind.SLOT, Kind.ENTRY, Kind.ATTACH, Kind.PORT]
    assert [rank(operation) for operation in steps.ahead] == sorted(rank(operation) for operation in steps.ahead)


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_other_programs_of_a_cube_take_over_with_all_their_tables(hook: str) -> None:
    """Seen as loss: frames met the new programs before their ports and flood domains."""
    ports = (PortSpec("a", 0, 5, "v1"), PortSpec("b", 1, 6, "v2"), PortSpec("c", 2, 7, "other:up"))
    cube = standard("br", 1, *ports, hook=hook, mode="drv" if hook == "xdp" else "", floods=True)
    other = standard("other", 2, PortSpec("up", 0, 8, "br:c"), hook=hook, mode="drv" if hook == "xdp" else "")
    before = build(world(cube, other))[0]
    steps = plan(before, build(world(replace(cube, units={hook: f"{hook}-new"}), other))[0])
    kinds = [operation.key.kind for operation in steps.ahead]
    tables = [at for at, kind in enumerate(kinds) if kind in (Kind.PORT, Kind.FLOOD, Kind.DOMAIN)]
    users = [at for at, kind in enumerate(kinds) if kind in (Kind.SLOT, Kind.ATTACH)]
    assert tables and users and max(tables) < min(users)
    unit = {operation.key.name[1] for operation in steps.behind if operation.key.kind is Kind.PORT}
    assert unit == {f"{hook}-br"}, "the old ones' tables go last"


def test_programs_and_maps_of_a_deleted_cube_go_after_everything_else() -> None:
    steps = plan(build(world(standard("br", 1, PortSpec("a", 0, 5, "v1"))))[0], build(world())[0])
    assert [operation.key.kind for operation in steps.last] == [Kind.UNIT, Kind.STATE]
    assert [operation.key.kind for operation in steps.behind][:2] == [Kind.ATTACH, Kind.PORT]
    assert not steps.ahead


def test_nothing_to_do_between_equal_worlds_and_inverse_operations_lead_back() -> None:
    resources = build(world(standard("br", 1, PortSpec("a", 0, 5, "v1"))))[0]
    assert not list(plan(resources, dict(resources)))
    operation = Operation(Key(Kind.DEVICE, (1,)), None, 10)
    assert operation.inverse == Operation(Key(Kind.DEVICE, (1,)), 10, None) and operation.inverse.verb == "remove"
    assert operation.as_data() == {"operation": "add", "kind": "device", "name": [1], "new": 10}
