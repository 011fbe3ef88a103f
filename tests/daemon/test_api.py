# SPDX-License-Identifier: Apache-2.0
"""REST: a cube and what is in it, against a controller in memory; what the kernel makes of it is tested elsewhere."""

import pytest
from api_lab import V1, Verdict, config, error_of


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
