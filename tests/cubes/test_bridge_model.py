# SPDX-License-Identifier: Apache-2.0
"""Any frames in any order, beside a bridge written in twenty lines of Python."""

from __future__ import annotations

from bridge_lab import BROADCAST, access, frame, set_up, trunk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

STATIONS = [f"02:00:00:00:00:{number:02x}" for number in range(1, 5)]
TARGETS = [*STATIONS, BROADCAST, "01:00:5e:00:00:fb"]
PORTS = [access(10), access(20), trunk(10, 20, native=1), trunk(native=10, every=True)]
TAGS = [(), (0,), (10,), (20,), (30,), (3 << 13 | 20,), (10, 5), (0, 5)]


class Model:
    """VLANs as IEEE 802.1Q, 8.6 and 8.8, has them: (VLAN of untagged frames, VLANs) by port."""

    ports = [(10, {10}), (20, {20}), (1, {1, 10, 20}), (10, set(range(1, 4095)))]
    tagged = [False, False, True, True]

    def __init__(self) -> None:
        self.stations: dict[tuple[int, str], int] = {}

    def receive(self, port: int, source: str, target: str, tags: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """Copies by port: the tags they have."""
        untagged, inside = self.ports[port]
        vlan, inner = untagged, tags
        priority = 0
        if tags:
            vlan, priority, inner = tags[0] & 0xFFF or untagged, tags[0] & 0xE000, tags[1:]
            if tags[0] & 0xFFF and (vlan not in inside or not self.tagged[port]):
                return {}
        self.stations[vlan, source] = port
        behind = self.stations.get((vlan, target))
        out = [behind] if behind is not None else [one for one, (_, vlans) in enumerate(self.ports) if vlan in vlans]
        return {one: inner if self.ports[one][0] == vlan else (priority | vlan, *inner) for one in out if one != port}


FRAMES = st.tuples(st.integers(0, len(PORTS) - 1), st.sampled_from(STATIONS), st.sampled_from(TARGETS), st.sampled_from(TAGS))


def test_the_bridge_does_what_the_model_does(cube):
    bridge = cube("bridge", ports=len(PORTS))
    set_up(bridge, *PORTS)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(FRAMES, min_size=5, max_size=12))
    def run(frames: list[tuple[int, str, str, tuple[int, ...]]]) -> None:
        bridge.map("fdb").clear()
        model = Model()
        for port, source, target, tags in frames:
            expected = {out: bytes(frame(source, target, *wanted)) for out, wanted in model.receive(port, source, target, tags).items()}
            assert bridge.send(frame(source, target, *tags), port=port).copies == expected, (port, source, target, tags)
        found = {(key["vlan"], key["address"]): value["port"] for key, value in bridge.map("fdb").items()}
        assert found == {(vlan, bytes.fromhex(mac.replace(":", ""))): port for (vlan, mac), port in model.stations.items()}

    run()
