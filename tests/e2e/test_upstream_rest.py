# SPDX-License-Identifier: Apache-2.0
"""Upstream's REST interface over every service's tree, as a client walks it: links, methods, status codes, help, completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from scenes import clear

from polycube.core.registry import installed
from polycube.testing.daemon import BASE, Daemon

SERVICES = {name: one for name, one in installed()[0].items() if one.target.startswith("polycube.cubes.")}
FIXED = ("services", "cubes", "netdevs", "version", "connect", "disconnect", "attach", "detach", "topology", "metrics")
HELP = ("NONE", "SHOW", "SET", "ADD", "DEL")


@pytest.fixture(autouse=True)
def empty(daemon: Daemon) -> Iterator[None]:
    yield
    clear(daemon)


def linked(data: Any) -> Iterator[tuple[str, str]]:
    """Relation and path of each link of an answer."""
    for link in data["_links"] if isinstance(data, dict) else data:
        href = urlsplit(link["href"])
        assert href.netloc and not href.scheme and href.path.startswith(BASE) and href.path.endswith("/")
        yield link["rel"], href.path.removeprefix(BASE)


def test_the_root_leads_to_every_fixed_word_service_and_cube(daemon: Daemon) -> None:
    daemon.post("helloworld/hello")
    found = dict(linked(daemon.do("GET", "")))
    assert found["self"] == "" and {*FIXED, *SERVICES, "hello"} <= set(found)
    for word in (*FIXED, *SERVICES, "hello"):
        expected = 405 if word in ("connect", "disconnect", "attach", "detach") else 200
        assert daemon.rest("GET", found[word]).status == daemon.rest("GET", found[word].rstrip("/")).status == expected
        assert word in ("version", "metrics") or daemon.rest("OPTIONS", found[word]).status == 200


def test_links_are_upstream_s_in_its_order(daemon: Daemon) -> None:
    daemon.post("helloworld/hello")
    upstream_s = ["self", "uuid", "type", "service-name", "loglevel", "ports", "shadow", "span", "action"]
    rels = [rel for rel, _ in linked(daemon.do("GET", "helloworld/hello"))]
    assert [rel for rel in rels if rel in upstream_s] == upstream_s and "name" not in rels


@pytest.mark.parametrize("service", SERVICES)
def test_every_link_of_a_service_leads_somewhere_with_help_and_completion(daemon: Daemon, service: str) -> None:
    daemon.post(service, {"name": "walked"})
    seen, waiting = set(), [f"{service}/walked/"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = daemon.rest("GET", path)
        assert answer.status == 200, f"{path}: {answer.text}"
        helped(daemon, path, HELP[len(seen) % len(HELP)])
        if isinstance(answer.data, dict):
            waiting += [to for _, to in linked(answer.data) if to not in seen]
    assert len(seen) > 7
    model = daemon.get(f"services/{service}")[0]["model"]
    assert {f"{service}/walked/{member['name']}/" for member in model["members"] if member["name"] != "name"} <= seen


def helped(daemon: Daemon, path: str, command: str) -> None:
    help_ = daemon.do("OPTIONS", f"{path}?help=NONE")
    assert set(help_) <= {"commands", "params", "optional-params", "elements"} and help_["params"] is not None
    for line in help_["params"].values():
        assert line["name"] and line["description"] and line["type"] in ("key", "leaf", "list", "complex", "action")
    assert isinstance(daemon.do("OPTIONS", f"{path}?help={command}"), dict)
    assert isinstance(daemon.do("OPTIONS", f"{path}?help={command}&completion"), list)


TABLE: list[tuple[str, str, Any, int]] = [
    ("POST", "helloworld/hw", {"action": "drop", "ports": [{"name": "p1"}]}, 201),
    ("POST", "helloworld/hw", {}, 409),
    ("POST", "helloworld/other", {"service-name": "router"}, 400),
    ("POST", "helloworld", {"name": "hw2", "loglevel": "debug"}, 201),
    ("POST", "helloworld", {}, 400),
    ("PATCH", "helloworld", {"name": "hw2", "action": "FORWARD"}, 201),
    ("GET", "helloworld/", None, 200),
    ("GET", "helloworld/hw/ports/p1/", None, 200),
    ("GET", "helloworld/hw/ports/p9/", None, 404),
    ("POST", "helloworld/hw/ports/p2/", {}, 201),
    ("POST", "helloworld/hw/ports/p2/", {}, 409),
    ("PATCH", "helloworld/hw/ports/p2/peer/", "hw2:a", 200),
    ("POST", "helloworld/hw2/ports/", [{"name": "a"}, {"name": "b"}], 201),
    ("PATCH", "helloworld/hw2/ports/", [{"name": "a", "peer": "hw:p2"}], 201),
    ("PATCH", "helloworld/hw/action/", "SLOWPATH", 200),
    ("PATCH", "helloworld/hw/action/", "NOTHING", 400),
    ("PUT", "helloworld/hw/action/", "DROP", 405),
    ("POST", "helloworld/hw/action/", "DROP", 405),
    ("DELETE", "helloworld/hw/action/", None, 405),
    ("PATCH", "helloworld/hw/uuid/", "x", 405),
    ("PATCH", "helloworld/hw", {"uuid": "x"}, 400),
    ("PATCH", "helloworld/hw", {"type": "XDP_SKB"}, 400),
    ("PATCH", "helloworld/hw", {"nothing": 1}, 400),
    ("PATCH", "hw/action", "DROP", 200),
    ("GET", "cubes/hw", None, 200),
    ("GET", "cubes/nothing", None, 400),
    ("GET", "netdevs/nothing", None, 400),
    ("GET", "topology/nothing", None, 200),
    ("GET", "nothing/at/all", None, 404),
    ("DELETE", "helloworld/hw/ports/p1/", None, 204),
    ("DELETE", "helloworld/hw/ports/p1/", None, 409),
    ("DELETE", "helloworld/hw2/ports/", None, 204),
    ("POST", "cubes", [{"name": "c1", "service-name": "helloworld"}, {"name": "c2", "service-name": "simplebridge"}], 201),
    ("POST", "cubes", {"name": "c3"}, 400),
    ("POST", "connect", {"peer1": "c1:nothing", "peer2": "hw:p2"}, 400),
    ("POST", "disconnect", {"peer1": "c1:a", "peer2": "c2:a"}, 400),
    ("POST", "attach", {"cube": "c1", "port": "hw:p2"}, 400),
    ("POST", "services", {"type": "grpc", "name": "x", "uri": "localhost:1"}, 400),
    ("DELETE", "services/nothing", None, 400),
    ("DELETE", "helloworld/c1/", None, 204),
    ("DELETE", "helloworld/c1/", None, 404),
    ("OPTIONS", "helloworld/hw?help=WHAT", None, 400),
]  # fmt: skip


def test_methods_answer_with_upstream_s_status(daemon: Daemon) -> None:
    wrong = []
    for method, path, body, status in TABLE:
        answer = daemon.rest(method, path, body)
        if answer.status != status:
            wrong.append(f"{method} {path} {body}: {answer.status} {answer.text}, not {status}")
    assert not wrong, "\n".join(wrong)
    assert daemon.get("topology/nothing") == {"name": "nothing"}
    [error] = daemon.rest("PATCH", "helloworld/hw/action/", "NOTHING").data["ietf-restconf:errors"]["error"]
    assert (error["error-type"], error["error-tag"]) == ("application", "invalid-value")
