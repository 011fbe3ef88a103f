# SPDX-License-Identifier: Apache-2.0
"""What a user sees who has to wait: after a second a line on the terminal with what the daemon is doing, gone when it is done.

The line is on standard error, and only if that is a terminal. What the daemon is doing is asked of it on a connection of its own; one that
does not say is waited for all the same.
"""

from __future__ import annotations

import os
import sys
import time
from select import select

from polycube.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from polycube.cli.client import Client

FIRST, AGAIN = 1.0, 0.5  # seconds until the line comes, and until it is another
ERASE = "\r\x1b[K"


def wait(client: Client, connection: socket.socket, method: str, target: str) -> None:
    """Returns when an answer begins. Raises TimeoutError if it never does."""
    begun = time.monotonic()
    if not sys.stderr.isatty() or select([connection], [], [], FIRST)[0]:
        return
    try:
        while not select([connection], [], [], AGAIN)[0]:
            passed = time.monotonic() - begun
            if passed > client.timeout:
                raise TimeoutError
            line = f"{doing(client, method, target)} ({passed:.0f} s)"
            sys.stderr.write(ERASE + line[: width() - 1])
            sys.stderr.flush()
    finally:
        sys.stderr.write(ERASE)
        sys.stderr.flush()


def doing(client: Client, method: str, target: str) -> str:
    """What the daemon is at with this request."""
    path = target.removeprefix(client.target.base)
    try:
        found = client.asking().exchange("GET", f"{client.target.base}requests/", None).json()
    except CliError:
        found = None
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict) and (one.get("method"), one.get("path")) == (method, path) and one.get("step"):
            return str(one["step"])
    return "waiting for polycubed"


def width() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
