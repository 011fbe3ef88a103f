# SPDX-License-Identifier: Apache-2.0
"""Arguments become method, path and body: the whole of upstream's grammar as a table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polycube.cli.errors import SyntaxProblem
from polycube.cli.grammar import Request, build, expand, is_number, parse, scalar, takes_stdin


def request(line: str, **options: Any) -> Request:
    return build(expand(parse(line.split())), **options)


NONE = "no body"


@pytest.mark.parametrize(
    ("line", "method", "path", "body"),
    [
        # the command may stand anywhere in the path
        ("hw0 del", "DELETE", "hw0/", NONE),
        ("del hw0", "DELETE", "hw0/", NONE),
        ("svc hw0 del ports port1", "DELETE", "svc/hw0/ports/port1/", NONE),
        ("add svc fw1", "POST", "svc/fw1/", {}),
        ("svc add fw1", "POST", "svc/fw1/", {}),
        ("fw1 chain X show rule 0", "GET", "fw1/chain/X/rule/0/", NONE),
        ("fw1 chain X rule 0 add action=DROP", "POST", "fw1/chain/X/rule/0/", {"action": "DROP"}),
        ("show", "GET", "", NONE),
        # bodies
        ("r1 ports add p1 ip=10.0.0.1/24 peer=veth1", "POST", "r1/ports/p1/", {"ip": "10.0.0.1/24", "peer": "veth1"}),
        ("s add c a.b.c=1 a.b.d=x", "POST", "s/c/", {"a": {"b": {"c": 1, "d": "x"}}}),
        ("s add c a=7 b=1e3 c=true d=F e=007 f=-5 g=x g2=", "POST", "s/c/",
         {"a": 7, "b": 1000.0, "c": True, "d": False, "e": 7, "f": -5, "g": "x", "g2": ""}),
        ('s add c name="007"', "POST", "s/c/", {"name": "007"}),
        # a set with one value is a bare-value PATCH of the leaf, with several a PATCH of the container
        ("r1 set loglevel=DEBUG", "PATCH", "r1/loglevel/", "DEBUG"),
        ("r1 ports p1 set peer=", "PATCH", "r1/ports/p1/peer/", ""),
        ('r1 ports p1 set peer=""', "PATCH", "r1/ports/p1/peer/", ""),
        ("b1 set fdb.aging-time=30", "PATCH", "b1/fdb/aging-time/", 30),
        ("b1 set on=true", "PATCH", "b1/on/", True),
        ("r1 set a=1 b=2", "PATCH", "r1/", {"a": 1, "b": 2}),
        # a path without a command is an action
        ("fw chain IN append src=10.0.0.0/8 action=DROP", "POST", "fw/chain/IN/append/",
         {"src": "10.0.0.0/8", "action": "DROP"}),
        ("fw chain IN reset-counters", "POST", "fw/chain/IN/reset-counters/", {}),
        # elements are percent-encoded
        ("r1 route show 10.0.0.0/24 192.168.0.1", "GET", "r1/route/10.0.0.0%2F24/192.168.0.1/", NONE),
        ("r1 arp show a%b?", "GET", "r1/arp/a%25b%3F/", NONE),
        ("c show é", "GET", "c/%C3%A9/", NONE),
        # a negative number is a path element, not a flag
        ("fw rule del -1", "DELETE", "fw/rule/-1/", NONE),
        # built-in words
        ("cubes", "GET", "cubes/", NONE),
        ("cubes show", "GET", "cubes/", NONE),
        ("cubes add", "POST", "cubes/", {}),
        ("netdevs", "GET", "netdevs/", NONE),
        ("netdevs show veth1", "GET", "netdevs/veth1/", NONE),
        ("topology", "GET", "topology/", NONE),
        ("topology show veth1", "GET", "topology/veth1/", NONE),
        ("version", "GET", "version/", NONE),
        ("version show", "GET", "version/", NONE),
        ("connect br1:p1 veth1", "POST", "connect/", {"peer1": "br1:p1", "peer2": "veth1"}),
        ("connect 1 2", "POST", "connect/", {"peer1": "1", "peer2": "2"}),
        ("disconnect a b", "POST", "disconnect/", {"peer1": "a", "peer2": "b"}),
        ("attach fw1 r1:p1", "POST", "attach/", {"cube": "fw1", "port": "r1:p1"}),
        ("attach fw1 r1:p1 position=first", "POST", "attach/", {"cube": "fw1", "port": "r1:p1", "position": "first"}),
        ("attach fw1 veth1 before=x", "POST", "attach/", {"cube": "fw1", "port": "veth1", "before": "x"}),
        ("detach fw1 r1:p1", "POST", "detach/", {"cube": "fw1", "port": "r1:p1"}),
        ("services", "GET", "services/", NONE),
        ("services show s", "GET", "services/s/", NONE),
        ("services add type=lib uri=m:C name=s", "POST", "services/", {"type": "lib", "uri": "m:C", "name": "s"}),
        ("services del s", "DELETE", "services/s/", NONE),
        # help
        ("", "OPTIONS", "?help=NONE", NONE),
        ("-h", "OPTIONS", "?help=NONE", NONE),
        ("--help", "OPTIONS", "?help=NONE", NONE),
        ("r1 ?", "OPTIONS", "r1?help=NONE", NONE),
        ("r1 ports add ?", "OPTIONS", "r1/ports?help=ADD", NONE),
        ("r1 ports add p1 a=b ?", "OPTIONS", "r1/ports/p1?help=ADD", NONE),
        ("r1 set ?", "OPTIONS", "r1?help=SET", NONE),
        ("r1 show ?", "OPTIONS", "r1?help=SHOW", NONE),
        ("r1 route del ?", "OPTIONS", "r1/route?help=DEL", NONE),
        # dry run
        ("s add c -dry-run", "POST", "s/c/?dry-run=true", {}),
        ("-dry-run del c", "DELETE", "c/?dry-run=true", NONE),
        ("c set loglevel=DEBUG -dry-run", "PATCH", "c/loglevel/?dry-run=true", "DEBUG"),
        ("connect a b -dry-run", "POST", "connect/?dry-run=true", {"peer1": "a", "peer2": "b"}),
    ],
)  # fmt: skip
def test_arguments_become_a_request(line: str, method: str, path: str, body: Any) -> None:
    made = request(line)
    assert (made.method, made.path) == (method, path)
    assert (NONE if made.body is None else json.loads(made.body)) == body


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r1 add show", "Multiple commands found: show and add"),
        ("r1 a=b add", "add is not valid after a=b"),
        ("r1 add a=b c", "c is not valid after a=b"),
        ("r1 add =c", "=c is not a valid format"),
        ("r1 add a..b=c", "a..b=c is not a valid format"),
        ("r1 add a=1 a=2", "Duplicated values for a"),
        ("r1 add a=1 a.b=2", "a.b is given within a, which has a value of its own"),
        ("r1 add a.b=1 a=2", "a has a value of its own and others within it"),
        ("? r1", "'?' must be the last argument"),
        ("r1 show -json -yaml", "-yaml and -json cannot be used together"),
        ("r1 add -json", "-json can only be used with show command"),
        ("r1 -hide=a", "-hide can only be used with show command"),
        ("r1 show -hide=a -json", "-hide is not compatible with -json"),
        ("r1 show -yaml -hide=a", "-hide is not compatible with -yaml"),
        ("r1 show -hide", "-hide usage: -hide=key0,key1,key"),
        ("r1 show -hide=", "-hide usage: -hide=key0,key1,key"),
        ("r1 show -hide=a,,b", "-hide usage: -hide=key0,key1,key"),
        ("r1 -h", "-h must be the only argument"),
        ("r1 show -jsn", "-jsn is not a valid flag; did you mean -json?"),
        ("r1 show -x", "-x is not a valid flag"),
        ("r1 show -dry-run", "-dry-run can only be used with commands that change something"),
        ("connect a", "Bad syntax, usage: connect peer1 peer2"),
        ("disconnect a b c", "Bad syntax, usage: disconnect peer1 peer2"),
        ("connect del a b", "Bad syntax, usage: connect peer1 peer2"),
        ("attach a", "Bad syntax, usage: attach cube port [position=auto, first, last], [before=cube], [after=cube]"),
        ("attach a b before=x after=y", "Only one parameter is supported"),
        ("attach a b where=x", "Parameter where is not valid"),
        ("attach a b position=top", "top is not valid for position argument"),
        ("detach a", "Bad syntax, usage: detach cube port"),
        ("version x", "Bad syntax, usage: version [show]"),
        ("version ?", "There is no help for this command"),
        ("del", "del needs a path, for example: polycubectl r1 del"),
        ("r1 route del network=10.0.0.0/8", "network=... is not valid with del"),
        ("r1 show -", "- is not valid with show"),
    ],
)
def test_arguments_that_do_not_follow_the_grammar_are_refused(line: str, message: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        request(line)
    assert str(caught.value) == message


def test_an_empty_argument_is_refused_because_it_would_address_the_whole_list() -> None:
    with pytest.raises(SyntaxProblem, match="An argument is empty"):
        parse(["r1", "ports", "del", ""])


def test_an_argument_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(SyntaxProblem, match="not valid UTF-8"):
        parse(["r1", "show", "a\udcff"])


def test_standard_input_replaces_the_body_but_not_that_of_a_single_set() -> None:
    assert request("fw batch rules=", stdin=b'{"rules":[]}').body == b'{"rules":[]}'
    assert request("r1 set a=1 b=2", stdin=b"[]").body == b"[]"
    assert takes_stdin(parse(["s", "add", "c"]), True)
    assert takes_stdin(parse(["fw", "batch", "rules="]), True)
    assert not takes_stdin(parse(["r1", "set", "a=1"]), True)
    assert takes_stdin(parse(["r1", "set", "a=1", "-"]), True)
    assert not takes_stdin(expand(parse(["connect", "a", "b"])), True)
    assert not takes_stdin(parse(["r1", "show"]), True)


def test_a_single_set_patches_the_container_when_the_configuration_says_so() -> None:
    made = request("r1 set loglevel=DEBUG", single=False)
    assert (made.path, made.body) == ("r1/", b'{"loglevel": "DEBUG"}')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("+1", 1), ("18446744073709551616", 18446744073709551616), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0),
        ("1e400", "1e400"), ("inf", "inf"), ("nan", "nan"), ("1_0", "1_0"), (" 1", " 1"), ("0x10", "0x10"),
        ("e3", "e3"), ("-", "-"), (".", "."), ("١", "١"), ("t", True), ("FALSE", False), ("yes", "yes"), ('"1"', "1"), ('"', '"'),
        ('"a"b"', '"a"b"'), ("00:00:00:00:00:01", "00:00:00:00:00:01"), ("10.0.0.1", "10.0.0.1"),
    ],
)  # fmt: skip
def test_values_are_numbers_booleans_or_text(text: str, value: object) -> None:
    assert scalar(text) == value and type(scalar(text)) is type(value)


def test_a_word_with_a_dash_is_a_number_only_if_all_of_it_is() -> None:
    assert is_number("-1") and is_number("-1.5e-3")
    assert not is_number("-1a") and not is_number("-") and not is_number("-e1") and not is_number("1e")


def test_the_topology_is_verbose_without_uuids_unless_asked_otherwise() -> None:
    command = expand(parse(["topology"]))
    assert command.form == "verbose" and command.hide == {"uuid", "ports.uuid"}
    assert expand(parse(["topology", "-json"])).hide == frozenset()
    assert expand(parse(["topology", "show", "-brief"])).form == "brief"


def test_a_value_may_hold_equal_signs() -> None:
    assert parse(["cap1", "set", "filter=tcp[13] = 2"]).values == {"filter": "tcp[13] = 2"}
