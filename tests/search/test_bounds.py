"""What no placement exceeds, on several workloads at once, whatever the solver says."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
from test_exhaustive import bound_of, tiny_instance

from beta_jax import Problem, Workload, synthesize
from beta_jax.search.bounds import linear
from beta_jax.search.bounds.served import attainment_bound, training_bound
from beta_jax.search.bounds.windows import Stage, busy_windows
from beta_jax.search.exhaustive import try_all
from beta_jax.search.objective import Objective


def tiny_instances(number: int) -> list[tuple[Problem, list[Workload]]]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(number):
        problem, first = tiny_instance(rng)
        others = [synthesize(problem.models, duration_s=20, seed=s) for s in (1, 2)]
        found.append((problem, [first, *others]))
    return found


def test_no_placement_exceeds_the_bound_on_several_workloads():
    gaps = []
    for problem, workloads in tiny_instances(6):
        best = try_all(problem, workloads, Objective()).upper_bound
        bound = training_bound(problem, workloads)
        each = np.mean([attainment_bound(problem, workload) for workload in workloads])
        assert best <= bound
        gaps.append((bound - best, each - best))
        # Nor on fewer, if a workload is empty; and no more is asked than is needed.
        assert training_bound(problem, [*workloads, workloads[0].part(0, 0)]) == 0.75 * bound
        assert training_bound(problem, workloads, attained=1.0) >= bound
    bound, each = np.mean(gaps, axis=0)
    assert bound < each - 0.001  # one placement for all


def test_the_solver_is_not_trusted(monkeypatch: pytest.MonkeyPatch):
    """Whatever prices it proposes, none or any, prove a bound, and the best ones the lowest."""
    problem, workloads = tiny_instances(1)[0]
    best = try_all(problem, workloads, Objective()).upper_bound
    solve = scipy.optimize.linprog
    proposed = []

    def propose(gain, rows, most, **_):
        solution = solve(gain, rows, most, **_)
        status, prices = proposed.pop()
        prices = solution.ineqlin.marginals * prices(len(most))
        return SimpleNamespace(status=status, ineqlin=SimpleNamespace(marginals=prices))

    work, classes = np.zeros(len(problem.models), np.int64), [()] * len(workloads)
    honest = linear.served_by_hosts(problem, workloads, work, classes)
    monkeypatch.setattr(scipy.optimize, "linprog", propose)
    rng = np.random.default_rng(0)
    for status, prices in (
        (0, np.ones),
        (0, lambda n: rng.uniform(0, 2, n)),
        (0, lambda n: -rng.uniform(0, 2, n)),
        (1, np.ones),
    ):
        proposed.append((status, prices))
        bound = linear.served_by_hosts(problem, workloads, work, classes)
        assert bound >= honest >= best
    assert bound == 1  # no prices, no proof


def test_a_burst_is_served_by_the_groups_that_host_its_model():
    """Two devices could work on 5.7 of these requests in time; each holds one of two models."""
    assert bound_of(0.3, [0.0] * 6, devices=2, memory=1.0) == pytest.approx(4 / 6)


def test_windows_are_disjoint_and_hold_what_they_say():
    rng = np.random.default_rng(0)
    slo = np.array([50, 80, 200])
    arrivals = [np.sort(rng.integers(0, 3000, n) // 200 * 200) for n in (200, 0, 90)]
    on = np.array([[20, 6], [20, 6], [30, 9]])
    stage = Stage(0 * on, on, on // 2)
    able = np.ones_like(on, np.bool_)
    windows = busy_windows(arrivals, slo, stage, able, np.array([2, 4]))
    assert len(windows) > 9
    spans = sorted((window.begin, window.end) for window in windows)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    for window in windows:
        for own, limit, inside in zip(arrivals, slo, window.of(arrivals), strict=True):
            due = (own >= window.begin) & (own + limit <= window.end)
            np.testing.assert_array_equal(inside, own[due])
    assert busy_windows([own[:0] for own in arrivals], slo, stage, able, np.array([2, 4])) == []


def test_without_deadlines_memory_decides():
    problem, workloads = tiny_instances(1)[0]
    models = [dataclasses.replace(model, slo_s=np.inf) for model in problem.models]
    problem = Problem(models, dataclasses.replace(problem.cluster), problem.profile)
    best = try_all(problem, workloads, Objective()).upper_bound
    assert best <= training_bound(problem, workloads) <= 1
