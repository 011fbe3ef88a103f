# SPDX-License-Identifier: Apache-2.0
"""YANG: every service's module passes pyang's lint, and yangson takes its data and refuses what the model refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yangson
from yangson.enumerations import ContentType
from yangson.exceptions import YangsonException

from polycube.core.registry import installed
from polycube.model import Kind, Node, keys, members, yang
from polycube.model.yang import REVISION, instance

SERVICES = installed()[0]
IETF = Path(sys.prefix) / "share" / "yang" / "modules" / "ietf"
REVISIONS = {path.stem: path.read_text().partition("revision ")[2].split()[0] for path in IETF.glob("ietf-*-types.yang")}


def text(name: str) -> str:
    service = SERVICES[name]
    return yang(name, service.config, service.description, service.cls.version)


@pytest.mark.parametrize("name", SERVICES)
def test_the_module_passes_lint(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.yang").write_text(text(name))
    command = [sys.executable, "-m", "pyang.scripts.pyang_tool", "--lint", "-p", str(IETF), f"{name}.yang"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if " error: " in line]
    assert (done.returncode, errors) == (0, []), done.stderr


def model_of(name: str, folder: Path) -> yangson.DataModel:
    (folder / f"{name}.yang").write_text(text(name))
    modules = [{"name": name, "revision": REVISION, "namespace": f"http://polycube.network/{name}", "conformance-type": "implement"}]
    for one, revision in REVISIONS.items():
        namespace = f"urn:ietf:params:xml:ns:yang:{one}"
        modules.append({"name": one, "revision": revision.strip('"{;'), "namespace": namespace, "conformance-type": "import"})
    library = {"ietf-yang-library:modules-state": {"module-set-id": "test", "module": modules}}
    return yangson.DataModel(json.dumps(library), [str(folder), str(IETF)])


def example(node: type[Node], configured: bool) -> dict[str, Any]:
    """Something for every member: lists have one element."""
    found: dict[str, Any] = {}
    for name, member in members(node).items():
        if member.state and configured:
            continue
        if member.kind is Kind.LIST:
            found[name] = [example(member.child, configured)]
        elif member.kind is Kind.CONTAINER:
            found[name] = example(member.child, configured)
        else:
            assert member.type
            leaf = member.type.union[0] if member.type.union else member.type
            value: Any = member.default if member.default not in (None, []) else member.example or leaf.example
            if leaf.base is bool:
                value = bool(value)
            elif leaf.base is int:
                value = int(value) if value not in ("", None) else leaf.minimum or 0
            elif leaf.choices and value not in leaf.choices:
                value = leaf.choices[0]
            elif leaf.base is float:
                value = 1.5
            value = value if value not in ("", None) or member.default == "" else "x" * (leaf.min_length or 1)
            found[name] = value if isinstance(value, list) or not member.type.many else [value]
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_a_validator_takes_what_the_model_says(name: str, tmp_path: Path) -> None:
    model = model_of(name, tmp_path)
    node = SERVICES[name].config
    raw = instance(name, example(node, False), node)
    model.from_raw(raw).validate(ctype=ContentType.all)
    (element,) = raw[f"{name}:{name}"]
    (key,) = (one.name for one in keys(node)) if node.key_attrs else ("name",)
    for broken in ({**element, "loglevel": "LOUD"}, {**element, "no-such-member": 1}, {k: v for k, v in element.items() if k != key}):
        with pytest.raises(YangsonException):
            model.from_raw({f"{name}:{name}": [broken]}).validate(ctype=ContentType.all)
