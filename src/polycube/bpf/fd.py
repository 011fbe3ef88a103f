# SPDX-License-Identifier: Apache-2.0
"""What maps, programs and links have in common: an owned file descriptor, a pin, an info structure of the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Self

from polycube.bpf.errors import BpfError
from polycube.bpf.lib import check, ffi, lib
from polycube.bpf.pin import check_name

_KINDS = {"bpf-map": "map", "bpf-prog": "program", "bpf_link": "link", "bpf-link": "link"}


class Handle:
    """Owns `fd`; closing it drops this process's reference, pins and attachments keep theirs."""

    kind = "object"

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Takes a pinned object."""
        return cls(_of_kind(cls.kind, check(lib.bpf_obj_get(os.fsencode(path)), f"open pinned {cls.kind} {path}"), path))

    @classmethod
    def find(cls, path: str | Path) -> Self | None:
        """The same, or None when nothing is pinned there."""
        fd = lib.bpf_obj_get(os.fsencode(path))
        if fd in (-errno.ENOENT, -errno.ENOTDIR):
            return None
        return cls(_of_kind(cls.kind, check(fd, f"open pinned {cls.kind} {path}"), path))

    def dup(self) -> Self:
        return type(self)(dup_fd(self.fd, f"duplicate {self.kind}"))

    def pin(self, path: str | Path) -> None:
        """Makes the object outlive its users, at a path in a bpffs."""
        check_name(Path(path).name)
        check(lib.bpf_obj_pin(self.fd, os.fsencode(path)), f"pin {self.kind} at {path}")

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            try:
                os.close(self.fd)
            except OSError:
                return

    def _info(self, size: int) -> bytes:
        # A kernel with a shorter structure takes the rest for zeros, one with a longer structure cuts it.
        buffer = ffi.new("char[]", size)
        length = ffi.new("uint32_t *", size)
        check(lib.bpf_obj_get_info_by_fd(self.fd, buffer, length), f"info of {self.kind}")
        return bytes(ffi.buffer(buffer, size))


def dup_fd(fd: int, what: str) -> int:
    if fd < 0:
        raise BpfError(errno.EBADF, what)
    return os.dup(fd)


def name_of(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def _of_kind(kind: str, fd: int, path: str | Path) -> int:
    """Refuses a pin of another kind, whose info would be read as nonsense."""
    try:
        found = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]")
    except OSError:  # no /proc
        return fd
    if _KINDS.get(found, kind) != kind:
        os.close(fd)
        raise BpfError(errno.EINVAL, f"open pinned {kind} {path}", f"it is a {_KINDS[found]}")
    return fd
