# SPDX-License-Identifier: Apache-2.0
"""The REST interface against a controller in memory; what the kernel makes of it is tested elsewhere."""

import os
import uuid
from typing import ClassVar

import pytest
from starlette.testclient import TestClient

from polycube.core.config import Port, StandardCube, TransparentCube
from polycube.daemon import http
from polycube.daemon.api import build_app
from polycube.daemon.auth import Access, Role
from polycube.daemon.controller import CubeView, Placement, Result, Service, applied
from polycube.daemon.events import Events
from polycube.daemon.http import Guard
from polycube.model import (
    Action,
    Choice,
    IpAddress,
    IpInterface,
    IpPrefix,
    Keyed,
    MacAddress,
    Node,
    PolycubeError,
    Uint32,
    container,
    key,
    leaf,
    listing,
    row_changes,
    state,
)

V1 = "/polycube/v1/"


class FdbEntry(Node):
    """A station."""

    address: MacAddress = key("MAC address of the station")
    port: str = leaf("Port behind which the station lives")
    age: Uint32 | None = state("Seconds since the station was last seen")


class Flushed(Node):
    """Outcome."""

    flushed: bool = leaf("Whether the entries were removed")


class Fdb(Node):
    """Where stations live."""

    aging_time: Uint32 = leaf("Seconds after which an entry expires", default=300)
    entry: Keyed[FdbEntry] = listing("Stations")
    flush: ClassVar = Action("Removes the learned entries", output=Flushed)


class BridgeConfig(StandardCube):
    """A learning bridge."""

    fdb: Fdb = container("Filtering database")


class RouterPort(Port):
    """A port of a router."""

    ip: IpInterface | None = leaf("Address of the port", default=None)


class Route(Node):
    """A route."""

    network: IpPrefix = key("Destination")
    nexthop: IpAddress = key("Next hop")
    pathcost: Uint32 = leaf("Cost of the path", default=1)


class RouterConfig(StandardCube):
    """A router."""

    ports: Keyed[RouterPort] = listing("Ports of the router")
    route: Keyed[Route] = listing("Routes")


class Verdict(Choice):
    """What to do."""

    PASS = "PASS"
    DROP = "DROP"


class RuleFields(Node):
    """What a rule matches."""

    src: IpPrefix = leaf("Source")
    action: Verdict = leaf("Action", default=Verdict.DROP)


class Appended(Node):
    """Identity of a rule."""

    id: Uint32 = leaf("Position")


class Stats(Node):
    """Counters."""

    packets: Uint32 | None = state("Packets")


class FilterConfig(TransparentCube):
    """A filter."""

    action: Verdict = leaf("What happens to packets", default=Verdict.PASS)
    stats: Stats = container("Counters", read_only=True)
    append: ClassVar = Action("Appends a rule", input=RuleFields, output=Appended)
    follow: ClassVar = Action("Packets as they come", media="application/x-pcapng")


SERVICES = {
    "simplebridge": Service("simplebridge", "Bridge", "1.0", "standard", BridgeConfig),
    "router": Service("router", "Router", "2.0", "standard", RouterConfig),
    "filter": Service("filter", "Filter", "1.0", "transparent", FilterConfig),
}


class Refused(PolycubeError):
    """Something that the service does not want."""


class Memory:
    """A controller without a kernel."""

    def __init__(self):
        self.views = {}
        self.learned = {}
        self.calls = []
        self.reads = []

    def services(self):
        return SERVICES

    def cubes(self):
        return self.views

    def netdevs(self):
        return [{"name": "veth1", "addresses": ["10.0.0.1/24"]}, {"name": "eth0"}]

    def version(self):
        return "0.1.0"

    async def change(self, changes, *, dry_run):
        planned = applied(changes, SERVICES, self.views)
        operations = []
        for plan in planned.values():
            if plan.new is not None and plan.new.loglevel == "OFF":
                raise Refused("the service does not want this")
            if plan.new is not None and plan.new.loglevel == "CRITICAL":
                raise RuntimeError("secret detail")
            upserts, deletes = row_changes(plan.old, plan.new)
            operations += [{"write": path} for path in upserts] + [{"delete": path} for path in deletes]
        if not dry_run:
            for plan in planned.values():
                if plan.new is None:
                    self.views.pop(plan.name, None)
                else:
                    old = self.views.get(plan.name)
                    identity = old.uuid if old else str(uuid.uuid4())
                    status = {"ports": [{"name": name, "status": "DOWN"} for name in getattr(plan.new, "ports", ())]}
                    status = status if plan.service != "filter" else {"parent": "veth1"}
                    self.views[plan.name] = CubeView(plan.name, plan.service, identity, plan.new, status)
        return Result(operations)

    async def overlay(self, name, path=(), *, read=False):
        view = self.views[name]
        self.reads.append(read)
        return {"uuid": view.uuid, **view.state, **self.learned.get(name, {})}

    async def stream(self, name, path):
        async def chunks():
            yield b"packets of "
            yield name.encode()

        return chunks()

    async def action(self, name, path, input, *, dry_run):
        self.calls.append((name, path, input, dry_run))
        if path == ("append",):
            return Result([{"append": str(input.src)}], Appended(id=7))
        return Result([{"flush": name}], {"flushed": True})

    async def connect(self, peer1, peer2, *, dry_run):
        self.calls.append(("connect", peer1, peer2, dry_run))
        if peer1 == "nobody":
            raise Refused("Error setting peer")
        return Result([{"connect": [peer1, peer2]}])

    async def disconnect(self, peer1, peer2, *, dry_run):
        self.calls.append(("disconnect", peer1, peer2, dry_run))
        return Result()

    async def attach(self, cube, port, placement, *, dry_run):
        self.calls.append(("attach", cube, port, placement))
        return Result()

    async def detach(self, cube, port, *, dry_run):
        self.calls.append(("detach", cube, port))
        return Result()

    def topology_of(self, ifname):
        return {"name": ifname}

    def events(self):
        return Events()

    def drop_counts(self):
        return {}

    async def metrics(self, more=()):
        return "# EOF\n"


@pytest.fixture
def controller():
    return Memory()


@pytest.fixture
def client(controller):
    with TestClient(build_app(controller), base_url="http://localhost", follow_redirects=False) as client:
        yield client


@pytest.fixture
def br0(client, controller):
    assert client.post(f"{V1}simplebridge/br0/", json={"ports": [{"name": "p1", "peer": "veth1"}]}).status_code == 201
    return controller


def config(controller, name):
    return controller.views[name].config


def error_of(response):
    [error] = response.json()["ietf-restconf:errors"]["error"]
    return response.status_code, error["error-tag"], error["error-message"]


def test_the_root_lists_fixed_words_services_and_cubes(client, br0):
    links = client.get(V1).json()
    assert links[0] == {"rel": "self", "href": "//localhost/polycube/v1/"}
    assert {link["rel"] for link in links} >= {"cubes", "metrics", "router", "br0"}
    assert {"rel": "br0", "href": "//localhost/polycube/v1/br0/"} in links
    assert client.get(V1.removesuffix("/")).status_code == 200


def test_outside_the_base_there_is_nothing(client):
    for path in ("/", "/polycube/", "/polycube/v2/x", "/polycube/v11"):
        response = client.get(path)
        assert (response.status_code, response.text) == (404, "Cannot find a matching route.")


def test_a_cube_is_created_read_and_deleted(client, controller):
    response = client.post(f"{V1}simplebridge/br0", json={"type": "xdp_skb"})
    assert (response.status_code, response.content) == (201, b"")
    cube = client.get(f"{V1}simplebridge/br0/")
    assert cube.headers["content-type"] == "application/yang.data+json; charset=utf-8"
    data = cube.json()
    links = data.pop("_links")
    assert data == {
        "name": "br0",
        "uuid": controller.views["br0"].uuid,
        "type": "XDP_SKB",
        "service-name": "simplebridge",
        "loglevel": "INFO",
        "timing": False,
        "shadow": False,
        "span": False,
        "fdb": {"aging-time": 300},
    }
    assert links[0] == {"rel": "self", "href": "//localhost/polycube/v1/simplebridge/br0/"}
    assert links[-1] == {"rel": "fdb", "href": "//localhost/polycube/v1/simplebridge/br0/fdb/"}
    assert client.delete(f"{V1}simplebridge/br0/").status_code == 204
    assert controller.views == {}


def test_creating_twice_is_a_conflict_that_names_the_cube(client, br0):
    assert error_of(client.post(f"{V1}router/br0/", json={})) == (
        409,
        "data-exists",
        "br0 exists already: it is a simplebridge",
    )


def test_put_creates_or_replaces_and_keeps_what_is_settable_at_creation_only(client, controller):
    assert client.put(f"{V1}router/r1/", json={"type": "XDP_DRV", "ports": [{"name": "p"}]}).status_code == 201
    identity = controller.views["r1"].uuid
    assert client.put(f"{V1}router/r1/", json={"loglevel": "debug"}).status_code == 200
    assert config(controller, "r1").type == "XDP_DRV" and not config(controller, "r1").ports
    assert controller.views["r1"].uuid == identity
    status, _, sentence = error_of(client.put(f"{V1}router/r1/", json={"type": "TC"}))
    assert (status, sentence) == (400, 'r1/type is "XDP_DRV" and can only be set at creation')


def test_a_body_that_names_another_cube_or_service_is_refused(client):
    assert error_of(client.post(f"{V1}router/r1/", json={"name": "r2"}))[1] == "invalid-value"
    assert error_of(client.post(f"{V1}router/r1/", json={"service-name": "simplebridge"}))[1] == "invalid-value"
    assert client.post(f"{V1}router/r1/", json={"name": "r1", "service-name": "router"}).status_code == 201


@pytest.mark.parametrize("name", ["cubes", "show", "router", "metrics"])
def test_words_of_the_grammar_are_no_names_of_cubes(client, name):
    response = client.post(f"{V1}router/{name}/", json={})
    assert response.status_code == 400 and f"cannot be named {name}" in response.text


def test_a_service_lists_creates_and_updates_its_cubes(client, br0):
    assert client.post(f"{V1}simplebridge/", json={"name": "br1"}).status_code == 201
    assert client.patch(f"{V1}simplebridge/", json={"name": "br1", "loglevel": "WARN"}).status_code == 201
    assert [(cube["name"], cube["loglevel"]) for cube in client.get(f"{V1}simplebridge").json()] == [
        ("br0", "INFO"),
        ("br1", "WARN"),
    ]
    assert error_of(client.post(f"{V1}simplebridge/", json={}))[1] == "missing-attribute"
    assert client.patch(f"{V1}simplebridge/", json={"name": "br9"}).status_code == 404


def test_list_elements_are_added_read_changed_and_removed(client, controller):
    client.post(f"{V1}router/r1/", json={})
    route = f"{V1}router/r1/route/10.1.0.0%2F16/10.0.0.2/"
    assert client.post(route, json={"pathcost": "3"}).status_code == 201
    assert client.post(route, json={}).status_code == 409
    assert client.get(f"{V1}router/r1/route/").json() == [{"network": "10.1.0.0/16", "nexthop": "10.0.0.2", "pathcost": 3}]
    element = client.get(route).json()
    assert element["_links"][0]["href"].endswith("/router/r1/route/10.1.0.0%2F16/10.0.0.2/")
    assert client.patch(route, json={"pathcost": 4}).status_code == 201
    assert client.get(f"{route}pathcost").json() == 4
    assert client.put(route, json={}).status_code == 200
    assert client.get(f"{route}pathcost/").json() == 1
    assert client.put(f"{V1}router/r1/route/::%2F0/fe80::1/", json={}).status_code == 201
    assert client.delete(route).status_code == 204
    assert error_of(client.delete(route))[:2] == (409, "data-missing")
    assert error_of(client.get(route))[:2] == (404, "data-missing")


def test_a_whole_list_is_replaced_extended_and_emptied(client, controller):
    client.post(f"{V1}router/r1/", json={"ports": [{"name": "p1"}]})
    ports = f"{V1}router/r1/ports/"
    assert client.post(ports, json=[{"name": "p2"}]).status_code == 201
    assert client.patch(ports, json=[{"name": "p2", "ip": "10.0.0.1/24"}]).status_code == 201
    assert list(config(controller, "r1").ports) == ["p1", "p2"]
    assert client.put(ports, json=[{"name": "p3"}]).status_code == 200
    assert list(config(controller, "r1").ports) == ["p3"]
    assert client.delete(ports).status_code == 204
    assert not config(controller, "r1").ports


def test_a_leaf_takes_and_gives_a_bare_value(client, br0):
    peer = f"{V1}simplebridge/br0/ports/p1/peer/"
    assert client.get(peer).json() == "veth1"
    assert client.patch(peer, json="").status_code == 200
    assert client.get(peer).json() is None
    for method in ("POST", "PUT", "DELETE"):
        response = client.request(method, peer, json="x")
        assert error_of(response)[:2] == (405, "operation-not-supported")
        assert response.headers["allow"] == "GET, PATCH, OPTIONS"


def test_what_is_read_only_is_only_read(client, br0):
    status = f"{V1}simplebridge/br0/ports/p1/status/"
    assert client.get(status).json() == "DOWN"
    assert client.patch(status, json="UP").status_code == 405
    client.post(f"{V1}filter/f/", json={})
    assert client.get(f"{V1}filter/f/stats").status_code == 200
    assert client.put(f"{V1}filter/f/stats", json={}).status_code == 405


def test_learned_entries_are_shown_beside_configured_ones(client, br0):
    entry = f"{V1}simplebridge/br0/fdb/entry/"
    client.post(f"{entry}02:00:00:00:00:0A/", json={"port": "p1"})
    br0.learned["br0"] = {"fdb": {"entry": [{"address": "02:00:00:00:00:01", "port": "p1", "age": 4}]}}
    assert client.get(entry).json() == [
        {"address": "02:00:00:00:00:0a", "port": "p1"},
        {"address": "02:00:00:00:00:01", "port": "p1", "age": 4},
    ]
    assert client.get(f"{entry}02:00:00:00:00:01/age").json() == 4


def test_actions_take_validated_input_and_give_their_output(client, br0):
    response = client.post(f"{V1}simplebridge/br0/fdb/flush/")
    assert (response.status_code, response.json()) == (200, {"flushed": True})
    client.post(f"{V1}filter/f/", json={})
    assert client.post(f"{V1}filter/f/append", json={"src": "10.0.0.0/8"}).json() == {"id": 7}
    assert br0.calls[-1][:2] == ("f", ("append",)) and br0.calls[-1][2].action is Verdict.DROP
    assert error_of(client.post(f"{V1}filter/f/append", json={}))[1] == "missing-attribute"
    assert "takes no input" in error_of(client.post(f"{V1}simplebridge/br0/fdb/flush/", json={"x": 1}))[2]
    assert client.get(f"{V1}filter/f/append").status_code == 405


def test_a_dry_run_answers_operations_and_changes_nothing(client, br0):
    before = dict(br0.views)
    response = client.patch(f"{V1}simplebridge/br0/fdb/aging-time?dry-run=true", json=5)
    assert (response.status_code, response.json()) == (200, {"operations": [{"write": ""}]})
    assert client.delete(f"{V1}simplebridge/br0/?dry-run=true").json()["operations"]
    assert client.post(f"{V1}cubes?dry-run=true", json=[{"name": "r", "service-name": "router"}]).status_code == 200
    assert client.post(f"{V1}connect?dry-run=1", json={"peer1": "a", "peer2": "b"}).json()["operations"]
    assert client.post(f"{V1}simplebridge/br0/fdb/flush?dry-run").json() == {"operations": [{"flush": "br0"}]}
    assert br0.views == before and br0.calls[-1][-1] is True
    assert client.patch(f"{V1}simplebridge/br0/fdb/aging-time?dry-run=perhaps", json=5).status_code == 400


def test_several_cubes_are_created_as_one_change_with_peers_last(client, controller):
    cubes = [
        {"name": "br0", "service-name": "simplebridge", "ports": [{"name": "p1", "peer": "r1:p1"}]},
        {"name": "r1", "service-name": "router", "ports": [{"name": "p1", "peer": "br0:p1"}]},
        {"name": "f", "service-name": "filter"},
    ]
    seen = []
    change = controller.change

    async def spy(changes, *, dry_run):
        seen.extend(changes)
        return await change(changes, dry_run=dry_run)

    controller.change = spy
    assert client.post(f"{V1}cubes/", json=cubes).status_code == 201
    assert [type(one).__name__ for one in seen] == ["CreateCube"] * 3 + ["EditCube"] * 2
    assert seen[0].name == "f" and "peer" not in seen[1].body["ports"][0]
    assert config(controller, "br0").ports["p1"].peer == "r1:p1"


def test_one_wrong_cube_of_several_leaves_none_behind(client, controller):
    cubes = [{"name": "a", "service-name": "router"}, {"name": "b", "service-name": "router", "prots": []}]
    status, tag, sentence = error_of(client.post(f"{V1}cubes", json=cubes))
    assert (status, tag, sentence) == (400, "invalid-value", "b has no member prots; did you mean ports?")
    assert controller.views == {}
    assert error_of(client.post(f"{V1}cubes", json=[{"name": "a"}]))[1] == "missing-attribute"
    assert client.post(f"{V1}cubes", json={}).status_code == 400
    assert client.post(f"{V1}cubes", json=[{"name": "a", "service-name": "routr"}]).text == ("No service named routr; did you mean router?")


def test_cubes_are_shown_by_service_and_one_by_one(client, br0):
    client.post(f"{V1}filter/f/", json={})
    cubes = client.get(f"{V1}cubes/").json()
    assert list(cubes) == ["simplebridge", "filter"]
    assert cubes["simplebridge"] == [
        {
            "name": "br0",
            "uuid": br0.views["br0"].uuid,
            "type": "TC",
            "service-name": "simplebridge",
            "loglevel": "INFO",
            "timing": False,
            "ports": [{"name": "p1", "status": "DOWN", "peer": "veth1"}],
            "shadow": False,
            "span": False,
        }
    ]
    assert cubes["filter"][0]["parent"] == "veth1"
    assert client.get(f"{V1}cubes/f").json() == cubes["filter"][0]
    assert client.get(f"{V1}topology").json() == [cubes["simplebridge"][0], cubes["filter"][0]]
    assert client.get(f"{V1}topology/eth0/").json() == {"name": "eth0"}
    response = client.get(f"{V1}cubes/br1")
    assert (response.status_code, response.text) == (400, "Cube br1 does not exist; did you mean br0?")


def test_a_path_that_begins_with_a_cube_is_redirected_to_its_service(client, br0):
    response = client.patch(f"{V1}br0/ports/p1/peer/?dry-run=true", json="x")
    assert response.status_code == 308
    assert response.headers["location"] == "/polycube/v1/simplebridge/br0/ports/p1/peer/?dry-run=true"
    client.post(f"{V1}router/r1/", json={})
    location = client.get(f"{V1}r1/route/10.0.0.0%2F8/::1/").headers["location"]
    assert location == "/polycube/v1/router/r1/route/10.0.0.0%2F8/::1/"
    follow = client.get(f"{V1}br0/ports/p1/peer/", follow_redirects=True)
    assert follow.json() == "veth1"
    missing = client.get(f"{V1}br00/")
    assert (missing.status_code, missing.text) == (404, "No cube found named br00; did you mean br0?")


def test_a_cube_is_found_only_below_its_own_service(client, br0):
    assert error_of(client.get(f"{V1}router/br0/")) == (404, "data-missing", "br0 is no router but a simplebridge")
    assert client.delete(f"{V1}router/br0/").status_code == 409 and "br0" in br0.views


def test_problems_say_where_what_and_what_was_expected(client, br0):
    assert error_of(client.patch(f"{V1}simplebridge/br0/fdb/aging-time", json=-1)) == (
        400,
        "invalid-value",
        "br0/fdb/aging-time cannot be -1: expected an integer from 0 to 4294967295",
    )
    assert error_of(client.get(f"{V1}simplebridge/br0/fbd/"))[2].startswith("br0 has no fbd; did you mean fdb?")
    body = {"ports": [{"name": "p", "peer": "a b"}], "loglevel": "loud"}
    errors = client.post(f"{V1}router/r1", json=body).json()["ietf-restconf:errors"]["error"]
    assert [error["error-path"] for error in errors] == ["/r1/loglevel", "/r1/ports/p/peer"]


@pytest.mark.parametrize("body", ["{", "[1", '{"a":NaN}', "\udcff", "[" * 100_000, "1" * 5000, '["\\ud800"]'])
def test_what_is_not_json_is_refused(client, body):
    response = client.post(f"{V1}router/r1/", content=body.encode(errors="surrogateescape"))
    assert response.status_code == 400 and "traceback" not in response.text.lower()


def test_text_that_is_no_unicode_does_no_harm(client):
    response = client.post(f"{V1}router/r1/", content=b'{"name":"\\ud800","\\udfff":1}')
    assert response.status_code == 400
    response = client.post(f"{V1}connect", content=b'{"peer1":"\\ud800","peer2":"x","\\udfff":1}')
    assert response.status_code == 400
    assert client.get(f"{V1}%ff%00/").status_code == 404


def test_a_body_over_the_limit_is_refused(client, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY", 2**20)
    response = client.post(f"{V1}router/r1/", content=b" " * (2**20 + 1))
    assert (response.status_code, response.text) == (413, "The request is larger than 1 MiB")


def test_errors_of_a_service_are_told_and_unexpected_ones_are_not(client, capsys):
    response = client.post(f"{V1}router/r1/", json={"loglevel": "off"})
    assert (response.status_code, response.text) == (400, "the service does not want this")
    response = client.post(f"{V1}router/r1/", json={"loglevel": "critical"})
    assert (response.status_code, response.text) == (500, "Internal error: the daemon's log says more")
    assert "secret detail" in capsys.readouterr().out


def test_links_are_made_and_undone(client, controller):
    assert client.post(f"{V1}connect", json={"peer1": "br0:p1", "peer2": "veth1"}).status_code == 200
    assert client.post(f"{V1}disconnect/", json={"peer1": "br0:p1", "peer2": "veth1"}).status_code == 200
    assert controller.calls == [
        ("connect", "br0:p1", "veth1", False),
        ("disconnect", "br0:p1", "veth1", False),
    ]
    assert error_of(client.post(f"{V1}connect", json={"peer1": "x"})) == (
        400,
        "missing-attribute",
        "connect/peer2 is missing",
    )
    assert error_of(client.post(f"{V1}connect", json={"peer1": "x", "peer3": "y"}))[1] == "bad-attribute"
    response = client.post(f"{V1}connect", json={"peer1": "nobody", "peer2": "y"})
    assert (response.status_code, response.text) == (400, "Error setting peer")
    assert client.get(f"{V1}connect").status_code == 405


def test_transparent_cubes_are_placed(client, controller):
    base = {"cube": "f", "port": "br0:p1"}
    for extra, placement in (
        ({}, Placement()),
        ({"position": "FIRST"}, Placement("first")),
        ({"before": "g"}, Placement("before", "g")),
        ({"after": "g"}, Placement("after", "g")),
    ):
        assert client.post(f"{V1}attach", json=base | extra).status_code == 200
        assert controller.calls[-1] == ("attach", "f", "br0:p1", placement)
    response = client.post(f"{V1}attach", json=base | {"position": "first", "after": "g"})
    assert (response.status_code, response.text) == (400, "position and after cannot be used together")
    assert error_of(client.post(f"{V1}attach", json=base | {"position": "middle"}))[1] == "invalid-value"
    assert client.post(f"{V1}detach", json=base).status_code == 200


def test_services_netdevs_version_and_metrics_are_shown(client):
    [bridge, *_] = client.get(f"{V1}services").json()
    assert bridge["name"] == "simplebridge" and bridge["version"] == "1.0"
    [router] = client.get(f"{V1}services/router/").json()
    assert [member["name"] for member in router["model"]["members"]][-1] == "route"
    assert client.get(f"{V1}services/routr").text == "No service named routr; did you mean router?"
    assert client.get(f"{V1}netdevs/eth0").json() == [{"name": "eth0"}]
    assert len(client.get(f"{V1}netdevs/").json()) == 2 and client.get(f"{V1}netdevs/eth1").status_code == 400
    assert client.get(f"{V1}version").json() == {"polycubed": {"version": "0.1.0"}}
    metrics = client.get(f"{V1}metrics")
    assert metrics.text == "# EOF\n" and metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


def help_of(client, path, command="NONE"):
    return client.options(f"{V1}{path}", params={"help": command}).json()


def words_of(client, path, command="NONE"):
    return client.options(f"{V1}{path}", params={"help": command, "completion": ""}).json()


def test_help_is_given_everywhere(client, br0):
    assert help_of(client, "")["params"]["router"]["simpletype"] == "service"
    assert help_of(client, "cubes")["elements"] == [{"cube": "br0"}]
    assert help_of(client, "simplebridge")["elements"] == [{"name": "br0"}]
    assert list(help_of(client, "simplebridge/", "ADD")["params"]) == ["name"]
    assert "loglevel" in help_of(client, "simplebridge/br0/", "SET")["params"]
    assert help_of(client, "simplebridge/br0/fdb/")["params"]["flush"]["type"] == "action"
    assert help_of(client, "simplebridge/br0/ports/", "DEL")["elements"] == [{"name": "p1"}]
    assert "type" in help_of(client, "simplebridge/new/", "ADD")["optional-params"]
    assert client.options(f"{V1}simplebridge/br0?help=WHAT").status_code == 400
    assert client.options(f"{V1}?help=SET").status_code == 400
    plain = client.options(f"{V1}simplebridge/br0/fdb/flush")
    assert (plain.status_code, plain.content, plain.headers["allow"]) == (200, b"", "POST, OPTIONS")


def test_completion_is_given_everywhere(client, br0):
    assert {"connect", "router", "br0"} <= set(words_of(client, ""))
    assert words_of(client, "simplebridge", "ADD") == ["<name>"]
    assert words_of(client, "simplebridge", "DEL") == ["br0"]
    assert "peer=" in words_of(client, "simplebridge/br0/ports/p1/", "SET")
    assert words_of(client, "router/r1/route/10.0.0.0%2F8/", "ADD") == ["<nexthop>"]
    assert words_of(client, "simplebridge/br0/loglevel", "SET")[0] == "TRACE"
    assert words_of(client, "connect") == ["br0:p1"]
    assert words_of(client, "cubes") == ["show", "br0"]
    br0.learned["br0"] = {"fdb": {"entry": [{"address": "02:00:00:00:00:01", "port": "p1"}]}}
    assert words_of(client, "simplebridge/br0/fdb/entry/", "SHOW") == ["02:00:00:00:00:01"]


def test_a_socket_for_everyone_is_read_only_and_knows_its_names(controller):
    guarded = Guard(build_app(controller), Access(anonymous=Role.READER))
    with TestClient(guarded, base_url="http://localhost:9000") as client:
        assert client.get(f"{V1}cubes").status_code == 200
        assert client.get(f"{V1}cubes", headers={"Origin": "http://127.0.0.1:9000"}).status_code == 200
        assert client.options(f"{V1}router?help=NONE").status_code == 200
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, f"{V1}router/r1", json={}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Host": "evil.example"}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Host": "[::1"}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.get(f"{V1}cubes", headers={"Origin": "null"}).status_code == 403


def test_a_stream_is_for_those_who_may_change_things(controller):
    with TestClient(build_app(controller), base_url="http://localhost") as client:
        assert client.post(f"{V1}filter/f1", json={}).status_code == 201
        answer = client.get(f"{V1}filter/f1/follow")
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"packets of f1", "application/x-pcapng")
        assert client.head(f"{V1}filter/f1/follow").status_code == 200
        assert client.post(f"{V1}filter/f1/follow").status_code == 405
        assert client.get(f"{V1}filter/f1/action").status_code == 200
        assert controller.reads[-1]
    with TestClient(Guard(build_app(controller), Access(anonymous=Role.READER)), base_url="http://localhost") as client:
        refused = client.get(f"{V1}filter/f1/follow")
        assert (refused.status_code, refused.text.partition(" needs")[0]) == (403, "f1/follow")
        assert client.get(f"{V1}filter/f1/action").status_code == 200
        assert not controller.reads[-1]  # nothing is taken out


def test_tokens_give_roles(controller, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# who\nreading-token-0123 reader\nchanging-token-0123 admin # everything\n")
    file.chmod(0o600)
    access = Access(token_file=file)
    with TestClient(Guard(build_app(controller), access), base_url="http://localhost") as client:

        def status(method, token, **headers):
            headers |= {"Authorization": token} if token else {}
            return client.request(method, f"{V1}router/r1", json={} if method == "POST" else None, headers=headers).status_code

        assert status("GET", "") == 401
        assert status("GET", "Bearer no-such-token-0123") == 401
        assert status("GET", "Basic cmVhZGluZy10b2tlbi0wMTIz") == 401
        assert status("POST", "Bearer reading-token-0123") == 403
        assert status("POST", "Bearer changing-token-0123", Origin="http://evil.example") == 403
        assert status("POST", "bearer changing-token-0123") == 201
        assert status("GET", "Bearer reading-token-0123") == 200
        file.write_text("another-token-01234 admin\n")
        os.utime(file, ns=(1, 1))
        assert status("GET", "Bearer reading-token-0123") == 401
        file.write_text("nonsense\n")
        os.utime(file, ns=(2, 2))
        assert status("GET", "Bearer another-token-01234") == 200  # what can't be used changes nothing


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("kinds=port-upp", "did you mean port-up"),
        ("drops=many", "expected dropped frames a second"),
        ("drops=-1", "expected dropped frames"),
    ],
)
def test_a_stream_of_events_that_cannot_be_is_refused(client, query, said):
    answer = client.get(f"{V1}events?{query}")
    assert answer.status_code == 400 and said in answer.text
