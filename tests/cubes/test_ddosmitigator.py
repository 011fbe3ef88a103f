# SPDX-License-Identifier: Apache-2.0
"""Packets through ddosmitigator: blacklists, trust and expiry, rates, heavy hitters; malformed packets; against plain models."""

import ipaddress
import random
import time

import pytest
from ddosmitigator_lab import LAYER, SIZE, SLOWLY, SOURCE, TARGET, E, Mitigator, packet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether

from polycube.cubes.ddosmitigator.model import Side, block
from polycube.cubes.ddosmitigator.tables import BUCKETS, ENTRY, HITTER, Entry, now
from polycube.testing.harness import Hook
from polycube.toolkit.tokenbucket import SECOND, TICKS

TOKEN = SECOND * SLOWLY  # that one takes to come back, at one a second


@pytest.fixture(scope="module", params=["xdp", "tc"])
def made(isolated, request):
    mitigator = Mitigator(Hook(request.param))
    yield mitigator
    mitigator.close()


@pytest.fixture
def mitigator(made):
    made.reset()
    return made


@pytest.fixture(params=[4, 6])
def version(request):
    return request.param


def dropped(mitigator, side, prefix):
    return mitigator.tables.get(side, block(prefix)).dropped


# ---- blacklists ----


def test_nothing_is_dropped_by_itself(mitigator, version):
    mitigator.send(packet(SOURCE[version])).forwarded(packet=packet(SOURCE[version]))


@pytest.mark.parametrize("less", [None, 0, 1, 7, 8, 13])
def test_sources_are_dropped_and_counted(mitigator, version, less):
    """As an address, and as prefixes that are so many bits shorter."""
    prefix = SOURCE[version] + ("" if less is None else f"/{ {4: 32, 6: 128}[version] - less }")
    mitigator.configure(blacklist_src=[prefix])
    before = mitigator.stats()
    for _ in range(3):
        mitigator.send(packet(SOURCE[version], size=100)).dropped("blacklisted_source")
    assert dropped(mitigator, Side.SRC, prefix) == 3
    after = mitigator.stats()
    assert after["dropped_src"] - before["dropped_src"] == 3 and after["dropped_bytes"] - before["dropped_bytes"] == 300
    mitigator.send(packet(TARGET[version], SOURCE[version])).forwarded()


def test_destinations_are_dropped_and_counted(mitigator, version):
    mitigator.configure(blacklist_dst=[TARGET[version]])
    mitigator.send(packet(SOURCE[version])).dropped("blacklisted_destination")
    mitigator.send(packet(TARGET[version], SOURCE[version])).forwarded()
    assert dropped(mitigator, Side.DST, TARGET[version]) == 1


def test_the_way_out_is_free(mitigator, version):
    mitigator.configure(blacklist_src=[SOURCE[version]], blacklist_dst=[TARGET[version]])
    mitigator.send(packet(SOURCE[version]), direction="egress").forwarded()


def test_versions_do_not_mix(mitigator):
    """::ffff:198.51.100.7 is not 198.51.100.7, and a default route of one version says nothing of the other."""
    mitigator.configure(blacklist_src=["0.0.0.0/0"])
    mitigator.send(packet("::ffff:198.51.100.7")).forwarded()
    mitigator.configure(blacklist_src=["::/0"])
    mitigator.send(packet(SOURCE[4])).forwarded()


def test_what_is_deleted_passes_again(mitigator, version):
    mitigator.configure(blacklist_src=[SOURCE[version]])
    mitigator.send(packet(SOURCE[version])).dropped()
    mitigator.configure()
    mitigator.send(packet(SOURCE[version])).forwarded()


def test_the_longest_prefix_is_counted(mitigator, version):
    wide, narrow = {4: ("198.51.0.0/16", "198.51.100.0/24"), 6: ("2001:db8::/32", "2001:db8:ff::/48")}[version]
    mitigator.configure(blacklist_src=[wide, narrow])
    mitigator.send(packet(SOURCE[version])).dropped()
    assert (dropped(mitigator, Side.SRC, wide), dropped(mitigator, Side.SRC, narrow)) == (0, 1)


def test_trusted_prefixes_are_holes_in_blocked_ones(mitigator, version):
    wide = {4: "198.51.100.0/24", 6: "2001:db8:ff::/48"}[version]
    mitigator.configure(blacklist_src=[wide], blacklist_dst=[TARGET[version]], trusted=[SOURCE[version]])
    mitigator.send(packet(SOURCE[version])).forwarded()
    mitigator.send(packet({4: "198.51.100.8", 6: "2001:db8:ff::8"}[version])).dropped("blacklisted_source")


def test_expired_entries_do_not_count_and_shorter_ones_do(mitigator, version):
    wide, narrow = {4: ("198.51.0.0/16", "198.51.100.0/24"), 6: ("2001:db8::/32", "2001:db8:ff::/48")}[version]
    mitigator.configure(blacklist_src=[{"ip": wide}, {"ip": narrow, "timeout": 3600}, {"ip": SOURCE[version], "timeout": 3600}])
    mitigator.send(packet(SOURCE[version])).dropped()
    assert dropped(mitigator, Side.SRC, SOURCE[version]) == 1
    for expired in (SOURCE[version], narrow):
        rewrite(mitigator, Side.SRC, expired, expires=now())
    mitigator.send(packet(SOURCE[version])).dropped("blacklisted_source")
    assert dropped(mitigator, Side.SRC, wide) == 1
    rewrite(mitigator, Side.SRC, wide, expires=now())
    mitigator.send(packet(SOURCE[version])).forwarded()


def rewrite(mitigator, side, prefix, **fields):
    network = block(prefix)
    mitigator.tables[side, network.version].update({network: mitigator.tables.get(side, network)._replace(**fields).packed()})


def test_counters_survive_a_new_time_out(mitigator, version):
    mitigator.configure(blacklist_src=[SOURCE[version]])
    mitigator.send(packet(SOURCE[version])).dropped()
    mitigator.configure(blacklist_src=[{"ip": SOURCE[version], "timeout": 60}])
    mitigator.send(packet(SOURCE[version])).dropped()
    assert dropped(mitigator, Side.SRC, SOURCE[version]) == 2


PREFIXES4 = st.tuples(st.integers(0, 255), st.integers(20, 32)).map(lambda one: f"10.0.{one[0] >> 4}.{one[0] & 15}/{one[1]}")
PREFIXES6 = st.tuples(st.integers(0, 255), st.integers(110, 128)).map(lambda one: f"2001:db8::{one[0] >> 4:x}:{one[0] & 15:x}/{one[1]}")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_decides_as_a_plain_list_does(mitigator, version, data):
    """Random prefixes, some trusted, some expired: the longest one that has not expired decides."""
    prefixes = data.draw(st.lists(PREFIXES4 if version == 4 else PREFIXES6, max_size=20, unique_by=lambda one: block(one)))
    kinds = {block(one): data.draw(st.sampled_from(["block", "trust", "expired"])) for one in prefixes}
    mitigator.configure(
        blacklist_src=[{"ip": str(one), "timeout": 9999 if kind == "expired" else 0} for one, kind in kinds.items() if kind != "trust"],
        trusted=[str(one) for one, kind in kinds.items() if kind == "trust"],
    )
    for one, kind in kinds.items():
        if kind == "expired":
            rewrite(mitigator, Side.SRC, str(one), expires=1)
    for number in data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=6)):
        text = f"10.0.{number >> 4}.{number & 15}" if version == 4 else f"2001:db8::{number >> 4:x}:{number & 15:x}"
        matching = [one for one, kind in kinds.items() if kind != "expired" and ipaddress.ip_address(text) in one]
        decides = max(matching, key=lambda one: one.prefixlen, default=None)
        result = mitigator.send(packet(text))
        if decides is not None and kinds[decides] == "block":
            result.dropped("blacklisted_source")
        else:
            result.forwarded()


# ---- what is no ordinary packet ----


@pytest.mark.parametrize("tag", [Dot1Q(vlan=5), Dot1Q(vlan=5) / Dot1Q(vlan=6)])
def test_tags_are_looked_behind(mitigator, version, tag):
    mitigator.configure(blacklist_src=[SOURCE[version]])
    mitigator.send(packet(SOURCE[version], link=E / tag)).dropped("blacklisted_source")


def test_fragments_options_and_extensions_have_addresses(mitigator, version):
    mitigator.configure(blacklist_src=[SOURCE[version]])
    head = LAYER[version](src=SOURCE[version], dst=TARGET[version])
    odd = {
        4: lambda: [IP(src=SOURCE[4], dst=TARGET[4], frag=100, flags="MF") / bytes(80), IP(src=SOURCE[4], dst=TARGET[4], proto=99) / b"x"],
        6: lambda: [head / IPv6ExtHdrFragment(offset=100, m=1) / bytes(80), head / IPv6ExtHdrDestOpt() / UDP()],
    }[version]()
    for one in (*odd, head / TCP(flags="S"), head):
        mitigator.send(E / one).dropped("blacklisted_source")
    if version == 4:
        mitigator.send(E / IP(src=SOURCE[4], dst=TARGET[4], options=b"\x01" * 8) / UDP()).dropped("blacklisted_source")


@pytest.mark.parametrize(
    "other", [E / ARP(), Ether(type=0x88B5) / bytes(50), E / Dot1Q() / Dot1Q() / Dot1Q() / IP()], ids=["arp", "odd", "tags"]
)
def test_what_is_not_ip_passes(mitigator, other):
    mitigator.configure(blacklist_src=["0.0.0.0/0", "::/0"])
    mitigator.send(other).forwarded(packet=other)


def test_headers_that_are_none_are_dropped(mitigator, version):
    whole, length = bytes(packet(SOURCE[version])), {4: 20, 6: 40}[version]
    mitigator.send(whole[: 14 + length - 1]).dropped("malformed")
    mitigator.send(whole[: 14 + length]).forwarded()
    mitigator.send(whole[:14] + b"\x75" + whole[15:]).dropped("malformed")
    if version == 4:
        mitigator.send(whole[:14] + b"\x44" + whole[15:]).dropped("malformed")


def test_random_bytes_get_a_verdict_with_a_reason(mitigator):
    mitigator.configure(blacklist_src=["128.0.0.0/1", "8000::/1"])
    chance, verdicts = random.Random(3), set()
    for _ in range(300):
        frame = bytes(12) + chance.choice([b"\x08\x00", b"\x86\xdd", b"\x81\x00"]) + chance.randbytes(chance.randint(0, 90))
        if chance.random() < 0.7:
            frame = frame[:14] + {8: b"\x45", 0x86: b"\x60", 0x81: b"\x00"}[frame[12]] + frame[15:]
        result = mitigator.send(frame)
        verdicts.add(result.drops[0].reason if result.drops else result.verdict)
    assert verdicts <= {"malformed", "blacklisted_source", "forwarded"} and len(verdicts) == 3


# ---- rates ----


def limits(version, prefix="", **rates):
    return [{"ip": prefix or {4: "0.0.0.0/0", 6: "::/0"}[version], **rates}]


def passed(mitigator, frames):
    return sum(mitigator.send(one).verdict == "forwarded" for one in frames)


def test_a_prefix_shares_its_rate(mitigator, version):
    mitigator.configure(ratelimit_src=limits(version, packets=1, **{"packets-burst": 5}))
    others = [{4: f"198.51.100.{n}", 6: f"2001:db8:ff::{n}"}[version] for n in range(1, 9)]
    assert passed(mitigator, map(packet, others)) == 5
    assert dropped(mitigator, Side.SRC, limits(version)[0]["ip"]) == 3
    mitigator.send(packet(others[0])).dropped("rate_exceeded")


def test_each_address_has_a_rate(mitigator, version):
    mitigator.configure(ratelimit_src=limits(version, packets=1, scope="EACH", **{"packets-burst": 3}))
    others = [{4: f"198.51.100.{n}", 6: f"2001:db8:ff::{n}"}[version] for n in range(1, 4)]
    for other in others:
        assert passed(mitigator, [packet(other)] * 5) == 3
    assert len(mitigator.maps["buckets"]) == 3


def test_destinations_have_rates_too(mitigator, version):
    mitigator.configure(ratelimit_dst=limits(version, TARGET[version], packets=1, **{"packets-burst": 2}))
    assert passed(mitigator, [packet(SOURCE[version])] * 4) == 2
    assert passed(mitigator, [packet(TARGET[version], SOURCE[version])] * 4) == 4


def test_bytes_are_limited_and_refusals_cost_no_packets(mitigator, version):
    mitigator.configure(ratelimit_src=limits(version, packets=1, bytes=1, **{"packets-burst": 4, "bytes-burst": 250}))
    assert passed(mitigator, [packet(SOURCE[version], size=100)] * 9) == 2
    assert passed(mitigator, [packet(SOURCE[version], size=200)] * 9) == 0
    slot = mitigator.tables.get(Side.SRC, block(limits(version)[0]["ip"])).limit
    ahead = mitigator.maps["limits"][slot]["packet_bucket"]["full"] - time.clock_gettime_ns(time.CLOCK_MONOTONIC) * TICKS
    assert ahead <= 2 * TOKEN, "two of four packets were taken"


def test_the_rate_comes_back_with_time(mitigator, version):
    mitigator.configure(ratelimit_src=limits(version, packets=1, **{"packets-burst": 1}))
    mitigator.send(packet(SOURCE[version])).forwarded()
    mitigator.send(packet(SOURCE[version])).dropped("rate_exceeded")
    slot, table = mitigator.tables.get(Side.SRC, block(limits(version)[0]["ip"])).limit, mitigator.maps["limits"]
    bucket = table[slot]["packet_bucket"]
    table[slot] = table[slot] | {"packet_bucket": {"full": bucket["full"] - TOKEN}}  # as if that had passed
    mitigator.send(packet(SOURCE[version])).forwarded()


@pytest.mark.parametrize("scope", ["SHARED", "EACH"])
def test_a_new_rate_begins_with_a_full_bucket(mitigator, version, scope):
    for burst in (3, 2, 5):
        mitigator.configure(ratelimit_src=limits(version, packets=1, scope=scope, **{"packets-burst": burst}))
        assert passed(mitigator, [packet(SOURCE[version])] * 9) == burst


def test_the_longest_prefix_has_the_rate(mitigator, version):
    every = limits(version, packets=1, **{"packets-burst": 1})
    mitigator.configure(ratelimit_src=[*every, *limits(version, SOURCE[version], packets=1, **{"packets-burst": 4})])
    assert passed(mitigator, [packet(SOURCE[version])] * 9) == 4


def test_a_full_table_lets_newcomers_share_one_rate_and_known_ones_keep_theirs(mitigator, version):
    mitigator.configure(ratelimit_src=limits(version, packets=1, scope="EACH", **{"packets-burst": 2}))
    mitigator.send(packet(SOURCE[version])).forwarded()
    table = mitigator.maps["buckets"]
    for number in range(SIZE - 1):
        table[{"address": number.to_bytes(16, "big"), "limit": 9999}] = {}
    before = mitigator.stats()["unlisted"]
    newcomers = [{4: f"198.51.100.{n}", 6: f"2001:db8:ff::{n}"}[version] for n in range(100, 110)]
    assert passed(mitigator, map(packet, newcomers)) == 2
    assert mitigator.stats()["unlisted"] - before == 10
    mitigator.send(packet(SOURCE[version])).forwarded()
    mitigator.send(packet(SOURCE[version])).dropped("rate_exceeded")


# ---- heavy hitters ----


def test_a_heavy_hitter_is_blocked_and_others_are_not(mitigator, version):
    mitigator.detect(threshold=20, block_time=60)
    results = in_one_second(mitigator, lambda: [mitigator.send(packet(SOURCE[version])) for _ in range(30)])
    assert [one.verdict for one in results] == ["forwarded"] * 20 + ["dropped"] * 10
    results[-1].dropped("heavy_hitter")
    ((_, hitter),) = mitigator.maps["hitters"].items()
    assert hitter["dropped"] == 10 and hitter["rate"] == 21 and hitter["expires"] - hitter["since"] == 60
    mitigator.send(packet(TARGET[version], SOURCE[version])).forwarded()


def in_one_second(mitigator, act):
    """What `act` returns when all that it sends has come in one of the data plane's seconds."""
    while True:
        table, second = mitigator.maps["hitters"], now()
        before = list(table.packed_items())
        result = act()
        if now() == second:
            return result
        mitigator.forget_counts()
        table.clear()
        table.set_many(before)


def test_a_block_ends_by_itself(mitigator, version):
    mitigator.detect(threshold=5)
    assert in_one_second(mitigator, lambda: passed(mitigator, [packet(SOURCE[version])] * 8)) == 5
    table = mitigator.maps["hitters"]
    ((key, hitter),) = table.items()
    table[key] = hitter | {"expires": now()}
    mitigator.forget_counts()
    mitigator.send(packet(SOURCE[version])).forwarded()


def test_prefixes_can_be_counted_as_one(mitigator, version):
    mitigator.detect(threshold=8, prefix_length_ipv4=24, prefix_length_ipv6=64)
    others = [packet({4: f"198.51.100.{n}", 6: f"2001:db8:ff::{n}"}[version]) for n in range(1, 13)]
    assert in_one_second(mitigator, lambda: passed(mitigator, others)) == 8
    ((key, _),) = mitigator.maps["hitters"].items()
    assert key["in6_u"]["u6_addr8"].endswith({4: bytes([198, 51, 100, 0]), 6: bytes(8)}[version])


def test_bytes_can_be_counted(mitigator, version):
    mitigator.detect(threshold=1000, unit="BYTES")
    assert in_one_second(mitigator, lambda: passed(mitigator, [packet(SOURCE[version], size=300)] * 6)) == 3


def test_trusted_sources_are_no_heavy_hitters(mitigator, version):
    mitigator.configure(trusted=[SOURCE[version]])
    mitigator.detect(threshold=3)
    assert passed(mitigator, [packet(SOURCE[version])] * 9) == 9


def test_a_full_table_cuts_heavy_hitters_to_the_threshold(mitigator, version):
    mitigator.detect(threshold=5)
    table = mitigator.maps["hitters"]
    table.set_many((number.to_bytes(16, "big"), HITTER.pack(0, 0, 0xFFFFFFFF, 0)) for number in range(65536))

    def act():
        before = mitigator.stats()["unblocked"]
        return passed(mitigator, [packet(SOURCE[version])] * 9), mitigator.stats()["unblocked"] - before

    assert in_one_second(mitigator, act) == (5, 4)


# ---- shared with C ----


def test_layouts_are_those_of_the_data_plane(mitigator):
    entry = Entry(1, 2, 3, 1, 5)
    assert mitigator.maps["sources4"].pack({k: v for k, v in entry._asdict().items()}) == entry.packed()
    assert mitigator.maps["hitters"].pack({"dropped": 1, "rate": 2, "expires": 3, "since": 4}) == HITTER.pack(1, 2, 3, 4)
    assert mitigator.maps["buckets"].pack({"packets": {"full": 1}, "bytes": {"full": 2}}) == BUCKETS.pack(1, 2)
    assert ENTRY.size == mitigator.maps["sources6"].kernel.info.value_size
