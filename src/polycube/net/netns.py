# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: run code in another one, name them, find the one a veth leads to.

A namespace belongs to a *thread*. Work elsewhere is done by a thread made for it, which enters the namespace, runs the
function and ends: the caller's thread never moves, so that nothing has to be moved back if something fails. Sockets
made inside stay in that namespace and may be handed out.

The kernel names the namespace of a veth's other end by a number that only means something in ours
(IFLA_LINK_NETNSID). There is no call from number to namespace, so `peer_namespace` asks for the number of every
namespace that has a name (/run/netns, Docker's folder) or a process in it, until one fits.
"""

import asyncio
import contextvars
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from polycube.net.errors import NamespaceExists, NoSuchNamespace, Refused
from polycube.net.rtnl import Rtnl

FOLDER = Path("/run/netns")
_FOLDERS = (FOLDER, Path("/run/docker/netns"))
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 0x1000, 0x4000, 0x100000, 2

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """An open namespace: `fd` keeps it alive, `inode` is its identity here, `path` says where it was found."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise NoSuchNamespace(path) from None
        self.inode = os.fstat(self.fd).st_ino

    @classmethod
    def named(cls, name: str) -> Self:
        """Open a namespace of `ip netns`."""
        return cls(FOLDER / name)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"Namespace({self.path!r}, inode={self.inode})"


Where = Namespace | int | str | Path


def current() -> int:
    """The identity of the calling thread's namespace: the inode of its file."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def run_in(where: Where, function: Callable[[], T]) -> T:
    """Run `function` in a namespace (open one, file descriptor, path, or name) and return or raise what it does.

    It runs in a thread of its own, which ends with it; the caller waits.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def body() -> None:
        try:
            _enter(where)
            outcome.append(context.run(function))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        try:
            raise failure[0]
        finally:
            failure.clear()  # else the exception's traceback would refer to itself through this frame
    return outcome[0]


async def call_in(where: Where | None, function: Callable[[], T]) -> T:
    """`run_in` for coroutines: the event loop goes on meanwhile. None is the caller's own namespace.

    That is not what `asyncio.to_thread` does: its threads stay in the namespace the process had when they were made.
    """
    if where is None:
        where = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    return await asyncio.to_thread(run_in, where, function)


def create(name: str) -> Namespace:
    """Make a named namespace as `ip netns add` does, with its loopback up, and open it."""
    path = _path(name)
    _share(FOLDER)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
    except FileExistsError:
        raise NamespaceExists(name) from None

    def body() -> None:
        _check(_libc.unshare(CLONE_NEWNET), f"create the network namespace {name}")
        set_loopback_up()
        _mount(f"/proc/self/task/{threading.get_native_id()}/ns/net", path, MS_BIND)

    try:
        _in_thread(body)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Namespace(path)


def anonymous() -> Namespace:
    """Make a namespace without a name, with its loopback up: it lives as long as something in it does, or the returned object is open."""

    def body() -> Namespace:
        _check(_libc.unshare(CLONE_NEWNET), "create a network namespace")
        set_loopback_up()
        return Namespace(f"/proc/self/task/{threading.get_native_id()}/ns/net")

    return run_in("/proc/thread-self/ns/net", body)


def delete(name: str) -> None:
    """Take a namespace's name away; the kernel ends it when no process and no file descriptor is left in it."""
    path = _path(name)
    if not path.exists():
        raise NoSuchNamespace(name)
    _libc.umount2(os.fsencode(path), MNT_DETACH)
    path.unlink(missing_ok=True)


def names() -> list[str]:
    """The named namespaces, sorted."""
    return sorted(os.listdir(FOLDER)) if FOLDER.is_dir() else []


def peer_namespace(netnsid: int) -> Namespace | None:
    """Find and open the namespace that ours knows by a number; None when no name and no process leads to it."""
    with Rtnl() as rtnl:
        return _search(lambda candidate: rtnl.netnsid(candidate.fd) == netnsid)


def by_inode(inode: int) -> Namespace | None:
    """Find and open a namespace by its identity; None when it is gone or nothing leads to it."""
    return _search(lambda candidate: candidate.inode == inode)


def _search(fits: Callable[[Namespace], bool]) -> Namespace | None:
    for path in _candidates():
        try:
            candidate = Namespace(path)
        except NoSuchNamespace:
            continue  # gone since it was listed
        with suppress(OSError):  # a file in the folder that is no namespace
            if fits(candidate):
                return candidate
        candidate.close()
    return None


def _candidates() -> Iterator[str]:
    """A path into every reachable namespace, each namespace once; names come first since they live longer."""
    paths = [str(path) for folder in _FOLDERS if folder.is_dir() for path in folder.iterdir()]
    paths += [f"/proc/{pid}/ns/net" for pid in ("thread-self", *filter(str.isdigit, os.listdir("/proc")))]
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if (key := (status.st_dev, status.st_ino)) not in seen:
            seen.add(key)
            yield path


def set_loopback_up() -> None:
    """Set the loopback of the calling thread's namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def _enter(where: Where) -> None:
    opened: Namespace | None = None
    if isinstance(where, str | Path):
        opened = where = Namespace(where if "/" in str(where) else FOLDER / where)
    fd = where.fd if isinstance(where, Namespace) else where
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"enter the network namespace {where}")
    finally:
        if opened is not None:
            opened.close()


def _in_thread(body: Callable[[], None]) -> None:
    run_in("/proc/thread-self/ns/net", body)


def _path(name: str) -> Path:
    if not name or "/" in name or name in (".", ".."):
        raise NoSuchNamespace(repr(name))
    return FOLDER / name


def _share(folder: Path) -> None:
    # As `ip netns`: the folder is a shared mount, so that a name deleted here vanishes in other mount namespaces too
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if _libc.mount(b"", os.fsencode(folder), b"none", MS_SHARED | MS_REC, None) != 0:
        _mount(str(folder), folder, MS_BIND | MS_REC)
        _mount("", folder, MS_SHARED | MS_REC)


def _mount(source: str, target: Path, flags: int) -> None:
    _check(_libc.mount(source.encode(), os.fsencode(target), b"none", flags, None), f"mount {target}")


def _check(result: int, action: str) -> None:
    if result != 0:
        raise Refused(action, ctypes.get_errno())
