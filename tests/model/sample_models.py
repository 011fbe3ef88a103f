# SPDX-License-Identifier: Apache-2.0
"""Models like those of upstream's simplebridge, router, simpleforwarder and dynmon, for the tests of this folder."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from polycube.core.config import Port, StandardCube, TransparentCube
from polycube.model import (
    Action,
    Choice,
    IpAddress,
    IpInterface,
    IpPrefix,
    Keyed,
    MacAddress,
    Name,
    Node,
    Uint32,
    Uint64,
    container,
    key,
    leaf,
    listing,
    state,
)


class FdbEntry(Node):
    """A station."""

    address: MacAddress = key("MAC address of the station")
    port: str = leaf("Port behind which the station lives")
    age: Uint32 | None = state("Seconds since the station was last seen")


class Flushed(Node):
    """Outcome."""

    flushed: bool = leaf("Whether the entries were removed")


class Fdb(Node):
    """Where stations live."""

    aging_time: Annotated[Uint32, Field(ge=1)] = leaf("Seconds after which an entry expires", default=300)
    entry: Keyed[FdbEntry] = listing("Stations")
    flush: ClassVar = Action("Removes the learned entries", output=Flushed)


class Bridge(StandardCube):
    """A learning bridge."""

    fdb: Fdb = container("Filtering database")


class SecondaryIp(Node):
    """One more address."""

    ip: IpInterface = key("Address with prefix length")


class RouterPort(Port):
    """A port of a router."""

    ip: IpInterface | None = leaf("Address of the port", default=None)
    secondaryip: Keyed[SecondaryIp] = listing("More addresses")
    mac: MacAddress | None = leaf("MAC address of the port", default=None)


class Route(Node):
    """A route."""

    network: IpPrefix = key("Destination")
    nexthop: IpAddress = key("Next hop")
    interface: str | None = leaf("Port to the next hop", default=None, init_only=True)
    pathcost: Uint32 = leaf("Cost of the path", default=1)


class ArpEntry(Node):
    """A neighbour."""

    address: IpAddress = key("Address")
    mac: MacAddress = leaf("MAC address")
    interface: str = leaf("Port")


class Router(StandardCube):
    """A router."""

    ports: Keyed[RouterPort] = listing("Ports of the router")
    route: Keyed[Route] = listing("Routes")
    arp_table: Keyed[ArpEntry] = listing("Neighbours")


class Verdict(Choice):
    """What to do."""

    DROP = "DROP"
    SLOWPATH = "SLOWPATH"
    FORWARD = "FORWARD"


class Forwarding(Node):
    """What happens to packets of a port."""

    inport: str = key("Port of entry")
    action: Verdict = leaf("What to do with a packet")
    outport: str | None = leaf("Port of exit", default=None)

    @model_validator(mode="after")
    def _outport(self) -> "Forwarding":
        if self.action is Verdict.FORWARD and self.outport is None:
            raise ValueError("needs an outport, as its action is FORWARD")
        return self


class Forwarder(StandardCube):
    """A forwarder."""

    actions: Keyed[Forwarding] = listing("What to do with packets, by port of entry")


class Program(Node):
    """A program."""

    code: str = leaf("Source", init_only=True)


class Appended(Node):
    """Identity of a rule."""

    id: Uint32 = leaf("Position")


class RuleFields(Node):
    """What a rule matches."""

    src: IpPrefix | None = leaf("Source", default=None)
    action: Verdict = leaf("Action")


class Rule(RuleFields):
    """A rule."""

    id: Uint32 = key("Position of the rule")
    src: IpPrefix | None = leaf("Source", default=None, init_only=True)


class Stats(Node):
    """Counters."""

    packets: Uint64 | None = state("Packets")


class Session(Node):
    """A connection."""

    src: IpAddress = key("Source")
    sport: Uint32 = key("Port")
    state: str | None = state("State of the connection")


class Label(Node):
    """A label."""

    name: Name = key("Name of the label")
    value: str = leaf("Text of the label", default="")


class Monitor(TransparentCube):
    """A monitor."""

    ingress: Program | None = container("Program for incoming packets", presence=True)
    stats: Stats = container("Counters", read_only=True)
    sessions: Keyed[Session] = listing("Connections", read_only=True)
    rule: Keyed[Rule] = listing("Rules")
    port_mode: Verdict = leaf("A name with underscore", default=Verdict.DROP, name="port_mode")
    labels: Keyed[Label] = listing("Labels", init_only=True)
    words: tuple[Name, ...] = leaf("Words", default=())
    append: ClassVar = Action("Appends a rule", input=RuleFields, output=Appended)
