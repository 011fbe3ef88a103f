# SPDX-License-Identifier: Apache-2.0
"""REST: cubes and what is between them: many at once, found by name, joined, attached, shown."""

from api_lab import V1, config, error_of

from polycube.daemon.controller import Placement


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
