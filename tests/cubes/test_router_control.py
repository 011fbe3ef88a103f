# SPDX-License-Identifier: Apache-2.0
"""Configuration to maps: what is written, what is refused."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from router_lab import CONFIG, HOST, MAC, Lab, LabMaker, port_facts

from polycube.cubes.router import Router
from polycube.cubes.router.model import RouterConfig
from polycube.cubes.router.tables import routes_of
from polycube.model import Diff, Edit, ModelError, Op, dump, edit, load
from polycube.testing.harness import CubeUnderTest, Hook
from polycube.toolkit.lpm import PrefixTable


@pytest.fixture
def hook() -> Hook:
    """One is enough: the control plane doesn't know which it is."""
    return Hook.XDP


@pytest.fixture
def make(cube: Callable[..., CubeUnderTest]) -> LabMaker:
    return partial(Lab, cube("router", ports=3))


@pytest.fixture
def lab(make: LabMaker) -> Lab:
    return make()


def table(lab: Lab, version: int = 4) -> dict[str, tuple[int, int, str]]:
    """Routes of the data plane: network -> interface, kind, gateway."""
    found = {}
    for network, value in routes_of(lab.router.maps, version, lab.router.route_table_size).items():
        found[str(network)] = (value["interface"], value["kind"], str(ipaddress.ip_address(value["gateway"])))
    return found


def written(lab: Lab, name: str) -> int:
    """Entries of a table that the last change has written."""
    return sum(write.map == name for write in lab.writes)


def test_creation_fills_all_tables(lab: Lab) -> None:
    routes = table(lab)
    assert routes["10.0.0.0/24"] == (0, 0, "0.0.0.0")
    assert routes["10.0.2.1/32"] == (2, 1, "0.0.0.0")
    assert routes["10.0.1.255/32"] == (1, 2, "0.0.0.0")
    assert routes["0.0.0.0/0"] == (2, 0, "10.0.2.2")
    assert table(lab, 6)["2001:db8:ff::/48"] == (1, 0, "2001:db8:1::2")
    assert lab.router.maps["interfaces"][1]["mac"].hex(":") == MAC[1]
    assert lab.router.maps["interfaces"][1]["mtu"] == 1500
    assert lab.router.maps["neighbours4"][{"interface": 1, "address": bytes([10, 0, 1, 2])}]["permanent"] == 1


def test_added_route_costs_one_write_and_removed_best_route_gives_way_to_the_next(lab: Lab) -> None:
    lab.edit(Edit(Op.CREATE, ("route", "20.0.0.0/8", "10.0.0.9"), {"pathcost": 5}))
    assert written(lab, "routes4") == 1
    lab.edit(Edit(Op.CREATE, ("route", "20.0.0.0/8", "10.0.1.9"), {"pathcost": 2}))
    assert written(lab, "routes4") == 1
    assert table(lab)["20.0.0.0/8"] == (1, 0, "10.0.1.9")
    lab.edit(Edit(Op.MERGE, ("route", "20.0.0.0/8", "10.0.1.9"), {"pathcost": 9}))
    assert table(lab)["20.0.0.0/8"] == (0, 0, "10.0.0.9")
    lab.edit(Edit(Op.DELETE, ("route", "20.0.0.0/8", "10.0.0.9")))
    assert table(lab)["20.0.0.0/8"] == (1, 0, "10.0.1.9")
    lab.edit(Edit(Op.DELETE, ("route", "20.0.0.0/8", "10.0.1.9")))
    assert "20.0.0.0/8" not in table(lab)


def test_deleting_all_routes_leaves_the_local_ones(lab: Lab) -> None:
    lab.edit(Edit(Op.DELETE, ("route",)))
    assert "0.0.0.0/0" not in table(lab) and "10.0.0.0/24" in table(lab)


def test_route_whose_port_loses_the_network_rests_and_comes_back(lab: Lab) -> None:
    lab.edit(Edit(Op.MERGE, ("ports", "p2", "ip"), "10.7.0.1/24"))
    assert "0.0.0.0/0" not in table(lab)
    assert shown(lab, "route")["0.0.0.0/0 10.0.2.2"]["active"] is False
    lab.edit(Edit(Op.MERGE, ("ports", "p2", "ip"), "10.0.2.1/24"))
    assert table(lab)["0.0.0.0/0"] == (2, 0, "10.0.2.2")


def test_addresses_of_ports_cost_what_differs_and_leave_what_a_new_start_would_write(lab: Lab, make: LabMaker) -> None:
    several = [Edit(Op.CREATE, ("route", "20.0.0.0/8", hop), {}) for hop in ("10.0.0.9", "10.0.1.9")]
    for edits in (
        [Edit(Op.MERGE, ("ports", "p2", "ip"), "10.7.0.1/24")],
        several,
        [Edit(Op.DELETE, ("ports", "p1")), Edit(Op.DELETE, ("arp-table",))],
        [Edit(Op.CREATE, ("ports", "p1"), {"ip": "10.0.1.3/24", "secondaryip": [{"ip": "2001:db8:1::1/64"}]})],
        [Edit(Op.MERGE, ("ports", "p2", "ip"), "10.0.2.1/24"), Edit(Op.DELETE, ("route", "20.0.0.0/8", "10.0.0.9"))],
        [Edit(Op.DELETE, ("ports", "p0", "secondaryip"))],
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PrefixTable, "sync", None)  # it reads all of the maps
            lab.edit(*edits)
        assert lab.router.current
        started = make(dump(lab.router.current))
        assert not [write for write in started.writes if write.map.startswith("routes") or write.map == "groups"]


def test_interfaces_with_other_numbers_are_written_anew(lab: Lab) -> None:
    old, ports = lab.router.current, lab.router.ports
    assert old
    lab.router.former_ports, lab.router.ports = ports, {**ports, "p0": port_facts(5)}
    with lab.cube.maps.recording() as writes:
        lab.router.apply(Diff(old, edit(old, [Edit(Op.MERGE, ("ports", "p2", "ip"), "10.7.0.1/24")])))
        assert table(lab)["10.0.0.0/24"][0] == 5
    assert writes


def test_removed_port_takes_its_routes_neighbours_and_slot_along(lab: Lab) -> None:
    lab.router.maps["neighbours4"][{"interface": 1, "address": bytes([10, 0, 1, 99])}] = {"mac": b"\2" * 6}
    lab.edit(Edit(Op.DELETE, ("ports", "p1")))
    assert all(port != 1 for port, _, _ in table(lab).values())
    assert all(key["interface"] != 1 for key, _ in lab.router.maps["neighbours4"].items())
    assert lab.router.maps["interfaces"][1]["up"] == 0


def test_configured_neighbour_comes_changes_and_goes(lab: Lab) -> None:
    key = {"interface": 0, "address": bytes([10, 0, 0, 5])}
    lab.edit(Edit(Op.CREATE, ("arp-table", "10.0.0.5"), {"mac": HOST[0], "interface": "p0"}))
    assert lab.router.maps["neighbours4"][key]["mac"].hex(":") == HOST[0]
    lab.edit(Edit(Op.MERGE, ("arp-table", "10.0.0.5"), {"mac": HOST[1]}))
    assert lab.router.maps["neighbours4"][key]["mac"].hex(":") == HOST[1]
    lab.edit(Edit(Op.MERGE, ("arp-table", "10.0.0.5"), {"interface": "p2"}))
    assert lab.router.maps["neighbours4"].get(key) is None
    assert lab.router.maps["neighbours4"][{**key, "interface": 2}]["permanent"] == 1
    lab.edit(Edit(Op.DELETE, ("arp-table", "10.0.0.5")))
    assert lab.router.maps["neighbours4"].get({**key, "interface": 2}) is None


REFUSED = {
    "unreachable next hop": (("route", "20.0.0.0/8", "99.0.0.1"), {}, "next hop 99.0.0.1 is in no network of the ports"),
    "local route": (("route", "20.0.0.0/8", "local"), {}, "local routes come from the addresses of the ports"),
    "port for a route": (("route", "20.0.0.0/8", "10.0.0.9"), {"interface": "p7"}, "no port p7"),
    "neighbour's port": (("arp-table", "10.0.0.5"), {"mac": HOST[0], "interface": "p7"}, "no port p7"),
    "neighbour's mac": (("arp-table", "10.0.0.5"), {"mac": "ff:ff:ff:ff:ff:ff", "interface": "p0"}, "the MAC of one host"),
    "neighbour is the router": (("arp-table", "10.0.0.1"), {"mac": HOST[0], "interface": "p0"}, "the address of another host"),
    "neighbour's zone": (("arp-table", "fe80::1%p1"), {"mac": HOST[0], "interface": "p0"}, "zone p1 is not its interface, p0"),
    "secondary address twice": (("ports", "p0", "secondaryip", "10.0.1.1/16"), {}, "has this address"),
    "route again": (("route", "0.0.0.0/0", "10.0.2.2"), {}, "exists already"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_configuration_is_refused_in_one_sentence_and_nothing_is_written(lab: Lab, name: str) -> None:
    path, body, sentence = REFUSED[name]
    before = list(lab.router.maps["routes4"].items()), list(lab.router.maps["neighbours4"].items())
    with pytest.raises(ModelError) as caught:
        lab.edit(Edit(Op.CREATE, path, body))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert (list(lab.router.maps["routes4"].items()), list(lab.router.maps["neighbours4"].items())) == before


def test_more_routes_than_the_table_holds_are_refused(lab: Lab) -> None:
    body = [{"network": f"20.{n >> 8}.{n & 255}.0/24", "nexthop": "10.0.0.9"} for n in range(10_000)]
    with pytest.raises(ModelError, match="route-table-size allows 10000"):
        lab.edit(Edit(Op.MERGE, ("route",), body))
    assert Router.sizes(load(RouterConfig, {"name": "r", "route-table-size": 100_000}))["routes4"] > 100_000


def test_a_route_beside_ten_thousand_costs_as_little_as_any(lab: Lab) -> None:
    body = [{"network": f"20.{n >> 8}.{n & 255}.0/24", "nexthop": f"10.0.0.{2 + n % 200}"} for n in range(9_990)]
    lab.edit(Edit(Op.MERGE, ("route",), body))
    assert len(table(lab)) > 10_000
    lab.edit(Edit(Op.CREATE, ("route", "30.0.0.0/8", "10.0.0.9"), {}))
    assert len(lab.writes) < 10


def shown(lab: Lab, name: str) -> dict[str, Any]:
    """A list as a GET shows it, by key."""
    assert lab.router.current
    keys = {"route": ("network", "nexthop"), "arp-table": ("address",), "ports": ("name",)}[name]
    answer = dump(lab.router.current, lab.router.state())
    return {" ".join(element[key] for key in keys): element for element in answer[name]}


def test_state_shows_local_routes_effective_macs_and_neighbours(lab: Lab) -> None:
    routes = shown(lab, "route")
    assert routes["10.0.0.0/24 local"] == {"network": "10.0.0.0/24", "nexthop": "local", "interface": "p0", "pathcost": 0, "active": True}
    assert "10.0.0.1/32 local" in routes and "10.0.0.255/32 local" not in routes
    assert routes["0.0.0.0/0 10.0.2.2"]["interface"] == "p2" and routes["0.0.0.0/0 10.0.2.2"]["active"] is True
    assert shown(lab, "ports")["p0"]["link-local"] == "fe80::ff:fe00:a0"
    assert shown(lab, "arp-table")["10.0.1.2"]["state"] == "permanent"


def test_learnt_neighbours_are_shown_with_age_and_forgotten_on_request(lab: Lab) -> None:
    for version, address in ((4, "10.0.0.7"), (6, "fe80::7")):
        key = {"interface": 0, "address": ipaddress.ip_address(address).packed}
        lab.router.maps[f"neighbours{version}"][key] = {"mac": b"\2\0\0\0\0\7"}
    lab.tick(5)
    table = shown(lab, "arp-table")
    assert table["10.0.0.7"] == {"address": "10.0.0.7", "mac": "02:00:00:00:00:07", "interface": "p0", "age": 4, "state": "stale"}
    assert table["fe80::7%p0"]["interface"] == "p0"
    assert lab.router.forget("arp-table", "10.0.0.7") and not lab.router.forget("arp-table", "10.0.0.7")
    assert lab.router.forget("arp-table", "fe80::7%p0")
    assert not lab.router.forget("arp-table", None)
    assert "10.0.1.2" in shown(lab, "arp-table")


def test_local_routes_cannot_be_deleted(lab: Lab) -> None:
    with pytest.raises(ModelError, match="Users can not delete a local route"):
        lab.router.forget("route", ("10.0.0.0/24", "local"))


def test_restored_configuration_with_a_resting_route_is_taken_as_it_is(make: LabMaker) -> None:
    config = {**CONFIG, "route": [{"network": "20.0.0.0/8", "nexthop": "99.0.0.1"}]}
    lab = make(config=config)
    assert "20.0.0.0/8" not in table(lab) and shown(lab, "route")["20.0.0.0/8 99.0.0.1"]["active"] is False


def test_port_without_mac_takes_the_netdevs_and_without_netdev_one_that_stays(make: LabMaker) -> None:
    config = {"name": "r1", "ports": [{"name": "p0"}, {"name": "p1"}]}
    lab = make(config=config, mac="02:00:00:00:00:c7")
    assert lab.router.maps["interfaces"][0]["mac"].hex(":") == "02:00:00:00:00:c7"
    lab.router.ports = {name: type(facts)(name, facts.number, facts.id) for name, facts in lab.router.ports.items()}
    lab.router.facts(["p0", "p1"])
    first, second = (lab.router.maps["interfaces"][number]["mac"] for number in (0, 1))
    assert first != second and first[0] & 3 == 2
    lab.router.maps["interfaces"].clear()
    again = make(config=config)
    again.set_facts(*lab.router.ports.values())
    assert again.router.maps["interfaces"][0]["mac"] == first


def test_port_without_address_takes_the_netdevs_first_ipv4_prefix_once(make: LabMaker) -> None:
    config = {"name": "r1", "ports": [{"name": "p0"}, {"name": "p1", "ip": "10.8.0.1/24"}]}
    lab = make(config=config, addresses=("127.0.0.1/8", "fe80::1/64", "10.9.0.5/24", "10.9.1.5/24"))
    lab.tick()
    assert [(one.op, one.path, one.value) for one in lab.edits] == [(Op.MERGE, ("ports", "p0", "ip"), "10.9.0.5/24")]
    lab.edit(Edit(Op.DELETE, ("ports", "p0", "ip")))
    lab.tick(2)
    assert len(lab.edits) == 1


def test_configured_mac_and_address_are_for_the_netdev_too(lab: Lab) -> None:
    assert lab.router.netdev()["p0"] == {"mac": MAC[0], "addresses": ["10.0.0.1/24"]}


def test_addresses_are_announced_when_they_are_new_and_the_port_is_up(lab: Lab) -> None:
    lab.tick()
    first = lab.take()
    assert {port for port, _ in first} == {0, 1, 2}
    assert len(first) == 3 * (2 + 2)  # two IPv4 addresses; one IPv6 address and the link-local one
    lab.tick(3)
    assert lab.take() == []
    lab.edit(Edit(Op.MERGE, ("ports", "p1", "mac"), "02:00:00:00:00:e1"))
    lab.tick()
    assert {port for port, _ in lab.take()} == {1}


def test_mtu_of_the_netdev_reaches_the_data_plane_when_it_changes(lab: Lab) -> None:
    lab.router.ports = {**lab.router.ports, "p1": port_facts(1, mtu=9000)}
    lab.router.facts(["p1"])
    assert lab.router.maps["interfaces"][1]["mtu"] == 9000


def test_deletion_of_the_cube_is_no_work(lab: Lab) -> None:
    lab.router.apply(Diff(lab.router.current, None))
    asyncio.run(lab.router.start())
    lab.router.close()
