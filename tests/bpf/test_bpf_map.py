# SPDX-License-Identifier: Apache-2.0
"""Maps of every type that is used, by single entries and in bulk."""

import errno
import ipaddress
import struct

import pytest
from bpflab import Compile, Load

from polycube.bpf import BpfError, Map, MapFull, MapType, NotSupported, Object, map, u32
from polycube.bpf.lib import possible_cpus

PROGS = """
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __uint(value_size, 4); } progs SEC(".maps");
SEC("xdp") int entry(struct xdp_md *ctx) { bpf_tail_call(ctx, &progs, 2); return XDP_DROP; }
SEC("xdp") int tail(struct xdp_md *ctx) { return XDP_TX; }
"""
FRAME = bytes(64)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def filled(number: int, size: int = 20000, type: MapType = MapType.HASH) -> Map:
    made = Map.create(type, 4, 8, size)
    made.set_many((u32(i), u64(i * i)) for i in range(number))
    return made


def test_an_entry_is_written_read_and_deleted() -> None:
    with Map.create(MapType.HASH, 4, 8, 4, name="plain") as made:
        assert made.get(u32(1)) is None and made.delete(u32(1)) is False
        made.set(u32(1), u64(11))
        assert made.get(u32(1)) == u64(11) and list(made.items()) == [(u32(1), u64(11))]
        assert made.lookup_and_delete(u32(1)) == u64(11) and made.lookup_and_delete(u32(1)) is None
        made.set(u32(1), u64(11))
        assert made.delete(u32(1)) is True and list(made.keys()) == []


def test_flags_ask_for_a_new_or_an_old_entry() -> None:
    with Map.create(MapType.HASH, 4, 8, 4) as made:
        with pytest.raises(BpfError) as caught:
            made.set(u32(1), u64(1), 2)
        assert caught.value.errno == errno.ENOENT
        made.set(u32(1), u64(1), 1)
        with pytest.raises(BpfError) as caught:
            made.set(u32(1), u64(1), 1)
        assert caught.value.errno == errno.EEXIST


def test_keys_and_values_of_another_size_are_refused_before_the_kernel_reads_them() -> None:
    with Map.create(MapType.HASH, 4, 8, 4, name="sized") as made:
        with pytest.raises(ValueError, match="map sized: key of 3 bytes, 4 expected"):
            made.get(b"abc")
        with pytest.raises(ValueError, match="map sized: value of 4 bytes, 8 expected"):
            made.set(u32(1), u32(1))
        with pytest.raises(ValueError, match="key of 3 bytes"):  # as many bytes in all as two good entries
            made.set_many([(b"abc", u64(1)), (b"abcde", u64(2))])
        assert list(made.items()) == []


def test_the_info_is_the_kernels() -> None:
    with Map.create(MapType.LRU_HASH, 6, 12, 33, name="a_name_too_long_for_it") as made:
        info = made.info
        assert (info.type, info.key_size, info.value_size, info.max_entries, info.flags) == (MapType.LRU_HASH, 6, 12, 33, 0)
        assert info.name == "a_name_too_long" and info.btf_id == 0 and made.layouts() is None
        with Map.by_id(info.id) as same:
            assert same.info == info


def test_layouts_come_from_the_map_itself(load: Load) -> None:
    source = """
    struct key { __u32 a; __u8 mac[6]; };
    struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, struct key); __type(value, __s64); } typed SEC(".maps");
    SEC("xdp") int p(struct xdp_md *ctx) { struct key k = {}; return bpf_map_lookup_elem(&typed, &k) ? 1 : 2; }
    """
    loaded = load(source)
    with loaded.map("typed") as typed:
        layouts = typed.layouts()
        assert layouts is not None
        key, value = layouts
        assert key.describe() == loaded.maps["typed"].key_layout.describe() == "struct:12{a@0:u32,mac@4:u8[6]}"
        assert value.describe() == "s64"


@pytest.mark.parametrize(
    ("type", "key_size", "value_size", "flags"),
    [
        (MapType.HASH, 4, 8, 0), (MapType.HASH, 4, 8, map.NO_PREALLOC), (MapType.PERCPU_HASH, 4, 8, 0), (MapType.DEVMAP_HASH, 4, 4, 0),
        (MapType.LPM_TRIE, 8, 8, map.NO_PREALLOC),
    ],
)  # fmt: skip
def test_a_full_map_says_so(type: MapType, key_size: int, value_size: int, flags: int) -> None:
    with Map.create(type, key_size, value_size, 3, flags=flags, name="tiny") as made:
        entries = [(struct.pack("<II", 32, i)[-key_size:], u32(1).ljust(value_size, b"\0")) for i in range(4)]
        with pytest.raises(MapFull, match="map tiny is full, it has 3 entries"):
            for key, value in entries:
                made.set(key, value)
        with pytest.raises(MapFull):
            made.set_many(entries)
        assert len(list(made.items())) == 3


def test_an_index_past_the_end_of_an_array_is_named() -> None:
    with Map.create(MapType.ARRAY, 4, 8, 3, name="three") as made:
        with pytest.raises(MapFull, match="map three has no index 3, it has 3 entries"):
            made.set(u32(3), u64(1))
        assert made.get(u32(3)) is None


@pytest.mark.parametrize("size", [1, 4, 8, 12])
@pytest.mark.parametrize("type", [MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH])
def test_a_per_cpu_map_has_a_value_for_each_cpu(type: MapType, size: int) -> None:
    with Map.create(type, 4, size, 300) as made:
        one = bytes(range(1, size + 1))
        made.set(u32(1), one)
        assert made.get_percpu(u32(1)) == [one] * possible_cpus()
        step = size + 7 & ~7
        row = b"".join(bytes([cpu] * size).ljust(step, b"\0") for cpu in range(possible_cpus()))
        made.set(u32(2), row)
        assert made.get_percpu(u32(2)) == [bytes([cpu] * size) for cpu in range(possible_cpus())]
        assert dict(made.items_percpu())[u32(2)] == made.get_percpu(u32(2))
        assert made.get_percpu(u32(999)) == []
        made.set_many((u32(i), one) for i in range(3, 9))
        assert made.get_percpu(u32(8)) == [one] * possible_cpus()


def test_a_program_array_takes_file_descriptors_and_gives_ids(load: Load) -> None:
    loaded = load(PROGS)
    with loaded.map("progs") as progs, loaded.program("entry") as entry, loaded.program("tail") as tail:
        assert entry.test_run(FRAME).retval == 1
        progs.set(u32(2), u32(tail.fd))
        assert progs.get(u32(2)) == u32(tail.info.id) and progs.get(u32(0)) is None
        assert list(progs.items()) == [(u32(2), u32(tail.info.id))]
        assert entry.test_run(FRAME).retval == 3
        assert progs.delete(u32(2)) and not progs.delete(u32(2))
        assert entry.test_run(FRAME).retval == 1
        progs.set(u32(1), u32(tail.fd))
        progs.clear()
        assert list(progs.items()) == []
        with pytest.raises(MapFull, match="map progs has no index 4"):
            progs.set(u32(4), u32(tail.fd))


@pytest.mark.parametrize("type", [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS])
def test_a_map_of_maps_takes_file_descriptors_and_gives_ids(type: MapType) -> None:
    model, inner, other = (Map.create(MapType.HASH, key, 8, 4) for key in (4, 4, 8))
    with model, inner, other, Map.create(type, 4, 4, 3, inner=model) as outer:
        outer.set(u32(1), u32(inner.fd))
        assert outer.get(u32(1)) == u32(inner.info.id) and outer.get(u32(0)) is None
        assert list(outer.items()) == [(u32(1), u32(inner.info.id))]
        with pytest.raises(BpfError):
            outer.set(u32(2), u32(other.fd))
        with Map.by_id(int.from_bytes(outer.get(u32(1)) or b"", "little")) as same:
            same.set(u32(9), u64(9))
        assert inner.get(u32(9)) == u64(9)
        outer.set_many([(u32(0), u32(model.fd)), (u32(2), u32(inner.fd))])
        assert len(list(outer.items())) == 3
        assert outer.delete(u32(1)) and outer.get(u32(1)) is None
        assert len(list(outer.items())) == 2


def test_a_devmap_hash_takes_netdevs_by_any_key() -> None:
    with Map.create(MapType.DEVMAP_HASH, 4, 8, 4) as made:
        made.set(u32(0xC0FFEE), struct.pack("<II", 1, 0))
        assert list(made.items()) == [(u32(0xC0FFEE), struct.pack("<II", 1, 0))]
        with pytest.raises(BpfError) as caught:
            made.set(u32(1), struct.pack("<II", 0x7FFFFFFF, 0))
        assert caught.value.errno in (errno.EINVAL, errno.ENODEV)
        made.clear()
        assert list(made.items()) == []


@pytest.mark.parametrize(
    ("number", "type"), [(0, MapType.HASH), (1, MapType.HASH), (20000, MapType.HASH), (20000, MapType.ARRAY), (9000, MapType.LRU_HASH)]
)
def test_batches_give_every_entry_once(number: int, type: MapType) -> None:
    with filled(number, type=type) as made:
        entries = list(made.items())
        assert len(entries) == len(dict(entries)) == (20000 if type == MapType.ARRAY else number)
        assert {k: v for k, v in entries if v != u64(0)} == {u32(i): u64(i * i) for i in range(1, number)}


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_bucket_larger_than_the_batch_makes_the_batch_larger(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    calls = []
    real = map.lib

    class Spy:
        def __getattr__(self, name: str) -> object:
            function = getattr(real, name)
            if name != "bpf_map_lookup_batch":
                return function

            def call(*arguments: object) -> int:
                calls.append(int(function(*arguments)))
                return calls[-1]

            return call

    with filled(5000, size=5000) as made:
        monkeypatch.setattr(map, "_BATCH", room)
        monkeypatch.setattr(map, "lib", Spy())
        assert dict(made.items()) == {u32(i): u64(i * i) for i in range(5000)}
        assert len(list(made.items())) == 5000
    assert -errno.ENOSPC in calls and calls[-1] == -errno.ENOENT


def test_batches_work_for_per_cpu_hashes() -> None:
    with Map.create(MapType.PERCPU_HASH, 4, 8, 20000) as made:
        made.set_many((u32(i), u64(i)) for i in range(9000))
        assert dict(made.items_percpu()) == {u32(i): [u64(i)] * possible_cpus() for i in range(9000)}


def test_large_values_do_not_ask_for_large_memory() -> None:
    with Map.create(MapType.HASH, 4, 1 << 20, 1 << 16, flags=map.NO_PREALLOC) as made:
        made.set_many((u32(i), bytes([i]) * (1 << 20)) for i in range(9))
        assert {k: v[:1] for k, v in made.items()} == {u32(i): bytes([i]) for i in range(9)}


@pytest.mark.parametrize("type", [MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH])
def test_large_maps_are_read_in_parts(type: MapType) -> None:
    with filled(10_000, 10_000, type) as made:
        parts = list(made.batches())
        assert len(parts) > 2 and sorted(entry for part in parts for entry in part) == sorted(made.items())


def test_parts_of_a_map_that_is_read_one_by_one() -> None:
    with Map.create(MapType.DEVMAP_HASH, 4, 4, 8) as made:
        made.set(u32(7), u32(1))
        assert [entry for part in made.batches() for entry in part] == [(u32(7), u32(1))]


def test_many_entries_are_deleted_and_absent_ones_do_not_matter() -> None:
    with filled(10_000) as made:
        made.delete_many(u32(number) for number in (*range(5000), 70_000, *range(3, 9)))
        assert sorted(made.keys()) == sorted(u32(number) for number in range(5000, 10_000))


def test_many_entries_are_cleared() -> None:
    with filled(20000) as made:
        made.clear()
        assert list(made.items()) == []
        made.clear()


def test_the_entries_before_a_failure_are_written() -> None:
    with Map.create(MapType.HASH, 4, 8, 5) as made:
        with pytest.raises(MapFull):
            made.set_many((u32(i), u64(i)) for i in range(9))
        assert sorted(dict(made.items())) == sorted(u32(i) for i in range(5))


def prefix(text: str) -> bytes:
    net = ipaddress.ip_network(text)
    return struct.pack("<I", net.prefixlen) + net.network_address.packed


def test_an_lpm_trie_lists_prefixes_and_finds_the_longest() -> None:
    routes = {prefix(text): u64(i) for i, text in enumerate(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"])}
    with Map.create(MapType.LPM_TRIE, 8, 8, 100, flags=map.NO_PREALLOC) as made:
        made.set_many(routes.items())
        assert dict(made.items()) == routes and set(made.keys()) == set(routes)
        assert made.get(prefix("10.1.9.9/32")) == routes[prefix("10.1.0.0/16")]
        assert made.delete(prefix("10.1.0.0/16")) and not made.delete(prefix("10.1.0.0/16"))
        assert made.get(prefix("10.1.9.9/32")) == routes[prefix("10.0.0.0/8")]
        made.clear()
        assert list(made.items()) == []


@pytest.mark.parametrize(("type", "order"), [(MapType.QUEUE, [1, 2]), (MapType.STACK, [2, 1])])
def test_queues_and_stacks_have_no_keys(type: MapType, order: list[int]) -> None:
    with Map.create(type, 0, 8, 2, name="line") as made:
        assert made.get(b"") is None and made.lookup_and_delete(b"") is None
        made.set(b"", u64(1))
        made.set(b"", u64(2))
        with pytest.raises(MapFull, match="map line is full"):
            made.set(b"", u64(3))
        assert made.get(b"") == u64(order[0])
        assert [made.lookup_and_delete(b"") for _ in range(3)] == [u64(order[0]), u64(order[1]), None]


def test_what_a_type_cannot_do_is_an_error_with_the_maps_name() -> None:
    with Map.create(MapType.ARRAY, 4, 8, 2, name="stiff") as made:
        with pytest.raises(BpfError, match="delete from map stiff"):
            made.delete(u32(0))
        with pytest.raises(NotSupported, match="take from map stiff"):
            made.lookup_and_delete(u32(0))
    with pytest.raises(BpfError, match="create HASH map br-1"):
        Map.create(MapType.HASH, 4, 8, 2, name="br-1")


def test_a_closed_map_is_an_error() -> None:
    made = Map.create(MapType.HASH, 4, 8, 2)
    assert made.info.key_size == 4
    made.close()
    made.close()
    with pytest.raises(BpfError, match="Bad file descriptor"):
        made.get(u32(1))
    with pytest.raises(BpfError):
        made.dup()


def test_a_sharer_keeps_a_map_open(compile: Compile) -> None:
    made = Map.create(MapType.HASH, 4, 8, 2)
    with made.dup() as other:
        made.close()
        other.set(u32(1), u64(1))
        assert other.get(u32(1)) == u64(1)
    with Object.open(compile(PROGS), "test") as opened:
        opened.load()
        first, second = opened.map("progs"), opened.map("progs")
        assert first.fd != second.fd
        first.close()
        assert second.info.max_entries == 4
        second.close()
