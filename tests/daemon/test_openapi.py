# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document: it is one, it says what the tree takes, and requests made from it never meet a 5xx."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from polycube.core.registry import installed
from polycube.daemon.controller import Service
from polycube.daemon.openapi import openapi
from polycube.daemon.tree import BASE
from polycube.model import Kind, dump, load, members
from polycube.testing.daemon import Answer, Daemon, UnixConnection
from polycube.testing.hosts import eventually

SERVICES = {
    name: Service(name, one.description, one.cls.version, "transparent" if one.transparent else "standard", one.config, one.target)
    for name, one in installed()[0].items()
}
DOCUMENT = openapi(SERVICES.values(), "1.0", BASE)


def test_it_is_an_openapi_document() -> None:
    for operation in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations():
        assert operation.ok().label  # all references resolve
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


@pytest.mark.parametrize("name", SERVICES)
def test_a_cube_that_the_model_takes_fits_its_schema(name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    config = SERVICES[name].config
    body = {"name": "c1", "service-name": name}
    validator.validate(dump(load(config, body)))
    assert not validator.is_valid({**body, "loglevel": "LOUD"})


@pytest.mark.parametrize("name", SERVICES)
def test_every_place_of_the_tree_is_there(name: str) -> None:
    paths = {path for path in DOCUMENT["paths"] if path.startswith(f"/{name}/")}
    wanted = {f"/{name}/", f"/{name}/{{name}}/"}
    for member in members(SERVICES[name].config).values():
        wanted.add(f"/{name}/{{name}}/{member.name}/")
        if member.kind is Kind.LIST and len(member.child.key_attrs) == 1:
            (key,) = member.child.key_attrs
            word = key.replace("_", "-")
            wanted.add(f"/{name}/{{name}}/{member.name}/{{{member.name + '-name' if word == 'name' else word}}}/")
    assert wanted <= paths


OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]


@pytest.fixture(scope="module")
def daemon(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("fuzzed"), cache=tmp_path_factory.getbasetemp() / "cache") as running:
        yield running


def test_the_daemon_serves_it(daemon: Daemon) -> None:
    assert daemon.get("openapi")["openapi"] == "3.1.0"


def asked(daemon: Daemon, operation: Any, method: str, path: str, body: Any) -> Answer:
    """What is answered; of a stream, which ends when its reader does, that it is one."""
    content = operation.definition.raw.get("responses", {}).get("200", {}).get("content", {})
    if method.upper() != "GET" or not content or any(kind.endswith("json") for kind in content):
        return daemon.rest(method, path, body)
    with closing(UnixConnection(daemon.socket, 60)) as connection:
        connection.request("GET", BASE + path)
        response = connection.getresponse()
        return Answer(response.status, "" if response.status == 200 else response.read().decode())


def fuzz(daemon: Daemon, examples: int) -> None:
    """Requests made from the document, at cubes that exist and at others; afterwards nothing of them is left."""
    pins, files = daemon.pins(), len(os.listdir(f"/proc/{daemon.pid}/fd"))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(OPERATIONS))
        case = data.draw(operation.as_strategy())
        service = operation.path.split("/")[1]
        if service in SERVICES and "name" in case.path_parameters and data.draw(st.integers(0, 3)):
            case.path_parameters["name"] = f"c-{service}"
            if data.draw(st.integers(0, 3)) == 0:
                daemon.rest("POST", f"{service}/c-{service}", {})
        query = "&".join(f"{name}={str(value).lower()}" for name, value in (case.query or {}).items())
        path = case.formatted_path.removeprefix(BASE.rstrip("/")).lstrip("/")
        try:
            answer = asked(daemon, operation, case.method, f"{path}?{query}", case.body if case.media_type else None)
        except TimeoutError:
            raise AssertionError(f"{case.method} {path}?{query} {case.body!r}: no answer") from None
        assert answer.status < 500, f"{case.method} {path} {case.body!r}: {answer.status} {answer.text}"
        if answer.status >= 400 and isinstance(answer.data, dict):
            ERRORS.validate(answer.data)

    ask()
    for cubes in daemon.get("cubes").values():
        for cube in cubes:
            daemon.delete(f"{cube['service-name']}/{cube['name']}")
    assert daemon.pins() - pins == {path for path in daemon.pins() - pins if path.startswith("shared/")}
    # shared maps stay, workers that nobody needs any more end after a while
    eventually(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= files + 40, f"no more than {files} and 40 descriptors")


ERRORS = jsonschema_rs.Draft202012Validator(DOCUMENT["components"]["schemas"]["errors"])


def test_requests_made_from_it_never_meet_a_5xx(daemon: Daemon) -> None:
    fuzz(daemon, 80)


@pytest.mark.soak
def test_ten_thousand_requests_leave_nothing_behind(daemon: Daemon) -> None:
    fuzz(daemon, 10_000)
