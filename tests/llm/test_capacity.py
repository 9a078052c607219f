"""What points come to, against engines simulated one by one, and boundaries against brute force."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax.llm import (
    Engine,
    GeneratedTraffic,
    Limits,
    LinearStepTime,
    LLMError,
    Point,
    ReplayedTraffic,
    TokenRequests,
    fewest_engines,
    highest_rate,
    serve,
    traffic_of,
)

from llm_runs import reference

ENGINE = Engine(4, 512, 2000, LinearStepTime(10**10, 10**8, 10**6, 10**8))
TRAFFIC = GeneratedTraffic(0.5, duration_s=60)


@pytest.mark.parametrize("prefix_caching", [False, True])
def test_points_are_what_engines_come_to(prefix_caching):
    """Side by side, behind a router as well, or with prefix reuse one by one."""
    engine = dataclasses.replace(ENGINE, prefix_caching=prefix_caching)
    limits = Limits(ttft_s=0.5, tpot_s=0.02, warmup_s=5)
    cases = [(Point(engine, 2.0, 1 if prefix_caching else 2), 1), (Point(engine), 0)]
    for (point, seed), found in zip(cases, serve(TRAFFIC, limits, cases), strict=True):
        requests = TRAFFIC.sample(seed, point.rate_scale)
        ran = reference(requests, engine, num_engines=point.num_engines)
        counted = requests.arrival_ns >= 5e9
        ttft, tpot, latency = (
            np.array(own)[counted] / 1e12 for own in (ran.ttft, ran.tpot, ran.latency)
        )
        assert found["num_requests"] == len(ttft) > 20
        assert found["attainment"] == ((ttft <= 0.5) & (tpot <= 0.02)).mean()
        assert found["ttft_mean_s"] == pytest.approx(ttft.mean())
        assert found["tpot_p99_s"] == pytest.approx(np.quantile(tpot, 0.99))
        assert found["latency_p50_s"] == pytest.approx(np.median(latency))
        assert found["preemptions"] == ran.preemptions


def test_engines_that_reuse_prefixes_have_no_router():
    engine = dataclasses.replace(ENGINE, prefix_caching=True)
    with pytest.raises(LLMError, match="simulated alone, not behind a router"):
        serve(TRAFFIC, Limits(), [(Point(engine, 1.0, 2), 0)])


@given(boundary=st.floats(0.01, 8), rounds=st.integers(0, 4))
def test_the_highest_rate_is_between_the_last_good_and_the_first_bad(boundary, rounds):
    tried = []

    def attempt(scales):
        tried.extend(scales)
        return [[0.9 + 0.1 * (scale <= boundary)] * 2 for scale in scales]

    found = highest_rate(attempt, [4.0, 1.0, 2.0], 0.95, rounds=rounds)
    assert len(tried) == len({*tried}) <= 3 + 3 * rounds
    if boundary < 1:
        assert math.isnan(found.rate)
    elif boundary >= 4:
        assert found.rate == math.inf
    else:
        assert found.low == found.rate == found.high
        assert abs(found.rate - boundary) <= (1 if boundary < 2 else 2) / 4**rounds


def test_the_interval_of_the_rate_is_that_of_the_seeds():
    def attempt(scales):  # falls by 10 % a unit, 1 % more or less
        return [[1.1 - 0.1 * scale + sign * 0.01 for sign in (-1, 0, 1)] for scale in scales]

    found = highest_rate(attempt, [1, 2, 3, 4], 0.9, rounds=0)
    half = 4.3027 * 0.01 / 3**0.5  # of Student's t, two degrees of freedom
    assert found.rate == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((2 - 10 * half, 2 + 10 * half), rel=1e-3)
    one = highest_rate(lambda scales: [[1.1 - 0.1 * s] for s in scales], [1, 4], 0.9, rounds=1)
    assert one.rate == pytest.approx(2) and math.isnan(one.low)


@given(
    needed=st.integers(1, 80), guess=st.integers(1, 80), most=st.integers(1, 64), seeds=st.just(2)
)
def test_the_fewest_engines_are_found(needed, guess, most, seeds):
    tried = []

    def attempt(number):
        tried.append(number)
        return [1.0 if number >= needed else 0.5] * seeds

    found = fewest_engines(attempt, 0.99, guess=guess, most=most)
    assert found == (needed if needed <= most else None)
    assert len(tried) == len({*tried}) <= 14 and max(tried) <= most


def test_what_makes_no_sense_is_a_line():
    with pytest.raises(LLMError, match="ttft_s must be > 0 seconds, got nan"):
        Limits(ttft_s=math.nan)
    long = ReplayedTraffic(TokenRequests([1, 10**9], [9, 90_000], [1, 1]))
    with pytest.raises(LLMError, match="row 1: its 90000 tokens can never fit in 2000 blocks"):
        serve(long, Limits(), [(Point(ENGINE), 0)])
    with pytest.raises(LLMError, match=r"the last of .* s, and warmup_s is 3600"):
        serve(TRAFFIC, Limits(warmup_s=3600), [(Point(ENGINE), 0)])
    with pytest.raises(LLMError, match="num_blocks must be 5625 or more"):
        serve(long, Limits(), [(Point(ENGINE), 0)])
    with pytest.raises(LLMError, match="a pair of a Point and a seed, got a Point"):
        serve(TRAFFIC, Limits(), [Point(ENGINE)])
    with pytest.raises(LLMError, match="a list for each rate"):
        highest_rate(lambda rates: [1.0 for _ in rates], [1, 2], 0.9)
    with pytest.raises(LLMError, match="wanted a trace as load_trace reads it, got a str"):
        traffic_of("trace.csv")
    for target in (0, 1, 99, math.nan):
        with pytest.raises(LLMError, match="target must be between 0 and 1"):
            highest_rate(lambda rates: [[1.0] for _ in rates], [1], target)
        with pytest.raises(LLMError, match="target must be between 0 and 1"):
            fewest_engines(lambda _: [1.0], target)


def test_intervals_end_at_what_was_tried():
    """Seeds that differ much: the ends of the intervals cross the target nowhere."""
    shares = {1.0: [1.0, 0.85], 2.0: [1.0, 0.7]}
    found = highest_rate(lambda rates: [shares[rate] for rate in rates], [1, 2], 0.9, rounds=0)
    assert 1 < found.rate < 2
    assert (found.low, found.high) == (1, 2)
