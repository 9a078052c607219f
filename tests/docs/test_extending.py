"""Every extension that docs/extending.md shows works as shown, and is as short as promised."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats

from beta_jax import POLICIES, Model, TraceError, load_trace, place, simulate, synthesize
from beta_jax.search import published_score
from beta_jax.traces.readers import FORMATS

import documents
from instances import mixed_problem

PAGE = "docs/extending.md"
MOST_LINES = {
    "A dispatch rule": 25,
    "A placement policy": 25,
    "A figure": 30,
    "An arrival process": 20,
    "A trace format": 20,
}


def test_every_extension_is_short_and_none_is_forgotten():
    headings = re.findall(r"^## (.*)$", (documents.ROOT / PAGE).read_text(), re.MULTILINE)
    assert headings == [*MOST_LINES]
    for heading, most in MOST_LINES.items():
        lines = [line for line in documents.code_below(PAGE, heading).splitlines() if line]
        assert len(lines) <= most, heading


# A dispatch rule: tests/simulator/test_dispatch.py runs the page's in every kernel.


def test_a_policy_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(POLICIES, "first-fit", raising=False)
    documents.run(PAGE, "A placement policy")
    problem = mixed_problem(devices=3, memory=2.0)
    workload = synthesize(problem.models, duration_s=60, seed=0)
    result = place("first-fit", problem, workload)
    assert [group.models for group in result.static.groups] == [(0, 1), (2, 3), (4, 5)]
    tally = simulate(problem, result.placement, workload)
    good, latency = int(tally.good.sum()), int(tally.latency_ticks.sum())
    assert result.score == published_score(good, latency, len(workload), result.placement)
    assert place(POLICIES["first-fit"], problem, workload).placement == result.placement
    del POLICIES["first-fit"]


def test_a_process_of_ones_own():
    weibull = documents.run(PAGE, "An arrival process")["Weibull"]
    models = [Model("a", "t", 1.0, 30.0), Model("b", "t", 1.0, 10.0)]
    made = synthesize(models, duration_s=2000.0, process=lambda rate, cv: weibull(rate), seed=1)
    law = scipy.stats.weibull_min(0.5, scale=1 / 60)
    assert scipy.stats.kstest(np.diff(made.arrival_s[made.model == 0]), law.cdf).pvalue > 1e-3
    assert abs((made.model == 1).mean() - 0.25) < 0.03


def test_a_trace_format_of_ones_own(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(FORMATS, "access_log", None)  # so that it is taken out again
    documents.run(PAGE, "A trace format")
    path = tmp_path / "today.csv"
    path.write_text("service,received_ms,took_ms,code\nb,1500,3,200\na,250,7,200\nb,2000,1,500\n")
    for _ in range(2):  # parsed, then from the cache
        trace = load_trace(path)
        assert (trace.kind, list(trace.functions)) == ("access_log", ["b", "a"])
        np.testing.assert_array_equal(trace.arrival_s, [0.25, 1.5, 2.0])
    path.write_text("service,received_ms,took_ms\na,250,7\na,late,7\n")
    with pytest.raises(TraceError, match="line 3, column received_ms: expected seconds >= 0"):
        load_trace(path)
