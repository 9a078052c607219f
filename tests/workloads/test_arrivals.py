"""Sampled arrivals follow their laws, and depend on nothing but what they should."""

from __future__ import annotations

import logging
import math

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax.workloads.processes import Deterministic, Gamma, Pareto, Poisson, UniformMMPP
from beta_jax.workloads.sampling import sample_arrivals

GAP_LAWS = [
    (Poisson(2.0), scipy.stats.expon(scale=0.5)),
    *((Gamma(2.0, cv), scipy.stats.gamma(cv**-2, scale=cv**2 / 2.0)) for cv in (0.2, 0.5, 1, 4, 8)),
    (Pareto(1.5, 2.0, -0.5), scipy.stats.pareto(1.5, scale=2.0, loc=-1.5)),
    (Pareto(0.7), scipy.stats.lomax(0.7)),
]
MIXED = [
    Gamma(5.0, 4.0),
    Poisson(60.0),
    Deterministic(3.0),
    Gamma(0.2, 0.5),
    UniformMMPP((1.0, 40.0, 0.0), (3.0, 1.0, 2.0)),
    Pareto(1.2),
    Gamma(90.0, 8.0),
    Poisson(0.0),
]

processes = st.one_of(
    st.builds(Deterministic, st.floats(0, 50)),
    st.builds(Poisson, st.floats(0, 50)),
    st.builds(Gamma, st.floats(0, 50), st.floats(0.01, 10)),
    st.builds(Pareto, st.floats(0.3, 5), st.floats(1, 2), st.floats(0.1, 3)),
    st.builds(
        UniformMMPP,
        st.tuples(st.floats(0, 50), st.floats(0, 50)),
        st.tuples(st.floats(0.1, 50), st.floats(0.1, 50)),
    ),
)


@pytest.mark.parametrize(("process", "law"), GAP_LAWS, ids=[str(p) for p, _ in GAP_LAWS])
def test_first_gaps_follow_the_law(process, law):
    # The first arrival is one gap, with all its digits: at CV 8 most gaps are under 1e-12 s and
    # would drown in a difference of times. The window cuts the law off at `window_s`.
    window_s, count = float(law.ppf(0.97)), 8000
    streams = sample_arrivals([process] * count, duration_s=window_s, seed=11)
    first = np.array([arrivals[0] for arrivals in streams if len(arrivals)])
    fit = scipy.stats.kstest(first, lambda x: law.cdf(x) / law.cdf(window_s))
    assert fit.pvalue > 1e-3
    assert scipy.stats.binomtest(len(first), count, law.cdf(window_s)).pvalue > 1e-3


@pytest.mark.parametrize("cv", [0.5, 1.0, 4.0, 8.0])
def test_mean_and_cv_of_gamma_gaps(cv):
    rate, count = 5.0, 1000
    streams = sample_arrivals([Gamma(rate, cv)] * 200, duration_s=5 * count / rate, seed=5)
    gaps = np.array([np.diff(s[:count], prepend=0.0) for s in streams])  # each has over `count`
    for power, moment in ((1, 1 / rate), (2, (1 + cv**2) / rate**2)):
        replications = (gaps**power).mean(1)
        error = scipy.stats.sem(replications)
        assert abs(replications.mean() - moment) < 4 * error < moment
    lag1 = (gaps[:, 1:] - 1 / rate) * (gaps[:, :-1] - 1 / rate)
    assert abs(lag1.mean()) < 4 * scipy.stats.sem(lag1.mean(1))


def test_mmpp_is_stationary_and_as_bursty_as_theory_says():
    low, high, stay = 1.0, 9.0, (6.0, 2.0)
    process = UniformMMPP((low, high), stay)
    assert process.mean_rate_rps == 3.0
    window, far = 4.0, 46.0
    streams = sample_arrivals([process] * 4000, duration_s=far + window, seed=2)
    share, change = stay[0] / sum(stay), 1 / stay[0] + 1 / stay[1]
    clumping = share * (1 - share) * (high - low) ** 2
    variance = 3.0 * window + 2 * clumping * (
        window / change - (1 - math.exp(-change * window)) / change**2
    )
    for start in (0.0, far):
        number = np.array([((s >= start) & (s < start + window)).sum() for s in streams])
        assert abs(number.mean() - 3.0 * window) < 4 * scipy.stats.sem(number)
        square = (number - 3.0 * window) ** 2
        assert abs(square.mean() - variance) < 4 * scipy.stats.sem(square)


def test_mmpp_of_three_states_spends_its_time_by_mean_stay():
    process = UniformMMPP((30.0, 0.0, 3.0), (1.0, 3.0, 2.0))
    streams = sample_arrivals([process] * 1000, duration_s=50.0, seed=4)
    number = np.array([len(s) for s in streams])
    assert abs(number.mean() - 50 * process.mean_rate_rps) < 4 * scipy.stats.sem(number)


def test_one_state_is_poisson():
    number = [
        len(s) for s in sample_arrivals([UniformMMPP((2.0,), (1.0,))] * 3000, duration_s=10.0)
    ]
    assert abs(np.mean(number) - 20) < 4 * scipy.stats.sem(number)
    assert abs(np.var(number) - 20) < 4 * 20 * math.sqrt(2 / 3000)


def test_streams_seeds_and_blocks_share_no_random_number():
    streams = sample_arrivals([Poisson(10.0)] * 40, duration_s=100.0, seed=[0] * 20 + [1] * 20)
    assert min(len(s) for s in streams) > 800  # several blocks each
    gaps = np.concatenate([np.diff(s, prepend=0.0) for s in streams])
    assert len(np.unique(np.round(gaps, 10))) > len(gaps) - 20


def test_a_seed_means_the_same_arrivals_in_every_version():
    gamma, poisson, mmpp = sample_arrivals(
        [Gamma(2.0, 2.0), Poisson(2.0), UniformMMPP((1.0, 8.0), (3.0, 1.0))], duration_s=50, seed=7
    )
    np.testing.assert_allclose(gamma[:3], PINNED_GAMMA, rtol=1e-9)
    np.testing.assert_allclose(poisson[:3], PINNED_POISSON, rtol=1e-9)
    np.testing.assert_allclose(mmpp[:3], PINNED_MMPP, rtol=1e-9)


PINNED_GAMMA = [7.61435659803078e-05, 0.00015103712610567058, 0.04594312270509105]
PINNED_POISSON = [0.16947022924679436, 0.9150700988582491, 1.2187791542334405]
PINNED_MMPP = [0.8856562307546229, 0.9082448688059863, 0.9094488189304882]


def test_a_stream_does_not_depend_on_its_company():
    together = sample_arrivals(MIXED * 30, duration_s=100.0, seed=3)
    again = sample_arrivals(MIXED * 30, duration_s=100.0, seed=3)
    for i in (0, 1, 2, 3, 4, 5, 6, 7, 100, 236):
        alone = sample_arrivals([(MIXED * 30)[i]], duration_s=100.0, seed=3, streams=i)[0]
        np.testing.assert_array_equal(together[i], alone)
        np.testing.assert_array_equal(together[i], again[i])
    assert not np.array_equal(together[0], together[8])


def test_many_seeds_are_one_call():
    seeds = [0, 5, 2**40]
    streams = sample_arrivals(
        MIXED * 3, duration_s=20.0, seed=np.repeat(seeds, 8), streams=[*range(8)] * 3
    )
    for replication, seed in enumerate(seeds):
        for i, alone in enumerate(sample_arrivals(MIXED, duration_s=20.0, seed=seed)):
            np.testing.assert_array_equal(streams[8 * replication + i], alone)
    assert not np.array_equal(streams[0], streams[8])


def test_start_shifts_and_duration_extends():
    short = sample_arrivals(MIXED, duration_s=10.0)
    long = sample_arrivals(MIXED, duration_s=300.0)
    shifted = sample_arrivals(MIXED, duration_s=10.0, start_s=[64.0 * i for i in range(8)])
    for i, process in enumerate(MIXED):
        np.testing.assert_allclose(shifted[i] - 64.0 * i, short[i], atol=1e-12)
        np.testing.assert_allclose(long[i][: len(short[i])], short[i], atol=1e-12)
        assert len(long[i]) > len(short[i]) or process == Poisson(0.0)


@settings(max_examples=40)
@given(
    process=processes,
    duration_s=st.floats(0, 30),
    start_s=st.floats(-1e6, 1e6),
    seed=st.integers(0, 2**32 - 1),
    rng=st.sampled_from(["jax", "legacy"]),
)
def test_arrivals_are_sorted_and_end_before_the_end(process, duration_s, start_s, seed, rng):
    if rng == "legacy" and isinstance(process, Pareto | UniformMMPP):
        rng = "jax"
    (arrivals,) = sample_arrivals(
        [process], duration_s=duration_s, start_s=start_s, seed=seed, rng=rng
    )
    assert arrivals.dtype == np.float64
    assert (np.diff(arrivals) >= 0).all()
    assert ((arrivals >= start_s) & (arrivals < start_s + duration_s)).all()


@pytest.mark.parametrize("rng", ["jax", "legacy"])
def test_deterministic_and_silent_streams(rng):
    some, third, *silent = sample_arrivals(
        [Deterministic(2.0), Deterministic(3.0), Deterministic(0.0), Poisson(0.0), Gamma(0.0, 4.0)],
        duration_s=2.0,
        start_s=10.0,
        rng=rng,
    )
    assert some.tolist() == [10.0, 10.5, 11.0, 11.5]
    assert third.tolist() == [10 + i / 3 for i in range(6)]
    assert [len(s) for s in silent] == [0, 0, 0]
    assert [len(s) for s in sample_arrivals(MIXED[:4], duration_s=0.0, rng=rng)] == [0] * 4
    assert sample_arrivals([], duration_s=1.0, rng=rng) == []


def test_silent_mmpp_and_bursts_beyond_the_first_guess():
    silent, burst = sample_arrivals(
        [UniformMMPP((0.0, 0.0), (1.0, 1.0)), Gamma(0.5, 200.0)], duration_s=10.0, seed=1
    )
    assert len(silent) == 0
    assert len(burst) > 5000  # a burst of some cv**2 arrivals where 5 are expected


def test_legacy_is_the_published_loop():
    rate, cv, duration = 0.7, 4.0, 300.0
    random = np.random.RandomState(9 + 2)  # stream 2 of seed 9
    size = int(rate * duration * 1.2)
    gaps, expected, now = [], [], 50.0
    while True:
        gaps = gaps or list(random.gamma(1 / cv**2, cv**2 / rate, size=size))
        now += gaps.pop(0)
        if now >= 50.0 + duration:
            break
        expected.append(now)
    before = np.random.get_state()[1].copy()
    streams = sample_arrivals(
        [Poisson(3.0), Gamma(1.0, 1.0), Gamma(rate, cv)],
        duration_s=duration, start_s=50.0, seed=9, rng="legacy",
    )  # fmt: skip
    np.testing.assert_array_equal(streams[2], expected)
    assert (np.random.get_state()[1] == before).all()
    same = sample_arrivals(
        [Gamma(3.0, 1.0)], duration_s=duration, start_s=50.0, seed=9, rng="legacy"
    )
    np.testing.assert_array_equal(streams[0], same[0])


def test_a_sweep_compiles_nothing_after_its_first_point(caplog):
    sample_arrivals(MIXED, duration_s=1.0)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        sample_arrivals([Gamma(7.0, 3.0)] * 33, duration_s=77.0, seed=8)
        sample_arrivals([Poisson(3.0), UniformMMPP((3.0,), (1.0,))] * 200, duration_s=10.0)
        assert "ompiling" not in caplog.text
        jax.jit(lambda x: x + 1)(1)
        assert "ompiling" in caplog.text  # this is how it would have shown


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(-1.0), "rate must be >= 0"),
        (lambda: Deterministic(math.nan), "rate must be >= 0"),
        (lambda: Gamma(math.inf, 1.0), "rate must be >= 0"),
        (lambda: Gamma(1.0, 0.0), "CV of gamma"),
        (lambda: Gamma(1.0, -4.0), "CV of gamma"),
        (lambda: Gamma(1.0, math.nan), "CV of gamma"),
        (lambda: UniformMMPP((), ()), "per state"),
        (lambda: UniformMMPP((1.0, 2.0), (1.0,)), "per state"),
        (lambda: UniformMMPP((1.0, -2.0), (1.0, 1.0)), "rate must be >= 0"),
        (lambda: UniformMMPP((1.0, 2.0), (1.0, 0.0)), "mean stay"),
        (lambda: Pareto(0.0), "shape"),
        (lambda: Pareto(2.0, -1.0, 3.0), "scale"),
        (lambda: Pareto(2.0, 0.5, 0.0), "loc"),
        (lambda: sample_arrivals([], duration_s=-1.0), "duration"),
        (lambda: sample_arrivals([], duration_s=math.inf), "duration"),
        (lambda: sample_arrivals([Poisson(1.0)], duration_s=1.0, start_s=math.nan), "start"),
        (lambda: sample_arrivals([Poisson(1.0)], duration_s=1.0, seed=-1), "seed"),
        (lambda: sample_arrivals([Poisson(1.0)], duration_s=1.0, seed=1.5), "seed"),
        (lambda: sample_arrivals([Poisson(1.0)], duration_s=1.0, streams=-1), "stream"),
        (lambda: sample_arrivals([Poisson(1.0)], duration_s=1.0, rng="numpy"), "rng must be"),
        (lambda: sample_arrivals([Pareto(2.0)], duration_s=1.0, rng="legacy"), "legacy"),
        (lambda: sample_arrivals([MIXED[4]], duration_s=1.0, rng="legacy"), "legacy"),
    ],
)
def test_bad_input_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
