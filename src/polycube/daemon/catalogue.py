# SPDX-License-Identifier: Apache-2.0
"""Services that come, change and go while the daemon runs.

`add` takes a folder with the three files of a service, or "module:Class" of an installed wheel. What it names is compiled if need be,
imported, emitted and loaded once on trial, before anybody sees it. `reload` does the same with the files as they are now and then has the
keeper replace what stands: a second worker takes over the cubes, new programs are swapped in under traffic, tables are kept. If any of it
fails, all stays as it was. Folders are watched: saving a file reloads the service.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import structlog

from polycube.bpf import BpfError, Object, VerifierError
from polycube.compiler.build import available, build, targets
from polycube.compiler.errors import CompileError
from polycube.compiler.function import Function
from polycube.core.cube import Cube
from polycube.core.registry import Installed
from polycube.daemon.controller import RESERVED_NAMES
from polycube.daemon.keeper import Keeper
from polycube.daemon.objects import Built, Objects
from polycube.daemon.store import Change
from polycube.daemon.underway import step
from polycube.model import PolycubeError, dump, load, suggest

log = structlog.get_logger("polycubed")
PERIOD = 0.5  # seconds between two looks at the files
WATCHED = (".py", ".c", ".h")
META = "service/"  # keys of the store


class Unusable(PolycubeError):
    """A service that can't be loaded; nothing has changed."""

    status = 400

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"service {name} can't be loaded: {reason}")


class InUse(PolycubeError):
    """A service that has cubes."""

    def __init__(self, name: str, cubes: list[str]) -> None:
        super().__init__(f"service {name} can't be removed: {', '.join(cubes)} {'is' if len(cubes) == 1 else 'are'} of it")


class Catalogue:
    """Adds, reloads and removes services. `services` is what the whole daemon reads."""

    def __init__(self, services: dict[str, Installed], objects: Objects, keeper: Keeper) -> None:
        self._services = services
        self._objects = objects
        self._keeper = keeper
        self._folders: dict[str, Path] = {}  # watched
        self._any = asyncio.Event()  # there are such
        self._seen: dict[str, float] = {}
        self._emitted: dict[tuple[Function, str], Built] = {}  # of the service that is being prepared
        self._lock = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    # ---- changes ----

    async def add(self, name: str, uri: str) -> None:
        """Loads a service that is not there."""
        async with self._lock:
            if name in self._services:
                raise Unusable(name, "there is one of that name")
            if name in RESERVED_NAMES or name in self._keeper.entries:
                raise Unusable(name, "its name is a cube's" if name in self._keeper.entries else "its name is a word of the grammar")
            service = await self._prepared(name, uri)
            await self._keeper.store.save(Change(meta={META + name: json.dumps({"uri": uri})}))
            self._take(name, uri, service)
            self._keeper.events.announce("service-added", service=name)

    async def reload(self, name: str) -> None:
        """The service as its files are now."""
        async with self._lock:
            standing = self._services.get(name)
            if standing is None:
                raise Unusable(name, f"there is none{suggest(name, self._services)}")
            if name in self._folders:
                self._seen[name] = _saved(self._folders[name])
            with _modules_kept(standing.target):
                service = await self._prepared(name, str(self._folders.get(name, standing.target)))
                await self._replace(standing, service)
            self._keeper.events.announce("service-changed", service=name)
            log.info("service is reloaded", service=name)

    async def remove(self, name: str) -> None:
        """Forgets a service without cubes. One that is installed is back at the next start."""
        async with self._lock:
            service = self._services.get(name)
            if service is None:
                raise Unusable(name, f"there is none{suggest(name, self._services)}")
            cubes = [entry.name for entry in self._keeper.entries.values() if entry.service == name]
            if cubes:
                raise InUse(name, cubes)
            del self._services[name]
            self._folders.pop(name, None)
            if not self._folders:
                self._any.clear()
            await self._keeper.store.save(Change(meta={META + name: ""}))
            await self._keeper.workers.retire(name)
            _forget_modules(service.target)
            self._keeper.events.announce("service-removed", service=name)

    # ---- at the start, and while it runs ----

    async def restore(self) -> None:
        """Loads what was added by an earlier run. What can't be is said, and its cubes are left out."""
        for key, value in (await self._keeper.store.read()).meta.items():
            if key.startswith(META) and value:
                name, uri = key.removeprefix(META), json.loads(value)["uri"]
                try:
                    self._take(name, uri, await self._prepared(name, uri))
                except PolycubeError as error:
                    log.error(str(error))

    def watch(self) -> None:
        """Begins to look after the folders."""
        self._watching = asyncio.create_task(self._watch(), name="watch services")

    def close(self) -> None:
        if self._watching:
            self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            await self._any.wait()
            await asyncio.sleep(PERIOD)
            for name, folder in list(self._folders.items()):
                saved = _saved(folder)
                if saved <= self._seen.get(name, saved):
                    continue
                self._seen[name] = saved
                try:
                    await self.reload(name)
                except PolycubeError as error:
                    log.error(str(error))
                    self._keeper.events.announce("service-failed", service=name, reason=str(error))

    # ---- below ----

    def _take(self, name: str, uri: str, service: Installed) -> None:
        self._services[name] = service
        if service.path:
            self._folders[name] = Path(uri)
            self._any.set()
            self._seen[name] = _saved(Path(uri))

    async def _prepared(self, name: str, uri: str) -> Installed:
        """Compiled, imported, emitted and loaded on trial."""
        self._emitted.clear()
        try:
            if ":" in uri:
                service = Installed(name, uri)
                _forget_modules(uri)
            else:
                service = await self._of_folder(name, Path(uri))
            if not (isinstance(service.cls, type) and issubclass(service.cls, Cube)):
                raise PolycubeError(f"{service.target} is no Cube")
            if service.cls.service() != name:
                raise PolycubeError(f"its folder is called {service.cls.service()}")
            for hook in sorted(service.function.hooks):
                built = await self._objects.emit(service.function, hook)
                step(f"the kernel is verifying {name} for {hook}")
                await asyncio.to_thread(_try, built, name)
                self._emitted[service.function, str(hook)] = built
        except Unusable:
            raise
        except (PolycubeError, BpfError, CompileError) as error:
            raise Unusable(name, str(error)) from error
        except Exception as error:  # an author's module may raise anything
            raise Unusable(name, f"{type(error).__name__}: {error}") from error
        return service

    async def _of_folder(self, name: str, folder: Path) -> Installed:
        step(f"compiling {name}")
        await asyncio.to_thread(_compile, folder)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # two saves in one second look alike to it
        _forget_modules(folder.name)
        with _first(str(folder.parent)):
            module = importlib.import_module(f"{folder.name}.cube")
        return Installed(name, f"{module.__name__}:{_class_of(module)}", str(folder.parent))

    async def _replace(self, standing: Installed, service: Installed) -> None:
        """Has the cubes of one become cubes of the other. Raises if a configuration does not fit any more."""
        name, entries = standing.name, {}
        for entry in self._keeper.entries.values():
            if entry.service == name:
                try:
                    entries[entry.name] = replace(entry, config=load(service.config, dump(entry.config)))
                except PolycubeError as error:
                    raise Unusable(name, f"the configuration of {entry.name} does not fit its model: {error}") from error
        self._services[name] = service
        objects = self._objects.replace(standing.function, self._emitted)
        try:
            async with self._keeper.workers.replacing(name) as stand:
                await self._keeper.renew(name, entries, stand)
        except BaseException:
            self._services[name] = standing
            self._objects.replace(service.function, objects)
            raise


def _compile(folder: Path) -> None:
    if not folder.is_absolute() or not folder.is_dir():
        raise PolycubeError(f"{folder} is no folder by its whole path, nor 'module:Class'")
    if available():
        build([folder])
    elif not all(target.output.exists() for target in targets(folder)):
        raise PolycubeError("it is not compiled, and there is no clang here: python -m polycube.compiler.build, where there is one")


def _try(built: Built, name: str) -> None:
    """Whether the kernel takes the programs. What the verifier said is kept beside the object, since it may be long."""
    try:
        with Object.open(built.data, name[:15]) as object:
            object.load()
    except VerifierError as error:
        path = built.path.with_suffix(".verifier.log")
        path.write_text(error.log)
        raise Unusable(name, f"{error}; all it said: {path}") from error


@contextmanager
def _first(place: str) -> Iterator[None]:
    """Modules are looked for there before all else."""
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _class_of(module: ModuleType) -> str:
    own = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    found = [one.__name__ for one in own if issubclass(one, Cube)]
    if len(found) != 1:
        raise PolycubeError(f"{module.__name__} defines {len(found)} cubes, expected one")
    return found[0]


def _package(target: str) -> str:
    """What is imported anew with a service: the folder that is its own, whatever else lies beside it."""
    module = target.partition(":")[0]
    if module not in sys.modules or hasattr(sys.modules[module], "__path__"):
        return module
    return module.rpartition(".")[0] or module


def _forget_modules(target: str) -> dict[str, ModuleType]:
    package = _package(target) if ":" in target else target
    gone = {name: sys.modules.pop(name) for name in list(sys.modules) if name == package or name.startswith(f"{package}.")}
    importlib.invalidate_caches()
    return gone


@contextmanager
def _modules_kept(target: str) -> Iterator[None]:
    """Puts the modules of a service back if what follows fails."""
    package = _package(target)
    before = {name: module for name, module in sys.modules.items() if name == package or name.startswith(f"{package}.")}
    try:
        yield
    except BaseException:
        _forget_modules(target)
        sys.modules.update(before)
        raise


def _saved(folder: Path) -> float:
    """When something in a folder was saved last."""
    latest = 0.0
    for path in folder.rglob("*"):
        if path.suffix in WATCHED:
            with suppress(OSError):
                latest = max(latest, path.stat().st_mtime)
    return latest
