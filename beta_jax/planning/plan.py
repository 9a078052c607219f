"""What several policies find for one service, judged alike on what they were trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.hosting import hosts_any, require_placed
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.search import Result, place
from beta_jax.search.objective import Objective, judge
from beta_jax.simulator import simulate
from beta_jax.types import Workload

TODAY = "today"
"""What tables call the placement that a search starts from."""
IMPROVES = "local-search"
"""The policy that can start from a placement."""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What there is to choose from on one cluster.

    placements: by the name that tables call them, today's first; results: those of the policies.
    chosen: the one to use. attainment: SLO attainment on each training workload, float64
    [workload, placement].
    """

    problem: Problem
    placements: Mapping[str, Placement | Schedule]
    results: Mapping[str, Result]
    chosen: str
    attainment: NDArray[np.float64]

    @property
    def num_devices(self) -> int:
        return self.problem.cluster.num_devices

    @property
    def warnings(self) -> list[str]:
        """What the policies had to say."""
        return [warning for result in self.results.values() for warning in result.warnings]

    def training(self, name: str) -> dict[str, float]:
        """A placement's mean SLO attainment over the training workloads; of several, the worst."""
        own = self.attainment[:, list(self.placements).index(name)]
        mean = {"train_attainment": float(own.mean())}
        return mean | ({"train_worst": float(own.min())} if len(own) > 1 else {})


def make_plan(
    problem: Problem,
    training: Sequence[Workload],
    policies: Mapping[str, Mapping[str, Any]],
    objective: Objective,
    today: Placement | None,
) -> Plan:
    """Place by each policy with its options.

    Chosen is what has the highest objective, the first of equals; if there is a placement already,
    what `local-search` makes of it. Raises NothingPlacedError if no model has a replica anywhere.
    """
    results = {
        policy: place(policy, problem, training, **options) for policy, options in policies.items()
    }
    placements = {policy: result.placement for policy, result in results.items()}
    if today is not None:
        placements = {TODAY: today, **placements}
    warnings = [warning for result in results.values() for warning in result.warnings]
    require_placed(any(map(hosts_any, placements.values())), warnings)
    value, attainment = judge(problem, training, list(placements.values()), objective)
    chosen = list(placements)[int(value.argmax())] if today is None else IMPROVES
    return Plan(problem, placements, results, chosen, attainment)


def reaches(plan: Plan, goal: float) -> bool:
    """Whether its choice has that SLO attainment, on the mean of the training traffic."""
    return plan.training(plan.chosen)["train_attainment"] >= goal


def fewest_devices(plans: Sequence[Plan], goal: float) -> Plan:
    """The plan with the fewest devices that reaches the goal; if none does, with the most."""
    by_size = sorted(plans, key=lambda plan: plan.num_devices)
    return next((plan for plan in by_size if reaches(plan, goal)), by_size[-1])


def device_rows(plans: Sequence[Plan], test: Workload, warmup_s: float) -> list[dict[str, Any]]:
    """How well each cluster serves by each placement, on the training and on the test traffic."""
    rows = []
    for plan in plans:
        placements = list(plan.placements.values())
        tally = simulate(plan.problem, placements, test, warmup_s=warmup_s)
        rows += [
            {"num_devices": plan.num_devices, "placement": name, "layout": str(placement)}
            | plan.training(name)
            | {"test_attainment": attainment}
            for (name, placement), attainment in zip(
                plan.placements.items(), tally.attainment.tolist(), strict=True
            )
        ]
    return rows


def history_rows(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Of the policies that search on: a row per improvement, and one where the search ended."""
    return [
        {"policy": policy, "num_simulations": num_simulations, "best_score": score}
        for policy, result in results.items()
        if result.history
        for num_simulations, score in (*result.history, (result.num_simulations, result.score))
    ]
