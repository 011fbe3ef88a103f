# SPDX-License-Identifier: Apache-2.0
"""The control plane: how long a request takes through REST over the unix socket, and what two hundred cubes cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from polycube.testing.daemon import Daemon

MANY = 200


@dataclass
class Control:
    """Times in ms, memory in MB."""

    create: list[float] = field(default_factory=list)
    port: list[float] = field(default_factory=list)
    connect: list[float] = field(default_factory=list)
    delete: list[float] = field(default_factory=list)
    create_many: list[float] = field(default_factory=list)  # each of the two hundred
    connect_many: list[float] = field(default_factory=list)  # with two hundred standing
    many_seconds: float = 0.0
    rss: float = 0.0
    pss: float = 0.0
    processes: int = 0
    restart_seconds: float = 0.0


def took(into: list[float], act: Callable[[], object]) -> None:
    start = time.perf_counter()
    act()
    into.append((time.perf_counter() - start) * 1e3)


def memory(daemon: Daemon) -> tuple[float, float, int]:
    """RSS and PSS of the daemon and all its processes, and how many these are."""
    rss = pss = 0
    pids = [daemon.pid, *daemon.processes().values()]
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1])
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
    return rss / 1024, pss / 1024, len(pids)


def measure(daemon: Daemon, rounds: int = 100) -> Control:
    """On a daemon without cubes, which it leaves without cubes."""
    result = Control()
    for number in range(rounds + 5):
        into = result if number >= 5 else Control()  # warm
        took(into.create, lambda: daemon.post("simplebridge/one", {"type": "TC"}))
        daemon.post("simplebridge/two", {"type": "TC", "ports": [{"name": "p"}]})
        took(into.port, lambda: daemon.post("simplebridge/one/ports/p", {}))
        took(into.connect, lambda: daemon.post("connect", {"peer1": "one:p", "peer2": "two:p"}))
        took(into.delete, lambda: daemon.delete("simplebridge/one"))
        daemon.delete("simplebridge/two")
    start = time.perf_counter()
    for number in range(MANY):
        body = {"type": "TC", "ports": [{"name": "p"}, {"name": "q"}]}
        took(result.create_many, lambda number=number, body=body: daemon.post(f"simplebridge/b{number}", body))
    result.many_seconds = time.perf_counter() - start
    for number in range(MANY - 1):
        peers = {"peer1": f"b{number}:q", "peer2": f"b{number + 1}:p"}
        took(result.connect_many, lambda peers=peers: daemon.post("connect", peers))
    result.rss, result.pss, result.processes = memory(daemon)
    start = time.perf_counter()
    daemon.crash()
    result.restart_seconds = time.perf_counter() - start
    for number in range(MANY):
        daemon.delete(f"simplebridge/b{number}")
    return result


if __name__ == "__main__":
    import tempfile

    from polycube.testing.isolation import isolate

    isolate()
    with tempfile.TemporaryDirectory() as folder, Daemon(Path(folder), cache=Path("/tmp/polycube-bench-cache")) as running:
        found = measure(running, int(os.environ.get("ROUNDS", "100")))
        for name, value in vars(found).items():
            if isinstance(value, list):
                ordered = sorted(value)
                middle, last = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
                print(f"{name}: median {middle:.1f} ms, p99 {last:.1f} ms, the last one {value[-1]:.1f} ms")
            else:
                print(f"{name}: {value:.1f}")
