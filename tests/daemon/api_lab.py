# SPDX-License-Identifier: Apache-2.0
"""Services and a controller in memory, for tests of the REST interface."""

import uuid
from typing import ClassVar

from polycube.core.config import Port, StandardCube, TransparentCube
from polycube.daemon.controller import CubeView, Result, Service, applied
from polycube.daemon.events import Events
from polycube.model import (
    Action,
    Choice,
    IpAddress,
    IpInterface,
    IpPrefix,
    Keyed,
    MacAddress,
    Node,
    PolycubeError,
    Uint32,
    container,
    key,
    leaf,
    listing,
    row_changes,
    state,
)

V1 = "/polycube/v1/"


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

    aging_time: Uint32 = leaf("Seconds after which an entry expires", default=300)
    entry: Keyed[FdbEntry] = listing("Stations")
    flush: ClassVar = Action("Removes the learned entries", output=Flushed)


class BridgeConfig(StandardCube):
    """A learning bridge."""

    fdb: Fdb = container("Filtering database")


class RouterPort(Port):
    """A port of a router."""

    ip: IpInterface | None = leaf("Address of the port", default=None)


class Route(Node):
    """A route."""

    network: IpPrefix = key("Destination")
    nexthop: IpAddress = key("Next hop")
    pathcost: Uint32 = leaf("Cost of the path", default=1)


class RouterConfig(StandardCube):
    """A router."""

    ports: Keyed[RouterPort] = listing("Ports of the router")
    route: Keyed[Route] = listing("Routes")


class Verdict(Choice):
    """What to do."""

    PASS = "PASS"
    DROP = "DROP"


class RuleFields(Node):
    """What a rule matches."""

    src: IpPrefix = leaf("Source")
    action: Verdict = leaf("Action", default=Verdict.DROP)


class Appended(Node):
    """Identity of a rule."""

    id: Uint32 = leaf("Position")


class Stats(Node):
    """Counters."""

    packets: Uint32 | None = state("Packets")


class FilterConfig(TransparentCube):
    """A filter."""

    action: Verdict = leaf("What happens to packets", default=Verdict.PASS)
    stats: Stats = container("Counters", read_only=True)
    append: ClassVar = Action("Appends a rule", input=RuleFields, output=Appended)
    follow: ClassVar = Action("Packets as they come", media="application/x-pcapng")


SERVICES = {
    "simplebridge": Service("simplebridge", "Bridge", "1.0", "standard", BridgeConfig),
    "router": Service("router", "Router", "2.0", "standard", RouterConfig),
    "filter": Service("filter", "Filter", "1.0", "transparent", FilterConfig),
}


class Refused(PolycubeError):
    """Something that the service does not want."""


class Memory:
    """A controller without a kernel."""

    def __init__(self):
        self.views = {}
        self.learned = {}
        self.calls = []
        self.reads = []

    def services(self):
        return SERVICES

    def cubes(self):
        return self.views

    def netdevs(self):
        return [{"name": "veth1", "addresses": ["10.0.0.1/24"]}, {"name": "eth0"}]

    def version(self):
        return "0.1.0"

    async def change(self, changes, *, dry_run):
        planned = applied(changes, SERVICES, self.views)
        operations = []
        for plan in planned.values():
            if plan.new is not None and plan.new.loglevel == "OFF":
                raise Refused("the service does not want this")
            if plan.new is not None and plan.new.loglevel == "CRITICAL":
                raise RuntimeError("secret detail")
            upserts, deletes = row_changes(plan.old, plan.new)
            operations += [{"write": path} for path in upserts] + [{"delete": path} for path in deletes]
        if not dry_run:
            for plan in planned.values():
                if plan.new is None:
                    self.views.pop(plan.name, None)
                else:
                    old = self.views.get(plan.name)
                    identity = old.uuid if old else str(uuid.uuid4())
                    status = {"ports": [{"name": name, "status": "DOWN"} for name in getattr(plan.new, "ports", ())]}
                    status = status if plan.service != "filter" else {"parent": "veth1"}
                    self.views[plan.name] = CubeView(plan.name, plan.service, identity, plan.new, status)
        return Result(operations)

    async def overlay(self, name, path=(), *, read=False):
        view = self.views[name]
        self.reads.append(read)
        return {"uuid": view.uuid, **view.state, **self.learned.get(name, {})}

    async def stream(self, name, path):
        async def chunks():
            yield b"packets of "
            yield name.encode()

        return chunks()

    async def action(self, name, path, input, *, dry_run):
        self.calls.append((name, path, input, dry_run))
        if path == ("append",):
            return Result([{"append": str(input.src)}], Appended(id=7))
        return Result([{"flush": name}], {"flushed": True})

    async def connect(self, peer1, peer2, *, dry_run):
        self.calls.append(("connect", peer1, peer2, dry_run))
        if peer1 == "nobody":
            raise Refused("Error setting peer")
        return Result([{"connect": [peer1, peer2]}])

    async def disconnect(self, peer1, peer2, *, dry_run):
        self.calls.append(("disconnect", peer1, peer2, dry_run))
        return Result()

    async def attach(self, cube, port, placement, *, dry_run):
        self.calls.append(("attach", cube, port, placement))
        return Result()

    async def detach(self, cube, port, *, dry_run):
        self.calls.append(("detach", cube, port))
        return Result()

    def topology_of(self, ifname):
        return {"name": ifname}

    def events(self):
        return Events()

    def drop_counts(self):
        return {}

    async def metrics(self, more=()):
        return "# EOF\n"


def config(controller, name):
    return controller.views[name].config


def error_of(response):
    [error] = response.json()["ietf-restconf:errors"]["error"]
    return response.status_code, error["error-tag"], error["error-message"]
