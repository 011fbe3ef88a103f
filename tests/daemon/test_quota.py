# SPDX-License-Identifier: Apache-2.0
"""Limits of workers: as options say them, and the control groups that enforce them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polycube.daemon import quota
from polycube.daemon.cgroups import Cgroups, NotDelegated, own
from polycube.daemon.config import ConfigError, load


def test_a_limit_is_of_all_or_of_a_service() -> None:
    one = quota.memory("512M,router=2G,nat=infinity")
    assert (one.of("bridge"), one.of("router"), one.of("nat"), str(one)) == (512 << 20, 2 << 30, 0, "512M,router=2G,nat=infinity")
    assert quota.memory("67108864").of("x") == 64 << 20
    two = quota.processor("dynmon=20%")
    assert (two.of("dynmon"), two.of("router"), bool(two)) == (20, 0, True)
    assert not quota.processor("infinity")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("worker-memory", "512"),
        ("worker-memory", "1T"),
        ("worker-memory", ""),
        ("worker-memory", "router="),
        ("worker-memory", "=1G"),
        ("worker-memory", "1G,2G"),
        ("worker-memory", "a=1G,a=2G"),
        ("worker-memory", "-1G"),
        ("worker-cpu", "50"),
        ("worker-cpu", "0%"),
        ("worker-cpu", "1.5%"),
        ("worker-cpu", "router=50%,20"),
    ],
)
def test_what_is_no_limit_is_refused_by_its_option(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Error loading config: {option} on the command line (has|is) '"):
        load([f"--{option}={value}"], tmp_path / "none.conf")


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """A folder in place of a control group; what the kernel makes of writes does not happen."""
    root = tmp_path / "unit"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return root


def test_each_service_gets_a_group_with_its_share(group: Path) -> None:
    cgroups = Cgroups(group)
    assert (group / "polycubed" / "cgroup.procs").read_text() == "0"  # the writer
    assert (group / "cgroup.subtree_control").read_text() == "+cpu"
    cgroups.limit("router", 150)
    cgroups.enter("router", 1234)
    assert (group / "worker-router" / "cpu.max").read_text() == "150000 100000"
    assert (group / "worker-router" / "cgroup.procs").read_text() == "1234"
    assert cgroups.throttled("router") == 0
    (group / "worker-router" / "cpu.stat").write_text("usage_usec 7\nnr_throttled 2\nthrottled_usec 2500000\n")
    assert cgroups.throttled("router") == 2.5
    cgroups.close()
    assert (group / "cgroup.subtree_control").read_text() == "-cpu"
    assert (group / "cgroup.procs").read_text() == "0"


def test_a_group_that_systemd_made_below_the_unit_s_is_used(group: Path) -> None:
    (group / "polycubed").mkdir()
    Cgroups(group / "polycubed").limit("nat", 5)
    assert (group / "worker-nat" / "cpu.max").read_text() == "5000 100000"


def test_what_is_not_the_daemon_s_is_left_alone_with_a_reason(group: Path) -> None:
    (group / "cgroup.controllers").write_text("memory\n")
    with pytest.raises(NotDelegated, match=f"the cgroup {group} has no cpu controller"):
        Cgroups(group)
    (group / "cgroup.controllers").write_text("cpu\n")
    (group / "cgroup.subtree_control").mkdir()  # in place of EBUSY: other processes are in the group
    with pytest.raises(NotDelegated, match=f"the cgroup {group} is not the daemon's alone"):
        Cgroups(group)
    assert (group / "cgroup.procs").read_text() == "0"  # back again


def test_the_group_of_this_process_is_found_where_there_is_one() -> None:
    if not any(line.startswith("0::/") for line in Path("/proc/self/cgroup").read_text().splitlines()):
        pytest.skip("no cgroup2")
    try:
        found = own()
    except NotDelegated:
        pytest.skip("no cgroup2 is mounted here")
    assert str(os.getpid()) in (found / "cgroup.procs").read_text().split()
