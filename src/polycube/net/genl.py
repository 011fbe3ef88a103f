# SPDX-License-Identifier: Apache-2.0
"""What only the `netdev` family of generic netlink tells about a netdev: NAPI, and whether XDP may redirect into it.

A veth takes frames that XDP redirects into it when its other end runs NAPI *and* the veth carries the mark of a
redirect target. The mark (Linux 6.3) and the list of NAPI instances (6.8) are in no rtnetlink message. Kernels that
do not know them answer None.
"""

import struct
import sys

from polycube.net.rtnl import NLM_F_ACK, NLM_F_DUMP, Rtnl

_NETLINK_GENERIC = 16
_CONTROLLER, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_DEV_GET, _DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 1, 3
_NAPI_GET, _NAPI_IFINDEX = 11, 1
_NDO_XMIT = 4
_HEADERS = 20  # netlink's and generic netlink's


def napi_count(ifindex: int) -> int | None:
    """How many NAPI instances a netdev of the calling thread's namespace runs."""
    answers = _query(_NAPI_GET, _NAPI_IFINDEX, ifindex, NLM_F_DUMP)
    return None if answers is None else len(answers)


def is_redirect_target(ifindex: int) -> bool | None:
    """Whether a netdev of the calling thread's namespace takes frames that XDP redirects into it."""
    for message in _query(_DEV_GET, _DEV_IFINDEX, ifindex, NLM_F_ACK) or ():
        value = _attribute(message, _DEV_XDP_FEATURES)
        if value is not None:
            return bool(int.from_bytes(value, sys.byteorder) & _NDO_XMIT)
    return None


def _query(command: int, attribute: int, ifindex: int, flags: int) -> list[bytes] | None:
    with Rtnl(_NETLINK_GENERIC) as generic:
        try:
            name = b"netdev\0"
            query = struct.pack("=BBHHH", _GETFAMILY, 1, 0, 4 + len(name), _FAMILY_NAME) + name.ljust(8, b"\0")
            family = _attribute(generic.request(_CONTROLLER, query)[0][1], _FAMILY_ID)
            if family is None:
                return None
            query = struct.pack("=BBHHHI", command, 1, 0, 8, attribute, ifindex)
            return [data for _, data in generic.request(int.from_bytes(family, sys.byteorder), query, flags)]
        except OSError:
            return None


def _attribute(message: bytes, wanted: int) -> bytes | None:
    offset = _HEADERS
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if kind == wanted:
            return message[offset + 4 : offset + length]
        offset += (max(length, 4) + 3) & ~3
    return None
