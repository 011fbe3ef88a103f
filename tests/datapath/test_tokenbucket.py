# SPDX-License-Identifier: Apache-2.0
"""Token buckets: tokenbucket.h against a plain model that counts tokens, and on several CPUs at once."""

import os
import struct
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polycube.toolkit.tokenbucket import MAX_RATE, SECOND, is_full, rate

FOLDER = Path(__file__).parent / "limiter"
LINK = bytes.fromhex("02000000000202000000000188b5")
NS = 10**9


@pytest.fixture
def limiter(cube):
    return cube(FOLDER, transparent=True)


def limit(limiter, tokens, burst):
    limiter.map("limits")[0] = {"rate": rate(tokens, burst)}


def passes(limiter, now, tokens=1, unused=0):
    result = limiter.send(LINK + struct.pack("<QII", now, tokens, unused) + bytes(46))
    return result.verdict != "dropped"


class Bucket:
    """The textbook: `burst` tokens at first, `rate` new ones a second, never more than `burst`. In exact numbers."""

    def __init__(self, rate: int, burst: int, now: int) -> None:
        self.rate, self.burst, self.now = rate, burst, now
        self.tokens = Fraction(burst)

    def take(self, tokens: int, now: int) -> Fraction:
        """How many tokens would be left (negative: refused)."""
        if now > self.now:
            self.tokens = min(Fraction(self.burst), self.tokens + Fraction((now - self.now) * self.rate, NS))
            self.now = now
        left = self.tokens - tokens
        if left >= 0:
            self.tokens = left
        return left


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.sampled_from([1, 3, 1000, 14_880_000, 125_000_000, 12_500_000_000]),
    burst=st.integers(1, 100_000),
    steps=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 0.6)), min_size=1, max_size=25),
    start=st.integers(0, 10 * 365 * 86400 * NS),
)
def test_it_counts_as_the_textbook_does(limiter, tokens, burst, steps, start):
    """Times and sizes are in proportion to the bucket; where the model is within the rounding of the limit, either answer is right."""
    limit(limiter, tokens, burst)
    model, now = Bucket(tokens, burst, start), start
    fill = burst * NS / tokens
    error = Fraction(1, 250) * burst + Fraction(tokens * len(steps), NS)  # of the price, and of a tick a step
    for pause, size in steps:
        now += int(pause * fill)
        want = max(1, int(size * burst))
        before = Bucket(tokens, burst, model.now)
        before.tokens = model.tokens
        left = model.take(want, now)
        passed = passes(limiter, now, want)
        if abs(left) > error:
            assert passed == (left >= 0), f"{left} left"
        elif passed != (left >= 0):
            before.take(0, now)
            before.tokens = max(Fraction(0), before.tokens - want) if passed else before.tokens
            model = before


def test_a_bucket_holds_its_burst_and_gets_its_rate(limiter):
    limit(limiter, 10, 5)
    now = 7 * NS
    assert [passes(limiter, now) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not passes(limiter, now + NS // 10 - 1)
    assert passes(limiter, now + NS // 10)
    assert not passes(limiter, now + NS // 10)
    assert [passes(limiter, now + 60 * NS) for _ in range(7)] == [True] * 5 + [False] * 2


def test_long_run_rate(limiter):
    """Ten times as much is asked for as is allowed: what passes is the rate, to the precision that is promised."""
    limit(limiter, 10_000_000, 10)
    start = now = NS
    passed = 0
    for number in range(4000):
        now = start + number * 10
        passed += passes(limiter, now)
    assert abs(passed - 10 - (now - start) / 100) <= 1


def test_bytes(limiter):
    limit(limiter, 1_000_000, 3000)
    now = NS
    assert passes(limiter, now, 1500) and passes(limiter, now, 1400)
    assert not passes(limiter, now, 101), "100 are left"
    assert passes(limiter, now, 100)
    assert passes(limiter, now + 60_000, 60)


@pytest.mark.parametrize("tokens", [101, 65_536, 1 << 20, (1 << 20) + 1, 0xFFFFFFFF])
def test_what_is_larger_than_the_bucket_never_passes(limiter, tokens):
    for per_second in (1, 1000, MAX_RATE):
        limit(limiter, per_second, 100)
        assert not passes(limiter, NS, tokens)
        assert passes(limiter, NS, 100), "a refusal takes nothing"


def test_no_rate_is_no_limit(limiter):
    limit(limiter, 0, 0)
    assert all(passes(limiter, NS, 1 << 20) for _ in range(10))


def test_time_that_goes_back_takes_nothing_away(limiter):
    """CPUs read the clock before they come to the bucket."""
    limit(limiter, 10, 3)
    assert passes(limiter, 5 * NS)
    assert passes(limiter, 5 * NS - 1000)
    assert passes(limiter, 5 * NS)
    assert not passes(limiter, 5 * NS)


def test_tokens_put_back_can_be_taken_again(limiter):
    limit(limiter, 1, 10)
    assert all(passes(limiter, NS, 10, unused=10) for _ in range(5))
    assert passes(limiter, NS, 10) and not passes(limiter, NS)


def test_full_buckets_are_told(limiter):
    limit(limiter, 10, 5)
    passes(limiter, 3 * NS, 2)
    word = limiter.map("limits")[0]["bucket"]["full"]
    assert not is_full(word, 3 * NS + NS // 5 - 1)
    assert is_full(word, 3 * NS + NS // 5)


def test_cpus_share_a_bucket(limiter):
    """Two CPUs, far more than is allowed: together they pass the burst and the rate, but for a packet that each may have in hand."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("one CPU")
    limiter.cfg(by_clock=1)
    tokens, burst = 1_000_000, 1000
    limit(limiter, tokens, burst)
    program, frame = limiter.program("ingress"), LINK + struct.pack("<QII", 0, 1, 0) + bytes(46)

    def flood(cpu):
        os.sched_setaffinity(0, {cpu})
        program.test_run(frame, repeat=300_000)

    threads = [threading.Thread(target=flood, args=(cpu,)) for cpu in cpus]
    start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    standing = limiter.map("limits")[0]
    assert standing["passed"] <= burst + (end - start) * tokens / NS + len(cpus)
    # No token was lost, either: what the word says was taken is what passed.
    taken = (standing["bucket"]["full"] - start * 16) / SECOND * tokens
    assert standing["passed"] >= min(taken, burst) and standing["passed"] > burst / 2


@pytest.mark.parametrize(("tokens", "burst"), [(-1, 5), (MAX_RATE + 1, 5), (5, 0)])
def test_impossible_rates_are_refused(tokens, burst):
    with pytest.raises(ValueError, match="expected"):
        rate(tokens, burst)


@pytest.mark.parametrize("tokens", [1, 7, 10_000_000, 1_250_000_000, 12_500_000_000])
def test_precision_of_a_price(tokens):
    price = rate(tokens, 1)["price"]
    assert abs(price * tokens / (SECOND * 256) - 1) < 0.002
