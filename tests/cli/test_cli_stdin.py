# SPDX-License-Identifier: Apache-2.0
"""Bodies on standard input: taken when meant for the command, never waited for, never stolen from a shell."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
from pathlib import Path

import pytest
from fake_daemon import COMMAND, Ctl, FakeDaemon

from polycube.cli.body import to_json
from polycube.cli.errors import SyntaxProblem

BODY = "{'rules': [{id: 1, mac: 12:34:56:12:34:56}, {id: 2,},], }"
PARSED = {"rules": [{"id": 1, "mac": "12:34:56:12:34:56"}, {"id": 2}]}


def shell(line: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_a_file_is_the_body(ctl: Ctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "body.yaml"
    file.write_text(BODY)
    with file.open() as stream:
        assert ctl("fw", "batch", "rules=", stdin=stream).returncode == 0
    assert daemon.last.json == PARSED


def test_a_pipe_is_the_body(ctl: Ctl, daemon: FakeDaemon) -> None:
    assert ctl("fw", "set", input=BODY).returncode == 0
    assert (daemon.last.method, daemon.last.json) == ("PATCH", PARSED)


@pytest.mark.parametrize(
    "line",
    [
        "polycubectl svc add c1 <<< '{a: 1}'",
        "polycubectl svc add c1 << END\na: 1\nEND",
        "echo '{\"a\": 1}' | polycubectl svc add c1",
        "echo a: 1 | env -u NOTHING timeout 20 polycubectl svc add c1",
        "f=$(mktemp); echo a: 1 > $f; polycubectl svc add c1 < $f; rm $f",
        "{ sleep 0.5; echo a: 1; } | polycubectl svc add c1 -",
        "polycubectl svc add c1 < <(echo a: 1)",
    ],
)
def test_shells_have_many_ways_to_give_a_body(line: str, daemon: FakeDaemon, program: dict[str, str]) -> None:
    done = shell(line, program)
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.last.json == {"a": 1}


def test_an_open_pipe_that_stays_empty_is_not_waited_for(ctl: Ctl, daemon: FakeDaemon) -> None:
    read, write = os.pipe()
    done = ctl("svc", "add", "c1", "a=1", stdin=read)
    assert done.returncode == 0  # else it would never end
    os.close(read)
    os.close(write)
    assert daemon.last.json == {"a": 1}


def test_a_closed_empty_pipe_an_open_socket_and_a_terminal_hold_no_body(ctl: Ctl, daemon: FakeDaemon) -> None:
    assert ctl("svc", "add", "c1", "a=1", input="").returncode == 0
    assert daemon.last.json == {"a": 1}
    here, there = socket.socketpair()
    with here, there:
        assert ctl("svc", "add", "c2", stdin=here.fileno()).returncode == 0
    assert daemon.last.json == {}
    outer, inner = pty.openpty()
    assert ctl("svc", "add", "c3", stdin=inner).returncode == 0
    os.close(outer)
    os.close(inner)
    assert daemon.last.json == {}


def test_a_socket_with_data_is_the_body_as_under_ssh(ctl: Ctl, daemon: FakeDaemon) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"a: 1\n")
        there.shutdown(socket.SHUT_WR)
        assert ctl("svc", "add", "c1", stdin=here.fileno()).returncode == 0
    assert daemon.last.json == {"a": 1}


@pytest.mark.parametrize("source", ["printf 'x\\ny\\nz\\n' |", ""])
def test_a_loop_that_reads_its_list_from_standard_input_keeps_it(
    source: str, daemon: FakeDaemon, program: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("x\ny\nz\n")
    end = "" if source else f"< {tmp_path / 'list'}"
    done = shell(f"{source} while read name; do polycubectl svc add $name; done {end}", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(seen.path, seen.json) for seen in daemon.seen] == [(f"svc/{name}/", {}) for name in "xyz"]


def test_a_script_read_from_a_pipe_is_not_eaten(daemon: FakeDaemon, program: dict[str, str]) -> None:
    script = "polycubectl svc add c1\npolycubectl svc add c2\ntimeout 9 polycubectl svc add c3\n:\n"
    done = subprocess.run(["bash"], input=script, env=program, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [seen.path for seen in daemon.seen] == ["svc/c1/", "svc/c2/", "svc/c3/"]


def test_a_dash_without_a_body_is_an_error(ctl: Ctl, daemon: FakeDaemon) -> None:
    done = ctl("svc", "add", "c1", "-")
    assert (done.returncode, done.stderr) == (2, "there is no body on standard input\n")
    assert daemon.seen == []


def test_a_body_that_cannot_be_read_is_bad_syntax(ctl: Ctl, daemon: FakeDaemon) -> None:
    done = ctl("svc", "add", "c1", input="{a: [1\nb")
    assert done.returncode == 2 and "neither JSON nor YAML" in done.stderr and daemon.seen == []


def test_show_and_connect_never_read_standard_input(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    read, write = os.pipe()
    os.write(write, b"mine")
    for words in (["cubes", "show"], ["connect", "a", "b"], ["c1", "set", "a=1"], ["c1", "del"]):
        env = {**environment, "POLYCUBECTL_URL": daemon.url}
        subprocess.run([*COMMAND, *words], env=env, stdin=read, timeout=30, check=True)
    assert os.read(read, 10) == b"mine"
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 12345678901234567890123}', {"a": 12345678901234567890123}),
        ("a: 10:20\nb: 2020-01-02\nc: 0x10\nd: 010\ne: 1.5\nf: yes\ng: 1e3\nh: -7\ni: '1'\n1: k",
         {"a": "10:20", "b": "2020-01-02", "c": 16, "d": 8, "e": 1.5, "f": True, "g": 1e3, "h": -7, "i": "1", "1": "k"}),
        ("\ufeff[1]", [1]),
        ("- a\n- b: 10.0.0.0/8", ["a", {"b": "10.0.0.0/8"}]),
    ],
)  # fmt: skip
def test_bodies_are_json_or_yaml_without_surprises(text: str, value: object) -> None:
    assert json.loads(to_json(text.encode())) == value


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a: !!binary aGk=", b"!!python/object:os.system {}", b"a: !!float nan"])
def test_bodies_that_json_cannot_express_are_refused(text: bytes) -> None:
    with pytest.raises(SyntaxProblem):
        to_json(text)
