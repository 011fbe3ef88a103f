# SPDX-License-Identifier: Apache-2.0
"""nat's bindings against a plain Python model: whatever hosts send, whatever comes back, whatever expires."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nat_lab import EXTERNAL, back, clear, configure, ends, out, packet, table, tcp, udp

from polycube.testing.harness import Chain, Hook
from polycube.toolkit.address import mapped

FIRST, LAST = 5000, 5003
HOSTS = {4: [f"10.0.0.{number}" for number in range(1, 5)], 6: [f"fd00::{number}" for number in range(1, 5)]}
REMOTES = {4: ["198.51.100.1", "198.51.100.2"], 6: ["2001:db8:9::1", "2001:db8:9::2"]}
PORTS = [FIRST, FIRST + 1, 80]


class Bindings:
    """What a NAT should do: a session keeps its external port, which no other session towards the same end has.

    With endpoint-independent mapping a host's port is one outside for all, and nobody else's. Which port a new session gets is the NAT's to
    choose, but its own if that is free.
    """

    def __init__(self, *, independent: bool) -> None:
        self.independent = independent
        self.sessions: dict[tuple, int] = {}  # (protocol, host, port, remote, remote port) -> external port
        self.mappings: dict[tuple, int] = {}  # (protocol, host, port) -> external port

    def free(self, session: tuple) -> set[int]:
        """External ports that a new session may get; none: the packet is dropped."""
        protocol, host, port, remote, remote_port = session
        if self.independent:
            mapping = self.mappings.get((protocol, host, port))
            if mapping is not None:
                return {mapping}
            taken = {external for (its, *_), external in self.mappings.items() if its == protocol}
        else:
            taken = {
                external
                for (its, _, _, to, to_port), external in self.sessions.items()
                if (its, to, to_port) == (protocol, remote, remote_port)
            }
        ports = set(range(FIRST, LAST + 1)) - taken
        return {port} if port in ports else ports

    def opened(self, session: tuple, external: int) -> None:
        self.sessions[session] = external
        self.mappings[session[:3]] = external

    def inside(self, protocol: str, remote: str, remote_port: int, external: int) -> tuple | None:
        """Whom an answer is for."""
        for (its, host, port, to, to_port), has in self.sessions.items():
            if (its, to, to_port, has) == (protocol, remote, remote_port, external):
                return host, port
        return None


@pytest.fixture(scope="module", params=list(Hook))
def nat(isolated, request):
    with Chain(request.param) as chain:
        yield chain.cube("nat", transparent=True)


SENT = st.tuples(
    st.just("out"), st.sampled_from(["tcp", "udp"]), st.integers(0, 3), st.sampled_from(PORTS), st.integers(0, 1), st.sampled_from([53, 80])
)
CAME = st.tuples(
    st.just("in"), st.sampled_from(["tcp", "udp"]), st.integers(FIRST, LAST), st.just(0), st.integers(0, 1), st.sampled_from([53, 80])
)
EXPIRES = st.tuples(st.just("expire"), st.just(""), st.integers(0, 20), st.just(0), st.just(0), st.just(0))


@pytest.mark.parametrize("independent", [False, True], ids=["dependent", "independent"])
@pytest.mark.parametrize("version", [4, 6])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(SENT | CAME | EXPIRES, max_size=25))
def test_bindings_are_those_of_the_model(nat, version, independent, steps):
    clear(nat)
    configure(nat, masquerade=EXTERNAL.values(), first_port=FIRST, last_port=LAST, any_mapping=int(independent))
    model = Bindings(independent=independent)
    for what, protocol, number, port, to, remote_port in steps:
        remote, layer = REMOTES[version][to], tcp if protocol == "tcp" else udp
        if what == "out":
            host = HOSTS[version][number]
            session = (protocol, host, port, remote, remote_port)
            seen = out(nat, packet(host, remote, layer(port, remote_port)))
            if session in model.sessions:
                assert ends(seen) == ((EXTERNAL[version], model.sessions[session]), (remote, remote_port))
            elif free := model.free(session):
                assert ends(seen)[0][0] == EXTERNAL[version] and ends(seen)[0][1] in free, (session, free)
                model.opened(session, ends(seen)[0][1])
            else:
                assert seen == "ports_exhausted", session
        elif what == "in":
            more = {"flags": "SA", "ack": 1} if protocol == "tcp" else {}
            seen = back(nat, packet(remote, EXTERNAL[version], layer(remote_port, number, **more)))
            expected = model.inside(protocol, remote, remote_port, number) or (EXTERNAL[version], number)
            assert ends(seen) == ((remote, remote_port), expected)
        elif model.sessions and not independent:
            gone = sorted(model.sessions)[number % len(model.sessions)]
            expire(nat, gone)
            del model.sessions[gone]
    held = [(inside, remote, external) for inside, remote, external in table(nat)]
    live = {((host, port), (remote, to), (EXTERNAL[version], external)) for (_, host, port, remote, to), external in model.sessions.items()}
    assert live <= set(held)


def expire(nat, session):
    """Lets a session expire, as time would."""
    protocol, host, port, remote, remote_port = session
    for key, value in nat.map("sessions").items():
        at = value["flags"] & 1
        found = [(bytes(key["address"][i]), int.from_bytes(key["port"][i].to_bytes(2, "little"), "big")) for i in (at, 1 - at)]
        if found == [(_mapped(host), port), (_mapped(remote), remote_port)] and key["proto"] == (6 if protocol == "tcp" else 17):
            value["ct"]["expires"] = 1
            nat.map("sessions")[key] = value


def _mapped(text):
    return mapped(ipaddress.ip_address(text))
