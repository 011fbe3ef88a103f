# SPDX-License-Identifier: Apache-2.0
"""The fork server: a small process that has imported what every worker needs, and forks one when asked.

A worker starts in milliseconds and shares these pages with the others. It runs no threads and no event loop, so that forking is safe.
Its socket (SOCK_SEQPACKET) carries one JSON object a message: a request `{"number", "settings"}` with two file descriptors, the worker's
socket and its stderr; the answer `{"number", "pid"}` with a pidfd; and, whenever a worker ended, `{"ended": pid, "status": how}`. It ends
when the daemon closes its end; workers see that by their own sockets.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

# structlog would import it for its console output, 4 MB in every worker; a service may still import it itself
sys.modules["rich"] = None  # type: ignore[assignment]
from polycube.core import collector, worker  # noqa: E402

del sys.modules["rich"]

MESSAGE = 1 << 16


def serve(control: socket.socket) -> None:
    """Until the daemon is gone."""
    wakeup, waker = socket.socketpair()
    for end in (wakeup, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    collector.relax()
    gc.collect()
    gc.freeze()  # keeps the collector from writing to the shared pages
    while True:
        readable, _, _ = select.select([control, wakeup], [], [])
        if wakeup in readable:
            wakeup.recv(4096)
            _reap(control)
        if control in readable:
            message, fds, _, _ = socket.recv_fds(control, MESSAGE, 8)
            if not message:
                return
            _spawn(control, json.loads(message), fds, (wakeup, waker))


def _spawn(control: socket.socket, request: dict[str, Any], fds: list[int], private: tuple[socket.socket, ...]) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            for one in private:
                one.close()
            channel, errors = fds
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            os.close(errors)
            worker.main(socket.socket(fileno=channel), worker.WorkerSettings(**request["settings"]))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for fd in fds:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(control, [json.dumps({"number": request["number"], "pid": pid}).encode()], [pidfd])
    os.close(pidfd)


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.send(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def main() -> None:
    """`python -m polycube.core.zygote FD`."""
    os.setsid()  # a terminal's signals are for the daemon
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            serve(control)
        except (BrokenPipeError, ConnectionError):
            return


if __name__ == "__main__":
    main()
