# SPDX-License-Identifier: Apache-2.0
"""A draft as the topology sees it: with objects for the hooks its cubes need, the netdevs that are there, and what cubes wish for.

What a cube's part was made from is remembered, so that a change of one among hundreds makes one part anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from polycube.bpf import BpfError, VerifierError
from polycube.compiler.code import Code, CodeError, Diagnostic, located
from polycube.compiler.errors import CompileError
from polycube.compiler.function import Function
from polycube.core.kernel import KernelError
from polycube.core.loading import Load
from polycube.core.maps import Shapes
from polycube.core.mirror import Fact
from polycube.core.operation import Kind
from polycube.core.registry import Installed
from polycube.core.topology import CubeSpec, NetdevSpec, PortState, World, hooks
from polycube.core.waysin import INJECT_INNER, INTERNAL
from polycube.daemon.draft import Draft, Entry, Refused
from polycube.daemon.events import Picture
from polycube.daemon.objects import Built, Objects
from polycube.model import ModelError, Problem, Tag
from polycube.net import netns, readiness
from polycube.net.netdev import Netdev

log = structlog.get_logger("polycubed")


@dataclass(frozen=True)
class Wishes:
    """What a cube wants beside map writes: constants for its programs, MAC and addresses for its netdevs, flood domains, facts
    of its namespace."""

    cfg: Mapping[str, str] = field(default_factory=dict)
    netdevs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    domains: Mapping[int, Sequence[int]] = field(default_factory=dict)
    shadow: AbstractSet[Fact] | None = None  # what its namespace shows; None: it is not asked, or could not say

    def granted(self, spec: CubeSpec) -> CubeSpec:
        """The cube as it wants to be; the same object if it is."""
        if (self.cfg, self.netdevs, self.domains) == (spec.cfg, spec.netdevs, spec.domains):
            return spec
        return replace(spec, cfg=self.cfg, netdevs=self.netdevs, domains=self.domains)


NO_WISHES = Wishes()


class Worlds:
    """Makes worlds; `loads` gets what the kernel will need to load the units in them."""

    def __init__(self, installed: Mapping[str, Installed], objects: Objects, loads: MutableMapping[tuple[str, str], Load]) -> None:
        self._installed = installed
        self._objects = objects
        self._loads = loads
        self._specs: dict[str, tuple[Entry, Any, CubeSpec]] = {}  # uuid -> what its spec was made from, and the spec
        self._xdp_problems: dict[int, tuple[Netdev, str]] = {}
        self.shut: AbstractSet[int] = frozenset()  # ids of ports that are set down in a namespace
        self._without: set[Function] = set()  # whose code can't be had any more

    async def built(self, entry: Entry, wanted: Iterable[str]) -> dict[str, Built]:
        """A cube's objects for some hooks. Refuses what can't be compiled; of code of its own, it says which line."""
        function = self._function(entry)
        try:
            built = {hook: await self._objects.get(function, hook) for hook in wanted}
            if function.code:
                Shapes.read(*(one.path for one in built.values()))
            return built
        except ValueError as error:  # bit fields in a map, and other things that have no layout
            raise _refused(entry, function.code[0], "cannot be used", [Diagnostic(str(error))]) from error
        except CodeError as error:
            raise _refused(entry, error.code, "cannot be compiled", error.diagnostics) from None
        except CompileError as error:
            if function.code:
                raise _refused(entry, function.code[0], "cannot be compiled", [Diagnostic(error.reason)]) from error
            raise Refused(str(error)) from error

    async def excuse(self, entries: Iterable[Entry]) -> None:
        """At the start: code that was taken once and isn't now, perhaps for want of clang, is left out, and said to be."""
        for entry in entries:
            try:
                await self.built(entry, [entry.hook])
            except ModelError as error:
                log.error(f"its own code is left out: {error}", cube=entry.name)
                self._without.add(self._installed[entry.service].cls.function_of(entry.config))

    def _function(self, entry: Entry) -> Function:
        try:
            function = self._installed[entry.service].cls.function_of(entry.config)
        except ModelError as error:
            raise error.within(entry.name) from None
        return replace(function, code=()) if function in self._without else function

    async def prepare(self, draft: Draft, standing: Mapping[str, Entry]) -> None:
        """Makes the objects of what a draft changes: that may take seconds, and is nothing to hold locks for."""
        for name, entry in draft.cubes.items():
            if standing.get(name) is not entry:
                await self.built(entry, [entry.hook])

    async def paths(self, entry: Entry) -> dict[str, Path]:
        """Where the cube's worker finds the layouts of its maps."""
        return {hook: one.path for hook, one in (await self.built(entry, [entry.hook])).items()}

    def unloadable(self, draft: Draft, error: KernelError) -> ModelError | None:
        """What the kernel has against a cube's own code, if that is what it didn't load."""
        key = error.operation.key
        entry = next((one for one in draft.cubes.values() if one.uuid == key.name[0]), None)
        code = self._function(entry).code if entry and key.kind is Kind.UNIT else ()
        if not entry or not code or not isinstance(error.cause, BpfError):
            return None
        found = [(one, located(one, *_said(error.cause))) for one in code]
        one, diagnostic = next((pair for pair in found if pair[1].line), found[0])
        hook = key.name[1].partition("-")[0]
        return _refused(entry, one, f"cannot be loaded for {hook}", [diagnostic])

    async def usable(self, wanted: Collection[tuple[str, str]]) -> dict[str, Installed]:
        """Services but for those whose unit can't be had: they must not keep the others' cubes from starting."""
        usable = dict(self._installed)
        for service, hook in wanted:
            try:
                if service in usable:
                    await self._objects.get(usable[service].function, hook)
            except CompileError as error:
                del usable[service]
                log.error(str(error))
        return usable

    async def of(self, draft: Draft, present: Mapping[str, Netdev], wished: Mapping[str, Wishes]) -> World:
        """The draft as the topology sees it, with the objects its cubes need."""
        bare = World({name: entry.bare for name, entry in draft.cubes.items()}, {}, draft.attached)
        specs = {}
        for name, entry in draft.cubes.items():
            installed = self._installed[entry.service]
            built = await self.built(entry, hooks(entry.bare, bare))
            own, wishes = built[entry.hook], wished.get(entry.uuid, NO_WISHES)
            more = ({hook: one.unit for hook, one in built.items()}, own.floods, own.egress, wishes)
            known = self._specs.get(entry.uuid)
            if known is None or known[0] is not entry or known[1] != more:
                sizes = installed.cls.sizes(entry.config)
                for one in built.values():
                    self._loads.setdefault((entry.uuid, one.unit), Load(entry.service, one.data, sizes, installed.cls.learned, one.piece))
                units, floods, egress, _ = more
                spec = wishes.granted(replace(entry.bare, units=units, floods=floods, egress=egress))
                self._specs[entry.uuid] = known = (entry, more, spec)
            specs[name] = known[2]
        return World(specs, await self._netdev_specs(draft, present), draft.attached, INJECT_INNER, self.shut)

    def forget(self, uuids: Iterable[str]) -> None:
        """What is kept of cubes that are gone, or never came to be."""
        gone = {uuid for uuid in uuids if self._specs.pop(uuid, None)}
        for key in [key for key in self._loads if key[0] in gone] if gone else ():
            del self._loads[key]

    async def _netdev_specs(self, draft: Draft, present: Mapping[str, Netdev]) -> dict[str, NetdevSpec]:
        users = {port.peer for entry, port in draft.ports() if entry.hook == "xdp"}
        indexes = {one.ifindex for one in present.values()}
        self._xdp_problems = {ifindex: known for ifindex, known in self._xdp_problems.items() if ifindex in indexes}
        specs = {}
        for name, one in present.items():
            problem = await self._xdp_problem(one) if name in users else ""
            specs[name] = NetdevSpec(name, one.ifindex, one.up, one.mtu, one.kind == "veth" and one.peer_netnsid is not None, problem)
        return specs

    async def _xdp_problem(self, netdev: Netdev) -> str:
        known = self._xdp_problems.get(netdev.ifindex)
        if known and known[0] == netdev:
            return known[1]
        result = await netns.call_in(None, lambda: readiness.plan(netdev))
        reason = result.reason if isinstance(result, readiness.NotReady) else ""
        self._xdp_problems[netdev.ifindex] = (netdev, reason)
        return reason


def _said(error: BpfError) -> tuple[str, str]:
    """The verifier's verdict and its log; of other errors the sentence."""
    return (error.summary, error.log) if isinstance(error, VerifierError) else (str(error), "")


def _refused(entry: Entry, code: Code, what: str, diagnostics: Iterable[Diagnostic]) -> ModelError:
    """Code of a cube is refused: a problem for each place in it."""
    return ModelError(*(Problem(Tag.INVALID_VALUE, (entry.name, *code.path), f"{what}: {one}") for one in diagnostics))


def granted(world: World, wishes: Mapping[str, Wishes]) -> World:
    """The world with the cubes' wishes; the same one if these are none of them new."""
    changed = {}
    for name, spec in world.cubes.items():
        wish = wishes.get(spec.uuid)
        if wish and wish.granted(spec) is not spec:
            changed[name] = wish.granted(spec)
    return replace(world, cubes=dict(world.cubes) | changed) if changed else world


def picture(
    entries: Mapping[str, Entry],
    attached: Mapping[str, tuple[str, ...]],
    present: Mapping[str, Netdev],
    state_of: Callable[[str, str], PortState],
) -> Picture:
    """What stands, for the stream of events."""
    ports = list(Draft(entries, attached).ports())
    states = {(entry.name, port.name): state_of(entry.name, port.name) for entry, port in ports}
    parents = {name: netdev for netdev, cubes in attached.items() for name in cubes}
    parents |= {name: f"{entry.name}:{port.name}" for entry, port in ports for name in port.tcubes}
    return Picture(
        {name: (entry.uuid, entry.config) for name, entry in entries.items()},
        {name: entry.service for name, entry in entries.items()},
        {key: (state.up, state.reason) for key, state in states.items()},
        parents,
        {name: (one.ifindex, one.up) for name, one in present.items() if one.ifindex < INTERNAL},
    )
