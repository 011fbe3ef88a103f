# SPDX-License-Identifier: Apache-2.0
"""What `make demo` shows: a chain of cubes carries traffic, and goes on doing so while the daemon is dead.

Runs inside tools/lab, that is, in namespaces of its own: the machine's network is neither seen nor touched, and all is gone at the end.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

PACE = float(os.environ.get("PACE", "1"))  # 0: no pauses
BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 5
PICTURE = """
      h1 10.0.1.1 ──veth1── p1 ┌───────┐ up   lan ┌──────┐
         fd00:1::1      [th1]──┤  br1  ├──────────┤  r1  │ wan
      h2 10.0.1.2 ──veth2── p2 └───────┘          └──────┴──veth3── h3 10.0.2.1
         fd00:1::2         a bridge               a router             fd00:2::1
"""
GATEWAY = {"1": ("10.0.1.254", "fd00:1::fe"), "2": ("10.0.2.254", "fd00:2::fe")}
HOSTS = {"h1": ("1", "1"), "h2": ("1", "2"), "h3": ("2", "1")}  # subnet, host
INTERVAL, COUNT = 0.002, 2500  # of the ping that counts losses


def say(text: str) -> None:
    """A heading."""
    print(f"\n{BOLD}── {text}{PLAIN}", flush=True)
    time.sleep(1.1 * PACE)


def type_in(line: str, *, show: bool = True) -> None:
    """Runs a command, shown as one would type it, and its output."""
    print(f"{DIM}${PLAIN} {line}", flush=True)
    time.sleep(0.3 * PACE)
    subprocess.run(shlex.split(line), check=True, stdout=None if show else subprocess.DEVNULL)


def quiet(line: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(shlex.split(line), check=True, capture_output=True, text=True).stdout


def inside(host: str, line: str) -> "subprocess.Popen[str]":
    """Starts a command in a host."""
    command = ["ip", "netns", "exec", host, *shlex.split(line)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def make_hosts() -> None:
    for name, (subnet, host) in HOSTS.items():
        veth = f"veth{name[1]}"
        quiet(f"ip netns add {name}")
        quiet(f"ip link add {veth} type veth peer name eth0 netns {name}")
        quiet(f"ip link set {veth} up")
        quiet(f"ip -n {name} link set eth0 up")
        quiet(f"ip -n {name} address add 10.0.{subnet}.{host}/24 dev eth0")
        quiet(f"ip -n {name} address add fd00:{subnet}::{host}/64 dev eth0 nodad")
        for gateway in GATEWAY[subnet]:
            quiet(f"ip -n {name} route add default via {gateway}")


def make_chain() -> None:
    say("A bridge with the two hosts of the left subnet")
    type_in("polycubectl simplebridge add br1")
    type_in("polycubectl br1 ports add p1 peer=veth1")
    type_in("polycubectl br1 ports add p2 peer=veth2")
    type_in("polycubectl br1 ports add up")
    say("A router with an address in each subnet, v4 and v6")
    type_in("polycubectl router add r1")
    type_in("polycubectl r1 ports add lan ip=10.0.1.254/24")
    type_in("polycubectl r1 ports lan secondaryip add fd00:1::fe/64")
    type_in("polycubectl r1 ports add wan ip=10.0.2.254/24 peer=veth3")
    type_in("polycubectl r1 ports wan secondaryip add fd00:2::fe/64")
    say("They are joined, and a transparent cube is stacked on h1's port")
    type_in("polycubectl connect br1:up r1:lan")
    type_in("polycubectl transparenthelloworld add th1")
    type_in("polycubectl attach th1 br1:p1")
    type_in("polycubectl topology show")
    time.sleep(2 * PACE)


def ping(source: str, target: str) -> None:
    line = f"ping -c 3 -i 0.2 -W 1 {target}"
    output, _ = (run := inside(source, line)).communicate()
    summary = [one for one in output.splitlines() if "received" in one or one.startswith("rtt")]
    mark = f"{GREEN}ok{PLAIN}" if run.returncode == 0 else f"{RED}failed{PLAIN}"
    print(f"{DIM}{source}${PLAIN} {line}\n{mark}  " + "; ".join(summary), flush=True)
    if run.returncode:
        sys.exit(output)


def iperf_with_top() -> None:
    say("TCP from h1 to h3, and what passes each port meanwhile: polycubectl top")
    server = inside("h3", "iperf3 --server --one-off")
    time.sleep(0.3)
    client = inside("h1", "iperf3 --client 10.0.2.1 --time 4 --json")
    time.sleep(0.5)
    type_in("polycubectl top -interval 1 -count 3")
    output, _ = client.communicate()
    server.wait(5)
    end = json.loads(output)["end"]
    print(f"iperf3: {GREEN}{end['sum_received']['bits_per_second'] / 1e9:.1f} Gbit/s{PLAIN} received by h3", flush=True)


def topology() -> str:
    return quiet("polycubectl topology show -json")


def daemon_pid() -> int:
    return int(Path("/run/lab/polycubed.pid").read_text())


def answers() -> bool:
    return subprocess.run(["polycubectl", "version"], capture_output=True).returncode == 0


def kill_and_return() -> None:
    """Returns the packets lost while the daemon was dead and came back."""
    say(f"h1 pings h3 every {INTERVAL * 1000:.0f} ms; in the middle of it the daemon is killed, and comes back")
    before, pid = topology(), daemon_pid()
    pinger = inside("h1", f"ping -q -i {INTERVAL} -c {COUNT} -W 1 10.0.2.1")
    time.sleep(1)
    print(f"{DIM}${PLAIN} kill -9 {pid}", flush=True)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    print(f"{DIM}${PLAIN} polycubectl version", flush=True)
    subprocess.run(["polycubectl", "version"], stderr=subprocess.STDOUT)
    time.sleep(1)
    start = time.monotonic()
    type_in("polycubed -d")
    while not answers():
        time.sleep(0.02)
    print(f"answers again after {time.monotonic() - start:.1f} s; traffic has not stopped", flush=True)
    output, _ = pinger.communicate()
    found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    if not found:
        sys.exit(output)
    sent, received = map(int, found.groups())
    mark = GREEN if sent == received else RED
    same = topology() == before
    print(f"\n   sent {sent}, received {received}: {mark}{sent - received} packets lost{PLAIN}")
    print(f"   topology before and after: {GREEN + 'the same' if same else RED + 'different'}{PLAIN}", flush=True)
    if sent != received or not same:
        sys.exit(1)


def main() -> None:
    print(f"{BOLD}Polycube: network functions in the kernel, chained and changed while packets flow.{PLAIN}\n{PICTURE}")
    print("h1, h2 and h3 are namespaces in a world of their own; your machine's network is not touched.", flush=True)
    make_hosts()
    make_chain()
    say("Through bridge and router, IPv4 and IPv6")
    ping("h1", "10.0.1.2")
    ping("h1", "10.0.2.1")
    ping("h2", "fd00:2::1")
    iperf_with_top()
    say("A change takes effect at once: the transparent cube drops what h1 sends")
    type_in("polycubectl th1 set ingress-action=DROP")
    dropped, _ = inside("h1", "ping -c 3 -i 0.2 -W 1 10.0.2.1").communicate()
    print("   " + next(line for line in dropped.splitlines() if "transmitted" in line))
    type_in("polycubectl th1 set ingress-action=PASS")
    kill_and_return()
    say("The chain is taken down again")
    for cube in ("th1", "r1", "br1"):
        type_in(f"polycubectl del {cube}")
    print(f"""
{BOLD}What to try next{PLAIN}
   make shell                    a shell in such a private world: polycubectl ? leads on
   examples/03-router/run.sh     this chain in twenty lines of shell; more beside it
   less docs/quickstart.md       the same step by step, then docs/writing-a-cube.md for a function of your own""")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; everything is cleaned up")
    except subprocess.CalledProcessError as error:
        sys.exit(f"\n{shlex.join(error.cmd)} failed: {error.stderr or error.returncode}")
