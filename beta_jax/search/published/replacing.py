"""Beta again and again: a search for every window of the traffic, on the window before."""

from __future__ import annotations

from beta_jax.placement.placement import Schedule
from beta_jax.search.instances import Instances
from beta_jax.search.published.pipelines import mp_search
from beta_jax.search.published.replication import cut_windows
from beta_jax.search.result import Result, score_placements


def mp_replace(instances: Instances, *, seconds: int) -> list[Result]:
    """`mp-search` afresh for every window of the workload, from the traffic of the one before.

    Windows are those of `sr_replace`. The first, which has none before it, and so the second are
    placed for the first one's own traffic. With a load bandwidth of the cluster a switch loads
    weights, and its cost is in the score; without one it is free.
    """
    windows = [cut_windows(workload, seconds) for _, workload in instances]
    searched = iter(
        mp_search(
            [
                (problem, window)
                for (problem, _), cut in zip(instances, windows, strict=True)
                for window in cut[: max(len(cut) - 1, 1)]
            ]
        )
    )
    schedules, counts = [], []
    for cut in windows:
        found = [next(searched) for _ in cut[: max(len(cut) - 1, 1)]]
        placements = [found[0], *found][: len(cut)]
        starts = (float(window.arrival_s[0]) if len(window) else 0.0 for window in cut)
        schedules.append(Schedule(tuple(starts), tuple(one.static for one in placements)))
        counts.append(sum(one.num_simulations for one in found))
    return [
        Result(result.placement, result.score, count)
        for result, count in zip(score_placements(instances, schedules), counts, strict=True)
    ]
