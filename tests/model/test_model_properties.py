# SPDX-License-Identifier: Apache-2.0
"""Edits, rows and differences agree with one another, whatever the edits are."""

import ipaddress
import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sample_models import Router

from polycube.model import Diff, Edit, IpPrefix, ModelError, Op, dump, edit, from_rows, host_address, load, row_changes, rows
from polycube.model.errors import path_text

ports = st.sampled_from(["p1", "p2", "p3"])
networks = st.sampled_from(["10.0.0.0/8", "10.1.2.3/16", "2001:db8::/32"])
hops = st.sampled_from(["10.0.0.1", "fe80::1"])
addresses = st.sampled_from(["10.0.0.1/24", "10.0.0.2/24", "::1/64"])
secondary = st.lists(addresses.map(lambda ip: {"ip": ip}), unique_by=lambda one: one["ip"], max_size=2)
port_bodies = st.fixed_dictionaries({}, optional={"ip": addresses, "peer": st.sampled_from(["", "v1", "r2:p"]), "secondaryip": secondary})
route_bodies = st.fixed_dictionaries({}, optional={"pathcost": st.integers(1, 3), "interface": ports})
ops = st.sampled_from(list(Op))
edits = st.one_of(
    st.builds(lambda op, port, body: Edit(op, ("ports", port), body), ops, ports, port_bodies),
    st.builds(lambda op, net, hop, body: Edit(op, ("route", net, hop), body), ops, networks, hops, route_bodies),
    st.builds(lambda op, port, ip: Edit(op, ("ports", port, "secondaryip", ip), {}), ops, ports, addresses),
    st.builds(lambda port, ip: Edit(Op.MERGE, ("ports", port, "ip"), ip), ports, addresses),
    st.builds(lambda span: Edit(Op.MERGE, (), {"span": span}), st.booleans()),
    st.builds(lambda name: Edit(Op.DELETE, (name,)), st.sampled_from(["ports", "route", "loglevel"])),
    st.builds(
        lambda op, net, hop, body: Edit(op, ("route",), [{"network": net, "nexthop": hop, **body}]),
        st.sampled_from([Op.CREATE, Op.REPLACE, Op.MERGE]),
        networks,
        hops,
        route_bodies,
    ),
)


def apply(config, sequence):
    for one in sequence:
        try:
            config = edit(config, [one])
        except ModelError as error:
            assert str(error) and error.status in (400, 405, 409)
    return config


START = load(Router, {"name": "r1", "ports": [{"name": "p1"}]})
configs = st.lists(edits, max_size=12).map(lambda sequence: apply(START, sequence))


@given(configs)
def test_rows_give_back_the_configuration_in_any_order(config):
    stored = rows(config)
    assert from_rows(Router, stored) == config
    assert from_rows(Router, dict(reversed(stored.items()))) == config
    assert all(isinstance(json.loads(text), dict) for text in stored.values())


@given(configs)
def test_a_dump_loads_as_the_same_configuration(config):
    assert load(Router, dump(config)) == config


@given(configs, st.lists(edits, max_size=6))
def test_row_changes_lead_from_one_configuration_to_the_other(old, sequence):
    new = apply(old, sequence)
    upserts, deletes = row_changes(old, new)
    after = {path: text for path, text in rows(old).items() if path not in deletes} | upserts
    assert after == rows(new)
    before = rows(old)
    assert all(before.get(path) != text for path, text in upserts.items()) and set(deletes) <= set(before)
    assert row_changes(None, new) == (rows(new), [])
    assert sorted(row_changes(old, None)[1]) == sorted(before)


@given(configs, st.lists(edits, max_size=6))
def test_a_difference_replayed_on_the_old_lists_gives_the_new_ones(old, sequence):
    new = apply(old, sequence)
    change = Diff(old, new)
    assert bool(change) == (old != new)
    for name in ("ports", "route"):
        elements = dict(getattr(old, name))
        for gone in change.removed(name):
            del elements[key_of(gone)]
        for came in change.added(name):
            assert key_of(came) not in elements
            elements[key_of(came)] = came
        for was, now in change.changed(name):
            assert elements[key_of(was)] == was != now
            elements[key_of(now)] = now
        assert elements == dict(getattr(new, name))
    assert bool(change.changed("span")) == (old.span != new.span)


@given(configs, edits)
def test_an_edit_never_touches_the_old_configuration_and_is_idempotent_for_replace_and_merge(config, one):
    before = dump(config)
    new = apply(config, [one])
    assert dump(config) == before
    if one.op in (Op.REPLACE, Op.MERGE):
        assert apply(new, [one]) is new
    for key, element in config.ports.items():
        if new.ports.get(key) == element:
            assert new.ports[key] is element


def key_of(element):
    from polycube.model import key_of

    return key_of(element)


words = st.sampled_from([0, 0, 1, 0xA, 0xFFFF]) | st.integers(0, 0xFFFF)
sixteens = st.lists(words, min_size=8, max_size=8).map(lambda parts: sum(part << 16 * at for at, part in enumerate(parts)))


@given(
    st.one_of(st.tuples(st.just(4), st.integers(0, 2**32 - 1), st.integers(0, 32)), st.tuples(st.just(6), sixteens, st.integers(0, 128)))
)
def test_addresses_and_prefixes_are_those_of_the_standard_library(given_one):
    version, number, length = given_one
    network = (ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network)((number, length), strict=False)
    address = (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(number)
    for theirs, ours in ((network, TypeAdapter(IpPrefix).validate_python(str(network))), (address, host_address(str(address)))):
        assert ours == theirs and theirs == ours
        assert (str(ours), hash(ours), int(getattr(ours, "prefixlen", 0))) == (
            str(theirs),
            hash(theirs),
            int(getattr(theirs, "prefixlen", 0)),
        )
    assert path_text([str(network), str(address)]) == f"{quote(str(network), safe=':')}/{quote(str(address), safe=':')}"
