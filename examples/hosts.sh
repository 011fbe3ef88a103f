# SPDX-License-Identifier: Apache-2.0
# For the examples, sourced first: enters a private world with a running polycubed (tools/lab), and makes hosts there.

[ -n "${POLYCUBE_LAB:-}" ] || exec "$(dirname "$0")/../../tools/lab" "$0" "$@"
set -eu

# host NAME ADDRESS... [via GATEWAY...]: a namespace whose interface eth0 is joined to netdev to_NAME
host() {
	local name=$1 verb=address
	shift
	ip netns add "$name"
	ip link add "to_$name" type veth peer name eth0 netns "$name"
	ip link set "to_$name" up
	ip -n "$name" link set lo up
	ip -n "$name" link set eth0 up
	while [ $# -gt 0 ]; do
		case $verb:$1 in
		*:via) verb=via ;;
		via:*) ip -n "$name" route add default via "$1" ;;
		address:*:*) ip -n "$name" address add "$1" dev eth0 nodad ;;
		*) ip -n "$name" address add "$1" dev eth0 ;;
		esac
		shift
	done
}

# show COMMAND...: runs a command as one would type it
show() {
	echo "\$ $*"
	"$@"
}

# ping_from HOST ADDRESS: four pings, all of which must be answered
ping_from() {
	pings "$@"
	[[ $answer == *" 0% packet loss"* ]]
}

# no_ping_from HOST ADDRESS: four pings, none of which may be answered
no_ping_from() {
	pings "$@"
	[[ $answer == *" 100% packet loss"* ]]
}

pings() {
	echo "\$ ip netns exec $1 ping -c 4 -i 0.2 -W 1 $2"
	answer=$(ip netns exec "$1" ping -c 4 -i 0.2 -W 1 "$2" | grep -E 'received|^rtt')
	echo "$answer"
}
