# SPDX-License-Identifier: Apache-2.0
"""The part of the data model that all cubes share; a service derives its configuration from one of the two kinds.

Mechanism: `StandardCube` has ports and forwards between them, `TransparentCube` has none and is attached to a port or a
netdev. A service with more to say about its ports derives a class from `Port` and declares the list again:

    class RouterPort(Port):
        ip: IpInterface | None = leaf("Address of the port", default=None)

    class RouterConfig(StandardCube):
        ports: Keyed[RouterPort] = listing("Ports of the router")

Invariants: order of members is upstream's. uuid, status and parent are operational: the daemon knows them, bodies may
not contain them, the store does not hold them in the configuration.
"""

from __future__ import annotations

from polycube.model import Choice, Keyed, Name, Node, Peer, key, leaf, listing, state


class CubeType(Choice):
    """The hook of a cube. AUTO is settled when its first netdev is connected."""

    TC = "TC"
    XDP_SKB = "XDP_SKB"
    XDP_DRV = "XDP_DRV"
    AUTO = "AUTO"


class LogLevel(Choice):
    """What a cube logs: this and all that is graver."""

    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERR = "ERR"
    CRITICAL = "CRITICAL"
    OFF = "OFF"


class PortStatus(Choice):
    """Whether packets can pass a port."""

    UP = "UP"
    DOWN = "DOWN"


class Port(Node):
    """A port of a standard cube."""

    name: Name = key("Name of the port", example="port1")
    uuid: str | None = state("UUID of the port")
    status: PortStatus | None = state("Whether the port is connected and can forward")
    reason: str | None = state("Why the port is down")
    peer: Peer = leaf("The other end of the link: a network interface, or cube:port", default=None)
    tcubes: tuple[Name, ...] = leaf("Transparent cubes on the port, the one nearest to the cube first", default=(), init_only=True)


class CubeConfig(Node):
    """What every cube has."""

    name: Name = key("Name of the cube", example="cube1")
    uuid: str | None = state("UUID of the cube")
    type: CubeType = leaf("Hook of the cube", default=CubeType.TC, init_only=True)
    service_name: str | None = leaf("Service of the cube", default=None, init_only=True)
    loglevel: LogLevel = leaf("What the cube logs: this level and graver ones", default=LogLevel.INFO)
    timing: bool = leaf("Whether the time that packets take in the cube is measured", default=False)


class StandardCube(CubeConfig):
    """A cube with ports."""

    ports: Keyed[Port] = listing("Ports of the cube")
    shadow: bool = leaf("Whether the cube is mirrored into a network namespace", default=False, init_only=True)
    span: bool = leaf("Whether all traffic is copied into the namespace of a shadow cube", default=False)


class TransparentCube(CubeConfig):
    """A cube without ports, attached to a port of another cube or to a netdev."""

    parent: str | None = state("What the cube is attached to: a network interface, or cube:port")
