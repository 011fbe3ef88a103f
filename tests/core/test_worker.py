# SPDX-License-Identifier: Apache-2.0
"""A worker process and the calls it answers: what a service records, refuses, breaks, and what its slow path gets."""

# ruff: noqa: ASYNC110 (polling is what a test of other processes does)

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sample_service import TARGET, instance, port, write_service

from polycube.bpf import Object, Program
from polycube.core.intake import QUEUE
from polycube.core.message import (
    ChangePending,
    Instance,
    NoSuchInstance,
    NotPending,
    Recorded,
    ServiceFailed,
    edit_data,
)
from polycube.core.slowpath import NotSent
from polycube.core.wire import Connection, PeerGone
from polycube.model import Edit, ModelError, Op
from polycube.testing.isolation import isolate

pytestmark = pytest.mark.anyio

MAIN = """
import json, socket, sys
from polycube.core.worker import WorkerSettings, main
main(socket.socket(fileno=int(sys.argv[1])), WorkerSettings(**json.loads(sys.argv[2])))
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    isolate()
    folder = tmp_path_factory.mktemp("service")
    yield write_service(folder)
    sys.path.remove(str(folder))


@pytest.fixture
def pins(request: pytest.FixtureRequest) -> Path:
    return Path("/sys/fs/bpf", request.node.name)


@dataclass
class Running:
    """A worker process, and what it said."""

    process: subprocess.Popen[bytes]
    calls: Connection
    logs: list[dict[str, Any]] = field(default_factory=list)
    beats: list[dict[str, Any]] = field(default_factory=list)
    edits: list[Any] = field(default_factory=list)

    async def ask(self, method: str, **args: Any) -> Any:
        return await self.calls.call(method, args, seconds=60)

    async def create(self, made: Instance) -> Recorded:
        return Recorded.from_data(await self.ask("create", **made.as_data()))

    async def change(self, made: Instance, *edits: Edit, ports: Any = None, parent: str = "") -> Recorded:
        facts = [one.as_data() for one in (made.ports if ports is None else ports)]
        return Recorded.from_data(
            await self.ask("change", uuid=made.uuid, edits=[edit_data(one) for one in edits], ports=facts, parent=parent)
        )

    async def living(self, made: Instance) -> None:
        await self.create(made)
        await self.ask("commit", uuid=made.uuid)

    async def obey(self, made: Instance, what: str) -> Any:
        return await self.ask("action", uuid=made.uuid, path=["obey"], input={"text": what})

    async def until(self, made: Instance, condition: Any) -> dict[str, Any]:
        while True:
            state: dict[str, Any] = await self.ask("state", uuid=made.uuid)
            if condition(state):
                return state
            await asyncio.sleep(0.01)


@asynccontextmanager
async def worker(**settings: Any) -> AsyncIterator[Running]:
    values = {"service": "sampler", "target": TARGET, "bpffs": "/sys/fs/bpf/none", "device": "pcn_none", "heartbeat": 0.05, "memory": 0}
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", MAIN, str(theirs.fileno()), json.dumps(values | settings)],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    running = Running(process, Connection("the worker"))
    running.calls = Connection(
        "the worker",
        calls={"edit": lambda uuid, edits: running.edits.append((uuid, edits))},
        notices={"log": lambda **line: running.logs.append(line), "alive": lambda **beat: running.beats.append(beat)},
    )
    await running.calls.open(ours)
    try:
        yield running
    finally:
        await running.calls.close()
        status = await asyncio.to_thread(process.wait, 60)
    assert status in (0, -9, -11), "a worker ends with its connection"


# ---- configuration ----


async def test_creating_records_what_the_cube_wants_and_writes_nothing(built: Path, pins: Path) -> None:
    async with worker() as running:
        recorded = await running.create(instance("a", built, pins, limit=9, entry=[{"vlan": 3, "seen": 2}]))
        names = [write.map for write in recorded.writes]
        assert names == ["numbers", "table", "numbers", "numbers"]  # in the order of apply
        assert recorded.cfg == {"limit": b"\x09\0\0\0"}
        facts = {write.key: write.value for write in recorded.writes if write.map == "numbers"}
        assert facts == {bytes(4): b"\x09\0\0\0", b"\x01\0\0\0": b"\x64\0\0\0", b"\x02\0\0\0": b"\x65\0\0\0"}


async def test_a_change_records_only_what_differs_and_stands_after_commit(built: Path, pins: Path) -> None:
    made = instance("a", built, pins, entry=[{"vlan": 3}, {"vlan": 4}])
    async with worker() as running:
        await running.living(made)
        recorded = await running.change(made, Edit(Op.DELETE, ("entry", "3")), Edit(Op.MERGE, ("limit",), 8))
        assert [(write.map, write.value is None) for write in recorded.writes] == [("numbers", False), ("table", True)]
        assert (await running.ask("state", uuid="a"))["limit"] == 5
        await running.ask("commit", uuid="a")
        assert (await running.ask("state", uuid="a"))["limit"] == 8
        with pytest.raises(ModelError, match="entry has no 3"):
            await running.change(made, Edit(Op.DELETE, ("entry", "3")))


async def test_a_change_rolled_back_never_was(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        await running.change(made, Edit(Op.MERGE, ("limit",), 8), ports=made.ports[:1])
        await running.ask("rollback", uuid="a")
        state = await running.ask("state", uuid="a")
        assert (state["limit"], state["ports"]) == (5, ["port0", "port1"])
        await running.ask("rollback", uuid="a")
        await running.change(made, Edit(Op.MERGE, ("limit",), 7))
        await running.ask("commit", uuid="a")
        assert (await running.ask("state", uuid="a"))["limit"] == 7


async def test_only_ports_whose_facts_changed_are_told(built: Path, pins: Path) -> None:
    made = instance("a", built, pins, ports=3)
    async with worker() as running:
        await running.living(made)
        assert (await running.change(made)).writes == []
        await running.ask("rollback", uuid="a")
        ports = [made.ports[0], replace(made.ports[1], id=200), made.ports[2], port(3)]
        recorded = await running.change(made, ports=ports)
        assert [write.key[0] for write in recorded.writes] == [2, 4]
        await running.ask("rollback", uuid="a")
        await running.change(made, parent="eth0")
        await running.ask("commit", uuid="a")
        assert (await running.ask("state", uuid="a"))["parent"] == "eth0"


async def test_a_change_waits_for_no_other_and_a_commit_needs_one(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        await running.change(made, Edit(Op.MERGE, ("limit",), 8))
        with pytest.raises(ChangePending):
            await running.change(made, Edit(Op.MERGE, ("limit",), 9))
        await running.ask("commit", uuid="a")
        with pytest.raises(NotPending):
            await running.ask("commit", uuid="a")
        with pytest.raises(NoSuchInstance):
            await running.ask("commit", uuid="b")


async def test_a_creation_rolled_back_leaves_no_cube(built: Path, pins: Path) -> None:
    async with worker() as running:
        await running.create(instance("a", built, pins))
        await running.ask("rollback", uuid="a")
        with pytest.raises(NoSuchInstance):
            await running.ask("state", uuid="a")
        await running.ask("rollback", uuid="never seen")


async def test_an_adopted_cube_lives_without_apply(built: Path, pins: Path) -> None:
    async with worker() as running:
        await running.ask("adopt", **instance("a", built, pins, mood="raise", limit=3).as_data())
        with pytest.raises(ServiceFailed, match="failed while reading the state of a"):
            await running.ask("state", uuid="a")
        await running.ask("adopt", **instance("a", built, pins, limit=4).as_data())
        await running.until(instance("a", built, pins), lambda state: state["started"])
        assert (await running.ask("state", uuid="a"))["limit"] == 4


# ---- errors ----


async def test_an_error_for_users_arrives_typed(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        with pytest.raises(ModelError, match=r"\w+/limit is not to my taste"):
            await running.change(made, Edit(Op.MERGE, ("mood",), "refuse"))
        with pytest.raises(ModelError, match="say/text is missing"):
            await running.ask("action", uuid="a", path=["say"], input={})
        assert running.logs == []


async def test_any_other_error_is_one_sentence_and_a_traceback_in_the_log_and_harms_nothing(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        with pytest.raises(ServiceFailed) as caught:
            await running.change(made, Edit(Op.MERGE, ("mood",), "raise"), Edit(Op.MERGE, ("limit",), 8))
        assert str(caught.value) == "service sampler failed while changing a: ZeroDivisionError: division by zero"
        assert caught.value.status == 500
        (line,) = running.logs
        assert (line["level"], line["cube"]) == ("error", "a")
        assert "in apply" in line["exception"]
        assert (await running.ask("state", uuid="a"))["limit"] == 5
        assert len((await running.change(made, Edit(Op.MERGE, ("limit",), 9))).writes) == 1


async def test_a_service_that_cannot_be_loaded_says_why(built: Path) -> None:
    async with worker(target="sampler.nothing:Sampler") as running:
        with pytest.raises(ServiceFailed, match=r"failed while being loaded: ModuleNotFoundError: No module named 'sampler.nothing'"):
            await running.ask("hello")
    async with worker(target="pathlib:Path") as running:
        with pytest.raises(ServiceFailed, match="pathlib:Path is no Cube"):
            await running.ask("hello")


async def test_a_cube_whose_start_fails_lives_on_and_says_so(built: Path, pins: Path) -> None:
    made = instance("a", built, pins, mood="broken")
    async with worker() as running:
        await running.living(made)
        await running.until(made, lambda state: state["ticks"] > 2)
        assert [line["event"] for line in running.logs] == ["start failed"]


async def test_timers_go_on_though_they_raise_and_complain_a_few_times_only(built: Path, pins: Path) -> None:
    made = instance("a", built, pins, mood="bad timer")
    async with worker() as running:
        await running.living(made)
        await running.until(made, lambda state: state["ticks"] > 20)
        stats = await running.ask("stats")
        assert stats["cubes"]["a"]["timer_failures"] >= 20
        lines = [line for line in running.logs if line["event"] == "timer tick failed"]
        assert len(lines) == 5


# ---- questions ----


async def test_actions_get_keys_and_input_and_answer(built: Path, pins: Path) -> None:
    made = instance("a", built, pins, entry=[{"vlan": 3}])
    async with worker() as running:
        await running.living(made)
        assert await running.ask("action", uuid="a", path=["say"], input={"text": "hi"}) == {"text": "HI"}
        assert await running.ask("action", uuid="a", path=["entry", "3", "wipe"], input=None) == {"wiped": 3}
        with pytest.raises(ModelError, match="is no action"):
            await running.ask("action", uuid="a", path=["limit"], input=None)


async def test_learned_elements_are_forgotten_by_path_and_key(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        assert await running.ask("forget", uuid="a", path="entry", key=[1, "a"]) is True
        assert await running.ask("forget", uuid="a", path="entry", key=None) is False


async def test_a_cube_changes_its_own_configuration_by_asking_the_daemon(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        await running.obey(made, "edit")
        assert running.edits == [("a", [["merge", ["limit"], 77]])]


async def test_a_cube_logs_at_its_level(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        await running.obey(made, "log")
        (line,) = running.logs
        assert (line["level"], line["event"], line["cube"], line["fields"]) == ("info", "said something", "a", {"number": 3})
        await running.change(made, Edit(Op.MERGE, ("loglevel",), "DEBUG"))
        await running.ask("commit", uuid="a")
        await running.obey(made, "log")
        assert [line["event"] for line in running.logs[1:]] == ["said something", "said too much"]
        await running.change(made, Edit(Op.MERGE, ("loglevel",), "OFF"))
        await running.ask("commit", uuid="a")
        await running.obey(made, "log")
        assert len(running.logs) == 3


async def test_a_frame_that_cannot_be_sent_is_an_error_with_the_reason_and_is_counted(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        with pytest.raises(NotSent, match=r"cannot send a frame of 60 bytes by a:port1: there is no netdev pcn_none"):
            await running.obey(made, "send 60")
        xdp = instance("b", built, pins, type="XDP_DRV")
        xdp = replace(xdp, objects={"xdp": xdp.objects["tc"]})
        await running.living(xdp)
        with pytest.raises(NotSent, match="XDP takes up to"):
            await running.obey(xdp, "send 9000")
        with pytest.raises(NotSent, match=r"open pinned program .*inject_xdp"):
            await running.obey(xdp, "send 60")
        stats = await running.ask("stats")
        assert (stats["cubes"]["a"]["unsent"], stats["cubes"]["b"]["unsent"]) == (1, 2)


# ---- slow path ----


class Punt:
    """The sample's data plane, loaded and pinned for one cube."""

    def __init__(self, built: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        with Object.open(built.read_bytes(), "sampler") as opened:
            opened.load()
            for name, spec in opened.maps.items():
                if not spec.data:
                    with opened.map(name) as made:
                        made.pin(folder / name)
            self.program: Program = opened.program("punt")

    def __call__(self, times: int = 1) -> int:
        """Frames that found room in the ring buffer, of so many."""
        return sum(self.program.test_run(bytes(range(64))).retval for _ in range(times))


async def test_what_the_data_plane_hands_up_reaches_the_cube(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        await running.until(made, lambda state: state["started"])
        assert (await running.ask("stats"))["cubes"]["a"]["packets"] == 0
    punt = Punt(built, pins / "a")
    assert punt(2) == 2  # before there is a worker: they wait in the ring buffer
    async with worker() as running:
        await running.ask("adopt", **made.as_data())
        assert punt(1) == 1
        state = await running.until(made, lambda state: len(state["got"]) == 3)
        assert state["got"] == [[7, "port1", 64]] * 3


async def test_a_packet_that_raises_is_counted_and_the_next_one_comes(built: Path, pins: Path) -> None:
    made = instance("a", built, pins, mood="bad packet")
    punt = Punt(built, pins / "a")
    async with worker() as running:
        await running.living(made)
        assert punt(20) == 20
        while (await running.ask("stats"))["cubes"]["a"]["failed"] < 20:
            await asyncio.sleep(0.01)
        assert len([line for line in running.logs if line["event"] == "packet failed"]) == 5
        await running.change(made, Edit(Op.MERGE, ("mood",), "good"))
        await running.ask("commit", uuid="a")
        punt(1)
        await running.until(made, lambda state: state["got"])


async def test_a_flood_of_one_cube_does_not_starve_another(built: Path, pins: Path) -> None:
    flooded, quiet = instance("flooded", built, pins), instance("quiet", built, pins)
    flood, trickle = Punt(built, pins / "flooded"), Punt(built, pins / "quiet")
    async with worker() as running:
        await running.living(flooded)
        await running.living(quiet)
        stop = asyncio.Event()

        def pour() -> None:
            while not stop.is_set():
                flood(200)

        pouring = asyncio.create_task(asyncio.to_thread(pour))
        try:
            for number in range(1, 6):
                assert trickle() == 1
                await running.until(quiet, lambda state, number=number: len(state["got"]) == number)
            while not (await running.ask("stats"))["cubes"]["flooded"]["stalls"]:
                await asyncio.sleep(0.01)
        finally:
            stop.set()
            await pouring
        stats = await running.ask("stats")
        assert stats["cubes"]["flooded"]["waiting"] <= QUEUE
        assert stats["cubes"]["quiet"]["packets"] == 5


async def test_a_removed_cube_gets_nothing_more_and_its_ring_keeps_what_comes(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    punt = Punt(built, pins / "a")
    async with worker() as running:
        await running.living(made)
        punt()
        await running.until(made, lambda state: state["got"])
        await running.ask("remove", uuid="a")
        await running.ask("remove", uuid="a")
        punt()
        with pytest.raises(NoSuchInstance):
            await running.ask("state", uuid="a")
        await running.ask("adopt", **made.as_data())
        await running.until(made, lambda state: len(state["got"]) == 1)


# ---- life ----


async def test_the_loop_beats_and_reports_what_it_holds(built: Path) -> None:
    async with worker() as running:
        while len(running.beats) < 3:
            await asyncio.sleep(0.01)
        assert running.beats[0]["cubes_held"] == 0
        assert await running.ask("ping") is True


@pytest.mark.parametrize("mood", ["crash", "segfault"])
async def test_a_crash_fails_the_call_under_way(built: Path, pins: Path, mood: str) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        with pytest.raises(PeerGone):
            await running.change(made, Edit(Op.MERGE, ("mood",), mood))


async def test_a_worker_ends_when_the_daemon_does_even_in_the_middle_of_work(built: Path, pins: Path) -> None:
    made = instance("a", built, pins)
    async with worker() as running:
        await running.living(made)
        waiting = asyncio.create_task(running.obey(made, "wait"))
        await running.ask("ping")
    with pytest.raises(PeerGone):
        await waiting
