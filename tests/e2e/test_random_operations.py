# SPDX-License-Identifier: Apache-2.0
"""Any sequence of operations: each succeeds or is refused as a plain model says, what stands is what the model holds, nothing is left."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from plain_model import TRANSPARENT, PlainModel

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Lab, eventually

SERVICES = ("simplebridge", "helloworld", "simpleforwarder", TRANSPARENT)
TYPES = ("TC", "XDP_DRV")
names = st.sampled_from(["a", "b", "c", "t", "u"])
ports = st.sampled_from(["p", "q", "r"])
netdevs = st.sampled_from(["v1", "v2", "v3", "v9"])
ends = st.one_of(netdevs, st.builds("{}:{}".format, names, ports))


class Operations(RuleBasedStateMachine):
    """One sequence, on a daemon without cubes, which is left without cubes."""

    daemon: ClassVar[Daemon]
    count: ClassVar[int] = 0
    life: ClassVar[int]  # operations, at least, between two ends of the daemon

    def __init__(self) -> None:
        super().__init__()
        self.model = PlainModel(["v1", "v2", "v3"])
        self.age = 0

    def ask(self, expected: bool, method: str, path: str, body: Any = None) -> None:
        type(self).count += 1
        self.age += 1
        answer = self.daemon.rest(method, path, body)
        said = f"{method} {path} {body}: {answer.status} {answer.text}"
        assert answer.ok if expected else 400 <= answer.status < 500, f"{said}; expected to {'succeed' if expected else 'be refused'}"

    def path(self, name: str) -> str:
        """Where a cube is, or might be."""
        return f"{self.model.cubes[name].service if name in self.model.cubes else 'simplebridge'}/{name}"

    @rule(name=names, service=st.sampled_from(SERVICES), type=st.sampled_from(TYPES), own=st.lists(ports, unique=True, max_size=3))
    def create(self, name: str, service: str, type: str, own: list[str]) -> None:
        own = [] if service == TRANSPARENT else own
        body = {"type": type} | ({"ports": [{"name": port} for port in own]} if own else {})
        self.ask(self.model.create(name, service, type, own), "POST", f"{service}/{name}", body)

    @rule(name=names)
    def delete(self, name: str) -> None:
        path = self.path(name)
        self.ask(self.model.delete(name), "DELETE", path)

    @rule(name=names, port=ports, peer=st.one_of(st.just(""), ends))
    def add_port(self, name: str, port: str, peer: str) -> None:
        body = {"peer": peer} if peer else {}
        self.ask(self.model.add_port(name, port, peer), "POST", f"{self.path(name)}/ports/{port}", body)

    @rule(name=names, port=ports)
    def delete_port(self, name: str, port: str) -> None:
        self.ask(self.model.delete_port(name, port), "DELETE", f"{self.path(name)}/ports/{port}")

    @rule(name=names, port=ports, peer=st.one_of(st.just(""), ends))
    def set_peer(self, name: str, port: str, peer: str) -> None:
        self.ask(self.model.set_peer(name, port, peer), "PATCH", f"{self.path(name)}/ports/{port}/peer", peer)

    @rule(one=ends, other=ends)
    def connect(self, one: str, other: str) -> None:
        self.ask(self.model.connect(one, other), "POST", "connect", {"peer1": one, "peer2": other})

    @rule(one=ends, other=ends)
    def disconnect(self, one: str, other: str) -> None:
        self.ask(self.model.disconnect(one, other), "POST", "disconnect", {"peer1": one, "peer2": other})

    @rule(data=st.data())
    def disconnect_what_is_connected(self, data: st.DataObject) -> None:
        pairs = [(f"{name}:{own}", port.peer) for name, cube in self.model.cubes.items() for own, port in cube.ports.items() if port.peer]
        if pairs:
            self.disconnect(*data.draw(st.sampled_from(pairs)))

    @rule(name=names, place=ends)
    def attach(self, name: str, place: str) -> None:
        self.ask(self.model.attach(name, place), "POST", "attach", {"cube": name, "port": place, "position": "first"})

    @rule(name=names, place=ends)
    def detach(self, name: str, place: str) -> None:
        self.ask(self.model.detach(name, place), "POST", "detach", {"cube": name, "port": place})

    @rule(name=names, level=st.sampled_from(["TRACE", "INFO", "OFF", "LOUD"]))
    def set_loglevel(self, name: str, level: str) -> None:
        self.ask(self.model.set_loglevel(name, level), "PATCH", f"{self.path(name)}/loglevel", level)

    @rule(name=names, seconds=st.sampled_from([0, 10, 300, 600]))
    def set_aging(self, name: str, seconds: int) -> None:
        self.ask(self.model.set_aging(name, seconds), "PATCH", f"{self.path(name)}/fdb/aging-time", seconds)

    @precondition(lambda self: self.age >= self.life)
    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        type(self).count += 1
        self.age = 0
        if killed:
            self.daemon.crash()
        else:
            self.daemon.restart()

    @invariant()
    def what_stands_is_what_the_model_holds(self) -> None:
        assert self.daemon.get("config") == self.model.document()

    def teardown(self) -> None:
        self.daemon.post("config/apply", {"cubes": []})
        assert self.daemon.get("config") == {"cubes": []}


def held(daemon: Daemon) -> Counter[str]:
    """What the daemon and its workers hold of the kernel: descriptors of maps, programs, links and namespaces, pins of cubes, netdevs."""
    found: Counter[str] = Counter()
    for pid in (daemon.pid, *daemon.processes().values()):
        with suppress(OSError):  # a worker without cubes may just have ended
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                kind = re.match(r"anon_inode:bpf[-_]\w+|net:", os.readlink(fd))
                found.update([kind[0]] if kind else [])
    found.update(pin.partition("/")[0] for pin in daemon.pins())
    found.update(["netdevs"] * len(os.listdir("/sys/class/net")), namespaces=len(os.listdir("/run/netns")))
    return found


def run(daemon: Daemon, lab: Lab, sequences: int, steps: int, life: int) -> int:
    """Returns the number of operations."""
    lab.some(3)
    for number, (service, type) in enumerate((service, type) for service in SERVICES for type in TYPES):
        body = {} if service == TRANSPARENT else {"ports": [{"name": "p", "peer": "v1"}]}
        daemon.post(f"{service}/warm{number}", {"type": type, **body})
        daemon.delete(f"{service}/warm{number}")
    before = held(daemon)
    Operations.daemon, Operations.count, Operations.life = daemon, 0, life
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Operations, settings=chosen)
    eventually(lambda: not held(daemon) - before, f"nothing left but {before}")
    return Operations.count


def test_a_hundred_operations(daemon: Daemon, lab: Lab) -> None:
    assert run(daemon, lab, 3, 40, 20) > 60


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_operations(daemon: Daemon, lab: Lab) -> None:
    assert run(daemon, lab, 110, 100, 85) > 10_000
