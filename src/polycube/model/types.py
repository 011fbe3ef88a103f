# SPDX-License-Identifier: Apache-2.0
"""Leaf types with a name: addresses, prefixes, integers of a width, enumerations without regard to case.

Mechanism: each is an `Annotated` alias, hence an ordinary Python type for the author (`ipaddress` objects, `int`,
`str`) that also carries `Named`: the name YANG and upstream's help use, a phrase for errors, and an example.

Invariants: a value is canonical once validated (lower-case MAC, prefix without host bits, enumeration in its declared
spelling), so equality of values is equality of meaning and a key has one spelling. Numbers are never addresses.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

from annotated_types import Ge, Le
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, StringConstraints, WithJsonSchema


@dataclass(frozen=True)
class Named:
    """Annotation of a type: its YANG name, what is expected of a value, and an example."""

    name: str
    expected: str
    example: str = ""


class Choice(enum.StrEnum):
    """Base of enumerations: any case on input, canonical spelling on output."""

    @classmethod
    def _missing_(cls, value: object) -> Choice | None:
        if isinstance(value, str):
            for member in cls:
                if member.value.lower() == value.lower():
                    return member
        return None


def _integer(name: str, low: int, high: int) -> Any:
    return (Ge(low), Le(high), Named(name, f"an integer from {low} to {high}"))


Uint8 = Annotated[int, *_integer("uint8", 0, 2**8 - 1)]
Uint16 = Annotated[int, *_integer("uint16", 0, 2**16 - 1)]
Uint32 = Annotated[int, *_integer("uint32", 0, 2**32 - 1)]
Uint64 = Annotated[int, *_integer("uint64", 0, 2**64 - 1)]
Int8 = Annotated[int, *_integer("int8", -(2**7), 2**7 - 1)]
Int16 = Annotated[int, *_integer("int16", -(2**15), 2**15 - 1)]
Int32 = Annotated[int, *_integer("int32", -(2**31), 2**31 - 1)]
Int64 = Annotated[int, *_integer("int64", -(2**63), 2**63 - 1)]
PortNumber = Annotated[int, Ge(0), Le(65535), Named("port-number", "a port number from 0 to 65535", "8080")]
VlanId = Annotated[int, Ge(1), Le(4094), Named("vlan-id", "a VLAN from 1 to 4094", "10")]

MacAddress = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$", to_lower=True),
    Named("mac-address", "a MAC address such as 02:00:00:00:00:01", "02:00:00:00:00:01"),
]
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$", min_length=1, max_length=64),
    Named("string", "a name of at most 64 letters, digits and the characters _ . - @"),
]


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


# The other end of a port: a netdev, cube:port, or :host for the host's stack. The empty string is none (`set peer=""`).
Peer = Annotated[
    Annotated[str, StringConstraints(pattern=r"^([^\s:/]+|[^\s:/]*:[^\s:/]+)$")] | None,
    BeforeValidator(_empty_is_none),
    Named("string", 'a network interface, or cube:port, or :host for the stack of the host, or "" for none', "r1:port1"),
]


def _parser(*makers: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Text to the first address type that takes it; instances of these types pass."""

    def parse(value: Any) -> Any:
        text = str(value) if isinstance(value, _ADDRESSES) else value
        if not isinstance(text, str) or "%" in text:
            raise ValueError("not text of an address")
        for make in makers:
            try:
                return make(text)
            except ValueError:
                continue
        raise ValueError("not an address of the type")

    return parse


class _Hashed:
    """Works out its hash once. The library's addresses do it anew each time, in Python; lists of 100,000 are keyed by these."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hash = super().__hash__()  # type: ignore[misc]  # the slot is of those below

    def __hash__(self) -> int:
        return self._hash


class Host4(_Hashed, ipaddress.IPv4Address):
    """An IPv4 address that knows its hash, and writes itself in C."""

    __slots__ = ("_hash",)

    def __str__(self) -> str:
        return socket.inet_ntoa(self.packed)


class Host6(_Hashed, ipaddress.IPv6Address):
    """The same of IPv6."""

    __slots__ = ("_hash",)


@lru_cache(maxsize=1024)
def host_address(text: str) -> Host4 | Host6:
    """An address of either version, from its text. Many elements name the same ones, and share them. Raises ValueError."""
    return Host6(text) if ":" in text else Host4(text)


class Prefix4(_Hashed, ipaddress.IPv4Network):
    """The same of an IPv4 prefix."""

    def __str__(self) -> str:
        return f"{socket.inet_ntoa(self.network_address.packed)}/{self.prefixlen}"


class Prefix6(_Hashed, ipaddress.IPv6Network):
    """The same of an IPv6 prefix."""

    def __str__(self) -> str:
        packed = self.network_address.packed
        if not any(packed[:10]):  # where the C library would write the last bytes as IPv4
            return super().__str__()
        return f"{socket.inet_ntop(socket.AF_INET6, packed)}/{self.prefixlen}"


_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network)


def _network4(text: str) -> Prefix4:
    address, _, length = text.partition("/")
    if not length.isdecimal():
        return Prefix4(text, strict=False)
    return Prefix4((_packed(socket.AF_INET, address), int(length)), strict=False)


def _network6(text: str) -> Prefix6:
    address, _, length = text.partition("/")
    if not length.isdecimal():
        return Prefix6(text, strict=False)
    return Prefix6((_packed(socket.AF_INET6, address), int(length)), strict=False)


def _packed(family: int, text: str) -> bytes:
    """An address in bytes, several times faster than in Python."""
    try:
        return socket.inet_pton(family, text)
    except OSError:
        raise ValueError("not an address") from None


def _address(name: str, expected: str, example: str, *makers: Callable[[str], Any]) -> Any:
    return (
        PlainValidator(_parser(*makers)),
        PlainSerializer(str, return_type=str, when_used="json"),
        WithJsonSchema({"type": "string", "format": name}),
        Named(name, expected, example),
    )


_V4: TypeAlias = ipaddress.IPv4Address
_V6: TypeAlias = ipaddress.IPv6Address
_I4: TypeAlias = ipaddress.IPv4Interface
_I6: TypeAlias = ipaddress.IPv6Interface

Ipv4Address = Annotated[_V4, *_address("ipv4-address", "an IPv4 address such as 10.0.0.1", "10.0.0.1", _V4)]
Ipv6Address = Annotated[_V6, *_address("ipv6-address", "an IPv6 address such as 2001:db8::1", "2001:db8::1", _V6)]
IpAddress = Annotated[_V4 | _V6, *_address("ip-address", "an IPv4 or IPv6 address such as 10.0.0.1", "10.0.0.1", host_address)]

# A network: host bits are cleared, so that 10.0.1.7/24 and 10.0.1.0/24 are one key.
Ipv4Prefix = Annotated[ipaddress.IPv4Network, *_address("ipv4-prefix", "an IPv4 prefix such as 10.0.0.0/24", "10.0.0.0/24", _network4)]
Ipv6Prefix = Annotated[ipaddress.IPv6Network, *_address("ipv6-prefix", "an IPv6 prefix such as 2001:db8::/64", "2001:db8::/64", _network6)]
IpPrefix = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    *_address("ip-prefix", "an IPv4 or IPv6 prefix such as 10.0.0.0/24", "10.0.0.0/24", _network4, _network6),
]

# An address with the length of its network, as a port has it: host bits are kept.
Ipv4Interface = Annotated[_I4, *_address("ipv4-prefix", "an IPv4 address with prefix length such as 10.0.0.1/24", "10.0.0.1/24", _I4)]
Ipv6Interface = Annotated[_I6, *_address("ipv6-prefix", "an IPv6 address with prefix length such as 2001:db8::1/64", "2001:db8::1/64", _I6)]
IpInterface = Annotated[
    _I4 | _I6,
    *_address("ip-prefix", "an IPv4 or IPv6 address with prefix length such as 10.0.0.1/24", "10.0.0.1/24", _I4, _I6),
]
