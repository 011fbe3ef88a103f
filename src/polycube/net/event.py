# SPDX-License-Identifier: Apache-2.0
"""What can happen to the network of a namespace, as values; `polycube.net.watch` makes them.

`Event` is the union of all; `match` takes it apart.
"""

from dataclasses import dataclass, field

from polycube.net.addr import Address, Interface, Mac, Network
from polycube.net.netdev import Netdev


@dataclass(frozen=True, slots=True)
class LinkAdded:
    """A netdev was made, or moved in from another namespace."""

    netdev: Netdev


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A netdev changed in something `Netdev` shows, addresses excepted."""

    netdev: Netdev
    old: Netdev

    @property
    def renamed(self) -> bool:
        return self.netdev.name != self.old.name


@dataclass(frozen=True, slots=True)
class LinkRemoved:
    """A netdev was deleted or has moved to another namespace, taking its XDP and TCX links along."""

    netdev: Netdev  # as it was last seen
    moved: bool = False
    netnsid: int | None = None  # if moved: the new namespace's number here, for `netns.peer_namespace`
    ifindex: int | None = None  # if moved: its ifindex there


@dataclass(frozen=True, slots=True)
class AddressAdded:
    """An address is on a netdev now."""

    ifindex: int
    address: Interface


@dataclass(frozen=True, slots=True)
class AddressRemoved:
    """An address has left a netdev."""

    ifindex: int
    address: Interface


@dataclass(frozen=True, slots=True)
class NextHop:
    """One way a route takes: through a gateway, or straight onto a netdev."""

    ifindex: int | None
    gateway: Address | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the kernel, of whichever table."""

    destination: Network
    hops: tuple[NextHop, ...] = ()
    table: int = 254
    priority: int = 0
    protocol: int = 0
    scope: int = 0
    kind: int = 1  # RTN_UNICAST; 2 local, 3 broadcast, 6 blackhole, 7 unreachable …


@dataclass(frozen=True, slots=True)
class RouteAdded:
    """A route was added, or replaced the one of the same destination, table and priority."""

    route: Route
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class RouteRemoved:
    """A route was deleted. The kernel stays silent about IPv4 routes that go because their netdev goes down."""

    route: Route


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """An entry of the ARP or ND table: `mac` is None while it is unknown, and when the entry is removed."""

    ifindex: int
    address: Address
    mac: Mac | None
    state: int  # NUD_*: 2 reachable, 4 stale, 32 failed, 128 permanent …
    removed: bool = False

    @property
    def usable(self) -> bool:
        """Whether frames may be sent to `mac`."""
        return self.mac is not None and not self.removed and bool(self.state & 0xDE)


@dataclass(frozen=True, slots=True)
class Resync:
    """Events were lost because the reader was too slow: list everything again. `netdevs` is what there is now."""

    netdevs: tuple[Netdev, ...] = field(default=())


Event = LinkAdded | LinkChanged | LinkRemoved | AddressAdded | AddressRemoved | RouteAdded | RouteRemoved | NeighbourChanged | Resync
