# SPDX-License-Identifier: Apache-2.0
"""What the fixed words of the REST interface have in common: paths, flat bodies, parameters of queries, help."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from starlette.requests import Request

from polycube.daemon.controller import Service
from polycube.daemon.http import NotFound, body_of
from polycube.daemon.tree import BASE, allow
from polycube.model import Path, Tag, problem, suggest

Words: TypeAlias = tuple[Any, list[str]]


def rate(request: Request) -> float | None:
    """Frames a second above which drops are an event; None: they are not asked for."""
    text = request.query_params.get("drops")
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < float("inf"):
        raise problem(Tag.INVALID_VALUE, ("?drops",), f"cannot be {text!r}: expected dropped frames a second, such as 1000")
    return rate


def raw_path(request: Request) -> str:
    raw = request.scope.get("raw_path")
    return raw.partition(b"?")[0].decode("latin-1") if isinstance(raw, bytes) else quote(request.scope["path"])


def segments(request: Request) -> Path | None:
    """The decoded segments below the base; None outside it."""
    raw = raw_path(request)
    if not f"{raw}/".startswith(BASE):
        return None
    inner = raw.removeprefix(BASE).removesuffix("/") if raw.startswith(BASE) else ""
    return tuple(unquote(segment) for segment in inner.split("/")) if inner else ()


def bare(request: Request, path: Path, word: str, *methods: str) -> None:
    if path:
        raise NotFound("Cannot find a matching route.")
    allow(request, methods, word)


def shown(service: Service) -> dict[str, str]:
    return {
        "name": service.name,
        "servicecontroller": service.module,
        "description": service.description,
        "version": service.version,
        "pyang_repo_id": "",
        "swagger_codegen_repo_id": "",
    }


def line(name: str, description: str, kind: str = "leaf") -> dict[str, str]:
    return {"name": name, "type": kind, "simpletype": "string", "description": description}


def named(name: str, element: str, description: str, names: list[str]) -> Words:
    """Help and completion of a fixed list that can only be shown."""
    params = {name: line(name, description, "key")}
    return {"params": params, "elements": [{element: one} for one in names], "commands": ["show"]}, ["show", *names]


async def fields(request: Request, word: str, mandatory: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, str]:
    """The text members of a flat body; None counts as absent."""
    body = await body_of(request)
    if not isinstance(body, dict):
        raise problem(Tag.INVALID_VALUE, (word,), "needs an object")
    for name, value in body.items():
        if name not in (*mandatory, *optional):
            raise problem(Tag.BAD_ATTRIBUTE, (word,), f"has no {name}{suggest(name, (*mandatory, *optional))}")
        if value is not None and not isinstance(value, str):
            raise problem(Tag.INVALID_VALUE, (word, name), f"cannot be {value!r}: expected text")
    for name in mandatory:
        if not body.get(name):
            raise problem(Tag.MISSING_ATTRIBUTE, (word, name), "is missing")
    return {name: value for name, value in body.items() if value}
