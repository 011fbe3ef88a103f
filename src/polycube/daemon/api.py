# SPDX-License-Identifier: Apache-2.0
"""The REST interface below `/polycube/v1/`: one Starlette application over a `Controller`.

Mechanism: there is one route. The first segment of the path is a fixed word (handled here), the name of a service
(handled by `tree`), or the name of a cube (redirected to its service). Paths are split before they are decoded, so a
key may hold a slash (`10.0.0.0%2F24`).

Invariants: the application knows no service but through its model. Every change is one call of the controller, told
apart from its dry run by a flag only. Unexpected exceptions are logged and answered with one sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from polycube.daemon.controller import (
    FIXED_WORDS,
    Change,
    Controller,
    CreateCube,
    EditCube,
    NoSuchCube,
    NoSuchService,
    Placement,
    Result,
)
from polycube.daemon.events import KINDS, watch_drops
from polycube.daemon.http import NotFound, answer, body_of, flag, guarded
from polycube.daemon.openapi import openapi
from polycube.daemon.snapshot import cube_of, without_peers
from polycube.daemon.tree import ALL, BASE, Tree, allow, links, operations, options, summary
from polycube.daemon.underway import answering, underway
from polycube.daemon.words import Words, bare, fields, line, named, rate, raw_path, segments, shown
from polycube.model import Command, Path, PolycubeError, Tag, describe, problem, suggest, yang

METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
MORE = ("maps", "cost")  # metrics on request
POSITIONS: dict[str, Literal["auto", "first", "last"]] = {"auto": "auto", "first": "first", "last": "last"}


def build_app(controller: Controller) -> Starlette:
    """The application; sockets, TLS and authorisation are the caller's."""
    api = Api(controller)
    return Starlette(routes=[Route("/{path:path}", guarded(api.handle), methods=[*ALL, "HEAD"])])


class Conflicting(PolycubeError):
    """Two parameters that exclude each other."""

    status: ClassVar[int] = 400

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second} cannot be used together")


class Api:
    """Requests to answers."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.tree = Tree(controller)
        self.words: dict[str, Callable[[Request, Path], Awaitable[Response]]] = {word: getattr(self, f"_{word}") for word in FIXED_WORDS}

    async def handle(self, request: Request) -> Response:
        """Answer any request."""
        path = segments(request)
        if path is None:
            raise NotFound("Cannot find a matching route.")
        with answering(request.method, raw_path(request).removeprefix(BASE)):
            return await self._handle(request, path)

    async def _handle(self, request: Request, path: Path) -> Response:
        if not path:
            return self._root(request)
        first, *rest = path
        if first in self.words:
            return await self.words[first](request, tuple(rest))
        service = self.controller.services().get(first)
        if service is not None:
            return await self.tree.handle(request, service, tuple(rest))
        return self._redirect(request, first)

    def _redirect(self, request: Request, name: str) -> Response:
        """A path that begins with a cube leads to the same path below its service."""
        cubes = self.controller.cubes()
        if name not in cubes:
            raise NoSuchCube(name, [*cubes, *self.controller.services()])
        raw = raw_path(request).removeprefix(BASE)
        query = request.url.query
        location = f"{BASE}{quote(cubes[name].service)}/{raw}{'?' if query else ''}{query}"
        return Response(status_code=308, headers={"Location": location})

    def _root(self, request: Request) -> Response:
        allow(request, ("GET", "OPTIONS"), BASE)
        services, cubes = self.controller.services(), self.controller.cubes()
        names = [*FIXED_WORDS, *services, *cubes]
        if request.method != "OPTIONS":
            return answer(links(request, "", names))

        def build(command: Command) -> Words:
            if command is not Command.NONE:
                raise problem(Tag.INVALID_VALUE, ("?help",), f"cannot be {command} here: expected NONE")
            lines = {name: {**shown(one), "simpletype": "service", "type": "leaf"} for name, one in services.items()}
            return {"params": lines}, names

        return options(request, build)

    async def _services(self, request: Request, path: Path) -> Response:
        services = self.controller.services()
        if len(path) == 2 and path[1] == "reload":
            allow(request, ("POST",), "/".join(("services", *path)))
            await self.controller.reload_service(path[0])
            return Response(status_code=200)
        if len(path) > 1:
            raise NotFound("Cannot find a matching route.")
        allow(request, ("GET", "DELETE", "OPTIONS") if path else ("GET", "POST", "OPTIONS"), "/".join(("services", *path)))
        if request.method == "OPTIONS":
            return options(request, lambda command: named("name", "service", "Name of the service", list(services)))
        if request.method == "POST":
            return await self._add_service(request)
        if request.method == "DELETE":
            await self.controller.remove_service(path[0])
            return Response(status_code=204)
        if not path:
            return answer([shown(one) for one in services.values()])
        service = services.get(path[0])
        if service is None:
            raise NoSuchService(path[0], list(services))
        module = yang(service.name, service.config, service.description, service.version)
        return answer([{**shown(service), "datamodel": module, "model": describe(service.config)}])

    async def _add_service(self, request: Request) -> Response:
        given = await fields(request, "services", ("uri", "name"), ("type",))
        if given.get("type", "lib") != "lib":
            raise problem(Tag.INVALID_VALUE, ("services", "type"), f"cannot be {given['type']}: expected lib, a service in Python")
        await self.controller.add_service(given["name"], given["uri"])
        return Response(status_code=201)

    async def _cubes(self, request: Request, path: Path) -> Response:
        cubes = self.controller.cubes()
        if len(path) > 1:
            raise NotFound("Cannot find a matching route.")
        allow(request, ("GET", "OPTIONS") if path else ("GET", "POST", "OPTIONS"), "/".join(("cubes", *path)))
        if request.method == "OPTIONS":
            return options(request, lambda command: named("name", "cube", "Name of the cube", list(cubes)))
        if request.method == "POST":
            return await self._create_all(request)
        if path:
            if path[0] not in cubes:
                raise NotFound(f"Cube {path[0]} does not exist{suggest(path[0], cubes)}", 400)
            return answer(summary(cubes[path[0]]))
        grouped: dict[str, list[Any]] = {}
        for view in cubes.values():
            grouped.setdefault(view.service, []).append(summary(view))
        return answer(grouped)

    async def _create_all(self, request: Request) -> Response:
        """Create cubes from an array of whole configurations; links are made when all of them exist."""
        bodies = await body_of(request)
        if not isinstance(bodies, list):
            raise problem(Tag.INVALID_VALUE, ("cubes",), "cannot be created from this: expected an array of cubes")
        creates: list[CreateCube] = []
        peers: list[Change] = []
        for index, body in enumerate(bodies):
            cube, edits = without_peers(cube_of(body, ("cubes", f"[{index}]")))
            creates.append(CreateCube(cube["service-name"], cube["name"], cube))
            if edits:
                peers.append(EditCube(cube["name"], tuple(edits)))
        services = self.controller.services()
        # transparent cubes first: a port may name them as its tcubes
        creates.sort(key=lambda one: one.service not in services or services[one.service].kind != "transparent")
        return await self._done(request, self.controller.change, [*creates, *peers], status=201)

    async def _netdevs(self, request: Request, path: Path) -> Response:
        if len(path) > 1:
            raise NotFound("Cannot find a matching route.")
        allow(request, ("GET", "OPTIONS"), "/".join(("netdevs", *path)))
        netdevs = {netdev["name"]: dict(netdev) for netdev in self.controller.netdevs()}
        if request.method == "OPTIONS":
            return options(request, lambda command: named("name", "netdev", "Name of the netdev", list(netdevs)))
        if not path:
            return answer(list(netdevs.values()))
        if path[0] not in netdevs:
            raise NotFound(f"Netdev {path[0]} does not exist{suggest(path[0], netdevs)}", 400)
        return answer([netdevs[path[0]]])

    async def _version(self, request: Request, path: Path) -> Response:
        bare(request, path, "version", "GET")
        return answer({"polycubed": {"version": self.controller.version()}})

    async def _metrics(self, request: Request, path: Path) -> Response:
        bare(request, path, "metrics", "GET")
        more = [name for name in MORE if flag(request, name)]
        return Response(await self.controller.metrics(more), headers={"Content-Type": METRICS_TEXT})

    async def _requests(self, request: Request, path: Path) -> Response:
        """What is being answered, and what it waits for."""
        bare(request, path, "requests", "GET")
        return answer([one.as_data() for one in underway()])

    async def _config(self, request: Request, path: Path) -> Response:
        """GET config: the whole; POST config/apply: what stands becomes that."""
        if path == ("apply",):
            allow(request, ("POST",), "config/apply")
            return await self._done(request, self.controller.apply, await body_of(request))
        bare(request, path, "config", "GET", "OPTIONS")
        if request.method == "OPTIONS":
            action = {"name": "apply", "type": "action", "simpletype": "", "description": "Make what stands equal to a document on stdin"}
            return options(request, lambda command: ({"params": {"apply": action}, "commands": ["show"]}, ["show", "apply"]))
        return answer(self.controller.config())

    async def _openapi(self, request: Request, path: Path) -> Response:
        bare(request, path, "openapi", "GET")
        return answer(openapi(self.controller.services().values(), self.controller.version(), BASE))

    async def _events(self, request: Request, path: Path) -> Response:
        """A stream without end; the client ends it."""
        bare(request, path, "events", "GET")
        kinds = [kind for kind in request.query_params.get("kinds", "").split(",") if kind]
        for kind in kinds:
            if kind not in KINDS:
                raise problem(Tag.INVALID_VALUE, ("?kinds",), f"has no {kind}{suggest(kind, KINDS)}: expected some of {', '.join(KINDS)}")
        above = rate(request)
        return StreamingResponse(self._stream(kinds, above), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _stream(self, kinds: list[str], above: float | None) -> AsyncIterator[str]:
        with self.controller.events().listening(kinds) as listener:
            drops = None if above is None else asyncio.create_task(watch_drops(listener, self.controller.drop_counts, above))
            try:
                yield ": polycube\n\n"
                async for event in listener.events():
                    yield event.as_text() if event else ": still here\n\n"
            finally:
                if drops:
                    drops.cancel()

    async def _topology(self, request: Request, path: Path) -> Response:
        if len(path) > 1:
            raise NotFound("Cannot find a matching route.")
        allow(request, ("GET", "OPTIONS"), "topology")
        if request.method == "OPTIONS":
            names = [str(netdev["name"]) for netdev in self.controller.netdevs()]
            return options(request, lambda command: named("name", "netdev", "Name of the netdev", names))
        if path:
            return answer(dict(self.controller.topology_of(path[0])))
        return answer([summary(view) for view in self.controller.cubes().values()])

    async def _units(self, request: Request, path: Path) -> Response:
        if len(path) > 2 or path[1:] not in ((), ("code",)):
            raise NotFound("Cannot find a matching route.")
        allow(request, ("GET", "OPTIONS"), "/".join(("units", *path)))
        found = {str(one["name"]): one for one in await self.controller.units()}
        if request.method == "OPTIONS":
            return options(request, lambda command: named("name", "unit", "Name of the unit", list(found)))
        if not path:
            return answer(list(found.values()))
        if path[0] not in found:
            raise NotFound(f"Unit {path[0]} does not exist{suggest(path[0], found)}", 404)
        if path[1:]:
            return Response(await self.controller.unit_code(path[0]) or "", media_type="text/plain")
        return answer(found[path[0]])

    async def _fusing(self, request: Request, path: Path) -> Response:
        """Whether chains become single programs, in all or one cube: fusing[/CUBE][/enabled]."""
        leaf = path[-1:] == ("enabled",)
        path = path[:-1] if leaf else path
        if len(path) > 1:
            raise NotFound("Cannot find a matching route.")
        allow(request, ("GET", "PATCH", "OPTIONS"), "/".join(("fusing", *path)))
        state = self.controller.fusing()
        cubes = {str(one["name"]): one for one in state["cubes"]}
        if request.method == "OPTIONS":
            return options(request, lambda command: named("name", "cube", "Name of the cube", list(cubes)))
        if path and path[0] not in cubes:
            raise NoSuchCube(path[0], list(cubes))
        if request.method == "GET":
            shown = cubes[path[0]] if path else state
            return answer(shown["enabled"] if leaf else shown)
        body = await body_of(request)
        wanted = body if leaf else body.get("enabled") if isinstance(body, dict) and set(body) == {"enabled"} else None
        if not isinstance(wanted, bool):
            raise problem(Tag.INVALID_VALUE, ("fusing", *path, "enabled"), "has to be true or false")
        return await self._done(request, self.controller.fuse, wanted, *path)

    async def _connect(self, request: Request, path: Path) -> Response:
        return await self._link(request, path, "connect", self.controller.connect)

    async def _disconnect(self, request: Request, path: Path) -> Response:
        return await self._link(request, path, "disconnect", self.controller.disconnect)

    async def _link(self, request: Request, path: Path, word: str, act: Callable[..., Awaitable[Result]]) -> Response:
        bare(request, path, word, "POST", "OPTIONS")
        if request.method == "OPTIONS":
            ports = self._ports()
            params = {end: line(end, "Port of a cube (cube:port), or netdev") for end in ("peer1", "peer2")}
            return options(request, lambda command: ({"params": params}, ports))
        given = await fields(request, word, ("peer1", "peer2"))
        return await self._done(request, act, given["peer1"], given["peer2"])

    async def _attach(self, request: Request, path: Path) -> Response:
        bare(request, path, "attach", "POST", "OPTIONS")
        if request.method == "OPTIONS":
            return self._attach_help(request)
        given = await fields(request, "attach", ("cube", "port"), ("position", "before", "after"))
        chosen = [name for name in ("position", "after", "before") if name in given]
        if len(chosen) > 1:
            raise Conflicting(chosen[0], chosen[1])
        placement = Placement()
        if chosen and chosen[0] != "position":
            placement = Placement("after" if chosen[0] == "after" else "before", given[chosen[0]])
        elif chosen:
            if given["position"].lower() not in POSITIONS:
                message = f"cannot be {given['position']!r}: expected auto, first or last"
                raise problem(Tag.INVALID_VALUE, ("attach", "position"), message)
            placement = Placement(POSITIONS[given["position"].lower()])
        return await self._done(request, self.controller.attach, given["cube"], given["port"], placement)

    async def _detach(self, request: Request, path: Path) -> Response:
        bare(request, path, "detach", "POST", "OPTIONS")
        if request.method == "OPTIONS":
            return self._attach_help(request)
        given = await fields(request, "detach", ("cube", "port"))
        return await self._done(request, self.controller.detach, given["cube"], given["port"])

    def _attach_help(self, request: Request) -> Response:
        services = self.controller.services()
        cubes = [v.name for v in self.controller.cubes().values() if services[v.service].kind == "transparent"]
        netdevs = [str(netdev["name"]) for netdev in self.controller.netdevs()]
        params = {"cube": line("cube", "Transparent cube"), "port": line("port", "Port (cube:port) or netdev")}
        return options(request, lambda command: ({"params": params}, [*cubes, *self._ports(), *netdevs]))

    async def _done(self, request: Request, act: Callable[..., Awaitable[Result]], *arguments: Any, status: int = 200) -> Response:
        dry_run = flag(request, "dry-run")
        result = await act(*arguments, dry_run=dry_run)
        return operations(result) if dry_run else Response(status_code=status)

    def _ports(self) -> list[str]:
        cubes = self.controller.cubes().values()
        return [f"{view.name}:{port}" for view in cubes for port in getattr(view.config, "ports", ())]
