"""The simulator: any number of placements, workloads and SLOs at once, integer-exact.

    tally = simulate(problem, [placement_a, placement_b], workload)
    tally.attainment                                      # float64 [lane]

See `kernel` for the dynamics (Beta, OSDI 2023, section 5 and its published simulator).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from beta_jax import backend  # noqa: F401 - sets up JAX, so it comes first
from beta_jax.parallel import run_parallel
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.batch_packing import pack_batches
from beta_jax.simulator.kernels.batching import simulate_batches
from beta_jax.simulator.kernels.choose import simulate_block
from beta_jax.simulator.lanes import make_cases
from beta_jax.simulator.layout import Dispatch
from beta_jax.simulator.packing import (
    MAX_LANES,
    SimulationError,
    group_lanes,
    lanes_within,
    pack_block,
)
from beta_jax.simulator.results import Outcome, Tally, join_counts, join_requests
from beta_jax.types import Workload

__all__ = ["SIMULATOR_VERSION", "Dispatch", "Outcome", "SimulationError", "Tally", "simulate"]

SIMULATOR_VERSION = 1
"""Changes whenever any simulated number does; stored with every result."""
REQUEST_OUTPUT_BYTES = 2**28
"""Per-request outputs of a block are kept under this size, by using fewer lanes."""


@overload
def simulate(
    problems: Problem | Sequence[Problem],
    placements: Placement | Schedule | Sequence[Placement | Schedule],
    workloads: Workload | Sequence[Workload],
    *,
    warmup_s: float = ...,
    outputs: Literal["tally"] = ...,
) -> Tally: ...
@overload
def simulate(
    problems: Problem | Sequence[Problem],
    placements: Placement | Schedule | Sequence[Placement | Schedule],
    workloads: Workload | Sequence[Workload],
    *,
    warmup_s: float = ...,
    outputs: Literal["requests"],
) -> list[Outcome]: ...
def simulate(problems, placements, workloads, *, warmup_s=0.0, outputs="tally"):
    """Simulate one lane per placement, problem and workload; each argument is one, or one per lane.

    warmup_s: leave this many seconds of requests at both ends out of the counts (the paper: 10).
    outputs: "tally" returns a `Tally` of exact counts, "requests" a list of an `Outcome` per lane.

    Lanes that share a workload run together in blocks; results never depend on how. Raises
    PlacementError for a placement that is not valid for its problem, SimulationError for what the
    engine cannot represent, ValueError if the warm-up cut leaves nothing or lengths differ.
    """
    if outputs not in ("tally", "requests"):
        raise ValueError(f"outputs must be 'tally' or 'requests', got {outputs!r}")
    keep_requests = outputs == "requests"
    cases = make_cases(problems, placements, workloads, warmup_s)
    lanes = [lane for case in cases for lane in case.lanes]
    longest = max((len(lane.workload) for lane in lanes), default=0)
    max_lanes = (
        lanes_within(REQUEST_OUTPUT_BYTES // (10 * longest + 1)) if keep_requests else MAX_LANES
    )
    blocks = group_lanes(lanes, max_lanes)

    def run(members: list[int]) -> list[np.ndarray]:
        own = [lanes[i] for i in members]
        if own[0].batches:
            batching = own[0].problem.rules.batching
            counts, requests = simulate_batches(
                pack_batches(own), batching=batching, keep_requests=keep_requests
            )
        else:
            shape, block, _ = pack_block(own)
            counts, requests = simulate_block(shape, block, keep_requests=keep_requests)
        return [np.asarray(array) for array in (requests if keep_requests else counts)]

    results: dict[int, list[np.ndarray]] = {}
    for members, arrays in zip(blocks, run_parallel(run, blocks), strict=True):
        for column, index in enumerate(members):
            results[index] = [array[..., column] for array in arrays]
    in_order = iter(results[index] for index in range(len(lanes)))
    per_case = [[next(in_order) for _ in case.lanes] for case in cases]
    return join_requests(cases, per_case) if keep_requests else join_counts(cases, per_case)
