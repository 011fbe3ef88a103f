# SPDX-License-Identifier: Apache-2.0
"""Bodies, answers and errors of the REST interface, and the guard of the TCP socket.

Mechanism: `guarded` wraps the one request handler; whatever it raises becomes an answer: problems with a model as
RESTCONF's structured errors, other `PolycubeError`s as one sentence of text, everything else as a 500 that says no more
than that it was logged. `Guard` stands before the application on sockets that anyone can reach.

Invariants: no traceback and no exception text of ours reaches a client. A body is never read beyond `MAX_BODY`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from polycube.daemon.auth import Access, Role
from polycube.model import ModelError, PolycubeError, Tag, path_text, problem

MAX_BODY = 16 * 2**20
MAX_PROBLEMS = 100  # told in one answer
YANG_JSON = "application/yang.data+json; charset=utf-8"
READING = ("GET", "HEAD", "OPTIONS")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
log = structlog.get_logger(__name__)


class TooLarge(PolycubeError):
    """A body over the limit."""

    status: ClassVar[int] = 413

    def __init__(self) -> None:
        super().__init__(f"The request is larger than {MAX_BODY // 2**20} MiB")


class NotAllowed(PolycubeError):
    """A method that the resource does not have."""

    status: ClassVar[int] = 405

    def __init__(self, method: str, what: str, allowed: Collection[str]) -> None:
        self.what = what
        self.allowed = tuple(allowed)
        super().__init__(f"{what} has no {method}: it takes {', '.join(self.allowed)}")


class Forbidden(PolycubeError):
    """Something that a reader may not have."""

    status: ClassVar[int] = 403

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} needs the unix socket, or a token or client certificate that may do more than read")


class NotFound(PolycubeError):
    """Nothing is at this address; `status` 400 where upstream says so."""

    def __init__(self, sentence: str, status: int = 404) -> None:
        self._status = status
        super().__init__(sentence)

    @property
    def status(self) -> int:  # type: ignore[override]
        return self._status


def answer(data: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json.dumps(data, separators=(",", ":"), allow_nan=False), status, media_type=YANG_JSON)


def text(sentence: str, status: int) -> Response:
    """A plain answer."""
    return PlainTextResponse(sentence.encode(errors="backslashreplace"), status)


def failure(error: PolycubeError, method: str) -> Response:
    """The answer to an error."""
    if isinstance(error, NotAllowed):
        found = structured(Tag.OPERATION_NOT_SUPPORTED, error.what, str(error))
        response = answer({"ietf-restconf:errors": {"error": [found]}}, 405)
        response.headers["Allow"] = ", ".join(error.allowed)
        return response
    if not isinstance(error, ModelError):
        return text(str(error), error.status)
    errors = [structured(item.tag, path_text(item.path), str(item)) for item in error.problems[:MAX_PROBLEMS]]
    absent = method in READING and error.problems[0].tag is Tag.DATA_MISSING
    return answer({"ietf-restconf:errors": {"error": errors}}, 404 if absent else error.status)


def structured(tag: Tag, path: str, message: str) -> dict[str, str]:
    """One error as RFC 8040, section 7.1 has it; `error-info` names the node, as upstream does."""
    return {
        "error-type": "application",
        "error-tag": tag,
        "error-path": f"/{path}",
        "error-info": path,
        "error-message": message,
    }


def guarded(handler: Handler) -> Handler:
    """The handler, with every exception turned into an answer."""

    async def guard(request: Request) -> Response:
        try:
            return await handler(request)
        except PolycubeError as error:
            return failure(error, request.method)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("request failed", method=request.method, path=request.url.path)
            return text("Internal error: the daemon's log says more", 500)

    return guard


async def body_of(request: Request) -> Any:
    """The JSON body; an empty one is an empty object."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise TooLarge
        chunks.append(chunk)
    content = b"".join(chunks)
    if not content.strip():
        return {}
    try:
        data = json.loads(content, parse_constant=_no_constant)
        if b"\\u" in content:  # half of a surrogate pair, which is no text and can't be stored
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except (ValueError, RecursionError) as error:
        raise problem(Tag.INVALID_VALUE, (), f"is not JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def flag(request: Request, name: str) -> bool:
    """A boolean query parameter; present without a value is true."""
    value = request.query_params.get(name)
    if value is None:
        return False
    if value.lower() in ("", "true", "1", "yes"):
        return True
    if value.lower() in ("false", "0", "no"):
        return False
    raise problem(Tag.INVALID_VALUE, (f"?{name}",), f"cannot be {value!r}: expected true or false")


def is_reader(request: Request) -> bool:
    """Whether who asks may read, and no more: neither what passes through cubes, nor what reading takes away."""
    return bool(request.scope.get("state", {}).get("reader"))


class Guard:
    """Stands before the application on TCP: lets pass what the role of who asks allows; refuses foreign Host and Origin headers.

    The latter two keep web pages out: a page can point a name of its own at 127.0.0.1, but not change these headers."""

    def __init__(self, app: ASGIApp, access: Access, hosts: Collection[str] = LOCAL_NAMES) -> None:
        self.app = app
        self.access = access
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            scope.setdefault("state", {})["reader"] = self.access.of_request(scope) is Role.READER
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if _hostname(f"//{headers.get('host', '')}") not in self.hosts:
            return text(f"Host {headers.get('host', '')!r} is not one of this daemon's names", 403)
        if "origin" in headers and _hostname(headers["origin"]) not in self.hosts:
            return text(f"Requests from {headers['origin']} are not accepted", 403)
        role = self.access.of_request(scope)
        if role is Role.ADMIN or (role is Role.READER and scope["method"] in READING):
            return None
        if "authorization" in headers and role is Role.NOBODY:
            refusal = text("This token is not known", 401)
        elif role is Role.READER:
            refusal = text(f"{scope['method']} needs the unix socket, or a token or client certificate that may do more than read", 403)
        else:
            refusal = text(f"{scope['method']} needs a token or a client certificate", 401)
        if refusal.status_code == 401:
            refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
