# SPDX-License-Identifier: Apache-2.0
"""Metrics in the text format of Prometheus, read at the moment of asking: from the kernel's counters what all cubes have, and from their
state what their models mark as a metric. A name that two services use is one family."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from polycube.bpf import Map, u32
from polycube.core.handlertime import HANDLERS, TIMES, handler_time
from polycube.core.kernel import REASONS
from polycube.model import measured

if TYPE_CHECKING:
    from polycube.daemon.draft import Entry
    from polycube.daemon.keeper import Keeper

PORT = ("cube", "service", "port")
NAMES = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
HELP = ("Frames that a port received", "Bytes that a port received", "Frames that left by a port", "Bytes that left by a port")


More = Callable[["Keeper"], Iterator[Metric]]


def render(
    keeper: Keeper, reasons: Callable[[Entry], Mapping[int, str]], dumps: Mapping[str, Mapping[str, Any]], more: Sequence[More] = ()
) -> str:
    """Everything, once. `reasons` names the drop reasons of a cube; `dumps` has the cubes whose models have metrics, by name. `more`: what
    is made on request."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(keeper, reasons, dumps, more))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


def drop_counts(keeper: Keeper, reasons: Callable[[Entry], Mapping[int, str]]) -> dict[tuple[str, str], int]:
    """Frames dropped so far, by cube and reason; reasons that did not occur are left out."""
    found: dict[tuple[str, str], int] = {}
    with counters_of(keeper, "pcn_drops") as drops:
        for entry in list(keeper.entries.values()):
            for reason, name in reasons(entry).items():
                count = sum(int.from_bytes(value, "little") for value in drops(u32(entry.number * REASONS + reason)))
                if count:
                    found[entry.name, name] = count
    return found


@contextmanager
def counters_of(keeper: Keeper, name: str) -> Iterator[Callable[[bytes], list[bytes]]]:
    """A look-up in a map of counters, which comes with the first unit that is loaded."""
    opened = Map.find(keeper.kernel.paths.shared_map(name))
    try:
        yield opened.get_percpu if opened else lambda _: []
    finally:
        if opened:
            opened.close()


class _Collector:
    def __init__(
        self,
        keeper: Keeper,
        reasons: Callable[[Entry], Mapping[int, str]],
        dumps: Mapping[str, Mapping[str, Any]],
        more: Sequence[More],
    ) -> None:
        self.more = more
        self.keeper = keeper
        self.reasons = reasons
        self.dumps = dumps
        self.entries = list(keeper.entries.values())

    def collect(self) -> Iterator[Metric]:
        yield from self._ports()
        yield self._drops()
        yield from self._times()
        yield from self._workers()
        yield from self._of_models()
        yield from self._units()
        for one in self.more:
            yield from one(self.keeper)
        lost = "Copies of XDP cubes' traffic (span) that their namespaces did not take"
        yield CounterMetricFamily("polycube_span_lost", lost, value=self.keeper.lost_copies)
        cubes = GaugeMetricFamily("polycube_cubes", "Cubes of a service", labels=["service"])
        for service, number in Counter(entry.service for entry in self.entries).items():
            cubes.add_metric([service], number)
        yield cubes

    def _ports(self) -> Iterator[Metric]:
        families = [CounterMetricFamily(f"polycube_port_{name}", text, labels=PORT) for name, text in zip(NAMES, HELP, strict=True)]
        up = GaugeMetricFamily("polycube_port_up", "1 if frames can pass the port", labels=PORT)
        with counters_of(self.keeper, "pcn_counters") as counters:
            for entry in self.entries:
                for port, id, state in self._ids(entry):
                    values = [struct.unpack("<4Q", one) for one in counters(u32(id))]
                    labels = [entry.name, entry.service, port]
                    for index, family in enumerate(families):
                        family.add_metric(labels, sum(value[index] for value in values))
                    up.add_metric(labels, state)
        yield from families
        yield up

    def _ids(self, entry: Entry) -> Iterator[tuple[str, int, bool]]:
        if entry.transparent:
            yield "ingress", entry.ids[0], True
            yield "egress", entry.ids[1], True
        for name, (_, id) in entry.ports.items():
            yield name, id, self.keeper.state_of(entry.name, name).up

    def _drops(self) -> Metric:
        family = CounterMetricFamily("polycube_cube_drops", "Frames that a cube dropped", labels=["cube", "service", "reason"])
        services = {entry.name: entry.service for entry in self.entries}
        for (cube, reason), count in drop_counts(self.keeper, self.reasons).items():
            family.add_metric([cube, services.get(cube, ""), reason], count)
        return family

    def _times(self) -> Iterator[Metric]:
        labels = ["cube", "service", "handler"]
        seconds = CounterMetricFamily("polycube_cube_handler_seconds", "Time in a handler of a cube that is timed", labels=labels)
        packets = CounterMetricFamily("polycube_cube_handler_packets", "Packets in that time", labels=labels)
        with counters_of(self.keeper, TIMES) as times:
            for entry, handler in ((entry, handler) for entry in self.entries if entry.config.timing for handler in HANDLERS):
                taken = handler_time(times, entry.number, handler)
                seconds.add_metric([entry.name, entry.service, handler], taken.nanoseconds / 1e9)
                packets.add_metric([entry.name, entry.service, handler], taken.packets)
        yield from (seconds, packets)

    def _of_models(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for entry in self.entries:
            for one in measured(type(entry.config)) if entry.name in self.dumps else ():
                name = one.name(entry.service)
                if name not in families:
                    kind = CounterMetricFamily if one.metric.kind == "counter" else GaugeMetricFamily
                    families[name] = kind(name, one.description, labels=["cubeName" if one.metric.name else "cube", *one.labels])
                for labels, value in one.samples(self.dumps[entry.name]):
                    families[name].add_metric([entry.name, *labels], value)
        yield from families.values()

    def _units(self) -> Iterator[Metric]:
        fuser = self.keeper.fuser
        build = GaugeMetricFamily("polycube_unit_build_seconds", "Time in which a fused unit was compiled", labels=["unit"])
        load = GaugeMetricFamily("polycube_unit_load_seconds", "Time in which the kernel took it", labels=["unit"])
        for name, made in [(name, one) for name, one in list(fuser.made.items()) if name in fuser.standing]:
            build.add_metric([name], made.build)
            load.add_metric([name], made.load)
        yield from (build, load)
        yield GaugeMetricFamily("polycube_fused_units", "Chains that are one program", value=len(fuser.standing))

    def _workers(self) -> Iterator[Metric]:
        restarts = CounterMetricFamily("polycube_worker_restarts", "Ends of a worker that nobody wanted", labels=["service"])
        memory = GaugeMetricFamily("polycube_worker_memory_bytes", "Resident memory of a worker", labels=["service"])
        processor = CounterMetricFamily("polycube_worker_cpu_seconds", "Processor time a worker took", labels=["service"])
        throttled = CounterMetricFamily("polycube_worker_throttled_seconds", "Time a worker had to wait for its limit", labels=["service"])
        packets = CounterMetricFamily("polycube_worker_packets", "Slow-path packets a worker handled", labels=["service"])
        for status in self.keeper.workers.status():
            restarts.add_metric([status.service], status.restarts)
            memory.add_metric([status.service], status.memory)
            processor.add_metric([status.service], status.processor)
            throttled.add_metric([status.service], status.throttled)
            packets.add_metric([status.service], status.packets)
        yield from (restarts, memory, processor, throttled, packets)
