# SPDX-License-Identifier: Apache-2.0
"""`polycubectl top`: packets and bytes per second of every port, by the difference of two readings of the metrics; and of cubes with
`timing=true` what a packet takes in their handlers.

On a terminal the picture is drawn over the last one, busiest port first. In a pipe each reading is a block of lines to
be cut at spaces: `port CUBE PORT rx-packets/s rx-bytes/s tx-packets/s tx-bytes/s`, `drop CUBE REASON packets/s` and
`time CUBE HANDLER packets/s nanoseconds/packet`.
A daemon that goes away is waited for; the counters live in the kernel, so the first rates after its return are the
averages of the whole gap.
"""

from __future__ import annotations

import os
import sys
import time

from polycube.cli.client import Client
from polycube.cli.errors import EXIT_OK, SyntaxProblem, Unreachable
from polycube.cli.grammar import is_digits, is_number
from polycube.cli.render import Paint, cell, paint_for, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from polycube.cli.config import Config

    Key = tuple[str, str, str]  # "port", "drop" or "time"; cube; port, reason or handler
    Sample = dict[Key, list[float]]

USAGE = "Bad syntax, usage: top [-interval SECONDS] [-count N]"
KINDS = {  # the label that tells one from the others, and the counters
    "port": ("port", [f"polycube_port_{name}_total" for name in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")]),
    "drop": ("reason", ["polycube_cube_drops_total"]),
    "time": ("handler", [f"polycube_cube_handler_{name}_total" for name in ("packets", "seconds")]),
}
COUNTERS = {name: (kind, label, place, len(names)) for kind, (label, names) in KINDS.items() for place, name in enumerate(names)}
COLUMNS = {
    "port": ["CUBE", "PORT", "RX pps", "RX B/s", "TX pps", "TX B/s"],
    "drop": ["CUBE", "DROP REASON", "pps"],
    "time": ["CUBE", "HANDLER", "pps", "ns/packet"],
}
TIMEOUT = 5.0


def is_top(arguments: list[str]) -> bool:
    """Whether it is the live view, and not a path of a cube that happens to be called "top"."""
    return arguments[:1] == ["top"] and (len(arguments) == 1 or arguments[1].startswith("-"))


def parse(arguments: list[str]) -> tuple[float, int]:
    """Interval in seconds and number of readings (0: until interrupted)."""
    interval, count = 1.0, 0
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("-") else [word])]
    while words:
        flag, *words = words
        value = words.pop(0) if words else ""
        if flag == "-interval" and is_number(value) and 0.01 <= float(value) <= 86400:
            interval = float(value)
        elif flag == "-count" and is_digits(value) and int(value) > 0:
            count = int(value)
        else:
            raise SyntaxProblem(USAGE)
    return interval, count


def run(config: Config, arguments: list[str]) -> int:
    interval, count = parse(arguments)
    client = Client(config, TIMEOUT)
    live = sys.stdout.isatty()
    before, since = read(client), time.monotonic()  # a daemon that is not there at the start is an error
    beat, shown = since, 0
    try:
        if live:
            sys.stdout.write("\033[?25l\033[2J")
        while not count or shown < count:
            beat = max(beat + interval, time.monotonic() - interval)
            time.sleep(max(0.0, beat - time.monotonic()))
            away, rates = "", {}
            try:
                now, at = read(client), time.monotonic()
                rates = difference(before, now, at - since)
                before, since = now, at
            except Unreachable as error:
                away = str(error)
            sys.stdout.write(picture(rates, away, client.target.url) if live else block(rates, away))
            sys.stdout.flush()
            shown += 1
    except KeyboardInterrupt:
        pass
    finally:
        if live:
            sys.stdout.write("\033[?25h\n")
    return EXIT_OK


def read(client: Client) -> Sample:
    response = client.request("GET", "metrics")
    if not response.ok:
        raise Unreachable(f"polycubed gives no metrics ({response.status} {response.reason})")
    return parse_metrics(response.text)


def parse_metrics(text: str) -> Sample:
    """The counters of ports, drops and handlers out of the Prometheus text format."""
    sample: Sample = {}
    for line in text.splitlines():
        name, brace, rest = line.partition("{")
        if not brace or name not in COUNTERS:
            continue
        labels, value = parse_labels(rest)
        if value is None:
            continue
        kind, label, place, size = COUNTERS[name]
        sample.setdefault((kind, labels.get("cube", ""), labels.get(label, "")), [0.0] * size)[place] += value
    return sample


def parse_labels(text: str) -> tuple[dict[str, str], float | None]:
    labels: dict[str, str] = {}
    at = 0
    while at < len(text) and text[at] != "}":
        equals = text.find('="', at)
        if equals < 0:
            return labels, None
        name, at, letters = text[at:equals].strip(", "), equals + 2, []
        while at < len(text) and text[at] != '"':
            if text[at] == "\\":
                at += 1
                letters.append("\n" if text[at : at + 1] == "n" else text[at : at + 1])
            else:
                letters.append(text[at])
            at += 1
        labels[name] = "".join(letters)
        at += 1
    try:
        return labels, float(text[at + 1 :].split()[0])
    except (ValueError, IndexError):
        return labels, None


def difference(before: Sample, now: Sample, seconds: float) -> Sample:
    """Rates. A counter that has gone back belongs to a new cube of the same name and began at 0."""
    rates: Sample = {}
    for key, values in now.items():
        earlier = before.get(key, [0.0] * len(values) if key[0] == "drop" else values)
        deltas = [value - old if value >= old else value for value, old in zip(values, earlier, strict=True)]
        rates[key] = [delta / max(seconds, 1e-6) for delta in deltas]
        if key[0] == "time":  # not seconds a second, but nanoseconds a packet
            rates[key][1] = 1e9 * deltas[1] / deltas[0] if deltas[0] else 0.0
    return rates


def block(rates: Sample, away: str) -> str:
    """Lines for a pipe."""
    if away:
        return f"daemon away: {away}\n"
    lines = []
    for (kind, cube, name), values in sorted(rates.items(), key=lambda item: (item[0][0] != "port", item[0])):
        if kind == "port" or values[0]:
            figures = " ".join(f"{value:.0f}" for value in values)
            lines.append(f"{kind} {cell(cube)} {cell(name)} {figures}\n")
    return "".join(lines)


def picture(rates: Sample, away: str, url: str) -> str:
    """A screen for a terminal."""
    paint = paint_for(sys.stdout)
    lines = [f"polycubectl top  {time.strftime('%H:%M:%S')}  {url}"]
    if away:
        lines += ["", paint.mark("daemon away", "31"), away]
    else:
        busy = sorted(rates.items(), key=lambda item: (-item[1][0] - (item[1][2:3] or [0.0])[0], item[0]))
        for kind, columns in COLUMNS.items():
            items = [(key, values) for key, values in busy if key[0] == kind and (kind == "port" or values[0])]
            if items:
                lines += ["", *section(columns, items, paint)]
        if len(lines) == 1:
            lines += ["", "no ports"]
    try:
        height = os.get_terminal_size(sys.stdout.fileno()).lines
    except OSError:
        height = 24
    if len(lines) > height > 1:
        lines = [*lines[: height - 2], f"... and {len(lines) - height + 2} lines more"]
    return "\033[H" + "\n".join(f"{line}\033[K" for line in lines) + "\033[J"


def section(columns: list[str], items: list[tuple[Key, list[float]]], paint: Paint) -> list[str]:
    rows = [dict(zip(columns, [cell(cube), cell(name), *map(human, values)], strict=True)) for (_, cube, name), values in items]
    return table(columns, rows, paint=paint)


def human(value: float) -> str:
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if not unit or value >= 99.5 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f}T"
