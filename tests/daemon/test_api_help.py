# SPDX-License-Identifier: Apache-2.0
"""REST: help and completion, wherever a client stands."""

from api_lab import V1


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
