# SPDX-License-Identifier: Apache-2.0
"""Layouts: what C says of a type, and the codec made of it."""

import struct
from functools import cache
from typing import Any

import pytest
from bpflab import Compile
from hypothesis import given, settings
from hypothesis import strategies as st

from polycube.bpf import Field, Layout, Object

TYPES = """
enum mood { GOOD = 1, BAD, WORST = 70000 };
enum wide { WIDE = 0x123456789abcULL };
enum below { BELOW = -2, ABOVE = 3 };
struct point { __s16 x; __s16 y; };
struct all {
	__u8 u8; __s8 s8; __u16 u16; __s16 s16; __u32 u32; __s32 s32; __u64 u64; __s64 s64;
	_Bool flag; char text[7]; __u8 mac[6]; __u16 ports[3]; __s32 grid[2][3]; struct point points[2]; enum mood mood;
	enum below below; enum wide wide; void *pointer; const volatile __u32 qualified;
	union { __u32 word; __u8 bytes[4]; struct { __u16 low; __u16 high; }; };
	struct { __u8 first; __be32 second; } __attribute__((packed)) inner;
	union { __u64 number; __u8 raw[8]; } named;
};
volatile struct all it;
volatile char tail;
SEC("xdp") int p(struct xdp_md *ctx) { return it.u8 + tail; }
"""
C = {"it": 0}


@cache
def layout_of(data: bytes) -> Layout:
    with Object.open(data, "test") as opened:
        return opened.maps[".bss"].variables()["it"][1]


@pytest.fixture(params=["clang", "clang-19"])
def all(compile: Compile, request: pytest.FixtureRequest) -> Layout:
    return layout_of(compile(TYPES, request.param))


def member(layout: Layout, name: str) -> Field:
    return next(field for field in layout.fields if field.name == name)


def test_offsets_sizes_and_signs_are_those_of_c(all: Layout) -> None:
    sizes = {"u8": (0, 1), "s8": (1, 1), "u16": (2, 2), "s16": (4, 2), "u32": (8, 4), "s32": (12, 4), "u64": (16, 8), "s64": (24, 8)}
    sizes["flag"] = (32, 1)
    assert {f.name: (f.offset, f.layout.size) for f in all.fields if f.name in sizes} == sizes
    assert [f.name for f in all.fields if f.layout.kind == "int" and f.layout.signed] == ["s8", "s16", "s32", "s64"]
    assert (member(all, "pointer").layout.kind, member(all, "pointer").layout.size) == ("int", 8)


def test_members_of_anonymous_structs_and_unions_are_reached_directly(all: Layout) -> None:
    at = member(all, "word").offset
    assert [member(all, name).offset - at for name in ("word", "bytes", "low", "high")] == [0, 0, 0, 2]
    packed = all.unpack(all.pack({"high": 0x1234}))
    assert packed["word"] == 0x12340000 and packed["bytes"] == b"\0\0\x34\x12"


def test_packed_structs_have_no_gaps(all: Layout) -> None:
    assert member(all, "inner").layout.describe() == "struct:5{first@0:u8,second@1:u32}"


def test_arrays_nest(all: Layout) -> None:
    assert member(all, "grid").layout.describe() == "s32[3][2]"
    assert member(all, "points").layout.describe() == "struct:4{x@0:s16,y@2:s16}[2]"
    packed = member(all, "grid").layout.pack([[1, 2, 3], [-1, -2, -3]])
    assert packed == struct.pack("<6i", 1, 2, 3, -1, -2, -3)


def test_enums_know_their_names(all: Layout) -> None:
    assert member(all, "mood").layout.names == (("GOOD", 1), ("BAD", 2), ("WORST", 70000))
    assert member(all, "wide").layout.size == 8
    assert member(all, "below").layout.pack(-2) == b"\xfe\xff\xff\xff"


def test_enums_wider_than_32_bits_and_below_zero_keep_their_values(compile: Compile) -> None:
    layout = layout_of(compile(TYPES, "clang-19"))
    assert dict(member(layout, "wide").layout.names) == {"WIDE": 0x123456789ABC}
    assert dict(member(layout, "below").layout.names) == {"BELOW": -2, "ABOVE": 3}
    assert member(layout, "below").layout.unpack(b"\xfe\xff\xff\xff") == -2


def values(layout: Layout) -> st.SearchStrategy[Any]:
    if layout.kind in ("int", "enum"):
        bits = layout.size * 8
        return st.integers(-1 << bits - 1, (1 << bits - 1) - 1) if layout.signed else st.integers(0, (1 << bits) - 1)
    if layout.kind == "array":
        assert layout.element
        if layout.element.kind in ("int", "enum") and layout.element.size == 1:
            return st.binary(min_size=layout.count, max_size=layout.count)
        return st.lists(values(layout.element), min_size=layout.count, max_size=layout.count)
    return st.fixed_dictionaries({f.name: values(f.layout) for f in layout.fields})


@st.composite
def layouts(draw: st.DrawFn, depth: int = 2) -> Layout:
    kind = draw(st.sampled_from(["int", "int", "enum", "array", "struct"] if depth else ["int"]))
    if kind in ("int", "enum"):
        return Layout(kind, draw(st.sampled_from([1, 2, 4, 8])), signed=draw(st.booleans()))
    if kind == "array":
        element, count = draw(layouts(depth - 1)), draw(st.integers(0, 4))
        return Layout("array", element.size * count, element=element, count=count)
    fields, at = [], 0
    for i in range(draw(st.integers(0, 4))):
        inner = draw(layouts(depth - 1))
        at += draw(st.integers(0, 3))
        fields.append(Field(f"f{i}", at, inner))
        at += inner.size
    return Layout("struct", at + draw(st.integers(0, 3)), fields=tuple(fields))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_unpack_is_the_reverse_of_pack(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    value = data.draw(values(layout))
    packed = layout.pack(value)
    assert len(packed) == layout.size and layout.unpack(packed) == value
    assert layout.pack(packed) == packed


@settings(max_examples=200, deadline=None)
@given(layout=layouts(), other=layouts())
def test_layouts_of_equal_text_pack_alike(layout: Layout, other: Layout) -> None:
    same_shape = layout.describe() == other.describe()
    assert same_shape == (layout.digest == other.digest)
    if same_shape:
        assert layout.size == other.size and layout.unpack(bytes(layout.size)) == other.unpack(bytes(layout.size))


def test_whole_c_structs_survive_a_round_trip(compile: Compile) -> None:
    layout = layout_of(compile(TYPES))

    @settings(max_examples=50, deadline=None)
    @given(st.binary(min_size=layout.size, max_size=layout.size))
    def round_trip(data: bytes) -> None:
        value = layout.unpack(data)
        assert layout.unpack(layout.pack(value)) == value

    round_trip()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"u8": 256}, "it.u8: 256 given, an integer from 0 to 255 expected"),
        ({"u8": -1}, "it.u8: -1 given, an integer from 0 to 255 expected"),
        ({"s8": 128}, "it.s8: 128 given, an integer from -128 to 127 expected"),
        ({"u32": "7"}, "it.u32: '7' given, an integer from"),
        ({"u32": 1.5}, "it.u32: 1.5 given, an integer from"),
        ({"u32": None}, "it.u32: None given, an integer from"),
        ({"ports": [1, 2, 70000]}, "it.ports[2]: 70000 given"),
        ({"ports": [1, 2, 3, 4]}, "it.ports: 4 elements given, up to 3 expected"),
        ({"ports": 5}, "it.ports: 5 given, a list expected"),
        ({"ports": b"abc"}, "it.ports: 3 bytes given, 6 expected"),
        ({"mac": bytes(7)}, "it.mac: 7 bytes given, 6 expected"),
        ({"mac": "aa:bb"}, "it.mac: 'aa:bb' given, bytes expected"),
        ({"grid": [[1], [1, 2, 3, 4]]}, "it.grid[1]: 4 elements given"),
        ({"points": [{"z": 1}]}, "it.points[0]: no field 'z'; it has x, y"),
        ({"inner": 5}, "it.inner: 5 given, the fields first, second expected"),
        ({"inner": {"second": 1 << 32}}, "it.inner.second: 4294967296 given"),
        ({"nonsense": 1}, "it: no field 'nonsense'; it has u8, s8"),
        (b"short", "it: 5 bytes given"),
        ([], "it: [] given, the fields u8, s8"),
    ],
    ids=str,
)
def test_a_wrong_value_is_an_error_that_names_the_field(compile: Compile, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        layout_of(compile(TYPES)).pack(value, "it")
    assert str(caught.value).startswith(sentence)


def test_short_data_is_refused(all: Layout) -> None:
    with pytest.raises(ValueError, match=f"3 bytes given, {all.size} expected"):
        all.unpack(b"abc")


def test_missing_fields_are_zero_and_short_bytes_are_filled_up(all: Layout) -> None:
    assert all.unpack(all.pack({"text": b"abc"}))["text"] == b"abc\0\0\0\0"
    assert all.pack({}) == bytes(all.size)


@pytest.mark.parametrize(
    ("declaration", "sentence"),
    [
        ("struct b { __u32 plain; __u32 part : 3; }; volatile struct b it;", "bit field part: use whole bytes"),
        ("struct o { int x; struct { int y : 4; } inner; }; volatile struct o it;", "inner: bit field y: use whole bytes"),
        ("struct f { float speed; }; volatile struct f it;", "speed: BTF kind 16 has no layout"),
    ],
)
def test_what_maps_should_not_hold_is_refused_by_name(compile: Compile, declaration: str, sentence: str) -> None:
    source = declaration + ' SEC("xdp") int p(struct xdp_md *ctx) { return *(volatile int *)&it; }'
    with Object.open(compile(source), "test") as opened, pytest.raises(ValueError, match=sentence):
        opened.maps[".bss"].variables()
