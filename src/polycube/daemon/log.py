# SPDX-License-Identifier: Apache-2.0
"""Logs of the daemon and of all workers: structlog on top, the standard library's handlers below.

A line is upstream's, `[2026-11-23 17:00:00.123] [Router] [r1] [info] message key=value`, or `[...] [polycubed] [info] message` for the
daemon's own, or, when asked, a JSON object. Who is meant travels in context variables (`service`, `cube`, `port`, `request`), so that
whatever a request calls logs under the request's names: `with bound(cube="r1"): ...`.

Invariants: one event is one line, but for a traceback, which follows indented; what users give cannot begin a line of its own.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Awaitable, Mapping
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars as bound

from polycube.model import PolycubeError

__all__ = ["LEVELS", "bound", "configure", "logger", "quietly", "relay"]

TRACE, OFF = 5, 100
LEVELS = {"trace": TRACE, "debug": 10, "info": 20, "warn": 30, "err": 40, "critical": 50, "off": OFF}
FILE_SIZE, FILE_COUNT = 5 << 20, 3
_NAMES = {"warning": "warn", "error": "err", "exception": "err", "fatal": "critical", "notset": "trace"}
_EVERYTHING = structlog.make_filtering_bound_logger(0)
_OWN = ("event", "level", "time", "service", "cube", "exception")


def configure(level: str, *, file: Path | None = None, stream: Any = None, json: bool = False) -> None:
    """Sets logging up for this process; a second call replaces the first. `stream` defaults to stdout; False: none.

    Raises OSError when the file cannot be opened.
    """
    logging.raiseExceptions = False  # a line that finds no room on the disk is lost, without a traceback for each
    root = logging.getLogger()
    handlers: list[logging.Handler] = []
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(file, maxBytes=FILE_SIZE, backupCount=FILE_COUNT, encoding="utf-8", errors="replace"))
    if stream is not False:
        handlers.append(logging.StreamHandler(stream or sys.stdout))
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    logging.addLevelName(TRACE, "trace")
    renderer = structlog.processors.JSONRenderer() if json else _text
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, _level, _stamp, _traceback],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(LEVELS[level])
    logging.getLogger("cubes").setLevel(TRACE)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            _level,
            _stamp,
            _traceback,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(LEVELS[level], 50) if level != "trace" else 0),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def logger(**fields: Any) -> Any:
    """A logger with some fields bound."""
    return structlog.get_logger("polycube").bind(**fields)


async def quietly(call: Awaitable[Any], what: str) -> None:
    """For what follows a change that stands already: its failure is logged."""
    try:
        await call
    except PolycubeError as error:
        structlog.get_logger("polycubed").error("after a change", step=what, reason=str(error))


def relay(service: str, line: Mapping[str, Any]) -> None:
    """Logs what a worker or a data plane said (see `Workers`), under its own time. What a cube says has passed the cube's level already,
    which may be lower than the daemon's; a daemon at `off` says nothing at all."""
    name = _NAMES.get(line["level"], line["level"])
    daemon = logging.getLogger().level
    if daemon == OFF or (not line["cube"] and LEVELS.get(name, 20) < daemon):
        return
    fields = {key: value for key, value in line["fields"].items() if key not in _OWN}
    event = {**fields, "service": service, "cube": line["cube"], "time": line["time"], "exception": line["exception"]}
    method = {"trace": "debug", "warn": "warning", "err": "error"}.get(name, name)
    getattr(structlog.wrap_logger(logging.getLogger("cubes"), wrapper_class=_EVERYTHING), method)(line["event"], **event)


def _level(_logger: Any, _method: str, event: Any) -> Any:
    event["level"] = _NAMES.get(event["level"], event["level"])
    return event


def _stamp(_logger: Any, _method: str, event: Any) -> Any:
    event.setdefault("time", time.time())
    return event


def _traceback(_logger: Any, _method: str, event: Any) -> Any:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = "".join(traceback.format_exception(error))
    if not event.get("exception"):
        event.pop("exception", None)
    return event


def _text(_logger: Any, _method: str, event: Any) -> str:
    stamp = datetime.fromtimestamp(event["time"]).isoformat(" ", "milliseconds")
    service, cube = str(event.get("service", "")), str(event.get("cube", ""))
    who = f"[{service[:1].upper()}{service[1:]}] [{cube}]" if service and cube else f"[{service or 'polycubed'}]"
    rest = " ".join(f"{key}={_value(value)}" for key, value in event.items() if key not in _OWN)
    line = f"[{stamp}] {who} [{event['level']}] {_one_line(str(event['event']))}{' ' if rest else ''}{rest}"
    if "exception" in event:
        line += "\n    " + str(event["exception"]).rstrip().replace("\n", "\n    ")
    return line


def _value(value: Any) -> str:
    text = _one_line(str(value))
    return repr(text) if " " in text or not text else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
