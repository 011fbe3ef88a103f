# SPDX-License-Identifier: Apache-2.0
"""Offload features of a netdev, by the ethtool ioctls.

The kernel keeps two words for a device: what is *wanted* and what is *active*; active also depends on the device and
on other features (segmentation offload goes when checksum offload goes, and when an XDP program is attached to a
veth's other end, but stays wanted and comes back). What is stored to be restored later is therefore the wanted bit.
Names are the kernel's own (`ethtool -k`), so one feature is one bit. The ioctls address a netdev by its name in the
namespace of the calling thread: for another namespace call from inside `netns.run_in`.
"""

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from polycube.net.errors import NoSuchNetdev, Refused

GRO = "rx-gro"
TX_CHECKSUM = "tx-checksum-ip-generic"
TX_CHECKSUM_SCTP = "tx-checksum-sctp"
TSO = "tx-tcp-segmentation"
GSO = "tx-generic-segmentation"
TX_VLAN = "tx-vlan-hw-insert"
TX_VLAN_STAG = "tx-vlan-stag-hw-insert"
RX_VLAN = "rx-vlan-hw-parse"

_FIELDS = {
    "gro": GRO,
    "tx_checksum": TX_CHECKSUM,
    "tx_checksum_sctp": TX_CHECKSUM_SCTP,
    "tso": TSO,
    "gso": GSO,
    "txvlan": TX_VLAN,
    "rxvlan": RX_VLAN,
}

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_SS_FEATURES = 4
_NAME_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of one netdev. `changeable`: the device lets the user switch it."""

    wanted: bool
    active: bool
    changeable: bool


@dataclass(frozen=True, slots=True)
class Offloads:
    """The offloads that matter to XDP, as they are active now."""

    gro: bool
    tx_checksum: bool
    tx_checksum_sctp: bool
    tso: bool
    gso: bool
    txvlan: bool
    rxvlan: bool


def get(ifname: str) -> Offloads:
    """The active offloads of a netdev."""
    found = features(ifname)
    return Offloads(**{field: name in found and found[name].active for field, name in _FIELDS.items()})


def set(ifname: str, **wanted: bool) -> dict[str, bool]:
    """Switch offloads by the names of `Offloads`; return those whose wanted bit changed, with their old values.

    What is returned undoes the change when given back: `set(ifname, **changed)`.
    """
    unknown = wanted.keys() - _FIELDS.keys()
    if unknown:
        raise TypeError(f"no offload is called {', '.join(sorted(unknown))}; there are {', '.join(_FIELDS)}")
    changed = set_features(ifname, {_FIELDS[field]: value for field, value in wanted.items()})
    return {field: changed[name] for field, name in _FIELDS.items() if name in changed}


def features(ifname: str) -> dict[str, Feature]:
    """All features of a netdev by the kernel's names."""
    with _ioctl(ifname) as call:
        names = _names(call)
        blocks = (len(names) + 31) // 32
        reply = call(struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks))
    found = {}
    for bit, name in enumerate(names):
        available, requested, active, never = struct.unpack_from("=IIII", reply, 8 + bit // 32 * 16)
        mask = 1 << bit % 32
        if name:
            found[name] = Feature(bool(requested & mask), bool(active & mask), bool(available & ~never & mask))
    return found


def set_features(ifname: str, wanted: Mapping[str, bool]) -> dict[str, bool]:
    """Switch features by the kernel's names; return the old values of those whose wanted bit changed.

    Features that this kernel or device does not have, or does not let anybody switch, are left out.
    """
    before = features(ifname)
    changes = {name: value for name, value in wanted.items() if name in before and before[name].changeable and before[name].wanted != value}
    if not changes:
        return {}
    with _ioctl(ifname) as call:
        names = _names(call)
        blocks = (len(names) + 31) // 32
        words = array.array("I", bytes(8 * blocks))
        for name, value in changes.items():
            bit = names.index(name)
            words[bit // 32 * 2] |= 1 << bit % 32
            words[bit // 32 * 2 + 1] |= value << bit % 32
        call(struct.pack("=II", _SFEATURES, blocks) + words.tobytes())
    return {name: before[name].wanted for name in changes}


class _Call:
    """ETHTOOL on one netdev: `struct ifreq` points at a buffer that starts with the command."""

    def __init__(self, sock: socket.socket, ifname: str) -> None:
        self._socket, self._ifname = sock, ifname

    def __call__(self, command: bytes) -> bytes:
        buffer = array.array("B", command)
        address, _ = buffer.buffer_info()
        request = struct.pack("16sP16x", self._ifname.encode(), address)
        try:
            fcntl.ioctl(self._socket, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise NoSuchNetdev(self._ifname) from None
            raise Refused(f"read or set the offloads of {self._ifname}", error.errno or 0) from None
        return buffer.tobytes()


@contextmanager
def _ioctl(ifname: str) -> Iterator[_Call]:
    if len(ifname.encode()) > 15:
        raise NoSuchNetdev(ifname)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield _Call(sock, ifname)


_known: tuple[str, ...] = ()


def _names(call: _Call) -> tuple[str, ...]:
    """The kernel's feature names; the position is the bit. They are the same for every device: asked for once."""
    global _known
    if not _known:
        count = struct.unpack_from("=I", call(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0)), 16)[0]
        reply = call(struct.pack("=III", _GSTRINGS, _SS_FEATURES, count) + bytes(_NAME_LENGTH * count))
        texts = (reply[12 + _NAME_LENGTH * i : 12 + _NAME_LENGTH * (i + 1)] for i in range(count))
        _known = tuple(text.split(b"\0", 1)[0].decode() for text in texts)
    return _known
