"""Intervals cover what they claim to, pairing helps, and sequential stopping errs as rarely."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Rules,
    simulate,
    synthesize_many,
)
from beta_jax.analysis.statistics import (
    Interval,
    decided,
    judge,
    looks,
    mean_interval,
    paired_difference,
)

from instances import make_profile

DEVICE, PAIR = ParallelConfig(1, 1), ParallelConfig(1, 2)
RATE_RPS, LATENCY_S, SLO_S = 2.4, 0.4, 0.8


def long_run_attainment() -> float:
    """Exact, for Poisson arrivals, one group and admission by deadline."""
    tau, rate = SLO_S - LATENCY_S, RATE_RPS
    terms = [tau - j * LATENCY_S for j in range(int(tau / LATENCY_S) + 1)]
    h = sum(math.exp(rate * x) * (-rate * x) ** j / math.factorial(j) for j, x in enumerate(terms))
    return h / (1 + rate * LATENCY_S * h)


def test_an_interval_is_the_textbooks():
    """`t.test(c(1, 2, 3, 4))$conf.int` in R."""
    interval = mean_interval([1, 2, 3, 4])
    assert interval == pytest.approx((2.5, 0.4457397, 4.5542603, 4))
    narrower = mean_interval([1, 2, 3, 4], 0.9)
    assert narrower.low > interval.low and narrower.high < interval.high


def test_an_interval_of_a_share_ends_where_shares_do():
    wide = mean_interval([1.0, 0.8, 0.9])
    assert wide.low < 0.8 and wide.high > 1
    assert wide.within(0.0, 1.0) == (wide.mean, wide.low, 1.0, 3)
    alone = mean_interval([0.5]).within(0.0, 1.0)
    assert math.isnan(alone.low) and math.isnan(alone.high)


def test_one_replication_has_a_mean_and_no_bounds():
    interval = mean_interval([0.5])
    assert interval.mean == 0.5 and math.isnan(interval.low) and math.isnan(interval.high)
    assert judge(interval) == "undecided"


@pytest.mark.parametrize("values", [[], [[1.0]], 1.0])
def test_what_is_no_list_of_values_is_refused(values):
    with pytest.raises(ValueError, match="list of at least one value"):
        mean_interval(values)


def test_bad_confidence_and_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([1.0, 2.0], 95)
    with pytest.raises(ValueError, match="needs pairs"):
        paired_difference([1.0, 2.0], [1.0])


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.floats(-10, 10),
    st.floats(0.01, 100),
)
def test_an_interval_moves_and_scales_with_its_values(values, shift, scale):
    base = mean_interval(values)
    moved = mean_interval(np.asarray(values) * scale + shift)
    assert moved[:3] == pytest.approx([scale * x + shift for x in base[:3]], abs=1e-9)


@given(st.integers(1, 1000))
def test_looks_share_a_risk_of_5_percent_and_end_at_the_most(most):
    numbers, confidences = zip(*looks(most), strict=True)
    assert list(numbers) == sorted(set(numbers)) and numbers[-1] == most
    assert sum(1 - confidence for confidence in confidences) <= 0.05
    assert min(confidences) >= 0.975


def test_a_verdict_needs_the_whole_interval():
    assert judge(Interval(2, 1, 3, 9)) == "higher"
    assert judge(Interval(-2, -3, -1, 9)) == "lower"
    assert judge(Interval(0, -1, 1, 9)) == "undecided"
    assert judge(Interval(0, -1, 1, 9), tolerance=1.5) == "equal"
    assert judge(Interval(1, -1, 3, 9), tolerance=2) == "undecided"


def test_systems_are_decided_when_every_two_of_them_are():
    noise = np.array([0.01, -0.01, 0.02, -0.02])
    low, high = 0.5 + noise, 0.9 - noise
    assert decided([low, high])
    assert not decided([low, high, high + noise * 5])
    assert decided([low])


@pytest.mark.slow
def test_sequential_stopping_errs_in_at_most_5_percent_of_runs():
    """Two equal systems, told apart wrongly; looked at up to five times."""
    random = np.random.default_rng(0)
    wrong = 0
    for sample in random.normal(size=(2000, 64)):
        verdicts = (
            judge(mean_interval(sample[:number], confidence)) for number, confidence in looks(64)
        )
        wrong += any(verdict != "undecided" for verdict in verdicts)
    assert wrong / 2000 < 0.05


def problem_of(num_models: int) -> Problem:
    models = tuple(Model(f"m{i}", "a", SLO_S, RATE_RPS) for i in range(num_models))
    profile = make_profile({"a": {DEVICE: [LATENCY_S], PAIR: [LATENCY_S / 2] * 2}})
    rules = Rules(stage_overhead=0.0, request_overhead_s=0.0)
    return Problem(models, Cluster(2, 10.0), profile, rules)


@pytest.mark.slow
def test_intervals_cover_the_long_run_attainment_in_90_to_99_percent_of_repetitions():
    problem, placement = problem_of(1), Placement((Group(DEVICE, (0,)),))
    repetitions, seeds = 200, 8
    traffic = synthesize_many(
        problem.models, seeds=range(repetitions * seeds), duration_s=400, process="poisson"
    )
    attainment = simulate(problem, placement, traffic, warmup_s=10.0).attainment
    exact = long_run_attainment()
    assert exact == pytest.approx(0.744661, abs=1e-6)
    intervals = [mean_interval(sample) for sample in attainment.reshape(repetitions, seeds)]
    covered = sum(interval.low <= exact <= interval.high for interval in intervals)
    assert 0.90 <= covered / repetitions <= 0.99


def test_paired_intervals_are_narrower_than_unpaired_ones_on_the_same_seeds():
    problem = problem_of(2)
    apart = Placement((Group(DEVICE, (0,)), Group(DEVICE, (1,))))
    shared = Placement((Group(PAIR, (0, 1)),))
    traffic = synthesize_many(problem.models, seeds=range(12), duration_s=200, process="poisson")
    a, b = (simulate(problem, placement, traffic).attainment for placement in (shared, apart))
    paired = paired_difference(a, b)
    spread = [np.var(sample, ddof=1) / len(sample) for sample in (a, b)]
    half_unpaired = 2.0739 * math.sqrt(sum(spread))  # t of 22 degrees of freedom
    assert paired.mean == pytest.approx(a.mean() - b.mean())
    assert (paired.high - paired.low) / 2 < 0.8 * half_unpaired
    assert judge(paired) == "higher"
