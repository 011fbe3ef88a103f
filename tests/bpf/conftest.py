# SPDX-License-Identifier: Apache-2.0
"""Everything here is real: programs compiled by clang, loaded into the running kernel, in a network of this process's own."""

import hashlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bpflab import HEADER, Compile, Load, Veth, eventually

from polycube.bpf import Object
from polycube.testing.isolation import isolate


@pytest.fixture(scope="session", autouse=True)
def own_world() -> None:
    isolate()


@pytest.fixture(scope="session", autouse=True)
def tools(own_world: None) -> None:
    for tool in ("clang", "bpftool", "ip", "tc"):
        assert shutil.which(tool), f"{tool} is not installed"


@pytest.fixture(scope="session")
def compile(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """C to the bytes of an object."""
    folder = tmp_path_factory.mktemp("objects")

    def work(source: str, clang: str = "clang", header: str = HEADER) -> bytes:
        if shutil.which(clang) is None:
            pytest.skip(f"no {clang}")
        place = folder / hashlib.sha256((clang + header + source).encode()).hexdigest()[:16]
        target = place / "test.bpf.o"
        if not target.exists():
            place.mkdir()
            (place / "header.h").write_text(header)
            (place / "test.bpf.c").write_text(source)
            command = [clang, "-O2", "-g", "-Wall", "-target", "bpf", "-mcpu=v3", "-I/usr/include/x86_64-linux-gnu", "-include", "header.h"]
            subprocess.run([*command, "-c", "test.bpf.c", "-o", target.name], cwd=place, check=True)
        return target.read_bytes()

    return work


@pytest.fixture
def load(compile: Compile) -> Iterator[Load]:
    """Compiles and loads; closes the objects at the end."""
    objects: list[Object] = []

    def work(source: str, name: str = "test", clang: str = "clang") -> Object:
        objects.append(Object.open(compile(source, clang), name))
        objects[-1].load()
        return objects[-1]

    yield work
    for loaded in objects:
        loaded.close()


@pytest.fixture
def veth(request: pytest.FixtureRequest) -> Iterator[Callable[[], Veth]]:
    """Makes veth pairs with names of this test's own, both ends up and quiet."""
    made: list[str] = []
    tag = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:6]

    def make() -> Veth:
        near, far = f"v{tag}{len(made)}a", f"v{tag}{len(made)}b"
        subprocess.run(["ip", "link", "add", near, "type", "veth", "peer", "name", far], check=True)
        made.append(near)
        for name in (near, far):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        return Veth(socket.if_nametoindex(near), socket.if_nametoindex(far), near, far)

    yield make
    for name in made:
        subprocess.run(["ip", "link", "del", name], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture(scope="session")
def soon() -> Callable[..., bool]:
    return eventually


@pytest.fixture
def pins(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder in the bpffs for this test's pins."""
    folder = Path("/sys/fs/bpf") / hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
