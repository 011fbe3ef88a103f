# SPDX-License-Identifier: Apache-2.0
"""Typed views of maps: what they record, what they write at once, what they say about mistakes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_service import SOURCE, compile_object

from polycube.bpf import Map, Object
from polycube.core.maps import CfgView, MapViews, MapWrite, Shapes
from polycube.testing.isolation import isolate

KEY = {"vlan": 3, "mac": b"\x02\0\0\0\0\x01"}
PACKED = b"\x03\0\0\0\x02\0\0\0\0\x01\0\0"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    isolate()
    return compile_object(tmp_path_factory.mktemp("object"), SOURCE)


@pytest.fixture
def pins(built: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder with the maps of a cube."""
    folder = Path("/sys/fs/bpf") / request.node.name
    folder.mkdir()
    with Object.open(built.read_bytes(), "sampler") as opened:
        opened.load()
        for name, spec in opened.maps.items():
            if not spec.data:
                with opened.map(name) as made:
                    made.pin(folder / name)
    yield folder
    for pin in folder.iterdir():
        pin.unlink()
    folder.rmdir()


def views(built: Path, pins: Path) -> MapViews:
    return MapViews(Shapes.read(built), lambda name: Map.find(pins / name))


def test_the_object_tells_the_function_s_own_maps_and_constants(built: Path) -> None:
    shapes = Shapes.read(built)
    assert sorted(shapes.maps) == ["counts", "numbers", "table"]
    assert list(shapes.cfg) == ["limit"]
    assert shapes.maps["table"].max_entries == 64


def test_an_entry_written_is_read_back_from_the_kernel(built: Path, pins: Path) -> None:
    maps = views(built, pins)
    maps["table"][KEY] = {"seen": 7, "ports": [1, 2]}
    assert maps["table"][KEY] == {"seen": 7, "ports": [1, 2]}
    assert KEY in maps["table"]
    assert [key["vlan"] for key in maps["table"]] == [3]
    with Map.open(pins / "table") as kernel:
        assert kernel.get(PACKED) is not None
    del maps["table"][KEY]
    del maps["table"][KEY]  # it is gone already
    assert list(maps["table"].items()) == []
    with pytest.raises(KeyError):
        maps["table"][KEY]
    maps.close()


def test_recorded_writes_are_seen_by_reads_and_reach_no_map(built: Path, pins: Path) -> None:
    maps = views(built, pins)
    maps["table"][KEY] = {"seen": 1}
    with maps.recording() as writes:
        del maps["table"][KEY]
        assert KEY not in maps["table"]
        maps["table"][{"vlan": 4}] = {"seen": 2}
        assert [value["seen"] for _, value in maps["table"].items()] == [2]
        assert writes == []
    assert maps["table"][KEY]["seen"] == 1
    assert writes[0] == MapWrite("table", PACKED, None)
    assert writes[1].value is not None
    assert writes[1].value[:8] == b"\x02" + bytes(7)
    maps.close()


def test_of_many_writes_to_one_key_only_the_last_is_recorded(built: Path) -> None:
    maps = views(built, Path("/nowhere"))
    with maps.recording() as writes:
        for number in range(3):
            maps["numbers"][0] = number
    assert writes == [MapWrite("numbers", bytes(4), b"\x02\0\0\0")]


def test_writes_to_several_maps_keep_their_order(built: Path) -> None:
    maps = views(built, Path("/nowhere"))
    with maps.recording() as writes:
        maps["table"][KEY] = {"seen": 1}
        maps["numbers"][0] = 1
        maps["table"][{"vlan": 9}] = {"seen": 2}
        maps["table"][KEY] = {"seen": 3}
    assert [write.map for write in writes] == ["numbers", "table", "table"]
    assert writes[2].key == PACKED


def test_a_failed_recording_leaves_nothing_behind(built: Path) -> None:
    maps = views(built, Path("/nowhere"))
    with pytest.raises(ZeroDivisionError), maps.recording():
        maps["numbers"][0] = 1
        raise ZeroDivisionError
    with maps.recording() as writes:
        assert maps["numbers"].get(0) is None
    assert writes == []


def test_deleting_from_an_array_writes_zeros(built: Path) -> None:
    maps = views(built, Path("/nowhere"))
    with maps.recording() as writes:
        del maps["numbers"][1]
    assert writes == [MapWrite("numbers", b"\x01\0\0\0", bytes(4))]


def test_clear_deletes_what_is_there(built: Path, pins: Path) -> None:
    maps = views(built, pins)
    for vlan in range(5):
        maps["table"][{"vlan": vlan}] = {}
    with maps.recording() as writes:
        maps["table"].clear()
        assert list(maps["table"]) == []
    assert len(writes) == 5
    maps["table"].clear()
    assert list(maps["table"]) == []
    maps.close()


def test_per_cpu_maps_are_read_for_all_cpus_only(built: Path, pins: Path) -> None:
    maps = views(built, pins)
    with Map.open(pins / "counts") as kernel:
        kernel.set(bytes(4), b"\x05" + bytes(7))
    values = maps["counts"].percpu(0)
    assert set(values) == {5}
    assert dict(maps["counts"].percpu_items())[0] == values
    with pytest.raises(TypeError, match="a value for each CPU"):
        maps["counts"].get(0)
    maps.close()


def test_a_map_that_is_not_there_yet_is_empty_and_found_later(built: Path, pins: Path) -> None:
    maps = views(built, pins / "later")
    assert maps["table"].get(KEY) is None
    assert list(maps["table"].items()) == []
    assert maps["counts"].percpu(0) == []
    with pytest.raises(RuntimeError, match="map table is not there yet; write to it in apply"):
        maps["table"][KEY] = {}
    (pins / "later").mkdir()
    with Map.open(pins / "table") as kernel:
        kernel.pin(pins / "later" / "table")
    maps["table"][KEY] = {}
    assert KEY in maps["table"]
    maps.close()
    (pins / "later" / "table").unlink()
    (pins / "later").rmdir()


def test_mistakes_name_the_map_and_what_it_has(built: Path) -> None:
    maps, cfg = views(built, Path("/nowhere")), CfgView(Shapes.read(built).cfg)
    with pytest.raises(KeyError, match="no map fdb in the data plane; it has"):
        maps["fdb"]
    with pytest.raises(ValueError, match="key of table: no field 'van'"):
        maps["table"].get({"van": 3})
    with pytest.raises(ValueError, match="limit: '-1 apples' given"):
        cfg["limit"] = "-1 apples"
    with pytest.raises(KeyError, match=r"no CFG\(limits\) in the data plane; it has limit"):
        cfg["limits"] = 1


def test_constants_are_taken_once(built: Path) -> None:
    cfg = CfgView(Shapes.read(built).cfg)
    cfg["limit"] = 5
    assert cfg.take() == {"limit": b"\x05\0\0\0"}
    assert cfg.take() == {}
