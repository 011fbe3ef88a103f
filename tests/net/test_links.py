# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from netlab import sh

from polycube.net import addr, netns
from polycube.net.addr import Mac
from polycube.net.errors import NoSuchNetdev, Refused
from polycube.net.links import Links
from polycube.net.netdev import Xdp

pytestmark = pytest.mark.anyio
Make = Callable[[], netns.Namespace]


@pytest.fixture
async def links() -> AsyncIterator[Links]:
    async with Links() as opened:
        yield opened
        for name in ("lva", "lvc"):
            with suppress(NoSuchNetdev):  # it goes by itself with the namespace of its other end, at any moment
                await opened.delete(name)


async def test_a_veth_pair_knows_its_other_end(links: Links) -> None:
    near = await links.create_veth("lva", "lvb", mtu=1400, mac=Mac.parse("02:00:00:00:00:0a"))
    far = await links.get("lvb")
    assert (near.kind, near.mtu, str(near.mac)) == ("veth", 1400, "02:00:00:00:00:0a")
    assert (near.peer_ifindex, near.peer_netnsid) == (far.ifindex, None)
    assert far.peer_ifindex == near.ifindex
    assert not near.up and not near.running and near.xdp is None


async def test_an_end_in_another_namespace_has_that_namespaces_number(links: Links, namespace: Make) -> None:
    there = namespace()
    near = await links.create_veth("lva", "lvb", where=there)
    async with Links(there) as inside:
        far = await inside.get("lvb")
    assert near.peer_ifindex == far.ifindex
    assert near.peer_netnsid is not None
    found = netns.peer_namespace(near.peer_netnsid)
    assert found is not None and found.inode == there.inode
    found.close()


async def test_a_veth_runs_when_both_ends_are_up(links: Links) -> None:
    await links.create_veth("lva", "lvb")
    await links.set_up("lva")
    half = await links.get("lva")
    await links.set_up("lvb")
    whole = await links.get("lva")
    assert (half.up, half.running, whole.up, whole.running) == (True, False, True, True)
    await links.set_up("lva", False)
    assert not (await links.get("lva")).up


async def test_name_mtu_and_mac_can_be_changed(links: Links) -> None:
    near = await links.create_veth("lva", "lvb")
    await links.rename(near.ifindex, "lvc")
    await links.set_mtu("lvc", 9000)
    await links.set_mac("lvc", Mac.parse("02:00:00:00:00:77"))
    changed = await links.get(near.ifindex)
    assert (changed.name, changed.mtu, changed.mac.value) == ("lvc", 9000, 0x020000000077)


async def test_addresses_come_and_go(links: Links) -> None:
    await links.create_veth("lva", "lvb")
    v4, v6 = addr.parse_interface("10.3.2.1/24"), addr.parse_interface("2001:db8::1/64")
    await links.add_address("lva", v4)
    await links.add_address("lva", v6)
    assert set(await links.addresses("lva")) == {v4, v6} == set((await links.get("lva")).addresses)
    assert next(dev for dev in await links.list() if dev.name == "lva").addresses
    await links.del_address("lva", v4)
    assert await links.addresses("lva") == (v6,)
    with pytest.raises(Refused, match="add the address 2001:db8::1/64 to lva: "):
        await links.add_address("lva", v6)


async def test_a_netdev_without_ipv6_has_no_link_local_address(links: Links, namespace: Make) -> None:
    there = namespace()
    await links.create_veth("lva", "lvb", where=there)
    async with Links(there) as inside:
        await links.disable_ipv6("lva")
        await inside.disable_ipv6("lvb")
        await links.set_up("lva")
        await inside.set_up("lvb")
        assert await links.addresses("lva") == () == await inside.addresses("lvb")
    sh("grep -x 1 /proc/sys/net/ipv6/conf/lva/disable_ipv6")


async def test_a_netdev_can_move_to_another_namespace(links: Links, namespace: Make) -> None:
    there = namespace()
    await links.create_veth("lva", "lvb")
    await links.move("lvb", there)
    assert await links.find("lvb") is None
    assert (await links.get("lva")).peer_netnsid is not None
    async with Links(there) as inside:
        assert (await inside.get("lvb")).kind == "veth"


async def test_a_netdev_can_be_a_port_of_a_bridge(links: Links) -> None:
    bridge = await links.create("lvc", "bridge")
    await links.create_veth("lva", "lvb")
    await links.set_master("lva", "lvc")
    assert (bridge.kind, (await links.get("lva")).master) == ("bridge", bridge.ifindex)
    await links.set_master("lva", None)
    assert (await links.get("lva")).master is None


async def test_an_xdp_program_shows(links: Links, program: Callable[..., Path]) -> None:
    await links.create_veth("lva", "lvb")
    for name, hook in (("lva", "xdpdrv"), ("lvb", "xdpgeneric")):
        sh(f"ip link set dev {name} {hook} obj {program()} sec xdp_pass")
    native, generic = (await links.get("lva")).xdp, (await links.get("lvb")).xdp
    assert isinstance(native, Xdp) and isinstance(generic, Xdp)
    assert (native.mode, generic.mode) == ("native", "generic")
    assert native.prog_id > 0


async def test_the_loopback_is_known_as_one(links: Links) -> None:
    lo = await links.get("lo")
    assert lo.loopback and lo.kind == "" and lo.mac == Mac.ZERO


async def test_what_is_not_there_is_named(links: Links) -> None:
    assert await links.find("nothere") is None
    for attempt in (links.get("nothere"), links.delete("nothere"), links.set_up("nothere")):
        with pytest.raises(NoSuchNetdev, match="there is no netdev nothere"):
            await attempt
    with pytest.raises(NoSuchNetdev, match="with ifindex 99999"):
        await links.set_mtu(99999, 1500)


async def test_a_refusal_says_what_was_tried_and_why(links: Links) -> None:
    await links.create_veth("lva", "lvb")
    with pytest.raises(Refused, match="cannot create the veth pair lva, lvc: File exists"):
        await links.create_veth("lva", "lvc")
    with pytest.raises(Refused, match="cannot set the MTU of lva to 10000000: "):
        await links.set_mtu("lva", 10_000_000)


async def test_requests_at_the_same_time_do_not_mix(links: Links) -> None:
    await links.create_veth("lva", "lvb")
    names = ["lo", "lva", "lvb"] * 10
    found = await asyncio.gather(*(links.get(name) for name in names), *(links.list() for _ in range(5)))
    assert [dev.name for dev in found[:30]] == names  # type: ignore[union-attr]


async def test_closing_twice_does_no_harm() -> None:
    links = await Links().open()
    await links.close()
    await links.close()
