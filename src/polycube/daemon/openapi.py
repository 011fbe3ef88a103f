# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 description of the services that are installed, made from their models.

Every place of a cube's tree is a path with the methods that `tree.methods` gives it; every node class is a schema. What all paths have in
common (the dry run, errors) is said once and referred to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polycube.daemon.controller import Service
from polycube.daemon.http import YANG_JSON
from polycube.model import Action, Kind, LeafType, Member, Node, actions, keys, members

JSON_TYPE = YANG_JSON.partition(";")[0]
Json = dict[str, Any]
OK = {"GET": "200", "POST": "201", "PUT": "201", "PATCH": "201", "DELETE": "204"}
VERBS = {"GET": "Read", "POST": "Create", "PUT": "Create or replace", "PATCH": "Change", "DELETE": "Remove"}
BOUNDS = (("minimum", "minimum"), ("maximum", "maximum"), ("min_length", "minLength"), ("max_length", "maxLength"), ("pattern", "pattern"))


def openapi(services: Iterable[Service], version: str, base: str) -> Json:
    """The document. `base` is the path below which all others are."""
    made = _Document()
    for service in services:
        made.service(service)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Polycube",
            "version": version,
            "description": "In-kernel network functions: created, chained, changed at run time.",
        },
        "servers": [{"url": base.rstrip("/")}],
        "paths": _fixed() | made.paths,
        "components": {
            "schemas": made.schemas | {"errors": _ERRORS},
            "parameters": {
                "dry-run": {
                    "name": "dry-run",
                    "in": "query",
                    "description": "Answers what would be done, and does nothing",
                    "schema": {"type": "boolean", "default": False},
                },
            },
            "responses": {
                "error": {
                    "description": "What was wrong, in one sentence each; nothing was changed",
                    "content": {
                        JSON_TYPE: {"schema": {"$ref": "#/components/schemas/errors"}},
                        "text/plain": {"schema": {"type": "string"}},
                    },
                }
            },
        },
    }


_ERRORS: Json = {
    "type": "object",
    "description": "Errors as RFC 8040, section 7.1 has them",
    "required": ["ietf-restconf:errors"],
    "properties": {
        "ietf-restconf:errors": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["error-type", "error-tag", "error-message"],
                        "properties": {name: {"type": "string"} for name in ("error-type", "error-tag", "error-path", "error-message")},
                    },
                }
            },
        }
    },
}
_FAILED: Json = {"$ref": "#/components/responses/error"}
_DRY_RUN: Json = {"$ref": "#/components/parameters/dry-run"}


class _Document:
    """Paths and schemas so far."""

    def __init__(self) -> None:
        self.paths: Json = {}
        self.schemas: Json = {}

    def service(self, service: Service) -> None:
        config, top = self._schema(service.config, service.name), f"/{service.name}/"
        cube = [_parameter("name", "Name of the cube", {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.@-]*$", "maxLength": 64})]
        tag, title = service.name, f"a cube of {service.name}"
        self.paths[top] = {
            "get": _reading(f"List cubes of {service.name}", {"type": "array", "items": {"type": "object"}}, tag),
            "post": _changing("POST", title, config, tag),
            "patch": _changing("PATCH", title, config, tag),
        }
        self._place(f"{top}{{name}}/", title, config, tuple(OK), tag, cube)
        self._below(service.config, f"{top}{{name}}/", service.name, tag, cube)

    def _below(self, node: type[Node], path: str, name: str, tag: str, given: list[Json]) -> None:
        for member in members(node).values():
            here, title = f"{path}{member.name}/", f"{tag}: {member.description}"
            if member.kind is Kind.LEAF:
                allowed: tuple[str, ...] = ("GET",) if member.state else ("GET", "PATCH")
                self._place(here, title, _leaf(member), allowed, tag, given, leaf=True)
                continue
            allowed = ("GET",) if member.state else tuple(OK)
            schema = self._schema(member.child, f"{name}.{member.name}")
            if member.kind is Kind.LIST:
                self._place(here, title, {"type": "array", "items": schema}, allowed, tag, given)
                taken = {one["name"] for one in given}
                more = [_parameter(_free(key.name, member.name, taken), key.description, _leaf(key)) for key in keys(member.child)]
                here += "".join(f"{{{one['name']}}}/" for one in more)
                given_here = [*given, *more]
                self._place(here, title, schema, allowed, tag, given_here)
                self._below(member.child, here, f"{name}.{member.name}", tag, given_here)
            else:
                self._place(here, title, schema, allowed, tag, given)
                self._below(member.child, here, f"{name}.{member.name}", tag, given)
        for action in actions(node).values():
            method = "get" if action.media else "post"
            self.paths[f"{path}{action.name}/"] = {"parameters": given, method: self._action(action, name, tag)}

    def _place(
        self, path: str, title: str, schema: Json, allowed: tuple[str, ...], tag: str, given: list[Json], *, leaf: bool = False
    ) -> None:
        item: Json = {"parameters": given}
        for method in allowed:
            item[method.lower()] = _reading(title, schema, tag) if method == "GET" else _changing(method, title, schema, tag, leaf=leaf)
        self.paths[path] = item

    def _action(self, action: Action, name: str, tag: str) -> Json:
        found: Json = {
            "tags": [tag],
            "summary": action.description,
            "parameters": [_DRY_RUN],
            "responses": {"200": {"description": "Done"}, "default": _FAILED},
        }
        if action.input:
            found["requestBody"] = _body(self._schema(action.input, f"{name}.{action.name}.input"))
        if action.media:
            found["responses"]["200"]["content"] = {action.media: {"schema": {"type": "string", "format": "binary"}}}
        if action.output:
            found["responses"]["200"]["content"] = {JSON_TYPE: {"schema": self._schema(action.output, f"{name}.{action.name}.output")}}
        return found

    def _schema(self, node: type[Node], name: str) -> Json:
        """A reference to the schema of a node, which is made on the way."""
        if name not in self.schemas:
            found: Json = {"type": "object", "description": (node.__doc__ or "").strip()}
            self.schemas[name] = found
            found["properties"] = {one.name: self._member(one, name) for one in members(node).values()}
            needed = [one.name for one in members(node).values() if one.mandatory and not one.key and one.kind is Kind.LEAF]
            found |= {"required": needed} if needed else {}
        return {"$ref": f"#/components/schemas/{name}"}

    def _member(self, member: Member, name: str) -> Json:
        if member.kind is Kind.LEAF:
            return _leaf(member)
        schema = self._schema(member.child, f"{name}.{member.name}")
        found: Json = {"type": "array", "items": schema} if member.kind is Kind.LIST else {"allOf": [schema]}
        return found | {"description": member.description} | ({"readOnly": True} if member.state else {})


def _free(key: str, member: str, taken: set[str]) -> str:
    """A name for a key in the path that no other parameter has."""
    return key if key not in taken else f"{member}-{key}"


def _leaf(member: Member) -> Json:
    assert member.type
    found = _type(member.type)
    if member.type.many:
        found = {"type": "array", "items": found}
    found["description"] = member.description
    if member.state:
        found["readOnly"] = True
    elif member.default is not None:
        found["default"] = member.default
    if member.example:
        found["examples"] = [member.example]
    return found


def _type(leaf: LeafType) -> Json:
    if leaf.union:
        return {"anyOf": [_type(part) for part in leaf.union]}
    if leaf.base is bool:
        return {"type": "boolean"}
    found: Json = {"type": {int: "integer", float: "number"}.get(leaf.base, "string")}
    if leaf.name == "enumeration":
        return found | {"enum": list(leaf.choices)}
    found |= {word: getattr(leaf, name) for name, word in BOUNDS if getattr(leaf, name) is not None}
    if found["type"] == "string" and leaf.name != "string":
        found["format"] = leaf.name
    return found


def _parameter(name: str, description: str, schema: Mapping[str, Any]) -> Json:
    kept = {word: value for word, value in schema.items() if word not in ("description", "readOnly", "default")}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": kept}


def _body(schema: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _reading(title: str, schema: Json, tag: str) -> Json:
    content = {JSON_TYPE: {"schema": schema}}
    return {"tags": [tag], "summary": title, "responses": {"200": {"description": "What is there", "content": content}, "default": _FAILED}}


def _changing(method: str, title: str, schema: Json, tag: str, *, leaf: bool = False) -> Json:
    done = {"200": {"description": "Done, or what would be done"}}
    if not leaf:
        done |= {OK[method]: {"description": "Done"}}
    found: Json = {
        "tags": [tag],
        "summary": f"{VERBS[method]}: {title}",
        "parameters": [_DRY_RUN],
        "responses": done | {"default": _FAILED},
    }
    return found if method == "DELETE" else found | {"requestBody": _body(schema)}


def _fixed() -> Json:
    """What is not a service's."""
    anything = {"description": "What is there", "content": {JSON_TYPE: {"schema": {}}}}
    paths: Json = {}
    for path, title in _READ:
        paths[path] = {"get": {"tags": ["polycube"], "summary": title, "responses": {"200": anything, "default": _FAILED}}}
        if "{" in path:
            paths[path]["parameters"] = [_parameter("name", "Its name", {"type": "string", "minLength": 1})]
    for word, names in (("connect", _PEERS), ("disconnect", _PEERS), ("attach", _PLACE), ("detach", _PLACE[:2])):
        properties: Json = {name: {"type": "string"} for name in names}
        body = {"type": "object", "required": list(names[:2]), "properties": properties, "additionalProperties": False}
        paths[f"/{word}/"] = {"post": _changing("POST", word, body, "polycube", leaf=True)}
    return paths


_PEERS = ("peer1", "peer2")
_PLACE = ("cube", "port", "position", "before", "after")
_READ = (
    ("/services/", "Services that are installed"),
    ("/services/{name}/", "A service, with its model, also as YANG"),
    ("/cubes/", "Cubes by service"),
    ("/cubes/{name}/", "A cube, of whatever service"),
    ("/netdevs/", "Netdevs that can be a port's peer"),
    ("/netdevs/{name}/", "A netdev"),
    ("/topology/", "Cubes and how they are connected"),
    ("/topology/{name}/", "The chains at a netdev"),
    ("/version/", "Version of the daemon"),
)
