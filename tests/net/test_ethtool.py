# SPDX-License-Identifier: Apache-2.0
import subprocess
from collections.abc import Callable

import pytest
from netlab import sh

from polycube.net import ethtool, netns
from polycube.net.errors import NoSuchNetdev


def shown(name: str, feature: str) -> str:
    lines = subprocess.run(["ethtool", "-k", name], capture_output=True, text=True, check=True).stdout.splitlines()
    return next(line.split(": ")[1] for line in lines if line.strip().startswith(feature + ":"))


def test_offloads_are_those_that_ethtool_shows(veth: tuple[str, str]) -> None:
    found = ethtool.get("tva")
    assert found.gro == (shown("tva", "generic-receive-offload") == "on")
    assert found.tx_checksum == (shown("tva", "tx-checksum-ip-generic") == "on")
    assert found.txvlan == (shown("tva", "tx-vlan-offload") == "on")
    assert found.tx_checksum and found.tso and not found.gro


def test_what_changed_is_returned_and_undoes_the_change(veth: tuple[str, str]) -> None:
    before = ethtool.get("tva")
    changed = ethtool.set("tva", gro=True, tx_checksum=False, tx_checksum_sctp=False, txvlan=False, rxvlan=True)
    assert changed == {"gro": False, "tx_checksum": True, "tx_checksum_sctp": True, "txvlan": True}
    after = ethtool.get("tva")
    assert (after.gro, after.tx_checksum, after.tx_checksum_sctp, after.txvlan) == (True, False, False, False)
    assert not after.tso  # follows the checksum, and comes back with it
    assert shown("tva", "tx-checksum-ip-generic") == "off"
    ethtool.set("tva", **changed)
    assert ethtool.get("tva") == before


def test_offloads_of_another_namespace_are_reached_from_inside(namespace: Callable[[], netns.Namespace]) -> None:
    there = namespace()
    name = there.path.rsplit("/", 1)[1]
    sh(f"ip -n {name} link add only type veth peer other")
    assert netns.run_in(there, lambda: ethtool.set("only", gro=True)) == {"gro": False}
    assert netns.run_in(there, lambda: ethtool.get("only")).gro
    with pytest.raises(NoSuchNetdev, match="there is no netdev only"):
        ethtool.get("only")


def test_what_a_netdev_cannot_do_is_left_alone() -> None:
    fixed = {name: feature for name, feature in ethtool.features("lo").items() if not feature.changeable}
    assert ethtool.TX_CHECKSUM in fixed
    assert ethtool.set_features("lo", {ethtool.TX_CHECKSUM: False, "tx-nonsense": True}) == {}


def test_an_offload_of_an_unknown_name_is_refused(veth: tuple[str, str]) -> None:
    with pytest.raises(TypeError, match="no offload is called lro; there are gro, tx_checksum"):
        ethtool.set("tva", lro=True)
