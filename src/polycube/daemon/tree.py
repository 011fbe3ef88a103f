# SPDX-License-Identifier: Apache-2.0
"""The REST tree of a service: every place in its model is a resource, none of them is written by hand.

Mechanism: the segments after the service name a cube and a place in its model; `resolve` says what kind of place it is,
the kind says which methods it has, and each method becomes one `Edit`, one action or one dump.

Invariants: what a client reads is one snapshot of the configuration with the operational data laid over it. A request
is one `Controller.change`, hence all or nothing. Objects carry `_links`; arrays and bare values do not.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from polycube.core.config import CubeConfig
from polycube.daemon.controller import (
    Change,
    Controller,
    CreateCube,
    CubeView,
    DeleteCube,
    EditCube,
    NoSuchCube,
    Result,
    Service,
)
from polycube.daemon.http import Forbidden, NotAllowed, answer, body_of, flag, is_reader
from polycube.model import (
    Command,
    Edit,
    Kind,
    ModelError,
    Node,
    Op,
    Path,
    Tag,
    Target,
    complete_at,
    dump,
    dump_at,
    help_at,
    load,
    members,
    path_text,
    problem,
    resolve,
)
from polycube.model.help import param

BASE = "/polycube/v1/"
ALL = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPS = {"POST": Op.CREATE, "PUT": Op.REPLACE, "PATCH": Op.MERGE, "DELETE": Op.DELETE}


class Tree:
    """The resources below `<service>/`."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    async def handle(self, request: Request, service: Service, path: Path) -> Response:
        """Answer a request to a place below a service."""
        if not path:
            return await self._service(request, service)
        name, *rest = path
        if request.method == "OPTIONS":
            return await self._options(request, service, name, tuple(rest))
        if not rest:
            return await self._cube(request, service, name)
        view = self._view(service, name)
        try:
            target = resolve(service.config, rest)
        except ModelError as error:
            raise error.within(name) from None
        allow(request, methods(target), path_text((name, *target.path)))
        if target.action and target.action.media:
            return await self._stream(request, view, target, target.action.media)
        if request.method in ("GET", "HEAD"):
            return await self._get(request, view, target)
        if target.kind is Kind.ACTION:
            return await self._action(request, view, target)
        return await self._edit(request, view, target)

    def _view(self, service: Service, name: str) -> CubeView:
        cubes = self.controller.cubes()
        view = cubes.get(name)
        if view is None:
            raise NoSuchCube(name, [cube.name for cube in cubes.values() if cube.service == service.name])
        if view.service != service.name:
            raise problem(Tag.DATA_MISSING, (name,), f"is no {service.name} but a {view.service}")
        return view

    async def _service(self, request: Request, service: Service) -> Response:
        allow(request, ("GET", "POST", "PATCH", "OPTIONS"), service.name)
        cubes = [view for view in self.controller.cubes().values() if view.service == service.name]
        if request.method == "OPTIONS":
            return options(request, lambda command: self._service_help(service, cubes, command))
        if request.method in ("GET", "HEAD"):
            return answer([summary(view) for view in cubes])
        body = await body_of(request)
        name = body.get("name") if isinstance(body, dict) else None
        if not isinstance(name, str):
            raise problem(Tag.MISSING_ATTRIBUTE, (service.name, "name"), "is missing: the name of the cube, text")
        if request.method == "POST":
            return await self._change(request, CreateCube(service.name, name, body), 201)
        self._view(service, name)
        return await self._change(request, EditCube(name, (Edit(Op.MERGE, (), body),)), 201)

    async def _cube(self, request: Request, service: Service, name: str) -> Response:
        allow(request, ALL, name)
        if request.method in ("GET", "HEAD"):
            return await self._get(request, self._view(service, name), resolve(service.config, ()))
        if request.method == "DELETE":
            self._view(service, name)
            return await self._change(request, DeleteCube(name), 204)
        body = await body_of(request)
        if request.method == "POST" or (request.method == "PUT" and name not in self.controller.cubes()):
            return await self._change(request, CreateCube(service.name, name, body), 201)
        self._view(service, name)
        status = 200 if request.method == "PUT" else 201
        return await self._change(request, EditCube(name, (Edit(OPS[request.method], (), body),)), status)

    async def _get(self, request: Request, view: CubeView, target: Target) -> Response:
        overlay = await self.controller.overlay(view.name, target.path, read=request.method == "GET" and not is_reader(request))
        try:
            data = dump_at(view.config, target, overlay)
        except ModelError as error:
            raise error.within(view.name) from None
        if isinstance(data, dict):
            here = path_text((view.service, view.name, *target.path))
            names = [name for name, member in members(target.cls).items() if not member.key]
            data["_links"] = links(request, here, names)
        return answer(data)

    async def _stream(self, request: Request, view: CubeView, target: Target, media: str) -> Response:
        if request.method == "HEAD":
            return Response(media_type=media)
        if is_reader(request):
            raise Forbidden(path_text((view.name, *target.path)))
        chunks = await self.controller.stream(view.name, target.path)
        return StreamingResponse(chunks, media_type=media, headers={"Cache-Control": "no-store"})

    async def _action(self, request: Request, view: CubeView, target: Target) -> Response:
        assert target.action is not None
        try:
            resolve_holder(target).get(view.config)
            body = await body_of(request)
            node = load(target.action.input, body) if target.action.input else None
            if target.action.input is None and body != {}:
                raise problem(Tag.INVALID_VALUE, target.path, "takes no input")
        except ModelError as error:
            raise error.within(view.name) from None
        dry_run = flag(request, "dry-run")
        result = await self.controller.action(view.name, target.path, node, dry_run=dry_run)
        if dry_run:
            return operations(result)
        output = dump(result.output) if isinstance(result.output, Node) else result.output
        return Response(status_code=200) if output is None else answer(output)

    async def _edit(self, request: Request, view: CubeView, target: Target) -> Response:
        op = OPS[request.method]
        value = None if op is Op.DELETE else await body_of(request)
        status = 204 if op is Op.DELETE else 200 if target.kind is Kind.LEAF else 201
        if op is Op.REPLACE and is_there(view.config, target):
            status = 200
        return await self._change(request, EditCube(view.name, (Edit(op, target.path, value),)), status)

    async def _change(self, request: Request, change: Change, status: int) -> Response:
        dry_run = flag(request, "dry-run")
        result = await self.controller.change((change,), dry_run=dry_run)
        return operations(result) if dry_run else Response(status_code=status)

    async def _options(self, request: Request, service: Service, name: str, rest: Path) -> Response:
        try:
            target = resolve(service.config, rest, partial=True)
        except ModelError as error:
            raise error.within(name) from None
        view = self.controller.cubes().get(name)
        if view is not None and view.service != service.name:
            view = None
        overlay = await self.controller.overlay(name, target.path) if view and target.kind is Kind.LIST else None
        config: CubeConfig | None = view.config if view else None

        def build(command: Command) -> tuple[Any, list[str]]:
            return help_at(target, command, config, overlay), complete_at(target, command, config, overlay)

        return options(request, build, methods(target))

    def _service_help(self, service: Service, cubes: list[CubeView], command: Command) -> tuple[Any, list[str]]:
        found = members(service.config)
        if command is Command.ADD:
            help_ = help_at(resolve(service.config, ()), command)
            help_["params"] = {"name": param(found["name"]), **help_["params"]}
            return help_, ["<name>"]
        names = [view.name for view in cubes]
        help_ = {"params": {"name": param(found["name"])}, "elements": [{"name": name} for name in names]}
        if command is not Command.NONE:
            return help_, names
        commands = ["add", "del", "show"]
        return {"commands": commands, **help_}, [*commands, *names]


def resolve_holder(target: Target) -> Target:
    """The node that an action belongs to."""
    return Target(Kind.CONTAINER, target.cls, target.path[:-1], target.steps)


def is_there(config: Node, target: Target) -> bool:
    """Whether something is at a place."""
    try:
        target.get(config)
    except ModelError:
        return False
    return True


def methods(target: Target) -> tuple[str, ...]:
    """The methods of a kind of place."""
    if target.kind is Kind.ACTION:
        return ("GET", "OPTIONS") if target.action and target.action.media else ("POST", "OPTIONS")
    if target.state:
        return ("GET", "OPTIONS")
    return ("GET", "PATCH", "OPTIONS") if target.kind is Kind.LEAF else ALL


def allow(request: Request, allowed: tuple[str, ...], what: str) -> None:
    """Raise unless the method is one of these (HEAD goes with GET)."""
    method = "GET" if request.method == "HEAD" else request.method
    if method not in allowed:
        raise NotAllowed(request.method, what, allowed)


def operations(result: Result) -> Response:
    """The answer to a dry run."""
    return answer({"operations": [dict(operation) for operation in result.operations]})


def options(request: Request, build: Any, allowed: tuple[str, ...] = ALL) -> Response:
    """Help or completion; `build(command)` gives both."""
    wanted = request.query_params.get("help")
    if wanted is None:
        return Response(status_code=200, headers={"Allow": ", ".join(allowed)})
    if wanted not in Command.__members__:
        raise problem(Tag.INVALID_VALUE, ("?help",), f"cannot be {wanted!r}: expected one of {', '.join(Command)}")
    help_, words = build(Command(wanted))
    return answer(words if flag(request, "completion") else help_)


def links(request: Request, here: str, names: list[str]) -> list[dict[str, str]]:
    """self and the children of an object, relative to the scheme."""
    base = f"//{request.headers.get('host', 'localhost')}{BASE}"
    own = f"{base}{here}/" if here else base
    return [{"rel": "self", "href": own}, *({"rel": name, "href": f"{own}{path_text((name,))}/"} for name in names)]


def summary(view: CubeView) -> dict[str, Any]:
    """The common part of a cube, without its service's own."""
    full = members(CubeConfig)
    wanted = [*full, "parent", "ports", "shadow", "span"]
    known = {"uuid": view.uuid, "service-name": view.service, **view.state}
    short: dict[str, Any] = {}
    for name in wanted:
        member = members(type(view.config)).get(name)
        if member is None:
            continue
        if name == "ports":
            ports = dump_at(view.config, resolve(type(view.config), ("ports",)), {})
            state = {port["name"]: port for port in view.state.get("ports", ())}
            short["ports"] = [_port(port, state.get(port["name"], {})) for port in ports]
            continue
        value = known.get(name)
        if value is None:
            value = dump_at(view.config, resolve(type(view.config), (name,)), {})
        if value is not None:
            short[name] = value
    return short


def _port(port: dict[str, Any], state: Any) -> dict[str, Any]:
    shown = {**state, **port}
    return {name: shown[name] for name in ("name", "uuid", "status", "reason", "peer", "tcubes") if name in shown}
