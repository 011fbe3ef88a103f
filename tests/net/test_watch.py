# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import pytest
from netlab import sh

from polycube.net import addr, netns
from polycube.net.event import (
    AddressAdded,
    AddressRemoved,
    Event,
    LinkAdded,
    LinkChanged,
    LinkRemoved,
    NeighbourChanged,
    NextHop,
    Resync,
    RouteAdded,
    RouteRemoved,
)
from polycube.net.links import Links
from polycube.net.watch import Watcher
from polycube.testing.hosts import eventually

pytestmark = pytest.mark.anyio
Make = Callable[[], netns.Namespace]


@pytest.fixture
async def links(namespace: Make) -> AsyncIterator[Links]:
    async with Links(namespace()) as opened:
        yield opened


@pytest.fixture
async def watcher(links: Links) -> AsyncIterator[Watcher]:
    async with Watcher(links.where) as opened:
        yield opened


async def until(watcher: Watcher, last: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first one that fits."""
    seen: list[Event] = []
    async with asyncio.timeout(10):
        async for event in watcher:
            seen.append(event)
            if last(event):
                return seen
    raise AssertionError(seen)


async def test_netdevs_come_change_and_go(links: Links, watcher: Watcher) -> None:
    made = await links.create_veth("wva", "wvb")
    events = await until(watcher, lambda e: isinstance(e, LinkAdded) and e.netdev.name == "wva")
    assert LinkAdded(made) in events
    await links.set_up("wva")
    changed = (await until(watcher, lambda e: isinstance(e, LinkChanged) and e.netdev.up))[-1]
    assert isinstance(changed, LinkChanged) and not changed.old.up and not changed.renamed
    await links.delete("wva")
    gone = (await until(watcher, lambda e: isinstance(e, LinkRemoved) and e.netdev.name == "wva"))[-1]
    assert isinstance(gone, LinkRemoved) and not gone.moved


async def test_a_renamed_netdev_changes(links: Links, watcher: Watcher) -> None:
    await links.create_veth("wva", "wvb")
    await links.rename("wva", "wvc")
    event = (await until(watcher, lambda e: isinstance(e, LinkChanged) and e.renamed))[-1]
    assert isinstance(event, LinkChanged) and (event.old.name, event.netdev.name) == ("wva", "wvc")


async def test_a_netdev_that_moves_away_says_where_to(links: Links, watcher: Watcher, namespace: Make) -> None:
    there = namespace()
    near = await links.create_veth("wva", "wvb")
    async with Watcher(there) as other:
        await links.move("wvb", there)
        event = (await until(watcher, lambda e: isinstance(e, LinkRemoved)))[-1]
        assert isinstance(event, LinkRemoved) and event.moved and event.netnsid is not None
        netnsid = event.netnsid
        assert links.where is not None
        found = await netns.call_in(links.where, lambda: netns.peer_namespace(netnsid))
        assert found is not None and found.inode == there.inode
        found.close()
        added = (await until(other, lambda e: isinstance(e, LinkAdded)))[-1]
        assert isinstance(added, LinkAdded)
        assert (added.netdev.name, added.netdev.ifindex) == ("wvb", event.ifindex)
        await until(watcher, lambda e: isinstance(e, LinkChanged) and e.netdev.peer_netnsid == netnsid)
        assert watcher.netdevs[near.ifindex].peer_ifindex == event.ifindex


async def test_an_end_that_comes_back_is_the_peer_again(links: Links, namespace: Make) -> None:
    there = namespace()
    near = await links.create_veth("wva", "wvb", where=there)
    async with Watcher(links.where) as watcher, Links(there) as inside:
        assert links.where is not None
        await inside.move("wvb", links.where)
        await until(watcher, lambda e: isinstance(e, LinkAdded))
        await until(watcher, lambda e: isinstance(e, LinkChanged) and e.netdev.peer_netnsid is None)
        assert watcher.netdevs[near.ifindex] == await links.get("wva")


async def test_a_port_leaving_a_bridge_is_no_netdev_removed(links: Links, watcher: Watcher) -> None:
    await links.create("wbr", "bridge")
    await links.create_veth("wva", "wvb")
    await links.set_master("wva", "wbr")
    await links.set_master("wva", None)
    await links.set_mtu("wva", 1300)
    events = await until(watcher, lambda e: isinstance(e, LinkChanged) and e.netdev.mtu == 1300)
    assert not [event for event in events if isinstance(event, LinkRemoved)]
    assert any(e.netdev.master for e in events if isinstance(e, LinkChanged))


async def test_addresses_routes_and_neighbours_show(links: Links, watcher: Watcher) -> None:
    near = await links.create_veth("wva", "wvb")
    await links.set_up("wva")
    await links.set_up("wvb")
    address = addr.parse_interface("10.5.0.1/24")
    await links.add_address("wva", address)
    await until(watcher, lambda e: e == AddressAdded(near.ifindex, address))
    assert address in watcher.netdevs[near.ifindex].addresses
    assert isinstance(links.where, netns.Namespace)
    name = links.where.path.rsplit("/", 1)[1]
    sh(
        f"ip -n {name} route add 10.6.0.0/16 via 10.5.0.2 metric 7",
        f"ip -n {name} route add 10.7.0.0/16 nexthop via 10.5.0.2 weight 2 nexthop via 10.5.0.3",
        f"ip -n {name} neigh replace 10.5.0.2 lladdr 02:00:00:00:00:07 dev wva",
        f"ip -n {name} neigh del 10.5.0.2 dev wva",
        f"ip -n {name} route del 10.6.0.0/16",
    )
    await links.del_address("wva", address)
    events = await until(watcher, lambda e: e == AddressRemoved(near.ifindex, address))
    routes = {str(e.route.destination): e.route for e in events if isinstance(e, RouteAdded)}
    assert routes["10.6.0.0/16"].hops == (NextHop(near.ifindex, ip_address("10.5.0.2")),)
    assert (routes["10.6.0.0/16"].priority, routes["10.6.0.0/16"].table) == (7, 254)
    assert [hop.weight for hop in routes["10.7.0.0/16"].hops] == [2, 1]
    assert "10.6.0.0/16" in {str(e.route.destination) for e in events if isinstance(e, RouteRemoved)}
    known = [e for e in events if isinstance(e, NeighbourChanged) and e.address == ip_address("10.5.0.2")]
    assert (str(known[0].mac), known[0].usable) == ("02:00:00:00:00:07", True)
    assert known[-1].removed and not known[-1].usable
    assert watcher.netdevs[near.ifindex].addresses == tuple(one for one in watcher.netdevs[near.ifindex].addresses if one.version == 6)


async def test_a_default_route_and_one_of_ipv6_show(links: Links, watcher: Watcher) -> None:
    near = await links.create_veth("wva", "wvb")
    await links.set_up("wva")
    await links.set_up("wvb")
    await links.add_address("wva", addr.parse_interface("10.5.0.1/24"))
    await links.add_address("wva", addr.parse_interface("2001:db8::1/64"))
    assert isinstance(links.where, netns.Namespace)
    name = links.where.path.rsplit("/", 1)[1]
    sh(f"ip -n {name} route add default via 10.5.0.2", f"ip -n {name} route add default via 2001:db8::2")
    events = await until(watcher, lambda e: isinstance(e, RouteAdded) and str(e.route.destination) == "::/0")
    routes = {str(e.route.destination): e.route for e in events if isinstance(e, RouteAdded)}
    assert routes["0.0.0.0/0"].hops == (NextHop(near.ifindex, ip_address("10.5.0.2")),)
    assert routes["::/0"].hops == (NextHop(near.ifindex, ip_address("2001:db8::2")),)


async def test_a_reader_too_slow_gets_a_resync_and_the_netdevs_of_now(links: Links) -> None:
    async with Watcher(links.where, buffer=4096) as watcher:
        near = await links.create_veth("wva", "wvb")
        for mtu in range(1300, 1400):
            await links.set_mtu("wva", mtu)
        seen = await until(watcher, lambda e: isinstance(e, Resync))
        resync = seen[-1]
        assert isinstance(resync, Resync)
        assert {dev.name: dev.mtu for dev in resync.netdevs}["wva"] == 1399
        await links.set_mtu("wva", 1500)
        after = (await until(watcher, lambda e: isinstance(e, LinkChanged)))[-1]
        assert isinstance(after, LinkChanged) and (after.netdev.ifindex, after.netdev.mtu) == (near.ifindex, 1500)


async def test_what_is_there_at_the_start_is_no_event_but_in_the_table(links: Links) -> None:
    near = await links.create_veth("wva", "wvb")
    watcher = Watcher(links.where)
    reader = asyncio.create_task(until(watcher, lambda e: True))
    await asyncio.to_thread(eventually, lambda: near.ifindex in watcher.netdevs, "the table to be there")
    await links.set_mtu("wva", 1400)
    assert isinstance((await reader)[0], LinkChanged)
    assert near.ifindex in watcher.netdevs
    await watcher.close()


async def test_closing_ends_the_loop_of_a_waiting_reader(watcher: Watcher) -> None:
    async def read() -> int:
        return len([event async for event in watcher])

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.02)
    await watcher.close()
    assert await asyncio.wait_for(reader, 10) == 0
