# SPDX-License-Identifier: Apache-2.0
"""Loops of cubes in which flooded frames would go round for ever: what can't be joined."""

from __future__ import annotations

from polycube.core.topology import World


def endless_loop(world: World) -> str:
    """A link that closes a loop in which flooded frames would go round for ever: "a:p and b:q", or "".

    Copies that come back in by a device carry the number of their hops, which ends them; on generic XDP they can't.
    """
    groups: dict[str, str] = {}

    def group(name: str) -> str:
        while name in groups:
            name = groups[name]
        return name

    for cube in world.cubes.values():
        for port in cube.ports if cube.mode == "skb" and cube.floods else ():
            name, _, peer_port = port.peer.partition(":")
            other = world.cubes.get(name)
            if other is None or not other.floods or (name, peer_port) < (cube.name, port.name):
                continue  # leads elsewhere, or is seen from the other end
            if not any(peer.name == peer_port and peer.peer == f"{cube.name}:{port.name}" for peer in other.ports):
                continue
            one, two = group(cube.name), group(name)
            if one == two:
                return f"{cube.name}:{port.name} and {port.peer}"
            groups[one] = two
    return ""
