"""Which of the placements that policies find is chosen, and what decides it."""

from __future__ import annotations

import numpy as np
import pytest

from beta_jax import Cluster, Group, Model, ParallelConfig, Placement, Problem, Result, Workload
from beta_jax.planning import choice as planning
from beta_jax.planning import choose
from beta_jax.search.objective import Objective

from instances import make_profile

ALONE = ParallelConfig(1, 1)

TWO = Problem(
    (Model("a", "t", 0.15), Model("b", "t", 0.15)), Cluster(1), make_profile({"t": {ALONE: [0.1]}})
)
ONLY_A, ONLY_B = (Placement((Group(ALONE, (model,)),)) for model in (0, 1))


def every_second(models: str) -> Workload:
    return Workload(np.arange(len(models)) * 10**9, np.array([*map("ab-".index, models)]) % 3)


TRAINING = [every_second("aaaaaaabbb"), every_second("abbbb" + "-----")]


@pytest.mark.parametrize(("worst_share", "chosen"), [(1.0, "for_a"), (0.5, "for_b")])
def test_all_policies_are_judged_by_one_objective(worst_share, chosen, monkeypatch):
    problem = Problem((*TWO.models, Model("c", "t", 0.15)), TWO.cluster, TWO.profile)
    found = {"for_a": ONLY_A, "for_b": ONLY_B}
    # A score of its own, as a policy with another objective has, decides nothing.
    made = {policy: Result(placement, len(policy), 1) for policy, placement in found.items()}
    monkeypatch.setattr(planning, "place", lambda policy, *_: made[policy])
    plan = choose(
        problem, TRAINING, {policy: {} for policy in found}, Objective(worst_share), today=None
    )
    assert plan.chosen == chosen
    assert plan.attainment.tolist() == [[0.7, 0.3], [0.1, 0.4]]
    assert plan.training("for_b") == {"train_attainment": pytest.approx(0.35), "train_worst": 0.3}


def test_today_is_a_candidate_but_what_improves_it_is_chosen(monkeypatch):
    monkeypatch.setattr(planning, "place", lambda *_: Result(ONLY_B, 0.0, 1))
    plan = choose(TWO, [every_second("aab")], {"local-search": {}}, Objective(), today=ONLY_A)
    assert [*plan.placements] == ["today", "local-search"] and plan.chosen == "local-search"
    assert plan.training("today") == {"train_attainment": pytest.approx(2 / 3)}
