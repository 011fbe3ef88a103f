#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two hosts and a helloworld between them: it drops, forwards, or hands frames to its control plane.
. "$(dirname "$0")/../hosts.sh"

host h1 10.0.0.1/24
host h2 10.0.0.2/24

show polycubectl helloworld add hello1
show polycubectl hello1 ports add p1 peer=to_h1
show polycubectl hello1 ports add p2 peer=to_h2

echo "It drops by default:"
no_ping_from h1 10.0.0.2

show polycubectl hello1 set action=FORWARD
ping_from h1 10.0.0.2

echo "In the slow path frames end in user space, where this service only logs them:"
show polycubectl hello1 set action=SLOWPATH
no_ping_from h1 10.0.0.2
grep 'hello1' /run/lab/polycubed.log | tail -n 2

show polycubectl del hello1
