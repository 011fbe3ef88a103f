# SPDX-License-Identifier: Apache-2.0
"""Metrics that cost something and are therefore made on request only: how full tables are, and what a packet costs.

The cost is the kernel's own measurement (BPF_ENABLE_STATS), switched on for a moment, which makes every program of the machine slower by
some 20 ns while it lasts. The kernel times a program from its entry to its end, tail calls included, so that the figure is that of a
netdev's whole way through the cubes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

from polycube.bpf import BpfError, Map, MapType, Program, run_statistics
from polycube.core.fusedunits import PROGRAM
from polycube.core.operation import Kind

if TYPE_CHECKING:
    from polycube.daemon.keeper import Keeper

TABLES = {MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE}
MOMENT = 1.0  # seconds


def fill(keeper: Keeper) -> Iterator[Metric]:
    """Entries and room of the cubes' tables. A table of a million entries takes about a second."""
    entries = GaugeMetricFamily("polycube_map_entries", "Entries of a table", labels=["cube", "service", "map"])
    room = GaugeMetricFamily("polycube_map_max_entries", "Entries that a table has room for", labels=["cube", "service", "map"])
    for entry in list(keeper.entries.values()):
        folder = keeper.kernel.paths.cube(entry.uuid)
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            with suppress(BpfError), closing(Map.open(path)) as opened:
                if opened.info.type not in TABLES:
                    continue
                entries.add_metric([entry.name, entry.service, path.name], opened.count())
                room.add_metric([entry.name, entry.service, path.name], opened.info.max_entries)
    yield entries
    yield room


def cost(keeper: Keeper) -> Iterator[Metric]:
    """Nanoseconds a packet, by where it enters; only of ways that packets took in that moment."""
    labels = ["netdev", "hook", "cubes"]
    family = GaugeMetricFamily("polycube_entry_nanoseconds", "What a packet costs from its entry to the end of its way", labels=labels)
    rates = GaugeMetricFamily("polycube_entry_packets_per_second", "Packets that entered there in the moment of measuring", labels=labels)
    programs = dict(_entries(keeper))
    try:
        with run_statistics():
            before = {key: _run(program) for key, program in programs.items()}
            time.sleep(MOMENT)
            after = {key: _run(program) for key, program in programs.items()}
    finally:
        for program in programs.values():
            program.close()
    for key, (spent, count) in after.items():
        count -= before[key][1]
        if count:
            family.add_metric(list(key), (spent - before[key][0]) / count)
            rates.add_metric(list(key), count / MOMENT)
    yield family
    yield rates


def _run(program: Program) -> tuple[int, int]:
    info = program.info
    return info.run_time_ns, info.run_cnt


def _entries(keeper: Keeper) -> Iterator[tuple[tuple[str, str, str], Program]]:
    """The programs of attachments, open."""
    netdevs = {one.ifindex: one.name for one in keeper.present.values()}
    names = {entry.uuid: entry.name for entry in keeper.entries.values()}
    for key, value in dict(keeper.executor.resources).items():
        if key.kind is not Kind.ATTACH:
            continue
        path, cubes = keeper.kernel.paths.units / value["uuid"] / value["unit"] / value["program"], names.get(value["uuid"], "")
        standing = keeper.fuser.standing.get(value.get("fused", ""))
        if standing:
            path = keeper.kernel.paths.fused / value["fused"] / PROGRAM
            cubes = ",".join(names.get(uuid, "") for uuid, _ in standing.units)
        with suppress(BpfError):
            yield (netdevs.get(key.name[0], str(key.name[0])), str(key.name[1]), cubes), Program.open(path)
