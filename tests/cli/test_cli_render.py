# SPDX-License-Identifier: Apache-2.0
"""Answers as text: what upstream prints, kept as snapshots."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from polycube.cli.render import Paint, render

CUBE: dict[str, Any] = {
    "name": "c1",
    "uuid": "0a1b",
    "ports": [
        {
            "name": "p1",
            "uuid": "u1",
            "status": "UP",
            "peer": "veth1",
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
        },
        {"name": "port2", "uuid": "u2", "status": "DOWN", "peer": "", "addresses": []},
    ],
    "shadow": False,
    "fdb": {"aging-time": 300, "entry": [{"mac": "00:01", "age": 1.5}]},
    "tags": ["a", "b"],
    "_links": [{"rel": "self", "href": "//127.0.0.1:9000/"}],
}

NORMAL = """\
name: c1
uuid: 0a1b
shadow: false
fdb:
 aging-time: 300

 entry:
  mac    age
  00:01  1.500000

ports:
 name   uuid  status  peer   addresses
 p1     u1    UP      veth1  [2 items]
 port2  u2    DOWN           [0 items]

tags:
 a
 b
"""
BRIEF = """\
name: c1
uuid: 0a1b
shadow: false
fdb:
 aging-time: 300
 entry: [1 items]
ports: [2 items]
tags: [2 items]
"""
VERBOSE_PORTS = """\
ports:
 name   uuid  status  peer   ip (addresses)  addresses
 p1     u1    UP      veth1  10.0.0.1
                             10.0.0.2
 port2  u2    DOWN                           [0 items]
"""


def test_normal_shows_leaves_then_containers_then_lists_as_tables() -> None:
    assert render(CUBE, "normal") == render(CUBE, "") == NORMAL


def test_brief_counts_the_items_of_lists() -> None:
    assert render(CUBE, "brief") == BRIEF


def test_verbose_shows_lists_within_lists_on_rows_of_their_own() -> None:
    assert VERBOSE_PORTS in render(CUBE, "verbose")


def test_members_are_hidden_by_dotted_path() -> None:
    shown = render(CUBE, "normal", frozenset(("ports.uuid", "uuid", "fdb", "tags")))
    assert shown == (
        "name: c1\nshadow: false\n\nports:\n name   status  peer   addresses\n"
        " p1     UP      veth1  [2 items]\n port2  DOWN           [0 items]\n"
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (2, "2\n"), ("forwarding", "forwarding\n"), (True, "true\n"), (1.5, "1.500000\n"), (None, "\n"), ({}, ""),
        ([], ""), (["b", "a"], "b\na\n"), ("two\nlines", "two\nlines\n"), ("\x1b[31mred", "\\x1b[31mred\n"),
    ],
)  # fmt: skip
def test_a_leaf_is_printed_bare(data: object, text: str) -> None:
    assert render(data, "normal") == text


def test_a_list_is_a_table_and_containers_in_it_are_columns() -> None:
    rows = [{"id": 0, "match": {"src": "a", "l4": {"port": 1}}}, {"id": 10, "match": {"src": "bb"}, "extra": "x\ny"}]
    assert render(rows, "normal") == ("id  match.src  match.l4.port  extra\n0   a          1\n10  bb                        x\\ny\n")


def test_a_few_plain_values_are_shown_in_their_cell() -> None:
    rows = [{"name": "p1", "tcubes": ["th1", "th2"]}, {"name": "p2", "tcubes": []}, {"name": "p3", "tcubes": list(range(9))}]
    assert render(rows, "normal") == "name  tcubes\np1    th1,th2\np2    [0 items]\np3    [9 items]\n"


def test_tabs_in_cells_are_spaces() -> None:
    assert render(["th,\t8,\t9"], "normal") == "th, 8, 9\n"


def test_a_brief_list_shows_the_leaves_of_its_items() -> None:
    assert render([{"name": "c1", "ports": [1, 2]}, {"name": "c2"}], "brief") == "name\nc1\nc2\n"


def test_the_links_at_the_end_of_an_array_are_never_shown() -> None:
    data = [{"name": "c1"}, ["_links", [{"rel": "self"}]]]
    assert render(data, "normal") == "name\nc1\n"
    assert json.loads(render(data, "json")) == [{"name": "c1"}]


def test_json_is_indented_by_two_and_yaml_reads_back() -> None:
    data = {"b": [1, {"c": "é"}], "a": None, "mac": "10:20", "on": "yes"}
    assert render({"b": [1]}, "json") == '{\n  "b": [\n    1\n  ]\n}\n'
    text = render(data, "yaml")
    assert yaml.safe_load(text) == data and text.startswith("b:\n")
    assert render("x", "yaml") == "x\n"


def test_on_a_terminal_headers_are_bold_states_coloured_and_numbers_set_right() -> None:
    text = render([{"n": 5, "status": "UP"}, {"n": 10, "status": "DOWN"}], "normal", paint=Paint(True))
    assert text == "\033[1m n\033[0m  \033[1mstatus\033[0m\n 5  \033[32mUP\033[0m\n10  \033[31mDOWN\033[0m\n"


def test_a_status_leaf_is_coloured_on_a_terminal() -> None:
    assert render({"status": "UP"}, "normal", paint=Paint(True)) == "\033[1mstatus:\033[0m \033[32mUP\033[0m\n"


def test_ten_thousand_rows_keep_two_spaces_between_columns() -> None:
    rows = [{"id": number, "action": "DROP"} for number in range(10_000)]
    lines = render(rows, "normal").splitlines()
    assert len(lines) == 10_001 and lines[1] == "0     DROP" and lines[-1] == "9999  DROP"
