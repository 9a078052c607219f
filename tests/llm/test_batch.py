"""Engines as lanes: equal to the oracle in every bit, whatever is beside them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax.llm import (
    Engine,
    LinearStepTime,
    LLMError,
    TokenRequests,
    batch,
    read_tables,
    simulate_batch,
)

import reference_llm
from llm_runs import PS, reference, write_tables

BLOCK, LANES = 4, 8
COEFFICIENTS = [(1_000_000, 10_000, 1_000, 7_000), (1_000_000, 0, 0, 0), (50_000, 3_000, 2_500, 1)]


@st.composite
def lane(draw: st.DrawFn) -> tuple[TokenRequests, Engine]:
    """A small engine and up to 15 requests that fit it, close together or far apart."""
    num_blocks = draw(st.integers(1, 24))
    reach = BLOCK * num_blocks
    gaps = st.integers(0, draw(st.sampled_from([0, 1, 20, 300, 100_000])))
    longest = draw(st.sampled_from([1, 5, 60]))
    arrival, rows = draw(st.integers(0, 3)), []
    for _ in range(draw(st.integers(0, 15))):
        arrival += draw(gaps)
        prompt = draw(st.integers(1, min(reach, draw(st.sampled_from([1, 3, 20, 60])))))
        rows.append((arrival, prompt, draw(st.integers(1, min(longest, reach - prompt + 1)))))
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    step_time = LinearStepTime(*draw(st.sampled_from(COEFFICIENTS)))
    budget = draw(st.sampled_from([1, 2, 5, 16, 64]))
    engine = Engine(draw(st.integers(1, 8)), budget, num_blocks, step_time, BLOCK)
    return TokenRequests(*columns), engine


def assert_equal(
    lanes: list[tuple[TokenRequests, Engine]],
    tables: reference_llm.Tables | None = None,
    num_engines: list[int] | None = None,
    *,
    ttft_s: float = 1.0,
    tpot_s: float = 1.0,
) -> None:
    """Every number of every lane is the oracle's."""
    behind = num_engines or [1] * len(lanes)
    found = simulate_batch(
        lanes,
        ttft_limit_s=ttft_s,
        tpot_limit_s=tpot_s,
        num_engines=num_engines or 1,
        per_request=True,
    )
    unit = PS if tables else 1
    assert found.requests is not None
    for index, ((requests, engine), times) in enumerate(zip(lanes, found.requests, strict=True)):
        expected = reference(requests, engine, tables, behind[index])
        assert times.queue_delay_ps.tolist() == [unit * delay for delay in expected.queue_delay]
        assert times.ttft_ps.tolist() == [unit * ttft for ttft in expected.ttft]
        assert (times.tpot_ps // unit).tolist() == expected.tpot
        assert times.latency_ps.tolist() == [unit * latency for latency in expected.latency]
        assert found.preemptions[index] == expected.preemptions
        assert found.recomputed_tokens[index] == expected.recomputed_tokens
        assert found.steps[index] == len(expected.step_ends) >= found.calls[index]
        good = (times.ttft_ps <= ttft_s * 1e12) & (times.tpot_ps <= tpot_s * 1e12)
        assert found.num_good[index] == good.sum() and found.num_counted[index] == len(good)
        mean = times.latency_ps.mean() / 1e12 if len(good) else math.nan
        np.testing.assert_allclose(found.latency_mean_s[index], mean, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(lane(), min_size=LANES, max_size=LANES))
def test_lanes_equal_the_oracle_in_every_bit(lanes):
    assert_equal(lanes, ttft_s=2.0**-12, tpot_s=2.0**-19)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(lane(), min_size=LANES, max_size=LANES),
    st.lists(st.integers(3, 4), min_size=LANES, max_size=LANES),
)
def test_engines_behind_a_router_equal_the_oracle_in_every_bit(lanes, num_engines):
    assert_equal(lanes, num_engines=num_engines)


def crowd(seed: int) -> tuple[TokenRequests, Engine]:
    """Sixty requests at once, half of which are answered in one token: loads of engines differ."""
    rng = np.random.default_rng(seed)
    arrival, prompt = np.cumsum(rng.integers(0, 600, 60)), rng.integers(1, 9, 60)
    answer = np.where(rng.random(60) < 0.5, 1, rng.integers(1, 20, 60))
    step_time = LinearStepTime(*COEFFICIENTS[0])
    return TokenRequests(arrival, prompt, answer), Engine(8, 16, 24, step_time, BLOCK)


def test_a_waiting_request_weighs_as_four_that_run():
    """With another weight some request would go to another engine."""
    assert_equal([crowd(seed) for seed in range(LANES)], num_engines=[3] * LANES)


def test_lanes_by_tables_equal_the_oracle_in_every_bit(tmp_path):
    engine = Engine(8, 16, 24, LinearStepTime(*COEFFICIENTS[0]), BLOCK)
    write_tables(tmp_path, 7, engine, skew=True, ranks=2)
    tables, theirs = read_tables(tmp_path), reference_llm.Tables(tmp_path)

    @settings(max_examples=8, deadline=None)
    @given(st.lists(lane(), min_size=LANES, max_size=LANES))
    def equal(lanes):
        assert_equal(
            [(requests, dataclasses.replace(own, step_time=tables)) for requests, own in lanes],
            theirs,
        )

    equal()


def storm(prompt: int, answer: int, number: int, blocks: int, **engine: int) -> None:
    requests = TokenRequests(np.zeros(number), np.full(number, prompt), np.full(number, answer))
    own = {"max_num_seqs": 8, "max_num_batched_tokens": 64} | engine
    step_time = LinearStepTime(*COEFFICIENTS[0])
    assert_equal(
        [(requests, Engine(**own, num_blocks=blocks, step_time=step_time, block_size=BLOCK))]
    )


@pytest.mark.parametrize(
    "case",
    [
        {"prompt": 4, "answer": 29, "number": 8, "blocks": 8},  # each alone needs all blocks
        {"prompt": 4, "answer": 29, "number": 8, "blocks": 63},  # one block short of all together
        {"prompt": 31, "answer": 1, "number": 8, "blocks": 24, "max_num_batched_tokens": 1},
        {"prompt": 31, "answer": 1, "number": 8, "blocks": 24, "max_num_seqs": 1},
        {"prompt": 5, "answer": 2, "number": 8, "blocks": 24, "max_num_batched_tokens": 4},
    ],
)
def test_storms_and_corners_equal_the_oracle(case):
    storm(**case)


def test_more_slots_are_found_where_more_requests_run(monkeypatch):
    monkeypatch.setattr(batch, "FEWEST_SLOTS", 8)
    storm(4, 29, 8, 63)


def test_lanes_do_not_know_each_other_nor_their_order():
    step_time = LinearStepTime(*COEFFICIENTS[0])
    tables = [
        TokenRequests(np.arange(n) * 700, np.full(n, 9), np.full(n, 6)) for n in (0, 3, 9, 15)
    ]
    lanes = [
        (table, Engine(seqs, 16, blocks, step_time, BLOCK))
        for table in tables
        for seqs in (1, 5)
        for blocks in (4, 11)
    ]
    together = simulate_batch(lanes, ttft_limit_s=1e-5)
    backwards = simulate_batch(lanes[::-1], ttft_limit_s=1e-5)
    alone = [simulate_batch([lane], ttft_limit_s=1e-5) for lane in lanes[:5]]
    for name in (
        "num_counted",
        "num_good",
        "ttft_mean_s",
        "latency_mean_s",
        "preemptions",
        "steps",
    ):
        values = getattr(together, name)
        np.testing.assert_array_equal(values, getattr(backwards, name)[::-1])
        np.testing.assert_array_equal(values[:5], [getattr(one, name)[0] for one in alone])


def test_requests_before_the_warm_up_do_not_count():
    table = TokenRequests.from_seconds(np.arange(10) * 0.5, np.full(10, 9), np.full(10, 6))
    engine = Engine(8, 16, 24, LinearStepTime(*COEFFICIENTS[0]), BLOCK)
    outcome = simulate_batch([(table, engine)], count_from_s=2.0)
    assert outcome.num_counted.tolist() == [6] and outcome.attainment.tolist() == [1.0]
    assert len(simulate_batch([]).attainment) == 0


def test_what_can_not_be_served_is_told_in_a_line():
    table = TokenRequests([0, 5], [3, 40], [2, 9])
    step_time = LinearStepTime(*COEFFICIENTS[0])
    with pytest.raises(LLMError, match="row 1: its 48 tokens can never fit in 11 blocks of 4"):
        simulate_batch([(table, Engine(8, 16, 11, step_time, BLOCK))])
    with pytest.raises(LLMError, match=r"blocks of one size, got \[4, 16\]"):
        simulate_batch([(table, Engine(8, 16, 24, step_time, size)) for size in (4, 16)])
    with pytest.raises(LLMError, match="reuses no prefixes"):
        simulate_batch([(table, Engine(8, 16, 24, step_time, BLOCK, prefix_caching=True))])
    with pytest.raises(LLMError, match="longer than picoseconds can tell"):
        simulate_batch([(table, Engine(8, 2**24, 24, LinearStepTime(1, 10**15, 0, 0), BLOCK))])
    for limit in (-1.0, math.nan):
        with pytest.raises(LLMError, match=r"ttft_limit_s is .*, wanted seconds, 0 or more"):
            simulate_batch([], ttft_limit_s=limit)
    lane = table, Engine(8, 16, 24, step_time, BLOCK)
    for wrong in (0, 2000, 1.5, None):
        with pytest.raises(LLMError, match=r"num_engines is .*, wanted a whole number from 1 to"):
            simulate_batch([lane], num_engines=[wrong])
    with pytest.raises(LLMError, match="num_engines has 2 numbers for 1 tables"):
        simulate_batch([lane], num_engines=[1, 2])
    with pytest.raises(LLMError, match="count_from_s is inf, wanted seconds"):
        simulate_batch([], count_from_s=math.inf)


def test_sums_of_long_waits_do_not_overflow():
    """Sixty requests one after the other, 6000 s each: they wait 11 million seconds in all."""
    engine = Engine(1, 64, 24, LinearStepTime(10**15, 0, 0, 0), BLOCK)
    requests = TokenRequests(np.zeros(60, int), np.full(60, 5), np.full(60, 6))
    found = simulate_batch([(requests, engine)])
    assert found.latency_mean_s[0] == pytest.approx(6000 * 61 / 2)
    assert found.ttft_mean_s[0] == pytest.approx(6000 * 59 / 2 + 1000)
