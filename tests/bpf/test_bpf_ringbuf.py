# SPDX-License-Identifier: Apache-2.0
"""The ring buffer's reading end."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from bpflab import Load

from polycube.bpf import BpfError, Map, MapType, Object, RingBuffer, RingReader

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
volatile __u32 number;
SEC("xdp") int say(struct xdp_md *ctx)
{
	__u32 *record = bpf_ringbuf_reserve(&events, 4, 0);
	if (!record)
		return XDP_DROP;
	*record = number++;
	bpf_ringbuf_submit(record, 0);
	return XDP_PASS;
}
"""
FRAME = bytes(64)


def emit(loaded: Object, number: int) -> None:
    with loaded.program("say") as program:
        for _ in range(number):
            assert program.test_run(FRAME).retval == 2


def reader(loaded: Object, into: list[int]) -> RingBuffer:
    with loaded.map("events") as events:
        return RingBuffer(events, lambda data: into.append(int.from_bytes(data, "little")))


def test_records_come_in_order(load: Load) -> None:
    loaded, got = load(SOURCE), list[int]()
    with reader(loaded, got) as ring:
        assert ring.consume() == 0
        emit(loaded, 5)
        assert ring.consume() == 5 and got == [0, 1, 2, 3, 4]
        assert ring.consume() == 0


def test_a_budget_leaves_the_rest_for_later(load: Load) -> None:
    loaded, got = load(SOURCE), list[int]()
    with reader(loaded, got) as ring:
        emit(loaded, 7)
        assert [ring.consume(3), ring.consume(0), ring.consume(-1), ring.consume(3), ring.consume(3)] == [3, 0, 0, 3, 1]
        assert got == list(range(7))


def test_the_descriptor_is_readable_while_there_are_records(load: Load) -> None:
    loaded, got = load(SOURCE), list[int]()
    with loaded.program("say") as program, reader(loaded, got) as ring:
        loaded.close()  # nobody but the reader has the map open now
        assert select.select([ring.epoll_fd], [], [], 0)[0] == []
        for _ in range(2):
            program.test_run(FRAME)
        assert select.select([ring.epoll_fd], [], [], 2)[0] == [ring.epoll_fd]
        ring.consume()
        assert select.select([ring.epoll_fd], [], [], 0)[0] == []


def test_an_exception_in_the_callback_ends_the_run_and_comes_out(load: Load) -> None:
    loaded, got = load(SOURCE), list[int]()

    def callback(data: bytes) -> None:
        number = int.from_bytes(data, "little")
        if number == 2:
            raise LookupError("two")
        got.append(number)

    with loaded.map("events") as events, RingBuffer(events, callback) as ring:
        emit(loaded, 5)
        with pytest.raises(LookupError, match="two"):
            ring.consume()
        assert got == [0, 1]
        assert ring.consume() == 2 and got == [0, 1, 3, 4]  # the one that failed is consumed


def test_what_was_not_consumed_is_there_for_the_next_process(load: Load, pins: Path) -> None:
    loaded, got = load(SOURCE), list[int]()
    emit(loaded, 6)
    with reader(loaded, got) as ring:
        ring.consume(2)
    with loaded.map("events") as events:
        events.pin(pins / "events")
    loaded.close()
    code = f"""
from polycube.bpf import Map, RingBuffer
got = []
with Map.open({str(pins / "events")!r}) as events, RingBuffer(events, lambda data: got.append(data[0])) as ring:
    ring.consume(3)
print(got)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "[2, 3, 4]\n" and got == [0, 1]
    with Map.open(pins / "events") as events, RingBuffer(events, lambda data: got.append(data[0])) as ring:
        assert ring.consume() == 1 and got == [0, 1, 5]


def test_a_full_buffer_drops_and_takes_again_when_read(load: Load) -> None:
    loaded, got = load(SOURCE), list[int]()
    with reader(loaded, got) as ring, loaded.program("say") as program:
        room = 0
        while program.test_run(FRAME).retval == 2:
            room += 1
        assert room == 4096 // 16 - 1 or room == 4096 // 16
        assert ring.consume() == room
        assert program.test_run(FRAME).retval == 2


def test_a_closed_reader_is_an_error(load: Load) -> None:
    ring = reader(load(SOURCE), [])
    ring.close()
    ring.close()
    with pytest.raises(BpfError, match="it is closed"):
        ring.consume()


def test_a_map_that_is_no_ring_buffer_is_refused() -> None:
    with Map.create(MapType.HASH, 4, 4, 4) as made, pytest.raises(BpfError, match="open ring buffer"):
        RingBuffer(made, lambda data: None)


# ---- RingReader ----


def test_many_records_are_taken_at_once_and_written_as_they_are(load: Load, tmp_path: Path) -> None:
    loaded = load(SOURCE)
    emit(loaded, 100)
    with loaded.map("events") as events:
        reader = RingReader(events)
    batch = reader.read(60)
    rest = reader.read()
    assert (len(batch), len(rest), len(reader.read())) == (60, 40, 0)
    assert batch.size == sum(map(len, batch))
    path = tmp_path / "out"
    with path.open("wb") as file:
        assert batch.writev(file.fileno()) == batch.size
    assert path.read_bytes() == b"".join(map(bytes, batch))
    del batch, rest
    reader.release()
    for turn in range(30):  # round and round
        emit(loaded, 50)
        batch = reader.read()
        assert [int.from_bytes(one, "little") for one in batch] == list(range(100 + turn * 50, 150 + turn * 50))
        reader.release()
    del batch
    reader.close()


def test_a_batch_that_can_not_be_written_is_an_error(load: Load) -> None:
    loaded = load(SOURCE)
    emit(loaded, 1)
    with loaded.map("events") as events:
        reader = RingReader(events)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.read().writev(-1)
    reader.close()
