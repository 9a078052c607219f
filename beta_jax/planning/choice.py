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
from beta_jax.search.bounds.served import training_bound
from beta_jax.search.objective import Objective, judge
from beta_jax.types import Workload

TODAY = "today"
"""What tables call the placement that a search starts from."""
IMPROVES = "local-search"
"""The policy that can start from a placement."""


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
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
    def warnings(self) -> list[str]:
        """What the policies had to say."""
        return [warning for result in self.results.values() for warning in result.warnings]

    def training(self, name: str) -> dict[str, float]:
        """A placement's mean SLO attainment over the training workloads; of several, the worst."""
        own = self.attainment[:, list(self.placements).index(name)]
        mean = {"train_attainment": float(own.mean())}
        return mean | ({"train_worst": float(own.min())} if len(own) > 1 else {})


def certificate_rows(choice: Choice, training: Sequence[Workload]) -> list[dict[str, Any]]:
    """Of each placement its mean SLO attainment on the training workloads, what no static one
    exceeds there, the tightest bound that a policy proved, and the gap between them."""
    known = [r.upper_bound for r in choice.results.values() if r.upper_bound is not None]
    best = float(choice.attainment.mean(0).max())
    bound = min(known) if known else training_bound(choice.problem, training, best)
    rows = []
    for name in choice.placements:
        attained = choice.training(name)["train_attainment"]
        gap = max(bound - attained, 0.0)
        rows.append(
            {"placement": name, "train_attainment": attained, "upper_bound": bound}
            | {"left_to_gain": gap, "chosen": name == choice.chosen}
        )
    return rows


def choose(
    problem: Problem,
    training: Sequence[Workload],
    policies: Mapping[str, Mapping[str, Any]],
    objective: Objective,
    today: Placement | None,
) -> Choice:
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
    return Choice(problem, placements, results, chosen, attainment)


def history_rows(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Of the policies that search on: a row per improvement, and one where the search ended."""
    return [
        {"policy": policy, "num_simulations": num_simulations, "best_score": score}
        for policy, result in results.items()
        if result.history
        for num_simulations, score in (*result.history, (result.num_simulations, result.score))
    ]
