# SPDX-License-Identifier: Apache-2.0
"""Carries out plans: all of it or nothing.

`resources` is what stands in the kernel; it changes with each operation, so that it is right at every moment. When an operation fails,
those before it are undone in reverse order. Between additions and removals packets get time to finish the old way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import structlog

from polycube.bpf import grace
from polycube.core.kernel import Kernel, KernelError
from polycube.core.operation import Key, Kind, Operation, Plan
from polycube.daemon.underway import step

log = structlog.get_logger("polycubed")
MANY = 64  # writes


def runs(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Operations in their order: many writes in a row to one map together, all others one by one."""
    for name, group in groupby(operations, lambda one: one.key.name[:2] if one.key.kind is Kind.MAP else None):
        found = list(group)
        if name is not None and len(found) >= MANY:
            yield found
        else:
            yield from ([one] for one in found)


class Executor:
    """The only one that changes the kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.resources: dict[Key, Any] = {}
        self.failed: dict[Key, KernelError] = {}  # what `mend` could not do, and nobody has done since

    async def execute(self, plan: Plan) -> list[Operation]:
        """Carries out everything but `plan.last`; returns what was done, for `undo`. KernelError: nothing has changed.

        What failed in an earlier `mend` is tried again, but the plan does not depend on it: it is of somebody else's netdev.
        """
        self._forget_failures(plan)
        done: list[Operation] = []
        try:
            for run in runs(plan.ahead):
                if len(run) > 1:
                    await self._write(run, done)
                else:
                    await self._do(run[0], done)
            if plan.behind:
                await asyncio.to_thread(grace)
                for operation in plan.behind:
                    await self._do(operation, done)
        except BaseException:
            await self.undo(done)
            raise
        return done

    async def _write(self, run: Sequence[Operation], done: list[Operation]) -> None:
        """Many writes to one map. What is noted as done before it is does no harm when it is undone."""
        step(f"writing {len(run)} entries of {run[0].key.name[1]}")
        standing = await asyncio.to_thread(self.kernel.map_values, run)
        done += [Operation(operation.key, old, operation.new) for operation, old in zip(run, standing, strict=True)]
        await asyncio.to_thread(self.kernel.write_map, run)

    async def _do(self, operation: Operation, done: list[Operation]) -> None:
        step("the kernel is verifying programs" if operation.key.kind is Kind.UNIT else "changing what the kernel holds")
        try:
            done.append(await self._carry_out(operation))
        except KernelError as error:
            known = self.failed.get(operation.key)
            if await self._left_with_its_netdev(operation):
                return
            if known is None or known.operation.new != operation.new:
                raise
            self.failed[operation.key] = error
        else:
            self.failed.pop(operation.key, None)

    async def _left_with_its_netdev(self, operation: Operation) -> bool:
        """A fused unit can't give way on a netdev that has gone a moment ago, whose event has still to come; nor need it."""
        leaves = operation.key.kind is Kind.ATTACH and operation.old and "fused" in operation.old
        return bool(leaves) and await self.kernel.links.find(operation.key.name[0]) is None

    def _forget_failures(self, plan: Plan) -> None:
        """Those that nobody wants any more."""
        if self.failed:
            wanted = {operation.key for operation in plan}
            self.failed = {key: error for key, error in self.failed.items() if key in wanted}

    async def mend(self, plan: Plan) -> list[KernelError]:
        """Carries out as much of a plan as can be; for events and starts, where there is nobody to refuse."""
        self._forget_failures(plan)
        failures: list[KernelError] = []
        waited = False
        for run in runs(plan):
            if run[0].new is None and run[0].key.kind is not Kind.MAP and not waited:
                await asyncio.to_thread(grace)
                waited = True
            try:
                if len(run) > 1:
                    await asyncio.to_thread(self.kernel.write_map, run)
                else:
                    await self._carry_out(run[0])
            except KernelError as error:
                failures.append(error)
                if error.operation.key.kind is not Kind.MAP:
                    self.failed[error.operation.key] = error
            else:
                self.failed.pop(run[0].key, None)
        return failures

    async def undo(self, done: Sequence[Operation]) -> None:
        """Takes back what `execute` did."""
        for operation in reversed(done):
            try:
                await self._carry_out(operation.inverse)
            except KernelError as error:
                log.error("undo failed", operation=str(operation), reason=str(error.cause))

    async def finish(self, plan: Plan) -> None:
        """After the change is stored: what can't be undone."""
        for operation in plan.last:
            try:
                await self._carry_out(operation)
            except KernelError as error:
                log.error("clean-up failed", reason=str(error))

    async def _carry_out(self, operation: Operation) -> Operation:
        if operation.key.kind is Kind.MAP:
            try:
                standing = self.kernel.map_value(*operation.key.name)
            except Exception as error:
                raise KernelError(operation, error) from error
            operation = Operation(operation.key, standing, operation.new)
            await self.kernel.carry_out(operation)
            return operation
        await self.kernel.carry_out(operation)
        if operation.new is None:
            self.resources.pop(operation.key, None)
        else:
            self.resources[operation.key] = operation.new
        return operation
