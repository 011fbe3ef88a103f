# SPDX-License-Identifier: Apache-2.0
"""The pytest plug-in: fixtures for packet tests.

Tests that use them run in a process with namespaces of its own (isolation.py), entered when the first of them asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from polycube.compiler.function import Hook
    from polycube.testing.daemon import Daemon
    from polycube.testing.harness import Chain, CubeUnderTest
    from polycube.testing.hosts import Lab


@pytest.fixture(scope="session")
def isolated() -> None:
    """Moves the process into its own network and mount namespaces; needs root."""
    from polycube.testing.isolation import isolate

    isolate()


@pytest.fixture(params=["xdp", "tc"])
def hook(request: pytest.FixtureRequest) -> Hook:
    """The hook under test: every test that asks for it, or for `cube` or `chain`, runs once on each."""
    from polycube.compiler.function import Hook

    return Hook(request.param)


@pytest.fixture
def chain(isolated: None, hook: Hook) -> Iterator[Chain]:
    """An empty chain; see polycube.testing.harness.Chain."""
    from polycube.testing.harness import Chain

    with Chain(hook) as made:
        yield made


@pytest.fixture
def cube(chain: Chain) -> Callable[..., CubeUnderTest]:
    """Makes a cube: `cube("simplebridge", ports=3)`; see Chain.cube."""

    def make(*arguments: Any, **options: Any) -> CubeUnderTest:
        return chain.cube(*arguments, **options)

    return make


@pytest.fixture(scope="module")
def lab(isolated: None) -> Iterator[Lab]:
    """Makes hosts, which stay until the module's tests are done; see polycube.testing.hosts.Lab."""
    from polycube.testing.hosts import Lab

    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def daemon(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running polycubed, for all tests of a module; see polycube.testing.daemon.Daemon."""
    from polycube.testing.daemon import Daemon

    with Daemon(tmp_path_factory.mktemp("daemon"), cache=tmp_path_factory.getbasetemp() / "cache") as running:
        yield running
