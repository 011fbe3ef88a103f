# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 to the daemon, one connection a request, over its unix socket or TCP.

Written on sockets because http.client and urllib cost more time to import than the request takes. One request is
sent with "Connection: close"; the answer's length is still honoured, so a server that keeps the connection open does
not keep us waiting, and a short answer is noticed. Redirects (a path that begins with a cube's name is sent on to its
service) repeat method and body.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress

from polycube.cli.errors import ConfigProblem, SyntaxProblem, Unreachable
from polycube.cli.patience import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from polycube.cli.config import Config

BASE = "/polycube/v1/"
REDIRECTS = 5
CONNECT_TIMEOUT = 5.0
SHORT = 1.0
ANSWER_TIMEOUT = 120.0  # creating a cube may compile; nothing takes longer


class Target:
    """Where requests go: a unix socket, or a host and port."""

    def __init__(self, url: str) -> None:
        self.url = url
        scheme, mark, rest = url.partition("://")
        self.scheme = scheme.lower()
        self.socket, self.host, self.port, self.base = "", "localhost", 0, BASE
        if self.scheme == "unix" and rest.startswith("/"):
            self.socket = rest
            return
        place, _, path = rest.partition("/")
        if not mark or self.scheme not in ("http", "https") or not place or "@" in place or not printable(place):
            raise ConfigProblem(f"the url {url!r} cannot be used, expected unix:///path, http://host:port or https://")
        host, colon, port = place.rpartition(":")
        if not colon or place.endswith("]"):
            host, port = place, "443" if self.scheme == "https" else "9000"
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigProblem(f"the url {url!r} cannot be used: {port!r} is not a port number")
        self.host, self.port = host.strip("[]"), int(port)
        if path:
            self.base = f"/{path.strip('/')}/"

    @property
    def authority(self) -> str:
        if self.socket:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Response:
    """The daemon's answer."""

    def __init__(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> object:
        """The body as data, or None when it is not JSON."""
        try:
            data: object = json.loads(self.body)
        except ValueError:
            return None
        return data


class Client:
    """Sends requests to the configured daemon."""

    def __init__(self, config: Config, timeout: float = ANSWER_TIMEOUT, patient: bool = True) -> None:
        self.config = config
        self.target = Target(config.url)
        self.timeout = timeout
        self.patient = patient  # says what it waits for
        if patient and config.cacert and self.target.scheme == "http":
            print("Warning: CACert defined but using http", file=sys.stderr)

    def request(self, method: str, path: str, body: bytes | None = None) -> Response:
        """Send one request; `path` is relative to the base path and already encoded."""
        target = self.target.base + path
        for _ in range(REDIRECTS + 1):
            self.debug(f"{method} {self.target.url} {target}" + (f" {body.decode()}" if body is not None else ""))
            response = self.exchange(method, target, body)
            self.debug(f"{response.status} {response.reason} {response.text}")
            location = response.headers.get("location")
            if response.status not in (301, 302, 307, 308) or not location:
                return response
            if response.status < 307 and method != "GET":
                return response  # by the letter these two may turn a POST into a GET
            target = own_path(location)
        raise Unreachable(f"the daemon at {self.target.url} redirects in a circle ({target})")

    def lines(self, path: str) -> Iterator[str]:
        """The lines of an answer that has no end, as they come, without their ends."""
        head = [f"GET {self.target.base}{path} HTTP/1.1", f"Host: {self.target.authority}", "User-Agent: polycubectl"]
        if self.config.token:
            head.append(f"Authorization: Bearer {self.config.token}")
        try:
            with self.connect() as connection, connection.makefile("rb") as stream:
                connection.sendall("\r\n".join([*head, "", ""]).encode("ascii"))
                status, reason, headers = read_head(stream)
                if status != 200:
                    raise Unreachable(Response(status, reason, headers, read_body(stream, status, headers)).text or f"{status} {reason}")
                rest = ""
                for chunk in chunks(stream):
                    *whole, rest = (rest + chunk.decode("utf-8", "replace")).split("\n")
                    yield from whole
        except (OSError, ValueError) as error:
            raise Unreachable(self.explain(error)) from None

    def asking(self) -> Client:
        """One for short questions while this one waits."""
        return Client(self.config, SHORT, patient=False)

    def debug(self, line: str) -> None:
        if self.config.debug:
            print(line, file=sys.stderr)

    def exchange(self, method: str, target: str, body: bytes | None) -> Response:
        headers = [f"{method} {target} HTTP/1.1", f"Host: {self.target.authority}", "Connection: close"]
        headers += ["Accept: application/json, text/plain;q=0.9, */*;q=0.8", "User-Agent: polycubectl"]
        if self.config.token:
            headers.append(f"Authorization: Bearer {self.config.token}")
        if body is not None:
            headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        message = "\r\n".join([*headers, "", ""]).encode("ascii") + (body or b"")
        try:
            with self.connect() as connection:
                with suppress(BrokenPipeError, ConnectionResetError):  # refused before it read all: the answer says why
                    connection.sendall(message)
                if self.patient:
                    wait(self, connection, method, target)
                with connection.makefile("rb") as stream:
                    status, reason, found = read_head(stream)
                    if status == 200 and is_binary(found):
                        connection.settimeout(None)  # it comes when it comes
                        pour(stream)
                        return Response(status, reason, found, b"")
                    return Response(status, reason, found, read_body(stream, status, found))
        except BrokenPipeError:  # of a program behind "|" that has seen enough
            raise
        except (OSError, ValueError) as error:
            raise Unreachable(self.explain(error)) from None

    def connect(self) -> socket.socket:
        if self.target.socket:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(min(CONNECT_TIMEOUT, self.timeout))
                connection.connect(self.target.socket)
            except OSError:
                connection.close()
                raise
        else:
            place = (self.target.host, self.target.port)
            connection = socket.create_connection(place, min(CONNECT_TIMEOUT, self.timeout))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.timeout)
        return self.secure(connection) if self.target.scheme == "https" else connection

    def secure(self, connection: socket.socket) -> socket.socket:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.config.cacert or None)
            if self.config.cert:
                context.load_cert_chain(self.config.cert, self.config.key)
        except OSError as error:
            connection.close()
            files = ", ".join(name for name in (self.config.cacert, self.config.cert, self.config.key) if name)
            raise ConfigProblem(f"cannot use the certificates ({files}): {error.strerror or error}") from None
        try:
            return context.wrap_socket(connection, server_hostname=self.target.host)
        except OSError:
            connection.close()
            raise

    def explain(self, error: Exception) -> str:
        """One sentence: where, why, and what to do about it."""
        place = self.target.socket or self.target.url
        if isinstance(error, TimeoutError):
            return f"polycubed at {place} does not answer (waited {self.timeout:g} s)"
        if isinstance(error, PermissionError) and self.target.socket:
            return f"no permission to use {place}: run as root{group_of(place)}"
        if isinstance(error, ConnectionResetError | ValueError) and not isinstance(error, UnicodeError):
            return f"polycubed at {place} ended the connection without a whole answer ({error})"
        sentence = f"cannot reach polycubed at {place} ({getattr(error, 'strerror', None) or error})"
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            sentence += "; start it with 'systemctl start polycubed', or as root with 'polycubed'"
        return sentence


def printable(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def own_path(location: str) -> str:
    """The path of a redirect. Its host is ignored: the daemon sends us elsewhere in itself, nowhere else."""
    scheme, mark, rest = location.partition("://")
    if mark and scheme.isalpha():
        location = "//" + rest
    if location.startswith("//"):
        location = "/" + location[2:].partition("/")[2]
    if not location.startswith("/") or not printable(location):
        raise Unreachable(f"the daemon redirects to {location!r}, which is not a path")
    return location


def group_of(path: str) -> str:
    """What lets others than root use the socket: its group, unless that is root's."""
    import grp

    try:
        number = os.stat(path).st_gid
        return f", or join the group '{grp.getgrgid(number).gr_name}'" if number else ""
    except (OSError, KeyError):
        return ", or join the group that owns the socket"


def is_binary(headers: dict[str, str]) -> bool:
    """Whether a body is neither text nor a JSON document, but for a program."""
    kind = headers.get("content-type", "text/plain").partition(";")[0]
    return not kind.startswith("text/") and not kind.endswith(("/json", "+json"))


def pour(stream: BinaryIO) -> None:
    """A chunked body to standard output, as it comes."""
    if sys.stdout.isatty():
        raise SyntaxProblem("what comes is not for a terminal: send it to a program or a file, as in `... | tcpdump -nr -`")
    for chunk in chunks(stream):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def read_head(stream: BinaryIO) -> tuple[int, str, dict[str, str]]:
    """Status, reason and headers, past interim answers."""
    headers: dict[str, str] = {}
    status, reason = 100, ""
    while 100 <= status < 200:
        first = read_line(stream)
        version, _, rest = first.partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise ValueError(f"it does not speak HTTP: {first[:40]!r}")
        status = int(code)
        headers = {}
        while line := read_line(stream):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
    return status, reason, headers


def read_body(stream: BinaryIO, status: int, headers: dict[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return b"".join(chunks(stream))
    if "content-length" in headers:
        return read_exactly(stream, int(headers["content-length"]))
    return stream.read()


def read_line(stream: BinaryIO) -> str:
    line = stream.readline(65536)
    if not line.endswith(b"\n"):
        raise ValueError("no answer" if not line else "the answer's head is cut off")
    return line.decode("latin-1").rstrip("\r\n")


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The parts of a chunked body, as they come."""
    while size := int(read_line(stream).partition(";")[0], 16):
        yield read_exactly(stream, size)
        read_line(stream)
    while read_line(stream):
        pass


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ValueError(f"{len(data)} of {size} bytes came")
    return data
