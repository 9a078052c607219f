"""The baseline: the published event loop as a scalar Numba function (development dependency only).

What a fast scalar simulator does: integer clocks, a list of candidate groups per model, and the
same tallies as the batch engine.
"""

import numba
import numpy as np

FAR = np.int64(2**62)


def _simulate_lanes(first, candidates, stages, arrival, model, deadline, overhead, num_groups):
    """first: int32 [lane, model + 1], offsets into candidates; stages: int64 [model, stage]."""
    num_lanes, num_models = deadline.shape
    num_stages = stages.shape[1]
    good = np.zeros((num_lanes, num_models), np.int64)
    latency = np.zeros((num_lanes, num_models), np.int64)
    dispatched = np.zeros((num_lanes, num_groups), np.int64)
    group_good = np.zeros((num_lanes, num_groups), np.int64)
    for lane in numba.prange(num_lanes):
        after = np.zeros(num_stages, np.int64)
        clock = np.zeros((num_groups, num_stages), np.int64)
        for i in range(len(arrival)):
            m, t = model[i], arrival[i]
            best, earliest = -1, FAR
            for j in range(first[lane, m], first[lane, m + 1]):
                g = candidates[lane, j]
                if clock[g, num_stages - 1] < earliest:
                    best, earliest = g, clock[g, num_stages - 1]
            if best < 0:
                continue
            dispatched[lane, best] += 1
            x = t
            for k in range(num_stages):
                x = max(x, clock[best, k]) + stages[m, k]
                after[k] = x
            if x + overhead - t <= deadline[lane, m]:
                for k in range(num_stages):
                    clock[best, k] = after[k]
                good[lane, m] += 1
                latency[lane, m] += x + overhead - t
                group_good[lane, best] += 1
    return good, latency, dispatched, group_good


simulate_lanes = numba.njit(_simulate_lanes)
simulate_lanes_parallel = numba.njit(parallel=True)(_simulate_lanes)


def candidate_lists(hosted):
    """hosted: bool [model, group, lane] to the offsets and candidates of `simulate_lanes`."""
    num_models, _, num_lanes = hosted.shape
    counts = hosted.sum(axis=1)  # [model, lane]
    first = np.zeros((num_lanes, num_models + 1), np.int32)
    first[:, 1:] = np.cumsum(counts, axis=0).T
    candidates = np.zeros((num_lanes, max(first.max(), 1)), np.int32)
    for lane in range(num_lanes):
        _, groups = np.nonzero(hosted[..., lane])
        candidates[lane, : len(groups)] = groups
    return first, candidates
