# SPDX-License-Identifier: Apache-2.0
"""What units under test stand on: the maps all cubes share, a probe at the end of each port, and devices for flooded copies.

One stage a hook and process; loading a cube onto it takes milliseconds. Nothing of it is simulated: units are emitted, linked by next
hops and tail calls, and flooded, as in the daemon. The difference is that every port that leads out of the chain leads to the probe, as
if it were one more cube, and that frames come from BPF_PROG_TEST_RUN.

- TC: the unit runs once, behind a prologue that moves the outer VLAN tag to where real frames have it. Flooded copies are clones that
  pass the injection device, a veth of this process's own namespace.
- XDP: the unit runs in live-frames mode, so that a broadcast is carried out; copies pass an internal veth each, as in the daemon. What
  it passes to the stack is seen on TC ingress of the device it seems to come from.

The process must have been isolated (isolation.py) before a stage is made: it makes netdevs.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from polycube.bpf import AttachType, Link, Map, Object, Program, RingBuffer, features, sk_buff, tcfilter, u32, xdp_md
from polycube.compiler import build
from polycube.compiler.cache import ObjectCache
from polycube.compiler.function import COMPILER, Helper, Hook, UnitSpec, injector
from polycube.compiler.process import Compiler
from polycube.core.datalog import LOGS, DataLog
from polycube.core.datalog import decode as decode_log
from polycube.core.slowpath import INJECT
from polycube.core.topology import SHADOW_BASE
from polycube.net.links import Links
from polycube.net.rtnl import Rtnl

T = TypeVar("T")
FOLDER = Path(__file__).resolve().parent
PROBE_SLOT = 1  # cube 0 is never given away, so its slots are free
PASSED = 0xFFFF
SHADOW = 0x4000  # and the id of a port: what is handed into the namespace
FLAG_VLAN = 0x8000
RECORD = struct.Struct("<IIHHIHHI")
MTU = 9000
HEADERS = {b"\x08\x00": 20, b"\x86\xdd": 40}


@dataclass(frozen=True)
class Record:
    """What the probe wrote down: a frame and the port of the cube under test that it left by (`endpoint`, a port id)."""

    endpoint: int
    flags: int
    mark: int
    frame: bytes  # tags included


def with_tag(frame: bytes, tci: int, proto: int) -> bytes:
    """The frame with a tag from the metadata put where it is on the wire; `proto` as the kernel has it, in network byte order."""
    return frame[:12] + struct.pack("<H", proto) + struct.pack(">H", tci) + frame[12:]


def decode(data: bytes) -> Record:
    """A record of the ring buffer."""
    _, caplen, endpoint, flags, _, tci, proto, mark = RECORD.unpack_from(data)
    frame = data[RECORD.size : RECORD.size + caplen]
    if flags & FLAG_VLAN:
        frame = with_tag(frame, tci, proto)
    return Record(endpoint, flags, mark, frame)


def in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """Runs a coroutine in a loop of its own, whether or not this thread has one. The thread is in the same namespaces."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        async def main() -> None:
            result.append(await work())

        try:
            asyncio.run(main())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def veth(name: str) -> tuple[int, int]:
    """A quiet veth pair, up on both ends, without IPv6 and its chatter; its ifindexes."""

    async def work() -> tuple[int, int]:
        async with Links() as links:
            near = await links.create_veth(name, f"{name}p", mtu=MTU)
            far = await links.get(f"{name}p")
            for end in (f"{name}p", name):  # that by which frames are sent last: it takes them at once
                await links.disable_ipv6(end)
                await links.set_up(end)
            return near.ifindex, far.ifindex

    return in_thread(work)


@cache
def compiler() -> Compiler:
    """The compiler of all tests of this process, with a cache in the user's own folder."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made = Compiler(ObjectCache(folder / "polycube"))
    atexit.register(made.close)
    return made


@cache
def emit(spec: UnitSpec | Helper) -> bytes:
    """The object; from source, if there are a source newer than its bitcode and a compiler."""
    fresh_bitcode(COMPILER)
    fresh_bitcode(spec.function.folder if isinstance(spec, UnitSpec) else spec.folder)
    return compiler().emit_spec_sync(spec)


@cache
def fresh_bitcode(folder: Path) -> None:
    """Compiles what is stale in a folder, once a process."""
    if build.available():
        build.build([folder])


class Numbers:
    """Hands out the smallest free number."""

    def __init__(self, first: int, end: int) -> None:
        self._free = list(range(end - 1, first - 1, -1))

    def take(self) -> int:
        """A number nobody has."""
        return self._free.pop()

    def give(self, number: int) -> None:
        """Back again."""
        self._free.append(number)


class Stage:
    """The shared part of all cubes under test on one hook."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.maps: dict[str, Map] = {}
        self.cubes = Numbers(1, 2048)
        self.ids = Numbers(1, 16384)
        self.records: list[Record] = []
        self._links: list[Link] = []
        self._devices: list[tuple[int, int]] = []
        self._used = 0
        self.shadow_base = SHADOW_BASE + (hook == Hook.TC) * 2 * SHADOW  # both hooks' stages may be in one process
        helper = self.load(emit(Helper("probe", FOLDER, hook)), "probe")
        inject = self.load(emit(injector(hook)), "inject")
        with helper.program("probe") as probe:
            self.maps["pcn_progs"].set(u32(PROBE_SLOT), u32(probe.fd))
        self.lead = inject.program("pcn_lead")
        self.near, self.far = veth(f"pcn{hook}")
        if hook == Hook.TC:
            self.prologue = helper.program("prologue")
            self.start = helper.map("probe_start")
            self.wire = helper.program("wire")
            self.wires = helper.map("probe_wires")
            self._ingress(self.lead, self.near)
            self.shadow_out = inject.program("pcn_shadow_out")
        else:
            self.inject = inject.program("pcn_inject")
            observer = self.load(emit(Helper("probe", FOLDER, Hook.TC)), "observer")
            self.passed = observer.program("passed")
            self._ingress(self.passed, self.near)
        self._ring = RingBuffer(self.maps["probe_records"], lambda data: self.records.append(decode(data)))

    def load(self, data: bytes, name: str, sizes: Mapping[str, int] | None = None) -> Object:
        """Loads an object that shares the framework's maps (and the probe's) with those before it."""
        opened = Object.open(data, name)
        for spec in opened.maps.values():
            if spec.name in self.maps:
                spec.reuse(self.maps[spec.name])
            elif sizes and spec.name in sizes:
                spec.max_entries = sizes[spec.name]
        opened.load()
        for spec in opened.maps.values():
            if spec.name.startswith("pcn_") or spec.name == "probe_records":
                self.maps.setdefault(spec.name, opened.map(spec.name))
        return opened

    def take_device(self) -> tuple[int, int]:
        """An internal veth nobody uses, until `free_devices`: what is sent to its first end comes in by the second."""
        if self._used == len(self._devices):
            outer, inner = veth(f"pcn{self.hook}{self._used}")
            if self.hook == Hook.XDP:
                self._links.append(Link.xdp(self.lead, inner))
                self._ingress(self.passed, outer)
            else:
                self._ingress(self.wire, inner)
            self._devices.append((outer, inner))
        self._used += 1
        return self._devices[self._used - 1]

    def free_devices(self) -> None:
        """All internal veths are free again."""
        self._used = 0

    def lead_to(self, slot: int, port: int, flags: int, id: int) -> int:
        """XDP: a netdev, such that frames redirected to it come to a port of the cube in that slot."""
        outer, inner = self.take_device()
        self.maps["pcn_leads"].set(u32(inner), INJECT.pack(port, flags, id, slot, 0))
        return outer

    def netdev(self, endpoint: int) -> int:
        """A netdev with nothing but the probe behind it."""
        if self.hook == Hook.XDP:
            return self.lead_to(PROBE_SLOT, endpoint, 0, 0)
        outer, inner = self.take_device()
        self.wires.set(u32(inner), u32(endpoint))
        return outer

    def shadow(self, id: int) -> None:
        """The veth into a namespace that a port with this id would have, with nothing but the probe behind it."""
        outer, inner = self.shadow_base + id, self.shadow_base + SHADOW + id
        if not _exists(outer):  # a daemon that a test runs beside it removes what it does not know
            with Rtnl() as rtnl:
                rtnl.create_veth(f"s{self.hook}{id}", outer, f"s{self.hook}{id}p", inner, MTU)
                # the end that sends comes last: the other one of a pair sends only when the kernel has looked at its carrier
                for end, name in ((inner, f"s{self.hook}{id}p"), (outer, f"s{self.hook}{id}")):
                    Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6").write_text("1")
                    rtnl.change(end, up=True)
            if self.hook == Hook.XDP:
                self._links.append(Link.xdp(self.lead, inner))
            else:
                self._ingress(self.wire, inner)
        if self.hook == Hook.XDP:
            self.maps["pcn_leads"].set(u32(inner), INJECT.pack(SHADOW + id, 0, 0, PROBE_SLOT, 0))
        else:
            self.wires.set(u32(inner), u32(SHADOW + id))

    def run(self, program: Program, frame: bytes, *, ifindex: int = 0, mark: int = 0, gso_size: int = 0) -> int | None:
        """Runs a program once on a frame that seems to come from a netdev. TC gives the program's return value."""
        ifindex = ifindex or self.near
        with OneCpu():
            if self.hook == Hook.XDP:
                program.test_run(frame, context=xdp_md(len(frame), ingress_ifindex=ifindex), live=True, batch_size=1)
                return None
            self.start.set(u32(0), u32(program.fd))
            ethertype = 0
            if len(frame) - 14 < HEADERS.get(frame[12:14], 0):  # the kernel refuses it: the prologue puts the EtherType in
                ethertype = int.from_bytes(frame[12:14], "little")
                frame = frame[:12] + b"\xff\xff" + frame[14:]
            context = sk_buff(ifindex=ifindex, cb=(0, 0, 0, 0, ethertype), mark=mark, gso_size=gso_size, gso_segs=2 if gso_size else 0)
            self.left = self.prologue.test_run(frame, context=context)
            return self.left.retval

    def logs(self) -> list[DataLog]:
        """Log lines of data planes since the last call."""
        lines: list[DataLog] = []
        if LOGS in self.maps:
            with RingBuffer(self.maps[LOGS], lambda record: lines.append(decode_log(record))) as ring:
                ring.consume()
        return lines

    def consume(self) -> int:
        """Takes what the probe has written down so far."""
        return self._ring.consume()

    def _ingress(self, program: Program, ifindex: int) -> None:
        if features().tcx:
            self._links.append(Link.tcx(program, ifindex, AttachType.TCX_INGRESS))
        else:
            tcfilter.attach(program, ifindex, AttachType.TCX_INGRESS)


def _exists(ifindex: int) -> bool:
    try:
        return bool(socket.if_indextoname(ifindex))
    except OSError:
        return False


class OneCpu:
    """Keeps this thread on one CPU, so that what a run queues is handled there before the run returns."""

    def __enter__(self) -> None:
        self._before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._before)})

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._before)


@cache
def stage(hook: Hook) -> Stage:
    """The stage of this process."""
    return Stage(hook)
