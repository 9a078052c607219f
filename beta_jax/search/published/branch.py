"""Branch and bound: group partitions are filled only where they may still be part of the best.

A candidate consists of shares, each of some models and some devices, that do not affect each other:
it scores what its shares do together, and a share what its best partition does. So the scores of
the partitions that are filled, and bounds on those that are not, bound every candidate. What wins
does not change: left out is only what is known to score less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from beta_jax.placement.partition import Partition, enumerate_partitions
from beta_jax.placement.problem import Problem
from beta_jax.search.bounds import partition as partition_bound
from beta_jax.search.bounds.partition import PartitionBound
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.search.instances import fits_alone
from beta_jax.search.result import Result
from beta_jax.traits import Trait
from beta_jax.types import Workload

RELIES_ON = Trait.LOCAL
"""Without it the scores of shares do not add up: then all are filled, and all candidates win."""
LONG = 2**14
"""With so many requests, those of all shares together, it takes longer to fill than to bound."""
AT_ONCE, AT_ONCE_SHORT = 8, 24
"""Partitions that are filled before looking what they rule out, counted by effort: enough for a few
cores, and of short workloads enough for large blocks."""
ROUNDING = 1e-9
"""Scores of shares add up to that of the candidate, but for rounding, which is far less."""


class Share(NamedTuple):
    """A problem, its training workload, and which of its models to place (None: all)."""

    problem: Problem
    workload: Workload
    models: tuple[int, ...] | None = None

    def partitions(self) -> list[Partition]:
        """The partitions on which something fits; if there are none, one on which nothing does."""
        partitions = enumerate_partitions(self.problem.cluster)
        configs = sorted({config for partition in partitions for config in partition})
        fits = fits_alone(self.problem, configs)[list(self.indices())]
        usable = {configs[c] for c in np.flatnonzero(fits.any(axis=0))}
        return [p for p in partitions if not usable.isdisjoint(p)] or partitions[:1]

    def indices(self) -> Sequence[int]:
        return range(len(self.problem.models)) if self.models is None else self.models

    def task(self, partition: Partition) -> GreedyTask:
        return GreedyTask(self.problem, self.workload, partition, self.models)

    def traffic_key(self) -> Hashable:
        """Equal where all but the devices and the choice of models is."""
        problem = self.problem
        memory = tuple(pool.memory_bytes for pool in problem.cluster.pools)
        return problem.models, problem.rules, memory, problem.profile, self.workload


class ShareSearch:
    """What is known of a share's partitions.

    score: the share's if it is known, else an upper bound. least: what it scores at least, -inf if
    nothing is filled. bounds: on the scores of partitions; all of these are of SLO attainment where
    `attainment` says so;
    is_bounded: whether there is nothing to gain from tighter ones. filled: results, by index of a
    partition. unknown: indices of those that may yet be the first with the best score, the most
    promising ones first. effort: of filling a partition, 1 with all models.
    """

    def __init__(self, share: Share, most: float = math.inf, *, attainment: bool = False) -> None:
        """most: a bound on the share's score that is known already."""
        self.share, self.partitions = share, share.partitions()
        self._attainment = attainment
        self.filled: dict[int, Result] = {}
        self.is_bounded = False
        asked = np.isin(share.workload.model, share.indices())
        self.effort = 1.0 if share.models is None else float(asked.mean()) if len(asked) else 0.0
        if attainment:
            most = min(most, float(asked.mean()) if len(asked) else 0.0)
        self.bounds = [most] * len(self.partitions)
        self._update()

    def bound(self, bound: PartitionBound) -> None:
        models = tuple(self.share.indices())
        tighter = [
            bound(partition, models, attainment=self._attainment) for partition in self.partitions
        ]
        self.bounds = [min(pair) for pair in zip(self.bounds, tighter, strict=True)]
        self.is_bounded = True
        self._update()

    def add(self, index: int, result: Result) -> None:
        self.filled[index] = result
        self._update()

    def best(self) -> Result:
        """Of equal scores the first in the published order."""
        return max((self.filled[i] for i in sorted(self.filled)), key=lambda r: r.score)

    def _value(self, result: Result) -> float:
        return (result.attainment or 0.0) if self._attainment else result.score

    def _update(self) -> None:
        self.least = best = max(map(self._value, self.filled.values()), default=-math.inf)
        rest = [i for i in range(len(self.partitions)) if i not in self.filled]
        self.score = max([best, *(self.bounds[i] for i in rest)])
        # What attains as much is as good, of equal scores the first one wins.
        enough = best + ROUNDING if self._attainment else best - ROUNDING
        able = [i for i in rest if self.bounds[i] >= enough]
        self.unknown = sorted(able, key=lambda i: -self.bounds[i])


Candidate = Sequence[ShareSearch]


class Candidates:
    """Candidates of which the best is wanted.

    doubt: [candidate], by which equally promising ones are ordered, the least doubtful first.
    tolerance: how much lower the winner's SLO attainment may be; its shares are such that compare
    attainment. None: the best by score.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        doubt: Iterable[float],
        tolerance: float | None = None,
    ) -> None:
        self._tolerance = tolerance
        self.shares = list(dict.fromkeys(itertools.chain.from_iterable(candidates)))
        self._candidates = candidates
        self._by_doubt = [candidates[i] for i in np.argsort(list(doubt), kind="stable")]
        requests = sum(len(own.share.workload) * own.effort for own in self.shares)
        # Without a deadline everything is served, and the bounds rule nothing out.
        models = (model for own in self.shares for model in own.share.problem.models)
        worth_it = requests >= LONG and all(math.isfinite(model.slo_s) for model in models)
        traits = [own.share.problem.rules.traits(own.share.workload) for own in self.shares]
        worth_it &= all(partition_bound.RELIES_ON in own for own in traits)
        self._add_up = all(RELIES_ON in own for own in traits)
        self._at_once = AT_ONCE if worth_it else AT_ONCE_SHORT
        for own in self.shares:
            own.is_bounded = not worth_it

    def wanted(self, bounds: _Bounds) -> list[tuple[ShareSearch, int]]:
        """Which partitions to fill next; nothing if it is known what wins."""
        while True:
            hopeful = [c for c in self._able_to_win(self._by_doubt) if not self._is_known(c)]
            hopeful.sort(key=_score, reverse=True)
            unbounded = [share for c in hopeful[:1] for share in c if not share.is_bounded]
            for share in unbounded:
                share.bound(bounds.of(share.share))
            if not unbounded:
                break
        found: dict[tuple[ShareSearch, int], None] = {}
        effort = 0.0
        # Twice: what the share and what the candidate are compared with is rounded.
        enough = self._enough() - ROUNDING
        for candidate in itertools.takewhile(_is_bounded, hopeful):
            # First what takes less time: it tells how much the rest must score.
            for share in sorted(candidate, key=lambda share: share.effort):
                others = _score([other for other in candidate if other is not share])
                able = [i for i in share.unknown if share.bounds[i] + others >= enough]
                for index in able:
                    if effort < self._at_once and (share, index) not in found:
                        found[share, index] = None
                        effort += share.effort
                if able and enough > -math.inf:
                    break
        return list(found)

    def winners(self) -> list[Candidate]:
        """Those of the best score, up to rounding, once nothing is wanted any more."""
        if self._tolerance is not None:
            best = self._best()
            return [c for c in self._candidates if best - ROUNDING <= _least(c) > -math.inf]
        return [c for c in self._able_to_win(self._candidates) if self._is_known(c)]

    def num_simulations(self) -> int:
        filled = (result for share in self.shares for result in share.filled.values())
        return sum(result.num_simulations for result in filled)

    def _able_to_win(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        enough = self._enough()
        return [c for c in candidates if _score(c) >= enough]

    def _enough(self) -> float:
        """What a candidate that is not known must be able to score, to be worth a try."""
        if self._tolerance is None:
            return self._best() - ROUNDING
        return self._best() + self._tolerance + ROUNDING

    def _best(self) -> float:
        if not self._add_up:
            return -math.inf
        if self._tolerance is not None:
            return max(map(_least, self._candidates), default=-math.inf)
        return max((_score(c) for c in self._candidates if self._is_known(c)), default=-math.inf)

    def _is_known(self, candidate: Candidate) -> bool:
        if self._tolerance is not None:
            return _score(candidate) - _least(candidate) <= self._tolerance + ROUNDING
        return not any(share.unknown for share in candidate)


def _score(candidate: Candidate) -> float:
    return sum(share.score for share in candidate)


def _least(candidate: Candidate) -> float:
    return sum(share.least for share in candidate)


def _is_bounded(candidate: Candidate) -> bool:
    return all(share.is_bounded for share in candidate)


class _Bounds:
    """Bounds for every traffic, made when one of its shares first needs them."""

    def __init__(self, shares: Sequence[ShareSearch]) -> None:
        self._wanted: dict[Hashable, dict[tuple[Partition, tuple[int, ...]], None]] = {}
        for own in shares:
            wanted = self._wanted.setdefault(own.share.traffic_key(), {})
            models = tuple(own.share.indices())
            wanted.update(dict.fromkeys((partition, models) for partition in own.partitions))
        self._made: dict[Hashable, PartitionBound] = {}

    def of(self, share: Share) -> PartitionBound:
        key = share.traffic_key()
        if key not in self._made:
            wanted = list(self._wanted[key])
            self._made[key] = PartitionBound(share.problem, share.workload, wanted)
        return self._made[key]


def explore(plans: Sequence[Candidates]) -> None:
    """Fill partitions, those of all plans together, until it is known for each which ones win.

    What plans have in common is filled once.
    """
    bounds = _Bounds([share for plan in plans for share in plan.shares])
    filled: dict[Hashable, Result] = {}
    while wanted := [own for plan in plans for own in plan.wanted(bounds)]:
        keys = [
            (own.share.traffic_key(), own.share.models, own.partitions[index])
            for own, index in wanted
        ]
        new = {key: own for key, own in zip(keys, wanted, strict=True) if key not in filled}
        tasks = [own.share.task(own.partitions[index]) for own, index in new.values()]
        filled |= zip(new, fill_greedily(tasks), strict=True)
        for key, (own, index) in zip(keys, wanted, strict=True):
            own.add(index, filled[key])
