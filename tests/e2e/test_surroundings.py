# SPDX-License-Identifier: Apache-2.0
"""What a machine may lack (room on its disk, a bpffs, BTF of its kernel), and two clients that want the same cube."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenes import bridge, clear, everything

from polycube.bpf import is_bpffs
from polycube.testing.daemon import Answer, Daemon
from polycube.testing.hosts import Host, Lab, sh


@pytest.fixture
def hosts(isolated: None) -> Iterator[list[Host]]:
    with Lab() as lab:
        yield lab.some(2)


@pytest.fixture
def small(isolated: None, tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    sh(f"mount -t tmpfs -o size=2m tmpfs {place}")
    yield place
    sh(f"umount -l {place}")


def test_a_full_disk_refuses_changes_and_stops_nothing(daemons: Callable[..., Daemon], hosts: list[Host], small: Path) -> None:
    daemon = daemons()
    daemon.folder = small
    daemon.store, daemon.logfile = small / "polycube.db", small / "polycubed.log"
    with daemon:
        bridge(daemon, "br1", hosts)
        assert hosts[0].ping(hosts[1]).received == 2
        before = everything(daemon)
        waste = small / "waste"
        with pytest.raises(OSError, match="No space left"), waste.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        answers = [daemon.rest("POST", f"simplebridge/b{number}", {"ports": [{"name": "p"}]}) for number in range(20)]
        refused = [answer for answer in answers if not answer.ok]
        assert refused, "the disk has room"
        assert {answer.status for answer in refused} == {507} and "store" in refused[0].text, refused[0].text
        assert hosts[0].ping(hosts[1]).received == 2
        waste.unlink()
        for number in [number for number, answer in enumerate(answers) if answer.ok]:
            daemon.delete(f"simplebridge/b{number}")
        assert everything(daemon) == before
        daemon.crash()
        assert everything(daemon) == before


def test_neither_a_mounted_bpffs_nor_btf_of_the_kernel_is_needed(daemons: Callable[..., Daemon], hosts: list[Host], tmp_path: Path) -> None:
    sh("mount -t tmpfs tmpfs /sys/kernel/btf")
    place = tmp_path / "bpf"
    place.mkdir()
    try:
        with daemons(bpffs=place / "polycube") as daemon:
            assert is_bpffs(place)
            for type in ("TC", "XDP_DRV"):
                bridge(daemon, "br1", hosts, type)
                assert hosts[0].ping(hosts[1]).received == 2
                daemon.delete("br1")
    finally:
        sh("umount /sys/kernel/btf")
        sh(f"umount -l {place}")


def test_a_folder_that_holds_something_else_does_not_become_a_bpffs(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear all")
    assert "name a folder in a bpffs" in daemons(bpffs=tmp_path).refuses()


def test_two_clients_at_one_cube_both_get_what_both_can_have(daemon: Daemon) -> None:
    """Each adds ports of its own, and both want one that can be had once."""
    daemon.post("simplebridge/br1")
    answers: dict[str, list[Answer]] = {"a": [], "b": []}
    together = threading.Barrier(2)

    def work(name: str) -> None:
        for number in range(10):
            together.wait()
            answers[name] += [
                daemon.rest("POST", f"simplebridge/br1/ports/{name}{number}", {}),
                daemon.rest("POST", f"simplebridge/br1/ports/both{number}", {}),
                daemon.rest("PATCH", "simplebridge/br1/fdb/aging-time", 100 + number),
            ]

    clients = [threading.Thread(target=work, args=(name,)) for name in answers]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    statuses = [sorted((one.status, other.status)) for one, other in zip(answers["a"], answers["b"], strict=True)]
    assert statuses == 10 * [[201, 201], [201, 409], [200, 200]]
    found = daemon.get("simplebridge/br1")
    assert len(found["ports"]) == 30 and found["fdb"]["aging-time"] == 109
    daemon.crash()
    assert daemon.get("simplebridge/br1") == found
    clear(daemon)
