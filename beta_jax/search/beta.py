"""`beta`: local search over whole placements, thousands of them simulated per second.

It starts from what the published search finds on every partition into equal groups, and from a
placement of the user's own; then groups may become unequal. Several of the best starts climb side
by side: each round every one of them has some children (see `moves`), all children are simulated on
all training workloads, and the best child replaces its parent unless it is worse. As the budget is
used up, the climbs that lag behind are given up (successive halving; Karnin et al., "Almost optimal
exploration in multi-armed bandits", ICML 2013), until one is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beta_jax.placement import Placement
from beta_jax.problem import Problem
from beta_jax.search.instances import fits_alone
from beta_jax.search.moves import Codec, Placements, children, make_space
from beta_jax.search.objective import Objective
from beta_jax.search.pipeline import fill_partitions
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer
from beta_jax.simulator.lanes import padded_size
from beta_jax.types import ParallelConfig, Workload
from beta_jax.workload import join

MAX_STARTS = 4
CHILDREN = 128
"""Children per round: two full blocks of the simulator."""
SCREENED = 4
"""With that many training workloads or more, so many times as many children meet one of them, and
the best of these meet all."""

Training = Workload | Sequence[Workload]


def beta(
    instances: Sequence[tuple[Problem, Training]],
    *,
    budget_simulations: int = 20_000,
    budget_s: float | None = None,
    worst_share: float = 1.0,
    fairness: float = 0.0,
    start_from: Placement | None = None,
    max_bytes_moved: int | None = None,
    seed: int = 0,
) -> list[Result]:
    """The best of `mp_search`, then improved by local search; see the module.
    """
    objective = Objective(worst_share, fairness)
    return [
        _Climb(problem, [training] if isinstance(training, Workload) else list(training), objective, start_from, max_bytes_moved, seed).run(
            budget_simulations, budget_s
        )
        for problem, training in instances
    ]


class _Climb:
    def __init__(self, problem, workloads, objective, start_from, max_bytes_moved, seed):
        self.problem, self.workloads, self.objective = problem, workloads, objective
        self.begin = time.perf_counter()
        self.key = jax.random.key(seed)
        configs = usable_configs(problem)
        joined = workloads[0] if len(workloads) == 1 else join(workloads, 60)
        [filled] = fill_partitions([(problem, joined, None)])
        self.filled = filled
        filled = sorted(filled, key=lambda r: -r.score)
        starts = [r.placement for r in filled[:MAX_STARTS]]
        most = max(len(p.groups) for p in starts)
        G = padded_size(min(problem.cluster.num_devices, most + 2), 4)
        G = max(G, most)
        configs = sorted({*configs, *(g.config for p in starts for g in p.groups)})
        self.codec = Codec(problem, configs, G)
        self.space = make_space(problem, configs)
        self.none = len(configs)
        self.scorer = Scorer(problem, workloads, configs, G)
        self.requests = np.array(
            [np.bincount(w.model[w.model >= 0], minlength=len(problem.models)) for w in workloads]
        )
        self.parents = self.codec.encode(starts)
        self.num_simulations = sum(r.num_simulations for r in filled)
        self.score, self.good = self.evaluate(self.parents)
        self.history = [(self.num_simulations, float(self.score.max()))]

    def evaluate(self, placements, of=None):
        scores = self.scorer(placements.hosted, jnp.minimum(placements.config, self.none - 1), of)
        some = range(len(self.workloads)) if of is None else of
        self.num_simulations += len(some) * len(placements.config)
        return self.objective(scores, self.requests[list(some)]), scores.good.sum(0)

    def run(self, budget_simulations, budget_s):
        lanes = CHILDREN
        W = len(self.workloads)
        begin = self.num_simulations
        turn = 0
        while True:
            f = (self.num_simulations - begin) / budget_simulations
            if budget_s is not None:
                f = (time.perf_counter() - self.begin) / budget_s
            if f >= 1:
                break
            alive = max(1, len(self.score) >> int(4 * f))
            top = np.argsort(-self.score, kind="stable")[:alive]
            self.key, key = jax.random.split(self.key)
            need = jnp.asarray(self.requests.sum(0) - self.good, jnp.float64)
            if W >= SCREENED:
                parent_of = np.resize(top, lanes * SCREENED)
                kids = children(key, self.space, self.parents, need, jnp.asarray(parent_of))
                of = [turn % W]; turn += 1
                s, _ = self.evaluate(kids, of)
                p, _ = self.evaluate(Placements(self.parents.hosted, self.parents.config), of)
                gain = s - p[parent_of]
                keep = np.concatenate([own[np.argsort(-gain[own], kind="stable")[: lanes // alive]] for own in (np.flatnonzero(parent_of == q) for q in top)])
                kids = jax.tree.map(lambda a: a[jnp.asarray(keep)], kids)
                parent_of = parent_of[keep]
            else:
                parent_of = np.resize(top, lanes)
                kids = children(key, self.space, self.parents, need, jnp.asarray(parent_of))
            s, good = self.evaluate(kids)
            source = np.arange(len(self.score))
            for p in top:
                own = np.flatnonzero(parent_of == p)
                j = own[s[own].argmax()]
                if s[j] >= self.score[p]:
                    source[p] = len(self.score) + j
                    self.score[p], self.good[p] = s[j], good[j]
            self.parents = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[jnp.asarray(source)], self.parents, kids)
            if self.score.max() > self.history[-1][1]:
                self.history.append((self.num_simulations, float(self.score.max())))
        j = int(self.score.argmax())
        return Result(self.codec.decode(self.parents, j), float(self.score[j]), self.num_simulations)


def usable_configs(problem: Problem) -> list[ParallelConfig]:
    cluster = problem.cluster
    kinds = {model.type for model in problem.models}
    return sorted(
        {
            c
            for kind in kinds
            for c in problem.profile.configs(kind)
            if c.num_devices <= cluster.num_devices
            and (c.num_devices <= cluster.devices_per_node or c.num_devices % cluster.devices_per_node == 0)
        }
    )
