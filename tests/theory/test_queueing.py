"""Queueing theory against published values, exact arithmetic, its own limits, and bad input."""

from __future__ import annotations

import csv
import math
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import beta_jax
from beta_jax.theory import queueing
from beta_jax.theory.systems import (
    ALL,
    FOREVER,
    KnownAverage,
    attainment,
    compare,
    latency_mean_s,
    share_within,
)

loads = st.floats(0.01, 0.99)
times = st.floats(1e-3, 1e3)
relaxed = settings(max_examples=40)


class Params(dict[str, list[float]]):
    """The numbers of `lambda=3;stages=0.2/0.2 (a remark)`; `p("lambda")` is the only one."""

    def __init__(self, text: str) -> None:
        found = re.findall(r"(\w+)=([\d./,]+)", text)
        super().__init__({name: [float(x) for x in re.split("[/,]", xs)] for name, xs in found})

    def __call__(self, name: str) -> float:
        (value,) = self[name]
        return value

    @property
    def group(self) -> tuple[float, float]:
        """Latency and bottleneck."""
        if "stages" in self:
            return sum(self["stages"]), max(self["stages"])
        return self("D_s"), self("D_m")


def servers(p: Params) -> int:
    return round(p("c"))


Answer = Callable[[Params], Any]
ANSWERS: dict[tuple[str, str], Answer] = {
    ("paper_simple_p0.5", "mean_latency"): lambda p: queueing.simple_latency_s(p("lambda"), p("D")),
    ("paper_simple_p0.2", "mean_latency"): lambda p: queueing.simple_latency_s(
        p("lambda"), p("D"), 0.2
    ),
    ("simple_v100_bert6.7b_p0.5", "mean_latency"): lambda p: queueing.simple_latency_s(
        p("lambda"), p("D"), 0.5
    ),
    ("paper_pipeline2_no_overhead", "mean_latency"): lambda p: queueing.pipeline_latency_s(
        p("lambda"), p("D"), p("D") / 2
    ),
    ("pipeline_v100_bert6.7b", "mean_latency"): lambda p: queueing.pipeline_latency_s(
        p("lambda"), *p.group
    ),
    ("fig10_beta_max", "beta"): lambda p: queueing.break_even_beta(p("lambdaD")),
    ("fig10_alpha_max", "alpha"): lambda p: queueing.break_even_alpha(p("lambdaD")),
    ("M/M/1", "Wq"): lambda p: queueing.mm1_wait_s(p("rho"), 1 / p("mu")),
    ("M/D/1", "Wq"): lambda p: queueing.md1_wait_s(p("rho"), p("D")),
    ("M/Gamma(cv2)/1", "Wq"): lambda p: queueing.mg1_wait_s(p("rho"), p("mean"), p("scv") ** 0.5),
    ("M/M/c", "Wq"): lambda p: queueing.mmc_wait_s(servers(p), p("rho") * p("c"), 1 / p("mu")),
    ("M/M/c", "ErlangC"): lambda p: queueing.erlang_c(servers(p), p("rho") * p("c")),
    ("M/M/c/c", "ErlangB"): lambda p: queueing.erlang_b(servers(p), p("a")),
    ("M/D/c", "Wq"): lambda p: queueing.mdc_wait_s(servers(p), p("rho") * p("c"), p("D")),
    ("M/D/1+deadline_admission", "slo_attainment"): lambda p: queueing.deadline_attainment(
        p("lambda"), p("slo"), p("D")
    ),
    ("pipeline+deadline_admission", "slo_attainment"): lambda p: queueing.deadline_attainment(
        p("lambda"), p("slo"), *p.group
    ),
    **{
        ("M/D/1 wait quantile", f"q{q}"): lambda p, q=q: queueing.md1_wait_quantile_s(
            q, p("lambda"), p("D")
        )
        for q in (0.5, 0.9, 0.99)
    },
    ("burst4_fig1a", "mean_completion"): lambda p: queueing.burst_latency_s(4, p("y")),
    ("burst4_2stage", "mean_completion"): lambda p: queueing.burst_latency_s(4, *p.group),
}
"""How each named case is answered; a case that is not here fails."""


@pytest.fixture
def published(shared: pathlib.Path) -> list[dict[str, str]]:
    path = shared / "spec" / "closed_form.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 112
    return rows


def test_every_published_value_to_the_digits_given(published: list[dict[str, str]]):
    for row in published:
        value = float(ANSWERS[row["case"], row["metric"]](Params(row["params"])))
        assert f"{value:.9g}" == row["value"], row
    assert {(row["case"], row["metric"]) for row in published} == {*ANSWERS}


def simulated(row: dict[str, str]) -> KnownAverage | None:
    """The published value as a system of one request/s: times are multiplied by the rate.

    None for what has no arrivals, or service times that vary, which the simulator does not.
    """
    p, kind, exact = Params(row["params"]), row["case"], float(row["value"])
    rate, measure, slo = p["lambda"][0] if "lambda" in p else 1.0, latency_mean_s, FOREVER
    if kind.startswith(("paper_simple", "simple")):
        first = (0,) if kind.endswith("p0.2") else (2,)
        times, hosts = [[p("D")]] * 2, (first, tuple(m for m in ALL if m not in first))
    elif kind == "paper_pipeline2_no_overhead":
        times, hosts = [[p("D") / 2] * 2], (ALL,)
    elif kind in ("M/D/1", "M/D/c"):
        number = servers(p) if kind == "M/D/c" else 1
        times, hosts = [[p("rho") * number]] * number, (ALL,) * number
        exact = (exact + 1) * p("rho") * number  # of a service time of 1
    elif "deadline_admission" in kind or kind == "pipeline_v100_bert6.7b":
        times, hosts = [p["stages"] if "stages" in p else p["D"]], (ALL,)
        if "slo" in p:
            measure, slo = attainment, p("slo")
    elif kind == "M/D/1 wait quantile":
        times, hosts = [p["D"]], (ALL,)
        measure = share_within(rate * (p("D") + exact))
        exact = float(row["metric"].removeprefix("q"))
    else:
        return None
    groups = tuple(
        (tuple(rate * time for time in stages), hosted)
        for stages, hosted in zip(times, hosts, strict=True)
    )
    if measure is latency_mean_s:
        exact *= rate
    return KnownAverage(kind + row["params"], row["metric"], groups, rate * slo, measure, exact)


@pytest.mark.slow
def test_simulations_are_within_four_standard_errors_of_every_published_value(
    published: list[dict[str, str]],
):
    found = [known for row in published if (known := simulated(row)) is not None]
    assert len(found) == 43
    compared = compare(found, 16, 50_000.0, seed=0, warmup_s=6000.0)
    assert not [one for one in compared if abs(one.difference_in_se) > 4]


# Values that are in textbooks, or follow by hand.


def test_erlang_values_of_textbook_tables():
    for number, load, blocked in [(5, 3, 0.1101), (10, 5, 0.0184), (10, 7, 0.0787), (1, 1, 0.5)]:
        assert float(queueing.erlang_b(number, load)) == pytest.approx(blocked, abs=5e-5)
    for number, load, waits in [(2, 1, 1 / 3), (5, 4, 0.5541), (10, 8, 0.4092), (1, 0.3, 0.3)]:
        assert float(queueing.erlang_c(number, load)) == pytest.approx(waits, abs=5e-5)
    assert queueing.mmc_wait_s(2, 1.0, 1.0) == pytest.approx(1 / 3)


def test_attainment_by_hand():
    """No wait is acceptable: M/D/1/1, Erlang's loss. One service: H(1) = e**load."""
    assert queueing.deadline_attainment(1.5, 0.4, 0.4) == pytest.approx(1 - 0.6 / 1.6)
    assert queueing.deadline_attainment(2.0, 2.0, 1.0) == pytest.approx(
        math.exp(2) / (1 + 2 * math.exp(2)), rel=1e-15
    )
    assert queueing.deadline_attainment(5.0, 0.3, 0.4) == 0
    assert queueing.deadline_attainment(1.0, 0.6, 0.2 + 0.2 + 0.2, 0.2) == pytest.approx(1 / 1.2)
    # Rarely a request; as many as ever can be served; hardly any misses.
    assert queueing.deadline_attainment(1e-9, 1.0, 1.0) == pytest.approx(1)
    assert queueing.deadline_attainment(3.0, 900.0, 1.0) == pytest.approx(1 / 3, rel=1e-15)
    assert queueing.deadline_attainment(0.5, 900.0, 1.0) == pytest.approx(1, rel=1e-15)


def test_pooling_by_hand():
    assert queueing.simple_latency_s(3, 0.4) == pytest.approx(0.7)
    assert queueing.pipeline_latency_s(3, 0.4, 0.2) == pytest.approx(0.55)
    assert queueing.burst_latency_s(4, 0.4) == pytest.approx((0.4 + 0.8 + 1.2 + 1.6) / 4)
    # At no load waits vanish and only alpha = 1 breaks even; two full devices tolerate nothing.
    assert queueing.break_even_alpha(1e-9) == pytest.approx(1)
    assert queueing.break_even_alpha(2 - 1e-9) == pytest.approx(1)
    assert queueing.break_even_beta(2 - 1e-9) == pytest.approx(1)


# Exact arithmetic: the alternating sums in 300 digits, where float64 would lose all of them.


def exact_growth(load: float, x: float) -> Decimal:
    """Takacs' sum, see `queueing._growth`."""
    total = Decimal(0)
    for j in range(int(x) + 1):
        ahead = Decimal(load) * (Decimal(x) - j)
        total += ahead.exp() * ((-ahead) ** j if j else 1) / math.factorial(j)
    return total


@given(st.floats(0.01, 0.999) | st.floats(1.0, 3.0), st.floats(0, 60))
@relaxed
def test_attainment_and_waits_are_accurate(load: float, acceptable: float):
    slo = acceptable + 1.0
    with localcontext(prec=300):
        growth = exact_growth(load, slo - 1.0)
        attainment = growth / (1 + Decimal(load) * growth)
        below = (1 - Decimal(load)) * growth
    assert queueing.deadline_attainment(load, slo, 1.0) == pytest.approx(
        float(attainment), 1e-14, 0
    )
    if load < 1:
        assert queueing.md1_wait_cdf(slo - 1.0, load, 1.0) == pytest.approx(float(below), abs=1e-14)


def test_attainment_is_accurate_as_far_as_it_goes():
    for load, slo in [(0.97, 300.0), (1.0, 700.0), (400.0, 3.5)]:
        with localcontext(prec=500):
            growth = exact_growth(load, slo - 1.0)
            expected = float(growth / (1 + Decimal(load) * growth))
        assert queueing.deadline_attainment(load, slo, 1.0) == pytest.approx(expected, 1e-14, 0)


def exact_mdc_wait(num_servers: int, load: Decimal) -> Decimal:
    """Spitzer's series term by term, each from the Poisson probabilities themselves."""
    queue, i, term = Decimal(0), 0, Decimal(1)
    while term > queue * Decimal(10) ** -20:
        i, n, term = i + 1, num_servers * (i + 1), Decimal(0)
        mean = load * i
        weight = (-mean).exp() * mean**n / math.factorial(n)
        while n < mean or weight * n > term * Decimal(10) ** -25:
            n, weight = n + 1, weight * mean / (n + 1)
            term += (n - num_servers * i) * weight
        term /= i
        queue += term
    return queue / load


@pytest.mark.parametrize("num_servers", [2, 7, 40])
def test_mdc_waits_are_accurate(num_servers: int):
    """Light and heavy load, where the computation changes from a series to zeros."""
    for busy in (0.02, 0.4, 0.75):
        load = busy * num_servers
        with localcontext(prec=40):
            expected = float(exact_mdc_wait(num_servers, Decimal(load)))
        assert queueing.mdc_wait_s(num_servers, load, 1.0) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("load", [1e-6, 0.4, 1.0, 1.6])
def test_pairs_are_accurate(load: float):
    """By the chain of how many a service leaves, up to 200, and the time from one to the next."""
    states = 200
    poisson = np.exp(-load) * np.cumprod([1.0, *(load / np.arange(1, states))])
    stay = np.maximum(np.arange(states) - 2, 0)
    after = np.array([np.roll(poisson, k) * (np.arange(states) >= k) for k in stay])
    left = np.linalg.matrix_power(after / after.sum(1, keepdims=True), 4096)[0]
    waiting = (left @ stay + load / 2) / (1 + left[0] / load)
    expected = waiting / load + 1
    assert queueing.md1_pairs_latency_s(load, 1.0) == pytest.approx(expected, rel=1e-10)
    assert queueing.md1_pairs_latency_s(load / 3, 3.0) == pytest.approx(3 * expected, rel=1e-10)


# One formula is a special case of another, or bounds it.


@given(loads, times)
@relaxed
def test_special_cases_agree(busy: float, service: float):
    rate = busy / service
    exponential = float(queueing.mm1_wait_s(rate, service))
    assert exponential == pytest.approx(busy * service / (1 - rate * service))
    assert queueing.mmc_wait_s(1, rate, service) == pytest.approx(exponential)
    constant = float(queueing.md1_wait_s(rate, service))
    assert queueing.mdc_wait_s(1, rate, service) == pytest.approx(constant, rel=1e-9)
    assert queueing.pipeline_latency_s(rate, 3 * service, service) == pytest.approx(
        3 * service + constant
    )
    assert queueing.kingman_bound_s(rate, service, 1, 0) >= constant
    assert queueing.kingman_bound_s(rate, service, 1, 1) >= exponential


def test_kingmans_bound_is_sharp_in_heavy_traffic():
    assert queueing.kingman_bound_s(0.9999, 1, 1, 2) == pytest.approx(
        float(queueing.mg1_wait_s(0.9999, 1, 2)), rel=1e-3
    )
    assert queueing.kingman_bound_s(0.7, 1, 0, 0) == 0  # a clockwork never waits


@given(loads, st.sampled_from((2, 7, 40)))
@relaxed
def test_more_servers_wait_less_and_constant_service_about_half(busy: float, number: int):
    mdc = queueing.mdc_wait_s(number, busy * number, 1.0)
    mmc = queueing.mmc_wait_s(number, busy * number, 1.0)
    assert mmc / 2 < mdc < mmc
    assert queueing.erlang_b(number, busy * number) < queueing.erlang_c(number, busy * number)


@given(st.floats(0.01, 0.97), times, st.floats(0.0, 0.9999))
@relaxed
def test_a_quantile_inverts_the_distribution(busy: float, service: float, probability: float):
    rate = busy / service
    wait = queueing.md1_wait_quantile_s(probability, rate, service)
    if probability <= 1 - rate * service:
        assert wait == 0
    else:
        found = queueing.md1_wait_cdf(wait, rate, service)
        assert found == pytest.approx(probability, abs=1e-12)


@pytest.mark.parametrize("busy", [0.2, 0.8])
def test_the_distribution_of_waits_has_the_known_mean(busy: float):
    """The mean is the integral of the probability of a longer wait."""
    edges = np.linspace(0, 60, 6001)
    inner = (edges[1:] + edges[:-1]) / 2
    longer = 1 - np.asarray(queueing.md1_wait_cdf(inner, busy, 1.0))
    assert longer.sum() * edges[1] == pytest.approx(float(queueing.md1_wait_s(busy, 1.0)), abs=1e-5)


@given(st.floats(0.01, 1.99))
@relaxed
def test_both_placements_are_equally_fast_at_break_even(load: float):
    alpha, beta = queueing.break_even_alpha(load), queueing.break_even_beta(load)
    simple = float(queueing.simple_latency_s(load, 1.0))
    assert queueing.pipeline_latency_s(load, alpha, alpha / 2) == pytest.approx(simple, rel=1e-9)
    assert queueing.pipeline_latency_s(load, 1.0, beta / 2) == pytest.approx(simple, rel=1e-9)


# Arrays, transformations, bad input.


def test_arrays_broadcast_and_transformations_agree():
    rates, slos = np.linspace(0.5, 3, 6)[:, None], np.array([0.3, 0.4, 0.9, 3.0])
    whole = queueing.deadline_attainment(rates, slos, 0.4)
    assert whole.shape == (6, 4) and whole.dtype == np.float64
    each = [[float(queueing.deadline_attainment(r, s, 0.4)) for s in slos] for r in rates[:, 0]]
    np.testing.assert_allclose(whole, each, rtol=1e-15)
    mapped = jax.jit(jax.vmap(lambda rate: queueing.deadline_attainment(rate, slos, 0.4)))
    np.testing.assert_allclose(mapped(rates[:, 0]), each, rtol=1e-15)
    waits = jax.vmap(lambda rate: queueing.mdc_wait_s(2, rate, 1.0))(np.array([1.0, 1.9]))
    each = [float(queueing.mdc_wait_s(2, rate, 1.0)) for rate in (1.0, 1.9)]
    np.testing.assert_allclose(waits, each, rtol=1e-15)


Call = tuple[Callable[..., Any], Sequence[float], str]
BAD: list[Call] = [
    (queueing.mm1_wait_s, (1.0, 1.0), "utilisation must be < 1 .* got 1"),
    (queueing.md1_wait_s, (2.0, 1.0), "utilisation must be < 1"),
    (queueing.md1_wait_s, (0.0, 1.0), "rate must be > 0"),
    (queueing.md1_wait_s, (-1.0, 1.0), "rate must be > 0"),
    (queueing.md1_wait_s, (math.nan, 1.0), "rate must be > 0"),
    (queueing.md1_wait_s, (1.0, -0.5), "service time must be > 0 and finite, got -0.5"),
    (queueing.mg1_wait_s, (0.5, 1.0, -1.0), "service CV must be >= 0"),
    (queueing.kingman_bound_s, (0.5, 2.0, 1.0, 1.0), "utilisation must be < 1"),
    (queueing.kingman_bound_s, (0.5, 1.0, -1.0, 1.0), "arrival CV must be >= 0"),
    (queueing.md1_wait_cdf, (-0.1, 0.5, 1.0), "wait must be >= 0"),
    (queueing.md1_wait_cdf, (1025.0, 0.5, 1.0), "at most 1024, got 1025"),
    (queueing.md1_wait_quantile_s, (1.0, 0.5, 1.0), r"probability must be in \[0, 1\), got 1"),
    (queueing.md1_wait_quantile_s, (0.5, 1.5, 1.0), "utilisation must be < 1"),
    (queueing.md1_wait_quantile_s, (0.999, 0.9999, 1.0), "at most 1024"),
    (queueing.deadline_attainment, (0.0, 1.0, 1.0), "rate must be > 0"),
    (queueing.deadline_attainment, (1.0, -1.0, 1.0), "SLO must be > 0"),
    (queueing.deadline_attainment, (1.0, math.inf, 1.0), "SLO must be > 0 and finite"),
    (queueing.deadline_attainment, (1.0, 1027.0, 1.0), "at most 1024, got 1026"),
    (queueing.deadline_attainment, (501.0, 1.0, 1.0), "load must be at most 500"),
    (queueing.deadline_attainment, (1.0, 1.0, 0.2, 0.3), "latency must be at least"),
    (queueing.deadline_attainment, (1.0, 1.0, 1.0, 0.0), "bottleneck's time must be > 0"),
    (queueing.pipeline_latency_s, (6.0, 0.4, 0.2), "utilisation must be < 1 .* got 1.2"),
    (queueing.md1_pairs_latency_s, (2.0, 1.0), "utilisation must be < 1 .* got 1"),
    (queueing.md1_pairs_latency_s, (1.0, 0.0), "service time must be > 0"),
    (queueing.simple_latency_s, (4.0, 0.4, 0.2), "utilisation must be < 1"),
    (queueing.simple_latency_s, (1.0, 0.4, 1.0), "share must be inside"),
    (queueing.break_even_alpha, (2.0,), r"inside \(0, 2\), got 2"),
    (queueing.break_even_beta, (0.0,), r"inside \(0, 2\)"),
    (queueing.burst_latency_s, (0, 1.0), "at least one request"),
    (queueing.burst_latency_s, (math.inf, 1.0), "number of requests must be > 0 and finite"),
    (queueing.burst_latency_s, (4, math.inf, 1.0), "latency must be > 0 and finite"),
    (queueing.pipeline_latency_s, (1.0, math.inf, 0.2), "latency must be > 0 and finite"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD)
def test_bad_input_is_an_error_and_nan_under_jit(
    function: Callable[..., Any], arguments: Sequence[float], message: str
):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
    assert np.isnan(jax.jit(function)(*arguments))


def test_one_bad_element_is_an_error_and_nan_alone_under_vmap():
    rates = np.array([0.5, 1.0, 0.25])
    with pytest.raises(ValueError, match=r"utilisation .* got 1"):
        queueing.md1_wait_s(rates, 1.0)
    waits = jax.vmap(lambda rate: queueing.md1_wait_s(rate, 1.0))(rates)
    assert np.isnan(waits).tolist() == [False, True, False]


def test_servers_are_counted_in_whole_numbers():
    for function in (queueing.erlang_b, queueing.erlang_c):
        with pytest.raises(ValueError, match="load must be > 0"):
            function(2, -1.0)
    assert queueing.erlang_b(2, 5.0) < 1
    with pytest.raises(ValueError, match="utilisation must be < 1"):
        queueing.erlang_c(2, 2.0)
    for function, arguments in ((queueing.mmc_wait_s, (1.0, 1.0)), (queueing.erlang_b, (1.0,))):
        for number in (0, -1, 1.5):
            with pytest.raises(ValueError, match="num_servers must be"):
                function(number, *arguments)
    for function in (queueing.mmc_wait_s, queueing.mdc_wait_s):
        with pytest.raises(ValueError, match=r"utilisation must be < 1 .* got 1.25"):
            function(2, 2.5, 1.0)


def test_importing_the_package_alone_does_not_load_it():
    check = "import beta_jax, sys; assert 'jax' not in sys.modules; beta_jax.queueing.md1_wait_s"
    subprocess.run([sys.executable, "-c", check], check=True)
    assert "queueing" in dir(beta_jax)
