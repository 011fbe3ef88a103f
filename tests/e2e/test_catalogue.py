# SPDX-License-Identifier: Apache-2.0
"""Services that are loaded, changed and unloaded under a running daemon: a folder of one's own, saved while packets flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenes import clear

from polycube.testing.daemon import Daemon
from polycube.testing.hosts import Host, Lab, eventually

MODEL = '''
from polycube.core.config import TransparentCube
from polycube.model import leaf

class TallyConfig(TransparentCube):
    """Counts frames."""

    step: int = leaf("What a frame counts", default=1)
'''
CUBE = '''
from polycube.core.cube import Cube
from tally.model import TallyConfig

class Tally(Cube[TallyConfig]):
    """Counts frames"""

    config = TallyConfig

    def apply(self, change):
        for _, step in change.changed("step"):
            self.maps["steps"][0] = step

    def state(self):
        return {}
'''
SOURCE = """
#include <polycube/cube.h>

MAP(totals, ARRAY, __u32, __u64, 1);
MAP(steps, ARRAY, __u32, __u64, 1);

HANDLER(ingress)
{
	__u32 zero = 0;
	__u64 *total = bpf_map_lookup_elem(&totals, &zero), *step = bpf_map_lookup_elem(&steps, &zero);

	if (total && step)
		__sync_fetch_and_add(total, *step);
	return pcn_pass(pkt);
}
"""


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> list[Host]:
    return lab.some(2)


@pytest.fixture
def folder(tmp_path: Path, daemon: Daemon) -> Iterator[Path]:
    daemon.tracebacks_allowed = True  # the service raises
    made = tmp_path / "tally"
    made.mkdir()
    for name, text in (("model.py", MODEL), ("cube.py", CUBE), ("tally.bpf.c", SOURCE)):
        (made / name).write_text(text)
    yield made
    clear(daemon)
    daemon.rest("DELETE", "services/tally")


def total(daemon: Daemon, cube: str = "t1") -> int:
    from polycube.bpf import Map, u32

    uuid = daemon.get(f"tally/{cube}")["uuid"]
    with Map.open(daemon.bpffs / "cubes" / uuid / "totals") as totals:
        return int.from_bytes(totals.get(u32(0)) or b"", "little")


def lasting(daemon: Daemon) -> set[str]:
    """Pins of cubes and their units."""
    return {path for path in daemon.pins() if path.startswith(("cubes/", "units/"))}


def scene(daemon: Daemon, hosts: list[Host], folder: Path) -> None:
    """A bridge between two hosts, the service on one of its ports."""
    daemon.post("services", {"name": "tally", "uri": str(folder)})
    ports = [{"name": f"p{number}", "peer": host.netdev} for number, host in enumerate(hosts)]
    daemon.post("simplebridge/br1", {"ports": ports})
    daemon.post("tally/t1", {})
    daemon.post("attach", {"cube": "t1", "port": "br1:p0"})


def test_a_saved_file_takes_effect_under_traffic_and_tables_are_kept(daemon: Daemon, hosts: list[Host], folder: Path) -> None:
    scene(daemon, hosts, folder)
    with hosts[0].pinging(hosts[1]) as pinging:
        pinging.answers()
        before = total(daemon)
        assert 0 < before < 1_000_000
        text = SOURCE.replace("*step)", "*step * 1000000)")
        text = text.replace(
            "MAP(steps, ARRAY", "MAP(extra, ARRAY, __u32, __u32, 1);\nMAP(steps, HASH"
        )  # a new table, and another one in its place
        (folder / "tally.bpf.c").write_text(text)
        (folder / "model.py").write_text(MODEL.replace("What a frame counts", "How much a frame counts"))
        eventually(lambda: total(daemon) > 1_000_000, "the new code to count", 20)
        pinging.answers()
    assert pinging.result.lost == 0
    help_ = daemon.rest("OPTIONS", "tally/t1?help=SET").data
    assert help_["params"]["step"]["description"] == "How much a frame counts"
    assert daemon.get("tally/t1/step") == 1
    daemon.patch("tally/t1/step", 5)  # the new control plane works
    counted = total(daemon)
    daemon.crash()
    assert total(daemon) >= counted and daemon.get("tally/t1/step") == 5
    assert hosts[0].ping(hosts[1], count=3).received == 3


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("tally.bpf.c", "pcn_pass(pkt)", "pcn_pas(pkt)", "clang refused tally.bpf.c"),
        ("tally.bpf.c", "*step)", "*(__u64 *)(unsigned long)pkt->len)", "the verifier refuses program"),
        ("cube.py", "return {}", "return {", "SyntaxError"),
        ("cube.py", "import Cube", "import Cubes", "cannot import name 'Cubes'"),
        ("model.py", "step: int", "stride: int", "the configuration of t1 does not fit its model"),
        ("cube.py", 'self.maps["steps"]', 'self.maps["stairs"]', "stairs"),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    daemon: Daemon, hosts: list[Host], folder: Path, file: str, old: str, new: str, sentence: str
) -> None:
    scene(daemon, hosts, folder)
    daemon.patch("tally/t1/step", 3)
    pins = lasting(daemon)
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    answer = daemon.rest("POST", "services/tally/reload")
    assert (not answer.ok and answer.status < 500) or "stairs" in answer.text
    assert sentence in answer.text
    assert lasting(daemon) == pins and daemon.get("tally/t1/step") == 3
    counted = total(daemon)
    assert hosts[0].ping(hosts[1], count=3).received == 3
    assert total(daemon) > counted
    daemon.patch("tally/t1/step", 4)
    path.write_text(text)
    daemon.post("services/tally/reload")
    assert daemon.get("tally/t1/step") == 4


def test_services_are_refused_in_one_sentence(daemon: Daemon, hosts: list[Host], folder: Path) -> None:
    scene(daemon, hosts, folder)
    for body, sentence in (
        ({"name": "tally", "uri": str(folder)}, "there is one of that name"),
        ({"name": "show", "uri": str(folder)}, "a word of the grammar"),
        ({"name": "br1", "uri": str(folder)}, "its name is a cube's"),
        ({"name": "other", "uri": str(folder)}, "its folder is called tally"),
        ({"name": "other", "uri": "no/such/folder"}, "is no folder by its whole path"),
        ({"name": "other", "uri": "no.such.module:Class"}, "No module named 'no'"),
        ({"name": "other", "uri": str(folder), "type": "grpc"}, "expected lib"),
        ({"name": "other"}, "uri is missing"),
    ):
        answer = daemon.rest("POST", "services", body)
        assert answer.status == 400 and sentence in answer.text
    assert "t1 is of it" in daemon.rest("DELETE", "services/tally").text
    assert "there is none; did you mean tally" in daemon.rest("DELETE", "services/tallly").text


def test_a_service_that_ships_goes_and_comes_without_a_trace_in_its_neighbours(daemon: Daemon) -> None:
    daemon.post("simplebridge/br9", {"ports": [{"name": "p"}]})
    daemon.post("helloworld/hw", {})
    daemon.delete("hw")
    daemon.delete("services/helloworld")
    assert daemon.rest("POST", "helloworld/hw", {}).status == 404
    assert 'polycube_cubes{service="simplebridge"}' in daemon.metrics()
    daemon.post("services", {"name": "helloworld", "uri": "polycube.cubes.helloworld:Helloworld"})
    daemon.post("helloworld/hw", {"ports": [{"name": "p"}]})
    daemon.post("connect", {"peer1": "hw:p", "peer2": "br9:p"})
    daemon.post("services/simplebridge/reload")
    assert daemon.get("br9/ports/p/status") == "UP"
    daemon.delete("hw")
    daemon.delete("br9")
