# SPDX-License-Identifier: Apache-2.0
"""Packets in tests: scapy objects or bytes, compared bit by bit, shown layer by layer.

scapy is imported when a packet is a scapy object or a difference has to be shown, not before.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

PacketLike = bytes | bytearray | memoryview | Any


def to_bytes(packet: PacketLike) -> bytes:
    """The frame as it is on the wire: scapy fills in lengths and checksums."""
    return bytes(packet)


def dissect(frame: bytes) -> Any:
    """The frame as scapy sees it."""
    from scapy.layers import inet, inet6  # noqa: F401 - registers the layers
    from scapy.layers.l2 import Ether

    return Ether(frame)


def layers(packet: Any) -> list[Any]:
    """The layers of a dissected packet, outermost first."""
    found = []
    while packet is not None and packet.name != "NoPayload":
        found.append(packet)
        packet = packet.payload
    return found


def summary(frame: bytes) -> str:
    """One line: what scapy makes of it."""
    try:
        return f"{len(frame)} bytes: {dissect(frame).summary()}"
    except Exception:
        return f"{len(frame)} bytes: {frame.hex()}"


def fields(layer: Any) -> dict[str, str]:
    """The fields of a layer as scapy shows them."""
    result = {}
    for description in layer.fields_desc:
        value = layer.getfieldval(description.name)
        if isinstance(value, bytes):
            result[description.name] = value.hex(" ")
        else:
            result[description.name] = str(description.i2repr(layer, value))
    return result


def difference(actual: bytes, expected: bytes) -> str | None:
    """None if equal; else both frames layer by layer, the fields that differ marked with `!`."""
    if actual == expected:
        return None
    lines = [f"frames differ: {len(actual)} bytes instead of {len(expected)}"]
    try:
        pairs = list(zip_longest(layers(dissect(actual)), layers(dissect(expected))))
    except Exception as error:  # scapy can't read every malformed frame
        return "\n".join([*lines, f"(not dissected: {error})", f"  actual   {actual.hex()}", f"  expected {expected.hex()}"])
    for ours, theirs in pairs:
        lines += layer_difference(ours, theirs)
    at = next((n for n, (a, b) in enumerate(zip_longest(actual, expected)) if a != b), 0)
    lines.append(f"first difference at byte {at}")
    lines.append(f"  actual   {actual.hex()}")
    lines.append(f"  expected {expected.hex()}")
    return "\n".join(lines)


def layer_difference(actual: Any, expected: Any) -> list[str]:
    """The lines about one layer; a layer that is equal takes one."""
    if actual is None or expected is None or actual.name != expected.name:
        there, wanted = (layer.name if layer is not None else "nothing" for layer in (actual, expected))
        return [f"! {there} instead of {wanted}"]
    ours, theirs = fields(actual), fields(expected)
    if ours == theirs:
        return [f"  {actual.name}"]
    lines = [f"  {actual.name}:"]
    for name in {**ours, **theirs}:
        a, b = ours.get(name, "absent"), theirs.get(name, "absent")
        lines.append(f"      {name} = {a}" if a == b else f"    ! {name} = {a}, expected {b}")
    return lines


def assert_equal(actual: bytes, expected: PacketLike, where: str = "") -> None:
    """AssertionError with the difference."""
    shown = difference(actual, to_bytes(expected))
    if shown:
        raise AssertionError(f"{where}: {shown}" if where else shown)
