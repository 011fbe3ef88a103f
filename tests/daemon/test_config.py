# SPDX-License-Identifier: Apache-2.0
"""Options, the line format of logs, and the lock of the single instance."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from polycube.daemon import log
from polycube.daemon.config import ConfigError, Options, describe, help_text, load
from polycube.daemon.pidfile import AlreadyRunning, PidFile, PidFileFailed


def options(*argv: str, file: str = "", tmp: Path) -> Options:
    path = tmp / "polycubed.conf"
    path.write_text(file)
    return load(argv, path).options


def test_without_anything_the_defaults_are_upstream_s(tmp_path: Path) -> None:
    got = options(tmp=tmp_path)
    assert (got.port, got.addr, got.loglevel, got.daemon) == (9000, "localhost", "info", False)
    assert got.logfile == Path("/var/log/polycube/polycubed.log")
    assert got.pidfile == Path("/var/run/polycube.pid")


def test_options_are_short_or_long_and_flags_may_have_a_value(tmp_path: Path) -> None:
    got = options("-p", "80", "-a::1", "-l", "DEBUG", "-d", "--no-tcx", "--cubes-dump-enable", "--store=/s", tmp=tmp_path)
    assert (got.port, got.addr, got.loglevel, got.daemon, got.no_tcx) == (80, "::1", "debug", True, True)
    assert got.store == Path("/s")
    assert options("-d=false", file="daemon: true", tmp=tmp_path).daemon is False
    assert options("--daemon=true", tmp=tmp_path).daemon is True


def test_the_file_is_read_and_the_command_line_wins_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "polycubed.conf"
    path.write_text("# a comment\n\nport : 70 # more\n loglevel:warn\n")
    loaded = load(["--port", "80"], path)
    assert (loaded.options.port, loaded.options.loglevel, loaded.options.configfile) == (80, "warn", path)
    assert loaded.warnings == ("'--port' also present on configuration file, overwritting it",)


def test_the_file_may_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "polycubed.toml"
    path.write_text('port = 80\nloglevel = "warn"\ndaemon = true\nhostnames = ["a.example", "b.example"]\n')
    got = load([], path).options
    assert (got.port, got.loglevel, got.daemon, got.hostnames) == (80, "warn", True, ("a.example", "b.example"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = ", "is not TOML"),
        ("prot = 80", "has prot, which is no option; did you mean port"),
        ("port = 1.5", "port in .* is 1.5, expected text, a number, true or false"),
        ("port = 99999", "port in .* is '99999', expected a port number"),
    ],
)
def test_what_is_wrong_in_toml_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "polycubed.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load([], path)


@pytest.mark.parametrize(
    ("argv", "file", "sentence"),
    [
        (["-p", "99999"], "", "port on the command line is '99999', expected a port number"),
        (["-p", "http"], "", "port on the command line is 'http'"),
        (["-l", "loud"], "", "loud is not a valid logging level"),
        (["--prot", "80"], "", "option --prot not recognized; did you mean port"),
        (["-p"], "", "option -p requires argument"),
        (["start"], "", "'start' is no option"),
        ([], "port 80", "bad line in configuration file: .*:1 -> port 80"),
        ([], "\nprot: 80", "bad line in configuration file: .*:2 -> prot: 80; did you mean port"),
        ([], "daemon: maybe", "daemon in .* is 'maybe', expected true or false"),
        ([], "configfile: /x", "bad line"),
        (["--configfile", "/nowhere.conf"], "", "/nowhere.conf does not exist"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(argv: list[str], file: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        options(*argv, file=file, tmp=tmp_path)
    assert str(caught.value).startswith("Error loading config: ")


def test_version_and_help_are_answered_before_anything_is_read() -> None:
    assert (load(["-v", "--configfile", "/nowhere"]).exit_text or "").startswith("polycubed version ")
    text = load(["-h"]).exit_text or ""
    assert text == help_text()
    assert "-p, --port PORT" in text
    assert "--no-tcx\n" in text


def test_a_missing_default_file_is_created_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "polycubed.conf"
    first = load([], path).options
    assert "#port: 9000" in path.read_text()
    assert load([], path).options == first
    path.write_text(path.read_text().replace("#port: 9000", "port: 9001"))
    assert load([], path).options.port == 9001


def test_the_effective_options_can_be_shown(tmp_path: Path) -> None:
    assert "no-tcx: false" in describe(options(tmp=tmp_path))


# ---- log ----


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    yield written
    root = logging.getLogger()
    for handler in list(root.handlers):
        if not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
            handler.close()
    structlog.reset_defaults()


LINE = {"time": 0.5, "level": "info", "event": "learned a station", "cube": "br0", "fields": {"mac": "02:00"}, "exception": None}


def test_a_line_of_the_daemon_has_upstream_s_format(stream: io.StringIO) -> None:
    log.configure("info", stream=stream)
    log.logger().info("cube created", number=3, why="asked for")
    words = stream.getvalue().split()
    assert words[2:] == ["[polycubed]", "[info]", "cube", "created", "number=3", "why='asked", "for'"]
    assert len(words[0] + words[1]) == len("[YYYY-mm-ddHH:MM:SS.mmm]")


def test_in_a_line_of_a_cube_the_fourth_word_is_its_name_and_the_sixth_begins_the_message(stream: io.StringIO) -> None:
    log.configure("info", stream=stream)
    log.relay("bridge", LINE)
    words = stream.getvalue().split()
    assert words[2:6] == ["[Bridge]", "[br0]", "[info]", "learned"]
    assert words[-1] == "mac=02:00"


def test_context_gives_the_names(stream: io.StringIO) -> None:
    log.configure("info", stream=stream)
    with log.bound(service="router", cube="r1", request="7"):
        log.logger().warning("slow")
    assert stream.getvalue().split(maxsplit=2)[2] == "[Router] [r1] [warn] slow request=7\n"


def test_json_has_an_object_a_line(stream: io.StringIO) -> None:
    log.configure("info", stream=stream, json=True)
    log.relay("bridge", {**LINE, "exception": "Traceback\n  here"})
    got = json.loads(stream.getvalue())
    assert (got["service"], got["cube"], got["level"], got["mac"]) == ("bridge", "br0", "info", "02:00")
    assert got["exception"] == "Traceback\n  here"


def test_a_cube_has_a_level_of_its_own(stream: io.StringIO) -> None:
    log.configure("warn", stream=stream)
    log.relay("bridge", {**LINE, "level": "debug"})  # has passed the cube's
    assert "[br0] [debug]" in stream.getvalue()
    log.configure("off", stream=stream)
    log.relay("bridge", {**LINE, "level": "error"})
    assert "error" not in stream.getvalue()


def test_the_level_counts_for_the_daemon_the_workers_and_libraries(stream: io.StringIO) -> None:
    log.configure("warn", stream=stream)
    log.logger().info("not this")
    log.relay("bridge", {**LINE, "cube": ""})
    logging.getLogger("uvicorn").info("nor this")
    assert stream.getvalue() == ""
    logging.getLogger("uvicorn").warning("but %s", "this")
    assert stream.getvalue().endswith("[polycubed] [warn] but this\n")


def test_a_traceback_follows_its_line_indented(stream: io.StringIO) -> None:
    log.configure("info", stream=stream)
    try:
        raise ZeroDivisionError("nothing")
    except ZeroDivisionError:
        log.logger().exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("[polycubed] [err] failed")
    assert rest[-1] == "    ZeroDivisionError: nothing"
    assert all(line.startswith("    ") for line in rest)


def test_a_name_with_a_newline_makes_no_second_line(stream: io.StringIO) -> None:
    log.configure("info", stream=stream)
    log.logger().info("cube\n[forged] line", name="a\nb")
    assert len(stream.getvalue().splitlines()) == 1


def test_the_file_gets_the_same_lines(stream: io.StringIO, tmp_path: Path) -> None:
    log.configure("trace", file=tmp_path / "log" / "polycubed.log", stream=stream)
    log.logger().debug("small things")
    assert (tmp_path / "log" / "polycubed.log").read_text() == stream.getvalue() != ""


# ---- pidfile ----

HOLDER = """
import sys
from pathlib import Path
from polycube.daemon.pidfile import PidFile
PidFile(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_daemon_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "run" / "polycube.pid"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"There is another polycube instance running with pid {holder.pid}$"):
            PidFile(path).acquire()
        holder.kill()
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_pidfile_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PidFileFailed, match="cannot write the pidfile"):
        PidFile(tmp_path / "file" / "polycube.pid").acquire()
