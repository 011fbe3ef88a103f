# SPDX-License-Identifier: Apache-2.0
"""The firewall's control plane without a kernel: texts of rules, places of rules, explanations, answers to what is rejected."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from polycube.cubes.firewall import explain, matching, reject
from polycube.cubes.firewall.chains import Chains, check, slots
from polycube.cubes.firewall.model import ChainName, FirewallConfig, Probe, RejectWith
from polycube.model import INSERT, Edit, ModelError, Op, edit, load, row_changes

E = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")


def config(*rules: dict[str, object], sets: tuple[dict[str, object], ...] = ()) -> FirewallConfig:
    chain = {"name": "INGRESS", "rule": [{"id": at, **rule} for at, rule in enumerate(rules)]}
    return load(FirewallConfig, {"name": "fw", "chain": [chain], "sets": list(sets)}, ())


def table_of(made: FirewallConfig):
    chains = Chains(SimpleNamespace(), 10_000)  # type: ignore[arg-type]
    table = chains.table(ChainName.INGRESS)
    table.update(chains.rules(made.chain[ChainName.INGRESS]), chains.sets(made))
    return table


@pytest.mark.parametrize(
    ("canonical", "given", "expected"),
    [
        (matching.canonical_addresses, "10.0.0.7/24, FD00::1/128", "10.0.0.0/24,fd00::1"),
        (matching.canonical_addresses, " ! @bad", "!@bad"),
        (matching.canonical_ports, 80, "80"),
        (matching.canonical_ports, "1000-1000, 22", "1000,22"),
        (matching.canonical_protocols, "6,udp", "TCP,UDP"),
        (matching.canonical_protocols, "!89", "!OSPF"),
        (matching.canonical_flags, "!ack syn", "SYN,!ACK"),
        (matching.canonical_states, "established, new", "NEW,ESTABLISHED"),
        (matching.canonical_icmp, "Echo-Request, 3/1", "echo-request,3/1"),
        (matching.canonical_ethertypes, "0x806, 35020", "ARP,LLDP"),
        (matching.canonical_vlans, "none", "NONE"),
        (matching.canonical_rate, "10/S", "10/second"),
        (matching.canonical_fragments, "later,first", "FIRST,LATER"),
    ],
)
def test_texts_have_one_form(canonical, given, expected):
    assert canonical(given) == expected == canonical(expected)


@pytest.mark.parametrize(
    ("canonical", "given"),
    [
        (matching.canonical_addresses, "10.0.0"),
        (matching.canonical_ports, "70000"),
        (matching.canonical_ports, "20-10"),
        (matching.canonical_ports, True),
        (matching.canonical_protocols, "TPC"),
        (matching.canonical_flags, "SYN,!SYN"),
        (matching.canonical_states, "OLD"),
        (matching.canonical_rate, "0/second"),
        (matching.canonical_vlans, "5000"),
        (matching.canonical_icmp, "300"),
    ],
)
def test_nonsense_is_refused(canonical, given):
    with pytest.raises(ValueError):
        canonical(given)


def test_rules_are_numbered_in_a_row():
    made = config(*({"dport": port, "action": "DROP"} for port in range(5)))
    rule = ("chain", "INGRESS", "rule")
    made = edit(made, [Edit(Op.DELETE, (*rule, "1"))])
    assert [(one.id, one.dport) for one in made.chain["INGRESS"].rule.values()] == [(0, 0), (1, 2), (2, 3), (3, 4)]
    made = edit(made, [Edit(Op.CREATE, (*rule, str(INSERT + 2)), {"dport": 9, "action": "DROP"})])
    assert [(one.id, one.dport) for one in made.chain["INGRESS"].rule.values()] == [(0, 0), (1, 2), (2, 9), (3, 3), (4, 4)]
    again = edit(made, [Edit(Op.CREATE, (*rule, "5"), {"dport": 7, "action": "DROP"})])
    assert len(row_changes(made, again)[0]) == 1


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"dport": 1}, "action not specified"),
        ({"src": "@no", "action": "DROP"}, "names a set that is not there"),
        ({"dport": 1, "icmptype": "8", "action": "DROP"}, "exclude each other"),
        ({"reject-with": "RST", "action": "DROP"}, "its action is DROP"),
    ],
)
def test_rules_without_sense_are_refused(rule, words):
    with pytest.raises(ModelError, match=words):
        check(config(rule), None)


def test_more_rules_than_allowed_are_refused():
    chain = {"name": "INGRESS", "rule": [{"id": at, "action": "DROP"} for at in range(4)]}
    with pytest.raises(ModelError, match="max-rules allows 3"):
        check(load(FirewallConfig, {"name": "fw", "max-rules": 3, "chain": [chain]}, ()), None)
    assert slots(16384) == 16384 and slots(10_000) == 16_000 and slots(1) == 64


UNREACHABLE = [
    ([{"src": "10.0.0.0/8", "action": "DROP"}, {"src": "10.1.0.0/16", "action": "ACCEPT"}], {1: "rule 0 matches all that it does"}),
    ([{"src": "10.0.0.0/8", "action": "LOG"}, {"src": "10.1.0.0/16", "action": "ACCEPT"}], {}),
    ([{"src": "10.0.0.0/8", "limit": "1/second", "action": "DROP"}, {"src": "10.1.0.0/16", "action": "ACCEPT"}], {}),
    ([{"dport": "1-100", "action": "DROP"}, {"dport": "50,60-70", "l4proto": "TCP", "action": "DROP"}], {1: "rule 0 matches"}),
    ([{"dport": "1-100", "action": "DROP"}, {"dport": "50-101", "action": "DROP"}], {}),
    ([{"l4proto": "!TCP", "action": "DROP"}, {"l4proto": "UDP", "action": "DROP"}, {"l4proto": "TCP", "action": "DROP"}], {1: "rule 0"}),
    ([{"src": "!10.0.0.1", "action": "DROP"}, {"src": "10.0.0.2", "action": "DROP"}, {"src": "fd00::1", "action": "DROP"}], {1: "rule 0"}),
    ([{"src": "10.0.0.1", "dst": "fd00::1", "action": "DROP"}], {0: "excludes each other"}),
    ([{"l4proto": "ICMP", "dport": 80, "action": "DROP"}], {0: "excludes each other"}),
    ([{"src": "@empty", "action": "DROP"}], {0: "the set empty has no such elements"}),
    ([{"action": "ACCEPT"}, {"ethertype": "ARP", "action": "DROP"}, {"l4proto": "TCP", "action": "DROP"}], {2: "rule 0"}),
    ([{"tcpflags": "SYN", "action": "DROP"}, {"tcpflags": "SYN,!ACK", "action": "DROP"}], {1: "rule 0"}),
]


@pytest.mark.parametrize(("rules", "expected"), UNREACHABLE)
def test_rules_that_never_decide_are_found(rules, expected):
    found = explain.unreachable(table_of(config(*rules, sets=({"name": "empty"},))))
    assert found.keys() == expected.keys()
    assert all(words in found[at] for at, words in expected.items())


def test_ten_thousand_rules_are_explained_and_looked_through():
    rules = [{"src": f"10.{at >> 8}.{at & 255}.0/24", "dport": f"{at}-{at + 9}", "action": "ACCEPT"} for at in range(9_998)]
    rules += [{"src": "10.3.7.9", "dport": 780, "action": "DROP"}, {"src": "10.3.7.9", "dport": 785, "action": "DROP"}]
    table = table_of(config(*rules))
    frame = explain.described(Probe(src="10.30.97.5", dst="10.0.0.2", l4proto="UDP", dport=7_780))
    assert explain.decides(table, frame, 0) == (7_777, [], [])
    assert explain.unreachable(table) == {9_998: "rule 775 matches all that it does"}


def test_an_explanation_names_the_rule_and_what_others_lack():
    table = table_of(
        config({"src": "10.0.0.0/8", "dport": 22, "action": "DROP"}, {"action": "LOG"}, {"l4proto": "TCP", "action": "ACCEPT"})
    )
    frame = explain.described(Probe(src="10.0.0.1", dst="10.0.0.2", l4proto="TCP", dport=23))
    assert explain.decides(table, frame, 0) == (2, [1], [])
    assert explain.reasons(table, table.entries[2], frame) == ["protocol TCP"]
    assert explain.near(table, frame, 2) == ["rule 0: destination port 23 is not what it asks for"]


def test_a_frame_is_the_same_in_words_and_in_bytes():
    frame = E / Dot1Q(vlan=5) / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=53)
    said = explain.described(Probe(src="fd00::1", dst="fd00::2", l4proto="UDP", sport=1, dport=53, vlan=5))
    assert explain.parsed(bytes(frame).hex()) == {**said, **{space: 0 for space in said if space.name == "FLAGS_NONE"}}
    with pytest.raises(ModelError, match="a whole frame"):
        explain.parsed(bytes(frame).hex()[:60])


def test_a_reset_is_believed_by_who_asked():
    syn = E / Dot1Q(vlan=5) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1234, dport=80, flags="S", seq=77)
    answer = Ether(reject.answer(bytes(syn), RejectWith.AUTO))
    assert (answer.src, answer.dst, answer[Dot1Q].vlan) == (E.dst, E.src, 5)
    assert (answer[IP].src, answer[IP].dst) == ("10.0.0.2", "10.0.0.1")
    assert (answer[TCP].sport, answer[TCP].dport, answer[TCP].flags, answer[TCP].ack) == (80, 1234, "RA", 78)
    rebuilt = Ether(bytes(answer))
    for layer in (IP, TCP):
        del rebuilt[layer].chksum
    assert bytes(rebuilt) == bytes(answer)
    assert reject.answer(bytes(E / IP() / TCP(flags="R")), RejectWith.AUTO) is None
    data = E / IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1, dport=2, flags="A", seq=5, ack=900)
    assert Ether(reject.answer(bytes(data), RejectWith.RST))[TCP].seq == 900


def test_others_are_told_by_icmp():
    four = Ether(reject.answer(bytes(E / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2)), RejectWith.AUTO))
    assert (four[ICMP].type, four[ICMP].code) == (3, 3)
    six = Ether(reject.answer(bytes(E / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2)), RejectWith.PROHIBITED))
    assert six[ICMPv6DestUnreach].code == 1
    assert reject.answer(bytes(E / ARP()), RejectWith.AUTO) is None
    assert reject.answer(bytes(E / IP(src="10.0.0.1", dst="224.0.0.1") / UDP()), RejectWith.AUTO) is None
    assert reject.answer(bytes(E / IP(src="10.0.0.1", dst="10.0.0.2") / UDP()), RejectWith.RST) is not None
