# SPDX-License-Identifier: Apache-2.0
"""polycubectl as a process against an HTTP server: exit codes, streams, redirects, errors, help, dry runs."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from fake_daemon import COMMAND, Ctl, FakeDaemon, Seen
from starlette.responses import RedirectResponse, Response, StreamingResponse


def refusal(*errors: dict[str, object]) -> dict[str, object]:
    return {"ietf-restconf:errors": {"error": list(errors)}}


def test_a_successful_change_prints_nothing(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["POST svc/c1/"] = (201, {"name": "c1"})
    daemon.answers["DELETE svc/c1/"] = Response(status_code=204)
    done = ctl("svc", "add", "c1", "ports.p=1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert daemon.last.json == {"ports": {"p": 1}}
    assert daemon.last.headers["content-type"] == "application/json"
    assert ctl("svc", "del", "c1").returncode == 0


def test_answers_of_show_and_of_actions_are_printed(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["GET c1/loglevel/"] = "INFO"
    daemon.answers["GET c1/number/"] = (200, 2)
    daemon.answers["POST c1/ping/"] = (200, {"result": "pong"})
    daemon.answers["POST c1/reset/"] = (200, {})
    assert ctl("c1", "show", "loglevel").stdout == "INFO\n"
    assert ctl("c1", "show", "number").stdout == "2\n"
    assert ctl("c1", "ping").stdout == "result: pong\n"
    assert ctl("c1", "reset").stdout == ""
    assert ctl("c1", "set", "loglevel=DEBUG").stdout == ""


def test_metrics_are_printed_as_they_come(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["GET metrics/"] = "# HELP a\na 1\n"
    assert ctl("metrics", "show").stdout == "# HELP a\na 1\n"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((404, "No cube found named c1"), "No cube found named c1\n"),
        (Response(status_code=404), "404 Not Found\n"),
        ((400, "quoted"), "quoted\n"),
        (
            (400, refusal({"error-tag": "invalid-value", "error-message": "no port 'x' in c1; did you mean p1?"})),
            "no port 'x' in c1; did you mean p1?\n",
        ),
        (
            (
                409,
                refusal(
                    {"error-tag": "data-exists", "error-info": {"name": "c1"}},
                    {"error-tag": "missing-attribute", "error-info": "peer"},
                ),
            ),
            "c1 exists already\npeer is missing\n",
        ),
        ((500, refusal({"error-tag": "operation-failed", "error-info": "x"})), "operation-failed: x\n"),
    ],
)
def test_a_refusal_goes_to_standard_error_and_exits_with_2(ctl: Ctl, daemon: FakeDaemon, answer: object, text: str) -> None:
    daemon.answers["POST svc/c1/"] = answer
    done = ctl("svc", "add", "c1")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", text)


def test_bad_syntax_exits_with_2_and_sends_nothing(ctl: Ctl, daemon: FakeDaemon) -> None:
    done = ctl("c1", "show", "-jsno")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "-jsno is not a valid flag; did you mean -json?\n"
    assert daemon.seen == []


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["conect", "a", "b"], "did you mean 'connect' instead of 'conect'?"),
        (["c1", "shwo"], "did you mean 'show' instead of 'shwo'?"),
        (["c1", "remove", "ports"], "did you mean 'del' instead of 'remove'?"),
        (["topologi", "show"], "did you mean 'topology' instead of 'topologi'?"),
    ],
)
def test_a_near_miss_of_a_word_is_suggested(ctl: Ctl, daemon: FakeDaemon, words: list[str], advice: str) -> None:
    for method in ("GET", "POST"):
        daemon.answers[f"{method} {'/'.join(w for w in words if w != 'show')}/"] = (404, "No such thing")
    done = ctl(*words)
    assert (done.returncode, done.stderr) == (2, f"No such thing; {advice}\n")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["r1"], (409, "r1 exists already")),
        (["r1", "loglevel"], (405, "r1/loglevel has no POST")),
        (["r1", "ports"], (400, "r1/ports/[0]/name is missing")),
    ],
)
def test_a_path_without_a_command_that_is_no_action_gets_the_way_to_see_it(
    ctl: Ctl, daemon: FakeDaemon, words: list[str], answer: tuple[int, str]
) -> None:
    daemon.answers[f"POST {'/'.join(words)}/"] = answer
    assert ctl(*words).stderr == f"{answer[1]}; to see it: polycubectl {' '.join(words)} show\n"


def test_set_without_a_value_sends_nothing(ctl: Ctl, daemon: FakeDaemon) -> None:
    done = ctl("r1", "ports", "p1", "set", "peer")
    assert done.returncode == 2 and "set needs NAME=VALUE" in done.stderr
    assert daemon.seen == []


def test_a_daemon_that_is_not_there_is_named_with_the_way_to_start_it(ctl: Ctl) -> None:
    done = ctl("cubes", env={"POLYCUBECTL_URL": "unix:///nowhere/d.sock"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "/nowhere/d.sock" in done.stderr and "systemctl start polycubed" in done.stderr


def test_the_default_is_the_socket_of_the_daemon(environment: dict[str, str]) -> None:
    from polycube.cli.config import load

    assert load(environment).url == "unix:///run/polycube/polycubed.sock"


def test_a_redirect_is_followed_with_method_query_and_body(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["PATCH c1/ports/p1/?dry-run=true"] = RedirectResponse(
        "http://127.0.0.1:9000/polycube/v1/svc/c1/ports/p1/?dry-run=true", 308
    )
    daemon.answers["PATCH svc/c1/ports/p1/"] = (200, {"operations": []})
    done = ctl("c1", "ports", "p1", "set", "a=1", "b=x", "-dry-run")
    assert (done.returncode, done.stdout) == (0, "nothing to do\n")
    assert [(seen.method, seen.path, seen.query, seen.json) for seen in daemon.seen] == [
        ("PATCH", path, "dry-run=true", {"a": 1, "b": "x"}) for path in ("c1/ports/p1/", "svc/c1/ports/p1/")
    ]


def test_a_circle_of_redirects_ends(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["GET c1/"] = RedirectResponse("/polycube/v1/c1/", 308)
    done = ctl("c1", "show")
    assert done.returncode == 1 and "circle" in done.stderr


def test_a_dry_run_shows_the_operations_as_a_table(ctl: Ctl, daemon: FakeDaemon) -> None:
    operations = [{"operation": "load", "object": "c1"}, {"operation": "write", "object": "ports", "key": 1}]
    daemon.answers["POST svc/c1/"] = (200, {"operations": operations})
    done = ctl("svc", "add", "c1", "-dry-run")
    assert done.stdout == "operation  object  key\nload       c1\nwrite      ports   1\n"
    assert ctl("svc", "add", "c1", "-dry-run", "-json").stdout.startswith('{\n  "operations": [')


def test_a_daemon_that_ignores_a_dry_run_is_told_on(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["POST svc/c1/"] = (201, {})
    done = ctl("svc", "add", "c1", "-dry-run")
    assert done.returncode == 2 and "may have been made" in done.stderr


def test_version_prints_both_versions(ctl: Ctl, daemon: FakeDaemon) -> None:
    from polycube import __version__

    daemon.answers["GET version/"] = (200, {"polycubed": {"version": "1.2"}})
    assert ctl("version").stdout == f"polycubectl:\n version: {__version__}\npolycubed:\n version: 1.2\n"
    assert f'"version": "{__version__}"' in ctl("version", "-json").stdout


def test_root_help_lists_services_words_and_running_cubes(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["OPTIONS "] = (
        200,
        {"params": {"svc": {"name": "svc", "type": "leaf", "simpletype": "service", "description": "A service"}}},
    )
    daemon.answers["GET cubes/"] = (200, {"svc": [{"name": "c1"}]})
    shown = ctl().stdout
    head = "Keyword            Type     Description\n svc               service  A service\n"
    assert shown.startswith(f"For help on keywords use '?'\n\n{head}")
    assert "\n connect           command  Connect ports\n" in shown
    assert "\n c1                svc      Running Service instance\n" in shown
    assert " services" in shown
    assert " services" not in ctl(env={"POLYCUBECTL_EXPERT": "false"}).stdout
    assert ctl("--help").stdout.startswith("Usage: polycubectl")


def test_root_help_without_a_daemon_shows_the_built_in_words(ctl: Ctl) -> None:
    done = ctl("--help", env={"POLYCUBECTL_URL": "unix:///nowhere/d.sock"})
    assert done.returncode == 1 and " connect " in done.stdout and "cannot reach" in done.stderr


def test_help_of_a_path_comes_from_the_daemon(ctl: Ctl, daemon: FakeDaemon) -> None:
    text = "string"
    parameters = {"name": {"type": "key", "simpletype": "string", "description": "Port name", "example": "port1"}}
    optional = {
        "peer": {"type": "leaf", "simpletype": "string", "description": "Other end", "example": "r0:p1"},
        "stp": {"type": "complex", "description": "Tree"},
    }
    daemon.answers["OPTIONS c1/ports?help=ADD"] = (200, {"params": parameters, "optional-params": optional})
    daemon.answers["OPTIONS c1/ports?help=NONE"] = (
        200,
        {"commands": ["add", "show"], "params": parameters, "elements": [{"name": "p1"}], "actions": ["flush"]},
    )
    daemon.answers["OPTIONS c1/ping?help=NONE"] = (200, {"in": {"to": {"simpletype": text, "description": "Where"}}})
    daemon.answers["OPTIONS c1/ports?help=DEL"] = (200, {"params": parameters})
    daemon.answers["OPTIONS c1?help=SET"] = (200, {"params": {"loglevel": {"simpletype": text, "description": "L"}}})
    assert ctl("c1", "ports", "add", "?").stdout == (
        "\nKeyword      Type       Description  Example\n"
        " <name>      string     Port name    port1\n\n Other parameters:\n"
        " peer=value  string     Other end    r0:p1\n stp=value   container  Tree\n"
        "\nExample:\n polycubectl c1 ports add port1 peer=r0:p1\n"
    )
    shown = ctl("c1", "ports", "?").stdout
    assert " add     command  Add entry to a list\n" in shown
    assert " p1      <name>\n" in shown and " flush   action\n" in shown
    assert " to=value  string  Where\n" in ctl("c1", "ping", "?").stdout
    assert "Example:\n polycubectl c1 ports del port1\n" in ctl("c1", "ports", "del", "?").stdout
    assert " loglevel=value  string  L\n" in ctl("c1", "set", "?").stdout
    daemon.answers["OPTIONS c1?help=SHOW"] = (200, {})
    assert ctl("c1", "show", "?").stdout == "\nThere is no help for this command\n"


@pytest.mark.parametrize("words", ["connect", "disconnect", "attach", "detach", "services", "services show", "metrics", "top"])
def test_built_in_words_have_help_of_their_own(ctl: Ctl, daemon: FakeDaemon, words: str) -> None:
    done = ctl(*words.split(), "?")
    assert done.returncode == 0 and "Keyword" in done.stdout and daemon.seen == []


def test_debug_shows_request_and_answer_on_standard_error(ctl: Ctl, daemon: FakeDaemon) -> None:
    daemon.answers["POST svc/c1/"] = (201, {"name": "c1"})
    done = ctl("svc", "add", "c1", "a=1", env={"POLYCUBECTL_DEBUG": "true"})
    assert done.stdout == ""
    assert "POST" in done.stderr and '{"a": 1}' in done.stderr and "201 Created" in done.stderr


def test_the_users_file_is_read_and_the_environment_overrides_it(ctl: Ctl, daemon: FakeDaemon, environment: dict[str, str]) -> None:
    folder = Path(environment["HOME"]) / ".config" / "polycube"
    folder.mkdir(parents=True)
    file = folder / "polycubectl_config.yaml"
    file.write_text(
        f'# mine\ndebug: false\nexpert: true   # yes\nsingleparameterworkaround: false\nunknown: x\ncert:\nurl: "{daemon.url}"\n'
    )
    assert ctl("c1", "set", "a=1", env={"POLYCUBECTL_URL": ""}).returncode == 0
    assert (daemon.last.path, daemon.last.json) == ("c1/", {"a": 1})
    file.write_text("url: http://127.0.0.1:1/\n")
    assert ctl("cubes").returncode == 0
    assert ctl("cubes", env={"POLYCUBECTL_URL": ""}).returncode == 1
    for text, message in (("url", "line 1"), ("debug: maybe", "debug is 'maybe'"), ("url: 'x", "not closed")):
        file.write_text(text)
        done = ctl("cubes")
        assert done.returncode == 1 and message in done.stderr
    file.unlink()
    assert ctl("cubes").returncode == 0 and not file.exists()


def test_the_address_that_upstream_wrote_into_everybody_s_file_says_nothing(tmp_path: Path) -> None:
    from polycube.cli.config import DEFAULT_URL, load

    file = tmp_path / ".config" / "polycube" / "polycubectl_config.yaml"
    file.parent.mkdir(parents=True)
    for given, used in (("localhost:9000", DEFAULT_URL), ("localhost:9001", "http://localhost:9001/polycube/v1/")):
        file.write_text(f'debug: false\nexpert: true\nurl: http://{given}/polycube/v1/\nkey: ""\ncacert: ""\ncert: ""\n')
        assert load({"HOME": str(tmp_path)}).url == used


def test_settings_that_cannot_work_exit_with_1(ctl: Ctl) -> None:
    for variables, message in (
        ({"POLYCUBECTL_URL": "ftp://x/"}, "cannot be used"),
        ({"POLYCUBECTL_URL": "http://x:99999/"}, "not a port number"),
        ({"POLYCUBECTL_CERT": "/x.pem"}, "needs both cert and key"),
        ({"POLYCUBECTL_TOKEN": "a\nb"}, "printable"),
    ):
        done = ctl("cubes", env=variables)
        assert done.returncode == 1 and message in done.stderr


def test_a_token_is_sent_when_there_is_one(ctl: Ctl, daemon: FakeDaemon) -> None:
    ctl("cubes", env={"POLYCUBECTL_TOKEN": "s3cret"})
    assert daemon.last.headers["authorization"] == "Bearer s3cret"


def test_a_reader_that_stops_early_is_no_error(daemon: FakeDaemon, program: dict[str, str]) -> None:
    daemon.answers["GET c1/"] = (200, [{"n": number, "text": "x" * 100} for number in range(20_000)])
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; polycubectl c1 show </dev/null | head -1"],
        env=program, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_standard_input_is_no_error(daemon: FakeDaemon, program: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", "polycubectl svc add c1 a=1 <&-"],
        env=program, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.last.json == {"a": 1}


def test_its_own_version_needs_no_daemon(ctl: Ctl, daemon: FakeDaemon) -> None:
    done = ctl("--version", env={"POLYCUBECTL_URL": "unix:///nowhere"})
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("polycubectl version ")


def test_slow_modules_are_not_imported(ctl: Ctl, environment: dict[str, str], daemon: FakeDaemon) -> None:
    daemon.answers["GET cubes/"] = (200, {"svc": [{"name": "c1"}]})
    daemon.answers["OPTIONS ?help=NONE&completion"] = (200, ["cubes"])
    heavy = {
        "argparse", "asyncio", "dataclasses", "difflib", "email", "http", "inspect", "logging", "pydantic", "ssl",
        "subprocess", "tempfile", "typing", "urllib", "yaml", "cffi", "importlib.metadata",
    }  # fmt: skip
    code = "import sys; from polycube.cli.main import main; main({}); print(*sys.modules, file=sys.stderr)"
    for words in (["cubes", "show"], ["__complete", "--", "cu"]):
        done = subprocess.run(
            [sys.executable, "-c", code.format(words)],
            env={**environment, "POLYCUBECTL_URL": daemon.url}, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        loaded = set(done.stderr.split())
        assert done.stdout
        assert loaded & heavy == set()
        assert [name for name in loaded if name.startswith("polycube.") and name.split(".")[1] != "cli"] == []


def test_the_same_request_works_over_tcp(ctl: Ctl, daemon: FakeDaemon) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(65536))
            connection.sendall(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"4;x=y\r\n[1,2\r\n1\r\n]\r\n0\r\nTrailer: x\r\n\r\n"
            )
            connection.recv(1)  # keeps the connection open, as HTTP/1.1 servers may

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/other/base/"
        done = ctl("c1", "show", env={"POLYCUBECTL_URL": url})
        thread.join(30)
    assert (done.stdout, done.stderr) == ("1\n2\n", "")
    assert heard[0].startswith(b"GET /other/base/c1/ HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nA"])
def test_an_answer_that_breaks_off_is_no_answer(ctl: Ctl, garbage: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(garbage)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with listener:
        done = ctl("c1", "show", env={"POLYCUBECTL_URL": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        thread.join(30)
    assert done.returncode == 1 and "without a whole answer" in done.stderr and done.stderr.count("\n") == 1


def test_colour_is_for_terminals_only(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.answers["GET c1/"] = (200, {"status": "UP"})
    env = {**environment, "POLYCUBECTL_URL": daemon.url}
    shown = []
    for extra in ({}, {"NO_COLOR": "1"}):
        outer, inner = pty.openpty()
        env |= extra
        subprocess.run([*COMMAND, "c1", "show"], env=env, stdin=inner, stdout=inner, timeout=30, check=True)
        shown.append(os.read(outer, 4096).decode())
        os.close(outer)
        os.close(inner)
    assert "\033[32mUP\033[0m" in shown[0]
    assert shown[1] == "status: UP\r\n"


def test_the_bodys_request_is_recorded_once_for_each_command(ctl: Ctl, daemon: FakeDaemon) -> None:
    ctl("connect", "a", "b")
    assert [(seen.method, seen.path) for seen in daemon.seen] == [("POST", "connect/")]
    assert isinstance(daemon.last, Seen) and daemon.last.json == {"peer1": "a", "peer2": "b"}


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of our own for localhost, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return cert, key


def test_https_checks_the_daemon_and_shows_a_certificate(ctl: Ctl, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")
                secure.unwrap()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with listener:
        url = {"POLYCUBECTL_URL": f"https://localhost:{listener.getsockname()[1]}"}
        mine = {"POLYCUBECTL_CACERT": cert, "POLYCUBECTL_CERT": cert, "POLYCUBECTL_KEY": key}
        trusted, untrusted = ctl("c1", "show", env=url | mine), ctl("c1", "show", env=url)
        thread.join(30)
    assert (trusted.stdout, trusted.stderr) == ("7\n", "")
    assert untrusted.returncode == 1 and "certificate verify failed" in untrusted.stderr
    assert "systemctl" not in untrusted.stderr
    missing = ctl("c1", "show", env=url | {"POLYCUBECTL_CACERT": "/nowhere.pem"})
    assert missing.returncode == 1


def test_a_stream_of_bytes_goes_to_standard_output_as_it_is(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET cap1/stream/"] = StreamingResponse(iter([b"\x0a\x0d", b"\x0d\x0atext"]), media_type="application/x-pcapng")
    done = ctl("cap1", "show", "stream")
    assert (done.stdout, done.returncode) == ("\n\n\ntext", 0)  # universal newlines of the test's own pipe


def test_a_stream_of_lines_too(daemon: FakeDaemon, ctl: Ctl) -> None:
    daemon.answers["GET nat1/sessions/"] = StreamingResponse(iter(['{"a": 1}\n', '{"a": 2}\n']), media_type="application/x-ndjson")
    assert ctl("nat1", "show", "sessions").stdout == '{"a": 1}\n{"a": 2}\n'


def test_the_help_of_an_action_shows_what_it_takes(ctl: Ctl, daemon: FakeDaemon) -> None:
    taken = {"src": {"name": "src", "type": "leaf", "simpletype": "string", "description": "Source", "example": "10.0.0.0/8"}}
    needed = {"id": {"name": "id", "type": "leaf", "simpletype": "int64", "description": "Place", "example": "0"}}
    for params in ({}, needed):
        daemon.answers["OPTIONS fw/append?help=NONE"] = (200, {"params": params, "optional-params": taken})
        text = ctl("fw", "append", "?").stdout
        assert "Other parameters:" in text and " src=value " in text and (" id=value " in text) == bool(params)
