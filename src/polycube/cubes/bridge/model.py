# SPDX-License-Identifier: Apache-2.0
"""Configuration of bridge."""

from typing import Annotated, ClassVar

from pydantic import Field

from polycube.core.config import Port, StandardCube
from polycube.model import (
    COUNTER,
    GAUGE,
    Action,
    Choice,
    IpAddress,
    Keyed,
    MacAddress,
    Name,
    Named,
    Node,
    Uint8,
    Uint16,
    VlanId,
    container,
    key,
    leaf,
    listing,
    state,
)


def _seconds(low: int, high: int) -> object:
    return (Field(ge=low, le=high), Named("uint32", f"seconds from {low} to {high}"))


ForwardDelay = Annotated[int, *_seconds(4, 30)]
HelloTime = Annotated[int, *_seconds(1, 10)]
MaxAge = Annotated[int, *_seconds(6, 40)]
AgingTime = Annotated[int, *_seconds(1, 1_000_000)]
PathCost = Annotated[int, Field(ge=1, le=200_000_000), Named("uint32", "a cost from 1 to 200000000")]


class PortMode(Choice):
    """How a port takes part in VLANs."""

    ACCESS = "access"
    TRUNK = "trunk"


class EntryType(Choice):
    """Where a station is known from."""

    STATIC = "static"
    DYNAMIC = "dynamic"


class StpVersion(Choice):
    """Which protocol a tree is made by."""

    STP = "stp"
    RSTP = "rstp"


class StpState(Choice):
    """What a port does in a tree, in the words of 802.1D-1998."""

    DISABLED = "disabled"
    BLOCKING = "blocking"
    LISTENING = "listening"
    LEARNING = "learning"
    FORWARDING = "forwarding"


class StpRole(Choice):
    """A port's place in a tree."""

    ROOT = "root"
    DESIGNATED = "designated"
    ALTERNATE = "alternate"
    BACKUP = "backup"
    DISABLED = "disabled"


class Access(Node):
    """A port of one VLAN."""

    vlanid: VlanId = leaf("VLAN of the port, whose frames are untagged here", default=1)


class Allowed(Node):
    """A VLAN on a trunk."""

    vlanid: VlanId = key("VLAN that may pass", example="10")


class Trunk(Node):
    """A port of several VLANs."""

    allowed: Keyed[Allowed] = listing("VLANs that may pass; without any entry it is VLAN 1")
    all_vlans: bool = leaf("Whether every VLAN may pass", default=False)
    native_vlan_enabled: bool = leaf("Whether untagged frames are taken, into the native VLAN", default=True)
    native_vlan: VlanId = leaf("VLAN of untagged frames, which may pass and leaves untagged", default=1)


class PortStp(Node):
    """A port in the tree of a VLAN."""

    vlan: VlanId = key("VLAN of the tree", example="10")
    state_: StpState | None = state("What the port does with frames")
    role: StpRole | None = state("Place of the port in the tree")
    path_cost: PathCost = leaf("Cost of the way to the root through this port", default=4)
    port_priority: Uint8 = leaf("Priority of the port; of equal ways the lower one is taken", default=128)


class BridgePort(Port):
    """A port of the bridge."""

    mac: MacAddress | None = leaf("MAC address that the port's BPDUs come from", default=None, init_only=True)
    mode: PortMode = leaf("Whether the port belongs to one VLAN or to several", default=PortMode.ACCESS)
    access: Access = container("What holds in mode access")
    trunk: Trunk = container("What holds in mode trunk")
    edge: bool = leaf("Spanning tree: whether there is no other bridge behind the port, so that it forwards at once", default=False)
    bpdu_guard: bool = leaf("Spanning tree: whether a BPDU closes the port until its link comes up anew", default=False)
    stp: Keyed[PortStp] = listing("The port in the trees", implied=True)


class FdbEntry(Node):
    """A station: learned, or configured and then fixed to its port."""

    vlan: VlanId = key("VLAN of the station", example="1")
    mac: MacAddress = key("MAC address of the station", example="02:00:00:00:00:01")
    type: EntryType | None = state("static if it is configured, dynamic if it was learned")
    port: Name = leaf("Port behind which the station is", example="port1")
    age: int | None = state("Seconds since the station was last heard; static stations have none")


class Flushed(Node):
    """Whether it was done."""

    flushed: bool = leaf("True: the learned stations are forgotten", default=True)


class Fdb(Node):
    """The filtering database."""

    aging_time: AgingTime = leaf("Seconds after which a silent station is forgotten", default=300)
    entries: int | None = state("Stations in the table, aged ones that are not removed yet included", metric=GAUGE)
    learn_failures: int | None = state("Times that the table had no room for a station", metric=COUNTER)
    entry: Keyed[FdbEntry] = listing("Stations")
    flush: ClassVar = Action("Forgets the learned stations", output=Flushed)


class Stp(Node):
    """The tree of a VLAN."""

    vlan: VlanId = key("VLAN of the tree", example="10")
    version: StpVersion = leaf("rstp (802.1D-2004), which speaks to bridges of both kinds, or stp (802.1D-1998)", default=StpVersion.RSTP)
    priority: Uint16 = leaf("Priority of the bridge; the lowest one is the root", default=32768)
    forward_delay: ForwardDelay = leaf("Seconds a port listens, and again learns, before it forwards", default=10)
    hello_time: HelloTime = leaf("Seconds between two BPDUs", default=2)
    max_message_age: MaxAge = leaf("Seconds after which what a BPDU said is void", default=20)
    root: str | None = state("Priority and MAC address of the root")
    root_cost: int | None = state("Cost of the way to the root")
    root_port: str | None = state("Port that leads to the root; none on the root itself")
    topology_changes: int | None = state("Changes of the tree that began at a port of this bridge, in the life of this worker")


class Group(Node):
    """A multicast group that somebody listens to."""

    vlan: VlanId = key("VLAN of the listener", example="1")
    group: IpAddress = key("The group", example="239.0.0.1")
    port: Name = key("Port behind which there is a listener", example="port1")
    expires: int | None = state("Seconds for which the listener counts, if it says no more")


class RouterPort(Node):
    """A port that leads to a multicast router."""

    vlan: VlanId = key("VLAN of the router", example="1")
    port: Name = key("The port", example="port1")
    expires: int | None = state("Seconds for which it counts, if the router says no more")


class Snooping(Node):
    """Multicast snooping."""

    enabled: bool = leaf("Whether multicast goes only to ports with a listener (IGMP, MLD)", default=False)
    group: Keyed[Group] = listing("Listeners", read_only=True)
    router: Keyed[RouterPort] = listing("Ports that lead to multicast routers", read_only=True)


class BridgeConfig(StandardCube):
    """A VLAN bridge with spanning tree."""

    ports: Keyed[BridgePort] = listing("Ports of the bridge")
    fdb: Fdb = container("Filtering database")
    stp_enabled: bool = leaf("Whether the bridge takes part in spanning tree, by a tree for each VLAN", default=False)
    mac: MacAddress | None = leaf("MAC address of the bridge, by which bridges of one priority are told apart", default=None)
    stp: Keyed[Stp] = listing("Spanning trees", implied=True)
    snooping: Snooping = container("Multicast snooping")
