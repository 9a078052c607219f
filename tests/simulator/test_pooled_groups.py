"""The engine on clusters of several pools, request by request, against the oracle."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Pool,
    Problem,
    Profile,
    Rules,
    Workload,
    simulate,
)

import reference
from instances import CONFIGS, Instance, make_profile, placements, problems, workloads

DISPATCHES = ("earliest_free", "earliest_finish", "shortest_queue")


class Pooled(Instance):
    """Two pools; what the oracle knows of a group is its own pool's profile."""

    def stages(self, model: int, config: ParallelConfig, batch: int) -> list[int]:
        own = self.problem.profile.pools[config.pool]
        latency_s = own.stage_latency_s(self.problem.models[model].type, config[:2], batch)
        return reference.stage_ticks(latency_s, self.problem.rules.stage_overhead)


@st.composite
def pooled(draw) -> Pooled:
    first: Problem = draw(problems(DISPATCHES))
    second: Problem = draw(problems())
    profiles: dict[str, Profile] = {"a": first.profile, "b": second.profile}
    pools = Cluster(pools=[Pool(name, 64) for name in profiles])
    problem = Problem(first.models, pools, profiles, first.rules)
    placement = draw(placements(len(first.models)))
    in_pool = draw(st.lists(st.integers(0, 1), min_size=5, max_size=5))
    groups = (
        Group(group.config._replace(pool=pool), group.models)
        for group, pool in zip(placement.groups, in_pool, strict=False)
    )
    return Pooled(problem, Placement(tuple(groups)), draw(workloads(len(first.models))))


@given(pooled())
@settings(max_examples=40)
def test_every_request_as_in_the_oracle(instance: Pooled):
    (outcome,) = simulate(*instance, outputs="requests")
    expected = instance.oracle()
    np.testing.assert_array_equal(outcome.good, expected.good)
    np.testing.assert_array_equal(outcome.finish, expected.finish)
    np.testing.assert_array_equal(outcome.group, expected.group)


def test_earliest_finish_knows_how_fast_pools_are():
    """Both groups are idle: one rule takes the first, the other the faster."""
    one = CONFIGS[0]
    profiles = {name: make_profile({"t": {one: [s]}}) for name, s in (("old", 0.4), ("new", 0.1))}
    cluster = Cluster(pools=[Pool("old", 1), Pool("new", 1)])
    problem = Problem((Model("m", "t", 1.0),), cluster, profiles)
    placement = Placement((Group(one, (0,)), Group(one._replace(pool=1), (0,))))
    arrivals = Workload.from_seconds([0.0, 10.0], [0, 0])
    for dispatch, groups in (("earliest_free", [0, 1]), ("earliest_finish", [1, 1])):
        ruled = dataclasses.replace(problem, rules=Rules(dispatch=dispatch))
        (outcome,) = simulate(ruled, placement, arrivals, outputs="requests")
        assert outcome.group.tolist() == groups
