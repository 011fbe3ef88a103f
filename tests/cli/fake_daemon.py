# SPDX-License-Identifier: Apache-2.0
"""A daemon that records what it is asked (on a real uvicorn, as the real one)."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

SOURCE = Path(__file__).parents[2] / "src"
Ctl = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-m", "polycube.cli.main"]


@dataclass
class Seen:
    """One recorded request."""

    method: str
    path: str  # as sent, without base path; percent-encoding kept
    query: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeDaemon:
    """Answers what `answers` says for "METHOD path" or "METHOD path?query", else 200 without a body."""

    socket: Path
    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    async def __call__(self, request: Request) -> Response:
        raw = request.scope["raw_path"].decode().partition("?")[0]
        path, query = raw.removeprefix("/polycube/v1/"), request.url.query
        self.seen.append(Seen(request.method, path, query, await request.body(), dict(request.headers)))
        key = f"{request.method} {path}"
        answer = self.answers.get(f"{key}?{query}", self.answers.get(key, ""))
        if isinstance(answer, Response):
            return answer
        if callable(answer):
            answer = answer(self.seen[-1])
        if inspect.isawaitable(answer):
            answer = await answer
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(content, str):
            return Response(content, status, media_type="text/plain")
        return Response(json.dumps(content), status, media_type="application/yang.data+json")


def serve(daemon: FakeDaemon) -> tuple[uvicorn.Server, threading.Thread]:
    config = uvicorn.Config(_endpoint(daemon), uds=str(daemon.socket), log_config=None, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.started
    return server, thread


def _endpoint(daemon: FakeDaemon) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = await daemon(Request(scope, receive))
        await response(scope, receive, send)

    return app
