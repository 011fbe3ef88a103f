# SPDX-License-Identifier: Apache-2.0
"""The compiler process.

LLVM ends the process on some errors (a stack over 512 bytes for one), and takes 66 MB once imported. So it lives in a process of its
own, started by the first request that the cache cannot answer and kept while more come soon. Its death is an ordinary CompileError, whose
reason is the last thing it wrote to stderr; the next request gets a new process. It ends by itself after some time without work, and when
its owner is gone, also in the middle of work: the socket closes.

Protocol, over a socket pair, one request at a time: the owner sends a count and that many blobs (a recipe), the process answers a status
byte and one blob (the object, or a sentence). A blob is a length (u32) and its bytes. The first blob of a request names the job. Neither
clang nor kernel headers are needed, but for code of instances that comes as C (clang.py, in the owner's thread).
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import IO

from polycube.compiler import clang
from polycube.compiler.bitcode import Recipe, Spec, plain_bitcode, recipe
from polycube.compiler.cache import ObjectCache, generator_digest, key
from polycube.compiler.code import Code, CodeError, Diagnostic, Language
from polycube.compiler.errors import CompileError
from polycube.compiler.function import PACKAGE, Function, Hook, UnitSpec

TIMEOUT = 120.0
IDLE = 30.0  # seconds without a request, after which the process ends: LLVM takes 100 MB
OK, FAILED = b"\0", b"\1"
EMIT, COMBINE = b"emit", b"combine"
LENGTH = struct.Struct("<I")


def receive(peer: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; EOFError when the peer is gone."""
    parts = bytearray()
    while len(parts) < size:
        part = peer.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def receive_blob(peer: socket.socket) -> bytes:
    """A length and that many bytes."""
    (size,) = LENGTH.unpack(receive(peer, LENGTH.size))
    return receive(peer, size)


def blob(content: bytes) -> bytes:
    """What receive_blob reads."""
    return LENGTH.pack(len(content)) + content


def serve(peer: socket.socket) -> None:
    """The life of the compiler process: answers until its owner closes the socket."""
    from polycube.compiler import combine, unit

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner; the closed socket ends this process
    threading.Thread(target=_end_with, args=(peer,), daemon=True).start()
    waiting = select.poll()  # unlike select(), it takes any number: the socket has the one it has in its owner
    waiting.register(peer, select.POLLIN)
    while True:
        try:
            if not waiting.poll(IDLE * 1000):
                return
            (count,) = LENGTH.unpack(receive(peer, LENGTH.size))
            job, *blobs = [receive_blob(peer) for _ in range(count)]
        except (EOFError, ConnectionError):
            return
        try:
            answer = OK + blob(combine.combine(blobs) if job == COMBINE else unit.emit(Recipe.unpack(blobs)))
        except Exception as error:
            answer = FAILED + blob(str(error).encode())
        peer.sendall(answer)


def _end_with(owner: socket.socket) -> None:
    """Ends this process when the socket closes, whatever it is about: LLVM may have minutes to go, for nobody."""
    gone = select.poll()
    gone.register(owner, select.POLLRDHUP)
    gone.poll()
    os._exit(0)


class _Ended(RuntimeError):
    """The process ended; `killed`: by a signal from outside, not for what it was asked."""

    def __init__(self, reason: str, killed: bool) -> None:
        super().__init__(reason)
        self.killed = killed


class Compiler:
    """Emits objects of units. Safe to use from several threads; requests wait for one another."""

    def __init__(self, cache: ObjectCache | None = None, timeout: float = TIMEOUT, nice: int = 0) -> None:
        """`nice`: how far its process gives way to others, 0 to 19."""
        self.cache = cache
        self.timeout = timeout
        self.nice = nice
        self.started = 0  # processes so far
        self.requests = 0  # that the cache did not answer
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._stderr: IO[bytes] | None = None
        self._used = 0.0  # when it was asked last

    async def emit(self, function: Function, hook: Hook) -> bytes:
        """The object of a function's unit of one."""
        return await asyncio.to_thread(self.emit_sync, function, hook)

    async def emit_spec(self, spec: Spec) -> bytes:
        """The object of any unit, or of a helper such as the injector."""
        return await asyncio.to_thread(self.emit_spec_sync, spec)

    def emit_sync(self, function: Function, hook: Hook) -> bytes:
        """The same as `emit`, blocking."""
        return self.emit_spec_sync(UnitSpec(function, hook))

    def emit_spec_sync(self, spec: Spec) -> bytes:
        """The same as `emit_spec`, blocking."""
        blobs = recipe(spec, self.bitcode).pack()
        try:
            return self._cached(key(blobs), lambda: self._request(EMIT, blobs))
        except _Ended as error:
            raise CompileError(spec.title, spec.hook, str(error), passing=error.killed) from None
        except RuntimeError as error:
            raise CompileError(spec.title, spec.hook, str(error)) from None

    def expect(self, specs: Iterable[Spec]) -> None:
        """Starts the process, unless it runs or the cache will answer: these will be emitted in a moment. Blocking; never an error."""
        with suppress(CompileError, RuntimeError, OSError):
            if not all(self.cache and key(recipe(spec, self.bitcode).pack()) in self.cache for spec in specs):
                with self._lock:
                    self._start()

    def bitcode(self, function: Function, hook: Hook) -> bytes:
        """The bitcode of a function, with its instance's code linked in. Raises CodeError."""
        plain = plain_bitcode(function, hook)
        if not function.code:
            return plain
        blobs = [plain]
        for code in function.code:
            about = {name: getattr(code, name) for name in ("name", "language", "arguments", "exports", "swapped")} | {"hook": hook}
            blobs += [json.dumps(about).encode(), self._content(code, hook)]
        versions = [generator_digest(code) for code in function.code]
        try:
            return self._cached(key([COMBINE, *blobs, *versions]), lambda: self._request(COMBINE, blobs))
        except RuntimeError as error:
            number, _, reason = str(error).partition(" ")
            code = function.code[int(number) if number.isdigit() else 0]
            raise CodeError(code, hook, Diagnostic(reason if number.isdigit() else str(error))) from None

    def _content(self, code: Code, hook: Hook) -> bytes:
        if code.language is not Language.C:
            return code.text.encode()
        name = key([b"clang", clang.identity(), hook.encode(), code.name.encode(), code.text.encode()])
        return self._cached(name, lambda: clang.compile_c(code, hook))

    def _cached(self, name: str, make: Callable[[], bytes]) -> bytes:
        """From the cache, or made and kept."""
        found = self.cache.get(name) if self.cache else None
        if found is None:
            found = make()
            if self.cache:
                self.cache.put(name, found)
        return found

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, job: bytes, blobs: Sequence[bytes]) -> bytes:
        """Asks the process; RuntimeError with the reason if it refuses, dies or takes too long."""
        with self._lock:
            self.requests += 1
            peer = self._start()
            try:
                peer.sendall(LENGTH.pack(1 + len(blobs)) + b"".join(map(blob, [job, *blobs])))
                status = receive(peer, 1)
                answer = receive_blob(peer)
                self._used = time.monotonic()
            except TimeoutError:
                self._stop()
                raise RuntimeError(f"no result after {self.timeout:g} s") from None
            except (EOFError, OSError):
                raise self._ended() from None
            except BaseException:  # an answer nobody waited for must not be taken for that to the next request
                self._stop()
                raise
        if status != OK:
            raise RuntimeError(answer.decode(errors="replace").strip())
        return answer

    def _answers(self) -> bool:
        """Whether the process is sure to read: one that has been idle for long has ended, or is about to."""
        return time.monotonic() - self._used < IDLE / 2

    def _start(self) -> socket.socket:
        if self._process and (self._process.poll() is not None or not self._answers()):
            self._stop()
        if self._peer:
            return self._peer
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "polycube.compiler.process", str(theirs.fileno()), str(self.nice)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": path},
            )
        ours.settimeout(self.timeout)
        self._peer = ours
        self._used = time.monotonic()
        self.started += 1
        return ours

    def _ended(self) -> _Ended:
        """Why there was no answer."""
        process = self._process
        reason = self._stop()
        return _Ended(reason, process is not None and process.returncode == -signal.SIGKILL)

    def _stop(self) -> str:
        """Ends and forgets the process; returns what it said last."""
        reason = "the compiler process ended"
        if self._peer:
            self._peer.close()
        if self._process:
            try:
                status = self._process.wait(0.5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
            if status:
                reason += f" by signal {-status}" if status < 0 else f" with status {status}"
        if self._stderr:
            self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, self._stderr.tell() - 4096))
            reason = self._stderr.read().decode(errors="replace").strip() or reason
            self._stderr.close()
        self._process = self._peer = self._stderr = None
        return reason


if __name__ == "__main__":
    os.nice(int(sys.argv[2]))
    serve(socket.socket(fileno=int(sys.argv[1])))
