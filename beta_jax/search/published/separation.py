"""Beta for mixed model types: models of similar latency share devices, others are kept apart.

Small requests behind large ones on one pipeline miss their deadlines. So models are put in buckets
of similar latency, the devices are divided among the buckets, and each bucket is searched alone
(Beta, OSDI 2023, section 4.2).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.bounds.served import ServedBound
from beta_jax.search.instances import Instances, devices_table, nominal_rates
from beta_jax.search.published.branch import Candidates, Share, ShareSearch, explore
from beta_jax.search.result import Result, score_counts, score_placements
from beta_jax.types import Workload

SIMILAR = 0.38
"""Latencies that differ by less, relative to a bucket's first member, share the bucket."""
IMBALANCES = (1.0, 0.5, 0.3, 0.2, 0.1)
"""Bounds on a division's imbalance, tightened until fewer than `FEW_DIVISIONS` are left."""
FEW_DIVISIONS = 100

Bucket = tuple[int, ...]
"""Models, by index."""
Devices = tuple[int, ...]
"""Their number in each pool."""
Division = tuple[tuple[Bucket, Devices], ...]
"""Buckets, each with its devices."""


def mp_search_sep(instances: Instances, *, tolerance: float | None = None) -> list[Result]:
    """The best of `mp_search` on all models together and on every division among the buckets.

    Each bucket is searched once per number of devices, and only where that may decide which one
    wins. Of equal scores the first wins, and the joined placement only if it is strictly better.
    Needs nominal rates. tolerance: as that of `mp_search`.
    """
    plans = [_candidates(problem, workload, tolerance) for problem, workload in instances]
    explore(plans)
    tried = [
        (i, _join(share.best() for share in winner))
        for i, plan in enumerate(plans)
        for winner in plan.winners()
    ]
    scored = score_placements([instances[i] for i, _ in tried], [p for _, p in tried])
    results = []
    for i, plan in enumerate(plans):
        own = [result for (of, _), result in zip(tried, scored, strict=True) if of == i]
        best = max(own, key=lambda result: result.score)
        total = plan.num_simulations() + len(own)
        results.append(dataclasses.replace(best, num_simulations=total))
    return results


def mp_search_sep_within(instances: Instances, *, millionths: int) -> list[Result]:
    """`mp_search_sep` with a tolerance in millionths."""
    return mp_search_sep(instances, tolerance=millionths / 1e6)


def _candidates(problem: Problem, workload: Workload, tolerance: float | None = None) -> Candidates:
    """The balanced divisions, of all pools and of each alone, and the models together."""
    divisions: list[Division] = []
    imbalance = np.zeros(0)
    for own in (problem, *_pools_alone(problem)):
        if len(buckets := make_buckets(own)) > 1:
            found, apart = balanced_divisions(own, buckets)
            divisions, imbalance = [*divisions, *found], np.append(imbalance, apart)
    bound = ServedBound(problem, workload)
    searches = {}
    attainment = tolerance is not None
    for share in dict.fromkeys(itertools.chain.from_iterable(divisions)):
        replicas = 0 if attainment else bound.replicas(*share)
        most = float(score_counts(bound(*share), 0, len(workload), replicas))
        part = _share(problem, workload, *share)
        searches[share] = ShareSearch(part, most, attainment=attainment)
    candidates = [[searches[share] for share in division] for division in divisions]
    together = [ShareSearch(Share(problem, workload), attainment=attainment)]
    return Candidates([*candidates, together], np.append(imbalance, 0.0), tolerance)


def _join(parts: Iterable[Result]) -> Placement:
    return Placement(tuple(group for part in parts for group in part.static.groups))


def _pools_alone(problem: Problem) -> Iterator[Problem]:
    """With the devices of one pool only; nothing unless several have some."""
    devices = devices_table(problem)
    if (devices > 0).sum() > 1:
        for pool in np.flatnonzero(devices):
            alone = np.where(np.arange(len(devices)) == pool, devices, 0)
            cluster = problem.cluster.with_devices(alone.tolist())
            yield dataclasses.replace(problem, cluster=cluster)


def _share(problem: Problem, workload: Workload, bucket: Bucket, devices: Devices) -> Share:
    cluster = problem.cluster.with_devices(devices)
    return Share(dataclasses.replace(problem, cluster=cluster), workload, bucket)


def make_buckets(problem: Problem) -> list[Bucket]:
    """Each model goes to the first bucket whose first member has a similar latency, or opens one.

    Raises ProfileError for a type whose latency on a single device is not known in any pool.
    """
    latency_s = [_latency_s(problem, model.type) for model in problem.models]
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
    pools = problem.cluster.pools
    by_pool = [divide(p.num_devices, len(buckets), p.devices_per_node, least=0) for p in pools]
    counts = [c for c in map(_by_bucket, itertools.product(*by_pool)) if all(map(any, c))]
    demand = np.array([traffic[list(bucket)].sum() for bucket in buckets]) / traffic.sum()
    types = [problem.models[bucket[0]].type for bucket in buckets]
    latency_s = [[_pool_latency_s(problem, kind, p) for p in range(len(pools))] for kind in types]
    devices = np.array(counts, np.float64).reshape(-1, len(buckets), len(pools))
    throughput = (devices / latency_s).sum(2)
    with np.errstate(invalid="ignore"):  # no bucket on devices that its models are profiled on
        imbalance = np.abs(throughput / throughput.sum(1, keepdims=True) - demand).max(1)
    return [tuple(zip(buckets, count, strict=True)) for count in counts], imbalance


def _by_bucket(by_pool: tuple[Devices, ...]) -> tuple[Devices, ...]:
    return tuple(zip(*by_pool, strict=True))


def _latency_s(problem: Problem, kind: str) -> float:
    """On a single device of the first pool with devices where it is known."""
    pools = enumerate(problem.cluster.pools)
    known = (_pool_latency_s(problem, kind, index) for index, pool in pools if pool.num_devices)
    return next(filter(math.isfinite, known), problem.profile.single_device_latency_s(kind))


def _pool_latency_s(problem: Problem, kind: str, pool: int) -> float:
    """On a single device of a pool; infinite where the type has no profile."""
    profiles = problem.profile.pools or (problem.profile,)
    if len(profiles) > 1 and kind not in profiles[pool].types:
        return math.inf
    return profiles[pool].single_device_latency_s(kind)


def divide(
    num_devices: int, num_buckets: int, node: int, least: int = 1
) -> Iterator[tuple[int, ...]]:
    """Ways to give every bucket some devices, decided from the last bucket to the first.

    Of the n devices that are left a bucket may take i if i <= n mod node, or if n - i or n is a
    multiple of the node's devices. The first bucket takes all that are left to it.
    """
    if num_buckets == 1:
        yield (num_devices,)
        return
    for taken in range(least, num_devices - least * (num_buckets - 1) + 1):
        left = num_devices - taken
        if taken <= num_devices % node or left % node == 0 or num_devices % node == 0:
            for others in divide(left, num_buckets - 1, node, least):
                yield (*others, taken)
