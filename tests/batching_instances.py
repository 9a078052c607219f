"""Random instances of dynamic batching for property tests; see `instances`."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from beta_jax import Cluster, Group, Model, ParallelConfig, Placement, Problem, Rules, Schedule
from beta_jax.types import BATCH_SIZES, BATCHING

from instances import CONFIGS, Instance, make_profile, workloads

NUM_MODELS = 3
# Examples share compiled programs only while shapes repeat, so the first few are slow.
relaxed = settings(max_examples=60)


@st.composite
def profiles(draw):
    """Stages of any length, and of none that is shorter for more requests."""
    seconds = st.sampled_from((0.01, 0.013, 0.02, 0.05))
    more = st.sampled_from((0.0, 0.002, 0.01))

    def stages(config: ParallelConfig) -> dict[int, list[float]]:
        latency, by_batch = [draw(seconds) for _ in range(config.pp)], {}
        for batch in BATCH_SIZES:
            by_batch[batch] = latency
            latency = [stage + draw(more) for stage in latency]
        return by_batch

    return make_profile({kind: {c: stages(c) for c in CONFIGS} for kind in ("a", "b")})


@st.composite
def problems(draw, batching=BATCHING) -> Problem:
    slo = st.sampled_from((0.005, 0.03, 0.1, 0.4, math.inf))
    models = tuple(
        Model(f"m{i}", draw(st.sampled_from(("a", "b"))), draw(slo)) for i in range(NUM_MODELS)
    )
    rules = Rules(
        stage_overhead=draw(st.sampled_from((0.0, 0.009))),
        request_overhead_s=draw(st.sampled_from((0.0, 0.011))),
        batching=draw(st.sampled_from(batching)),
        max_batch=draw(st.sampled_from(BATCH_SIZES)),
    )
    return Problem(models, Cluster(num_devices=64), draw(profiles()), rules)


@st.composite
def placements(draw) -> Placement:
    """Up to four groups, and an empty one of every configuration: shapes that are all the same."""
    hosted = st.tuples(st.sampled_from(CONFIGS), st.sets(st.integers(0, NUM_MODELS - 1)))
    groups = draw(st.lists(hosted, max_size=4)) + [(config, set()) for config in CONFIGS]
    order = draw(st.permutations(groups))
    return Placement(tuple(Group(config, tuple(models)) for config, models in order))


@st.composite
def instances(draw, batching=BATCHING) -> Instance:
    problem, workload = draw(problems(batching)), draw(workloads(NUM_MODELS))
    if draw(st.booleans()):
        return Instance(problem, draw(placements()), workload)
    starts = sorted(draw(st.sets(st.integers(-2, len(workload)), min_size=1, max_size=3)))
    start_s = np.unique([workload.arrival_s[i] if 0 <= i < len(workload) else i for i in starts])
    segments = tuple(draw(placements()) for _ in start_s)
    return Instance(problem, Schedule(tuple(map(float, start_s)), segments), workload)
