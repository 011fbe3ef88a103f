# SPDX-License-Identifier: Apache-2.0
"""Control plane of dynmon: injected code by configuration, maps by request.

Each direction's code is a piece of code of the instance. Its maps are those of the cube with the direction in front of their names, so
that both directions may have maps of the same name. Where a map is swapped on reading, the code is there twice, on two sets of maps, and
`dynmon_active` says which one runs: reading turns that over, waits until all programs that may still be at the other set have ended,
reads it and empties it. So every update is in just one reading, and nobody waits.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from polycube.bpf import Map, MapType, grace
from polycube.compiler.code import Code, Language
from polycube.core.cube import Cube
from polycube.core.maps import MapView
from polycube.cubes.dynmon.dialect import foreign
from polycube.cubes.dynmon.export import Entry, open_metrics, readable
from polycube.cubes.dynmon.model import DynmonConfig, MetricConfig, PathConfig
from polycube.model import Diff, ModelError, Problem, Tag, suggest

HANDLER = "pcn_monitor"
DIRECTIONS = ("ingress", "egress")
SWAP = "_swap"
KEYLESS = {MapType.QUEUE, MapType.STACK}
INDEXED = {MapType.ARRAY, MapType.PERCPU_ARRAY}
PERCPU = {MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH}
READABLE = KEYLESS | INDEXED | PERCPU | {MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE}
Found = dict[str, dict[str, list[Entry]]]  # direction -> metric -> entries


class Dynmon(Cube[DynmonConfig]):
    """Dynamic Traffic Monitor transparent service"""

    config = DynmonConfig
    layer = 10

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._reading = asyncio.Lock()  # a turn is taken by one reader at a time

    @classmethod
    def code(cls, config: DynmonConfig) -> tuple[Code, ...]:
        pieces: list[Code] = []
        for direction, path in _paths(config):
            where = (*_place(direction), "code")
            odd = foreign(path.code)
            if odd:
                raise ModelError(*(Problem(Tag.INVALID_VALUE, where, f"cannot be compiled: {one}") for one in odd))
            swapped = _swapped(path)
            pieces.append(Code(direction, Language.C, path.code, exports=((HANDLER, f"dynmon_{direction}"),), path=where))
            if swapped:
                second = ((HANDLER, f"dynmon_{direction}{SWAP}"),)
                pieces.append(Code(direction, Language.C, path.code, exports=second, swapped=swapped, path=where))
        return tuple(pieces)

    def apply(self, change: Diff[DynmonConfig]) -> None:
        old = dict(_paths(change.old)) if change.old else {}
        for number, direction in enumerate(DIRECTIONS):
            path = dict(_paths(change.node)).get(direction)
            if path is not None:
                self._check(direction, path)
            if (path and (path.code, _swapped(path))) != ((now := old.get(direction)) and (now.code, _swapped(now))):
                self.maps["dynmon_active"][number] = 0  # the code may be there once only

    def _check(self, direction: str, path: PathConfig) -> None:
        """Refuses metrics on maps that are not there, or can't be read."""
        own = [name.removeprefix(f"{direction}_") for name in self.maps if name.startswith(f"{direction}_") and not name.endswith(SWAP)]
        for metric in path.metric_configs.values():
            where = (*_place(direction), "metric-configs", metric.name, "map-name")
            if not own:  # at a start without clang and cache, the code is left out
                return
            if metric.map_name not in own:
                raise _refused(where, f"cannot be {metric.map_name}: the code has no such map{suggest(metric.map_name, own)}")
            type = self.maps[f"{direction}_{metric.map_name}"].shape.type
            if type not in READABLE:
                name = MapType(type).name if type in MapType._value2member_map_ else str(type)
                raise _refused(where, f"cannot be {metric.map_name}: it is of type {name}, whose entries can't be exported")

    def state(self) -> Mapping[str, Any]:
        """What can be seen without a change to anything: of swapped maps the set that the code works on."""
        found: Found = {}
        for number, (direction, path) in self._numbered():
            active = SWAP if self.maps["dynmon_active"].get(number, 0) else ""
            metrics = path.metric_configs.values()
            found[direction] = {metric.name: self._entries(direction, metric, active, take=False) for metric in metrics}
        return {"metrics": _metrics(found), "open-metrics": self._text(found)} if found else {}

    async def state_at(self, path: tuple[str, ...]) -> Mapping[str, Any]:
        assert self.current
        if path[:1] == ("open-metrics",):
            found = await self._read(lambda direction, metric: metric.open_metrics_metadata is not None)
            return {"open-metrics": self._text(found)}
        if path[:1] == ("metrics",):
            wanted = (path[1].removesuffix("-metrics") if len(path) > 1 else "", path[2] if len(path) > 2 else "")
            found = await self._read(lambda direction, metric: wanted[0] in ("", direction) and wanted[1] in ("", metric.name))
            return {"metrics": _metrics(found)}
        return self.state()

    async def _read(self, wanted: Any) -> Found:
        """The contents of those maps; of what is swapped in a direction, all maps change sides at the same moment."""
        assert self.current
        async with self._reading:
            found: Found = {}
            for number, (direction, path) in self._numbered():
                chosen = [metric for metric in path.metric_configs.values() if wanted(direction, metric)]
                side = ""
                if any(metric.extraction_options.swap_on_read for metric in chosen):
                    side = await self._turn(number)
                found[direction] = {metric.name: self._entries(direction, metric, side) for metric in chosen}
            return found

    def _numbered(self) -> Iterator[tuple[int, tuple[str, PathConfig]]]:
        assert self.current
        for direction, path in _paths(self.current):
            yield DIRECTIONS.index(direction), (direction, path)

    async def _turn(self, number: int) -> str:
        """Has the code go on with its other set of maps; gives the ending of the names of those that are at rest then."""
        before = self.maps["dynmon_active"].get(number, 0)
        self.maps["dynmon_active"][number] = 1 - before
        await asyncio.to_thread(grace)
        return SWAP if before else ""

    def _entries(self, direction: str, metric: MetricConfig, side: str, *, take: bool = True) -> list[Entry]:
        options = metric.extraction_options
        name = f"{direction}_{metric.map_name}{side if options.swap_on_read else ''}"
        if name not in self.maps or (not take and self.maps[name].shape.type in KEYLESS):
            return []
        return read(self.maps[name], empty=take and (options.empty_on_read or options.swap_on_read))

    def _text(self, found: Found) -> str:
        assert self.current
        families = []
        for direction, path in _paths(self.current):
            for name, entries in found.get(direction, {}).items():
                about = path.metric_configs[name].open_metrics_metadata
                if about is not None:
                    families.append((direction, name, about, entries))
        return open_metrics(families)


def read(view: MapView, *, empty: bool) -> list[Entry]:
    """The entries of a map; queues and stacks can't be read but by taking everything out."""
    kernel, key, value = view.kernel, view.shape.key, view.shape.value
    if kernel is None:
        return []
    if view.shape.type in KEYLESS:
        return [Entry([readable(value, raw)], index=index) for index, raw in enumerate(kernel.take_all())]
    percpu = view.shape.type in PERCPU
    entries = []
    for raw_key, raw in kernel.take_items() if empty else kernel.items():
        values = [readable(value, one) for one in (_each_cpu(kernel, raw) if percpu else [raw])]
        if view.shape.type in INDEXED:
            entries.append(Entry(values, percpu, index=int.from_bytes(raw_key, "little")))
        else:
            entries.append(Entry(values, percpu, key=readable(key, raw_key)))
    return entries


def _each_cpu(kernel: Map, raw: bytes) -> list[bytes]:
    step = kernel.info.value_size + 7 & ~7
    return [raw[at : at + step] for at in range(0, len(raw), step)]


def _metrics(found: Found) -> dict[str, Any]:
    now = time.time_ns()
    return {
        f"{direction}-metrics": [
            {"name": name, "value": json.dumps([entry.as_data() for entry in entries]), "timestamp": now}
            for name, entries in metrics.items()
        ]
        for direction, metrics in found.items()
    }


def _paths(config: DynmonConfig) -> Iterator[tuple[str, PathConfig]]:
    for direction, path in zip(DIRECTIONS, (config.dataplane_config.ingress_path, config.dataplane_config.egress_path), strict=True):
        if path is not None:
            yield direction, path


def _place(direction: str) -> tuple[str, str]:
    return "dataplane-config", f"{direction}-path"


def _swapped(path: PathConfig) -> tuple[str, ...]:
    """Maps of a direction that are swapped on reading."""
    metrics = path.metric_configs.values()
    return tuple(sorted({metric.map_name for metric in metrics if metric.extraction_options.swap_on_read}))


def _refused(path: tuple[str, ...], message: str) -> ModelError:
    return ModelError(Problem(Tag.INVALID_VALUE, path, message))
