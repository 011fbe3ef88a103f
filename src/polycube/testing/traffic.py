# SPDX-License-Identifier: Apache-2.0
"""Traffic in which every frame counts: a generator in one namespace, a sink in another, and what was lost, doubled or reordered between.

A frame carries its number; the sink, an eBPF program (traffic.bpf.c), keeps a bit for each, so that the counts are exact, not estimates.
Frames are sent in batches of about a millisecond's worth, by a thread that stays on one CPU, so that they leave in order.

On `Hook.TC` frames are sent by sendmmsg(2) on a packet socket: they leave as what the host's own stack sends, whatever stands at the other
end; the sink stands on TCX ingress and sees also what `bpf_redirect_peer` delivers. On `Hook.XDP` they are made in the kernel, by a program
that BPF_PROG_TEST_RUN runs with live frames and that redirects them into the netdev: much faster, but it needs NAPI at the netdev's other
end (an XDP program there, or GRO); the sink is a native XDP program. Each test run of a program that is attached nowhere enters it into the
kernel's XDP dispatcher and takes it out again, which takes some 50 ms: so the generator is also attached to the sender's loopback, where it
passes everything.

A late generator does not catch up: bursts would overflow the 256 slots of a veth's queue and look like loss by the path.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count as counting

from polycube.bpf import AttachType, Link, Map, Object, Program, XdpMode, features, tcfilter, u32, xdp_md
from polycube.compiler.function import Helper, Hook
from polycube.net import netns
from polycube.net.rtnl import Rtnl
from polycube.testing.hosts import FAR, Host
from polycube.testing.numbered import MAGIC, Batch, Headers
from polycube.testing.stage import FOLDER, emit

__all__ = ["Gap", "Headers", "Place", "Report", "Traffic"]

SETUP = struct.Struct("<128s10I")  # struct traffic_setup
COUNTS = struct.Struct("<3Q")  # struct traffic_counts
MAX_BATCH = 64
LOOPBACK = 1  # its ifindex in every namespace
LARGEST = 1 << 26  # frames of one run: 8 MB of bits
_runs = counting(os.getpid())


@dataclass(frozen=True)
class Place:
    """Where frames are sent or counted: a netdev of a namespace."""

    namespace: netns.Where
    ifname: str = FAR


@dataclass(frozen=True)
class Gap:
    """Frames in a row that are missing, and when the first was sent (time.monotonic)."""

    first: int
    count: int
    sent_at: float


@dataclass(frozen=True)
class Report:
    """What became of the frames."""

    sent: int
    received: int  # each frame once
    duplicated: int
    reordered: int
    gaps: tuple[Gap, ...] = field(default=(), compare=False)

    @property
    def lost(self) -> int:
        """Sent and not received."""
        return self.sent - self.received

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled or out of order."""
        return not (self.lost or self.duplicated or self.reordered)

    def __str__(self) -> str:
        text = f"{self.sent} sent, {self.received} received, {self.lost} lost, {self.duplicated} duplicated, {self.reordered} reordered"
        return text + "".join(f"; {gap.count} missing from {gap.first}" for gap in self.gaps[:8])


class Traffic:
    """A flow of counted frames from one host to another; `with` takes everything away again.

    A `Place` has no addresses: then the headers must have them. `ipv6` chooses which ones of hosts are used. `sink_hook` is where the sink
    stands, if not on `hook`; `count_only` makes the sink cheap, for measurements: it counts all frames and knows none.
    """

    def __init__(
        self,
        source: Host | Place,
        sink: Host | Place,
        headers: Headers | None = None,
        *,
        ipv6: bool = False,
        flows: int = 1,
        hook: Hook = Hook.TC,
        sink_hook: Hook | None = None,
        count_only: bool = False,
    ) -> None:
        self.source, self.sink = (Place(end.name) if isinstance(end, Host) else end for end in (source, sink))
        headers = headers or Headers()
        source_address, sink_address = ((end.ipv6 if ipv6 else end.ipv4) if isinstance(end, Host) else "" for end in (source, sink))
        self.headers = replace(headers, source=headers.source or source_address, destination=headers.destination or sink_address)
        self.flows, self.hook, self._sink_hook = flows, hook, sink_hook or hook
        self._count_only = count_only
        self._run = next(_runs) & 0xFFFF
        self._objects: list[Object] = []
        self._links: list[Callable[[], None]] = []
        self._maps: dict[str, Map] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._samples: list[tuple[float, int]] = []
        self._frame = b""
        self._udp = 0
        self._ifindex = 0
        self._sent = 0
        self._generator: Program | None = None

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, capacity: int = LARGEST) -> None:
        """Loads and attaches everything; the numbers begin at zero. `start` does it."""
        self.close()
        self._stopping.clear()
        self._samples.clear()
        self._sent = 0
        self._ifindex, source_mac = netns.run_in(self.source.namespace, lambda: _netdev(self.source.ifname))
        _, sink_mac = netns.run_in(self.sink.namespace, lambda: _netdev(self.sink.ifname))
        headers = self.headers
        template, udp = headers.template(_mac(headers.source_mac) or source_mac, _mac(headers.destination_mac) or sink_mac, self._run)
        self._frame = template.ljust(max(headers.size, 64), b"\0")
        maker = self._load(self.hook, capacity)
        numbers = (udp, self._ifindex, self.flows, headers.source_port, MAGIC, self._run, headers.stations, headers.networks, 0)
        setup = SETUP.pack(template, len(template), *numbers)
        self._maps["traffic_setups"].set(u32(0), setup)
        self._udp = udp
        taker = maker if self._sink_hook is self.hook else self._load(self._sink_hook, capacity)
        netns.run_in(self.sink.namespace, lambda: self._attach(taker, "traffic_count" if self._count_only else "traffic_sink"))
        if self.hook is Hook.XDP:
            self._generator = generator = maker.program("traffic_redirect")
            self._links.append(netns.run_in(self.source.namespace, lambda: Link.xdp(generator, LOOPBACK, XdpMode.SKB)).close)

    def start(self, rate: int = 50_000, *, count: int | None = None, seconds: float | None = None) -> None:
        """Sends until `count` frames are out, `seconds` have passed, or `stop`. `rate`: frames a second."""
        limit = count if count is not None else int(rate * seconds) if seconds is not None else LARGEST
        if limit > LARGEST:
            raise ValueError(f"{limit} frames are more than a run can tell apart ({LARGEST})")
        self.prepare(limit)
        self._failure = None
        self._thread = threading.Thread(target=self._guarded, args=(rate, limit), name="traffic", daemon=True)
        self._thread.start()

    def stop(self) -> Report:
        """Ends the sending, waits for what is on its way, and reports."""
        self._stopping.set()
        return self.wait()

    def wait(self) -> Report:
        """Waits for the end of the run and reports."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._failure:
            raise self._failure
        before, quiet = -1, 0
        while quiet < 50 and self.received() < self.sent():  # a second in which nothing came
            quiet = quiet + 1 if self.received() == before else 0
            before = self.received()
            time.sleep(0.02)
        return self.report()

    def report(self) -> Report:
        """The counts so far; while frames are on their way they count as lost."""
        counts = self._counts()
        sent = self.sent()
        gaps = () if self._count_only or counts[0] == sent else tuple(self._gaps(sent))
        return Report(sent, *counts, gaps)

    def sent(self) -> int:
        """Frames sent so far."""
        if self.hook is Hook.TC:
            return self._sent
        raw = self._maps["traffic_setups"].get(u32(0))
        return int(SETUP.unpack(raw)[-1]) if raw else 0

    def received(self) -> int:
        """Different frames received so far."""
        return self._counts()[0]

    def burst(self, frames: int) -> int:
        """XDP: sends as fast as can be; between `prepare` and `close`, by a thread of the source's namespace. Returns ns a frame."""
        assert self._generator
        context = xdp_md(len(self._frame), ingress_ifindex=self._ifindex)
        batch = min(frames, MAX_BATCH)
        return self._generator.test_run(self._frame, context=context, live=True, repeat=frames, batch_size=batch).duration_ns

    def close(self) -> None:
        """Stops sending and detaches everything."""
        self._stopping.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        for detach in reversed(self._links):
            detach()
        self._links.clear()
        for opened in self._objects:
            opened.close()
        self._objects.clear()
        for opened_map in self._maps.values():
            opened_map.close()
        self._maps.clear()
        self._generator = None

    # ---- sending ----

    def _guarded(self, rate: int, limit: int) -> None:
        try:
            netns.run_in(self.source.namespace, lambda: self._send(rate, limit))
        except BaseException as error:
            self._failure = error

    def _send(self, rate: int, limit: int) -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this thread: frames of one CPU stay in order
        with suppress(PermissionError):  # before whatever else the machine does: it takes a tenth of a CPU
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        batch = max(1, min(MAX_BATCH, rate // 1000))
        sent, due = 0, time.monotonic()
        with Batch(self.source.ifname, self._frame, self._udp, self.headers.source_port, self.flows, self._run, batch) as packets:
            while sent < limit and not self._stopping.is_set():
                now = time.monotonic()
                if now < due:
                    time.sleep(due - now)
                    continue
                frames = min(batch, limit - sent)
                if not sent % (batch * 16):
                    self._samples.append((now, sent))
                if self.hook is Hook.XDP:
                    self.burst(frames)
                else:
                    frames = packets.send(sent, frames)
                    self._sent += frames
                sent += frames
                due = max(due + frames / rate, now)

    # ---- counting ----

    def _counts(self) -> tuple[int, int, int]:
        values = [COUNTS.unpack(value) for value in self._maps["traffic_counted"].get_percpu(u32(0))]
        received, duplicated, reordered = (sum(column) for column in zip(*values, strict=True))
        return received, duplicated, reordered

    def _gaps(self, sent: int) -> list[Gap]:
        words = dict(self._maps["traffic_seen"].items())
        bits = int.from_bytes(b"".join(words[u32(index)] for index in range(len(words))), "little")
        missing = ~bits & (1 << sent) - 1
        gaps: list[Gap] = []
        while missing and len(gaps) < 1000:
            first = (missing & -missing).bit_length() - 1
            rest = missing >> first
            length = (~rest & rest + 1).bit_length() - 1
            gaps.append(Gap(first, length, self._sent_at(first)))
            missing &= ~(((1 << length) - 1) << first)
        return gaps

    def _sent_at(self, number: int) -> float:
        earlier = [sample for sample in self._samples if sample[1] <= number]
        return earlier[-1][0] if earlier else 0.0

    # ---- loading ----

    def _load(self, hook: Hook, capacity: int) -> Object:
        opened = Object.open(_object(hook), "traffic")
        self._objects.append(opened)
        sizes = {"traffic_seen": capacity // 64 + 1, "traffic_highest": self.flows}
        for spec in opened.maps.values():
            if spec.name in self._maps:
                spec.reuse(self._maps[spec.name])
            elif spec.name in sizes:
                spec.max_entries = sizes[spec.name]
        opened.load()
        for spec in opened.maps.values():
            if spec.name not in self._maps:
                self._maps[spec.name] = opened.map(spec.name)
        return opened

    def _attach(self, opened: Object, name: str) -> None:
        """Puts the sink where it belongs."""
        ifindex, hook = socket.if_nametoindex(self.sink.ifname), self._sink_hook
        with opened.program(name) as program:
            if hook is Hook.TC and not features().tcx:
                tcfilter.attach(program, ifindex, AttachType.TCX_INGRESS)
                self._links.append(lambda: self._detach_filter(ifindex))
                return
            link = Link.xdp(program, ifindex) if hook is Hook.XDP else Link.tcx(program, ifindex, AttachType.TCX_INGRESS)
            self._links.append(link.close)

    def _detach_filter(self, ifindex: int) -> None:
        with suppress(Exception):  # the namespace or the netdev may be gone
            netns.run_in(self.sink.namespace, lambda: tcfilter.detach(ifindex, AttachType.TCX_INGRESS))


@cache
def _object(hook: Hook) -> bytes:
    return emit(Helper("traffic", FOLDER, hook))


def _netdev(name: str) -> tuple[int, bytes]:
    ifindex = socket.if_nametoindex(name)
    with Rtnl() as rtnl:
        found = rtnl.link(ifindex)
    assert found
    return ifindex, bytes(found.mac)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
