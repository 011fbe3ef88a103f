# SPDX-License-Identifier: Apache-2.0
"""What can go wrong below the topology, as sentences.

Every class fills in its own sentence and carries the fields it is made of, the errno of the kernel (0 where there is
none) and the HTTP status an API gives it, so that no caller has to write the text a second time.
"""

import os


class NetError(Exception):
    """The family of all errors of this layer."""

    status = 500
    errno = 0


class InvalidAddress(NetError, ValueError):
    """A text or byte string is no address of the expected kind."""

    status = 400

    def __init__(self, kind: str, value: object, expected: str) -> None:
        self.kind, self.value, self.expected = kind, value, expected
        super().__init__(f"{value!r} is not a {kind}; expected {expected}")


class NoSuchNetdev(NetError, LookupError):
    """The namespace has no netdev of that name or ifindex."""

    status = 404

    def __init__(self, netdev: str | int) -> None:
        self.netdev = netdev
        super().__init__(f"there is no netdev {netdev if isinstance(netdev, str) else f'with ifindex {netdev}'}")


class NoSuchNamespace(NetError, LookupError):
    """The namespace's file does not exist or is no network namespace."""

    status = 404

    def __init__(self, namespace: object) -> None:
        self.namespace = namespace
        super().__init__(f"there is no network namespace {namespace}")


class NamespaceExists(NetError):
    """A named namespace was to be created twice."""

    status = 409

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the network namespace {name} exists already")


class Refused(NetError):
    """The kernel refused a request; `action` says which, `errno` why."""

    status = 409

    def __init__(self, action: str, errno: int, detail: str = "") -> None:
        self.action, self.errno, self.detail = action, errno, detail
        super().__init__(f"cannot {action}: {detail or os.strerror(errno)}")
