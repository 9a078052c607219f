"""Functions become models, windows become processes, and what is sampled is like the trace."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import beta_jax
from beta_jax.traces import (
    ArrivalTrace,
    CountTrace,
    RateTrace,
    TraceError,
    Traffic,
    fit_traffic,
    load_trace,
    maf1_like,
    maf2_like,
    reference_scale,
    replay,
)
from beta_jax.traces.fit import gamma_shapes
from beta_jax.traces.trace import count_block


def count_trace(counts, first_window=0):
    """A trace of counts [function, minute]."""
    counts = np.asarray(counts)
    function, window = np.nonzero(counts)
    block = count_block(first_window, counts.shape[1], window, function, counts[function, window])
    return CountTrace("counts", "maf1", [f"f{i}" for i in range(len(counts))], [block])


def arrival_trace(streams):
    """A trace of one list of arrival times per function."""
    times = np.concatenate([np.asarray(stream, float) for stream in streams])
    function = np.repeat(np.arange(len(streams), dtype=np.int32), [len(s) for s in streams])
    order = np.argsort(times, kind="stable")
    names = [f"f{i}" for i in range(len(streams))]
    return ArrivalTrace("arrivals", "maf2", names, times[order], function[order])


@pytest.fixture
def llm(shared):
    return {
        name: load_trace(
            shared / "data" / "traces" / f"AzureLLMInferenceTrace_{name}.csv", cache=False
        )
        for name in ("code", "conv")
    }


@pytest.fixture
def maf1_day(shared):
    return load_trace(shared / "data" / "traces" / "maf1_day", cache=False)


# --- fitting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["code", "conv"])
@pytest.mark.parametrize("window_s", [60.0, 300.0, 4000.0])
def test_fits_equal_scipy_on_every_window(llm, name, window_s):
    trace = llm[name]
    traffic = fit_traffic(trace, 1, window_s=window_s)
    fitted = 0
    for window in range(traffic.rate_rps.shape[1]):
        start_s = trace.start_s + window * window_s
        inside = (trace.arrival_s >= start_s) & (trace.arrival_s < start_s + window_s)
        gaps = np.diff(trace.arrival_s[inside]) + 1e-6
        if len(gaps) < 2:
            assert traffic.rate_rps[0, window] == 0
            continue
        shape, _, scale = scipy.stats.gamma.fit(gaps, floc=0)
        rate, observed = 1 / (shape * scale), inside.sum() / window_s
        rate = observed if rate > 5 * observed else rate
        np.testing.assert_allclose(traffic.rate_rps[0, window], rate, rtol=1e-6)
        np.testing.assert_allclose(traffic.cv[0, window], shape**-0.5, rtol=1e-6)
        fitted += 1
    assert fitted > 40 * 60 / window_s


def test_newton_solves_every_shape():
    shapes = np.logspace(-4, 6, 200)
    log_ratio = np.log(shapes) - scipy.special.digamma(shapes)
    np.testing.assert_allclose(gamma_shapes(log_ratio)[:160], shapes[:160], rtol=1e-8)
    # Of nearly equal gaps, log(mean) - mean(log) itself has few digits.
    np.testing.assert_allclose(gamma_shapes(log_ratio)[160:], shapes[160:], rtol=1e-5)


def test_windows_with_few_biased_or_equal_gaps():
    trace = arrival_trace(
        [
            [5.0, 6.0],  # one gap
            [10.0, 10.1, 10.3],  # two gaps, at 6.7 requests/s where 0.05 are observed
            [0.0, 20.0, 40.0],  # equal gaps
        ]
    )
    traffic = fit_traffic(trace, 3, end="0.0.1", window_s=60)
    np.testing.assert_allclose(traffic.rate_rps[:, 0], [0, 3 / 60, 1 / 20], rtol=1e-6)
    assert traffic.cv[1, 0] == pytest.approx(
        scipy.stats.gamma.fit([0.1 + 1e-6, 0.2 + 1e-6], floc=0)[0] ** -0.5, rel=1e-6
    )
    assert traffic.cv[2, 0] == 1e-3  # the smallest CV there is
    poisson = fit_traffic(trace, 3, end="0.0.1", window_s=60, process="poisson")
    np.testing.assert_allclose(poisson.rate_rps[:, 0], [2 / 60, 3 / 60, 1 / 20], rtol=1e-5)
    assert (poisson.cv == 1).all()


def test_rates_add_up_and_cvs_merge():
    rate = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0], [0.5, 4.0, 0.0]])
    cv = np.array([[2.0, 1.0, 0.5], [1.0, 1.0, 1.0], [1.0, 3.0, 1.0]])
    trace = RateTrace("rates", "rates", ["a", "b", "c"], rate, cv, 600.0)
    traffic = fit_traffic(trace, 2)
    np.testing.assert_allclose(traffic.rate_rps, [[1.5, 4, 2], [3, 0, 0]])
    np.testing.assert_allclose(traffic.cv[0], [np.sqrt((4 + 0.5) / 1.5), 3, 0.5])
    later = fit_traffic(trace, 2, start="0.0.10")  # function b has no request any more
    np.testing.assert_allclose(later.rate_rps, [[0, 2], [4, 0]])
    with pytest.raises(TraceError, match="rates are per 600 s"):
        fit_traffic(trace, 2, window_s=60)
    with pytest.raises(TraceError, match="rates are per 600 s"):
        fit_traffic(trace, 2, start="0.0.1")


# --- functions to models -------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    counts=st.lists(
        st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=12
    ).filter(lambda rows: any(map(any, rows))),
    models=st.integers(1, 12),
    minutes=st.integers(1, 6),
    per_window=st.integers(1, 4),
    mapping=st.sampled_from(["stripe", "round_robin"]),
)
def test_every_function_goes_to_one_model(counts, models, minutes, per_window, mapping):
    counts = np.array(counts)
    cut = counts[:, :minutes]
    kept = cut[cut.any(axis=1)]
    call = lambda: fit_traffic(  # noqa: E731
        count_trace(counts), models, end=f"0.0.{minutes}", window_s=60 * per_window,
        mapping=mapping,
    )  # fmt: skip
    if len(kept) < models:
        with pytest.raises(TraceError, match=r"too few|no request"):
            call()
        return
    expected = np.zeros((models, -(-minutes // per_window)))
    for j, row in enumerate(kept):
        model = j % models if mapping == "stripe" else models * j // len(kept)
        for minute, count in enumerate(row):
            expected[model, minute // per_window] += count
    np.testing.assert_allclose(call().rate_rps * 60 * per_window, expected)
    assert expected.any(axis=1).all()  # with F >= M no model is left without a function


def test_arrivals_are_shared_out_alike():
    trace = arrival_trace([[3, 30], [400], [5, 50], [7, 70, 77], []])
    for mapping, groups in (("stripe", [[3, 7, 30, 70, 77], [5, 50]]),
                            ("round_robin", [[3, 5, 30, 50], [7, 70, 77]])):  # fmt: skip
        workload = replay(trace, 2, end="0.0.2", process="vanilla", mapping=mapping)
        for model, times in enumerate(groups):
            assert workload.arrival_s[workload.model == model].tolist() == times


def test_order_is_that_of_first_appearance_over_all_days():
    first = count_block(0, 2, np.array([0, 1]), np.array([0, 1]), np.array([1, 2]))
    second = count_block(2, 2, np.array([0, 1]), np.array([0, 1]), np.array([8, 16]))
    object.__setattr__(second, "index", np.array([2, 0], np.int32))
    trace = CountTrace("two days", "maf1", ["a", "b", "c"], [first, second])
    assert trace.end_s == 240
    traffic = fit_traffic(trace, 3, window_s=240)
    assert (traffic.rate_rps[:, 0] * 240).tolist() == [17, 2, 8]
    late = fit_traffic(trace, 2, start="0.0.2", window_s=60)
    assert (late.rate_rps * 60).tolist() == [[0, 16], [8, 0]]


# --- sampling ------------------------------------------------------------------------------------


def test_legacy_replay_is_the_published_loop(llm):
    counts = np.array([[3, 0, 9, 1, 2], [0, 0, 0, 0, 0], [5, 5, 0, 0, 4], [0, 2, 2, 0, 0]])
    workload = replay(
        count_trace(counts, 60), 2, start="0.1.0", end="0.1.5", window_s=120, rate_scale=20.0,
        cv_scale=3.0, rng="legacy",
    )  # fmt: skip
    expected, seed = [[], []], 0
    for model, rows in enumerate(([0, 3], [2])):  # function 1 is dropped, 3 is the third
        for window in range(3):
            count = counts[rows, 2 * window : 2 * window + 2].sum()
            if count == 0:
                continue
            rate, cv = count / 120 * 20.0, 3.0
            random, now = np.random.RandomState(seed), 3600.0 + 120 * window
            seed += 1
            end, size, gaps = now + 120, max(int(rate * 120 * 1.2), 1), []
            while True:
                gaps = gaps or list(random.gamma(1 / cv**2, cv**2 / rate, size))
                now += gaps.pop(0)
                if now >= end:
                    break
                expected[model].append(now)
    for model in range(2):
        np.testing.assert_allclose(
            workload.arrival_s[workload.model == model], expected[model], atol=2e-9
        )
    assert workload.arrival_s[-1] > 3600 + 300  # the last window is sampled over its full length


def test_jax_replay_of_a_window_does_not_depend_on_others():
    full = count_trace([[60, 60, 60], [60, 60, 60]])
    holes = count_trace([[60, 0, 60], [60, 60, 0]])
    a, b = (replay(trace, 2, seed=3) for trace in (full, holes))
    for model, minute in ((0, 0), (0, 2), (1, 0), (1, 1)):
        times = [
            w.arrival[(w.model == model) & (w.arrival_s // 60 == minute)].tolist() for w in (a, b)
        ]
        assert times[0] == times[1] and times[0]
    assert (
        len(replay(full, 2, seed=4)) != len(a)
        or (replay(full, 2, seed=4).arrival != a.arrival).any()
    )


@pytest.mark.parametrize("rng", ["jax", "legacy"])
def test_replayed_rate_and_cv_are_those_of_the_trace(llm, rng):
    for trace in llm.values():
        traffic = fit_traffic(trace, 1, window_s=4000.0)
        # Over 20 times the window: there, a renewal process from its start is stationary enough.
        long = Traffic(traffic.start_s, 80_000.0, traffic.rate_rps, traffic.cv)
        rates, cvs = [], []
        for seed in range(12):
            gaps = np.diff(long.sample(seed=seed, rng=rng).arrival_s)
            rates.append(1 / gaps.mean())
            cvs.append(gaps.std() / gaps.mean())
        for values, fitted in ((rates, traffic.rate_rps), (cvs, traffic.cv)):
            error = scipy.stats.sem(values)
            assert abs(np.mean(values) - fitted[0, 0]) < 4 * error < 0.05 * fitted[0, 0]


def test_replayed_counts_are_those_of_the_trace(maf1_day):
    options = {"start": "0.12.0", "end": "0.13.0"}
    expected = fit_traffic(maf1_day, 48, **options).rate_rps.sum(axis=1) * 60 * 0.02
    replayed = np.zeros(48)
    for seed in range(5):
        workload = replay(maf1_day, 48, **options, rate_scale=0.02, seed=seed)
        assert (workload.arrival_s >= 43200).all() and (workload.arrival_s < 46800).all()
        replayed += np.bincount(workload.model, minlength=48) / 5
    # At CV 1 a window's count is Poisson.
    assert (abs(replayed - expected) < 4 * np.sqrt(expected / 5) + 1e-9).all()


@settings(max_examples=30)
@given(a=st.floats(0.1, 10), b=st.floats(0.1, 10), c=st.floats(0.5, 3), d=st.floats(0.5, 3))
def test_scaling_twice_is_scaling_by_the_product(a, b, c, d):
    traffic = fit_traffic(count_trace([[1, 2, 0, 7], [5, 0, 0, 1]]), 2)
    twice = traffic.scaled(rate=a).scaled(rate=b).scaled(cv=c).scaled(cv=d)
    once = traffic.scaled(rate=a * b, cv=c * d)
    np.testing.assert_allclose(twice.rate_rps, once.rate_rps)
    np.testing.assert_allclose(twice.cv, once.cv)


def test_sampled_traffic_scales_in_expectation():
    traffic = fit_traffic(count_trace([[50] * 20, [5] * 20]), 2)
    for scale in (0.2, 3.0):
        number = [len(traffic.scaled(rate=scale).sample(seed=seed)) for seed in range(20)]
        expected = 1100 * scale
        assert abs(np.mean(number) - expected) < 4 * np.sqrt(expected / 20)


def test_vanilla_replay_is_the_trace():
    trace = arrival_trace([[60.5, 61.0, 200.0], [59.0, 61.0, 119.0]])
    same = replay(trace, 2, start="0.0.1", end="0.0.2", process="vanilla")
    assert same.arrival_s.tolist() == [60.5, 61.0, 61.0, 119.0]
    assert same.model.tolist() == [0, 0, 1, 1]
    fast = replay(trace, 2, start="0.0.1", end="0.0.2", process="vanilla", time_scale=2, replicas=3)
    assert fast.arrival_s[fast.model == 1].tolist() == [60.5] * 3 + [89.5] * 3


def test_prompts_keep_their_lengths():
    plain = arrival_trace([[60.5, 61.0, 200.0], [59.0, 61.0, 119.0]])
    trace = dataclasses.replace(plain, prompt_tokens=np.arange(6) * 100)
    options = {"start": "0.0.1", "end": "0.0.2", "process": "vanilla", "replicas": 2}
    workload = replay(trace, 2, **options, work=lambda m, tokens: tokens / 400 + m)
    assert workload == dataclasses.replace(replay(plain, 2, **options), work=workload.work)
    assert (workload.work / 65536).tolist() == [0.25] * 2 + [0.5] * 2 + [1.75] * 2 + [2] * 2


def test_reference_rates(maf1_day):
    scale = reference_scale(maf1_day)
    assert scale == pytest.approx(10_000 / 375.338, rel=1e-5)
    workload = replay(maf1_day, 48, end="0.1.0", rate_scale=2e-3 * scale)
    assert len(workload) / 3600 == pytest.approx(20, rel=0.02)
    assert reference_scale(arrival_trace([np.linspace(0, 599.9, 600)])) == pytest.approx(1.6)
    assert reference_scale(arrival_trace([np.linspace(0, 599.9, 1000)])) == 1
    assert (
        reference_scale(RateTrace("r", "rates", ["a"], np.ones((1, 1)), np.ones((1, 1)), 60.0)) == 1
    )


# --- cost ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_million_requests_within_2_gb(shared):
    script = """
        import sys
        from beta_jax.traces import load_trace, replay
        trace = load_trace(sys.argv[1], cache=False)
        workload = replay(trace, 72, rate_scale=1 / 11.5, cv_scale=4.0)
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(len(workload), status["VmHWM"].split()[0])
    """
    folder = shared / "data" / "traces" / "maf1_day"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    requests, kilobytes = map(int, done.stdout.split())
    assert requests > 1e6
    assert kilobytes < 2 * 2**20


# --- bad input -----------------------------------------------------------------------------------

COUNTS = count_trace([[1, 2, 0], [0, 0, 3]])
ARRIVALS = arrival_trace([[1.0, 2.0, 4.0], [3.0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replay(COUNTS, 3), "2 functions have requests in the slice, too few for 3 models"),
        (lambda: replay(COUNTS, 2, end="0.0.2"), "too few"),
        (lambda: replay(COUNTS, 0), "num_models must be >= 1"),
        (lambda: replay(COUNTS, 1, start="0.0.2", end="0.0.2"), "is empty"),
        (lambda: replay(COUNTS, 1, start="0.0.2", end="0.0.1"), "is empty"),
        (lambda: replay(count_trace([[1, 0, 0]]), 1, start="0.0.1"), "no request in the slice"),
        (lambda: replay(COUNTS, 1, end="0.0.4"), "outside the trace, which spans 0.0.0 to 0.0.3"),
        (lambda: replay(count_trace([[1, 2]], 90), 1, start="0.0.0"), "spans 0.1.30 to 0.1.32"),
        (lambda: replay(ARRIVALS, 1, end="13.23.60"), "outside the trace"),
        (lambda: replay(COUNTS, 1, start="0.24.0"), "must be day.hour.minute"),
        (lambda: replay(COUNTS, 1, start="0.0.61"), "must be day.hour.minute"),
        (lambda: replay(COUNTS, 1, start="1:00"), "must be day.hour.minute"),
        (lambda: replay(COUNTS, 1, start="-1.0.0"), "must be day.hour.minute"),
        (lambda: replay(COUNTS, 1, window_s=90), "counts are per 60 s"),
        (lambda: replay(COUNTS, 1, window_s=30), "counts are per 60 s"),
        (lambda: replay(COUNTS, 1, window_s=0), "windows must be > 0"),
        (lambda: replay(COUNTS, 1, mapping="random"), "mapping must be"),
        (lambda: replay(COUNTS, 1, process="pareto"), "process must be"),
        (lambda: replay(COUNTS, 1, process="poisson", cv_scale=2), "Poisson arrivals have CV 1"),
        (lambda: replay(COUNTS, 1, process="vanilla"), "a vanilla replay needs arrival times"),
        (lambda: replay(COUNTS, 1, rate_scale=-1), "not negative"),
        (lambda: replay(COUNTS, 1, cv_scale=0), "not negative"),
        (lambda: replay(ARRIVALS, 1, time_scale=2), "need a vanilla replay"),
        (lambda: replay(ARRIVALS, 1, time_scale=2, rate_scale=2), "need a vanilla replay"),
        (
            lambda: replay(ARRIVALS, 1, process="vanilla", time_scale=2, rate_scale=2),
            "no rate or CV to scale",
        ),
        (lambda: replay(ARRIVALS, 1, process="vanilla", replicas=0), "replicas must be >= 1"),
        (lambda: replay(ARRIVALS, 3, process="vanilla"), "too few for 3"),
        (lambda: replay(ARRIVALS, 1, work=lambda m, n: n), "in a vanilla replay only"),
        (lambda: replay(ARRIVALS, 1, process="vanilla", work=lambda m, n: n), "lengths of prompts"),
    ],
)  # fmt: skip
def test_bad_replays_are_one_clear_line(make, message):
    with pytest.raises(TraceError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


# --- generated traces ----------------------------------------------------------------------------


def test_generated_traces_are_replayed_by_name_and_seed():
    trace = beta_jax.traces.open_trace("maf2_like", seed=1)
    assert len(trace.arrival_s) == len(maf2_like(seed=1).arrival_s) != len(maf2_like().arrival_s)
    workload = beta_jax.replay(trace, 72, start="13.0.0", end="13.23.60", window_s=5400)
    assert workload.model.max() < 72 and len(set(workload.model.tolist())) > 40
    short = maf1_like(200, 1, seed=2)
    assert len(beta_jax.replay(short, 48, end="0.1.0", rate_scale=0.1)) > 100
