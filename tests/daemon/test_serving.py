# SPDX-License-Identifier: Apache-2.0
"""The sockets, with real TLS: who gets in, and as what. Certificates are made by openssl."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from polycube.daemon.auth import BadSecret, tokens
from polycube.daemon.config import ConfigError, Options, load
from polycube.daemon.serving import CannotListen, Door, is_loopback, serve, tcp_socket, watchdog


def openssl(*words: str, cwd: Path) -> None:
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca`, certificates signed by it, and one (`stranger`) that signed itself."""
    folder = tmp_path_factory.mktemp("secrets")
    own = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl(*own, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", cwd=folder)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "alice", "bob"):
        new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", cwd=folder)
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        openssl(*sign, "-extfile", "names", "-out", f"{name}.pem", cwd=folder)
    for name in ("alice", "bob", "stranger"):
        (folder / f"only-{name}").mkdir()
        (folder / f"only-{name}" / "one.pem").write_text((folder / f"{name}.pem").read_text())
    (folder / "tokens").write_text("a-token-of-an-admin admin\n")
    (folder / "tokens").chmod(0o600)
    return folder


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(port: int, method: str, secrets: Path, who: str = "", token: str = "", plain: bool = False) -> int:
    """The status of the answer; 0: the connection was refused."""
    context = None
    if not plain:
        context = ssl.create_default_context(cafile=str(secrets / "ca.pem"))
        if who:
            context.load_cert_chain(secrets / f"{who}.pem", secrets / f"{who}.key")
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return 0
    try:
        header = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n".encode())
        line = await reader.readline()
    except (ssl.SSLError, ConnectionError):
        return 0
    finally:
        writer.close()
    return int(line.split()[1]) if line else 0


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("localhost", port)
    except ConnectionError:
        return False
    writer.close()
    return True


def served(tmp_path: Path, secrets: Path, options: list[str], scene: Callable[[int], object]) -> None:
    """Runs a scene against the sockets."""
    port = free_port()
    given = [f"--socket={tmp_path / 'd.sock'}", f"--port={port}", "--addr=127.0.0.1", *(one.replace("@", f"{secrets}/") for one in options)]
    loaded = load(given, tmp_path / "none.conf").options
    app = Starlette(routes=[Route("/", hello, methods=["GET", "POST"])])

    async def run() -> None:
        done = asyncio.Event()
        serving = asyncio.create_task(serve(loaded, Door.of(loaded), app, lambda: done.wait()))  # type: ignore[arg-type]
        while not (tmp_path / "d.sock").exists() or not await listens(port):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await scene(port)  # type: ignore[misc]
        done.set()
        await serving

    asyncio.run(asyncio.wait_for(run(), 30))
    assert not (tmp_path / "d.sock").exists()


SERVER = ["--cert=@server.pem", "--key=@server.key"]


def test_without_secrets_this_machine_may_read(tmp_path: Path, secrets: Path) -> None:
    async def scene(port: int) -> None:
        assert await ask(port, "GET", secrets, plain=True) == 200
        assert await ask(port, "POST", secrets, plain=True) == 403
        reader, writer = await asyncio.open_unix_connection(tmp_path / "d.sock")
        writer.write(b"POST / HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()

    served(tmp_path, secrets, [], scene)


def test_an_authority_lets_its_clients_in_but_those_refused(tmp_path: Path, secrets: Path) -> None:
    async def scene(port: int) -> None:
        assert await ask(port, "POST", secrets, "alice") == 200
        assert await ask(port, "GET", secrets, "bob") == 0
        assert await ask(port, "GET", secrets, "stranger") == 0
        assert await ask(port, "GET", secrets) == 0
        assert await ask(port, "GET", secrets, plain=True) == 0

    served(tmp_path, secrets, [*SERVER, "--cacert=@ca.pem", "--cert-blacklist=@only-bob"], scene)


def test_a_folder_of_certificates_needs_no_authority(tmp_path: Path, secrets: Path) -> None:
    async def scene(port: int) -> None:
        assert await ask(port, "POST", secrets, "stranger") == 200
        assert await ask(port, "GET", secrets, "alice") == 0

    served(tmp_path, secrets, [*SERVER, "--cert-whitelist=@only-stranger"], scene)


def test_a_certificate_may_be_for_reading_only(tmp_path: Path, secrets: Path) -> None:
    async def scene(port: int) -> None:
        assert await ask(port, "GET", secrets, "bob") == 200
        assert await ask(port, "POST", secrets, "bob") == 403
        assert await ask(port, "POST", secrets, "alice") == 200

    served(tmp_path, secrets, [*SERVER, "--cacert=@ca.pem", "--cert-readonly=@only-bob"], scene)


def test_tokens_go_over_tls_without_certificates_of_clients(tmp_path: Path, secrets: Path) -> None:
    async def scene(port: int) -> None:
        assert await ask(port, "POST", secrets, token="a-token-of-an-admin") == 200
        assert await ask(port, "POST", secrets, token="no-token-of-an-admin") == 401
        assert await ask(port, "GET", secrets) == 200  # from this machine

    served(tmp_path, secrets, [*SERVER, "--tokens=@tokens"], scene)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--cert=@server.pem"], "cert and key go together"),
        (SERVER, "cert needs cacert, cert-whitelist or tokens"),
        (["--cacert=@ca.pem"], "cacert needs cert and key"),
        ([*SERVER, "--cacert=@ca.pem", "--cert-whitelist=@only-bob"], "cacert and cert-whitelist exclude each other"),
        ([*SERVER, "--cert-whitelist=@only-bob", "--cert-blacklist=@only-bob"], "cert-whitelist and cert-blacklist exclude"),
        ([*SERVER, "--tokens=@tokens", "--cert-readonly=@only-bob"], "cert-readonly needs cacert or cert-whitelist"),
        ([*SERVER, "--cacert=@ca.pem", "--cert-blacklist=@nothing"], "which is no folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, secrets: Path, given: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load([one.replace("@", f"{secrets}/") for one in given], tmp_path / "none.conf")


def test_files_that_cannot_be_used_are_told_before_anything_is_answered(tmp_path: Path, secrets: Path) -> None:
    given = [f"--cert={secrets}/server.pem", f"--key={secrets}/alice.key", f"--cacert={secrets}/ca.pem"]
    with pytest.raises(BadSecret, match=r"Cannot use the certificates \(.*server.pem.*alice.key"):
        Door.of(load(given, tmp_path / "none.conf").options)


@pytest.mark.parametrize(
    ("text", "mode", "sentence"),
    [
        ("a-token-of-an-admin admin", 0o644, "can be read by others"),
        ("a-token-of-an-admin", 0o600, "tokens:1 is no token and role"),
        ("a-token-of-an-admin root", 0o600, "expected 'TOKEN reader' or 'TOKEN admin'"),
        ("\nshort admin", 0o600, "tokens:2 is too short"),
    ],
)
def test_token_files_are_checked(tmp_path: Path, text: str, mode: int, sentence: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(BadSecret, match=sentence):
        tokens(file)


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.0.2.1", "host.example")))


def test_systemd_is_told_that_the_loop_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")

        manager.setblocking(False)

        async def scene() -> None:
            task = asyncio.create_task(watchdog())
            for _ in range(2):
                assert await asyncio.get_running_loop().sock_recv(manager, 100) == b"WATCHDOG=1"
            task.cancel()

        asyncio.run(asyncio.wait_for(scene(), 10))
    os.unlink(tmp_path / "notify")


def test_an_address_that_is_not_to_be_had_is_named() -> None:
    with tcp_socket(Options(port=0)) as free:
        host, port = free.getsockname()
        assert host == "127.0.0.1"
        for options, words in ((Options(port=port), f"localhost:{port}"), (Options(addr="203.0.113.1"), "203.0.113.1:9000")):
            with pytest.raises(CannotListen, match=f"cannot listen at {words}: "):
                tcp_socket(options)
