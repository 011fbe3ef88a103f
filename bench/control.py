# SPDX-License-Identifier: Apache-2.0
"""The control plane: requests through REST over the unix socket, what two hundred cubes cost, and how soon polycubectl is done."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polycube.core.worker import processor_time
from polycube.testing.daemon import BASE, Daemon, UnixConnection

MANY = 200
FEW = 10  # cubes of a daemon that has nothing to do


@dataclass
class Control:
    """Times in ms, memory in MB."""

    requests: dict[str, list[float]] = field(default_factory=dict)  # by what is asked for, and how
    commands: dict[str, list[float]] = field(default_factory=dict)  # polycubectl from start to exit
    start_seconds: float = 0.0  # of a daemon without cubes
    idle_cpu: float = 0.0  # per cent of a CPU, all processes, with few cubes and no requests
    empty_pss: float = 0.0
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
    found = [entry for pid in (daemon.pid, *daemon.descendants()) if (entry := sizes(pid))]
    return sum(rss for rss, _ in found) / 1024, sum(pss for _, pss in found) / 1024, len(found)


def sizes(pid: int) -> tuple[int, int] | None:
    """RSS and PSS in KiB; None: the process has ended meanwhile, as a worker does a while after its last cube."""
    try:
        lines = dict(line.split(maxsplit=1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    except OSError:
        return None
    return int(lines["Rss:"].split()[0]), int(lines["Pss:"].split()[0])


class Kept:
    """One connection for all requests."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = UnixConnection(daemon.socket, 60)

    def do(self, method: str, path: str, body: Any = None) -> None:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, BASE + path, data, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        said = response.read()
        assert response.status < 300, f"{method} {path}: {response.status} {said.decode()}"

    def close(self) -> None:
        self._connection.close()


def requests(daemon: Daemon, rounds: int) -> dict[str, list[float]]:
    """The requests that tools make most, at a router with 100 routes: on one connection that is kept, and on one for each."""
    routes = [{"network": f"10.1.{number}.0/24", "nexthop": "10.0.0.2"} for number in range(100)]
    daemon.post("router/r", {"ports": [{"name": "p", "ip": "10.0.0.1/24"}], "route": routes})
    kept, found = Kept(daemon), dict[str, list[float]]()
    for how, do in (("one connection", kept.do), ("a connection each", daemon.do)):
        leaf, cube, patch, port = (
            found.setdefault(f"{what}, {how}", []) for what in ("GET a leaf", "GET a cube", "PATCH a leaf", "POST a port")
        )
        for number in range(rounds):
            took(leaf, lambda do=do: do("GET", "router/r/loglevel"))
            took(cube, lambda do=do: do("GET", "router/r"))
            level = ("INFO", "DEBUG")[number % 2]
            took(patch, lambda do=do, level=level: do("PATCH", "router/r/loglevel", level))
            took(port, lambda do=do: do("POST", "router/r/ports/q", {"ip": "10.0.1.1/24"}))
            do("DELETE", "router/r/ports/q")
    kept.close()
    return found


def commands(daemon: Daemon, rounds: int) -> dict[str, list[float]]:
    """What a shell waits for, and how much of it is processor time, which other work on the machine does not change."""
    program = Path(sys.executable).with_name("polycubectl")
    environment = {**os.environ, "POLYCUBECTL_URL": f"unix://{daemon.socket}"}
    found: dict[str, list[float]] = {}
    silent = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    for words in ("--version", "r show"):
        lasted, spent = found[f"polycubectl {words}"], found[f"polycubectl {words}, processor"] = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            child = os.posix_spawn(program, [program, *words.split()], environment, file_actions=silent)
            _, status, usage = os.wait4(child, 0)
            lasted.append((time.perf_counter() - start) * 1e3)
            spent.append((usage.ru_utime + usage.ru_stime) * 1e3)
            assert status == 0, f"polycubectl {words}: {status}"
    return found


def processor_seconds(daemon: Daemon) -> float:
    """Spent so far by the daemon and all its processes."""
    return sum(processor_time(pid) for pid in (daemon.pid, *daemon.descendants()))


def idle(daemon: Daemon, seconds: float) -> float:
    """Per cent of a CPU that a daemon takes that is asked nothing."""
    for number in range(FEW):
        daemon.post(f"{('simplebridge', 'router')[number % 2]}/i{number}", {"ports": [{"name": "p"}]})
    time.sleep(5)  # until what follows a change is done
    before = processor_seconds(daemon)
    time.sleep(seconds)
    spent = processor_seconds(daemon) - before
    for number in range(FEW):
        daemon.delete(f"i{number}")
    return 100 * spent / seconds


def measure(daemon: Daemon, rounds: int = 100) -> Control:
    """On a daemon without cubes, which it leaves without cubes."""
    result = Control()
    start = time.perf_counter()
    daemon.restart()
    result.start_seconds = time.perf_counter() - start
    result.empty_pss = memory(daemon)[1]
    result.idle_cpu = idle(daemon, rounds / 5)
    result.requests = requests(daemon, rounds * 5)
    result.commands = commands(daemon, rounds)
    daemon.delete("r")
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
        figures = {name: value for name, value in vars(found).items() if not isinstance(value, dict)} | found.requests | found.commands
        for name, value in figures.items():
            if isinstance(value, list):
                ordered = sorted(value)
                middle, last = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
                print(f"{name}: median {middle:.1f} ms, p99 {last:.1f} ms, the last one {value[-1]:.1f} ms")
            else:
                print(f"{name}: {value:.1f}")
