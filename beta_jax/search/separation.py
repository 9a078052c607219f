"""Beta for mixed model types: models of similar latency share devices, others are kept apart.

Small requests behind large ones on one pipeline miss their deadlines. So models are put in buckets
of similar latency, the devices are divided among the buckets, and each bucket is searched alone
(Beta, OSDI 2023, section 4.2).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement import Placement
from beta_jax.problem import Problem
from beta_jax.search.bound import ServedBound
from beta_jax.search.instances import Instances, nominal_rates
from beta_jax.search.pipeline import Share, mp_search, search_partitions
from beta_jax.search.result import Result, score_counts, score_placements
from beta_jax.types import Workload

SIMILAR = 0.38
"""Latencies that differ by less, relative to a bucket's first member, share the bucket."""
IMBALANCES = (1.0, 0.5, 0.3, 0.2, 0.1)
"""Bounds on a division's imbalance, tightened until fewer than `FEW_DIVISIONS` are left."""
FEW_DIVISIONS = 100
AT_ONCE = 2
"""Divisions that are searched together; what is learnt of them rules out others."""
ROUNDING = 1e-9
"""Scores of shares add up to that of the division, but for rounding, which is far less."""

Bucket = tuple[int, ...]
"""Models, by index."""
Division = tuple[tuple[Bucket, int], ...]
"""Buckets, each with its number of devices."""


def mp_search_sep(instances: Instances) -> list[Result]:
    """The best of `mp_search` on all models together and on every division among the buckets.

    Each bucket is searched once per number of devices, and not at all where no division that it is
    part of can win any more, which does not change what wins. Of equal scores the first wins, and
    the joined placement only if it is strictly better. Needs nominal rates.
    """
    joined = mp_search(instances)
    plans = [
        _Divisions(problem, workload, together.score)
        for (problem, workload), together in zip(instances, joined, strict=True)
    ]
    searched: dict[Hashable, Result] = {}  # clusters of different sizes have shares in common
    while wanted := [(i, share) for i, plan in enumerate(plans) for share in plan.to_search()]:
        keys = [_key(*instances[i], *share) for i, share in wanted]
        new = {key: own for key, own in zip(keys, wanted, strict=True) if key not in searched}
        found = search_partitions([_share(*instances[i], *share) for i, share in new.values()])
        searched |= zip(new, found, strict=True)
        for key, (i, share) in zip(keys, wanted, strict=True):
            plans[i].found[share] = searched[key]

    tried = [(i, placement) for i, plan in enumerate(plans) for placement in plan.winners()]
    scored = score_placements([instances[i] for i, _ in tried], [p for _, p in tried])
    results = []
    for i, (plan, together) in enumerate(zip(plans, joined, strict=True)):
        candidates = [r for (owner, _), r in zip(tried, scored, strict=True) if owner == i]
        candidates.append(together)
        best = max(candidates, key=lambda result: result.score)
        made = [*candidates, *plan.found.values()]
        total = sum(result.num_simulations for result in made)
        results.append(dataclasses.replace(best, num_simulations=total))
    return results


class _Divisions:
    """The balanced divisions of an instance, and what is known of the shares that they consist of.

    Buckets do not affect each other, so a division scores what its shares do together: bounds on
    those that were not searched, and the scores of those that were, bound a division.
    """

    def __init__(self, problem: Problem, workload: Workload, to_beat: float) -> None:
        self.found: dict[tuple[Bucket, int], Result] = {}
        self._to_beat = to_beat
        buckets = make_buckets(problem)
        self._divisions: list[Division] = []
        self._balanced_first: list[Division] = []
        if len(buckets) > 1:
            self._divisions, imbalance = balanced_divisions(problem, buckets)
            order = np.argsort(imbalance, kind="stable")
            self._balanced_first = [self._divisions[i] for i in order]
        bound = ServedBound(problem, workload)
        self._bounds = {
            share: float(score_counts(bound(*share), 0, len(workload), bound.replicas(*share)))
            for share in dict.fromkeys(itertools.chain.from_iterable(self._divisions))
        }

    def to_search(self) -> list[tuple[Bucket, int]]:
        """What the most promising divisions lack; nothing if it is known which ones win."""
        could_win = [
            division
            for division in self._balanced_first
            if self._score(division) >= self._best() - ROUNDING and not self._known(division)
        ]
        could_win.sort(key=self._score, reverse=True)
        shares = dict.fromkeys(itertools.chain.from_iterable(could_win[:AT_ONCE]))
        return [share for share in shares if share not in self.found]

    def winners(self) -> list[Placement]:
        """The placements of the best score, in the published order."""
        return [
            _join(self.found[share] for share in division)
            for division in self._divisions
            if self._known(division) and self._score(division) >= self._best() - ROUNDING
        ]

    def _known(self, division: Division) -> bool:
        return all(share in self.found for share in division)

    def _score(self, division: Division) -> float:
        """The division's score, up to rounding, if it is known, else an upper bound."""
        return sum(
            self.found[share].score if share in self.found else self._bounds[share]
            for share in division
        )

    def _best(self) -> float:
        known = [self._score(division) for division in self._divisions if self._known(division)]
        return max([self._to_beat, *known])


def _join(parts: Iterable[Result]) -> Placement:
    return Placement(tuple(group for part in parts for group in part.static.groups))


def _share(problem: Problem, workload: Workload, bucket: Bucket, num_devices: int) -> Share:
    cluster = dataclasses.replace(problem.cluster, num_devices=num_devices)
    return dataclasses.replace(problem, cluster=cluster), workload, bucket


def _key(problem: Problem, workload: Workload, bucket: Bucket, num_devices: int) -> Hashable:
    """Equal where a share is the same search."""
    cluster = dataclasses.replace(problem.cluster, num_devices=num_devices)
    return problem.models, problem.rules, id(problem.profile), id(workload), cluster, bucket


def make_buckets(problem: Problem) -> list[Bucket]:
    """Each model goes to the first bucket whose first member has a similar latency, or opens one.

    Raises ProfileError for a type whose latency on a single device is not known.
    """
    latency_s = [problem.profile.single_device_latency_s(model.type) for model in problem.models]
    buckets: list[list[int]] = []
    for model, own in enumerate(latency_s):
        for bucket in buckets:
            first = latency_s[bucket[0]]
            if abs(own - first) < SIMILAR * first:
                bucket.append(model)
                break
        else:
            buckets.append([model])
    return [tuple(bucket) for bucket in buckets]


def balanced_divisions(
    problem: Problem, buckets: Sequence[Bucket]
) -> tuple[list[Division], NDArray[np.float64]]:
    """Divisions whose throughput, bucket by bucket, is not too far from the traffic's shares.

    Also how far it is, float64 [division].
    """
    divisions, imbalance = divisions_of(problem, buckets, nominal_rates("mp-search-sep", problem))
    kept = imbalance < IMBALANCES[0]
    for bound in IMBALANCES[1:]:
        if kept.sum() < FEW_DIVISIONS or not (imbalance < bound).any():
            break
        kept = imbalance < bound
    return [divisions[i] for i in np.flatnonzero(kept)], imbalance[kept]


def divisions_of(
    problem: Problem, buckets: Sequence[Bucket], traffic: NDArray[Any]
) -> tuple[list[Division], NDArray[np.float64]]:
    """All divisions, and how far the throughput of each is from the traffic, float64 [division].

    traffic: [model], rates or numbers of requests. A division's imbalance is the largest
    difference, over the buckets, between the share of the throughput and that of the traffic.
    """
    cluster, profile = problem.cluster, problem.profile
    counts = list(divide(cluster.num_devices, len(buckets), cluster.devices_per_node))
    demand = np.array([traffic[list(bucket)].sum() for bucket in buckets]) / traffic.sum()
    types = [problem.models[bucket[0]].type for bucket in buckets]
    latency_s = [profile.single_device_latency_s(kind) for kind in types]
    throughput = np.array(counts, np.float64).reshape(-1, len(buckets)) / latency_s
    imbalance = np.abs(throughput / throughput.sum(1, keepdims=True) - demand).max(1)
    return [tuple(zip(buckets, count, strict=True)) for count in counts], imbalance


def separate(
    problem: Problem, workload: Workload, divisions: Sequence[Division]
) -> tuple[list[Placement], int]:
    """Per division every bucket by `mp_search` on its own devices; also how many simulations."""
    shares = list(dict.fromkeys(share for division in divisions for share in division))
    found = search_partitions([_share(problem, workload, *share) for share in shares])
    of = dict(zip(shares, found, strict=True))
    placements = [_join(of[share] for share in division) for division in divisions]
    return placements, sum(result.num_simulations for result in found)


def divide(num_devices: int, num_buckets: int, node: int) -> Iterator[tuple[int, ...]]:
    """Ways to give every bucket some devices, decided from the last bucket to the first.

    Of the n devices that are left a bucket may take i if i <= n mod node, or if n - i or n is a
    multiple of the node's devices. The first bucket takes all that are left to it.
    """
    if num_buckets == 1:
        yield (num_devices,)
        return
    for taken in range(1, num_devices - num_buckets + 2):
        left = num_devices - taken
        if taken <= num_devices % node or left % node == 0 or num_devices % node == 0:
            for others in divide(left, num_buckets - 1, node):
                yield (*others, taken)
