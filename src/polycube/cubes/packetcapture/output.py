# SPDX-License-Identifier: Apache-2.0
"""Where captured packets go: files that are rotated, a queue, and streams. Each takes blocks of pcapng as they lie in the ring buffer,
counts what it could not take, and holds no more than it says. Files and streams hold whole blocks only, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from polycube.bpf import Batch
from polycube.cubes.packetcapture.pcapng import Source, head, statistics

Blocks = Batch | Sequence[bytes]
Counts = Callable[[], tuple[int, int]]  # packets taken by the filter, and lost of them, so far
QUEUE = 4096  # packets
QUEUE_BYTES = 32 << 20
STREAM_BYTES = 4 << 20  # in the socket of a stream
ENDING = ".pcapng"


def size_of(blocks: Blocks) -> int:
    """Bytes of all blocks."""
    return blocks.size if isinstance(blocks, Batch) else sum(map(len, blocks))


def put(fd: int, blocks: Blocks) -> int:
    """Writes blocks, or a part of them; how many bytes. Raises OSError."""
    return blocks.writev(fd) if isinstance(blocks, Batch) else os.writev(fd, blocks)


class Files:
    """Files `<prefix>-<number>.pcapng`. Numbers go up; a file that is there is never written to, not even after a restart."""

    def __init__(self, prefix: Path, size: int, seconds: float, keep: int) -> None:
        self.prefix = prefix
        self.size = size  # bytes after which the next file is begun
        self.seconds = seconds  # the same by time; 0: never
        self.keep = keep
        self.path: Path | None = None
        self.written = self.unwritten = 0  # packets
        self.failure = ""  # why the last write failed
        self._fd = -1
        self._length = 0
        self._begun = 0.0
        self._source: Source | None = None
        self._counts = (0, 0)  # taken and lost when the file was begun

    def write(self, blocks: Blocks, source: Source, counts: Counts) -> None:
        """Writes them all to one file, or to none if that fails."""
        try:
            if self._fd < 0 or source != self._source or self._length >= self.size:
                self.finish(counts)
                self._begin(source, counts)
            self._append(blocks)
        except OSError as error:
            self.unwritten += len(blocks)
            self.failure = f"{self.path or self.prefix}: {error.strerror}"
        else:
            self.written += len(blocks)
            self.failure = ""

    def tick(self, counts: Counts) -> None:
        """Ends a file whose time has come."""
        if self._fd >= 0 and self.seconds and time.monotonic() - self._begun >= self.seconds:
            self.finish(counts)

    def finish(self, counts: Counts) -> None:
        """Ends the file, with statistics."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            taken, lost = counts()
            self._append([statistics(time.time_ns(), taken - self._counts[0], lost - self._counts[1])])
        os.close(self._fd)
        self._fd = -1
        self.path = None

    def _begin(self, source: Source, counts: Counts) -> None:
        known = self._known()
        number = max(known, default=0) + 1
        path = self._name(number)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.path, self._length, self._begun, self._source, self._counts = path, 0, time.monotonic(), source, counts()
        for old in sorted(known)[: max(0, len(known) + 1 - self.keep)]:
            self._name(old).unlink(missing_ok=True)
        self._append([head(source)])

    def _append(self, blocks: Blocks) -> None:
        wanted = size_of(blocks)
        try:
            done = put(self._fd, blocks)
            if done < wanted:  # a disk that is nearly full
                rest = memoryview(b"".join(blocks))[done:]
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self._length)
            os.lseek(self._fd, self._length, os.SEEK_SET)
            raise
        self._length += wanted

    def _name(self, number: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}-{number:05}{ENDING}")

    def _known(self) -> list[int]:
        pattern = re.compile(rf"{re.escape(self.prefix.name)}-(\d{{5,}}){re.escape(ENDING)}")
        return [int(found[1]) for path in self.prefix.parent.iterdir() if (found := pattern.fullmatch(path.name))]


class Queue:
    """Packets to be read one by one."""

    def __init__(self) -> None:
        self.unqueued = 0
        self._blocks: deque[bytes] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def write(self, blocks: Blocks) -> None:
        """Keeps what there is room for."""
        for one in blocks:
            if len(self._blocks) >= QUEUE or self._size + len(one) > QUEUE_BYTES:
                self.unqueued += 1
                continue
            self._blocks.append(bytes(one))
            self._size += len(one)

    def take(self) -> bytes | None:
        """The oldest packet."""
        try:
            block = self._blocks.popleft()
        except IndexError:
            return None
        self._size -= len(block)
        return block


class Stream:
    """A connected socket. A reader that is too slow loses packets, not parts of them."""

    def __init__(self, connected: socket.socket) -> None:
        self.lost = 0
        self.closed = False
        self._socket = connected
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BYTES)
        self._source: Source | None = None
        self._rest = b""  # of a block that went out in part

    def write(self, blocks: Blocks, source: Source) -> None:
        """Sends them, or counts them as lost."""
        gone = 0
        if not self.closed and self._flush():
            if source != self._source and self._send([head(source)]):
                self._source = source
            if source == self._source and not self._rest:
                gone = self._send(blocks)
        self.lost += len(blocks) - gone

    def _flush(self) -> bool:
        """Whether nothing of an earlier block is left to send."""
        if self._rest:
            rest, self._rest = self._rest, b""
            if not self._send([rest]):
                self._rest = rest
        return not self._rest

    def _send(self, blocks: Blocks) -> int:
        """How many went out; the rest of one that did so in part waits for the next time."""
        try:
            sent = put(self._socket.fileno(), blocks)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return 0
        if sent == size_of(blocks):
            return len(blocks)
        for number, one in enumerate(blocks):
            if sent < len(one):
                self._rest = bytes(one[sent:]) if sent else b""
                return number + bool(sent)
            sent -= len(one)
        return len(blocks)

    def poll(self, source: Source) -> None:
        """Says what it is a stream of, and notices that nobody reads any more."""
        self.write([], source)
        try:
            gone = not self.closed and not self._socket.recv(1)
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        if gone:
            self.close()

    def close(self) -> None:
        self.closed = True
        self._socket.close()
