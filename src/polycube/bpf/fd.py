# SPDX-License-Identifier: Apache-2.0
"""What maps, programs and links have in common: an owned file descriptor, a pin, an info structure of the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from polycube.bpf.errors import BpfError
from polycube.bpf.lib import check, ffi, lib
from polycube.bpf.pin import check_name


class Handle:
    """Owns `fd`; closing it drops this process's reference, pins and attachments keep theirs."""

    kind = "object"

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Takes a pinned object."""
        return cls(check(lib.bpf_obj_get(str(path).encode()), f"open pinned {cls.kind} {path}"))

    @classmethod
    def find(cls, path: str | Path) -> Self | None:
        """The same, or None when nothing is pinned there."""
        fd = lib.bpf_obj_get(str(path).encode())
        return cls(fd) if fd >= 0 else None

    def dup(self) -> Self:
        return type(self)(os.dup(self.fd))

    def pin(self, path: str | Path) -> None:
        """Makes the object outlive its users, at a path in a bpffs."""
        check_name(Path(path).name)
        check(lib.bpf_obj_pin(self.fd, str(path).encode()), f"pin {self.kind} at {path}")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

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
        buffer = ffi.new("char[]", size)
        length = ffi.new("uint32_t *", size)
        check(lib.bpf_obj_get_info_by_fd(self.fd, buffer, length), f"info of {self.kind}")
        return bytes(ffi.buffer(buffer, size))


def dup_fd(fd: int, what: str) -> int:
    if fd < 0:
        raise BpfError(-fd, what)
    return os.dup(fd)


def name_of(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


