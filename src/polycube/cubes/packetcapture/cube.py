# SPDX-License-Identifier: Apache-2.0
"""Control plane of packetcapture.

The data plane leaves packets in its ring buffer as blocks of a pcapng file; a thread (drain.py) takes them to where they are wanted. The
buffer, and the counts of what was taken and lost, are maps: packets that pass while nobody reads are kept as long as there is room, and
written by the next process.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from polycube import __version__
from polycube.bpf import Map
from polycube.compiler.code import Code
from polycube.core.cube import Cube, every, stream
from polycube.cubes.packetcapture import filter, pcapng
from polycube.cubes.packetcapture.drain import Drain, Outputs
from polycube.cubes.packetcapture.model import Directions, PacketcaptureConfig
from polycube.cubes.packetcapture.output import Files, Queue, Stream
from polycube.cubes.packetcapture.pcapng import Source
from polycube.cubes.packetcapture.pseudonym import Pseudonyms
from polycube.model import Diff, PolycubeError

BITS = {Directions.OFF: 0, Directions.INGRESS: 1, Directions.EGRESS: 2, Directions.BIDIRECTIONAL: 3}
MEGABYTE = 1 << 20
MICROSECONDS = 0xA1B2C3D4  # magic number of pcap files
NOTHING: Mapping[str, Any] = {"capturelen": 0, "packetlen": 0, "timestamp-seconds": 0, "timestamp-microseconds": 0, "rawdata": ""}


class NothingToStream(PolycubeError):
    """A stream of a cube that captures nothing."""

    status = 409

    def __init__(self, cube: str) -> None:
        self.cube = cube
        super().__init__(f"{cube} captures nothing: set capture to INGRESS, EGRESS or BIDIRECTIONAL first")


class Packetcapture(Cube[PacketcaptureConfig]):
    """Packet capture service"""

    config = PacketcaptureConfig
    layer = 20

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._drain: Drain | None = None
        self._queue = Queue()
        self._packet = dict(NOTHING)  # the last one that was taken from the queue
        self._counts: Map | None = None  # of the drain's own: maps of the cube are closed and opened as programs change
        self._said = ""
        self._pseudonyms = Pseudonyms()

    @classmethod
    def code(cls, config: PacketcaptureConfig) -> tuple[Code, ...]:
        return (filter.code(config.filter),) if config.filter.strip() else ()

    @classmethod
    def sizes(cls, config: PacketcaptureConfig) -> dict[str, int]:
        return {"frames": config.buffer * MEGABYTE}

    def apply(self, change: Diff[PacketcaptureConfig]) -> None:
        if change.old is None:
            self.maps["clocks"][0] = _clock()
        self.cfg["directions"] = BITS[change.node.capture]
        self.cfg["snaplen"] = change.node.snaplen

    def settled(self) -> None:
        assert self.current
        if self.current.capture is Directions.OFF:
            self._stop()
            return
        if self._drain:
            self._drain.outputs = self._outputs(self._drain.outputs)
            return
        frames, counts = self.maps["frames"].kernel, self.maps["counts"].kernel
        assert frames and counts
        self._counts = Map.by_id(counts.info.id)
        self._drain = Drain(self._outputs(None), self._count)
        self._drain.start(frames)

    def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._drain:
            self._drain.stop()
            self._drain = None
        if self._counts:
            self._counts.close()
            self._counts = None

    @every(1)
    def tick(self) -> None:
        """Keeps the data plane's clock, and says what is wrong."""
        self.maps["clocks"][0] = _clock()
        files = self._drain.outputs.files if self._drain else None
        failure = (self._drain.failure if self._drain else "") or (files.failure if files else "")
        if failure and failure != self._said:
            self.log.error("packets are not written", reason=failure)
        self._said = failure

    @stream("stream")
    def follow(self, connected: socket.socket) -> None:
        """One more reader of the packets that come."""
        if not self._drain:
            raise NothingToStream(self.name)
        reader = Stream(connected)
        reader.poll(self._drain.outputs.source)  # what it is, at once; packets from now on
        self._drain.streams.append(reader)

    def _outputs(self, before: Outputs | None) -> Outputs:
        """As the configuration wants it; files go on if nothing changes that concerns them."""
        assert self.current
        config = self.current
        description = f"{self.name} ({config.capture.lower()}{', pseudonyms' if config.anonimize else ''})"
        source = Source(self.parent or self.name, description, config.filter, config.snaplen, f"polycube {__version__}")
        rewrite = partial(pcapng.rewritten, change=self._pseudonyms.frame) if config.anonimize else None
        if config.networkmode:
            return Outputs(source, queue=self._queue, rewrite=rewrite)
        files = before.files if before else None
        rotation = config.rotation
        limits = (rotation.size * MEGABYTE, rotation.time, rotation.files)
        if files is None or limits != (files.size, files.seconds, files.keep) or config.dump not in ("", str(files.prefix)):
            former, files = files, Files(Path(config.dump) if config.dump else _somewhere(self.name), *limits)
            if former:
                files.written, files.unwritten = former.written, former.unwritten
        return Outputs(source, files=files, rewrite=rewrite)

    def _count(self) -> tuple[int, int]:
        """Packets that the filter took, and those of them that were lost."""
        layout = self.maps["counts"].shape.value
        kernel = self._counts or self.maps["counts"].kernel
        values = (
            [layout.unpack(raw) for direction in (0, 1) for raw in kernel.get_percpu(direction.to_bytes(4, "little"))] if kernel else []
        )
        return sum(one["taken"] for one in values), sum(one["lost"] for one in values)

    # ---- operational data ----

    def state(self) -> Mapping[str, Any]:
        assert self.current
        taken, lost = self._count()
        numbers = {"taken": taken, "lost": lost, "queued": len(self._queue), "unqueued": self._queue.unqueued}
        found: dict[str, Any] = {"statistics": numbers}
        if self._drain:
            streams, files = list(self._drain.streams), self._drain.outputs.files
            numbers |= {"streams": len(streams), "unstreamed": self._drain.unstreamed + sum(one.lost for one in streams)}
            if files:
                numbers |= {"written": files.written, "unwritten": files.unwritten}
                found |= {"file": str(files.path)} if files.path else {}
        if self.current.networkmode:
            header = {"magic": MICROSECONDS, "version_major": 2, "version_minor": 4, "thiszone": 0, "sigfigs": 0}
            found["globalheader"] = header | {"snaplen": self.current.snaplen, "linktype": pcapng.ETHERNET}
        return found

    async def state_at(self, path: tuple[str, ...]) -> Mapping[str, Any]:
        """A whole packet is the next one; a leaf is of the one that was read last."""
        if path == ("packet",):
            self._take()
        return {**self.state(), "packet": self._packet} if path[:1] == ("packet",) else self.state()

    def _take(self) -> None:
        block = self._queue.take()
        self._packet = dict(NOTHING)
        if block is not None:
            found = pcapng.packet(block)
            seconds, rest = divmod(found["time"], 1_000_000_000)
            self._packet = {
                "capturelen": len(found["data"]),
                "packetlen": found["length"],
                "timestamp-seconds": seconds,
                "timestamp-microseconds": rest // 1000,
                "rawdata": found["data"].decode("latin-1"),
            }


def _clock() -> int:
    """Nanoseconds between the clock that data planes have and 1970."""
    before = time.monotonic_ns()
    now = time.time_ns()
    return now - (before + time.monotonic_ns()) // 2


def _somewhere(cube: str) -> Path:
    """The beginning of a name for files that nobody gave one."""
    return Path(tempfile.gettempdir()) / f"capture_{datetime.now():%Y%m%d-%H%M%S}_{cube}"
