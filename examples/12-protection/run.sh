#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A server behind a bridge: handshakes are watched at its port, and an attacker is stopped at the door.
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
for _ in $(seq 300); do ip netns exec client bash -c '</dev/tcp/10.0.0.80/80' 2>/dev/null && break; sleep 0.1; done
fetch client

# soon WORD COMMAND...: until its output holds the word
soon() {
	local word=$1
	shift
	for _ in $(seq 300); do "$@" | grep -q "$word" && break; sleep 0.2; done
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

echo "At the door: who sends too much is blocked for an hour, or until somebody says otherwise; the client is none of them."
show polycubectl ddosmitigator add guard
show polycubectl guard detection set threshold=50 block-time=3600
show polycubectl attach guard to_attacker
ping_from attacker 10.0.0.80
ip netns exec attacker python "$here/flood.py" 10.0.0.80 2000 1 66
soon "10.0.0.66" polycubectl guard detection show blocked
no_ping_from attacker 10.0.0.80
fetch client
show polycubectl guard detection unblock ip=10.0.0.66
ping_from attacker 10.0.0.80

echo "For good, with a list as one gets them, and then with the address that was meant:"
printf '# known for this\n10.0.0.64/30\n203.0.113.0/24\n' >/run/lab/list
show polycubectl guard feed load entries="$(cat /run/lab/list)" timeout=3600
no_ping_from attacker 10.0.0.80
show polycubectl guard feed find ip=10.0.0.66
show polycubectl guard feed unload
show polycubectl guard blacklist-src add 10.0.0.66
no_ping_from attacker 10.0.0.80
show polycubectl guard show blacklist-src
show polycubectl guard show stats

show polycubectl del guard
show polycubectl del watch
show polycubectl del br1
