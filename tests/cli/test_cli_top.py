# SPDX-License-Identifier: Apache-2.0
"""The live view: rates out of a fake metrics endpoint, a daemon that goes away, pipes and terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time

import pytest
from fake_daemon import COMMAND, Ctl, FakeDaemon, Seen, serve

from polycube.cli.errors import SyntaxProblem
from polycube.cli.top import block, difference, human, is_top, parse, parse_metrics

STEP = 1000


def metrics(packets: int) -> str:
    port = 'cube="r1",service="svc",port="p1"'
    return f"""\
# HELP polycube_port_rx_packets_total Packets
# TYPE polycube_port_rx_packets_total counter
polycube_port_rx_packets_total{{{port}}} {packets}
polycube_port_rx_bytes_total{{{port}}} {packets * 100}.0
polycube_port_tx_packets_total{{{port}}} {packets // 2} 1700000000
polycube_port_tx_bytes_total{{{port}}} 1e3
polycube_cube_drops_total{{cube="r1",service="svc",reason="no-route"}} {packets // 10}
polycube_cube_handler_seconds_total{{cube="r1",service="svc",handler="ingress"}} {packets * 5e-8}
polycube_cube_handler_packets_total{{cube="r1",service="svc",handler="ingress"}} {packets}
polycube_port_rx_packets_created{{{port}}} 5
other_metric 3
"""


@pytest.fixture
def counting(daemon: FakeDaemon) -> FakeDaemon:
    """Counters that grow by a step a reading."""
    daemon.answers["GET metrics"] = lambda seen: metrics(STEP * len(daemon.seen))
    return daemon


def test_metrics_are_read_out_of_the_text_format() -> None:
    assert parse_metrics(metrics(10)) == {
        ("port", "r1", "p1"): [10.0, 1000.0, 5.0, 1000.0],
        ("drop", "r1", "no-route"): [1.0],
        ("time", "r1", "ingress"): [10.0, pytest.approx(5e-7)],
    }
    odd = 'polycube_port_rx_packets_total{port="a\\"b}\\\\",cube="c,1"} 1\npolycube_port_rx_packets_total{broken\n'
    assert parse_metrics(odd) == {("port", "c,1", 'a"b}\\'): [1.0, 0.0, 0.0, 0.0]}


def test_rates_are_differences_over_time_and_a_new_cube_starts_at_nought() -> None:
    key, drop = ("port", "c", "p"), ("drop", "c", "r")
    before = {key: [100.0, 0.0, 0.0, 0.0]}
    rates = difference(before, {key: [40.0, 10.0, 0.0, 0.0], drop: [6.0]}, 2.0)
    assert rates == {key: [20.0, 5.0, 0.0, 0.0], drop: [3.0]}
    assert difference({}, before, 1.0) == {key: [0.0, 0.0, 0.0, 0.0]}


def test_handlers_have_nanoseconds_a_packet() -> None:
    key, idle = ("time", "c", "ingress"), ("time", "c", "egress")
    before, now = {key: [100.0, 1e-6], idle: [7.0, 1e-6]}, {key: [300.0, 41e-6], idle: [7.0, 1e-6]}
    rates = difference(before, now, 2.0)
    assert rates == {key: [100.0, pytest.approx(200.0)], idle: [0.0, 0.0]}
    assert block(rates, "") == "time c ingress 100 200\n"


def test_lines_for_a_pipe_begin_with_their_kind() -> None:
    rates = {("drop", "c", "r"): [3.0], ("port", "c", "p 1\n"): [1.0, 2.0, 3.4, 4.0], ("drop", "c", "none"): [0.0]}
    assert block(rates, "") == "port c p 1\\n 1 2 3 4\ndrop c r 3\n"
    assert block({}, "no answer") == "daemon away: no answer\n"


def test_large_numbers_are_shortened() -> None:
    assert [human(value) for value in (0, 999, 1000, 12345, 123456, 1.8e6, 2e12)] == [
        "0", "999", "1.0k", "12.3k", "123k", "1.8M", "2.0T",
    ]  # fmt: skip


def test_options_are_checked_and_a_cube_may_be_called_top() -> None:
    assert parse(["-interval", "0.5", "-count=3"]) == (0.5, 3)
    assert is_top(["top"]) and is_top(["top", "-count", "1"]) and not is_top(["top", "show"]) and not is_top([])
    for line in ("-interval", "-interval x", "-interval 0", "-count -1", "-wrong 1", "-count 0"):
        with pytest.raises(SyntaxProblem, match="usage: top"):
            parse(line.split())


def test_top_prints_plain_lines_into_a_pipe_and_ends_after_count(ctl: Ctl, counting: FakeDaemon) -> None:
    done = ctl("top", "-interval", "0.1", "-count", "2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    assert [line[:3] for line in lines] == [["port", "r1", "p1"], ["drop", "r1", "no-route"], ["time", "r1", "ingress"]] * 2
    packets, octets = int(lines[0][3]), int(lines[0][4])
    assert 0 < packets <= STEP / 0.1 and octets == pytest.approx(packets * 100, rel=0.05)
    assert len(counting.seen) == 3


def test_top_without_a_daemon_at_the_start_is_an_error(ctl: Ctl, daemon: FakeDaemon) -> None:
    assert ctl("top", "-count", "1", env={"POLYCUBECTL_URL": "unix:///nowhere/d.sock"}).returncode == 1
    daemon.answers["GET metrics"] = (503, "starting")
    done = ctl("top", "-count", "1")
    assert done.returncode == 1 and "503" in done.stderr


def test_top_goes_on_when_the_daemon_is_away_and_comes_back(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> None:
    daemon = FakeDaemon(tmp_path_factory.mktemp("top") / "d.sock")
    daemon.answers["GET metrics"] = lambda seen: metrics(STEP * len(daemon.seen))
    server, thread = serve(daemon)
    top = subprocess.Popen(
        [*COMMAND, "top", "-interval", "0.05"],
        env={**environment, "POLYCUBECTL_URL": daemon.url}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert top.stdout is not None
    try:
        assert top.stdout.readline().startswith("port r1 p1")
        server.should_exit = True
        thread.join(30)
        while not top.stdout.readline().startswith("daemon away"):
            pass
        server, thread = serve(daemon)
        while not (line := top.stdout.readline()).startswith("port r1 p1"):
            assert line
        top.send_signal(signal.SIGINT)
        assert top.wait(30) == 0
    finally:
        top.kill()
        top.wait()
        top.stdout.close()
        server.should_exit = True
        thread.join(30)


def test_top_redraws_on_a_terminal_and_gives_the_cursor_back(counting: FakeDaemon, environment: dict[str, str]) -> None:
    outer, inner = pty.openpty()
    top = subprocess.Popen(
        [*COMMAND, "top", "-interval", "0.1", "-count", "3"],
        env={**environment, "POLYCUBECTL_URL": counting.url}, stdin=inner, stdout=inner,
    )  # fmt: skip
    os.close(inner)
    shown, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline and select.select([outer], [], [], 20)[0]:
        try:
            part = os.read(outer, 4096)
        except OSError:  # the other side has closed
            break
        shown += part
    os.close(outer)
    assert top.wait(30) == 0
    text = shown.decode()
    assert text.count("\033[H") == 3 and "RX pps" in text and "no-route" in text and "p1" in text and "ns/packet" in text
    assert text.index("\033[?25l") < text.index("\033[?25h")


def test_the_metrics_are_asked_for_by_path(ctl: Ctl, counting: FakeDaemon) -> None:
    ctl("top", "-interval", "0.05", "-count", "1")
    assert all(isinstance(seen, Seen) and (seen.method, seen.path) == ("GET", "metrics") for seen in counting.seen)
