# SPDX-License-Identifier: Apache-2.0
"""What the kernel can do, and what it is told not to."""

import json
import os
import re
import subprocess
import sys

import pytest

from polycube.bpf import features, probe


def probed(disable: str) -> dict[str, bool]:
    code = "import dataclasses, json; from polycube.bpf import features; print(json.dumps(dataclasses.asdict(features())))"
    environment = os.environ | {"POLYCUBE_DISABLE_FEATURES": disable, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, bool] = json.loads(run.stdout)
    return found


def test_features_are_switched_off_by_the_environment() -> None:
    everything = probed("")
    assert everything["ringbuf"]
    assert probed("tcx, bpf_loop") == everything | {"tcx": False, "bpf_loop": False}
    assert probed("no_such_feature") == everything


def test_missing_features_are_listed_by_name() -> None:
    assert features().missing() == [name for name, value in vars(features()).items() if not value]
    assert probe.Features(False, True, True, True, True, False).missing() == ["tcx", "devmap_hash"]


def test_the_kernel_here_is_seen_as_it_is() -> None:
    command = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"]
    header = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert features().tcx == ("BPF_TCX_INGRESS" in header)
    numbers = {name: int(number) for name, number in re.findall(r"BPF_FUNC_(\w+) = (\d+)", header)}
    assert numbers["loop"] == probe._HELPER_LOOP
    assert numbers["redirect_peer"] == probe._HELPER_REDIRECT_PEER
    assert numbers["xdp_load_bytes"] == probe._HELPER_XDP_LOAD_BYTES


@pytest.mark.parametrize(("code", "expected"), [(-19, True), (-22, False), (-9, False)])
def test_tcx_is_only_there_if_the_kernel_looks_for_the_netdev(monkeypatch: pytest.MonkeyPatch, code: int, expected: bool) -> None:
    from polycube.bpf import link

    real = link.lib

    class Older:
        def __getattr__(self, name: str) -> object:
            return (lambda *_: code) if name == "bpf_link_create" else getattr(real, name)

    monkeypatch.setattr(link, "lib", Older())
    assert link.has_tcx.__wrapped__() is expected
