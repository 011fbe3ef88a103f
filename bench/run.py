# SPDX-License-Identifier: Apache-2.0
"""`make bench`: everything that is measured, in one run, as a Markdown table with aim and figure side by side.

    python bench/run.py [--quick] [packets|tcp|latency|paired|control|SERVICE ...]

A service's comparison with its peers is a module `services/SERVICE.py` with `measure(folder, quick)`.

Needs root, clang and iperf3; runs in namespaces of its own and leaves nothing behind but bench/out/ (bench.md, bench.json, bench.svg). Only
ratios within a run mean something: the machine's speed changes from minute to minute. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import importlib
import json
import os
import pickle
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import chart
from figures import Found, Row, compared

from polycube.testing.isolation import isolate

OUT = Path(__file__).parent / "out"
NEWPID, PR_SET_PDEATHSIG = 0x20000000, 1
SERVICES = tuple(sorted(path.stem for path in (Path(__file__).parent / "services").glob("[a-z]*.py")))
PARTS = ("packets", "tcp", "latency", "paired", "control", *SERVICES)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    clang = subprocess.run([os.environ.get("CLANG", "clang"), "--version"], capture_output=True, text=True).stdout.splitlines()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{cpu}, {os.cpu_count()} CPUs",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "clang": clang[0] if clang else "none",
        "load": f"{os.getloadavg()[0]:.1f} when it began",
    }


def traffic(parts: Iterable[str], folder: Path, quick: bool) -> Found:
    """What goes between namespaces."""
    import rates

    from polycube.testing.daemon import Daemon

    rounds = 3 if quick else 9
    rows: list[Row] = []
    with Daemon(folder, cache=cache()) as daemon, rates.subjects(daemon) as made:
        by = {subject.name: subject for subject in made}
        if "packets" in parts:
            rates.packet_rates(made, rounds)
            for kind, xdp, tc in (("bridge", 4.0, 1.5), ("router", 2.5, None)):
                linux, cube = by[f"Linux {kind}"].packets, by[f"{kind} cube, XDP"].packets
                rows.append(compared(f"{kind}, XDP, 64 B packets: cube to Linux", cube, linux, xdp))
                rows.append(compared(f"{kind}, TC, 64 B packets: cube to Linux", by[f"{kind} cube, TC"].packets, linux, tc))
                rows.append(compared(f"{kind}, XDP, 64 B packets: cube to hand-written", cube, by[f"{kind} by hand, XDP"].packets))
        if "tcp" in parts:
            rates.tcp_rates(made, 2 if quick else 11)
            for kind, aim in (("bridge", 1.2), ("router", None)):
                linux = by[f"Linux {kind}"].tcp
                rows.append(compared(f"{kind}, TC, TCP with offloads: cube to Linux", by[f"{kind} cube, TC"].tcp, linux, aim))
                rows.append(compared(f"{kind}, XDP, TCP: cube to Linux", by[f"{kind} cube, XDP"].tcp, linux))
        if "latency" in parts:
            rates.round_trips(made, 2 if quick else 7)
            for kind in ("bridge", "router"):
                linux = [statistics.median(one) for one in by[f"Linux {kind}"].round_trips]
                for hook in ("TC", "XDP"):
                    trips = by[f"{kind} cube, {hook}"].round_trips
                    middle = [statistics.median(one) for one in trips]
                    row = compared(f"{kind}, {hook}, UDP round trip: cube to Linux (less is better)", middle, linux)
                    last = statistics.median(sorted(one)[len(one) * 99 // 100] for one in trips) / 1000
                    rows.append(Row(row.what, row.figure, f"{row.spread}; {statistics.median(middle) / 1000:.1f} µs, p99 {last:.1f} µs"))
    return rows, {
        "subjects": [asdict(subject) | {"round_trips": [statistics.median(one) for one in subject.round_trips]} for subject in made]
    }


def paired(quick: bool) -> Found:
    """What the framework costs in the processor."""
    import paired as pairs

    found = pairs.measure(runs=10, repeat=200_000, calls=60) if quick else pairs.measure()
    rows = [
        Row(
            f"{one.name}, XDP, test run: speed of the cube to hand-written",
            one.ratio,
            f"95 %: {one.low:.3f} to {one.high:.3f}; {one.cube:.0f} and {one.by_hand:.0f} ns",
            aim="≥ 0.95",
            met=one.ratio >= 0.95,
        )
        for one in found
    ]
    return rows, {"paired": [asdict(one) for one in found]}


def control(folder: Path, quick: bool) -> Found:
    """Requests and memory."""
    import control as requests

    from polycube.testing.daemon import Daemon

    with Daemon(folder, cache=cache()) as daemon:
        found = requests.measure(daemon, 20 if quick else 100)
    rows = [
        Row(f"{what}, by REST", 1000 * len(times) / sum(times), f"median {statistics.median(times):.2f} ms, p99 {last(times):.1f} ms", "/s")
        for what, times in found.requests.items()
    ]
    rows += [
        Row(f"{command}: start to exit", middle := statistics.median(times), f"p99 {last(times):.0f} ms", "ms", "< 60 ms", middle < 60)
        for command, times in found.commands.items()
    ]
    rows.append(Row("start of a daemon without cubes", found.start_seconds, "", "s"))
    rows.append(Row(f"CPU of a daemon with {requests.FEW} cubes that is asked nothing", found.idle_cpu, "all its processes", "%"))
    rows.append(Row("memory of a daemon without cubes (PSS)", found.empty_pss, "", "MB"))
    for what, times, aim in (
        ("create a cube", found.create, 30),
        ("add a port", found.port, 10),
        ("connect two ports", found.connect, 10),
        ("delete a cube", found.delete, None),
        (f"create a cube, up to {requests.MANY}", found.create_many, None),
        (f"connect two ports among {requests.MANY} cubes", found.connect_many, None),
    ):
        middle = statistics.median(times)
        spread = f"p99 {last(times):.1f} ms"
        rows.append(Row(f"{what}, by REST", middle, spread, "ms", f"≤ {aim} ms" if aim else "", middle <= aim if aim else None))
    rows.append(Row(f"{requests.MANY} cubes: time to create", found.many_seconds, "", "s"))
    rows.append(Row(f"{requests.MANY} cubes: time to restart after SIGKILL", found.restart_seconds, "", "s"))
    sizes = f"RSS {found.rss:.0f} MB in {found.processes} processes"
    rows.append(Row(f"{requests.MANY} cubes: memory of daemon and workers (PSS)", found.pss, sizes, "MB", "< 300 MB", found.rss < 300))
    return rows, {"control": asdict(found)}


def last(times: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(times)[len(times) * 99 // 100]


def cache() -> Path:
    """Compiled units; kept between runs, so that only the first one compiles."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polycube-bench"


def report(about: dict[str, Any], rows: Sequence[Row]) -> str:
    head = "".join(f"- {name}: {value}\n" for name, value in about.items())
    lines = "\n".join(map(str, rows))
    return f"{head}\n| what | figure | spread | aim | met |\n|---|---|---|---|---|\n{lines}\n"


def measured(part: str, folder: Path, quick: bool, parts: Sequence[str]) -> Found:
    if part == "paired":
        return paired(quick)
    if part == "control":
        return control(folder, quick)
    if part in SERVICES:
        found: Found = importlib.import_module(f"services.{part}").measure(folder, quick)
        return found
    return traffic(parts, folder, quick)


def contained() -> None:
    """Goes on in a child with process ids and a file system of its own for what is written: however this ends, all of it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWPID):
        raise OSError(ctypes.get_errno(), "unshare: benchmarks need root")
    child = os.fork()
    if child:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(child, number))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    isolate()
    for kind, place in ((b"proc", b"/proc"), (b"tmpfs", b"/mnt")):
        if libc.mount(kind, place, kind, 0, None):
            raise OSError(ctypes.get_errno(), f"mount {place.decode()}")


def apart(group: Sequence[str], quick: bool) -> Found | None:
    """Measures some parts in a world of their own, of which nothing is left for the next; None: it failed, and said why."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        contained()
        try:
            with tempfile.TemporaryDirectory(dir="/mnt") as folder:
                found = measured(group[0], Path(folder), quick, group)
            with os.fdopen(writing, "wb") as file:
                pickle.dump(found, file)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return pickle.loads(answer) if answer else None


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measures cubes beside Linux and beside hand-written programs.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = arguments.parts or PARTS
    about = machine()
    rows: list[Row] = []
    data: dict[str, Any] = {"machine": about}
    failed: list[str] = []
    for group in [["packets", "tcp", "latency"], *([part] for part in PARTS[3:])]:
        wanted = [part for part in group if part in parts]
        if not wanted:
            continue
        print(f"measuring {', '.join(wanted)} …", file=sys.stderr, flush=True)
        found = apart(wanted, arguments.quick)
        if found is None:
            failed += wanted
        else:
            rows += found[0]
            data |= found[1]
    data["rows"] = [asdict(row) for row in rows]
    text = report(about, rows)
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.md").write_text(text)
    (OUT / "bench.json").write_text(json.dumps(data, indent=1))
    (OUT / "bench.svg").write_text(chart.bars([(row.what, row.figure, row.aim) for row in rows if row.unit == "times"]))
    print(text)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
