# SPDX-License-Identifier: Apache-2.0
"""What the tests of nat's data plane begin with: a cube whose tables are filled as the control plane would, and packets on both sides."""

from __future__ import annotations

import ipaddress

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from polycube.cubes.nat import rules
from polycube.cubes.nat.model import NatConfig
from polycube.model import load
from polycube.toolkit.address import mapped, unmapped
from polycube.toolkit.conntrack import Timeouts

E = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
INSIDE = {4: "10.0.0.1", 6: "fd00::1"}
OTHER = {4: "10.0.0.2", 6: "fd00::2"}
REMOTE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
EXTERNAL = {4: "192.0.2.1", 6: "2001:db8:1::1"}


def configure(nat, *, masquerade=(), first_port=1024, last_port=65535, any_mapping=0, any_filter=0, timeouts=None, **rule):
    """Fills the tables of a cube under test from rules in wire names: `snat=[{...}]`, `dnat`, `port_forwarding`, `prefix_translation`."""
    lists = {name.replace("_", "-"): {"entry": [{"id": id, **one} for id, one in enumerate(entries)]} for name, entries in rule.items()}
    config = load(NatConfig, {"name": "nat1", "rule": lists})
    tables = {"sources": rules.sources, "forwards": rules.forwards, "translations": rules.translations}
    for name, entries in tables.items():
        nat.map(name).clear()
        for key, value in entries("nat1", config).values():
            nat.map(name)[key] = value
    own = {ipaddress.ip_address(one).version: mapped(ipaddress.ip_address(one)) for one in masquerade}
    nat.cfg(
        ct_timeouts=(timeouts or Timeouts()).cfg(),
        masquerade4={"bytes": own.get(4, bytes(16))},
        masquerade6={"bytes": own.get(6, bytes(16))},
        forwarding=int(bool(config.rule.dnat.entry or config.rule.port_forwarding.entry)),
        npt=int(bool(config.rule.prefix_translation.entry)),
        any_mapping=any_mapping,
        any_filter=any_filter,
        first_port=first_port,
        port_count=last_port - first_port + 1,
    )


def clear(nat):
    """Forgets all sessions."""
    for name in ("sessions", "twins", "mappings", "ct_fragments"):
        nat.map(name).clear()


def packet(source, destination, transport, payload=b"some data", **more):
    """A packet between two addresses of one version."""
    version = ipaddress.ip_address(source).version
    return E / (IP if version == 4 else IPv6)(src=source, dst=destination, **more) / transport / payload


def udp(sport, dport):
    return UDP(sport=sport, dport=dport)


def tcp(sport, dport, flags="S", **more):
    return TCP(sport=sport, dport=dport, flags=flags, **more)


def echo(version, id, reply=False):
    if version == 4:
        return ICMP(type=0 if reply else 8, id=id, seq=1)
    return (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(id=id, seq=1)


def out(nat, sent):
    """What leaves of a packet that goes out, or the reason of its drop."""
    return _through(nat, sent, "egress")


def back(nat, sent):
    """The same of one that comes in."""
    return _through(nat, sent, "ingress")


def _through(nat, sent, direction):
    result = nat.send(sent, direction=direction)
    if result.drops:
        return result.drops[0].reason
    assert len(result.exits) == 1, result
    return Ether(result.exits[0].packet)


def ends(frame):
    """Source and destination of a frame: addresses, ports; of an echo, its identifier."""
    layer = frame[IP] if IP in frame else frame[IPv6]
    inner = layer.payload
    if hasattr(inner, "sport"):
        return (layer.src, inner.sport), (layer.dst, inner.dport)
    return (layer.src, inner.id), (layer.dst, inner.id)


def sums_are_right(frame):
    """Whether all checksums of a frame are what a host would compute; not those in what an error quotes, which may be cut off."""
    frame = Ether(bytes(frame))
    again = frame.copy()
    layer = again
    while layer and "error" not in type(layer).__name__:
        for name in ("chksum", "cksum"):
            if name in getattr(layer, "fields", {}) and not (layer.name == "UDP" and layer.fields[name] == 0):
                delattr(layer, name)
        layer = layer.payload
    return bytes(again) == bytes(frame)


def table(nat):
    """The sessions: inside end, remote end and external end of each."""
    found = []
    for key, value in nat.map("sessions").items():
        at = value["flags"] & 1
        address = [str(unmapped(one)) for one in key["address"]]
        port = [_port(one) for one in key["port"]]
        found.append(
            ((address[at], port[at]), (address[1 - at], port[1 - at]), (str(unmapped(value["external"])), _port(value["external_port"])))
        )
    return sorted(found)


def _port(number):
    return int.from_bytes(number.to_bytes(2, "little"), "big")
