# SPDX-License-Identifier: Apache-2.0
"""A service under development, written by the tests: `probe`, standard or (as `watch`) transparent, does whatever it is told."""

from __future__ import annotations

from pathlib import Path

from polycube.compiler.build import build

C = """
#include <polycube/cube.h>

CFG(__u32, punted);
static const volatile __u32 third = 33; /* goes into a section of the program's own, .rodata */

HANDLER(ingress)
{
	return punted & 1 ? pcn_slowpath(pkt, 7, 11, 22, third) : %s;
}

HANDLER(egress)
{
	return punted & 2 ? pcn_slowpath(pkt, 8, 0, 0, 0) : pcn_pass(pkt);
}
"""

PYTHON = """
import os
import time

from polycube.core.config import %(kind)s
from polycube.core.cube import Cube, every
from polycube.model import leaf


class Config(%(kind)s):
    mood: str = leaf("What to do with packets, in apply, and every tenth of a second", default="log")
    punted: int = leaf("1: frames on their way in, 2: on their way out", default=1)


def act(mood):
    if mood == "crash":
        raise RuntimeError("as it was told")
    if mood == "exit":
        os._exit(3)
    if mood == "hang":
        time.sleep(1000)
    if mood == "burn":
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    if mood == "leak":
        hoard.append(bytearray(os.urandom(1) * (128 << 20)))


hoard = []


class Probe(Cube[Config]):
    "Does what it is told"

    config = Config

    def apply(self, change):
        for _, mood in change.changed("mood"):
            if mood.startswith("apply-"):
                act(mood.removeprefix("apply-"))
        for _, punted in change.changed("punted"):
            self.cfg["punted"] = punted

    @every(0.1)
    def tick(self):
        if self.current.mood.startswith("timer-"):
            act(self.current.mood.removeprefix("timer-"))

    async def packet(self, packet):
        mood, port = self.current.mood, packet.port.name if packet.port else None
        act(mood)
        marked = packet.data.partition(b"probe ")[2][:8]
        if marked:
            self.log.info("got", port=port, length=len(packet.data), reason=packet.reason, metadata=list(packet.metadata),
                          egress=packet.egress, marked=marked.decode())
        if mood == "send":
            for other in self.ports.values():
                if other.name != port:
                    self.send(other, packet.data)
        if mood == "onward":
            self.send(packet.port, packet.data, ifindex=packet.ifindex)
        if mood == "receive" and b"again" not in packet.data:
            self.receive(packet.port, packet.data.replace(b"probe one", b"probe again"), ifindex=packet.ifindex)
        if mood == "slow":
            time.sleep(0.005)
"""


def write(folder: Path) -> str:
    """Lays both services out in a folder and compiles them; returns the value of POLYCUBE_SERVICES."""
    services = {"probe": ("StandardCube", "pcn_drop(pkt, PCN_DROP_POLICY)"), "watch": ("TransparentCube", "pcn_pass(pkt)")}
    for name, (kind, otherwise) in services.items():
        place = folder / name
        place.mkdir(parents=True)
        (place / "__init__.py").write_text("")
        (place / "cube.py").write_text(PYTHON % {"kind": kind})
        (place / f"{name}.bpf.c").write_text(C % otherwise)
    build([folder])
    return ",".join(f"{name}={name}.cube:Probe" for name in services)
