# SPDX-License-Identifier: Apache-2.0
"""Pins and the file system they live in."""

import subprocess
from pathlib import Path

import pytest

from polycube.bpf import BpfError, Map, MapType, ensure_bpffs, is_bpffs, pin, u32


@pytest.fixture
def table() -> Map:
    return Map.create(MapType.HASH, 4, 4, 4, name="table")


@pytest.mark.parametrize("name", ["br.1", ".hidden", "", "a/b", "x" * 256])
def test_names_the_file_system_refuses_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="pin name"):
        pin.check_name(name)


def test_a_name_with_a_dot_never_reaches_the_kernel(table: Map, pins: Path) -> None:
    with pytest.raises(ValueError, match=r"pin name 'br\.1': expected up to 255 characters, neither dots nor slashes"):
        table.pin(pins / "br.1")
    pin.check_name("x" * 255)


def test_a_pin_outlives_its_process_and_is_found(table: Map, pins: Path) -> None:
    table.set(u32(1), u32(2))
    table.pin(pins / "table")
    identity = table.info.id
    table.close()
    with Map.open(pins / "table") as again:
        assert again.get(u32(1)) == u32(2) and again.info.id == identity
    with pytest.raises(BpfError, match="pin map at "):
        table.pin(pins / "other")


def test_a_missing_pin_is_none_or_an_error(pins: Path) -> None:
    assert Map.find(pins / "nothing") is None and Map.find(pins / "no" / "folder") is None
    with pytest.raises(BpfError, match=r"open pinned map .*nothing: No such file"):
        Map.open(pins / "nothing")


def test_a_file_that_is_no_pin_is_an_error_and_not_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BpfError):
        Map.find(tmp_path / "file")


def test_a_taken_name_is_an_error(table: Map, pins: Path) -> None:
    table.pin(pins / "table")
    with pytest.raises(BpfError, match="File exists"):
        table.pin(pins / "table")


def test_pins_are_listed_and_removed(table: Map, pins: Path) -> None:
    (pins / "folder").mkdir()
    table.pin(pins / "folder" / "b")
    table.pin(pins / "folder" / "a")
    assert pin.listing(pins / "folder") == ["a", "b"] and pin.listing(pins / "none") == []
    pin.remove(pins / "folder" / "a")
    pin.remove(pins / "folder" / "a")
    assert pin.listing(pins / "folder") == ["b"]
    pin.remove(pins / "folder")
    assert not (pins / "folder").exists()


def test_bpffs_is_told_from_other_file_systems(pins: Path, tmp_path: Path) -> None:
    assert is_bpffs("/sys/fs/bpf") and is_bpffs(pins)
    assert not is_bpffs(tmp_path) and not is_bpffs("/nowhere")


def test_a_bpffs_is_mounted_where_there_is_none(table: Map, tmp_path: Path) -> None:
    place = tmp_path / "some" / "where"
    ensure_bpffs(place)
    try:
        assert is_bpffs(place) and place.stat().st_mode & 0o777 == 0o700
        table.pin(place / "table")
        ensure_bpffs(place)  # not mounted over
        assert "table" in pin.listing(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)
