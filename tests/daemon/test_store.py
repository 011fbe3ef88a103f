# SPDX-License-Identifier: Apache-2.0
"""The store: what is committed stays, whatever happens to the process; what is damaged stays as it is."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from polycube.core.config import StandardCube
from polycube.daemon.store import VERSION, Change, CubeRecord, PortRecord, Store, StoreDamaged, StoreFailed
from polycube.model import Edit, Op, edit, from_rows, row_changes

BR0 = CubeRecord("u1", "br0", "bridge", 1, {"hook": "tc"})
R1 = CubeRecord("u2", "r1", "router", 2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "polycube.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


def whole_change() -> Change:
    return Change(
        cubes={"u1": BR0, "u2": R1},
        rows={"u1": ({"": "{}", "ports/b": '{"name":"b"}', "ports/a": '{"name":"a"}'}, ()), "u2": ({"": '{"x":1}'}, ())},
        ports={"u1": {"b": PortRecord("b", 0, 1, "pu1"), "a": PortRecord("a", 1, 2)}},
        attachments={"eth0": ["u2"]},
        ready={"7": {"gro": False}},
        meta={"boot": "abc"},
    )


def test_what_was_committed_is_loaded_again_in_its_order(store: Store, path: Path) -> None:
    store.commit(whole_change())
    store.close()
    with Store(path) as again:
        stored = again.load()
    assert [cube.record for cube in stored.cubes.values()] == [BR0, R1]
    assert list(stored.cubes["u1"].rows) == ["", "ports/b", "ports/a"]
    assert stored.cubes["u1"].ports == {"b": PortRecord("b", 0, 1, "pu1"), "a": PortRecord("a", 1, 2)}
    assert stored.attachments == {"eth0": ["u2"]}
    assert stored.ready == {"7": {"gro": False}}
    assert stored.meta == {"boot": "abc"}


def test_a_configuration_goes_through_rows_and_back(store: Store) -> None:
    config = StandardCube.model_validate({"name": "br0", "ports": [{"name": f"p{n}"} for n in (3, 1, 2)]})
    store.commit(Change(cubes={"u1": BR0}, rows={"u1": row_changes(None, config)}))
    changed = edit(config, [Edit(Op.DELETE, ("ports", "p1")), Edit(Op.MERGE, ("ports", "p2"), {"peer": "veth1"})])
    store.commit(Change(rows={"u1": row_changes(config, changed)}))
    assert from_rows(StandardCube, store.load().cubes["u1"].rows) == changed


def test_a_change_of_one_row_among_ten_thousand_writes_one_row(store: Store, path: Path) -> None:
    rows = {f"route/{number}": "{}" for number in range(10000)}
    store.commit(Change(cubes={"u1": BR0}, rows={"u1": (rows, ())}))
    with sqlite3.connect(path) as reader:
        (before,) = reader.execute("SELECT max(rowid) FROM rows").fetchone()
        store.commit(Change(rows={"u1": ({"route/77": '{"metric":2}'}, ())}))
        (after,) = reader.execute("SELECT max(rowid) FROM rows").fetchone()
        changed = reader.execute("SELECT path FROM rows WHERE json != '{}'").fetchall()
    reader.close()
    assert (before, changed) == (after, [("route/77",)])


def test_removing_a_cube_removes_all_that_belongs_to_it(store: Store) -> None:
    store.commit(whole_change())
    store.commit(Change(cubes={"u1": None, "u2": None}))
    stored = store.load()
    assert (stored.cubes, stored.attachments) == ({}, {})
    assert stored.ready


def test_names_and_numbers_may_pass_from_a_removed_thing_to_a_new_one_in_one_change(store: Store) -> None:
    store.commit(whole_change())
    store.commit(
        Change(
            cubes={"u3": replace(BR0, uuid="u3"), "u1": None},
            ports={"u3": {"a": PortRecord("a", 0, 1)}},
            attachments={"eth0": ["u3", "u2"]},
        )
    )
    stored = store.load()
    assert stored.cubes["u3"].record.number == 1
    assert stored.attachments == {"eth0": ["u3", "u2"]}
    store.commit(Change(attachments={"eth0": ["u2", "u3"], "eth1": []}, ready={"7": None}))
    stored = store.load()
    assert (stored.attachments, stored.ready) == ({"eth0": ["u2", "u3"]}, {})


def test_a_change_that_breaks_a_rule_is_not_written_at_all(store: Store) -> None:
    store.commit(whole_change())
    with pytest.raises(StoreFailed, match=r"cubes.number"):
        store.commit(Change(meta={"boot": "later"}, cubes={"u9": CubeRecord("u9", "new", "bridge", 1)}))
    stored = store.load()
    assert (len(stored.cubes), stored.meta) == (2, {"boot": "abc"})


@pytest.mark.anyio
async def test_changes_saved_at_the_same_time_succeed_or_fail_each_for_itself(store: Store) -> None:
    changes = [Change(cubes={f"u{n}": CubeRecord(f"u{n}", f"c{n}", "bridge", n % 10)}) for n in range(1, 20)]
    results = await asyncio.gather(*(store.save(change) for change in changes), return_exceptions=True)
    failed = [isinstance(result, StoreFailed) for result in results]
    assert failed == [False] * 10 + [True] * 9
    assert len((await store.read()).cubes) == 10


@pytest.mark.anyio
async def test_a_caller_that_gives_up_does_not_undo_the_change(store: Store) -> None:
    task = asyncio.create_task(store.save(whole_change()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.save(Change(meta={"after": "1"}))
    assert len((await store.read()).cubes) == 2


CHILD = """
import sys
from pathlib import Path
from polycube.daemon.store import Store, Change, CubeRecord
store = Store(Path(sys.argv[1])).open()
for number in range(1, 100000):
    uuid = str(number)
    store.commit(Change(cubes={uuid: CubeRecord(uuid, f"c{uuid}", "bridge", number)}, rows={uuid: ({"": "{}"}, ())}))
    print(number, flush=True)
"""


def test_every_commit_that_was_answered_survives_sigkill(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, env=environment)
    assert child.stdout
    answered = [int(child.stdout.readline()) for _ in range(50)]
    child.send_signal(signal.SIGKILL)
    answered += [int(line) for line in child.stdout if line.endswith(b"\n")]
    child.wait()
    child.stdout.close()
    with Store(path) as store:
        cubes = store.load().cubes
    assert set(map(str, answered)) <= set(cubes)
    assert all(cube.rows for cube in cubes.values())


# ---- damage ----


def filled(path: Path) -> None:
    with Store(path) as store:
        rows = {f"route/{number}": "x" * 200 for number in range(1000)}
        store.commit(Change(cubes={"u1": BR0}, rows={"u1": (rows, ())}))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_header(path: Path) -> None:
    os.truncate(path, 50)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garble(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 10))


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20000))


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE cubes (uuid)")
    database.close()


def text(path: Path) -> None:
    path.write_text("not a database\n" * 1000)


@pytest.mark.parametrize("damage", [truncate, cut_header, empty, garble, garbage, foreign, text])
def test_a_damaged_or_foreign_file_is_refused_in_one_sentence_and_left_as_it_is(path: Path, damage: Callable[[Path], None]) -> None:
    filled(path)
    damage(path)
    before = path.read_bytes()
    store = Store(path)
    with pytest.raises(StoreDamaged) as caught:
        store.open()
    store.close()
    assert path.read_bytes() == before
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "left untouched" in sentence
    assert "\n" not in sentence


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    before = path.read_bytes()
    store = Store(path)
    with pytest.raises(StoreDamaged, match=rf"newer version .schema {VERSION + 1}, .* upgrade polycube"):
        store.open()
    store.close()
    assert path.read_bytes() == before


def test_a_store_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "polycube.db")
    with pytest.raises(StoreFailed, match=r"Not a directory|File exists"):
        store.open()
    store.close()


def test_what_a_crash_left_while_the_store_was_made_does_no_harm(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("polycube.db.new").write_bytes(b"half a store")
    with Store(path) as store:
        store.commit(whole_change())
        assert len(store.load().cubes) == 2
    assert not path.with_name("polycube.db.new").exists()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_log_cut_off_in_mid_write_holds_the_changes_before(path: Path, tmp_path: Path, part: float) -> None:
    """What a power cut leaves: the store and the beginning of its log."""
    with Store(path) as store:
        for number in range(20):
            store.commit(Change(rows={"u1": ({"": str(number)}, ())}, cubes={"u1": BR0}))
        copies = {name: path.with_name(name).read_bytes() for name in ("polycube.db", "polycube.db-wal")}
    other = tmp_path / "cut" / "polycube.db"
    other.parent.mkdir()
    for name, content in copies.items():
        other.with_name(name).write_bytes(content[: int(len(content) * part)] if name.endswith("-wal") else content)
    with Store(other) as store:
        cubes = store.load().cubes
        found = int(cubes["u1"].rows[""]) if cubes else -1
        assert abs(found - 20 * part) < 3
        store.commit(Change(rows={"u1": ({"": "more"}, ())}, cubes={"u1": BR0}))
    with Store(other) as store:
        assert store.load().cubes["u1"].rows[""] == "more"


def test_a_log_whose_store_was_taken_away_is_not_played_into_a_new_one(path: Path) -> None:
    with Store(path) as store:
        store.commit(whole_change())
        log = path.with_name("polycube.db-wal").read_bytes()
    path.unlink()
    path.with_name("polycube.db-wal").write_bytes(log)
    store = Store(path)
    with pytest.raises(StoreDamaged, match=r"is missing, but its log polycube.db-wal is there"):
        store.open()
    store.close()
    assert not path.exists()
