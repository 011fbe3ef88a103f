# SPDX-License-Identifier: Apache-2.0
"""What upstream's services can be told, ours can: every list, leaf and action of its data models, with their keys, values and defaults.

A line is a place and its leaves. `[keys]` is a list, `()` an action with its input `<` and output `>`; `!` a mandatory leaf or a key,
`*` one that is settable at creation only, `^` one that can only be read. What upstream has and the line does not, all cubes have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from polycube.core.registry import installed
from polycube.model import Node
from polycube.model.schema import Kind, Member, actions, keys, members, to_wire

RULE = (
    "src:text dst:text l4proto:text sport:u16 dport:u16 tcpflags:text conntrack:NEW|ESTABLISHED|RELATED|INVALID "
    "action:DROP|LOG|ACCEPT description:text"
)
METRIC = "dynmon/dataplane-config/{0}/metric-configs[name]"
PATH = f"""
dynmon/dataplane-config/{{0}} name:text code!:text
{METRIC} name!:text map-name!:text
{METRIC}/extraction-options empty-on-read:bool=false swap-on-read:bool=false
{METRIC}/open-metrics-metadata help!:text type!:Counter|Gauge|Histogram|Summary|Untyped
{METRIC}/open-metrics-metadata/labels[name] name!:text value!:text
"""
TREES = f"""
bridge stp-enabled:bool=false mac:mac
bridge/ports[name] mac*:mac mode:access|trunk=access
bridge/ports[name]/access vlanid:u16=1
bridge/ports[name]/trunk native-vlan-enabled:bool=true native-vlan:u16=1
bridge/ports[name]/trunk/allowed[vlanid] vlanid!:u16
bridge/ports[name]/stp[vlan] vlan!:u16 state^:disabled|blocking|listening|learning|forwarding path-cost:u32=4 port-priority:u8=128
bridge/fdb aging-time:u32=300
bridge/fdb/entry[vlan,mac] vlan!:u16 mac!:mac type^:static|dynamic port!:text age^:u32
bridge/fdb/flush()
bridge/stp[vlan] vlan!:u16 priority:u16=32768 forward-delay:u32=10 hello-time:u32=2 max-message-age:u32=20
ddosmitigator/stats pps^:u64 pkts^:u64
ddosmitigator/blacklist-src[ip] ip!:text drop-pkts^:u64
ddosmitigator/blacklist-dst[ip] ip!:text drop-pkts^:u64
dynmon open-metrics^:text
dynmon/metrics/ingress-metrics[name] name^!:text value^:text timestamp^:i64
dynmon/metrics/egress-metrics[name] name^!:text value^:text timestamp^:i64
{PATH.format("ingress-path")}{PATH.format("egress-path")}
firewall conntrack:ON|OFF accept-established:ON|OFF
firewall/session-table[src,dst,l4proto,sport,dport] src^!:text dst^!:text l4proto^!:text sport^!:u16 dport^!:u16 state^:text eta^:u32
firewall/chain[name] name!:INGRESS|EGRESS|INVALID default:DROP|LOG|ACCEPT
firewall/chain[name]/stats[id] id^!:u32 pkts^:u64 bytes^:u64 {re.sub(":", "^:", RULE)}
firewall/chain[name]/rule[id] id!:u32 {RULE}
firewall/chain[name]/append()/< {RULE}
firewall/chain[name]/append()/> id:u32
firewall/chain[name]/insert()/< id:u32 {RULE}
firewall/chain[name]/insert()/> id:u32
firewall/chain[name]/delete()/< {RULE}
firewall/chain[name]/batch()/</rules[id] id!:u32 operation!:INSERT|APPEND|DELETE|UPDATE {RULE}
firewall/chain[name]/reset-counters()/> result:bool
helloworld action:DROP|SLOWPATH|FORWARD=DROP
helloworld/ports[name]
lbdsr algorithm:text
lbdsr/ports[name] type!:FRONTEND|BACKEND
lbdsr/frontend vip:ip mac:mac
lbdsr/backend/pool[id] id!:u32 mac*!:mac
lbrp port_mode:SINGLE|MULTI=SINGLE
lbrp/ports[name] type!:FRONTEND|BACKEND ip:ip
lbrp/src-ip-rewrite ip-range:net new_ip_range:net
lbrp/service[vip,vport,proto] name:text vip!:ip vport!:port proto!:ICMP|TCP|UDP|ALL
lbrp/service[vip,vport,proto]/backend[ip] name:text ip!:ip port!:port weight:u16
nat/rule/snat/entry[id] id!:u32 internal-net!:net external-ip!:ip
nat/rule/snat/append()/< internal-net!:net external-ip!:ip
nat/rule/snat/append()/> id:u32
nat/rule/masquerade enabled:bool
nat/rule/masquerade/enable()/> result:bool
nat/rule/masquerade/disable()/> result:bool
nat/rule/dnat/entry[id] id!:u32 external-ip!:ip internal-ip!:ip
nat/rule/dnat/append()/< external-ip!:ip internal-ip!:ip
nat/rule/dnat/append()/> id:u32
nat/rule/port-forwarding/entry[id] id!:u32 external-ip!:ip external-port!:port proto:text internal-ip!:ip internal-port!:port
nat/rule/port-forwarding/append()/< external-ip!:ip external-port!:port proto:text internal-ip!:ip internal-port!:port
nat/rule/port-forwarding/append()/> id:u32
nat/natting-table[internal-src,internal-dst,internal-sport,internal-dport,proto] internal-src!:ip internal-dst!:ip internal-sport!:port \
internal-dport!:port proto!:text originating-rule:snat|dnat|masquerade|portforwarding external-ip:ip external-port:port
packetcapture capture:INGRESS|EGRESS|BIDIRECTIONAL|OFF=OFF anonimize:bool=false dump:text networkmode:bool=false snaplen:u32=262144 \
filter:text
packetcapture/globalheader magic:u32 version_major:u16 version_minor:u16 thiszone:i32 sigfigs:u32 snaplen:u32 linktype:u32
packetcapture/packet capturelen:u32 packetlen:u32 timestamp-seconds:u32 timestamp-microseconds:u32 rawdata:text
pbforwarder/ports[name]
pbforwarder/rules[id] id!:u32 vlan:u32 src_mac:mac dst_mac:mac src_ip:ip dst_ip:ip l4_proto:UDP|TCP src_port:u16 dst_port:u16 \
in_port:text out_port:text action:DROP|SLOWPATH|FORWARD=DROP
router/ports[name] ip:net mac:mac
router/ports[name]/secondaryip[ip] ip!:net
router/route[network,nexthop] network!:net nexthop!:ip interface*:text pathcost:u32=1
router/arp-table[address] address!:host mac!:mac interface!:text
simplebridge/ports[name]
simplebridge/fdb aging-time:u32=300
simplebridge/fdb/entry[address] address!:mac port!:text age^:u32
simplebridge/fdb/flush()/> flushed!:bool
simpleforwarder/ports[name]
simpleforwarder/actions[inport] inport!:text action!:DROP|SLOWPATH|FORWARD outport:text
synflood/stats tcpattemptfails^:text tcpoutrsts^:text deliverratio^:text responseratio^:text lastupdate^:u64
transparenthelloworld ingress-action:DROP|PASS|SLOWPATH=PASS egress-action:DROP|PASS|SLOWPATH=PASS
"""
# What all cubes and all ports have stands once
COMMON = "type*:TC|XDP_SKB|XDP_DRV=TC loglevel:TRACE|DEBUG|INFO|WARN|ERR|CRITICAL|OFF=INFO name!:text uuid^:text service-name*:text"
STANDARD = "shadow*:bool=false span:bool=false"
PORT = "name!:text uuid^:text status^:UP|DOWN peer:text tcubes*:text"

SIZES = {"u8": (0, 255), "u16": (0, 65535), "u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "i32": (-(2**31), 2**31 - 1), "port": (0, 65535)}
SAMPLES = {
    "bool": [True, False, "true"],
    "mac": ["02:00:00:00:00:0A", "02:00:00:00:00:0a"],
    "ip": ["10.0.0.1"],
    "net": ["10.0.1.0/24", "10.0.0.1/32"],
    "host": ["10.0.0.1", "10.0.0.1/32"],
}
TEXTS = {  # what a leaf that is any text to upstream's model is really told
    "src": ["10.0.0.1", "10.0.0.0/8", "10.0.0.1/32"],
    "dst": ["10.0.0.1", "10.0.0.0/8"],
    "l4proto": ["TCP", "UDP", "ICMP", "GRE", "tcp"],
    "tcpflags": ["SYN", "!SYN", "SYN, !ACK", "FIN SYN RST PSH ACK URG ECE CWR".replace(" ", ",")],
    "proto": ["tcp", "udp", "all", "TCP"],
    "filter": ["all", "ip src 10.0.2.11", "tcp", ""],
    "dump": ["/tmp/capture"],
    "ip": ["10.0.0.1"],
    "peer": ["veth1", "br1:port2", ""],
}
# What upstream's models would let be written, and its code ignores
READ = ("nat/natting-table", "packetcapture/globalheader", "packetcapture/packet")
# Where ours takes less, in the words of the service's page
NARROWER = {
    "bridge/ports/access vlanid": "1 to 4094",
    "bridge/ports/trunk native-vlan": "1 to 4094",
    "bridge/ports/trunk/allowed vlanid": "1 to 4094",
    "bridge/ports/stp vlan": "1 to 4094",
    "bridge/ports/stp path-cost": "path-cost 1 to 200,000,000",
    "bridge/fdb aging-time": "aging-time 1 to 1,000,000",
    "bridge/fdb/entry vlan": "1 to 4094",
    "bridge/stp vlan": "1 to 4094",
    "bridge/stp forward-delay": "forward-delay 4 to 30",
    "bridge/stp hello-time": "hello-time 1 to 10",
    "bridge/stp max-message-age": "max-message-age 6 to 40",
    "lbrp/service/backend weight": "weight up to 1,000",
    "nat/rule/port-forwarding/entry external-port": "ports from 1",
    "nat/rule/port-forwarding/entry internal-port": "ports from 1",
    "nat/rule/port-forwarding/append()/< external-port": "ports from 1",
    "nat/rule/port-forwarding/append()/< internal-port": "ports from 1",
    "packetcapture snaplen": "from 16 to 262144",
    "pbforwarder/rules vlan": "up to 4095",
    "simplebridge/fdb aging-time": "aging-time 1 to 1,000,000",
}


SERVICES = installed()[0]


def table() -> Iterator[tuple[str, list[str]]]:
    for text in filter(None, TREES.replace("\\\n", "").splitlines()):
        place, *leaves = text.split()
        yield place, leaves


def find(place: str) -> tuple[type[Node] | None, tuple[str, ...] | None, bool]:
    """Our class for a place: a node, an action's input or output; the keys that upstream has; whether it is only read."""
    service, *way = place.split("/")
    here: type[Node] | None = SERVICES[service].config
    wanted: tuple[str, ...] | None = None
    action, state = None, False
    for step in way:
        name, _, listed = step.partition("[")
        wanted = tuple(listed.rstrip("]").split(",")) if listed else None
        if step in "<>":
            assert action
            here = action.input if step == "<" else action.output
        elif step.endswith("()"):
            assert here
            action, here = actions(here)[step[:-2]], None
        else:
            assert here
            member = members(here)[name]
            assert (member.kind is Kind.LIST) == bool(listed), f"{place} is a {member.kind}"
            here, state = member.child, state or member.state
    return here, wanted, state


@pytest.mark.parametrize("place", [place for place, _ in table()])
def test_every_place_is_there_with_upstream_s_keys(place: str) -> None:
    cls, wanted, _ = find(place)
    if cls is None:
        assert place.endswith("()")
    elif wanted is not None and "/<" not in place:
        assert tuple(key.name for key in keys(cls)) == wanted


@pytest.mark.parametrize(("place", "leaves"), [pytest.param(place, leaves, id=place) for place, leaves in table() if leaves])
def test_every_leaf_is_there_and_takes_what_upstream_s_takes(place: str, leaves: list[str]) -> None:
    cls, _, state = find(place)
    assert cls
    for leaf in leaves:
        agrees(place, cls, leaf, state)


@pytest.mark.parametrize("service", sorted({place.partition("/")[0] for place, _ in table()}))
def test_what_all_cubes_have_is_there(service: str) -> None:
    config = SERVICES[service].config
    for leaf in COMMON.split():
        agrees(service, config, leaf, False)
    if SERVICES[service].transparent:
        assert "parent" in members(config) and "ports" not in members(config)
        return
    for leaf in STANDARD.split():
        agrees(service, config, leaf, False)
    for leaf in PORT.split():
        agrees(f"{service}/ports", members(config)["ports"].child, leaf, False)


def agrees(place: str, cls: type[Node], leaf: str, state: bool) -> None:
    found = re.fullmatch(r"([\w-]+)([!*^]*):([^=]+)(?:=(.+))?", leaf)
    assert found, leaf
    name, marks, kind, default = found.groups()
    assert name in members(cls), f"{place} has no {name}"
    member = members(cls)[name]
    where = re.sub(r"\[.*?\]", "", place) + f" {name}"
    assert member.kind is Kind.LEAF, where
    if "^" in marks or state or place.endswith("/>"):
        return
    if member.state:
        assert place.startswith(READ), f"{where} is read-only"
        return
    assert not member.init_only or "*" in marks, f"{where} is settable at creation only"
    assert not member.mandatory or "!" in marks, f"{where} is mandatory"
    if default is not None:
        assert str(member.default).lower() == default.lower(), where
    taken(where, member, kind)


def taken(where: str, member: Member, kind: str) -> None:
    """Whether the leaf takes all values of upstream's."""
    if kind in SIZES:
        low, high = SIZES[kind]
        wide = all(accepts(member, value) for value in (low, high, str(high)))
        assert wide == (where not in NARROWER), where
    elif "|" in kind:
        for value in kind.split("|"):
            if value in ("INVALID", "LOG") and where.startswith("firewall") and "conntrack" not in where:
                continue  # upstream's list has them, its code refuses them
            for given in (value, value.swapcase()):
                assert str(to_wire(member.parse(given))).lower() == value.lower(), f"{where}: {given}"
    elif kind == "text":
        for value in TEXTS.get(member.name, ["abc"]):
            assert accepts(member, [value] if member.type and member.type.many else value), f"{where}: {value}"
    else:
        for value in SAMPLES[kind]:
            assert accepts(member, value), f"{where}: {value}"


@pytest.mark.parametrize("where", NARROWER)
def test_where_ours_takes_less_the_page_says_so(where: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "cubes" / f"{where.partition('/')[0].split()[0]}.md"
    assert NARROWER[where] in page.read_text().partition("## Differences from upstream")[2]


def accepts(member: Member, value: object) -> bool:
    try:
        member.parse(value)
    except ValueError:
        return False
    return True
