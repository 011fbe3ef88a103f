# SPDX-License-Identifier: Apache-2.0
"""One daemon a machine: a lock on a file that holds the pid. The kernel drops the lock with the process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import Self

from polycube.model import PolycubeError


class AlreadyRunning(PolycubeError):
    """Another daemon holds the lock."""

    status = 409

    def __init__(self, pid: str) -> None:
        self.pid = pid
        super().__init__(f"There is another polycube instance running with pid {pid}")


class PidFileFailed(PolycubeError):
    """The file cannot be written."""

    status = 500

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"cannot write the pidfile {path}: {reason}")


class PidFile:
    """The lock, between `acquire` and `release`. To be acquired after `daemonize`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> Self:
        """Takes the lock and writes the pid. Raises `AlreadyRunning` or `PidFileFailed`."""
        fd = self._lock()
        while not self._is(fd):  # its last owner removed it between opening and locking
            os.close(fd)
            fd = self._lock()
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd
        return self

    def release(self) -> None:
        """Removes the file while the lock is held, so that nobody else's is removed."""
        if self._fd >= 0:
            if self._is(self._fd):
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _lock(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise PidFileFailed(self.path, error.strerror or str(error)) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise AlreadyRunning(pid) from None
        return fd

    def _is(self, fd: int) -> bool:
        """Whether the path still leads to the locked file."""
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def daemonize() -> None:
    """Goes into the background: returns in a process that has no terminal. Before any thread or event loop."""
    for _ in range(2):
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork():
            os._exit(0)
        with contextlib.suppress(PermissionError):
            os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
