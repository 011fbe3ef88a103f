#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A monitor with code of one's own, and a capture, on a port of a bridge.
. "$(dirname "$0")/../hosts.sh"

# The configuration of a direction: the code in a file, and a map of it that is swapped on reading.
path() {
	python3 -c '
import json, sys
metric = {"extraction-options": {"swap-on-read": True}, "open-metrics-metadata": {"help": "Traffic by station.", "type": "Counter"}}
configs = [{"name": "stations", "map-name": "stations", **metric}]
print(json.dumps({"ingress-path": {"name": "stations", "code": sys.stdin.read(), "metric-configs": configs}}))'
}

host h1 10.0.0.1/24
host h2 10.0.0.2/24
show polycubectl simplebridge add br1
show polycubectl br1 ports add p1 peer=to_h1
show polycubectl br1 ports add p2 peer=to_h2
show polycubectl dynmon add mon1
show polycubectl attach mon1 br1:p1

echo "The code is injected while packets flow."
here=$(dirname "$0")
path <"$here/stations.c" | polycubectl mon1 dataplane-config set
ping_from h1 10.0.0.2
show polycubectl mon1 show metrics ingress-metrics stations value
echo "It was swapped for an empty map; what came since is in the next reading."
ping_from h1 10.0.0.2
show polycubectl mon1 show open-metrics

echo "A mistake is answered with its line, and what runs goes on."
sed 's/eth->h_source/eth->source/' "$here/stations.c" | path | polycubectl mon1 dataplane-config set && exit 1
ping_from h1 10.0.0.2
polycubectl mon1 show metrics ingress-metrics stations value | grep packets

echo "A capture on the same port: into a file, and live into tcpdump."
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
show polycubectl packetcapture add cap1 capture=BIDIRECTIONAL filter="icmp" dump="$folder/trace"
show polycubectl attach cap1 br1:p1
polycubectl cap1 show stream | tcpdump -lnr - -c 2 2>/dev/null >"$folder/live" &
until polycubectl cap1 show statistics | grep -q "streams: 1"; do sleep 0.1; done
ping_from h1 10.0.0.2
until [ "$(wc -l <"$folder/live")" = 2 ] && polycubectl cap1 show statistics | grep -q "written: 8"; do sleep 0.1; done
cat "$folder/live"
show polycubectl cap1 show statistics
tcpdump -nr "$folder/trace-00001.pcapng" 2>/dev/null | grep -c echo
show polycubectl del cap1

show polycubectl mon1 dataplane-config ingress-path del
show polycubectl del mon1
show polycubectl del br1
