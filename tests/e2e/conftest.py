# SPDX-License-Identifier: Apache-2.0
"""End-to-end tests: real daemons, real traffic, in namespaces of this process's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polycube.testing.build import OtherBuild
from polycube.testing.daemon import Daemon


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled units, shared by the daemons of all modules."""
    return tmp_path_factory.getbasetemp() / "cache"


@pytest.fixture
def daemons(isolated: None, tmp_path: Path, cache: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that do not run yet, for tests with something special about them; they are closed at the end."""
    made: list[Daemon] = []

    def make(**options: object) -> Daemon:
        options.setdefault("cache", cache)
        made.append(Daemon(tmp_path / f"daemon{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def other(tmp_path: Path) -> OtherBuild:
    """Another copy of the package, to be changed and compiled."""
    return OtherBuild(tmp_path / "site")
