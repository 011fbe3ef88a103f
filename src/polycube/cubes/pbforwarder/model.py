# SPDX-License-Identifier: Apache-2.0
"""Data model of the policy-based forwarder: upstream's, whose single values may be prefixes and ranges as well.

Names on the wire have underscores where upstream's have. A value has one canonical form: an address without its length, a number as a
number, a range as `low-high`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from polycube.core.config import StandardCube
from polycube.model import COUNTER, Choice, Keyed, MacAddress, Metric, Name, Named, Node, Uint32, key, leaf, listing, state
from polycube.net.addr import Network

MAX_RULES = 10_000
_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")


def numbers(value: int | str) -> tuple[int, int]:
    """The ends of a range; ValueError."""
    found = _RANGE.fullmatch(str(value))
    if found is None or isinstance(value, bool):
        raise ValueError("not a number or a range")
    low, high = int(found[1]), int(found[2] or found[1])
    if low > high:
        raise ValueError("a range that ends before it begins")
    return low, high


def _range(least: int, most: int, example: str) -> Any:
    def parse(value: Any) -> int | str:
        low, high = numbers(value)
        if low < least or high > most:
            raise ValueError("beyond the bounds")
        return low if low == high else f"{low}-{high}"

    expected = f"a number from {least} to {most}, or a range such as {example}"
    return PlainValidator(parse), WithJsonSchema({"type": ["integer", "string"]}), Named("string", expected, example)


def networks(text: str) -> list[Network]:
    """What an address, a prefix or a range means; ValueError."""
    first, dash, last = text.partition("-")
    if not dash:
        return [ipaddress.ip_network(text, strict=False)]
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
    if low.version != high.version:
        raise ValueError("not of one IP version")
    return list(ipaddress.summarize_address_range(low, high))


def _addresses(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    found = networks(value)
    if len(found) == 1:
        one = found[0]
        return str(one.network_address) if one.prefixlen == one.max_prefixlen else str(one)
    return f"{ipaddress.ip_address(value.partition('-')[0])}-{ipaddress.ip_address(value.partition('-')[2])}"


Ports = Annotated[int | str, *_range(0, 65535, "8000-8099")]
Vlans = Annotated[int | str, *_range(0, 4095, "10-19")]
Addresses = Annotated[
    str,
    PlainValidator(_addresses),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
    Named("string", "an IPv4 or IPv6 address, a prefix such as 10.0.0.0/8, or a range such as 10.0.0.5-10.0.0.9", "10.0.0.0/8"),
]


class Protocol(Choice):
    """Of the transport."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"
    ICMPV6 = "ICMPV6"


class Verb(Choice):
    """What happens to a frame."""

    DROP = "DROP"
    SLOWPATH = "SLOWPATH"
    FORWARD = "FORWARD"


class Rule(Node):
    """A rule: a frame matches if it has all that is given."""

    id: Uint32 = key("Place of the rule: the lowest that matches decides", example="0")
    vlan: Vlans | None = leaf("VLAN, or range, of the outer tag", default=None, example="10")
    src_mac: MacAddress | None = leaf("Source MAC", default=None, name="src_mac")
    dst_mac: MacAddress | None = leaf("Destination MAC", default=None, name="dst_mac")
    src_ip: Addresses | None = leaf("Source address, prefix or range", default=None, name="src_ip")
    dst_ip: Addresses | None = leaf("Destination address, prefix or range", default=None, name="dst_ip")
    l4_proto: Protocol | None = leaf("Transport protocol", default=None, name="l4_proto")
    src_port: Ports | None = leaf("Source port, or range, of TCP, UDP or SCTP", default=None, name="src_port", example="1024-65535")
    dst_port: Ports | None = leaf("Destination port, or range", default=None, name="dst_port", example="80")
    in_port: Name | None = leaf("Port that the frame comes by", default=None, name="in_port", example="port1")
    out_port: Name | None = leaf("Port that FORWARD sends it to", default=None, name="out_port", example="port2")
    action: Verb = leaf("What happens to the frame", default=Verb.DROP)
    packets: int | None = state("Frames that the rule decided", metric=COUNTER)
    bytes: int | None = state("Bytes of those", metric=COUNTER)


class PbforwarderConfig(StandardCube):
    """Forwards, drops or hands to the control plane frames by rules."""

    rules: Keyed[Rule] = listing("Rules; a frame that none matches is dropped", metric=Metric("gauge", "pbforwarder_rules_number_rules"))
