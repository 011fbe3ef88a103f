#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A server behind a bridge, watched and protected where its port is: a monitor of handshakes, and an alarm.
. "$(dirname "$0")/../hosts.sh"
here=$(cd "$(dirname "$0")" && pwd)

host client 10.0.0.1/24
host attacker 10.0.0.66/24
host server 10.0.0.80/24

show polycubectl simplebridge add br1
for name in client attacker server; do
	show polycubectl br1 ports add $name peer=to_$name
done
show polycubectl synflood add watch
show polycubectl watch set hold=2
show polycubectl watch thresholds set syn-rate=50
show polycubectl watch address add 10.0.0.80
show polycubectl attach watch br1:server
ping_from client 10.0.0.80

# fetch HOST: asks the server for a page
fetch() {
	echo "\$ ip netns exec $1 python -c 'fetch http://10.0.0.80/'"
	ip netns exec "$1" python -c "import urllib.request as u; u.urlopen('http://10.0.0.80/', timeout=5); print('answered')"
}

ip netns exec server python -m http.server -d /run/lab/bin 80 >/dev/null 2>&1 &
web=$!
trap 'kill $web' EXIT
for _ in $(seq 50); do ip netns exec client bash -c '</dev/tcp/10.0.0.80/80' 2>/dev/null && break; sleep 0.1; done
fetch client

# soon WORD COMMAND...: until its output holds the word
soon() {
	local word=$1
	shift
	for _ in $(seq 50); do "$@" | grep -q "$word" && break; sleep 0.2; done
	show "$@"
	"$@" | grep -q "$word"
}

echo "Connections that nobody means, 200 a second:"
ip netns exec attacker python "$here/flood.py" 10.0.0.80 600 3
soon true polycubectl watch address 10.0.0.80 show alarm
soon "syn-rate" polycubectl watch address 10.0.0.80 show alarm
soon false polycubectl watch address 10.0.0.80 show alarm
show polycubectl watch show handshakes
show polycubectl watch show stats

show polycubectl del watch
show polycubectl del br1
