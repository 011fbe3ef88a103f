# SPDX-License-Identifier: Apache-2.0
"""Completion: the daemon's words, through a real bash where there is one."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess

import pytest
from fake_daemon import Ctl, FakeDaemon


@pytest.fixture
def words(daemon: FakeDaemon) -> FakeDaemon:
    answers = {
        "OPTIONS ?help=NONE&completion": ["connect", "cubes", "svc", "c1"],
        "OPTIONS c1?help=NONE&completion": ["add", "show", "ports"],
        "OPTIONS c1?help=SET&completion": ["loglevel=", "shadow="],
        "OPTIONS c1/loglevel?help=SET&completion": ["DEBUG", "INFO"],
        "OPTIONS svc?help=ADD&completion": ["<name>"],
        "OPTIONS svc/c2?help=ADD&completion": ["type=", "loglevel="],
        "OPTIONS svc/c2?help=ADD": {"optional-params": {"type": {"simpletype": "enumeration", "values": "TC, XDP_DRV"}}},
        "OPTIONS ?help=DEL&completion": ["connect", "cubes", "svc", "c1"],
        "OPTIONS c1/ports?help=SHOW&completion": ["p1", "p2"],
        "OPTIONS connect?help=NONE&completion": ["r1:p1", "r1:p2"],
        "GET netdevs/": [{"name": "veth1"}],
        "GET cubes/": {"svc": [{"name": "c1", "ports": []}], "tr": [{"name": "t1", "parent": ""}]},
    }
    daemon.answers.update({key: (200, value) for key, value in answers.items()})
    return daemon


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("c", ["connect", "cubes", "c1", "completion"]),
        ("c1 ", ["add", "show", "ports"]),
        ("c1 set lo", ["loglevel="]),
        ("c1 set loglevel=D", ["loglevel=DEBUG"]),
        ("c1 set loglevel=", ["loglevel=DEBUG", "loglevel=INFO"]),
        ("svc add ", ["<name>"]),
        ("svc add c", []),
        ("svc add c2 type=x ", ["loglevel="]),
        ("svc add c2 type=X", ["type=XDP_DRV"]),
        ("c1 ports p1 set peer=r1:", ["peer=r1:p1", "peer=r1:p2"]),
        ("del ", ["svc", "c1"]),
        ("c1 show ports ", ["p1", "p2"]),
        ("c1 show -j", ["-json"]),
        ("c1 show -json -", []),
        ("svc add c2 -", ["-dry-run"]),
        ("connect ", ["r1:p1", "r1:p2", "veth1"]),
        ("connect r1:p1 r1:", ["r1:p2"]),
        ("connect r1:p1 veth1 ", []),
        ("attach ", ["t1"]),
        ("attach t1 v", ["veth1"]),
        ("attach t1 veth1 position=f", ["position=first"]),
        ("topology show ", ["veth1"]),
        ("completion z", ["zsh"]),
        ("nothing here ", []),
    ],
)
def test_the_next_words_are_asked_of_the_daemon(ctl: Ctl, words: FakeDaemon, line: str, found: list[str]) -> None:
    done = ctl("__complete", "--", *line.split(" "))
    assert (done.stdout.split("\n")[:-1], done.stderr) == (found, "")


def test_completion_is_silent_without_a_daemon(ctl: Ctl) -> None:
    done = ctl("__complete", "--", "c", env={"POLYCUBECTL_URL": "unix:///nowhere/d.sock"})
    assert (done.stdout, done.stderr) == ("", "")


def complete(program: dict[str, str], line: str) -> list[str]:
    """What bash would offer after `line`: its own splitting into words, then the function it was given."""
    script = (
        "source <(polycubectl completion bash)\n"
        'COMP_LINE="polycubectl $1" COMP_POINT=$((${#1} + 12))\n'
        "_polycubectl\n"
        'printf "%s|\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script, "bash", line], env=program, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return [word[:-1] for word in done.stdout.splitlines() if word != "|"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("c1 ", ["add ", "show ", "ports "]),
        ("c1 set lo", ["loglevel="]),
        ("c1 set loglevel=D", ["DEBUG "]),  # bash completes what stands behind the "="
        ("connect r1:p1 r1:p", ["p2 "]),
        ("connect v", ["veth1 "]),
        ("svc add ", ["<name>", " "]),
        ("nothing here ", []),
    ],
)
def test_bash_completes_words(program: dict[str, str], words: FakeDaemon, line: str, found: list[str]) -> None:
    assert complete(program, line) == found


def test_bash_completes_on_a_real_tab(program: dict[str, str], words: FakeDaemon) -> None:
    outer, inner = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        env={**program, "PS1": "$ ", "INPUTRC": "/dev/null", "TERM": "dumb"},
        stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
    )  # fmt: skip
    os.close(inner)
    shown = b""
    try:
        os.write(outer, b"source <(polycubectl completion bash); echo rea''dy\n")
        for expected, typed in ((b"ready", b"polycubectl c1 set logl\t"), (b"loglevel=", b"D\t"), (b"DEBUG ", b"\n")):
            while expected not in shown:
                assert select.select([outer], [], [], 20)[0], shown
                shown += os.read(outer, 4096)
            shown = shown.rpartition(expected)[2]
            os.write(outer, typed)
        os.write(outer, b"exit\n")
        shell.wait(20)
    finally:
        shell.kill()
        shell.wait()
        os.close(outer)
    assert (words.last.method, words.last.path, words.last.json) == ("PATCH", "c1/loglevel/", "DEBUG")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_accepts_its_stub(ctl: Ctl, name: str) -> None:
    stub = ctl("completion", name)
    assert stub.returncode == 0 and "polycubectl __complete" in stub.stdout.replace('"${words[0]}"', "polycubectl")
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    subprocess.run([name, "-n"], input=stub.stdout, text=True, timeout=30, check=True)


def test_an_unknown_shell_is_bad_syntax(ctl: Ctl) -> None:
    done = ctl("completion", "tcsh")
    assert (done.returncode, done.stderr) == (2, "Bad syntax, usage: completion bash|zsh|fish\n")
