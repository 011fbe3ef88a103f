# SPDX-License-Identifier: Apache-2.0
"""Calls between the daemon and a worker, over a unix socket pair.

Mechanism: a frame is a length (4 bytes, big endian) and a JSON object: a call `{"id", "call", "args"}`, its answer `{"id", "result"}` or
`{"id", "error"}`, or a notice `{"notice", "args"}` that nobody answers. Both ends call and are called. Bytes travel in hexadecimal.

Invariants: every call ends, by its answer, by its timeout, or by `PeerGone` when the other end dies. Nothing grows without bound: a
caller waits while too much is unsent, a notice is dropped (and counted) then, and calls beyond `MAX_CALLS` under way are refused with
`Busy`. Answers are read even then, so two ends that wait for each other don't block. An error of the `PolycubeError` family arrives as
what it was; of any other error the caller learns only what `failure` makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from polycube.model import ModelError, PolycubeError, Problem, Tag

MAX_FRAME = 256 << 20
MAX_UNSENT = 8 << 20
MAX_CALLS = 256
_LENGTH = struct.Struct(">I")

Failure = Callable[[str, Mapping[str, Any], Exception], PolycubeError]


class PeerGone(PolycubeError):
    """The other end ended, or never was there: whatever it was asked to do has no answer."""

    status = 503

    def __init__(self, peer: str, reason: str = "") -> None:
        self.peer, self.reason = peer, reason
        super().__init__(f"{peer} is gone" + (f": {reason}" if reason else ""))


class CallTimeout(PolycubeError):
    """No answer in time. The call may still be carried out."""

    status = 504

    def __init__(self, peer: str, method: str, seconds: float) -> None:
        self.peer, self.method, self.seconds = peer, method, seconds
        super().__init__(f"{peer} did not answer {method} within {seconds:g} s")


class Busy(PolycubeError):
    """The other end has too many calls under way."""

    status = 503

    def __init__(self, peer: str, calls: int) -> None:
        self.peer, self.calls = peer, calls
        super().__init__(f"{peer} has {calls} calls under way and takes no more")


class RemoteError(PolycubeError):
    """An error of the other end whose class this end does not know."""

    def __init__(self, kind: str, status: int, sentence: str, fields: Mapping[str, Any] | None = None) -> None:
        self.kind, self.remote_status, self.fields = kind, status, dict(fields or {})
        super().__init__(sentence)

    @property
    def status(self) -> int:  # type: ignore[override]
        return self.remote_status


def encode_error(error: PolycubeError) -> dict[str, Any]:
    """An error as data."""
    if isinstance(error, RemoteError):
        return {"class": error.kind, "status": error.status, "sentence": str(error), "fields": error.fields}
    fields: dict[str, Any] = {}
    if isinstance(error, ModelError):
        fields["problems"] = [[str(one.tag), list(one.path), one.message] for one in error.problems]
    else:
        for name, value in vars(error).items():
            with contextlib.suppress(TypeError, ValueError):
                fields[name] = json.loads(json.dumps(value, default=_plain))
    kind = f"{type(error).__module__}:{type(error).__qualname__}"
    return {"class": kind, "status": error.status, "sentence": str(error), "fields": fields}


def decode_error(data: Mapping[str, Any]) -> PolycubeError:
    """The error again: of its own class if that is loaded here (nothing is imported for it), else a `RemoteError`."""
    kind, sentence, fields = str(data["class"]), str(data["sentence"]), dict(data["fields"])
    cls = next((c for c in _family(PolycubeError) if f"{c.__module__}:{c.__qualname__}" == kind), None)
    if cls is None or cls is RemoteError:
        return RemoteError(kind, int(data["status"]), sentence, fields)
    if issubclass(cls, ModelError):
        fields["problems"] = tuple(Problem(Tag(tag), tuple(path), text) for tag, path, text in fields["problems"])
    error = cls.__new__(cls, sentence)
    error.args = (sentence,)
    vars(error).update(fields)
    return error


def _family(cls: type[PolycubeError]) -> Iterator[type[PolycubeError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _family(child)


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} does not travel between processes")


def _unexpected(method: str, args: Mapping[str, Any], error: Exception) -> PolycubeError:
    return RemoteError(type(error).__name__, 500, f"{method} failed: {error or type(error).__name__}")


class Connection:
    """One end. `calls` and `notices` map names to functions that take the arguments as keywords; those of calls may be coroutines."""

    def __init__(
        self,
        name: str,
        *,
        calls: Mapping[str, Callable[..., Any]] | None = None,
        notices: Mapping[str, Callable[..., None]] | None = None,
        failure: Failure = _unexpected,
    ) -> None:
        self.name = name  # of the other end, as errors call it
        self.dropped = 0  # notices that found the queue full
        self._calls = calls or {}
        self._notices = notices or {}
        self._failure = failure
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loads: dict[int, int] = {}  # bytes of each call that waits
        self._handlers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._serving: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self.reason = ""  # why the connection ended

    async def open(self, sock: socket.socket) -> None:
        """Takes the socket over and starts serving."""
        sock.setblocking(False)
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        assert self._writer
        self._writer.transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._serving = asyncio.create_task(self._serve(), name=f"wire {self.name}")

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @property
    def pending(self) -> int:
        """Calls that wait for an answer of the other end."""
        return len(self._waiting)

    @property
    def load(self) -> int:
        """Bytes of the calls that wait for an answer: what the other end has to work on."""
        return sum(self._loads.values())

    async def wait_closed(self) -> None:
        """Returns when the connection has ended, for whatever reason."""
        await self._closed.wait()

    async def call(self, method: str, args: Mapping[str, Any] | None = None, *, seconds: float | None = None) -> Any:
        """Calls the other end. Raises its error, `PeerGone`, `CallTimeout` or `Busy`."""
        if self.closed or self._writer is None:
            raise PeerGone(self.name, self.reason)
        number = next(self._ids)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(seconds):
                self._loads[number] = self._send({"id": number, "call": method, "args": args or {}})
                with contextlib.suppress(ConnectionError):  # the reading side notices, too
                    await self._writer.drain()
                return await answer
        except TimeoutError:
            raise CallTimeout(self.name, method, seconds or 0) from None
        finally:
            del self._waiting[number]
            self._loads.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, even if the call was given up in the same moment

    def notify(self, notice: str, args: Mapping[str, Any] | None = None) -> bool:
        """Tells the other end; False if the notice was dropped."""
        if self.closed or self._writer is None:
            return False
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self.dropped += 1
            return False
        self._send({"notice": notice, "args": args or {}})
        return True

    async def close(self) -> None:
        """Ends the connection; calls that wait fail, handlers under way are cancelled."""
        self._end("closed")
        for task in [*self._handlers, *([self._serving] if self._serving else [])]:
            if task is not asyncio.current_task():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._writer:
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def _send(self, message: Mapping[str, Any]) -> int:
        assert self._writer
        body = json.dumps(message, default=_plain, separators=(",", ":")).encode()
        if len(body) > MAX_FRAME:
            raise ValueError(f"a message of {len(body)} bytes is longer than the {MAX_FRAME} that may travel")
        self._writer.write(_LENGTH.pack(len(body)) + body)
        return len(body)

    async def _serve(self) -> None:
        assert self._reader
        reason = ""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                if length > MAX_FRAME:
                    raise ValueError(f"it announced {length} bytes")
                self._receive(json.loads(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"it sent what is no message ({error})"
        finally:
            self._end(reason)

    def _receive(self, message: dict[str, Any]) -> None:
        if "call" in message:
            self._called(message["id"], message["call"], message["args"])
        elif "notice" in message:
            handler = self._notices.get(message["notice"])
            if handler:
                handler(**message["args"])
        else:
            answer = self._waiting.get(message["id"])
            if answer is None or answer.done():
                return  # given up
            if "error" in message:
                answer.set_exception(decode_error(message["error"]))
            else:
                answer.set_result(message["result"])

    def _called(self, number: int, method: str, args: dict[str, Any]) -> None:
        if len(self._handlers) >= MAX_CALLS:
            self._answer(number, error=Busy("the called process", MAX_CALLS))
            return
        try:
            if method not in self._calls:
                raise LookupError(f"there is no call {method}")
            result = self._calls[method](**args)
        except Exception as error:
            self._answer(number, error=self._typed(method, args, error))
            return
        if not inspect.isawaitable(result):
            self._answer(number, result)
            return
        task = asyncio.ensure_future(self._handle(number, method, args, result))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _handle(self, number: int, method: str, args: dict[str, Any], work: Any) -> None:
        try:
            result = await work
        except Exception as error:
            self._answer(number, error=self._typed(method, args, error))
        else:
            self._answer(number, result)

    def _typed(self, method: str, args: Mapping[str, Any], error: Exception) -> PolycubeError:
        return error if isinstance(error, PolycubeError) else self._failure(method, args, error)

    def _answer(self, number: int, result: Any = None, error: PolycubeError | None = None) -> None:
        if self.closed:
            return
        try:
            self._send({"id": number, "error": encode_error(error)} if error else {"id": number, "result": result})
        except Exception as odd:  # what does not travel, or an error of an author that cannot even be described
            self._send({"id": number, "error": encode_error(_unexpected("answering", {}, odd))})

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.reason = reason
        self._closed.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(PeerGone(self.name, reason))
        if self._writer:
            self._writer.close()
