"""Beta for mixed model types: models of similar latency share devices, others are kept apart.

Small requests behind large ones on one pipeline miss their deadlines. So models are put in buckets
of similar latency, the devices are divided among the buckets, and each bucket is searched alone
(Beta, OSDI 2023, section 4.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
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

Bucket = tuple[int, ...]
"""Models, by index."""
Division = tuple[tuple[Bucket, int], ...]
"""Buckets, each with its number of devices."""


def mp_search_sep(instances: Instances) -> list[Result]:
    """The best of `mp_search` on all models together and on every division among the buckets.

    Each bucket is searched once per number of devices; divisions that cannot reach the joined
    placement's score, by an upper bound, are left out, which does not change what wins. Of equal
    scores the first wins, and the joined placement only if it is strictly better. Needs nominal
    rates.
    """
    joined = mp_search(instances)
    plans = [
        _promising_divisions(problem, workload, result.score)
        for (problem, workload), result in zip(instances, joined, strict=True)
    ]
    shares: dict[tuple[int, Bucket, int], Share] = {}
    for i, ((problem, workload), plan) in enumerate(zip(instances, plans, strict=True)):
        for bucket, devices in (share for division in plan for share in division):
            shares[i, bucket, devices] = _share(problem, workload, bucket, devices)
    found = dict(zip(shares, search_partitions(list(shares.values())), strict=True))

    tried = [(i, division) for i, plan in enumerate(plans) for division in plan]
    placements = [_join(found[i, *share] for share in division) for i, division in tried]
    scored = score_placements([instances[i] for i, _ in tried], placements)
    results = []
    for i, together in enumerate(joined):
        candidates = [r for (owner, _), r in zip(tried, scored, strict=True) if owner == i]
        candidates.append(together)
        best = max(candidates, key=lambda result: result.score)
        searched = [r for (owner, *_), r in found.items() if owner == i]
        total = sum(result.num_simulations for result in candidates + searched)
        results.append(dataclasses.replace(best, num_simulations=total))
    return results


def _promising_divisions(problem: Problem, workload: Workload, to_beat: float) -> list[Division]:
    """The balanced divisions whose score could reach that of the joined placement."""
    buckets = make_buckets(problem)
    if len(buckets) == 1:
        return []
    bound = ServedBound(problem, workload)

    def best_score(division: Division) -> float:
        served = sum(bound(bucket, devices) for bucket, devices in division)
        replicas = sum(len(bucket) * devices for bucket, devices in division)
        return float(score_counts(served, 0, len(workload), replicas))

    divisions = balanced_divisions(problem, buckets)
    return [division for division in divisions if best_score(division) >= to_beat]


def _join(parts: Iterable[Result]) -> Placement:
    return Placement(tuple(group for part in parts for group in part.static.groups))


def _share(problem: Problem, workload: Workload, bucket: Bucket, num_devices: int) -> Share:
    cluster = dataclasses.replace(problem.cluster, num_devices=num_devices)
    return dataclasses.replace(problem, cluster=cluster), workload, bucket


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


def balanced_divisions(problem: Problem, buckets: Sequence[Bucket]) -> list[Division]:
    """Divisions whose throughput, bucket by bucket, is not too far from the traffic's shares."""
    divisions, imbalance = divisions_of(problem, buckets, nominal_rates("mp-search-sep", problem))
    kept = imbalance < IMBALANCES[0]
    for bound in IMBALANCES[1:]:
        if kept.sum() < FEW_DIVISIONS or not (imbalance < bound).any():
            break
        kept = imbalance < bound
    return [division for division, keep in zip(divisions, kept, strict=True) if keep]


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
