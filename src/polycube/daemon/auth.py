# SPDX-License-Identifier: Apache-2.0
"""Who may do what over TCP.

There are three ways to be somebody: a token (`Authorization: Bearer`, RFC 6750), a client certificate (RFC 8446), or to be on this machine,
which lets read if the address is a loopback one. The unix socket does not come here: its permissions say who may use it.

Client certificates are checked in the TLS handshake: against an authority (`cacert`), or against a folder of certificates that are accepted
as they are (`cert-whitelist`). One that the authority signed and that lies in `cert-blacklist` is refused after the handshake, and one in
`cert-readonly` may only read. Folders hold PEM files of any name, and are read again for each connection, so that a certificate can be
withdrawn without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from polycube.model import PolycubeError

log = structlog.get_logger("polycubed")
PEM_END = "-----END CERTIFICATE-----"


class Role(StrEnum):
    """What one may do."""

    NOBODY = "nobody"
    READER = "reader"  # GET, HEAD, OPTIONS
    ADMIN = "admin"


class BadSecret(PolycubeError):
    """A file of tokens or certificates that can't be used."""


def tokens(path: Path) -> dict[str, Role]:
    """The tokens of a file by their digests: one `TOKEN ROLE` a line, `#` begins a comment. Only its owner may be able to read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise BadSecret(f"The token file {path} can be read by others than its owner: chmod 600 {path}")
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSecret(f"Cannot read the token file {path}: {error}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in (Role.READER, Role.ADMIN):
            raise BadSecret(f"{path}:{number} is no token and role: expected 'TOKEN reader' or 'TOKEN admin'")
        if len(words[0]) < 16:
            raise BadSecret(f"{path}:{number} is too short for a token: expected at least 16 characters")
        found[_digest(words[0])] = Role(words[1])
    return found


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def certificates(folder: Path) -> Iterator[bytes]:
    """The certificates (DER) in a folder's PEM files; files without any are passed over."""
    for path in sorted(folder.iterdir()):
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            continue
        for part in text.split(PEM_END)[:-1]:
            begin = part.find("-----BEGIN CERTIFICATE-----")
            if begin >= 0:
                yield ssl.PEM_cert_to_DER_cert(part[begin:] + PEM_END)


class Access:
    """The rules of one daemon. `anonymous`: what one may do without saying who one is."""

    def __init__(
        self,
        *,
        anonymous: Role = Role.NOBODY,
        token_file: Path | None = None,
        denied: Path | None = None,
        allowed: Path | None = None,
        readers: Path | None = None,
    ) -> None:
        self._anonymous = anonymous
        self._token_file = token_file
        self._tokens = tokens(token_file) if token_file else {}
        self._changed = token_file.stat().st_mtime_ns if token_file else 0
        self._denied, self._allowed, self._readers = denied, allowed, readers

    def of_certificate(self, certificate: bytes) -> Role:
        """The role of a client certificate that passed the handshake."""
        if self._denied and certificate in set(certificates(self._denied)):
            return Role.NOBODY
        if self._allowed and certificate not in set(certificates(self._allowed)):
            return Role.NOBODY
        if self._readers and certificate in set(certificates(self._readers)):
            return Role.READER
        return Role.ADMIN

    def of_request(self, scope: Scope) -> Role:
        """The role of who sends a request: the best of what the connection and the token give."""
        state: dict[str, Any] = scope.get("state") or {}
        given = state.get("role", self._anonymous)
        header = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"").decode("latin-1")
        kind, _, token = header.partition(" ")
        if not header:
            return Role(given)
        if kind.lower() != "bearer":
            return Role.NOBODY
        self._renew()
        digest = _digest(token.strip())
        role = next((role for known, role in self._tokens.items() if hmac.compare_digest(known, digest)), Role.NOBODY)
        return max(role, Role(given), key=list(Role).index) if role is not Role.NOBODY else Role.NOBODY

    def _renew(self) -> None:
        """Reads the file again if it changed; one that can't be used leaves the tokens that are known."""
        if self._token_file is None:
            return
        try:
            changed = self._token_file.stat().st_mtime_ns
            if changed != self._changed:
                self._tokens, self._changed = tokens(self._token_file), changed
        except (OSError, BadSecret) as error:
            log.error("the token file is not read again", reason=str(error))


def protocol(access: Access) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1, with the role that a client certificate gives in the state of each request."""

    class WithRole(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            ssl_object = transport.get_extra_info("ssl_object")
            certificate = ssl_object.getpeercert(binary_form=True) if ssl_object else None
            if certificate:
                role = access.of_certificate(certificate)
                self.app_state = {**self.app_state, "role": role}
                if role is Role.NOBODY:
                    log.warning("a client certificate was refused", address=str(transport.get_extra_info("peername")))
                    transport.abort()

    return WithRole


def server_context(cert: Path, key: Path, cacert: Path | None, allowed: Path | None, *, required: bool) -> Callable[..., ssl.SSLContext]:
    """What makes the TLS context: for uvicorn, and once beforehand so that bad files are told at the start."""

    def make(*_: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(cert, key)
            if cacert:
                context.load_verify_locations(cafile=cacert)
            elif allowed:
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # each is trusted as it is, whoever signed it
                for certificate in certificates(allowed):
                    context.load_verify_locations(cadata=certificate)
        except OSError as error:
            files = ", ".join(str(one) for one in (cert, key, cacert, allowed) if one)
            raise BadSecret(f"Cannot use the certificates ({files}): {error.strerror or error}") from None
        if cacert or allowed:
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context

    return make
