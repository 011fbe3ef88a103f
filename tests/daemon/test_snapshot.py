# SPDX-License-Identifier: Apache-2.0
"""The whole configuration as a document: what is in it, and which changes lead to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polycube.core.config import StandardCube, TransparentCube
from polycube.daemon.controller import CreateCube, DeleteCube, EditCube
from polycube.daemon.draft import Draft, Entry, Refused
from polycube.daemon.snapshot import read, restack, snapshot
from polycube.model import ModelError, Op, load


def entry(name: str, service: str = "bridge", **body: Any) -> Entry:
    transparent = service == "filter"
    config = load(TransparentCube if transparent else StandardCube, {"name": name, "service-name": service, **body})
    return Entry(name, f"uuid-{name}", 1, service, transparent, config, "tc", "", True)


STANDS = {
    "br1": entry("br1", ports=[{"name": "p1", "peer": "r1:p1", "tcubes": ["f1"]}, {"name": "p2"}], loglevel="DEBUG"),
    "f1": entry("f1", "filter"),
    "f2": entry("f2", "filter"),
}
DOCUMENT = {
    "cubes": [
        {
            "name": "br1",
            "service-name": "bridge",
            "loglevel": "DEBUG",
            "ports": [{"name": "p1", "peer": "r1:p1", "tcubes": ["f1"]}, {"name": "p2"}],
        },
        {"name": "f1", "service-name": "filter"},
        {"name": "f2", "service-name": "filter"},
    ],
    "attached": {"veth1": ["f2"]},
}


def test_a_document_holds_what_differs_from_the_defaults() -> None:
    assert snapshot(STANDS, {"veth1": ("f2",)}) == DOCUMENT


def test_a_document_of_what_stands_changes_nothing() -> None:
    wanted = read(DOCUMENT)
    changes = list(wanted.changes(STANDS))
    assert [type(one) for one in changes] == [EditCube] * 3
    assert wanted.stacks == {"veth1": ("f2",), "br1:p1": ("f1",)}


def test_cubes_come_go_and_are_made_anew() -> None:
    document = [
        {"name": "f1", "service-name": "bridge", "ports": [{"name": "p", "peer": "veth9"}]},
        {"name": "f2", "service-name": "filter", "type": "XDP_SKB"},
        {"name": "new", "service-name": "bridge"},
    ]
    changes = list(read(document).changes(STANDS))
    assert [one.name for one in changes if isinstance(one, DeleteCube)] == ["br1", "f1", "f2"]
    assert [one.name for one in changes if isinstance(one, CreateCube)] == ["f1", "f2", "new"]
    (link,) = [one for one in changes if isinstance(one, EditCube)]
    assert (link.name, link.edits[0].op, link.edits[0].value) == ("f1", Op.MERGE, "veth9")
    assert changes[-1] is link


def test_spelling_of_what_is_fixed_does_not_make_a_cube_anew() -> None:
    wanted = read([{"name": "f1", "service-name": "filter", "type": "tc"}])
    assert [type(one) for one in wanted.changes({"f1": STANDS["f1"]})] == [EditCube]


def test_stacks_are_put_anew() -> None:
    draft = Draft(STANDS, {"veth1": ("f2",)})
    restack(draft, {"br1:p2": ("f2", "f1")}, {})
    assert draft.attached == {} and draft.stack("br1:p1") == () and draft.stack("br1:p2") == ("f2", "f1")
    with pytest.raises(Refused, match=r"netdev veht1 not found; did you mean veth1\?"):
        restack(draft, {"veht1": ("f1",)}, {"veth1": None})
    with pytest.raises(Refused, match="Port p3 does not exist in br1"):
        restack(draft, {"br1:p3": ("f1",)}, {})
    with pytest.raises(Refused, match="br1 is not transparent"):
        restack(draft, {"veth1": ("br1",)}, {"veth1": None})
    with pytest.raises(Refused, match="f1 can't be attached to"):
        restack(Draft(STANDS, {}), {"veth1": ("f1",), "veth2": ("f1",)}, {"veth1": None, "veth2": None})


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("text", "is no configuration"),
        ({"cube": []}, "has no cube; did you mean cubes"),
        ({"cubes": {}}, None),
        ({"cubes": "br1"}, "expected an array of cubes"),
        ({"cubes": [{"name": "a"}]}, "service-name is missing"),
        ({"cubes": ["a"]}, "is not a cube"),
        ([{"name": "a", "service-name": "b"}] * 2, "is a a second time"),
        ({"attached": ["veth1"]}, "expected netdevs"),
        ({"attached": {"br1:p1": ["f1"]}}, "is no netdev"),
        ({"attached": {"veth1": "f1"}}, "expected an array of names"),
    ],
)
def test_what_is_no_document_is_refused(document: Any, sentence: str | None) -> None:
    if sentence is None:
        assert read(document).cubes == {}
        return
    with pytest.raises(ModelError) as error:
        read(document)
    assert sentence in str(error.value)


def test_a_document_is_read_without_being_changed() -> None:
    before = str(DOCUMENT)
    list(read(DOCUMENT).changes({"br1": replace(STANDS["br1"], service="other")}))
    assert str(DOCUMENT) == before
