# SPDX-License-Identifier: Apache-2.0
"""The supervisor: workers that crash, hang, leak, flood or cannot be loaded, and what the others notice of it: nothing."""

# ruff: noqa: ASYNC110, ASYNC240 (polling is what a test of other processes does)

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from sample_service import TARGET, instance, write_service

from polycube.core.message import Instance, ServiceFailed
from polycube.core.wire import PeerGone, RemoteError
from polycube.daemon import quota
from polycube.daemon.workers import Limits, WorkerDied, Workers, WorkerStatus, WorkerUnavailable
from polycube.model import Edit, ModelError, Op, Tag, problem
from polycube.testing.isolation import isolate

pytestmark = pytest.mark.anyio
FAST = Limits(heartbeat=0.05, silence=60, pause=0.01, longest_pause=0.05, patience=60, grace=60)
LIMIT, MOOD = ("limit",), ("mood",)


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


class Daemon:
    """What the supervisor needs of a daemon: cubes that stand, a place for edits and logs."""

    def __init__(self, limits: Limits) -> None:
        self.standing: dict[str, list[Instance]] = {}
        self.logs: list[Mapping[str, Any]] = []
        self.edits: list[tuple[str, list[Edit]]] = []
        self.workers = Workers(
            target=lambda service: "sampler.nothing:No" if service == "broken" else TARGET,
            cubes=self.cubes,
            edited=self.edited,
            logged=lambda service, line: self.logs.append({**line, "service": service}),
            limits=limits,
        )

    async def cubes(self, service: str) -> list[Instance]:
        return self.standing.get(service, [])

    async def edited(self, uuid: str, edits: list[Edit]) -> None:
        if uuid == "refused":
            raise problem(Tag.INVALID_VALUE, ("limit",), "is for others to change")
        self.edits.append((uuid, edits))

    async def add(self, made: Instance, service: str = "sampler") -> Instance:
        await self.workers.create(service, made)
        self.standing.setdefault(service, []).append(made)
        await self.workers.commit(service, made.uuid)
        return made

    async def change(self, made: Instance, *edits: Edit, service: str = "sampler") -> Any:
        return await self.workers.change(service, made.uuid, edits, made.ports)

    async def state(self, made: Instance, service: str = "sampler") -> Mapping[str, Any]:
        return await self.workers.state(service, made.uuid)

    async def obey(self, made: Instance, what: str) -> Any:
        return await self.workers.action("sampler", made.uuid, ("obey",), {"text": what})

    def status(self, service: str = "sampler") -> WorkerStatus:
        return next(status for status in self.workers.status() if status.service == service)

    def said(self, text: str) -> list[Mapping[str, Any]]:
        return [line for line in self.logs if text in line["event"]]


@asynccontextmanager
async def daemon(**limits: Any) -> AsyncIterator[Daemon]:
    made = Daemon(Limits(**{**vars(FAST), **limits}))
    try:
        yield made
    finally:
        pids = [status.pid for status in made.workers.status() if status.pid]
        await made.workers.close()
        for pid in pids:
            assert not Path(f"/proc/{pid}/fd").exists(), "no worker outlives its supervisor"


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_a_cube_is_created_changed_and_asked(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins, entry=[{"vlan": 3}]))
        recorded = await running.change(made, Edit(Op.DELETE, ("entry", "3")))
        assert [(write.map, write.value) for write in recorded.writes] == [("table", None)]
        await running.workers.commit("sampler", "a")
        await running.obey(made, "edit")
        assert running.edits == [("a", [Edit(Op.MERGE, LIMIT, 77)])]
        assert await running.workers.forget("sampler", "a", "entry", (1, "a"))
        status = running.status()
        assert (status.state, status.cubes, status.restarts) == ("running", 1, 0)
        assert status.memory > 1 << 20
        assert (await running.workers.stats("sampler"))["cubes"]["a"]["packets"] == 0


async def test_cubes_of_one_service_share_a_process_and_services_do_not(built: Path, pins: Path) -> None:
    async with daemon() as running:
        a, b = await running.add(instance("a", built, pins)), await running.add(instance("b", built, pins))
        c = await running.add(instance("c", built, pins), "other")
        pids = {(await running.state(a))["pid"], (await running.state(b))["pid"]}
        assert len(pids) == 1
        assert (await running.state(c, "other"))["pid"] not in pids


@pytest.mark.parametrize(("mood", "how"), [("crash", "by signal SIGKILL"), ("segfault", "by signal SIGSEGV")])
async def test_a_crash_in_a_request_fails_that_request_and_the_cubes_are_adopted(built: Path, pins: Path, mood: str, how: str) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins, limit=3))
        other = await running.add(instance("c", built, pins), "other")
        untouched = (await running.state(other, "other"))["pid"]
        with pytest.raises(WorkerDied) as caught:
            await running.change(made, Edit(Op.MERGE, MOOD, mood))
        assert str(caught.value) == f"the worker of service sampler ended while changing a cube ({how}); it is being restarted"
        await running.workers.rollback("sampler", "a")
        assert (await running.state(made))["limit"] == 3
        assert (running.status().restarts, running.status().last_end) == (1, how)
        assert (await running.state(other, "other"))["pid"] == untouched


async def test_a_crash_while_creating_fails_that_creation_only(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        with pytest.raises(WorkerDied, match="while creating b"):
            await running.workers.create("sampler", instance("b", built, pins, mood="crash"))
        await running.workers.rollback("sampler", "b")
        assert (await running.state(made))["limit"] == 5
        await running.add(instance("b", built, pins))
        assert running.status().cubes == 2


async def test_sigkill_between_change_and_commit_does_not_lose_the_change(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        await running.change(made, Edit(Op.MERGE, LIMIT, 9))
        pid = running.status().pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: running.status().pid not in (0, pid) and running.status().state == "running")
        assert (await running.state(made))["limit"] == 5  # adopted before the change was stored
        running.standing["sampler"] = [instance("a", built, pins, limit=9)]  # now it is
        await running.workers.commit("sampler", "a")
        assert (await running.state(made))["limit"] == 9


async def test_sigkill_between_create_and_commit_does_not_lose_the_cube(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = instance("a", built, pins)
        await running.workers.create("sampler", made)
        os.kill(running.status().pid, signal.SIGKILL)
        running.standing["sampler"] = [made]
        await running.workers.commit("sampler", "a")
        assert (await running.state(made))["limit"] == 5
        assert running.status().cubes == 1


async def test_calls_in_mid_air_all_end_when_the_worker_is_killed(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        calls = [asyncio.create_task(running.obey(made, "wait")) for _ in range(5)]
        await running.state(made)
        os.kill(running.status().pid, signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, WorkerDied) for result in results)
        assert (await running.state(made))["limit"] == 5


async def test_a_worker_that_hangs_is_killed_and_the_log_says_where_it_stood(built: Path, pins: Path) -> None:
    async with daemon(silence=2) as running:
        made = await running.add(instance("a", built, pins))
        with pytest.raises(WorkerDied, match=r"killed: its loop was silent for 2(\.\d)? s"):
            await running.obey(made, "hang")
        assert (await running.state(made))["limit"] == 5
        said = [line for line in running.logs if line["fields"].get("source") == "stderr"]  # in one piece or more
        assert "in do" in "".join(f"{line['event']}\n{line['exception'] or ''}" for line in said)


async def test_a_worker_that_grows_too_large_is_killed(built: Path, pins: Path) -> None:
    async with daemon(memory=quota.memory("120M")) as running:
        made = await running.add(instance("a", built, pins))
        with suppress(WorkerDied):  # it may be found out before it answers
            await running.obey(made, "leak")
        await until(lambda: running.status().restarts == 1)
        assert (await running.state(made))["limit"] == 5
        assert "120 MB are allowed" in running.status().last_end


async def test_a_worker_with_a_share_of_the_processors_gives_way_where_it_can_not_be_limited(built: Path, pins: Path) -> None:
    async with daemon(cpu=quota.processor("sampler=20%")) as running:
        made = await running.add(instance("a", built, pins))
        await running.workers.ensure("other")
        await running.obey(made, "burn")
        assert os.getpriority(os.PRIO_PROCESS, running.status().pid) == 10
        assert os.getpriority(os.PRIO_PROCESS, running.status("other").pid) == os.getpriority(os.PRIO_PROCESS, 0)
        await until(lambda: running.status().processor > running.status("other").processor)


async def test_a_loop_of_the_daemon_that_hung_itself_kills_nobody(built: Path, pins: Path) -> None:
    import time

    async with daemon(silence=1.5) as running:
        made = await running.add(instance("a", built, pins))
        time.sleep(2)  # noqa: ASYNC251
        await asyncio.sleep(0.2)
        assert (await running.state(made))["limit"] == 5
        assert running.status().restarts == 0


async def test_a_worker_that_dies_again_and_again_leaves_calls_with_one_sentence(built: Path, pins: Path) -> None:
    async with daemon(patience=3, pause=60.0) as running:
        made = await running.add(instance("a", built, pins))
        with pytest.raises(WorkerDied):
            await running.obey(made, "crash")
        await until(lambda: running.status().state == "waiting")
        sentence = r"service sampler has had no running worker for 3 s; the last one ended: by signal SIGKILL"
        with pytest.raises(WorkerUnavailable, match=sentence):
            await running.state(made)
        await running.workers.remove("sampler", "a")  # needs no worker


async def test_a_service_that_cannot_be_loaded_fails_the_call_at_once_and_again(built: Path, pins: Path) -> None:
    async with daemon() as running:
        for _ in range(2):
            with pytest.raises((ServiceFailed, RemoteError), match="service broken failed while being loaded: ModuleNotFoundError"):
                await running.workers.create("broken", instance("a", built, pins))
        await until(lambda: not running.workers.status())


async def test_a_cube_that_cannot_be_adopted_does_not_keep_the_others_from_it(built: Path, pins: Path) -> None:
    async with daemon() as running:
        good, bad = instance("good", built, pins), instance("bad", built, pins, limit="nonsense")
        running.standing["sampler"] = [bad, good]
        await running.workers.ensure("sampler")
        assert (await running.state(good))["limit"] == 5
        assert running.said("cube is not taken over")
        with pytest.raises(ServiceFailed, match="failed while taking over bad"):
            await running.state(bad)


async def test_a_worker_ends_when_its_last_cube_is_gone_and_comes_back_with_the_next(built: Path, pins: Path) -> None:
    async with daemon(grace=0.05) as running:
        await running.add(instance("a", built, pins))
        pid = running.status().pid
        running.standing.clear()
        await running.workers.remove("sampler", "a")
        await until(lambda: not running.workers.status())
        await until(lambda: not Path(f"/proc/{pid}/fd").exists())
        await running.add(instance("b", built, pins))
        assert running.status().pid != pid


async def test_a_worker_with_a_cube_stays_though_a_creation_is_rolled_back(built: Path, pins: Path) -> None:
    async with daemon(grace=0.01) as running:
        made = await running.add(instance("a", built, pins))
        await running.workers.create("sampler", instance("b", built, pins))
        await running.workers.rollback("sampler", "b")
        await asyncio.sleep(0.05)
        assert (await running.state(made))["limit"] == 5
        assert (running.status().cubes, running.status().restarts) == (1, 0)


async def test_what_a_worker_prints_becomes_log_lines(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        await running.obey(made, "print")
        await until(lambda: running.said("words on stderr"))
        (line,) = running.said("words on stderr")
        assert (line["service"], line["level"], line["fields"]) == ("sampler", "warning", {"source": "stderr"})


async def test_a_flood_of_log_lines_is_cut_and_the_cut_is_said(built: Path, pins: Path) -> None:
    async with daemon(log_lines=100) as running:
        made = await running.add(instance("a", built, pins))
        await running.obey(made, "flood the log")
        assert (await running.state(made))["limit"] == 5
        await until(lambda: running.said("were left out"))
        assert len(running.said("again and again")) < 50000


async def test_the_fork_server_may_die_and_workers_live_on(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        pid = (await running.state(made))["pid"]
        server = running.workers._server.pid
        assert server
        os.kill(server, signal.SIGKILL)
        await until(lambda: running.workers._server._control is None)
        assert (await running.state(made))["pid"] == pid
        other = await running.add(instance("c", built, pins), "other")
        assert (await running.state(other, "other"))["limit"] == 5
        with pytest.raises(WorkerDied):
            await running.obey(made, "crash")
        assert (await running.state(made))["pid"] != pid


async def test_a_worker_that_the_system_refuses_is_tried_again(built: Path, pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with daemon(pause=0.01) as d:
        spawn, refusals = d.workers._server.spawn, [OSError(24, "Too many open files")]

        async def scarce(settings: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return await spawn(settings)

        monkeypatch.setattr(d.workers._server, "spawn", scarce)
        await d.workers.ensure("sampler")
        assert not refusals and any("Too many open files" in line["event"] for line in d.logs)


async def test_the_answer_to_a_spawn_that_was_given_up_is_not_taken_for_the_next(built: Path, pins: Path) -> None:
    async with daemon() as d:
        server = d.workers._server
        server._answer, server._number = asyncio.get_running_loop().create_future(), 2
        reading, writing = os.pipe()
        server._received({"number": 1, "pid": 4711}, [reading])
        assert not server._answer.done()
        os.close(writing)
        server._answer = None


async def test_an_edit_the_daemon_refuses_is_an_error_in_the_cube(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("refused", built, pins))
        with pytest.raises(ModelError, match="limit is for others to change"):
            await running.obey(made, "edit")


async def test_after_close_calls_fail_with_a_reason(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        waiting = asyncio.create_task(running.obey(made, "wait"))
        await running.state(made)
        await running.workers.close()
        with pytest.raises(WorkerDied):
            await waiting
        with pytest.raises(PeerGone, match="the daemon is shutting down"):
            await running.state(made)


async def test_a_stream_comes_from_the_cube_and_ends_with_either_side(built: Path, pins: Path) -> None:
    async with daemon() as running:
        made = await running.add(instance("a", built, pins))
        with await running.workers.stream("sampler", made.uuid, ("flow",)) as connected:
            connected.setblocking(False)
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(connected, 100) == b"what flows"
            running.workers.end_streams()
            assert await loop.sock_recv(connected, 100) == b""
        with pytest.raises(ModelError, match="has no flaw; did you mean flow"):
            await running.workers.stream("sampler", made.uuid, ("flaw",))
