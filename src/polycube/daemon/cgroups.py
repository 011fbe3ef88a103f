# SPDX-License-Identifier: Apache-2.0
"""Shares of the processors for workers, by control groups of version 2 (Documentation/admin-guide/cgroup-v2.rst).

Below the daemon's own group, which must be its alone (in a unit of systemd: Delegate=cpu), each service with a limit gets a group with
`cpu.max`, which its workers enter before they run any code of the service. A group that hands controllers on holds no processes, hence the
daemon itself goes into one, too. Where that can't be done nothing is changed, and `NotDelegated` says why.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from polycube.model import PolycubeError

OWN = "polycubed"
PERIOD = 100_000  # microseconds, the kernel's default: within each, a group runs so long and waits for the next one


class NotDelegated(PolycubeError):
    """There is no group in which the daemon could limit its workers."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"processor time can't be limited: {reason}")


class Cgroups:
    """The groups of workers, below one that is the daemon's."""

    def __init__(self, root: Path) -> None:
        """`root`: the daemon's group. To be made before the daemon has other processes. Raises `NotDelegated`."""
        self._root = root.parent if root.name == OWN else root  # as DelegateSubgroup= of systemd has it
        if "cpu" not in _read(self._root / "cgroup.controllers").split():
            raise NotDelegated(f"the cgroup {self._root} has no cpu controller")
        own = self._root / OWN
        try:
            own.mkdir(exist_ok=True)
            _enter(own)
            (self._root / "cgroup.subtree_control").write_text("+cpu")
        except OSError as error:
            self._leave()
            raise NotDelegated(f"the cgroup {self._root} is not the daemon's alone ({error.strerror})") from None

    def limit(self, service: str, percent: int) -> None:
        """Makes the group of a service, or changes its limit; per cent of one processor."""
        group = self._group(service)
        group.mkdir(exist_ok=True)
        (group / "cpu.max").write_text(f"{percent * PERIOD // 100} {PERIOD}")

    def enter(self, service: str, pid: int) -> None:
        """Puts a process into the group of a service."""
        _enter(self._group(service), pid)

    def throttled(self, service: str) -> float:
        """Seconds for which the service was kept waiting; 0 if it has no group."""
        lines = dict(line.split() for line in _read(self._group(service) / "cpu.stat").splitlines())
        return int(lines.get("throttled_usec", 0)) / 1e6

    def remove(self, service: str) -> None:
        """Removes the group of a service, if no process is left in it."""
        with contextlib.suppress(OSError):
            self._group(service).rmdir()

    def close(self) -> None:
        """All is as it was found."""
        with contextlib.suppress(OSError):
            (self._root / "cgroup.subtree_control").write_text("-cpu")
        self._leave()

    def _group(self, service: str) -> Path:
        return self._root / f"worker-{service}"

    def _leave(self) -> None:
        with contextlib.suppress(OSError):
            _enter(self._root)
            (self._root / OWN).rmdir()


def own() -> Path:
    """The group of this process. Raises `NotDelegated`."""
    mounts = [line.split() for line in _read(Path("/proc/self/mountinfo")).splitlines()]
    place = next(((fields[3], fields[4]) for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"), None)
    path = next((line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::/")), None)
    if place is None or path is None:
        raise NotDelegated("no cgroup2 is mounted here")
    shown, mounted = place  # which part of the hierarchy a mount shows
    relative = os.path.relpath(path, shown)
    if relative.startswith(".."):
        raise NotDelegated(f"the cgroup {path} is not below {mounted}")
    group = Path(mounted, relative)
    if not (group / "cgroup.procs").exists():
        raise NotDelegated(f"the cgroup2 mounted at {mounted} is hidden by another mount")
    return group


def _enter(group: Path, pid: int = 0) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
