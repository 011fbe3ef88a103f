# SPDX-License-Identifier: Apache-2.0
"""The keeper and its executor over a kernel, a store and workers that are none: how changes get along with each other and with failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from polycube.compiler.function import Function
from polycube.core.config import StandardCube
from polycube.core.fusing import Piece
from polycube.core.kernel import KernelError
from polycube.core.loading import Loader
from polycube.core.message import Recorded
from polycube.core.netdevs import Netdevs
from polycube.core.openmaps import OpenMaps
from polycube.core.operation import Key, Kind, Operation, Plan
from polycube.core.paths import Paths
from polycube.core.registry import Installed
from polycube.daemon.draft import Draft, Refused
from polycube.daemon.executor import Executor
from polycube.daemon.fuser import Fusing
from polycube.daemon.keeper import Failed, Keeper
from polycube.daemon.objects import Built
from polycube.model import Edit, Op

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class NoKernel:
    """Takes everything but what is to fail."""

    def __init__(self) -> None:
        self.links = self
        self.loader = Loader(Paths(), OpenMaps())
        self.netdevs = Netdevs(None)  # type: ignore[arg-type]
        self.failing: set[Kind] = set()
        self.paths = self

    def cube(self, uuid: str) -> str:
        return uuid

    async def list(self) -> list[Any]:
        return []

    async def carry_out(self, operation: Operation) -> None:
        if operation.key.kind in self.failing:
            raise KernelError(operation, OSError("no"))

    def reset_port(self, id: int) -> None:
        return

    reset_cube = reset_port


class NoStore:
    async def save(self, change: Any) -> None:
        await asyncio.sleep(0.001)


class Workers:
    """Services that take their time."""

    async def create(self, *_: Any) -> Recorded:
        await asyncio.sleep(0.002)
        return Recorded()

    change = create

    async def commit(self, *_: Any) -> None:
        return

    rollback = remove = commit


class Objects:
    def __init__(self) -> None:
        self.asked = 0

    async def get(self, function: Function, hook: str) -> Built:
        self.asked += 1
        return Built(f"{hook}-0", b"", Path("none"), False, False, Piece(Function("none", Path())), {})


class Sort(Installed):
    @property
    def cls(self) -> Any:  # type: ignore[override]
        return self

    config = StandardCube  # type: ignore[assignment]
    learned = ()

    def sizes(self, config: Any) -> dict[str, int]:
        return {}

    def function_of(self, config: Any) -> Function:
        return Function(self.name, Path("none"))


def keeper() -> Keeper:
    services = {name: Sort(name, "") for name in ("one", "two")}
    kernel, store, workers, objects = cast(Any, (NoKernel(), NoStore(), Workers(), Objects()))
    fusing = Fusing(cast(Any, None), cast(Any, None), on=False)
    return Keeper(services=services, kernel=kernel, store=store, workers=workers, objects=objects, fusing=fusing)


async def create(kept: Keeper, name: str, service: str = "one", dry_run: bool = False, **more: Any) -> None:
    config = StandardCube.model_validate({"name": name, **more}, by_name=True)
    await kept.change(lambda draft: draft.create(name, service, False, config) and None, dry_run)


async def test_many_changes_at_once_all_come_to_an_end() -> None:
    kept = keeper()
    await create(kept, "a", "one")
    await create(kept, "b", "two")

    async def level(number: int) -> None:
        for _ in range(5):
            names = ("a", "b") if number % 3 == 0 else ("a",)

            def act(draft: Draft, names: tuple[str, ...] = names) -> None:
                for name in names:
                    draft.reconfigure(name, draft.cubes[name].config, [Edit(Op.MERGE, ("loglevel",), "INFO")])

            await kept.change(act)

    async with asyncio.timeout(30):
        await asyncio.gather(*(level(number) for number in range(12)))


async def test_nothing_is_kept_of_cubes_that_went_or_never_came() -> None:
    kept = keeper()
    await create(kept, "a", dry_run=True)
    assert not kept.kernel.loader.loads
    await create(kept, "a")
    assert len(kept.kernel.loader.loads) == 1
    await kept.change(lambda draft: draft.delete("a"))
    assert not kept.kernel.loader.loads and not kept._worlds._specs


async def test_nothing_is_compiled_for_what_is_refused() -> None:
    kept = keeper()
    with pytest.raises(Refused, match="nowhere"):
        await create(kept, "a", ports=[{"name": "p", "peer": "nowhere"}])
    assert cast(Any, kept._worlds)._objects.asked == 0
    await create(kept, "a")
    assert cast(Any, kept._worlds)._objects.asked > 0


async def test_a_change_that_the_kernel_refuses_leaves_nothing() -> None:
    kept = keeper()
    kept.kernel.failing = {Kind.SLOT}  # type: ignore[attr-defined]
    with pytest.raises(Failed):
        await create(kept, "a")
    assert not kept.entries and not kept.executor.resources and not kept.kernel.loader.loads


async def test_what_failed_at_an_event_does_not_fail_the_changes_of_others() -> None:
    kernel = NoKernel()
    executor = Executor(cast(Any, kernel))
    taken, other = Operation(Key(Kind.ATTACH, (7, "xdp")), None, {"uuid": "u"}), Operation(Key(Kind.STATE, ("v",)), None, {})
    kernel.failing = {Kind.ATTACH}
    assert len(await executor.mend(Plan((taken,)))) == 1
    await executor.execute(Plan((taken, other)))
    assert other.key in executor.resources and taken.key not in executor.resources and taken.key in executor.failed
    kernel.failing = set()
    await executor.execute(Plan((taken,)))
    assert taken.key in executor.resources and not executor.failed


async def test_what_failed_at_an_event_and_was_given_up_fails_a_request_for_it() -> None:
    kernel = NoKernel()
    executor = Executor(cast(Any, kernel))
    taken = Operation(Key(Kind.ATTACH, (7, "xdp")), None, {"uuid": "u"})
    kernel.failing = {Kind.ATTACH}
    await executor.mend(Plan((taken,)))
    await executor.execute(Plan())
    with pytest.raises(KernelError):
        await executor.execute(Plan((taken,)))
