"""The baseline of dynamic batching: the published rules as a scalar Numba function.

What a fast scalar simulator does: integer clocks, lists of the hosts of a model and of the models
of a group, queues as ranges of the requests sorted by model, events in a sorted array, and the same
tallies as the batch engine.
"""

import numba
import numpy as np

FAR = np.int64(2**62)


@numba.njit
def _end(now, stages, clock):
    for k in range(len(stages)):
        now = max(now, clock[k]) + stages[k]
    return now


@numba.njit
def _oldest(members, head, tail, queued):
    best, earliest = -1, FAR
    for m in members:
        if head[m] < tail[m] and queued[head[m]] < earliest:
            best, earliest = m, queued[head[m]]
    return best


def _simulate_lanes(
    first, groups_of, first_member, models_of, stages, arrival, model, deadline, overhead, max_batch
):
    """Candidates as in `baseline`, by model and by group; stages: int64 [model, size, stage]."""
    num_lanes, num_models = deadline.shape
    num_groups, num_stages = first_member.shape[1] - 1, stages.shape[2]
    good = np.zeros((num_lanes, num_models), np.int64)
    latency = np.zeros((num_lanes, num_models), np.int64)
    dispatched = np.zeros((num_lanes, num_groups), np.int64)
    group_good = np.zeros((num_lanes, num_groups), np.int64)
    begin = np.zeros(num_models + 1, np.int64)
    begin[1:] = np.cumsum(np.bincount(model, minlength=num_models))
    queued = arrival[np.argsort(model, kind="mergesort")]
    for lane in numba.prange(num_lanes):
        clock = np.zeros((num_groups, num_stages), np.int64)
        head, tail = begin[:-1].copy(), begin[:-1].copy()
        due = np.zeros(len(arrival) + 1, np.int64)
        of_group = np.zeros(len(arrival) + 1, np.int64)
        event, end_of_events = 0, 0
        i = 0
        while True:
            if i < len(arrival):
                t = arrival[i]
            elif event < end_of_events:
                t = FAR
            else:
                break
            # What to serve: a due event that finds a request, else the arrival.
            now, m, g = t, -1, -1
            if event < end_of_events and due[event] <= t:
                now, g = due[event], of_group[event]
                event += 1
                members = models_of[lane, first_member[lane, g] : first_member[lane, g + 1]]
                m = _oldest(members, head, tail, queued)
                if m < 0 and i == len(arrival):
                    continue
            if m < 0:
                m, now, g, earliest = model[i], t, -1, FAR
                i += 1
                for j in range(first[lane, m], first[lane, m + 1]):
                    host = groups_of[lane, j]
                    if clock[host, num_stages - 1] < earliest:
                        g, earliest = host, clock[host, num_stages - 1]
                tail[m] += 1
                if g < 0:
                    head[m] += 1
                    continue
                if clock[g, 0] > t:
                    continue
            # Serve it.
            while m >= 0:
                slack = deadline[lane, m] - overhead
                alone = _end(now, stages[m, 0], clock[g])
                while head[m] < tail[m] and alone - queued[head[m]] > slack:
                    head[m] += 1
                    dispatched[lane, g] += 1
                if head[m] < tail[m]:
                    break
                members = models_of[lane, first_member[lane, g] : first_member[lane, g + 1]]
                m = _oldest(members, head, tail, queued)
            if m < 0:
                continue
            size, b = 1, 0
            while (
                2 * size <= max_batch
                and 2 * size <= tail[m] - head[m]
                and _end(now, stages[m, b + 1], clock[g]) - queued[head[m]] <= slack
            ):
                size, b = 2 * size, b + 1
            x = now + overhead
            for k in range(num_stages):
                x = max(x, clock[g, k]) + stages[m, b, k]
                clock[g, k] = x
            for _ in range(size):
                latency[lane, m] += x - queued[head[m]]
                head[m] += 1
            good[lane, m] += size
            dispatched[lane, g] += size
            group_good[lane, g] += size
            # The next event, in order of (time, group).
            j, time = end_of_events, clock[g, 0]
            while j > event and (due[j - 1] > time or (due[j - 1] == time and of_group[j - 1] > g)):
                due[j], of_group[j] = due[j - 1], of_group[j - 1]
                j -= 1
            due[j], of_group[j] = time, g
            end_of_events += 1
    return good, latency, dispatched, group_good


simulate_lanes = numba.njit(_simulate_lanes)
