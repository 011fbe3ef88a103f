# SPDX-License-Identifier: Apache-2.0
"""nat on a router's port as one program: what the verifier looks at behind connection tracking stays below its limit."""

from __future__ import annotations

import pytest

from polycube.testing.harness import Chain, Hook


@pytest.mark.parametrize("hook", list(Hook))
def test_a_router_and_its_nat_are_one_program_both_ways(isolated, hook):
    with Chain(hook, fused=True) as chain:
        router, nat = chain.cube("router"), chain.cube("nat", transparent=True)
        chain.stack(nat, router, 1)
        for first, entry in ((router, "entry"), (nat, "ingress")):
            assert chain.fused.get(first, entry, 0, chain.stage.near), "or the verifier refuses it, and it is not fused"
