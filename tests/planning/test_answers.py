"""Answers to a planner's questions: the boundary, what is cheapest, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import beta_jax
from beta_jax import Cluster, Group, Model, ParallelConfig, Pool, Problem, place_batch, simulate
from beta_jax.analysis.statistics import proportion_interval
from beta_jax.planning import Generated, PlanError, Setting
from beta_jax.planning.boundary import Line, find_boundaries
from beta_jax.planning.outages import node_weights, one_node_down

from instances import make_profile

ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)
OLD = make_profile({"t": {ONE: [0.1], TWO: [0.055, 0.055]}}, 1.0)
NEW = make_profile({"t": {ONE: [0.05]}}, 1.0)
MODELS = tuple(Model(f"m{i}", "t", 0.5, rate_rps=3.0, cv=3.0) for i in range(3))
TRAFFIC = Generated(duration_s=60.0, block_s=10.0)
SMALL: Any = {"seeds": 8, "target": 0.95, "warmup_s": 0.0}


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 5), st.booleans())
def test_the_boundary_of_what_is_monotone(meets: list[bool], start: int, gallops: bool):
    """And a boundary, with what lies around it, of what is not."""
    settings = [Setting((n,)) for n in range(len(meets))]

    def attempt(some: Sequence[Setting]) -> list[Any]:
        return [SimpleNamespace(meets=lambda _, ok=meets[s.num_devices[0]]: ok) for s in some]

    line = Line(settings, min(start, len(meets) - 1), gallops)
    find_boundaries([line], 0.5, attempt, beside=True)
    found = line.meeting(0.5)
    if found is None:
        assert not meets[-1]
        return
    assert meets[found]
    assert found == 0 or line.missing(0.5) == found - 1
    around = {i for i in (found - 2, found - 1, found, found + 1) if 0 <= i < len(meets)}
    assert around <= {*line.trials}
    if meets == sorted(meets):
        assert found == meets.index(True)
    assert all(not meets[i] for i in line.violations(0.5))


@pytest.fixture(scope="module")
def mixed() -> beta_jax.planning.Answer:
    pools = [Pool("old", 4, 2.0, price_per_hour=1.0), Pool("new", 3, 2.0, price_per_hour=2.5)]
    problem = Problem(MODELS, Cluster(pools=pools), {"old": OLD, "new": NEW})
    return beta_jax.plan(problem, TRAFFIC, **SMALL)


def test_the_cheapest_mix_is_that_of_all(mixed: beta_jax.planning.Answer):
    """Every mix by itself, by direct simulation."""
    assert mixed.best is not None
    problem = mixed.best.problem
    sizes = [s for s in itertools.product(range(5), range(4)) if any(s)]
    problems = [
        dataclasses.replace(problem, cluster=problem.cluster.with_devices(size)) for size in sizes
    ]
    train, *tests = TRAFFIC.sample(MODELS, [0, *range(1000, 1008)])
    found = [r.placement for r in place_batch("mp-search", problems, [train] * len(sizes))]
    lanes = list(itertools.product(zip(problems, found, strict=True), tests))
    tally = simulate([p for (p, _), _ in lanes], [f for (_, f), _ in lanes], [t for _, t in lanes])
    mean = tally.attainment.reshape(len(sizes), 8).mean(1)
    prices = [p.cluster.price_per_hour for p in problems]
    cheapest = min(price for price, value in zip(prices, mean, strict=True) if value >= 0.95)
    assert mixed.best.problem.cluster.price_per_hour == cheapest
    own = mean[sizes.index(mixed.best.setting.num_devices)]
    assert own >= 0.95 and mixed.best.interval.mean == pytest.approx(own)
    for a, b in itertools.permutations(mixed.frontier, 2):
        assert not (np.array(a.setting.num_devices) <= b.setting.num_devices).all()
    assert mixed.best in mixed.frontier


def test_an_answer_in_words_and_rows(mixed: beta_jax.planning.Answer):
    assert mixed.best is not None and mixed.missed is not None
    assert "per hour; what binds is" in str(mixed) and "rates may grow to" in str(mixed)
    rows = mixed.rows()
    assert {"num_devices_old", "num_devices_new", "price_per_hour"} <= {*rows[0]}
    (answer,) = (row for row in rows if row["answer"])
    assert answer["meets"] and answer["layout"] == str(mixed.placement)
    assert len({(row["num_devices_old"], row["num_devices_new"]) for row in rows}) == len(rows)
    assert all(0 <= row["low"] <= row["attainment"] <= row["high"] <= 1 for row in rows)


def test_fewest_devices_and_one_step_beside():
    problem = Problem(MODELS, Cluster(12, 2.0), OLD)
    answer = beta_jax.plan(problem, TRAFFIC, **SMALL)
    assert answer.best is not None and answer.missed is not None
    (devices,), (fewer,) = answer.best.setting.num_devices, answer.missed.setting.num_devices
    assert fewer == devices - 1 and answer.missed.interval.mean < 0.95
    assert {(devices + 1,)} <= {trial.setting.num_devices for trial in answer.trials}
    fresh = TRAFFIC.sample(MODELS, range(5000, 5032))
    for trial, meets in ((answer.best, True), (answer.missed, False)):
        mean = simulate(trial.problem, trial.placement, fresh).attainment.mean()
        assert (mean >= 0.95 - 0.02) if meets else (mean < 0.95 + 0.02)
    assert answer.headroom >= 1 and answer.binds in ("memory", "work", "bursts", "SLO")


@pytest.mark.parametrize("question", ["rate", "slo", "cv"])
def test_how_far_a_factor_may_go(question: str):
    problem = Problem(MODELS, Cluster(4, 2.0), OLD)
    answer = beta_jax.plan(problem, TRAFFIC, question, **SMALL)
    assert answer.best is not None and answer.missed is not None
    best, missed = (getattr(t.setting, question) for t in (answer.best, answer.missed))
    assert missed == pytest.approx(best * (1 / 1.05 if question == "slo" else 1.05), rel=1e-3)
    assert answer.best.interval.mean >= 0.95 > answer.missed.interval.mean
    assert f"{best:.3g} times the " in str(answer)


def test_the_hardest_that_is_tried_may_do():
    problem = Problem(MODELS, Cluster(4, 2.0), OLD)
    answer = beta_jax.plan(problem, TRAFFIC, "cv", **SMALL | {"target": 0.01})
    assert answer.missed is None and "and more was not tried" in str(answer)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"target": 1.0}, "100 % can never be confirmed"),
        ({}, {"target": 0.0}, "inside"),
        ({}, {"seeds": 1}, "seeds must be >= 2"),
        ({}, {"question": "gpus"}, "questions are devices, rate, slo, cv"),
        ({"slo_s": 0.05}, {}, r"the SLO of m0, 0.05 s, is below its service alone, 0.1119 s"),
        ({"type": "big"}, {}, r"model m0 \(big\) fits no pool"),
        ({"rate_rps": 0.0}, {}, "no request arrives"),
    ],
)
def test_questions_without_an_answer(change: dict, options: dict, message: str):
    document = OLD.to_dict()
    document["types"]["big"] = {
        "configs": [dict(document["types"]["t"]["configs"][0], weight_bytes=[9.0])]
    }
    models = [dataclasses.replace(model, **change) for model in MODELS]
    problem = Problem(models, Cluster(4, 2.0), beta_jax.Profile.from_dict(document))
    with pytest.raises(ValueError, match=message):
        beta_jax.plan(problem, TRAFFIC, **SMALL | options)


def test_a_pool_without_a_price():
    pools = Cluster(pools=[Pool("old", 4, 2.0, price_per_hour=1.0), Pool("new", 3, 2.0)])
    problem = Problem(MODELS, pools, {"old": OLD, "new": NEW})
    with pytest.raises(ValueError, match="pool new has no price_per_hour"):
        beta_jax.plan(problem, TRAFFIC)


def test_too_few_devices_are_said_to_be():
    problem = Problem(MODELS, Cluster(1, 2.0), OLD)
    answer = beta_jax.plan(problem, TRAFFIC, **SMALL)
    assert answer.best is None and answer.binds == "memory"
    assert str(answer).startswith("nothing that is allowed gives 95 % of requests in time")
    with pytest.raises(PlanError):
        _ = answer.placement


def test_the_worst_served_model_decides():
    models = (*MODELS[:2], dataclasses.replace(MODELS[2], slo_s=0.2))
    problem = Problem(models, Cluster(16, 2.0), OLD)
    worst = beta_jax.plan(problem, TRAFFIC, of="worst_model", seeds=8, target=0.9)
    every = beta_jax.plan(problem, TRAFFIC, seeds=8, target=0.9)
    assert worst.best is not None and every.best is not None
    assert worst.best.setting >= every.best.setting


def test_proportions_have_a_width():
    assert proportion_interval(1.0, 100) == (pytest.approx(0.963, abs=1e-3), 1.0)
    low, high = proportion_interval(0.5, 100)
    assert (low + high) / 2 == pytest.approx(0.5) and high - low == pytest.approx(0.192, abs=1e-3)
    with pytest.raises(ValueError, match="at least one trial"):
        proportion_interval(1.0, 0)


def test_one_node_down():
    """Two nodes of two devices, a pipeline over both, and a group on the second."""
    cluster = Cluster(4, 2.0, devices_per_node=2)
    models = (0, 1)
    groups = (Group(ONE, models), Group(TWO, models), Group(ONE, (2,)))
    first, second = one_node_down(cluster, beta_jax.Placement(groups))
    assert [group.models for group in first.groups] == [(), (), (2,)]
    assert [group.models for group in second.groups] == [models, (), ()]
    weights = node_weights(cluster, mtbf_h=9.0, mttr_h=1.0)
    odds = (1 - 0.9**2) / 0.9**2
    assert weights == pytest.approx(np.array([odds, odds, 1]) / (2 * odds + 1))
    assert weights.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="mtbf_h and mttr_h must be > 0"):
        node_weights(cluster, 0.0, 1.0)


def test_an_answer_tells_of_failures():
    problem = Problem(MODELS, Cluster(8, 2.0, devices_per_node=1), OLD)
    answer = beta_jax.plan(problem, TRAFFIC, mtbf_h=1000.0, mttr_h=10.0, **SMALL)
    assert answer.best is not None and "with the worst node down" in str(answer)
    assert answer.one_node_down < answer.with_failures < answer.best.interval.mean
    devices = answer.best.problem.cluster.num_devices
    odds = devices * 10 / 1000
    least = (answer.best.interval.mean + odds * answer.one_node_down) / (1 + odds)
    assert answer.with_failures >= least - 1e-9
    with pytest.raises(ValueError, match="mtbf_h and mttr_h go together"):
        beta_jax.plan(problem, TRAFFIC, mtbf_h=1000.0, **SMALL)
