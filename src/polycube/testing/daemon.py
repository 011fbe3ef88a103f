# SPDX-License-Identifier: Apache-2.0
"""A real polycubed for end-to-end tests: all its files in a folder of the test, killed, restarted and rebooted at will.

To be used in an isolated process (isolation.py). `rest` talks to it in this process, `ctl` runs polycubectl. When it is closed, its log
must hold no traceback that the test did not announce, and nothing of it stays: processes, pins, internal netdevs.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from polycube.bpf import pin
from polycube.testing.hosts import DEADLINE, eventually, reboot

BASE = "/polycube/v1/"
BPFFS = Path("/sys/fs/bpf/polycube")
START = 90.0  # seconds; the first one compiles
_COMPILER, _FORK_SERVER = "polycube.compiler.process", "polycube.core.zygote"


@dataclass(frozen=True)
class Answer:
    """What the daemon answered; `data` is the decoded JSON, or the text if it is none."""

    status: int
    data: Any

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.data if isinstance(self.data, str) else json.dumps(self.data)


@dataclass(frozen=True)
class Output:
    """What polycubectl said."""

    status: int
    out: str
    err: str


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """Runs a daemon; a context manager.

    `arguments` are further options ("--no-tcx"), `environment` further variables (PYTHONPATH, for a daemon from another copy of the
    package), `cache` a folder of compiled units to share.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cache: Path | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        bpffs: Path = BPFFS,
    ) -> None:
        self.folder = folder
        self.socket = folder / "polycubed.sock"
        self.store = folder / "polycube.db"
        self.logfile = folder / "polycubed.log"
        self.pidfile = folder / "polycubed.pid"
        self.cache = cache or folder / "cache"
        self.bpffs = bpffs
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.tracebacks_allowed = False  # set by tests of services that fail
        self._process: subprocess.Popen[str] | None = None
        self._output: list[str] = []
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    # ---- its life ----

    @property
    def pid(self) -> int:
        assert self._process, "the daemon does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        files = {
            "socket": self.socket,
            "store": self.store,
            "cache": self.cache,
            "pidfile": self.pidfile,
            "logfile": self.logfile,
            "bpffs": self.bpffs,
            "configfile": "/dev/null",
            "port": 0,
        }
        options = [f"--{name}={value}" for name, value in files.items()]
        return [sys.executable, "-m", "polycube.daemon.main", *options, *self.arguments]

    def launch(self) -> None:
        """Starts the process and returns at once."""
        assert not self.running, "the daemon runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ready.clear()
        self._output = []
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **self.environment}
        self._process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd="/"
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def start(self) -> Self:
        """Starts it and waits until it answers requests."""
        self.launch()
        if not self._ready.wait(START) or not any("polycubed is ready" in line for line in self._output):
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGABRT)  # has it say where it stands
            self.kill()
            raise AssertionError("the daemon did not start:\n" + "".join(self._output[-60:]))
        return self

    def refuses(self) -> str:
        """Starts a daemon that is expected to end at once, in failure; returns the last thing it said."""
        self.launch()
        assert self._process and self._reader
        try:
            status = self._process.wait(START)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the daemon started, though it should not have") from None
        self._reader.join(DEADLINE)
        self._process = None
        assert status == 1, f"exit status {status}:\n" + "".join(self._output[-60:])
        return self._output[-1].rstrip("\n") if self._output else ""

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                self._output.append(line)
                if "polycubed is ready" in line:
                    self._ready.set()
        self._ready.set()  # it ended: whoever waits learns it

    def stop(self) -> None:
        """Asks it to end, which must go well; traffic goes on."""
        if self._process is None:
            return
        children = self.descendants()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(DEADLINE * 3)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the daemon does not end when asked to") from None
        self._end(children)
        assert status == 0, f"the daemon ended with status {status}:\n" + "".join(self._output[-60:])

    def kill(self) -> None:
        """SIGKILL; returns when its other processes are gone, too, which they must be by themselves."""
        if self._process is None:
            return
        children = self.descendants()
        self._process.kill()
        self._process.wait(DEADLINE)
        self._end(children)

    def restart(self) -> Self:
        """Ends it and starts it again."""
        self.stop()
        return self.start()

    def crash(self) -> Self:
        """Kills it and starts it again."""
        self.kill()
        return self.start()

    def wipe(self) -> None:
        """What a reboot does to the kernel: pins, internal netdevs and cubes' namespaces are gone. To be called while it does not run."""
        assert not self.running
        if self.bpffs.exists():
            pin.remove(self.bpffs)
        reboot()

    def close(self) -> None:
        """Ends it and leaves nothing of it."""
        try:
            if self.running:
                self.stop()
            else:
                self.kill()
        finally:
            self.wipe()
        if not self.tracebacks_allowed:
            assert "Traceback" not in self.log(), self.log()[self.log().index("Traceback") - 300 :][:4000]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        with suppress(AssertionError):
            self.close()

    # ---- its processes ----

    def processes(self) -> dict[str, int]:
        """Its other processes by name: a worker by its service (up to 11 letters of it), and "compiler" and "fork server"."""
        found = {}
        for pid in self.descendants():
            command = _read(pid, "cmdline").replace("\0", " ")
            comm = _read(pid, "comm").strip()
            if comm.startswith("pcn-"):
                found[comm.removeprefix("pcn-")] = pid
            elif _COMPILER in command:
                found["compiler"] = pid
            elif _FORK_SERVER in command:
                found["fork server"] = pid
        return found

    def descendants(self) -> list[int]:
        """All processes that it has begun, and theirs."""
        if self._process is None:
            return []
        parents: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                status = re.search(r"^PPid:\s*(\d+)", _read(int(entry), "status"), re.M)
                parents.setdefault(int(status[1]) if status else 0, []).append(int(entry))
        found: list[int] = []
        waiting = [self._process.pid]
        while waiting:
            children = parents.get(waiting.pop(), [])
            found += children
            waiting += children
        return found

    def _end(self, children: Sequence[int]) -> None:
        """Waits for the daemon's other processes; one that stays is killed, and a failure."""
        late = []
        for pid in children:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if not select.select([handle], [], [], DEADLINE)[0]:
                    late.append(_read(pid, "cmdline").replace("\0", " "))
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], DEADLINE)
            finally:
                os.close(handle)
        if self._reader:
            self._reader.join(DEADLINE)
        self._process = None
        assert not late, f"these processes outlived their daemon: {late}"

    # ---- talking to it ----

    def rest(self, method: str, path: str, body: Any = None, *, timeout: float = 60.0) -> Answer:
        """One request, below /polycube/v1/; `body` becomes JSON. A path that begins with a cube's name is followed to its service."""
        connection = UnixConnection(self.socket, timeout)
        try:
            target = BASE + path.lstrip("/")
            for _ in range(3):
                data = None if body is None else json.dumps(body)
                connection.request(method, target, data, {"Content-Type": "application/json"})
                response = connection.getresponse()
                raw = response.read().decode()
                if response.status != 308:
                    break
                target = response.headers["Location"]
        finally:
            connection.close()
        try:
            return Answer(response.status, json.loads(raw))
        except ValueError:
            return Answer(response.status, raw)

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """A request that must succeed; its data."""
        answer = self.rest(method, path, body)
        assert answer.ok, f"{method} {path}: {answer.status} {answer.text}"
        return answer.data

    def get(self, path: str) -> Any:
        """What is there, without links."""
        return _bare(self.do("GET", path))

    def post(self, path: str, body: Any = None) -> Any:
        return self.do("POST", path, {} if body is None else body)

    def patch(self, path: str, body: Any) -> Any:
        return self.do("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self.do("DELETE", path)

    def ctl(self, line: str, *, check: bool = True) -> Output:
        """Runs polycubectl: `ctl("br1 ports add p1 peer=v1")`."""
        done = subprocess.run(
            [sys.executable, "-m", "polycube.cli.main", *shlex.split(line)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "POLYCUBECTL_URL": f"unix://{self.socket}", "NO_COLOR": "1"},
        )
        output = Output(done.returncode, done.stdout, done.stderr)
        assert not check or done.returncode == 0, f"polycubectl {line}: {output.err or output.out}"
        return output

    # ---- looking at it ----

    def log(self) -> str:
        """Everything logged by all runs."""
        return self.logfile.read_text() if self.logfile.exists() else ""

    def logged(self, text: str, since: int = 0) -> str:
        """Waits for a line of the log that holds the text; `since` is a length of the log at an earlier moment."""
        return eventually(
            lambda: next((line for line in self.log()[since:].splitlines() if text in line), ""), f"a line with {text!r} in the log"
        )

    def metrics(self) -> dict[str, float]:
        """Metrics by name and labels in alphabetical order: `polycube_port_rx_packets_total{cube="br1",port="p1",…}`."""
        text = self.rest("GET", "metrics").text
        return {name: float(value) for name, value in re.findall(r"^([a-z]\S*(?:\{.*\})?) (\S+)$", text, re.M)}

    def counter(self, cube: str, port: str, name: str) -> int:
        """One of a port's counters: rx_packets, tx_packets, rx_bytes, tx_bytes."""
        wanted = f'polycube_port_{name}_total{{cube="{cube}",port="{port}"'
        return int(next(value for key, value in self.metrics().items() if key.startswith(wanted)))

    def drops(self, cube: str) -> dict[str, int]:
        """Drop counters of a cube that are not zero, by reason."""
        found = {}
        for key, value in self.metrics().items():
            label = re.fullmatch(rf'polycube_cube_drops_total{{cube="{cube}",reason="([^"]+)".*}}', key)
            if label:
                found[label[1]] = int(value)
        return found

    def pins(self, *, fused: bool = False) -> set[str]:
        """What is pinned, by path below the daemon's folder; fused units, which come and go by themselves, only if asked for."""
        found = set()
        for folder, folders, files in os.walk(self.bpffs):  # which may change meanwhile
            place = Path(folder).relative_to(self.bpffs)
            found |= {str(place / name) for name in (*folders, *files)}
        return found if fused else {path for path in found if Path(path).parts[0] != "fused"}


def _bare(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _bare(value) for key, value in data.items() if key != "_links"}
    return [_bare(value) for value in data] if isinstance(data, list) else data


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""
