# SPDX-License-Identifier: Apache-2.0
"""A service (`sampler`) that does whatever a test needs done, good or bad, and what surrounds it: its object, its instances."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polycube
from polycube.core.cube import PortFacts
from polycube.core.message import Instance

INCLUDE = Path(polycube.__file__).parent / "include"
TARGET = "sampler.cube:Sampler"

SOURCE = """
#include <polycube/cube.h>

struct sampler_key { __u32 vlan; __u8 mac[6]; __u16 pad; };
struct sampler_value { __u64 seen; __u16 ports[2]; };

MAP(table, HASH, struct sampler_key, struct sampler_value, 64);
MAP(numbers, ARRAY, __u32, __u32, 8);
MAP(counts, PERCPU_ARRAY, __u32, __u64, 4);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} slowpath SEC(".maps");

CFG(__u32, limit);
CFG(__u32, pcn_cube);

/* Puts the frame it gets into the slow path, as the framework's units do. */
SEC("tc") int punt(struct __sk_buff *ctx)
{
	struct { struct pcn_event event; char data[64]; } record = {};
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);

	if (count)
		*count += limit + pcn_cube;
	bpf_map_lookup_elem(&numbers, &key);
	bpf_map_lookup_elem(&table, &record);
	record.event.len = record.event.caplen = 64;
	record.event.port = 1;
	record.event.reason = 7;
	if (bpf_skb_load_bytes(ctx, 0, record.data, 64))
		return 2;
	return bpf_ringbuf_output(&slowpath, &record, sizeof(record), 0) ? 0 : 1;
}

char _license[] SEC("license") = "GPL";
"""

CUBE = '''
import asyncio
import ctypes
import os
import signal
import time

from polycube.core.config import Port, StandardCube
from polycube.core.cube import Cube, action, every, stream
from polycube.model import Action, Edit, Keyed, Node, Op, container, key, leaf, listing, state
from polycube.model.errors import Tag, problem


class Entry(Node):
    vlan: int = key("VLAN")
    seen: int = leaf("Times", default=0)
    wipe = Action("Wipes the entry")


class Said(Node):
    text: str = leaf("What was said")


class SamplerConfig(StandardCube):
    limit: int = leaf("Limit", default=5)
    mood: str = leaf("What to do", default="good")
    entry: Keyed[Entry] = listing("Entries")
    say = Action("Says something", input=Said, output=Said)
    obey = Action("Does what it is told", input=Said)
    flow = Action("Flows", media="text/plain")


class Sampler(Cube[SamplerConfig]):
    """Does what it is told."""

    config = SamplerConfig

    def __init__(self, *args):
        super().__init__(*args)
        self.got = []
        self.started = False
        self.ticks = 0
        self.shown = []

    def apply(self, change):
        self.do(change.new.mood)
        if change.changed("limit"):
            self.cfg["limit"] = change.new.limit
            self.maps["numbers"][0] = change.new.limit
        for entry in change.removed("entry"):
            del self.maps["table"][self.row(entry)]
        for entry in [*change.added("entry"), *(new for _, new in change.changed("entry"))]:
            self.maps["table"][self.row(entry)] = {"seen": entry.seen, "ports": [1, 2]}

    def row(self, entry):
        return {"vlan": entry.vlan, "mac": b"\\x02\\0\\0\\0\\0\\x01"}

    def facts(self, changed):
        for name in changed:
            self.maps["numbers"][1 + self.ports[name].number] = self.ports[name].id

    def state(self):
        self.do(self.current.mood)
        return {
            "got": self.got, "started": self.started, "limit": self.current.limit, "ports": sorted(self.ports),
            "ticks": self.ticks, "parent": self.parent, "pid": os.getpid(),
        }

    def forget(self, path, key):
        return (path, key) == ("entry", (1, "a"))

    async def start(self):
        self.started = True
        self.do("start" + self.current.mood)

    async def packet(self, packet):
        if self.current.mood == "bad packet":
            raise ZeroDivisionError("nothing to divide")
        await asyncio.sleep(0)
        self.got.append([packet.reason, packet.port.name if packet.port else None, len(packet.data)])
        del self.got[:-20]

    @every(0.02)
    async def tick(self):
        self.ticks += 1
        if self.current.mood == "bad timer":
            raise ZeroDivisionError("no time")

    @stream("flow")
    def flow(self, connected):
        connected.sendall(b"what flows")
        self.reader = connected

    @action("say")
    async def say(self, said):
        await asyncio.sleep(0)
        return Said(text=said.text.upper())

    @action("entry/wipe")
    def wipe(self, vlan):
        return {"wiped": vlan}

    @action("obey")
    async def obey(self, said):
        if said.text == "edit":
            await self.edit([Edit(Op.MERGE, ("limit",), 77)])
        elif said.text == "wait":
            await asyncio.sleep(600)
        elif said.text == "log":
            self.log.info("said something", number=3)
            self.log.debug("said too much")
        elif said.text == "print":
            os.write(2, b"words on stderr\\n")
        elif said.text == "flood the log":
            for number in range(100000):
                self.log.error("again and again", number=number)
        elif said.text.startswith("send "):
            self.send(1, bytes(int(said.text[5:])))
        else:
            self.do(said.text)

    def do(self, mood):
        if mood in ("raise", "startbroken"):
            raise ZeroDivisionError("division by zero")
        if mood == "refuse":
            raise problem(Tag.INVALID_VALUE, ("limit",), "is not to my taste")
        if mood == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if mood == "segfault":
            ctypes.string_at(0)
        if mood == "hang":
            while True:
                time.sleep(1)
        if mood == "burn":
            end = time.process_time() + 1
            while time.process_time() < end:
                pass
        if mood == "leak":
            self.leaked = [bytearray(b"x" * (1 << 20)) for _ in range(100)]
'''


def write_service(folder: Path) -> Path:
    """Lays the service out in a folder that is put onto sys.path; returns the compiled object."""
    package = folder / "sampler"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cube.py").write_text(CUBE)
    sys.path.insert(0, str(folder))
    return compile_object(folder, SOURCE)


def compile_object(folder: Path, source: str) -> Path:
    """A loadable object from C."""
    path, result = folder / "sampler.bpf.c", folder / "sampler.tc.o"
    path.write_text(textwrap.dedent(source))
    flags = ["-O2", "-g", "-target", "bpfel", "-mcpu=v3", "-DPCN_TC", f"-I{INCLUDE}"]
    flags.append(f"-idirafter/usr/include/{sysconfig.get_config_var('MULTIARCH')}")
    subprocess.run([os.environ.get("CLANG", "clang"), *flags, "-c", str(path), "-o", str(result)], check=True)
    return result


def port(number: int, **more: Any) -> PortFacts:
    return PortFacts(name=f"port{number}", number=number, id=100 + number, up=True, **more)


def instance(uuid: str, built: Path, pins: Path, *, ports: int = 2, number: int = 3, **config: Any) -> Instance:
    body: Mapping[str, Any] = {"name": uuid, "ports": [{"name": f"port{i}"} for i in range(ports)], **config}
    return Instance(uuid, uuid, number, body, tuple(port(i) for i in range(ports)), {"tc": built}, pins / uuid)
