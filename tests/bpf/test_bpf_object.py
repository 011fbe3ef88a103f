# SPDX-License-Identifier: Apache-2.0
"""Objects: what is set between open and load, and what comes out."""

import asyncio

import pytest
from bpflab import Compile, Load

from polycube.bpf import BpfError, Map, MapType, Object, VerifierError

COUNTER = """
struct key { __u32 address; __u16 port; __u16 vlan; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, struct key); __type(value, __u64); } sessions SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } hits SEC(".maps");
volatile __u32 seen = 7;
volatile __u64 sum;
const volatile __u32 step = 1;
volatile __u16 verdict SEC(".data.cfg") = XDP_PASS;
SEC("xdp") int count(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct key key = { .vlan = step };
	__u64 *value = bpf_map_lookup_elem(&hits, &zero), one = step;
	if (value)
		*value += step;
	seen++;
	sum += seen;
	bpf_map_update_elem(&sessions, &key, &one, 0);
	return verdict;
}
"""
TWO = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } used SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } unused SEC(".maps");
SEC("xdp") int first(struct xdp_md *ctx) { __u32 k = 0; return bpf_map_lookup_elem(&used, &k) ? XDP_PASS : XDP_DROP; }
SEC("xdp") int second(struct xdp_md *ctx) { __u32 k = 0; return bpf_map_lookup_elem(&unused, &k) ? XDP_PASS : XDP_DROP; }
"""
BAD = 'SEC("xdp") int bad_%d(struct xdp_md *ctx) { char *data = (void *)(long)ctx->data; return data[%d]; }'
FRAME = bytes(64)


def test_open_lists_maps_programs_and_data_sections(compile: Compile) -> None:
    with Object.open(compile(COUNTER), "test") as opened:
        assert set(opened.maps) == {"sessions", "hits", ".data", ".bss", ".rodata", ".data.cfg"}
        assert opened.maps["sessions"].type == MapType.HASH and opened.maps["sessions"].max_entries == 4
        assert opened.maps["sessions"].key_size == 8 and opened.maps["sessions"].value_size == 8
        assert opened.maps["hits"].flags == 0 and not opened.maps["hits"].data
        assert [name for name, spec in opened.maps.items() if spec.data] == [n for n in opened.maps if n.startswith(".")]
        assert opened.programs["count"].section == "xdp" and opened.programs["count"].autoload
        assert opened.programs["count"].expected_attach_type == 37


@pytest.mark.parametrize("name", ["test", "a.b", "a-name-that-is-longer-than-15", "br-1"])
def test_data_sections_keep_their_names_whatever_the_object_is_called(compile: Compile, name: str) -> None:
    with Object.open(compile(COUNTER), name) as opened:
        assert {".data", ".bss", ".rodata", ".data.cfg"} < set(opened.maps)
        assert set(opened.maps[".data"].variables()) == {"seen"}


def test_what_is_no_object_is_refused_with_a_sentence() -> None:
    with pytest.raises(BpfError, match="open object rubbish") as caught:
        Object.open(b"not an ELF file at all", "rubbish")
    assert "Unknown error" not in str(caught.value)


def test_variables_have_offsets_and_layouts(compile: Compile) -> None:
    with Object.open(compile(COUNTER), "test") as opened:
        offset, layout = opened.maps[".data.cfg"].variables()["verdict"]
        assert (offset, layout.kind, layout.size) == (0, "int", 2)
        assert opened.maps[".data"].initial == b"\7\0\0\0"


def test_data_written_before_load_is_what_the_program_sees(compile: Compile) -> None:
    with Object.open(compile(COUNTER), "test") as opened:
        opened.maps[".data.cfg"].initial = b"\1\0"
        opened.maps[".rodata"].initial = b"\x05\0\0\0"
        opened.load()
        with opened.program("count") as program, opened.map("hits") as hits, opened.map(".data") as data:
            assert program.test_run(FRAME).retval == 1
            assert hits.get(bytes(4)) == b"\5" + bytes(7)
            assert data.get(bytes(4)) == b"\x08\0\0\0"
        with opened.map(".rodata") as constants, pytest.raises(BpfError, match="not permitted"):
            constants.set(bytes(4), bytes(4))


def test_data_of_another_size_is_refused(compile: Compile) -> None:
    with Object.open(compile(COUNTER), "test") as opened, pytest.raises(BpfError, match=r"set contents of \.data\.cfg"):
        opened.maps[".data.cfg"].initial = bytes(3)


def test_sizes_set_before_load_are_the_maps_sizes(compile: Compile) -> None:
    with Object.open(compile(COUNTER), "test") as opened:
        opened.maps["sessions"].max_entries = 1000
        opened.load()
        with opened.map("sessions") as sessions:
            assert sessions.info.max_entries == 1000


def test_a_reused_map_is_shared_and_keeps_its_entries(load: Load, compile: Compile) -> None:
    first = load(COUNTER)
    with first.map("hits") as hits, Object.open(compile(COUNTER), "test") as second:
        hits.set(bytes(4), b"\x29" + bytes(7))
        second.maps["hits"].reuse(hits)
        second.load()
        with second.program("count") as program, second.map("hits") as same:
            assert same.info.id == hits.info.id
            program.test_run(FRAME)
            assert hits.get(bytes(4)) == b"\x2a" + bytes(7)


def test_a_map_of_other_sizes_is_not_reused(compile: Compile) -> None:
    with Object.open(compile(COUNTER), "test") as opened, Map.create(MapType.ARRAY, 4, 4, 1, name="small") as small:
        with pytest.raises(BpfError, match=r"reuse map small for hits.*\(2, 4, 4\).*\(2, 4, 8\)"):
            opened.maps["hits"].reuse(small)
        with pytest.raises(BpfError, match="reuse"), Map.create(MapType.HASH, 4, 8, 1) as other:
            opened.maps["hits"].reuse(other)


def test_a_skipped_program_needs_not_its_skipped_map(compile: Compile) -> None:
    with Object.open(compile(TWO), "test") as opened:
        opened.programs["second"].autoload = False
        opened.maps["unused"].skip()
        opened.load()
        with opened.program("first") as program:
            assert program.test_run(FRAME).retval == 2
        with pytest.raises(BpfError, match=r"map unused: No such file.*has not loaded it"):
            opened.map("unused")
        with pytest.raises(BpfError, match=r"program second: No such file.*has not loaded it"):
            opened.program("second")


def test_a_program_that_uses_a_skipped_map_is_refused(compile: Compile) -> None:
    with Object.open(compile(TWO), "test") as opened:
        opened.maps["unused"].skip()
        with pytest.raises(VerifierError) as caught:
            opened.load()
        assert caught.value.program == "second" and "unused" in caught.value.summary


def test_maps_and_programs_outlive_their_object(load: Load) -> None:
    loaded = load(COUNTER)
    program, hits = loaded.program("count"), loaded.map("hits")
    loaded.close()
    with program, hits:
        program.test_run(FRAME)
        assert hits.get(bytes(4)) == b"\1" + bytes(7)


def test_a_spec_of_a_closed_object_is_an_error_and_no_crash(compile: Compile) -> None:
    opened = Object.open(compile(COUNTER), "test")
    spec, program = opened.maps["hits"], opened.programs["count"]
    opened.close()
    opened.close()
    for use in (lambda: spec.max_entries, spec.describe, lambda: program.autoload, opened.load):
        with pytest.raises(TypeError):
            use()


def test_enum_values_are_read_from_the_object(compile: Compile) -> None:
    source = 'enum mood { BAD = 3, GOOD }; volatile enum mood now; SEC("xdp") int p(struct xdp_md *ctx) { return now; }'
    with Object.open(compile(source), "test") as opened:
        assert opened.enum_values("mood") == {"BAD": 3, "GOOD": 4}
        assert opened.enum_values("nothing") == {}


ENTRY = """
struct inner {{ {fields} }};
struct {{ __uint(type, {type}); __uint(max_entries, {size}); __uint(map_flags, {flags}); __type(key, __u32); __type(value, struct inner); }}
	table SEC(".maps");
volatile {variable};
SEC("xdp") int p(struct xdp_md *ctx) {{ __u32 k = 0; now = 1; return bpf_map_lookup_elem(&table, &k) ? 1 : 2; }}
"""
PLAIN = {"fields": "__u32 a; __u32 b;", "type": "BPF_MAP_TYPE_HASH", "size": 4, "flags": 0, "variable": "__u32 now"}


def describe(compile: Compile, **changes: object) -> tuple[str, str]:
    with Object.open(compile(ENTRY.format(**PLAIN | changes)), "test") as opened:
        return opened.maps["table"].describe(), opened.maps[".bss"].describe()


@pytest.mark.parametrize(
    "change",
    [
        {"fields": "__u32 b; __u32 a;"},
        {"fields": "__u32 a; __s32 b;"},
        {"fields": "__u32 a; __u16 b;"},
        {"fields": "__u32 a; __u16 b[2];"},
        {"fields": "__u32 a; __u32 b; __u32 c;"},
        {"fields": "union { __u32 a; __u32 b; }; __u32 c;"},
        {"type": "BPF_MAP_TYPE_LRU_HASH"},
        {"flags": "BPF_F_NO_PREALLOC"},
    ],
    ids=str,
)
def test_another_layout_has_another_canonical_text(compile: Compile, change: dict[str, object]) -> None:
    assert describe(compile, **change)[0] != describe(compile)[0]


@pytest.mark.parametrize("change", [{"size": 9}, {"fields": "__u32 a; unsigned int b;"}, {"fields": "__be32 a; __u32 b;"}], ids=str)
def test_sizes_and_names_of_types_are_no_part_of_the_text(compile: Compile, change: dict[str, object]) -> None:
    assert describe(compile, **change)[0] == describe(compile)[0]


def test_the_text_of_a_data_section_follows_its_variables(compile: Compile) -> None:
    assert describe(compile, variable="__u16 now")[1] != describe(compile)[1]


def test_both_compilers_give_the_same_text(compile: Compile) -> None:
    source = ENTRY.format(**PLAIN)
    with Object.open(compile(source), "test") as old, Object.open(compile(source, "clang-19"), "test") as new:
        assert {n: s.describe() for n, s in old.maps.items()} == {n: s.describe() for n, s in new.maps.items()}


def test_objects_load_in_threads_and_each_gets_its_own_errors(compile: Compile) -> None:
    good = compile(COUNTER)
    bad = [compile(BAD % (i, i)) for i in range(4)]

    def attempt(data: bytes) -> str:
        with Object.open(data, "test") as opened:
            try:
                opened.load()
            except VerifierError as error:
                return f"{error.program} {error.summary}"
            return "loaded"

    async def main() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(attempt, data) for _ in range(8) for data in (good, *bad)))

    results = asyncio.run(main())
    assert results[::5] == ["loaded"] * 8
    for i in range(4):
        for result in results[i + 1 :: 5]:
            assert result.startswith(f"bad_{i} ") and f"off={i} " in result
