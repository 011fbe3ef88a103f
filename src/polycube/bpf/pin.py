# SPDX-License-Identifier: Apache-2.0
"""bpffs: where pins live. It is not mounted on every machine, and its contents end with the boot."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

from polycube.bpf.errors import BpfError

BPFFS = Path("/sys/fs/bpf")
_MAGIC = 0xCAFE4A11
_libc = ctypes.CDLL(None, use_errno=True)


class _Statfs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_long * 30)]


def is_bpffs(path: str | Path) -> bool:
    """Whether the path lies in a bpffs."""
    buffer = _Statfs()
    return bool(_libc.statfs(os.fsencode(path), ctypes.byref(buffer)) == 0 and buffer.f_type & 0xFFFFFFFF == _MAGIC)


def ensure_bpffs(path: str | Path = BPFFS) -> None:
    """Mounts a bpffs there unless one is. A folder that holds anything is left alone: it would be hidden."""
    if is_bpffs(path):
        return
    Path(path).mkdir(parents=True, exist_ok=True)
    if any(Path(path).iterdir()):
        raise BpfError(errno.ENOTEMPTY, f"mount bpffs at {path}", "name a folder in a bpffs, such as /sys/fs/bpf/polycube")
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700") != 0:
        raise BpfError(ctypes.get_errno(), f"mount bpffs at {path}")


def check_name(name: str) -> None:
    """bpffs refuses names with dots."""
    if not name or "." in name or "/" in name or len(name) > 255:
        raise ValueError(f"pin name {name!r}: expected up to 255 characters, neither dots nor slashes")


def remove(path: str | Path) -> None:
    """Removes a pin or a folder of pins; nothing happens if it isn't there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def listing(path: str | Path) -> list[str]:
    """Names in a folder of pins; none if it isn't there."""
    return sorted(entry.name for entry in Path(path).iterdir()) if Path(path).is_dir() else []
