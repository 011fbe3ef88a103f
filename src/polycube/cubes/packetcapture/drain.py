# SPDX-License-Identifier: Apache-2.0
"""The thread that takes packets out of the ring buffer. It comes by itself, the sooner the more there was, so that the data plane wakes
nobody; blocks go from the shared memory straight into files and sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from polycube.bpf import Map, RingReader
from polycube.cubes.packetcapture.output import Blocks, Counts, Files, Queue, Stream
from polycube.cubes.packetcapture.pcapng import Source

REST = 0.02  # seconds between visits when little comes
HASTE = 0.001
IDLE = 0.1  # when nothing came for a while
LENGTH_AT = 4  # of a block: its length
BATCH = 1024  # records, as many as one writev takes


@dataclass
class Outputs:
    """Where packets go now. Replaced as a whole, by the event loop."""

    source: Source
    files: Files | None = None
    queue: Queue | None = None
    rewrite: Callable[[memoryview], bytes] | None = None


@dataclass
class Drain:
    """Runs between `start` and `stop`. `counts` gives packets taken and lost so far."""

    outputs: Outputs
    counts: Counts
    streams: list[Stream] = field(default_factory=list)
    unstreamed: int = 0  # of streams that are over
    failure: str = ""  # of the thread itself

    def start(self, map: Map) -> None:
        """Begins to read; the map may be closed then."""
        self._reader = RingReader(map, LENGTH_AT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Takes what is there, then ends."""
        self._over.set()
        self._thread.join(5)
        for stream in self.streams:
            stream.close()
        if not self._thread.is_alive():
            self._reader.close()

    def _run(self) -> None:
        last: Files | None = None
        quiet = 0
        try:
            while True:
                ending = self._over.is_set()
                outputs = self.outputs
                if last is not None and last is not outputs.files:
                    last.finish(self.counts)
                last = outputs.files
                size = self._visit(outputs)
                if outputs.files:
                    outputs.files.tick(self.counts)
                self._look_after_streams(outputs.source)
                if ending and not size:
                    break
                quiet = 0 if size else quiet + 1
                self._over.wait(self._rest(size, quiet))
            if last is not None:
                last.finish(self.counts)
        except Exception as error:  # told by the cube's timer
            self.failure = f"{type(error).__name__}: {error}"

    def _rest(self, size: int, quiet: int) -> float:
        """How long to stay away after a visit that found so much, or nothing for the so many-th time."""
        if size > self._reader.size // 8:
            return 0
        return HASTE if size > self._reader.size // 64 else REST if quiet < 50 else IDLE

    def _visit(self, outputs: Outputs) -> int:
        """Takes all there is, but not for ever; bytes of it."""
        begin = self._reader.position
        while self._reader.position - begin < self._reader.size and (batch := self._reader.read(BATCH)):
            blocks: Blocks = batch if outputs.rewrite is None else [outputs.rewrite(view) for view in batch]
            if outputs.files:
                outputs.files.write(blocks, outputs.source, self.counts)
            if outputs.queue is not None:
                outputs.queue.write(blocks)
            for stream in list(self.streams):
                stream.write(blocks, outputs.source)
            self._reader.release()
        else:
            self._reader.release()
        return self._reader.position - begin

    def _look_after_streams(self, source: Source) -> None:
        for stream in list(self.streams):
            if not stream.closed:
                stream.poll(source)
            if stream.closed:
                self.streams.remove(stream)
                self.unstreamed += stream.lost
