# SPDX-License-Identifier: Apache-2.0
"""What the daemon must not forget: cubes, their configuration, their numbers, what is attached where.

One SQLite file. A configuration is stored as rows (model/rows.py), so that a change of one route among 10,000 writes one row. A `Change`
is written as a whole or not at all, and is on disk (WAL, synchronous=FULL) when `commit` or `save` returns; changes saved at the same
time share one sync.

Invariants: a file that is not a store, is damaged, or was written by a newer version is never written to, moved or deleted: opening it
raises `StoreDamaged`, which says what to do. A new store appears under its name complete, hence an empty file is damage, too. All access
is by one thread of the store's own; the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from polycube.model import PolycubeError

DEFAULT = Path("/var/lib/polycube/polycube.db")
APPLICATION = 0x50434E53  # "PCNS", in the header of the file
VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cubes (
    uuid TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    number INTEGER NOT NULL UNIQUE,
    extra TEXT NOT NULL
);
CREATE TABLE rows (
    cube TEXT NOT NULL REFERENCES cubes ON DELETE CASCADE,
    path TEXT NOT NULL,
    json TEXT NOT NULL,
    UNIQUE (cube, path)
);
CREATE TABLE ports (
    cube TEXT NOT NULL REFERENCES cubes ON DELETE CASCADE,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    id INTEGER NOT NULL UNIQUE,
    uuid TEXT NOT NULL,
    PRIMARY KEY (cube, name),
    UNIQUE (cube, number)
);
CREATE TABLE attachments (
    target TEXT NOT NULL,
    position INTEGER NOT NULL,
    cube TEXT NOT NULL UNIQUE REFERENCES cubes ON DELETE CASCADE,
    PRIMARY KEY (target, position)
);
CREATE TABLE ready (key TEXT PRIMARY KEY, json TEXT NOT NULL);
"""

T = TypeVar("T")


class StoreDamaged(PolycubeError):
    """The file cannot be used, and was left as it is."""

    status = 500

    def __init__(self, path: Path, what: str, advice: str = "restore it from a backup, or move it away to start without cubes") -> None:
        self.path, self.what, self.advice = str(path), what, advice
        super().__init__(f"the store {path} {what}; it was left untouched: {advice}")


class StoreFailed(PolycubeError):
    """A change could not be written: disk full, read-only, or against the rules of the schema. Nothing of it was."""

    status = 507

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"cannot write to the store {path}: {reason}")


@dataclass(frozen=True)
class CubeRecord:
    """A cube, apart from its configuration."""

    uuid: str
    name: str
    service: str
    number: int
    extra: Mapping[str, Any] = field(default_factory=dict)  # whatever else the daemon settled, such as the hook of type AUTO


@dataclass(frozen=True)
class PortRecord:
    """A port of a cube, apart from its configuration. `number` is unique in the cube, `id` among the ports of all cubes."""

    name: str
    number: int
    id: int
    uuid: str = ""


@dataclass(frozen=True)
class StoredCube:
    """A cube with all that belongs to it."""

    record: CubeRecord
    rows: Mapping[str, str]  # for model.from_rows
    ports: Mapping[str, PortRecord]


@dataclass(frozen=True)
class Stored:
    """Everything."""

    cubes: Mapping[str, StoredCube]
    attachments: Mapping[str, Sequence[str]]  # target -> uuids of transparent cubes in their order
    ready: Mapping[str, Any]
    meta: Mapping[str, str]


@dataclass
class Change:
    """What one request writes. Removals are carried out before additions, so that names and numbers may pass from one to the other."""

    cubes: dict[str, CubeRecord | None] = field(default_factory=dict)  # uuid -> record; None removes it with all that belongs to it
    rows: dict[str, tuple[Mapping[str, str], Sequence[str]]] = field(default_factory=dict)  # uuid -> model.row_changes()
    ports: dict[str, Mapping[str, PortRecord | None]] = field(default_factory=dict)  # uuid -> name -> record; None removes
    attachments: dict[str, Sequence[str]] = field(default_factory=dict)  # target -> all its cubes, in order; empty: none any more
    ready: dict[str, Any] = field(default_factory=dict)  # key -> plain data; None removes
    meta: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.cubes, self.rows, self.ports, self.attachments, self.ready, self.meta))


class Store:
    """The open file. Methods without `async` block; those with it are for the event loop."""

    def __init__(self, path: Path = DEFAULT) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._database: sqlite3.Connection | None = None
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._saver: asyncio.Task[None] | None = None

    # ---- life ----

    def open(self) -> Self:
        """Creates the file if there is none. Raises `StoreDamaged`, or `StoreFailed` if it cannot be reached."""
        self._do(self._open)
        return self

    def close(self) -> None:
        """What was committed is on disk already."""
        if self._database is not None:
            self._do(self._database.close)
            self._database = None
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- use ----

    def load(self) -> Stored:
        """Everything there is."""
        return self._do(self._load)

    def commit(self, change: Change) -> None:
        """Writes a change; it is on disk afterwards, or `StoreFailed` was raised and nothing of it is."""
        self._do(lambda: self._commit([change]))[0]()

    async def save(self, change: Change) -> None:
        """The same for the event loop. Changes saved while the disk is busy are written together; each succeeds or fails for itself."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        if self._saver is None:
            self._saver = asyncio.create_task(self._save_all(), name="save")
        await done  # a caller that is cancelled gives up the answer, not the change

    async def read(self) -> Stored:
        """`load` for the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def _save_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    results = await loop.run_in_executor(self._thread, self._commit, [change for change, _ in batch])
                except Exception as error:
                    results = [_raiser(error)] * len(batch)
                for (_, done), result in zip(batch, results, strict=True):
                    if done.done():
                        continue
                    try:
                        result()
                    except Exception as error:
                        done.set_exception(error)
                    else:
                        done.set_result(None)
        finally:
            self._saver = None

    # ---- in the thread ----

    def _do(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def _open(self) -> None:
        try:
            if not self.path.exists():
                self._create()
            self._check()
            self._database = self._connect("rw")
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=1000"):
                self._database.execute(f"PRAGMA {pragma}")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise StoreFailed(self.path, str(error)) from error
            raise StoreDamaged(self.path, f"is damaged ({error})") from error
        except OSError as error:
            raise StoreFailed(self.path, error.strerror or str(error)) from error

    def _connect(self, mode: str, path: Path | None = None) -> sqlite3.Connection:
        uri = f"{(path or self.path).absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)

    def _create(self) -> None:
        """Under another name first: a crash leaves no half-made store behind."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size:  # SQLite would play it into the new file
            raise StoreDamaged(self.path, f"is missing, but its log {log.name} is there", "put it back, or move the log away, too")
        draft = self.path.with_name(f"{self.path.name}.new")
        for leftover in (draft, draft.with_name(f"{draft.name}-journal")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600))
        with contextlib.closing(self._connect("rw", draft)) as database:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            database.execute(f"PRAGMA application_id={APPLICATION}")
            database.execute(f"PRAGMA user_version={VERSION}")
        _sync(draft)
        os.link(draft, self.path)  # unlike a rename, replaces nothing
        draft.unlink()
        _sync(self.path.parent)

    def _check(self) -> None:
        """Looks at the file without a chance of writing to it."""
        if self.path.stat().st_size == 0:
            raise StoreDamaged(self.path, "is empty")
        with contextlib.closing(self._connect("ro")) as database:
            application, version = _number(database, "application_id"), _number(database, "user_version")
            if application != APPLICATION:
                raise StoreDamaged(self.path, "is not a store of polycube", "name another file, or move this one away")
            if version > VERSION:
                what = f"was written by a newer version (schema {version}, this one knows {VERSION})"
                raise StoreDamaged(self.path, what, "upgrade polycube, or restore a backup of the time before")
            problems = [str(row[0]) for row in database.execute("PRAGMA quick_check(3)")]
            if problems != ["ok"]:
                raise StoreDamaged(self.path, f"is damaged ({'; '.join(problems).splitlines()[-1]})")

    def _load(self) -> Stored:
        database = self._opened()
        with self._refusals():
            rows: dict[str, dict[str, str]] = {}
            for cube, path, text in database.execute("SELECT cube, path, json FROM rows ORDER BY rowid"):
                rows.setdefault(cube, {})[path] = text
            ports: dict[str, dict[str, PortRecord]] = {}
            for cube, name, number, id, uuid in database.execute("SELECT cube, name, number, id, uuid FROM ports ORDER BY number"):
                ports.setdefault(cube, {})[name] = PortRecord(name, number, id, uuid)
            cubes = {}
            for uuid, name, service, number, extra in database.execute("SELECT * FROM cubes ORDER BY rowid"):
                record = CubeRecord(uuid, name, service, number, json.loads(extra))
                cubes[uuid] = StoredCube(record, rows.get(uuid, {}), ports.get(uuid, {}))
            attachments: dict[str, list[str]] = {}
            for target, cube in database.execute("SELECT target, cube FROM attachments ORDER BY target, position"):
                attachments.setdefault(target, []).append(cube)
            ready = {key: json.loads(text) for key, text in database.execute("SELECT key, json FROM ready")}
            return Stored(cubes, attachments, ready, dict(database.execute("SELECT key, value FROM meta")))

    def _commit(self, changes: Sequence[Change]) -> list[Callable[[], None]]:
        """All changes in one transaction, each in a savepoint. What is returned raises for a change that failed."""
        database = self._opened()
        results: list[Callable[[], None]] = []
        try:
            with self._refusals():
                database.execute("BEGIN IMMEDIATE")
                for change in changes:
                    results.append(self._write_one(database, change))
                database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        return results

    def _write_one(self, database: sqlite3.Connection, change: Change) -> Callable[[], None]:
        database.execute("SAVEPOINT one")
        try:
            with self._refusals():
                _write(database, change)
        except StoreFailed as error:
            if not database.in_transaction:
                raise  # the whole transaction is gone: disk full, for one
            database.execute("ROLLBACK TO one")
            database.execute("RELEASE one")
            return _raiser(error)
        database.execute("RELEASE one")
        return _nothing

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreFailed(self.path, "it is closed")
        return self._database

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFailed(self.path, str(error)) from error


def _write(database: sqlite3.Connection, change: Change) -> None:
    for uuid, cube in change.cubes.items():
        if cube is None:
            database.execute("DELETE FROM cubes WHERE uuid = ?", (uuid,))
    for uuid, ports in change.ports.items():
        gone = [(uuid, name) for name, port in ports.items() if port is None]
        database.executemany("DELETE FROM ports WHERE cube = ? AND name = ?", gone)
    for target in change.attachments:
        database.execute("DELETE FROM attachments WHERE target = ?", (target,))
    for uuid, cube in change.cubes.items():
        if cube is not None:
            database.execute(
                "INSERT INTO cubes (uuid, name, service, number, extra) VALUES (?, ?, ?, ?, ?) ON CONFLICT (uuid) DO UPDATE SET"
                " name = excluded.name, service = excluded.service, number = excluded.number, extra = excluded.extra",
                (uuid, cube.name, cube.service, cube.number, json.dumps(dict(cube.extra))),
            )
    for uuid, (upserts, deletes) in change.rows.items():
        database.executemany("DELETE FROM rows WHERE cube = ? AND path = ?", [(uuid, path) for path in deletes])
        database.executemany(
            "INSERT INTO rows (cube, path, json) VALUES (?, ?, ?) ON CONFLICT (cube, path) DO UPDATE SET json = excluded.json",
            [(uuid, path, text) for path, text in upserts.items()],
        )
    for uuid, ports in change.ports.items():
        database.executemany(
            "INSERT INTO ports (cube, name, number, id, uuid) VALUES (?, ?, ?, ?, ?) ON CONFLICT (cube, name) DO UPDATE SET"
            " number = excluded.number, id = excluded.id, uuid = excluded.uuid",
            [(uuid, p.name, p.number, p.id, p.uuid) for p in ports.values() if p is not None],
        )
    for target, cubes in change.attachments.items():
        values = [(target, position, uuid) for position, uuid in enumerate(cubes)]
        database.executemany("INSERT INTO attachments (target, position, cube) VALUES (?, ?, ?)", values)
    for key, value in change.ready.items():
        if value is None:
            database.execute("DELETE FROM ready WHERE key = ?", (key,))
        else:
            database.execute("INSERT OR REPLACE INTO ready (key, json) VALUES (?, ?)", (key, json.dumps(value)))
    database.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", list(change.meta.items()))


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _nothing() -> None:
    return None


def _raiser(error: Exception) -> Callable[[], None]:
    def again() -> None:
        raise error

    return again
