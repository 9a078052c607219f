"""The simulator: any number of placements, workloads and SLOs at once, integer-exact.

    tally = simulate(problem, [placement_a, placement_b], workload)
    tally.attainment                                      # float64 [lane]

See `kernels` for the dynamics (Beta, OSDI 2023, section 5 and its published simulator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from beta_jax import backend  # noqa: F401 - sets up JAX, so it comes first
from beta_jax.dispatch import Dispatch, DispatchRule
from beta_jax.placement.failures import Failure
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.changing import simulate_changing
from beta_jax.simulator.engine import simulate_lanes, simulate_parts
from beta_jax.simulator.lanes import Lane, SimulationError, make_simulations
from beta_jax.simulator.results import (
    Outcome,
    Tally,
    count_outcome,
    join_counts,
    join_requests,
    part_outcome,
)
from beta_jax.simulator.state import State
from beta_jax.types import Workload

__all__ = [
    "SIMULATOR_VERSION",
    "Dispatch",
    "DispatchRule",
    "Outcome",
    "SimulationError",
    "State",
    "Tally",
    "simulate",
    "simulate_part",
]

SIMULATOR_VERSION = 1
"""Changes whenever any simulated number does; stored with every run."""


@overload
def simulate(
    problems: Problem | Sequence[Problem],
    placements: Placement | Schedule | Sequence[Placement | Schedule],
    workloads: Workload | Sequence[Workload],
    *,
    warmup_s: float = ...,
    failures: Sequence[Failure] = ...,
    outputs: Literal["tally"] = ...,
) -> Tally: ...
@overload
def simulate(
    problems: Problem | Sequence[Problem],
    placements: Placement | Schedule | Sequence[Placement | Schedule],
    workloads: Workload | Sequence[Workload],
    *,
    warmup_s: float = ...,
    failures: Sequence[Failure] = ...,
    outputs: Literal["requests"],
) -> list[Outcome]: ...
def simulate(problems, placements, workloads, *, warmup_s=0.0, failures=(), outputs="tally"):
    """Simulate one lane per placement, problem and workload; each argument is one, or one per lane.

    warmup_s: leave this many seconds of requests at both ends out of the counts (the paper: 10).
    failures: what fails in every lane. A group that returns loads all its weights at the load
        bandwidth of the cluster, at once if it has none. In a schedule they name devices or nodes.
    outputs: "tally" returns a `Tally` of exact counts, "requests" a list of an `Outcome` per lane.

    Where the cluster has a load bandwidth, the switches of a schedule load what devices lack and
    carry the backlog over (see `simulator.changing`); else they are free and forget it, as
    published. Neither this nor failures go with rules that batch.

    Lanes that share a workload run together in blocks; results never depend on how. Raises
    PlacementError for a placement that is not valid for its problem and for a failure of what is
    not there, SimulationError for what the
    engine cannot represent, ValueError if the warm-up cut leaves nothing or lengths differ.
    """
    if not (isinstance(outputs, str) and outputs in ("tally", "requests")):
        raise ValueError(f"outputs must be 'tally' or 'requests', got {outputs!r}")
    keep_requests = outputs == "requests"
    simulations = make_simulations(problems, placements, workloads, warmup_s, failures)
    static = [one for one in simulations if not one.changes]
    changing = [one for one in simulations if one.changes]
    lanes = [lane for one in static for lane in one.lanes]
    results = iter(simulate_lanes(lanes, keep_requests=keep_requests))
    outcomes = iter(simulate_changing(changing))
    if keep_requests:
        others = iter(join_requests(static, results))
        return [next(outcomes if one.changes else others) for one in simulations]
    counts = (
        [count_outcome(one, next(outcomes))] if one.changes else [next(results) for _ in one.lanes]
        for one in simulations
    )
    return join_counts(simulations, counts)


def simulate_part(
    problem: Problem, placement: Placement, workload: Workload, state: State | None = None
) -> tuple[Outcome, State]:
    """Serve the next part of a workload: simulate a trace piece by piece, in bounded memory.

    state: what the parts before left, of the same problem and placement; None: this is the first.
    Returns what became of the requests, to the bit as if all parts were one, and the state that
    they leave. Raises what `simulate` does, and SimulationError for rules that batch, for a
    workload that begins before 0, and for a state of other groups.
    """
    placement.check(problem)
    configs = [group.config for group in placement.groups]
    if problem.rules.batches:
        raise SimulationError("requests that are served in batches are simulated as a whole")
    if state is None:
        state = State.initial(configs, len(problem.models), problem.rules)
    if [len(clock) for clock in state.clock] != [config.pp for config in configs]:
        raise SimulationError("the state is of other groups")
    if not len(workload):
        return part_outcome(workload, np.zeros(0, np.int64), np.zeros(0, np.int32)), state
    hosted = tuple(group.models for group in placement.groups)
    lane = Lane(problem, tuple(configs), hosted, workload, (0, 0), state.num_requests, state)
    [(finish, group, state)] = simulate_parts([lane])
    return part_outcome(workload, finish, group), state
