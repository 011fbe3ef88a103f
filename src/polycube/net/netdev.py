# SPDX-License-Identifier: Apache-2.0
"""A netdev as the kernel describes it in one RTM_NEWLINK message, turned into a value.

Addresses are no part of that message; who builds a `Netdev` gives those it knows from RTM_NEWADDR. The other end of a
veth stands in IFLA_LINK; IFLA_LINK_NETNSID beside it says that it lives in another namespace, by that namespace's
number as *ours* counts (see `polycube.net.netns`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from polycube.net.addr import Interface, Mac

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_LOWER_UP = 0x10000

_RUNNING = {"UP", "UNKNOWN"}
_XDP_MODES = {
    "xdp": "native",
    "xdpgeneric": "generic",
    "xdpoffload": "offload",
    "xdpmulti": "multi",
    1: "native",
    2: "generic",
    3: "offload",
    4: "multi",
}


@dataclass(frozen=True, slots=True)
class Xdp:
    """What sits at a netdev's XDP hook: `mode` is native, generic, offload or multi (several modes at once)."""

    mode: str
    prog_id: int


@dataclass(frozen=True, slots=True)
class Netdev:
    """One network device of one namespace at one moment."""

    ifindex: int
    name: str
    kind: str = ""  # veth, tun, bridge, vxlan …; "" for hardware and the loopback
    mac: Mac = Mac.ZERO
    mtu: int = 0
    up: bool = False  # set up by the administrator
    running: bool = False  # and able to carry frames: a veth runs when both ends are up
    loopback: bool = False
    peer_ifindex: int | None = None  # of a veth: its other end, in that end's namespace
    peer_netnsid: int | None = None  # None when the other end is in the same namespace
    xdp: Xdp | None = None
    master: int | None = None  # ifindex of the bridge or bond it belongs to
    addresses: tuple[Interface, ...] = ()
    alias: str = ""  # free text, for people and for marks

    def __str__(self) -> str:
        return self.name


def netdev_of(message: Any, addresses: Iterable[Interface] = ()) -> Netdev:
    """Make a `Netdev` of a pyroute2 link message."""
    flags = message["flags"]
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""
    peer = netnsid = None
    if kind == "veth":
        netnsid = message.get_attr("IFLA_LINK_NETNSID")
        peer = message.get_attr("IFLA_LINK")
        if peer is None and netnsid is not None:
            peer = message["index"]  # older kernels leave IFLA_LINK out when both ends have the same number
    return Netdev(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME") or "",
        kind=kind,
        mac=_mac(message.get_attr("IFLA_ADDRESS")),
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_LOWER_UP) and message.get_attr("IFLA_OPERSTATE") in _RUNNING,
        loopback=bool(flags & IFF_LOOPBACK),
        peer_ifindex=peer or None,
        peer_netnsid=netnsid,
        xdp=_xdp(message.get_attr("IFLA_XDP")),
        master=message.get_attr("IFLA_MASTER"),
        addresses=tuple(addresses),
        alias=message.get_attr("IFLA_IFALIAS") or "",
    )


def address_of(message: Any) -> Interface:
    """Make an address with prefix of a pyroute2 address message; of a point-to-point link the own side."""
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ip_interface(f"{text}/{message['prefixlen']}")


def _mac(text: str | None) -> Mac:
    # Tunnels have a 4 or 16 byte address here, tun devices none
    return Mac.parse(text) if text and len(text) == 17 else Mac.ZERO


def _xdp(nest: Any) -> Xdp | None:
    if nest is None:
        return None
    mode = _XDP_MODES.get(nest.get_attr("IFLA_XDP_ATTACHED"))
    if mode is None:
        return None
    prog_id = nest.get_attr("IFLA_XDP_PROG_ID") or nest.get_attr("IFLA_XDP_DRV_PROG_ID")
    return Xdp(mode, prog_id or nest.get_attr("IFLA_XDP_SKB_PROG_ID") or 0)
