# SPDX-License-Identifier: Apache-2.0
"""What a netdev needs before frames may reach and leave it by native XDP, set and put back.

A veth is the only kind with needs, and they concern its *other end*, often in somebody else's namespace:

- frames redirected into the veth vanish in silence unless the other end receives by NAPI, which it does when it has an
  XDP program or GRO is on;
- frames the other end sends have unfinished checksums (and are up to 64 KB long), counting on the veth to carry that
  knowledge. XDP drops it, so checksum offload has to be off there. Segmentation offload follows by itself: the kernel
  ties it to checksum offload, and what is only *wanted* comes back by itself;
- VLAN tags travel beside the frame and are lost, unless the other end puts them into the bytes.

`plan` reads and changes nothing; its result is data. Store it (`to_json`), then `apply` it, and `restore` it one day,
perhaps in another process: a setting is put back only where the device still is and still has what was set here, so
that restoring a plan carried out half, twice or not at all does no harm. `apply` may be repeated as well, and has to be
when the other end was down at first: GRO switched on while a link is down does not count in full (see `_renew_gro`).
Our end starts to run then, which is an event (`LinkChanged`); `is_ready` tells whether it is needed.
All of this is a few system calls which wait for the kernel's netlink lock: call it through
`netns.call_in(None, …)` from coroutines. Our end is always looked for in the calling thread's namespace.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

from polycube.net import ethtool, genl, netns
from polycube.net.errors import NetError
from polycube.net.netdev import Netdev
from polycube.net.rtnl import Rtnl

T = TypeVar("T")

NEEDED = {
    ethtool.TX_CHECKSUM: False,
    ethtool.TX_CHECKSUM_SCTP: False,
    ethtool.TX_VLAN: False,
    ethtool.TX_VLAN_STAG: False,
    ethtool.GRO: True,  # last: from here on frames arrive
}

# 4 KB page - 256 headroom - 320 struct skb_shared_info - Ethernet header: what a program without frags takes
SINGLE_BUFFER_MTU = 3506


@dataclass(frozen=True, slots=True)
class End:
    """Where a netdev is: enough to find it again, and to see that a reused ifindex is another one."""

    netns: int  # inode
    netns_hint: str  # path by which it was found, for people
    ifindex: int
    ifname: str
    mac: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One feature of one netdev: what it was and what it has to be."""

    end: End
    feature: str
    old: bool
    new: bool


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a netdev needs: settings to make (none if all is well already), and remarks for the user."""

    netdev: str
    ifindex: int
    peer: End | None = None  # of a veth: the end that the settings are for
    settings: tuple[Setting, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls(
            netdev=data["netdev"],
            ifindex=data["ifindex"],
            peer=None if data["peer"] is None else End(**data["peer"]),
            settings=tuple(Setting(**(item | {"end": End(**item["end"])})) for item in data["settings"]),
            notes=tuple(data["notes"]),
        )


@dataclass(frozen=True, slots=True)
class NotReady:
    """Why a netdev can't take part in XDP, in a sentence that says what to do."""

    netdev: str
    reason: str

    def __str__(self) -> str:
        return self.reason


def plan(netdev: Netdev) -> Preparation | NotReady:
    """Find out what a netdev of the calling thread's namespace needs, without changing anything."""
    notes = _mtu_notes(netdev)
    if netdev.kind != "veth" or netdev.peer_ifindex is None:
        return Preparation(netdev.name, netdev.ifindex, notes=notes)
    place = _peer_place(netdev)
    if place is None:
        return NotReady(
            netdev.name,
            f"the other end of {netdev.name} is in a network namespace that has neither a name nor a process: "
            f"give it a name (ip netns attach), or connect {netdev.name} by TC",
        )
    with place:
        try:
            return netns.run_in(place, lambda: _plan(netdev, place, notes))
        except NetError as error:
            return NotReady(netdev.name, f"the other end of {netdev.name} cannot be prepared for XDP: {error}")


def apply(preparation: Preparation) -> Preparation | NotReady:
    """Make the settings of a plan and see that they work; on failure those already made are taken back."""
    name, peer = preparation.netdev, preparation.peer
    if peer is None:
        return preparation
    try:
        problem = _at(peer, lambda end: _switch(preparation, end.name))
        if problem is None and not _passes(preparation):
            _at(peer, lambda end: _renew_gro(end.name))
            if not _passes(preparation):
                problem = f"{peer.ifname} does not receive by NAPI although GRO is on"
    except NetError as error:
        problem = str(error)
    if problem is None:
        return preparation
    restore(preparation)
    return NotReady(name, f"the other end of {name} cannot be prepared for XDP: {problem}; connect {name} by TC")


def is_ready(preparation: Preparation) -> bool:
    """Whether frames redirected by XDP into the netdev arrive at this moment: its other end is up and receives."""
    if preparation.peer is None:
        return True
    try:
        return _at(preparation.peer, lambda end: end.up) and _passes(preparation)
    except NetError:
        return False


def prepare(netdev: Netdev) -> Preparation | NotReady:
    """`plan` and `apply` in one, for callers that need not store the plan first."""
    planned = plan(netdev)
    return planned if isinstance(planned, NotReady) else apply(planned)


def restore(preparation: Preparation) -> list[Setting]:
    """Put settings back, last one first, and return those that were; devices that are gone are passed over."""
    if preparation.peer is None or not preparation.settings:
        return []
    settings = list(reversed(preparation.settings))
    try:
        return _at(preparation.peer, lambda end: [s for s in settings if _put_back(s, end.name)])
    except NetError:
        return _follow(preparation, settings)


def _plan(netdev: Netdev, place: netns.Namespace, notes: tuple[str, ...]) -> Preparation | NotReady:
    with Rtnl() as rtnl:
        other = rtnl.link(netdev.peer_ifindex or 0)
    if other is None or other.kind != "veth":
        return NotReady(netdev.name, f"the other end of {netdev.name} is gone: delete the pair and make it again")
    end = End(place.inode, place.path, other.ifindex, other.name, str(other.mac))
    found = ethtool.features(other.name)
    settings = tuple(
        Setting(end, feature, found[feature].wanted, value)
        for feature, value in NEEDED.items()
        if feature in found and found[feature].changeable and found[feature].wanted != value
    )
    if not other.up:
        notes += (f"the other end of {netdev.name}, {other.name}, is down: set it up",)
    return Preparation(netdev.name, netdev.ifindex, end, settings, notes)


def _switch(preparation: Preparation, ifname: str) -> str | None:
    """Runs in the other end's namespace; returns what is wrong."""
    for setting in preparation.settings:
        ethtool.set_features(ifname, {setting.feature: setting.new})
    found = ethtool.features(ifname)
    for feature, value in NEEDED.items():
        if feature in found and found[feature].active != value:
            return f"{feature} of {ifname} cannot be switched {'on' if value else 'off'}"
    return None


def _passes(preparation: Preparation) -> bool:
    """Whether the kernel lets frames pass, as far as it tells; of an end that is down nothing can be known yet."""
    if preparation.peer is None:
        return True
    receives = _at(preparation.peer, lambda end: not end.up or genl.napi_count(end.ifindex) != 0)
    down = not _at(preparation.peer, lambda end: end.up)
    return receives and (down or genl.is_redirect_target(preparation.ifindex) is not False)


def _renew_gro(ifname: str) -> None:
    # GRO switched on while the link is down starts NAPI when the link comes up, but the kernel (seen on 6.18)
    # marks our end as a redirect target only when GRO changes on a link that is up, or an XDP program comes or goes
    ethtool.set_features(ifname, {ethtool.GRO: False})
    ethtool.set_features(ifname, {ethtool.GRO: True})


def _put_back(setting: Setting, ifname: str) -> bool:
    found = ethtool.features(ifname).get(setting.feature)
    if found is None or found.wanted != setting.new:
        return False  # never made, restored already, or changed by somebody else since
    return bool(ethtool.set_features(ifname, {setting.feature: setting.old}))


def _follow(preparation: Preparation, settings: list[Setting]) -> list[Setting]:
    """The other end is not where it was: follow our end to it, in case it has moved to another namespace."""
    with Rtnl() as rtnl:
        near = rtnl.link(preparation.ifindex)
    if near is None or near.peer_ifindex is None or preparation.peer is None:
        return []
    place, ifindex, mac = _peer_place(near), near.peer_ifindex, preparation.peer.mac

    def put_back() -> list[Setting]:
        with Rtnl() as rtnl:
            other = rtnl.link(ifindex)
        if other is None or str(other.mac) != mac:
            return []
        return [setting for setting in settings if _put_back(setting, other.name)]

    if place is None:
        return []
    with place:
        try:
            return netns.run_in(place, put_back)
        except NetError:
            return []


def _at(end: End, function: Callable[[Netdev], T]) -> T:
    """Run `function` with the netdev in its namespace; NetError if it is not there any more."""

    def body() -> T:
        with Rtnl() as rtnl:
            link = rtnl.link(end.ifindex)
        if link is None or (end.ifname != link.name and end.mac != str(link.mac)):
            raise NetError(f"{end.ifname} is gone from the namespace {end.netns_hint}")
        return function(link)

    place = netns.by_inode(end.netns)
    if place is None:
        raise NetError(f"the namespace {end.netns_hint} of {end.ifname} is gone")
    with place:
        return netns.run_in(place, body)


def _peer_place(netdev: Netdev) -> netns.Namespace | None:
    if netdev.peer_netnsid is None:
        return netns.Namespace("/proc/thread-self/ns/net")
    return netns.peer_namespace(netdev.peer_netnsid)


def _mtu_notes(netdev: Netdev) -> tuple[str, ...]:
    if netdev.loopback or netdev.mtu <= SINGLE_BUFFER_MTU:
        return ()
    return (f"{netdev.name} has an MTU of {netdev.mtu}: its driver needs multi-buffer XDP, or an MTU of at most about {SINGLE_BUFFER_MTU}",)
