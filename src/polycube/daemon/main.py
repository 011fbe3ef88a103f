# SPDX-License-Identifier: Apache-2.0
"""polycubed: puts the parts together, and takes them apart again. What it set up in the kernel goes on without it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import yaml

from polycube.bpf import BpfError, features
from polycube.compiler.cache import ObjectCache
from polycube.compiler.errors import CompileError
from polycube.compiler.function import Hook, injector
from polycube.compiler.process import Compiler
from polycube.core import collector
from polycube.core.adopt import Reader
from polycube.core.kernel import Kernel
from polycube.core.operation import plan
from polycube.core.paths import Paths
from polycube.core.registry import installed
from polycube.daemon import log as logs
from polycube.daemon.api import build_app
from polycube.daemon.catalogue import Catalogue
from polycube.daemon.cgroups import Cgroups, NotDelegated, own
from polycube.daemon.config import Options, describe, load
from polycube.daemon.copies import Copies
from polycube.daemon.datalogs import DataLogs
from polycube.daemon.executor import Executor
from polycube.daemon.fuser import Fusing
from polycube.daemon.keeper import Keeper
from polycube.daemon.manager import Manager
from polycube.daemon.objects import Objects
from polycube.daemon.pidfile import PidFile, daemonize
from polycube.daemon.records import restored
from polycube.daemon.refusals import Refusals
from polycube.daemon.serving import Door, serve
from polycube.daemon.shadows import Shadows
from polycube.daemon.store import Change, Store
from polycube.daemon.workers import Limits, Workers
from polycube.model import PolycubeError
from polycube.net.errors import NetError
from polycube.net.event import LinkRemoved
from polycube.net.links import Links
from polycube.net.watch import Watcher

log = structlog.get_logger("polycubed")
CUBES = Path("/etc/polycube/cubes.yaml")
SETTLE = 0.002  # seconds in which further netdev events are taken together
BACKGROUND = 19  # niceness of the compiler of fused units
AGAIN = 5.0  # seconds after which what could not be done for them is tried again


async def run(options: Options) -> None:
    """The life of the daemon."""
    door = Door.of(options)  # what is wrong with secrets is said before anything is touched
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    cache = ObjectCache(options.cache)
    with (
        delegated(options) as cgroups,
        Store(options.store) as store,
        Compiler(cache) as compiler,
        Compiler(cache, nice=BACKGROUND) as background,
    ):
        async with Links() as links, Watcher(routes=False, neighbours=False) as watcher:
            kernel = Kernel(Paths(options.bpffs), links)
            await kernel.start({hook: await compiler.emit_spec(injector(hook)) for hook in Hook})
            services, broken = installed()
            for sentence in broken:
                log.error(sentence)
            objects = Objects(compiler, options.cache / "units")
            workers = Workers(
                target=lambda service: services[service].target,
                cubes=lambda service: keeper.standing(service),
                edited=lambda uuid, edits: manager.edited(uuid, edits),
                logged=logs.relay,
                announced=lambda kind, data: keeper.events.announce(kind, **data),
                path=lambda service: services[service].path,
                paths=kernel.paths,
                limits=Limits(memory=options.worker_memory, cpu=options.worker_cpu),
                cgroups=cgroups,
            )
            fusing = Fusing(background, Refusals(options.cache / "refused.json"), not options.no_fuse)
            keeper = Keeper(services=services, kernel=kernel, store=store, workers=workers, objects=objects, fusing=fusing)
            catalogue = Catalogue(services, objects, keeper)
            manager = Manager(services, objects, keeper, catalogue)
            shadows = Shadows(keeper, workers.follow, manager.edited)
            copies = Copies(keeper, kernel)
            keeper.concluded += [shadows.touched, copies.touched]
            await catalogue.restore()
            workers.start()
            await keeper.start(list(watcher.netdevs.values()))
            log.info("cubes are taken over", cubes=len(keeper.entries))
            await begin(options, manager)
            datalogs = DataLogs(kernel.logs(), lambda number, line: logs.relay(*_named(keeper, number, line)))
            watching = asyncio.create_task(watch(watcher, keeper))
            catalogue.watch()
            try:
                await serve(options, door, build_app(manager), lambda: ended(stop, watching, keeper))
            finally:
                watching.cancel()
                datalogs.close()
                copies.close()
                await shadows.close()
                catalogue.close()
                await keeper.close()


@contextmanager
def delegated(options: Options) -> Iterator[Cgroups | None]:
    """Where processor time is limited, if it is to be."""
    cgroups = None
    if options.worker_cpu:
        try:
            cgroups = Cgroups(own())
        except NotDelegated as error:
            log.warning("workers with a limit give way to all others instead", reason=str(error), limits=str(options.worker_cpu))
    try:
        yield cgroups
    finally:
        if cgroups:
            cgroups.close()


async def begin(options: Options, manager: Manager) -> None:
    """What upstream's switches for persistence ask for. A file that can't be taken is said, and nothing of it is there."""
    if options.cubes_dump_clean_init and manager.cubes():
        await manager.apply({}, dry_run=False)
    file = options.cubes_dump_file or CUBES
    if not options.cubes_dump_enable or options.cubes_dump_clean_init or manager.cubes() or not file.exists():
        return
    try:
        await manager.apply(yaml.safe_load(file.read_text()) or [], dry_run=False)
    except (PolycubeError, OSError, ValueError, yaml.YAMLError) as error:
        log.error("cubes are not taken from the file", file=str(file), reason=str(error))
    else:
        log.info("cubes are taken from the file", file=str(file), cubes=len(manager.cubes()))


async def ended(stop: asyncio.Event, watching: asyncio.Task[None], keeper: Keeper) -> None:
    """Returns when the daemon is asked to stop, or can't go on; answers without end come to it then."""
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait([asked, watching], return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if watching.done():
        log.critical("watching netdevs ended", reason=str(watching.exception()))
    keeper.events.end()
    keeper.workers.end_streams()


def _named(keeper: Keeper, number: int, line: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A data plane's line with the names of its service and cube."""
    entry = next((one for one in keeper.entries.values() if one.number == number), None)
    return (entry.service, {**line, "cube": entry.name}) if entry else ("", {**line, "cube": ""})


async def clean(options: Options) -> None:
    """Takes everything out of the kernel; traffic that passed through cubes does not any more."""
    with Store(options.store) as store:
        async with Links() as links:
            kernel = Kernel(Paths(options.bpffs), links)
            kernel.netdevs.preparations = dict(restored(await store.read(), {}).preparations)
            forgotten = {str(ifindex): None for ifindex in kernel.netdevs.preparations}
            executor = Executor(kernel)
            executor.resources = await asyncio.to_thread(Reader(kernel).read)
            for failure in await executor.mend(plan(executor.resources, {})):
                log.error(str(failure))
            await kernel.remove()
            await store.save(Change(ready=forgotten))


async def watch(watcher: Watcher, keeper: Keeper) -> None:
    """Tells the keeper of every change of netdevs, taking together what comes at once."""
    changed = asyncio.Event()
    removed: set[int] = set()

    async def tell() -> None:
        while True:
            await changed.wait()
            await asyncio.sleep(SETTLE)
            changed.clear()
            gone = frozenset(removed)
            removed.clear()
            try:
                await keeper.netdevs_changed({one.name: one for one in watcher.netdevs.values()}, gone)
            except Exception:
                log.exception("could not follow a change of netdevs")
                removed.update(gone)
                await asyncio.sleep(AGAIN)
                changed.set()

    telling = asyncio.create_task(tell())
    try:
        async for event in watcher:
            if isinstance(event, LinkRemoved):
                removed.add(event.netdev.ifindex)
            changed.set()
    finally:
        telling.cancel()


def main() -> None:
    """Entry point."""
    try:
        loaded = load(sys.argv[1:])
        if loaded.exit_text is not None:
            print(loaded.exit_text)
            return
        options = loaded.options
        if os.geteuid() != 0:
            sys.exit("polycubed should be executed with root privileges")
        if options.no_tcx:
            os.environ["POLYCUBE_DISABLE_FEATURES"] = ",".join(filter(None, [os.environ.get("POLYCUBE_DISABLE_FEATURES"), "tcx"]))
        if options.daemon:
            daemonize()
        with PidFile(options.pidfile):
            start(options, loaded.warnings)
    except (PolycubeError, BpfError, CompileError, NetError, OSError) as error:
        sys.exit(f"polycubed: {error}")


def start(options: Options, warnings: tuple[str, ...]) -> None:
    """With the lock held: logs, then the loop."""
    collector.relax()
    logs.configure(options.loglevel, file=options.logfile, stream=False if options.daemon else None, json=options.logformat == "json")
    for warning in warnings:
        log.warning(warning)
    for line in describe(options):
        log.info(line)
    missing = features().missing()
    if missing:
        log.warning("this kernel lacks features; fallbacks are in use where there are some", missing=", ".join(missing))
    try:
        asyncio.run(clean(options) if options.clean else run(options))
    except (PolycubeError, BpfError, CompileError, NetError, OSError) as error:
        log.critical(str(error))
        raise
    log.info("polycubed is shutting down. Bye!")


if __name__ == "__main__":
    main()
