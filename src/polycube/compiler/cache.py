# SPDX-License-Identifier: Apache-2.0
"""Emitted objects on disk, by content.

The key is a digest of all that goes into an object: its recipe, the emitter's own source, and the version of llvmlite. Bitcode that is made
at run time (code.py) is kept in the same way. So an entry is never stale, only unused: the least recently used go when the folder holds
more than its bound. An entry begins with the digest of what follows; a damaged one is a miss and is removed. Writes are atomic, and
several processes may share a folder. A cache that cannot be read or written costs time, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from polycube.compiler.code import Code, Language
from polycube.compiler.function import COMPILER

FOLDER = Path("/var/cache/polycube")
BOUND = 256 << 20
MAGIC = b"PCNOBJ1\n"
HEADER = len(MAGIC) + hashlib.sha256().digest_size


@lru_cache(1)
def emitter() -> bytes:
    """What tells one emitter from another."""
    sources = [(COMPILER / name).read_bytes() for name in ("unit.py", "combine.py")]
    return hashlib.sha256(b"".join([*sources, version("llvmlite").encode()])).digest()


def key(recipe: Sequence[bytes]) -> str:
    """The name under which the object made by this recipe is kept."""
    digest = hashlib.sha256(MAGIC + emitter())
    for blob in recipe:
        digest.update(hashlib.sha256(blob).digest())
    return digest.hexdigest()


@lru_cache(32)
def generator_digest(code: Code) -> bytes:
    """What a generator's result depends on beside its arguments: the Python of its folder. Nothing of other code."""
    if code.language is not Language.GENERATOR:
        return b""
    found = find_spec(code.text.partition(":")[0])
    folder = Path(found.origin).parent if found and found.origin else Path()
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


class ObjectCache:
    """A folder of objects, bounded in bytes."""

    def __init__(self, folder: Path = FOLDER, bound: int = BOUND) -> None:
        self.folder = folder
        self.bound = bound

    def path(self, name: str) -> Path:
        """Where an entry lies."""
        return self.folder / f"{name}.bpf.o"

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists()

    def get(self, name: str) -> bytes | None:
        """The object, or None. Marks it as used."""
        path = self.path(name)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        payload = content[HEADER:]
        if content[:HEADER] != MAGIC + hashlib.sha256(payload).digest():
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return payload

    def put(self, name: str, payload: bytes) -> None:
        """Keeps an object, then makes room."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, self.path(name))
            except OSError:
                os.unlink(temporary)
                raise
            self.trim(keep=self.path(name))

    def trim(self, keep: Path | None = None) -> None:
        """Removes the least recently used entries, `keep` excepted, until the rest fits the bound."""
        entries = []
        for path in self.folder.glob("*.bpf.o"):
            with contextlib.suppress(OSError):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.bound:
                return
            if path != keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size
